//! Harvesting: one pass that reads, and where asked cleans, the dirty state of a range.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa};
use crate::bits::{runs, set_bits};
use crate::hw::{Memory, Word};
use crate::stage2::descriptor::{Entry, LOGGED, S2AP_WRITE, VALID};
use crate::stage2::table_flags::ABOVE_PAGES;
use crate::stage2::tree::{Slot, Tree};

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

/// What a harvest came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Leaves that are to be reported, and are as they were.
    Dirty,
    /// Leaves that are to be reported, and were made writable-clean.
    Cleaned,
    /// A table whose access flag was cleared.
    TableFlag,
}

/// Adjacent descriptors that a harvest came upon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// What they are.
    pub what: What,
    /// Where the first stands.
    pub pa: Pa,
    /// How many they are.
    pub words: u64,
    /// The first address that they translate.
    pub ipa: Ipa,
    /// How many pages they translate.
    pub pages: u64,
}

impl Found {
    /// The pages are to be reported.
    pub fn is_dirty(self) -> bool {
        self.what != What::TableFlag
    }

    /// The descriptors were changed: the view owes an invalidation.
    pub fn is_changed(self) -> bool {
        self.what != What::Dirty
    }
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
        mut dirty: impl FnMut(Ipa, u64),
    ) -> bool {
        let mut owed = false;
        self.harvest_words(memory, range, mode, |found| {
            owed |= found.is_changed();
            if found.is_dirty() {
                dirty(found.ipa, found.pages);
            }
        });
        owed
    }

    /// [`Tree::harvest`] that tells `found` of descriptors: those of a table in ascending order.
    pub(crate) fn harvest_words(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mode: Harvest,
        mut found: impl FnMut(Found),
    ) {
        let mut at = range.start();
        let mut next = None;
        while at < range.end() {
            // Nearly always the table that translates `at` is the one beside the last.
            let from = next.unwrap_or_else(|| self.root_slot(at));
            let (slot, word) = from.walk_to(memory, at, ABOVE_PAGES);
            let Some(whole) = slot.range() else { break };
            let Some(part) = whole.intersection(range) else { break };
            match Entry::at(slot.level, word) {
                Entry::Table(table) if !self.may_skip(memory, slot, word, part, mode, &mut found) => {
                    let first = slot.below(table, at);
                    pages(memory.words(first.pa, part.pages() as usize), first, mode, &mut found);
                }
                Entry::Leaf(_) if harvest_word(slot.word(memory), mode) => {
                    let told = if mode == Harvest::Assume { part } else { whole };
                    let (ipa, pages) = (told.start(), told.pages());
                    found(Found { what: mode.finds(), pa: slot.pa, words: 1, ipa, pages });
                }
                _ => {}
            }
            at = part.end();
            next = slot.next(at);
        }
    }
}

/// Descriptors of one cache line, which are read and tested together.
const LINE: usize = 8;

/// Harvests adjacent entries of a level-3 table, the first of which is that of `first`; adjacent dirty ones are told of
/// together.
///
/// Nearly always there is next to nothing. So all lines are looked at first, without a branch that depends on what they
/// hold: where the few dirty pages are can't be predicted, and each wrong guess costs as much as reading several lines.
// Not inlined into the walk, whose variables would take its registers.
#[inline(never)]
fn pages<W: Word>(words: &[W], first: Slot, mode: Harvest, mut found: impl FnMut(Found)) {
    let mut report = |run: &Run| {
        let (pa, ipa) = (first.pa.offset(run.first * 8), first.base.offset(run.first * PAGE_BYTES));
        let count = run.end - run.first;
        found(Found { what: mode.finds(), pa, words: count, ipa, pages: count });
    };
    let mut run = Run::default();
    let (lines, rest) = words.as_chunks::<LINE>();
    for i in set_bits(marked_lines(lines, mode.mark())) {
        let (line, first) = (&lines[i], i * LINE);
        for (skip, count) in runs(sought_words(line, mode)) {
            if mode != Harvest::Clean {
                run.extend(first as u64 + skip, count, &mut report);
                continue;
            }
            for index in skip..skip + count {
                if clean(&line[index as usize]) {
                    run.extend(first as u64 + index, 1, &mut report);
                }
            }
        }
    }
    for (index, word) in (words.len() - rest.len()..).zip(rest) {
        if harvest_word(word, mode) {
            run.extend(index as u64, 1, &mut report);
        }
    }
    run.finish(report);
}

/// Which of `lines`, those of a table at the most, hold a word that has bit `mark` set: one bit a line.
fn marked_lines<W: Word>(lines: &[[W; LINE]], mark: u32) -> u64 {
    let mut marked = 0_u64;
    for [a, b, c, d, e, f, g, h] in lines {
        // Written out: no loop where the image is made small.
        let all = a.load() | b.load() | c.load() | d.load() | e.load() | f.load() | g.load() | h.load();
        marked = marked.rotate_right(1) | all & 1 << mark;
    }
    // The last line's bit is where the mark is in a word, that of each before it one lower: the first line's goes to bit 0.
    marked.rotate_left(lines.len() as u32 + (u64::BITS - 1) - mark)
}

/// Which words of a line are those of leaves to be reported: one bit a word.
fn sought_words<W: Word>(words: &[W; LINE], mode: Harvest) -> u64 {
    let sought = mode.sought();
    words.iter().rev().fold(0, |bits, word| bits << 1 | u64::from(word.load() & sought == sought))
}

/// Whether what is a leaf, or in the place of one, counts as dirty.
fn harvest_word(word: &impl Word, mode: Harvest) -> bool {
    word.load() & mode.sought() == mode.sought() && (mode != Harvest::Clean || clean(word))
}

/// Makes a leaf that was read as writable-dirty writable-clean. Whether it was dirty is what the atomic operation returns,
/// not what was read before it.
fn clean(word: &impl Word) -> bool {
    word.fetch_and(!S2AP_WRITE) & S2AP_WRITE != 0
}

impl Harvest {
    /// The bit that tells a descriptor that may have to be reported from one that need not.
    const fn mark(self) -> u32 {
        match self {
            Self::Keep | Self::Clean => S2AP_WRITE.trailing_zeros(),
            Self::Assume => VALID.trailing_zeros(),
        }
    }

    /// What those leaves are that are to be reported.
    const fn finds(self) -> What {
        match self {
            Self::Clean => What::Cleaned,
            Self::Keep | Self::Assume => What::Dirty,
        }
    }

    /// What a leaf has set, all of it, that is to be reported.
    const fn sought(self) -> u64 {
        VALID | LOGGED | 1 << self.mark()
    }
}

/// Adjacent dirty pages that are not reported yet.
#[derive(Default)]
struct Run {
    first: u64,
    end: u64,
}

impl Run {
    /// `count` pages from `first`, behind all before them, are dirty: a run that they don't belong to is reported.
    fn extend(&mut self, first: u64, count: u64, report: impl FnMut(&Self)) {
        if first != self.end {
            self.finish(report);
            self.first = first;
        }
        self.end = first + count;
    }

    /// Reports what is left.
    fn finish(&self, mut report: impl FnMut(&Self)) {
        if self.first != self.end {
            report(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::RacingWord;

    #[test]
    fn a_leaf_that_somebody_else_cleans_between_look_and_clean_is_his_to_report() {
        let dirty = VALID | LOGGED | S2AP_WRITE;
        assert!(harvest_word(&RacingWord::new(dirty, dirty), Harvest::Clean));
        assert!(!harvest_word(&RacingWord::new(dirty, dirty & !S2AP_WRITE), Harvest::Clean));
    }
}
