//! Ranges of addresses, and which RAM is free.

use core::fmt;

use strandline_abi::PAGE_BYTES;

/// `bytes` of addresses from `start`; the end does not pass the 64-bit address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    start: u64,
    bytes: u64,
}

impl Area {
    /// The area of `bytes` from `start`, or `None` where the sum wraps.
    #[must_use]
    pub const fn new(start: u64, bytes: u64) -> Option<Self> {
        match start.checked_add(bytes) {
            Some(_) => Some(Self { start, bytes }),
            None => None,
        }
    }

    /// The area from `start` to before `end`; empty where `end` is not behind `start`.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        Self { start, bytes: end.saturating_sub(start) }
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The first address behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.bytes
    }

    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The length in whole 4 KiB pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.bytes / PAGE_BYTES
    }

    /// The address of page `index` of the area.
    #[must_use]
    pub const fn page(self, index: u64) -> u64 {
        self.start + index * PAGE_BYTES
    }

    /// `pages` pages from page `first` of the area, or `None` where they are not all inside.
    #[must_use]
    pub const fn part(self, first: u64, pages: u64) -> Option<Self> {
        match first.checked_add(pages) {
            Some(last) if last <= self.pages() => {
                Some(Self { start: self.page(first), bytes: pages * PAGE_BYTES })
            }
            _ => None,
        }
    }

    /// Whether the two share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The area widened to whole pages.
    #[must_use]
    pub const fn widened_to_pages(self) -> Self {
        let start = self.start & !(PAGE_BYTES - 1);
        Self { start, bytes: (self.end() - start).next_multiple_of(PAGE_BYTES) }
    }

    /// The largest run of whole pages in it that shares none with `taken`.
    #[must_use]
    pub fn largest_gap(self, taken: &[Self]) -> Self {
        let mut best = Self::between(self.start, self.start);
        // A gap begins where the area does, or behind something taken.
        let starts = taken.iter().map(|t| t.widened_to_pages().end()).chain([self.start]);
        for start in starts.filter(|s| (self.start..self.end()).contains(s)) {
            if taken.iter().any(|t| t.widened_to_pages().start <= start && start < t.widened_to_pages().end())
            {
                continue;
            }
            let next = taken.iter().map(|t| t.widened_to_pages().start).filter(|t| *t >= start).min();
            let gap = Self::between(start, next.map_or(self.end(), |n| n.min(self.end())));
            if gap.bytes > best.bytes {
                best = gap;
            }
        }
        best
    }

    /// Cuts `bytes`, rounded up to whole pages, off the front; `None` where there is not as much.
    pub fn cut(&mut self, bytes: u64) -> Option<Self> {
        let front = Self { start: self.start, bytes: bytes.checked_next_multiple_of(PAGE_BYTES)? };
        self.bytes = self.bytes.checked_sub(front.bytes)?;
        self.start += front.bytes;
        Some(front)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end())
    }
}

/// A number of bytes, shown in the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, bytes: u64) -> Area {
        Area::new(start, bytes).unwrap()
    }

    #[test]
    fn an_area_does_not_wrap() {
        assert_eq!(Area::new(u64::MAX, 2), None);
        assert_eq!(area(0x1000, 0x2000).end(), 0x3000);
    }

    #[test]
    fn a_part_lies_inside() {
        let ram = area(0x4000_0000, 0x4000);
        assert_eq!(ram.part(1, 3), Some(area(0x4000_1000, 0x3000)));
        assert_eq!(ram.part(1, 4), None);
        assert_eq!(ram.part(u64::MAX, 1), None);
    }

    #[test]
    fn the_largest_gap_shares_no_page_with_what_is_taken() {
        let ram = area(0x4000_0000, 0x10_0000);
        let image = area(0x4000_0000, 0x2_1234);
        let tree = area(0x4008_0010, 0x100);
        assert_eq!(ram.largest_gap(&[image, tree]), area(0x4008_1000, 0x7_f000));
        let tree = area(0x400f_0010, 0x100);
        assert_eq!(ram.largest_gap(&[image, tree]), area(0x4002_2000, 0xc_e000));
        assert_eq!(ram.largest_gap(&[]), ram);
        assert_eq!(ram.largest_gap(&[ram]).bytes(), 0);
    }

    #[test]
    fn what_is_taken_may_overlap_and_lie_outside() {
        let ram = area(0x1_0000, 0x1_0000);
        let taken = [area(0x0, 0x1_2000), area(0x1_1000, 0x3000), area(0x1_f000, 0x8000)];
        assert_eq!(ram.largest_gap(&taken), area(0x1_4000, 0xb000));
    }

    #[test]
    fn cutting_takes_whole_pages_from_the_front() {
        let mut free = area(0x1000, 0x3000);
        assert_eq!(free.cut(1), Some(area(0x1000, 0x1000)));
        assert_eq!(free.cut(0x2000), Some(area(0x2000, 0x2000)));
        assert_eq!(free.cut(1), None);
    }

    #[test]
    fn a_size_is_shown_in_the_unit_that_divides_it() {
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
        assert_eq!(Size(33 << 20).to_string(), "33 MiB");
        assert_eq!(Size(1536 << 20).to_string(), "1536 MiB");
        assert_eq!(Size(0x1000).to_string(), "4 KiB");
        assert_eq!(Size(100).to_string(), "100 bytes");
        assert_eq!(Size(0).to_string(), "0 bytes");
    }
}
