//! Starting a log: count and reserve everything, split every view, invalidate once.

use strandline_abi::{CpuTier, DmaTier, Tiers};

use super::adaptive::{self, Adaptive, Granule};
use super::digest::{self, Digests};
use super::{
    Copying, Counting, DigestKey, DirtyLog, Ledger, LogError, On, Phase, Preparing, Progress, STEP_PAGES,
    STEP_PAGES_DIGEST, Splitting, Stage, Starting, Stopping, second_tree,
};
use crate::addr::{Ipa, IpaRange, PAGE_SHIFT, PageSize};
use crate::address_space::{AddressSpace, DmaView, MAX_DMA_VIEWS};
use crate::frames::{FrameReserve, Frames, OutOfFrames};
use crate::hw::{DmaTlb, Platform};
use crate::sabotage;
use crate::stage2::{Count, LeafState, Retired, Split, SplitNeeds, View, ViewError, Walker};

/// What a start asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be logged: RAM of the VM.
    pub range: IpaRange,
    /// How large its leaves are, to begin with or for good. A leaf that is larger than a page is reported whole, with what
    /// lies beside the range in it.
    pub granule: Granule,
    /// The weakest ways of knowing writes that will do; [`CpuTier::None`] and [`DmaTier::None`] where any will.
    pub weakest: Tiers,
}

impl From<IpaRange> for Request {
    /// A log of pages, by whatever tiers there are.
    fn from(range: IpaRange) -> Self {
        let weakest = Tiers { cpu: CpuTier::None, dma: DmaTier::None };
        Self { range, granule: PageSize::Size4K.into(), weakest }
    }
}

/// Whether `tiers` are as good as `weakest`: ascending codes promise less, and 0 asks for nothing.
fn suffice(tiers: Tiers, weakest: Tiers) -> bool {
    (weakest.cpu == CpuTier::None || tiers.cpu.code() <= weakest.cpu.code())
        && (weakest.dma == DmaTier::None || tiers.dma.code() <= weakest.dma.code())
}

/// The state in which the leaves of a view enter a log: clean where a write will show, dirty where none does.
const fn initial_state(tier: DmaTier) -> LeafState {
    match tier {
        DmaTier::Hardware | DmaTier::Stall => LeafState::WritableClean,
        DmaTier::None | DmaTier::Digest | DmaTier::Assume => LeafState::WritableDirty,
    }
}

/// Whether a log can know writes in this way: in any, but a view has to say in which.
pub(super) const fn is_supported(tier: DmaTier) -> bool {
    !matches!(tier, DmaTier::None)
}

/// Frames of each bitmap emptied in one step.
const STEP_FRAMES: u64 = 64;

/// Pages whose first digests are taken in one step.
const STEP_DIGESTS: u64 = 256;

/// What the stop of a view will take after `split`: it unlinks one sub-tree for each block split now, and perhaps one of
/// what was small before; or whatever an adaptive log splits until then.
fn retired_frames(request: Request, split: SplitNeeds) -> usize {
    let adaptive = request.granule.list_frames(request.range);
    adaptive.unwrap_or(Retired::frames_for(split.blocks + 1))
}

/// The granule of the CPU view.
fn of_cpu_view<D: DmaTlb>(granule: Granule, space: &AddressSpace<'_, D>) -> PageSize {
    granule.of_view(adaptive::adapting(space).cpu, true)
}

/// The granule of a DMA view.
fn of_dma_view<D: DmaTlb>(granule: Granule, view: &DmaView<'_, D>) -> PageSize {
    granule.of_view(view.adapts(), view.shows_writes())
}

impl DirtyLog {
    /// Starts a log as `request` says (a range alone: of pages, by whatever tiers there are): after it has ended, every
    /// write that completes is reported by the first sync that begins after it.
    ///
    /// `step` is 0 in the first call and then what [`Progress::More`] said. The first calls count, and reserve everything
    /// that is needed: until then nothing has been changed. Later ones split block by block, the structure taken
    /// exclusively. The last one ends with exactly one invalidation of each DMA view in which something was changed; at BBML
    /// 1 there has been one for each batch of blocks before.
    ///
    /// # Errors
    /// [`LogError`]. What has been changed is undone before [`LogError::Abandoned`] is reported, by calls of their own if it
    /// takes more than one. [`LogError::NotHeld`] where a vCPU could not be stopped for that: call it again, with that step.
    /// [`LogError::Untrusted`] where hardware did not answer then either: the log is off, and tables stay out of use.
    pub fn start<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        request: impl Into<Request>,
        step: u64,
    ) -> Result<Progress, LogError> {
        let request = request.into();
        match &self.phase {
            Phase::Off if step == 0 => self.begin_start(space, request)?,
            Phase::Off => return Err(LogError::OutOfStep(0)),
            Phase::Starting(Starting { request: begun, steps, .. }) if *begun == request && step != 0 => {
                if step != *steps {
                    return Err(LogError::OutOfStep(*steps));
                }
            }
            Phase::Stopping(Stopping { abandoned: Some(_), on, .. }) if on.range == request.range => {
                return self.go_on_stopping(platform, space, step);
            }
            Phase::Starting(_) | Phase::Stopping(_) => return Err(LogError::Changing),
            Phase::On(_) => return Err(LogError::AlreadyOn),
        }
        self.advance(platform, space)
    }

    fn begin_start<D: DmaTlb>(
        &mut self,
        space: &mut AddressSpace<'_, D>,
        request: Request,
    ) -> Result<(), LogError> {
        let Request { range, granule, weakest } = request;
        if self.cpu_tier == CpuTier::None {
            return Err(LogError::NoCpuTier);
        }
        if let Some(tier) = space.dma_views().map(|view| view.tier).find(|tier| !is_supported(*tier)) {
            return Err(LogError::NoDmaTier(tier));
        }
        let tiers = self.tiers(space);
        if !suffice(tiers, weakest) {
            return Err(LogError::Weaker(tiers));
        }
        if space.has_digest_views() && self.key.is_none() {
            return Err(LogError::NoKey);
        }
        if let Some(outside) = space.first_outside_ram(range) {
            return Err(LogError::OutsideRam(outside));
        }
        if matches!(granule, Granule::Adaptive(_)) && !adaptive::some_adapts(space) {
            return Err(LogError::NotAdaptive);
        }
        let cpu = Count::new(range, of_cpu_view(granule, space));
        let counted = |view: &Option<DmaView<'_, D>>| {
            let view = view.as_ref().filter(|view| view.takes_part())?;
            Some(Count::new(range, of_dma_view(granule, view)))
        };
        let dma = space.dma.each_ref().map(counted);
        space.begin_change(range);
        self.phase = Phase::Starting(Starting {
            request,
            stage: Stage::Counting(Counting { cpu, dma }),
            steps: 0,
            blocks: 0,
        });
        Ok(())
    }

    /// Does one bounded part of the start under way.
    fn advance<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<Progress, LogError> {
        let Phase::Starting(starting) = &mut self.phase else { return Ok(Progress::Done) };
        starting.steps += 1;
        let more = Progress::More(starting.steps);
        if let Stage::Counting(counting) = &mut starting.stage {
            let key = self.key.filter(|_| space.has_digest_views());
            let taken = match counting.step(platform, space) {
                Ok(false) => return Ok(more),
                Ok(true) => starting.take_all(platform, space, key),
                Err(error) => Err(LogError::Abandoned(error)),
            };
            if let Err(error) = taken {
                space.end_change();
                self.phase = Phase::Off;
                return Err(error);
            }
        }
        let Stage::Splitting(splitting) = &mut starting.stage else { return Ok(more) };
        match splitting.step(platform, space) {
            Ok(Stepped { done, blocks, held }) => {
                starting.blocks += blocks;
                self.statistics.blocks_split += blocks;
                self.statistics.holds += u64::from(held);
                if !done {
                    return Ok(more);
                }
                self.split_by_start = starting.blocks;
            }
            Err(error) => return self.undo(platform, space, error),
        }
        space.end_change();
        self.take_phase(|phase| match phase {
            Phase::Starting(Starting { stage: Stage::Splitting(splitting), .. }) => Phase::On(splitting.on),
            other => other,
        });
        Ok(Progress::Done)
    }

    /// Begins to undo the start under way: what was split is merged.
    fn undo<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        error: ViewError,
    ) -> Result<Progress, LogError> {
        self.begin_stop(platform, space, Some(error));
        self.go_on_stopping(platform, space, 0)
    }

    /// Blocks split so far by the start under way, or by the last one where none is; in all views.
    #[must_use]
    pub const fn blocks_split_by_start(&self) -> u64 {
        match &self.phase {
            Phase::Starting(starting) => starting.blocks,
            _ => self.split_by_start,
        }
    }

    /// Replaces the phase by what `change` makes of it.
    pub(super) fn take_phase(&mut self, change: impl FnOnce(Phase) -> Phase) {
        self.phase = change(core::mem::replace(&mut self.phase, Phase::Off));
    }
}

impl Starting {
    /// Takes all that was counted, or nothing.
    fn take_all<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        key: Option<DigestKey>,
    ) -> Result<(), LogError> {
        let Stage::Counting(counting) = &self.stage else { return Ok(()) };
        let range = self.request.range;
        second_tree::add_all(platform, space)?;
        let reserved = reserve_all(platform, range, counting.frames(space, self.request), key);
        let (preparing, reserve) = reserved.inspect_err(|_| second_tree::free_all(platform, space))?;
        let mut splitting = counting.splitting(platform, space, self.request, reserve);
        splitting.preparing = Some(preparing);
        if key.is_some() {
            splitting.undigested = Some(range);
            splitting.on.step_pages = STEP_PAGES_DIGEST;
        }
        self.stage = Stage::Splitting(splitting);
        Ok(())
    }
}

impl Counting {
    /// Does one bounded part; `true` when all views are counted.
    ///
    /// # Errors
    /// An SMMU that fell silent in a stop has not come back. Nothing was changed.
    fn step<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<bool, ViewError> {
        if !second_tree::drop_step(platform, space)? {
            return Ok(false);
        }
        let mut counted = self.cpu.step(&space.cpu.tree, platform);
        for (count, view) in self.dma.iter_mut().zip(&space.dma) {
            if let (true, Some(count), Some(view)) = (counted, count, view) {
                counted = count.step(&view.view.tree, platform);
            }
        }
        Ok(counted)
    }

    /// Table frames that splits, second trees, the stop, and what syncs split will take.
    fn frames<D: DmaTlb>(&self, space: &AddressSpace<'_, D>, request: Request) -> usize {
        let frames = |needs: SplitNeeds| needs.frames + retired_frames(request, needs);
        let of_view = |(count, view): (&Option<Count>, &Option<DmaView<'_, D>>)| match (count, view) {
            (Some(count), Some(view)) if view.other.is_some() => {
                count.needs().frames + second_tree::copied_tables(view)
            }
            (Some(count), _) => frames(count.needs()),
            (None, _) => 0,
        };
        let views = self.dma.iter().zip(&space.dma).map(of_view).sum::<usize>();
        frames(self.cpu.needs()) + views + request.granule.spare_frames()
    }

    /// Divides `reserve`, which holds [`Counting::frames`].
    fn splitting<P: Platform, D: DmaTlb>(
        &self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        request: Request,
        mut reserve: FrameReserve,
    ) -> Splitting {
        let Request { range, granule, .. } = request;
        let split = |granule, needs: SplitNeeds, state, reserve: &mut FrameReserve| {
            Split::new(range, granule, state, reserve.split_off(needs.frames))
        };
        let mut copies = [const { None }; MAX_DMA_VIEWS];
        let mut dma = [const { None }; MAX_DMA_VIEWS];
        let mut dma_retired = [const { None }; MAX_DMA_VIEWS];
        for (i, (count, view)) in self.dma.iter().zip(&space.dma).enumerate() {
            if let (Some(count), Some(view)) = (count, view) {
                let needs = count.needs();
                let split = split(of_dma_view(granule, view), needs, initial_state(view.tier), &mut reserve);
                dma[i] = unless(sabotage::NO_DMA_SPLIT, platform, split);
                if view.other.is_some() {
                    let reserve = reserve.split_off(second_tree::copied_tables(view));
                    copies[i] = Some(Copying { at: Ipa(0), reserve });
                } else {
                    dma_retired[i] = Some(Retired::new(reserve.split_off(retired_frames(request, needs))));
                }
            }
        }
        let needs = self.cpu.needs();
        let cpu = split(of_cpu_view(granule, space), needs, LeafState::WritableClean, &mut reserve);
        let cpu_retired = Retired::new(reserve.split_off(retired_frames(request, needs)));
        let adaptive = match granule {
            Granule::Fixed(_) => None,
            Granule::Adaptive(policy) => {
                Some(Adaptive::new(policy, reserve.split_off(granule.spare_frames())))
            }
        };
        platform.unreserve(reserve);
        let on = On { range, step_pages: STEP_PAGES, cpu_retired, dma_retired, adaptive, untrusted: false };
        let cpu = unless(sabotage::NO_CPU_SPLIT, platform, cpu);
        Splitting { on, preparing: None, undigested: None, cpu, copies, dma }
    }
}

/// `split`, which is given up where a fault that is built in says so.
fn unless(sabotaged: bool, platform: &impl Frames, split: Split) -> Option<Split> {
    if sabotaged {
        split.end(platform);
        return None;
    }
    Some(split)
}

/// What a step of a start has done.
struct Stepped {
    /// All views are split and invalidated.
    done: bool,
    /// Blocks it has split.
    blocks: u64,
    /// vCPUs were held for it.
    held: bool,
}

impl Stepped {
    const fn part(blocks: u64) -> Self {
        Self { done: false, blocks, held: false }
    }
}

impl Splitting {
    /// Does one bounded part: of emptying the bitmaps, of a view's split, or the invalidations after the last one.
    fn step<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<Stepped, ViewError> {
        if !self.prepare_ledger(platform, space) || !self.take_digests(platform, space) {
            return Ok(Stepped::part(0));
        }
        if self.cpu.is_some() {
            let blocks = split_step(platform, &mut self.cpu, &mut space.cpu)?;
            return Ok(Stepped { done: false, blocks, held: blocks > 0 && !space.cpu.walker.direct });
        }
        if !second_tree::copy_step(platform, space, &mut self.copies) {
            return Ok(Stepped::part(0));
        }
        for (split, view) in self.dma.iter_mut().zip(space.dma.iter_mut()) {
            if let (Some(_), Some(view)) = (&split, view) {
                let view = match &mut view.other {
                    Some(other) => &mut other.view,
                    None => &mut view.view,
                };
                return split_step(platform, split, view).map(Stepped::part);
            }
        }
        self.end_views(platform, space)?;
        Ok(Stepped { done: true, blocks: 0, held: false })
    }

    /// What comes after the last split: the invalidation of each view, or the switch to its second tree.
    fn end_views<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<(), ViewError> {
        let split = space.dma.iter().zip(&self.on.dma_retired).filter(|(_, retired)| retired.is_some());
        for view in split.filter_map(|(view, _)| view.as_ref()) {
            if !sabotage::NO_SPLIT_INVALIDATION {
                view.view.walker.invalidate(platform, &view.view.tree)?;
            }
            if sabotage::SECOND_VMALL {
                view.view.walker.invalidate(platform, &view.view.tree)?;
            }
        }
        second_tree::switch_all(space, true)
    }

    /// Does a bounded part of making the ledger; `true` when it is made, and in use.
    fn prepare_ledger<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> bool {
        let Some(mut preparing) = self.preparing.take() else { return true };
        for _ in 0..STEP_FRAMES {
            if !preparing.one_frame(platform) {
                platform.unreserve(preparing.reserve);
                space.set_ledger(preparing.ledger);
                return true;
            }
            platform.relax();
        }
        self.preparing = Some(preparing);
        false
    }

    /// Takes a bounded part of the first digests; `true` when all are taken.
    fn take_digests<P: Platform, D: DmaTlb>(&mut self, platform: &P, space: &AddressSpace<'_, D>) -> bool {
        let Some(left) = self.undigested.take() else { return true };
        let pages = left.pages().min(STEP_DIGESTS);
        let Ok(part) = IpaRange::new(left.start(), pages << PAGE_SHIFT) else { return true };
        digest::keep_first(platform, space, part);
        self.undigested = IpaRange::new(part.end(), left.bytes() - part.bytes()).ok();
        self.undigested.is_none()
    }
}

impl Preparing {
    /// Empties one frame of the bitmaps, or else links one of the digests; `false` when there is none left.
    fn one_frame<P: Platform>(&mut self, platform: &P) -> bool {
        if self.ledger.empty_frame(platform, self.emptied) {
            self.emptied += 1;
            return true;
        }
        self.ledger.digests.as_mut().is_some_and(|digests| digests.link(platform, &mut self.reserve))
    }
}

/// Does one step of a split of `view`, and takes it out of its place when its range is done; says how many blocks the
/// step has split.
fn split_step<P: Platform, W: Walker<P>>(
    platform: &P,
    place: &mut Option<Split>,
    view: &mut View<W>,
) -> Result<u64, ViewError> {
    let Some(split) = place else { return Ok(0) };
    let before = split.blocks();
    let done = split.step(platform, view)?;
    let blocks = split.blocks() - before;
    if done && let Some(split) = place.take() {
        split.end(platform);
    }
    Ok(blocks)
}

/// Takes everything a start needs, or nothing: `frames` for the views, and the ledger, with digests where there is a
/// key for them.
fn reserve_all(
    platform: &impl Platform,
    range: IpaRange,
    frames: usize,
    key: Option<DigestKey>,
) -> Result<(Preparing, FrameReserve), OutOfFrames> {
    let needed = frames + Ledger::frames(range.pages(), key.is_some());
    let lack = || OutOfFrames { needed, free: platform.free_frames() };
    if platform.free_frames() < needed {
        return Err(lack());
    }
    let single = if key.is_some() { Digests::single_frames(range.pages()) } else { 0 };
    let mut reserve = platform.reserve(frames + single).map_err(|_| lack())?;
    let Some(mut ledger) = Ledger::new(platform, range) else {
        platform.unreserve(reserve);
        return Err(lack());
    };
    if key.is_some_and(|key| !ledger.add_digests(platform, key)) {
        ledger.free(platform);
        platform.unreserve(reserve);
        return Err(lack());
    }
    let for_digests = reserve.split_off(single);
    Ok((Preparing { ledger, emptied: 0, reserve: for_digests }, reserve))
}
