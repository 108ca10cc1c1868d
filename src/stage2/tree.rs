//! One translation tree: its root, its counters, and the walk.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa};
use crate::frames::{FrameBlock, Frames, OutOfFrames};
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::Format;
use crate::stage2::descriptor::{Entry, Leaf, entry_bytes, entry_shift};

/// Entries of one table.
pub(crate) const ENTRIES: usize = 512;

/// How many leaves of each size a tree has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafCounts {
    /// 1 GiB blocks.
    pub blocks_1g: u64,
    /// 2 MiB blocks.
    pub blocks_2m: u64,
    /// 4 KiB pages.
    pub pages_4k: u64,
}

impl LeafCounts {
    /// All leaves that are blocks.
    #[must_use]
    pub const fn blocks(self) -> u64 {
        self.blocks_1g + self.blocks_2m
    }

    /// One leaf at `level`, 1 to 3.
    pub(crate) const fn one(level: u8) -> Self {
        let mut counts = Self { blocks_1g: 0, blocks_2m: 0, pages_4k: 0 };
        *counts.at(level) += 1;
        counts
    }

    /// Adds those of `other`.
    pub(crate) const fn add(&mut self, other: Self) {
        self.blocks_1g += other.blocks_1g;
        self.blocks_2m += other.blocks_2m;
        self.pages_4k += other.pages_4k;
    }

    /// Takes those of `other` off. Counters are for people: after a foreign change of a table they may be off, and must
    /// not bring EL2 down.
    pub(crate) const fn subtract(&mut self, other: Self) {
        self.blocks_1g = self.blocks_1g.saturating_sub(other.blocks_1g);
        self.blocks_2m = self.blocks_2m.saturating_sub(other.blocks_2m);
        self.pages_4k = self.pages_4k.saturating_sub(other.pages_4k);
    }

    /// The counter of leaves at `level`, 1 to 3.
    pub(crate) const fn at(&mut self, level: u8) -> &mut u64 {
        match level {
            1 => &mut self.blocks_1g,
            2 => &mut self.blocks_2m,
            _ => &mut self.pages_4k,
        }
    }
}

/// What a sub-tree is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contents {
    pub tables: u64,
    pub leaves: LeafCounts,
}

/// A translation tree. It owns its table frames; whoever holds it exclusively changes its structure, whoever
/// shares it may change the dirty state of leaves, by single atomic operations.
#[derive(Debug)]
pub struct Tree {
    root: Pa,
    format: Format,
    tables: u64,
    leaves: LeafCounts,
    /// Hardware keeps the access flag of table descriptors.
    pub(super) table_flags: bool,
}

/// Where a descriptor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The address of the word.
    pub pa: Pa,
    /// The level of the table it is in.
    pub level: u8,
    /// The first address it translates.
    pub base: Ipa,
}

impl Slot {
    /// The word itself.
    pub fn word<M: Memory>(self, memory: &M) -> &M::Word {
        &memory.words(self.pa, 1)[0]
    }

    /// What it holds now.
    pub fn entry(self, memory: &impl Memory) -> Entry {
        Entry::at(self.level, self.word(memory).load())
    }

    /// How many entries of its table there are from it on that translate something before `end`, itself at least.
    pub fn entries_to(self, end: Ipa) -> usize {
        let table = ENTRIES - (self.pa.0 / 8) as usize % ENTRIES;
        let asked = (end.0 - self.base.0).div_ceil(entry_bytes(self.level));
        usize::try_from(asked).map_or(table, |asked| asked.min(table))
    }

    /// The addresses it translates.
    pub fn range(self) -> Option<IpaRange> {
        IpaRange::new(self.base, entry_bytes(self.level)).ok()
    }

    /// Walks from here on to the descriptor that translates `ipa`, which this one does too, no farther than to level
    /// `deepest`: its place, and what it holds.
    pub fn walk_to(mut self, memory: &impl Memory, ipa: Ipa, deepest: u8) -> (Self, u64) {
        loop {
            let word = self.word(memory).load();
            match Entry::at(self.level, word) {
                Entry::Table(table) if self.level < deepest => self = self.below(table, ipa),
                _ => return (self, word),
            }
        }
    }

    /// The slot behind this one, whose first address is `end`, where that is in the same table.
    pub const fn next(self, end: Ipa) -> Option<Self> {
        let last = end.is_aligned(entry_bytes(self.level) * ENTRIES as u64);
        if last { None } else { Some(Self { pa: self.pa.offset(8), level: self.level, base: end }) }
    }

    /// The slot of `table`, the next level's table under this one, that translates `ipa`.
    pub const fn below(self, table: Pa, ipa: Ipa) -> Self {
        let level = self.level + 1;
        Self { pa: slot_pa(table, level, ipa, ENTRIES), level, base: ipa.align_down(entry_bytes(level)) }
    }
}

const fn slot_pa(table: Pa, level: u8, ipa: Ipa, entries: usize) -> Pa {
    let index = ipa.0 >> entry_shift(level) & (entries as u64 - 1);
    table.offset(index * 8)
}

impl Tree {
    /// An empty tree.
    ///
    /// # Errors
    /// No memory for its root tables, which lie next to each other.
    pub fn new<P: Memory + Frames>(platform: &P, format: Format) -> Result<Self, OutOfFrames> {
        let needed = 1 << format.root_order();
        let block = platform.alloc(format.root_order());
        let block = block.ok_or_else(|| OutOfFrames { needed, free: platform.free_frames() })?;
        platform.fill(block.pa(), format.root_entries(), |_| 0);
        let tables = 1 << block.order();
        Ok(Self { root: block.into_pa(), format, tables, leaves: LeafCounts::default(), table_flags: false })
    }

    /// The (first) root table.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.root
    }

    /// Its shape.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Its table frames, the root's included.
    #[must_use]
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// Its leaves, by size.
    #[must_use]
    pub const fn leaves(&self) -> LeafCounts {
        self.leaves
    }

    /// Notes that `contents` have come into the tree.
    pub(crate) const fn gained(&mut self, contents: Contents) {
        self.tables += contents.tables;
        self.leaves.add(contents.leaves);
    }

    /// Notes that these leaves have left the tree; tables are noted when they are freed ([`Tree::freed`]).
    pub(crate) const fn lost(&mut self, leaves: LeafCounts) {
        self.leaves.subtract(leaves);
    }

    /// Notes that `tables` of the tree were given back.
    pub(crate) const fn freed(&mut self, tables: u64) {
        self.tables = self.tables.saturating_sub(tables);
    }

    /// The root's slot that translates `ipa`, an address the format covers.
    pub(crate) const fn root_slot(&self, ipa: Ipa) -> Slot {
        let level = self.format.start_level();
        let pa = slot_pa(self.root, level, ipa, self.format.root_entries());
        Slot { pa, level, base: ipa.align_down(entry_bytes(level)) }
    }

    /// Walks to the leaf, or the absent entry, that translates `ipa`, an address the format covers.
    pub(crate) fn walk(&self, memory: &impl Memory, ipa: Ipa) -> (Slot, Entry) {
        let (slot, word) = self.walk_to(memory, ipa, 3);
        (slot, Entry::at(slot.level, word))
    }

    /// [`Tree::walk`], no farther than to the descriptor at level `deepest`: its place, and what it holds.
    pub(crate) fn walk_to(&self, memory: &impl Memory, ipa: Ipa, deepest: u8) -> (Slot, u64) {
        self.root_slot(ipa).walk_to(memory, ipa, deepest)
    }

    /// What `ipa` translates to now: the leaf and the physical address; `None` where nothing is mapped.
    #[must_use]
    pub fn query(&self, memory: &impl Memory, ipa: Ipa) -> Option<(Leaf, Pa)> {
        let page = IpaRange::new(ipa.align_down(PAGE_BYTES), PAGE_BYTES).ok()?;
        if !self.format.covers(page) {
            return None;
        }
        match self.walk(memory, ipa) {
            (slot, Entry::Leaf(leaf)) => Some((leaf, leaf.pa().offset(ipa.0 - slot.base.0))),
            _ => None,
        }
    }

    /// Calls `visit` with each leaf or absent entry that translates part of `range`, in ascending order, and the
    /// part. `visit` must not change the structure before the end of the entry it was given.
    pub(crate) fn for_each(
        &self,
        memory: &impl Memory,
        range: IpaRange,
        mut visit: impl FnMut(Slot, Entry, IpaRange),
    ) {
        let mut at = range.start();
        while at < range.end() {
            let (slot, entry) = self.walk(memory, at);
            // A slot's range does not wrap: the format covers at most 48 bits.
            let Some(part) = slot.range().and_then(|r| r.intersection(range)) else { return };
            visit(slot, entry, part);
            at = part.end();
        }
    }

    /// Leaves the tree as it is, for ever: a walker may still use it. Says how many frames that takes out of use, besides
    /// tables that were unlinked before.
    pub(crate) fn abandon(self, memory: &impl Memory) -> u64 {
        let roots = 1 << self.format.root_order();
        (0..roots)
            .map(|i| count_tables(memory, self.root.offset(i * PAGE_BYTES), self.format.start_level()))
            .sum()
    }

    /// Gives all frames of the tree back. No walker uses it any more, and its VMID has been invalidated.
    pub fn free(self, platform: &(impl Memory + Frames + Cpu)) {
        let level = self.format.start_level();
        for i in 0..self.format.root_entries() as u64 {
            let word = platform.words(self.root.offset(i * 8), 1)[0].load();
            if let Entry::Table(table) = Entry::at(level, word) {
                free_table(platform, table, level + 1);
            }
        }
        platform.free(FrameBlock::from_pa(self.root, self.format.root_order()));
    }
}

/// Removes the leaves at and below `slot`, and shows each to `left` as it was when it went; says how many they were.
pub(crate) fn remove_leaves(
    memory: &impl Memory,
    slot: Slot,
    left: &mut impl FnMut(IpaRange, Leaf),
) -> LeafCounts {
    let mut leaves = LeafCounts::default();
    match slot.entry(memory) {
        Entry::Absent => {}
        Entry::Leaf(_) => {
            // The state it had is what the atomic operation returns.
            let removed = Entry::at(slot.level, slot.word(memory).fetch_and(0));
            if let (Entry::Leaf(leaf), Some(range)) = (removed, slot.range()) {
                left(range, leaf);
                leaves = LeafCounts::one(leaf.level);
            }
        }
        Entry::Table(table) => {
            let step = entry_bytes(slot.level + 1);
            for i in 0..ENTRIES as u64 {
                leaves.add(remove_leaves(memory, slot.below(table, slot.base.offset(i * step)), left));
            }
        }
    }
    leaves
}

/// How many tables there are from the one at `level` down.
pub(crate) fn count_tables(memory: &impl Memory, table: Pa, level: u8) -> u64 {
    let below = |word: &_| match Entry::at(level, Word::load(word)) {
        Entry::Table(next) => count_tables(memory, next, level + 1),
        _ => 0,
    };
    1 + if level < 3 { memory.words(table, ENTRIES).iter().map(below).sum() } else { 0 }
}

/// Tables freed between two windows for interrupts.
const WINDOW_TABLES: u64 = 64;

/// Gives back a table at `level` that no walker can reach, and all tables below it; says how many they were.
pub(crate) fn free_table(platform: &(impl Memory + Frames + Cpu), table: Pa, level: u8) -> u64 {
    let mut freed = 1_u64;
    if level < 3 {
        for word in platform.words(table, ENTRIES) {
            if freed.is_multiple_of(WINDOW_TABLES) {
                platform.relax();
            }
            if let Entry::Table(next) = Entry::at(level, word.load()) {
                freed += free_table(platform, next, level + 1);
            }
        }
    }
    platform.free(FrameBlock::from_pa(table, 0));
    freed
}
