//! The devices EL2 itself drives: console, power, interrupt controller, timer, SMMUs.

use core::fmt;

use arrayvec::ArrayVec;
use strandline::smmu::Errata;

use super::memory::push;
use super::tree::{Cells, Place, Tree};
use super::{Region, TreeError};

/// How many SMMUs a machine may have.
pub const MAX_SMMUS: usize = 8;
/// How many regions of redistributors a GIC may have.
pub const MAX_REDISTRIBUTORS: usize = 8;

/// The PL011 that is the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Its registers.
    pub region: Region,
    /// The compatible string it was recognised by.
    pub compatible: &'static str,
    /// The frequency of the clock its baud rate is made from, in Hz.
    pub clock_hz: u32,
    /// The baud rate.
    pub baud: u32,
}

const UART_COMPATIBLE: &[&str] = &["arm,pl011"];
/// What the PL011 of Arm's own boards, and of those made after them, is clocked with.
const DEFAULT_UART_CLOCK_HZ: u32 = 24_000_000;
const DEFAULT_BAUD: u32 = 115_200;

impl Uart {
    /// The PL011 that `/chosen/stdout-path` names or, failing that, the first one.
    ///
    /// # Errors
    /// There is none, or its node is wrong.
    pub fn read(tree: Tree) -> Result<Self, TreeError> {
        let is_pl011 = |place: &Place| place.compatible_with(UART_COMPATIBLE).is_some();
        let (path, options) = stdout(tree)?.unwrap_or_default();
        let place = match tree.by_path(path)?.filter(is_pl011) {
            Some(place) => place,
            None => tree
                .find(&mut |place| Ok(is_pl011(place)))?
                .ok_or(TreeError::Missing("console (a PL011, compatible = \"arm,pl011\")"))?,
        };
        // Baud rate, then parity, bits and flow control: the PL011 is always set to 8 bits without parity.
        let baud = options.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
        Ok(Self {
            region: place.reg(0)?,
            compatible: place.compatible_with(UART_COMPATIBLE).unwrap_or_default(),
            clock_hz: clock_hz(tree, &place)?.unwrap_or(DEFAULT_UART_CLOCK_HZ),
            baud: baud.filter(|b| *b != 0).unwrap_or(DEFAULT_BAUD),
        })
    }
}

/// The path that `/chosen/stdout-path` gives, by an alias or itself, and the options behind its colon.
fn stdout(tree: Tree) -> Result<Option<(&'static str, &'static str)>, TreeError> {
    let chosen = tree.by_path("/chosen")?;
    let Some(value) = chosen.and_then(|c| c.string("stdout-path")) else { return Ok(None) };
    let (name, options) = value.split_once(':').unwrap_or((value, ""));
    if name.starts_with('/') {
        return Ok(Some((name, options)));
    }
    let aliases = tree.by_path("/aliases")?;
    Ok(aliases.and_then(|aliases| aliases.string(name)).map(|path| (path, options)))
}

/// The frequency of the first of a device's clocks, where that is a fixed one.
fn clock_hz(tree: Tree, place: &Place) -> Result<Option<u32>, TreeError> {
    let Some(phandle) = place.property("clocks").and_then(|clocks| Cells(clocks).cell()) else {
        return Ok(None);
    };
    match tree.by_phandle(phandle)? {
        Some(clock) => Ok(clock.cell("clock-frequency")?.filter(|hz| *hz != 0)),
        None => Ok(None),
    }
}

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// By `SMC #0`.
    Smc,
    /// By `HVC #0`.
    Hvc,
}

impl fmt::Display for Conduit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smc => "SMC",
            Self::Hvc => "HVC",
        })
    }
}

impl Conduit {
    /// The conduit that the PSCI node names.
    ///
    /// # Errors
    /// There is no PSCI of version 0.2 or later, or it names no conduit.
    pub fn read(tree: Tree) -> Result<Self, TreeError> {
        let names = ["arm,psci-1.0", "arm,psci-0.2"];
        let place = tree
            .find(&mut |p| Ok(p.compatible_with(&names).is_some()))?
            .ok_or(TreeError::Missing("PSCI (compatible = \"arm,psci-1.0\" or \"arm,psci-0.2\")"))?;
        match place.string("method") {
            Some("smc") => Ok(Self::Smc),
            Some("hvc") => Ok(Self::Hvc),
            _ => Err(place.wrong("method", "is neither \"smc\" nor \"hvc\"")),
        }
    }
}

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
        Ok(Self { distributor: place.reg(0)?, redistributors, phandle: place.phandle()?, cells })
    }

    /// Interrupt `index` of a device.
    ///
    /// # Errors
    /// The device has no such interrupt, or it is none of this GIC's.
    fn interrupt(&self, place: &Place, index: usize) -> Result<Interrupt, TreeError> {
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
    /// Its registers: two 64 KiB pages, and what a part adds.
    pub region: Region,
    /// Its accesses to memory are coherent with the CPUs' caches (`dma-coherent`).
    pub coherent: bool,
    /// The event queue's interrupt, where it is wired.
    pub event: Option<Interrupt>,
    /// The interrupt of global errors, where it is wired.
    pub gerror: Option<Interrupt>,
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
    Ok(SmmuNode {
        region,
        coherent: place.property("dma-coherent").is_some(),
        event: gic.named_interrupt(place, "eventq")?.or(combined),
        gerror: gic.named_interrupt(place, "gerror")?.or(combined),
        phandle: place.phandle()?,
        compatible: place.compatible_with(Errata::COMPATIBLE).unwrap_or("arm,smmu-v3"),
    })
}
