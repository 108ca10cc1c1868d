//! What is promised of a log, whatever happens and in whatever order: four properties, each over seeds of its own.

use std::ops::Range;

use strandline_model::Parameters;

use crate::guest::{Met, Mix, live};
use crate::host::Mischief;
use crate::life::seeds_to_soak;

const EVEN: Mix = Mix {
    exhaust: 64,
    remap: 96,
    replug: 64,
    toggle: 48,
    undelivered: 128,
    death: 0,
    mixed: 64,
    blocks: 128,
    adaptive: 0,
    refusal: 32,
    lesser: false,
};
/// With logs whose granule is adaptive, most of them.
const ADAPTIVE: Mix = Mix { adaptive: 900, toggle: 32, remap: 64, ..EVEN };
/// With an SMMU that stops answering now and then.
const FATAL: Mix = Mix { death: 64, mixed: 256, replug: 96, ..EVEN };
/// With two SMMUs, one of which stops answering now and then: which of them a start asks first, and so whether a command that
/// is refused is the start's own, nobody knows.
const TWO_FATAL: Mix = Mix { refusal: 0, ..FATAL };
/// SMMU_IIDR of an MMU-700 r1p0.
const MMU_700: u32 = 0x4871_043b;
/// Steps of a life.
const STEPS: u64 = 60;
/// Seeds within which mischief must be caught.
const SEEDS: u64 = 64;

/// The machine of a seed: with and without hardware dirty state on either side, and access flags of tables, some not
/// coherent, some without invalidation by range, of every break-before-make level, with small VMIDs and linear stream tables; and some whose
/// cores raise no conflict aborts, which then change sizes under running vCPUs.
fn machine(seed: u64) -> Parameters {
    let mut parameters = exact(seed);
    parameters.smmu.range_invalidation = !seed.is_multiple_of(5);
    if seed % 4 >= 2 {
        parameters.smmu.httu = 0;
        parameters.smmu.coherent = seed % 8 < 6;
    }
    parameters
}

/// The machine of a seed whose devices' writes are known exactly.
fn exact(seed: u64) -> Parameters {
    let mut parameters = Parameters::new(seed);
    parameters.pes.hafdbs = seed.is_multiple_of(2);
    parameters.pes.conflict_aborts = !seed.is_multiple_of(3);
    parameters.smmu.bbml = [2, 1, 2, 0, 2, 1, 2][(seed % 7) as usize];
    parameters.smmu.httu = if seed % 4 == 1 { 3 } else { 2 };
    parameters.smmu.vmid16 = !seed.is_multiple_of(9);
    parameters.smmu.two_level = !seed.is_multiple_of(11);
    parameters
}

/// The same, with PEs that store 128 bits at once behind every SMMU that bears no change of size; in some lives it keeps
/// few STEs.
fn switching(seed: u64) -> Parameters {
    let mut parameters = if seed.is_multiple_of(4) { stalling(seed) } else { exact(seed) };
    (parameters.smmu.bbml, parameters.pes.lse2) = (0, true);
    parameters.smmu.httu = if seed.is_multiple_of(4) { 0 } else { 2 + (seed % 2) as u8 };
    (parameters.smmu.coherent, parameters.smmu.outliving) = (true, seed % 5 == 1);
    parameters.smmu.ste_entries = if seed % 3 == 1 { 1 } else { 64 };
    parameters
}

/// The machine of a seed whose SMMU differs from the main line in all that a seed says.
fn strange(seed: u64) -> Parameters {
    let mut parameters = machine(seed);
    let smmu = &mut parameters.smmu;
    (smmu.vmid16, smmu.two_level) = (!seed.is_multiple_of(3), !seed.is_multiple_of(7));
    (smmu.ats, smmu.outliving) = (seed % 3 == 1, seed % 6 > 2);
    smmu.sync_between = seed % 5 < 2;
    smmu.iidr = if smmu.sync_between { MMU_700 } else { 0 };
    // Queues down to one entry, and what is left of HTTU where there is no dirty state.
    smmu.command_queue_bits = [19, 0, 1, 2][(seed / 2 % 4) as usize];
    smmu.event_queue_bits = [19, 2, 0, 1][(seed / 3 % 4) as usize];
    if smmu.httu == 0 {
        smmu.httu = (seed / 4 % 2) as u8;
        (smmu.stall_model, smmu.stall_max) = if seed % 5 > 2 { (0, 1 + (seed % 8) as u16) } else { (1, 0) };
    }
    parameters
}

/// The same of every SMMU that bears no change of size, with PEs that store 128 bits at once.
fn strange_switching(seed: u64) -> Parameters {
    let mut parameters = strange(seed);
    (parameters.smmu.bbml, parameters.pes.lse2, parameters.smmu.coherent) = (0, true, true);
    parameters.smmu.ste_entries = 1 + (seed % 3) as usize;
    parameters
}

/// Two SMMUs behind one VM, one device behind each, that are strange each in its own way.
fn two(seed: u64) -> Parameters {
    let mut parameters = strange(seed);
    // Of another phase of everything that a seed says.
    parameters.second = Some(strange(seed * 5 + 2).smmu);
    parameters.pes.lse2 = seed % 4 < 2;
    parameters
}

/// Two SMMUs of the main line.
fn twins(seed: u64) -> Parameters {
    let parameters = exact(seed);
    Parameters { second: Some(Parameters::new(seed).smmu), ..parameters }
}

/// Several vCPUs without FEAT_HAFDBS.
fn write_protecting(seed: u64) -> Parameters {
    let mut parameters = Parameters::new(seed);
    (parameters.pes.hafdbs, parameters.pes.count) = (false, 4);
    parameters
}

/// Devices that may stall behind an SMMU without dirty state, of every break-before-make level, some not coherent, some
/// whose TLB entries outlive an invalidation, with few places for what has stalled.
fn stalling(seed: u64) -> Parameters {
    let mut parameters = Parameters::new(seed);
    (parameters.smmu.httu, parameters.smmu.stall_model) = (seed as u8 % 2, 0);
    parameters.smmu.stall_max = 1 + (seed % 8) as u16;
    parameters.smmu.bbml = [2, 1, 2, 0, 2, 1, 2][(seed % 7) as usize];
    parameters.smmu.coherent = !seed.is_multiple_of(3);
    parameters.smmu.range_invalidation = !seed.is_multiple_of(5);
    parameters.pes.hafdbs = !seed.is_multiple_of(4);
    parameters.smmu.outliving = seed % 11 < 3;
    parameters
}

/// The machine of a seed whose PEs end broadcast invalidations early.
fn hasty(seed: u64) -> Parameters {
    let mut parameters = machine(seed);
    parameters.pes.early_broadcast = true;
    parameters
}

/// Lives with all that is checked of them; what was met in them all.
fn lives(seeds: Range<u64>, mix: Mix, machine: impl Fn(u64) -> Parameters) -> Met {
    let mut sum = Met::default();
    for seed in seeds {
        match live(machine(seed), Mischief::None, mix, STEPS) {
            Ok(met) => sum += met,
            Err(account) => panic!("seed {seed}: {account}"),
        }
    }
    println!("{sum:#?}");
    sum
}

#[test]
fn nothing_is_lost() {
    let met = lives(10_000..10_240, EVEN, machine);
    // What was met: fewer means that the lives have become dull.
    assert!(met.tally.stale_hits > 9_000 && met.tally.held_back > 8_000 && met.tally.races > 1_400);
    assert!(met.tally.old_values_read > 6_000 && met.tally.two_sizes > 2_500);
    assert!(met.splits > 1_300 && met.merges > 1_000 && met.abandoned_starts > 150);
    assert!(met.syncs > 2_400 && met.clears > 750 && met.reported > 60_000 && met.el2_writes > 600);
    assert!(met.unmaps_under_log > 350 && met.maps_under_log > 200);
    assert!(met.attaches_under_log > 150 && met.detaches_under_log > 250);
    assert!(met.starts_by_blocks > 60 && met.refused_commands > 8 && met.holds > 500);
    assert!(met.failed_deliveries > 500 && met.tally.retried > 700 && met.el2_writes_across_starts > 80);
}

#[test]
fn little_is_invented() {
    let met = lives(20_000..20_160, Mix { remap: 32, ..EVEN }, exact);
    assert!(met.tally.spurious > 150 && met.tally.races > 900 && met.tally.held_back > 6_000);
    assert!(met.syncs > 1_800 && met.clears > 600 && met.reported > 20_000 && met.faults_answered > 5_000);
}

#[test]
fn nobody_is_disturbed() {
    let met = lives(30_000..30_160, Mix { remap: 160, replug: 128, ..EVEN }, machine);
    assert!(met.tally.retranslated > 80 && met.tally.completed_by_invalidation > 2_500);
    assert!(met.tally.dma_writes > 250_000 && met.tally.cpu_writes > 250_000);
    assert!(met.tally.expected_faults > 150_000 && met.faults_answered > 2_500);
    assert!(met.unmaps_under_log > 350 && met.maps_under_log > 250);
    assert!(met.attaches_under_log > 230 && met.detaches_under_log > 300);
}

#[test]
fn all_or_nothing() {
    let met = lives(40_000..40_160, Mix { exhaust: 640, toggle: 256, death: 8, ..EVEN }, machine);
    assert!(met.refused_starts > 500 && met.abandoned_starts > 200 && met.other_refusals > 1_500);
    assert!(met.starts > 700 && met.splits > 1_900 && met.merges > 1_800);
    assert!(met.deaths > 90 && met.dead_starts > 8 && met.dead_stops > 15 && met.quarantined > 40);
}

#[test]
fn weaker_device_weakens_the_log_where_that_is_accepted_and_then_alone() {
    let met = lives(70_000..70_080, Mix { replug: 256, mixed: 512, ..EVEN }, exact);
    assert!(met.weakened > 20 && met.weaker_refused > 20 && met.attaches_under_log > 200);
    assert!(met.syncs > 400 && met.clears > 120 && met.detaches_under_log > 220);
}

#[test]
fn hardware_that_stops_answering_makes_the_log_untrusted() {
    let met = lives(60_000..60_150, FATAL, machine);
    assert!(met.deaths > 350 && met.untrusted_syncs > 120 && met.syncs > 900);
    assert!(met.dead_starts > 30 && met.dead_stops > 45 && met.dead_unmaps > 30 && met.dead_detaches > 1);
    assert!(met.quarantined > 200);
}

#[test]
fn strange_smmus_keep_all_promises_too() {
    let met = lives(80_000..80_200, Mix { death: 8, replug: 128, ..EVEN }, strange);
    assert!(met.tally.outlived > 18_000 && met.tally.translated_refused > 9_000);
    assert!(met.tally.lines_cleaned > 130_000 && met.tally.stale_hits > 7_500 && met.tally.races > 1_000);
    assert!(met.syncs > 2_200 && met.clears > 700 && met.splits > 1_100 && met.merges > 1_000);
    assert!(met.attaches_under_log > 400 && met.detaches_under_log > 500 && met.unmaps_under_log > 400);
    assert!(met.deaths > 90 && met.quarantined > 35);
    assert!(met.stalls_recorded > 5_000 && met.stalls_aborted > 10_000 && met.tally.records_lost > 60_000);
}

#[test]
fn views_that_bear_different_changes_of_size_keep_all_promises_together() {
    let met = lives(130_000..130_120, Mix { replug: 96, lesser: true, ..EVEN }, machine);
    assert!(met.splits > 550 && met.merges > 480 && met.syncs > 1_500 && met.clears > 500);
    assert!(met.attaches_under_log > 190 && met.detaches_under_log > 270 && met.unmaps_under_log > 250);
    assert!(met.tally.two_sizes > 500 && met.abandoned_starts > 90 && met.starts_by_blocks > 40);
}

#[test]
fn two_smmus_of_different_ability_behind_one_vm_keep_all_promises_together() {
    let met = lives(150_000..150_240, Mix { replug: 96, ..EVEN }, two);
    assert!(met.splits > 1_200 && met.merges > 1_000 && met.syncs > 2_900 && met.clears > 900);
    assert!(met.attaches_under_log > 290 && met.detaches_under_log > 450 && met.unmaps_under_log > 450);
    assert!(met.weakened > 55 && met.weaker_refused > 55 && met.switches > 35 && met.stalls_recorded > 5_000);
    assert!(met.tally.outlived > 26_000 && met.tally.lines_cleaned > 150_000 && met.tally.two_sizes > 1_700);
    assert!(met.tally.translated_refused > 10_000 && met.tally.races > 900 && met.tally.held_back > 8_000);
}

#[test]
fn a_second_smmu_that_stops_answering_makes_the_log_untrusted() {
    let met = lives(160_000..160_120, TWO_FATAL, two);
    assert!(met.deaths > 400 && met.untrusted_syncs > 85 && met.syncs > 1_300 && met.splits > 750);
    assert!(met.dead_starts > 35 && met.dead_stops > 35 && met.dead_unmaps > 25 && met.dead_detaches > 4);
    assert!(met.quarantined > 140);
}

#[test]
fn adaptive_logs_behind_two_smmus_keep_all_promises_too() {
    let met = lives(170_000..170_120, ADAPTIVE, |seed| {
        let mut parameters = adapting(seed);
        parameters.second = Some(adapting(seed * 3 + 1).smmu);
        parameters
    });
    assert!(met.adaptive_starts > 150 && met.splits_by_syncs > 600 && met.merges_by_syncs > 300);
    assert!(met.splits_refused > 190 && met.syncs > 6_000 && met.reported > 750_000);
}

#[test]
fn second_trees_keep_all_promises_too() {
    let met = lives(100_000..100_160, Mix { replug: 96, ..EVEN }, switching);
    // There and back, or there and gone with its device.
    assert!(met.switches > 900 && met.starts > 400 && met.splits > 1_000 && met.starts_by_blocks > 50);
    assert!(met.syncs > 2_000 && met.clears > 650 && met.reported > 32_000 && met.stalls_recorded > 850);
    assert!(met.unmaps_under_log > 320 && met.maps_under_log > 220 && met.abandoned_starts > 270);
    assert!(met.attaches_under_log > 260 && met.detaches_under_log > 350 && met.refused_commands > 15);
}

#[test]
fn second_trees_outlast_an_smmu_that_stops_answering() {
    let mut met = lives(110_000..110_120, FATAL, switching);
    // One that fell silent between the invalidations of a view's two trees.
    met += lives(900_291..900_292, FATAL, switching);
    // And one in which a tree came to stand where another had lost a table for good.
    met += lives(41_361_079..41_361_080, FATAL, switching);
    assert!(met.deaths > 480 && met.dead_starts > 190 && met.dead_stops > 30 && met.dead_unmaps > 55);
    assert!(met.untrusted_syncs > 200 && met.dead_detaches > 8 && met.quarantined > 50 && met.switches > 600);
}

/// Of every machine of the others, those whose cores raise no conflict aborts more often.
fn adapting(seed: u64) -> Parameters {
    let mut parameters = if seed.is_multiple_of(3) { machine(seed) } else { exact(seed) };
    parameters.pes.conflict_aborts = seed % 4 == 3;
    parameters.smmu.range_invalidation = !seed.is_multiple_of(5);
    // Few accesses, so that something rests; many, so that something races.
    parameters.pace = [512, 4, 32, 2, 8][(seed % 5) as usize];
    parameters
}

#[test]
fn adaptive_logs_keep_all_promises_too() {
    let met = lives(130_000..130_240, ADAPTIVE, adapting);
    assert!(met.adaptive_starts > 350 && met.splits_by_syncs > 1_400 && met.merges_by_syncs > 600);
    assert!(met.splits_refused > 200 && met.syncs > 13_000 && met.reported > 1_500_000);
}

#[test]
fn adaptive_logs_outlast_an_smmu_that_stops_answering() {
    let met = lives(
        140_000..140_160,
        Mix { adaptive: 1024, death: 24, toggle: 24, remap: 16, replug: 16, ..FATAL },
        adapting,
    );
    assert!(met.splits_by_syncs > 1_700 && met.merges_by_syncs > 700);
    assert!(met.deaths > 280 && met.dead_adaptive_syncs > 0 && met.untrusted_syncs > 1_500);
}

#[test]
fn write_faults_of_several_vcpus_lose_nothing_and_end() {
    let met = lives(50_000..50_100, EVEN, write_protecting);
    assert!(met.faults_answered > 4_500 && met.syncs > 700 && met.tally.cpu_writes > 100_000);
}

#[test]
fn cores_that_end_a_broadcast_early_lose_nothing_where_it_is_issued_twice() {
    let met = lives(120_000..120_080, EVEN, hasty);
    assert!(met.tally.outlived > 100 && met.syncs > 700 && met.unmaps_under_log > 100 && met.merges > 300);
}

#[test]
fn stalled_writes_lose_nothing_invent_little_and_all_go_on() {
    let met = lives(90_200..90_360, Mix { replug: 96, ..EVEN }, stalling);
    assert!(met.stalls_recorded > 15_000 && met.stalls_aborted > 30_000 && met.tally.stalls > 50_000);
    assert!(met.tally.early_retries > 1_000 && met.tally.stalls_unrecorded > 80_000);
    assert!(met.tally.stalls_terminated > 120 && met.detaches_under_log > 150);
    assert!(met.syncs > 1_200 && met.clears > 400 && met.reported > 20_000 && met.unmaps_under_log > 150);
}

#[test]
fn stalled_writes_outlast_an_smmu_that_stops_answering() {
    let mut met = lives(90_000..90_060, FATAL, stalling);
    // One in which an answer was refused when the SMMU came back.
    met += lives(910_063..910_064, FATAL, stalling);
    assert!(met.deaths > 150 && met.stalls_recorded > 2_500 && met.untrusted_syncs > 40);
    assert!(met.tally.stalls_terminated > 80 && met.syncs > 500 && met.dead_stops > 10);
}

/// The accounts of the seeds that catch `mischief`.
fn accounts(mischief: Mischief, machine: impl Fn(u64) -> Parameters) -> impl Iterator<Item = String> {
    (0..SEEDS).filter_map(move |seed| live(machine(seed), mischief, EVEN, STEPS).err())
}

/// The account of the first seed that catches `mischief`.
fn caught(mischief: Mischief, machine: impl Fn(u64) -> Parameters) -> String {
    let Some(account) = accounts(mischief, machine).next() else {
        panic!("{mischief:?} is not caught within {SEEDS} seeds")
    };
    println!("{mischief:?}: {account}");
    account
}

#[test]
fn write_fault_without_local_invalidation_repeats_for_ever() {
    assert!(caught(Mischief::NoLocalInvalidation, write_protecting).contains("FaultsForEver"));
}

#[test]
fn view_that_is_dropped_unread_loses() {
    assert!(caught(Mischief::ViewDroppedUnread, exact).contains("lost"));
}

#[test]
fn second_tree_that_is_dropped_unread_loses() {
    assert!(caught(Mischief::ViewDroppedUnread, switching).contains("lost"));
}

#[test]
fn view_that_is_read_without_a_dsb_before_loses() {
    assert!(caught(Mischief::ViewReadWithoutBarrier, exact).contains("lost"));
}

#[test]
fn table_that_is_freed_without_a_second_read_loses() {
    assert!(caught(Mischief::TableFreedUnread, exact).contains("lost"));
}

#[test]
fn page_that_is_mapped_clean_under_a_log_is_lost() {
    assert!(caught(Mischief::MappedClean, exact).contains("lost"));
}

#[test]
fn page_that_is_mapped_into_a_table_whose_flag_stays_clear_is_lost() {
    let flags = |seed| {
        let mut parameters = exact(seed);
        parameters.smmu.httu = 3;
        parameters
    };
    assert!(caught(Mischief::MappedUnseen, flags).contains("lost"));
}

#[test]
fn bit_that_is_dropped_where_its_delivery_fails_is_lost() {
    assert!(caught(Mischief::BitDroppedOnFailedDelivery, exact).contains("lost"));
}

#[test]
fn block_that_keeps_nt_after_a_start_was_given_up_is_noticed() {
    let smallest = |seed| {
        let mut parameters = Parameters::new(seed);
        parameters.smmu.bbml = 1;
        parameters
    };
    let undone = |mischief| {
        let mix = Mix { refusal: 1024, ..EVEN };
        (0..SEEDS).find_map(|seed| live(smallest(seed), mischief, mix, STEPS).err())
    };
    assert!(undone(Mischief::NtLeft).is_some_and(|account| account.contains("blocks have nT")));
    assert_eq!(undone(Mischief::None), None);
}

#[test]
fn second_smmu_that_is_not_synced_loses() {
    assert!(caught(Mischief::SecondSmmuNotSynced, twins).contains("lost"));
}

#[test]
fn second_smmu_that_is_not_invalidated_loses() {
    let account = caught(Mischief::SecondSmmuNotInvalidated, twins);
    assert!(["lost", "FrameInUse", "still caches"].iter().any(|what| account.contains(what)));
}

#[test]
fn stalled_write_that_is_tried_again_before_the_invalidation_is_noticed() {
    assert!(caught(Mischief::ResumedBeforeInvalidation, stalling).contains("ResumedTooEarly"));
}

#[test]
fn stalled_transaction_that_is_forgotten_is_noticed() {
    // Where a life ends soon after, it is noticed there that the transaction waits.
    let noticed = |account: &String| account.contains("waits for ever");
    let mut later = accounts(Mischief::StallForgotten, stalling).skip_while(noticed);
    assert!(later.next().is_some_and(|account| account.contains("StallUnanswered")));
}

#[test]
fn stream_taken_away_without_the_end_of_its_stalled_transactions_is_noticed() {
    assert!(caught(Mischief::NoStallTerm, stalling).contains("waits"));
}

#[test]
fn stream_whose_stalled_transactions_are_ended_while_more_may_stall_is_noticed() {
    assert!(caught(Mischief::StallTermForResume, stalling).contains("StallTermTooEarly"));
}

#[test]
fn stalled_transaction_that_is_answered_twice_is_noticed() {
    assert!(caught(Mischief::AnsweredTwice, stalling).contains("ResumedTwice"));
}

#[test]
fn stall_view_that_is_cleaned_and_not_invalidated_loses() {
    assert!(caught(Mischief::StallViewNotInvalidated, stalling).contains("lost"));
}

/// As `life::soak`, of random lives.
#[test]
#[ignore = "takes as long as it is asked to: seeds come from STRANDLINE_SEEDS"]
fn soak_of_random_lives() {
    let (first, end) = seeds_to_soak();
    let began = std::time::Instant::now();
    let mut met = lives(first..end, EVEN, machine);
    met += lives(first..end, FATAL, machine);
    met += lives(first..end, EVEN, stalling);
    met += lives(first..end, FATAL, stalling);
    met += lives(first..end, FATAL, switching);
    met += lives(first..end, Mix { lesser: true, ..FATAL }, machine);
    met += lives(first..end, FATAL, strange);
    met += lives(first..end, FATAL, strange_switching);
    met += lives(first..end, EVEN, two);
    met += lives(first..end, TWO_FATAL, two);
    println!("{} steps a second", met.tally.steps / began.elapsed().as_secs().max(1));
}
