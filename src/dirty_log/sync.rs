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
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Synced, LogError> {
        let mut deliver = |word, bits| deliver(word, bits).succeeded();
        let reported = self.read(platform, space, &Reading::sync(part, flags), &mut deliver)?;
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
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Cleared, LogError> {
        let mut deliver = |word, bits| deliver(word, bits).succeeded();
        let discarded = self.read(platform, space, &Reading::clear(part, flags, &wanted), &mut deliver)?;
        Ok(Cleared { discarded })
    }

    /// What sync and clear have in common: how many pages were given to `deliver`, which says whether each word arrived.
    pub(crate) fn read<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        reading: &Reading<'_>,
        deliver: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<u64, LogError> {
        let ledger = self.ledger(space, reading.part)?;
        if collect(platform, space, ledger, reading).is_err() {
            return Err(self.distrust());
        }
        let (mut told, mut lost) = (0, None);
        for (word, first, mask) in words(ledger, reading.part) {
            window(platform, word);
            let taken = Taken::new(platform, ledger, reading, first, reading.wanted(word) & mask);
            if !deliver(word, taken.bits()) {
                taken.put_back(platform, ledger);
                lost = Some(word);
                break;
            }
            told += u64::from(taken.bits().count_ones());
        }
        if reading.wanted.is_none() {
            self.statistics.pages_reported += told;
        }
        lost.map_or(Ok(told), |word| Err(LogError::NotDelivered(word)))
    }
}

/// A step of a sync, or of a clear.
pub(crate) struct Reading<'a> {
    /// What is asked for.
    pub part: IpaRange,
    /// Of which sources.
    pub flags: Flags,
    /// What is told leaves the log.
    clean: bool,
    /// Of these pages alone, by a word's index; of all where nobody says.
    wanted: Option<&'a dyn Fn(u64) -> u64>,
    /// The views that adapt have been harvested.
    pub adapted: bool,
}

impl<'a> Reading<'a> {
    pub const fn sync(part: IpaRange, flags: Flags) -> Self {
        Self { part, flags, clean: flags.has(Flags::CLEAR), wanted: None, adapted: false }
    }

    pub const fn clear(part: IpaRange, flags: Flags, wanted: &'a dyn Fn(u64) -> u64) -> Self {
        Self { part, flags, clean: true, wanted: Some(wanted), adapted: false }
    }

    /// What is done to what is found dirty.
    pub const fn mode(&self) -> Harvest {
        if self.clean { Harvest::Clean } else { Harvest::Keep }
    }

    fn wanted(&self, word: u64) -> u64 {
        self.wanted.map_or(u64::MAX, |wanted| wanted(word))
    }

    /// Whether a view is still to be harvested that `adapts`, or does not.
    const fn has(&self, adapts: bool) -> bool {
        !(self.adapted && adapts)
    }

    /// Shows each range that is asked for.
    pub fn ranges(&self, ledger: &Ledger, visit: &mut dyn FnMut(IpaRange)) {
        if self.wanted.is_none() {
            return visit(self.part);
        }
        // Those of adjacent words are one: all of a table is to be seen as that.
        let mut run: Option<IpaRange> = None;
        for (word, _, mask) in words(ledger, self.part) {
            let base = self.part.start().offset(word * 64 * PAGE_BYTES);
            for next in page_runs(base, self.wanted(word) & mask) {
                let joined = run.filter(|run| run.end() == next.start());
                match joined.and_then(|run| IpaRange::new(run.start(), run.bytes() + next.bytes()).ok()) {
                    Some(longer) => run = Some(longer),
                    None => run.replace(next).into_iter().for_each(&mut *visit),
                }
            }
        }
        run.into_iter().for_each(visit);
    }
}

/// Brings what the views know of what is asked for into EL2's bitmaps, and cleans them where that is asked, in the order that
/// loses nothing: updates made visible, walk, invalidation of what was cleaned.
fn collect<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &AddressSpace<'_, D>,
    ledger: &Ledger,
    reading: &Reading<'_>,
) -> Result<(), ViewError> {
    let (flags, mode) = (reading.flags, reading.mode());
    let harvest = |tree: &Tree, mut round: Round<'_>| {
        reading.ranges(ledger, &mut |range| {
            for piece in pieces(range) {
                round.harvest(platform, tree, piece);
                // Interrupts are heard between pieces.
                platform.relax();
            }
        });
        round.owed(platform)
    };
    if flags.names(LogSource::Cpu) && reading.has(space.cpu.walker.adapts()) {
        space.cpu.walker.collect_updates(platform)?;
        let owed = harvest(&space.cpu.tree, Round::new(ledger, LogSource::Cpu, mode, true));
        if owed.is_some() && !sabotage::NO_INVALIDATION {
            space.cpu.walker.invalidate(platform, &space.cpu.tree)?;
        }
    }
    if flags.names(LogSource::Dma) {
        if !sabotage::NO_SYNC_BEFORE_WALK {
            collect_dma_updates(platform, space, &|view| reading.has(view.adapts()))?;
        }
        if space.has_digest_views() {
            let clean = mode == Harvest::Clean;
            reading.ranges(ledger, &mut |range| digest::compare(platform, space, ledger, range, clean));
        }
        let read = |dma: &&DmaView<'_, D>| dma.tier != DmaTier::Digest && reading.has(dma.adapts());
        for dma in space.dma_views().filter(read) {
            let mode = if dma.shows_writes() { mode } else { Harvest::Assume };
            let round = Round::new(ledger, LogSource::Dma, mode, dma.view.walker.coherent);
            if let Some(owed) = harvest(&dma.view.tree, round)
                && !sabotage::NO_DMA_INVALIDATION
            {
                dma.view.settle(platform, owed)?;
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
                self.owed = Some(Owed::and(self.owed, found));
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
    concerned: &dyn Fn(&DmaView<'d, D>) -> bool,
) -> Result<(), ViewError> {
    let concerned = |dma: &&DmaView<'d, D>| dma.tier == DmaTier::Hardware && concerned(dma);
    for (index, place) in space.dma.iter().enumerate() {
        let Some(walker) = place.as_ref().filter(concerned).map(|dma| &dma.view.walker) else { continue };
        let mut before = space.dma[..index].iter().flatten().filter(concerned);
        if !before.any(|dma| core::ptr::eq(dma.view.walker.tlb, walker.tlb)) {
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
    /// Reads, or where they are to leave the log takes, those of the 64 pages from `first` that `mask` names.
    fn new(memory: &impl Memory, ledger: &Ledger, reading: &Reading<'_>, first: u64, mask: u64) -> Self {
        let (flags, remove) = (reading.flags, reading.clean);
        let of = |source| match (flags.names(source), remove) {
            (false, _) => 0,
            (true, true) => ledger.of(source).take(memory, first, mask),
            (true, false) => ledger.of(source).get(memory, first) & mask,
        };
        // As many as there are sources, without the call that a map of the array is.
        let bits = [of(SOURCES[0]), of(SOURCES[1])];
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

/// The runs of adjacent pages that `bits` names, bit 0 being the page at `base`.
fn page_runs(base: Ipa, bits: u64) -> impl Iterator<Item = IpaRange> + Clone {
    runs(bits).map_while(move |(first, count)| {
        IpaRange::new(base.offset(first * PAGE_BYTES), count * PAGE_BYTES).ok()
    })
}
