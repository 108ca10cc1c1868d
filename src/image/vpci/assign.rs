//! Giving a function to a VM.

use alloc::vec::Vec;
use core::fmt;

use strandline::addr::{Ipa, PAGE_BYTES, Pa};

use super::bar::{Bar, OddBar, probe};
use super::bdf::Bdf;
use super::capability::switch_off;
use super::config::{
    BARS, COMMAND_INTX_DISABLE, COMMAND_MEMORY, COMMAND_STATUS, ConfigSpace, HEADER, HEADER_LAYOUT, IDS, ROM,
};
use super::function::{disable, is_present};
use super::virtio::{self, Standing};
use super::window::{HostWindows, Window};

/// A run of device pages to be mapped in a VM's CPU view, as device memory, readable and writable. Never part of a DMA
/// view or of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarMapping {
    /// Where the guest finds it; a multiple of `bytes`.
    pub ipa: Ipa,
    /// Where the function decodes it, as the CPU sees it; a multiple of 4 KiB.
    pub pa: Pa,
    /// A power of two of at least 4 KiB: of a smaller BAR, the page it is alone in.
    pub bytes: u64,
}

/// A BAR, and where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AssignedBar {
    pub bar: Bar,
    /// Its address on the host's bus.
    pub pci: u64,
    pub mapping: BarMapping,
}

/// A function that belongs to a VM: it decodes its memory BARs, and may not yet start transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedFunction {
    bdf: Bdf,
    bars: Vec<AssignedBar>,
}

impl AssignedFunction {
    /// Which function of the machine it is.
    #[must_use]
    pub const fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// What is to be mapped, in the order of its BARs.
    pub fn mappings(&self) -> impl Iterator<Item = BarMapping> {
        self.bars.iter().map(|bar| bar.mapping)
    }

    pub(super) fn bars(&self) -> &[AssignedBar] {
        &self.bars
    }

    /// Gives its pieces of the host's windows back. The function was quiesced before, and its BARs are unmapped.
    pub fn release(self, windows: &mut HostWindows) {
        for bar in self.bars {
            windows.give_back(bar.pci);
        }
    }
}

/// Why a function can't be given to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignError {
    /// It is on another bus than the root bus.
    BehindBridge(Bdf),
    /// There is no function.
    NoDevice(Bdf),
    /// It is a bridge.
    Bridge(Bdf),
    /// Its header has a layout that isn't known; carries the layout.
    Header(Bdf, u8),
    /// It is a virtio function whose transactions the SMMU would not see.
    VirtioAround(Bdf),
    /// It is a virtio function, and can't tell its features.
    VirtioUnknown(Bdf),
    /// A BAR that can't be understood: its index, and what it read after all ones were written.
    OddBar(Bdf, usize, u64),
    /// No room in the host's windows for a BAR: its index, and its bytes.
    HostWindowFull(Bdf, usize, u64),
    /// No room in the guest's window for a BAR: its index, and its bytes.
    GuestWindowFull(Bdf, usize, u64),
}

impl fmt::Display for AssignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BehindBridge(bdf) => write!(f, "{bdf} is behind a bridge: not supported yet"),
            Self::NoDevice(bdf) => write!(f, "no device at {bdf}"),
            Self::Bridge(bdf) => write!(f, "{bdf} is a bridge: it stays with the hypervisor"),
            Self::Header(bdf, layout) => write!(f, "{bdf} has a header of unknown layout {layout:#x}"),
            Self::VirtioAround(bdf) => write!(
                f,
                "{bdf} is virtio without VIRTIO_F_ACCESS_PLATFORM, it would go round the SMMU: give it \
                 disable-legacy=on,iommu_platform=on"
            ),
            Self::VirtioUnknown(bdf) => {
                write!(f, "{bdf} is virtio that doesn't tell its features: it may go round the SMMU")
            }
            Self::OddBar(bdf, index, mask) => {
                write!(f, "{bdf}: BAR {index} can't be sized, it reads {mask:#x}")
            }
            Self::HostWindowFull(bdf, index, bytes) => {
                write!(f, "{bdf}: no room for BAR {index} of {bytes:#x} bytes in the host bridge's windows")
            }
            Self::GuestWindowFull(bdf, index, bytes) => {
                write!(f, "{bdf}: no room for BAR {index} of {bytes:#x} bytes in the guest's PCI window")
            }
        }
    }
}

/// Takes the function `bdf` for a VM: makes it quiet, finds its memory BARs, places each alone in pages of a host
/// window and of the `guest` window, and lets it decode them. I/O BARs and the expansion ROM stay without an address.
///
/// The VM's ownership of the function's isolation group has been established before ([`super::Ownership`]).
///
/// # Errors
/// Why not. Nothing is taken from the windows then; the function, if there is one that isn't a bridge, is quiet.
pub fn assign(
    host: &impl ConfigSpace,
    windows: &mut HostWindows,
    bdf: Bdf,
    guest: &mut Window,
) -> Result<AssignedFunction, AssignError> {
    check(host, bdf)?;
    disable(host, bdf);
    switch_off(host, bdf);
    check_virtio(host, bdf)?;
    host.write32(bdf, ROM, 0);
    let found = memory_bars(host, bdf)?;
    let mut bars = Vec::new();
    for bar in found {
        match place(bdf, bar, windows, guest) {
            Ok(placed) => bars.push(placed),
            Err(error) => {
                give_back(&bars, windows, guest);
                return Err(error);
            }
        }
    }
    for assigned in &bars {
        assigned.bar.place(host, bdf, assigned.pci);
    }
    host.write32(bdf, COMMAND_STATUS, COMMAND_MEMORY | COMMAND_INTX_DISABLE);
    Ok(AssignedFunction { bdf, bars })
}

/// Whether it is a function that can be given away.
fn check(host: &impl ConfigSpace, bdf: Bdf) -> Result<(), AssignError> {
    if bdf.bus() != 0 {
        return Err(AssignError::BehindBridge(bdf));
    }
    if !is_present(host, bdf) {
        return Err(AssignError::NoDevice(bdf));
    }
    match (host.read32(bdf, HEADER) & HEADER_LAYOUT) >> 16 {
        0 => {}
        1 => return Err(AssignError::Bridge(bdf)),
        layout => return Err(AssignError::Header(bdf, layout as u8)),
    }
    Ok(())
}

/// Whether it is no virtio function, or one that the SMMU sees.
fn check_virtio(host: &impl ConfigSpace, bdf: Bdf) -> Result<(), AssignError> {
    let ids = host.read32(bdf, IDS);
    if !virtio::is_virtio(ids) {
        return Ok(());
    }
    match virtio::standing(host, bdf, ids) {
        Standing::Behind => Ok(()),
        Standing::Around => Err(AssignError::VirtioAround(bdf)),
        Standing::Unknown => Err(AssignError::VirtioUnknown(bdf)),
    }
}

/// The memory BARs, all registers left at zero.
fn memory_bars(host: &impl ConfigSpace, bdf: Bdf) -> Result<Vec<Bar>, AssignError> {
    let mut bars = Vec::new();
    let mut index = 0;
    while index < BARS {
        let bar = probe(host, bdf, index)
            .map_err(|OddBar { index, mask }| AssignError::OddBar(bdf, index, mask))?;
        index += if bar.is_some_and(Bar::is_64) { 2 } else { 1 };
        bars.extend(bar);
    }
    Ok(bars)
}

fn place(
    bdf: Bdf,
    bar: Bar,
    windows: &mut HostWindows,
    guest: &mut Window,
) -> Result<AssignedBar, AssignError> {
    let bytes = bar.bytes.max(PAGE_BYTES);
    let full = AssignError::HostWindowFull(bdf, bar.index, bar.bytes);
    let placed = windows.take(bytes, bar.is_64()).ok_or(full)?;
    let Some(ipa) = guest.take(bytes) else {
        windows.give_back(placed.pci);
        return Err(AssignError::GuestWindowFull(bdf, bar.index, bar.bytes));
    };
    Ok(AssignedBar { bar, pci: placed.pci, mapping: BarMapping { ipa: Ipa(ipa), pa: placed.cpu, bytes } })
}

fn give_back(bars: &[AssignedBar], windows: &mut HostWindows, guest: &mut Window) {
    for bar in bars {
        windows.give_back(bar.pci);
        guest.give_back(bar.mapping.ipa.0);
    }
}

#[cfg(test)]
mod tests;
