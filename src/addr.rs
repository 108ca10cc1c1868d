//! The newtypes everything else speaks: addresses, page sizes, ranges, stream and VM identifiers.

use core::fmt;

/// Bytes of the smallest translation granule this library uses (4 KiB).
pub const PAGE_BYTES: u64 = 4096;
/// `log2` of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Whether the address is a multiple of `bytes`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// The address rounded down to a multiple of `bytes`, a power of two.
            #[must_use]
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }

            /// The address `bytes` further on, or `None` where the sum wraps.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The address `bytes` further on; `bytes` lies inside an object known not to wrap.
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An intermediate physical address: what a guest calls physical, and stage 2 translates.
    Ipa
}
address! {
    /// A physical address, as EL2 and the walkers of CPUs and SMMUs use it.
    Pa
}

/// The sizes a leaf of a 4 KiB-granule tree can have (Arm ARM D8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// A level-3 page.
    Size4K,
    /// A level-2 block.
    Size2M,
    /// A level-1 block.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => PAGE_BYTES,
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }

    /// The level at which a leaf of this size stands.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Size4K => 3,
            Self::Size2M => 2,
            Self::Size1G => 1,
        }
    }
}

/// A page-aligned, non-empty range of guest addresses that does not wrap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IpaRange {
    start: Ipa,
    bytes: u64,
}

/// Why an [`IpaRange`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// `start` or `bytes` is not a multiple of [`PAGE_BYTES`]; carries the value.
    Unaligned(u64),
    /// `bytes` is zero.
    Empty,
    /// `start + bytes` wraps, or passes the end of the 64-bit address space; carries `bytes`.
    Wraps(u64),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned(value) => write!(f, "{value:#x} is not a multiple of {PAGE_BYTES:#x}"),
            Self::Empty => f.write_str("a range of no bytes"),
            Self::Wraps(bytes) => {
                write!(f, "a range of {bytes:#x} bytes passes the end of the address space")
            }
        }
    }
}

impl IpaRange {
    /// The range of `bytes` from `start`.
    ///
    /// # Errors
    /// Both must be multiples of [`PAGE_BYTES`], `bytes` must not be zero and the sum must not wrap.
    pub const fn new(start: Ipa, bytes: u64) -> Result<Self, RangeError> {
        if !start.is_aligned(PAGE_BYTES) {
            return Err(RangeError::Unaligned(start.0));
        }
        if bytes & (PAGE_BYTES - 1) != 0 {
            return Err(RangeError::Unaligned(bytes));
        }
        if bytes == 0 {
            return Err(RangeError::Empty);
        }
        if start.checked_add(bytes).is_none() {
            return Err(RangeError::Wraps(bytes));
        }
        Ok(Self { start, bytes })
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> Ipa {
        self.start
    }

    /// The first address behind the range.
    #[must_use]
    pub const fn end(self) -> Ipa {
        Ipa(self.start.0 + self.bytes)
    }

    /// The length in bytes, never zero.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The length in 4 KiB pages, never zero.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.bytes >> PAGE_SHIFT
    }

    /// Whether `ipa` lies inside.
    #[must_use]
    pub const fn contains(self, ipa: Ipa) -> bool {
        self.start.0 <= ipa.0 && ipa.0 - self.start.0 < self.bytes
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }

    /// Whether the two share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }

    /// What the two share.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self { start, bytes: end.0 - start.0 })
    }
}

impl fmt::Debug for IpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for IpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end())
    }
}

/// What an SMMU tells devices apart by (IHI 0070 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What tags the TLB entries of one stage-2 view (8 or 16 bits, by the walker's abilities).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmid(pub u16);

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_refuses_what_is_unaligned_empty_or_wraps() {
        assert_eq!(IpaRange::new(Ipa(0x1001), 0x1000), Err(RangeError::Unaligned(0x1001)));
        assert_eq!(IpaRange::new(Ipa(0x1000), 0x1800), Err(RangeError::Unaligned(0x1800)));
        assert_eq!(IpaRange::new(Ipa(0x1000), 0), Err(RangeError::Empty));
        let last = Ipa(0xffff_ffff_ffff_f000);
        assert_eq!(IpaRange::new(last, 0x1000), Err(RangeError::Wraps(0x1000)));
        assert_eq!(IpaRange::new(last, 0x2000), Err(RangeError::Wraps(0x2000)));
    }

    #[test]
    fn intersection_is_what_both_contain() {
        let a = IpaRange::new(Ipa(0x1000), 0x3000).unwrap();
        let b = IpaRange::new(Ipa(0x3000), 0x3000).unwrap();
        assert_eq!(a.intersection(b), IpaRange::new(Ipa(0x3000), 0x1000).ok());
        let apart = IpaRange::new(Ipa(0x4000), 0x1000).unwrap();
        assert_eq!(a.intersection(apart), None);
        assert!(!a.overlaps(apart) && a.overlaps(b));
    }
}
