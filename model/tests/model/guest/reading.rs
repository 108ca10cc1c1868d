//! A log is read: syncs and clears.

use strandline::addr::{Ipa, IpaRange};
use strandline_abi::{DmaTier, Flags};
use strandline_model::{Report, Source};

use super::{Guest, Outcome, PAGE};

impl Guest<'_> {
    pub(super) fn sources(&mut self) -> (Vec<Source>, Flags) {
        match self.dice.below(3) {
            0 => (vec![Source::Cpu], Flags::CPU),
            1 => (vec![Source::Dma], Flags::DMA),
            _ => (vec![Source::Cpu, Source::Dma], Flags::CPU.with(Flags::DMA)),
        }
    }

    pub(super) fn exact(&self, sources: &[Source]) -> bool {
        self.tier == DmaTier::Hardware || sources == [Source::Cpu]
    }

    pub(super) fn sync(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let range = self.dice.part(logged);
        let (sources, flags) = self.sources();
        let clear = self.dice.chance(700);
        let flags = if clear { flags.with(Flags::CLEAR) } else { flags };
        let began = self.machine().step();
        let part = self.log.step_of(range, 0).map_err(|e| e.to_string())?;
        let mut pages = vec![];
        self.log
            .sync(self.host, &self.host.space(), part, flags, |word, bits| {
                collect_pages(&mut pages, part, word, bits);
            })
            .map_err(|e| e.to_string())?;
        self.met.syncs += 1;
        self.met.reported += pages.len() as u64;
        let report = Report { clear, exact: self.exact(&sources) };
        self.machine().synced(began, part, &sources, report, &pages)
    }

    pub(super) fn clear(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let range = self.dice.part(logged);
        let (sources, flags) = self.sources();
        let part = self.log.step_of(range, 0).map_err(|e| e.to_string())?;
        let masks: Vec<u64> =
            (0..part.pages().div_ceil(64)).map(|_| self.dice.next() & self.dice.next()).collect();
        let mut wanted = vec![];
        for (word, mask) in masks.iter().enumerate() {
            collect_pages(&mut wanted, part, word as u64, *mask);
        }
        wanted.retain(|page| part.contains(Ipa(*page)));
        let began = self.machine().step();
        let mut pages = vec![];
        self.log
            .clear(
                self.host,
                &self.host.space(),
                part,
                flags,
                |word| masks[word as usize],
                |word, bits| collect_pages(&mut pages, part, word, bits),
            )
            .map_err(|e| e.to_string())?;
        self.met.clears += 1;
        let report = Report { clear: true, exact: self.exact(&sources) };
        self.machine().cleared(began, &wanted, &sources, report, &pages)
    }
}

fn collect_pages(pages: &mut Vec<u64>, part: IpaRange, word: u64, bits: u64) {
    let dirty = (0..64).filter(|bit| bits >> bit & 1 == 1);
    pages.extend(dirty.map(|bit| part.start().0 + (word * 64 + bit) * PAGE));
}
