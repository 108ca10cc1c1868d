//! Memory comes and goes, and EL2 writes into it.

use strandline::addr::{Ipa, IpaRange, Pa};
use strandline::address_space::{Reach, Region, SpaceError};
use strandline::stage2::MapError;
use strandline_model::Source;

use super::{Guest, Outcome, PAGE, PAGES};
use crate::vm::RAM;

/// Where the regions of RAM begin, in pages: 4 MiB, 1 MiB, 64 KiB, and the rest.
pub(super) const REGIONS: [u64; 4] = [0, 1024, 1280, 1296];

pub(super) fn pages_of(first: u64, pages: u64) -> IpaRange {
    IpaRange::new(Ipa(first * PAGE), pages * PAGE).expect("a range")
}

pub(super) fn region(i: usize) -> Region {
    let end = REGIONS.get(i + 1).copied().unwrap_or(PAGES);
    let range = pages_of(RAM.0 / PAGE + REGIONS[i], end - REGIONS[i]);
    Region { range, pa: Pa(0x8000_0000 + REGIONS[i] * PAGE), reach: Reach::Ram }
}

impl Guest<'_> {
    /// The pages of `range` that are mapped and logged enter the log of `source` dirty.
    pub(super) fn enter_dirty(&self, source: Source, range: IpaRange) {
        let Some(logged) = self.log.range().and_then(|l| l.intersection(range)) else { return };
        let mapped = (0..4).filter(|i| self.mapped[*i]);
        for part in mapped.filter_map(|i| region(i).range.intersection(logged)) {
            self.machine().enters_dirty(source, part);
        }
    }

    pub(super) fn remap(&mut self) -> Outcome {
        let hole = (0..4).find(|i| !self.mapped[*i] && !self.lost[*i]);
        if let Some(hole) = hole
            && self.dice.chance(640)
        {
            return self.map(hole);
        }
        let i = self.dice.below(4) as usize;
        if !self.mapped[i] || self.mapped.iter().filter(|m| **m).count() < 2 {
            return Ok(());
        }
        self.unmap(i)
    }

    fn unmap(&mut self, i: usize) -> Outcome {
        let Region { range, pa, .. } = region(i);
        self.exhaust();
        self.machine().set_unmapped(range, true);
        let answered = self.answers();
        match self.host.unmapping(|| self.host.space_mut().unmap(self.host, range)) {
            Ok(()) => self.machine().reuse_memory(pa, range.bytes()),
            Err(SpaceError::View(_)) if self.excused(answered) => {
                // Devices may still reach the memory: nobody else gets it.
                self.lost[i] = true;
                self.suspect |= self.is_on() && self.log.range().is_some_and(|l| l.overlaps(range));
                self.met.dead_unmaps += 1;
                self.quarantine();
            }
            Err(error) => return Err(format!("unmap failed: {error}")),
        }
        if self.assumes() {
            self.enter_dirty(Source::Dma, range);
        }
        self.mapped[i] = false;
        self.met.unmaps_under_log += u64::from(self.is_on());
        Ok(())
    }

    fn map(&mut self, i: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let mapped = self.host.mapping(|| self.host.space_mut().map(self.host, region(i)));
        match mapped {
            Ok(()) => {}
            Err(SpaceError::Map(MapError::OutOfFrames(_))) if !self.hoard.is_empty() => {
                self.met.other_refusals += 1;
                return self.check_unchanged("map", &before);
            }
            Err(error) => return Err(format!("map failed: {error}")),
        }
        self.machine().set_unmapped(region(i).range, false);
        self.mapped[i] = true;
        self.enter_dirty(Source::Cpu, region(i).range);
        if self.views.iter().any(Option::is_some) {
            self.enter_dirty(Source::Dma, region(i).range);
        }
        self.met.maps_under_log += u64::from(self.is_on());
        Ok(())
    }

    /// EL2 writes into the guest's memory, and tells the log; now and then the log is read in between.
    pub(super) fn el2_writes(&mut self) -> Outcome {
        let Some(page) = self.el2_stores() else { return Ok(()) };
        if self.is_on() && self.dice.chance(256) {
            self.sync()?;
        }
        self.el2_tells(page);
        Ok(())
    }

    /// EL2 stores into a page of the guest's; the page.
    pub(super) fn el2_stores(&mut self) -> Option<Ipa> {
        let page = self.dice.part(self.all()).start();
        let mapped = (0..4).any(|i| self.mapped[i] && region(i).range.contains(page));
        mapped.then(|| self.machine().el2_stores(page))?;
        Some(page)
    }

    /// EL2 tells the log that it has stored into `page`: with that its write has completed.
    pub(super) fn el2_tells(&mut self, page: Ipa) {
        let written = IpaRange::new(page, PAGE).expect("a page");
        self.host.space().mark_written(self.host, written);
        self.machine().el2_wrote(page);
        self.met.el2_writes += 1;
    }
}
