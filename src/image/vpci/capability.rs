//! Capability lists, walked with bounds, and the capabilities that are switched off in an assigned function.

use super::bdf::Bdf;
use super::config::{CAPABILITIES, COMMAND_STATUS, ConfigSpace, STATUS_CAPABILITIES};

/// MSI.
const MSI: u8 = 0x05;
/// PCI Express.
const PCI_EXPRESS: u8 = 0x10;
/// MSI-X.
const MSIX: u8 = 0x11;

/// Address translation services.
const ATS: u16 = 0x0f;
/// Single-root I/O virtualisation.
const SRIOV: u16 = 0x10;
/// Page requests.
const PAGE_REQUEST: u16 = 0x13;
/// Process address space IDs.
const PASID: u16 = 0x1b;

/// Where the first capability and the first extended capability can stand.
const FIRST: u16 = 0x40;
const FIRST_EXTENDED: u16 = 0x100;
/// A list without a loop has no more entries than fit: 4 bytes at least for each one, 8 for each extended one.
const MOST: usize = (0x100 - FIRST as usize) / 4;
const MOST_EXTENDED: usize = (0x1000 - FIRST_EXTENDED as usize) / 8;

/// Where each capability stands, and its first word, in the list's order.
pub(super) fn list(host: &impl ConfigSpace, bdf: Bdf) -> impl Iterator<Item = (u16, u32)> {
    let listed = host.read32(bdf, COMMAND_STATUS) & STATUS_CAPABILITIES != 0;
    let mut offset = if listed { pointer(host.read32(bdf, CAPABILITIES)) } else { 0 };
    core::iter::from_fn(move || {
        if offset < FIRST {
            return None;
        }
        let found = (offset, host.read32(bdf, offset));
        offset = pointer(found.1 >> 8);
        Some(found)
    })
    .take(MOST)
}

/// Where the capability `id` stands.
fn find(host: &impl ConfigSpace, bdf: Bdf, id: u8) -> Option<u16> {
    list(host, bdf).find(|(_, header)| *header as u8 == id).map(|(offset, _)| offset)
}

/// A capability pointer, its two reserved bits masked.
const fn pointer(byte: u32) -> u16 {
    (byte & 0xfc) as u16
}

/// Where the extended capability `id` stands. Only a PCI Express function has such capabilities: others may answer
/// anything there.
fn find_extended(host: &impl ConfigSpace, bdf: Bdf, id: u16) -> Option<u16> {
    find(host, bdf, PCI_EXPRESS)?;
    let mut offset = FIRST_EXTENDED;
    for _ in 0..MOST_EXTENDED {
        let header = host.read32(bdf, offset);
        if offset < FIRST_EXTENDED || header == 0 || header == u32::MAX {
            return None;
        }
        if header as u16 == id {
            return Some(offset);
        }
        offset = (header >> 20) as u16 & 0xffc;
    }
    None
}

/// A control register that is switched off: its word in the capability, and the bits of the word that are written back
/// as they were read. Status bits that a one clears are never among these.
struct Switch<Id> {
    capability: Id,
    word: u16,
    keep: u32,
}

const SWITCHES: [Switch<u8>; 3] = [
    // MSI Enable and MSI-X Enable stand in the upper half, beside the capability's header.
    Switch { capability: MSI, word: 0, keep: !(1 << 16) },
    Switch { capability: MSIX, word: 0, keep: !(1 << 31) },
    Switch { capability: PCI_EXPRESS, word: 8, keep: 0xffff & !(CONTROL_PHANTOM | CONTROL_NO_SNOOP) },
];

const EXTENDED_SWITCHES: [Switch<u16>; 4] = [
    // Control in the upper half, capability bits in the lower.
    Switch { capability: ATS, word: 4, keep: !(1 << 31) },
    Switch { capability: PASID, word: 4, keep: !(1 << 16) },
    // Control in the lower half, status in the upper. Of SR-IOV: VF Enable and VF Memory Space Enable.
    Switch { capability: PAGE_REQUEST, word: 4, keep: 0xfffe },
    Switch { capability: SRIOV, word: 8, keep: 0xfff6 },
];

/// Switches off what lets a function write to the interrupt controller, go round the SMMU's translation, or appear
/// under another requester ID: MSI, MSI-X, ATS, page requests, PASIDs, virtual functions, phantom functions. Clears
/// 'no snoop' too, as the guest is told that its devices are coherent.
pub(super) fn switch_off(host: &impl ConfigSpace, bdf: Bdf) {
    for switch in SWITCHES {
        write_back(host, bdf, find(host, bdf, switch.capability), &switch);
    }
    for switch in EXTENDED_SWITCHES {
        write_back(host, bdf, find_extended(host, bdf, switch.capability), &switch);
    }
}

fn write_back<Id>(host: &impl ConfigSpace, bdf: Bdf, capability: Option<u16>, switch: &Switch<Id>) {
    if let Some(capability) = capability {
        let offset = at(capability, switch.word);
        host.write32(bdf, offset, host.read32(bdf, offset) & switch.keep);
    }
}

/// `offset + by`, inside the function's space.
const fn at(offset: u16, by: u16) -> u16 {
    (offset + by) & 0xffc
}

/// Device control: phantom functions, no snoop, initiate function level reset.
const CONTROL_PHANTOM: u32 = 1 << 9;
const CONTROL_NO_SNOOP: u32 = 1 << 11;
const CONTROL_RESET: u32 = 1 << 15;
/// Device status, in the upper half of the same word: transactions pending.
const STATUS_PENDING: u32 = 1 << 21;
/// Device capabilities: function level reset.
const CAPABLE_OF_RESET: u32 = 1 << 28;

/// The PCI Express capability of a function.
pub(super) struct PciExpress {
    bdf: Bdf,
    offset: u16,
}

impl PciExpress {
    pub(super) fn of(host: &impl ConfigSpace, bdf: Bdf) -> Option<Self> {
        Some(Self { bdf, offset: find(host, bdf, PCI_EXPRESS)? })
    }

    /// Whether the function can be reset alone.
    pub(super) fn can_reset(&self, host: &impl ConfigSpace) -> bool {
        host.read32(self.bdf, at(self.offset, 4)) & CAPABLE_OF_RESET != 0
    }

    /// Whether the function waits for an answer to a request of its own.
    pub(super) fn is_pending(&self, host: &impl ConfigSpace) -> bool {
        host.read32(self.bdf, at(self.offset, 8)) & STATUS_PENDING != 0
    }

    /// Begins a function level reset. The status half, cleared by writing one, is written with zeros.
    pub(super) fn reset(&self, host: &impl ConfigSpace) {
        let control = host.read32(self.bdf, at(self.offset, 8)) & 0xffff;
        host.write32(self.bdf, at(self.offset, 8), control | CONTROL_RESET);
    }
}
