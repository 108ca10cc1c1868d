//! The driver and the engine as they are, on hardware that keeps, delays and forgets whatever it may.

use crate::vm::{Plan, RAM, STREAMS, Vm, bring_up, cycle, quiet};
use strandline::addr::{Ipa, StreamId};
use strandline_abi::DmaTier;
use strandline_model::{Dma, Machine, Parameters, Reason, Tally};

#[test]
fn driver_brings_the_smmu_up_without_breaking_a_rule() {
    for seed in 0..50 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        assert_eq!(quiet(&machine), Ok(()));
        assert!(smmu.features().httu == strandline::smmu::Httu::Dirty);
    }
}

#[test]
fn dma_goes_through_its_view_and_rogue_dma_aborts_with_an_event() {
    for seed in 0..20 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        let there = Ipa(RAM.0 + 0x12_3000);
        assert_eq!(machine.dma(STREAMS[0], there, true), Dma::Done(0x8012_3000));
        assert_eq!(machine.dma(STREAMS[1], there, false), Dma::Done(0x8012_3000));
        assert_eq!(machine.dma(StreamId(0x9), there, true), Dma::Aborted(Reason::BadSte));
        assert_eq!(machine.dma(STREAMS[0], Ipa(0x1000), true), Dma::Aborted(Reason::Translation));
        let mut events = vec![];
        smmu.drain_events(|event| events.push((event.stream, event.kind)));
        use strandline::smmu::FaultKind::{Translation, UnassignedStream};
        assert_eq!(events, [(StreamId(0x9), UnassignedStream), (STREAMS[0], Translation)]);
        assert_eq!(quiet(&machine), Ok(()));
        assert!(vm.end().is_err_and(|e| e.contains("disturbed")), "the two that were to abort");
    }
}

/// Runs a log on each of `seeds`; gives back what was met, blocks split and blocks merged.
fn logs(
    seeds: std::ops::Range<u64>,
    parameters: impl Fn(u64) -> Parameters,
    plan: Plan,
) -> (Tally, u64, u64) {
    let (mut sum, mut split, mut merged) = (Tally::default(), 0, 0);
    for seed in seeds {
        let machine = Machine::new(parameters(seed));
        let smmu = bring_up(&machine, machine.smmu());
        match cycle(&machine, &machine, &smmu, &smmu, plan, |_| ()) {
            Ok(statistics) => {
                split += statistics.blocks_split;
                merged += statistics.blocks_merged;
            }
            Err(account) => panic!("seed {seed}: {account}"),
        }
        sum += machine.tally();
    }
    (sum, split, merged)
}

#[test]
fn log_loses_nothing_and_invents_little_with_hardware_update() {
    let (met, split, merged) = logs(0..200, Parameters::new, Plan::new(DmaTier::Hardware));
    println!("{met:#?}\nsplit {split}, merged {merged}");
    // What was met: fewer means that the adversary has gone to sleep.
    assert_eq!((split, merged), (200 * 8, 200 * 8));
    assert!(met.stale_hits > 10_000 && met.two_sizes > 15 && met.old_values_read > 3_000);
    assert!(met.updates > 120_000 && met.held_back > 30_000 && met.races > 1_000 && met.spurious > 300);
    assert!(met.prefetches > 200_000 && met.evictions > 100_000 && met.cached_walks > 200_000);
    assert!(met.dma_writes > 200_000 && met.cpu_writes > 200_000 && met.completed_by_invalidation > 1_000);
    assert_eq!(met.cpu_faults, 0);
}

#[test]
fn assumed_tier_needs_no_hardware_update_and_never_disturbs() {
    let poor = |seed| {
        let mut parameters = Parameters::new(seed);
        parameters.smmu.httu = 0;
        parameters
    };
    let (met, split, merged) = logs(0..60, poor, Plan::new(DmaTier::Assume));
    assert_eq!((split, merged), (60 * 8, 60 * 8));
    assert!(met.stale_hits > 1_000 && met.dma_writes > 50_000);
}

#[test]
fn variants_of_the_smmu_need_no_change_of_software() {
    let variants: [fn(&mut Parameters); 5] = [
        |p| p.smmu.range_invalidation = false,
        |p| p.smmu.vmid16 = false,
        |p| p.smmu.two_level = false,
        |p| (p.smmu.httu, p.smmu.tlb_entries) = (3, 1000),
        |p| (p.pes.conflict_aborts, p.pes.tlb_entries) = (false, 600),
    ];
    for change in variants {
        let varied = |seed| {
            let mut parameters = Parameters::new(seed);
            change(&mut parameters);
            parameters
        };
        logs(0..12, varied, Plan::new(DmaTier::Hardware));
    }
}

#[test]
fn devices_come_and_go_while_the_log_is_on() {
    for seed in 0..20 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        let ste = vm.ste();
        assert_eq!(vm.start(), Ok(()), "seed {seed}");
        for _ in 0..3 {
            machine.quiesce(STREAMS[1]);
            smmu.detach(STREAMS[1]).unwrap();
            assert_eq!(vm.sync(), Ok(()), "seed {seed}");
            smmu.attach(STREAMS[1], &ste).unwrap();
            machine.set_active(STREAMS[1], true);
            assert_eq!(vm.sync(), Ok(()), "seed {seed}");
        }
        assert_eq!(vm.stop(), Ok(()), "seed {seed}");
        assert!(vm.end().is_ok(), "seed {seed}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let tally = |seed| logs(seed..seed + 1, Parameters::new, Plan::new(DmaTier::Hardware)).0;
    assert_eq!(tally(7), tally(7));
    assert_ne!(tally(7), tally(8));
}

/// The seeds that STRANDLINE_SEEDS asks for.
pub fn seeds_to_soak() -> (u64, u64) {
    let seeds = std::env::var("STRANDLINE_SEEDS").unwrap_or_default();
    let bounds = seeds.split_once("..").map(|(first, end)| (first.parse(), end.parse()));
    let Some((Ok(first), Ok(end))) = bounds else { panic!("STRANDLINE_SEEDS={seeds:?} is not FIRST..END") };
    (first, end)
}

/// `STRANDLINE_SEEDS=FIRST..END cargo test -p strandline-model -- --ignored soak`
#[test]
#[ignore = "takes as long as it is asked to: seeds come from STRANDLINE_SEEDS"]
fn soak() {
    let (first, end) = seeds_to_soak();
    let began = std::time::Instant::now();
    let (met, ..) = logs(first..end, Parameters::new, Plan::new(DmaTier::Hardware));
    println!("{met:#?}\n{} steps a second", met.steps / began.elapsed().as_secs().max(1));
}
