//! What a guest takes from its device tree.

use core::fmt;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard as _;
use dtoolkit::{Cells, Node as _, Property as _};

use crate::area::Area;
use crate::args::Args;
use crate::bar::BusWindow;

/// How deep below the root a device is looked for.
const DEPTH: u32 = 3;

/// The guest's machine, as its device tree describes it.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    fdt: Fdt<'a>,
}

/// What the tree lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// A node.
    Missing(&'static str),
    /// A property of a node is absent or can't be read.
    Property(&'static str, &'static str),
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(node) => write!(f, "the device tree has no node {node}"),
            Self::Property(node, property) => write!(f, "device tree: bad {property} of {node}"),
        }
    }
}

impl From<TreeError> for crate::reason::Reason {
    fn from(error: TreeError) -> Self {
        Self::new(format_args!("{error}"))
    }
}

/// A generic PCI host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// Config space: 4 KiB a function, 1 MiB a bus, from bus 0.
    pub ecam: Area,
    /// The window of 32-bit memory.
    pub memory: BusWindow,
}

impl<'a> Tree<'a> {
    /// The tree in `fdt`, whose structure has been validated.
    #[must_use]
    pub const fn new(fdt: Fdt<'a>) -> Self {
        Self { fdt }
    }

    /// The RAM: the first range of `/memory`.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn ram(&self) -> Result<Area, TreeError> {
        let memory = self.fdt.memory().map_err(|_| TreeError::Missing("/memory"))?;
        first_reg(*memory, "/memory")
    }

    /// The command line; empty where there is none.
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        let chosen = self.fdt.find_node("/chosen");
        let line =
            chosen.and_then(|node| node.property("bootargs")).and_then(|p| p.value_as::<&'a str>().ok());
        Args(line.unwrap_or(""))
    }

    /// The registers of the PL011.
    ///
    /// # Errors
    /// There is none, or its `reg` can't be read.
    pub fn uart(&self) -> Result<Area, TreeError> {
        let node = self.find("arm,pl011").ok_or(TreeError::Missing("arm,pl011"))?;
        first_reg(node, "arm,pl011")
    }

    /// The first registers of a device that is compatible with `name`.
    ///
    /// # Errors
    /// There is none, or its `reg` can't be read.
    pub fn device(&self, name: &'static str) -> Result<Area, TreeError> {
        first_reg(self.find(name).ok_or(TreeError::Missing(name))?, name)
    }

    /// Whether `/hypervisor` names Strandline.
    #[must_use]
    pub fn names_strandline(&self) -> bool {
        self.fdt.find_node("/hypervisor").is_some_and(|node| node.is_compatible("strandline,strandline"))
    }

    /// Whether PSCI is called by HVC.
    #[must_use]
    pub fn psci_by_hvc(&self) -> bool {
        let psci = self.fdt.find_node("/psci");
        let method = psci.and_then(|node| node.property("method"));
        method.is_some_and(|method| method.value_as::<&str>() == Ok("hvc"))
    }

    /// The PCI host bridge, if there is one.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn pci(&self) -> Result<Option<PciHost>, TreeError> {
        const NAME: &str = "pci-host-ecam-generic";
        let Some(node) = self.find(NAME) else { return Ok(None) };
        let bad_ranges = TreeError::Property(NAME, "ranges");
        let mut ranges = node.ranges().ok().flatten().ok_or(bad_ranges)?;
        let memory = ranges.find_map(|range| {
            let bus = memory32(range.child_bus_address)?;
            let cpu = Area::new(range.parent_bus_address().ok()?, range.length().ok()?)?;
            Some(BusWindow { bus, cpu })
        });
        Ok(Some(PciHost { ecam: first_reg(node, NAME)?, memory: memory.ok_or(bad_ranges)? }))
    }

    fn find(&self, compatible: &str) -> Option<FdtNode<'a>> {
        find_below(self.fdt.root(), compatible, DEPTH)
    }
}

fn find_below<'a>(node: FdtNode<'a>, compatible: &str, depth: u32) -> Option<FdtNode<'a>> {
    if node.is_compatible(compatible) {
        return Some(node);
    }
    if depth == 0 {
        return None;
    }
    node.children().find_map(|child| find_below(child, compatible, depth - 1))
}

fn first_reg(node: FdtNode<'_>, name: &'static str) -> Result<Area, TreeError> {
    let reg = node.reg().ok().flatten().and_then(|mut regs| regs.next());
    reg.and_then(|reg| Area::new(reg.address().ok()?, reg.size().ok()?))
        .ok_or(TreeError::Property(name, "reg"))
}

/// The PCI address of a three-cell address of the 32-bit memory space (PCI bus binding, IEEE 1275: bits 25:24 of the
/// first cell are 0b10).
fn memory32(address: Cells<'_>) -> Option<u64> {
    let cells: &[_] = address.as_ref();
    match cells {
        [space, middle, low] if space.get() >> 24 & 0b11 == 0b10 => {
            Some(u64::from(middle.get()) << 32 | u64::from(low.get()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    use super::*;

    fn node(name: &str, properties: Vec<DeviceTreeProperty>) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new(name).unwrap();
        properties.into_iter().for_each(|p| node.add_property(p));
        node
    }

    fn cells<const N: usize>(name: &str, values: [u32; N]) -> DeviceTreeProperty {
        DeviceTreeProperty::new(name, values).unwrap()
    }

    fn text(name: &str, value: &str) -> DeviceTreeProperty {
        DeviceTreeProperty::new(name, value).unwrap()
    }

    fn machine(children: Vec<DeviceTreeNode>) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        tree.root.add_property(cells("#address-cells", [2]));
        tree.root.add_property(cells("#size-cells", [2]));
        children.into_iter().for_each(|c| tree.root.add_child(c));
        tree.to_dtb()
    }

    fn pci(ranges: DeviceTreeProperty) -> DeviceTreeNode {
        let compatible = text("compatible", "pci-host-ecam-generic");
        let reg = cells("reg", [0, 0x3000_0000, 0, 0x10_0000]);
        let sizes = [cells("#address-cells", [3]), cells("#size-cells", [2])];
        let mut node = node("pcie@30000000", vec![compatible, reg, ranges]);
        sizes.into_iter().for_each(|p| node.add_property(p));
        node
    }

    #[test]
    fn a_whole_tree_is_read() {
        let dtb = machine(vec![
            node("memory@40000000", vec![cells("reg", [0, 0x4000_0000, 1, 0])]),
            node("chosen", vec![text("bootargs", "case=bad size=2M")]),
            node(
                "pl011@9000000",
                vec![text("compatible", "arm,pl011"), cells("reg", [0, 0x0900_0000, 0, 0x1000])],
            ),
            node("psci", vec![text("method", "hvc")]),
            node("hypervisor", vec![text("compatible", "strandline,strandline")]),
            pci(cells(
                "ranges",
                [
                    0x0100_0000,
                    0,
                    0,
                    0,
                    0x3eff_0000,
                    0,
                    0x1_0000,
                    0x0200_0000,
                    0,
                    0x1000_0000,
                    0,
                    0x1000_0000,
                    0,
                    0x1,
                ],
            )),
        ]);
        let tree = Tree::new(Fdt::new(&dtb).unwrap());
        assert_eq!(tree.ram(), Ok(Area::new(0x4000_0000, 0x1_0000_0000).unwrap()));
        assert_eq!(tree.uart(), Ok(Area::new(0x0900_0000, 0x1000).unwrap()));
        assert_eq!(tree.args().value("case"), Some("bad"));
        assert!(tree.names_strandline() && tree.psci_by_hvc());
        let host = tree.pci().unwrap().unwrap();
        assert_eq!(host.ecam, Area::new(0x3000_0000, 0x10_0000).unwrap());
        assert_eq!(host.memory, BusWindow { bus: 0x1000_0000, cpu: Area::new(0x1000_0000, 1).unwrap() });
    }

    #[test]
    fn what_is_missing_is_named() {
        let dtb = machine(vec![]);
        let tree = Tree::new(Fdt::new(&dtb).unwrap());
        assert_eq!(tree.ram(), Err(TreeError::Missing("/memory")));
        assert_eq!(tree.uart(), Err(TreeError::Missing("arm,pl011")));
        assert_eq!(tree.pci(), Ok(None));
        assert_eq!(tree.args().0, "");
        assert!(!tree.names_strandline() && !tree.psci_by_hvc());
    }

    #[test]
    fn a_host_bridge_needs_a_window_of_32_bit_memory() {
        let dtb = machine(vec![pci(cells("ranges", [0x0300_0000, 0, 0, 0x80, 0, 1, 0]))]);
        let tree = Tree::new(Fdt::new(&dtb).unwrap());
        assert_eq!(tree.pci(), Err(TreeError::Property("pci-host-ecam-generic", "ranges")));
    }

    #[test]
    fn a_range_that_wraps_is_refused() {
        let dtb = machine(vec![node("memory", vec![cells("reg", [u32::MAX, u32::MAX, 0, 2])])]);
        let tree = Tree::new(Fdt::new(&dtb).unwrap());
        assert_eq!(tree.ram(), Err(TreeError::Property("/memory", "reg")));
    }
}
