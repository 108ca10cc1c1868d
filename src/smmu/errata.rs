//! What parts do wrongly, and which parts: the one table of it.
//!
//! A part is known by SMMU_IIDR (IHI 0070 §6.3.7) or, where that tells nothing, by its compatible string in the device
//! tree; a board may add what neither tells ([`Options::errata`](super::Options)). What an erratum costs is paid by
//! parts that have it: any other sees one predictable branch a command and one a batch.

use bitflags::bitflags;

bitflags! {
    /// Errata the driver works around.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Errata: u8 {
        /// An entry can outlive an invalidation (CMD_CFGI_*, CMD_TLBI_*) that races with traffic: each batch of them is
        /// issued once more when its CMD_SYNC has completed.
        const REPEAT = 1 << 0;
        /// Commands of different kinds, or too many of one, must not follow each other without a CMD_SYNC.
        const SYNC_BETWEEN = 1 << 1;
        /// WFE wake-up events aren't sent reliably, whatever IDR0.SEV says.
        const NO_WAKE_EVENTS = 1 << 2;
    }
}

/// A part of a product line, by SMMU_IIDR.
struct Part {
    /// IIDR.Implementer, a JEP106 code.
    implementer: u32,
    /// IIDR.ProductID.
    product: u32,
    /// The first variant and revision (`rXpY`) that is mended; all are affected where there is none.
    mended: Option<(u32, u32)>,
    errata: Errata,
}

const ARM: u32 = 0x43b;
const MMU_600: u32 = 0x483;
const MMU_700: u32 = 0x487;

/// Parts by IIDR.
///
/// Of Arm's errata of nested translation (1209401, 2268618) nothing is here: the driver does not nest. Broadcast
/// invalidation, which 2812531 forbids as well, is off everywhere (CR2.PTM).
const BY_IIDR: &[Part] = &[
    // Erratum 1076982, up to r0p2.
    Part { implementer: ARM, product: MMU_600, mended: Some((0, 3)), errata: Errata::NO_WAKE_EVENTS },
    // Erratum 2812531.
    Part { implementer: ARM, product: MMU_700, mended: None, errata: Errata::SYNC_BETWEEN },
];

/// Parts by compatible string.
const BY_COMPATIBLE: &[(&str, Errata)] = &[(Errata::COMPATIBLE[0], Errata::REPEAT)];

impl Part {
    fn is(&self, iidr: u32) -> bool {
        let (product, implementer) = (iidr >> 20, iidr & 0xfff);
        let version = (iidr >> 16 & 0xf, iidr >> 12 & 0xf);
        let affected = self.mended.is_none_or(|mended| version < mended);
        (implementer, product) == (self.implementer, self.product) && affected
    }
}

impl Errata {
    /// The compatible strings that tell of errata.
    pub const COMPATIBLE: &[&str] = &["nvidia,tegra264-smmu"];

    /// The errata of the part that SMMU_IIDR names.
    #[must_use]
    pub fn of_iidr(iidr: u32) -> Self {
        let known = BY_IIDR.iter().filter(|part| part.is(iidr));
        known.fold(Self::empty(), |errata, part| errata | part.errata)
    }

    /// The errata of the part that has `compatible`, one of the strings of its device tree node.
    #[must_use]
    pub fn of_compatible(compatible: &str) -> Self {
        let known = BY_COMPATIBLE.iter().filter(|(name, _)| *name == compatible);
        known.fold(Self::empty(), |errata, (_, of_part)| errata | *of_part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IIDR: product [31:20], variant [19:16], revision [15:12], implementer [11:0].
    #[test]
    fn early_mmu_600_sends_no_wake_events() {
        assert_eq!(Errata::of_iidr(0x4830_043b), Errata::NO_WAKE_EVENTS);
        assert_eq!(Errata::of_iidr(0x4830_243b), Errata::NO_WAKE_EVENTS);
        assert_eq!(Errata::of_iidr(0x4830_343b), Errata::empty());
        assert_eq!(Errata::of_iidr(0x4831_043b), Errata::empty());
        assert_eq!(Errata::of_iidr(0x4832_043b), Errata::empty());
    }

    #[test]
    fn every_mmu_700_needs_a_sync_between() {
        for iidr in [0x4870_043b, 0x4871_043b, 0x4871_143b, 0x487f_f43b] {
            assert_eq!(Errata::of_iidr(iidr), Errata::SYNC_BETWEEN, "{iidr:#x}");
        }
    }

    #[test]
    fn same_product_of_another_implementer_is_another_part() {
        assert_eq!(Errata::of_iidr(0x4870_043c), Errata::empty());
        assert_eq!(Errata::of_iidr(0x4870_0036), Errata::empty());
        assert_eq!(Errata::of_iidr(0x4860_043b), Errata::empty());
        // What no part says of itself, QEMU's model among them.
        assert_eq!(Errata::of_iidr(0), Errata::empty());
        assert_eq!(Errata::of_iidr(!0), Errata::empty());
    }

    #[test]
    fn compatible_string_tells_what_iidr_does_not() {
        assert_eq!(Errata::of_compatible("nvidia,tegra264-smmu"), Errata::REPEAT);
        assert_eq!(Errata::of_compatible("arm,smmu-v3"), Errata::empty());
        assert_eq!(Errata::of_compatible(""), Errata::empty());
    }

    #[test]
    fn every_compatible_string_of_the_list_has_its_errata() {
        for compatible in Errata::COMPATIBLE {
            assert_ne!(Errata::of_compatible(compatible), Errata::empty(), "{compatible}");
        }
    }
}
