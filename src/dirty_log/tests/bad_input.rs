//! Every operation of an address space and its log, right and wrong, in every phase: what is refused names the
//! offending value and changes nothing.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strandline_abi::LogStatus;

use super::*;
use crate::address_space::MAX_DMA_VIEWS;
use crate::dirty_log::{AttachError, Weakening};
use crate::vm;

/// The VM's RAM at first.
const RAM_BYTES: u64 = 6 * M;
const DOORBELL: u64 = 0x0809_0000;
const REGISTERS: u64 = 0x1000_0000;
/// The first address that the views' format does not translate.
const END: u64 = 1 << 36;

/// A call, or something that happens between calls.
#[derive(Clone, Debug)]
enum Op {
    Map(Region),
    Unmap(IpaRange),
    AddView(DmaTier),
    WriteFault(u64),
    MarkWritten(IpaRange),
    Start(IpaRange, Step),
    Stop(Step),
    Sync(IpaRange, u64, Flags),
    Clear(IpaRange, u64, Flags, u64),
    Attach(DmaTier, Weakening),
    Detach(usize),
    /// The next operation on the SMMU fails.
    SmmuFails,
    /// vCPUs can be stopped from now on, or can't.
    Hold(bool),
}

/// The step that a call of a stepped operation gives.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The one that was handed out.
    Right,
    Any(u64),
}

/// Whatever a call was refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Space(SpaceError),
    Log(LogError),
    Attach(AttachError),
}

impl From<SpaceError> for Refused {
    fn from(error: SpaceError) -> Self {
        Self::Space(error)
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<AttachError> for Refused {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Space(error) => Self::Space(error),
            other => Self::Attach(other),
        }
    }
}

impl Refused {
    /// Hardware failed in the middle: something was changed, and the documentation of the error says what.
    const fn is_of_hardware(self) -> bool {
        matches!(
            self,
            Self::Space(SpaceError::View(_))
                | Self::Attach(AttachError::View(_))
                | Self::Log(LogError::Abandoned(_) | LogError::Untrusted | LogError::NotHeld)
        )
    }
}

/// All there is: every word in use, frames, counters, and every field of the address space and its log.
#[derive(Debug, PartialEq)]
struct State {
    memory: (Vec<(Pa, Vec<u64>)>, usize),
    status: LogStatus,
    fields: String,
}

/// What an undone start brings back.
type Shape = (crate::stage2::LeafCounts, u64, (crate::stage2::LeafCounts, u64), usize);

struct Rig<'d> {
    fake: &'d Fake,
    tlb: &'d FakeTlb,
    space: AddressSpace<'d, FakeTlb>,
    log: DirtyLog,
    /// The step that was handed out last.
    step: u64,
    /// Before the start under way, as long as nothing else has changed it.
    unstarted: Option<Shape>,
    /// Some failure of hardware may have put frames out of use.
    hardware_failed: bool,
}

impl<'d> Rig<'d> {
    fn new(fake: &'d Fake, tlb: &'d FakeTlb, cpu_tier: CpuTier) -> Self {
        let mut space = space(fake, tlb, RAM_BYTES, DmaTier::Hardware);
        let registers = Region { range: range(REGISTERS, M), pa: Pa(REGISTERS), reach: Reach::CpuDevice };
        space.map(fake, registers).unwrap();
        let log = DirtyLog::new(cpu_tier);
        Self { fake, tlb, space, log, step: 0, unstarted: None, hardware_failed: false }
    }

    fn state(&self) -> State {
        State {
            memory: self.fake.contents(),
            status: vm::status(self.fake, &self.log, &self.space),
            fields: format!("{:?} {:?}", self.space, self.log),
        }
    }

    fn shape(&self) -> Shape {
        let cpu = &self.space.cpu_view().tree;
        (cpu.leaves(), cpu.tables(), self.space.dma_totals(), self.fake.free_frames())
    }

    fn walker(&self) -> DmaWalker<'d, FakeTlb> {
        DmaWalker { tlb: self.tlb, vmid: Vmid(7), coherent: true }
    }

    fn step(&self, step: Step) -> u64 {
        match step {
            Step::Right => self.step,
            Step::Any(step) => step,
        }
    }

    fn stepped(&mut self, progress: Result<Progress, LogError>) -> Result<(), Refused> {
        match progress {
            Ok(Progress::More(step)) => self.step = step,
            Ok(Progress::Done) => self.step = 0,
            // Refusals leave the step as it was, too.
            Err(LogError::Abandoned(_) | LogError::Untrusted) => self.step = 0,
            Err(_) => {}
        }
        Ok(progress.map(|_| ())?)
    }

    fn act(&mut self, op: &Op) -> Result<(), Refused> {
        let (fake, off) = (self.fake, self.log.state() == LogState::Off);
        match *op {
            Op::Map(region) => self.space.map(fake, region)?,
            Op::Unmap(range) => self.space.unmap(fake, range)?,
            Op::AddView(tier) => _ = self.space.add_dma_view(fake, self.walker(), tier)?,
            Op::WriteFault(ipa) => _ = self.space.write_fault(fake, Ipa(ipa)),
            Op::MarkWritten(range) => self.space.mark_written(fake, range),
            Op::Start(range, step) => {
                let shape = self.shape();
                let step = if off && matches!(step, Step::Right) { 0 } else { self.step(step) };
                let progress = self.log.start(fake, &mut self.space, range, step);
                if off && matches!(progress, Ok(_) | Err(LogError::Abandoned(_))) {
                    self.unstarted = Some(shape);
                }
                return self.stepped(progress);
            }
            Op::Stop(step) => {
                let stopping = self.log.state() == LogState::Stopping;
                let step = if stopping || !matches!(step, Step::Right) { self.step(step) } else { 0 };
                let progress = self.log.stop(fake, &mut self.space, step);
                if !stopping && progress == Err(LogError::NotHeld) {
                    self.step = 0;
                }
                return self.stepped(progress);
            }
            Op::Sync(range, done, flags) => {
                let part = self.log.step_of(range, done)?;
                self.log.sync(fake, &self.space, part, flags, |_, _| {})?;
            }
            Op::Clear(range, done, flags, mask) => {
                let part = self.log.step_of(range, done)?;
                self.log.clear(fake, &self.space, part, flags, |_| mask, |_, _| {})?;
            }
            Op::Attach(tier, weakening) => {
                let walker = self.walker();
                _ = self.log.attach_view(fake, &mut self.space, walker, tier, weakening)?;
            }
            Op::Detach(index) => _ = self.log.detach_view(fake, &mut self.space, index)?,
            Op::SmmuFails => self.tlb.failures.borrow_mut().push(DmaTlbError::Timeout),
            Op::Hold(can) => fake.hold_result.set(if can { Ok(()) } else { Err(HoldTimeout) }),
        }
        Ok(())
    }

    /// Does `op`, and holds what came of it against the promises.
    fn check(&mut self, op: &Op, met: &mut BTreeSet<(String, u8)>) {
        let (before, state) = (self.state(), self.log.state());
        let result = self.act(op);
        take_trace();
        let Err(error) = result else {
            if matches!(op, Op::Map(_) | Op::Unmap(_) | Op::AddView(_) | Op::Attach(..) | Op::Detach(_)) {
                self.unstarted = None;
            }
            return;
        };
        let kind = format!("{op:?}");
        met.insert((kind[..kind.find(['(', ' ']).unwrap_or(kind.len())].to_owned(), state.code()));
        if !error.is_of_hardware() {
            assert!(self.state() == before, "{op:?} changed something before it failed by {error:?}");
            assert!(self.justified(op, error), "{op:?} failed by {error:?} while {state}");
            return;
        }
        match error {
            Refused::Log(LogError::Abandoned(_)) => {
                assert_eq!(self.log.state(), LogState::Off);
                if let Some(unstarted) = self.unstarted.filter(|_| !self.hardware_failed) {
                    // The SMMU failed once, and answers again: everything was undone.
                    assert_eq!(self.shape(), unstarted, "{op:?}");
                }
            }
            Refused::Log(LogError::Untrusted)
                if state == LogState::Untrusted && !matches!(op, Op::Stop(_)) =>
            {
                assert!(self.state() == before, "{op:?} of an untrusted log changed something");
            }
            // A stop, of a log or of a start that is undone, goes on later.
            Refused::Log(LogError::NotHeld) => assert_eq!(self.log.state(), LogState::Stopping),
            Refused::Log(LogError::Untrusted) => {
                let after = if matches!(op, Op::Sync(..) | Op::Clear(..)) {
                    LogState::Untrusted
                } else {
                    LogState::Off
                };
                assert_eq!(self.log.state(), after, "{op:?}");
                self.hardware_failed = true;
            }
            _ => self.hardware_failed = true,
        }
    }

    /// Whether `error` names what was wrong with `op`; nothing has been changed since.
    fn justified(&self, op: &Op, error: Refused) -> bool {
        let changing = matches!(self.log.state(), LogState::Starting | LogState::Stopping);
        match error {
            Refused::Space(error) => self.space_error_is_right(op, error),
            Refused::Log(error) => match (error, op) {
                (LogError::NotOn, _) => self.log.state() == LogState::Off,
                (LogError::AlreadyOn, Op::Start(..)) => {
                    matches!(self.log.state(), LogState::On | LogState::Untrusted)
                }
                (LogError::Changing, _) => changing,
                (LogError::OutOfStep(next), Op::Start(_, step) | Op::Stop(step)) => {
                    next == if changing { self.step } else { 0 } && self.step(*step) != next
                        || self.log.state() == LogState::Starting && matches!(op, Op::Stop(_)) && next == 0
                }
                (LogError::OutOfStep(0), Op::Sync(range, done, _) | Op::Clear(range, done, ..)) => {
                    *done >= range.pages() || done % super::super::STEP_PAGES != 0
                }
                (LogError::OutsideRam(ipa), Op::Start(range, _)) => {
                    range.contains(ipa) && self.space.first_outside_ram(*range) == Some(ipa)
                }
                (LogError::OutsideLog(ipa), Op::Sync(range, ..) | Op::Clear(range, ..)) => {
                    range.contains(ipa) && !self.log.range().is_some_and(|logged| logged.contains(ipa))
                }
                (LogError::NoCpuTier, Op::Start(..)) => self.log.tiers(&self.space).cpu == CpuTier::None,
                (LogError::NoDmaTier(tier), Op::Start(..)) => {
                    self.space.dma_views().any(|v| v.tier == tier) && tier == DmaTier::None
                }
                // This log has none.
                (LogError::NoKey, Op::Start(..)) => self.space.has_digest_views(),
                (LogError::OutOfFrames(lack), Op::Start(..)) => {
                    lack.needed > lack.free && lack.free == self.fake.free_frames()
                }
                _ => false,
            },
            Refused::Attach(error) => match (error, op) {
                (AttachError::Changing, _) => changing,
                (AttachError::Weaker(weaker), Op::Attach(tier, Weakening::Refused)) => {
                    weaker == *tier && tier.code() > self.space.dma_tier().code()
                }
                (AttachError::NoTier(none), Op::Attach(tier, _)) => none == *tier && *tier == DmaTier::None,
                (AttachError::NoKey, Op::Attach(tier, _)) => *tier == DmaTier::Digest,
                (AttachError::NoSuchView(none), Op::Detach(index)) => {
                    none == *index && self.space.dma.get(none).is_none_or(Option::is_none)
                }
                _ => false,
            },
        }
    }

    fn space_error_is_right(&self, op: &Op, error: SpaceError) -> bool {
        match (error, op) {
            (SpaceError::Map(MapError::AlreadyMapped(ipa)), Op::Map(region)) => {
                let mut dma = self.space.dma_views();
                region.range.contains(ipa)
                    && (self.space.cpu.tree.query(self.fake, ipa).is_some()
                        || dma.any(|v| v.view.tree.query(self.fake, ipa).is_some()))
            }
            (SpaceError::Map(MapError::OutOfFormat(range)), Op::Map(region)) => {
                range == region.range && range.end().0 > END
            }
            (SpaceError::Map(MapError::BadPa(pa)), Op::Map(region)) => {
                let end = u128::from(pa.0) + u128::from(region.range.bytes());
                pa == region.pa && (!pa.is_aligned(4096) || end > 1 << 48)
            }
            (SpaceError::Map(MapError::OutOfFrames(lack)), Op::Map(_) | Op::AddView(_) | Op::Attach(..)) => {
                // A view's root has been taken when its mappings are counted.
                lack.needed > lack.free && lack.free <= self.fake.free_frames()
            }
            (SpaceError::TooManyViews, Op::AddView(_) | Op::Attach(..)) => {
                self.space.dma.iter().all(Option::is_some)
            }
            (SpaceError::Logged(logged), Op::AddView(_)) => self.log.range() == Some(logged),
            (SpaceError::Changing(changing), Op::AddView(_)) => self.log.range() == Some(changing),
            (SpaceError::NoSuchRegion(none), Op::Unmap(range)) => none == *range,
            (SpaceError::Changing(logged), Op::Map(Region { range, .. }) | Op::Unmap(range)) => {
                logged == *range && self.log.range().is_some_and(|log| log.overlaps(logged))
            }
            _ => false,
        }
    }

    /// Ends everything; what hardware never failed on leaves no frame in use.
    fn end(mut self, frames: usize) {
        self.tlb.failures.borrow_mut().clear();
        self.fake.hold_result.set(Ok(()));
        if self.log.state() != LogState::Off {
            stop(&mut self.log, self.fake, &mut self.space);
        }
        self.log.dismantle(self.fake);
        self.space.free(self.fake);
        assert_eq!(self.fake.contents().1, 0, "frames stay reserved");
        if !self.hardware_failed {
            assert_eq!(self.fake.free_frames(), frames, "frames stay in use");
        }
    }
}

fn a_range() -> impl Strategy<Value = IpaRange> {
    let start = prop_oneof![
        6 => (0..RAM_BYTES / 4096 + 8).prop_map(|page| RAM + page * 4096),
        6 => (0..=RAM_BYTES / M).prop_map(|mib| RAM + mib * M),
        1 => Just(RAM - 0x1000),
        2 => Just(DOORBELL),
        2 => Just(REGISTERS),
        1 => Just(0),
        2 => (1_u64..4).prop_map(|page| END - page * 4096),
        1 => Just(END),
        1 => (1_u64..4).prop_map(|page| 0u64.wrapping_sub(page * 4096)),
        1 => any::<u64>().prop_map(|any| any & !0xfff),
    ];
    let bytes = prop_oneof![
        4 => Just(0x1000),
        4 => (1_u64..1100).prop_map(|pages| pages * 4096),
        8 => prop_oneof![Just(M), Just(2 * M), Just(4 * M), Just(RAM_BYTES)],
        1 => prop_oneof![Just(G), Just(END), Just(1 << 48), Just(!0xfff)],
        1 => any::<u64>().prop_map(|any| any & !0xfff),
    ];
    let any =
        (start, bytes).prop_filter_map("no range", |(start, bytes)| IpaRange::new(Ipa(start), bytes).ok());
    prop_oneof![
        6 => any,
        4 => Just(range(RAM, RAM_BYTES)),
        1 => Just(range(DOORBELL, 0x1000)),
        1 => Just(range(REGISTERS, M)),
    ]
}

fn a_region() -> impl Strategy<Value = Region> {
    let pa = prop_oneof![
        4 => Just(0x9000_0000),
        2 => Just(0x9000_1000),
        1 => Just(0x9000_0008),
        1 => Just((1 << 48) - 0x2000),
        1 => Just(0u64.wrapping_sub(0x1000)),
        1 => any::<u64>(),
    ];
    let reach = prop_oneof![Just(Reach::Ram), Just(Reach::CpuDevice), Just(Reach::DmaDoorbell)];
    (a_range(), pa, reach).prop_map(|(range, pa, reach)| Region { range, pa: Pa(pa), reach })
}

fn a_tier() -> impl Strategy<Value = DmaTier> {
    proptest::sample::select(DmaTier::ALL)
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => Just(Step::Right), 1 => (0_u64..4).prop_map(Step::Any), 1 => any::<u64>().prop_map(Step::Any)]
}

/// The page from which a sync or clear goes on.
fn a_page() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 1 => Just(64), 1 => Just(super::super::STEP_PAGES), 1 => any::<u64>()]
}

fn some_flags() -> impl Strategy<Value = Flags> {
    proptest::sample::select(vec![CPU, DMA, Flags::BOTH, clearing(CPU), clearing(DMA), clearing(Flags::BOTH)])
}

fn an_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..RAM_BYTES + 0x2000).prop_map(|offset| RAM + offset),
        1 => Just(REGISTERS + 4),
        1 => Just(END - 1),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

fn an_op() -> impl Strategy<Value = Op> {
    let weakening = prop_oneof![Just(Weakening::Refused), Just(Weakening::Accepted)];
    prop_oneof![
        3 => a_region().prop_map(Op::Map),
        3 => a_range().prop_map(Op::Unmap),
        2 => a_tier().prop_map(Op::AddView),
        2 => an_address().prop_map(Op::WriteFault),
        1 => a_range().prop_map(Op::MarkWritten),
        8 => (a_range(), a_step()).prop_map(|(range, step)| Op::Start(range, step)),
        4 => (Just(range(RAM, RAM_BYTES)), a_step()).prop_map(|(range, step)| Op::Start(range, step)),
        2 => a_step().prop_map(Op::Stop),
        3 => (a_range(), a_page(), some_flags()).prop_map(|(r, done, flags)| Op::Sync(r, done, flags)),
        2 => (a_range(), a_page(), some_flags(), any::<u64>())
            .prop_map(|(r, done, flags, mask)| Op::Clear(r, done, flags, mask)),
        3 => (a_tier(), weakening).prop_map(|(tier, weakening)| Op::Attach(tier, weakening)),
        2 => prop_oneof![3 => 0..=MAX_DMA_VIEWS, 1 => any::<usize>()].prop_map(Op::Detach),
        2 => Just(Op::SmmuFails),
        1 => proptest::bool::weighted(0.7).prop_map(Op::Hold),
    ]
}

#[test]
#[cfg_attr(miri, ignore = "thousands of calls, and all memory compared after each, take Miri too long")]
fn what_is_refused_names_the_offending_value_and_changes_nothing() {
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    // Always the same cases, so that what they meet can be asserted.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cpu_tier =
        prop_oneof![8 => Just(CpuTier::Hardware), 4 => Just(CpuTier::Faults), 1 => Just(CpuTier::None)];
    let input = (24_usize..64, cpu_tier, vec(an_op(), 60));
    let met = std::cell::RefCell::new(BTreeSet::new());
    runner
        .run(&input, |(frames, cpu_tier, ops)| {
            let (fake, tlb) = (Fake::new(frames), FakeTlb::default());
            let mut rig = Rig::new(&fake, &tlb, cpu_tier);
            // What devices reach is held against their views: without one there is nothing that could refuse it.
            let unseen = |rig: &Rig<'_>, op: &Op| {
                matches!(op, Op::Map(Region { reach, .. }) if *reach != Reach::CpuDevice)
                    && rig.space.dma_views().next().is_none()
            };
            for op in &ops {
                if unseen(&rig, op) {
                    continue;
                }
                rig.check(op, &mut met.borrow_mut());
            }
            rig.end(frames);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    met_in_every_phase(&met.into_inner());
}

/// Each operation was refused in each phase in which something can be wrong with it.
fn met_in_every_phase(met: &BTreeSet<(String, u8)>) {
    let ops = ["Map", "Unmap", "AddView", "Start", "Stop", "Sync", "Clear", "Attach", "Detach"];
    let all = ops.iter().flat_map(|op| LogState::ALL.iter().map(move |state| (op, state)));
    let missing: Vec<_> =
        all.filter(|(op, state)| !met.contains(&((**op).to_owned(), state.code()))).collect();
    assert!(missing.is_empty(), "never refused: {missing:?}");
}
