//! The guest in C: every call, every flag and every error of the contract, as a newcomer to it finds them.

use qemu_tests::{Boot, Outcome, built};

fn c_probe() -> Boot {
    Boot::guest(built("c-probe.img"))
}

/// The rows of its table.
fn rows(outcome: &Outcome) -> Vec<&str> {
    let rows = outcome.lines.iter().filter_map(|line| line.strip_prefix("vm0| "));
    rows.filter(|row| row.ends_with(" ok")).collect()
}

/// Asserts that every row was as expected, and that there are at least `fewest`.
fn all_as_expected(outcome: Outcome, fewest: usize) -> Outcome {
    let outcome = outcome.success();
    let count = rows(&outcome).len() - 1; // the head of the table
    assert!(!outcome.says("WRONG") && count >= fewest, "{count} rows{}", outcome.show());
    assert!(outcome.says(&format!("c-probe: {count} of {count} as expected")), "{}", outcome.show());
    outcome
}

#[test]
fn every_call_flag_and_error_is_as_the_contract_says() {
    let outcome = all_as_expected(c_probe().option("--config", "dma=assume").run(), 405);
    let rows = rows(&outcome);
    for call in
        ["uid", "revision", "features", "start", "sync", "clear", "stop", "status", "faults", "read", "psci"]
    {
        assert!(rows.iter().any(|row| row.starts_with(call)), "no row tries {call}{}", outcome.show());
    }
    for status in
        ["DONE", "MORE", "NOT_SUPPORTED", "INVALID_PARAMETER", "UNALIGNED", "OUT_OF_RANGE", "DENIED", "BUSY"]
    {
        assert!(rows.iter().any(|row| row.contains(status)), "no row meets {status}{}", outcome.show());
    }
    for kind in ["a device's write outside RAM", "tier assume reports every page", "the second step, twice"] {
        assert!(outcome.says(kind), "{kind} was not tried{}", outcome.show());
    }
}

#[test]
fn the_contract_is_kept_by_digests_and_write_protect_faults() {
    let outcome = all_as_expected(c_probe().option("--cpu", "cortex-a72").run(), 405);
    let rows = rows(&outcome);
    for kind in ["devices' tier weaker", "CPU's tier weaker"] {
        let row = rows.iter().find(|row| row.contains(kind));
        assert!(
            row.is_some_and(|row| row.contains("NOT_SUPPORTED")),
            "{kind} was not tried{}",
            outcome.show()
        );
    }
}

#[test]
fn a_vm_without_a_device_keeps_the_contract() {
    let outcome = all_as_expected(c_probe().flag("--no-device").option("--memory", "32M").run(), 320);
    assert!(outcome.says("the VM has no edu device"), "{}", outcome.show());
}

#[test]
fn a_start_without_frames_enough_says_how_many_it_needs() {
    // A log of 256 GiB in two views takes more than the 1 GiB that is left to the machine for tables.
    let boot = c_probe().option("--memory", "256G").option("--cmdline", "no-memory");
    let outcome = all_as_expected(boot.run(), 5);
    assert!(rows(&outcome).iter().any(|row| row.contains("NO_MEMORY")), "{}", outcome.show());
}

/// What `tell` printed of `what`, for one call of the thousand.
fn per_call(outcome: &Outcome, what: &str) -> f64 {
    let end = format!(" ticks for 1000 times {what}");
    let ticks = outcome.lines.iter().find_map(|line| line.strip_prefix("vm0| cost: ")?.strip_suffix(&end));
    let ticks: f64 =
        ticks.and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("no {what}{}", outcome.show()));
    ticks / 1000.0
}

#[test]
fn a_call_that_does_nothing_costs_few_instructions() {
    // An instruction takes 1 ns, and the counter of `max` runs at 1 GHz: ticks are instructions.
    let boot =
        c_probe().option("--cmdline", "cost").flag("--no-device").qemu(&["-icount", "shift=0,sleep=off"]);
    let outcome = boot.run().success();
    assert!(outcome.says("cost: 1000000000 ticks a second"), "{}", outcome.show());
    let nothing = per_call(&outcome, "nothing");
    assert!((1.0..1.5).contains(&nothing), "ticks are not instructions{}", outcome.show());
    for (call, most) in
        [("an unknown call", 500.0), ("revision", 500.0), ("features", 800.0), ("PSCI_VERSION", 500.0)]
    {
        let cost = per_call(&outcome, call) - nothing;
        println!("{call}: {cost:.0} instructions");
        assert!(cost > 55.0 && cost < most, "{call} takes {cost} instructions{}", outcome.show());
    }
}
