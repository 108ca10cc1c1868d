//! Cases that end the VM in a way of their own.

use guest_rt::area::Area;
use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{power, print, println, reason};

/// `fault access=read|write addr=...`: touches an address that is not mapped (default: behind the end of RAM). The
/// runtime's own vectors end the VM.
pub fn touches_what_is_not_there(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let address = args.number_or("addr", guest.ram.end())?;
    let window = Area::new(address, 8).and_then(Window::new);
    let window = window.ok_or_else(|| reason!("{address:#x} is this guest's own"))?;
    let write = args.value("access") == Some("write");
    println!(
        "case fault: {} {address:#x}, where nothing is",
        if write { "writing to" } else { "reading from" }
    );
    if write {
        window.write64(0, 0);
    } else {
        println!("read {:#x}", window.read64(0));
    }
    Err(reason!("the access to {address:#x} went through"))
}

/// `fault-exec`: jumps to the UART's registers. The runtime's own vectors end the VM.
pub fn executes_a_device(guest: &Guest) -> Checked {
    let uart =
        Window::new(guest.tree.uart()?).ok_or_else(|| reason!("the UART lies over the guest's image"))?;
    println!("case fault-exec: jumping to the device registers at {:#x}", uart.start());
    guest_rt::boot::jump(uart)
}

/// `reset`: SYSTEM_RESET, by which a VM says that it failed.
pub fn reset(_guest: &Guest) -> Checked {
    println!("case reset: asking for a reset");
    power::fail()
}

/// `cpu-off`: the last vCPU ends, and with it the VM.
pub fn cpu_off(_guest: &Guest) -> Checked {
    println!("case cpu-off: switching the only vCPU off");
    power::cpu_off()
}

/// `spam lines=N`: many lines (default 500), and a last one that has no end.
pub fn prints_much(guest: &Guest) -> Checked {
    let lines = guest.tree.args().number_or("lines", 500)?;
    for line in 1..=lines {
        println!("spam {line} of {lines}: the quick brown fox jumps over the lazy dog");
    }
    println!("case spam: ok");
    print!("spam: the last line has no end");
    power::off()
}
