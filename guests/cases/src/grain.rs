//! How much more than what was written a log reports, by its granule; and whether a copy kept by it comes to an end.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::edu::{BUFFER_BYTES, Direction, Edu};
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason};
use strandline_abi::{DmaTier, Flags, GRANULE_ADAPTIVE, PAGE_BYTES, bitmap_bytes};

use crate::places::cut;

const GIB: u64 = 1 << 30;
const GRANULES: [u64; 4] = [PAGE_BYTES, 2 << 20, GIB, GRANULE_ADAPTIVE];
/// Pages that devices write between two syncs.
const WRITES: u64 = 128;
/// Rounds of an adaptive log: its leaves are others in each. With the other granules all rounds are like the first.
const ADAPTIVE_ROUNDS: u64 = 4;
/// Pages of a hot spot, in which nine of ten writes are.
const HOT: u64 = 16;
/// Pages of the memory that is copied: 16 MiB.
const COPIED: u64 = 4096;
/// Pages copied while a device writes one.
const PAGES_A_WRITE: u64 = 16;
/// So few pages are copied while the device waits: the end of the copy.
const FEW: u64 = 16;
/// A copy that has not come to its end by then never does.
const MOST_ROUNDS: u64 = 12;

/// Where a device writes.
#[derive(Clone, Copy)]
enum Pattern {
    Sequential,
    Random,
    HotSpot,
}

const PATTERNS: [(Pattern, &str); 3] =
    [(Pattern::Sequential, "sequential"), (Pattern::Random, "random"), (Pattern::HotSpot, "hot-spot")];

impl Pattern {
    /// The page of write number `count`, of so many pages.
    fn page(self, count: u64, pages: u64, rng: &mut Rng) -> u64 {
        match self {
            Self::Sequential => count % pages,
            Self::Random => rng.below(pages),
            Self::HotSpot if rng.below(10) < 9 => rng.below(HOT),
            Self::HotSpot => rng.below(pages),
        }
    }
}

/// `grain seed=S`: for each granule (1: adaptive) and pattern a line
/// `grain GRANULE PATTERN: WRITTEN pages written, REPORTED reported, round ROUND` (each page counted once), and a line
/// `copy GRANULE PATTERN: ROUNDS rounds, ENDED, COPIED pages copied`.
pub fn tells_what_a_granule_costs(guest: &Guest) -> Checked {
    let seed = guest.tree.args().number_or("seed", 1)?;
    let tier = log::features()?.tiers.dma;
    check!(matches!(tier, DmaTier::Hardware | DmaTier::Stall), "devices' writes are known by {tier}")?;
    let start = guest.free.start().checked_next_multiple_of(GIB).ok_or_else(|| reason!("no RAM"))?;
    let block = Area::new(start, GIB).filter(|block| guest.free.covers(*block));
    let block = block.ok_or_else(|| reason!("too little RAM for a block of 1 GiB"))?;
    let mut small = Area::between(guest.free.start(), start);
    let bits = cut(&mut small, bitmap_bytes(block.pages()))?;
    let seen = cut(&mut small, bitmap_bytes(block.pages()))?;
    let copy = cut(&mut small, COPIED * PAGE_BYTES)?;
    let mut case = Case { edu: Edu::of(guest)?, block, bits, seen, copy, rng: Rng::new(seed), writes: 0 };
    for granule in GRANULES {
        if granule == GRANULE_ADAPTIVE && tier != DmaTier::Hardware {
            println!("no adaptive granule: devices' writes are known by {tier}");
            continue;
        }
        for (pattern, name) in PATTERNS {
            case.reports(granule, pattern, name)?;
        }
        for (pattern, name) in PATTERNS {
            case.copies(granule, pattern, name)?;
        }
    }
    Ok(())
}

struct Case {
    edu: Edu,
    block: Area,
    bits: Window,
    /// A bit for each page that was written.
    seen: Window,
    copy: Window,
    rng: Rng,
    writes: u64,
}

impl Case {
    fn write(&mut self, pattern: Pattern, pages: u64) -> Checked {
        let page = pattern.page(self.writes, pages, &mut self.rng);
        self.writes += 1;
        self.edu.transfer(Direction::ToMemory, self.block.page(page), BUFFER_BYTES)?;
        let at = page / 64 * 8;
        self.seen.write64(at, self.seen.read64(at) | 1 << (page % 64));
        Ok(())
    }

    /// The pages of `range` that a clearing sync reports as written by devices.
    fn sync(&self, range: Area) -> Checked<u64> {
        Ok(log::sync(range, &self.bits, Flags::DMA.with(Flags::CLEAR))?.pages)
    }

    fn reports(&mut self, granule: u64, pattern: Pattern, name: &str) -> Checked {
        log::start_by(self.block, granule)?;
        self.writes = 0;
        let rounds = if granule == GRANULE_ADAPTIVE { ADAPTIVE_ROUNDS } else { 1 };
        for round in 1..=rounds {
            self.seen.fill(0);
            for _ in 0..WRITES {
                self.write(pattern, self.block.pages())?;
            }
            let reported = self.sync(self.block)?;
            let seen = Bitmap::new(&self.seen, self.block.pages());
            let (written, missing) = (seen.count(0..self.block.pages()), seen.outside(&self.bits));
            println!("grain {granule} {name}: {written} pages written, {reported} reported, round {round}");
            check!(missing.count == 0, "written and not reported: {missing:?}")?;
        }
        log::stop()?;
        Ok(())
    }

    /// A copy of the first pages, made as a migration makes it, while a device writes one page for each so many copied.
    fn copies(&mut self, granule: u64, pattern: Pattern, name: &str) -> Checked {
        let part = self.block.part(0, COPIED).ok_or_else(|| reason!("too few pages"))?;
        let memory = Window::new(part).ok_or_else(|| reason!("{part} is this guest's own"))?;
        log::start_by(part, granule)?;
        self.writes = 0;
        self.bits.fill(u64::MAX);
        let (mut rounds, mut copied) = (0, 0);
        let ended = loop {
            rounds += 1;
            let pages = Bitmap::new(&self.bits, COPIED).count(0..COPIED);
            copied += pages;
            let quiet = pages <= FEW || rounds == MOST_ROUNDS;
            let bits = self.bits;
            for (i, page) in (1..).zip(Bitmap::new(&bits, COPIED).ones(0..COPIED)) {
                for at in (page * PAGE_BYTES..(page + 1) * PAGE_BYTES).step_by(8) {
                    self.copy.write64(at, memory.read64(at));
                }
                if !quiet && u64::is_multiple_of(i, PAGES_A_WRITE) {
                    self.write(pattern, COPIED)?;
                }
            }
            if quiet {
                break pages <= FEW;
            }
            self.sync(part)?;
        };
        let how = if ended { "ended" } else { "not ended" };
        println!("copy {granule} {name}: {rounds} rounds, {how}, {copied} pages copied");
        for at in (0..part.bytes()).step_by(8) {
            check!(memory.read64(at) == self.copy.read64(at), "the copy differs at {at:#x}")?;
        }
        log::stop()?;
        Ok(())
    }
}
