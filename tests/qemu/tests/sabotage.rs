//! The tests are tested: images with one fault built in must fail the demo, or the test that is meant for it.

use qemu_tests::Boot;

/// The probe, on the image with this fault, must fail, at a check and not by a crash.
fn probe_finds(fault: &str, at: &str) {
    let outcome = Boot::probe().image(&format!("sabotage/{fault}.img")).run().failure("SYSTEM_RESET");
    assert!(outcome.says("SABOTAGED"), "this is not the image with the fault{}", outcome.show());
    assert!(outcome.says("vm0| probe: FAILED: "), "{}", outcome.show());
    assert!(outcome.says(at), "it did not fail where it should{}", outcome.show());
}

#[test]
fn no_invalidation_after_a_clean_is_found() {
    probe_finds("no_invalidation", "[5/10]");
}

#[test]
fn one_page_too_few_in_the_bitmap_is_found() {
    let outcome =
        Boot::case("shadow", "").image("sabotage/one_page_too_few.img").run().failure("SYSTEM_RESET");
    assert!(outcome.says("case shadow: FAILED"), "{}", outcome.show());
}

#[test]
fn one_page_too_many_in_the_bitmap_is_found() {
    probe_finds("one_page_too_many", "[5/10]");
}

#[test]
fn a_cpu_view_that_is_not_split_is_found() {
    probe_finds("no_cpu_split", "[4/10]");
}

#[test]
fn a_dma_view_that_is_not_split_is_found() {
    probe_finds("no_dma_split", "[4/10]");
}

#[test]
fn a_second_vmall_is_found() {
    probe_finds("second_vmall", "[4/10]");
}

#[test]
fn the_image_that_is_shipped_has_no_fault_built_in() {
    let outcome = Boot::case("smc", "").run().success();
    assert!(!outcome.says("SABOTAGED"), "{}", outcome.show());
}
