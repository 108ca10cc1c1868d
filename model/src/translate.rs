//! One translation: a TLB entry that matches or a walk, the permission, and the dirty state.

use crate::alarm::Rule;
use crate::core::Core;
use crate::descriptor::{DBM, NT, READ, WRITE, output, same_mapping};
use crate::journal::Happening;
use crate::tlb::Entry;
use crate::truth::Reason;
use crate::update::Walker;
use crate::walk::Regime;

/// What an access was translated to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated {
    pub pa: u64,
    /// Word index of the leaf.
    pub at: u32,
    /// When the oldest thing was read that the translation was made of.
    pub born: u64,
    /// The update it relies on that has not landed.
    pub update: Option<u64>,
}

/// Descriptors that are replaced under an access, at the most, before it gives up.
const TRIES: usize = 16;

impl Core {
    /// Translates an access.
    pub fn translate(
        &mut self,
        walker: Walker,
        regime: Regime,
        ipa: u64,
        write: bool,
    ) -> Result<Translated, Reason> {
        for _ in 0..TRIES {
            let entry = self.find(walker, regime, ipa)?;
            let done = |update| Translated {
                pa: output(entry.level, entry.word, ipa),
                at: entry.at,
                born: entry.born,
                update,
            };
            if entry.word & if write { WRITE } else { READ } != 0 {
                return Ok(done(self.owed(walker, entry.at)));
            }
            if !write || !regime.dirty || entry.word & DBM == 0 {
                return Err(Reason::Permission);
            }
            if let Ok(update) = self.make_dirty(walker, &entry, ipa) {
                return Ok(done(update));
            }
        }
        Err(Reason::Translation)
    }

    /// A leaf for `ipa`: cached, or walked to.
    fn find(&mut self, walker: Walker, regime: Regime, ipa: u64) -> Result<Entry, Reason> {
        if let Some(hit) = self.hit(walker, regime, ipa) {
            return Ok(hit);
        }
        let entry = self.walk(walker, regime, ipa)?;
        if !self.parameters.whims || self.random.chance(960) {
            self.cache(walker, entry);
        }
        Ok(entry)
    }

    /// One of the cached leaves that match: at BBML 2 any one, never two (IHI 0070 §3.21.1).
    fn hit(&mut self, walker: Walker, regime: Regime, ipa: u64) -> Option<Entry> {
        let matching: Vec<Entry> = {
            let tlb = self.tlb_of(walker);
            tlb.leaves(regime.vmid, ipa).map(|i| tlb.entries[i]).collect()
        };
        let first = matching.first()?;
        let sizes = matching.iter().any(|e| e.level != first.level);
        if sizes {
            self.two_sizes(walker, ipa, &matching);
        }
        let hit = matching[self.random.index(matching.len())];
        if hit.root != regime.root {
            let account = format!("{walker} translates {ipa:#x} in tree {:#x} by {hit}", regime.root);
            self.alarm(Rule::VmidReused, account);
        }
        let newest = self.memory.newest(hit.at);
        let lost_write = hit.word & WRITE != 0 && newest & WRITE == 0 && self.owed(walker, hit.at).is_none();
        if !same_mapping(newest, hit.word) || lost_write {
            self.tally.stale_hits += 1;
        }
        Some(hit)
    }

    fn two_sizes(&mut self, walker: Walker, ipa: u64, entries: &[Entry]) {
        self.tally.two_sizes += 1;
        let rule = match walker {
            Walker::Smmu(smmu) if self.smmus[smmu].has.bbml < 2 => Rule::SmmuTlbConflict,
            Walker::Pe(_) if self.parameters.pes.conflict_aborts => Rule::TlbConflictAbort,
            _ => return,
        };
        let found: Vec<String> = entries.iter().map(Entry::to_string).collect();
        self.alarm(rule, format!("{walker} finds for {ipa:#x}: {}", found.join("; ")));
    }

    /// Whether software has given up VMID `vmid` of `walker`, an SMMU.
    pub fn is_quarantined(&self, walker: Walker, vmid: u16) -> bool {
        matches!(walker, Walker::Smmu(smmu) if self.quarantined_vmids.contains(&(smmu, vmid)))
    }

    /// Keeps `entry`, if it may be kept.
    pub fn cache(&mut self, walker: Walker, mut entry: Entry) {
        // nT=1: as if not cached (IHI 0070 §3.21.1.2). At level 0 the bit is not there, at level 2 it is ignored.
        let heeds_nt = matches!(walker, Walker::Smmu(smmu) if self.smmus[smmu].has.bbml == 1);
        if heeds_nt && entry.is_leaf() && entry.level < 3 && entry.word & NT != 0 {
            return;
        }
        if self.is_quarantined(walker, entry.vmid) {
            self.alarm(Rule::VmidReused, format!("{walker} caches {entry} under a VMID that is quarantined"));
        }
        entry.combined = entry.is_leaf() && !walker.is_smmu() && self.random.coin();
        let Self { smmus, pes, random, .. } = self;
        let tlb = match walker {
            Walker::Smmu(smmu) => &mut smmus[smmu].tlb,
            Walker::Pe(pe) => &mut pes[pe].tlb,
        };
        let stale = tlb.entries.iter().find(|e| e.vmid == entry.vmid && e.root != entry.root).copied();
        if tlb.insert(entry, random) {
            self.note(Happening::Cached(walker, entry));
        }
        if let Some(old) = stale {
            self.alarm(Rule::VmidReused, format!("{walker} caches {entry} beside {old}"));
        }
    }

    /// Fetches a translation nobody asked for: any valid one, at any time.
    pub fn prefetch(&mut self, walker: Walker, regime: Regime, ipa: u64) {
        if let Ok(entry) = self.walk(walker, regime, ipa) {
            self.tally.prefetches += 1;
            self.cache(walker, entry);
            let page = entry.word & DBM != 0 && regime.dirty;
            if page && entry.word & WRITE == 0 && self.random.chance(self.parameters.spurious) {
                self.tally.spurious += 1;
                self.truth.touch(walker, ipa, self.step);
                // Nobody relies on it; where the descriptor is replaced it is given up.
                let _given_up = self.make_dirty(walker, &entry, ipa);
            }
        }
    }

    /// Drops an entry.
    pub fn evict(&mut self, walker: Walker) {
        let Self { smmus, pes, random, .. } = self;
        let tlb = match walker {
            Walker::Smmu(smmu) => &mut smmus[smmu].tlb,
            Walker::Pe(pe) => &mut pes[pe].tlb,
        };
        if !tlb.entries.is_empty() {
            tlb.entries.swap_remove(random.index(tlb.entries.len()));
            self.tally.evictions += 1;
        }
    }
}
