//! Base address registers of PCI functions (PCI Local Bus Specification 3.0 §6.2.5.1).

use crate::area::Area;

/// A memory BAR as its one or two registers hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The PCI address it decodes.
    pub address: u64,
    /// Whether it takes the next register as well (type 0b10).
    pub wide: bool,
}

impl Bar {
    /// The BAR of a register `low` and the one behind it, or `None` for an I/O BAR.
    #[must_use]
    pub const fn new(low: u32, high: u32) -> Option<Self> {
        if low & 1 != 0 {
            return None;
        }
        let wide = low >> 1 & 0b11 == 0b10;
        let address = (low & !0xf) as u64 | if wide { (high as u64) << 32 } else { 0 };
        Some(Self { address, wide })
    }
}

/// The bytes a 32-bit memory BAR decodes, from what it reads after all ones were written; 0 where there is no BAR.
#[must_use]
pub const fn size(read_back: u32) -> u64 {
    match read_back & !0xf {
        0 => 0,
        mask => (!mask as u64) + 1,
    }
}

/// A window of a PCI host bridge: PCI addresses from `bus` are CPU addresses in `cpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusWindow {
    /// The first PCI address.
    pub bus: u64,
    /// The CPU addresses.
    pub cpu: Area,
}

impl BusWindow {
    /// The CPU's addresses of `bytes` at PCI address `address`, or `None` where they are not all in the window.
    #[must_use]
    pub fn to_cpu(self, address: u64, bytes: u64) -> Option<Area> {
        let start = self.cpu.start().checked_add(address.checked_sub(self.bus)?)?;
        Area::new(start, bytes).filter(|area| self.cpu.covers(*area))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_read_with_its_type() {
        assert_eq!(Bar::new(0x1000_0000, 0xdead), Some(Bar { address: 0x1000_0000, wide: false }));
        assert_eq!(Bar::new(0x8000_000c, 0x1), Some(Bar { address: 0x1_8000_0000, wide: true }));
        assert_eq!(Bar::new(0x0000_1001, 0), None);
    }

    #[test]
    fn the_size_is_the_lowest_bit_that_can_be_set() {
        assert_eq!(size(0xfff0_0000), 0x10_0000);
        assert_eq!(size(0xffff_f00c), 0x1000);
        assert_eq!(size(0), 0);
    }

    #[test]
    fn a_bus_window_translates_what_lies_inside() {
        let window = BusWindow { bus: 0x1000_0000, cpu: Area::new(0x5000_0000, 0x20_0000).unwrap() };
        assert_eq!(window.to_cpu(0x1010_0000, 0x10_0000), Area::new(0x5010_0000, 0x10_0000));
        assert_eq!(window.to_cpu(0x1010_0000, 0x10_0001), None);
        assert_eq!(window.to_cpu(0x0fff_ffff, 1), None);
    }
}
