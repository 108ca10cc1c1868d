//! A log is started, and stopped.

use strandline::addr::{IpaRange, PageSize};
use strandline::address_space::DmaView;
use strandline::dirty_log::{Granule, LogError, Policy, Progress, Request};
use strandline::hw::{DmaTlb, SizeChange};
use strandline::stage2::ViewError;
use strandline_abi::{CpuTier, DmaTier, LogState};

use super::memory::region;
use super::snapshot::{Snapshot, blocks_with_nt};
use super::{Guest, Outcome};
use crate::gate::Gate;

/// How often a vCPU may be late for a stop.
const HOLDS: u32 = 2;

impl Guest<'_> {
    pub(super) fn start(&mut self) -> Outcome {
        let part = self.dice.part(self.all());
        let granule = self.granule();
        // In a small range there is no region to be split or merged.
        let adaptive = matches!(granule, Granule::Adaptive(_));
        let range = if adaptive && self.dice.chance(600) { self.all() } else { part };
        let request = Request { granule, ..Request::from(range) };
        self.exhaust();
        let (before, quarantined) = (self.snapshot(), self.quarantined);
        if self.dice.chance(32) {
            self.machine().fail_next_hold();
        }
        // The first command that a start issues, between two passes over a view or after the last one; not that of a start
        // which is being undone.
        let refusing = self.dice.chance(self.mix.refusal) && !self.machine().next_hold_fails();
        if refusing {
            self.machine().smmu().fail_next_command(1);
        }
        match granule {
            Granule::Fixed(size) => self.machine().log_start_begins_of(size),
            Granule::Adaptive(_) => self.machine().log_start_begins_adaptive(self.cpu == CpuTier::Faults),
        }
        // Where the SMMU was silent once, the start ends so, though it may take calls to undo it.
        let (mut step, mut writing, mut late, mut excused) = (0, None, 0, false);
        loop {
            let answered = self.answers();
            let progress = self.log.start(self.host, &mut self.host.space_mut(), request, step);
            excused |= self.excused(answered);
            match progress {
                Ok(Progress::Done) => break,
                Ok(Progress::More(next)) => step = next,
                // Its undoing waits for a vCPU.
                Err(LogError::NotHeld) if late < HOLDS => late += 1,
                Err(LogError::Abandoned(ViewError::HoldTimeout)) => {
                    return self.abandoned(&before, quarantined);
                }
                Err(LogError::Abandoned(ViewError::Dma(_)) | LogError::Untrusted) if excused => {
                    self.met.dead_starts += 1;
                    self.quarantine();
                    return self.abandoned(&before, quarantined);
                }
                Err(LogError::Abandoned(ViewError::Dma(_))) if refusing => {
                    self.met.refused_commands += 1;
                    return self.abandoned(&before, quarantined);
                }
                Err(error) => return self.refused_start(range, error, &before),
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
            self.fate();
            if self.dice.chance(64) {
                self.be_refused()?;
            }
            writing = writing.or_else(|| if self.dice.chance(256) { self.el2_stores() } else { None });
            if self.dice.chance(512)
                && let Some(page) = writing.take()
            {
                self.el2_tells(page);
            }
            if self.dice.chance(96) {
                self.machine().smmu().fail_no_command();
                self.stop()?;
                return self.abandoned(&before, quarantined);
            }
        }
        self.machine().smmu().fail_no_command();
        self.machine().log_started();
        self.met.starts += 1;
        self.met.starts_by_blocks += u64::from(granule == Granule::Fixed(PageSize::Size2M));
        self.met.adaptive_starts += u64::from(self.log.is_adaptive());
        if let Some(page) = writing {
            self.el2_tells(page);
            self.met.el2_writes_across_starts += 1;
        }
        Ok(())
    }

    /// The granule of the next log.
    fn granule(&mut self) -> Granule {
        if self.mix.adaptive > 0 && self.dice.chance(self.mix.adaptive) {
            let cold_passes = if self.dice.chance(640) { 1 } else { self.dice.below(4) as u8 };
            let reserve = self.dice.below(4) as u16;
            let splits = if self.dice.chance(128) { self.dice.below(3) as u16 } else { 64 };
            return Granule::Adaptive(Policy { cold_passes, splits, reserve });
        }
        let size = if self.dice.chance(self.mix.blocks) { PageSize::Size2M } else { PageSize::Size4K };
        size.into()
    }

    /// Whether some view bears that its sizes change while a log is on.
    fn adapts(&self) -> bool {
        let space = self.host.space();
        let direct = |view: &DmaView<'_, Gate<'_>>| {
            view.tier == DmaTier::Hardware && view.view.walker.tlb.size_change() == SizeChange::Direct
        };
        space.cpu_view().walker.direct || space.dma_views().any(direct)
    }

    /// A start was refused: it was right to be, and has changed nothing.
    fn refused_start(&mut self, range: IpaRange, error: LogError, before: &Snapshot) -> Outcome {
        let hole = (0..4).any(|i| !self.mapped[i] && region(i).range.overlaps(range));
        let right = match error {
            LogError::OutOfFrames(lack) => lack.needed > lack.free && !self.hoard.is_empty(),
            LogError::OutsideRam(_) => hole,
            LogError::NotAdaptive => !self.adapts(),
            _ => false,
        };
        if !right {
            return Err(format!("start of {range} failed: {error}"));
        }
        self.machine().smmu().fail_no_command();
        self.met.refused_starts += 1;
        self.check_unchanged("start", before)
    }

    /// A start that was given up has taken nothing, but for what hardware that was silent made it leave behind.
    fn abandoned(&mut self, before: &Snapshot, quarantined: usize) -> Outcome {
        self.machine().smmu().fail_no_command();
        self.met.abandoned_starts += 1;
        self.check_nt()?;
        let after = self.snapshot();
        let left = self.quarantined - quarantined;
        // It may have merged what was in pieces.
        let tables = |s: &Snapshot| s.tables.iter().sum::<u64>();
        if after.state != LogState::Off
            || after.free_frames + left < before.free_frames
            || tables(&after) > tables(before) + left as u64
        {
            let (now, then) = (after.free_frames, before.free_frames);
            return Err(format!(
                "half done: a start was given up, and took frames: {then} free, then {now}, {left} quarantined"
            ));
        }
        Ok(())
    }

    /// No block has nT, unless hardware fell silent once while that was needed.
    fn check_nt(&self) -> Outcome {
        let space = self.host.space();
        let left: usize = space.dma_views().map(|v| blocks_with_nt(self.machine(), &v.view.tree)).sum();
        if left > 0 && self.met.deaths == 0 {
            return Err(format!("half done: {left} blocks have nT"));
        }
        Ok(())
    }

    /// Stops the log. Where hardware is silent it is off all the same, and what it unlinked is never used again.
    pub(super) fn stop(&mut self) -> Outcome {
        self.machine().log_stopped();
        self.suspect = false;
        let (mut step, mut late) = (0, 0);
        loop {
            let answered = self.answers();
            let progress = self.log.stop(self.host, &mut self.host.space_mut(), step);
            match progress {
                Ok(Progress::Done) => return self.check_nt(),
                Ok(Progress::More(next)) => step = next,
                Err(LogError::NotHeld) if late < HOLDS => (step, late) = (0, late + 1),
                Err(LogError::Untrusted) if self.excused(answered) && self.log.state() == LogState::Off => {
                    self.met.dead_stops += 1;
                    self.quarantine();
                    return Ok(());
                }
                Err(error) => return Err(format!("stop failed: {error}")),
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
            self.fate();
        }
    }
}
