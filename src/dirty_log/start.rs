//! Starting a log: count and reserve everything, split every view, invalidate once.

use strandline_abi::{CpuTier, DmaTier};

use super::{DirtyLog, Ledger, LogError, On, Phase, Progress, Starting};
use crate::addr::{IpaRange, PageSize};
use crate::address_space::{AddressSpace, DmaView, MAX_DMA_VIEWS};
use crate::frames::{FrameReserve, OutOfFrames};
use crate::hw::{DmaTlb, Platform};
use crate::sabotage;
use crate::stage2::{LeafState, Retired, Split, SplitNeeds, Tree, View, ViewError, Walker};

/// The grain of a log.
const GRAIN: PageSize = PageSize::Size4K;

/// The state in which the leaves of a view enter a log: clean where a write will show, dirty where none does.
const fn initial_state(tier: DmaTier) -> LeafState {
    match tier {
        DmaTier::Hardware | DmaTier::Stall => LeafState::WritableClean,
        DmaTier::None | DmaTier::Digest | DmaTier::Assume => LeafState::WritableDirty,
    }
}

/// What one view of a start takes.
struct ViewNeeds {
    split: SplitNeeds,
    retired: usize,
}

impl ViewNeeds {
    fn of(tree: &Tree, platform: &impl Platform, range: IpaRange) -> Self {
        let split = Split::needs(tree, platform, range, GRAIN);
        // A stop unlinks one sub-tree for each block split now, and perhaps one of what was small before.
        Self { split, retired: Retired::frames_for(split.blocks + 1) }
    }

    const fn frames(&self) -> usize {
        self.split.frames + self.retired
    }

    fn retired(&self, reserve: &mut FrameReserve) -> Retired {
        Retired::new(reserve.split_off(self.retired))
    }

    fn split(&self, range: IpaRange, state: LeafState, reserve: &mut FrameReserve) -> Split {
        Split::new(range, GRAIN, state, reserve.split_off(self.split.frames))
    }
}

impl DirtyLog {
    /// Starts a log of `range`, which is RAM of the VM: after it has ended, every write that completes is reported
    /// by the first sync that begins after it.
    ///
    /// `step` is 0 in the first call and then what [`Progress::More`] said. The first call counts and reserves, and
    /// fails without having changed anything; later ones split block by block, the structure taken exclusively.
    /// The last one ends with exactly one invalidation of each DMA view.
    ///
    /// # Errors
    /// [`LogError`]; a start that fails after its first call is undone before it returns.
    pub fn start<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        range: IpaRange,
        step: u64,
    ) -> Result<Progress, LogError> {
        match &self.phase {
            Phase::Off if step == 0 => {
                let (starting, ledger) = self.prepare(platform, space, range)?;
                space.begin_log(ledger);
                self.phase = Phase::Starting(starting);
                self.split_by_start = 0;
            }
            Phase::Off => return Err(LogError::OutOfStep(0)),
            Phase::Starting(starting) if starting.on.range == range && step != 0 => {
                if step != starting.steps {
                    return Err(LogError::OutOfStep(starting.steps));
                }
            }
            Phase::Starting(_) | Phase::Stopping(_) => return Err(LogError::Changing),
            Phase::On(_) => return Err(LogError::AlreadyOn),
        }
        match self.advance(platform, space) {
            Ok(progress) => Ok(progress),
            Err(error) => {
                self.undo(platform, space)?;
                Err(LogError::Abandoned(error))
            }
        }
    }

    /// Blocks split so far by the start under way, or by the last one where none is; in all views.
    #[must_use]
    pub const fn blocks_split_by_start(&self) -> u64 {
        self.split_by_start
    }

    fn prepare<P: Platform, D: DmaTlb>(
        &self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        range: IpaRange,
    ) -> Result<(Starting, Ledger), LogError> {
        if self.cpu_tier == CpuTier::None {
            return Err(LogError::NoCpuTier);
        }
        let unknown = |tier: &DmaTier| matches!(tier, DmaTier::Stall | DmaTier::Digest);
        if let Some(tier) = space.dma_views().map(|view| view.tier).find(unknown) {
            return Err(LogError::NoDmaTier(tier));
        }
        if let Some(outside) = space.first_outside_ram(range) {
            return Err(LogError::OutsideRam(outside));
        }
        let cpu_needs = ViewNeeds::of(&space.cpu.tree, platform, range);
        let dma_needs = space.dma.each_ref().map(|v| {
            v.as_ref().map(|v: &DmaView<'_, D>| {
                (ViewNeeds::of(&v.view.tree, platform, range), initial_state(v.tier))
            })
        });
        let frames = cpu_needs.frames() + dma_needs.iter().flatten().map(|(n, _)| n.frames()).sum::<usize>();
        let (ledger, mut reserve) = reserve_all(platform, range, frames)?;

        let mut splits = [const { None }; MAX_DMA_VIEWS];
        let mut dma_retired = [const { None }; MAX_DMA_VIEWS];
        for (i, (needs, state)) in dma_needs.iter().enumerate().filter_map(|(i, n)| Some((i, n.as_ref()?))) {
            let split = needs.split(range, *state, &mut reserve);
            splits[i] = (!sabotage::NO_DMA_SPLIT).then_some(split);
            dma_retired[i] = Some(needs.retired(&mut reserve));
        }
        let split = cpu_needs.split(range, LeafState::WritableClean, &mut reserve);
        let cpu_retired = cpu_needs.retired(&mut reserve);
        platform.unreserve(reserve);
        let on = On { range, cpu_retired, dma_retired, untrusted: false };
        let cpu = (!sabotage::NO_CPU_SPLIT).then_some(split);
        Ok((Starting { on, cpu, dma: splits, steps: 0 }, ledger))
    }

    /// Does one bounded part of the start under way.
    fn advance<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<Progress, ViewError> {
        let Phase::Starting(starting) = &mut self.phase else { return Ok(Progress::Done) };
        starting.steps += 1;
        let mut blocks = None;
        if starting.cpu.is_some() {
            blocks = Some(split_step(platform, &mut starting.cpu, &mut space.cpu)?);
        } else {
            for (split, view) in starting.dma.iter_mut().zip(space.dma.iter_mut()) {
                if let (Some(_), Some(view)) = (&split, view) {
                    blocks = Some(split_step(platform, split, &mut view.view)?);
                    break;
                }
            }
        }
        if let Some(blocks) = blocks {
            self.split_by_start += blocks;
            self.statistics.blocks_split += blocks;
            return Ok(Progress::More(starting.steps));
        }
        for view in space.dma.iter().flatten() {
            view.view.walker.invalidate(platform, &view.view.tree)?;
            if sabotage::SECOND_VMALL {
                view.view.walker.invalidate(platform, &view.view.tree)?;
            }
        }
        space.log_is_on();
        self.take_phase(|phase| match phase {
            Phase::Starting(starting) => Phase::On(starting.on),
            other => other,
        });
        Ok(Progress::Done)
    }

    /// Undoes a start under way: merges what was split.
    fn undo<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<(), LogError> {
        let mut step = 0;
        while let Progress::More(next) = self.stop(platform, space, step)? {
            step = next;
        }
        Ok(())
    }

    /// Replaces the phase by what `change` makes of it.
    pub(super) fn take_phase(&mut self, change: impl FnOnce(Phase) -> Phase) {
        self.phase = change(core::mem::replace(&mut self.phase, Phase::Off));
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

/// Takes everything a start needs, or nothing.
fn reserve_all(
    platform: &impl Platform,
    range: IpaRange,
    frames: usize,
) -> Result<(Ledger, FrameReserve), LogError> {
    let needed = frames + Ledger::frames(range.pages());
    let lack = || LogError::OutOfFrames(OutOfFrames { needed, free: platform.free_frames() });
    if platform.free_frames() < needed {
        return Err(lack());
    }
    let reserve = platform.reserve(frames).map_err(|_| lack())?;
    let Some(ledger) = Ledger::new(platform, range) else {
        platform.unreserve(reserve);
        return Err(lack());
    };
    Ok((ledger, reserve))
}
