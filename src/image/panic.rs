//! EL2's panic: where and why, in one line; then the last line; then the power goes.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use super::console::{self, say};
use super::power;

// Loaded and stored only: a panic may come before atomic read-modify-writes are possible.
static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::seize();
    if PANICKING.load(Ordering::Relaxed) {
        // The report itself failed.
        power::off(false);
    }
    PANICKING.store(true, Ordering::Relaxed);
    let message = info.message();
    match info.location() {
        Some(at) => say!("strandline: PANIC at {}:{}: {message}", at.file(), at.line()),
        None => say!("strandline: PANIC: {message}"),
    }
    say!("strandline: failed: EL2 panicked");
    power::off(false);
}
