//! A VM whose log, memory and devices come and go at random, and all that is checked of it.

use std::ops::AddAssign;

use strandline::addr::{Ipa, IpaRange, Pa, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region, SpaceError};
use strandline::dirty_log::{AttachError, DirtyLog, LogError, Progress, Weakening};
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{Barrier, Cpu, Tlbi};
use strandline::smmu::{Httu, Stage2Config};
use strandline::stage2::{DmaWalker, Format, LeafCounts, MapError, Tree};
use strandline_abi::{CpuTier, DmaTier, Flags, LogState};
use strandline_model::{Machine, Parameters, Report, Source, Tally, Window};

use crate::host::{Driver, Host, Mischief};
use crate::vm::{CPU_VMID, RAM, STREAMS, bring_up, quiet};

const PAGE: u64 = 0x1000;
const PAGES: u64 = 2048;
/// Where the regions of RAM begin, in pages: 4 MiB, 1 MiB, 64 KiB, and the rest.
const REGIONS: [u64; 4] = [0, 1024, 1280, 1296];
const WRITE: u64 = 1 << 7;

/// How often, of 1024, what happens.
#[derive(Clone, Copy)]
pub struct Mix {
    /// Frames are nearly used up before an operation that takes some.
    pub exhaust: u64,
    /// A region comes or goes.
    pub remap: u64,
    /// A view comes or goes.
    pub replug: u64,
    /// The log is started or stopped.
    pub toggle: u64,
}

const NOTHING_LACKS: Mix = Mix { exhaust: 0, remap: 0, replug: 0, toggle: 0 };

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    pub tally: Tally,
    pub splits: u64,
    pub merges: u64,
    pub starts: u64,
    pub abandoned_starts: u64,
    pub refused_starts: u64,
    pub other_refusals: u64,
    pub syncs: u64,
    pub clears: u64,
    pub reported: u64,
    pub unmaps_under_log: u64,
    pub maps_under_log: u64,
    pub attaches_under_log: u64,
    pub detaches_under_log: u64,
    pub el2_writes: u64,
    pub faults_answered: u64,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        self.tally += other.tally;
        self.splits += other.splits;
        self.merges += other.merges;
        self.starts += other.starts;
        self.abandoned_starts += other.abandoned_starts;
        self.refused_starts += other.refused_starts;
        self.other_refusals += other.other_refusals;
        self.syncs += other.syncs;
        self.clears += other.clears;
        self.reported += other.reported;
        self.unmaps_under_log += other.unmaps_under_log;
        self.maps_under_log += other.maps_under_log;
        self.attaches_under_log += other.attaches_under_log;
        self.detaches_under_log += other.detaches_under_log;
        self.el2_writes += other.el2_writes;
        self.faults_answered += other.faults_answered;
    }
}

/// The choices of a run: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    fn chance(&mut self, of_1024: u64) -> bool {
        self.below(1024) < of_1024
    }

    /// A range of whole pages in `all`: more often than not a small one, sometimes everything.
    fn part(&mut self, all: IpaRange) -> IpaRange {
        if self.chance(128) {
            return all;
        }
        let first = self.below(all.pages());
        let most = (all.pages() - first).min(1 << self.below(12));
        let pages = 1 + self.below(most);
        pages_of(all.start().0 / PAGE + first, pages)
    }
}

fn pages_of(first: u64, pages: u64) -> IpaRange {
    IpaRange::new(Ipa(first * PAGE), pages * PAGE).expect("a range")
}

/// All that an operation which is refused must leave as it is.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    state: LogState,
    free_frames: usize,
    /// Table frames of each view.
    tables: Vec<u64>,
    leaves: Vec<LeafCounts>,
    /// Where each descriptor stands, and what it is.
    words: Vec<(u64, u64)>,
}

/// A VM on a host.
struct Guest<'a> {
    host: &'a Host<'a>,
    smmu: &'a Driver<'a>,
    log: DirtyLog,
    tier: DmaTier,
    mix: Mix,
    vcpus: usize,
    /// Index and VMID of the view of each stream.
    views: [Option<(usize, Vmid)>; 2],
    mapped: [bool; 4],
    hoard: Vec<FrameBlock>,
    dice: Dice,
    met: Met,
}

type Outcome = Result<(), String>;

fn region(i: usize) -> Region {
    let end = REGIONS.get(i + 1).copied().unwrap_or(PAGES);
    let range = pages_of(RAM.0 / PAGE + REGIONS[i], end - REGIONS[i]);
    Region { range, pa: Pa(0x8000_0000 + REGIONS[i] * PAGE), reach: Reach::Ram }
}

fn collect_words(machine: &Machine, tree: &Tree) -> Vec<(u64, u64)> {
    let mut words = vec![];
    let mut tables = vec![(tree.root(), tree.format().start_level())];
    while let Some((table, level)) = tables.pop() {
        for i in 0..512 {
            let at = table.offset(i * 8);
            let word = machine.peek(at);
            // The root of this format has 64 entries; what lies behind them is not the tree's.
            if word & 1 == 0 || level == tree.format().start_level() && i >= 64 {
                continue;
            }
            words.push((at.0, word));
            if level < 3 && word & 2 != 0 {
                tables.push((Pa(word & 0xffff_ffff_f000), level + 1));
            }
        }
    }
    words
}

impl<'a> Guest<'a> {
    fn new(host: &'a Host<'a>, smmu: &'a Driver<'a>, parameters: &Parameters, mix: Mix) -> Self {
        let tier = if parameters.smmu.httu == 2 { DmaTier::Hardware } else { DmaTier::Assume };
        let cpu = if parameters.pes.hafdbs { CpuTier::Hardware } else { CpuTier::Faults };
        let format = Format::new(36).expect("36 bits");
        let mut space = AddressSpace::new(host, format, CPU_VMID).expect("frames");
        for i in 0..REGIONS.len() {
            space.map(host, region(i)).expect("frames");
        }
        host.open(space);
        let log = DirtyLog::new(cpu);
        let (views, mapped, dice) = ([None; 2], [true; 4], Dice(!parameters.seed));
        let mut guest = Self {
            host,
            smmu,
            log,
            tier,
            mix: NOTHING_LACKS,
            vcpus: parameters.pes.count,
            views,
            mapped,
            hoard: vec![],
            dice,
            met: Met::default(),
        };
        let window = Window { first: RAM.0, pages: PAGES };
        for (i, stream) in STREAMS.into_iter().enumerate() {
            guest.plug(i).expect("attached");
            host.machine.add_device(stream, window);
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

    fn is_on(&self) -> bool {
        self.log.state() == LogState::On
    }

    fn all(&self) -> IpaRange {
        pages_of(RAM.0 / PAGE, PAGES)
    }

    fn snapshot(&self) -> Snapshot {
        let space = self.host.space();
        let trees: Vec<&Tree> =
            space.dma_views().map(|v| &v.view.tree).chain([&space.cpu_view().tree]).collect();
        Snapshot {
            state: self.log.state(),
            free_frames: self.machine().free_frames(),
            tables: trees.iter().map(|t| t.tables()).collect(),
            leaves: trees.iter().map(|t| t.leaves()).collect(),
            words: trees.iter().flat_map(|t| collect_words(self.machine(), t)).collect(),
        }
    }

    /// Nothing is as it was not before, but for what hardware or a fault has made dirty.
    fn check_unchanged(&self, what: &str, before: &Snapshot) -> Outcome {
        let mut after = self.snapshot();
        let same_places = after.words.len() == before.words.len();
        for (now, then) in after.words.iter_mut().zip(&before.words) {
            if *now == (then.0, then.1 | WRITE) {
                *now = *then;
            }
        }
        if same_places && after == *before {
            return Ok(());
        }
        let different = after.words.iter().zip(&before.words).find(|(now, then)| now != then);
        Err(format!(
            "half done: {what} was refused, and changed frames {} to {}, tables {:?} to {:?}, a word {different:x?}",
            before.free_frames, after.free_frames, before.tables, after.tables
        ))
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
        let kinds = [self.mix.toggle, self.mix.remap, self.mix.replug, 96, 256];
        let mut die = self.dice.below(1024);
        let kind = kinds.iter().position(|k| {
            let hit = die < *k;
            die = die.saturating_sub(*k);
            hit
        });
        match kind {
            Some(0) if self.is_on() => self.stop()?,
            Some(0) => self.start()?,
            Some(1) => self.remap()?,
            Some(2) => self.replug()?,
            Some(3) => self.el2_writes(),
            Some(4) => self.be_refused()?,
            _ if self.is_on() && self.dice.chance(256) => self.clear()?,
            _ if self.is_on() => self.sync()?,
            _ => self.start()?,
        }
        self.relent();
        let pause = self.dice.below(300);
        self.host.run(pause);
        self.smmu.drain_events(|_| ());
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
        if self.host.denied.get() > 0 && self.met.unmaps_under_log == 0 && self.mapped == [true; 4] {
            return Err("disturbed: a vCPU's write was denied".to_owned());
        }
        Ok(())
    }

    fn start(&mut self) -> Outcome {
        let range = self.dice.part(self.all());
        self.exhaust();
        let before = self.snapshot();
        let hole = (0..4).any(|i| !self.mapped[i] && region(i).range.overlaps(range));
        if self.dice.chance(32) {
            self.machine().fail_next_hold();
        }
        self.machine().log_start_begins();
        let mut step = 0;
        loop {
            let progress = self.log.start(self.host, &mut self.host.space_mut(), range, step);
            match progress {
                Ok(Progress::Done) => break,
                Ok(Progress::More(next)) => step = next,
                Err(LogError::Abandoned(_)) => return self.abandoned(&before),
                Err(LogError::OutOfFrames(lack)) if lack.needed > lack.free && !self.hoard.is_empty() => {
                    self.met.refused_starts += 1;
                    return self.check_unchanged("start", &before);
                }
                Err(LogError::OutsideRam(_)) if hole => {
                    self.met.refused_starts += 1;
                    return self.check_unchanged("start", &before);
                }
                Err(error) => return Err(format!("start of {range} failed: {error}")),
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
            if self.dice.chance(64) {
                self.be_refused()?;
            }
            if self.dice.chance(96) {
                self.stop()?;
                return self.abandoned(&before);
            }
        }
        self.machine().log_started();
        self.met.starts += 1;
        Ok(())
    }

    /// A start that was given up has taken nothing.
    fn abandoned(&mut self, before: &Snapshot) -> Outcome {
        self.met.abandoned_starts += 1;
        let after = self.snapshot();
        // It may have merged what was in pieces.
        let tables = |s: &Snapshot| s.tables.iter().sum::<u64>();
        if after.state != LogState::Off
            || after.free_frames < before.free_frames
            || tables(&after) > tables(before)
        {
            let (now, then) = (after.free_frames, before.free_frames);
            return Err(format!("half done: a start was given up, and took frames: {then} free, then {now}"));
        }
        Ok(())
    }

    fn stop(&mut self) -> Outcome {
        self.machine().log_stopped();
        let mut step = 0;
        loop {
            let progress = self.log.stop(self.host, &mut self.host.space_mut(), step);
            match progress.map_err(|e| format!("stop failed: {e}"))? {
                Progress::Done => return Ok(()),
                Progress::More(next) => step = next,
            }
            let pause = self.dice.below(100);
            self.host.run(pause);
        }
    }

    fn sources(&mut self) -> (Vec<Source>, Flags) {
        match self.dice.below(3) {
            0 => (vec![Source::Cpu], Flags::CPU),
            1 => (vec![Source::Dma], Flags::DMA),
            _ => (vec![Source::Cpu, Source::Dma], Flags::CPU.with(Flags::DMA)),
        }
    }

    fn exact(&self, sources: &[Source]) -> bool {
        self.tier == DmaTier::Hardware || sources == [Source::Cpu]
    }

    fn sync(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let range = self.dice.part(logged);
        let (sources, flags) = self.sources();
        let clear = self.dice.chance(700);
        let flags = if clear { flags.with(Flags::CLEAR) } else { flags };
        let began = self.machine().step();
        let part = self.log.step_of(range, 0).map_err(|e| e.to_string())?;
        let mut pages = vec![];
        self.log
            .sync(self.host, &self.host.space(), part, flags, |word, bits| {
                collect_pages(&mut pages, part, word, bits);
            })
            .map_err(|e| e.to_string())?;
        self.met.syncs += 1;
        self.met.reported += pages.len() as u64;
        let report = Report { clear, exact: self.exact(&sources) };
        self.machine().synced(began, part, &sources, report, &pages)
    }

    fn clear(&mut self) -> Outcome {
        let Some(logged) = self.log.range() else { return Ok(()) };
        let range = self.dice.part(logged);
        let (sources, flags) = self.sources();
        let part = self.log.step_of(range, 0).map_err(|e| e.to_string())?;
        let masks: Vec<u64> =
            (0..part.pages().div_ceil(64)).map(|_| self.dice.next() & self.dice.next()).collect();
        let mut wanted = vec![];
        for (word, mask) in masks.iter().enumerate() {
            collect_pages(&mut wanted, part, word as u64, *mask);
        }
        wanted.retain(|page| part.contains(Ipa(*page)));
        let began = self.machine().step();
        let mut pages = vec![];
        self.log
            .clear(
                self.host,
                &self.host.space(),
                part,
                flags,
                |word| masks[word as usize],
                |word, bits| collect_pages(&mut pages, part, word, bits),
            )
            .map_err(|e| e.to_string())?;
        self.met.clears += 1;
        let report = Report { clear: true, exact: self.exact(&sources) };
        self.machine().cleared(began, &wanted, &sources, report, &pages)
    }

    fn remap(&mut self) -> Outcome {
        let hole = (0..4).find(|i| !self.mapped[*i]);
        if let Some(hole) = hole
            && self.dice.chance(640)
        {
            return self.map(hole);
        }
        let i = self.dice.below(4) as usize;
        let Region { range, pa, .. } = region(i);
        if !self.mapped[i] {
            return Ok(());
        }
        if self.mapped.iter().filter(|m| **m).count() < 2 {
            return Ok(());
        }
        self.exhaust();
        self.machine().set_unmapped(range, true);
        let unmapped = self.host.unmapping(|| self.host.space_mut().unmap(self.host, range));
        unmapped.map_err(|e| format!("unmap failed: {e}"))?;
        self.machine().reuse_memory(pa, range.bytes());
        self.mapped[i] = false;
        self.met.unmaps_under_log += u64::from(self.is_on());
        Ok(())
    }

    fn map(&mut self, i: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let mapped = self.host.space_mut().map(self.host, region(i));
        match mapped {
            Ok(()) => {}
            Err(SpaceError::Map(MapError::OutOfFrames(_))) if !self.hoard.is_empty() => {
                self.met.other_refusals += 1;
                return self.check_unchanged("map", &before);
            }
            Err(error) => return Err(format!("map failed: {error}")),
        }
        self.machine().set_unmapped(region(i).range, false);
        for source in [Source::Cpu, Source::Dma] {
            self.machine().enters_dirty(source, region(i).range);
        }
        self.mapped[i] = true;
        self.met.maps_under_log += u64::from(self.is_on());
        Ok(())
    }

    fn replug(&mut self) -> Outcome {
        let stream = self.dice.below(2) as usize;
        if self.views[stream].is_some() { self.unplug(stream) } else { self.plug(stream) }
    }

    fn plug(&mut self, stream: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let vmid = self.smmu.alloc_vmid().map_err(|e| e.to_string())?;
        let walker = DmaWalker { tlb: self.smmu, vmid, coherent: self.smmu.features().coherent };
        let attached = self.log.attach_view(
            self.host,
            &mut self.host.space_mut(),
            walker,
            self.tier,
            Weakening::Refused,
        );
        let index = match attached {
            Ok(index) => index,
            Err(AttachError::Space(SpaceError::Map(MapError::OutOfFrames(_)))) if !self.hoard.is_empty() => {
                self.met.other_refusals += 1;
                self.smmu.free_vmid(vmid).map_err(|e| e.to_string())?;
                return self.check_unchanged("attach", &before);
            }
            Err(error) => return Err(format!("attach failed: {error}")),
        };
        if let Some(logged) = self.log.range() {
            self.machine().enters_dirty(Source::Dma, logged);
            self.met.attaches_under_log += 1;
        }
        self.relent();
        self.views[stream] = Some((index, vmid));
        let config = self.config(index, vmid);
        let ste = self.smmu.view(&config).map_err(|e| e.to_string())?;
        self.smmu.attach(STREAMS[stream], &ste).map_err(|e| e.to_string())?;
        self.machine().set_active(STREAMS[stream], true);
        Ok(())
    }

    fn config(&self, index: usize, vmid: Vmid) -> Stage2Config {
        let space = self.host.space();
        // Views stand in ascending order of their indices.
        let before = self.views.iter().flatten().filter(|(i, _)| *i < index).count();
        let tree = &space.dma_views().nth(before).expect("the view").view.tree;
        Stage2Config {
            vmid,
            root: tree.root(),
            ipa_bits: u32::from(tree.format().ipa_bits()),
            start_level: tree.format().start_level(),
            output_bits: 48,
            hardware_update: if self.tier == DmaTier::Hardware { Httu::Dirty } else { Httu::None },
        }
    }

    fn unplug(&mut self, stream: usize) -> Outcome {
        let Some((index, vmid)) = self.views[stream].take() else { return Ok(()) };
        self.machine().quiesce(STREAMS[stream]);
        self.smmu.detach(STREAMS[stream]).map_err(|e| e.to_string())?;
        let detached =
            self.host.detaching(|| self.log.detach_view(self.host, &mut self.host.space_mut(), index));
        if detached != Ok(vmid) {
            return Err(format!("detach failed: {detached:?}"));
        }
        self.smmu.free_vmid(vmid).map_err(|e| e.to_string())?;
        self.met.detaches_under_log += u64::from(self.is_on());
        Ok(())
    }

    fn el2_writes(&mut self) {
        let page = self.dice.part(self.all()).start();
        if (0..4).any(|i| self.mapped[i] && region(i).range.contains(page)) {
            self.machine().el2_wrote(page);
            let written = IpaRange::new(page, PAGE).expect("a page");
            self.host.space().mark_written(self.host, written);
            self.met.el2_writes += 1;
        }
    }

    /// Asks for what can't be: nothing must come of it.
    fn be_refused(&mut self) -> Outcome {
        let i = self.dice.below(4) as usize;
        let Region { range, .. } = region(i);
        let changing = matches!(self.log.state(), LogState::Starting | LogState::Stopping);
        let logged = self.log.range().is_some_and(|r| r.overlaps(range));
        let before = self.snapshot();
        let host = self.host;
        let refused = match self.dice.below(5) {
            0 if self.mapped[i] => host.space_mut().map(host, region(i)).is_err(),
            1 if !self.mapped[i] || changing && logged => host.space_mut().unmap(host, range).is_err(),
            2 => {
                let part = IpaRange::new(range.start(), PAGE).expect("a page");
                host.space_mut().unmap(host, part).is_err()
            }
            3 if self.log.state() != LogState::Off => {
                self.log.start(host, &mut host.space_mut(), range, 7_777).is_err()
            }
            4 if changing => self.log.detach_view(host, &mut host.space_mut(), 0).is_err(),
            _ => self.log.step_of(pages_of(RAM.0 / PAGE + PAGES, 1), 0).is_err(),
        };
        if !refused {
            return Err("half done: what can't be was not refused".to_owned());
        }
        self.met.other_refusals += 1;
        self.check_unchanged("what can't be", &before)
    }

    /// Ends the log and the VM; all frames come back.
    fn end(mut self, baseline: usize) -> Result<Met, String> {
        if self.log.state() != LogState::Off {
            self.stop()?;
        }
        for stream in 0..2 {
            self.unplug(stream)?;
        }
        (0..self.vcpus).for_each(|pe| self.machine().stop_vcpu(pe));
        let space = self.host.close().ok_or("no address space")?;
        let view = space.cpu_view();
        self.host.tlbi(view.walker.vttbr(&view.tree), Tlbi::VmallS12E1Is);
        self.host.barrier(Barrier::DsbIsh);
        space.free(self.host);
        self.check()?;
        let free = self.machine().free_frames();
        if free != baseline {
            return Err(format!("half done: {baseline} frames were free before the VM, {free} after it"));
        }
        let statistics = self.log.statistics();
        self.met.splits = statistics.blocks_split;
        self.met.merges = statistics.blocks_merged;
        self.met.faults_answered = self.host.recorded.get();
        self.met.tally = self.machine().tally();
        Ok(self.met)
    }
}

fn collect_pages(pages: &mut Vec<u64>, part: IpaRange, word: u64, bits: u64) {
    let dirty = (0..64).filter(|bit| bits >> bit & 1 == 1);
    pages.extend(dirty.map(|bit| part.start().0 + (word * 64 + bit) * PAGE));
}

/// A whole life of `steps` random steps on the machine of `parameters`.
pub fn live(parameters: Parameters, mischief: Mischief, mix: Mix, steps: u64) -> Result<Met, String> {
    let host = Host::new(Machine::new(parameters), mischief);
    let smmu = bring_up(&host, host.machine.smmu());
    let mut guest = Guest::new(&host, &smmu, &parameters, mix);
    let space = host.space();
    let tables = space.cpu_view().tree.tables() + space.dma_totals().1;
    drop(space);
    let baseline = host.machine.free_frames() + tables as usize;
    for _ in 0..steps {
        guest.step()?;
    }
    guest.end(baseline)
}
