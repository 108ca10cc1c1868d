//! A VM with two vCPUs and two devices on a model machine, and the whole life of a log on it.
use crate::broken::Phase;
use crate::guest::blocks_with_nt;
use strandline::addr::{Ipa, IpaRange, Pa, StreamId, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::{DigestKey, DirtyLog, Granule, Policy, Progress, Request, Statistics};
use strandline::hw::{Barrier, DmaTlb, Platform, Tlbi};
use strandline::smmu::{Httu, Options, Registers, Smmu, Stage2Config, ViewSte};
use strandline::stage2::{DmaWalker, Format};
use strandline_abi::{CpuTier, DmaTier, Flags};
use strandline_model::{Machine, Report, Source, Window};

/// Where guest RAM begins, as the guest sees it.
pub const RAM: Ipa = Ipa(0x4000_0000);
/// The streams of the VM's devices: in different level-2 stream tables.
pub const STREAMS: [StreamId; 2] = [StreamId(0x8), StreamId(0x100)];
/// The VMID of the CPU view.
pub const CPU_VMID: Vmid = Vmid(1);

/// What is to be done with a log.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How devices' writes come to be known.
    pub tier: DmaTier,
    /// Bytes of RAM.
    pub bytes: u64,
    /// Pages from its beginning that are logged, and that vCPUs and devices work on.
    pub pages: u64,
    /// Syncs, before the last one.
    pub rounds: u64,
    /// Hardware steps between two of them.
    pub pause: u64,
    /// Sizes change in the CPU view under running vCPUs.
    pub direct: bool,
    /// Broadcast invalidations of the CPU view are issued twice.
    pub repeat: bool,
    /// The log is adaptive, and merges what has been clean for one pass.
    pub adaptive: bool,
}

impl Plan {
    /// Eight MiB, some rounds.
    pub const fn new(tier: DmaTier) -> Self {
        let (bytes, pages, rounds, pause) = (8 << 20, 2048, 4, 400);
        Self { tier, bytes, pages, rounds, pause, direct: false, repeat: false, adaptive: false }
    }
}

pub fn options() -> Options {
    Options {
        stream_bits: 10,
        command_queue_bits: 4,
        event_queue_bits: 4,
        timeout_us: 20_000,
        ..Options::default()
    }
}

/// The driver, up.
pub fn bring_up<P: Platform, R: Registers>(platform: &P, port: R) -> Smmu<'_, P, R> {
    Smmu::new(platform, port, &options()).expect("the SMMU answers")
}

/// The first alarm, as an error.
pub fn quiet(machine: &Machine) -> Result<(), String> {
    machine.alarms().first().map_or(Ok(()), |alarm| Err(alarm.to_string()))
}

/// A VM on a machine.
pub struct Vm<'a, P, R, D> {
    pub machine: &'a Machine,
    pub platform: &'a P,
    pub smmu: &'a Smmu<'a, P, R>,
    pub space: AddressSpace<'a, D>,
    pub log: DirtyLog,
    pub vmid: Vmid,
    pub plan: Plan,
}

impl<'a, P: Platform, R: Registers, D: DmaTlb> Vm<'a, P, R, D> {
    /// Maps RAM, attaches the devices, and lets everything run.
    pub fn new(
        machine: &'a Machine,
        platform: &'a P,
        smmu: &'a Smmu<'a, P, R>,
        tlb: &'a D,
        plan: Plan,
    ) -> Self {
        let format = Format::new(36).expect("36 bits");
        let mut space = AddressSpace::new(platform, format, CPU_VMID).expect("frames");
        if plan.direct {
            space = space.with_direct_swap();
        }
        if plan.repeat {
            space = space.with_repeated_invalidation();
        }
        let vmid = smmu.alloc_vmid().expect("a VMID");
        let walker = DmaWalker { tlb, vmid, coherent: smmu.features().coherent };
        let view = space.add_dma_view(platform, walker, plan.tier).expect("frames");
        if smmu.features().httu == Httu::TableAccessFlag {
            space.use_table_flags(platform, view);
        }
        let range = IpaRange::new(RAM, plan.bytes).expect("a range");
        space.map(platform, Region { range, pa: Pa(0x8000_0000), reach: Reach::Ram }).expect("frames");
        let log =
            DirtyLog::new(CpuTier::Hardware).with_key(DigestKey([1, 2]), strandline_abi::KeySource::Cpu);
        let vm = Self { machine, platform, smmu, space, log, vmid, plan };
        let ste = vm.ste();
        for stream in STREAMS {
            smmu.attach(stream, &ste).expect("attached");
        }
        vm.run();
        vm
    }

    /// The STE of the DMA view.
    pub fn ste(&self) -> ViewSte {
        let dma = self.space.dma_views().next().expect("one DMA view");
        self.smmu.view(&Stage2Config::of(dma)).expect("an STE")
    }

    fn run(&self) {
        let window = Window { first: RAM.0, pages: self.plan.pages };
        let view = self.space.cpu_view();
        for pe in 0..2 {
            self.machine.run_vcpu(pe, view.walker.vttbr(&view.tree), view.tree.format(), window);
        }
        for stream in STREAMS {
            self.machine.add_device(stream, window);
        }
        self.machine.run(self.plan.pause);
    }

    pub fn range(&self) -> IpaRange {
        IpaRange::new(RAM, self.plan.pages * 4096).expect("a range")
    }

    pub fn start(&mut self) -> Result<(), String> {
        let mut request = Request::from(self.range());
        if self.plan.adaptive {
            request.granule = Granule::Adaptive(Policy { cold_passes: 1, ..Policy::default() });
            self.machine.log_start_begins_adaptive(false);
        } else {
            self.machine.log_start_begins();
        }
        self.go_on_starting(request)
    }

    pub fn start_as(&mut self, request: Request) -> Result<(), String> {
        self.machine.log_start_begins();
        self.go_on_starting(request)
    }

    fn go_on_starting(&mut self, request: Request) -> Result<(), String> {
        let mut step = 0;
        while let Progress::More(next) =
            self.log.start(self.platform, &mut self.space, request, step).map_err(|e| e.to_string())?
        {
            step = next;
        }
        self.machine.log_started();
        quiet(self.machine)
    }

    /// Clearing syncs of everything: of both sources at once where that is exact, else of one and then the other.
    pub fn sync(&mut self) -> Result<(), String> {
        self.machine.run(self.plan.pause);
        if self.plan.tier == DmaTier::Hardware {
            return self.sync_of(&[Source::Cpu, Source::Dma], true);
        }
        self.sync_of(&[Source::Cpu], true)?;
        self.sync_of(&[Source::Dma], false)
    }

    pub fn sync_of(&mut self, sources: &[Source], exact: bool) -> Result<(), String> {
        self.sync_part(self.range(), sources, exact)
    }

    /// [`Vm::sync_of`] of a part of the log.
    pub fn sync_part(&mut self, range: IpaRange, sources: &[Source], exact: bool) -> Result<(), String> {
        let began = self.machine.step();
        let flags = sources.iter().fold(Flags::CLEAR, |flags, source| match source {
            Source::Cpu => flags.with(Flags::CPU),
            Source::Dma => flags.with(Flags::DMA),
        });
        let mut pages = vec![];
        let part = self.log.step_of(range, 0).map_err(|e| e.to_string())?;
        let deliver = |word, bits: u64| {
            let dirty = (0..64).filter(|bit| bits >> bit & 1 == 1);
            pages.extend(dirty.map(|bit| range.start().0 + (word * 64 + bit) * 4096));
        };
        if self.plan.adaptive {
            self.log.sync_adapting(self.platform, &mut self.space, part, flags, deliver)
        } else {
            self.log.sync(self.platform, &self.space, part, flags, deliver)
        }
        .map_err(|e| e.to_string())?;
        quiet(self.machine)?;
        self.machine.synced(began, range, sources, Report { clear: true, exact }, &pages)
    }

    pub fn stop(&mut self) -> Result<(), String> {
        self.machine.log_stopped();
        let mut step = 0;
        while let Progress::More(next) =
            self.log.stop(self.platform, &mut self.space, step).map_err(|e| e.to_string())?
        {
            step = next;
        }
        self.no_nt_left()?;
        self.machine.run(self.plan.pause);
        quiet(self.machine)
    }

    /// nT is in no block for longer than a change of size takes.
    pub fn no_nt_left(&self) -> Result<(), String> {
        let left: usize =
            self.space.dma_views().map(|view| blocks_with_nt(self.machine, &view.view.tree)).sum();
        if left == 0 { Ok(()) } else { Err(format!("half done: {left} blocks have nT")) }
    }

    /// Takes the devices away and frees everything.
    pub fn end(self) -> Result<Statistics, String> {
        let aborts = self.machine.aborts();
        if let Some(abort) = aborts.first() {
            return Err(format!("disturbed: {abort:x?}"));
        }
        if self.machine.tally().cpu_faults != 0 {
            return Err("disturbed: a vCPU faulted".to_owned());
        }
        for stream in STREAMS {
            self.machine.set_active(stream, false);
            self.smmu.detach(stream).map_err(|e| e.to_string())?;
        }
        self.smmu.free_vmid(self.vmid).map_err(|e| e.to_string())?;
        (0..2).for_each(|pe| self.machine.stop_vcpu(pe));
        let view = self.space.cpu_view();
        self.platform.tlbi(view.walker.vttbr(&view.tree), Tlbi::VmallS12E1Is);
        self.platform.barrier(Barrier::DsbIsh);
        let statistics = self.log.statistics();
        self.space.free(self.platform);
        quiet(self.machine)?;
        Ok(statistics)
    }
}

/// Start, some syncs, stop, and the end; says where it is.
pub fn cycle<P: Platform, R: Registers, D: DmaTlb>(
    machine: &Machine,
    platform: &P,
    smmu: &Smmu<'_, P, R>,
    tlb: &D,
    plan: Plan,
    phase: impl Fn(Phase),
) -> Result<Statistics, String> {
    let mut vm = Vm::new(machine, platform, smmu, tlb, plan);
    quiet(machine)?;
    phase(Phase::Start);
    vm.start()?;
    phase(Phase::Sync);
    for _ in 0..plan.rounds {
        vm.sync()?;
    }
    phase(Phase::Stop);
    vm.stop()?;
    phase(Phase::End);
    vm.end()
}
