//! Reading a dirty bitmap: bit `i % 64` of word `i / 64` stands for page `i` of a range.

use core::fmt;
use core::ops::Range;

use strandline_abi::PAGES_PER_WORD;

/// Where the words of a bitmap are read.
pub trait Words {
    /// Word `index`; the caller keeps below the number of words there are.
    fn word(&self, index: u64) -> u64;
}

impl Words for [u64] {
    fn word(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|i| self.get(i)).copied().unwrap_or(0)
    }
}

/// A bitmap of `pages` pages.
#[derive(Debug)]
pub struct Bitmap<'a, W: ?Sized> {
    words: &'a W,
    pages: u64,
}

impl<'a, W: Words + ?Sized> Bitmap<'a, W> {
    /// The bitmap of `pages` pages in `words`.
    #[must_use]
    pub const fn new(words: &'a W, pages: u64) -> Self {
        Self { words, pages }
    }

    /// How many pages it is about.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// The word `index` with the bits of `range` alone.
    fn masked(&self, index: u64, range: &Range<u64>) -> u64 {
        let first = index * PAGES_PER_WORD;
        let from = range.start.saturating_sub(first).min(64);
        let to = range.end.saturating_sub(first).min(64);
        if from >= to {
            return 0;
        }
        let below_to = if to == 64 { u64::MAX } else { (1 << to) - 1 };
        // `from` is below `to`, hence below 64.
        self.words.word(index) & below_to & (u64::MAX << from)
    }

    fn clipped(&self, range: Range<u64>) -> Range<u64> {
        range.start.min(self.pages)..range.end.min(self.pages)
    }

    /// How many pages of `range` have their bit set.
    #[must_use]
    pub fn count(&self, range: Range<u64>) -> u64 {
        let range = self.clipped(range);
        (range.start / PAGES_PER_WORD..range.end.div_ceil(PAGES_PER_WORD))
            .map(|index| u64::from(self.masked(index, &range).count_ones()))
            .sum()
    }

    /// The pages of `range` whose bit is set, ascending.
    pub fn ones(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let range = self.clipped(range);
        (range.start / PAGES_PER_WORD..range.end.div_ceil(PAGES_PER_WORD)).flat_map(move |index| {
            let mut word = self.masked(index, &range);
            core::iter::from_fn(move || {
                let bit = u64::from(word.trailing_zeros());
                word &= word.checked_sub(1)?;
                Some(index * PAGES_PER_WORD + bit)
            })
        })
    }

    /// The pages of this bitmap whose bit `other` doesn't have.
    #[must_use]
    pub fn outside<V: Words + ?Sized>(&self, other: &V) -> Tally {
        let mut tally = Tally::default();
        let has = |page| other.word(page / PAGES_PER_WORD) >> (page % PAGES_PER_WORD) & 1 != 0;
        self.ones(0..self.pages).filter(|page| !has(*page)).for_each(|page| tally.add(page));
        tally
    }

    /// Whether the bits behind the last page, up to the end of the last word, are zero.
    #[must_use]
    pub fn ends_clean(&self) -> bool {
        let used = self.pages % PAGES_PER_WORD;
        used == 0 || self.words.word(self.pages / PAGES_PER_WORD) >> used == 0
    }

    /// Compares the bits of `range` with the pages `expected` (ascending, all of them inside `range`).
    ///
    /// # Errors
    /// What is missing and what was not expected.
    pub fn compare(&self, range: Range<u64>, expected: &[u64]) -> Result<(), Mismatch> {
        let mut mismatch = Mismatch::default();
        let mut expected = expected.iter().copied().peekable();
        for found in self.ones(range) {
            while let Some(missing) = expected.next_if(|e| *e < found) {
                mismatch.missing.add(missing);
            }
            if expected.next_if_eq(&found).is_none() {
                mismatch.extra.add(found);
            }
        }
        expected.for_each(|missing| mismatch.missing.add(missing));
        if mismatch == Mismatch::default() { Ok(()) } else { Err(mismatch) }
    }
}

/// Some pages: how many, and the first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The first (0 where there is none).
    pub first: u64,
}

impl Tally {
    fn add(&mut self, page: u64) {
        if self.count == 0 {
            self.first = page;
        }
        self.count += 1;
    }
}

/// How a bitmap differs from what was expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Pages expected and not reported: lost writes.
    pub missing: Tally,
    /// Pages reported and not expected: invented writes.
    pub extra: Tally,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (tally, what) in [(self.missing, "not reported"), (self.extra, "reported though not written")] {
            if tally.count != 0 {
                write!(f, "{between}{} pages {what} (the first: page {})", tally.count, tally.first)?;
                between = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Pages 0, 63, 64, 65 and 130.
    const WORDS: [u64; 3] = [0x8000_0000_0000_0001, 0x3, 0x4];

    fn bitmap(pages: u64) -> Bitmap<'static, [u64]> {
        Bitmap::new(&WORDS, pages)
    }

    #[test]
    fn bits_are_counted_in_ranges_that_begin_and_end_anywhere() {
        assert_eq!(bitmap(192).count(0..192), 5);
        assert_eq!(bitmap(192).count(1..130), 3);
        assert_eq!(bitmap(192).count(63..64), 1);
        assert_eq!(bitmap(192).count(64..64), 0);
        assert_eq!(bitmap(130).count(0..192), 4);
    }

    #[test]
    fn pages_come_in_ascending_order() {
        let all: Vec<u64> = bitmap(192).ones(0..192).collect();
        assert_eq!(all, [0, 63, 64, 65, 130]);
        let some: Vec<u64> = bitmap(192).ones(1..65).collect();
        assert_eq!(some, [63, 64]);
    }

    #[test]
    fn bits_behind_the_last_page_are_seen() {
        assert!(bitmap(131).ends_clean());
        assert!(!bitmap(130).ends_clean());
        assert!(bitmap(128).ends_clean());
    }

    #[test]
    fn a_comparison_names_what_is_missing_and_what_is_extra() {
        assert_eq!(bitmap(192).compare(0..192, &[0, 63, 64, 65, 130]), Ok(()));
        assert_eq!(bitmap(192).compare(1..130, &[63, 64, 65]), Ok(()));
        let mismatch = bitmap(192).compare(0..192, &[0, 62, 64, 65, 190, 191]).unwrap_err();
        assert_eq!(mismatch.missing, Tally { count: 3, first: 62 });
        assert_eq!(mismatch.extra, Tally { count: 2, first: 63 });
        assert_eq!(
            mismatch.to_string(),
            "3 pages not reported (the first: page 62), 2 pages reported though not written (the first: page 63)"
        );
    }
}
