//! Virtio functions (Virtio 1.2, §4.1): whether one stays behind the SMMU, and which capabilities its VM sees.
//!
//! A virtio device without VIRTIO_F_ACCESS_PLATFORM (§6) takes the addresses it is given for those of the machine's
//! memory, and no SMMU translates them. A device that offers the bit is behind the SMMU, or refuses to work with a driver
//! that doesn't accept it (§6.2); QEMU goes by what is offered. EL2 reads what is offered through the function's PCI
//! configuration access capability (§4.1.4.9), which reaches the registers before they have an address.

use alloc::vec::Vec;

use super::bdf::Bdf;
use super::capability;
use super::config::{CAPABILITIES, ConfigSpace};

/// Vendor-specific capability: all of virtio's are.
const VENDOR_SPECIFIC: u8 = 0x09;
/// Kinds of capabilities (§4.1.4), bits 31:24 of the first word.
const COMMON: u32 = 1;
const DEVICE: u32 = 4;
const PCI_ACCESS: u32 = 5;
/// Words of a capability: its BAR (bits 7:0), and where in the BAR the structure is.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
/// Of the PCI configuration access capability: how many bytes are accessed, and their window.
const LENGTH: u16 = 12;
const DATA: u16 = 16;
/// Bytes of the longest capability that is shown, the one of notifications.
const LONGEST: u32 = 20;

/// Registers of the common configuration (§4.1.4.3).
const FEATURE_SELECT: u32 = 0x00;
const FEATURE: u32 = 0x04;
const STATUS: u32 = 0x14;
/// VIRTIO_F_ACCESS_PLATFORM, bit 33, in the upper word of the features.
const ACCESS_PLATFORM: u32 = 1 << (33 - 32);

/// What a virtio function is as to the SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It offers VIRTIO_F_ACCESS_PLATFORM.
    Behind,
    /// It doesn't, or is a legacy or transitional one, which can't.
    Around,
    /// Its features can't be read.
    Unknown,
}

/// Whether these are the IDs of a virtio function (§4.1.2): vendor 0x1af4, devices 0x1000 to 0x107f.
pub(super) const fn is_virtio(ids: u32) -> bool {
    ids & 0xffff == 0x1af4 && matches!(ids >> 16, 0x1000..=0x107f)
}

/// Finds out whether the virtio function, which has `ids`, is behind the SMMU. One that is, is reset: it forgets the
/// queues of whoever used it before, of firmware for one.
pub(super) fn standing(host: &impl ConfigSpace, bdf: Bdf, ids: u32) -> Standing {
    if ids >> 16 < 0x1040 {
        return Standing::Around;
    }
    let Some(common) = Common::of(host, bdf) else { return Standing::Unknown };
    common.write(host, FEATURE_SELECT, 4, 1);
    // What reads back is a register, and not all ones of something that doesn't answer.
    if common.read(host, FEATURE_SELECT) != 1 {
        return Standing::Unknown;
    }
    if common.read(host, FEATURE) & ACCESS_PLATFORM == 0 {
        return Standing::Around;
    }
    common.write(host, STATUS, 1, 0);
    Standing::Behind
}

/// The common configuration, through the function's configuration space.
struct Common {
    bdf: Bdf,
    access: u16,
    bar: u32,
    offset: u32,
}

impl Common {
    fn of(host: &impl ConfigSpace, bdf: Bdf) -> Option<Self> {
        let find = |kind| capability::list(host, bdf).find(|c| is_virtio_kind(c.1, kind..=kind)).map(|c| c.0);
        let (common, access) = (find(COMMON)?, find(PCI_ACCESS)?);
        let (bar, offset) = (host.read32(bdf, common + BAR) & 0xff, host.read32(bdf, common + OFFSET));
        Some(Self { bdf, access, bar, offset })
    }

    /// Points the window at `bytes` of a register.
    fn point(&self, host: &impl ConfigSpace, register: u32, bytes: u32) {
        host.write32(self.bdf, self.access + BAR, self.bar);
        host.write32(self.bdf, self.access + OFFSET, self.offset.wrapping_add(register));
        host.write32(self.bdf, self.access + LENGTH, bytes);
    }

    fn read(&self, host: &impl ConfigSpace, register: u32) -> u32 {
        self.point(host, register, 4);
        host.read32(self.bdf, self.access + DATA)
    }

    fn write(&self, host: &impl ConfigSpace, register: u32, bytes: u32, value: u32) {
        self.point(host, register, bytes);
        host.write32(self.bdf, self.access + DATA, value);
    }
}

fn is_virtio_kind(header: u32, kinds: core::ops::RangeInclusive<u32>) -> bool {
    header as u8 == VENDOR_SPECIFIC && kinds.contains(&(header >> 24))
}

/// The capabilities a VM sees of a virtio function, as registers and what they hold, the pointer to the first among
/// them: those that say where in its BARs its structures are. They point to one another alone, not to MSI-X, nor to the
/// PCI configuration access.
pub(super) fn shown_capabilities(host: &impl ConfigSpace, bdf: Bdf) -> Vec<(u16, u32)> {
    let mut words: Vec<(u16, u32)> = Vec::from([(CAPABILITIES, 0)]);
    let mut last = 0;
    for (offset, header) in capability::list(host, bdf).filter(|c| is_virtio_kind(c.1, COMMON..=DEVICE)) {
        if words.iter().any(|word| word.0 == offset) {
            // The list leads back to itself.
            break;
        }
        // The pointer is the lowest byte at first, then the second of each capability.
        words[last].1 |= u32::from(offset) << if last == 0 { 0 } else { 8 };
        last = words.len();
        words.push((offset, header & !0xff00));
        let bytes = (header >> 16 & 0xff).min(LONGEST) as u16;
        words.extend((4..bytes).step_by(4).map(|at| (offset + at, host.read32(bdf, offset + at))));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeHost, bdf};
    use super::*;

    const OFFERED: u64 = 1 << 33 | 1 << 32;

    fn standing_of(host: &FakeHost, ids: u32) -> Standing {
        standing(host, bdf("00:04.0"), ids)
    }

    #[test]
    fn a_function_that_offers_access_platform_is_behind_the_smmu_and_is_reset() {
        let host = FakeHost::default();
        host.add_virtio(bdf("00:04.0"), OFFERED);
        assert_eq!(standing_of(&host, 0x1044_1af4), Standing::Behind);
        assert_eq!(host.virtio_status(bdf("00:04.0")), 0);
    }

    #[test]
    fn every_bit_but_access_platform_is_not_enough() {
        let host = FakeHost::default();
        host.add_virtio(bdf("00:04.0"), !(1 << 33));
        assert_eq!(standing_of(&host, 0x1044_1af4), Standing::Around);
        assert_eq!(host.virtio_status(bdf("00:04.0")), 0x0f, "what is refused is not touched");
    }

    #[test]
    fn a_transitional_function_is_never_behind_the_smmu() {
        let host = FakeHost::default();
        host.add_virtio(bdf("00:04.0"), OFFERED);
        assert_eq!(standing_of(&host, 0x1005_1af4), Standing::Around);
        assert_eq!(standing_of(&host, 0x103f_1af4), Standing::Around);
        assert_eq!(standing_of(&host, 0x1040_1af4), Standing::Behind);
    }

    #[test]
    fn features_that_cannot_be_read_are_not_known() {
        let host = FakeHost::default();
        host.add(bdf("00:04.0"), 0x1044_1af4);
        assert_eq!(standing_of(&host, 0x1044_1af4), Standing::Unknown);
        host.add_virtio(bdf("00:04.0"), OFFERED);
        // The window has no length, and holds ones.
        host.register(bdf("00:04.0"), 0xa4, 0, 0);
        host.set(bdf("00:04.0"), 0xa8, u32::MAX);
        assert_eq!(standing_of(&host, 0x1044_1af4), Standing::Unknown);
    }

    #[test]
    fn shown_are_the_structures_and_neither_msix_nor_the_configuration_access() {
        let host = FakeHost::default();
        host.add_virtio(bdf("00:04.0"), OFFERED);
        let words = shown_capabilities(&host, bdf("00:04.0"));
        let expected = [
            (0x34, 0x0000_0050),
            (0x50, 0x0110_6009),
            (0x54, 0x0000_0004),
            (0x58, 0x0000_0000),
            (0x5c, 0x0000_1000),
            (0x60, 0x0310_8009),
            (0x64, 0x0000_0004),
            (0x68, 0x0000_1000),
            (0x6c, 0x0000_1000),
            (0x80, 0x0214_0009),
            (0x84, 0x0000_0004),
            (0x88, 0x0000_3000),
            (0x8c, 0x0000_1000),
            (0x90, 0x0000_0004),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_list_that_leads_back_is_shown_once() {
        let host = FakeHost::default();
        host.add_virtio(bdf("00:04.0"), OFFERED);
        host.set(bdf("00:04.0"), 0x80, 0x0214_5009);
        assert_eq!(shown_capabilities(&host, bdf("00:04.0")).len(), 14);
    }
}
