//! Accesses under way: DMA of devices and stores of vCPUs.

use strandline::addr::StreamId;

use crate::alarm::Rule;
use crate::core::{Core, POOL};
use crate::journal::Happening;
use crate::random::Random;
use crate::tlb::Reach;
use crate::translate::Translated;
use crate::truth::{Abort, Reason, Source, Write};
use crate::update::{Walker, Walkers};

/// Guest pages that a device or vCPU works on.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Guest address of the first page.
    pub first: u64,
    /// How many.
    pub pages: u64,
}

impl Window {
    /// A page of it; more often than not one of a few that `master` uses again and again for a while.
    pub(crate) fn page(self, random: &mut Random, master: u32, step: u64) -> u64 {
        let page = if random.chance(640) {
            let mut of_the_time = Random::new(u64::from(master) << 32 | step >> HOT_TIME);
            of_the_time.below(self.pages) + random.below(HOT)
        } else {
            random.below(self.pages)
        };
        self.first + page % self.pages * 0x1000
    }
}

/// Pages that are used again and again.
const HOT: u64 = 6;
/// `log2` of the steps for which they are.
const HOT_TIME: u32 = 12;
/// Chance, of 1024, that a device's next access is to an address that it calls translated.
const CALLED_TRANSLATED: u32 = 16;
/// Accesses that one device or vCPU has under way at the most.
const UNDER_WAY: usize = 3;

/// A device that does DMA of its own accord.
pub(crate) struct Device {
    /// The SMMU that it is behind.
    pub smmu: usize,
    pub stream: u32,
    pub window: Window,
    pub active: bool,
    /// Nobody vouched for it: what faults is terminated whatever its STE says (§3.12).
    pub never_stalls: bool,
}

/// What became of a DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dma {
    /// It reached this physical address.
    Done(u64),
    /// It was aborted.
    Aborted(Reason),
    /// It waits for software's answer.
    Stalled,
}

/// How far an access has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting,
    /// It waits for software; without a record for the Event queue, or for another one's answer.
    Stalled,
    InFlight {
        pa: u64,
        at: u32,
        born: u64,
        update: Option<u64>,
    },
}

/// An access under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    pub id: u64,
    pub walker: Walker,
    /// The stream; of a vCPU its PE.
    pub master: u32,
    pub ipa: u64,
    pub write: bool,
    vmid: u16,
    stage: Stage,
    /// How often it has stalled.
    stalls: u32,
    /// It has outlived a broadcast invalidation; it does not outlive another.
    spared: bool,
}

impl Transaction {
    pub fn update(&self) -> Option<u64> {
        match self.stage {
            Stage::InFlight { update, .. } => update,
            Stage::Waiting | Stage::Stalled => None,
        }
    }

    pub fn translate_again(&mut self) {
        self.stage = Stage::Waiting;
    }

    /// The word index of the leaf it was translated by.
    pub fn leaf(&self) -> Option<u32> {
        match self.stage {
            Stage::InFlight { at, .. } => Some(at),
            Stage::Waiting | Stage::Stalled => None,
        }
    }

    /// Where in memory it is going.
    pub fn target(&self) -> Option<u64> {
        match self.stage {
            Stage::InFlight { pa, .. } => Some(pa),
            Stage::Waiting | Stage::Stalled => None,
        }
    }

    pub fn stall(&mut self) {
        self.stage = Stage::Stalled;
        self.stalls += 1;
    }

    pub fn is_of(&self, walker: Walker, master: u32) -> bool {
        (self.walker, self.master) == (walker, master)
    }

    pub fn is_stalled(&self) -> bool {
        matches!(self.stage, Stage::Stalled)
    }

    /// Whether it has stalled, now or before.
    pub fn has_stalled(&self) -> bool {
        self.stalls > 0
    }

    /// Whether it was translated by what was read at `step` or before, however late that was.
    fn uses_what_was_read_until(&self, step: u64) -> bool {
        matches!(self.stage, Stage::InFlight { born, .. } if born <= step)
    }
}

impl Core {
    pub fn begin(&mut self, walker: Walker, master: u32, ipa: u64, write: bool) -> u64 {
        let id = self.next_id();
        let (vmid, stage, stalls, spared) = (0, Stage::Waiting, 0, false);
        let transaction = Transaction { id, walker, master, ipa, write, vmid, stage, stalls, spared };
        self.traffic.push(transaction);
        id
    }

    /// A device begins an access, or some access gets on.
    pub fn device_step(&mut self) {
        if self.devices.is_empty() {
            return;
        }
        let device = self.random.index(self.devices.len());
        let Device { smmu, stream, window, active, .. } = self.devices[device];
        if self.smmus[smmu].has.ats && active && self.random.chance(CALLED_TRANSLATED) {
            // EL2's own memory, guest RAM, or where there is none.
            let bases = [POOL, self.parameters.ram.0, 0];
            let pa = bases[self.random.index(bases.len())] + self.random.below(64) * 0x1000;
            self.called_translated(smmu, stream, pa);
            return;
        }
        let walker = Walker::Smmu(smmu);
        let mine: Vec<u64> = self.under_way(walker, stream);
        if active && (mine.is_empty() || mine.len() < UNDER_WAY && self.random.coin()) {
            let ipa = window.page(&mut self.random, stream, self.step);
            let write = self.random.chance(768);
            self.begin(walker, stream, ipa, write);
        } else if !mine.is_empty() {
            let id = mine[self.random.index(mine.len())];
            self.advance(id);
        }
    }

    pub fn under_way(&self, walker: Walker, master: u32) -> Vec<u64> {
        self.traffic.iter().filter(|t| t.is_of(walker, master)).map(|t| t.id).collect()
    }

    /// Access `id` gets one stage further; `Some` where it ended.
    pub fn advance(&mut self, id: u64) -> Option<Dma> {
        let index = self.traffic.iter().position(|t| t.id == id)?;
        let transaction = self.traffic[index];
        match transaction.stage {
            Stage::InFlight { pa, .. } => {
                self.complete(index);
                Some(Dma::Done(pa))
            }
            Stage::Stalled if !self.tries_again(&transaction) => None,
            Stage::Waiting | Stage::Stalled => self.translate_access(transaction).map(Dma::Aborted),
        }
    }

    fn translate_access(&mut self, transaction: Transaction) -> Option<Reason> {
        let Transaction { id, walker, master, ipa, write, .. } = transaction;
        let regime = self.regime_of(walker, master);
        let found = regime.and_then(|regime| {
            self.translate(walker, regime, ipa, write).map(|translated| (regime, translated))
        });
        let index = self.traffic.iter().position(|t| t.id == id)?;
        match found {
            Ok((regime, translated)) => {
                let Translated { pa, at, born, update } = translated;
                let stage = Stage::InFlight { pa, at, born, update };
                self.traffic[index].stage = stage;
                self.traffic[index].vmid = regime.vmid;
                if write {
                    self.truth.touch(walker, ipa, self.step);
                }
                None
            }
            Err(reason) if regime.is_ok_and(|r| r.stalls) && self.stalls(index, reason) => None,
            Err(reason) => {
                let stalled = self.traffic.swap_remove(index).has_stalled();
                if stalled && reason == Reason::SteAborts {
                    // Its stream was taken away.
                    self.tally.stalls_terminated += 1;
                    return Some(reason);
                }
                self.fault(walker, master, ipa, write, reason);
                Some(reason)
            }
        }
    }

    fn fault(&mut self, walker: Walker, master: u32, ipa: u64, write: bool, reason: Reason) {
        match walker {
            Walker::Smmu(smmu) => {
                let abort = Abort { stream: StreamId(master), ipa, write, reason, step: self.step };
                if reason == Reason::Translation && self.truth.may_fault(ipa) {
                    self.tally.expected_faults += 1;
                } else {
                    self.truth.aborts.push(abort);
                }
                self.record_event(smmu, master, ipa, write, reason, None);
            }
            Walker::Pe(pe) => self.stage2_fault(pe, ipa, write, reason),
        }
    }

    /// Access `index`, which is in flight, reaches memory.
    pub fn complete(&mut self, index: usize) {
        let transaction = self.traffic.swap_remove(index);
        let Stage::InFlight { pa, update, .. } = transaction.stage else { return };
        let Transaction { walker, master, ipa, write, .. } = transaction;
        if !self.is_ram(pa) {
            self.alarm(
                Rule::OutputAstray,
                format!("{walker} led {ipa:#x} to {pa:#x}, which is no guest RAM"),
            );
        }
        if !write {
            return;
        }
        self.rely(update);
        self.store_data(walker, transaction.id, pa);
        let (source, completed) = match walker {
            Walker::Smmu(_) => (Source::Dma, Some(self.step)),
            Walker::Pe(_) => (Source::Cpu, None),
        };
        let ipa_page = ipa & !0xfff;
        self.truth.performed(Write { source, master, ipa: ipa_page, pa, performed: self.step, completed });
        match walker {
            Walker::Smmu(_) => self.tally.dma_writes += 1,
            Walker::Pe(_) => self.tally.cpu_writes += 1,
        }
        self.note(Happening::Completed(walker, ipa));
    }

    /// A write to `pa` arrives: one of two words of a page gets one of two values, so that contents come back all the time.
    fn store_data(&mut self, walker: Walker, id: u64, pa: u64) {
        if let Some(page) = self.index(pa & !0xfff).filter(|_| self.is_ram(pa)) {
            let (word, value) = (page + (id & 1) as u32 * 511, 1 + (id >> 1 & 1));
            self.memory.data_store(word, value, walker.observer());
        }
    }

    /// An invalidation that was begun at `begun` completes: so do the accesses that used what it covers.
    pub fn complete_covered(&mut self, of: Walkers, reach: Reach, begun: u64) {
        let covered = |t: &Transaction| {
            of.include(t.walker) && t.uses_what_was_read_until(begun) && reach.completes(t.vmid, t.ipa)
        };
        let spared = self.spare_some(of, covered);
        let covered = |t: &Transaction| covered(t) && !spared.contains(&t.id);
        while let Some(index) = self.traffic.iter().position(covered) {
            self.tally.completed_by_invalidation += 1;
            self.complete(index);
        }
        self.force_covered(of, reach, begun);
    }

    /// PEs with an erratum end a broadcast before some of the stores that it covers are done, each once. Says which.
    fn spare_some(&mut self, of: Walkers, covered: impl Fn(&Transaction) -> bool) -> Vec<u64> {
        if !self.parameters.pes.early_broadcast || of != Walkers::AllPes {
            return vec![];
        }
        let Self { traffic, random, tally, .. } = self;
        let mut spared = vec![];
        for t in traffic.iter_mut().filter(|t| t.write && !t.spared && covered(t)) {
            t.spared = random.coin();
            if t.spared {
                spared.push(t.id);
                tally.outlived += 1;
            }
        }
        spared
    }

    /// All accesses of `master` that are in flight complete.
    pub fn complete_all_of(&mut self, walker: Walker, master: Option<u32>) {
        let of = |t: &Transaction| {
            t.walker == walker && master.is_none_or(|m| m == t.master) && t.target().is_some()
        };
        while let Some(index) = self.traffic.iter().position(of) {
            self.complete(index);
        }
    }
}
