//! Devices of the machine that are no PCI functions: given to a VM by the path of their node. Read when there is an allocator.

use alloc::vec::Vec;

use strandline::addr::StreamId;

use super::tree::{Cells, Place};
use super::{Machine, Region, TreeError};

/// What a device has that another may have, too: by which the two are not isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A function of the PCI device with this requester ID, of which the function's three bits are 0.
    Function(u16),
    /// A stream of an SMMU, by its index in [`Machine::smmus`].
    Stream(usize, StreamId),
    /// Registers.
    Registers(Region),
    /// An interrupt line, by INTID.
    Line(u32),
}

/// A device that an SMMU stands in front of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformDevice {
    /// The node's name.
    pub name: &'static str,
    /// What it is compatible with: strings, each with a NUL behind it.
    pub compatible: &'static [u8],
    /// Its accesses to memory are coherent with the CPUs' caches.
    pub coherent: bool,
    /// Its registers in whole pages, its streams, and its interrupt lines.
    pub parts: Vec<Part>,
}

impl Machine {
    /// The device whose node is at `path`; `None` where there is no such node, or it is switched off.
    ///
    /// # Errors
    /// It can't be given away: no SMMU of the machine stands in front of it, its registers or interrupts aren't its alone,
    /// or the node is wrong.
    pub fn platform_device(&self, path: &str) -> Result<Option<PlatformDevice>, TreeError> {
        let Some(place) = self.tree.by_path(path)? else { return Ok(None) };
        let mut parts = Vec::new();
        self.read_streams(&place, &mut parts)?;
        self.read_registers(&place, &mut parts)?;
        self.read_lines(&place, &mut parts)?;
        let coherent = place.property("dma-coherent").is_some();
        let compatible = place.property("compatible").unwrap_or_default();
        Ok(Some(PlatformDevice { name: place.name(), compatible, coherent, parts }))
    }

    /// The streams of `iommus`: an SMMU and a StreamID each.
    fn read_streams(&self, place: &Place, parts: &mut Vec<Part>) -> Result<(), TreeError> {
        const IOMMUS: &str = "iommus";
        let mut cells = Cells(place.property(IOMMUS).unwrap_or_default());
        if cells.is_empty() {
            return Err(
                place.wrong(IOMMUS, "is missing: no SMMU stands in front of it, its DMA can't be confined")
            );
        }
        while !cells.is_empty() {
            let (phandle, id) = (cells.cell(), cells.cell());
            let smmu = self.smmus.iter().position(|smmu| smmu.phandle.is_some() && smmu.phandle == phandle);
            let Some((smmu, id)) = smmu.zip(id) else {
                return Err(place.wrong(IOMMUS, "names something else than a stream of an SMMUv3"));
            };
            parts.push(Part::Stream(smmu, StreamId(id)));
        }
        Ok(())
    }

    /// The registers, which a VM gets whole pages of: nobody else's may lie there.
    fn read_registers(&self, place: &Place, parts: &mut Vec<Part>) -> Result<(), TreeError> {
        let claimed = self.claimed();
        for index in 0..place.reg_count()? {
            let region = place.reg(index)?;
            if region.pages_inside() != Some(region) {
                return Err(
                    place.wrong("reg", "is not whole pages: what else lies there would be given away, too")
                );
            }
            if let Some(other) = claimed.iter().find(|(_, other)| other.overlaps(region)) {
                return Err(TreeError::Overlap { one: (place.name(), region), other: *other });
            }
            parts.push(Part::Registers(region));
        }
        Ok(())
    }

    /// The interrupt lines: none is EL2's own.
    fn read_lines(&self, place: &Place, parts: &mut Vec<Part>) -> Result<(), TreeError> {
        if place.property("interrupts-extended").is_some() {
            return Err(place.wrong("interrupts-extended", "is not supported"));
        }
        for index in 0..self.gic.interrupt_count(place) {
            let line = self.gic.interrupt(place, index)?.intid;
            let is_smmus =
                self.smmus.iter().any(|smmu| smmu.event.intid == line || smmu.gerror.intid == line);
            if is_smmus || line == self.timer.intid {
                return Err(place.wrong("interrupts", "has a line that is an SMMU's or the timer's"));
            }
            parts.push(Part::Line(line));
        }
        Ok(())
    }
}
