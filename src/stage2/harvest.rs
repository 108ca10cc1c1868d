//! Harvesting: one pass that reads, and where asked cleans, the dirty state of a range.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa};
use crate::hw::{Memory, Word};
use crate::stage2::descriptor::{self, Entry, S2AP_WRITE};
use crate::stage2::tree::Tree;

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

/// A descriptor that a harvest changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    /// Where it stands.
    pub pa: Pa,
    /// The first address that it translates.
    pub ipa: Ipa,
    /// How many pages it translates.
    pub pages: u64,
    /// It is that of a table, whose access flag was cleared, and not a leaf that was cleaned.
    pub is_table: bool,
}

impl Tree {
    /// Reports the dirty pages of `range`, an address and a number of pages at a time, in ascending order; `true`
    /// where the view owes an invalidation. Leaf state only is changed: shared access suffices.
    ///
    /// Hardware's updates must have been made visible before
    /// ([`Walker::collect_updates`](crate::stage2::Walker::collect_updates)). A block counts whole and is cleaned whole:
    /// what is reported may begin before `range` and end behind it. [`Harvest::Assume`] reports no more than `range`.
    ///
    /// Where hardware keeps the access flags of tables
    /// ([`AddressSpace::use_table_flags`](crate::address_space::AddressSpace::use_table_flags)) tables that no walk has gone
    /// through are not read. Flags are cleared then, too: the invalidation has to cover table descriptors.
    pub fn harvest(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mode: Harvest,
        dirty: impl FnMut(Ipa, u64),
    ) -> bool {
        let mut owed = false;
        self.harvest_words(memory, range, mode, dirty, |_| owed = true);
        owed
    }

    /// [`Tree::harvest`]; `changed` is given each descriptor that was changed, those of a table in ascending order.
    pub(crate) fn harvest_words(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mode: Harvest,
        mut dirty: impl FnMut(Ipa, u64),
        mut changed: impl FnMut(Changed),
    ) {
        let mut at = range.start();
        while at < range.end() {
            let (slot, word) = self.walk_to(memory, at, 2);
            let Some(part) = slot.range().and_then(|r| r.intersection(range)) else { break };
            match Entry::at(slot.level, word) {
                Entry::Table(table) => {
                    if self.may_skip(memory, slot, word, part, mode, &mut changed) {
                        at = part.end();
                        continue;
                    }
                    let first = slot.below(table, at).pa;
                    let words = memory.words(first, part.pages() as usize);
                    pages(words, at, mode, &mut dirty, |i| {
                        let (pa, ipa) = (first.offset(i * 8), at.offset(i * PAGE_BYTES));
                        changed(Changed { pa, ipa, pages: 1, is_table: false });
                    });
                }
                Entry::Leaf(leaf) => {
                    if let Some(clean) = leaf_dirty(slot.word(memory), leaf.word, mode) {
                        let whole = slot.range().filter(|_| mode != Harvest::Assume).unwrap_or(part);
                        dirty(whole.start(), whole.pages());
                        if clean {
                            let (ipa, pages) = (whole.start(), whole.pages());
                            changed(Changed { pa: slot.pa, ipa, pages, is_table: false });
                        }
                    }
                }
                Entry::Absent => {}
            }
            at = part.end();
        }
    }
}

/// Descriptors of one cache line, which are read and tested together.
const LINE: usize = 8;

/// Harvests adjacent entries of a level-3 table, the first of which translates `at`; `changed` is given the index of each
/// that was cleaned. Adjacent dirty pages are reported together.
fn pages<W: Word>(
    words: &[W],
    at: Ipa,
    mode: Harvest,
    dirty: &mut impl FnMut(Ipa, u64),
    mut changed: impl FnMut(u64),
) {
    let mut found = Found { mode, run: Run::default() };
    let (lines, rest) = words.as_chunks::<LINE>();
    for (i, line) in lines.iter().enumerate() {
        // Nearly always there is nothing: one branch for all of them, and no loop where the image is made small.
        let [a, b, c, d, e, f, g, h] = line;
        let all = a.load() | b.load() | c.load() | d.load() | e.load() | f.load() | g.load() | h.load();
        if all & mode.mark() != 0 {
            found.line(i * LINE, line, at, dirty, &mut changed);
        }
    }
    found.line(words.len() - rest.len(), rest, at, dirty, &mut changed);
    found.run.end(|first, count| dirty(at.offset(first * PAGE_BYTES), count));
}

/// What [`pages`] has found so far.
struct Found {
    mode: Harvest,
    run: Run,
}

impl Found {
    /// Harvests `words`, a line or less, the first of which is entry `first` of those from `at`.
    fn line<W: Word>(
        &mut self,
        first: usize,
        words: &[W],
        at: Ipa,
        dirty: &mut impl FnMut(Ipa, u64),
        changed: &mut impl FnMut(u64),
    ) {
        for (index, word) in (first as u64..).zip(words) {
            let Some(clean) = leaf_dirty(word, word.load(), self.mode) else { continue };
            self.run.extend(index, |first, count| dirty(at.offset(first * PAGE_BYTES), count));
            if clean {
                changed(index);
            }
        }
    }
}

impl Harvest {
    /// What a descriptor has set at least if it is to be reported.
    const fn mark(self) -> u64 {
        match self {
            Self::Keep | Self::Clean => S2AP_WRITE,
            Self::Assume => descriptor::VALID,
        }
    }
}

/// Adjacent dirty pages that are not reported yet.
#[derive(Default)]
struct Run {
    first: u64,
    count: u64,
}

impl Run {
    /// The page `index`, behind all before it, is dirty: a run that it does not belong to is reported.
    fn extend(&mut self, index: u64, report: impl FnMut(u64, u64)) {
        if self.first + self.count != index {
            self.end(report);
            self.first = index;
        }
        self.count += 1;
    }

    /// Reports what is left.
    fn end(&mut self, mut report: impl FnMut(u64, u64)) {
        if self.count > 0 {
            report(self.first, self.count);
        }
        self.count = 0;
    }
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
