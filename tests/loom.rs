//! Every interleaving of the compare-and-swap paths with hardware's own updates, by loom's model checker.
//!
//! Run by `scripts/test host` with `--cfg loom`; nothing without it.
#![cfg(loom)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64 as PlainU64, Ordering as PlainOrdering};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use strandline::addr::{Ipa, IpaRange, Pa, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::{DirtyLog, Progress, WriteFault};
use strandline::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use strandline::hw::{
    Barrier, CommandCounts, Cpu, DmaTlb, DmaTlbError, HoldTimeout, Memory, Scope, SizeChange, Tlbi, Vttbr,
    Word,
};
use strandline::stage2::descriptor::{DBM, Entry, S2AP_WRITE};
use strandline::stage2::{DmaWalker, Format, Harvest};
use strandline_abi::{CpuTier, DmaTier, Flags};

const BASE: u64 = 0x1_4000_0000;
const FRAMES: u64 = 32;
/// The address that is written: the first page of RAM, so that each word that is raced for is the first of its frame.
const RAM: u64 = 0x4000_0000;
const PAGE: u64 = 4096;

/// The first word of each frame is seen by loom; the others, which nobody races for, are not.
enum LoomWord {
    Raced(AtomicU64),
    Quiet(PlainU64),
}

impl Word for LoomWord {
    fn load(&self) -> u64 {
        match self {
            Self::Raced(word) => word.load(Ordering::Relaxed),
            Self::Quiet(word) => word.load(PlainOrdering::Relaxed),
        }
    }

    fn store(&self, value: u64) {
        match self {
            Self::Raced(word) => word.store(value, Ordering::Relaxed),
            Self::Quiet(word) => word.store(value, PlainOrdering::Relaxed),
        }
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        match self {
            Self::Raced(word) => word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire),
            Self::Quiet(word) => {
                word.compare_exchange(current, new, PlainOrdering::AcqRel, PlainOrdering::Acquire)
            }
        }
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        match self {
            Self::Raced(word) => word.fetch_and(mask, Ordering::AcqRel),
            Self::Quiet(word) => word.fetch_and(mask, PlainOrdering::AcqRel),
        }
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        match self {
            Self::Raced(word) => word.fetch_or(mask, Ordering::AcqRel),
            Self::Quiet(word) => word.fetch_or(mask, PlainOrdering::AcqRel),
        }
    }
}

/// Memory and frames; caches and TLBs are none of loom's business.
struct Machine {
    words: Vec<LoomWord>,
    free: Mutex<Vec<u64>>,
}

impl Machine {
    fn new() -> Self {
        let word = |i: u64| {
            if i.is_multiple_of(512) {
                LoomWord::Raced(AtomicU64::new(0))
            } else {
                LoomWord::Quiet(PlainU64::new(0))
            }
        };
        Self { words: (0..FRAMES * 512).map(word).collect(), free: Mutex::new((0..FRAMES).rev().collect()) }
    }
}

impl Memory for Machine {
    type Word = LoomWord;

    fn words(&self, pa: Pa, count: usize) -> &[LoomWord] {
        &self.words[((pa.0 - BASE) / 8) as usize..][..count]
    }
}

impl Frames for Machine {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        assert_eq!(order, 0, "nothing here is larger than a frame");
        FrameBlock::new(Pa(BASE + self.free.lock().unwrap().pop()? * PAGE), 0).ok()
    }

    fn free(&self, block: FrameBlock) {
        self.free.lock().unwrap().push((block.pa().0 - BASE) / PAGE);
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        Ok(FrameReserve::of(count))
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        reserve.count_down().then(|| self.alloc(0))?
    }

    fn unreserve(&self, _reserve: FrameReserve) {}

    fn free_frames(&self) -> usize {
        self.free.lock().unwrap().len()
    }
}

impl Cpu for Machine {
    fn barrier(&self, _barrier: Barrier) {
        fence(Ordering::SeqCst);
    }
    fn tlbi(&self, _vttbr: Vttbr, _op: Tlbi) {}
    fn clean_to_poc(&self, _pa: Pa, _bytes: u64) {}
    fn invalidate_from_poc(&self, _pa: Pa, _bytes: u64) {}
    fn hold(&self, _vttbr: Vttbr) -> Result<(), HoldTimeout> {
        Ok(())
    }
    fn release(&self, _vttbr: Vttbr) {}
    fn now_us(&self) -> u64 {
        0
    }
    fn relax(&self) {}
}

/// An SMMU that answers at once.
struct Tlb;

impl DmaTlb for Tlb {
    fn sync(&self) -> Result<(), DmaTlbError> {
        Ok(())
    }
    fn invalidate(&self, _vmid: Vmid, _scope: Scope) -> Result<(), DmaTlbError> {
        Ok(())
    }
    fn commands(&self) -> CommandCounts {
        CommandCounts::default()
    }
    fn size_change(&self) -> SizeChange {
        SizeChange::Direct
    }
}

static TLB: Tlb = Tlb;

fn range(bytes: u64) -> IpaRange {
    IpaRange::new(Ipa(RAM), bytes).unwrap()
}

fn space(machine: &Machine, bytes: u64) -> AddressSpace<'static, Tlb> {
    let mut space = AddressSpace::new(machine, Format::new(32).unwrap(), Vmid(1)).unwrap();
    let walker = DmaWalker { tlb: &TLB, vmid: Vmid(2), coherent: true };
    space.add_dma_view(machine, walker, DmaTier::Hardware).unwrap();
    space.map(machine, Region { range: range(bytes), pa: Pa(0x8000_0000), reach: Reach::Ram }).unwrap();
    space
}

/// Walks from `root` to the word that translates the first page of RAM, as a walker does, and what it found there.
fn walk(machine: &Machine, root: Pa) -> (&LoomWord, u64) {
    let (mut table, mut level) = (root, 1);
    loop {
        let index = RAM >> (39 - 9 * level) & 511;
        let word = &machine.words(Pa(table.0 + index * 8), 1)[0];
        let found = word.load();
        // What a table holds is read after the word that led there: a walker's address dependency.
        fence(Ordering::Acquire);
        match Entry::at(level as u8, found) {
            Entry::Table(next) => (table, level) = (next, level + 1),
            Entry::Leaf(_) | Entry::Absent => return (word, found),
        }
    }
}

fn leaf(machine: &Machine, root: Pa) -> &LoomWord {
    walk(machine, root).0
}

/// A walker with hardware dirty state translates a write: the leaf is writable-dirty when the write goes through.
fn hardware_writes(machine: &Machine, root: Pa) {
    loop {
        let (word, seen) = walk(machine, root);
        assert!(seen & DBM != 0, "a write was stopped by {seen:#x}");
        if seen & S2AP_WRITE != 0 || word.compare_exchange(seen, seen | S2AP_WRITE).is_ok() {
            return;
        }
        thread::yield_now();
    }
}

fn start(machine: &Machine, space: &mut AddressSpace<'static, Tlb>, tier: CpuTier, bytes: u64) -> DirtyLog {
    let mut log = DirtyLog::new(tier);
    let mut step = 0;
    while let Progress::More(next) = log.start(machine, space, range(bytes), step).unwrap() {
        step = next;
    }
    log
}

fn reports(machine: &Machine, space: &AddressSpace<'static, Tlb>, log: &mut DirtyLog, flags: Flags) -> bool {
    let mut found = false;
    log.sync(machine, space, range(PAGE), flags.with(Flags::CLEAR), |_, bits| found |= bits & 1 != 0)
        .unwrap();
    found
}

#[test]
fn a_hardware_update_beside_a_clean_is_found_by_it_or_by_the_next() {
    loom::model(|| {
        let machine = Arc::new(Machine::new());
        let space = space(&machine, PAGE);
        let root = space.cpu_view().tree.root();
        let harvest = |mode| {
            let mut found = false;
            space.cpu_view().tree.harvest(&*machine, range(PAGE), mode, |_, _| found = true);
            found
        };
        harvest(Harvest::Clean);
        let hardware = {
            let machine = machine.clone();
            thread::spawn(move || hardware_writes(&machine, root))
        };
        let first = harvest(Harvest::Clean);
        hardware.join().unwrap();
        assert!(first | harvest(Harvest::Clean), "a write was lost");
    });
}

#[test]
fn a_write_fault_beside_a_clearing_sync_is_never_lost() {
    loom::model(|| {
        let machine = Arc::new(Machine::new());
        let mut space = space(&machine, PAGE);
        let mut log = start(&machine, &mut space, CpuTier::Faults, PAGE);
        let space = Arc::new(space);
        let vcpu = {
            let (machine, space) = (machine.clone(), space.clone());
            thread::spawn(move || assert_eq!(space.write_fault(&*machine, Ipa(RAM)), WriteFault::Recorded))
        };
        let first = reports(&machine, &space, &mut log, Flags::CPU);
        vcpu.join().unwrap();
        assert!(first | reports(&machine, &space, &mut log, Flags::CPU), "a write was lost");
    });
}

#[test]
fn two_vcpus_that_fault_on_one_page_both_go_on_and_it_is_reported() {
    loom::model(|| {
        let machine = Arc::new(Machine::new());
        let mut space = space(&machine, PAGE);
        let mut log = start(&machine, &mut space, CpuTier::Faults, PAGE);
        let root = space.cpu_view().tree.root();
        let space = Arc::new(space);
        let vcpu = {
            let (machine, space) = (machine.clone(), space.clone());
            thread::spawn(move || assert_eq!(space.write_fault(&*machine, Ipa(RAM)), WriteFault::Recorded))
        };
        assert_eq!(space.write_fault(&*machine, Ipa(RAM)), WriteFault::Recorded);
        vcpu.join().unwrap();
        assert_ne!(leaf(&machine, root).load() & S2AP_WRITE, 0);
        assert!(reports(&machine, &space, &mut log, Flags::CPU));
    });
}

#[test]
fn a_block_that_hardware_makes_dirty_while_it_is_split_becomes_its_table_all_the_same() {
    loom::model(|| {
        const BLOCK: u64 = 2 << 20;
        let machine = Arc::new(Machine::new());
        let mut space = space(&machine, BLOCK);
        let root = space.dma_views().next().unwrap().view.tree.root();
        let block = leaf(&machine, root).fetch_and(!S2AP_WRITE);
        assert!(matches!(Entry::at(2, block), Entry::Leaf(_)));
        let hardware = {
            let machine = machine.clone();
            thread::spawn(move || hardware_writes(&machine, root))
        };
        let mut log = start(&machine, &mut space, CpuTier::Hardware, BLOCK);
        hardware.join().unwrap();
        let view = space.dma_views().next().unwrap();
        assert_eq!((view.view.tree.leaves().blocks_2m, view.view.tree.leaves().pages_4k), (0, 512));
        assert!(matches!(Entry::at(3, leaf(&machine, root).load()), Entry::Leaf(_)));
        // The write may have come before the log was on; that it is in the log is allowed, not owed.
        reports(&machine, &space, &mut log, Flags::DMA);
    });
}

#[test]
fn a_page_that_hardware_makes_dirty_while_its_table_is_merged_leaves_a_whole_block() {
    loom::model(|| {
        const BLOCK: u64 = 2 << 20;
        let machine = Arc::new(Machine::new());
        let mut space = space(&machine, BLOCK);
        let root = space.dma_views().next().unwrap().view.tree.root();
        let block = leaf(&machine, root).load();
        let mut log = start(&machine, &mut space, CpuTier::Hardware, BLOCK);
        let hardware = {
            let machine = machine.clone();
            thread::spawn(move || hardware_writes(&machine, root))
        };
        let mut step = 0;
        // The last step frees tables: the walker has ended by then, as the invalidation before it sees to.
        while let Progress::More(next) = log.stop(&*machine, &mut space, step).unwrap() {
            step = next;
            if step == 2 {
                break;
            }
        }
        hardware.join().unwrap();
        while let Progress::More(next) = log.stop(&*machine, &mut space, step).unwrap() {
            step = next;
        }
        assert_eq!(leaf(&machine, root).load(), block, "writable-dirty, as it was");
    });
}
