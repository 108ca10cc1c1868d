//! Queues that are small, full, refused or not answered, and VMIDs that run out.

use crate::lying::Forgetful;
use crate::vm::{CPU_VMID, Plan, RAM, Vm, bring_up, options, quiet};
use strandline::addr::{IpaRange, StreamId, Vmid};
use strandline::hw::{Cpu, DmaTlb, DmaTlbError, Scope};
use strandline::smmu::{Options, Quarantined, Smmu, SmmuError};
use strandline_abi::DmaTier;
use strandline_model::{Dma, Machine, Parameters, Reason};

fn page(index: u64) -> Scope {
    let range = IpaRange::new(RAM.offset(index * 0x1000), 0x1000).expect("a page");
    Scope::Range { range, leaf_only: true }
}

#[test]
fn event_queue_of_two_entries_overflows_says_so_and_goes_on() {
    for seed in 0..8 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu =
            Smmu::new(&machine, machine.smmu(), &Options { event_queue_bits: 1, ..options() }).unwrap();
        let rogue = |stream| machine.dma(StreamId(stream), RAM, true);
        for round in 0..3 {
            for stream in 0x20..0x25 {
                assert_eq!(rogue(stream), Dma::Aborted(Reason::BadStream));
            }
            let mut streams = vec![];
            let drained = smmu.drain_events(|event| streams.push(event.stream.0));
            assert_eq!((drained.records, drained.overflowed), (2, true), "round {round}");
            // The first two: what does not fit is lost.
            assert_eq!(streams, [0x20, 0x21]);
            assert!(!smmu.drain_events(|_| ()).overflowed);
        }
        assert_eq!(smmu.statistics().events_lost, 3);
        assert_eq!((machine.tally().records, machine.tally().records_lost), (6, 9));
        assert_eq!(quiet(&machine), Ok(()));
    }
}

#[test]
fn each_command_error_is_told_and_the_queue_goes_on() {
    for (seed, code) in [1, 2, 3].into_iter().cycle().take(24).enumerate() {
        let machine = Machine::new(Parameters::new(seed as u64));
        let smmu = bring_up(&machine, machine.smmu());
        for index in 0..4 {
            machine.smmu().fail_next_command(code);
            assert_eq!(smmu.invalidate(CPU_VMID, page(index)), Err(DmaTlbError::Command(code)), "{code}");
            assert_eq!(smmu.invalidate(CPU_VMID, page(index)), Ok(()), "{code}");
        }
        assert_eq!(smmu.statistics().errors, 4);
        assert_eq!(quiet(&machine), Ok(()));
    }
}

#[test]
fn refused_invalidation_of_a_last_use_quarantines_the_vmid() {
    let machine = Machine::new(Parameters::new(1));
    let smmu = bring_up(&machine, machine.smmu());
    let vmid = smmu.alloc_vmid().unwrap();
    machine.smmu().fail_next_command(1);
    assert!(matches!(smmu.free_vmid(vmid), Err(SmmuError::Command(_))));
    assert_eq!(smmu.free_vmid(vmid), Err(SmmuError::VmidQuarantined(vmid)));
    assert_eq!(smmu.quarantined(), Quarantined { vmids: 1, ..Quarantined::default() });
}

#[test]
fn sync_that_never_completes_is_a_time_out_and_the_queue_recovers_with_it() {
    for seed in 0..8 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        machine.smmu().hold_syncs(true);
        let begun = machine.now_us();
        assert_eq!(smmu.invalidate(CPU_VMID, Scope::All), Err(DmaTlbError::Timeout));
        let waited = machine.now_us() - begun;
        assert!((options().timeout_us..2 * options().timeout_us).contains(&waited), "{waited}");
        // Nobody waits as long again.
        assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
        assert!(machine.now_us() - begun < waited + 100);
        machine.smmu().hold_syncs(false);
        machine.run(2000);
        assert_eq!(smmu.sync(), Ok(()));
        assert_eq!(quiet(&machine), Ok(()));
    }
}

#[test]
fn vmids_of_eight_bits_run_out_and_come_back() {
    let mut parameters = Parameters::new(2);
    parameters.smmu.vmid16 = false;
    let machine = Machine::new(parameters);
    let smmu = bring_up(&machine, machine.smmu());
    for vmid in 1..=255 {
        assert_eq!(smmu.alloc_vmid(), Ok(Vmid(vmid)));
    }
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::OutOfVmids));
    smmu.free_vmid(Vmid(77)).unwrap();
    assert_eq!(smmu.alloc_vmid(), Ok(Vmid(77)));
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::OutOfVmids));
    assert_eq!(quiet(&machine), Ok(()));
}

/// Cache lines cleaned and invalidated by `act`.
fn lines(machine: &Machine, act: impl FnOnce()) -> (u64, u64) {
    let before = machine.tally();
    act();
    let after = machine.tally();
    (after.lines_cleaned - before.lines_cleaned, after.lines_invalidated - before.lines_invalidated)
}

#[test]
fn one_cache_line_is_cleaned_for_each_that_was_touched() {
    let mut parameters = Parameters::new(3);
    (parameters.smmu.coherent, parameters.smmu.httu) = (false, 0);
    let machine = Machine::new(parameters);
    let platform = Forgetful::new(&machine);
    let smmu = bring_up(&platform, machine.smmu());
    let mut vm = Vm::new(&machine, &platform, &smmu, &smmu, Plan::new(DmaTier::Assume));
    // A CMD_SYNC, four to a line.
    assert_eq!(lines(&machine, || smmu.sync().unwrap()), (1, 0));
    // Four blocks of 2 MiB: a table of 64 lines each, their four descriptors in one line, and two commands in one or two.
    let (start, invalidated) = lines(&machine, || vm.start().unwrap());
    println!("start: {start} lines");
    assert!((4 * 64 + 2..=4 * 64 + 3).contains(&start) && invalidated == 0, "{start}");
    // A sync of what devices are assumed to write changes no descriptor.
    let (sync, invalidated) = lines(&machine, || vm.sync().unwrap());
    println!("sync: {sync} lines");
    assert!(sync <= 2 && invalidated == 0, "{sync}");
    // An event: a record is half a line.
    let _aborted = machine.dma(StreamId(0x20), RAM, true);
    assert_eq!(lines(&machine, || assert_eq!(smmu.drain_events(|_| ()).records, 1)), (0, 1));
}
