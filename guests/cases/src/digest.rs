//! Copies of memory that a device goes on writing, kept by what a log tells.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::edu::{BUFFER_BYTES, Direction, Edu};
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason, timer};
use strandline_abi::{Flags, LogStatus, PAGE_BYTES, Tiers};

use crate::places::cut;

/// Pages that the device writes.
const PAGES: u64 = 48;
/// Syncs without a transfer, after which there must be an end.
const LAST_ROUNDS: u64 = 4;
/// How long a poll of the device waits.
const POLL_US: u64 = 500;

/// A copy of memory, and what it takes to keep it.
struct Copy {
    edu: Edu,
    /// What the device writes; logged.
    original: Window,
    copy: Window,
    bitmap: Window,
    /// What the device writes from, by way of its buffer.
    source: Window,
    rng: Rng,
    /// Pages are copied by the call *read*, or else by loads of this program's own.
    by_call: bool,
    copied: u64,
}

/// `digest rounds=N seed=S copy=read|loads`: a copy of memory that is renewed page by page, as a log tells, while a device
/// writes the memory, some pages there and back between the report and the next one. In the end it equals the memory.
pub fn a_copy_kept_by_the_log_is_equal_in_the_end(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let rounds = args.number_or("rounds", 24)?;
    let mut copy = Copy::new(guest, args.number_or("seed", 1)?, args.value("copy") != Some("loads"))?;
    let status = log::status()?;
    let tiers = Tiers::from_bits(status.tiers).ok_or_else(|| reason!("unknown tiers"))?;
    println!("devices are known by {}, the key comes from source {}", tiers.dma, status.key_source);
    log::start(copy.original.area())?;
    copy.renew(copy.original.area())?;
    for round in 0..rounds {
        copy.round(round)?;
    }
    copy.finish()?;
    let after: LogStatus = log::status()?;
    println!("{rounds} rounds, {} pages copied, {} reported", copy.copied, after.pages_reported);
    check!(copy.copied >= PAGES + rounds, "too little was copied for a test: {}", copy.copied)?;
    log::stop()?;
    Ok(())
}

impl Copy {
    fn new(guest: &Guest, seed: u64, by_call: bool) -> Checked<Self> {
        let mut free = guest.free;
        let bitmap = cut(&mut free, PAGE_BYTES)?;
        let source = cut(&mut free, PAGE_BYTES)?;
        let copy = cut(&mut free, PAGES * PAGE_BYTES)?;
        let original = cut(&mut free, PAGES * PAGE_BYTES)?;
        Ok(Self {
            edu: Edu::of(guest)?,
            original,
            copy,
            bitmap,
            source,
            rng: Rng::new(seed),
            by_call,
            copied: 0,
        })
    }

    /// A transfer anywhere, across pages, with syncs while it is on its way; then one page there and back.
    fn round(&mut self, round: u64) -> Checked {
        let bytes = 1 + self.rng.below(BUFFER_BYTES);
        let offset = self.rng.below(PAGES * PAGE_BYTES - bytes);
        self.fill_device(round)?;
        self.edu.begin(Direction::ToMemory, self.original.start() + offset, bytes)?;
        while self.edu.is_busy() {
            self.sync_and_copy()?;
            timer::sleep_us(POLL_US);
        }
        if round.is_multiple_of(3) {
            self.there_and_back(round)?;
        }
        Ok(())
    }

    /// A page is written to B, which a sync reports; to A before it is copied, and to B again before the next sync.
    fn there_and_back(&mut self, round: u64) -> Checked {
        let page = self.rng.below(PAGES);
        let at = self.original.start() + page * PAGE_BYTES;
        self.sync_and_copy()?;
        self.write(at, 2 * round)?;
        self.sync()?;
        self.write(at, 2 * round + 1)?;
        self.copy_reported()?;
        self.write(at, 2 * round)
    }

    /// Quiet: syncs until one reports nothing; then memory and copy are the same.
    fn finish(&mut self) -> Checked {
        let mut rounds = 0;
        while self.sync_and_copy()? != 0 {
            rounds += 1;
            check!(rounds < LAST_ROUNDS, "pages are reported though nothing is written")?;
        }
        for offset in (0..PAGES * PAGE_BYTES).step_by(8) {
            let (original, copy) = (self.original.read64(offset), self.copy.read64(offset));
            let (page, byte) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
            check!(
                original == copy,
                "the copy differs in page {page} at {byte:#x}: {copy:#x} in place of {original:#x}"
            )?;
        }
        Ok(())
    }

    fn sync_and_copy(&mut self) -> Checked<u64> {
        self.sync()?;
        self.copy_reported()
    }

    fn sync(&self) -> Checked {
        log::sync(self.original.area(), &self.bitmap, Flags::DMA.with(Flags::CLEAR))?;
        Ok(())
    }

    fn copy_reported(&mut self) -> Checked<u64> {
        let mut pages = 0;
        for page in 0..PAGES {
            if Bitmap::new(&self.bitmap, PAGES).count(page..page + 1) == 1 {
                let area = self.original.area().part(page, 1).ok_or_else(|| reason!("no such page"))?;
                self.renew(area)?;
                pages += 1;
            }
        }
        // What was reported has been copied.
        self.bitmap.fill(0);
        Ok(pages)
    }

    /// Copies `area`.
    fn renew(&mut self, area: Area) -> Checked {
        let offset = area.start() - self.original.start();
        self.copied += area.pages();
        if self.by_call {
            let to = Area::new(self.copy.start() + offset, area.bytes()).and_then(Window::new);
            log::read(area, &to.ok_or_else(|| reason!("no place for {area}"))?)?;
            return Ok(());
        }
        for at in (offset..offset + area.bytes()).step_by(8) {
            self.copy.write64(at, self.original.read64(at));
        }
        Ok(())
    }

    /// Fills the device's buffer with words made of `content`.
    fn fill_device(&self, content: u64) -> Checked {
        let mut words = Rng::new(content);
        for offset in (0..PAGE_BYTES).step_by(8) {
            self.source.write64(offset, words.next());
        }
        self.edu.transfer(Direction::FromMemory, self.source.start(), BUFFER_BYTES)?;
        Ok(())
    }

    /// Has the device write a whole page of `content` at `at`.
    fn write(&self, at: u64, content: u64) -> Checked {
        self.fill_device(content)?;
        self.edu.transfer(Direction::ToMemory, at, PAGE_BYTES)?;
        Ok(())
    }
}
