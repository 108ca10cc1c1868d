//! The adaptive granule: a log whose cost follows what is touched.
//!
//! A start leaves blocks of 2 MiB, writable-clean. A clearing sync splits those that it finds dirty, and merges what has
//! stayed clean for some passes, so that in the long run pages are there where writes are, and blocks elsewhere. What a
//! sync changes is covered by the one invalidation that it owes for its cleaning anyway.
//!
//! Structure changes under exclusive access alone, so there is a sync of its own for this
//! ([`DirtyLog::sync_adapting`]); one under shared access reads the log as well, and leaves sizes as they are.

use strandline_abi::{DmaTier, Flags, LogSource};

use super::sync::{self, Reading};
use super::{Cleared, Delivery, DirtyLog, Ledger, LogError, On, Phase, Statistics, Synced};
use crate::addr::{IpaRange, PageSize};
use crate::address_space::{AddressSpace, DmaView};
use crate::frames::{FrameReserve, Frames};
use crate::hw::{Barrier, DmaTlb, Platform};
use crate::stage2::{Adapted, CpuWalker, Harvest, Pass, Retired, View, ViewError, Walker};

/// How large the leaves of a log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granule {
    /// Blocks larger than this are split at the start.
    Fixed(PageSize),
    /// 2 MiB, and 4 KiB where something is written: in views that bear it, 4 KiB elsewhere.
    Adaptive(Policy),
}

impl From<PageSize> for Granule {
    fn from(size: PageSize) -> Self {
        Self::Fixed(size)
    }
}

/// When an adaptive log changes sizes. [`Policy::default`] is what docs/performance.md measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many passes in a row must find all of a 2 MiB region clean before it becomes a block again: 1 to 7, more count as
    /// 7; 0: it never does. A pass is a [`DirtyLog::sync_adapting`] or [`DirtyLog::clear_adapting`] of all of the region in one
    /// step (steps count from the start of what is asked for: let that be a multiple of 2 MiB). One of a part of it begins the
    /// count anew where it finds something written; one under shared access leaves the count as it is.
    pub cold_passes: u8,
    /// The most blocks that one step of a sync splits in one view; the others that it finds dirty stay blocks, and are
    /// reported whole again.
    pub splits: u16,
    /// Table frames set aside at the start for splits when no other frame is free. What they are used up for comes back when
    /// tables are merged.
    pub reserve: u16,
}

impl Policy {
    /// The largest [`Policy::cold_passes`].
    const MAX_COLD_PASSES: u8 = 7;
}

impl Default for Policy {
    fn default() -> Self {
        // As many passes as are counted: what merges too early is reported whole again, and that costs more than reading it
        // did. A step covers 64 regions where ranges begin with one: all may be split.
        Self { cold_passes: 7, splits: 64, reserve: 16 }
    }
}

/// Which views of a VM change sizes while a log is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adapting {
    /// The vCPUs' does.
    pub cpu: bool,
    /// All those of its devices do; `false` where it owns none.
    pub dma: bool,
}

/// What an adaptive log holds from its start to its stop.
#[derive(Debug)]
pub(super) struct Adaptive {
    policy: Policy,
    reserve: FrameReserve,
}

impl Adaptive {
    /// By `policy`, with as many frames of `reserve` as that sets aside.
    pub const fn new(policy: Policy, reserve: FrameReserve) -> Self {
        Self { policy, reserve }
    }

    /// Gives back what it holds.
    pub fn free(self, platform: &impl Frames) {
        platform.unreserve(self.reserve);
    }

    /// Sets aside again what has been used up, when as many frames are free.
    fn refill(&mut self, platform: &impl Frames) {
        let lacking = usize::from(self.policy.reserve).saturating_sub(self.reserve.left());
        if let Ok(more) = platform.reserve(lacking) {
            self.reserve.absorb(more);
        }
    }

    /// A pass over one view.
    fn pass(&mut self, mode: Harvest) -> Pass<'_> {
        let cold = self.policy.cold_passes.min(Policy::MAX_COLD_PASSES);
        Pass::new(mode, cold, self.policy.splits.into(), &mut self.reserve)
    }
}

impl Granule {
    /// The granule that a start gives to a view which `adapts`, or does not, and whose leaves show writes or do not.
    pub(super) const fn of_view(self, adapts: bool, shows_writes: bool) -> PageSize {
        match self {
            Self::Fixed(size) => size,
            Self::Adaptive(_) if adapts => PageSize::Size2M,
            Self::Adaptive(_) if shows_writes => PageSize::Size4K,
            // Its leaves tell nothing, whatever their size: they stay as they are.
            Self::Adaptive(_) => PageSize::Size1G,
        }
    }

    /// Frames for the list of tables that a stop unlinks in a view that adapts, with a log of `range`: whatever syncs have
    /// split by then.
    pub(super) fn list_frames(self, range: IpaRange) -> Option<usize> {
        matches!(self, Self::Adaptive(_)).then(|| Retired::frames_for(most_roots(range)))
    }

    /// Frames set aside for splits.
    pub(super) fn spare_frames(self) -> usize {
        match self {
            Self::Fixed(_) => 0,
            Self::Adaptive(policy) => policy.reserve.into(),
        }
    }
}

/// The most sub-trees that a stop of a log of `range` unlinks: one for each 2 MiB, and one at either end.
pub(super) fn most_roots(range: IpaRange) -> usize {
    let roots = range.bytes().div_ceil(PageSize::Size2M.bytes()) + 2;
    usize::try_from(roots).unwrap_or(usize::MAX)
}

impl CpuWalker {
    /// Whether sizes may change in its view while vCPUs run, by the invalidation that a sync owes anyway.
    pub(super) const fn adapts(&self) -> bool {
        self.direct
    }
}

impl<D: DmaTlb> DmaView<'_, D> {
    /// The same of a view of devices: where they are known by hardware, and its SMMU never meets two sizes at odds
    /// (IDR3.BBML = 2).
    pub(super) fn adapts(&self) -> bool {
        self.tier == DmaTier::Hardware && self.view.walker.coherent && self.changes_size_directly()
    }
}

/// Which views of `space` change sizes under an adaptive log.
pub(super) fn adapting<D: DmaTlb>(space: &AddressSpace<'_, D>) -> Adapting {
    let mut views = space.dma_views().peekable();
    Adapting {
        cpu: space.cpu_view().walker.adapts(),
        dma: views.peek().is_some() && views.all(DmaView::adapts),
    }
}

/// Whether some view does.
pub(super) fn some_adapts<D: DmaTlb>(space: &AddressSpace<'_, D>) -> bool {
    space.cpu_view().walker.adapts() || space.dma_views().any(DmaView::adapts)
}

impl DirtyLog {
    /// Whether the log that is on, or being started, has an adaptive granule.
    #[must_use]
    pub const fn is_adaptive(&self) -> bool {
        match &self.phase {
            Phase::Starting(starting) => matches!(starting.request.granule, Granule::Adaptive(_)),
            Phase::On(on) => on.adaptive.is_some(),
            Phase::Off | Phase::Stopping(_) => false,
        }
    }

    /// Which views of `space` change sizes while the log is on; none where it is not adaptive.
    #[must_use]
    pub fn adapting<D: DmaTlb>(&self, space: &AddressSpace<'_, D>) -> Adapting {
        if self.is_adaptive() { adapting(space) } else { Adapting::default() }
    }

    /// [`DirtyLog::sync`] that changes sizes on the way, where the log is adaptive: with [`Flags::CLEAR`] blocks that are
    /// found dirty become pages, and with or without it what has been clean for some passes becomes a block again. Where
    /// frames are lacking a block stays a block: that is no error.
    ///
    /// # Errors
    /// As [`DirtyLog::sync`].
    pub fn sync_adapting<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Synced, LogError> {
        let mut deliver = |word, bits| deliver(word, bits).succeeded();
        let mut reading = Reading::sync(part, flags);
        self.adapt(platform, space, &mut reading)?;
        let reported = self.read(platform, space, &reading, &mut deliver)?;
        Ok(Synced { reported })
    }

    /// [`DirtyLog::clear`] that changes sizes on the way, as [`DirtyLog::sync_adapting`] does.
    ///
    /// # Errors
    /// As [`DirtyLog::clear`].
    pub fn clear_adapting<P: Platform, D: DmaTlb, R: Delivery>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        part: IpaRange,
        flags: Flags,
        wanted: impl Fn(u64) -> u64,
        mut deliver: impl FnMut(u64, u64) -> R,
    ) -> Result<Cleared, LogError> {
        let mut deliver = |word, bits| deliver(word, bits).succeeded();
        let mut reading = Reading::clear(part, flags, &wanted);
        self.adapt(platform, space, &mut reading)?;
        let discarded = self.read(platform, space, &reading, &mut deliver)?;
        Ok(Cleared { discarded })
    }

    /// Harvests the views that change sizes, and changes them: [`DirtyLog::read`] does what is left of `reading`.
    pub(crate) fn adapt<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        reading: &mut Reading<'_>,
    ) -> Result<(), LogError> {
        self.ledger(space, reading.part)?;
        let Phase::On(On { adaptive: Some(adaptive), .. }) = &mut self.phase else { return Ok(()) };
        adaptive.refill(platform);
        reading.adapted = true;
        let adapted = adapt_views(platform, space, adaptive, reading, &mut self.statistics);
        adapted.map_err(|_| self.distrust())
    }
}

/// A pass over each view that changes sizes, in the order that loses nothing: updates made visible, walk, invalidation of
/// what was changed, and a second look at what was unlinked.
fn adapt_views<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'_, D>,
    adaptive: &mut Adaptive,
    reading: &Reading<'_>,
    statistics: &mut Statistics,
) -> Result<(), ViewError> {
    let flags = reading.flags;
    if flags.names(LogSource::Dma) {
        sync::collect_dma_updates(platform, space, &DmaView::adapts)?;
    }
    let whole = space.one_region();
    let AddressSpace { cpu, dma, ledger, quarantined, .. } = space;
    let Some(ledger) = ledger.as_ref() else { return Ok(()) };
    let ask = |source| Ask { ledger, source, reading, whole: &whole };
    if flags.names(LogSource::Cpu) && cpu.walker.adapts() {
        cpu.walker.collect_updates(platform)?;
        adapt_view(platform, cpu, adaptive, &ask(LogSource::Cpu), quarantined, statistics)?;
    }
    for view in dma.iter_mut().flatten().filter(|view| view.adapts() && flags.names(LogSource::Dma)) {
        adapt_view(platform, &mut view.view, adaptive, &ask(LogSource::Dma), quarantined, statistics)?;
    }
    Ok(())
}

/// What is asked of a view, and whom it tells.
struct Ask<'a> {
    ledger: &'a Ledger,
    source: LogSource,
    reading: &'a Reading<'a>,
    /// Whether a range is one mapping.
    whole: &'a dyn Fn(IpaRange) -> bool,
}

/// One pass over a view; what it has done counts, whatever comes of it.
fn adapt_view<P: Platform, W: Walker<P>>(
    platform: &P,
    view: &mut View<W>,
    adaptive: &mut Adaptive,
    ask: &Ask<'_>,
    quarantined: &mut u64,
    statistics: &mut Statistics,
) -> Result<(), ViewError> {
    let mut pass = adaptive.pass(ask.reading.mode());
    let passed = pass_over(platform, view, &mut pass, ask, quarantined);
    statistics.add(pass.done());
    passed
}

fn pass_over<P: Platform, W: Walker<P>>(
    platform: &P,
    view: &mut View<W>,
    pass: &mut Pass<'_>,
    ask: &Ask<'_>,
    quarantined: &mut u64,
) -> Result<(), ViewError> {
    let mut dirty = |at, pages| ask.ledger.record_pages(platform, ask.source, at, pages);
    let mut result = Ok(());
    ask.reading.ranges(ask.ledger, &mut |range| {
        if result.is_ok() {
            result = view.adapt(platform, range, pass, ask.whole, &mut dirty);
        }
    });
    let done = result.and_then(|()| {
        let owed = view.end_adapting(platform, pass)?;
        owed.map_or(Ok(()), |owed| view.settle(platform, owed))
    });
    if let Err(error) = done {
        *quarantined += pass.abandoned();
        return Err(error);
    }
    if pass.has_merged() {
        // Hardware's last updates are visible to this CPU only behind a barrier after the CMD_SYNC (IHI 0070 §3.13.4).
        platform.barrier(Barrier::DsbSy);
    }
    view.tree.free_merged(platform, pass, &mut dirty);
    Ok(())
}

impl Statistics {
    const fn add(&mut self, done: Adapted) {
        self.splits_by_syncs += done.splits;
        self.merges_by_syncs += done.merges;
        self.splits_refused += done.refused;
    }
}
