//! The devices EL2 itself drives: interrupt controller, timer, SMMUs. The console is in `console`, power in `firmware`.

use arrayvec::ArrayVec;
use strandline::smmu::Errata;

use super::memory::push;
use super::tree::{Cells, Place, Tree};
use super::{Region, TreeError};

/// How many SMMUs a machine may have.
pub const MAX_SMMUS: usize = 8;
/// How many regions of redistributors a GIC may have.
pub const MAX_REDISTRIBUTORS: usize = 8;

/// When an interrupt is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By an edge.
    Edge,
    /// By a level.
    Level,
}

/// An interrupt of the GIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number as the GIC counts: 16–31 are private to a CPU (PPI), 32–1019 shared (SPI).
    pub intid: u32,
    /// How it is signalled.
    pub trigger: Trigger,
}

/// The interrupt controller, a GICv3 or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gic {
    /// The name of its node.
    pub name: &'static str,
    /// The distributor's registers.
    pub distributor: Region,
    /// The redistributors' registers, in one piece or several.
    pub redistributors: ArrayVec<Region, MAX_REDISTRIBUTORS>,
    phandle: Option<u32>,
    cells: usize,
}

const GIC_V2: &[&str] = &["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic"];

impl Gic {
    /// The machine's GICv3.
    ///
    /// # Errors
    /// There is none, there is a GICv2, or the node is wrong.
    pub fn read(tree: Tree) -> Result<Self, TreeError> {
        let Some(place) = tree.find(&mut |p| Ok(p.compatible_with(&["arm,gic-v3"]).is_some()))? else {
            let older = tree.find(&mut |p| Ok(p.compatible_with(GIC_V2).is_some()))?;
            return Err(older.map_or(TreeError::Missing("GICv3 (compatible = \"arm,gic-v3\")"), |p| {
                p.unsupported("GICv2 (a GICv3 is needed)")
            }));
        };
        let regions = place.cell("#redistributor-regions")?.unwrap_or(1) as usize;
        let mut redistributors = ArrayVec::new();
        for index in 1..=regions {
            push(&mut redistributors, "regions of redistributors", place.reg(index)?)?;
        }
        let cells = place.cell("#interrupt-cells")?.unwrap_or(3) as usize;
        if !(3..=4).contains(&cells) {
            return Err(place.wrong("#interrupt-cells", "is neither 3 nor 4"));
        }
        Ok(Self {
            name: place.name(),
            distributor: place.reg(0)?,
            redistributors,
            phandle: place.phandle()?,
            cells,
        })
    }

    /// How many interrupts a device has.
    pub(super) fn interrupt_count(&self, place: &Place) -> usize {
        place.property("interrupts").map_or(0, |interrupts| interrupts.len().div_ceil(4 * self.cells))
    }

    /// Interrupt `index` of a device.
    ///
    /// # Errors
    /// The device has no such interrupt, or it is none of this GIC's.
    pub(super) fn interrupt(&self, place: &Place, index: usize) -> Result<Interrupt, TreeError> {
        let parent = place.inherited("interrupt-parent").and_then(|p| Cells(p).cell());
        if parent.is_some() && parent != self.phandle {
            return Err(place.wrong("interrupt-parent", "is not the GIC"));
        }
        let interrupts = place.property("interrupts").unwrap_or_default();
        let entry = interrupts.chunks_exact(4 * self.cells).nth(index);
        let mut cells = Cells(entry.ok_or_else(|| place.wrong("interrupts", "has too few entries"))?);
        self.decode(cells.cell(), cells.cell(), cells.cell())
            .ok_or_else(|| place.wrong("interrupts", "names no shared or private interrupt of a GICv3"))
    }

    /// The GIC's interrupt specifier: kind (0 shared, 1 private), number within the kind, trigger flags (1 rising
    /// edge, 4 high level).
    fn decode(&self, kind: Option<u32>, number: Option<u32>, flags: Option<u32>) -> Option<Interrupt> {
        let intid = match (kind?, number?) {
            (0, number @ 0..988) => 32 + number,
            (1, number @ 0..16) => 16 + number,
            _ => return None,
        };
        let trigger = if flags? & 0b11 == 0 { Trigger::Level } else { Trigger::Edge };
        Some(Interrupt { intid, trigger })
    }

    /// The interrupt that a device's `interrupt-names` calls `name`; `None` where it names none so.
    fn named_interrupt(&self, place: &Place, name: &str) -> Result<Option<Interrupt>, TreeError> {
        let names = place.property("interrupt-names").unwrap_or_default();
        match names.split(|b| *b == 0).position(|n| n == name.as_bytes()) {
            Some(index) => self.interrupt(place, index).map(Some),
            None => Ok(None),
        }
    }

    /// The interrupt of EL2's physical timer: the fourth of the generic timer's node, unless that has names.
    ///
    /// # Errors
    /// There is no generic timer, or it has no such interrupt.
    pub fn read_el2_timer(&self, tree: Tree) -> Result<Interrupt, TreeError> {
        const HYP_PHYS: usize = 3;
        let place = tree
            .find(&mut |p| Ok(p.compatible_with(&["arm,armv8-timer"]).is_some()))?
            .ok_or(TreeError::Missing("generic timer (compatible = \"arm,armv8-timer\")"))?;
        match self.named_interrupt(&place, "hyp-phys")? {
            Some(interrupt) => Ok(interrupt),
            None => self.interrupt(&place, HYP_PHYS),
        }
    }
}

/// An SMMUv3, as the tree describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmmuNode {
    /// The name of its node.
    pub name: &'static str,
    /// Its registers: two 64 KiB pages, and what a part adds.
    pub region: Region,
    /// Its accesses to memory are coherent with the CPUs' caches (`dma-coherent`).
    pub coherent: bool,
    /// The event queue's interrupt.
    pub event: Interrupt,
    /// The interrupt of global errors.
    pub gerror: Interrupt,
    /// How others refer to it.
    pub phandle: Option<u32>,
    /// The compatible string that tells of its errata, or else the one it was recognised by.
    pub compatible: &'static str,
}

/// Registers of an SMMUv3: two pages of 64 KiB (IHI 0070 §6.1).
const SMMU_BYTES: u64 = 0x2_0000;

/// Adds the machine's SMMUv3s, in the tree's order.
///
/// # Errors
/// There is none, or a node is wrong.
pub fn read_smmus(tree: Tree, gic: &Gic, smmus: &mut ArrayVec<SmmuNode, MAX_SMMUS>) -> Result<(), TreeError> {
    tree.each_compatible(&["arm,smmu-v3"], &mut |place| push(smmus, "SMMUs", read_smmu(place, gic)?))?;
    if smmus.is_empty() {
        return Err(TreeError::Missing("SMMUv3 (compatible = \"arm,smmu-v3\")"));
    }
    Ok(())
}

fn read_smmu(place: &Place, gic: &Gic) -> Result<SmmuNode, TreeError> {
    let region = place.reg(0)?;
    if region.bytes() < SMMU_BYTES {
        return Err(place.wrong("reg", "is smaller than the two register pages of an SMMUv3"));
    }
    // One wire for all reasons is legal; each handler then looks whether it was meant.
    let combined = gic.named_interrupt(place, "combined")?;
    let wired = |name| match gic.named_interrupt(place, name)?.or(combined) {
        Some(interrupt) => Ok(interrupt),
        None => Err(place.wrong("interrupt-names", "has neither eventq and gerror nor combined")),
    };
    Ok(SmmuNode {
        name: place.name(),
        region,
        coherent: place.property("dma-coherent").is_some(),
        event: wired("eventq")?,
        gerror: wired("gerror")?,
        phandle: place.phandle()?,
        compatible: place.compatible_with(Errata::COMPATIBLE).unwrap_or("arm,smmu-v3"),
    })
}
