//! Access flags of tables, where a log is read by parts that are no whole tables.

use strandline::addr::{Ipa, IpaRange, Pa};
use strandline::hw::{DmaTlb, Memory, Scope, Word};
use strandline_abi::DmaTier;
use strandline_model::{Machine, Parameters, Source};

use crate::vm::{Plan, RAM, Vm, bring_up};

/// Seeds within which software that breaks a rule must be caught.
const SEEDS: u64 = 64;
/// Pages of a table.
const TABLE: u64 = 512;
/// Which halves of tables are read in turn: of each table the first twice, then the other.
const HALVES: [u64; 12] = [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7];
const AF: u64 = 1 << 10;
const AF_CLEARED: u64 = 1 << 55;

fn machine(seed: u64) -> Machine {
    let mut parameters = Parameters::new(seed);
    // Few accesses between two syncs: among many there is always one that sets the flag of its table.
    (parameters.smmu.httu, parameters.pace) = (3, 32);
    Machine::new(parameters)
}

/// Half a table, from page `first` of the log.
fn half(first: u64) -> IpaRange {
    IpaRange::new(Ipa(RAM.0 + first * 4096), TABLE / 2 * 4096).expect("a range")
}

/// What a harvest does to the descriptor of a table that it has read, as it would if it had read all of the table.
fn clear_flag(machine: &Machine, root: Pa, ipa: Ipa) {
    // The root of this format is of level 1, and so the next table is the one that has it.
    let level_2 = machine.peek(root.offset((ipa.0 >> 30) * 8)) & 0xffff_ffff_f000;
    let word = &machine.words(Pa(level_2 + (ipa.0 >> 21 & 0x1ff) * 8), 1)[0];
    if word.load() & AF != 0 {
        word.fetch_or(AF_CLEARED);
        word.fetch_and(!AF);
    } else {
        word.fetch_and(!AF_CLEARED);
    }
}

/// A log that is read by halves of tables; `careless`: flags are cleared although half of the table was not read.
fn by_halves(seed: u64, careless: bool) -> Result<(), String> {
    let machine = machine(seed);
    let smmu = bring_up(&machine, machine.smmu());
    let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    vm.start()?;
    for round in 0..64 {
        machine.run(vm.plan.pause / 16);
        let part = half(HALVES[round % HALVES.len()] * (TABLE / 2));
        vm.sync_part(part, &[Source::Dma], true)?;
        if careless {
            let root = vm.space.dma_views().next().expect("a view").view.tree.root();
            clear_flag(&machine, root, part.start());
            smmu.invalidate(vm.vmid, Scope::All).map_err(|e| e.to_string())?;
        }
    }
    vm.sync()?;
    vm.stop()?;
    vm.end().map(|_| ())
}

#[test]
fn table_flag_that_a_partial_harvest_clears_loses() {
    let account = (0..SEEDS).find_map(|seed| by_halves(seed, true).err());
    println!("{account:?}");
    assert!(account.is_some_and(|account| account.contains("lost")));
}

#[test]
fn log_with_table_flags_that_is_read_by_parts_loses_nothing() {
    for seed in 0..SEEDS {
        assert_eq!(by_halves(seed, false), Ok(()), "seed {seed}");
    }
}
