//! PCIe hosts: configuration space, address windows, and how requester IDs become stream IDs and MSIs.

use arrayvec::ArrayVec;
use strandline::addr::{Pa, StreamId};

use super::devices::SmmuNode;
use super::memory::push;
use super::tree::{Cells, Place, Tree};
use super::{Region, TreeError};

/// How many PCIe hosts a machine may have.
pub const MAX_HOSTS: usize = 8;
/// How many address windows a host may have.
pub const MAX_WINDOWS: usize = 4;
/// How many entries its `iommu-map` may have.
pub const MAX_IOMMU_MAP: usize = 8;

/// A PCIe host with memory-mapped configuration space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcieHost {
    /// The name of its node.
    pub name: &'static str,
    /// The configuration space: 1 MiB a bus, the first bus first.
    pub ecam: Region,
    /// The number of the first bus.
    pub first_bus: u8,
    /// The number of the last bus.
    pub last_bus: u8,
    /// Where BARs can be put.
    pub windows: ArrayVec<Window, MAX_WINDOWS>,
    /// Where its devices write to raise an MSI, where the machine has an MSI controller for them.
    pub msi_doorbell: Option<Pa>,
    iommu_map: ArrayVec<IommuMapEntry, MAX_IOMMU_MAP>,
    iommu_map_mask: u32,
}

/// What kind of BARs a window is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Addresses below 4 GiB on the bus: BARs of 32 bits and, where there is nothing better, of 64.
    Mem32,
    /// BARs of 64 bits.
    Mem64,
}

/// A range of bus addresses that the host forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// For which BARs.
    pub kind: WindowKind,
    /// Where the CPU sees it.
    pub cpu: Region,
    /// The first address on the bus.
    pub pci: u64,
}

/// A range of requester IDs, and the streams they are at an SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IommuMapEntry {
    first_rid: u32,
    smmu: usize,
    first_stream: u32,
    count: u32,
}

impl PcieHost {
    /// The SMMU (its index in [`super::Machine::smmus`]) and the stream ID by which it knows the function with this
    /// requester ID (bus << 8 | device << 3 | function). `None`: no SMMU stands in front of it.
    pub fn stream_of(&self, requester_id: u16) -> Option<(usize, StreamId)> {
        let rid = u32::from(requester_id) & self.iommu_map_mask;
        let entry =
            self.iommu_map.iter().find(|e| rid.checked_sub(e.first_rid).is_some_and(|i| i < e.count))?;
        Some((entry.smmu, StreamId(entry.first_stream + (rid - entry.first_rid))))
    }
}

/// Configuration space of one bus (PCI Express Base Specification §7.2.2).
const ECAM_BUS_BYTES: u64 = 1 << 20;

/// Adds the machine's PCIe hosts, in the tree's order; there may be none.
///
/// # Errors
/// A node is wrong.
pub fn read_hosts(
    tree: Tree,
    smmus: &[SmmuNode],
    hosts: &mut ArrayVec<PcieHost, MAX_HOSTS>,
) -> Result<(), TreeError> {
    tree.each_compatible(&["pci-host-ecam-generic"], &mut |place| {
        push(hosts, "PCIe hosts", read_host(tree, place, smmus)?)
    })
}

fn read_host(tree: Tree, place: &Place, smmus: &[SmmuNode]) -> Result<PcieHost, TreeError> {
    let reg = place.reg(0)?;
    let (first_bus, last_bus) = bus_range(place, reg)?;
    let bytes = (u64::from(last_bus - first_bus) + 1) * ECAM_BUS_BYTES;
    if bytes > reg.bytes() {
        return Err(place.wrong("bus-range", "has more buses than reg has configuration space for"));
    }
    let ecam = Region::new(reg.start().0, bytes).ok_or_else(|| place.wrong("reg", "is empty or wraps"))?;
    Ok(PcieHost {
        name: place.name(),
        ecam,
        first_bus,
        last_bus,
        windows: read_windows(place)?,
        msi_doorbell: read_doorbell(tree, place)?,
        iommu_map: read_iommu_map(tree, place, smmus)?,
        iommu_map_mask: place.cell("iommu-map-mask")?.unwrap_or(u32::MAX),
    })
}

/// `bus-range` or, where that is missing, as many buses as `reg` has room for.
fn bus_range(place: &Place, reg: Region) -> Result<(u8, u8), TreeError> {
    let Some(range) = place.property("bus-range") else {
        let buses = (reg.bytes() / ECAM_BUS_BYTES).min(256);
        let last = buses.checked_sub(1).and_then(|last| u8::try_from(last).ok());
        return Ok((0, last.ok_or_else(|| place.wrong("reg", "has no room for one bus"))?));
    };
    let mut cells = Cells(range);
    let first = cells.cell().and_then(|c| u8::try_from(c).ok());
    let last = cells.cell().and_then(|c| u8::try_from(c).ok());
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(place.wrong("bus-range", "is not two ascending bus numbers")),
    }
}

/// The memory windows of `ranges` (IEEE 1275 PCI binding: three cells of bus address, the first of which has the
/// address space in bits 25:24).
fn read_windows(place: &Place) -> Result<ArrayVec<Window, MAX_WINDOWS>, TreeError> {
    let mut windows = ArrayVec::new();
    let mut cells = Cells(place.property("ranges").unwrap_or_default());
    while !cells.is_empty() {
        let entry = read_window(place, &mut cells);
        let (space, pci, cpu) = entry.ok_or_else(|| place.wrong("ranges", "has an entry that is broken"))?;
        let kind = match space {
            0b10 => WindowKind::Mem32,
            0b11 => WindowKind::Mem64,
            // Port I/O: nothing here uses it.
            _ => continue,
        };
        push(&mut windows, "windows of a PCIe host", Window { kind, cpu, pci })?;
    }
    Ok(windows)
}

fn read_window(place: &Place, cells: &mut Cells) -> Option<(u32, u64, Region)> {
    let space = cells.cell()? >> 24 & 0b11;
    let pci = cells.take(2)?;
    let start = cells.take(place.parent_address_cells()?)?;
    let cpu = Region::new(start, cells.take(2)?)?;
    pci.checked_add(cpu.bytes())?;
    Some((space, pci, cpu))
}

/// `iommu-map`: first requester ID, SMMU, first stream ID, how many. Entries that name something else than one of
/// `smmus` are left out: what stands behind them has no stream. So it is with an SMMU that is switched off; what is
/// nowhere is a mistake.
fn read_iommu_map(
    tree: Tree,
    place: &Place,
    smmus: &[SmmuNode],
) -> Result<ArrayVec<IommuMapEntry, MAX_IOMMU_MAP>, TreeError> {
    let mut map = ArrayVec::new();
    let mut cells = Cells(place.property("iommu-map").unwrap_or_default());
    while !cells.is_empty() {
        let entry = read_map_entry(&mut cells)
            .ok_or_else(|| place.wrong("iommu-map", "has an entry that is broken or wraps"))?;
        let MapEntry { first_rid, phandle, first_target: first_stream, count } = entry;
        let Some(smmu) = smmus.iter().position(|s| s.phandle == Some(phandle)) else {
            if tree.has_phandle(phandle) {
                continue;
            }
            return Err(place.wrong("iommu-map", "leads to a node that is not there"));
        };
        let meets = |e: &IommuMapEntry| first_rid < e.first_rid + e.count && e.first_rid < first_rid + count;
        if map.iter().any(meets) {
            return Err(place.wrong("iommu-map", "maps one requester twice"));
        }
        push(
            &mut map,
            "iommu-map entries of a PCIe host",
            IommuMapEntry { first_rid, smmu, first_stream, count },
        )?;
    }
    Ok(map)
}

/// An entry of `iommu-map` or `msi-map`.
struct MapEntry {
    first_rid: u32,
    phandle: u32,
    first_target: u32,
    count: u32,
}

fn read_map_entry(cells: &mut Cells) -> Option<MapEntry> {
    let entry = MapEntry {
        first_rid: cells.cell()?,
        phandle: cells.cell()?,
        first_target: cells.cell()?,
        count: cells.cell()?,
    };
    entry.first_rid.checked_add(entry.count)?;
    entry.first_target.checked_add(entry.count)?;
    Some(entry)
}

/// Where the host's MSI controller, named by `msi-map` or `msi-parent`, is written to.
fn read_doorbell(tree: Tree, place: &Place) -> Result<Option<Pa>, TreeError> {
    let from_map = place.property("msi-map").and_then(|map| read_map_entry(&mut Cells(map)));
    let parent = place.property("msi-parent").and_then(|parent| Cells(parent).cell());
    let Some(phandle) = from_map.map(|entry| entry.phandle).or(parent) else { return Ok(None) };
    let Some(controller) = tree.by_phandle(phandle)? else { return Ok(None) };
    let offset = if controller.compatible_with(&["arm,gic-v3-its"]).is_some() {
        GITS_TRANSLATER
    } else if controller.compatible_with(&["arm,gic-v2m-frame"]).is_some() {
        V2M_MSI_SETSPI
    } else {
        return Ok(None);
    };
    let region = controller.reg(0)?;
    if region.bytes() <= offset {
        return Err(controller.wrong("reg", "does not hold the register that MSIs are written to"));
    }
    Ok(Some(region.start().offset(offset)))
}

/// GITS_TRANSLATER (IHI 0069 §12.19).
const GITS_TRANSLATER: u64 = 0x1_0040;
/// MSI_SETSPI_NS of a GICv2m frame (Server Base System Architecture, appendix on GICv2m).
const V2M_MSI_SETSPI: u64 = 0x40;
