//! Harvesting: one pass that reads, and where asked cleans, the dirty state of a range.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, PAGE_SHIFT, Pa};
use crate::hw::{Memory, Word};
use crate::stage2::descriptor::{self, Entry, S2AP_WRITE};
use crate::stage2::tree::{ENTRIES, Tree};

/// What a harvest does to the leaves it finds dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harvest {
    /// Nothing.
    Keep,
    /// It makes them writable-clean, each by one atomic operation; the view owes an invalidation then.
    Clean,
    /// It reports every writable page, whatever its state: a view whose walker keeps no dirty state.
    Assume,
}

impl Tree {
    /// Reports the dirty pages of `range`, an address and a number of pages at a time, in ascending order; `true`
    /// where a leaf was cleaned. Leaf state only is changed: shared access suffices.
    ///
    /// Hardware's updates must have been made visible before
    /// ([`Walker::collect_updates`](crate::stage2::Walker::collect_updates)). A block counts whole and is cleaned whole:
    /// what is reported may begin before `range` and end behind it. [`Harvest::Assume`] reports no more than `range`.
    pub fn harvest(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mode: Harvest,
        dirty: impl FnMut(Ipa, u64),
    ) -> bool {
        self.harvest_words(memory, range, mode, dirty, |_| ())
    }

    /// [`Tree::harvest`]; `changed` is given the address of each word that was cleaned, in ascending order inside a
    /// table.
    pub(crate) fn harvest_words(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mode: Harvest,
        mut dirty: impl FnMut(Ipa, u64),
        mut changed: impl FnMut(Pa),
    ) -> bool {
        let mut cleaned = false;
        let mut at = range.start();
        while at < range.end() {
            let (slot, entry) = self.walk(memory, at);
            let Some(part) = slot.range().and_then(|r| r.intersection(range)) else { break };
            if slot.level == 3 {
                let left = (range.end().0 - at.0) >> PAGE_SHIFT;
                let index = (slot.pa.0 & (PAGE_BYTES - 1)) / 8;
                let count = left.min(ENTRIES as u64 - index);
                let words = memory.words(slot.pa, count as usize);
                cleaned |= pages(words, at, mode, &mut dirty, |i| changed(slot.pa.offset(i * 8)));
                at = at.offset(count * PAGE_BYTES);
                continue;
            }
            if let Entry::Leaf(leaf) = entry
                && let Some(clean) = leaf_dirty(slot.word(memory), leaf.word, mode)
            {
                let whole = slot.range().filter(|_| mode != Harvest::Assume).unwrap_or(part);
                dirty(whole.start(), whole.pages());
                if clean {
                    changed(slot.pa);
                }
                cleaned |= clean;
            }
            at = part.end();
        }
        cleaned
    }
}

/// Harvests adjacent entries of a level-3 table, the first of which translates `at`; `changed` is given the index of each
/// that was cleaned.
fn pages<W: Word>(
    words: &[W],
    at: Ipa,
    mode: Harvest,
    dirty: &mut impl FnMut(Ipa, u64),
    mut changed: impl FnMut(u64),
) -> bool {
    let mut cleaned = false;
    for (i, word) in words.iter().enumerate() {
        if let Some(clean) = leaf_dirty(word, word.load(), mode) {
            dirty(at.offset(i as u64 * PAGE_BYTES), 1);
            if clean {
                changed(i as u64);
            }
            cleaned |= clean;
        }
    }
    cleaned
}

/// Whether a leaf that was just read as `seen` counts as dirty, and then whether it was cleaned.
fn leaf_dirty(word: &impl Word, seen: u64, mode: Harvest) -> Option<bool> {
    if seen & descriptor::VALID == 0 || !descriptor::is_logged(seen) {
        return None;
    }
    match mode {
        Harvest::Assume => Some(false),
        Harvest::Keep => (seen & S2AP_WRITE != 0).then_some(false),
        Harvest::Clean if seen & S2AP_WRITE == 0 => None,
        // 'Was dirty' is what the atomic operation returned, not what was read before it.
        Harvest::Clean => (word.fetch_and(!S2AP_WRITE) & S2AP_WRITE != 0).then_some(true),
    }
}
