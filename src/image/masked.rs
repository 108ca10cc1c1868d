//! How long EL2 keeps interrupts masked in a call: a measurement, which only an image with the feature `measure` makes.

use core::sync::atomic::{AtomicU64, Ordering};

use strandline_abi::Call;

use super::console::say;
use super::timer;

/// When interrupts were last heard; 0 outside calls.
static HEARD: AtomicU64 = AtomicU64::new(0);
/// The longest time between, in this call.
static LONGEST: AtomicU64 = AtomicU64::new(0);
/// The longest of each call so far, by the low bits of its number.
static MOST: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// A call of the guest's begins.
pub fn begin() {
    if cfg!(feature = "measure") {
        LONGEST.store(0, Ordering::Relaxed);
        HEARD.store(timer::counter(), Ordering::Relaxed);
    }
}

/// Interrupts are heard.
pub fn window() {
    if cfg!(feature = "measure") && HEARD.load(Ordering::Relaxed) != 0 {
        let now = timer::counter();
        let before = HEARD.swap(now, Ordering::Relaxed);
        LONGEST.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }
}

/// The call `id` has been answered: tells of it where no call of its kind kept interrupts masked for longer.
pub fn end(id: u32) {
    if cfg!(feature = "measure") {
        window();
        HEARD.store(0, Ordering::Relaxed);
        let ticks = LONGEST.load(Ordering::Relaxed);
        let Some(call) = Call::from_id(id) else { return };
        if MOST[(id & 0xf) as usize].fetch_max(ticks, Ordering::Relaxed) < ticks {
            say!("strandline: interrupts masked for {ticks} ticks in {call:?}");
        }
    }
}
