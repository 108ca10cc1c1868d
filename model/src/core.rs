//! The state of a machine, and hardware's steps.

use std::collections::VecDeque;

use strandline::hw::Barrier;

use crate::alarm::{Alarm, Rule};
use crate::device::{Device, Transaction};
use crate::journal::{Happening, Journal};
use crate::machine::WriteFault;
use crate::memory::{Memory, Observer};
use crate::parameters::Parameters;
use crate::pe::{CpuInvalidation, Pe};
use crate::pool::Pool;
use crate::random::Random;
use crate::smmu::Smmu;
use crate::tally::Tally;
use crate::tlb::Tlb;
use crate::truth::{Reason, Truth};
use crate::update::{Update, Walker};
use crate::walk::Regime;

/// Where frames begin: 1 GiB-aligned, and not zero.
pub(crate) const POOL: u64 = 0x1_4000_0000;
/// Alarms kept: the first one matters.
const MOST_ALARMS: usize = 8;

/// A machine.
pub(crate) struct Core {
    pub parameters: Parameters,
    pub random: Random,
    pub step: u64,
    pub clock_us: u64,
    ids: u64,
    pub memory: Memory,
    pub pool: Pool,
    pub smmus: Vec<Smmu>,
    pub pes: Vec<Pe>,
    pub cpu_invalidations: Vec<CpuInvalidation>,
    pub faults: VecDeque<WriteFault>,
    /// The PE on whose behalf software runs.
    pub el2: usize,
    /// The next hold runs out of time.
    pub hold_fails: bool,
    /// Nothing moves but software.
    pub frozen: bool,
    pub devices: Vec<Device>,
    pub traffic: Vec<Transaction>,
    pub updates: Vec<Update>,
    /// VMIDs, of an SMMU, that no stream may have any more: what is cached of them is never used.
    pub quarantined_vmids: Vec<(usize, u16)>,
    pub truth: Truth,
    pub tally: Tally,
    journal: Journal,
    pub alarms: Vec<Alarm>,
}

impl Core {
    pub fn new(parameters: Parameters) -> Self {
        let words = parameters.words();
        let pe = |_| Pe::new(parameters.pes.tlb_entries);
        let smmus: Vec<Smmu> =
            [Some(parameters.smmu), parameters.second].into_iter().flatten().map(Smmu::new).collect();
        Self {
            random: Random::new(parameters.seed),
            step: 1,
            clock_us: 0,
            ids: 0,
            memory: Memory::new(words, smmus.iter().map(|smmu| smmu.has.coherent).collect()),
            pool: Pool::new(parameters.frames),
            smmus,
            pes: (0..parameters.pes.count).map(pe).collect(),
            cpu_invalidations: vec![],
            faults: VecDeque::new(),
            el2: 0,
            hold_fails: false,
            frozen: false,
            devices: vec![],
            traffic: vec![],
            updates: vec![],
            quarantined_vmids: vec![],
            truth: Truth::default(),
            tally: Tally::default(),
            journal: Journal::default(),
            alarms: vec![],
            parameters,
        }
    }

    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The index of the word at `pa`.
    pub fn index(&self, pa: u64) -> Option<u32> {
        let frames = self.parameters.frames as u64 * 512;
        let (in_pool, in_ram) = (pa.wrapping_sub(POOL) / 8, pa.wrapping_sub(self.parameters.ram.0) / 8);
        if in_pool < frames {
            u32::try_from(in_pool).ok()
        } else if in_ram < self.parameters.contents * 512 {
            u32::try_from(frames + in_ram).ok()
        } else {
            None
        }
    }

    /// The address of word `at`.
    pub fn address(&self, at: u32) -> u64 {
        let (at, frames) = (u64::from(at), self.parameters.frames as u64 * 512);
        if at < frames { POOL + at * 8 } else { self.parameters.ram.0 + (at - frames) * 8 }
    }

    pub fn is_ram(&self, pa: u64) -> bool {
        pa.wrapping_sub(self.parameters.ram.0) < self.parameters.ram_bytes
    }

    pub fn tlb(&self, walker: Walker) -> &Tlb {
        match walker {
            Walker::Smmu(smmu) => &self.smmus[smmu].tlb,
            Walker::Pe(pe) => &self.pes[pe].tlb,
        }
    }

    pub fn tlb_of(&mut self, walker: Walker) -> &mut Tlb {
        match walker {
            Walker::Smmu(smmu) => &mut self.smmus[smmu].tlb,
            Walker::Pe(pe) => &mut self.pes[pe].tlb,
        }
    }

    pub fn regime_of(&mut self, walker: Walker, master: u32) -> Result<Regime, Reason> {
        match walker {
            Walker::Smmu(smmu) => self.stream_regime(smmu, master),
            Walker::Pe(pe) => self.pes[pe].regime.ok_or(Reason::Disabled),
        }
    }

    pub fn note(&mut self, what: Happening) {
        self.journal.add(self.step, what);
    }

    pub fn alarm(&mut self, rule: Rule, account: String) {
        if self.alarms.len() < MOST_ALARMS {
            self.alarms.push(Alarm { rule, account, step: self.step, before: self.journal.lines() });
        }
    }

    /// Software is about to do something: hardware goes first, for as long as chance has it.
    pub fn software_step(&mut self) {
        self.step += 1;
        self.tally.steps += 1;
        while !self.frozen && self.random.chance(self.parameters.pace) {
            self.hardware_step();
        }
    }

    /// Something happens in hardware.
    pub fn hardware_step(&mut self) {
        self.step += 1;
        self.tally.steps += 1;
        match self.random.below(32) {
            0..=8 => self.device_step(),
            9..=17 => self.pe_step(),
            18..=23 => {
                let smmu = self.any_smmu();
                self.smmu_step(smmu);
            }
            24..=28 => self.speculate(),
            29 if self.parameters.whims => {
                let walker = self.any_walker();
                self.evict(walker);
            }
            30 => self.invalidate_early(),
            _ => self.land_some(),
        }
    }

    /// Chance is not asked where there is no choice: what a seed means does not depend on a second SMMU that is not there.
    fn any_smmu(&mut self) -> usize {
        if self.smmus.len() == 1 { 0 } else { self.random.index(self.smmus.len()) }
    }

    fn any_walker(&mut self) -> Walker {
        let smmus = self.smmus.len();
        match self.random.index(self.pes.len() + smmus) {
            smmu if smmu < smmus => Walker::Smmu(smmu),
            pe => Walker::Pe(pe - smmus),
        }
    }

    /// The SMMU that `stream` is behind: the first one, where nobody said.
    pub fn smmu_behind(&self, stream: u32) -> usize {
        self.devices.iter().find(|device| device.stream == stream).map_or(0, |device| device.smmu)
    }

    /// Some walker fetches what it may need.
    fn speculate(&mut self) {
        let walker = self.any_walker();
        let (master, window) = match walker {
            Walker::Smmu(smmu) => {
                let of_it: Vec<&Device> = self.devices.iter().filter(|d| d.smmu == smmu).collect();
                if of_it.is_empty() {
                    return;
                }
                let device = of_it[self.random.index(of_it.len())];
                (device.stream, device.window)
            }
            Walker::Pe(pe) if self.pes[pe].walks() => (pe as u32, self.pes[pe].window),
            Walker::Pe(_) => return,
        };
        let ipa = window.page(&mut self.random, master, self.step);
        if let Ok(regime) = self.regime_of(walker, master) {
            self.prefetch(walker, regime, ipa);
        }
    }

    /// An invalidation that has begun removes part of what it will have removed when it is complete.
    fn invalidate_early(&mut self) {
        for smmu in &mut self.smmus {
            if let Some(&(reach, begun)) = smmu.invalidations.first() {
                let random = &mut self.random;
                smmu.tlb.entries.retain(|e| e.born > begun || !reach.covers(e) || random.coin());
            }
        }
        if let Some(&CpuInvalidation { of, reach, begun }) = self.cpu_invalidations.first() {
            let covered = |(pe, _): &(usize, &mut Pe)| of.include(Walker::Pe(*pe));
            for (_, pe) in self.pes.iter_mut().enumerate().filter(covered) {
                let random = &mut self.random;
                pe.tlb.entries.retain(|e| e.born > begun || !reach.covers(e) || random.coin());
            }
        }
    }

    /// Software changes the word at `at` by `change`, in one step; gives back what it was.
    pub fn change(&mut self, at: u32, change: impl Fn(u64) -> u64) -> u64 {
        self.before_change(at, &change);
        let old = self.memory.newest(at);
        self.memory.has_been_read(at);
        let new = change(old);
        if new != old {
            self.check_change(at, old, new);
            self.memory.store(at, new, false);
            self.note(Happening::Atomic(self.address(at), old, new));
        }
        old
    }

    /// Software executes `barrier`.
    pub fn barrier(&mut self, barrier: Barrier) {
        let (system, full) = match barrier {
            Barrier::DsbIshst => (false, false),
            Barrier::DsbIsh => (false, true),
            Barrier::DsbSt => (true, false),
            Barrier::DsbSy => (true, true),
            // What it orders for this PE alone nobody relies on but local invalidations.
            Barrier::DsbNsh => {
                self.complete_cpu_invalidations(false);
                self.note(Happening::Barrier(barrier));
                return;
            }
            Barrier::Isb => return,
        };
        self.memory.barrier(Observer::Pe, full);
        if system {
            (0..self.smmus.len()).for_each(|smmu| self.memory.barrier(Observer::Smmu(smmu), full));
        }
        if full {
            self.memory.synchronize();
            self.complete_cpu_invalidations(true);
        }
        self.note(Happening::Barrier(barrier));
    }
}
