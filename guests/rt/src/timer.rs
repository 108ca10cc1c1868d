//! Time by the virtual counter, and sleeping by the virtual timer (Arm ARM, chapter D12).

use aarch64_cpu::asm::{self, barrier};
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable};

const US_PER_S: u64 = 1_000_000;

/// The virtual counter now, not read ahead of what precedes it.
#[must_use]
pub fn now() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Ticks of the counter in a second.
#[must_use]
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// Microseconds since the counter was `start`.
#[must_use]
pub fn us_since(start: u64) -> u64 {
    let ticks = now().saturating_sub(start);
    let frequency = frequency().max(1);
    // In two parts, so that no product passes 64 bits.
    (ticks / frequency) * US_PER_S + (ticks % frequency) * US_PER_S / frequency
}

/// Sleeps `us` microseconds at least (below an hour): arms the timer and waits for its interrupt, which stays masked, so
/// that whoever is at EL2 can sleep as well.
pub fn sleep_us(us: u64) {
    let ticks = us.saturating_mul(frequency()).div_ceil(US_PER_S);
    let deadline = now().saturating_add(ticks);
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb(barrier::SY);
    while now() < deadline {
        asm::wfi();
    }
    stop();
}

/// Waits for an interrupt once, with no timer armed.
pub fn wait_without_timer() {
    stop();
    asm::wfi();
}

fn stop() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
}
