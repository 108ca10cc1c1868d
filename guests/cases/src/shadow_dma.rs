//! A copy of memory that devices write all the while, made as a migration makes it: all of it once, then what the log says.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason};
use strandline_abi::{DmaTier, Flags, GRANULE_ADAPTIVE, LogStatus, PAGE_BYTES, bitmap_bytes};

use crate::devices::{RING_PAGES, Sources};
use crate::places::cut;

/// Pages of the memory: 8 MiB. The devices' queues are among them, the guest's own memory is not.
const PAGES: u64 = 2048;
/// Pages that the CPU writes in a round.
const CPU_PAGES: u64 = 16;
/// Pages copied between two looks at the devices.
const PAGES_BETWEEN_LOOKS: u64 = 32;
/// More syncs than it takes until nothing is written any more.
const MOST_LAST_SYNCS: u64 = 16;
/// As many syncs as what is clean is merged after, and some more.
const PASSES_AT_REST: u64 = 8;
const BOTH: Flags = Flags::BOTH.with(Flags::CLEAR);

/// `shadow-dma rounds=N seed=S devices=N inflight=N granule=N`: rounds of writes by devices and the CPU, in each of which what
/// a sync reports is copied. When the devices have come to rest, and a sync reports nothing, the copy is the memory, byte for
/// byte. At least so many devices (1) have to be there, and so many times (0) a drive's transfer on its way across a sync.
/// With the granule 1 (adaptive; else 4096) syncs have to split what was written, and merge it when all is at rest.
///
/// Needs a tier by which a copy made by loads is good: events, not contents.
pub fn a_copy_by_the_log_is_the_memory(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let (rounds, seed) = (args.number_or("rounds", 40)?, args.number_or("seed", 1)?);
    let tier = log::features()?.tiers.dma;
    check!(matches!(tier, DmaTier::Hardware | DmaTier::Stall), "devices' writes are known by {tier}")?;
    let mut free = guest.free;
    let bits = cut(&mut free, bitmap_bytes(PAGES))?;
    let memory = cut(&mut free, PAGES * PAGE_BYTES)?;
    let copy = cut(&mut free, PAGES * PAGE_BYTES)?;
    let mut rest = memory.area();
    let rings = cut(&mut rest, RING_PAGES * PAGE_BYTES)?.area();
    let mut rng = Rng::new(!seed);
    fill(&memory, &mut rng);
    let sources = Sources::new(guest, rings, rest, seed)?;
    let granule = args.number_or("granule", PAGE_BYTES)?;
    let mut case = Case { memory, copy, bits, sources, rest, rng, granule, copied: 0 };
    let enough = args.number_or("devices", 1)?;
    check!(case.sources.count() >= enough, "{} devices, not {enough}", case.sources.count())?;
    case.run(rounds)?;
    let (across, enough) = (case.sources.drives_across(), args.number_or("inflight", 0)?);
    check!(
        across >= enough,
        "only {across} times a drive's transfer was on its way across a sync, not {enough}"
    )
}

fn fill(memory: &Window, rng: &mut Rng) {
    for at in (0..memory.area().bytes()).step_by(8) {
        memory.write64(at, rng.next());
    }
}

struct Case {
    memory: Window,
    copy: Window,
    bits: Window,
    sources: Sources,
    /// The memory without the devices' queues: what the CPU may write.
    rest: Area,
    rng: Rng,
    granule: u64,
    /// Pages copied because a sync reported them.
    copied: u64,
}

impl Case {
    fn run(&mut self, rounds: u64) -> Checked {
        // Translations of the blocks are cached before they are split.
        self.look()?;
        self.sources.finish(|_| ())?;
        let started = log::start_by(self.memory.area(), self.granule)?;
        println!("log of {}: {} blocks split", self.memory.area(), started.blocks_split);
        for page in 0..PAGES {
            self.copy_page(page)?;
        }
        // Into what has been copied, and ended before the first sync.
        self.sources.finish(|_| ())?;
        self.look()?;
        self.sources.finish(|_| ())?;
        for _ in 0..rounds {
            self.look()?;
            self.write_by_cpu();
            self.sync_and_copy(true)?;
        }
        self.sources.finish(|_| ())?;
        let mut last = 1;
        while self.sync_and_copy(false)? != 0 {
            last += 1;
            check!(last <= MOST_LAST_SYNCS, "syncs go on reporting pages that nobody writes")?;
        }
        if self.granule == GRANULE_ADAPTIVE {
            self.rests()?;
        }
        log::stop()?;
        self.sources.tell();
        println!("{rounds} rounds and {last} syncs more: {} pages copied again", self.copied);
        check!(rounds > 0 && self.copied > rounds * CPU_PAGES / 2, "hardly anything was written")?;
        self.compare()
    }

    /// Nobody writes any more: what syncs have split becomes blocks again.
    fn rests(&self) -> Checked {
        let before = log::status()?;
        for _ in 0..PASSES_AT_REST {
            log::sync(self.memory.area(), &self.bits, BOTH)?;
        }
        let after = log::status()?;
        let blocks = |status: &LogStatus| status.cpu_blocks_2m + status.dma_blocks_2m;
        println!(
            "syncs split {} blocks and merged {}; at rest there are {} blocks more",
            after.splits_by_syncs,
            after.merges_by_syncs,
            blocks(&after) - blocks(&before)
        );
        check!(
            after.splits_by_syncs > 0 && blocks(&after) > blocks(&before),
            "sizes do not follow what is touched"
        )
    }

    /// Keeps the devices at work.
    fn look(&mut self) -> Checked {
        self.sources.poll(|_| ())?;
        self.sources.begin(|_| ())
    }

    fn write_by_cpu(&mut self) {
        let lead = self.rest.start() - self.memory.start();
        for _ in 0..CPU_PAGES {
            let word = self.rng.below(self.rest.bytes() / 8);
            self.memory.write64(lead + word * 8, self.rng.next());
        }
    }

    /// Copies what a sync reports, with the devices kept at work where `busy`; gives back how many pages it was.
    fn sync_and_copy(&mut self, busy: bool) -> Checked<u64> {
        log::sync(self.memory.area(), &self.bits, BOTH)?;
        self.sources.poll_after_sync(|_| ())?;
        let bits = self.bits;
        let mut pages = 0;
        for page in Bitmap::new(&bits, PAGES).ones(0..PAGES) {
            if busy {
                self.copy_page(page)?;
            } else {
                self.copy_words(page);
            }
            pages += 1;
        }
        self.copied += pages;
        Ok(pages)
    }

    fn copy_page(&mut self, page: u64) -> Checked {
        self.copy_words(page);
        if page.is_multiple_of(PAGES_BETWEEN_LOOKS) { self.look() } else { Ok(()) }
    }

    fn copy_words(&self, page: u64) {
        for at in (page * PAGE_BYTES..(page + 1) * PAGE_BYTES).step_by(8) {
            self.copy.write64(at, self.memory.read64(at));
        }
    }

    fn compare(&self) -> Checked {
        let (mut pages, mut first) = (0, None);
        for page in 0..PAGES {
            let mut words = (page * PAGE_BYTES..(page + 1) * PAGE_BYTES).step_by(8);
            if words.any(|at| self.memory.read64(at) != self.copy.read64(at)) {
                pages += 1;
                first = first.or(Some(page));
            }
        }
        match first {
            None => Ok(()),
            Some(first) => {
                Err(reason!("{pages} pages of the copy are not the memory's (the first: page {first})"))
            }
        }
    }
}
