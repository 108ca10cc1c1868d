//! The machine as a test drives it. What software sees of it, through the library's traits, is in [`hardware`].

mod hardware;

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use strandline::addr::{Ipa, IpaRange, Pa, PageSize, StreamId, Vmid};
use strandline::hw::{Barrier, Cpu, Vttbr};
use strandline::stage2::Format;

use crate::alarm::{Alarm, Rule};
use crate::core::{Core, POOL};
use crate::device::{Device, Dma, Window};
use crate::journal::Happening;
use crate::parameters::Parameters;
use crate::tally::Tally;
use crate::truth::{Abort, Report, Source, Write};
use crate::update::Walker;
use crate::walk::Regime;

/// A store of a vCPU met a page that may not be written, on a PE without FEAT_HAFDBS. The vCPU waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// The PE.
    pub pe: usize,
    /// The guest address.
    pub ipa: Ipa,
}

type Shared = Rc<RefCell<Core>>;

/// A word of the machine's memory.
#[derive(Clone)]
pub struct ModelWord {
    core: Shared,
    at: u32,
}

/// A machine: memory, PEs, devices, and an SMMU or two. A clone is the same machine.
#[derive(Clone)]
pub struct Machine {
    core: Shared,
    words: Rc<[ModelWord]>,
}

/// An SMMU of a machine: its registers, and what a test does to it.
#[derive(Clone)]
pub struct SmmuPort {
    core: Shared,
    smmu: usize,
}

/// Software's turn: hardware has gone first.
fn turn(core: &Shared) -> RefMut<'_, Core> {
    let mut turn = core.borrow_mut();
    turn.software_step();
    turn
}

impl ModelWord {
    /// Its place among [`Machine::all_words`].
    #[must_use]
    pub const fn index(&self) -> usize {
        self.at as usize
    }
}

impl Machine {
    /// A machine at reset: nothing runs, the SMMU is off, frames hold garbage.
    #[must_use]
    pub fn new(parameters: Parameters) -> Self {
        let core = Rc::new(RefCell::new(Core::new(parameters)));
        let words = parameters.words();
        let word = |at| ModelWord { core: Rc::clone(&core), at };
        let words = (0..words as u32).map(word).collect();
        Self { core, words }
    }

    /// Where the frames of a machine begin.
    pub const FRAMES: Pa = Pa(POOL);

    /// All words of memory, for a test that wraps them.
    #[must_use]
    pub fn all_words(&self) -> &[ModelWord] {
        &self.words
    }

    /// The SMMU; the first one, where there are two.
    #[must_use]
    pub fn smmu(&self) -> SmmuPort {
        SmmuPort { core: Rc::clone(&self.core), smmu: 0 }
    }

    /// The second SMMU.
    #[must_use]
    pub fn second_smmu(&self) -> Option<SmmuPort> {
        let there = self.core.borrow().smmus.len() > 1;
        there.then(|| SmmuPort { core: Rc::clone(&self.core), smmu: 1 })
    }

    /// Runs a vCPU on PE `pe`, in the tree of `vttbr`, which works on `window`. Stores made before are visible to it:
    /// entering a guest takes a DSB.
    pub fn run_vcpu(&self, pe: usize, vttbr: Vttbr, format: Format, window: Window) {
        self.barrier(Barrier::DsbSy);
        let mut core = self.core.borrow_mut();
        let dirty = core.parameters.pes.hafdbs;
        let (vmid, root) = (vttbr.vmid.0, vttbr.root.0);
        let (start_level, ipa_bits) = (format.start_level(), u32::from(format.ipa_bits()));
        let (table_flags, stalls) = (false, false);
        core.pes[pe].regime = Some(Regime { vmid, root, start_level, ipa_bits, dirty, table_flags, stalls });
        core.pes[pe].window = window;
    }

    /// Takes the vCPU off PE `pe`, which executes a DSB. What its TLB holds stays.
    pub fn stop_vcpu(&self, pe: usize) {
        let mut core = self.core.borrow_mut();
        core.dsb(pe);
        core.pes[pe].regime = None;
    }

    /// Adds a device that does DMA in `window` of its own accord, from now on, behind the (first) SMMU.
    pub fn add_device(&self, stream: StreamId, window: Window) {
        self.smmu().add_device(stream, window);
    }

    /// Lets the device begin accesses, or no more.
    pub fn set_active(&self, stream: StreamId, active: bool) {
        for device in self.core.borrow_mut().devices.iter_mut().filter(|d| d.stream == stream.0) {
            device.active = active;
        }
    }

    /// Quiesces the device: it begins no access, and hardware runs until those it had begun have ended, or wait for
    /// software's answer.
    pub fn quiesce(&self, stream: StreamId) {
        self.set_active(stream, false);
        let mut core = self.core.borrow_mut();
        let walker = Walker::Smmu(core.smmu_behind(stream.0));
        while core.traffic.iter().any(|t| t.is_of(walker, stream.0) && !t.is_stalled()) {
            core.hardware_step();
        }
    }

    /// Nobody vouches for the device any more: what faults is terminated whatever its STE says (IHI 0070 §3.12).
    pub fn never_stalls(&self, stream: StreamId) {
        for device in self.core.borrow_mut().devices.iter_mut().filter(|d| d.stream == stream.0) {
            device.never_stalls = true;
        }
    }

    /// Whether there are event records that software has not read, no time passing: the Event queue's interrupt.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.core.borrow().smmus.iter().any(|smmu| smmu.events_waiting() > 0)
    }

    /// Stalled transactions whose record has no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.core.borrow().smmus.iter().map(|smmu| smmu.stalls.len()).sum()
    }

    /// One DMA by `stream`; hardware runs until it has ended, or waits for software's answer.
    #[must_use]
    pub fn dma(&self, stream: StreamId, ipa: Ipa, write: bool) -> Dma {
        let mut core = self.core.borrow_mut();
        let walker = Walker::Smmu(core.smmu_behind(stream.0));
        let id = core.begin(walker, stream.0, ipa.0, write);
        loop {
            if let Some(end) = core.advance(id) {
                return end;
            }
            let transaction = core.traffic.iter().find(|t| t.id == id);
            if transaction.is_some_and(crate::device::Transaction::is_stalled) {
                return Dma::Stalled;
            }
            let pa = transaction.and_then(crate::device::Transaction::target);
            core.hardware_step();
            // A step of chance may have completed it.
            if let (false, Some(pa)) = (core.traffic.iter().any(|t| t.id == id), pa) {
                return Dma::Done(pa);
            }
        }
    }

    /// Lets hardware take `steps` steps.
    pub fn run(&self, steps: u64) {
        for _ in 0..steps {
            let mut core = self.core.borrow_mut();
            if !core.frozen {
                core.hardware_step();
            }
        }
        drop(turn(&self.core));
    }

    /// Stops, or lets go on, everything but software: devices, vCPUs, the SMMU.
    pub fn freeze(&self, frozen: bool) {
        self.core.borrow_mut().frozen = frozen;
    }

    /// Holds vCPUs as [`Cpu::hold`] does, the DSB left out where `dsb` is false.
    pub fn hold_with(&self, vttbr: Vttbr, dsb: bool) {
        let mut core = turn(&self.core);
        core.hold(vttbr.root.0, dsb);
        core.note(Happening::Hold(true));
    }

    /// The next [`Cpu::hold`] runs out of time.
    pub fn fail_next_hold(&self) {
        self.core.borrow_mut().hold_fails = true;
    }

    /// Whether it will.
    #[must_use]
    pub fn next_hold_fails(&self) -> bool {
        self.core.borrow().hold_fails
    }

    /// EL2 stores into the guest page at `ipa` on behalf of a vCPU, and will tell the log: from now on it may be reported.
    pub fn el2_stores(&self, ipa: Ipa) {
        let mut core = self.core.borrow_mut();
        let step = core.step;
        // What rule of the log reports it is not hardware's: it counts as a write of the vCPU.
        core.truth.touch(Walker::Pe(0), ipa.0, step);
    }

    /// Software takes the guest page at `ipa` for written by a device: it answers a stalled write.
    pub fn taken_for_written(&self, ipa: Ipa) {
        let mut core = self.core.borrow_mut();
        let step = core.step;
        core.truth.touch(Walker::Smmu(0), ipa.0, step);
    }

    /// EL2 has stored into the guest page at `ipa` on behalf of a vCPU, and has told the log: its write has completed.
    pub fn el2_wrote(&self, ipa: Ipa) {
        self.el2_stores(ipa);
        let mut core = self.core.borrow_mut();
        let (step, ipa) = (core.step, ipa.0 & !0xfff);
        let (source, master, completed) = (Source::Cpu, u32::MAX, Some(step));
        core.truth.performed(Write { source, master, ipa, pa: 0, performed: step, completed });
    }

    /// The oldest write-protect fault that waits. Until [`Machine::resume`] software runs on the PE that took it.
    #[must_use]
    pub fn take_write_fault(&self) -> Option<WriteFault> {
        let mut core = self.core.borrow_mut();
        let fault = core.faults.pop_front()?;
        core.el2 = fault.pe;
        Some(fault)
    }

    /// Lets the vCPU on `pe` go on after a write-protect fault; software runs on PE 0 again.
    pub fn resume(&self, pe: usize) {
        let mut core = self.core.borrow_mut();
        let (step, ipa) = (core.step, core.pes[pe].last_fault);
        // Who handled it took the page for written, whatever the vCPU does next.
        core.truth.touch(Walker::Pe(pe), ipa, step);
        core.pes[pe].faulted = false;
        core.el2 = 0;
    }

    /// The word at `pa` as it is, no time passing: for a test to look at.
    #[must_use]
    pub fn peek(&self, pa: Pa) -> u64 {
        let core = self.core.borrow();
        core.index(pa.0).map_or(0, |at| core.memory.newest(at))
    }

    /// From now on accesses to `range` may fault (it is about to be unmapped), or may not (it has been mapped).
    pub fn set_unmapped(&self, range: IpaRange, unmapped: bool) {
        self.core.borrow_mut().truth.set_unmapped(range, unmapped);
    }

    /// Whether accesses to the page at `ipa` may fault now.
    #[must_use]
    pub fn may_fault(&self, ipa: Ipa) -> bool {
        self.core.borrow().truth.may_fault(ipa.0)
    }

    /// The pages of `range`, which are logged, enter the log of `source` dirty: a view or a mapping came while it was on,
    /// or a device may have written them unseen. The next report of them names each.
    pub fn enters_dirty(&self, source: Source, range: IpaRange) {
        let mut core = self.core.borrow_mut();
        let step = core.step;
        core.truth.enters_dirty(source, range, step);
    }

    /// A sync or clear of `sources` found `pages` dirty, and could not deliver them: they are in the log as before.
    pub fn undelivered(&self, sources: &[Source], pages: &[u64]) {
        self.core.borrow_mut().truth.undelivered(sources, pages);
    }

    /// An access by `stream` to the physical address `pa`, which it calls translated (ATS); whether it was let through.
    #[must_use]
    pub fn translated_dma(&self, stream: StreamId, pa: Pa) -> bool {
        let mut core = self.core.borrow_mut();
        let smmu = core.smmu_behind(stream.0);
        core.called_translated(smmu, stream.0, pa.0)
    }

    /// Whether every SMMU answers, and has answered all that it was asked.
    #[must_use]
    pub fn smmus_answer(&self) -> bool {
        let core = self.core.borrow();
        (0..core.smmus.len()).all(|smmu| core.answers(smmu))
    }

    /// The guest memory of `bytes` from `pa` is given to somebody else: nothing may lead there.
    pub fn reuse_memory(&self, pa: Pa, bytes: u64) {
        let mut core = self.core.borrow_mut();
        if let Some(who) = core.reaches(pa.0, bytes) {
            core.alarm(Rule::MemoryInUse, format!("memory at {pa} is reused: {who}"));
        }
    }

    /// The alarms so far, the first one first.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.core.borrow().alarms.clone()
    }

    /// What the run has met so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.core.borrow().tally
    }

    /// DMA that was aborted so far.
    #[must_use]
    pub fn aborts(&self) -> Vec<Abort> {
        self.core.borrow().truth.aborts.clone()
    }

    /// The time, in steps.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.core.borrow().step
    }

    /// A start of a log of pages begins.
    pub fn log_start_begins(&self) {
        self.log_start_begins_of(PageSize::Size4K);
    }

    /// A start of a log begins, in which leaves of `granule` stay whole and are reported whole.
    pub fn log_start_begins_of(&self, granule: PageSize) {
        let mut core = self.core.borrow_mut();
        let step = core.step;
        core.truth.start_begins(step, granule.bytes());
    }

    /// A start of an adaptive log begins, in which vCPUs' writes come to be known by hardware, or by faults.
    pub fn log_start_begins_adaptive(&self, by_faults: bool) {
        let mut core = self.core.borrow_mut();
        let step = core.step;
        core.truth.start_begins(step, 0);
        core.truth.adapts(if by_faults { PageSize::Size2M.bytes() } else { 0 });
    }

    /// The start has returned.
    pub fn log_started(&self) {
        self.core.borrow_mut().truth.start_ended();
    }

    /// The log is being stopped: nothing more is promised.
    pub fn log_stopped(&self) {
        self.core.borrow_mut().truth.stopped();
    }

    /// A sync that began at step `began`, of `range` and `sources`, has reported `pages` (guest addresses, ascending).
    ///
    /// # Errors
    /// It lost a write, or invented one.
    pub fn synced(
        &self,
        began: u64,
        range: IpaRange,
        sources: &[Source],
        report: Report,
        pages: &[u64],
    ) -> Result<(), String> {
        self.settle(began, |ipa| range.contains(ipa), sources, report, pages)
    }

    /// As [`Machine::synced`], of a clear that was asked for the pages `wanted` alone (guest addresses, ascending).
    ///
    /// # Errors
    /// It lost a write, or invented one.
    pub fn cleared(
        &self,
        began: u64,
        wanted: &[u64],
        sources: &[Source],
        report: Report,
        pages: &[u64],
    ) -> Result<(), String> {
        self.settle(began, |ipa| wanted.binary_search(&ipa.0).is_ok(), sources, report, pages)
    }

    fn settle(
        &self,
        began: u64,
        asked: impl Fn(Ipa) -> bool,
        sources: &[Source],
        report: Report,
        pages: &[u64],
    ) -> Result<(), String> {
        let core = &mut *self.core.borrow_mut();
        core.tally.retried += core.truth.synced(began, asked, sources, report, pages)?;
        Ok(())
    }
}

impl SmmuPort {
    /// Adds a device that does DMA in `window` of its own accord, from now on. No other stream of the machine has its
    /// number, whichever SMMU that is behind.
    pub fn add_device(&self, stream: StreamId, window: Window) {
        self.core.borrow_mut().devices.push(Device {
            smmu: self.smmu,
            stream: stream.0,
            window,
            active: true,
            never_stalls: false,
        });
    }

    /// The next command is refused with `code` (CMDQ_CONS.ERR, §7.1).
    pub fn fail_next_command(&self, code: u8) {
        self.core.borrow_mut().smmus[self.smmu].failures.push_back(code);
    }

    /// No command is refused but such as deserve it.
    pub fn fail_no_command(&self) {
        self.core.borrow_mut().smmus[self.smmu].failures.clear();
    }

    /// From now on no CMD_SYNC completes, or they do again. All else goes on.
    pub fn hold_syncs(&self, held: bool) {
        self.core.borrow_mut().smmus[self.smmu].syncs_held = held;
    }

    /// It stops answering, or answers again.
    pub fn set_dead(&self, dead: bool) {
        self.core.borrow_mut().smmus[self.smmu].dead_from = dead.then_some(0);
    }

    /// It stops answering `steps` steps from now.
    pub fn die_after(&self, steps: u64) {
        let mut core = self.core.borrow_mut();
        core.smmus[self.smmu].dead_from = Some(core.step + steps);
    }

    /// Whether it answers, and has answered all that it was asked.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.core.borrow().answers(self.smmu)
    }

    /// No stream has `vmid` any more, and none will: an invalidation of it has not completed. What the SMMU caches of it
    /// reaches nothing.
    pub fn quarantine_vmid(&self, vmid: Vmid) {
        self.core.borrow_mut().quarantined_vmids.push((self.smmu, vmid.0));
    }
}
