//! The shape of a tree: input size, start level, root tables, and the register fields that say so.

use crate::addr::{IpaRange, PAGE_SHIFT};
use crate::stage2::descriptor::entry_shift;

/// The shape of a stage-2 tree of the 4 KiB granule (Arm ARM D8.2; IHI 0070 §5.2, S2T0SZ and S2SL0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    ipa_bits: u8,
}

impl Format {
    /// The smallest input size: level 1 is where a walk starts, and 1 GiB blocks exist.
    pub const MIN_IPA_BITS: u8 = 32;
    /// The largest input size without 52-bit addresses.
    pub const MAX_IPA_BITS: u8 = 48;

    /// The tree of the smallest input size: guest addresses up to 4 GiB.
    pub const SMALLEST: Self = Self { ipa_bits: Self::MIN_IPA_BITS };

    /// A tree for guest addresses of `ipa_bits` bits, [`Self::MIN_IPA_BITS`] to [`Self::MAX_IPA_BITS`].
    #[must_use]
    pub const fn new(ipa_bits: u8) -> Option<Self> {
        if ipa_bits < Self::MIN_IPA_BITS || ipa_bits > Self::MAX_IPA_BITS {
            return None;
        }
        Some(Self { ipa_bits })
    }

    /// Bits of a guest address.
    #[must_use]
    pub const fn ipa_bits(self) -> u8 {
        self.ipa_bits
    }

    /// T0SZ of VTCR_EL2 and S2T0SZ of an STE.
    #[must_use]
    pub const fn t0sz(self) -> u8 {
        64 - self.ipa_bits
    }

    /// The level at which a walk starts: 1, with up to 16 concatenated root tables, or 0 where that is too small.
    #[must_use]
    pub const fn start_level(self) -> u8 {
        if self.ipa_bits <= 43 { 1 } else { 0 }
    }

    /// SL0 of VTCR_EL2 and S2SL0 of an STE.
    #[must_use]
    pub const fn sl0(self) -> u8 {
        2 - self.start_level()
    }

    /// `log2` of the number of (concatenated) root tables, which are aligned to their total size.
    #[must_use]
    pub const fn root_order(self) -> u32 {
        let one_table = entry_shift(self.start_level()) + 9;
        (self.ipa_bits as u32).saturating_sub(one_table)
    }

    /// Entries of all root tables.
    #[must_use]
    pub const fn root_entries(self) -> usize {
        512 << self.root_order()
    }

    /// Whether every address of `range` can be translated.
    #[must_use]
    pub const fn covers(self, range: IpaRange) -> bool {
        (range.end().0 - 1) >> self.ipa_bits == 0
    }

    /// The number of 4 KiB pages it can translate.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << (self.ipa_bits as u32 - PAGE_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ipa;

    #[test]
    fn start_level_and_root_tables_follow_the_input_size() {
        let shape = |bits| {
            let f = Format::new(bits).unwrap();
            assert_eq!(f.root_entries(), 512 << f.root_order());
            (f.t0sz(), f.start_level(), f.sl0(), f.root_order())
        };
        assert_eq!(shape(32), (32, 1, 1, 0));
        assert_eq!(shape(39), (25, 1, 1, 0));
        assert_eq!(shape(40), (24, 1, 1, 1));
        assert_eq!(shape(43), (21, 1, 1, 4));
        assert_eq!(shape(44), (20, 0, 2, 0));
        assert_eq!(shape(48), (16, 0, 2, 0));
        assert_eq!((Format::new(31), Format::new(49)), (None, None));
    }

    #[test]
    fn covers_ends_exactly_at_the_input_size() {
        let format = Format::new(32).unwrap();
        let last = IpaRange::new(Ipa(0xffff_f000), 0x1000).unwrap();
        let beyond = IpaRange::new(Ipa(0xffff_f000), 0x2000).unwrap();
        assert!(format.covers(last) && !format.covers(beyond));
        assert_eq!(format.pages(), 0x10_0000);
    }
}
