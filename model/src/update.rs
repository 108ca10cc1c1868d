//! Hardware's updates of the dirty state, and how late they may become visible.

use std::fmt;

use crate::core::Core;
use crate::descriptor::{AF, DBM, VOLATILE, WRITE, same_mapping, span};
use crate::journal::Happening;
use crate::memory::Observer;
use crate::tlb::{Entry, Reach};

/// How many updates, of 1024, are held back as long as they may be.
const STUBBORN: u32 = 192;

/// Whose translations these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walker {
    /// The SMMU of this number.
    Smmu(usize),
    Pe(usize),
}

impl Walker {
    pub const fn is_smmu(self) -> bool {
        matches!(self, Self::Smmu(_))
    }

    pub const fn observer(self) -> Observer {
        match self {
            Self::Smmu(smmu) => Observer::Smmu(smmu),
            Self::Pe(_) => Observer::Pe,
        }
    }
}

/// Some of the walkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walkers {
    Smmu(usize),
    AllPes,
    OnePe(usize),
}

impl Walkers {
    pub fn include(self, walker: Walker) -> bool {
        match (self, walker) {
            (Self::AllPes, Walker::Pe(_)) => true,
            (Self::OnePe(one), Walker::Pe(pe)) => one == pe,
            (Self::Smmu(one), Walker::Smmu(smmu)) => one == smmu,
            _ => false,
        }
    }
}

impl fmt::Display for Walker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smmu(0) => f.write_str("the SMMU"),
            Self::Smmu(smmu) => write!(f, "SMMU {smmu}"),
            Self::Pe(pe) => write!(f, "PE {pe}"),
        }
    }
}

/// A dirty bit, or the access flag of a table, that hardware owes to memory.
///
/// It lands at a time of chance, but at the latest when the architecture promises that it is visible: completion of a
/// CMD_SYNC that was submitted after a transaction that relies on it completed, or of an invalidation that completes
/// such a transaction (IHI 0070 §3.13.4); on a PE a DSB there, or a completed TLBI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub id: u64,
    pub walker: Walker,
    pub vmid: u16,
    /// A page that it translates.
    pub ipa: u64,
    /// All the bytes that it translates.
    pub bytes: u64,
    /// Where the descriptor stands.
    pub at: u32,
    /// The descriptor, its state apart.
    pub word: u64,
    /// The bits that are set in it.
    pub sets: u64,
    /// When the oldest thing was read that led to it.
    pub born: u64,
    /// It is held back until it can't be any more.
    pub stubborn: bool,
    /// When the first access that relies on it completed.
    pub relied: Option<u64>,
}

impl Core {
    /// Makes the leaf of `entry` writable-dirty for a write to `ipa`: `Ok` with the update that is owed, if one is,
    /// or `Err` where the descriptor is no more what was cached, so that the access is to be translated again.
    pub fn make_dirty(&mut self, walker: Walker, entry: &Entry, ipa: u64) -> Result<Option<u64>, ()> {
        let newest = self.memory.newest(entry.at);
        if !same_mapping(newest, entry.word) || newest & DBM == 0 {
            self.memory.settle(walker.observer(), entry.at);
            self.tlb_of(walker).entries.retain(|e| e.at != entry.at);
            self.tally.retranslated += 1;
            return Err(());
        }
        for cached in self.tlb_of(walker).entries.iter_mut().filter(|e| e.at == entry.at) {
            cached.word |= VOLATILE;
        }
        let owed = self.owed(walker, entry.at);
        if owed.is_some() || newest & WRITE != 0 {
            return Ok(owed);
        }
        let id = self.next_id();
        let stubborn = self.random.chance(STUBBORN);
        self.updates.push(Update {
            id,
            walker,
            vmid: entry.vmid,
            ipa,
            bytes: span(entry.level),
            at: entry.at,
            word: newest,
            sets: VOLATILE,
            born: entry.born,
            stubborn,
            relied: None,
        });
        if !stubborn && self.random.coin() {
            self.land(self.updates.len() - 1, false);
            return Ok(None);
        }
        Ok(Some(id))
    }

    /// The access flag of the table descriptor of `entry`, which a walk of `ipa` has fetched, is set: at once, or as late as
    /// the CMD_SYNC that makes the walk's other updates visible (IHI 0070 §3.13.6).
    pub fn owe_table_flag(&mut self, walker: Walker, vmid: u16, ipa: u64, entry: &Entry) {
        if self.owed(walker, entry.at).is_some() {
            return;
        }
        let (id, stubborn) = (self.next_id(), self.random.chance(STUBBORN));
        let Entry { at, word, born, .. } = *entry;
        // Whichever access it is for completes later: a CMD_SYNC submitted after that comes after this.
        let relied = Some(self.step);
        let bytes = 0x1000;
        self.updates.push(Update {
            id,
            walker,
            vmid,
            ipa,
            bytes,
            at,
            word,
            sets: AF,
            born,
            stubborn,
            relied,
        });
        if !stubborn && self.random.coin() {
            self.land(self.updates.len() - 1, false);
        }
    }

    /// The update of this descriptor that `walker` owes.
    pub fn owed(&self, walker: Walker, at: u32) -> Option<u64> {
        self.updates.iter().find(|u| u.at == at && u.walker == walker).map(|u| u.id)
    }

    /// An access that relies on update `id` has completed.
    pub fn rely(&mut self, id: Option<u64>) {
        let step = self.step;
        if let Some(update) = self.updates.iter_mut().find(|u| Some(u.id) == id) {
            update.relied = update.relied.or(Some(step));
        }
    }

    /// Writes update `index` to memory.
    pub fn land(&mut self, index: usize, forced: bool) {
        let update = self.updates.swap_remove(index);
        let old = self.memory.newest(update.at);
        if !same_mapping(old, update.word) {
            return;
        }
        self.memory.hardware_store(update.at, old | update.sets);
        self.note(Happening::Dirtied(self.address(update.at), old | update.sets));
        self.tally.held_back += u64::from(forced);
        if update.sets & WRITE == 0 {
            self.tally.table_flags += 1;
            return;
        }
        self.truth.dirtied(update.walker, update.ipa, update.bytes, self.step);
        self.tally.updates += 1;
        self.tally.races += u64::from(self.memory.is_being_cleaned(update.at));
    }

    /// Lands some update that is not held back.
    pub fn land_some(&mut self) {
        let ready: Vec<usize> = (0..self.updates.len()).filter(|i| !self.updates[*i].stubborn).collect();
        if !ready.is_empty() {
            let index = ready[self.random.index(ready.len())];
            self.land(index, false);
        }
    }

    /// Lands all updates that `which` names: they can't be held back any more.
    pub fn force(&mut self, which: impl Fn(&Update) -> bool) {
        while let Some(index) = self.updates.iter().position(&which) {
            self.land(index, true);
        }
    }

    /// Lands what the completion of an invalidation, begun at `begun`, makes visible.
    pub fn force_covered(&mut self, of: Walkers, reach: Reach, begun: u64) {
        self.force(|u| {
            let due = u.relied.is_some() || u.born <= begun;
            of.include(u.walker) && due && reach.completes(u.vmid, u.ipa)
        });
    }

    /// Software is about to change the word at `at` by `change`. An update of it comes before, or after, or, where
    /// the descriptor is replaced and nothing that relies on it has completed, finds that and is given up.
    pub fn before_change(&mut self, at: u32, change: &impl Fn(u64) -> u64) {
        if self.memory.was_changed(at) {
            self.tally.races += 1;
        }
        while let Some(index) = self.updates.iter().position(|u| u.at == at) {
            let old = self.memory.newest(at);
            if same_mapping(old, change(old)) {
                if self.random.coin() {
                    self.land(index, false);
                    continue;
                }
                return;
            }
            if self.updates[index].relied.is_some() {
                self.land(index, true);
            } else {
                self.give_up(index);
            }
        }
    }

    /// The compare-and-swap of update `index` fails: whoever relies on it translates again.
    fn give_up(&mut self, index: usize) {
        let update = self.updates.swap_remove(index);
        self.tlb_of(update.walker).entries.retain(|e| e.at != update.at);
        self.tally.retranslated += 1;
        for transaction in self.traffic.iter_mut().filter(|t| t.update() == Some(update.id)) {
            transaction.translate_again();
        }
    }
}
