//! Ranges of physical addresses as a device tree gives them: of any alignment, never empty, never wrapping.

use core::fmt;

use strandline::addr::{PAGE_BYTES, Pa};

/// A non-empty range of physical addresses that does not wrap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Region {
    start: Pa,
    bytes: u64,
}

impl Region {
    /// `bytes` from `start`; `None` where that is nothing, or wraps.
    pub const fn new(start: u64, bytes: u64) -> Option<Self> {
        if bytes == 0 || start.checked_add(bytes).is_none() {
            return None;
        }
        Some(Self { start: Pa(start), bytes })
    }

    /// The addresses from `start` up to, not including, `end`.
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        match end.checked_sub(start) {
            Some(bytes) => Self::new(start, bytes),
            None => None,
        }
    }

    /// The first address.
    pub const fn start(self) -> Pa {
        self.start
    }

    /// The first address behind it.
    pub const fn end(self) -> Pa {
        Pa(self.start.0 + self.bytes)
    }

    /// The length in bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Whether all of `other` lies inside.
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The whole pages inside.
    pub fn pages_inside(self) -> Option<Self> {
        Self::between(self.start.0.checked_next_multiple_of(PAGE_BYTES)?, self.end().0 & !(PAGE_BYTES - 1))
    }

    /// The pages any part of which lies inside. Ends below the last page of the address space.
    pub fn pages_around(self) -> Self {
        let start = self.start.align_down(PAGE_BYTES).0;
        let end = self.end().0.checked_next_multiple_of(PAGE_BYTES).unwrap_or(!(PAGE_BYTES - 1));
        Self { start: Pa(start), bytes: end - start }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
