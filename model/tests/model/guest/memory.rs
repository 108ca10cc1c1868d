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
    pub(super) fn remap(&mut self) -> Outcome {
        let hole = (0..4).find(|i| !self.mapped[*i]);
        if let Some(hole) = hole
            && self.dice.chance(640)
        {
            return self.map(hole);
        }
        let i = self.dice.below(4) as usize;
        let Region { range, pa, .. } = region(i);
        if !self.mapped[i] {
            return Ok(());
        }
        if self.mapped.iter().filter(|m| **m).count() < 2 {
            return Ok(());
        }
        self.exhaust();
        self.machine().set_unmapped(range, true);
        let unmapped = self.host.unmapping(|| self.host.space_mut().unmap(self.host, range));
        unmapped.map_err(|e| format!("unmap failed: {e}"))?;
        self.machine().reuse_memory(pa, range.bytes());
        self.mapped[i] = false;
        self.met.unmaps_under_log += u64::from(self.is_on());
        Ok(())
    }

    pub(super) fn map(&mut self, i: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let mapped = self.host.space_mut().map(self.host, region(i));
        match mapped {
            Ok(()) => {}
            Err(SpaceError::Map(MapError::OutOfFrames(_))) if !self.hoard.is_empty() => {
                self.met.other_refusals += 1;
                return self.check_unchanged("map", &before);
            }
            Err(error) => return Err(format!("map failed: {error}")),
        }
        self.machine().set_unmapped(region(i).range, false);
        for source in [Source::Cpu, Source::Dma] {
            self.machine().enters_dirty(source, region(i).range);
        }
        self.mapped[i] = true;
        self.met.maps_under_log += u64::from(self.is_on());
        Ok(())
    }

    pub(super) fn el2_writes(&mut self) {
        let page = self.dice.part(self.all()).start();
        if (0..4).any(|i| self.mapped[i] && region(i).range.contains(page)) {
            self.machine().el2_wrote(page);
            let written = IpaRange::new(page, PAGE).expect("a page");
            self.host.space().mark_written(self.host, written);
            self.met.el2_writes += 1;
        }
    }
}
