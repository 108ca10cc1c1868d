//! Splitting: the blocks of a range become tables of smaller leaves, built whole and then linked by one swap each.

use crate::addr::{Ipa, IpaRange, PageSize};
use crate::frames::{FrameReserve, Frames};
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::builder::{self, SplitLayout};
use crate::stage2::descriptor::{self, Entry, Leaf, LeafState, S2AP_WRITE, entry_bytes};
use crate::stage2::tree::{Slot, free_table};
use crate::stage2::view::{Batch, Published, Swap, View, ViewError, Walker};
use crate::stage2::{Lines, Tree};

/// What a split takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitNeeds {
    /// Table frames.
    pub frames: usize,
    /// Blocks that will be split.
    pub blocks: usize,
}

/// What a split will take, counted step by step: nothing is changed by it.
#[derive(Debug)]
pub struct Count {
    range: IpaRange,
    inside: PageSize,
    at: Ipa,
    needs: SplitNeeds,
}

/// Tables counted and entries looked at in one step of a count at the most, a single block's apart.
const STEP_COUNTED: usize = 4096;

impl Count {
    /// A count for a split of `range` into leaves of at most `inside`. The structure of the range must not change until
    /// the split has ended.
    #[must_use]
    pub const fn new(range: IpaRange, inside: PageSize) -> Self {
        Self { range, inside, at: range.start(), needs: SplitNeeds { frames: 0, blocks: 0 } }
    }

    /// What has been counted so far.
    #[must_use]
    pub const fn needs(&self) -> SplitNeeds {
        self.needs
    }

    /// Does a bounded part; `true` when the range is done.
    pub fn step<P: Memory + Cpu>(&mut self, tree: &Tree, platform: &P) -> bool {
        let most = self.needs.frames + STEP_COUNTED;
        for _ in 0..STEP_COUNTED {
            if self.at >= self.range.end() || self.needs.frames >= most {
                break;
            }
            let (slot, entry) = tree.walk(platform, self.at);
            if let Some(block) = block_to_split(entry, self.inside) {
                let layout = layout(block, slot, self.range, self.inside, LeafState::WritableDirty);
                self.needs.frames += builder::count(platform, &layout, slot.level + 1, slot.base);
                self.needs.blocks += 1;
            }
            // Entries of a table of small leaves need nothing: go on behind that table.
            let passed = if slot.level >= self.inside.level() { slot.level - 1 } else { slot.level };
            self.at = slot.base.align_down(entry_bytes(passed)).offset(entry_bytes(passed));
        }
        self.at >= self.range.end()
    }
}

/// A split under way: stepped, so that no step is long.
#[derive(Debug)]
pub struct Split {
    range: IpaRange,
    inside: PageSize,
    state: LeafState,
    at: Ipa,
    reserve: FrameReserve,
    blocks: u64,
}

/// Tables built in one step at the most, unless a single block takes more.
const STEP_TABLES: usize = 256;
/// Leaves looked at in one step at the most.
const STEP_LEAVES: usize = 16 * 1024;

impl Split {
    /// A split of `range` into leaves of at most `inside`, which end in `state`, out of `reserve`, which holds at
    /// least what [`Count::needs`] says. The structure of the tree must not change otherwise until it has ended.
    pub const fn new(range: IpaRange, inside: PageSize, state: LeafState, reserve: FrameReserve) -> Self {
        Self { range, inside, state, at: range.start(), reserve, blocks: 0 }
    }

    /// Blocks split so far.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Ends it and gives the rest of the reservation back.
    pub fn end(self, platform: &impl Frames) {
        platform.unreserve(self.reserve);
    }

    /// Does a bounded part; `true` when the range is done. At the end of a step a view whose walker publishes
    /// invalidated owes nothing; any other owes one invalidation after the last step.
    ///
    /// # Errors
    /// What the step had built and not linked has been given back; what it had linked, or cleaned already, stays so. The
    /// split is to be given up.
    pub fn step<P, W>(&mut self, platform: &P, view: &mut View<W>) -> Result<bool, ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let (mut batch, from) = (Batch::new(), self.at);
        let before = self.reserve.left();
        let (mut cleaned, mut lines) = (false, Lines::new(view.walker.is_coherent()));
        let mut looked = 0;
        while looked < STEP_LEAVES {
            if self.at >= self.range.end() || batch.is_full() || before - self.reserve.left() >= STEP_TABLES {
                break;
            }
            let (slot, entry) = view.tree.walk(platform, self.at);
            let Some(entry_range) = slot.range() else { break };
            if let Some(block) = block_to_split(entry, self.inside) {
                let swap = self.prepare(platform, view, slot, block);
                batch.push(swap.inspect_err(|_| discard(platform, batch.swaps()))?);
            } else if let Entry::Leaf(_) = entry {
                let (leaves, some_cleaned) = self.settle(platform, slot, &mut lines);
                (looked, cleaned) = (looked + leaves.max(1), cleaned || some_cleaned);
                continue;
            }
            looked += 1;
            self.at = entry_range.end().min(self.range.end());
        }
        lines.clean(platform);
        self.publish(platform, view, &batch, cleaned).inspect_err(|_| self.at = from)?;
        Ok(self.at >= self.range.end())
    }

    /// Builds the whole sub-tree that is to replace `block`.
    fn prepare<P, W>(
        &mut self,
        platform: &P,
        view: &View<W>,
        slot: Slot,
        block: Leaf,
    ) -> Result<Swap, ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let layout = layout(block, slot, self.range, self.inside, self.state);
        let clean = !view.walker.is_coherent();
        let built = builder::build(platform, &layout, slot.level + 1, slot.base, &mut self.reserve, clean)
            .ok_or(ViewError::ReserveShort)?;
        Ok(Swap { slot, old: block.word, new: descriptor::table(built.table), contents: built.contents })
    }

    /// Puts leaves that are small enough already into the state the split ends in, from `first` along its table to the first
    /// entry that is none, its end or that of the range; says how many it has passed, and whether any was cleaned.
    fn settle(&mut self, memory: &(impl Memory + Cpu), first: Slot, lines: &mut Lines) -> (usize, bool) {
        let step = entry_bytes(first.level);
        let count = first.entries_to(self.range.end());
        let (mut passed, mut cleaned) = (0, false);
        for (i, word) in (0..).zip(memory.words(first.pa, count)) {
            let Entry::Leaf(leaf) = Entry::at(first.level, word.load()) else { break };
            let dirty = leaf.word & S2AP_WRITE != 0;
            if self.state == LeafState::WritableClean && leaf.is_logged() && dirty {
                word.fetch_and(!S2AP_WRITE);
                lines.touch(memory, first.pa.offset(i * 8));
                cleaned = true;
            }
            passed += 1;
            self.at = first.base.offset((i + 1) * step).min(self.range.end());
        }
        (passed, cleaned)
    }

    fn publish<P, W>(
        &mut self,
        platform: &P,
        view: &mut View<W>,
        batch: &Batch,
        cleaned: bool,
    ) -> Result<(), ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        if batch.swaps().is_empty() {
            // What was cleaned beside a published batch is covered by the batch's invalidation.
            if cleaned && view.walker.publishes_invalidated() {
                view.walker.invalidate(platform, &view.tree)?;
            }
            return Ok(());
        }
        let Published { replaced, result } = view.walker.publish(platform, &view.tree, batch);
        let (linked, unlinked) = batch.swaps().split_at(replaced);
        discard(platform, unlinked);
        self.blocks += linked.len() as u64;
        for swap in linked {
            view.tree.swapped(swap);
        }
        result
    }
}

/// Frees sub-trees of which nothing was linked.
pub(super) fn discard(platform: &(impl Memory + Frames + Cpu), swaps: &[Swap]) {
    for swap in swaps {
        if let Entry::Table(table) = Entry::at(swap.slot.level, swap.new) {
            free_table(platform, table, swap.slot.level + 1);
        }
    }
}

const fn block_to_split(entry: Entry, inside: PageSize) -> Option<Leaf> {
    match entry {
        Entry::Leaf(leaf) if leaf.level < inside.level() => Some(leaf),
        _ => None,
    }
}

const fn layout(block: Leaf, slot: Slot, range: IpaRange, inside: PageSize, state: LeafState) -> SplitLayout {
    SplitLayout { block, base: slot.base, range, inside, state }
}
