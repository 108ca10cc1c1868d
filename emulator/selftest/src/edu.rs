//! QEMU's educational device, polled, with DMA wherever a test's tables lead it.

use guest_rt::edu::Direction;
use guest_rt::reason::Checked;
use guest_rt::{check, timer};

const LIMIT_US: u64 = 5_000_000;

/// The device.
#[derive(Clone, Copy)]
pub struct Edu(guest_rt::edu::Edu);

impl Edu {
    /// That device.
    #[must_use]
    pub const fn new(device: guest_rt::edu::Edu) -> Self {
        Self(device)
    }

    /// The device reads `bytes` at `address`.
    pub fn read(&self, address: u64, bytes: u64) -> Checked {
        self.run(Direction::FromMemory, address, bytes)
    }

    /// The device writes `bytes` at `address`.
    pub fn write(&self, address: u64, bytes: u64) -> Checked {
        self.run(Direction::ToMemory, address, bytes)
    }

    /// A transfer that was refused ends like one that was not.
    fn run(&self, direction: Direction, address: u64, bytes: u64) -> Checked {
        self.0.begin_anywhere(direction, address, bytes);
        let start = timer::now();
        while self.0.is_busy() {
            check!(timer::us_since(start) < LIMIT_US, "the edu device did not end a DMA")?;
        }
        Ok(())
    }
}
