//! Marks on the pages of a range, a bit each: what is known to have been written.

use strandline_abi::PAGES_PER_WORD;

use crate::area::Area;
use crate::bitmap::{Bitmap, Tally, Words};

/// Marks on `WORDS` × 64 pages.
#[derive(Clone, Debug)]
pub struct Marks<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Marks<WORDS> {
    /// How many pages can be marked.
    pub const PAGES: u64 = WORDS as u64 * PAGES_PER_WORD;

    /// No page is marked.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; WORDS])
    }

    /// Marks `page`; `false` where it lies behind the last one.
    pub fn mark(&mut self, page: u64) -> bool {
        let word = usize::try_from(page / PAGES_PER_WORD).ok().and_then(|index| self.0.get_mut(index));
        let Some(word) = word else { return false };
        *word |= 1 << (page % PAGES_PER_WORD);
        true
    }

    /// Marks what `other` marks.
    pub fn mark_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    /// Whether `page` is marked.
    #[must_use]
    pub fn has(&self, page: u64) -> bool {
        self.word(page / PAGES_PER_WORD) >> (page % PAGES_PER_WORD) & 1 != 0
    }

    /// How many pages are marked.
    #[must_use]
    pub fn count(&self) -> u64 {
        Bitmap::new(self, Self::PAGES).count(0..Self::PAGES)
    }

    /// The pages marked here and not in `other`.
    #[must_use]
    pub fn outside<W: Words + ?Sized>(&self, other: &W) -> Tally {
        Bitmap::new(self, Self::PAGES).outside(other)
    }
}

impl<const WORDS: usize> Default for Marks<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Words for Marks<WORDS> {
    fn word(&self, index: u64) -> u64 {
        self.0.word(index)
    }
}

/// The pages of `range` that `span` touches, as numbers in the range; none where it is not all inside.
pub fn pages_of(range: Area, span: Area) -> impl Iterator<Item = u64> {
    let inside = range.covers(span) && span.bytes() != 0;
    let whole = Area::between(
        span.start() - span.start() % strandline_abi::PAGE_BYTES,
        span.end().next_multiple_of(strandline_abi::PAGE_BYTES),
    );
    let first = whole.start().saturating_sub(range.start()) / strandline_abi::PAGE_BYTES;
    (0..whole.pages()).filter(move |_| inside).map(move |page| first + page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_once_and_inside() {
        let mut marks = Marks::<2>::new();
        assert!(marks.mark(0) && marks.mark(127) && marks.mark(127));
        assert!(!marks.mark(128));
        assert_eq!((marks.count(), marks.has(127), marks.has(126), marks.has(128)), (2, true, false, false));
    }

    #[test]
    fn what_is_outside_another_set_is_counted_and_the_first_named() {
        let (mut few, mut many) = (Marks::<2>::new(), Marks::<2>::new());
        [3, 64, 65].into_iter().for_each(|page| assert!(many.mark(page)));
        few.mark(64);
        assert_eq!(many.outside(&few), Tally { count: 2, first: 3 });
        assert_eq!(few.outside(&many), Tally { count: 0, first: 0 });
        few.mark_all(&many);
        assert_eq!(many.outside(&few).count, 0);
    }

    #[test]
    fn a_span_touches_every_page_it_has_a_byte_of() {
        let range = Area::new(0x4000_0000, 0x4000).unwrap();
        let pages = |start, bytes| pages_of(range, Area::new(start, bytes).unwrap()).collect::<Vec<_>>();
        assert_eq!(pages(0x4000_0fff, 2), [0, 1]);
        assert_eq!(pages(0x4000_1000, 0x1000), [1]);
        assert_eq!(pages(0x4000_0800, 0x2000), [0, 1, 2]);
        assert!(pages(0x4000_3fff, 2).is_empty(), "beyond the end");
        assert!(pages(0x4000_1000, 0).is_empty());
    }
}
