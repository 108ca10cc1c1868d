//! A device that is no PCI function: the machine's clock, given to this VM.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, println, reason};

/// `platform`: the PL031 that the tree names counts seconds since 1970, and says what it is.
pub fn a_clock_of_the_machine_can_be_read(guest: &Guest) -> Checked {
    /// RTCDR, and the first identification register (Arm DDI 0224, 3.2).
    const SECONDS: u64 = 0;
    const PERIPHERAL_ID0: u64 = 0xfe0;
    let area = guest.tree.device("arm,pl031")?;
    let clock = Window::new(area).ok_or_else(|| reason!("{area} is this guest's own"))?;
    let (seconds, id) = (clock.read32(SECONDS), clock.read32(PERIPHERAL_ID0));
    println!("clock at {:#x}: {seconds} seconds, ID {id:#x}", area.start());
    check!(id == 0x31, "the clock's part number begins {id:#x}")?;
    check!(seconds > 1_600_000_000, "the clock says {seconds}")?;
    Ok(())
}
