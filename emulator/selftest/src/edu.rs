//! QEMU's educational device (docs/specs/edu.rst): DMA of one byte to 4 KiB, polled.

use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, timer};

const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const COMMAND_RUN: u64 = 1 << 0;
const COMMAND_TO_MEMORY: u64 = 1 << 1;
const BUFFER: u64 = 0x4_0000;
const LIMIT_US: u64 = 5_000_000;

/// The device.
#[derive(Clone, Copy)]
pub struct Edu(Window);

impl Edu {
    /// Device and vendor identifier.
    pub const ID: u32 = 0x11e8_1234;

    /// The device with these registers.
    #[must_use]
    pub const fn new(registers: Window) -> Self {
        Self(registers)
    }

    /// The device reads `bytes` at `address`.
    pub fn read(&self, address: u64, bytes: u64) -> Checked {
        self.run(address, BUFFER, bytes, COMMAND_RUN)
    }

    /// The device writes `bytes` at `address`.
    pub fn write(&self, address: u64, bytes: u64) -> Checked {
        self.run(BUFFER, address, bytes, COMMAND_RUN | COMMAND_TO_MEMORY)
    }

    /// A transfer that was refused ends like one that was not.
    fn run(&self, source: u64, destination: u64, bytes: u64, command: u64) -> Checked {
        self.0.write64(DMA_SOURCE, source);
        self.0.write64(DMA_DESTINATION, destination);
        self.0.write64(DMA_COUNT, bytes);
        self.0.write64(DMA_COMMAND, command);
        let start = timer::now();
        while self.0.read64(DMA_COMMAND) & COMMAND_RUN != 0 {
            check!(timer::us_since(start) < LIMIT_US, "the edu device did not end a DMA")?;
        }
        Ok(())
    }
}
