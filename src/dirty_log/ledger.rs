//! What EL2 knows of a log's pages and has not delivered yet.

use core::sync::atomic::{AtomicBool, Ordering};

use strandline_abi::LogSource;

use super::Bitmap;
use super::DigestKey;
use super::digest::Digests;
use crate::addr::{Ipa, IpaRange, PAGE_SHIFT};
use crate::frames::Frames;
use crate::hw::{Cpu, Memory};

/// A log's range, and a bitmap for each source of writes. It belongs to the address space, so that whoever shares that
/// (a vCPU's write fault, EL2 after a store of its own) can record a write without waiting for the log.
#[derive(Debug)]
pub(crate) struct Ledger {
    range: IpaRange,
    cpu: Bitmap,
    dma: Bitmap,
    /// What the pages held, where devices' writes come to be known by that.
    pub digests: Option<Digests>,
    /// Writes may have gone past it. It orders nothing: who sets it has the address space, and so has who reads it.
    incomplete: AtomicBool,
}

impl Ledger {
    /// How many frames a log of `pages` pages takes, with digests or without.
    pub const fn frames(pages: u64, digests: bool) -> usize {
        (2 << Bitmap::order(pages)) + if digests { Digests::frames(pages) } else { 0 }
    }

    /// Memory for one for `range`, of use when [`Ledger::empty_frame`] has been through it; `None` where there is none.
    pub fn new(platform: &impl Frames, range: IpaRange) -> Option<Self> {
        let cpu = Bitmap::new(platform, range.pages())?;
        let Some(dma) = Bitmap::new(platform, range.pages()) else {
            cpu.free(platform);
            return None;
        };
        Some(Self { range, cpu, dma, digests: None, incomplete: AtomicBool::new(false) })
    }

    /// Adds digests, none of which is known; `false`, and nothing is done, where there is no memory for their index.
    pub fn add_digests(&mut self, platform: &impl Frames, key: DigestKey) -> bool {
        self.digests = Digests::new(platform, self.range.pages(), key);
        self.digests.is_some()
    }

    /// Empties frame `frame` of both bitmaps; `false` where they have none such.
    pub fn empty_frame(&self, memory: &impl Memory, frame: u64) -> bool {
        self.cpu.empty(memory, frame) && self.dma.empty(memory, frame)
    }

    /// Gives its memory back.
    pub fn free(self, platform: &(impl Memory + Frames)) {
        self.cpu.free(platform);
        self.dma.free(platform);
        if let Some(digests) = self.digests {
            digests.free(platform);
        }
    }

    /// Notes that writes may go past it from now on: an invalidation did not complete, or a write that should have
    /// stalled did not.
    pub fn distrust(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Whether writes may have gone past it.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
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
        self.page_of(part.start())
    }

    /// The number in the log of the page at `at`, an address of the logged range.
    pub const fn page_of(&self, at: Ipa) -> u64 {
        (at.0 - self.range.start().0) >> PAGE_SHIFT
    }

    /// Records that the pages of `written` that are logged were written by `source`.
    pub fn record(&self, memory: &(impl Memory + Cpu), source: LogSource, written: IpaRange) {
        if let Some(part) = self.range.intersection(written) {
            self.of(source).set(memory, self.page(part), part.pages());
        }
    }

    /// The pages of `mapped` are new in the log: what they hold counts as written.
    pub fn forget_digests(&self, memory: &impl Memory, mapped: IpaRange) {
        if let (Some(digests), Some(part)) = (&self.digests, self.range.intersection(mapped)) {
            let first = self.page(part);
            (first..first + part.pages()).for_each(|page| digests.forget(memory, page));
        }
    }

    /// [`Ledger::record`] of `pages` pages from `at`, as a harvest reports them.
    pub fn record_pages(&self, memory: &(impl Memory + Cpu), source: LogSource, at: Ipa, pages: u64) {
        if let Ok(written) = IpaRange::new(at, pages << PAGE_SHIFT) {
            self.record(memory, source, written);
        }
    }
}
