//! A log is read: syncs and clears, deliveries that fail, and a log that is not to be relied on.

use std::cell::Cell;

use strandline::addr::{Ipa, IpaRange};
use strandline::dirty_log::LogError;
use strandline_abi::{Flags, LogState};
use strandline_model::{Report, Source};

use super::delivery::{Delivery, collect_pages};
use super::{Guest, Outcome};

impl Guest<'_> {
    /// Reads the log that is on; one that is adaptive a few times at once, so that something stays clean for some passes.
    pub(super) fn read_some(&mut self) -> Outcome {
        if self.log.is_adaptive() {
            // Somewhere in a pass, which takes longer than other steps.
            self.fall_silent(2500);
        }
        let times = if self.log.is_adaptive() { 1 + self.dice.below(8) } else { 1 };
        (0..times).try_for_each(|_| if self.log.state() == LogState::Off { Ok(()) } else { self.read() })
    }

    /// What is read next of a log of `logged`.
    fn part(&mut self, logged: IpaRange) -> IpaRange {
        if self.log.is_adaptive() && self.dice.chance(512) { logged } else { self.dice.part(logged) }
    }

    /// Whether sizes change on the way.
    fn adapts_now(&mut self) -> bool {
        self.log.is_adaptive() && self.dice.chance(900)
    }

    /// Reads the log that is on.
    pub(super) fn read(&mut self) -> Outcome {
        if self.log.state() == LogState::Untrusted {
            self.ask_untrusted()
        } else if self.dice.chance(256) {
            self.clear()
        } else {
            self.sync()
        }
    }

    fn sources(&mut self) -> (Vec<Source>, Flags) {
        match self.dice.below(3) {
            0 => (vec![Source::Cpu], Flags::CPU),
            1 => (vec![Source::Dma], Flags::DMA),
            _ => (vec![Source::Cpu, Source::Dma], Flags::CPU.with(Flags::DMA)),
        }
    }

    pub(super) fn sync(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let asked = self.part(logged);
        let part = self.log.step_of(asked, 0).map_err(|e| e.to_string())?;
        let (sources, flags) = self.sources();
        let clear = self.dice.chance(700);
        let flags = if clear { flags.with(Flags::CLEAR) } else { flags };
        let mut delivery = self.delivery(part);
        self.assume_written();
        let (began, answered, adapts) = (self.machine().step(), self.answers(), self.adapts_now());
        let result = self.host.delivering(|failing| {
            let deliver = |word, bits| delivery.take(word, bits, failing);
            if adapts {
                self.log.sync_adapting(self.host, &mut self.host.space_mut(), part, flags, deliver)
            } else {
                self.log.sync(self.host, &self.host.space(), part, flags, deliver)
            }
        });
        if !self.was_read(result.map(|_| ()), answered, &delivery)? {
            return Ok(());
        }
        self.met.syncs += 1;
        self.met.reported += delivery.pages.len() as u64;
        if let Some(told) = delivery.told() {
            let report = Report { clear, exact: true };
            self.machine().synced(began, told, &sources, report, &delivery.pages)?;
        }
        self.machine().undelivered(&sources, &delivery.withheld);
        Ok(())
    }

    fn clear(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let asked = self.part(logged);
        let part = self.log.step_of(asked, 0).map_err(|e| e.to_string())?;
        let (sources, flags) = self.sources();
        let masks: Vec<u64> =
            (0..part.pages().div_ceil(64)).map(|_| self.dice.next() & self.dice.next()).collect();
        let mut delivery = self.delivery(part);
        self.assume_written();
        let (began, answered, adapts) = (self.machine().step(), self.answers(), self.adapts_now());
        let result = self.host.delivering(|failing| {
            let (host, wanted) = (self.host, |word| masks[word as usize]);
            let deliver = |word, bits| delivery.take(word, bits, failing);
            if adapts {
                self.log.clear_adapting(host, &mut host.space_mut(), part, flags, wanted, deliver)
            } else {
                self.log.clear(host, &host.space(), part, flags, wanted, deliver)
            }
        });
        if !self.was_read(result.map(|_| ()), answered, &delivery)? {
            return Ok(());
        }
        self.met.clears += 1;
        let mut wanted = vec![];
        for (word, mask) in masks.iter().enumerate() {
            collect_pages(&mut wanted, part, word as u64, *mask);
        }
        wanted.retain(|page| delivery.told().is_some_and(|told| told.contains(Ipa(*page))));
        let report = Report { clear: true, exact: true };
        self.machine().cleared(began, &wanted, &sources, report, &delivery.pages)?;
        self.machine().undelivered(&sources, &delivery.withheld);
        Ok(())
    }

    /// What devices of tier 'assume' may have written unseen is due: each page they reach.
    fn assume_written(&self) {
        if self.assumes() {
            self.enter_dirty(Source::Dma, self.all());
        }
    }

    /// Whether a sync or clear came to its end, or to where the consumer failed, as it had to; `false` where hardware was
    /// silent and the log is trusted no more.
    fn was_read(
        &mut self,
        result: Result<(), LogError>,
        answered: bool,
        delivery: &Delivery,
    ) -> Result<bool, String> {
        match (result, delivery.failed) {
            (Err(LogError::Untrusted), None) if self.suspect || self.excused(answered) => {
                self.machine().log_stopped();
                if self.log.state() != LogState::Untrusted || !delivery.pages.is_empty() {
                    return Err("trusted: a log whose sync did not complete".to_owned());
                }
                self.met.untrusted_syncs += 1;
                let before = self.quarantined;
                self.quarantine_unlisted();
                self.met.dead_adaptive_syncs += u64::from(self.quarantined > before);
                Ok(false)
            }
            (Ok(()), _) if self.suspect => {
                Err("trusted: a log of which an invalidation did not complete".to_owned())
            }
            (Ok(()), None) => Ok(true),
            (Err(LogError::NotDelivered(word)), Some(failed)) if word == failed => {
                self.met.failed_deliveries += 1;
                Ok(true)
            }
            (result, failed) => Err(format!("a reading failed: {result:?}, its consumer at {failed:?}")),
        }
    }

    /// A log that hardware has left in the lurch says so, whatever it is asked, and tells nothing.
    fn ask_untrusted(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let (part, (_, flags)) = (self.dice.part(logged), self.sources());
        let (before, told, host) = (self.snapshot(), Cell::new(false), self.host);
        let tell = |_: u64, _: u64| told.set(true);
        let answers = [
            self.log.step_of(part, 0).err(),
            self.log.sync(host, &host.space(), part, flags, tell).err(),
            self.log.clear(host, &host.space(), part, flags, |_| u64::MAX, tell).err(),
        ];
        if told.get() || answers != [Some(LogError::Untrusted); 3] {
            return Err(format!("trusted: a log that hardware left in the lurch: {answers:?}"));
        }
        self.met.untrusted_syncs += 1;
        self.check_unchanged("reading a log that is not trusted", &before)
    }
}
