//! A VM whose log, memory and devices come and go at random, and all that is checked of it.

mod delivery;
mod devices;
mod dice;
mod hardware;
mod log;
mod memory;
mod met;
mod reading;
mod refused;
mod snapshot;

use std::collections::BTreeMap;

use strandline::addr::{IpaRange, Pa};
use strandline::address_space::AddressSpace;
use strandline::dirty_log::DirtyLog;
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{Barrier, Cpu, Tlbi};
use strandline::smmu::{Errata, Options, Smmu};
use strandline::stage2::Format;
use strandline_abi::{CpuTier, DmaTier, LogState};
use strandline_model::{Machine, Parameters, SmmuParameters, SmmuPort, Window};

use crate::gate::Gate;
use crate::host::{Driver, Host, Mischief};
use crate::vm::{CPU_VMID, RAM, STREAMS, options, quiet};
use devices::Plugged;
use dice::Dice;
use memory::{REGIONS, pages_of, region};
pub use met::{Met, Mix};
pub use snapshot::blocks_with_nt;

const PAGE: u64 = 0x1000;
const PAGES: u64 = 2048;

/// A VM on a host.
struct Guest<'a> {
    host: &'a Host<'a>,
    /// The SMMU of each stream: one, or two.
    smmus: [&'a Driver<'a>; 2],
    /// The same, as the view of each stream has it.
    gates: &'a [Gate<'a>; 2],
    log: DirtyLog,
    cpu: CpuTier,
    /// The best tier of each stream.
    tiers: [DmaTier; 2],
    mix: Mix,
    vcpus: usize,
    /// The view of each stream.
    views: [Option<Plugged>; 2],
    /// Streams whose end hardware did not complete.
    leaving: [bool; 2],
    mapped: [bool; 4],
    /// Regions whose unmapping hardware did not complete.
    lost: [bool; 4],
    /// The SMMU does not answer, or soon will not.
    silent: bool,
    /// Something the log relies on did not complete: no sync may say that all is well.
    suspect: bool,
    /// Table frames that are never used again.
    quarantined: usize,
    /// Of these, the ones that were part of a tree there is, by its root.
    unlinked: BTreeMap<Pa, u64>,
    hoard: Vec<FrameBlock>,
    dice: Dice,
    met: Met,
}

type Outcome = Result<(), String>;

impl<'a> Guest<'a> {
    fn new(
        host: &'a Host<'a>,
        smmus: [&'a Driver<'a>; 2],
        gates: &'a [Gate<'a>; 2],
        parameters: &Parameters,
        mix: Mix,
    ) -> Self {
        let tiers =
            [parameters.smmu, parameters.second.unwrap_or(parameters.smmu)].map(|smmu| best_tier(&smmu));
        let cpu = if parameters.pes.hafdbs { CpuTier::Hardware } else { CpuTier::Faults };
        let format = Format::new(36).expect("36 bits");
        let mut space = AddressSpace::new(host, format, CPU_VMID).expect("frames");
        if !parameters.pes.conflict_aborts {
            space = space.with_direct_swap();
        }
        if parameters.pes.early_broadcast {
            space = space.with_repeated_invalidation();
        }
        for i in 0..REGIONS.len() {
            space.map(host, region(i)).expect("frames");
        }
        host.open(space);
        host.stalls.open(&smmus[..if parameters.second.is_some() { 2 } else { 1 }]);
        let log = DirtyLog::new(cpu);
        let (views, mapped, dice) = ([None; 2], [true; 4], Dice(!parameters.seed));
        let mut guest = Self {
            host,
            smmus,
            gates,
            log,
            cpu,
            tiers,
            mix: Mix::default(),
            vcpus: parameters.pes.count,
            views,
            leaving: [false; 2],
            mapped,
            lost: [false; 4],
            silent: false,
            suspect: false,
            quarantined: 0,
            unlinked: BTreeMap::new(),
            hoard: vec![],
            dice,
            met: Met::default(),
        };
        let window = Window { first: RAM.0, pages: PAGES };
        for (i, stream) in STREAMS.into_iter().enumerate() {
            guest.plug(i).expect("attached");
            guest.port(i).add_device(stream, window);
        }
        let space = host.space();
        let view = space.cpu_view();
        for pe in 0..parameters.pes.count {
            host.machine.run_vcpu(pe, view.walker.vttbr(&view.tree), format, window);
        }
        drop(space);
        guest.mix = mix;
        guest
    }

    fn machine(&self) -> &'a Machine {
        &self.host.machine
    }

    /// The SMMU of a stream.
    fn port(&self, stream: usize) -> SmmuPort {
        self.host.port(stream == 1)
    }

    fn is_on(&self) -> bool {
        self.log.state() == LogState::On
    }

    fn all(&self) -> IpaRange {
        pages_of(RAM.0 / PAGE, PAGES)
    }

    /// Leaves a few frames at the most, now and then.
    fn exhaust(&mut self) {
        if self.dice.chance(self.mix.exhaust) {
            let left = self.dice.below(48) as usize;
            while self.machine().free_frames() > left {
                self.hoard.extend(self.machine().alloc(0));
            }
        }
    }

    fn relent(&mut self) {
        for block in self.hoard.drain(..) {
            self.host.machine.free(block);
        }
    }

    /// One random thing, and what is to be true after it.
    fn step(&mut self) -> Outcome {
        self.fate();
        self.leave()?;
        let kinds = [self.mix.toggle, self.mix.remap, self.mix.replug, 96, 256];
        let mut die = self.dice.below(1024);
        let kind = kinds.iter().position(|k| {
            let hit = die < *k;
            die = die.saturating_sub(*k);
            hit
        });
        match kind {
            Some(0) if self.log.state() != LogState::Off => self.stop()?,
            Some(0) => self.start()?,
            Some(1) => self.remap()?,
            Some(2) => self.replug()?,
            Some(3) => self.el2_writes()?,
            Some(4) => self.be_refused()?,
            _ if self.log.state() == LogState::Untrusted && self.dice.chance(256) => self.stop()?,
            _ if self.log.state() != LogState::Off => self.read_some()?,
            _ => self.start()?,
        }
        self.relent();
        self.forget_trees();
        let pause = self.dice.below(300);
        self.host.run(pause);
        self.host.attend();
        let (told, weakest) = (self.log.tiers(&self.host.space()).dma, self.weakest());
        if told != weakest {
            return Err(format!("the devices' tier is {weakest}, and the log says {told}"));
        }
        self.check()
    }

    /// Nobody is disturbed.
    fn check(&self) -> Outcome {
        quiet(self.machine())?;
        if let Some(abort) = self.machine().aborts().first() {
            return Err(format!("disturbed: {abort:x?}"));
        }
        if self.machine().tally().cpu_faults != 0 {
            return Err("disturbed: a vCPU faulted where memory is mapped".to_owned());
        }
        if self.host.denied.get() > 0 {
            return Err("disturbed: a vCPU's write was denied".to_owned());
        }
        Ok(())
    }

    /// Ends the log and the VM; all frames come back, but for those that hardware may still use.
    fn end(mut self, baseline: usize) -> Result<Met, String> {
        self.mix = Mix::default();
        self.wait_for_answers()?;
        if self.log.state() != LogState::Off {
            self.stop()?;
        }
        self.leave()?;
        self.wait_for_stalls()?;
        for stream in 0..2 {
            self.unplug(stream)?;
        }
        (0..self.vcpus).for_each(|pe| self.machine().stop_vcpu(pe));
        let space = self.host.close().ok_or("no address space")?;
        let view = space.cpu_view();
        self.host.tlbi(view.walker.vttbr(&view.tree), Tlbi::VmallS12E1Is);
        self.host.barrier(Barrier::DsbIsh);
        let accounted = space.quarantined_frames();
        space.free(self.host);
        self.check()?;
        let free = self.machine().free_frames();
        let quarantined = self.quarantined;
        if free + quarantined != baseline {
            return Err(format!(
                "half done: {baseline} frames were free before the VM, {free} after it, {quarantined} quarantined, {accounted} as the library counts"
            ));
        }
        if accounted != quarantined as u64 {
            return Err(format!("{quarantined} frames are quarantined, the library says {accounted}"));
        }
        let statistics = self.log.statistics();
        if statistics.pages_reported != self.met.reported {
            return Err(format!("{} pages reported by {statistics:?}", self.met.reported));
        }
        self.met.quarantined = quarantined as u64;
        self.met.splits = statistics.blocks_split;
        self.met.merges = statistics.blocks_merged;
        self.met.holds = statistics.holds;
        self.met.splits_by_syncs = statistics.splits_by_syncs;
        self.met.merges_by_syncs = statistics.merges_by_syncs;
        self.met.splits_refused = statistics.splits_refused;
        self.met.switches = self.gates.iter().map(|gate| gate.switches.get()).sum();
        self.met.faults_answered = self.host.recorded.get();
        self.met.stalls_recorded = self.host.stalls.recorded.get();
        self.met.stalls_aborted = self.host.stalls.aborted.get();
        self.met.tally = self.machine().tally();
        Ok(self.met)
    }
}

/// The best that is known of devices' writes behind an SMMU.
fn best_tier(smmu: &SmmuParameters) -> DmaTier {
    match (smmu.coherent, smmu.httu, smmu.stall_model) {
        (true, 2 | 3, _) => DmaTier::Hardware,
        (_, _, 0) => DmaTier::Stall,
        _ => DmaTier::Assume,
    }
}

/// The driver of the SMMU behind `port`.
fn driver<'a>(host: &'a Host<'a>, port: SmmuPort, smmu: &SmmuParameters) -> Result<Driver<'a>, String> {
    // Long enough for whoever answers at all.
    let errata = if smmu.outliving { Errata::REPEAT } else { Errata::empty() };
    let options = Options { timeout_us: 500, errata, ..options() };
    Smmu::new(host, port, &options).map_err(|e| e.to_string())
}

/// A whole life of `steps` random steps on the machine of `parameters`.
pub fn live(parameters: Parameters, mischief: Mischief, mix: Mix, steps: u64) -> Result<Met, String> {
    let host = Host::new(Machine::new(parameters), mischief);
    let smmu = driver(&host, host.machine.smmu(), &parameters.smmu)?;
    let second = match (host.machine.second_smmu(), &parameters.second) {
        (Some(port), Some(second)) => Some(driver(&host, port, second)?),
        _ => None,
    };
    let smmus = [&smmu, second.as_ref().unwrap_or(&smmu)];
    let other = match mix.lesser {
        true => Gate::to_a_lesser_one(&host, smmus[1], parameters.seed),
        false => Gate::to_the_second(&host, smmus[1]),
    };
    let gates = [Gate::new(&host, smmus[0]), other];
    let mut guest = Guest::new(&host, smmus, &gates, &parameters, mix);
    let space = host.space();
    let tables = space.cpu_view().tree.tables() + space.dma_totals().1;
    drop(space);
    let baseline = host.machine.free_frames() + tables as usize;
    for _ in 0..steps {
        guest.step()?;
    }
    guest.end(baseline)
}
