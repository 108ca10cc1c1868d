//! Waiting: WFI with and without a timer.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::{check, println, timer};

const SLEEP_US: u64 = 50_000;
const SLEEPS: u32 = 5;
/// A sleep that takes this much longer was forgotten and found by chance.
const LATE_US: u64 = 2_000_000;
/// WFI without a timer may return at once; it may not take for ever.
const BOUND_US: u64 = 10_000_000;

/// `wfi`: sleeps by the virtual timer last as long as they should, and WFI without a timer returns.
pub fn wfi_returns(_guest: &Guest) -> Checked {
    check!(timer::frequency() != 0, "CNTFRQ_EL0 is zero")?;
    for _ in 0..SLEEPS {
        let start = timer::now();
        timer::sleep_us(SLEEP_US);
        let slept = timer::us_since(start);
        println!("slept {slept} us of {SLEEP_US}");
        check!(slept >= SLEEP_US, "a sleep of {SLEEP_US} us ended after {slept}")?;
        check!(slept < SLEEP_US + LATE_US, "a sleep of {SLEEP_US} us took {slept}")?;
    }
    let start = timer::now();
    timer::wait_without_timer();
    let waited = timer::us_since(start);
    println!("WFI without a timer returned after {waited} us");
    check!(waited < BOUND_US, "WFI without a timer took {waited} us")
}
