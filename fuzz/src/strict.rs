//! A machine that is fast and strict: memory appears when it is touched, and whoever touches what is not his panics.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use strandline::addr::{PAGE_BYTES, Pa, Vmid};
use strandline::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use strandline::hw::{
    Barrier, CommandCounts, Cpu, DmaTlb, DmaTlbError, HoldTimeout, Memory, Scope, SizeChange, Tlbi, Vttbr,
    Word as Access,
};
use strandline_model::Pool;

const WORDS: usize = PAGE_BYTES as usize / 8;
/// Where table frames lie.
const FRAMES: u64 = strandline_model::Machine::FRAMES.0;

/// What software has done since [`Machine::forget`].
#[derive(Default)]
struct Seen {
    /// Changes of words in frames.
    changes: Cell<u64>,
    /// Words of guest RAM that were stored to.
    guest: RefCell<Vec<Pa>>,
}

/// A word of memory.
pub struct Word {
    pa: Pa,
    value: Cell<u64>,
    seen: Rc<Seen>,
}

impl Word {
    fn change(&self, new: u64) -> u64 {
        let old = self.value.replace(new);
        if self.pa.0 < FRAMES {
            self.seen.guest.borrow_mut().push(self.pa);
        } else if old != new {
            self.seen.changes.set(self.seen.changes.get() + 1);
        }
        old
    }
}

impl Access for Word {
    fn load(&self) -> u64 {
        self.value.get()
    }

    fn store(&self, value: u64) {
        self.change(value);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        let old = self.value.get();
        if old == current { Ok(self.change(new)) } else { Err(old) }
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        self.change(self.value.get() & mask)
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        self.change(self.value.get() | mask)
    }
}

/// A run of pages.
struct Area {
    start: u64,
    pages: Vec<OnceCell<Box<[Word]>>>,
}

/// The machine.
pub struct Machine {
    /// The frames, then guest RAM.
    areas: Vec<Area>,
    frames: RefCell<Pool>,
    seen: Rc<Seen>,
    clock_us: Cell<u64>,
    /// The next hold runs out of time.
    pub hold_fails: Cell<bool>,
}

impl Machine {
    /// A machine with `frames` frames, and guest RAM: first addresses, below the frames, and pages.
    pub fn new(frames: usize, ram: &[(Pa, u64)]) -> Self {
        let area =
            |start: u64, pages: u64| Area { start, pages: (0..pages).map(|_| OnceCell::new()).collect() };
        let ram = ram.iter().map(|(start, pages)| area(start.0, *pages));
        Self {
            areas: core::iter::once(area(FRAMES, frames as u64)).chain(ram).collect(),
            frames: RefCell::new(Pool::new(frames)),
            seen: Rc::default(),
            clock_us: Cell::new(0),
            hold_fails: Cell::new(false),
        }
    }

    fn page(&self, pa: Pa) -> &[Word] {
        let found = self.areas.iter().enumerate().find_map(|(number, area)| {
            let index = (pa.0.checked_sub(area.start)? / PAGE_BYTES) as usize;
            Some((number, area.pages.get(index)?))
        });
        let (area, page) = found.unwrap_or_else(|| panic!("{pa} is nobody's memory"));
        assert!(!self.frames.borrow().is_free(pa), "the frame at {pa} is free");
        page.get_or_init(|| {
            // What looks like descriptors that lead nowhere, in frames; nothing, in RAM.
            let garbage = |i: u64| if area == 0 { 0x0008_0bad_0000_07ff + (i << 12) } else { 0 };
            let first = pa.0 & !(PAGE_BYTES - 1);
            let word = |i| {
                let (pa, value) = (Pa(first + i * 8), Cell::new(garbage(i)));
                Word { pa, value, seen: Rc::clone(&self.seen) }
            };
            (0..WORDS as u64).map(word).collect()
        })
    }

    fn word(&self, pa: Pa) -> &Word {
        &self.page(pa)[(pa.0 % PAGE_BYTES / 8) as usize]
    }

    /// The word at `pa`, as anybody else than software sees it.
    pub fn read(&self, pa: Pa) -> u64 {
        self.word(pa).value.get()
    }

    /// Replaces the word at `pa`, not by software.
    pub fn write(&self, pa: Pa, value: u64) {
        self.word(pa).value.set(value);
    }

    /// Forgets what software has done.
    pub fn forget(&self) {
        self.seen.changes.set(0);
        self.seen.guest.borrow_mut().clear();
    }

    /// Changes of words in frames since [`Machine::forget`].
    pub fn changes(&self) -> u64 {
        self.seen.changes.get()
    }

    /// The words of guest RAM that software has stored to since [`Machine::forget`].
    pub fn guest_stores(&self) -> Vec<Pa> {
        self.seen.guest.borrow().clone()
    }
}

impl Memory for Machine {
    type Word = Word;

    fn words(&self, pa: Pa, count: usize) -> &[Word] {
        assert!(pa.is_aligned(8), "unaligned access at {pa}");
        &self.page(pa)[(pa.0 % PAGE_BYTES / 8) as usize..][..count]
    }

    // A block of several frames is filled at once; here each frame is a slice of its own.
    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        (0..count).for_each(|i| self.word(pa.offset(i as u64 * 8)).store(value(i)));
    }
}

impl Frames for Machine {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        self.frames.borrow_mut().alloc(order)
    }

    fn free(&self, block: FrameBlock) {
        assert!(self.frames.borrow_mut().free(block.pa(), block.order()), "{} was free already", block.pa());
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        self.frames.borrow_mut().reserve(count)
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        self.frames.borrow_mut().take(reserve)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.frames.borrow_mut().unreserve(&reserve);
    }

    fn free_frames(&self) -> usize {
        self.frames.borrow().free_frames()
    }
}

impl Cpu for Machine {
    fn barrier(&self, _barrier: Barrier) {}

    fn tlbi(&self, _vttbr: Vttbr, _op: Tlbi) {}

    fn clean_to_poc(&self, _pa: Pa, _bytes: u64) {}

    fn invalidate_from_poc(&self, _pa: Pa, _bytes: u64) {}

    fn hold(&self, _vttbr: Vttbr) -> Result<(), HoldTimeout> {
        if self.hold_fails.take() { Err(HoldTimeout) } else { Ok(()) }
    }

    fn release(&self, _vttbr: Vttbr) {}

    fn now_us(&self) -> u64 {
        self.clock_us.get()
    }

    fn relax(&self) {
        self.clock_us.set(self.clock_us.get() + 1);
    }
}

/// An SMMU that can be told to stop answering.
#[derive(Debug, Default)]
pub struct Tlb {
    /// The next operation fails.
    pub fails: Cell<bool>,
}

impl Tlb {
    fn answer(&self) -> Result<(), DmaTlbError> {
        if self.fails.take() { Err(DmaTlbError::Timeout) } else { Ok(()) }
    }
}

impl DmaTlb for Tlb {
    fn sync(&self) -> Result<(), DmaTlbError> {
        self.answer()
    }

    fn invalidate(&self, _vmid: Vmid, _scope: Scope) -> Result<(), DmaTlbError> {
        self.answer()
    }

    fn commands(&self) -> CommandCounts {
        CommandCounts::default()
    }

    fn size_change(&self) -> SizeChange {
        SizeChange::Direct
    }
}
