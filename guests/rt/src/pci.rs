//! PCI config space of bus 0, as the guest sees it.

use core::fmt;

use crate::area::Area;
use crate::bar::{Bar, BusWindow};
use crate::boot::Guest;
use crate::tree::{PciHost, TreeError};
use crate::window::Window;

/// Bytes of config space a function has (PCI Express).
const FUNCTION_BYTES: u64 = 4096;
const FUNCTIONS_PER_BUS: u8 = 255;

/// Offset of the vendor (15:0) and device (31:16) identifiers.
pub const ID: u64 = 0x00;
/// Offset of the command (15:0) and status (31:16) registers.
pub const COMMAND: u64 = 0x04;
/// Offset of revision (7:0) and class code (31:8).
pub const CLASS: u64 = 0x08;
/// Offset of the header type (23:16), among others.
pub const HEADER: u64 = 0x0c;
/// Offset of BAR 0.
pub const BAR0: u64 = 0x10;
/// Offset of the pointer to the first capability (7:0).
pub const CAPABILITIES: u64 = 0x34;

/// Command register: the function answers at its memory BARs.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// Command register: the function may act as a bus master.
pub const COMMAND_MASTER: u32 = 1 << 2;

/// A function of bus 0: device number in bits 7:3, function number in bits 2:0, as in a requester ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub u8);

impl Function {
    /// The requester ID on bus 0.
    #[must_use]
    pub fn requester_id(self) -> u64 {
        u64::from(self.0)
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{}", self.0 >> 3, self.0 & 7)
    }
}

/// The config space of bus 0.
#[derive(Clone, Copy, Debug)]
pub struct Pci {
    ecam: Window,
    memory: BusWindow,
}

impl Pci {
    /// Access to the functions behind `host`.
    #[must_use]
    pub fn new(host: PciHost) -> Option<Self> {
        Some(Self { ecam: Window::new(host.ecam)?, memory: host.memory })
    }

    /// Access to the functions of `guest`; `None` where it has no PCI.
    ///
    /// # Errors
    /// The host bridge can't be read from the device tree.
    pub fn of(guest: &Guest) -> Result<Option<Self>, TreeError> {
        Ok(guest.tree.pci()?.and_then(Self::new))
    }

    /// Every function that answers.
    pub fn functions(&self) -> impl Iterator<Item = Function> {
        let pci = *self;
        (0..=FUNCTIONS_PER_BUS)
            .map(Function)
            .filter(move |f| pci.covers(*f) && pci.read32(*f, ID) & 0xffff != 0xffff)
    }

    /// Whether the config space reaches as far as `function`.
    #[must_use]
    pub fn covers(&self, function: Function) -> bool {
        (u64::from(function.0) + 1) * FUNCTION_BYTES <= self.ecam.area().bytes()
    }

    /// The window onto the config space of one function.
    ///
    /// # Panics
    /// It is behind the end of the config space.
    #[must_use]
    pub fn config(&self, function: Function) -> Window {
        let part = self.ecam.area().part(u64::from(function.0), 1);
        part.and_then(Window::new).expect("the config space is the device tree's")
    }

    /// Reads a 32-bit register.
    #[must_use]
    pub fn read32(&self, function: Function, offset: u64) -> u32 {
        self.config(function).read32(offset)
    }

    /// Writes a 32-bit register.
    pub fn write32(&self, function: Function, offset: u64, value: u32) {
        self.config(function).write32(offset, value);
    }

    /// Where BAR 0 of `function`, `bytes` long, is in the CPU's addresses; `None` where it is unassigned.
    #[must_use]
    pub fn bar0(&self, function: Function, bytes: u64) -> Option<Area> {
        self.bar(function, 0, Area::new(0, bytes)?)
    }

    /// Where `part` of BAR `index` of `function` is in the CPU's addresses; `None` where that is unassigned.
    #[must_use]
    pub fn bar(&self, function: Function, index: u64, part: Area) -> Option<Area> {
        let at = BAR0 + 4 * index;
        let bar = Bar::new(self.read32(function, at), self.read32(function, at + 4))?;
        if bar.address == 0 {
            return None;
        }
        self.memory.to_cpu(bar.address.checked_add(part.start())?, part.bytes())
    }

    /// Sets `bits` of the command register (writing zero to the status register changes nothing there).
    pub fn enable(&self, function: Function, bits: u32) {
        let command = self.read32(function, COMMAND) & 0xffff;
        self.write32(function, COMMAND, command | bits);
    }
}
