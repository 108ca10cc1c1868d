//! What the SMMU was told and what it walked, by QEMU's own trace, not by our counters.

use std::collections::BTreeMap;

use qemu_tests::Boot;

/// The SMMU commands of a run, each with how often it was issued.
fn commands(arguments: &str) -> BTreeMap<String, usize> {
    let boot = Boot::case("start", arguments).option("--memory", "2G").trace(&["trace:smmuv3_cmdq_opcode"]);
    let mut counts = BTreeMap::new();
    for line in boot.run().success().trace {
        let command = line.rsplit(' ').next().unwrap_or_default().trim_start_matches("SMMU_CMD_");
        *counts.entry(command.to_string()).or_default() += 1;
    }
    assert!(counts.len() > 2, "the trace is empty: {counts:?}");
    counts
}

fn a_start_costs_one_vmall_and_one_sync(size: &str) {
    let with = commands(&format!("size={size} start=yes"));
    let mut without = commands(&format!("size={size} start=no"));
    for command in ["TLBI_S12_VMALL", "SYNC"] {
        *without.entry(command.into()).or_default() += 1;
    }
    assert_eq!(
        with, without,
        "a run with one start more (left) and one without, plus one VMALL and one SYNC"
    );
}

#[test]
fn a_start_of_2_mebibytes_costs_exactly_one_vmall_and_one_sync() {
    a_start_costs_one_vmall_and_one_sync("2M");
}

#[test]
fn a_start_of_1_gibibyte_costs_exactly_one_vmall_and_one_sync() {
    a_start_costs_one_vmall_and_one_sync("1G");
}

#[test]
fn dma_walks_blocks_before_the_log_pages_during_it_and_blocks_again_after() {
    for (memory, block) in [("1G", "block size = 1024 M"), ("64M", "block size = 2 M")] {
        let outcome = Boot::case("walks", "")
            .option("--memory", memory)
            .trace(&["trace:smmu_ptw_block_pte", "trace:smmu_ptw_page_pte"])
            .run()
            .success();
        // Runs of walks that end alike, in order.
        let mut walks: Vec<&str> = vec![];
        for line in outcome.trace.iter() {
            let kind = if line.contains(block) {
                "block"
            } else if line.contains("smmu_ptw_page_pte") {
                "page"
            } else {
                "other"
            };
            if walks.last() != Some(&kind) {
                walks.push(kind);
            }
        }
        assert_eq!(
            walks,
            ["block", "page", "block"],
            "{memory}:\n{}{}",
            outcome.trace.join("\n"),
            outcome.show()
        );
    }
}
