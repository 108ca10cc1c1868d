//! Time, and sleeping until some of it has passed: the physical counter and EL2's physical timer.
#![expect(unsafe_code, reason = "the timer's compare value has no type in aarch64-cpu")]

use aarch64_cpu::asm::{self, barrier};
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTHP_CTL_EL2, CNTPCT_EL0, Readable, Writeable};

use super::irq;
use super::sysreg::write_sysreg;

const US_PER_S: u64 = 1_000_000;

/// The physical counter.
pub fn counter() -> u64 {
    // Not read early, ahead of what the time is taken of.
    barrier::isb(barrier::SY);
    CNTPCT_EL0.get()
}

/// How often the counter counts in a second, as firmware says; 0 where it says nothing.
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// Microseconds since the counter was 0.
pub fn now_us() -> u64 {
    to_us(counter(), frequency())
}

/// `count` at `frequency` (in Hz, not 0) in microseconds, without overflow on the way.
fn to_us(count: u64, frequency: u64) -> u64 {
    let frequency = frequency.max(1);
    count / frequency * US_PER_S + count % frequency * US_PER_S / frequency
}

/// What the counter will be in `us` microseconds.
pub fn after_us(us: u64) -> u64 {
    counter().saturating_add(us.saturating_mul(frequency()) / US_PER_S)
}

/// Sleeps until the counter has reached `deadline` or one of EL2's interrupts has come, noted for
/// [`irq::take_pending`]; it may have been noted before. The timer's own note is not left behind.
pub fn sleep_until(deadline: u64) {
    // SAFETY: the compare value only decides when the timer's interrupt comes.
    unsafe { write_sysreg!("cnthp_cval_el2", deadline) };
    CNTHP_CTL_EL2.write(CNTHP_CTL_EL2::ENABLE::SET);
    barrier::isb(barrier::SY);
    while counter() < deadline && !irq::is_pending() {
        // An interrupt ends WFI whether it is masked or not, one that came before included.
        barrier::dsb(barrier::SY);
        asm::wfi();
        irq::window();
    }
    disarm();
    irq::forget_timer();
}

/// Lets `us` microseconds pass, whatever interrupts come meanwhile: they are noted for [`irq::take_pending`].
pub fn wait_us(us: u64) {
    let deadline = after_us(us);
    while counter() < deadline {
        irq::window();
        core::hint::spin_loop();
    }
}

/// Switches EL2's timer off.
pub fn disarm() {
    CNTHP_CTL_EL2.set(0);
    barrier::isb(barrier::SY);
}
