//! Whole tables, built before anything points at them.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa, PageSize};
use crate::frames::{FrameReserve, Frames};
use crate::hw::{Cpu, Memory};
use crate::stage2::Rights;
use crate::stage2::descriptor::{self, Leaf, LeafState, entry_bytes};
use crate::stage2::tree::{Contents, ENTRIES, free_table};

/// What an entry of a new table shall be.
pub(crate) enum Plan {
    /// This word: a leaf, or 0 for nothing.
    Word(u64),
    /// A table of the next level.
    Table,
}

/// Decides the entries of new tables.
pub(crate) trait Layout {
    /// The entry at `level` that translates from `base`. Level 3 is never [`Plan::Table`].
    fn plan(&self, level: u8, base: Ipa) -> Plan;

    /// Whether all that a table at `level` from `base` translates is to be pages.
    fn all_pages(&self, level: u8, base: Ipa) -> bool;

    /// The first word of a table at `level`, 2 or 3, from `base` whose words are this one with ascending addresses, where
    /// the layout is so regular there: such tables are filled by arithmetic alone.
    fn regular(&self, level: u8, base: Ipa) -> Option<u64>;
}

/// A new mapping: `range` to `pa`, by pages in `by_pages`, by the largest leaves elsewhere; nothing outside.
pub(crate) struct MapLayout {
    pub range: IpaRange,
    pub pa: Pa,
    pub rights: Rights,
    pub state: LeafState,
    pub by_pages: Option<IpaRange>,
}

impl MapLayout {
    const fn pa_of(&self, ipa: Ipa) -> Pa {
        Pa(self.pa.0.wrapping_add(ipa.0.wrapping_sub(self.range.start().0)))
    }

    fn word(&self, level: u8, base: Ipa) -> u64 {
        descriptor::with_state(descriptor::leaf(level, self.pa_of(base), self.rights), self.state)
    }
}

impl Layout for MapLayout {
    fn plan(&self, level: u8, base: Ipa) -> Plan {
        let Ok(entry) = IpaRange::new(base, entry_bytes(level)) else { return Plan::Word(0) };
        if !self.range.overlaps(entry) {
            return Plan::Word(0);
        }
        let fits = (level == 3 || !self.by_pages.is_some_and(|pages| pages.overlaps(entry)))
            && self.range.covers(entry)
            && self.pa_of(base).is_aligned(entry_bytes(level));
        if fits { Plan::Word(self.word(level, base)) } else { Plan::Table }
    }

    fn all_pages(&self, level: u8, base: Ipa) -> bool {
        let both = |table| self.range.covers(table) && self.by_pages.is_some_and(|pages| pages.covers(table));
        translated(level, base).is_some_and(both)
    }

    fn regular(&self, level: u8, base: Ipa) -> Option<u64> {
        let table = translated(level, base)?;
        let fits = level == 3
            || level == 2
                && self.pa_of(base).is_aligned(entry_bytes(level))
                && !self.by_pages.is_some_and(|pages| pages.overlaps(table));
        (fits && self.range.covers(table)).then(|| self.word(level, base))
    }
}

/// What replaces a block: leaves of at most `inside` within `range`, in `state`; the largest that fit outside,
/// writable-dirty.
pub(crate) struct SplitLayout {
    pub block: Leaf,
    pub base: Ipa,
    pub range: IpaRange,
    pub inside: PageSize,
    pub state: LeafState,
}

impl SplitLayout {
    fn word(&self, level: u8, base: Ipa, state: LeafState) -> u64 {
        let pa = self.block.pa().offset(base.0 - self.base.0);
        let word = descriptor::leaf(level, pa, self.block.rights());
        descriptor::with_state(word, state)
    }
}

impl Layout for SplitLayout {
    fn plan(&self, level: u8, base: Ipa) -> Plan {
        let Ok(entry) = IpaRange::new(base, entry_bytes(level)) else { return Plan::Word(0) };
        if !self.range.overlaps(entry) {
            Plan::Word(self.word(level, base, LeafState::WritableDirty))
        } else if level >= self.inside.level() && self.range.covers(entry) {
            Plan::Word(self.word(level, base, self.state))
        } else {
            Plan::Table
        }
    }

    fn all_pages(&self, level: u8, base: Ipa) -> bool {
        self.inside == PageSize::Size4K
            && translated(level, base).is_some_and(|table| self.range.covers(table))
    }

    fn regular(&self, level: u8, base: Ipa) -> Option<u64> {
        let table = translated(level, base)?;
        let fits = level >= 2 && level >= self.inside.level() && self.range.covers(table);
        fits.then(|| self.word(level, base, self.state))
    }
}

/// What a table at `level`, 1 to 3, from `base` translates.
fn translated(level: u8, base: Ipa) -> Option<IpaRange> {
    IpaRange::new(base, entry_bytes(level - 1)).ok()
}

/// Entries that are planned between two windows for interrupts.
const WINDOW_ENTRIES: usize = 64;

/// How many tables [`build`] makes for a table at `level` that translates from `base`: itself and all below.
pub(crate) fn count(cpu: &impl Cpu, layout: &dyn Layout, level: u8, base: Ipa) -> usize {
    if level == 3 || layout.regular(level, base).is_some() {
        return 1;
    }
    if layout.all_pages(level, base) {
        // One for each entry of each level above the pages.
        return (level..3).fold(1, |below, _| 1 + ENTRIES * below);
    }
    let mut tables = 1;
    for (i, at) in entries(level, base).enumerate() {
        if (i + 1).is_multiple_of(WINDOW_ENTRIES) {
            cpu.relax();
        }
        if matches!(layout.plan(level, at), Plan::Table) {
            tables += count(cpu, layout, level + 1, at);
        }
    }
    tables
}

/// A sub-tree that nothing points at yet.
#[derive(Clone, Copy)]
pub(crate) struct Built {
    /// Its root table.
    pub table: Pa,
    /// What it is made of.
    pub contents: Contents,
}

/// Builds the table at `level` that translates from `base`, and all tables below it, out of `reserve`, which holds
/// at least as many frames as [`count`] says; `None`, and nothing is kept, where it does not. Where `clean` is set the tables are cleaned
/// to the point of coherency. Nothing points at the result; a barrier is due before something does.
pub(crate) fn build<P: Memory + Frames + Cpu>(
    platform: &P,
    layout: &dyn Layout,
    level: u8,
    base: Ipa,
    reserve: &mut FrameReserve,
    clean: bool,
) -> Option<Built> {
    let table = platform.take(reserve)?.into_pa();
    let mut contents = Contents { tables: 1, ..Contents::default() };
    if let Some(first) = layout.regular(level, base) {
        // With steps that are constants the words are made several at a time.
        match level {
            3 => platform.fill_ascending(table, ENTRIES, first, PAGE_BYTES),
            _ => platform.fill_ascending(table, ENTRIES, first, PageSize::Size2M.bytes()),
        }
        *contents.leaves.at(level) = ENTRIES as u64;
        platform.relax();
    } else if level == 3 {
        contents.leaves.pages_4k = fill_pages(platform, layout, base, table);
        // A window for interrupts after each level-3 table: building may take long, and nothing depends on it yet.
        platform.relax();
    } else {
        let mut words = [0; ENTRIES];
        for (i, at) in entries(level, base).enumerate() {
            if (i + 1).is_multiple_of(WINDOW_ENTRIES) {
                platform.relax();
            }
            words[i] = match layout.plan(level, at) {
                Plan::Word(word) => {
                    *contents.leaves.at(level) += word & descriptor::VALID;
                    word
                }
                Plan::Table => {
                    let Some(below) = build(platform, layout, level + 1, at, reserve, clean) else {
                        platform.fill(table, ENTRIES, |i| words[i]);
                        free_table(platform, table, level);
                        return None;
                    };
                    contents.tables += below.contents.tables;
                    contents.leaves.add(below.contents.leaves);
                    descriptor::table(below.table)
                }
            };
        }
        platform.fill(table, ENTRIES, |i| words[i]);
    }
    if clean {
        platform.clean_to_poc(table, PAGE_BYTES);
    }
    Some(Built { table, contents })
}

/// Fills a level-3 table; says how many pages it maps.
fn fill_pages(memory: &impl Memory, layout: &dyn Layout, base: Ipa, table: Pa) -> u64 {
    let mut words = [0; ENTRIES];
    for (word, at) in words.iter_mut().zip(entries(3, base)) {
        if let Plan::Word(page) = layout.plan(3, at) {
            *word = page;
        }
    }
    memory.fill(table, ENTRIES, |i| words[i]);
    words.iter().map(|word| word & descriptor::VALID).sum()
}

/// The first addresses of the entries of a table at `level` from `base`.
fn entries(level: u8, base: Ipa) -> impl Iterator<Item = Ipa> {
    (0..ENTRIES as u64).map(move |i| base.offset(i * entry_bytes(level)))
}
