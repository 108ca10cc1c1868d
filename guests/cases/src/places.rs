//! Where in the guest's RAM the cases work.

use guest_rt::area::Area;
use guest_rt::boot::Guest;
use guest_rt::reason;
use guest_rt::reason::Checked;
use guest_rt::window::Window;

/// Cuts `bytes` (whole pages) off the front of `free` and gives access to them.
pub fn cut(free: &mut Area, bytes: u64) -> Checked<Window> {
    free.cut(bytes).and_then(Window::new).ok_or_else(|| reason!("too little free RAM: {free}"))
}

/// The part of `guest`'s RAM that is `bytes` long and begins at its first multiple of `bytes`.
pub fn aligned_part(guest: &Guest, bytes: u64) -> Checked<Area> {
    let ram = guest.ram;
    let start = ram.start().checked_next_multiple_of(bytes);
    let part = start.and_then(|start| Area::new(start, bytes)).filter(|part| bytes != 0 && ram.covers(*part));
    part.ok_or_else(|| reason!("no aligned {bytes:#x} bytes in RAM {ram}"))
}
