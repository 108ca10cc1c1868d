//! Trees as boot loaders make them, made here with `dtoolkit`'s model, and what is read from them.

mod broken;
mod bundle;
mod console;
mod overrides;
mod platform;
mod right;
mod structure;
mod wrong;

use std::vec::Vec;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{ToPropertyValue, memreserve::MemoryReservation};

use super::{Conduit, Machine, Overrides, Region, Tree, TreeError, Uart};

const GIC: u32 = 1;
const SMMU: u32 = 2;
const ITS: u32 = 3;
const CLOCK: u32 = 4;

/// A node with these properties.
fn node(name: &str) -> Node {
    Node(DeviceTreeNode::new_unchecked(name))
}

struct Node(DeviceTreeNode);

impl Node {
    fn with(mut self, name: &str, value: impl ToPropertyValue) -> Self {
        self.0.add_property(DeviceTreeProperty::new_unchecked(name, value));
        self
    }

    fn cells(self, name: &str, cells: &[u32]) -> Self {
        self.with(name, cells)
    }

    /// A property without a value.
    fn flag(self, name: &str) -> Self {
        self.with(name, [0_u8; 0])
    }

    fn child(mut self, child: Node) -> Self {
        self.0.add_child(child.0);
        self
    }
}

/// A tree to be changed a little, and read.
struct TestTree(DeviceTree);

impl TestTree {
    /// Replaces, or adds, a property of the node at `path`, whose components have their unit addresses.
    fn set(mut self, path: &str, name: &str, value: impl ToPropertyValue) -> Self {
        let node = self.0.find_node_mut(path).expect("the path is in the test's tree");
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
        self
    }

    fn remove_property(mut self, path: &str, name: &str) -> Self {
        self.0.find_node_mut(path).unwrap().remove_property(name).expect("the property was there");
        self
    }

    fn add(mut self, path: &str, child: Node) -> Self {
        self.0.find_node_mut(path).unwrap().add_child(child.0);
        self
    }

    fn remove(mut self, name: &str) -> Self {
        self.0.root.remove_child(name).expect("the node was there");
        self
    }

    fn reserve(mut self, start: u64, bytes: u64) -> Self {
        self.0.memory_reservations.push(MemoryReservation::new(start, bytes));
        self
    }

    fn blob(&self) -> &'static [u8] {
        self.0.to_dtb().leak()
    }

    fn read(&self) -> Result<Machine, TreeError> {
        read(self.blob())
    }

    /// What the last line would say.
    fn error(&self) -> String {
        self.read().expect_err("the tree is wrong").to_string()
    }
}

/// As [`super::super::boot`] does it, for a tree at 0x4800_0000 and an image at 0x4020_0000.
fn read(blob: &'static [u8]) -> Result<Machine, TreeError> {
    let tree = Tree::new(blob)?;
    let mut machine = basics(tree)?;
    machine.read_lists(tree, region(0x4800_0000, 0x1_0000), region(0x4020_0000, 0x10_0000))?;
    Ok(machine)
}

fn basics(tree: Tree) -> Result<Machine, TreeError> {
    Machine::read_basics(tree, Uart::read(tree)?, Conduit::read(tree)?, Overrides::read(tree)?)
}

fn region(start: u64, bytes: u64) -> Region {
    Region::new(start, bytes).unwrap()
}

/// `start` and `bytes` as two cells each.
fn reg(pairs: &[(u64, u64)]) -> Vec<u32> {
    pairs.iter().flat_map(|(start, bytes)| wide(*start).into_iter().chain(wide(*bytes))).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit number")]
fn wide(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

/// A machine with 2 GiB of RAM, a GICv3 with an ITS, an SMMU, and a PCIe host behind it.
fn virt() -> TestTree {
    let mut tree = DeviceTree::new();
    let root = Node(std::mem::take(&mut tree.root))
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .cells("interrupt-parent", &[GIC])
        .child(
            node("memory@40000000").with("device_type", "memory").with("reg", reg(&[(0x4000_0000, 2 << 30)])),
        )
        .child(
            node("psci")
                .with("compatible", ["arm,psci-1.0", "arm,psci-0.2"].as_slice())
                .with("method", "smc"),
        )
        .child(node("chosen").with("stdout-path", "/pl011@9000000"))
        .child(cpus())
        .child(timer())
        .child(
            node("clock")
                .with("compatible", "fixed-clock")
                .cells("clock-frequency", &[24_000_000])
                .cells("phandle", &[CLOCK]),
        )
        .child(pl011("pl011@9000000", 0x900_0000))
        .child(gic())
        .child(smmu("smmuv3@9050000", 0x905_0000, 74))
        .child(pcie());
    tree.root = root.0;
    TestTree(tree)
}

fn cpus() -> Node {
    let cpu = |n: u32| node(&format!("cpu@{n}")).with("device_type", "cpu").cells("reg", &[n]);
    node("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]).child(cpu(0)).child(cpu(1))
}

fn timer() -> Node {
    node("timer")
        .with("compatible", ["arm,armv8-timer", "arm,armv7-timer"].as_slice())
        .cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])
}

fn pl011(name: &str, address: u64) -> Node {
    node(name)
        .with("compatible", ["arm,pl011", "arm,primecell"].as_slice())
        .with("reg", reg(&[(address, 0x1000)]))
        .cells("clocks", &[CLOCK, CLOCK])
}

fn gic() -> Node {
    let its = node("its@8080000")
        .with("compatible", "arm,gic-v3-its")
        .with("reg", reg(&[(0x808_0000, 0x2_0000)]))
        .cells("phandle", &[ITS]);
    node("intc@8000000")
        .with("compatible", "arm,gic-v3")
        .with("reg", reg(&[(0x800_0000, 0x1_0000), (0x80a_0000, 0xf6_0000)]))
        .cells("#interrupt-cells", &[3])
        .cells("#redistributor-regions", &[1])
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .flag("ranges")
        .cells("phandle", &[GIC])
        .child(its)
}

/// An SMMU with its interrupts from SPI `first` on.
fn smmu(name: &str, address: u64, first: u32) -> Node {
    node(name)
        .with("compatible", "arm,smmu-v3")
        .with("reg", reg(&[(address, 0x2_0000)]))
        .cells("interrupts", &[0, first, 1, 0, first + 1, 1, 0, first + 2, 1, 0, first + 3, 1])
        .with("interrupt-names", ["eventq", "priq", "cmdq-sync", "gerror"].as_slice())
        .flag("dma-coherent")
        .cells("phandle", &[SMMU])
}

fn pcie() -> Node {
    const IO: u32 = 0x0100_0000;
    const MEM32: u32 = 0x0200_0000;
    const MEM64: u32 = 0x0300_0000;
    node("pcie@10000000")
        .with("compatible", "pci-host-ecam-generic")
        .cells("#address-cells", &[3])
        .cells("#size-cells", &[2])
        .with("reg", reg(&[(0x40_1000_0000, 0x1000_0000)]))
        .cells("bus-range", &[0, 0xff])
        .cells(
            "ranges",
            &[
                [IO, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000],
                [MEM32, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000],
                [MEM64, 0x80, 0, 0x80, 0, 0x80, 0],
            ]
            .concat(),
        )
        .cells("iommu-map", &[0, SMMU, 0, 0x1_0000])
        .cells("msi-map", &[0, ITS, 0, 0x1_0000])
}

/// A boot module as QEMU's guest-loader describes it.
fn module(address: u64, bytes: u64, kind: &str) -> Node {
    node(&format!("module@{address:#x}"))
        .with("compatible", ["multiboot,module", kind].as_slice())
        .with("reg", reg(&[(address, bytes)]))
}
