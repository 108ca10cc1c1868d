//! Access flags of table descriptors (FEAT_HAFT, Arm ARM D8.5.1.3; IHI 0070 §3.13.6): a table of pages that no walk has gone
//! through since its flag was cleared holds no leaf that hardware has made dirty since, and a harvest need not read it.
//!
//! What makes that true:
//! - Hardware sets the flag when it fetches the table descriptor from memory. What it has cached of the table, or of leaves
//!   below it, it uses without: clearing the flag owes an invalidation that covers table descriptors.
//! - Until that has completed leaves may become dirty under a clear flag. So a table whose flag a harvest has cleared is
//!   read by the next one whatever its flag says; [`AF_CLEARED`] in its descriptor says so.
//! - A flag is cleared, and [`AF_CLEARED`] taken back, only by a harvest that reads and cleans all of the table: what
//!   another leaves dirty must be found later.
//! - Software that puts dirty leaves into a table sets the flag itself.
//!
//! A table is linked with a clear flag: hardware that makes a leaf in it dirty has fetched its descriptor.

use crate::addr::IpaRange;
use crate::hw::{Memory, Word};
use crate::stage2::Harvest;
use crate::stage2::descriptor::{AF, AF_CLEARED, Entry};
use crate::stage2::harvest::{Found, What};
use crate::stage2::tree::{Slot, Tree};

/// The level of the descriptors of level-3 tables.
pub(super) const ABOVE_PAGES: u8 = 2;

impl Tree {
    /// From now on hardware keeps the access flags of table descriptors. Those there are may hold dirty leaves: `all` is
    /// what the tree translates.
    pub(crate) fn use_table_flags(&mut self, memory: &impl Memory, all: impl Iterator<Item = IpaRange>) {
        self.table_flags = true;
        all.for_each(|range| self.note_dirty(memory, range));
    }

    /// Whether hardware keeps the access flags of table descriptors.
    pub(crate) const fn has_table_flags(&self) -> bool {
        self.table_flags
    }

    /// Software has made leaves of `range` dirty: the tables they stand in are to be read.
    pub(crate) fn note_dirty(&self, memory: &impl Memory, range: IpaRange) {
        let mut at = if self.table_flags { range.start() } else { range.end() };
        while at < range.end() {
            let (slot, word) = self.walk_to(memory, at, ABOVE_PAGES);
            if let Entry::Table(_) = Entry::at(slot.level, word) {
                slot.word(memory).fetch_or(AF);
            }
            at = slot.range().map_or(range.end(), IpaRange::end);
        }
    }

    /// Whether a harvest of `part` need not read the table of pages whose descriptor was read in `slot` as `seen`; and what it
    /// does to that descriptor.
    pub(crate) fn may_skip(
        &self,
        memory: &impl Memory,
        slot: Slot,
        seen: u64,
        part: IpaRange,
        mode: Harvest,
        found: &mut impl FnMut(Found),
    ) -> bool {
        if !self.table_flags || mode == Harvest::Assume {
            return false;
        }
        let whole = slot.range() == Some(part);
        match (seen & AF != 0, seen & AF_CLEARED != 0) {
            (false, false) => return true,
            _ if mode != Harvest::Clean || !whole => {}
            // Nobody but the harvest, of which there is one at a time, changes a descriptor whose flag is set: a pass of an
            // adaptive log counts in it, behind this.
            (true, _) => {
                let cleared = seen & !AF | AF_CLEARED;
                if slot.word(memory).compare_exchange(seen, cleared).is_ok() {
                    let (ipa, pages) = (part.start(), part.pages());
                    found(Found { what: What::TableFlag, pa: slot.pa, words: 1, ipa, pages });
                }
            }
            // Hardware may set the flag at any time.
            (false, true) => {
                slot.word(memory).fetch_and(!AF_CLEARED);
            }
        }
        false
    }
}
