//! The stage-2 walk (Arm ARM D8.2, D8.3; IHI 0070 §3.4), on the words in memory as the walker comes to see them.

use crate::alarm::Rule;
use crate::core::Core;
use crate::descriptor::{AF, CONTIGUOUS, Shape, shape};
use crate::tlb::Entry;
use crate::truth::Reason;
use crate::update::Walker;

/// A translation regime: a tree and how it is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Regime {
    pub vmid: u16,
    pub root: u64,
    pub start_level: u8,
    pub ipa_bits: u32,
    /// Hardware updates the dirty state.
    pub dirty: bool,
    /// Hardware keeps the access flags of table descriptors.
    pub table_flags: bool,
    /// What faults stalls.
    pub stalls: bool,
}

/// Where a walk goes on.
struct Position {
    table: u64,
    level: u8,
    /// When the oldest thing was read that led here.
    born: u64,
    /// Something that led here has outlived an invalidation.
    spared: bool,
}

const fn shift(level: u8) -> u32 {
    12 + 9 * (3 - level as u32)
}

impl Core {
    /// Walks to the leaf that translates `ipa`; what it passes may be cached.
    pub fn walk(&mut self, walker: Walker, regime: Regime, ipa: u64) -> Result<Entry, Reason> {
        if ipa >> regime.ipa_bits != 0 {
            return Err(Reason::Translation);
        }
        let mut position = self.walk_from(walker, regime, ipa);
        loop {
            let entry = self.read_descriptor(walker, regime, ipa, &position)?;
            match shape(entry.level, entry.word) {
                Shape::Invalid => return Err(Reason::Translation),
                Shape::Leaf => {
                    self.check_leaf(walker, &entry);
                    return Ok(entry);
                }
                Shape::Table(table) => {
                    let Some(entry) = self.with_table_flag(walker, regime, ipa, entry) else { continue };
                    if !self.parameters.whims || self.random.coin() {
                        self.cache(walker, entry);
                    }
                    let Entry { level, born, spared, .. } = entry;
                    position = Position { table, level: level + 1, born, spared };
                }
            }
        }
    }

    /// The root, or any cached table descriptor on the way.
    fn walk_from(&mut self, walker: Walker, regime: Regime, ipa: u64) -> Position {
        let cached: Vec<usize> = self.tlb_of(walker).tables(regime.vmid, ipa).collect();
        let deepest = |i: &usize| self.tlb(walker).entries[*i].level;
        let chosen = match self.parameters.whims {
            false => cached.iter().copied().max_by_key(deepest),
            true if cached.is_empty() || !self.random.chance(640) => None,
            true => Some(cached[self.random.index(cached.len())]),
        };
        if let Some(chosen) = chosen {
            let entry = self.tlb(walker).entries[chosen];
            if let Some(table) = entry.table() {
                self.tally.cached_walks += 1;
                let Entry { level, born, spared, .. } = entry;
                return Position { table, level: level + 1, born, spared };
            }
        }
        Position { table: regime.root, level: regime.start_level, born: self.step, spared: false }
    }

    fn read_descriptor(
        &mut self,
        walker: Walker,
        regime: Regime,
        ipa: u64,
        position: &Position,
    ) -> Result<Entry, Reason> {
        let &Position { table, level, born, spared } = position;
        // Concatenated root tables are indexed by all that is left of the address.
        let bits = if level == regime.start_level { regime.ipa_bits } else { shift(level) + 9 };
        let index = (ipa & ((1 << bits) - 1)) >> shift(level);
        let pa = table + index * 8;
        let Some(at) = self.index(pa) else {
            self.alarm(
                Rule::WalkAstray,
                format!("{walker} walks {ipa:#x} to level {level} at {pa:#x}, no memory"),
            );
            return Err(Reason::External);
        };
        let look = self.memory.look(walker.observer(), at, &mut self.random);
        self.tally.smmu_reads += u64::from(walker.is_smmu());
        self.tally.old_values_read += u64::from(look.old);
        if look.premature {
            let value = look.value;
            let account =
                format!("{walker} walks {ipa:#x} and reads {value:#x} at {pa:#x}, filled but not visible");
            self.alarm(Rule::TableNotVisible, account);
        }
        let base = ipa >> shift(level) << shift(level);
        let (vmid, root) = (regime.vmid, regime.root);
        Ok(Entry { vmid, root, base, level, word: look.value, at, born, combined: false, spared })
    }

    /// A table descriptor that a walk of `ipa` has fetched, its access flag set: with it clear it may be kept nowhere
    /// (IHI 0070 §3.13.6). `None` where it is no more what was fetched: it is fetched again.
    fn with_table_flag(
        &mut self,
        walker: Walker,
        regime: Regime,
        ipa: u64,
        mut entry: Entry,
    ) -> Option<Entry> {
        if !regime.table_flags || entry.word & AF != 0 {
            return Some(entry);
        }
        let newest = self.memory.newest(entry.at);
        if newest & !AF != entry.word {
            self.memory.settle(walker.observer(), entry.at);
            self.tally.retranslated += 1;
            return None;
        }
        if newest & AF == 0 {
            self.owe_table_flag(walker, regime.vmid, ipa, &entry);
        }
        entry.word |= AF;
        Some(entry)
    }

    fn check_leaf(&mut self, walker: Walker, entry: &Entry) {
        self.memory.note_leaf(entry.at);
        if entry.word & CONTIGUOUS != 0 {
            self.alarm(Rule::Contiguous, format!("{walker} reads {entry}"));
        }
        if entry.word & AF == 0 {
            self.alarm(Rule::AccessFlagClear, format!("{walker} reads {entry}"));
        }
    }
}
