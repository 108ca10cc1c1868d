//! PEs that run vCPUs: their stage-2 TLBs, stores that are visible before their dirty bit, and being held at EL2.

use crate::alarm::Rule;
use crate::core::Core;
use crate::descriptor::{DBM, WRITE, same_mapping};
use crate::device::Window;
use crate::machine::WriteFault;
use crate::tlb::{Reach, Tlb};
use crate::truth::Reason;
use crate::update::{Walker, Walkers};
use crate::walk::Regime;

/// Stores and loads that one vCPU has under way at the most.
const UNDER_WAY: usize = 3;
/// Write-protect faults at one address, which may be written, before it counts as 'for ever'.
const PATIENCE: u32 = 8;

/// A PE.
pub(crate) struct Pe {
    /// The tree it runs on, where it runs a vCPU.
    pub regime: Option<Regime>,
    pub tlb: Tlb,
    /// The pages its vCPU works on.
    pub window: Window,
    /// At EL2, asked for by [`strandline::hw::Cpu::hold`].
    pub held: bool,
    /// Held without a DSB: a walk may be under way.
    pub unordered: bool,
    /// It waits for software to handle a write-protect fault.
    pub faulted: bool,
    pub last_fault: u64,
    /// The store that faulted, which the vCPU begins again first of all.
    retry: Option<u64>,
    repeats: u32,
}

/// An invalidation that no DSB has completed.
#[derive(Clone, Copy)]
pub(crate) struct CpuInvalidation {
    /// Whose TLBs: all PEs' where it is broadcast.
    pub of: Walkers,
    pub reach: Reach,
    pub begun: u64,
}

impl Pe {
    pub fn new(tlb_entries: usize) -> Self {
        Self {
            regime: None,
            tlb: Tlb::new(tlb_entries),
            window: Window { first: 0, pages: 1 },
            held: false,
            unordered: false,
            faulted: false,
            last_fault: 0,
            retry: None,
            repeats: 0,
        }
    }

    /// Whether walks of its tree may begin.
    pub fn walks(&self) -> bool {
        self.regime.is_some() && !self.held
    }
}

impl Core {
    pub fn pe_step(&mut self) {
        if self.pes.is_empty() {
            return;
        }
        let pe = self.random.index(self.pes.len());
        if !self.pes[pe].walks() || self.pes[pe].faulted {
            return;
        }
        let walker = Walker::Pe(pe);
        if let Some(ipa) = self.pes[pe].retry.take() {
            self.begin(walker, pe as u32, ipa, true);
            return;
        }
        let mine = self.under_way(walker, pe as u32);
        match self.random.below(8) {
            0 => self.dsb(pe),
            1..=4 if mine.len() < UNDER_WAY => {
                let ipa = self.pes[pe].window.page(&mut self.random, pe as u32, self.step);
                let write = self.random.chance(768);
                self.begin(walker, pe as u32, ipa, write);
            }
            _ if !mine.is_empty() => {
                let id = mine[self.random.index(mine.len())];
                self.advance(id);
            }
            _ => {}
        }
    }

    /// PE `pe` executes a DSB: its stores, and their updates of descriptors, are complete.
    pub fn dsb(&mut self, pe: usize) {
        let walker = Walker::Pe(pe);
        self.complete_all_of(walker, None);
        // What was not translated yet counts as not issued yet.
        self.traffic.retain(|t| t.walker != walker);
        self.force(|u| u.walker == walker);
        self.truth.completed(pe, self.step);
        self.pes[pe].unordered = false;
    }

    /// Stops the vCPUs of the tree at `root`.
    pub fn hold(&mut self, root: u64, dsb: bool) {
        for pe in 0..self.pes.len() {
            if self.pes[pe].regime.is_some_and(|r| r.root == root) {
                self.pes[pe].unordered = true;
                if dsb {
                    self.dsb(pe);
                }
                self.pes[pe].held = true;
            }
        }
    }

    pub fn release(&mut self, root: u64) {
        for pe in self.pes.iter_mut().filter(|p| p.regime.is_some_and(|r| r.root == root)) {
            pe.held = false;
        }
    }

    /// An access of a vCPU faulted at stage 2.
    pub fn stage2_fault(&mut self, pe: usize, ipa: u64, write: bool, reason: Reason) {
        if !write || reason != Reason::Permission || self.parameters.pes.hafdbs {
            if self.truth.may_fault(ipa) {
                self.tally.expected_faults += 1;
            } else {
                self.tally.cpu_faults += 1;
            }
            return;
        }
        self.tally.write_faults += 1;
        let entry = self.pes[pe].tlb.entries.iter().find(|e| e.is_leaf() && e.base == ipa).copied();
        let writable = entry.is_some_and(|e| {
            let newest = self.memory.newest(e.at);
            same_mapping(newest, e.word) && newest & (DBM | WRITE) == DBM | WRITE
        });
        let state = &mut self.pes[pe];
        state.repeats = if writable && state.last_fault == ipa { state.repeats + 1 } else { 0 };
        state.last_fault = ipa;
        state.retry = Some(ipa);
        state.faulted = true;
        if state.repeats == PATIENCE {
            let account = format!("PE {pe} keeps faulting at {ipa:#x}: nobody invalidates its TLB entry");
            self.alarm(Rule::FaultsForEver, account);
        }
        // The exception comes before whatever was not translated yet.
        self.traffic.retain(|t| t.walker != Walker::Pe(pe) || t.target().is_some());
        self.faults.push_back(WriteFault { pe, ipa: strandline::addr::Ipa(ipa) });
    }

    /// A DSB completes the invalidations before it, and the accesses that used what they cover: those of this PE
    /// alone where it is one of the non-shareable domain, broadcast ones too where it is wider.
    pub fn complete_cpu_invalidations(&mut self, broadcast: bool) {
        let here = Walkers::OnePe(self.el2);
        let due = |i: &CpuInvalidation| i.of == here || broadcast && i.of == Walkers::AllPes;
        let (done, left) = std::mem::take(&mut self.cpu_invalidations).into_iter().partition(due);
        self.cpu_invalidations = left;
        let done: Vec<CpuInvalidation> = done;
        for CpuInvalidation { of, reach, begun } in done {
            if of == Walkers::AllPes {
                self.memory.forget_cleans();
            }
            self.complete_covered(of, reach, begun);
            for (pe, state) in self.pes.iter_mut().enumerate() {
                if of.include(Walker::Pe(pe)) {
                    state.tlb.remove(reach, begun);
                }
            }
        }
    }

    /// Looks at a change of `old` to `new` at word `at` that software is making.
    pub fn check_change(&mut self, at: u32, old: u64, new: u64) {
        if !self.memory.is_leaf(at) {
            return;
        }
        let pa = self.address(at);
        if same_mapping(old, new) {
            if old & !new & WRITE != 0 {
                self.memory.note_clean(at);
            }
            if old & DBM == 0 && old & WRITE != 0 && new & WRITE == 0 {
                self.alarm(Rule::CleanedWithoutDbm, format!("{old:#x} at {pa:#x} is made {new:#x}"));
            }
            return;
        }
        let unordered = (0..self.pes.len()).find(|&pe| {
            self.pes[pe].unordered && self.pes[pe].regime.is_some_and(|r| self.tree_contains(&r, pa & !0xfff))
        });
        if let Some(pe) = unordered {
            let account = format!("{old:#x} at {pa:#x} is made {new:#x} while PE {pe} is held without a DSB");
            self.alarm(Rule::WalkUnderWay, account);
        }
    }
}
