//! The test guest. Its command line picks one case: `case=NAME key=value...`. Every case prints `case NAME: ok` and ends
//! by SYSTEM_OFF, or prints `case NAME: FAILED: reason` and ends by SYSTEM_RESET; those that end the VM in another way
//! say so before they do.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    expect(
        clippy::result_large_err,
        reason = "a check that fails is the last thing that happens; there is no heap"
    )
)]

#[cfg(target_os = "none")]
mod aarch32;
#[cfg(target_os = "none")]
mod aborts;
#[cfg(target_os = "none")]
mod bad;
#[cfg(target_os = "none")]
mod bad_log;
#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod digest;
#[cfg(target_os = "none")]
mod dma;
#[cfg(target_os = "none")]
mod ending;
#[cfg(target_os = "none")]
mod entered;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod grain;
#[cfg(target_os = "none")]
mod marks;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod odd;
#[cfg(target_os = "none")]
mod pci;
#[cfg(target_os = "none")]
mod places;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod shadow;
#[cfg(target_os = "none")]
mod shadow_dma;
#[cfg(target_os = "none")]
mod stage1;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod storm;
#[cfg(target_os = "none")]
mod trial;
#[cfg(target_os = "none")]
mod undefined;
#[cfg(target_os = "none")]
mod waiting;

#[cfg(target_os = "none")]
mod run {
    use guest_rt::boot::Guest;
    use guest_rt::reason::Checked;
    use guest_rt::{power, println, reason};

    use crate::{
        aarch32, aborts, bad, calls, digest, dma, ending, entered, fuzz, grain, marks, measure, odd, pci,
        platform, shadow, shadow_dma, stage1, start, storm, undefined, waiting,
    };

    guest_rt::guest_main!(main);

    type Case = fn(&Guest) -> Checked;

    /// Every case by its name.
    const CASES: &[(&str, Case)] = &[
        ("aarch32", aarch32::a_program_in_aarch32_is_answered_as_one_in_aarch64),
        ("aborts", aborts::what_is_not_there_answers_by_an_abort),
        ("bad", bad::every_bad_input_is_refused),
        ("cpu-off", ending::cpu_off),
        ("digest", digest::a_copy_kept_by_the_log_is_equal_in_the_end),
        ("dma", dma::every_round_reports_what_devices_wrote),
        ("entered", entered::tells_when_it_was_entered),
        ("fault", ending::touches_what_is_not_there),
        ("fault-cost", start::first_writes_have_their_price),
        ("fault-exec", ending::executes_a_device),
        ("fuzz", fuzz::random_calls_do_no_harm),
        ("grain", grain::tells_what_a_granule_costs),
        ("marks", marks::tells_and_leaves_marks),
        ("measure", measure::tells_what_calls_cost),
        ("odd", odd::odd_instructions_are_answered),
        ("pci", pci::config_space_shows_own_devices),
        ("platform", platform::a_clock_of_the_machine_can_be_read),
        ("psci", calls::psci_and_smccc_answer),
        ("registers", undefined::every_register_goes_through_or_is_undefined),
        ("reset", ending::reset),
        ("shadow", shadow::every_round_reports_what_was_written),
        ("shadow-dma", shadow_dma::a_copy_by_the_log_is_the_memory),
        ("smc", calls::smc_is_not_supported),
        ("spam", ending::prints_much),
        ("stage1", stage1::own_translation_may_point_anywhere),
        ("stage1-log", stage1::own_tables_are_logged),
        ("start", start::starts_once),
        ("storm", storm::random_calls_by_the_million),
        ("undefined", undefined::what_a_guest_may_not_have_is_undefined),
        ("walk-nowhere", stage1::walks_nowhere),
        ("walks", start::walks_blocks_then_pages_then_blocks),
        ("wfi", waiting::wfi_returns),
    ];

    fn main(guest: &Guest) -> ! {
        let name = guest.tree.args().value("case").unwrap_or("(none)");
        match pick(guest, name) {
            Ok(()) => {
                println!("case {name}: ok");
                power::off()
            }
            Err(reason) => {
                println!("case {name}: FAILED: {reason}");
                power::fail()
            }
        }
    }

    fn pick(guest: &Guest, name: &str) -> Checked {
        let (_, case) = CASES.iter().find(|(n, _)| *n == name).ok_or_else(|| {
            reason!(
                "no such case; the command line is '{}', a case is picked by case=NAME",
                guest.tree.args().0
            )
        })?;
        case(guest)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("cases is a guest kernel: build it with --target aarch64-unknown-none-softfloat");
}
