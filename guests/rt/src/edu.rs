//! QEMU's educational device: a PCI function with a 4 KiB buffer that it copies from and to memory by DMA.
//!
//! The register layout is that of QEMU's docs/specs/edu.rst.

use core::fmt;

use crate::area::Area;
use crate::boot::{self, Guest};
use crate::pci::{COMMAND_MASTER, COMMAND_MEMORY, Function, ID, Pci};
use crate::reason::Reason;
use crate::timer;
use crate::tree::TreeError;
use crate::window::Window;

/// Device and vendor identifiers.
pub const VENDOR_DEVICE: u32 = 0x11e8_1234;
/// Bytes of BAR 0.
pub const BAR_BYTES: u64 = 1 << 20;

const LIVENESS: u64 = 0x04;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const COMMAND_RUN: u64 = 1 << 0;
const COMMAND_TO_MEMORY: u64 = 1 << 1;

/// Where the buffer is in the device's own addresses.
const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer.
pub const BUFFER_BYTES: u64 = 4096;

/// The device takes this long for every transfer.
const TRANSFER_US: u64 = 100_000;
const POLL_US: u64 = 5_000;
/// How often the end of a transfer is looked for, beyond the time it takes.
const POLLS: u32 = 400;

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads memory.
    FromMemory,
    /// The device writes memory.
    ToMemory,
}

/// Why the device can't be used, or a transfer was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EduError {
    /// The PCI host bridge can't be read from the device tree.
    Tree(TreeError),
    /// There is no PCI host bridge, or no function on its bus 0 is one.
    Absent,
    /// Its BAR has no address in the host bridge's window.
    NoBar(Function),
    /// The transfer does not fit the buffer, or would touch the program's own memory.
    Refused,
    /// The transfer did not end.
    Timeout,
}

impl fmt::Display for EduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => write!(f, "{error}"),
            Self::Absent => f.write_str("the VM owns no edu device (PCI 1234:11e8)"),
            Self::NoBar(function) => write!(f, "BAR 0 of {function} has no address in the PCI memory window"),
            Self::Refused => f.write_str("a DMA of more than the buffer, or over the guest's own image"),
            Self::Timeout => f.write_str("the edu device did not end a DMA"),
        }
    }
}

impl From<EduError> for Reason {
    fn from(error: EduError) -> Self {
        Self::new(format_args!("{error}"))
    }
}

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Edu {
    function: Function,
    registers: Window,
}

impl Edu {
    /// The first edu device of `guest`.
    ///
    /// # Errors
    /// As [`Edu::find`], or the device tree has no usable PCI host bridge.
    pub fn of(guest: &Guest) -> Result<Self, EduError> {
        let pci = Pci::of(guest).map_err(EduError::Tree)?.ok_or(EduError::Absent)?;
        Self::find(&pci)
    }

    /// Finds the first edu device and lets it decode its BAR and act as a bus master.
    ///
    /// # Errors
    /// There is none, or its BAR is not assigned.
    pub fn find(pci: &Pci) -> Result<Self, EduError> {
        let function =
            pci.functions().find(|f| pci.read32(*f, ID) == VENDOR_DEVICE).ok_or(EduError::Absent)?;
        let registers =
            pci.bar0(function, BAR_BYTES).and_then(Window::new).ok_or(EduError::NoBar(function))?;
        pci.enable(function, COMMAND_MEMORY | COMMAND_MASTER);
        Ok(Self::new(function, registers))
    }

    /// The device at `function`, which decodes `registers` and may act as a bus master.
    #[must_use]
    pub const fn new(function: Function, registers: Window) -> Self {
        Self { function, registers }
    }

    /// Its place on the bus.
    #[must_use]
    pub const fn function(&self) -> Function {
        self.function
    }

    /// Its registers.
    #[must_use]
    pub const fn registers(&self) -> Window {
        self.registers
    }

    /// The address of a register that reads back as the complement of what was written to it.
    #[must_use]
    pub const fn liveness_address(&self) -> u64 {
        self.registers.start() + LIVENESS
    }

    /// Writes the liveness register; it reads as `!value` from then on.
    pub fn set_liveness(&self, value: u32) {
        self.registers.write32(LIVENESS, value);
    }

    /// Reads the liveness register.
    #[must_use]
    pub fn liveness(&self) -> u32 {
        self.registers.read32(LIVENESS)
    }

    /// Copies `bytes` between the start of the buffer and memory at `address`, and sleeps until the device says that it
    /// is done. A DMA that was stopped ends like one that was not.
    ///
    /// # Errors
    /// The transfer is refused here, or does not end in about two seconds.
    pub fn transfer(&self, direction: Direction, address: u64, bytes: u64) -> Result<(), EduError> {
        self.begin(direction, address, bytes)?;
        timer::sleep_us(TRANSFER_US);
        for _ in 0..POLLS {
            if !self.is_busy() {
                return Ok(());
            }
            timer::sleep_us(POLL_US);
        }
        Err(EduError::Timeout)
    }

    /// Begins what [`Edu::transfer`] does, without waiting for its end.
    ///
    /// # Errors
    /// The transfer is refused here.
    pub fn begin(&self, direction: Direction, address: u64, bytes: u64) -> Result<(), EduError> {
        let memory = Area::new(address, bytes).ok_or(EduError::Refused)?;
        if bytes > BUFFER_BYTES || boot::own_areas().iter().any(|own| own.overlaps(memory)) {
            return Err(EduError::Refused);
        }
        self.begin_anywhere(direction, address, bytes);
        Ok(())
    }

    /// Begins a transfer whatever `address` is: an SMMU may make of it what the program's own areas don't show.
    pub fn begin_anywhere(&self, direction: Direction, address: u64, bytes: u64) {
        let (source, destination, command) = match direction {
            Direction::FromMemory => (address, BUFFER, COMMAND_RUN),
            Direction::ToMemory => (BUFFER, address, COMMAND_RUN | COMMAND_TO_MEMORY),
        };
        self.registers.write64(DMA_SOURCE, source);
        self.registers.write64(DMA_DESTINATION, destination);
        self.registers.write64(DMA_COUNT, bytes);
        self.registers.write64(DMA_COMMAND, command);
    }

    /// Whether a transfer is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.registers.read64(DMA_COMMAND) & COMMAND_RUN != 0
    }

    /// Copies `bytes` from memory at `from` into the buffer and out again to memory at `to`.
    ///
    /// # Errors
    /// As [`Edu::transfer`].
    pub fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<(), EduError> {
        self.transfer(Direction::FromMemory, from, bytes)?;
        self.transfer(Direction::ToMemory, to, bytes)
    }
}
