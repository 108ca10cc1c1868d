//! Stage-2 descriptors as hardware reads them (Arm ARM D8.3, 4 KiB granule): written from the specification, not from
//! the library that is under test.

/// Bit 0: valid.
const VALID: u64 = 0x1;
/// Bit 1: table or page.
const TABLE: u64 = 0x2;
/// S2AP\[0\].
pub(crate) const READ: u64 = 0x40;
/// S2AP\[1\].
pub(crate) const WRITE: u64 = 0x80;
/// AF.
pub(crate) const AF: u64 = 0x400;
/// nT of a block.
pub(crate) const NT: u64 = 0x1_0000;
/// DBM.
pub(crate) const DBM: u64 = 0x8_0000_0000_0000;
/// Contiguous.
pub(crate) const CONTIGUOUS: u64 = 0x10_0000_0000_0000;
/// What hardware may change behind software's back.
pub(crate) const VOLATILE: u64 = AF | WRITE;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// What a descriptor is at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Invalid,
    Table(u64),
    Leaf,
}

pub(crate) fn shape(level: u8, word: u64) -> Shape {
    match (word & VALID != 0, word & TABLE != 0, level) {
        (true, true, 0..=2) => Shape::Table(word & ADDRESS),
        (true, true, 3) | (true, false, 1 | 2) => Shape::Leaf,
        // Blocks at level 0 and at level 3 are reserved, and treated as invalid.
        _ => Shape::Invalid,
    }
}

/// Bytes that one descriptor at `level` translates.
pub(crate) const fn span(level: u8) -> u64 {
    0x1000 << (9 * (3 - level as u32))
}

/// Where a leaf at `level` leads `ipa`.
pub(crate) const fn output(level: u8, word: u64, ipa: u64) -> u64 {
    word & ADDRESS & !(span(level) - 1) | ipa & (span(level) - 1)
}

/// Whether two descriptors translate the same and differ in state at most.
pub(crate) const fn same_mapping(a: u64, b: u64) -> bool {
    (a ^ b) & !VOLATILE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_worked_out_by_hand_have_the_shape_of_their_level() {
        assert_eq!(shape(2, 0x0008_0000_4020_07fd), Shape::Leaf);
        assert_eq!(shape(2, 0x4000_3003), Shape::Table(0x4000_3000));
        assert_eq!(shape(3, 0x0008_0000_4000_07ff), Shape::Leaf);
        assert_eq!(shape(3, 0x0008_0000_4000_07fd), Shape::Invalid);
        assert_eq!(shape(0, 0x0008_0000_4000_07fd), Shape::Invalid);
        assert_eq!(shape(1, 0), Shape::Invalid);
    }

    #[test]
    fn output_is_the_leafs_address_and_the_offset_in_it() {
        assert_eq!(output(2, 0x0008_0000_4020_07fd | NT, 0x1234_5678), 0x4034_5678);
        assert_eq!(output(3, 0x0008_0000_4000_37ff, 0x5abc), 0x4000_3abc);
        assert_eq!((span(1), span(2), span(3)), (0x4000_0000, 0x20_0000, 0x1000));
    }
}
