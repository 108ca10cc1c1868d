//! How long the hypervisor takes to its first guest.

use guest_rt::boot::Guest;
use guest_rt::println;
use guest_rt::reason::Checked;

/// `entered`: what the counter was at this guest's first instruction. Where an instruction takes a tick, as under QEMU's
/// `-icount`, it is how many the machine has executed till then.
pub fn tells_when_it_was_entered(guest: &Guest) -> Checked {
    println!("entered at tick {}", guest.entered);
    Ok(())
}
