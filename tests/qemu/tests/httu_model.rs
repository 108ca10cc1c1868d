//! The patched emulator itself: what its SMMUv3 does that the unpatched one does not, and that it does no more by default.

use std::path::Path;

use qemu_tests::emulator::{patched, raw_selftest, selftest, stock};
use qemu_tests::{Boot, Outcome};

const HTTU: [&str; 2] = ["-global", "arm-smmuv3.httu=2"];
const ACCESS_FLAG: [&str; 2] = ["-global", "arm-smmuv3.httu=1"];
const LATE: [&str; 2] = ["-global", "arm-smmuv3.httu-late=on"];
/// A drive that gives one request at once and makes the others wait.
const SLOW_DRIVE: [&str; 2] =
    ["-drive", "if=none,id=zeros,driver=null-co,size=1G,read-zeroes=on,throttling.iops-total=2"];
const FAST_DRIVE: [&str; 2] = ["-drive", "if=none,id=zeros,driver=null-co,size=1G,read-zeroes=on"];
const NVME: [&str; 2] = ["-device", "nvme,addr=02.0,serial=zeros,drive=zeros"];
const VIRTIO: [&str; 2] =
    ["-device", "virtio-blk-pci,addr=03.0,drive=zeros,disable-legacy=on,iommu_platform=on"];

/// Asserts that a case of the self-test passes on the patched emulator, if there is one.
fn passes(case: &str, arguments: &[&[&str]]) {
    let Some(patched) = patched() else { return };
    let printed = selftest(&patched, case, &arguments.concat());
    assert!(printed.contains(&format!("case {case}: ok")), "{printed}");
}

/// Asserts that a case passes on the patched emulator by default, and fails on the unpatched one for this reason.
fn is_repaired(case: &str, reason: &str) {
    let Some(patched) = patched() else { return };
    let printed = selftest(&patched, case, &[]);
    assert!(printed.contains(&format!("case {case}: ok")), "{printed}");
    let Some(stock) = stock(&patched) else { return };
    let printed = selftest(&stock, case, &[]);
    assert!(printed.contains(&format!("case {case}: FAILED: {reason}")), "{printed}");
}

#[test]
fn a_write_that_hits_a_cached_read_only_entry_is_recorded_and_was_not() {
    is_repaired("cached-read-only", "0 event records, not 1");
}

#[test]
fn an_ste_that_asks_for_more_than_is_offered_is_refused_and_was_not() {
    is_repaired("illegal-ste", "an STE with S2HA was taken");
}

#[test]
fn an_ste_may_ask_for_what_is_offered() {
    passes("illegal-ste", &[&ACCESS_FLAG]);
    passes("illegal-ste", &[&HTTU]);
}

#[test]
fn identification_follows_the_properties() {
    let Some(patched) = patched() else { return };
    for (arguments, httu, bbml) in [
        (vec![], 0, 2),
        (ACCESS_FLAG.to_vec(), 1, 2),
        (HTTU.to_vec(), 2, 2),
        (vec!["-global", "arm-smmuv3.bbml=0"], 0, 0),
        ([&HTTU[..], &["-global", "arm-smmuv3.bbml=1"]].concat(), 2, 1),
    ] {
        let printed = selftest(&patched, "ids", &arguments);
        let expected = format!("IDR0.HTTU = {httu}\nIDR3.BBML = {bbml}\n");
        assert!(printed.contains(&expected), "{arguments:?}: {printed}");
    }
}

#[test]
fn properties_without_a_meaning_are_refused() {
    let Some(patched) = patched() else { return };
    for (property, says) in [
        ("httu=3", "httu must be 0, 1 or 2"),
        ("bbml=3", "bbml must be 0, 1 or 2"),
        ("httu-late=on", "httu-late needs httu=2"),
    ] {
        let output = raw_selftest(&patched, "ids", &["-global", &format!("arm-smmuv3.{property}")]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(says), "{property}: {errors}");
    }
}

#[test]
fn accesses_and_writes_are_recorded_at_pages_and_blocks() {
    passes("flags", &[&HTTU]);
}

#[test]
fn accesses_and_writes_are_recorded_with_several_cores_and_with_counted_instructions() {
    passes("flags", &[&HTTU, &["-smp", "2"]]);
    passes("flags", &[&HTTU, &["-icount", "shift=1,sleep=off"]]);
}

#[test]
fn the_access_flag_can_be_had_alone() {
    passes("access-flag", &[&ACCESS_FLAG]);
    passes("access-flag", &[&HTTU]);
}

#[test]
fn what_stage_1_is_made_of_is_accessed_and_stays_clean() {
    passes("nested", &[&HTTU]);
}

#[test]
fn late_dirty_state_shows_after_a_sync_or_an_invalidation_and_not_before() {
    passes("late", &[&HTTU, &LATE]);
}

#[test]
fn late_dirty_state_is_not_the_default() {
    let Some(patched) = patched() else { return };
    let printed = selftest(&patched, "late", &HTTU);
    assert!(
        printed.contains("case late: FAILED: a write, before CMD_SYNC, left the descriptor"),
        "{printed}"
    );
}

#[test]
fn nvme_reads_that_land_behind_an_invalidation_are_recorded() {
    passes("in-flight-nvme", &[&HTTU, &SLOW_DRIVE, &NVME]);
    passes("in-flight-nvme", &[&HTTU, &LATE, &SLOW_DRIVE, &NVME]);
}

#[test]
fn virtio_reads_that_land_behind_an_invalidation_are_recorded() {
    passes("in-flight-virtio", &[&HTTU, &SLOW_DRIVE, &VIRTIO]);
    passes("in-flight-virtio", &[&HTTU, &LATE, &SLOW_DRIVE, &VIRTIO]);
}

#[test]
fn a_vcpu_and_the_smmu_may_change_one_descriptor_at_the_same_time() {
    for cores in ["1", "2"] {
        passes("race", &[&HTTU, &["-smp", cores], &NVME, &FAST_DRIVE]);
    }
}

/// The demo with instructions counted, and all that QEMU traces of the SMMU.
fn counted_demo(emulator: &Path) -> Outcome {
    Boot::probe()
        .emulator(emulator)
        .qemu(&["-icount", "shift=1,sleep=off", "-M", "dtb-randomness=off"])
        .trace(&["trace:smmu*", "guest_errors", "unimp"])
        .run()
        .success()
}

#[test]
fn by_default_the_patched_emulator_prints_and_traces_what_the_unpatched_one_does() {
    let Some(patched) = patched() else { return };
    let Some(stock) = stock(&patched) else { return };
    let [ours, theirs] = [patched, stock].map(|emulator| counted_demo(&emulator));
    assert_eq!(ours.lines, theirs.lines);
    for event in
        ["smmuv3_cmdq_opcode", "smmuv3_translate_success", "smmu_ptw_page_pte", "smmuv3_record_event"]
    {
        assert!(theirs.traced(event) > 0, "{event} was not traced");
    }
    assert_eq!(ours.trace.len(), theirs.trace.len());
    for (ours, theirs) in ours.trace.iter().zip(&theirs.trace) {
        assert_eq!(ours, theirs);
    }
}
