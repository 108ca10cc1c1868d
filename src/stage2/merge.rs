//! Merging: tables whose leaves form one block become that block again, and every leaf writable-dirty.

use crate::addr::{Ipa, IpaRange, Pa};
use crate::frames::Frames;
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::descriptor::{self, Entry, Leaf, S2AP_WRITE, entry_bytes};
use crate::stage2::tree::{Contents, ENTRIES, LeafCounts, Slot, Tree};
use crate::stage2::view::{BATCH, Batch, Published, Swap, View, ViewError, Walker, same_but_updated};
use crate::stage2::{Lines, Retired, Rights};

/// A merge under way: stepped, so that no step is long.
#[derive(Debug)]
pub struct Merge {
    range: IpaRange,
    at: Ipa,
    blocks: u64,
    /// Tables looked through in this step.
    looked: u64,
    /// Up to where, at each level, the table below is known not to form a block: it is looked through once.
    refused: [Ipa; 3],
    /// No size is changed: leaves are made dirty, and that is all.
    leaves_only: bool,
}

/// Leaves looked at one by one in one step at the most.
const STEP_LEAVES: usize = 16 * 1024;
/// Tables looked through in one step, after which it ends.
const STEP_TABLES: u64 = 512;
/// Tables freed in one step, after which it ends.
const STEP_FREED: u64 = 512;

impl Merge {
    /// A merge of whatever lies, in whole or in part, in `range`. The structure of the tree must not change
    /// otherwise until it has ended.
    #[must_use]
    pub const fn new(range: IpaRange) -> Self {
        Self { range, at: range.start(), blocks: 0, looked: 0, refused: [Ipa(0); 3], leaves_only: false }
    }

    /// From now on it merges nothing, and makes leaves dirty alone: for a walker that can't bear changes of size, or
    /// whose hardware does not answer.
    #[must_use]
    pub const fn leaves_only(mut self) -> Self {
        self.leaves_only = true;
        self
    }

    /// Blocks made so far.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Does a bounded part; `true` when the range is done. A range becomes a block where `whole` says that it may:
    /// where it is one mapping. What was unlinked is put on `retired`, and freed by
    /// [`View::free_retired`] after an invalidation of the view; where `retired` has no room, tables stay.
    ///
    /// # Errors
    /// A walker could not be stopped, an invalidation did not complete, or a descriptor was changed by somebody else. What
    /// was merged before that stays so, and is on `retired`.
    pub fn step<P, W>(
        &mut self,
        platform: &P,
        view: &mut View<W>,
        retired: &mut Retired,
        whole: impl Fn(IpaRange) -> bool,
    ) -> Result<bool, ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let (mut batch, from) = (Batch::new(), self.at);
        let room = if self.leaves_only { 0 } else { retired.room().min(BATCH) };
        let mut lines = Lines::new(view.walker.is_coherent());
        self.looked = 0;
        for _ in 0..STEP_LEAVES {
            if self.at >= self.range.end()
                || self.looked >= STEP_TABLES
                || (room > 0 && batch.swaps().len() == room)
            {
                break;
            }
            let slot = match self.find(&view.tree, platform, room > 0, &whole) {
                Found::Block(swap) => {
                    batch.push(swap);
                    swap.slot
                }
                Found::Leaf(slot, leaf) => {
                    if leaf.is_logged() && leaf.word & S2AP_WRITE == 0 {
                        slot.word(platform).fetch_or(S2AP_WRITE);
                        lines.touch(platform, slot.pa);
                    }
                    slot
                }
                Found::Nothing(slot) => slot,
            };
            let Some(entry) = slot.range() else { break };
            self.at = entry.end();
        }
        lines.clean(platform);
        self.publish(platform, view, &batch, retired).inspect_err(|_| self.at = from)?;
        Ok(self.at >= self.range.end())
    }

    /// The largest piece at the cursor that can become a block, or else the leaf there.
    fn find(
        &mut self,
        tree: &Tree,
        platform: &(impl Memory + Cpu),
        room: bool,
        whole: impl Fn(IpaRange) -> bool,
    ) -> Found {
        let mut slot = tree.root_slot(self.at);
        loop {
            let word = slot.word(platform).load();
            let table = match Entry::at(slot.level, word) {
                Entry::Absent => return Found::Nothing(slot),
                Entry::Leaf(leaf) if leaf.has_nt() && room => return Found::Block(without_nt(slot, leaf)),
                Entry::Leaf(leaf) => return Found::Leaf(slot, leaf),
                Entry::Table(table) => table,
            };
            let level = slot.level;
            let refused = !room || level == 0 || self.at < self.refused[usize::from(level)];
            if !refused && slot.range().is_some_and(&whole) {
                let mut contents = Contents::default();
                let block = uniform(platform, table, level + 1, &mut contents);
                self.looked += contents.tables;
                if let Some((pa, rights)) = block {
                    let new = descriptor::leaf(level, pa, rights);
                    return Found::Block(Swap { slot, old: word, new, contents });
                }
                self.refused[usize::from(level)] = slot.base.offset(entry_bytes(level));
            }
            slot = slot.below(table, self.at);
        }
    }

    fn publish<P, W>(
        &mut self,
        platform: &P,
        view: &mut View<W>,
        batch: &Batch,
        retired: &mut Retired,
    ) -> Result<(), ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        if batch.swaps().is_empty() {
            return Ok(());
        }
        let Published { replaced, result } = view.walker.publish(platform, &view.tree, batch);
        self.blocks += replaced as u64;
        for swap in &batch.swaps()[..replaced] {
            view.tree.swapped(swap);
            if let Entry::Table(table) = Entry::at(swap.slot.level, swap.old) {
                retired.push(platform, table, swap.slot.level + 1);
            }
        }
        result?;
        if view.walker.publishes_invalidated() {
            view.free_retired(platform, retired);
        }
        Ok(())
    }
}

impl<W> View<W> {
    /// Frees what is on `retired`: the view has been invalidated since the last of it was unlinked.
    pub fn free_retired(&mut self, platform: &(impl Memory + Frames + Cpu), retired: &mut Retired) {
        self.tree.freed(retired.free(platform, u64::MAX));
    }

    /// [`View::free_retired`] of a bounded part; `true` when nothing is left.
    pub fn free_some_retired(
        &mut self,
        platform: &(impl Memory + Frames + Cpu),
        retired: &mut Retired,
    ) -> bool {
        self.tree.freed(retired.free(platform, STEP_FREED));
        retired.is_empty()
    }
}

enum Found {
    Block(Swap),
    Leaf(Slot, Leaf),
    Nothing(Slot),
}

/// A block that has kept nT from a merge during which hardware stopped answering, and the same without.
fn without_nt(slot: Slot, leaf: Leaf) -> Swap {
    let new = descriptor::leaf(slot.level, leaf.pa(), leaf.rights());
    let contents = Contents { tables: 0, leaves: LeafCounts::one(slot.level) };
    Swap { slot, old: leaf.word, new, contents }
}

/// What a table at `level` translates to where one block could stand for it: its leaves are adjacent, permit the
/// same, and begin at an address aligned to what the table covers. `contents` gains what was looked at.
fn uniform(
    platform: &(impl Memory + Cpu),
    table: Pa,
    level: u8,
    contents: &mut Contents,
) -> Option<(Pa, Rights)> {
    contents.tables += 1;
    if level == 3 {
        platform.relax();
        return uniform_pages(platform, table).inspect(|_| contents.leaves.pages_4k += ENTRIES as u64);
    }
    let mut block = None;
    for (i, word) in platform.words(table, ENTRIES).iter().enumerate() {
        let (pa, rights) = match Entry::at(level, word.load()) {
            Entry::Absent => return None,
            Entry::Leaf(leaf) => {
                *contents.leaves.at(level) += 1;
                (leaf.pa(), leaf.rights())
            }
            Entry::Table(next) => uniform(platform, next, level + 1, contents)?,
        };
        let (first, expected_rights) = *block.get_or_insert((pa, rights));
        if pa != first.offset(i as u64 * entry_bytes(level)) || rights != expected_rights {
            return None;
        }
    }
    block.filter(|(first, _)| first.is_aligned(entry_bytes(level) * ENTRIES as u64))
}

/// [`uniform`] of a level-3 table: where the first entry is a page aligned to 2 MiB, and the others differ from it by their
/// place, and in what hardware sets, alone.
pub(super) fn uniform_pages(memory: &impl Memory, table: Pa) -> Option<(Pa, Rights)> {
    let words = memory.words(table, ENTRIES);
    let first = words.first()?.load();
    let Entry::Leaf(leaf) = Entry::at(3, first) else { return None };
    let expected = |i: usize| first.wrapping_add((i as u64).wrapping_mul(entry_bytes(3)));
    let alike = |(i, word): (usize, &_)| same_but_updated(Word::load(word), expected(i));
    let aligned = leaf.pa().is_aligned(entry_bytes(2));
    (aligned && words.iter().enumerate().all(alike)).then(|| (leaf.pa(), leaf.rights()))
}
