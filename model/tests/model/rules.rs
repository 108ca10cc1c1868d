//! Rules that no whole log is needed for: each one broken by hand.

use crate::vm::{CPU_VMID, Plan, RAM, STREAMS, Vm, bring_up, options, quiet};
use strandline::addr::{Ipa, IpaRange, Pa, PageSize, StreamId};
use strandline::dirty_log::Request;
use strandline::hw::{Barrier, Cpu, DmaTlb, DmaTlbError, Memory, Scope, Tlbi, Vttbr, Word};
use strandline::smmu::{Httu, Registers, Smmu, Stage2Config};
use strandline::smmu::{Register32, Register64};
use strandline_abi::{DmaTier, Flags};
use strandline_model::{Dma, Machine, ModelWord, Parameters, Rule, Source};

const WRITE: u64 = 0x80;
const DBM: u64 = 1 << 51;
const NT: u64 = 1 << 16;

/// The rules broken so far.
fn broken(machine: &Machine) -> Vec<Rule> {
    let mut rules: Vec<Rule> = machine.alarms().iter().map(|a| a.rule).collect();
    rules.dedup();
    rules
}

/// The leaf that translates `ipa` in the tree of 36 bits at `root`, by a walk by hand from level 1.
fn leaf(machine: &Machine, root: Pa, ipa: Ipa) -> ModelWord {
    let mut table = root;
    for shift in [30, 21, 12] {
        let word = &machine.words(table.offset((ipa.0 >> shift & 511) * 8), 1)[0];
        let value = word.load();
        if value & 3 == 1 || shift == 12 {
            return word.clone();
        }
        table = Pa(value & 0xffff_ffff_f000);
    }
    unreachable!("a leaf at level 3")
}

#[test]
fn stes_of_one_vmid_that_differ_are_noticed() {
    let machine = Machine::new(Parameters::new(1));
    let smmu = bring_up(&machine, machine.smmu());
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    let tree = &vm.space.dma_views().next().unwrap().view.tree;
    let other = Stage2Config {
        vmid: vm.vmid,
        root: tree.root(),
        ipa_bits: 36,
        start_level: 1,
        output_bits: 48,
        hardware_update: Httu::None,
    };
    smmu.attach(StreamId(0x9), &smmu.view(&other).unwrap()).unwrap();
    assert_eq!(quiet(&machine), Ok(()));
    assert_eq!(machine.dma(StreamId(0x9), RAM, false), Dma::Done(0x8000_0000));
    assert_eq!(broken(&machine), [Rule::StesDiffer]);
}

#[test]
fn vmid_reused_without_invalidation_is_noticed() {
    let machine = Machine::new(Parameters::new(2));
    let smmu = bring_up(&machine, machine.smmu());
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    for stream in STREAMS {
        machine.set_active(stream, false);
        smmu.detach(stream).unwrap();
    }
    // The CPU view's tree under the VMID of the DMA view, whose TLB entries are left.
    let root = vm.space.cpu_view().tree.root();
    let reused = Stage2Config {
        vmid: vm.vmid,
        root,
        ipa_bits: 36,
        start_level: 1,
        output_bits: 48,
        hardware_update: Httu::Dirty,
    };
    smmu.attach(STREAMS[0], &smmu.view(&reused).unwrap()).unwrap();
    for page in 0..64 {
        let _done = machine.dma(STREAMS[0], RAM.offset(page * 0x1000), false);
    }
    assert!(broken(&machine).contains(&Rule::VmidReused));
}

#[test]
fn leaf_without_dbm_that_is_cleaned_is_noticed() {
    let machine = Machine::new(Parameters::new(3));
    let smmu = bring_up(&machine, machine.smmu());
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    let word = leaf(&machine, vm.space.cpu_view().tree.root(), RAM);
    machine.freeze(true);
    word.fetch_and(!DBM);
    machine.freeze(false);
    word.fetch_and(!WRITE);
    assert_eq!(broken(&machine), [Rule::CleanedWithoutDbm]);
}

#[test]
fn guest_memory_reused_without_invalidation_is_noticed() {
    let machine = Machine::new(Parameters::new(4));
    let smmu = bring_up(&machine, machine.smmu());
    let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    machine.reuse_memory(Pa(0x8000_0000), 0x1000);
    assert_eq!(broken(&machine), [Rule::MemoryInUse]);
    // After an unmap nothing leads there any more.
    let range = IpaRange::new(RAM, vm.plan.bytes).unwrap();
    vm.space.unmap(&machine, range).unwrap();
    let before = machine.alarms().len();
    machine.reuse_memory(Pa(0x8000_0000), 8 << 20);
    assert_eq!(machine.alarms().len(), before);
}

#[test]
fn registers_that_are_guarded_are_not_written() {
    let machine = Machine::new(Parameters::new(5));
    let _smmu = bring_up(&machine, machine.smmu());
    for write in [
        |port: &dyn Registers| port.write32(Register32::Cr1, 0),
        |port: &dyn Registers| port.write32(Register32::StrtabBaseCfg, 0),
        |port: &dyn Registers| port.write64(Register64::StrtabBase, 0),
        |port: &dyn Registers| port.write64(Register64::CmdqBase, 0),
        |port: &dyn Registers| port.write32(Register32::Gbpa, 0),
    ] {
        let before = machine.alarms().len();
        write(&machine.smmu());
        assert_eq!(machine.alarms().len(), before + 1);
    }
    assert_eq!(broken(&machine), [Rule::GuardedRegister]);
}

#[test]
fn command_queue_is_never_overfilled() {
    let machine = Machine::new(Parameters::new(6));
    let _smmu = bring_up(&machine, machine.smmu());
    let port = machine.smmu();
    machine.smmu().set_dead(true);
    // 16 entries: one more than that.
    let cons = port.read32(Register32::CmdqCons) & 0x1f;
    port.write32(Register32::CmdqProd, (cons + 17) & 0x1f);
    assert_eq!(broken(&machine), [Rule::CommandQueueOverflow]);
}

#[test]
fn command_that_is_refused_is_reported_and_the_queue_goes_on() {
    let machine = Machine::new(Parameters::new(7));
    let smmu = bring_up(&machine, machine.smmu());
    machine.smmu().fail_next_command(1);
    assert_eq!(smmu.invalidate(CPU_VMID, Scope::All), Err(DmaTlbError::Command(1)));
    assert_eq!(smmu.invalidate(CPU_VMID, Scope::All), Ok(()));
    assert_eq!(quiet(&machine), Ok(()));
}

#[test]
fn smmu_that_stops_answering_is_a_time_out_and_not_a_hang() {
    let machine = Machine::new(Parameters::new(8));
    let smmu = bring_up(&machine, machine.smmu());
    machine.smmu().set_dead(true);
    assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
    let dead = Machine::new(Parameters::new(9));
    dead.smmu().set_dead(true);
    assert!(Smmu::new(&dead, dead.smmu(), &options()).is_err());
}

#[test]
fn access_whose_descriptor_is_replaced_is_translated_again() {
    let mut retranslated = 0;
    for seed in 0..20 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        let block = leaf(&machine, vm.space.dma_views().next().unwrap().view.tree.root(), RAM);
        for _ in 0..10 {
            block.fetch_and(!WRITE);
            smmu.invalidate(vm.vmid, Scope::All).unwrap();
            // A bit that is software's own: to a compare-and-swap another descriptor.
            block.fetch_or(1 << 55);
            machine.run(50);
            block.fetch_and(!(1 << 55));
        }
        retranslated += machine.tally().retranslated;
        assert!(machine.aborts().is_empty() && machine.alarms().is_empty());
    }
    assert!(retranslated > 20, "{retranslated}");
}

/// EL2 writes a page for a vCPU, a sync between its store and its mark; the mark comes first or last.
fn el2_writes(mark_first: bool) -> Result<(), String> {
    let machine = Machine::new(Parameters::new(14));
    let smmu = bring_up(&machine, machine.smmu());
    let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    (0..2).for_each(|pe| machine.stop_vcpu(pe));
    STREAMS.iter().for_each(|stream| machine.set_active(*stream, false));
    let page = IpaRange::new(RAM.offset(0x6a_5000), 0x1000).unwrap();
    vm.start()?;
    let (first, last): (Act<'_>, Act<'_>) = if mark_first { (mark, store) } else { (store, mark) };
    // No sync may lie between the two where the mark comes last: it is not due until then.
    first(&mut vm, page);
    if mark_first {
        vm.sync_of(&[Source::Cpu, Source::Dma], false)?;
    }
    last(&mut vm, page);
    vm.sync()
}

type Act<'a> = fn(&mut Plain<'a>, IpaRange);

type Plain<'a> = Vm<'a, Machine, strandline_model::SmmuPort, Smmu<'a, Machine, strandline_model::SmmuPort>>;

fn mark(vm: &mut Plain<'_>, page: IpaRange) {
    vm.space.mark_written(vm.machine, page);
}

fn store(vm: &mut Plain<'_>, page: IpaRange) {
    vm.machine.el2_wrote(page.start());
}

#[test]
fn el2s_own_write_is_lost_where_its_bit_is_set_before_the_store() {
    assert!(el2_writes(true).is_err_and(|account| account.contains("lost")));
    assert_eq!(el2_writes(false), Ok(()));
}

#[test]
fn hold_that_runs_out_of_time_abandons_the_start_and_breaks_nothing() {
    for seed in 0..8 {
        let machine = Machine::new(Parameters::new(seed));
        let smmu = bring_up(&machine, machine.smmu());
        let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        machine.fail_next_hold();
        assert!(vm.start().is_err_and(|error| error.contains("undone")));
        assert_eq!(quiet(&machine), Ok(()));
        assert_eq!(vm.start(), Ok(()));
    }
}

#[test]
fn invalidation_by_ipa_leaves_combined_entries() {
    let tallies = [false, true].map(|and_combined| {
        let machine = Machine::new(Parameters::new(11));
        let smmu = bring_up(&machine, machine.smmu());
        let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        let view = vm.space.cpu_view();
        let vttbr: Vttbr = view.walker.vttbr(&view.tree);
        let block = leaf(&machine, vttbr.root, RAM);
        let mut stale = 0;
        for _ in 0..40 {
            machine.run(300);
            block.fetch_and(!WRITE);
            machine.barrier(Barrier::DsbIshst);
            machine.tlbi(vttbr, Tlbi::IpaS2E1Is(RAM));
            machine.barrier(Barrier::DsbIsh);
            if and_combined {
                machine.tlbi(vttbr, Tlbi::VmallE1Is);
                machine.barrier(Barrier::DsbIsh);
            }
            let before = machine.tally().stale_hits;
            machine.run(300);
            stale += machine.tally().stale_hits - before;
        }
        stale
    });
    assert!(tallies[0] > 20 && tallies[1] == 0, "{tallies:?}");
}

#[test]
fn walk_out_of_memory_and_output_beside_ram_are_noticed() {
    let machine = Machine::new(Parameters::new(12));
    let smmu = bring_up(&machine, machine.smmu());
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    let root = vm.space.dma_views().next().unwrap().view.tree.root();
    machine.words(root.offset(2 * 8), 1)[0].store(0x7_0000_0003);
    machine.words(root.offset(3 * 8), 1)[0]
        .store(0x0008_0007_0000_07fd & !0x3fff_0000 | 0x0008_0000_0000_0000);
    machine.barrier(Barrier::DsbSy);
    let _aborted = machine.dma(STREAMS[0], Ipa(0x8000_0000), false);
    let _astray = machine.dma(STREAMS[0], Ipa(0xc000_0000), false);
    assert_eq!(broken(&machine), [Rule::WalkAstray, Rule::OutputAstray]);
}

/// A log of 2 MiB blocks, which are writable-clean, at BBML 1: one of them gets nT and loses it again, by a plain store or
/// by an atomic AND, while devices write.
fn nt_is_cleared(seed: u64, plainly: bool) -> Result<(), String> {
    let mut parameters = Parameters::new(seed);
    parameters.smmu.bbml = 1;
    let machine = Machine::new(parameters);
    let smmu = bring_up(&machine, machine.smmu());
    let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    let block = leaf(&machine, vm.space.dma_views().next().unwrap().view.tree.root(), RAM);
    let request = Request { granule: PageSize::Size2M.into(), ..Request::from(vm.range()) };
    vm.start_as(request)?;
    for _ in 0..8 {
        block.fetch_or(NT);
        smmu.invalidate(vm.vmid, Scope::All).map_err(|e| format!("{e:?}"))?;
        if plainly {
            let seen = block.load();
            machine.run(20);
            block.store(seen & !NT);
        } else {
            machine.run(20);
            block.fetch_and(!NT);
        }
        smmu.invalidate(vm.vmid, Scope::All).map_err(|e| format!("{e:?}"))?;
        vm.sync_of(&[Source::Dma], false)?;
    }
    vm.stop()
}

#[test]
fn nt_that_is_cleared_by_a_plain_store_loses_a_write() {
    let accounts = (0..20).filter_map(|seed| nt_is_cleared(seed, true).err());
    assert!(accounts.clone().any(|account| account.contains("lost")), "{:?}", accounts.collect::<Vec<_>>());
    for seed in 0..20 {
        assert_eq!(nt_is_cleared(seed, false), Ok(()), "seed {seed}");
    }
}

#[test]
fn start_at_bbml_1_whose_invalidation_is_refused_is_undone_and_leaves_nt_nowhere() {
    for seed in 0..20 {
        let mut parameters = Parameters::new(seed);
        parameters.smmu.bbml = 1;
        let machine = Machine::new(parameters);
        let smmu = bring_up(&machine, machine.smmu());
        let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        let blocks = vm.space.dma_totals();
        // The first command of the start is that between nT and the swap.
        machine.smmu().fail_next_command(1);
        assert!(vm.start().is_err_and(|error| error.contains("undone")), "seed {seed}");
        assert_eq!((vm.no_nt_left(), vm.space.dma_totals()), (Ok(()), blocks), "seed {seed}");
        assert_eq!((vm.start(), vm.sync(), vm.stop()), (Ok(()), Ok(()), Ok(())), "seed {seed}");
        assert!(vm.end().is_ok(), "seed {seed}");
    }
}

/// A machine whose SMMU stalls where the STE says so.
fn stalling_machine(seed: u64) -> Machine {
    let mut parameters = Parameters::new(seed);
    (parameters.smmu.httu, parameters.smmu.stall_model, parameters.smmu.stall_max) = (0, 0, 4);
    Machine::new(parameters)
}

/// Registers of an SMMU that says it can stall, and can't.
struct Boaster(strandline_model::SmmuPort);

impl Registers for Boaster {
    fn read32(&self, register: Register32) -> u32 {
        let value = self.0.read32(register);
        match register {
            Register32::Idr0 => value & !(3 << 24),
            Register32::Idr5 => value | 4 << 16,
            _ => value,
        }
    }

    fn write32(&self, register: Register32, value: u32) {
        self.0.write32(register, value);
    }

    fn write64(&self, register: Register64, value: u64) {
        self.0.write64(register, value);
    }
}

#[test]
fn stream_that_may_stall_is_illegal_where_nothing_stalls() {
    let machine = Machine::new(Parameters::new(6));
    let smmu = bring_up(&machine, Boaster(machine.smmu()));
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    smmu.attach(StreamId(0x9), &smmu.stalling(vm.ste()).unwrap()).unwrap();
    assert_eq!(machine.dma(StreamId(0x9), RAM, false), Dma::Aborted(strandline_model::Reason::BadSte));
    assert_eq!(broken(&machine), [Rule::IllegalSte]);
}

#[test]
fn smmu_that_stalls_every_fault_is_refused_by_name() {
    let mut parameters = Parameters::new(7);
    (parameters.smmu.stall_model, parameters.smmu.stall_max) = (2, 4);
    let machine = Machine::new(parameters);
    let refused = Smmu::new(&machine, machine.smmu(), &options()).err().unwrap().to_string();
    assert_eq!(refused, "the SMMU stalls every faulting transaction (SMMU_IDR0=0xe44109b)");
}

#[test]
fn log_is_untrusted_where_a_stream_that_should_stall_is_terminated() {
    for (seed, stalls) in [(8, true), (9, false)] {
        let machine = stalling_machine(seed);
        let smmu = bring_up(&machine, machine.smmu());
        let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Stall));
        for stream in STREAMS {
            machine.quiesce(stream);
            smmu.detach(stream).unwrap();
        }
        smmu.attach(STREAMS[0], &smmu.stalling(vm.ste()).unwrap()).unwrap();
        if !stalls {
            machine.never_stalls(STREAMS[0]);
        }
        vm.start().unwrap();
        let (mut told, there) = (vec![], RAM.offset(0x3000));
        let dma = machine.dma(STREAMS[0], there, true);
        smmu.drain_events(|event| told.push((event.denied_write(), event.stall.is_some())));
        assert_eq!(told, [(Some(there), stalls)]);
        if stalls {
            assert_eq!(dma, Dma::Stalled);
            continue;
        }
        assert_eq!(dma, Dma::Aborted(strandline_model::Reason::Permission));
        assert!(vm.space.write_terminated(&machine, vm.space.dma_view(0).unwrap(), there));
        let part = vm.log.step_of(vm.range(), 0).unwrap();
        let read = vm.log.sync(&machine, &vm.space, part, Flags::DMA, |_, _| ());
        assert_eq!(read, Err(strandline::dirty_log::LogError::Untrusted));
    }
}
