//! The demo, as a newcomer runs it: on every CPU model it is for, with VMs of several sizes.

use qemu_tests::Boot;

/// Asserts that the probe has passed every check, and that QEMU had nothing to complain of but the rogue DMA.
fn probe_passes(boot: Boot) {
    let outcome = boot.trace(&["guest_errors"]).run().success();
    let all = outcome.lines.iter().find(|l| l.contains("checks passed"));
    assert!(all.is_some_and(|l| l.starts_with("vm0| probe: all ")), "{}", outcome.show());
    assert!(!outcome.says("FAILED"), "{}", outcome.show());
    // Four accesses of the rogue DMA, one line each, and nothing else.
    let rogue = outcome.traced("translation failed for iova=");
    assert_eq!((rogue, outcome.trace.len()), (4, 4), "{}\n{}", outcome.trace.join("\n"), outcome.show());
}

#[test]
fn demo_passes_on_max() {
    probe_passes(Boot::probe());
}

#[test]
fn demo_passes_on_neoverse_n2() {
    probe_passes(Boot::probe().option("--cpu", "neoverse-n2"));
}

#[test]
fn cores_that_owe_invalidations_twice_are_named_as_such() {
    let boot = |cpu| Boot::probe().option("--memory", "32M").option("--cpu", cpu);
    let told = |cpu| boot(cpu).run().success().says("invalidations are issued twice");
    assert_eq!(["cortex-a76", "neoverse-n1", "max"].map(told), [true, true, false]);
}

#[test]
fn demo_passes_on_cortex_a76() {
    probe_passes(Boot::probe().option("--cpu", "cortex-a76"));
}

#[test]
fn demo_passes_with_two_mebibyte_blocks_in_a_small_vm() {
    probe_passes(Boot::probe().option("--memory", "32M"));
    probe_passes(Boot::probe().option("--memory", "510M"));
}

#[test]
fn demo_passes_with_gibibyte_blocks_in_a_large_vm() {
    // Digests of so much memory would take long.
    probe_passes(Boot::probe().option("--memory", "4G").option("--config", "dma=assume"));
}

#[test]
fn demo_passes_in_a_vm_larger_than_its_gibibyte_blocks() {
    probe_passes(Boot::probe().option("--memory", "1538M"));
}

#[test]
fn demo_passes_with_more_cores_than_are_used() {
    probe_passes(Boot::probe().option("--cpus", "4"));
}

#[test]
fn a_machine_without_an_its_boots() {
    let boot = Boot::case("smc", "").flag("--no-device").qemu(&["-machine", "its=off"]);
    assert!(boot.run().success().says("case smc: ok"));
}

#[test]
fn a_machine_of_64_gibibytes_boots_and_touches_only_what_it_uses() {
    let large = Boot::probe().option("--memory", "64G").option("--config", "dma=assume");
    let outcome = large.run().success();
    assert!(outcome.says("mapped by 64 blocks of 1 GiB and 0 of 2 MiB"), "{}", outcome.show());
    assert!(outcome.says("1 TLBI_S12_VMALL, 0 TLBI_S2_IPA, 1 SYNC"), "{}", outcome.show());
}

#[test]
fn two_vms_run_each_to_its_end() {
    let second = format!(
        "guest-loader,addr=0x60000000,kernel={},bootargs=memory=64M name=second -- case=smc",
        qemu_tests::built("cases.img").display()
    );
    let outcome = Boot::probe().option("--memory", "256M").qemu(&["-device", &second]).run().success();
    assert!(outcome.says("vm0| probe: all "), "{}", outcome.show());
    assert!(outcome.says("second| case smc: ok"), "{}", outcome.show());
}

#[test]
fn one_failed_vm_of_two_fails_the_run() {
    let second = format!(
        "guest-loader,addr=0x60000000,kernel={},bootargs=memory=64M name=second -- case=smc",
        qemu_tests::built("cases.img").display()
    );
    let outcome =
        Boot::case("reset", "").qemu(&["-device", &second]).run().failure("VM vm0: ended by SYSTEM_RESET");
    assert!(outcome.says("second| case smc: ok"), "{}", outcome.show());
}

#[test]
fn a_ramdisk_is_its_vms_own() {
    let ramdisk = qemu_tests::root().join("Cargo.lock");
    let _ = Boot::probe().option("--ramdisk", &ramdisk.display().to_string()).run().success();
}

#[test]
fn the_image_keeps_within_its_budget() {
    let bytes = std::fs::metadata(qemu_tests::built("strandline.img")).expect("it was built").len();
    assert!(bytes <= 256 << 10, "the image has {bytes} bytes, its budget is 256 KiB");
    // All memory of EL2's own, table frames, bitmaps and queues apart.
    let outcome = Boot::case("smc", "").run().success();
    let line = outcome.lines.iter().find(|l| l.contains("KiB with stacks and heap")).expect("the first line");
    let kib = line
        .split_once(" KiB")
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|n| n.parse().ok());
    assert!(kib.is_some_and(|kib: u64| kib <= 2048), "{line}");
}
