//! Sizes that follow what is touched: in the pass that harvests a view, a block that is found dirty becomes a table of
//! pages, and a table whose pages have stayed clean for some passes becomes a block again.
//!
//! - The table that takes a dirty block's place is made whole, of writable-clean pages: the swap is the cleaning. All that
//!   the block translated is reported, since hardware cannot say which of it was written.
//! - The block that takes a table's place is writable-clean. Until the invalidation that follows has completed writes may
//!   still make pages of the table dirty: it is read once more then, and only then is its frame free.
//! - For how many passes a table has been clean stands in bits of the descriptor that points at it, which hardware
//!   ignores: there is nothing to allocate, and each view counts for itself.
//!
//! For walkers alone whose sizes may change under them by one swap and the invalidation that cleaning owes anyway.

use crate::addr::{Ipa, IpaRange, PAGE_SHIFT, Pa, PageSize};
use crate::frames::{FrameBlock, FrameReserve, Frames};
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::builder::{self, SplitLayout};
use crate::stage2::descriptor::{self, COLD, COLD_SHIFT, Entry, Leaf, LeafState, S2AP_WRITE, TABLE_OR_PAGE};
use crate::stage2::merge::uniform_pages;
use crate::stage2::split::discard;
use crate::stage2::tree::{Contents, ENTRIES, Slot};
use crate::stage2::view::{BATCH, Batch, Published, Swap, same_but_updated};
use crate::stage2::{Found, Harvest, LeafCounts, Rights, Tree, View, ViewError, Walker};

/// What one pass over a view may do, and what it has done.
#[derive(Debug)]
pub(crate) struct Pass<'r> {
    mode: Harvest,
    /// Passes that a table must have been clean for before it becomes a block; 0 where none does.
    cold_passes: u64,
    /// Blocks that may still be split.
    splits_left: usize,
    /// Where a table's frame comes from when no other is free.
    reserve: &'r mut FrameReserve,
    /// What is to be done together. Most passes over memory that rests collect nothing, and making room for it takes as long
    /// as they do.
    collected: Option<Collected>,
    done: Adapted,
    owed: Option<Owed>,
}

/// What a pass collects.
#[derive(Debug)]
struct Collected {
    batch: Batch,
    /// Tables that blocks have taken the places of: with the first address each translates.
    unlinked: [(Pa, Ipa); BATCH],
    merges: usize,
}

impl Collected {
    const fn new() -> Self {
        Self { batch: Batch::new(), unlinked: [(Pa(0), Ipa(0)); BATCH], merges: 0 }
    }
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adapted {
    /// Blocks that have become tables.
    pub splits: u64,
    /// Tables that have become blocks.
    pub merges: u64,
    /// Blocks that were found dirty and stay blocks: there was no frame, or the pass had split as many as it may.
    pub refused: u64,
}

/// The invalidation that a pass owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// First address, and end.
    hull: (Ipa, Ipa),
    /// No table descriptor was changed.
    leaf_only: bool,
}

impl Owed {
    /// What is owed where `found`, which was changed, comes to what `before` says.
    pub fn and(before: Option<Self>, found: Found) -> Self {
        Self::and_pages(before, found.ipa, found.pages, !found.is_dirty())
    }

    fn and_pages(before: Option<Self>, first: Ipa, pages: u64, table: bool) -> Self {
        let end = first.offset(pages << PAGE_SHIFT);
        let (hull, leaf_only) = before.map_or(((first, end), true), |owed| (owed.hull, owed.leaf_only));
        Self { hull: (hull.0.min(first), hull.1.max(end)), leaf_only: leaf_only && !table }
    }

    /// The addresses it concerns; `None` where no range has them.
    fn range(self) -> Option<IpaRange> {
        IpaRange::new(self.hull.0, self.hull.1.0.checked_sub(self.hull.0.0)?).ok()
    }
}

impl<'r> Pass<'r> {
    /// A pass that splits `splits` blocks at the most, and merges what has been clean for `cold_passes`, if not 0.
    pub fn new(mode: Harvest, cold_passes: u8, splits: usize, reserve: &'r mut FrameReserve) -> Self {
        Self {
            mode,
            cold_passes: cold_passes.into(),
            splits_left: splits,
            reserve,
            collected: None,
            done: Adapted::default(),
            owed: None,
        }
    }

    /// What translates `region` was changed, a table descriptor where `table`.
    fn changed(&mut self, region: IpaRange, table: bool) {
        self.owed = Some(Owed::and_pages(self.owed, region.start(), region.pages(), table));
    }

    /// Puts `swap` with those that are to be done together.
    fn push(&mut self, swap: Swap) {
        self.collected.get_or_insert_with(Collected::new).batch.push(swap);
    }

    /// What is to be done together.
    fn waiting(&self) -> &[Swap] {
        self.collected.as_ref().map_or(&[], |collected| collected.batch.swaps())
    }

    /// As much is waiting as is done together.
    fn is_full(&self) -> bool {
        self.waiting().len() == BATCH
    }

    /// Tables that blocks have taken the places of.
    fn merges(&self) -> usize {
        self.collected.as_ref().map_or(0, |collected| collected.merges)
    }

    /// A frame for a table: one that is free, or else one of those set aside.
    fn frame(&mut self, frames: &impl Frames) -> Option<FrameReserve> {
        let one = frames.reserve(1).unwrap_or_else(|_| self.reserve.split_off(1));
        (one.left() > 0).then_some(one)
    }
}

/// Whom a pass tells what it finds: an address and a number of pages.
pub(crate) type Dirty<'a> = &'a mut dyn FnMut(Ipa, u64);

impl Tree {
    /// Harvests `range` from `at` on, as [`Tree::harvest`] does, up to its end or until as much is waiting as is done together;
    /// moves `at` to where it has come to. A range becomes a block where `whole` says that it may: where it is one mapping.
    ///
    /// # Errors
    /// A reservation was smaller than what it was for.
    fn adapt<P: Memory + Frames + Cpu>(
        &self,
        platform: &P,
        at: &mut Ipa,
        range: IpaRange,
        pass: &mut Pass<'_>,
        whole: &dyn Fn(IpaRange) -> bool,
        dirty: Dirty<'_>,
    ) -> Result<(), ViewError> {
        while *at < range.end() && !pass.is_full() {
            platform.relax();
            let (slot, _) = self.walk_to(platform, *at, PageSize::Size2M.level());
            let Some(part) = slot.range().and_then(|r| r.intersection(range)) else { break };
            if slot.level == PageSize::Size2M.level() {
                self.adapt_entries(platform, slot, at, range, pass, whole, dirty)?;
            } else {
                // Nothing, or a block that no log of this kind has left: as any log treats it.
                self.harvest_part(platform, part, pass, dirty);
                *at = part.end();
            }
        }
        Ok(())
    }

    /// Goes along a level-2 table, from `first` to its end or that of `range`.
    #[expect(clippy::too_many_arguments, reason = "where it is, what it may do, and whom it tells")]
    fn adapt_entries<P: Memory + Frames + Cpu>(
        &self,
        platform: &P,
        first: Slot,
        at: &mut Ipa,
        range: IpaRange,
        pass: &mut Pass<'_>,
        whole: &dyn Fn(IpaRange) -> bool,
        dirty: Dirty<'_>,
    ) -> Result<(), ViewError> {
        let step = PageSize::Size2M.bytes();
        let words = platform.words(first.pa, first.entries_to(range.end()));
        // No window for interrupts of its own: a table that rests takes little, and what is done to others has one.
        let mut i = 0;
        while let Some(word) = words.get(i) {
            if words[i..].first_chunk().is_some_and(rests) {
                i += LINE;
                continue;
            }
            let (pa, base) = (first.pa.offset(i as u64 * 8), first.base.offset(i as u64 * step));
            let slot = Slot { pa, base, ..first };
            match Entry::at(slot.level, word.load()) {
                Entry::Leaf(block) if block.word & S2AP_WRITE == 0 => {}
                Entry::Leaf(block) => adapt_block(platform, slot, block, pass, dirty)?,
                Entry::Table(table) => self.adapt_table(platform, slot, table, range, pass, whole, dirty),
                Entry::Absent => {}
            }
            i += 1;
            if pass.is_full() {
                break;
            }
        }
        *at = first.base.offset(i as u64 * step).min(range.end());
        Ok(())
    }

    /// Harvests what `range` has of a table of pages; counts for how long it has been clean where that is all of it, and
    /// makes it a block where that is long enough.
    #[expect(clippy::too_many_arguments, reason = "where it is, what it may do, and whom it tells")]
    fn adapt_table<P: Memory + Frames + Cpu>(
        &self,
        platform: &P,
        slot: Slot,
        table: Pa,
        range: IpaRange,
        pass: &mut Pass<'_>,
        whole: &dyn Fn(IpaRange) -> bool,
        dirty: Dirty<'_>,
    ) {
        let Some(region) = slot.range() else { return };
        let Some(part) = region.intersection(range) else { return };
        platform.relax();
        let found = self.harvest_part(platform, part, pass, dirty);
        if pass.cold_passes == 0 || part != region && !found {
            return;
        }
        let passes = count_passes(slot.word(platform), found, pass.cold_passes);
        let room = pass.merges() + pass.waiting().len() < BATCH;
        if found || passes < pass.cold_passes || !room || !whole(region) {
            return;
        }
        // What is no RAM is part of no log.
        let Some((pa, Rights::RAM)) = uniform_pages(platform, table) else { return };
        let new =
            descriptor::with_state(descriptor::leaf(slot.level, pa, Rights::RAM), LeafState::WritableClean);
        let pages = region.pages();
        pass.changed(region, true);
        let leaves = LeafCounts { pages_4k: pages, ..LeafCounts::default() };
        let contents = Contents { tables: 1, leaves };
        pass.push(Swap { slot, old: slot.word(platform).load(), new, contents });
    }

    /// Harvests `part` as any log does; whether something of it was dirty.
    fn harvest_part(
        &self,
        memory: &impl Memory,
        part: IpaRange,
        pass: &mut Pass<'_>,
        dirty: Dirty<'_>,
    ) -> bool {
        let (mut dirty_there, mode) = (false, pass.mode);
        // By reference: there is one copy of it, for all who are in no hurry.
        let found: &mut dyn FnMut(Found) = &mut |found| {
            if found.is_dirty() {
                dirty_there = true;
                dirty(found.ipa, found.pages);
            }
            if found.is_changed() {
                pass.owed = Some(Owed::and(pass.owed, found));
            }
        };
        self.harvest_words(memory, part, mode, found);
        dirty_there
    }
}

/// Descriptors of one cache line, which are read and tested together.
const LINE: usize = 8;

/// Whether entries of a level-2 table are blocks that nobody has written, or nothing: most are, all of a VM that rests.
fn rests<W: Word>([a, b, c, d, e, f, g, h]: &[W; LINE]) -> bool {
    let all = a.load() | b.load() | c.load() | d.load() | e.load() | f.load() | g.load() | h.load();
    all & (S2AP_WRITE | TABLE_OR_PAGE) == 0
}

/// Reports a block that was found dirty, and where it is to be clean splits it, or else cleans it.
fn adapt_block<P: Memory + Frames + Cpu>(
    platform: &P,
    slot: Slot,
    block: Leaf,
    pass: &mut Pass<'_>,
    dirty: Dirty<'_>,
) -> Result<(), ViewError> {
    let Some(region) = slot.range().filter(|_| block.is_logged()) else { return Ok(()) };
    // A clear may name several parts of a block: its table is waiting to be linked then, as the last one.
    if pass.waiting().last().is_some_and(|swap| swap.slot.pa == slot.pa) {
        return Ok(());
    }
    dirty(region.start(), region.pages());
    if pass.mode != Harvest::Clean {
        return Ok(());
    }
    let reserve = if pass.splits_left > 0 { pass.frame(platform) } else { None };
    pass.changed(region, reserve.is_some());
    let Some(mut reserve) = reserve else {
        slot.word(platform).fetch_and(!S2AP_WRITE);
        pass.done.refused += 1;
        return Ok(());
    };
    let state = LeafState::WritableClean;
    let layout = SplitLayout { block, base: slot.base, range: region, inside: PageSize::Size4K, state };
    // Walkers whose sizes change are coherent: there is nothing to be cleaned to memory.
    let built = builder::build(platform, &layout, slot.level + 1, slot.base, &mut reserve, false);
    platform.unreserve(reserve);
    let built = built.ok_or(ViewError::ReserveShort)?;
    pass.splits_left -= 1;
    let (old, new) = (block.word, descriptor::table(built.table));
    pass.push(Swap { slot, old, new, contents: built.contents });
    Ok(())
}

impl<W> View<W> {
    /// A pass over `range`: harvests it, and changes sizes as `pass` says. Its walker is coherent, and bears that sizes change
    /// by one swap. What is waiting at the end is done by [`View::end_adapting`].
    ///
    /// # Errors
    /// A descriptor was changed by somebody else, or a reservation was smaller than what it was for: what was made and not
    /// linked is given back.
    pub(crate) fn adapt<P>(
        &mut self,
        platform: &P,
        range: IpaRange,
        pass: &mut Pass<'_>,
        whole: &dyn Fn(IpaRange) -> bool,
        dirty: Dirty<'_>,
    ) -> Result<(), ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let mut at = range.start();
        loop {
            let adapted = self.tree.adapt(platform, &mut at, range, pass, whole, dirty);
            // What takes a table's place is no table: of those only what blocks were to be replaced by is given back.
            adapted.inspect_err(|_| discard(platform, pass.waiting()))?;
            if !pass.is_full() {
                return Ok(());
            }
            self.publish_pass(platform, pass)?;
        }
    }

    /// Does what is waiting to be done together; the invalidation owed then, if any is.
    ///
    /// # Errors
    /// As [`View::adapt`].
    pub(crate) fn end_adapting<P>(
        &mut self,
        platform: &P,
        pass: &mut Pass<'_>,
    ) -> Result<Option<Owed>, ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        if !pass.waiting().is_empty() {
            self.publish_pass(platform, pass)?;
        }
        Ok(pass.owed)
    }

    /// Does the invalidation that is `owed`.
    ///
    /// # Errors
    /// As [`Walker::invalidate`].
    pub(crate) fn settle<P>(&self, platform: &P, owed: Owed) -> Result<(), ViewError>
    where
        P: Memory + Cpu,
        W: Walker<P>,
    {
        match owed.range() {
            Some(range) => self.walker.invalidate_range(platform, &self.tree, range, owed.leaf_only),
            // What was changed has addresses that a format covers, and they are a range. Were they none: everything.
            None => self.walker.invalidate(platform, &self.tree),
        }
    }

    fn publish_pass<P>(&mut self, platform: &P, pass: &mut Pass<'_>) -> Result<(), ViewError>
    where
        P: Memory + Frames + Cpu,
        W: Walker<P>,
    {
        let Some(collected) = &mut pass.collected else { return Ok(()) };
        let Published { replaced, result } = self.walker.publish(platform, &self.tree, &collected.batch);
        self.tree.account(platform, collected, &mut pass.done, replaced);
        if self.walker.publishes_invalidated() {
            // What was cleaned before it is covered as well.
            pass.owed = None;
        }
        result
    }
}

impl Tree {
    /// Of what was waiting the first `replaced` were done.
    fn account(
        &mut self,
        platform: &(impl Memory + Frames + Cpu),
        collected: &mut Collected,
        adapted: &mut Adapted,
        replaced: usize,
    ) {
        for (i, swap) in collected.batch.swaps().iter().enumerate() {
            match (i < replaced, Entry::at(swap.slot.level, swap.old)) {
                (true, Entry::Table(table)) => {
                    self.swapped(swap);
                    collected.unlinked[collected.merges] = (table, swap.slot.base);
                    collected.merges += 1;
                    adapted.merges += 1;
                }
                (true, _) => {
                    self.swapped(swap);
                    adapted.splits += 1;
                }
                (false, Entry::Table(_)) => {}
                (false, _) => discard(platform, core::slice::from_ref(swap)),
            }
        }
        collected.batch.clear();
    }

    /// Reads the tables that blocks have taken the places of once more, and frees them: every invalidation that covers them
    /// has completed, and hardware's updates are visible.
    pub(crate) fn free_merged(
        &mut self,
        platform: &(impl Memory + Frames + Cpu),
        pass: &mut Pass<'_>,
        dirty: Dirty<'_>,
    ) {
        let merges = pass.merges();
        let unlinked = pass.collected.iter().flat_map(|collected| &collected.unlinked[..merges]);
        for (table, base) in unlinked.copied() {
            platform.relax();
            for (page, word) in (0..).zip(platform.words(table, ENTRIES)) {
                if word.load() & S2AP_WRITE != 0 {
                    dirty(base.offset(page * PageSize::Size4K.bytes()), 1);
                }
            }
            platform.free(FrameBlock::from_pa(table, 0));
        }
        self.freed(merges as u64);
        pass.collected = None;
    }
}

impl Pass<'_> {
    /// What it has done so far.
    pub const fn done(&self) -> Adapted {
        self.done
    }

    /// Whether blocks have taken the places of tables.
    pub fn has_merged(&self) -> bool {
        self.merges() > 0
    }

    /// Table frames that stay out of use, since the invalidation that covers them did not complete.
    pub fn abandoned(&self) -> u64 {
        self.merges() as u64
    }
}

/// Counts one more pass that has found the table at `word` clean, up to `most`; none where it was dirty. Says how many they
/// are now. Hardware may set the descriptor's access flag meanwhile, once.
fn count_passes(word: &impl Word, dirty: bool, most: u64) -> u64 {
    let mut seen = word.load();
    loop {
        let passes = if dirty { 0 } else { ((seen & COLD) >> COLD_SHIFT).saturating_add(1).min(most) };
        let counted = seen & !COLD | passes << COLD_SHIFT & COLD;
        if counted == seen {
            return passes;
        }
        match word.compare_exchange(seen, counted) {
            Ok(_) => return passes,
            Err(found) if same_but_updated(found, seen) => seen = found,
            // Somebody else's bug is not made worse.
            Err(_) => return 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Vmid;
    use crate::fake::{Event, Fake, FakeTlb, RacingWord, take_trace};
    use crate::stage2::descriptor::AF;
    use crate::stage2::{DmaWalker, Format};

    #[test]
    fn what_no_range_expresses_is_invalidated_with_everything_else() {
        let (fake, tlb) = (Fake::new(8), FakeTlb::default());
        let tree = Tree::new(&fake, Format::new(36).unwrap()).unwrap();
        let view = View { tree, walker: DmaWalker { tlb: &tlb, vmid: Vmid(2), coherent: true } };
        let settled = |hull| {
            take_trace();
            view.settle(&fake, Owed { hull: (Ipa(hull), Ipa(0x3000)), leaf_only: true }).unwrap();
            take_trace()
        };
        assert_eq!(settled(0x1000), [Event::Mark("S2_IPA + CMD_SYNC")]);
        assert_eq!(settled(0x3000), [Event::Mark("S12_VMALL + CMD_SYNC")]);
        assert_eq!(settled(0x4000), [Event::Mark("S12_VMALL + CMD_SYNC")]);
    }
    #[test]
    fn a_pass_is_counted_beside_an_access_flag_that_hardware_sets_and_in_nothing_else() {
        let table = descriptor::table(Pa(0x1000));
        let flagged = RacingWord::new(table, table | AF);
        assert_eq!(count_passes(&flagged, false, 3), 1);
        assert_eq!(flagged.load(), table | AF | 1 << COLD_SHIFT);
        let foreign = RacingWord::new(table, 0x5003);
        assert_eq!((count_passes(&foreign, false, 3), foreign.load()), (0, 0x5003));
    }
}
