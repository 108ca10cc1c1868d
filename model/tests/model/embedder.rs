//! The library as an embedder has it: the front that it puts before its parts, the example, and traits that are implemented
//! wrongly.

use std::cell::Cell;

use strandline::addr::{IpaRange, Pa, StreamId, Vmid};
use strandline::address_space::{Reach, Region, SpaceError};
use strandline::dirty_log::{AttachError, CpuTier, DigestKey, DmaTier, KeySource, LogError};
use strandline::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use strandline::guest::{Guest, GuestError};
use strandline::hw::{Barrier, Cpu, HoldTimeout, Memory, Platform, Tlbi, Vttbr};
use strandline::smmu::{Register32, Register64, Registers, Smmu, SmmuError, Unsupported};
use strandline::stage2::Format;
use strandline::{Error, check};
use strandline_model::{Dma, Machine, ModelWord, Parameters, SmmuPort};

use crate::embedding;
use crate::vm::{RAM, STREAMS, bring_up, options, quiet};

const SEEDS: u64 = 32;
const RAM_BYTES: u64 = 8 << 20;
const PAGE: u64 = 4096;

/// A machine on which dirty bits are set by writes alone.
fn parameters(seed: u64) -> Parameters {
    Parameters { spurious: 0, ..Parameters::new(seed) }
}

fn without_httu(seed: u64) -> Parameters {
    let mut parameters = parameters(seed);
    parameters.smmu.httu = 0;
    parameters
}

fn ram() -> IpaRange {
    IpaRange::new(RAM, RAM_BYTES).unwrap()
}

/// A guest with RAM and no device.
fn guest<R: Registers>(machine: &Machine) -> Guest<'_, Machine, R> {
    guest_as(machine, Vmid(1))
}

/// The same; its vCPUs have this VMID.
fn guest_as<R: Registers>(machine: &Machine, vmid: Vmid) -> Guest<'_, Machine, R> {
    let mut guest = Guest::new(machine, Format::new(36).unwrap(), vmid, CpuTier::Hardware).unwrap();
    guest.map(Region { range: ram(), pa: Pa(0x8000_0000), reach: Reach::Ram }).unwrap();
    guest
}

fn synced<R: Registers>(guest: &Guest<'_, Machine, R>) -> Vec<u64> {
    let mut pages = Vec::new();
    let reported = guest.sync(ram(), |page| pages.push((page.0 - RAM.0) / PAGE)).unwrap();
    assert_eq!(reported as usize, pages.len());
    pages
}

/// What the example does, on `platform`, the device's DMA on `machine`.
fn story<P: Platform, R: Registers>(
    machine: &Machine,
    platform: &P,
    registers: R,
) -> (Result<u64, Error>, String) {
    let mut told = String::new();
    let dma = |to| assert_eq!(machine.dma(STREAMS[0], to, true), Dma::Done(0x8012_3000));
    let reported = embedding::tell(platform, registers, Pa(0x8000_0000), STREAMS[0], dma, &mut told);
    (reported, told)
}

#[test]
fn the_example_reports_exactly_the_page_that_was_written() {
    for seed in 0..SEEDS {
        let machine = Machine::new(parameters(seed));
        let (reported, told) = story(&machine, &machine, machine.smmu());
        assert_eq!(reported, Ok(1), "{told}");
        assert!(told.contains("1 of 2048 pages reported, the last is 0x923000"), "{told}");
        quiet(&machine).unwrap();
    }
}

#[test]
fn the_example_tells_the_tier_where_there_is_no_dirty_state() {
    let machine = Machine::new(without_httu(1));
    let (reported, told) = story(&machine, &machine, machine.smmu());
    assert_eq!(reported, Ok(2048));
    assert!(told.contains("by tier 'assume': the SMMU keeps no dirty state"), "{told}");
    quiet(&machine).unwrap();
}

#[test]
fn a_guest_gives_all_its_frames_back_and_its_log_goes_with_it() {
    for seed in 0..SEEDS {
        let mut parameters = parameters(seed);
        // Every other SMMU keeps the access flags of tables too.
        parameters.smmu.httu = 2 + (seed % 2) as u8;
        let machine = Machine::new(parameters);
        let smmu = bring_up(&machine, machine.smmu());
        // The first stream of each level-2 table takes a frame of the SMMU's own, for good.
        for stream in STREAMS {
            let mut first = guest(&machine);
            let device = first.attach(&smmu, stream, DmaTier::Hardware).unwrap();
            first.detach(device).unwrap();
            first.end().unwrap();
        }
        let free = machine.free_frames();
        let mut guest = guest(&machine);
        let devices = STREAMS.map(|stream| guest.attach(&smmu, stream, DmaTier::Hardware).unwrap());
        assert_eq!(guest.space().dma_views().count(), 1, "both devices share the view");
        guest.start(ram()).unwrap();
        for (stream, page) in STREAMS.into_iter().zip([3, 700]) {
            assert!(matches!(machine.dma(stream, RAM.offset(page * PAGE), true), Dma::Done(_)));
        }
        assert_eq!(synced(&guest), [3, 700]);
        assert_eq!(synced(&guest), []);
        // What a device wrote before it was taken away is reported still.
        assert!(matches!(machine.dma(STREAMS[1], RAM.offset(9 * PAGE), true), Dma::Done(_)));
        for device in devices {
            guest.detach(device).unwrap();
        }
        assert_eq!(guest.space().dma_views().count(), 0, "with its last device the view goes");
        assert_eq!(synced(&guest), [9]);
        assert_eq!(guest.end().unwrap(), 0);
        assert_eq!(machine.free_frames(), free);
        quiet(&machine).unwrap();
    }
}

#[test]
fn devices_of_a_view_with_a_second_tree_come_and_go_in_a_log_and_out_of_it() {
    for seed in 0..SEEDS {
        let mut parameters = parameters(seed);
        (parameters.smmu.bbml, parameters.pes.lse2) = (0, true);
        let machine = Machine::new(parameters);
        let smmu = bring_up(&machine, machine.smmu());
        let mut guest = guest(&machine).with_repeated_invalidation();
        // One comes before the log and goes in it, one comes in it and goes after it.
        let early = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
        guest.start(ram()).unwrap();
        let late = guest.attach(&smmu, STREAMS[1], DmaTier::Hardware).unwrap();
        assert!(matches!(machine.dma(STREAMS[1], RAM.offset(5 * PAGE), true), Dma::Done(_)));
        assert_eq!(synced(&guest), [5]);
        guest.detach(early).unwrap();
        guest.stop().unwrap();
        guest.detach(late).unwrap();
        guest.end().unwrap();
        quiet(&machine).unwrap();
    }
}

#[test]
fn a_guest_with_a_device_cannot_be_ended_and_comes_back_whole() {
    let machine = Machine::new(parameters(3));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    let refused = guest.end().unwrap_err();
    assert_eq!((refused.devices, refused.to_string()), (1, "1 devices are still attached".into()));
    let mut guest = refused.guest;
    assert!(matches!(machine.dma(STREAMS[0], RAM, true), Dma::Done(_)));
    guest.detach(device).unwrap();
    guest.end().unwrap();
    quiet(&machine).unwrap();
}

#[test]
fn a_stream_belongs_to_one_view_and_a_device_to_its_guest() {
    let machine = Machine::new(parameters(4));
    let smmu = bring_up(&machine, machine.smmu());
    let (mut guest, mut other) = (guest(&machine), guest_as(&machine, Vmid(2)));
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    let free = machine.free_frames();
    let busy = GuestError::Smmu(SmmuError::StreamBusy(STREAMS[0]));
    assert_eq!(other.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap_err(), busy);
    assert_eq!(machine.free_frames(), free, "the view that came for it has gone");
    let refused = other.detach(device).unwrap_err();
    assert_eq!(refused.error, GuestError::NotOurs(STREAMS[0]));
    guest.detach(refused.device).unwrap();
    guest.end().unwrap();
    other.end().unwrap();
    quiet(&machine).unwrap();
}

#[test]
fn tiers_that_a_guest_cannot_give_are_refused_by_name() {
    let machine = Machine::new(without_httu(5));
    let smmu = bring_up(&machine, machine.smmu());
    let mut keyless = guest(&machine);
    assert_eq!(keyless.best_tier(&smmu), DmaTier::Assume);
    for tier in [DmaTier::None, DmaTier::Stall] {
        assert_eq!(keyless.attach(&smmu, STREAMS[0], tier).unwrap_err(), GuestError::Tier(tier));
    }
    let error = keyless.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap_err();
    assert!(matches!(error, GuestError::Smmu(SmmuError::Stage2(_))), "{error}");
    let device = keyless.attach(&smmu, STREAMS[0], DmaTier::Digest).unwrap();
    assert_eq!(keyless.start(ram()).unwrap_err(), GuestError::Log(LogError::NoKey));
    keyless.detach(device).unwrap();
    let guest = guest(&machine).with_key(DigestKey([1, 2]), KeySource::Cpu);
    assert_eq!(guest.best_tier(&smmu), DmaTier::Digest);
}

#[test]
fn a_device_that_would_weaken_a_log_is_refused_while_it_is_on() {
    let machine = Machine::new(parameters(6));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    guest.start(ram()).unwrap();
    let weaker = GuestError::Attach(AttachError::Weaker(DmaTier::Assume));
    assert_eq!(guest.attach(&smmu, STREAMS[1], DmaTier::Assume).unwrap_err(), weaker);
    guest.stop().unwrap();
    guest.detach(device).unwrap();
    guest.end().unwrap();
    quiet(&machine).unwrap();
}

#[test]
fn a_device_is_not_detached_while_a_start_is_under_way() {
    let machine = Machine::new(parameters(7));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    guest.start_step(ram(), 0).unwrap();
    let refused = guest.detach(device).unwrap_err();
    assert_eq!(refused.error, GuestError::Attach(AttachError::Changing));
    guest.stop().unwrap();
    guest.detach(refused.device).unwrap();
    guest.end().unwrap();
    quiet(&machine).unwrap();
}

#[test]
fn a_device_that_a_silent_smmu_does_not_let_go_stays_with_its_guest() {
    let machine = Machine::new(parameters(13));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    machine.smmu().set_dead(true);
    let refused = guest.detach(device).unwrap_err();
    assert!(matches!(refused.error, GuestError::Smmu(SmmuError::Command(_))), "{refused}");
    let guest_back = guest.end().unwrap_err();
    assert_eq!(guest_back.devices, 1);
    let mut guest = guest_back.guest;
    machine.smmu().set_dead(false);
    // It catches up with what is in its queue.
    machine.run(1000);
    guest.detach(refused.device).unwrap();
    let quarantined = GuestError::Smmu(SmmuError::StreamQuarantined(STREAMS[0]));
    assert_eq!(guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap_err(), quarantined);
    guest.end().unwrap();
    quiet(&machine).unwrap();
}

#[test]
fn a_guest_says_at_its_end_how_many_frames_stay_out_of_use() {
    let machine = Machine::new(parameters(14));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    guest.start(ram()).unwrap();
    let free = machine.free_frames() + guest.space().dma_totals().1 as usize;
    machine.smmu().set_dead(true);
    assert_eq!(guest.stop(), Err(GuestError::Log(LogError::Untrusted)));
    // The SMMU was not seen to forget the four tables of pages; with them goes the frame in which they are listed.
    assert_eq!(guest.space().quarantined_frames(), 5);
    machine.smmu().set_dead(false);
    machine.run(1000);
    guest.detach(device).unwrap();
    let (held, root_and_log) = (machine.free_frames(), guest.space().cpu_view().tree.tables() as usize);
    assert_eq!(guest.end().unwrap(), 5);
    assert!(machine.free_frames() >= held + root_and_log && machine.free_frames() + 5 >= free);
    quiet(&machine).unwrap();
}

#[test]
fn memory_beyond_the_smmu_is_refused_before_a_device_could_reach_for_it() {
    let machine = Machine::new(parameters(8));
    let smmu = bring_up(&machine, Wrong::Narrow(machine.smmu()));
    let bits = 44;
    let range = IpaRange::new(RAM.offset(1 << 30), 2 << 20).unwrap();
    let far = Region { range, pa: Pa(1 << bits), reach: Reach::Ram };
    let beyond = GuestError::BeyondSmmu { end: Pa(far.pa.0 + (2 << 20)), bits };
    let mut guest = guest(&machine);
    let device = guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap();
    assert_eq!(guest.map(far), Err(beyond));
    guest.detach(device).unwrap();
    guest.map(far).unwrap();
    assert_eq!(guest.attach(&smmu, STREAMS[0], DmaTier::Hardware).unwrap_err(), beyond);
    assert_eq!(guest.unmap(range), Ok(()));
    assert_eq!(guest.unmap(range), Err(GuestError::Space(SpaceError::NoSuchRegion(range))));
}

/// Registers that all read as one value, take no write, or are of an SMMU with a small output size.
enum Wrong {
    Read(u32),
    WritesLost(SmmuPort),
    /// An SMMU's, whose output size is 44 bits (IDR5.OAS, IHI 0070 §6.3.6).
    Narrow(SmmuPort),
}

impl Registers for Wrong {
    fn read32(&self, register: Register32) -> u32 {
        match self {
            Self::Read(value) => *value,
            Self::Narrow(port) if register == Register32::Idr5 => port.read32(register) & !0b111 | 0b100,
            Self::WritesLost(port) | Self::Narrow(port) => port.read32(register),
        }
    }

    fn write32(&self, register: Register32, value: u32) {
        if let Self::Narrow(port) = self {
            port.write32(register, value);
        }
    }

    fn write64(&self, register: Register64, value: u64) {
        if let Self::Narrow(port) = self {
            port.write64(register, value);
        }
    }
}

#[test]
fn registers_that_are_no_smmus_are_refused_by_name() {
    let machine = Machine::new(parameters(9));
    let free = machine.free_frames();
    let refused = |wrong| Smmu::new(&machine, wrong, &options()).err();
    let ones = SmmuError::Unsupported(Unsupported::Version(u32::MAX));
    assert_eq!(refused(Wrong::Read(u32::MAX)), Some(ones));
    let zeros = SmmuError::Unsupported(Unsupported::Stage2(0));
    assert_eq!(refused(Wrong::Read(0)), Some(zeros));
    let lost = refused(Wrong::WritesLost(machine.smmu()));
    assert!(matches!(lost, Some(SmmuError::Register { register: Register32::Gbpa, .. })), "{lost:?}");
    assert_eq!(machine.free_frames(), free);
}

/// What an embedder's platform does wrongly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// Barriers do nothing.
    NoBarrier,
    /// Frames for queues and tables come from where the SMMU can't reach.
    FarFrames,
}

struct Mistaken<'m> {
    machine: &'m Machine,
    mistake: Mistake,
    given_back: Cell<u32>,
}

impl<'m> Mistaken<'m> {
    fn new(machine: &'m Machine, mistake: Mistake) -> Self {
        Self { machine, mistake, given_back: Cell::new(0) }
    }
}

impl Memory for Mistaken<'_> {
    type Word = ModelWord;

    fn words(&self, pa: Pa, count: usize) -> &[ModelWord] {
        self.machine.words(pa, count)
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        self.machine.fill(pa, count, value);
    }
}

impl Frames for Mistaken<'_> {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        match self.mistake {
            Mistake::FarFrames => FrameBlock::new(Pa(1 << 47), order).ok(),
            Mistake::NoBarrier => self.machine.alloc(order),
        }
    }

    fn free(&self, block: FrameBlock) {
        match self.mistake {
            Mistake::FarFrames => self.given_back.set(self.given_back.get() + 1),
            Mistake::NoBarrier => self.machine.free(block),
        }
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        self.machine.reserve(count)
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        self.machine.take(reserve)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.machine.unreserve(reserve);
    }

    fn free_frames(&self) -> usize {
        self.machine.free_frames()
    }
}

impl Cpu for Mistaken<'_> {
    fn barrier(&self, barrier: Barrier) {
        if self.mistake != Mistake::NoBarrier {
            self.machine.barrier(barrier);
        }
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        self.machine.tlbi(vttbr, op);
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        self.machine.clean_to_poc(pa, bytes);
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        self.machine.invalidate_from_poc(pa, bytes);
    }

    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout> {
        self.machine.hold(vttbr)
    }

    fn release(&self, vttbr: Vttbr) {
        self.machine.release(vttbr);
    }

    fn now_us(&self) -> u64 {
        self.machine.now_us()
    }

    fn relax(&self) {
        self.machine.relax();
    }
}

#[test]
fn frames_that_the_smmu_cannot_reach_are_given_back_and_named() {
    let machine = Machine::new(parameters(10));
    let far = Mistaken::new(&machine, Mistake::FarFrames);
    let refused = Smmu::new(&far, Wrong::Narrow(machine.smmu()), &options()).err();
    assert_eq!(refused, Some(SmmuError::FrameOutOfReach { pa: Pa(1 << 47), bits: 44 }));
    // The table's and both queues'.
    assert_eq!(far.given_back.get(), 3);
}

#[test]
fn a_barrier_that_does_nothing_passes_the_check_and_alarms_the_model() {
    let caught = (0..SEEDS).find_map(|seed| {
        let machine = Machine::new(parameters(seed));
        let platform = Mistaken::new(&machine, Mistake::NoBarrier);
        assert_eq!(check::platform(&platform), Ok(()), "software alone can't see it");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            story(&machine, &platform, machine.smmu())
        }));
        drop(result);
        quiet(&machine).err()
    });
    let account = caught.expect("not caught");
    println!("{}", account.lines().next().unwrap_or_default());
}

#[test]
fn a_stream_beyond_the_table_is_refused_and_leaves_no_view() {
    let machine = Machine::new(parameters(12));
    let smmu = bring_up(&machine, machine.smmu());
    let mut guest = guest(&machine);
    let beyond = StreamId(1 << 10);
    let error = guest.attach(&smmu, beyond, DmaTier::Hardware).unwrap_err();
    assert_eq!(error, GuestError::Smmu(SmmuError::StreamOutOfRange { stream: beyond, bits: 10 }));
    assert_eq!(guest.space().dma_views().count(), 0);
    guest.end().unwrap();
}
