//! A log is started, and stopped.

use strandline::dirty_log::{LogError, Progress};
use strandline_abi::LogState;

use super::memory::region;
use super::snapshot::Snapshot;
use super::{Guest, Outcome};

impl Guest<'_> {
    pub(super) fn start(&mut self) -> Outcome {
        let range = self.dice.part(self.all());
        self.exhaust();
        let before = self.snapshot();
        let hole = (0..4).any(|i| !self.mapped[i] && region(i).range.overlaps(range));
        if self.dice.chance(32) {
            self.machine().fail_next_hold();
        }
        self.machine().log_start_begins();
        let mut step = 0;
        loop {
            let progress = self.log.start(self.host, &mut self.host.space_mut(), range, step);
            match progress {
                Ok(Progress::Done) => break,
                Ok(Progress::More(next)) => step = next,
                Err(LogError::Abandoned(_)) => return self.abandoned(&before),
                Err(LogError::OutOfFrames(lack)) if lack.needed > lack.free && !self.hoard.is_empty() => {
                    self.met.refused_starts += 1;
                    return self.check_unchanged("start", &before);
                }
                Err(LogError::OutsideRam(_)) if hole => {
                    self.met.refused_starts += 1;
                    return self.check_unchanged("start", &before);
                }
                Err(error) => return Err(format!("start of {range} failed: {error}")),
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
            if self.dice.chance(64) {
                self.be_refused()?;
            }
            if self.dice.chance(96) {
                self.stop()?;
                return self.abandoned(&before);
            }
        }
        self.machine().log_started();
        self.met.starts += 1;
        Ok(())
    }

    /// A start that was given up has taken nothing.
    pub(super) fn abandoned(&mut self, before: &Snapshot) -> Outcome {
        self.met.abandoned_starts += 1;
        let after = self.snapshot();
        // It may have merged what was in pieces.
        let tables = |s: &Snapshot| s.tables.iter().sum::<u64>();
        if after.state != LogState::Off
            || after.free_frames < before.free_frames
            || tables(&after) > tables(before)
        {
            let (now, then) = (after.free_frames, before.free_frames);
            return Err(format!("half done: a start was given up, and took frames: {then} free, then {now}"));
        }
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Outcome {
        self.machine().log_stopped();
        let mut step = 0;
        loop {
            let progress = self.log.stop(self.host, &mut self.host.space_mut(), step);
            match progress.map_err(|e| format!("stop failed: {e}"))? {
                Progress::Done => return Ok(()),
                Progress::More(next) => step = next,
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
        }
    }
}
