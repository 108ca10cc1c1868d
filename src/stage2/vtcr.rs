//! VTCR_EL2: how a PE walks a view (Arm ARM D19.2, VTCR_EL2).

use crate::stage2::Format;

/// What of VTCR_EL2 does not follow from the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtcrOptions {
    /// ID_AA64MMFR0_EL1.PARange: the output size, as PS encodes it. 6 (52 bits) counts as 5: descriptors hold 48.
    pub pa_range: u8,
    /// 16-bit VMIDs.
    pub vmid16: bool,
    /// Hardware sets the access flag and the dirty state (FEAT_HAFDBS).
    pub hardware_dirty: bool,
}

/// IRGN0 and ORGN0: walks are Normal, write-back read-allocate write-allocate cacheable, inner and outer.
const WRITE_BACK: u64 = 0b01 << 8 | 0b01 << 10;
/// SH0: inner shareable.
const INNER_SHAREABLE: u64 = 0b11 << 12;
/// Bit 31 is RES1.
const RES1: u64 = 1 << 31;

impl Format {
    /// VTCR_EL2 for a tree of this format; TG0 is 0, the 4 KiB granule.
    #[must_use]
    pub const fn vtcr(self, options: VtcrOptions) -> u64 {
        let ps = if options.pa_range > 5 { 5 } else { options.pa_range };
        let dirty = if options.hardware_dirty { 0b11 << 21 } else { 0 };
        RES1 | self.t0sz() as u64
            | (self.sl0() as u64) << 6
            | WRITE_BACK
            | INNER_SHAREABLE
            | (ps as u64) << 16
            | (options.vmid16 as u64) << 19
            | dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_worked_out_from_the_specification() {
        let vtcr = |bits, pa_range, vmid16, hardware_dirty| {
            Format::new(bits).unwrap().vtcr(VtcrOptions { pa_range, vmid16, hardware_dirty })
        };
        // RES1 | PS=2 | SH0=11 | ORGN0=01 | IRGN0=01 | SL0=01 | T0SZ=32
        assert_eq!(vtcr(32, 2, false, false), 0x8002_3560);
        // HD | HA | VS | PS=5 (capped from 6) | SL0=01 | T0SZ=24
        assert_eq!(vtcr(40, 6, true, true), 0x806d_3558);
        // SL0=10 (start at level 0) | T0SZ=20
        assert_eq!(vtcr(44, 5, false, true), 0x8065_3594);
    }
}
