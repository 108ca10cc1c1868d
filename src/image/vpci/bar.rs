//! Base address registers: what a function decodes.

use super::bdf::Bdf;
use super::config::{BARS, ConfigSpace, bar};

/// The lowest bits of a BAR: 1 for I/O space; of a memory BAR bits 2:1 are its type, bit 3 says that it is
/// prefetchable.
const IO: u32 = 1;
const TYPE: u32 = 0b110;
const TYPE_32: u32 = 0b000;
const TYPE_64: u32 = 0b100;
/// The bits of a memory BAR that are no address.
const ATTRIBUTES: u32 = 0xf;

/// A memory BAR as the function has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// Its (first) register, 0 to 5.
    pub index: usize,
    /// Its length in bytes, a power of two of at least 16.
    pub bytes: u64,
    /// Bits 3:0 of the register: type and prefetchable.
    pub attributes: u32,
}

impl Bar {
    /// Whether it takes two registers.
    pub const fn is_64(self) -> bool {
        self.attributes & TYPE == TYPE_64
    }

    /// What the registers hold for `address`: the low word and, of a 64-bit BAR, the high word.
    pub const fn words(self, address: u64) -> (u32, u32) {
        (address as u32 & !ATTRIBUTES | self.attributes, (address >> 32) as u32)
    }

    /// What the registers hold after all ones were written: the address bits that exist.
    pub const fn size_words(self) -> (u32, u32) {
        self.words(!(self.bytes - 1))
    }

    /// Lets the function decode the BAR at `address`.
    pub fn place(self, host: &impl ConfigSpace, bdf: Bdf, address: u64) {
        let (low, high) = self.words(address);
        host.write32(bdf, bar(self.index), low);
        if self.is_64() {
            host.write32(bdf, bar(self.index + 1), high);
        }
    }
}

/// A register that is no BAR the specification knows: its index, and what it held after all ones were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OddBar {
    pub index: usize,
    pub mask: u64,
}

/// Finds the memory BAR whose first register is `index`, by writing all ones; `None` for a register that isn't
/// implemented, or is an I/O BAR. The registers are left at zero, and the function must not decode.
pub(super) fn probe(host: &impl ConfigSpace, bdf: Bdf, index: usize) -> Result<Option<Bar>, OddBar> {
    let low = size_mask(host, bdf, index);
    if low == 0 || low & IO != 0 {
        return Ok(None);
    }
    let high = match low & TYPE {
        TYPE_32 => u32::MAX,
        TYPE_64 if index + 1 < BARS => size_mask(host, bdf, index + 1),
        _ => return Err(OddBar { index, mask: low.into() }),
    };
    let mask = u64::from(high) << 32 | u64::from(low & !ATTRIBUTES);
    // The two's complement of a mask of upper ones is the power of two below them.
    let bytes = mask.wrapping_neg();
    if !bytes.is_power_of_two() {
        return Err(OddBar { index, mask });
    }
    Ok(Some(Bar { index, bytes, attributes: low & ATTRIBUTES }))
}

fn size_mask(host: &impl ConfigSpace, bdf: Bdf, index: usize) -> u32 {
    host.write32(bdf, bar(index), u32::MAX);
    let mask = host.read32(bdf, bar(index));
    host.write32(bdf, bar(index), 0);
    mask
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeHost;
    use super::*;

    fn probed(masks: &[u32], index: usize) -> Result<Option<Bar>, OddBar> {
        let (host, bdf) = FakeHost::with_bars(masks);
        probe(&host, bdf, index)
    }

    #[test]
    fn narrow_bar_has_the_size_of_its_mask() {
        assert_eq!(probed(&[0xfff0_0000], 0), Ok(Some(Bar { index: 0, bytes: 0x10_0000, attributes: 0 })));
        assert_eq!(probed(&[0, 0xffff_fff8], 1), Ok(Some(Bar { index: 1, bytes: 0x10, attributes: 8 })));
        assert_eq!(probed(&[0x8000_0000], 0), Ok(Some(Bar { index: 0, bytes: 0x8000_0000, attributes: 0 })));
    }

    #[test]
    fn wide_bar_has_the_size_of_both_masks() {
        let small = Bar { index: 4, bytes: 0x4000, attributes: 4 };
        assert_eq!(probed(&[0, 0, 0, 0, 0xffff_c004, 0xffff_ffff], 4), Ok(Some(small)));
        let large = Bar { index: 0, bytes: 0x4_0000_0000, attributes: 0xc };
        assert_eq!(probed(&[0x0000_000c, 0xffff_fffc], 0), Ok(Some(large)));
    }

    #[test]
    fn absent_and_io_registers_are_no_memory_bars() {
        assert_eq!(probed(&[0], 0), Ok(None));
        assert_eq!(probed(&[0xffff_ffe1], 0), Ok(None));
    }

    #[test]
    fn odd_registers_are_refused() {
        assert_eq!(probed(&[0, 0, 0, 0, 0, 0xffff_c004], 5), Err(OddBar { index: 5, mask: 0xffff_c004 }));
        assert_eq!(probed(&[0xffff_f002], 0), Err(OddBar { index: 0, mask: 0xffff_f002 }));
        assert_eq!(probed(&[0xff0f_0000], 0), Err(OddBar { index: 0, mask: 0xffff_ffff_ff0f_0000 }));
        assert_eq!(probed(&[0x0000_0004, 0], 0), Err(OddBar { index: 0, mask: 0 }));
    }

    #[test]
    fn words_carry_address_and_attributes() {
        let bar = Bar { index: 0, bytes: 0x4000, attributes: 0xc };
        assert_eq!(bar.words(0x80_1234_0000), (0x1234_000c, 0x80));
        assert_eq!(bar.size_words(), (0xffff_c00c, 0xffff_ffff));
    }
}
