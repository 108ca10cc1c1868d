//! What a log has to report, kept beside it.

use std::collections::BTreeSet;

use strandline::addr::IpaRange;
use strandline_abi::{DmaTier, Flags, LogSource, PAGE_BYTES};

/// The pages written by one source, by guest page number.
#[derive(Default)]
pub struct Pages {
    /// Written since the log was on and not cleaned since.
    must: BTreeSet<u64>,
    /// Written while the log was being started: it may be reported.
    may: BTreeSet<u64>,
}

/// The truth about a log.
#[derive(Default)]
pub struct Shadow {
    cpu: Pages,
    dma: Pages,
}

fn numbers(part: IpaRange) -> core::ops::Range<u64> {
    part.start().0 / PAGE_BYTES..part.end().0 / PAGE_BYTES
}

impl Shadow {
    fn of(&mut self, source: LogSource) -> &mut Pages {
        match source {
            LogSource::Cpu => &mut self.cpu,
            LogSource::Dma => &mut self.dma,
        }
    }

    /// A log is off, or its start begins.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// `page` was written while the log was on, or being started.
    pub fn written(&mut self, source: LogSource, page: u64, on: bool) {
        let pages = self.of(source);
        if on {
            pages.must.insert(page)
        } else {
            pages.may.insert(page)
        };
    }

    /// Holds what was reported of `part` against the truth, where `asked` of its pages were asked for; and forgets what has
    /// left the log.
    pub fn reported(
        &mut self,
        part: IpaRange,
        flags: Flags,
        tier: DmaTier,
        clear: bool,
        asked: impl Fn(u64) -> bool,
        reported: impl Fn(u64) -> bool,
    ) {
        let assumed = flags.names(LogSource::Dma) && tier == DmaTier::Assume;
        let sources = [(LogSource::Cpu, &self.cpu), (LogSource::Dma, &self.dma)];
        let named = |pages: fn(&Pages) -> &BTreeSet<u64>, page: u64| {
            sources.iter().any(|(source, truth)| flags.names(*source) && pages(truth).contains(&page))
        };
        for page in numbers(part) {
            let must = asked(page) && (assumed || named(|p| &p.must, page));
            let may = must || asked(page) && named(|p| &p.may, page);
            assert!(!must || reported(page), "page {page:#x} was written and is not reported ({flags:?})");
            assert!(may || !reported(page), "page {page:#x} is reported and was not written ({flags:?})");
        }
        if clear {
            for source in [LogSource::Cpu, LogSource::Dma].into_iter().filter(|s| flags.names(*s)) {
                let pages = self.of(source);
                for set in [&mut pages.must, &mut pages.may] {
                    set.retain(|page| !numbers(part).contains(page) || !asked(*page));
                }
            }
        }
    }
}
