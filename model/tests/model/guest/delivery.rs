//! What a log tells, and to whom: a consumer that now and then fails.

use std::cell::Cell;

use strandline::addr::IpaRange;

use super::memory::pages_of;
use super::{Guest, PAGE};

/// The consumer failed.
pub(super) struct Failed;

/// Who is told of the pages of `part`.
pub(super) struct Delivery {
    part: IpaRange,
    /// The word at which it fails.
    fails_at: Option<u64>,
    /// The word at which it has failed.
    pub failed: Option<u64>,
    /// The pages it was told of.
    pub pages: Vec<u64>,
    /// The pages of the word at which it failed.
    pub withheld: Vec<u64>,
}

impl Guest<'_> {
    /// Somebody who is to be told of `part`.
    pub(super) fn delivery(&mut self, part: IpaRange) -> Delivery {
        let fails = self.dice.chance(self.mix.undelivered);
        let fails_at = fails.then(|| self.dice.below(part.pages().div_ceil(64)));
        Delivery { part, fails_at, failed: None, pages: vec![], withheld: vec![] }
    }
}

impl Delivery {
    /// Word `word` is handed over; `failing` is set where that fails.
    pub fn take(&mut self, word: u64, bits: u64, failing: &Cell<bool>) -> Result<(), Failed> {
        if self.fails_at == Some(word) {
            self.failed = Some(word);
            failing.set(true);
            collect_pages(&mut self.withheld, self.part, word, bits);
            return Err(Failed);
        }
        collect_pages(&mut self.pages, self.part, word, bits);
        Ok(())
    }

    /// The pages about which it was told whether they are dirty; `None` where there are none.
    pub fn told(&self) -> Option<IpaRange> {
        let pages = self.failed.map_or(self.part.pages(), |word| word * 64);
        (pages > 0).then(|| pages_of(self.part.start().0 / PAGE, pages))
    }
}

/// Adds the pages that `bits`, which is word `word` about `part`, names.
pub(super) fn collect_pages(pages: &mut Vec<u64>, part: IpaRange, word: u64, bits: u64) {
    let dirty = (0..64).filter(|bit| bits >> bit & 1 == 1);
    pages.extend(dirty.map(|bit| part.start().0 + (word * 64 + bit) * PAGE));
}
