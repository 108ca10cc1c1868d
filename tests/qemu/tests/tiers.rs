//! Logs without hardware dirty state: write-protect faults for vCPUs, digests for devices, and what is said of them.

use qemu_tests::{Boot, Outcome};

fn right(name: &str, boot: Boot) -> Outcome {
    let outcome = boot.run().success();
    assert!(outcome.says(&format!("vm0| case {name}: ok")), "{}", outcome.show());
    outcome
}

/// CPU models, and what is said of how their writes are known.
const CPUS: [(&str, &str); 4] = [
    ("cortex-a72", "by write-protect faults"),
    ("cortex-a76", "by the CPU's dirty state"),
    ("neoverse-n2", "by the CPU's dirty state"),
    ("max", "by the CPU's dirty state"),
];

#[test]
fn the_demo_passes_by_faults_and_digests() {
    for boot in [
        Boot::probe().option("--cpu", "cortex-a72"),
        Boot::probe().option("--config", "cpu=faults").option("--memory", "256M"),
    ] {
        let outcome = boot.run().success();
        assert!(outcome.says("writes of its CPU are known by write-protect faults"), "{}", outcome.show());
        assert!(outcome.says("known by digest: the page the device wrote is reported"), "{}", outcome.show());
    }
}

#[test]
fn a_shadow_of_random_writes_is_exact_on_every_cpu() {
    for (cpu, tier) in CPUS {
        let boot = Boot::case("shadow", "rounds=12 seed=6").option("--cpu", cpu).option("--memory", "128M");
        let outcome = right("shadow", boot);
        assert!(outcome.says(&format!("writes of its CPU are known {tier}")), "{cpu}{}", outcome.show());
    }
}

#[test]
fn a_guests_own_page_tables_are_logged_where_walks_write_them() {
    for (cpu, written) in [("cortex-a72", "not written"), ("cortex-a76", "written"), ("max", "written")] {
        let boot = Boot::case("stage1-log", "").option("--cpu", cpu).option("--memory", "64M");
        let outcome = right("stage1-log", boot);
        assert!(outcome.says(&format!("tables {written} by walks")), "{cpu}{}", outcome.show());
    }
    // Dirty state at stage 1, write protection at stage 2: a walk's write is the fault of a walk.
    let boot = Boot::case("stage1-log", "").option("--config", "cpu=faults").option("--memory", "64M");
    assert!(right("stage1-log", boot).says("tables written by walks"));
}

#[test]
fn a_copy_by_read_is_equal_in_the_end_though_the_device_writes_there_and_back() {
    let small = |arguments: &str| Boot::case("digest", arguments).option("--memory", "64M");
    let outcome = right("digest", small("rounds=18 seed=6"));
    assert!(outcome.says("devices are known by digest"), "{}", outcome.show());
    let _ = right("digest", small("rounds=9 seed=7").option("--cpu", "cortex-a72"));
}

#[test]
fn a_copy_by_loads_of_its_own_is_fooled_by_a_write_there_and_back() {
    let boot = Boot::case("digest", "rounds=9 seed=6 copy=loads").option("--memory", "64M");
    let outcome = boot.run().failure("SYSTEM_RESET");
    assert!(outcome.says("case digest: FAILED: the copy differs in page"), "{}", outcome.show());
}

#[test]
fn a_digest_that_was_kept_at_the_wrong_moment_is_found() {
    let boot = Boot::case("digest", "rounds=9 seed=6").option("--memory", "64M");
    let outcome = boot.image("sabotage/digest_of_the_sync.img").run().failure("SYSTEM_RESET");
    assert!(outcome.says("case digest: FAILED: the copy differs in page"), "{}", outcome.show());
}

#[test]
fn where_a_key_comes_from_is_said() {
    let key = |boot: Boot, source: &str| {
        let outcome = right("smc", boot.option("--memory", "64M"));
        assert!(outcome.says(&format!("the key of its digests comes from {source}")), "{}", outcome.show());
    };
    key(Boot::case("smc", ""), "the CPU's generator");
    key(Boot::case("smc", "").option("--cpu", "cortex-a72"), "the firmware's seed");
    let unseeded = Boot::case("smc", "").option("--cpu", "cortex-a72");
    key(unseeded.qemu(&["-machine", "dtb-randomness=off"]), "a counter");
}

#[test]
fn a_tier_that_the_hardware_lacks_is_refused_by_what_is_possible() {
    let refused = |config: &str, cpu: &str, possible: &str| {
        let boot = Boot::case("smc", "").option("--config", config).option("--cpu", cpu);
        let _ = boot.run().failure(possible);
    };
    refused("cpu=hardware", "cortex-a72", "cpu=faults is possible");
    refused("dma=hardware", "max", "dma=digest and dma=assume are possible");
    refused("cpu=soft", "max", "'cpu=soft': one of auto, hardware, faults");
}

#[test]
fn a_first_write_costs_a_fault_and_few_instructions() {
    // An instruction takes 1 ns, and the counter of `max` runs at 1 GHz: ticks are instructions.
    let boot = Boot::case("fault-cost", "").option("--config", "cpu=faults").option("--memory", "64M");
    let outcome = right("fault-cost", boot.flag("--no-device").qemu(&["-icount", "shift=0,sleep=off"]));
    let line = outcome.lines.iter().find_map(|line| line.strip_prefix("vm0| a first write takes "));
    let ticks = line.and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    println!("a first write takes {ticks:?} instructions");
    assert!(ticks.is_some_and(|ticks| (300..4000).contains(&ticks)), "{}", outcome.show());
}
