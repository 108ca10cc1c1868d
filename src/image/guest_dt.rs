//! The device tree a guest is given.
//!
//! It names what the VM has: RAM, one CPU under PSCI, the console, its own PCI functions. There are no nodes for an
//! interrupt controller and a timer: a guest finds its virtual timer without one, and gets no interrupts until there is
//! a virtual interrupt controller to describe.

mod writer;

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use strandline::addr::IpaRange;

use self::writer::Writer;
use crate::guest_map::{ECAM, ECAM_BYTES, PCI_WINDOW, PCI_WINDOW_BYTES, UART, UART_BYTES};
use crate::loader::{DTB_BYTES, Placed};
use crate::vpci::BarMapping;

/// A device of the guest's that is no PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNode {
    /// What it is called, without its address.
    pub name: &'static str,
    /// What it is compatible with: strings, each with a NUL behind it.
    pub compatible: &'static [u8],
    /// Its DMA is coherent with the CPUs' caches.
    pub coherent: bool,
    /// Its registers, as they are mapped.
    pub registers: Vec<BarMapping>,
}

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
    /// Its other devices.
    pub nodes: &'a [GuestNode],
}

/// Why there is no device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestDtError {
    /// It has more bytes than the place for it.
    TooLarge(usize),
    /// The command line contains a NUL.
    NulInCommandLine,
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
        }
    }
}

/// The node of the UART, as `stdout-path` names it.
const UART_PATH: &str = "/pl011@9000000";
/// The phandle of the UART's clock, the only one in the tree.
const CLOCK_PHANDLE: u32 = 1;
/// The clock's rate in Hz. It sets no baud rate, as there is no line; drivers want one.
const CLOCK_HZ: u32 = 24_000_000;

/// The flattened device tree of a guest, of at most [`DTB_BYTES`]. The same description makes the same bytes.
///
/// # Errors
/// Why there is none.
pub fn build(guest: &GuestDescription<'_>) -> Result<Vec<u8>, GuestDtError> {
    // Checked before a tree is made of it: its lengths are 32 bits wide.
    if guest.command_line.len() as u64 > DTB_BYTES {
        return Err(GuestDtError::TooLarge(guest.command_line.len()));
    }
    if guest.command_line.contains('\0') {
        return Err(GuestDtError::NulInCommandLine);
    }
    let mut tree = Writer::default();
    tree.node("", |root| fill_root(root, guest));
    let dtb = tree.finish();
    if dtb.len() as u64 > DTB_BYTES {
        return Err(GuestDtError::TooLarge(dtb.len()));
    }
    Ok(dtb)
}

/// The high and the low half of a number.
const fn cells(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

/// How many cells addresses and sizes of a node's children have.
fn children(node: &mut Writer, address: u32, size: u32) {
    node.cells("#address-cells", &[address]);
    node.cells("#size-cells", &[size]);
}

/// A `reg` of one address and size, two cells each.
fn reg(node: &mut Writer, address: u64, bytes: u64) {
    node.cells("reg", [address, bytes].map(cells).as_flattened());
}

fn fill_root(root: &mut Writer, guest: &GuestDescription<'_>) {
    root.text("compatible", "strandline,vm");
    root.text("model", "Strandline virtual machine");
    children(root, 2, 2);
    root.node("chosen", |chosen| fill_chosen(chosen, guest));
    let ram = guest.memory;
    root.node(&format!("memory@{:x}", ram.start().0), |memory| {
        memory.text("device_type", "memory");
        reg(memory, ram.start().0, ram.bytes());
    });
    root.node("cpus", fill_cpus);
    root.node("psci", |psci| {
        psci.text("compatible", "arm,psci-1.0\0arm,psci-0.2");
        psci.text("method", "hvc");
    });
    root.node("hypervisor", |hypervisor| {
        hypervisor.text("compatible", "strandline,strandline");
        hypervisor.text("method", "hvc");
    });
    fill_uart(root);
    if guest.has_devices {
        root.node(&format!("pcie@{:x}", ECAM.0), fill_pcie);
    }
    for device in guest.nodes {
        let address = device.registers.first().map_or(0, |mapping| mapping.ipa.0);
        root.node(&format!("{:.31}@{address:x}", device.name), |node| fill_device(node, device));
    }
}

fn fill_device(node: &mut Writer, device: &GuestNode) {
    node.property("compatible", device.compatible);
    let registers = device.registers.iter().flat_map(|mapping| [cells(mapping.ipa.0), cells(mapping.bytes)]);
    node.cells("reg", registers.collect::<Vec<_>>().as_flattened());
    if device.coherent {
        node.property("dma-coherent", &[]);
    }
}

fn fill_chosen(chosen: &mut Writer, guest: &GuestDescription<'_>) {
    chosen.text("bootargs", guest.command_line);
    chosen.text("stdout-path", UART_PATH);
    if let Some(ramdisk) = guest.ramdisk {
        chosen.cells("linux,initrd-start", &cells(ramdisk.start.0));
        chosen.cells("linux,initrd-end", &cells(ramdisk.start.0.saturating_add(ramdisk.bytes)));
    }
    if guest.has_devices {
        // BARs are where they are mapped: the guest takes them as it finds them.
        chosen.cells("linux,pci-probe-only", &[1]);
    }
}

fn fill_cpus(cpus: &mut Writer) {
    children(cpus, 1, 0);
    cpus.node("cpu@0", |cpu| {
        cpu.text("device_type", "cpu");
        cpu.text("compatible", "arm,armv8");
        cpu.cells("reg", &[0]);
        cpu.text("enable-method", "psci");
    });
}

/// The UART and its clock.
fn fill_uart(root: &mut Writer) {
    root.node("apb-pclk", |clock| {
        clock.text("compatible", "fixed-clock");
        clock.cells("#clock-cells", &[0]);
        clock.cells("clock-frequency", &[CLOCK_HZ]);
        clock.text("clock-output-names", "clk24mhz");
        clock.cells("phandle", &[CLOCK_PHANDLE]);
    });
    root.node(UART_PATH.trim_start_matches('/'), |uart| {
        uart.text("compatible", "arm,pl011\0arm,primecell");
        reg(uart, UART.0, UART_BYTES);
        uart.cells("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE]);
        uart.text("clock-names", "uartclk\0apb_pclk");
    });
}

/// 32-bit, non-prefetchable memory space, as the first cell of a PCI address says it (IEEE 1275 PCI binding, §2.2.1.1).
const PCI_MEMORY_32: u32 = 0x0200_0000;

fn fill_pcie(pcie: &mut Writer) {
    pcie.text("compatible", "pci-host-ecam-generic");
    pcie.text("device_type", "pci");
    children(pcie, 3, 2);
    reg(pcie, ECAM.0, ECAM_BYTES);
    pcie.cells("bus-range", &[0, 0]);
    let (pci, cpu, bytes) = (cells(PCI_WINDOW.0), cells(PCI_WINDOW.0), cells(PCI_WINDOW_BYTES));
    pcie.cells("ranges", &[PCI_MEMORY_32, pci[0], pci[1], cpu[0], cpu[1], bytes[0], bytes[1]]);
    pcie.property("dma-coherent", &[]);
}

#[cfg(test)]
mod tests;
