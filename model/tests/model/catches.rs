//! For each rule a piece of software that breaks it, and the seed that catches it.

use std::cell::Cell;

use crate::broken::{Broken, BrokenPort, BrokenTlb, Fault, Phase};
use crate::vm::{Plan, cycle, options, quiet};
use strandline::smmu::Smmu;
use strandline_abi::DmaTier;
use strandline_model::{Machine, Parameters};

/// Seeds within which a fault must be caught.
const SEEDS: u64 = 64;

/// What becomes of a log on machine `parameters` with `fault`.
fn run(parameters: Parameters, fault: Fault, tier: DmaTier) -> Result<(), String> {
    let machine = Machine::new(parameters);
    let platform = Broken::new(&machine, fault);
    let port = BrokenPort { inner: machine.smmu(), fault, prod: Cell::new(0) };
    let smmu = Smmu::new(&platform, port, &options());
    quiet(&machine)?;
    let smmu = smmu.map_err(|e| e.to_string())?;
    let tlb = BrokenTlb { inner: &smmu, platform: &platform, late: Cell::new(None), early: Cell::new(None) };
    let phase = |phase: Phase| platform.enter(phase);
    cycle(&machine, &platform, &smmu, &tlb, Plan::new(tier), phase).map(|_| ())
}

/// The first seed that catches `fault`, and the account.
fn caught(fault: Fault, change: impl Fn(&mut Parameters)) -> (u64, String) {
    for seed in 0..SEEDS {
        let mut parameters = Parameters::new(seed);
        change(&mut parameters);
        if let Err(account) = run(parameters, fault, DmaTier::Hardware) {
            let line = account.lines().next().unwrap_or_default().to_owned();
            println!("{fault:?}, seed {seed}: {line}");
            return (seed, line);
        }
    }
    panic!("{fault:?} is not caught within {SEEDS} seeds");
}

/// One test for each fault: its name, the fault, and a word of the account.
macro_rules! catches {
    ($($name:ident: $fault:ident, $word:literal;)*) => {$(
        #[test]
        fn $name() {
            let (_, account) = caught(Fault::$fault, |_| ());
            assert!(account.contains($word), "{account}");
        }
    )*};
}

catches! {
    walk_without_a_sync_before_it_loses: NoSyncBeforeWalk, "lost";
    walk_without_a_dsb_after_the_sync_loses: NoBarrierBeforeWalk, "lost";
    walk_of_the_cpu_view_without_a_dsb_loses: NoCpuBarrierBeforeWalk, "lost";
    clean_without_an_smmu_invalidation_loses: NoDmaInvalidationAfterClean, "lost";
    clean_without_a_cpu_invalidation_loses: NoCpuInvalidationAfterClean, "lost";
    invalidation_before_the_clean_loses: InvalidationBeforeClean, "lost";
    invalidation_whose_sync_nobody_awaits_is_caught: NoWaitForSync, "";
    delivery_before_the_invalidation_loses: InvalidationAfterDelivery, "lost";
    table_freed_without_invalidation_is_in_use: NoInvalidationBeforeFree, "FrameInUse";
    clean_by_load_and_store_loses: LoadThenStore, "lost";
    direct_swap_makes_a_pe_abort: DirectSwap, "TlbConflictAbort";
    hold_without_dsb_leaves_a_walk_under_way: HoldWithoutDsb, "WalkUnderWay";
    contiguous_leaf_is_refused: Contiguous, "Contiguous";
    leaf_without_access_flag_is_refused: AccessFlagClear, "AccessFlagClear";
    level_hint_of_pages_leaves_blocks: WrongLevel, "lost";
    level_hint_needs_an_aligned_address: UnalignedLevel, "LevelHint";
    leaf_only_leaves_table_descriptors: LeafOnly, "FrameInUse";
    commands_without_a_barrier_are_not_visible: NoBarrierBeforeProd, "CommandNotVisible";
    tables_linked_without_a_barrier_are_not_visible: NoBarrierBeforeLink, "TableNotVisible";
    stream_attached_without_cfgi_is_caught: NoConfigInvalidation, "";
    enable_without_emptying_the_tlb_is_refused: NoInvalidationAtBringUp, "EnabledUninvalidated";
    broadcast_without_dsb_is_never_complete: NoBarrierAfterTlbi, "";
    frame_freed_twice_is_noticed: DoubleFree, "FrameFreedTwice";
}

#[test]
fn hardware_update_without_httu_is_illegal() {
    let (_, account) = caught(Fault::HardwareUpdateWithoutHttu, |p| p.smmu.httu = 0);
    assert!(account.contains("IllegalSte"), "{account}");
}

#[test]
fn software_that_breaks_nothing_is_not_accused() {
    for seed in 0..SEEDS {
        assert_eq!(run(Parameters::new(seed), Fault::None, DmaTier::Hardware), Ok(()), "seed {seed}");
    }
}

fn not_coherent(parameters: &mut Parameters) {
    (parameters.smmu.coherent, parameters.smmu.httu) = (false, 0);
}

#[test]
fn walker_that_is_not_coherent_sees_what_was_cleaned_and_completed() {
    for seed in 0..30 {
        let mut parameters = Parameters::new(seed);
        not_coherent(&mut parameters);
        assert_eq!(run(parameters, Fault::FullBarriers, DmaTier::Assume), Ok(()), "seed {seed}");
    }
}

#[test]
fn dsb_of_stores_does_not_complete_a_cache_clean() {
    let (_, account) = caught(Fault::StoreBarrierAfterClean, not_coherent);
    assert!(account.contains("NotVisible"), "{account}");
}

#[test]
fn two_sizes_below_bbml_2_conflict() {
    for bbml in 0..2 {
        let (_, account) = caught(Fault::None, |p| p.smmu.bbml = bbml);
        assert!(account.contains("SmmuTlbConflict"), "{account}");
    }
}
