//! SMMUs that differ from the main line, and software that takes no notice of it.

use crate::broken::Phase;
use crate::lying::{Blind, Deaf, Forgetful};
use crate::vm::{Plan, RAM, STREAMS, Vm, bring_up, cycle, options, quiet};
use strandline::addr::StreamId;
use strandline::hw::Platform;
use strandline::smmu::Register32;
use strandline::smmu::{Errata, Features, Httu, Options, Registers, Smmu, Stage2Config, ViewSte};
use strandline_abi::DmaTier;
use strandline_model::{Dma, Machine, Parameters, Reason, Rule, Tally};

/// Seeds within which software that breaks a rule must be caught.
const SEEDS: u64 = 64;
/// IDR0.ATS.
const IDR0_ATS: u32 = 0x400;
/// SMMU_IIDR of an MMU-700 r1p0.
const MMU_700: u32 = 0x4871_043b;

/// The tier of the best log there is on `smmu`.
fn tier<P: Platform, R: Registers>(smmu: &Smmu<'_, P, R>) -> DmaTier {
    if smmu.features().httu >= Httu::Dirty { DmaTier::Hardware } else { DmaTier::Assume }
}

/// The life of a log on `machine`, whose driver is told of `errata`, by `port`.
fn log(machine: &Machine, port: impl Registers, options: &Options) -> Result<(), String> {
    let smmu = Smmu::new(machine, port, options);
    quiet(machine)?;
    let smmu = smmu.map_err(|e| e.to_string())?;
    cycle(machine, machine, &smmu, &smmu, Plan::new(tier(&smmu)), |_| ()).map(|_| ())
}

/// The account of the first seed at which `run` is caught.
fn caught(run: impl Fn(u64) -> Result<(), String>) -> String {
    let account = (0..SEEDS).find_map(|seed| run(seed).err());
    let account = account.unwrap_or_else(|| panic!("not caught within {SEEDS} seeds"));
    println!("{}", account.lines().next().unwrap_or_default());
    account
}

fn machine(seed: u64, change: impl Fn(&mut Parameters)) -> Machine {
    let mut parameters = Parameters::new(seed);
    change(&mut parameters);
    Machine::new(parameters)
}

fn not_coherent(parameters: &mut Parameters) {
    (parameters.smmu.coherent, parameters.smmu.httu) = (false, 0);
}

/// A variant of everything at once, as the seed has it.
fn mixture(seed: u64) -> (Parameters, Options) {
    let mut parameters = Parameters::new(seed);
    let bit = |n: u32| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (63 - n) & 1 != 0;
    let smmu = &mut parameters.smmu;
    smmu.httu = [2, 3, 1, 0][usize::from(bit(0)) * 2 + usize::from(bit(1))];
    smmu.bbml = [2, 1, 0, 0][usize::from(bit(13)) * 2 + usize::from(bit(14))];
    smmu.coherent = bit(2) || bit(3);
    smmu.range_invalidation = bit(4);
    smmu.vmid16 = bit(5);
    smmu.two_level = bit(6);
    smmu.ats = bit(7);
    smmu.outliving = bit(8);
    smmu.sync_between = bit(9);
    smmu.iidr = if bit(9) { MMU_700 } else { 0 };
    smmu.tlb_entries = if bit(10) { 1000 } else { 256 };
    smmu.command_queue_bits = [19, 0, 1, 2][usize::from(bit(11)) * 2 + usize::from(bit(15))];
    smmu.event_queue_bits = [19, 0, 1, 2][usize::from(bit(12)) * 2 + usize::from(bit(16))];
    parameters.pes.lse2 = bit(14);
    let errata = if bit(8) { Errata::REPEAT } else { Errata::empty() };
    let options = Options { errata, ..options() };
    (parameters, options)
}

#[test]
fn mixtures_of_variants_lose_and_invent_and_disturb_nothing() {
    let mut met = Tally::default();
    for seed in 0..96 {
        let (parameters, options) = mixture(seed);
        let machine = Machine::new(parameters);
        if let Err(account) = log(&machine, machine.smmu(), &options) {
            panic!("seed {seed}, {:?}: {account}", parameters.smmu);
        }
        met += machine.tally();
    }
    println!("{met:#?}");
    // What was met: fewer means that the adversary has gone to sleep.
    assert!(met.outlived > 3_000 && met.translated_refused > 5_000 && met.stale_hits > 2_000);
    assert!(met.records_lost > 1_000 && met.lines_cleaned > 5_000 && met.dma_writes > 80_000);
}

#[test]
fn entry_that_outlives_one_invalidation_is_caught_where_one_is_issued() {
    let outliving = |seed| machine(seed, |p| p.smmu.outliving = true);
    let once = |seed| {
        let machine = outliving(seed);
        log(&machine, machine.smmu(), &options())
    };
    let account = caught(once);
    assert!(account.contains("lost") || account.contains("FrameInUse"), "{account}");
    for seed in 0..16 {
        let machine = outliving(seed);
        let twice = Options { errata: Errata::REPEAT, ..options() };
        assert_eq!(log(&machine, machine.smmu(), &twice), Ok(()), "seed {seed}");
        assert!(machine.tally().outlived > 20);
    }
}

#[test]
fn commands_without_a_sync_between_are_caught_where_the_part_is_not_known() {
    let mmu_700 = |seed| machine(seed, |p| (p.smmu.iidr, p.smmu.sync_between) = (MMU_700, true));
    let unknown = |seed| {
        let machine = mmu_700(seed);
        let port = Blind { inner: machine.smmu(), register: Register32::Iidr, bits: !0 };
        log(&machine, port, &options())
    };
    assert!(caught(unknown).contains("NoSyncBetween"));
    for seed in 0..8 {
        let machine = mmu_700(seed);
        assert_eq!(log(&machine, machine.smmu(), &options()), Ok(()), "seed {seed}");
    }
}

#[test]
fn atschk_off_lets_a_device_reach_what_it_likes() {
    let with_ats = |seed| machine(seed, |p| p.smmu.ats = true);
    let unaware = |seed| {
        let machine = with_ats(seed);
        log(&machine, Blind { inner: machine.smmu(), register: Register32::Idr0, bits: IDR0_ATS }, &options())
    };
    assert!(caught(unaware).contains("TranslatedUnchecked"));
    for seed in 0..8 {
        let machine = with_ats(seed);
        assert_eq!(log(&machine, machine.smmu(), &options()), Ok(()), "seed {seed}");
        assert!(machine.tally().translated_refused > 50);
    }
}

#[test]
fn address_called_translated_is_refused_with_an_event_attached_or_not() {
    let machine = machine(1, |p| p.smmu.ats = true);
    let smmu = bring_up(&machine, machine.smmu());
    let _vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
    STREAMS.iter().for_each(|stream| machine.set_active(*stream, false));
    smmu.drain_events(|_| ());
    let el2 = Machine::FRAMES;
    assert!(!machine.translated_dma(STREAMS[0], el2) && !machine.translated_dma(StreamId(0x9), el2));
    let mut events = vec![];
    smmu.drain_events(|event| events.push((event.stream, event.kind)));
    use strandline::smmu::FaultKind::{AtsTranslated, UnassignedStream};
    assert_eq!(events, [(STREAMS[0], AtsTranslated), (StreamId(0x9), UnassignedStream)]);
    // Before SMMUEN as well.
    smmu.disable().unwrap();
    assert!(!machine.translated_dma(STREAMS[0], el2));
    assert_eq!(quiet(&machine), Ok(()));
}

/// A stream attached on a machine that is not coherent, with every clean of so many bytes left out.
fn attached_without_cleans_of(bytes: Option<u64>, two_level: bool) -> Result<(), String> {
    let machine = machine(3, |p| {
        not_coherent(p);
        p.smmu.two_level = two_level;
    });
    let platform = Forgetful::new(&machine);
    let smmu = bring_up(&platform, machine.smmu());
    let vm = Vm::new(&machine, &platform, &smmu, &smmu, Plan::new(DmaTier::Assume));
    platform.cleans.set(bytes);
    // With two levels, in a level-2 stream table of its own.
    smmu.attach(StreamId(0x200), &vm.ste()).map_err(|e| e.to_string())?;
    quiet(&machine)?;
    assert_eq!(machine.dma(StreamId(0x200), RAM, false), Dma::Done(0x8000_0000));
    quiet(&machine)
}

#[test]
fn structures_that_are_cleaned_are_visible() {
    assert_eq!([true, false].map(|two_level| attached_without_cleans_of(None, two_level)), [Ok(()), Ok(())]);
}

#[test]
fn queue_entries_that_are_not_cleaned_are_caught() {
    // CMD_CFGI_STE and CMD_SYNC.
    assert!(attached_without_cleans_of(Some(32), true).is_err_and(|e| e.contains("CommandNotVisible")));
}

#[test]
fn ste_body_that_is_not_cleaned_is_caught() {
    for two_level in [true, false] {
        let caught = attached_without_cleans_of(Some(64), two_level);
        assert!(caught.is_err_and(|e| e.contains("StreamTableNotVisible")));
    }
}

#[test]
fn level_2_stream_table_that_is_not_cleaned_is_caught() {
    assert!(attached_without_cleans_of(Some(4096), true).is_err_and(|e| e.contains("StreamTableNotVisible")));
}

#[test]
fn link_to_a_level_2_stream_table_that_is_not_cleaned_is_caught() {
    assert!(attached_without_cleans_of(Some(8), true).is_err_and(|e| e.contains("StreamTableNotVisible")));
}

/// A log on a machine that is not coherent, with every clean of so many bytes left out from its start on.
fn logged_without_cleans_of(seed: u64, bytes: Option<u64>) -> Result<(), String> {
    let machine = machine(seed, not_coherent);
    let platform = Forgetful::new(&machine);
    let smmu = bring_up(&platform, machine.smmu());
    let plan = Plan::new(DmaTier::Assume);
    let start = |phase| {
        if phase == Phase::Start {
            platform.cleans.set(bytes);
        }
    };
    cycle(&machine, &platform, &smmu, &smmu, plan, start).map(|_| ())
}

#[test]
fn table_that_is_not_cleaned_before_its_link_is_caught() {
    assert!(caught(|seed| logged_without_cleans_of(seed, Some(4096))).contains("TableNotVisible"));
    assert_eq!(logged_without_cleans_of(0, None), Ok(()));
}

#[test]
fn descriptor_that_is_not_cleaned_after_its_swap_is_caught() {
    // Swapped descriptors are cleaned a cache line at a time.
    assert!(caught(|seed| logged_without_cleans_of(seed, Some(64))).contains("FrameInUse"));
}

/// The events of rogue DMA on a machine that is not coherent, read with or without an invalidation before.
fn events_read(invalidated: bool) -> (Vec<StreamId>, Vec<Rule>) {
    let machine = machine(4, not_coherent);
    let platform = Forgetful::new(&machine);
    let smmu = bring_up(&platform, machine.smmu());
    platform.invalidations.set(!invalidated);
    let mut streams = vec![];
    // More than the queue holds: every entry is used a second time.
    for stream in (0x20..0x40).map(StreamId) {
        assert_eq!(machine.dma(stream, RAM, true), Dma::Aborted(Reason::BadStream));
        smmu.drain_events(|event| streams.push(event.stream));
    }
    (streams, machine.alarms().iter().map(|a| a.rule).collect())
}

#[test]
fn event_records_read_without_an_invalidation_are_stale() {
    let (streams, alarms) = events_read(true);
    assert_eq!(streams, (0x20..0x40).map(StreamId).collect::<Vec<_>>());
    assert_eq!(alarms, []);
    let (streams, alarms) = events_read(false);
    assert_eq!(alarms[0], Rule::RecordStale);
    assert_ne!(streams, (0x20..0x40).map(StreamId).collect::<Vec<_>>());
}

#[test]
fn hardware_update_without_coherent_accesses_is_caught() {
    let machine = machine(5, |p| p.smmu.coherent = false);
    let smmu = bring_up(&machine, machine.smmu());
    // The driver does not: HTTU is not among the features it relies on.
    assert_eq!(smmu.features().httu, Httu::None);
    assert!(smmu.features().notes.iter().any(|n| n == strandline::smmu::Note::HttuWithoutCoherency));
    let vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Assume));
    let tree = &vm.space.dma_views().next().expect("one DMA view").view.tree;
    let config = Stage2Config {
        vmid: smmu.alloc_vmid().unwrap(),
        root: tree.root(),
        ipa_bits: 36,
        start_level: 1,
        output_bits: 48,
        hardware_update: Httu::Dirty,
    };
    assert!(smmu.view(&config).is_err());
    let able = Features { httu: Httu::Dirty, ..*smmu.features() };
    smmu.attach(StreamId(0x9), &ViewSte::new(&config, &able).unwrap()).unwrap();
    assert_eq!(quiet(&machine), Ok(()));
    let _through = machine.dma(StreamId(0x9), RAM, false);
    assert_eq!(machine.alarms()[0].rule, Rule::UpdateNotCoherent);
}

/// A log that is stopped while the SMMU is silent, by an engine that hears of it, or by one that takes it for done.
fn stopped_in_silence(seed: u64, deaf: bool) -> Result<u64, String> {
    let machine = Machine::new(Parameters::new(seed));
    // Long enough for whoever answers at all, and too short for TLBs to forget everything by themselves.
    let smmu = Smmu::new(&machine, machine.smmu(), &Options { timeout_us: 500, ..options() }).unwrap();
    if deaf {
        let tlb = Deaf(&smmu);
        let mut vm = Vm::new(&machine, &machine, &smmu, &tlb, Plan::new(DmaTier::Hardware));
        vm.start()?;
        machine.smmu().set_dead(true);
        vm.stop().map(|()| 0)
    } else {
        let mut vm = Vm::new(&machine, &machine, &smmu, &smmu, Plan::new(DmaTier::Hardware));
        vm.start()?;
        machine.smmu().set_dead(true);
        let untrusted = strandline::dirty_log::LogError::Untrusted.to_string();
        assert_eq!(vm.stop(), Err(untrusted));
        quiet(&machine)?;
        // The SMMU comes back; what is handed out and used meanwhile is not what it was silent about.
        machine.smmu().set_dead(false);
        machine.run(2000);
        while let Some(block) = strandline::frames::Frames::alloc(&machine, 0) {
            strandline::hw::Memory::fill(&machine, block.pa(), 512, |_| !0);
        }
        machine.run(2000);
        quiet(&machine)?;
        Ok(vm.space.quarantined_frames())
    }
}

#[test]
fn quarantined_frame_handed_out_again_is_caught() {
    assert!(caught(|seed| stopped_in_silence(seed, true).map(|_| ())).contains("FrameInUse"));
    for seed in 0..8 {
        // Four tables of 2 MiB of RAM each, and the list of them.
        assert_eq!(stopped_in_silence(seed, false), Ok(5), "seed {seed}");
    }
}
