//! The machine's PCIe host as EL2 uses it: its configuration space, and its windows.
#![expect(unsafe_code, reason = "accesses to the configuration space")]

use alloc::format;
use alloc::string::String;
use core::ptr::{read_volatile, with_exposed_provenance_mut, write_volatile};

use super::machine::{Machine, PcieHost, WindowKind};
use super::smmus::Stream;
use super::vpci::{Bdf, ConfigSpace, HostWindows, PciWindow, silence_bus};

/// The configuration space of one host (PCI Express, ECAM): 4 KiB a function.
#[derive(Clone, Copy)]
pub struct Ecam {
    base: u64,
    first_bus: u8,
    last_bus: u8,
}

impl Ecam {
    fn word(&self, bdf: Bdf, offset: u16) -> Option<*mut u32> {
        let bus = bdf.bus();
        if !(self.first_bus..=self.last_bus).contains(&bus) || offset >= 4096 || !offset.is_multiple_of(4) {
            return None;
        }
        let function = u64::from(bdf.requester_id()) - (u64::from(self.first_bus) << 8);
        Some(with_exposed_provenance_mut((self.base + (function << 12) + u64::from(offset)) as usize))
    }
}

impl ConfigSpace for Ecam {
    fn read32(&self, bdf: Bdf, offset: u16) -> u32 {
        let Some(word) = self.word(bdf, offset) else { return u32::MAX };
        // SAFETY: inside the ECAM that the device tree names and EL2 has mapped as device memory, aligned.
        unsafe { read_volatile(word) }
    }

    fn write32(&self, bdf: Bdf, offset: u16, value: u32) {
        let Some(word) = self.word(bdf, offset) else { return };
        // SAFETY: as for reads; a function's registers are EL2's to write, guests reach them through EL2 alone.
        unsafe { write_volatile(word, value) };
    }
}

/// The PCIe host whose functions can be assigned: the first of the device tree.
pub struct PciRoot<'m> {
    host: &'m PcieHost,
    /// Its configuration space.
    pub ecam: Ecam,
    /// Where BARs can go.
    pub windows: HostWindows,
}

impl<'m> PciRoot<'m> {
    /// The machine's first PCIe host, all functions of its root bus silenced; `None` where there is no host.
    pub fn new(machine: &'m Machine, pa_bits: u32) -> Option<Self> {
        let host = machine.pcie.first()?;
        let ecam = Ecam { base: host.ecam.start().0, first_bus: host.first_bus, last_bus: host.last_bus };
        silence_bus(&ecam, host.first_bus);
        let reachable = |w: &&super::machine::Window| w.cpu.end().0 <= 1 << pa_bits;
        let window = |kind| {
            let window = host.windows.iter().filter(reachable).find(|w| w.kind == kind)?;
            Some(PciWindow { cpu: window.cpu.start(), pci: window.pci, bytes: window.cpu.bytes() })
        };
        let windows = HostWindows::new(window(WindowKind::Mem32), window(WindowKind::Mem64));
        Some(Self { host, ecam, windows })
    }

    /// The stream of a function.
    ///
    /// # Errors
    /// No SMMU stands in front of it: it is never given to a VM.
    pub fn stream_of(&self, bdf: Bdf) -> Result<Stream, String> {
        let lack =
            || format!("device {bdf}: no SMMU stands in front of it (iommu-map): its DMA can't be confined");
        self.host.stream_of(bdf.requester_id()).ok_or_else(lack)
    }
}
