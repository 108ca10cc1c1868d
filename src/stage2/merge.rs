//! Merging: tables whose leaves form one block become that block again, and every leaf writable-dirty.

use crate::addr::{Ipa, IpaRange, Pa};
use crate::frames::Frames;
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::descriptor::{self, Entry, Leaf, S2AP_WRITE, entry_bytes};
use crate::stage2::tree::{ENTRIES, Slot, Tree};
use crate::stage2::view::{BATCH, Batch, Swap, View, ViewError, Walker};
use crate::stage2::{Retired, Rights};

/// A merge under way: stepped, so that no step is long.
#[derive(Debug)]
pub struct Merge {
    range: IpaRange,
    at: Ipa,
    blocks: u64,
    /// Up to where, at each level, the table below is known not to form a block: it is looked through once.
    refused: [Ipa; 3],
}

/// Entries looked at in one step at the most.
const STEP_ENTRIES: usize = 16 * 1024;

impl Merge {
    /// A merge of whatever lies, in whole or in part, in `range`. The structure of the tree must not change
    /// otherwise until it has ended.
    #[must_use]
    pub const fn new(range: IpaRange) -> Self {
        Self { range, at: range.start(), blocks: 0, refused: [Ipa(0); 3] }
    }

    /// Blocks made so far.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Does a bounded part; `true` when the range is done. What was unlinked is put on `retired`, and freed by
    /// [`View::free_retired`] after an invalidation of the view; where `retired` has no room, tables stay.
    ///
    /// # Errors
    /// A walker could not be stopped, or a descriptor was changed by somebody else.
    pub fn step<P, W>(
        &mut self,
        platform: &P,
        view: &mut View<W>,
        retired: &mut Retired,
    ) -> Result<bool, ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let (mut batch, from) = (Batch::new(), self.at);
        let room = retired.room().min(BATCH);
        for _ in 0..STEP_ENTRIES {
            if self.at >= self.range.end() || (room > 0 && batch.swaps().len() == room) {
                break;
            }
            let slot = match self.find(&view.tree, platform, room > 0) {
                Found::Block(swap) => {
                    batch.push(swap);
                    swap.slot
                }
                Found::Leaf(slot, leaf) => {
                    if leaf.is_logged() && leaf.word & S2AP_WRITE == 0 {
                        slot.word(platform).fetch_or(S2AP_WRITE);
                    }
                    slot
                }
                Found::Nothing(slot) => slot,
            };
            platform.relax();
            let Some(entry) = slot.range() else { break };
            self.at = entry.end();
        }
        self.publish(platform, view, &batch, retired).inspect_err(|_| self.at = from)?;
        Ok(self.at >= self.range.end())
    }

    /// The largest piece at the cursor that can become a block, or else the leaf there.
    fn find(&mut self, tree: &Tree, memory: &impl Memory, merge: bool) -> Found {
        let mut slot = tree.root_slot(self.at);
        loop {
            let table = match slot.entry(memory) {
                Entry::Absent => return Found::Nothing(slot),
                Entry::Leaf(leaf) => return Found::Leaf(slot, leaf),
                Entry::Table(table) => table,
            };
            let refused = &mut self.refused[usize::from(slot.level)];
            if merge && slot.level > 0 && self.at >= *refused {
                if let Some((pa, rights)) = uniform(memory, table, slot.level + 1) {
                    let new = descriptor::leaf(slot.level, pa, rights);
                    return Found::Block(Swap { slot, old: descriptor::table(table), new });
                }
                *refused = slot.base.offset(entry_bytes(slot.level));
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
        for swap in batch.swaps() {
            view.tree.count_leaves(platform, swap.slot, -1);
        }
        if let Err(error) = view.walker.publish(platform, &view.tree, batch) {
            for swap in batch.swaps() {
                view.tree.count_leaves(platform, swap.slot, 1);
            }
            return Err(error);
        }
        self.blocks += batch.swaps().len() as u64;
        for swap in batch.swaps() {
            *view.tree.leaves.at(swap.slot.level) += 1;
            if let Entry::Table(table) = Entry::at(swap.slot.level, swap.old) {
                retired.push(platform, table, swap.slot.level + 1);
            }
        }
        if view.walker.publishes_invalidated() {
            view.free_retired(platform, retired);
        }
        Ok(())
    }
}

impl<W> View<W> {
    /// Frees what is on `retired`: the view has been invalidated since the last of it was unlinked.
    pub fn free_retired(&mut self, platform: &(impl Memory + Frames), retired: &mut Retired) {
        self.tree.tables -= retired.free(platform);
    }
}

enum Found {
    Block(Swap),
    Leaf(Slot, Leaf),
    Nothing(Slot),
}

/// What a table at `level` translates to where one block could stand for it: its leaves are adjacent, permit the
/// same, and begin at an address aligned to what the table covers.
fn uniform(memory: &impl Memory, table: Pa, level: u8) -> Option<(Pa, Rights)> {
    let resolve = |word: u64| match Entry::at(level, word) {
        Entry::Absent => None,
        Entry::Leaf(leaf) => Some((leaf.pa(), leaf.rights())),
        Entry::Table(next) => uniform(memory, next, level + 1),
    };
    let mut words = memory.words(table, ENTRIES).iter();
    let (first, rights) = resolve(words.next()?.load())?;
    let step = entry_bytes(level);
    let aligned = first.is_aligned(step * ENTRIES as u64);
    let adjacent = words.enumerate().all(|(i, word)| {
        let expected = first.offset((i as u64 + 1) * step);
        resolve(word.load()) == Some((expected, rights))
    });
    (aligned && adjacent).then_some((first, rights))
}
