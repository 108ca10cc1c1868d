//! Starts of a log whose SMMU commands and walks are counted from outside.

use guest_rt::boot::Guest;
use guest_rt::edu::{BUFFER_BYTES, Edu};
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, log, println, timer};
use strandline_abi::Flags;

use crate::places::{aligned_part, cut};

/// `start size=2M|1G start=yes|no dma=yes|no`: one DMA if asked for, one start if asked for, and no stop: two runs that
/// differ in `start` differ in what a start does.
pub fn starts_once(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let range = aligned_part(guest, args.number_or("size", 2 << 20)?)?;
    if args.flag_or("dma", false)? {
        Copier::new(guest)?.copy("before the start")?;
    }
    if !args.flag_or("start", true)? {
        println!("no start");
        return Ok(());
    }
    let started = log::start(range)?;
    println!("start over {range}: {} hypercall(s), {} blocks split", started.steps, started.blocks_split);
    check!(started.blocks_split > 0, "the start split no block")
}

/// `walks size=...`: the same DMA before a start, while the log is on, and after its stop. (Default: all RAM.)
pub fn walks_blocks_then_pages_then_blocks(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let range = match args.value("size") {
        Some(_) => aligned_part(guest, args.number_or("size", 0)?)?,
        None => guest.ram,
    };
    let mut copier = Copier::new(guest)?;
    copier.copy("before the start")?;
    log::start(range)?;
    copier.copy("while the log is on")?;
    log::sync(range, &copier.bits, Flags::BOTH.with(Flags::CLEAR))?;
    copier.copy("after a sync")?;
    log::stop()?;
    copier.copy("after the stop")
}

/// Copies a page by DMA, new words each time.
struct Copier {
    edu: Edu,
    source: Window,
    target: Window,
    bits: Window,
    word: u64,
}

impl Copier {
    fn new(guest: &Guest) -> Checked<Self> {
        let mut free = guest.free;
        let bits = cut(&mut free, strandline_abi::bitmap_bytes(guest.ram.pages()))?;
        let (source, target) = (cut(&mut free, BUFFER_BYTES)?, cut(&mut free, BUFFER_BYTES)?);
        Ok(Self { edu: Edu::of(guest)?, source, target, bits, word: 0x5354_5241_4e44_0000 })
    }

    fn copy(&mut self, when: &str) -> Checked {
        println!("mark: DMA {when}");
        self.word += 1;
        self.source.fill(self.word);
        self.target.fill(0);
        self.edu.copy(self.source.start(), self.target.start(), BUFFER_BYTES)?;
        let arrived = (0..BUFFER_BYTES).step_by(8).all(|offset| self.target.read64(offset) == self.word);
        check!(arrived, "the DMA {when} did not arrive")
    }
}

/// Pages written by `fault-cost`.
const COST_PAGES: u64 = 256;

/// `fault-cost`: what the first write to a page of a log takes, and what the second one does, in ticks of the counter.
pub fn first_writes_have_their_price(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bits = cut(&mut free, strandline_abi::PAGE_BYTES)?;
    let pages = cut(&mut free, COST_PAGES * strandline_abi::PAGE_BYTES)?;
    let write_all = || {
        let began = timer::now();
        (0..COST_PAGES).for_each(|page| pages.write64(page * strandline_abi::PAGE_BYTES, began));
        timer::now() - began
    };
    log::start(pages.area())?;
    let first = write_all();
    let second = write_all();
    let faults = log::status()?.write_faults;
    let reported = log::sync(pages.area(), &bits, Flags::CPU)?.pages;
    check!(reported == COST_PAGES, "{reported} pages of {COST_PAGES} are reported")?;
    check!(faults == COST_PAGES, "{faults} faults for {COST_PAGES} first writes")?;
    println!("a first write takes {} ticks more than a second", first.saturating_sub(second) / COST_PAGES);
    log::stop()?;
    Ok(())
}
