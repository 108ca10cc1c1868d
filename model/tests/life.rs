//! The driver and the engine as they are, on hardware that keeps, delays and forgets whatever it may.

mod common;

use common::{Plan, RAM, STREAMS, Vm, bring_up, cycle, quiet};
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
        drop(vm);
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
}
