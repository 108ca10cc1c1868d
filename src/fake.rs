//! A machine for unit tests: memory whose every store is seen, a CPU whose barriers and TLB invalidations are calls
//! in the same log, and a frame pool that can be told to run dry.
//!
//! It does not behave like hardware (a model of the hardware does that); it shows in which order software acted.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use crate::addr::{IpaRange, PAGE_BYTES, Pa, Vmid};
use crate::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use crate::hw::{
    Barrier, CommandCounts, Cpu, DmaRoot, DmaTlb, DmaTlbError, HoldTimeout, Memory, PairStore, Resume,
    ResumeError, Scope, SizeChange, Stall, StallTlb, Tlbi, TreeSwitch, Vttbr, Word,
};

/// One thing the software under test did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A plain store of one word.
    Store(Pa, u64),
    /// A store of two words at once.
    Pair(Pa, [u64; 2]),
    /// A run of plain stores into memory nobody else reaches yet: address and number of words.
    Fill(Pa, usize),
    /// A compare-and-swap that wrote: address, word before, word after.
    Swap(Pa, u64, u64),
    /// An atomic AND: address, mask.
    And(Pa, u64),
    /// An atomic OR: address, mask.
    Or(Pa, u64),
    /// A barrier.
    Barrier(Barrier),
    /// A TLB invalidation on the CPU side.
    Tlbi(Vttbr, Tlbi),
    /// A cache clean: address, bytes.
    Clean(Pa, u64),
    /// A cache invalidation: address, bytes.
    Invalidate(Pa, u64),
    /// The vCPUs of a tree were stopped.
    Hold,
    /// They were let go.
    Release,
    /// A device register was written: offset, value.
    Register(usize, u64),
    /// A frame block was given back.
    Free(Pa),
    /// A test's own mark.
    Mark(&'static str),
}

thread_local! {
    // A word lies in a slice that the library borrows from the memory, so it can't borrow the log's owner; each
    // test runs in a thread of its own.
    static TRACE: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static LOADS: Cell<u64> = const { Cell::new(0) };
}

/// Adds `event` to the log of this thread.
pub fn record(event: Event) {
    TRACE.with_borrow_mut(|t| t.push(event));
}

/// Empties the log of this thread and gives it back.
pub fn take_trace() -> Vec<Event> {
    TRACE.take()
}

/// How many words this thread has read since it was last asked.
pub fn take_loads() -> u64 {
    LOADS.take()
}

/// A word of [`Fake`] memory; every change of it is in the log.
pub struct FakeWord {
    pa: Pa,
    value: AtomicU64,
}

impl Word for FakeWord {
    fn load(&self) -> u64 {
        LOADS.set(LOADS.get() + 1);
        self.value.load(Ordering::SeqCst)
    }

    fn store(&self, value: u64) {
        record(Event::Store(self.pa, value));
        self.value.store(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        let result = self.value.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
        if result.is_ok() {
            record(Event::Swap(self.pa, current, new));
        }
        result
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        record(Event::And(self.pa, mask));
        self.value.fetch_and(mask, Ordering::SeqCst)
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        record(Event::Or(self.pa, mask));
        self.value.fetch_or(mask, Ordering::SeqCst)
    }
}

/// A word that somebody else changes when it has been read once.
pub struct RacingWord {
    first: Cell<Option<u64>>,
    now: AtomicU64,
}

impl RacingWord {
    /// One that reads `first`, and is `now` by then.
    pub fn new(first: u64, now: u64) -> Self {
        Self { first: Cell::new(Some(first)), now: AtomicU64::new(now) }
    }
}

impl Word for RacingWord {
    fn load(&self) -> u64 {
        self.first.take().unwrap_or_else(|| Word::load(&self.now))
    }

    fn store(&self, value: u64) {
        Word::store(&self.now, value);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        Word::compare_exchange(&self.now, current, new)
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        Word::fetch_and(&self.now, mask)
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        Word::fetch_or(&self.now, mask)
    }
}

/// The machine: `frames` 4 KiB frames from [`Fake::BASE`], all in the pool at first.
pub struct Fake {
    /// The words of each frame.
    memory: Vec<Box<[FakeWord]>>,
    free: RefCell<Vec<bool>>,
    reserved: Cell<usize>,
    clock_us: Cell<u64>,
    /// How long a load takes.
    pub load_us: Cell<u64>,
    /// What somebody else writes, and where, when the clock has come so far.
    pub intruder: Cell<Option<(u64, Pa, u64)>>,
    /// Bits that hardware sets, and where, which become visible with so many more full barriers.
    pub late: Cell<Option<(u32, Pa, u64)>>,
    /// Whether it stores 128 bits at once.
    pub lse2: Cell<bool>,
    /// What [`Cpu::hold`] answers.
    pub hold_result: Cell<Result<(), HoldTimeout>>,
}

impl Fake {
    /// Where its memory begins: 1 GiB-aligned, and not zero, so that a forgotten base shows.
    pub const BASE: Pa = Pa(0x1_4000_0000);

    /// A machine with `frames` frames, each word holding a pattern that is no valid descriptor.
    pub fn new(frames: usize) -> Self {
        take_trace();
        let word = |pa| FakeWord { pa, value: AtomicU64::new(0xdead_beef_0000_0000) };
        let frame = |first: Pa| (0..512).map(|i| word(first.offset(i * 8))).collect();
        Self {
            memory: (0..frames).map(|index| frame(Self::frame_pa(index))).collect(),
            free: RefCell::new(vec![true; frames]),
            reserved: Cell::new(0),
            clock_us: Cell::new(0),
            load_us: Cell::new(0),
            intruder: Cell::new(None),
            late: Cell::new(None),
            lse2: Cell::new(false),
            hold_result: Cell::new(Ok(())),
        }
    }

    /// The index of the frame that `pa` is in, and of the word in it.
    fn index(pa: Pa) -> (usize, usize) {
        let offset = pa.0.checked_sub(Self::BASE.0).expect("address below the fake memory");
        (usize::try_from(offset / PAGE_BYTES).unwrap(), (offset % PAGE_BYTES / 8) as usize)
    }

    fn word(&self, pa: Pa) -> &FakeWord {
        let (frame, word) = Self::index(pa);
        &self.memory[frame][word]
    }

    /// Reads the word at `pa`.
    pub fn read(&self, pa: Pa) -> u64 {
        self.word(pa).value.load(Ordering::SeqCst)
    }

    /// Every frame that is in use, with its words; and how many free ones are reserved. What a free frame holds is
    /// nobody's.
    pub fn contents(&self) -> (Vec<(Pa, Vec<u64>)>, usize) {
        let free = self.free.borrow();
        let frames = self.memory.iter().zip(free.iter()).filter(|(_, free)| !**free);
        let words = |frame: &[FakeWord]| frame.iter().map(|w| w.value.load(Ordering::SeqCst)).collect();
        (frames.map(|(frame, _)| (frame[0].pa, words(frame))).collect(), self.reserved.get())
    }

    /// Writes the word at `pa` as a device or another CPU would: it is not in the log.
    pub fn write_behind(&self, pa: Pa, value: u64) {
        self.word(pa).value.store(value, Ordering::SeqCst);
    }

    /// ORs `bits` into the word at `pa` as hardware does when it updates a descriptor: it is not in the log.
    pub fn or_behind(&self, pa: Pa, bits: u64) {
        self.word(pa).value.fetch_or(bits, Ordering::SeqCst);
    }

    /// Lets the clock run on.
    pub fn advance_us(&self, us: u64) {
        self.clock_us.set(self.clock_us.get() + us);
    }

    fn frame_pa(index: usize) -> Pa {
        Self::BASE.offset(index as u64 * PAGE_BYTES)
    }
}

impl Memory for Fake {
    type Word = FakeWord;

    fn words(&self, pa: Pa, count: usize) -> &[FakeWord] {
        assert!(pa.is_aligned(8), "unaligned word access at {pa}");
        let (frame, first) = Self::index(pa);
        // Miri looks at all of what is borrowed, each time: a single word without its frame.
        if count == 1 { std::slice::from_ref(self.word(pa)) } else { &self.memory[frame][first..][..count] }
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        record(Event::Fill(pa, count));
        for i in 0..count {
            self.word(pa.offset(i as u64 * 8)).value.store(value(i), Ordering::SeqCst);
        }
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        if self.lse2.get() { Some(self) } else { None }
    }
}

impl PairStore for Fake {
    fn store_pair(&self, pa: Pa, pair: [u64; 2]) {
        assert!(pa.is_aligned(16), "a pair at {pa}");
        record(Event::Pair(pa, pair));
        self.write_behind(pa, pair[0]);
        self.write_behind(pa.offset(8), pair[1]);
    }
}

impl Frames for Fake {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        let count = 1usize << order;
        if self.free_frames() < count {
            return None;
        }
        let mut free = self.free.borrow_mut();
        let first = (0..free.len())
            .step_by(count)
            .find(|&i| free.get(i..i + count).is_some_and(|run| run.iter().all(|f| *f)))?;
        free[first..first + count].fill(false);
        Some(FrameBlock::from_pa(Self::frame_pa(first), order))
    }

    fn free(&self, block: FrameBlock) {
        record(Event::Free(block.pa()));
        let first = Self::index(block.pa()).0;
        for frame in &mut self.free.borrow_mut()[first..][..1 << block.order()] {
            assert!(!*frame, "{} was free already", block.pa());
            *frame = true;
        }
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        let free = self.free_frames();
        if free < count {
            return Err(OutOfFrames { needed: count, free });
        }
        self.reserved.set(self.reserved.get() + count);
        Ok(FrameReserve::of(count))
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        if !reserve.count_down() {
            return None;
        }
        self.reserved.set(self.reserved.get() - 1);
        let mut free = self.free.borrow_mut();
        let index = free.iter().position(|f| *f).expect("a reserved frame is there");
        free[index] = false;
        Some(FrameBlock::from_pa(Self::frame_pa(index), 0))
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.reserved.set(self.reserved.get() - reserve.left());
    }

    fn free_frames(&self) -> usize {
        self.free.borrow().iter().filter(|f| **f).count() - self.reserved.get()
    }
}

impl Cpu for Fake {
    fn barrier(&self, barrier: Barrier) {
        record(Event::Barrier(barrier));
        if let Some((left, pa, bits)) = self.late.get().filter(|_| barrier == Barrier::DsbSy) {
            self.late.set((left > 1).then_some((left - 1, pa, bits)));
            if left == 1 {
                self.or_behind(pa, bits);
            }
        }
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        record(Event::Tlbi(vttbr, op));
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        record(Event::Clean(pa, bytes));
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        record(Event::Invalidate(pa, bytes));
    }

    fn hold(&self, _vttbr: Vttbr) -> Result<(), HoldTimeout> {
        self.hold_result.get()?;
        record(Event::Hold);
        Ok(())
    }

    fn release(&self, _vttbr: Vttbr) {
        record(Event::Release);
    }

    fn now_us(&self) -> u64 {
        self.clock_us.get() + LOADS.get() * self.load_us.get()
    }

    fn relax(&self) {
        self.advance_us(1);
        if let Some((_, pa, value)) = self.intruder.get().filter(|(at, ..)| *at <= self.now_us()) {
            self.intruder.set(None);
            self.write_behind(pa, value);
        }
    }
}

/// An SMMU of which only the order of what was asked is seen.
#[derive(Debug, Default)]
pub struct FakeTlb {
    /// What the next operations answer once they are asked; `Ok` when used up.
    pub failures: RefCell<Vec<DmaTlbError>>,
    /// The CMD_SYNC, counted from 1, that is not completed.
    pub silent_at: Cell<Option<u64>>,
    /// The range that was invalidated last.
    pub last_range: Cell<Option<IpaRange>>,
    /// Table descriptors were invalidated with it.
    pub last_with_tables: Cell<bool>,
    /// What a change of size takes, if not [`SizeChange::Direct`].
    pub size_change: Cell<Option<SizeChange>>,
    /// VMIDs that are left for second trees, where streams can be sent through one; they count down.
    pub vmids: Cell<Option<u16>>,
    /// Which tree streams go through, as it was last told.
    pub streams_at: Cell<Option<DmaRoot>>,
    commands: Cell<CommandCounts>,
}

impl FakeTlb {
    fn answer(&self) -> Result<(), DmaTlbError> {
        if self.silent_at.get() == Some(self.commands.get().syncs) {
            return Err(DmaTlbError::Timeout);
        }
        self.failures.borrow_mut().pop().map_or(Ok(()), Err)
    }

    fn count(&self, vmall: u64, ipa: u64) {
        let mut counts = self.commands.get();
        counts.all += vmall + ipa + 1;
        counts.tlbi_vmall += vmall;
        counts.tlbi_ipa += ipa;
        counts.syncs += 1;
        self.commands.set(counts);
    }
}

impl DmaTlb for FakeTlb {
    fn sync(&self) -> Result<(), DmaTlbError> {
        record(Event::Mark("CMD_SYNC"));
        self.count(0, 0);
        self.answer()
    }

    fn invalidate(&self, _vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError> {
        match scope {
            Scope::All => {
                record(Event::Mark("S12_VMALL + CMD_SYNC"));
                self.count(1, 0);
            }
            Scope::Range { range, leaf_only } => {
                self.last_range.set(Some(range));
                self.last_with_tables.set(!leaf_only);
                record(Event::Mark("S2_IPA + CMD_SYNC"));
                self.count(0, 1);
            }
        }
        self.answer()
    }

    fn commands(&self) -> CommandCounts {
        self.commands.get()
    }

    fn size_change(&self) -> SizeChange {
        self.size_change.get().unwrap_or(SizeChange::Direct)
    }

    fn switching(&self) -> Option<&dyn TreeSwitch> {
        if self.vmids.get().is_some() { Some(self) } else { None }
    }
}

impl TreeSwitch for FakeTlb {
    fn take_vmid(&self) -> Result<Option<Vmid>, DmaTlbError> {
        record(Event::Mark("a VMID"));
        self.answer()?;
        let left = self.vmids.get().filter(|left| *left > 0);
        self.vmids.set(left.map(|left| left - 1).or(Some(0)));
        Ok(left.map(|left| Vmid(0x100 + left)))
    }

    fn end_vmid(&self, vmid: Vmid, forgotten: bool) {
        record(Event::Mark(if forgotten { "a VMID back" } else { "a VMID out of use" }));
        assert!(vmid.0 > 0x100, "{vmid:?} is not its own");
        if forgotten {
            self.vmids.set(self.vmids.get().map(|left| left + 1));
        }
    }

    fn switch(&self, from: DmaRoot, to: DmaRoot) -> Result<(), DmaTlbError> {
        assert!(from.vmid != to.vmid && from.root != to.root);
        record(Event::Mark("switch"));
        self.streams_at.set(Some(to));
        self.answer()
    }
}

impl StallTlb for FakeTlb {
    fn resume(&self, stall: &Stall, how: Resume) -> Result<(), ResumeError> {
        let _ = stall;
        record(Event::Mark(match how {
            Resume::Retry => "CMD_RESUME(retry)",
            Resume::Abort => "CMD_RESUME(abort)",
        }));
        self.answer().map_err(|error| ResumeError { error, issued: true })
    }
}
