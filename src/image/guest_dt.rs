//! The device tree a guest is given.
//!
//! It names what the VM has: RAM, one CPU under PSCI, the console, its own PCI functions. There are no nodes for an
//! interrupt controller and a timer: a guest finds its virtual timer without one, and gets no interrupts until there is
//! a virtual interrupt controller to describe.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use dtoolkit::ToPropertyValue;
use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use strandline::addr::IpaRange;

use crate::guest_map::{ECAM, ECAM_BYTES, PCI_WINDOW, PCI_WINDOW_BYTES, UART, UART_BYTES};
use crate::loader::{DTB_BYTES, Placed};

/// What the device tree of a VM depends on.
#[derive(Clone, Copy, Debug)]
pub struct GuestDescription<'a> {
    /// The VM's RAM.
    pub memory: IpaRange,
    /// The guest's command line.
    pub command_line: &'a str,
    /// Where its ramdisk lies.
    pub ramdisk: Option<Placed>,
    /// It owns PCI functions.
    pub has_devices: bool,
}

/// Why there is no device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestDtError {
    /// It has more bytes than the place for it.
    TooLarge(usize),
    /// The command line contains a NUL.
    NulInCommandLine,
    /// The device tree library refused a name.
    Name(ModelError),
}

impl fmt::Display for GuestDtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(
                    f,
                    "the guest's device tree has {bytes} bytes, more than {DTB_BYTES}: shorten the command line"
                )
            }
            Self::NulInCommandLine => f.write_str("the guest's command line contains a NUL"),
            Self::Name(error) => write!(f, "the guest's device tree: {error}"),
        }
    }
}

impl From<ModelError> for GuestDtError {
    fn from(error: ModelError) -> Self {
        Self::Name(error)
    }
}

/// The node of the UART, as `stdout-path` names it.
const UART_NODE: &str = "pl011@9000000";
/// The phandle of the UART's clock, the only one in the tree.
const CLOCK_PHANDLE: u32 = 1;
/// The clock's rate in Hz. It sets no baud rate, as there is no line; drivers want one.
const CLOCK_HZ: u32 = 24_000_000;

/// The flattened device tree of a guest, of at most [`DTB_BYTES`]. The same description makes the same bytes.
///
/// # Errors
/// Why there is none.
pub fn build(guest: &GuestDescription<'_>) -> Result<Vec<u8>, GuestDtError> {
    // Checked before a tree is made of it: the library's lengths are 32 bits wide.
    if guest.command_line.len() as u64 > DTB_BYTES {
        return Err(GuestDtError::TooLarge(guest.command_line.len()));
    }
    if guest.command_line.contains('\0') {
        return Err(GuestDtError::NulInCommandLine);
    }
    let mut tree = DeviceTree::new();
    tree.root = root(guest)?;
    let dtb = tree.to_dtb();
    if dtb.len() as u64 > DTB_BYTES {
        return Err(GuestDtError::TooLarge(dtb.len()));
    }
    Ok(dtb)
}

/// A node under construction.
struct Node(DeviceTreeNode);

impl Node {
    fn new(name: impl Into<String>) -> Result<Self, ModelError> {
        Ok(Self(DeviceTreeNode::new(name)?))
    }

    fn with(mut self, name: &str, value: impl ToPropertyValue) -> Result<Self, ModelError> {
        self.0.add_property(DeviceTreeProperty::new(name, value)?);
        Ok(self)
    }

    /// A property that says something by being there.
    fn flag(self, name: &str) -> Result<Self, ModelError> {
        self.with(name, [0_u8; 0])
    }

    /// Two cells each for addresses and sizes of children, or as many as given.
    fn cells(self, address: u32, size: u32) -> Result<Self, ModelError> {
        self.with("#address-cells", address)?.with("#size-cells", size)
    }

    /// A `reg` of one address and size, two cells each.
    fn reg(self, address: u64, bytes: u64) -> Result<Self, ModelError> {
        let (address, bytes) = (cells(address), cells(bytes));
        self.with("reg", [address[0], address[1], bytes[0], bytes[1]])
    }

    fn child(mut self, child: Self) -> Self {
        self.0.add_child(child.0);
        self
    }
}

/// The high and the low half of a number.
const fn cells(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

fn root(guest: &GuestDescription<'_>) -> Result<DeviceTreeNode, ModelError> {
    let mut root = Node::new("")?
        .with("compatible", "strandline,vm")?
        .with("model", "Strandline virtual machine")?
        .cells(2, 2)?
        .child(chosen(guest)?)
        .child(memory(guest.memory)?)
        .child(cpus()?)
        .child(psci()?)
        .child(hypervisor()?)
        .child(clock()?)
        .child(uart()?);
    if guest.has_devices {
        root = root.child(pcie()?);
    }
    Ok(root.0)
}

fn chosen(guest: &GuestDescription<'_>) -> Result<Node, ModelError> {
    let mut chosen = Node::new("chosen")?
        .with("bootargs", guest.command_line)?
        .with("stdout-path", format!("/{UART_NODE}"))?;
    if let Some(ramdisk) = guest.ramdisk {
        chosen = chosen
            .with("linux,initrd-start", ramdisk.start.0)?
            .with("linux,initrd-end", ramdisk.start.0.saturating_add(ramdisk.bytes))?;
    }
    if guest.has_devices {
        // BARs are where they are mapped: the guest takes them as it finds them.
        chosen = chosen.with("linux,pci-probe-only", 1_u32)?;
    }
    Ok(chosen)
}

fn memory(ram: IpaRange) -> Result<Node, ModelError> {
    Node::new(format!("memory@{:x}", ram.start().0))?
        .with("device_type", "memory")?
        .reg(ram.start().0, ram.bytes())
}

fn cpus() -> Result<Node, ModelError> {
    let cpu = Node::new("cpu@0")?
        .with("device_type", "cpu")?
        .with("compatible", "arm,armv8")?
        .with("reg", 0_u32)?
        .with("enable-method", "psci")?;
    Ok(Node::new("cpus")?.cells(1, 0)?.child(cpu))
}

fn psci() -> Result<Node, ModelError> {
    Node::new("psci")?.with("compatible", ["arm,psci-1.0", "arm,psci-0.2"].as_slice())?.with("method", "hvc")
}

fn hypervisor() -> Result<Node, ModelError> {
    Node::new("hypervisor")?.with("compatible", "strandline,strandline")?.with("method", "hvc")
}

fn clock() -> Result<Node, ModelError> {
    Node::new("apb-pclk")?
        .with("compatible", "fixed-clock")?
        .with("#clock-cells", 0_u32)?
        .with("clock-frequency", CLOCK_HZ)?
        .with("clock-output-names", "clk24mhz")?
        .with("phandle", CLOCK_PHANDLE)
}

fn uart() -> Result<Node, ModelError> {
    Node::new(UART_NODE)?
        .with("compatible", ["arm,pl011", "arm,primecell"].as_slice())?
        .reg(UART.0, UART_BYTES)?
        .with("clocks", [CLOCK_PHANDLE, CLOCK_PHANDLE])?
        .with("clock-names", ["uartclk", "apb_pclk"].as_slice())
}

/// 32-bit, non-prefetchable memory space, as the first cell of a PCI address says it (IEEE 1275 PCI binding, §2.2.1.1).
const PCI_MEMORY_32: u32 = 0x0200_0000;

fn pcie() -> Result<Node, ModelError> {
    let (pci, cpu, bytes) = (cells(PCI_WINDOW.0), cells(PCI_WINDOW.0), cells(PCI_WINDOW_BYTES));
    Node::new(format!("pcie@{:x}", ECAM.0))?
        .with("compatible", "pci-host-ecam-generic")?
        .with("device_type", "pci")?
        .cells(3, 2)?
        .reg(ECAM.0, ECAM_BYTES)?
        .with("bus-range", [0_u32, 0])?
        .with("ranges", [PCI_MEMORY_32, pci[0], pci[1], cpu[0], cpu[1], bytes[0], bytes[1]])?
        .flag("dma-coherent")
}

#[cfg(test)]
mod tests;
