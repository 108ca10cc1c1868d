//! What surrounds the engine: it answers vCPUs' write-protect faults, between any two steps of whatever else it does,
//! as long as nobody has the address space to himself.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;

use strandline::addr::Pa;
use strandline::address_space::AddressSpace;
use strandline::dirty_log::WriteFault;
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{Barrier, Cpu, HoldTimeout, Memory, PairStore, Tlbi, Vttbr, Word};
use strandline::smmu::{Smmu, StallQueue};
use strandline_model::{Machine, ModelWord, SmmuPort};

use crate::frames::frames_of_machine;
use crate::gate::Gate;
use crate::stalls::StallDesk;

/// The driver on a host.
pub type Driver<'a> = Smmu<'a, Host<'a>, SmmuPort>;
/// The address space of a VM on a host.
pub type Space<'a> = AddressSpace<'a, Gate<'a>>;
/// The stalled transactions of a host's SMMU.
pub type Stalls<'a> = StallQueue<'a, 'a, Host<'a>, SmmuPort>;

/// What the host does wrongly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    #[default]
    None,
    /// Invalidations of one PE's own TLB are left out.
    NoLocalInvalidation,
    /// Of a view that is detached the dirty state is not seen.
    ViewDroppedUnread,
    /// Between the last invalidation of a view that is detached and its last read there is no barrier.
    ViewReadWithoutBarrier,
    /// Of what is unmapped the dirty state is not seen.
    TableFreedUnread,
    /// Pages that are mapped are mapped clean.
    MappedClean,
    /// Pages are mapped into tables whose access flag says that nobody has been there.
    MappedUnseen,
    /// What could not be delivered does not come back into the log.
    BitDroppedOnFailedDelivery,
    /// nT is cleared from no block.
    NtLeft,
    /// Stalled writes are tried again before the entry that forbade them is invalidated.
    ResumedBeforeInvalidation,
    /// Some stalled transactions are forgotten.
    StallForgotten,
    /// The stalled transactions of a stream that is taken away are not ended.
    NoStallTerm,
    /// A stream's stalled transactions are ended where one of them was to be answered.
    StallTermForResume,
    /// Stalled transactions are answered twice.
    AnsweredTwice,
    /// A stall view that was cleaned is not invalidated.
    StallViewNotInvalidated,
    /// Of two SMMUs one alone is asked to make its updates visible.
    SecondSmmuNotSynced,
    /// Of two SMMUs one alone is invalidated.
    SecondSmmuNotInvalidated,
}

const WRITE: u64 = 1 << 7;
const AF: u64 = 1 << 10;
const NT: u64 = 1 << 16;
/// Bits that every leaf for RAM has, whatever its state: DBM, MemAttr, S2AP\[0\], SH, AF, valid.
const RAM_LEAF: u64 = 1 << 51 | 0x77d;

/// What a host and its words share.
#[derive(Default)]
struct Bell<'a> {
    host: Cell<Option<&'a Host<'a>>>,
    handling: Cell<bool>,
    /// Dirty state is not seen.
    blind: Cell<bool>,
    /// Barriers are left out.
    lax: Cell<bool>,
    /// Leaves are stored clean.
    washing: Cell<bool>,
    /// A delivery has failed.
    failing: Cell<bool>,
    /// Bits that are set while a delivery fails are lost.
    forgetful: bool,
    /// The driver is at work: whoever else needs it waits.
    driving: Cell<bool>,
    mischief: Mischief,
}

/// A word whose every access lets faults be answered first.
pub struct HostWord<'a> {
    word: ModelWord,
    bell: Rc<Bell<'a>>,
}

/// A machine, and the address space of the VM on it.
pub struct Host<'a> {
    pub machine: Machine,
    pub mischief: Mischief,
    words: Vec<HostWord<'a>>,
    bell: Rc<Bell<'a>>,
    space: RefCell<Option<Space<'a>>>,
    pub stalls: StallDesk<'a>,
    /// Faults answered.
    pub recorded: Cell<u64>,
    /// Faults that were made the guest's where its memory is mapped.
    pub denied: Cell<u64>,
}

impl Bell<'_> {
    fn ring(&self) {
        if let Some(host) = self.host.get() {
            host.answer_faults();
        }
    }

    /// Whether a bit that is set now is lost: handlers of faults, which run in between, set theirs.
    fn forgets(&self) -> bool {
        self.forgetful && self.failing.get() && !self.handling.get()
    }

    /// What is stored in place of `value`.
    fn washed(&self, value: u64) -> u64 {
        let (stall_term, resume) = (value & 0xffff_ffff == 0x45, value & 0xffff_cfff == 0x44);
        match self.mischief {
            Mischief::NoStallTerm if stall_term => return 0x46,
            Mischief::StallTermForResume if resume => return value & !0xffff | 0x45,
            _ => {}
        }
        if self.washing.get() && value & RAM_LEAF == RAM_LEAF { value & !WRITE } else { value }
    }

    fn seen(&self, value: u64) -> u64 {
        if self.blind.get() { value & !WRITE } else { value }
    }
}

impl Word for HostWord<'_> {
    fn load(&self) -> u64 {
        self.bell.ring();
        self.bell.seen(self.word.load())
    }

    fn store(&self, value: u64) {
        self.bell.ring();
        self.word.store(self.bell.washed(value));
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.bell.ring();
        self.word.compare_exchange(current, new)
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        self.bell.ring();
        let mask = if self.bell.mischief == Mischief::NtLeft && mask == !NT { u64::MAX } else { mask };
        self.bell.seen(self.word.fetch_and(mask))
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        self.bell.ring();
        let unseen = self.bell.mischief == Mischief::MappedUnseen && mask == AF;
        self.word.fetch_or(if unseen || self.bell.forgets() { 0 } else { mask })
    }
}

impl<'a> Host<'a> {
    pub fn new(machine: Machine, mischief: Mischief) -> Self {
        let forgetful = mischief == Mischief::BitDroppedOnFailedDelivery;
        let bell = Rc::new(Bell { forgetful, mischief, ..Bell::default() });
        let word = |word: &ModelWord| HostWord { word: word.clone(), bell: Rc::clone(&bell) };
        let words = machine.all_words().iter().map(word).collect();
        let (space, recorded, denied) = (RefCell::new(None), Cell::new(0), Cell::new(0));
        let stalls = StallDesk::default();
        Self { machine, mischief, words, bell, space, stalls, recorded, denied }
    }

    /// The SMMU, or of two the `second`.
    pub fn port(&self, second: bool) -> SmmuPort {
        let second = if second { self.machine.second_smmu() } else { None };
        second.unwrap_or_else(|| self.machine.smmu())
    }

    /// From now on faults are answered, in `space`.
    pub fn open(&'a self, space: Space<'a>) {
        *self.space.borrow_mut() = Some(space);
        self.bell.host.set(Some(self));
    }

    /// No fault is answered any more.
    pub fn close(&self) -> Option<Space<'a>> {
        self.bell.host.set(None);
        self.space.borrow_mut().take()
    }

    /// The address space, shared.
    pub fn space(&self) -> Ref<'_, Space<'a>> {
        Ref::map(self.space.borrow(), |s| s.as_ref().expect("open"))
    }

    /// The address space, exclusively: faults wait.
    pub fn space_mut(&self) -> RefMut<'_, Space<'a>> {
        RefMut::map(self.space.borrow_mut(), |s| s.as_mut().expect("open"))
    }

    /// Does `act`, which is where some kinds of mischief are done.
    pub fn detaching<T>(&self, act: impl FnOnce() -> T) -> T {
        self.bell.lax.set(self.mischief == Mischief::ViewReadWithoutBarrier);
        let result = self.blind_for(Mischief::ViewDroppedUnread, act);
        self.bell.lax.set(false);
        result
    }

    /// Does `act`, which is where some kinds of mischief are done.
    pub fn unmapping<T>(&self, act: impl FnOnce() -> T) -> T {
        self.blind_for(Mischief::TableFreedUnread, act)
    }

    /// Does `act`, which is where some kinds of mischief are done.
    pub fn mapping<T>(&self, act: impl FnOnce() -> T) -> T {
        self.bell.washing.set(self.mischief == Mischief::MappedClean);
        let result = act();
        self.bell.washing.set(false);
        result
    }

    /// Does `act`, a sync or clear, which notes in what it is given that a delivery has failed.
    pub fn delivering<T>(&self, act: impl FnOnce(&Cell<bool>) -> T) -> T {
        let result = act(&self.bell.failing);
        self.bell.failing.set(false);
        result
    }

    fn blind_for<T>(&self, mischief: Mischief, act: impl FnOnce() -> T) -> T {
        self.bell.blind.set(self.mischief == mischief);
        let result = act();
        self.bell.blind.set(false);
        result
    }

    fn answer_faults(&self) {
        let Ok(space) = self.space.try_borrow() else { return };
        let Some(space) = space.as_ref() else { return };
        if self.bell.handling.replace(true) {
            return;
        }
        if !self.bell.driving.get() && self.stalls.are_due(&self.machine) {
            self.stalls.attend(self, space);
        }
        while let Some(fault) = self.machine.take_write_fault() {
            match space.write_fault(self, fault.ipa) {
                WriteFault::Recorded => self.recorded.set(self.recorded.get() + 1),
                WriteFault::Denied if self.machine.may_fault(fault.ipa) => {}
                WriteFault::Denied => self.denied.set(self.denied.get() + 1),
            }
            self.machine.resume(fault.pe);
        }
        self.bell.handling.set(false);
    }

    /// Does `act`, which is with the driver: nobody else can use that meanwhile.
    pub fn driving<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.bell.driving.replace(true);
        let result = act();
        self.bell.driving.set(before);
        result
    }

    /// Reads what event records there are, and answers what has stalled.
    pub fn attend(&self) {
        if !self.bell.handling.replace(true) {
            self.stalls.attend(self, &self.space());
            self.bell.handling.set(false);
        }
    }

    /// Lets hardware run for a while, faults being answered.
    pub fn run(&self, steps: u64) {
        for _ in 0..steps {
            self.machine.run(1);
            self.answer_faults();
        }
    }
}

impl<'a> Memory for Host<'a> {
    type Word = HostWord<'a>;

    fn words(&self, pa: Pa, count: usize) -> &[HostWord<'a>] {
        let first = self.machine.words(pa, count)[0].index();
        &self.words[first..][..count]
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        self.bell.ring();
        self.machine.fill(pa, count, |i| self.bell.washed(value(i)));
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        if self.machine.pairs().is_some() { Some(self) } else { None }
    }
}

impl PairStore for Host<'_> {
    fn store_pair(&self, pa: Pa, pair: [u64; 2]) {
        self.bell.ring();
        self.machine.store_pair(pa, pair);
    }
}

impl Frames for Host<'_> {
    frames_of_machine!();

    fn free(&self, block: FrameBlock) {
        self.machine.free(block);
    }
}

impl Cpu for Host<'_> {
    fn barrier(&self, barrier: Barrier) {
        self.bell.ring();
        if !(self.bell.lax.get() && barrier == Barrier::DsbSy) {
            self.machine.barrier(barrier);
        }
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        if op.is_broadcast() || self.mischief != Mischief::NoLocalInvalidation {
            self.bell.ring();
            self.machine.tlbi(vttbr, op);
        }
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        self.machine.clean_to_poc(pa, bytes);
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        self.machine.invalidate_from_poc(pa, bytes);
    }

    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout> {
        self.machine.hold(vttbr)
    }

    fn release(&self, vttbr: Vttbr) {
        self.machine.release(vttbr);
    }

    fn now_us(&self) -> u64 {
        self.machine.now_us()
    }

    fn relax(&self) {
        self.bell.ring();
        self.machine.relax();
    }
}
