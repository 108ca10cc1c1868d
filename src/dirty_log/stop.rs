//! Stopping a log: every leaf writable-dirty, tables merged back to the largest blocks, one invalidation.

use super::{DirtyLog, LogError, Phase, Progress, Stage, Starting, Statistics, Stopping, second_tree};
use crate::addr::IpaRange;
use crate::address_space::AddressSpace;
use crate::hw::{DmaTlb, Platform};
use crate::stage2::{Merge, Retired, View, ViewError, Walker};

impl DirtyLog {
    /// Stops the log, or undoes a start that has been begun and not ended. What was not yet reported is dropped.
    ///
    /// `step` is 0 in the first call and then what [`Progress::More`] said, or 0 again. After the last merge comes exactly
    /// one invalidation of each DMA view in which something was changed (at BBML 1 there has been one for each batch of
    /// blocks before), and only then its tables that were merged are freed.
    ///
    /// # Errors
    /// [`LogError::NotOn`], [`LogError::OutOfStep`]; [`LogError::NotHeld`] where a vCPU could not be stopped: the stop is
    /// still under way, call it again (with step 0). [`LogError::Untrusted`] where hardware did not complete the
    /// invalidation: the log is off then, and the tables it covered stay out of use.
    pub fn stop<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        step: u64,
    ) -> Result<Progress, LogError> {
        match self.go_on_stopping(platform, space, step) {
            Err(LogError::Abandoned(_)) => Ok(Progress::Done),
            result => result,
        }
    }

    /// [`DirtyLog::stop`]; [`LogError::Abandoned`] at the end where a start that has failed is undone.
    pub(super) fn go_on_stopping<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        step: u64,
    ) -> Result<Progress, LogError> {
        match &self.phase {
            Phase::Off => return Err(LogError::NotOn),
            // A caller that has lost its step goes on with 0: there is one way to end a stop, to go through with it.
            Phase::Stopping(stopping) if step != stopping.steps && step != 0 => {
                return Err(LogError::OutOfStep(stopping.steps));
            }
            Phase::Stopping(_) => {}
            Phase::Starting(_) | Phase::On(_) if step != 0 => return Err(LogError::OutOfStep(0)),
            Phase::Starting(_) | Phase::On(_) => {
                self.begin_stop(platform, space, None);
            }
        }
        let Phase::Stopping(stopping) = &mut self.phase else {
            // Nothing had been taken yet.
            return Ok(Progress::Done);
        };
        match stopping.step(platform, space, &mut self.statistics) {
            Err(ViewError::HoldTimeout) => Err(LogError::NotHeld),
            Ok(false) => {
                stopping.steps += 1;
                Ok(Progress::More(stopping.steps))
            }
            Ok(true) => {
                let abandoned = stopping.abandoned;
                self.end_stop(platform, space);
                abandoned.map_or(Ok(Progress::Done), |error| Err(LogError::Abandoned(error)))
            }
            Err(_) => {
                self.end_stop(platform, space);
                Err(LogError::Untrusted)
            }
        }
    }

    /// Turns to stopping; to off where a start has taken nothing yet.
    pub(super) fn begin_stop<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        abandoned: Option<ViewError>,
    ) {
        self.take_phase(|phase| {
            let (on, steps) = match phase {
                Phase::On(on) => (on, 0),
                Phase::Starting(Starting { stage: Stage::Splitting(splitting), steps, .. }) => {
                    (splitting.end(platform), steps)
                }
                Phase::Starting(_) => {
                    space.end_change();
                    return Phase::Off;
                }
                other => return other,
            };
            space.begin_change(on.range);
            let merge = Merge::new(on.range);
            let mut dma = on.dma_retired.each_ref().map(|r| r.as_ref().map(|_| Merge::new(on.range)));
            for (merge, view) in dma.iter_mut().zip(&space.dma) {
                if view.as_ref().is_some_and(|view| !view.changes_size()) {
                    *merge = merge.take().map(Merge::leaves_only);
                }
            }
            // A start that is undone goes on with the step its caller has.
            let steps = if abandoned.is_some() { steps.saturating_sub(1) } else { 0 };
            Phase::Stopping(Stopping { on, cpu: Some(merge), dma, invalidated: false, abandoned, steps })
        });
    }

    fn end_stop<P: Platform, D: DmaTlb>(&mut self, platform: &P, space: &mut AddressSpace<'_, D>) {
        space.end_log(platform);
        self.take_phase(|phase| match phase {
            Phase::Stopping(stopping) => {
                space.quarantined += stopping.on.free(platform);
                Phase::Off
            }
            other => other,
        });
    }
}

impl Stopping {
    /// Does one bounded part of the stop; `true` when all views are merged and invalidated, and everything is freed.
    fn step<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        statistics: &mut Statistics,
    ) -> Result<bool, ViewError> {
        let whole = space.one_region();
        let on = &mut self.on;
        if self.cpu.is_some() {
            let retired = &mut on.cpu_retired;
            let blocks = merge_step(platform, &mut self.cpu, &mut space.cpu, retired, whole)?;
            statistics.blocks_merged += blocks;
            statistics.holds += u64::from(blocks > 0 && !space.cpu.walker.direct);
            return Ok(false);
        }
        let views = space.dma.iter_mut().zip(on.dma_retired.iter_mut());
        for (merge, (view, retired)) in self.dma.iter_mut().zip(views) {
            if let (Some(_), Some(view), Some(retired)) = (&merge, view, retired) {
                match merge_step(platform, merge, &mut view.view, retired, whole) {
                    Ok(blocks) => statistics.blocks_merged += blocks,
                    // Hardware does not answer: no size is changed any more, but what is clean must not stay so.
                    Err(ViewError::Dma(_)) => *merge = merge.take().map(Merge::leaves_only),
                    Err(error) => return Err(error),
                }
                return Ok(false);
            }
        }
        if !self.invalidated {
            // First of all, and of all views: what is clean must not stay in use.
            second_tree::switch_all(space, false)?;
            let merged = space.dma.iter().zip(&on.dma_retired).filter(|(_, retired)| retired.is_some());
            for view in merged.filter_map(|(view, _)| view.as_ref()) {
                view.view.walker.invalidate(platform, &view.view.tree)?;
            }
            self.invalidated = true;
        }
        if !second_tree::drop_step(platform, space)? {
            return Ok(false);
        }
        let mut views = space.dma.iter_mut().zip(on.dma_retired.iter_mut());
        let freed = views.all(|(view, retired)| match (view, retired) {
            (Some(view), Some(retired)) => view.view.free_some_retired(platform, retired),
            _ => true,
        });
        Ok(freed)
    }
}

/// Does one step of a merge of `view`, and takes it out of its place when its range is done; says how many blocks the
/// step has made.
fn merge_step<P: Platform, W: Walker<P>>(
    platform: &P,
    place: &mut Option<Merge>,
    view: &mut View<W>,
    retired: &mut Retired,
    whole: impl Fn(IpaRange) -> bool,
) -> Result<u64, ViewError> {
    let Some(merge) = place else { return Ok(0) };
    let before = merge.blocks();
    let done = merge.step(platform, view, retired, whole)?;
    let blocks = merge.blocks() - before;
    if done {
        *place = None;
    }
    Ok(blocks)
}
