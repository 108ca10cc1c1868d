//! Drives the emulator's SMMUv3 by hand, at EL2 and without the image. The command line picks a case, `case=NAME`; it
//! prints what it found, then `case NAME: ok` or `case NAME: FAILED: reason`, and turns the machine off.
//!
//! Nothing of Strandline's driver is used, so that a fault in it can't hide one in the emulator.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    expect(
        clippy::result_large_err,
        reason = "a check that fails is the last thing that happens; there is no heap"
    )
)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod edu;
#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod flags;
#[cfg(target_os = "none")]
mod in_flight;
#[cfg(target_os = "none")]
mod late;
#[cfg(target_os = "none")]
mod nested;
#[cfg(target_os = "none")]
mod nvme;
#[cfg(target_os = "none")]
mod smmu;
#[cfg(target_os = "none")]
mod stage2;

#[cfg(target_os = "none")]
mod run {
    use guest_rt::boot::Guest;
    use guest_rt::reason::Checked;
    use guest_rt::{println, reason};
    use smccc::{Smc, psci};

    use crate::bench::Bench;
    use crate::{faults, flags, in_flight, late, nested};

    guest_rt::guest_main!(main);

    type Case = fn(&Bench) -> Checked;

    /// Every case by its name.
    const CASES: &[(&str, Case)] = &[
        ("ids", flags::ids),
        ("flags", flags::accesses_and_writes_are_recorded),
        ("access-flag", flags::access_flag_alone),
        ("nested", nested::stage_1_is_fetched_and_not_written),
        ("illegal-ste", faults::streams_may_not_ask_for_more_than_is_offered),
        ("cached-read-only", faults::a_write_that_hits_a_cached_read_only_entry),
        ("late", late::dirty_state_is_held_back),
        ("in-flight", in_flight::what_lands_late_is_recorded_late),
    ];

    fn main(guest: &Guest) -> ! {
        let name = guest.tree.args().value("case").unwrap_or("(none)");
        match pick(guest, name) {
            Ok(()) => println!("case {name}: ok"),
            Err(reason) => println!("case {name}: FAILED: {reason}"),
        }
        // Firmware is QEMU itself, called by SMC where the machine has EL2.
        let _ = psci::system_off::<Smc>();
        loop {
            aarch64_cpu::asm::wfi();
        }
    }

    fn pick(guest: &Guest, name: &str) -> Checked {
        let (_, case) = CASES
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| reason!("no such case; a case is picked by case=NAME"))?;
        case(&Bench::new(guest)?)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "selftest runs without an operating system: build it with --target aarch64-unknown-none-softfloat"
    );
}
