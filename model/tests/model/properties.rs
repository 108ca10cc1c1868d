//! What is promised of a log, whatever happens and in whatever order: four properties, each over seeds of its own.

use strandline_model::Parameters;

use crate::guest::{Met, Mix, live};
use crate::host::Mischief;

const EVEN: Mix = Mix { exhaust: 64, remap: 96, replug: 64, toggle: 48 };

/// The machine of a seed: with and without hardware dirty state on either side, one in eight not coherent.
fn machine(seed: u64) -> Parameters {
    let mut parameters = Parameters::new(seed);
    parameters.pes.hafdbs = seed % 2 == 0;
    if seed % 4 >= 2 {
        parameters.smmu.httu = 0;
        parameters.smmu.coherent = seed % 8 < 6;
    }
    parameters
}

fn lives(seeds: std::ops::Range<u64>, mix: Mix, machine: impl Fn(u64) -> Parameters) -> Met {
    let mut sum = Met::default();
    for seed in seeds {
        match live(machine(seed), Mischief::None, mix, 60) {
            Ok(met) => sum += met,
            Err(account) => panic!("seed {seed}: {account}"),
        }
    }
    println!("{sum:#?}");
    sum
}

#[test]
fn nothing_is_lost() {
    let met = lives(10_000..10_040, EVEN, machine);
    let _ = met;
}
