//! What a guest can do to EL2 by instructions: EL2 answers, stays as it was, and goes on.

use qemu_tests::{Boot, Outcome, built};

/// Runs a boot of case `name` that says by itself whether it is right, on an EL2 that finds itself unchanged.
fn right(name: &str, boot: Boot) -> Outcome {
    let outcome = boot.run().success();
    assert!(outcome.says(&format!("vm0| case {name}: ok")), "{}", outcome.show());
    assert!(outcome.says("VM vm0: EL2 is as it was before"), "{}", outcome.show());
    outcome
}

fn case(name: &str) -> Outcome {
    right(name, Boot::case(name, ""))
}

#[test]
fn what_a_guest_may_not_have_is_undefined_as_to_the_cpu_itself() {
    let outcome = case("undefined");
    assert!(outcome.says("PSTATE with all fields: true"), "the CPU lacks some of PSTATE{}", outcome.show());
    // Memory tags bring PSTATE.TCO.
    let tags = Boot::case("undefined", "").qemu(&["-machine", "mte=on"]);
    assert!(right("undefined", tags).says("PSTATE with all fields: true"));
    let told = outcome.lines.iter().filter(|l| l.contains("it gets an exception")).count();
    assert_eq!(told, 8, "the console tells the first eight and no more{}", outcome.show());
}

#[test]
fn every_system_register_and_instruction_goes_through_or_is_undefined() {
    case("registers");
    right("registers", Boot::case("registers", "").qemu(&["-machine", "mte=on"]));
    // CPUs without fine-grained traps, pointer authentication, and much else.
    for cpu in ["neoverse-n1", "cortex-a76", "neoverse-v1"] {
        right("registers", Boot::case("registers", "").option("--cpu", cpu));
    }
}

#[test]
fn loads_stores_and_fetches_where_nothing_is_are_answered_by_aborts() {
    case("aborts");
}

#[test]
fn page_tables_of_the_guest_may_point_anywhere() {
    case("stage1");
}

#[test]
fn programs_in_aarch32_meet_the_same_traps() {
    let outcome = case("aarch32");
    assert!(!outcome.says("skipped"), "{}", outcome.show());
}

#[test]
fn calls_with_immediates_own_exceptions_and_storms_of_wfi_are_answered() {
    case("odd");
}

#[test]
fn an_exception_that_nobody_expects_ends_a_guest_by_its_own_vectors() {
    let touched = |access: &str, address: u64, esr: &str| {
        let outcome = Boot::case("fault", &format!("access={access} addr={address:#x}"))
            .run()
            .failure("VM vm0: ended by SYSTEM_RESET");
        let guest = format!("(vector 4): ESR_EL1 {esr}");
        assert!(outcome.says(&guest), "{}", outcome.show());
        assert!(outcome.says(&format!("FAR_EL1 {address:#x}")), "{}", outcome.show());
        let direction = if access == "read" { "read from" } else { "write to" };
        let told = format!("VM vm0: {direction} {address:#x}, where it has no memory, at PC 0x");
        assert!(outcome.says(&told), "{}", outcome.show());
    };
    touched("read", 0x8000_0000, "0x96000010");
    touched("write", 0x8000_0000, "0x96000050");
    // EL2's own image, where the machine has it, is none of its addresses.
    touched("write", 0x2000_0000, "0x96000050");
    let _ = Boot::case("fault-exec", "")
        .run()
        .failure("(vector 4): ESR_EL1 0x86000010, ELR_EL1 0x9000000, FAR_EL1 0x9000000");
}

#[test]
fn a_guest_whose_vectors_cannot_be_fetched_is_stopped_with_a_report() {
    let _ =
        Boot::case("walk-nowhere", "").run().failure("stopped: instruction fetch by page tables at 0x2000");
}

#[test]
fn no_register_passes_from_one_vm_to_the_next() {
    let second = format!(
        "guest-loader,addr=0x54000000,kernel={},bootargs=memory=64M -- case=marks",
        built("cases.img").display()
    );
    let outcome = Boot::case("marks", "")
        .option("--memory", "64M")
        .flag("--no-device")
        .qemu(&["-device", &second])
        .run()
        .success();
    let marks = |vm: &str| -> Vec<String> {
        let prefix = format!("{vm}| mark ");
        outcome.lines.iter().filter_map(|l| l.strip_prefix(&prefix)).map(String::from).collect()
    };
    let (first, second) = (marks("vm0"), marks("vm1"));
    assert!(first.len() > 100, "{}", outcome.show());
    // APIAKeyLo_EL1, to name one that has been forgotten before.
    assert!(first.iter().any(|m| m == "S[3, 0, 2, 1, 0] = 0x0"), "{}", outcome.show());
    assert_eq!(first, second);
    assert!(outcome.says("VM vm1: EL2 is as it was before"), "{}", outcome.show());
}

#[test]
fn ten_million_random_calls_during_dma_leave_el2_as_it_was() {
    // With digests a start has many more steps: random calls would hardly ever end one.
    let boot = Boot::case("storm", "calls=10000000 seed=20261123").option("--memory", "64M");
    let boot = boot.option("--config", "dma=assume");
    let outcome = right("storm", boot);
    let told: Vec<_> = outcome.lines.iter().filter(|l| l.starts_with("vm0| ")).collect();
    println!("{told:#?}");
}
