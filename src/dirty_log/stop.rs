//! Stopping a log: every leaf writable-dirty, tables merged back to the largest blocks, one invalidation.

use super::{DirtyLog, LogError, On, Phase, Progress, Stopping};
use crate::addr::IpaRange;
use crate::address_space::AddressSpace;
use crate::hw::{DmaTlb, Platform};
use crate::stage2::{Merge, Retired, View, ViewError, Walker};

impl DirtyLog {
    /// Stops the log, or undoes a start that has been begun and not ended. What was not yet reported is dropped.
    ///
    /// `step` is 0 in the first call and then what [`Progress::More`] said, or 0 again. The last call ends with exactly one
    /// invalidation of each DMA view, and then frees the tables that were merged.
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
        match &self.phase {
            Phase::Off => return Err(LogError::NotOn),
            // A caller that has lost its step goes on with 0: there is one way to end a stop, to go through with it.
            Phase::Stopping(stopping) if step != stopping.steps && step != 0 => {
                return Err(LogError::OutOfStep(stopping.steps));
            }
            Phase::Stopping(_) => {}
            Phase::Starting(_) | Phase::On(_) if step != 0 => return Err(LogError::OutOfStep(0)),
            Phase::Starting(_) | Phase::On(_) => {
                space.log_is_changing();
                self.begin_stop(platform);
            }
        }
        let result = self.merge(platform, space);
        if result == Err(ViewError::HoldTimeout) {
            return Err(LogError::NotHeld);
        }
        if let Phase::Stopping(stopping) = &mut self.phase {
            stopping.steps += 1;
        }
        if result != Ok(false) {
            self.end_stop(platform, space);
        }
        match (result, &self.phase) {
            (Err(_), _) => Err(LogError::Untrusted),
            (Ok(_), Phase::Stopping(stopping)) => Ok(Progress::More(stopping.steps)),
            (Ok(_), _) => Ok(Progress::Done),
        }
    }

    fn begin_stop<P: Platform>(&mut self, platform: &P) {
        self.take_phase(|phase| {
            let on = match phase {
                Phase::On(on) => on,
                Phase::Starting(starting) => {
                    for split in starting.dma.into_iter().flatten().chain(starting.cpu) {
                        split.end(platform);
                    }
                    starting.on
                }
                other => return other,
            };
            let merge = Merge::new(on.range);
            let dma = on.dma_retired.each_ref().map(|r| r.as_ref().map(|_| Merge::new(on.range)));
            Phase::Stopping(Stopping { on, cpu: Some(merge), dma, steps: 0 })
        });
    }

    /// Does one bounded part of the stop under way; `true` when all views are merged and invalidated.
    fn merge<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
    ) -> Result<bool, ViewError> {
        let Phase::Stopping(Stopping { on, cpu, dma, .. }) = &mut self.phase else { return Ok(true) };
        let whole = space.one_region();
        if cpu.is_some() {
            self.statistics.blocks_merged +=
                merge_step(platform, cpu, &mut space.cpu, &mut on.cpu_retired, whole)?;
            return Ok(false);
        }
        let views = space.dma.iter_mut().zip(on.dma_retired.iter_mut());
        for (merge, (view, retired)) in dma.iter_mut().zip(views) {
            if let (Some(_), Some(view), Some(retired)) = (&merge, view, retired) {
                self.statistics.blocks_merged += merge_step(platform, merge, &mut view.view, retired, whole)?;
                return Ok(false);
            }
        }
        invalidate_and_free(platform, space, on)?;
        Ok(true)
    }

    fn end_stop<P: Platform, D: DmaTlb>(&mut self, platform: &P, space: &mut AddressSpace<'_, D>) {
        space.end_log(platform);
        self.take_phase(|phase| match phase {
            Phase::Stopping(stopping) => {
                stopping.on.free(platform);
                Phase::Off
            }
            other => other,
        });
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

fn invalidate_and_free<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'_, D>,
    on: &mut On,
) -> Result<(), ViewError> {
    for (view, retired) in space.dma.iter_mut().zip(on.dma_retired.iter_mut()) {
        if let (Some(view), Some(retired)) = (view, retired) {
            view.view.walker.invalidate(platform, &view.view.tree)?;
            view.view.free_retired(platform, retired);
        }
    }
    Ok(())
}
