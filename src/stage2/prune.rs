//! Taking a tree apart in parts, so that no step is long.

use crate::addr::Ipa;
use crate::frames::Frames;
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::descriptor::{Entry, entry_bytes};
use crate::stage2::tree::{Tree, free_table};

/// Tables freed, and entries looked at, in one step at the most, a single sub-tree's apart.
const STEP_TABLES: u64 = 512;

impl Tree {
    /// Frees a bounded part of the sub-trees from `at` on, and moves `at` behind them; `true` when nothing but the tables
    /// above them is left, which [`Tree::free`] is for. No walker uses the tree any more, and its VMID has been
    /// invalidated.
    pub(crate) fn prune(&mut self, platform: &(impl Memory + Frames + Cpu), at: &mut Ipa) -> bool {
        let end = Ipa(1 << self.format().ipa_bits());
        let (mut freed, mut looked) = (0, 0);
        while *at < end && freed < STEP_TABLES && looked < STEP_TABLES {
            let mut slot = self.root_slot(*at);
            if slot.level == 0
                && let Entry::Table(table) = slot.entry(platform)
            {
                slot = slot.below(table, *at);
            }
            if slot.level > 0
                && let Entry::Table(table) = slot.entry(platform)
            {
                freed += free_table(platform, table, slot.level + 1);
                slot.word(platform).store(0);
            }
            looked += 1;
            *at = slot.base.offset(entry_bytes(slot.level));
        }
        self.freed(freed);
        *at >= end
    }
}
