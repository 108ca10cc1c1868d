//! What EL2 knows of a log's pages and has not delivered yet.

use strandline_abi::LogSource;

use super::Bitmap;
use crate::addr::{Ipa, IpaRange, PAGE_SHIFT};
use crate::frames::Frames;
use crate::hw::Memory;

/// A log's range, and a bitmap for each source of writes. It belongs to the address space, so that whoever shares that
/// (a vCPU's write fault, EL2 after a store of its own) can record a write without waiting for the log.
#[derive(Debug)]
pub(crate) struct Ledger {
    range: IpaRange,
    cpu: Bitmap,
    dma: Bitmap,
    /// Writes may have gone past it.
    incomplete: bool,
}

impl Ledger {
    /// How many frames the bitmaps of a log of `pages` pages take.
    pub const fn frames(pages: u64) -> usize {
        2 << Bitmap::order(pages)
    }

    /// Memory for one for `range`, of use when [`Ledger::empty_frame`] has been through it; `None` where there is none.
    pub fn new(platform: &impl Frames, range: IpaRange) -> Option<Self> {
        let cpu = Bitmap::new(platform, range.pages())?;
        let Some(dma) = Bitmap::new(platform, range.pages()) else {
            cpu.free(platform);
            return None;
        };
        Some(Self { range, cpu, dma, incomplete: false })
    }

    /// Empties frame `frame` of both bitmaps; `false` where they have none such.
    pub fn empty_frame(&self, memory: &impl Memory, frame: u64) -> bool {
        self.cpu.empty(memory, frame) && self.dma.empty(memory, frame)
    }

    /// Gives its memory back.
    pub fn free(self, platform: &impl Frames) {
        self.cpu.free(platform);
        self.dma.free(platform);
    }

    /// Notes that writes may go past it from now on: an invalidation did not complete.
    pub const fn distrust(&mut self) {
        self.incomplete = true;
    }

    /// Whether writes may have gone past it.
    pub const fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The logged range.
    pub const fn range(&self) -> IpaRange {
        self.range
    }

    /// The bitmap of `source`.
    pub const fn of(&self, source: LogSource) -> &Bitmap {
        match source {
            LogSource::Cpu => &self.cpu,
            LogSource::Dma => &self.dma,
        }
    }

    /// The index in the bitmaps of the first page of `part`, a part of the logged range.
    pub const fn page(&self, part: IpaRange) -> u64 {
        (part.start().0 - self.range.start().0) >> PAGE_SHIFT
    }

    /// Records that the pages of `written` that are logged were written by `source`.
    pub fn record(&self, memory: &impl Memory, source: LogSource, written: IpaRange) {
        if let Some(part) = self.range.intersection(written) {
            self.of(source).set(memory, self.page(part), part.pages());
        }
    }

    /// [`Ledger::record`] of `pages` pages from `at`, as a harvest reports them.
    pub fn record_pages(&self, memory: &impl Memory, source: LogSource, at: Ipa, pages: u64) {
        if let Ok(written) = IpaRange::new(at, pages << PAGE_SHIFT) {
            self.record(memory, source, written);
        }
    }
}
