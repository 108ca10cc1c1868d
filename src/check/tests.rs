//! A small platform that is wrong in one way at a time.

use std::cell::{Cell, RefCell};
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::frames::{Frames, OutOfFrames};
use crate::hw::{Barrier, Cpu, HoldTimeout, Memory, PairStore, Tlbi, Vttbr};

const BASE: u64 = 0x8000_0000;
const FRAMES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    OneFrame,
    OrderIgnored,
    SameFrameTwice,
    FramesShareMemory,
    StoresLost,
    LastOfARunLost,
    PairSwapped,
    AndGivesTheNewValue,
    OrReplaces,
    ExchangeNeverFails,
    FreeFramesLost,
    ReserveCountsNothing,
    TakeFails,
    TakeNeverEnds,
    ReservedFrameTwice,
    ClockStands,
    ClockBackwards,
}

struct FaultyWord {
    value: Cell<u64>,
    fault: Fault,
}

impl Word for FaultyWord {
    fn load(&self) -> u64 {
        self.value.get()
    }

    fn store(&self, value: u64) {
        if self.fault != Fault::StoresLost {
            self.value.set(value);
        }
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.value.get();
        if found != current && self.fault != Fault::ExchangeNeverFails {
            return Err(found);
        }
        self.value.set(new);
        Ok(found)
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        let old = self.value.replace(self.value.get() & mask);
        if self.fault == Fault::AndGivesTheNewValue { self.value.get() } else { old }
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        let old = self.value.get();
        self.value.set(if self.fault == Fault::OrReplaces { mask } else { old | mask });
        old
    }
}

struct Faulty {
    fault: Fault,
    words: Vec<FaultyWord>,
    free: RefCell<Vec<bool>>,
    reserved: Cell<usize>,
    clock: Cell<u64>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        let frames = if fault == Fault::OneFrame { 1 } else { FRAMES };
        let word = |_| FaultyWord { value: Cell::new(0), fault };
        Self {
            fault,
            words: (0..FRAMES * 512).map(word).collect(),
            free: RefCell::new(vec![true; frames]),
            reserved: Cell::new(0),
            clock: Cell::new(1_000),
        }
    }

    fn block(first: usize, order: u32) -> Option<FrameBlock> {
        FrameBlock::new(Pa(BASE + first as u64 * PAGE_BYTES), order).ok()
    }
}

impl Memory for Faulty {
    type Word = FaultyWord;

    fn words(&self, pa: Pa, count: usize) -> &[FaultyWord] {
        let frames = if self.fault == Fault::FramesShareMemory { 1 } else { FRAMES };
        &self.words[((pa.0 - BASE) / 8) as usize % (512 * frames)..][..count]
    }

    fn fill_ascending(&self, pa: Pa, count: usize, first: u64, step: u64) {
        let count = count - usize::from(self.fault == Fault::LastOfARunLost);
        for (word, i) in self.words(pa, count).iter().zip(0..) {
            word.store(first.wrapping_add(step.wrapping_mul(i)));
        }
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        Some(self)
    }
}

impl PairStore for Faulty {
    fn store_pair(&self, pa: Pa, mut pair: [u64; 2]) {
        if self.fault == Fault::PairSwapped {
            pair.reverse();
        }
        self.words(pa, 2).iter().zip(pair).for_each(|(word, value)| word.store(value));
    }
}

impl Frames for Faulty {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        if self.fault == Fault::SameFrameTwice {
            return Self::block(0, order);
        }
        let mut free = self.free.borrow_mut();
        let count = 1 << order;
        let first = (0..free.len())
            .step_by(count)
            .find(|i| free.get(*i..i + count).is_some_and(|run| run.iter().all(|f| *f)))?;
        free[first..first + count].fill(false);
        Self::block(first, if self.fault == Fault::OrderIgnored { 0 } else { order })
    }

    fn free(&self, block: FrameBlock) {
        if self.fault != Fault::FreeFramesLost {
            let first = ((block.pa().0 - BASE) / PAGE_BYTES) as usize;
            self.free.borrow_mut()[first..first + (1 << block.order())].fill(true);
        }
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        let free = self.free_frames();
        if free < count {
            return Err(OutOfFrames { needed: count, free });
        }
        if self.fault != Fault::ReserveCountsNothing {
            self.reserved.set(self.reserved.get() + count);
        }
        Ok(FrameReserve::of(count))
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        match self.fault {
            Fault::TakeFails => return None,
            Fault::TakeNeverEnds if reserve.left() == 0 => return Self::block(7, 0),
            Fault::ReservedFrameTwice if reserve.count_down() => {
                self.reserved.set(self.reserved.get() - 1);
                return Self::block(0, 0);
            }
            _ => {}
        }
        reserve.count_down().then_some(())?;
        self.reserved.set(self.reserved.get() - 1);
        self.alloc(0)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.reserved.set(self.reserved.get() - reserve.left());
    }

    fn free_frames(&self) -> usize {
        self.free.borrow().iter().filter(|f| **f).count() - self.reserved.get()
    }
}

impl Cpu for Faulty {
    fn barrier(&self, _: Barrier) {}
    fn tlbi(&self, _: Vttbr, _: Tlbi) {}
    fn clean_to_poc(&self, _: Pa, _: u64) {}
    fn invalidate_from_poc(&self, _: Pa, _: u64) {}
    fn hold(&self, _: Vttbr) -> Result<(), HoldTimeout> {
        Ok(())
    }
    fn release(&self, _: Vttbr) {}

    fn now_us(&self) -> u64 {
        self.clock.get()
    }

    fn relax(&self) {
        match self.fault {
            Fault::ClockStands => {}
            Fault::ClockBackwards => self.clock.set(self.clock.get() - 1),
            _ => self.clock.set(self.clock.get() + 1),
        }
    }
}

fn found(fault: Fault) -> Option<PlatformError> {
    platform(&Faulty::new(fault)).err()
}

#[test]
fn a_right_platform_passes_and_has_all_its_frames_back() {
    let right = Faulty::new(Fault::None);
    assert_eq!(platform(&right), Ok(()));
    assert_eq!(right.free_frames(), FRAMES);
}

#[test]
fn each_wrong_platform_is_named() {
    use Fault::*;
    let (first, second) = (Pa(BASE), Pa(BASE + PAGE_BYTES));
    assert_eq!(found(OneFrame), Some(PlatformError::NoFrames));
    let third = Pa(BASE + 2 * PAGE_BYTES);
    assert_eq!(found(OrderIgnored), Some(PlatformError::WrongOrder { pa: third, asked: 1, order: 0 }));
    assert_eq!(found(SameFrameTwice), Some(PlatformError::Overlap(first)));
    let shared = PlatformError::Word { pa: first, expected: !BASE, found: !(BASE + 3 * PAGE_BYTES) };
    assert_eq!(found(FramesShareMemory), Some(shared));
    assert_eq!(found(StoresLost), Some(PlatformError::Word { pa: first, expected: !BASE, found: 0 }));
    let last = PlatformError::Word {
        pa: Pa(BASE + 511 * 8),
        expected: (BASE | 0x7ff) + 511 * PAGE_BYTES,
        found: !(BASE + 511 * 8),
    };
    assert_eq!(found(LastOfARunLost), Some(last));
    let swapped = PlatformError::Word {
        pa: Pa(BASE + 16),
        expected: 0x0123_4567_89ab_cdef,
        found: 0xfedc_ba98_7654_3210,
    };
    assert_eq!(found(PairSwapped), Some(swapped));
    for fault in [AndGivesTheNewValue, OrReplaces, ExchangeNeverFails] {
        assert_eq!(found(fault), Some(PlatformError::Atomic(first)), "{fault:?}");
    }
    assert_eq!(found(FreeFramesLost), Some(PlatformError::Count { expected: 8, found: 4 }));
    assert_eq!(found(ReserveCountsNothing), Some(PlatformError::Count { expected: 6, found: 8 }));
    for fault in [TakeFails, TakeNeverEnds] {
        assert_eq!(found(fault), Some(PlatformError::Reserve), "{fault:?}");
    }
    assert_eq!(found(ReservedFrameTwice), Some(PlatformError::Overlap(first)));
    assert_eq!(found(ClockStands), Some(PlatformError::ClockStands));
    assert_eq!(found(ClockBackwards), Some(PlatformError::ClockBackwards));
    assert_eq!(PlatformError::Overlap(second).to_string(), "the memory at 0x80001000 was handed out twice");
}
