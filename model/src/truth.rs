//! What was really written, and whether the log told it: 'nothing lost' and 'little invented'.

use std::collections::BTreeMap;

use strandline::addr::{Ipa, IpaRange, StreamId};

use crate::due::{Due, Dues};
use crate::update::Walker;

/// Who wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A vCPU.
    Cpu,
    /// A device.
    Dma,
}

/// A write that reached memory.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Who.
    pub source: Source,
    /// StreamID, or PE.
    pub master: u32,
    /// The guest page.
    pub ipa: u64,
    /// Where it went.
    pub pa: u64,
    /// When everybody could see its data.
    pub performed: u64,
    /// When it had completed as the log promises: of a device at once, of a vCPU with the next DSB there.
    pub completed: Option<u64>,
}

/// Why an access was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Translation is off.
    Disabled,
    /// The stream has no STE (C_BAD_STREAMID).
    BadStream,
    /// Its STE is invalid or ILLEGAL (C_BAD_STE).
    BadSte,
    /// Its STE says abort.
    SteAborts,
    /// F_TRANSL_FORBIDDEN: an address called translated.
    CalledTranslated,
    /// F_TRANSLATION.
    Translation,
    /// F_PERMISSION.
    Permission,
    /// F_WALK_EABT.
    External,
}

/// What a sync was to do.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What it reported leaves the log.
    pub clear: bool,
    /// It may report only what was written: not so where devices' writes are assumed.
    pub exact: bool,
}

/// A DMA that was aborted.
#[derive(Clone, Copy, Debug)]
pub struct Abort {
    /// The stream.
    pub stream: StreamId,
    /// The guest address.
    pub ipa: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Why.
    pub reason: Reason,
    /// When.
    pub step: u64,
}

/// The truth about a log.
#[derive(Default)]
pub(crate) struct Truth {
    /// Aborted DMA.
    pub aborts: Vec<Abort>,
    logging: bool,
    /// Writes that no sync has reported since they were performed.
    unreported: Vec<Write>,
    /// When a write to the page was last translated, or hardware last set its dirty bit.
    touched: BTreeMap<(Source, u64), u64>,
    /// When the last clearing sync began that reported the page.
    cleaned: BTreeMap<(Source, u64), u64>,
    /// When the log was started.
    began: u64,
    /// Its granule in bytes, where that is more than a page: a page may be reported where something near it was written.
    granule: u64,
    /// Its leaves change sizes: a page may be reported where its block was dirtied, while it was in one.
    adaptive: bool,
    /// Guest memory that is being unmapped, or is: accesses may fault.
    unmapped: Vec<IpaRange>,
    dues: Dues,
}

impl Truth {
    pub fn touch(&mut self, walker: Walker, ipa: u64, step: u64) {
        let source = if walker.is_smmu() { Source::Dma } else { Source::Cpu };
        self.touched.insert((source, ipa & !0xfff), step);
    }

    /// Hardware has set the dirty bit of a leaf of `bytes` for a write to `ipa`.
    pub fn dirtied(&mut self, walker: Walker, ipa: u64, bytes: u64, step: u64) {
        if self.adaptive {
            let first = ipa & !(bytes - 1);
            (first..first + bytes).step_by(0x1000).for_each(|page| self.touch(walker, page, step));
        } else {
            self.touch(walker, ipa, step);
        }
    }

    /// The pages of `range` enter the log of `source` dirty: its next report names them.
    pub fn enters_dirty(&mut self, source: Source, range: IpaRange, step: u64) {
        let pages = (range.start().0..range.end().0).step_by(0x1000);
        self.touched.extend(pages.clone().map(|page| ((source, page), step)));
        if self.logging {
            self.dues.owe(&[source], pages, Due::Entered);
        }
    }

    /// `pages` were found dirty by `sources` together, and could not be delivered.
    pub fn undelivered(&mut self, sources: &[Source], pages: &[u64]) {
        self.dues.owe(sources, pages.iter().copied(), Due::Undelivered);
    }

    pub fn set_unmapped(&mut self, range: IpaRange, unmapped: bool) {
        self.unmapped.retain(|r| *r != range);
        if unmapped {
            self.unmapped.push(range);
        }
    }

    pub fn may_fault(&self, ipa: u64) -> bool {
        self.unmapped.iter().any(|r| r.contains(Ipa(ipa)))
    }

    pub fn performed(&mut self, write: Write) {
        if self.logging {
            self.unreported.push(write);
        }
    }

    /// PE `pe` executed a DSB.
    pub fn completed(&mut self, pe: usize, step: u64) {
        for write in &mut self.unreported {
            if write.source == Source::Cpu && write.master as usize == pe {
                write.completed = write.completed.or(Some(step));
            }
        }
    }

    /// A log is being started: from now on what is written may be reported.
    pub fn start_begins(&mut self, step: u64, granule: u64) {
        self.began = step;
        self.granule = granule;
        self.adaptive = false;
        self.cleaned.clear();
    }

    /// The log that is being started changes sizes while it is on. A vCPU's write fault has its whole block taken for
    /// written: what is reported of vCPUs may be as far from what was written as that.
    pub fn adapts(&mut self, cpu_granule: u64) {
        self.adaptive = true;
        self.granule = cpu_granule;
    }

    /// It has been started: what completes from now on must be reported.
    pub fn start_ended(&mut self) {
        self.logging = true;
        self.unreported.clear();
        self.dues.clear();
    }

    pub fn stopped(&mut self) {
        self.logging = false;
        self.unreported.clear();
        self.dues.clear();
    }

    /// A sync of the pages that `asked` names and of `sources` that began at `began` has reported `pages`: gives back how
    /// many of these could not be delivered before.
    pub fn synced(
        &mut self,
        began: u64,
        asked: impl Fn(Ipa) -> bool,
        sources: &[Source],
        report: Report,
        pages: &[u64],
    ) -> Result<u64, String> {
        let reported =
            |write: &Write| sources.contains(&write.source) && pages.binary_search(&write.ipa).is_ok();
        let lost = self.unreported.iter().find(|w| {
            let due = w.completed.is_some_and(|c| c < began);
            due && sources.contains(&w.source) && asked(Ipa(w.ipa)) && !reported(w)
        });
        if let Some(write) = lost {
            return Err(format!("lost: {write:x?} by the sync that began at {began:#x}"));
        }
        if report.exact {
            pages.iter().try_for_each(|page| self.check_invented(sources, *page))?;
        }
        let retried = self.dues.settle(asked, sources, report.clear, pages)?;
        if report.clear {
            self.unreported.retain(|w| !reported(w));
            for key in pages.iter().flat_map(|p| sources.iter().map(|s| (*s, *p))) {
                self.cleaned.insert(key, began);
            }
        }
        Ok(retried)
    }

    fn check_invented(&self, sources: &[Source], page: u64) -> Result<(), String> {
        let written = |source: &Source| {
            let since = self.cleaned.get(&(*source, page)).copied().unwrap_or(self.began);
            let by_pages = self.adaptive && *source == Source::Dma;
            let bytes = if by_pages { 0x1000 } else { self.granule.max(0x1000) };
            let block = page & !(bytes - 1);
            let near = (*source, block)..(*source, block + bytes);
            self.touched.range(near).any(|(_, touched)| *touched >= since)
        };
        if sources.iter().any(written) {
            return Ok(());
        }
        Err(format!("invented: page {page:#x}, not written by {sources:?} since it was last cleaned"))
    }
}
