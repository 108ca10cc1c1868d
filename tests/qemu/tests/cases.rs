//! Every case of the test guest.

use qemu_tests::{Boot, Outcome};

/// Runs a case that says by itself whether it is right.
fn case(name: &str, arguments: &str) -> Outcome {
    let outcome = Boot::case(name, arguments).run().success();
    assert!(outcome.says(&format!("vm0| case {name}: ok")), "{}", outcome.show());
    outcome
}

#[test]
fn every_bad_call_gets_its_documented_error_and_changes_nothing() {
    case("bad", "");
}

#[test]
fn a_shadow_of_random_writes_is_exact_in_every_round() {
    case("shadow", "rounds=24 seed=1");
    case("shadow", "rounds=24 seed=20261123 size=64M");
}

#[test]
fn random_calls_leave_the_hypervisor_and_the_next_log_intact() {
    case("fuzz", "rounds=3000 seed=1");
    case("fuzz", "rounds=3000 seed=2");
}

#[test]
fn a_guest_sees_its_own_pci_functions_and_nothing_else() {
    // Beside the VM's device the machine has another, and a bridge.
    let outcome = Boot::case("pci", "")
        .qemu(&["-device", "edu,addr=03.0", "-device", "pcie-root-port,addr=04.0,id=rp"])
        .run()
        .success();
    assert!(outcome.says("case pci: ok"), "{}", outcome.show());
}

#[test]
fn firmware_calls_answer_as_a_guest_expects() {
    case("psci", "");
    case("smc", "");
}

#[test]
fn wfi_sleeps_until_the_virtual_timer_and_never_for_ever() {
    case("wfi", "");
}

#[test]
fn every_line_of_a_guest_is_on_the_console_under_its_name() {
    let outcome = case("spam", "lines=500");
    let lines = outcome.lines.iter().filter(|l| l.starts_with("vm0| spam ")).count();
    assert_eq!(lines, 500, "{}", outcome.show());
    assert!(outcome.lines.iter().any(|l| l == "vm0| spam: the last line has no end"), "{}", outcome.show());
}

#[test]
fn a_reset_and_a_last_cpu_that_goes_off_are_failures() {
    let _ = Boot::case("reset", "").run().failure("VM vm0: ended by SYSTEM_RESET");
    let _ = Boot::case("cpu-off", "").run().failure("its last CPU went off");
}
