//! Reading the log: harvest the views, clean what is to be cleaned, invalidate, and only then deliver.

use strandline_abi::{DmaTier, Flags, LogSource};

use super::{DirtyLog, Ledger, LogError, STEP_PAGES, digest};
use crate::addr::{Ipa, IpaRange, PAGE_BYTES, PAGE_SHIFT, PageSize};
use crate::address_space::{AddressSpace, DmaView};
use crate::bits::{ones, runs};
use crate::hw::{DmaTlb, Memory, Platform};
use crate::sabotage;
use crate::stage2::{Harvest, Lines, Owed, Tree, ViewError, Walker};

/// What a step of a sync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Pages that were reported.
    pub reported: u64,
}

/// What a step of a clear did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Pages that were dirty and are no more.
    pub discarded: u64,
}

impl DirtyLog {
    /// Checks that a sync or clear of `range` is possible now, and gives back its first step: at most
    /// [`STEP_PAGES`], with digests [`STEP_PAGES_DIGEST`](super::STEP_PAGES_DIGEST), from page `done` of it.
    ///
    /// # Errors
    /// The log is not on, the range is not all logged, or `done` is not where a step begins.
    pub fn step_of(&self, range: IpaRange, done: u64) -> Result<IpaRange, LogError> {
        self.step_for(range, done, Flags::BOTH)
    }

    /// [`DirtyLog::step_of`] of the sources that `flags` name: without devices no page is read, and steps are large.
    ///
    /// # Errors
    /// As [`DirtyLog::step_of`].
    pub fn step_for(&self, range: IpaRange, done: u64, flags: Flags) -> Result<IpaRange, LogError> {
        let on = self.on()?;
        let step_pages = if flags.names(LogSource::Dma) { on.step_pages } else { STEP_PAGES };
        if !on.range.covers(range) {
            let outside = if range.start() < on.range.start() { range.start() } else { on.range.end() };
            return Err(LogError::OutsideLog(outside.max(range.start())));
        }
        if done >= range.pages() || !done.is_multiple_of(step_pages) {
            return Err(LogError::OutOfStep(0));
        }
        let start = Ipa(range.start().0 + (done << PAGE_SHIFT));
        let pages = (range.pages() - done).min(step_pages);
        IpaRange::new(start, pages << PAGE_SHIFT).map_err(|_| LogError::OutOfStep(0))
    }

    /// What EL2 holds of the log, where it is on and `part` lies in it.
    pub(super) fn ledger<'s, D>(
        &mut self,
        space: &'s AddressSpace<'_, D>,
        part: IpaRange,
    ) -> Result<&'s Ledger, LogError> {
        self.on()?;
        let ledger = space.ledger.as_ref().ok_or(LogError::NotOn)?;
        if ledger.is_incomplete() {
            return Err(self.distrust());
        }
        if ledger.range().covers(part) { Ok(ledger) } else { Err(LogError::OutsideLog(part.start())) }
    }

    /// Reports the pages of `part`, a step of [`DirtyLog::step_of`], that were written: 64 pages at a time, in
    /// ascending order, to `deliver` (index of the word, bits). With [`Flags::CLEAR`] what was delivered leaves the
    /// log: every view has been cleaned, and the invalidation has completed, before the first delivery.
    ///
    /// # Errors
    /// [`LogError::Untrusted`] where hardware stopped answering; nothing is delivered then.
    /// [`LogError::NotDelivered`] where `deliver` failed: that word and those behind it are still in the log.
    pub fn sync<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Synced, LogError> {
        self.sync_of(platform, space, part, flags, Views::All, deliver)
    }

    /// [`DirtyLog::sync`] that harvests `views`: the others have been.
    pub(super) fn sync_of<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        views: Views,
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Synced, LogError> {
        let ledger = self.ledger(space, part)?;
        let clear = flags.has(Flags::CLEAR);
        if collect(platform, space, ledger, flags, clear, views, [part].into_iter()).is_err() {
            return Err(self.distrust());
        }
        let mut reported = 0;
        for (word, first, mask) in words(ledger, part) {
            window(platform, word);
            let taken = Taken::new(platform, ledger, flags, first, mask, clear);
            if !deliver(word, taken.bits()).succeeded() {
                taken.put_back(platform, ledger);
                self.statistics.pages_reported += reported;
                return Err(LogError::NotDelivered(word));
            }
            reported += u64::from(taken.bits().count_ones());
        }
        self.statistics.pages_reported += reported;
        Ok(Synced { reported })
    }

    /// Discards what the log holds of the pages of `part` that `wanted` (of a word's index) names, and gives back
    /// to `deliver` those of them that were dirty.
    ///
    /// # Errors
    /// As [`DirtyLog::sync`].
    pub fn clear<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        wanted: impl Fn(u64) -> u64,
        deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Cleared, LogError> {
        self.clear_of(platform, space, part, flags, Views::All, wanted, deliver)
    }

    /// [`DirtyLog::clear`] that harvests `views`: the others have been.
    #[expect(clippy::too_many_arguments, reason = "those of a clear, and which views")]
    pub(super) fn clear_of<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        views: Views,
        wanted: impl Fn(u64) -> u64,
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Cleared, LogError> {
        let ledger = self.ledger(space, part)?;
        let runs = named(ledger, part, &wanted);
        if collect(platform, space, ledger, flags, true, views, runs).is_err() {
            return Err(self.distrust());
        }
        let mut discarded = 0;
        for (word, first, mask) in words(ledger, part) {
            window(platform, word);
            let taken = Taken::new(platform, ledger, flags, first, wanted(word) & mask, true);
            if !deliver(word, taken.bits()).succeeded() {
                taken.put_back(platform, ledger);
                return Err(LogError::NotDelivered(word));
            }
            discarded += u64::from(taken.bits().count_ones());
        }
        Ok(Cleared { discarded })
    }
}

/// Which views a sync or clear harvests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Views {
    /// All of those that it is asked for.
    All,
    /// Of these, those that an adaptive log leaves as its start has made them.
    Fixed,
}

impl Views {
    /// Whether a view is among them that `adapts`, or does not.
    const fn have(self, adapts: bool) -> bool {
        matches!(self, Self::All) || !adapts
    }
}

/// Brings what `views` know of `ranges` into EL2's bitmaps, and with `clean` cleans them, in the order that
/// loses nothing: updates made visible, walk, invalidation of what was cleaned.
fn collect<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &AddressSpace<'_, D>,
    ledger: &Ledger,
    flags: Flags,
    clean: bool,
    views: Views,
    ranges: impl Iterator<Item = IpaRange> + Clone,
) -> Result<(), ViewError> {
    // Interrupts are heard between pieces.
    let heard = |(i, _): &(usize, IpaRange)| {
        if *i > 0 {
            platform.relax()
        }
    };
    let pieces = ranges.clone().flat_map(pieces).enumerate().inspect(heard).map(|(_, piece)| piece);
    let mode = if clean { Harvest::Clean } else { Harvest::Keep };
    if flags.names(LogSource::Cpu) && views.have(space.cpu.walker.adapts()) {
        space.cpu.walker.collect_updates(platform)?;
        let mut round = Round::new(ledger, LogSource::Cpu, mode, true);
        pieces.clone().for_each(|piece| round.harvest(platform, &space.cpu.tree, piece));
        if round.owed(platform).is_some() && !sabotage::NO_INVALIDATION {
            space.cpu.walker.invalidate(platform, &space.cpu.tree)?;
        }
    }
    if flags.names(LogSource::Dma) {
        if !sabotage::NO_SYNC_BEFORE_WALK {
            collect_dma_updates(platform, space, |view| views.have(view.adapts()))?;
        }
        if space.has_digest_views() {
            ranges.for_each(|range| digest::compare(platform, space, ledger, range, clean));
        }
        let read = |dma: &&DmaView<'_, D>| dma.tier != DmaTier::Digest && views.have(dma.adapts());
        for dma in space.dma_views().filter(read) {
            let mode = if dma.shows_writes() { mode } else { Harvest::Assume };
            let mut round = Round::new(ledger, LogSource::Dma, mode, dma.view.walker.coherent);
            pieces.clone().for_each(|piece| round.harvest(platform, &dma.view.tree, piece));
            if let Some(owed) = round.owed(platform)
                && let Some(range) = owed.range()
                && !sabotage::NO_DMA_INVALIDATION
            {
                dma.view.walker.invalidate_range(platform, &dma.view.tree, range, owed.leaf_only)?;
            }
        }
    }
    Ok(())
}

/// The harvest of one view, piece by piece.
struct Round<'l> {
    ledger: &'l Ledger,
    source: LogSource,
    mode: Harvest,
    owed: Option<Owed>,
    lines: Lines,
}

impl<'l> Round<'l> {
    fn new(ledger: &'l Ledger, source: LogSource, mode: Harvest, coherent: bool) -> Self {
        Self { ledger, source, mode, owed: None, lines: Lines::new(coherent) }
    }

    /// Brings what the view knows of `piece` into EL2's bitmap.
    fn harvest(&mut self, platform: &impl Platform, tree: &Tree, piece: IpaRange) {
        tree.harvest_words(platform, piece, self.mode, |found| {
            if found.is_dirty() {
                let pages = found.pages + u64::from(sabotage::ONE_PAGE_TOO_MANY);
                self.ledger.record_pages(platform, self.source, found.ipa, pages);
            }
            if found.is_changed() {
                self.lines.touch_all(platform, found.pa, found.words);
                self.owed = Some(Owed::and(self.owed, found, !found.is_dirty()));
            }
        });
    }

    /// The invalidation that the view owes, if any.
    fn owed(mut self, platform: &impl Platform) -> Option<Owed> {
        self.lines.clean(platform);
        self.owed
    }
}

/// The pieces of `range` that are each in one table of pages: what is walked between two windows for interrupts.
fn pieces(range: IpaRange) -> impl Iterator<Item = IpaRange> + Clone {
    const TABLE_BYTES: u64 = PageSize::Size2M.bytes();
    let mut at = range.start();
    core::iter::from_fn(move || {
        let end = at
            .align_down(TABLE_BYTES)
            .checked_add(TABLE_BYTES)
            .map_or(range.end(), |end| end.min(range.end()));
        let piece = IpaRange::new(at, end.0.checked_sub(at.0)?).ok();
        at = end;
        piece
    })
}

/// A window for interrupts before every eighth word that is delivered, but the first.
fn window(platform: &impl Platform, word: u64) {
    if word > 0 && word.is_multiple_of(8) {
        platform.relax();
    }
}

/// Makes the updates of all SMMUs that keep dirty state visible, as far as views are `concerned`: one CMD_SYNC each, however
/// many views are behind it.
pub(super) fn collect_dma_updates<'d, P: Platform, D: DmaTlb>(
    platform: &P,
    space: &AddressSpace<'d, D>,
    concerned: impl Fn(&DmaView<'d, D>) -> bool,
) -> Result<(), ViewError> {
    let concerned = |dma: &&DmaView<'d, D>| dma.tier == DmaTier::Hardware && concerned(dma);
    let walkers = || space.dma_views().filter(concerned).map(|dma| &dma.view.walker);
    for (index, walker) in walkers().enumerate() {
        if !walkers().take(index).any(|before| core::ptr::eq(before.tlb, walker.tlb)) {
            walker.collect_updates(platform)?;
        }
    }
    Ok(())
}

/// What delivering a word came to: `()` where it can't fail, or a result.
pub trait Delivery {
    /// Whether the word has reached whom it was for.
    fn succeeded(self) -> bool;
}

impl Delivery for () {
    fn succeeded(self) -> bool {
        true
    }
}

impl<E> Delivery for Result<(), E> {
    fn succeeded(self) -> bool {
        self.is_ok()
    }
}

const SOURCES: [LogSource; 2] = [LogSource::Cpu, LogSource::Dma];

/// 64 pages on their way from EL2's bitmaps to whom they are for.
struct Taken {
    first: u64,
    bits: [u64; SOURCES.len()],
    /// Whether they have left the bitmaps.
    removed: bool,
}

impl Taken {
    /// Reads, or with `remove` takes, those of the 64 pages from `first` that `mask` names.
    fn new(memory: &impl Memory, ledger: &Ledger, flags: Flags, first: u64, mask: u64, remove: bool) -> Self {
        let bits = SOURCES.map(|source| match (flags.names(source), remove) {
            (false, _) => 0,
            (true, true) => ledger.of(source).take(memory, first, mask),
            (true, false) => ledger.of(source).get(memory, first) & mask,
        });
        Self { first, bits, removed: remove }
    }

    fn bits(&self) -> u64 {
        self.bits.iter().fold(0, |all, bits| all | bits)
    }

    /// They did not arrive: they are in the log as before.
    fn put_back(&self, memory: &impl Memory, ledger: &Ledger) {
        if self.removed {
            for (source, bits) in SOURCES.into_iter().zip(self.bits) {
                ledger.of(source).put_back(memory, self.first, bits);
            }
        }
    }
}

/// The words of the report about `part`: index, first page in EL2's bitmaps, and the bits that are pages of it.
fn words(ledger: &Ledger, part: IpaRange) -> impl Iterator<Item = (u64, u64, u64)> + Clone + use<> {
    let (first, pages) = (ledger.page(part), part.pages() - u64::from(sabotage::ONE_PAGE_TOO_FEW));
    (0..pages.div_ceil(64)).map(move |word| {
        let left = pages - word * 64;
        (word, first + word * 64, ones(left.min(64)))
    })
}

/// The pages of `part` that `wanted` (of a word's index) names, in runs.
pub(super) fn named<F: Fn(u64) -> u64 + Clone>(
    ledger: &Ledger,
    part: IpaRange,
    wanted: F,
) -> impl Iterator<Item = IpaRange> + Clone + use<F> {
    words(ledger, part).flat_map(move |(word, _, mask)| {
        let base = part.start().offset(word * 64 * PAGE_BYTES);
        page_runs(base, wanted(word) & mask)
    })
}

/// The runs of adjacent pages that `bits` names, bit 0 being the page at `base`.
fn page_runs(base: Ipa, bits: u64) -> impl Iterator<Item = IpaRange> + Clone {
    runs(bits).map_while(move |(first, count)| {
        IpaRange::new(base.offset(first * PAGE_BYTES), count * PAGE_BYTES).ok()
    })
}
