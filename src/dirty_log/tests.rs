//! The log on fake memory: its states, its promises, and the order in which it asks hardware.

mod adaptive;
mod attach;
mod bad_input;
mod digest;
mod reading;
mod second_tree;
mod sizes;
mod stall;
mod steps;
mod table_flags;

use strandline_abi::{CpuTier, DmaTier, Flags, LogState};

use crate::addr::{Ipa, IpaRange, Pa, Vmid};
use crate::address_space::{AddressSpace, Reach, Region, SpaceError};
use crate::dirty_log::{DirtyLog, LogError, Progress, Request, Synced, WriteFault};
use crate::fake::{Event, Fake, FakeTlb, take_trace};
use crate::frames::Frames;
use crate::hw::{Barrier, DmaTlb, DmaTlbError, HoldTimeout, Tlbi, Vttbr};
use crate::stage2::descriptor::S2AP_WRITE;
use crate::stage2::{DmaWalker, Format, MapError, ViewError};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const RAM: u64 = 0x4000_0000;
const INVALIDATED: Event = Event::Mark("S12_VMALL + CMD_SYNC");

fn range(start: u64, bytes: u64) -> IpaRange {
    IpaRange::new(Ipa(start), bytes).unwrap()
}

fn space<'d>(fake: &Fake, tlb: &'d FakeTlb, bytes: u64, tier: DmaTier) -> AddressSpace<'d, FakeTlb> {
    let mut space = AddressSpace::new(fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    space.add_dma_view(fake, DmaWalker { tlb, vmid: Vmid(2), coherent: true }, tier).unwrap();
    let region = Region { range: range(RAM, bytes), pa: Pa(0x8000_0000), reach: Reach::Ram };
    space.map(fake, region).unwrap();
    let doorbell =
        Region { range: range(0x0809_0000, 0x1000), pa: Pa(0x0809_0000), reach: Reach::DmaDoorbell };
    space.map(fake, doorbell).unwrap();
    space
}

fn start(
    log: &mut DirtyLog,
    fake: &Fake,
    space: &mut AddressSpace<'_, FakeTlb>,
    request: impl Into<Request> + Copy,
) -> u64 {
    let (mut step, mut steps) = (0, 1);
    while let Progress::More(next) = log.start(fake, space, request, step).unwrap() {
        (step, steps) = (next, steps + 1);
    }
    steps
}

/// Calls start until it has ended, and says how.
fn ends(
    log: &mut DirtyLog,
    fake: &Fake,
    space: &mut AddressSpace<'_, FakeTlb>,
    range: IpaRange,
) -> Result<Progress, LogError> {
    ends_from(log, fake, space, range, 0)
}

/// [`ends`], `step` being the next.
fn ends_from(
    log: &mut DirtyLog,
    fake: &Fake,
    space: &mut AddressSpace<'_, FakeTlb>,
    range: IpaRange,
    mut step: u64,
) -> Result<Progress, LogError> {
    loop {
        match log.start(fake, space, range, step) {
            Ok(Progress::More(next)) => step = next,
            ended => return ended,
        }
    }
}

fn stop(log: &mut DirtyLog, fake: &Fake, space: &mut AddressSpace<'_, FakeTlb>) {
    let mut step = 0;
    while let Progress::More(next) = log.stop(fake, space, step).unwrap() {
        step = next;
    }
}

fn started(fake: &Fake, space: &mut AddressSpace<'_, FakeTlb>, range: IpaRange) -> DirtyLog {
    let mut log = DirtyLog::new(CpuTier::Hardware);
    start(&mut log, fake, space, range);
    take_trace();
    log
}

/// Reads the whole of `range` by steps, each by `step`, and gives back the indices of the pages reported.
fn by_steps(
    log: &mut DirtyLog,
    range: IpaRange,
    mut step: impl FnMut(&mut DirtyLog, IpaRange, &mut dyn FnMut(u64, u64)) -> Result<Synced, LogError>,
) -> Result<Vec<u64>, LogError> {
    let (mut pages, mut done) = (vec![], 0);
    while done < range.pages() {
        let part = log.step_of(range, done)?;
        step(log, part, &mut |word, bits| {
            pages.extend((0..64).filter(|b| bits >> b & 1 == 1).map(|b| done + word * 64 + b));
        })?;
        done += part.pages();
    }
    Ok(pages)
}

/// Reads the whole of `range` and gives back the indices of the pages reported.
fn sync(
    log: &mut DirtyLog,
    fake: &Fake,
    space: &AddressSpace<'_, FakeTlb>,
    range: IpaRange,
    flags: Flags,
) -> Result<Vec<u64>, LogError> {
    by_steps(log, range, |log, part, deliver| log.sync(fake, space, part, flags, deliver))
}

/// A vCPU writes the page at `ipa`: hardware sets the dirty bit.
fn cpu_writes(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, ipa: u64) {
    fake.or_behind(space.cpu.tree.walk(fake, Ipa(ipa)).0.pa, S2AP_WRITE);
}

/// A device writes the page at `ipa` through an SMMU with HTTU.
fn device_writes(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, ipa: u64) {
    let view = space.dma_views().next().unwrap();
    fake.or_behind(view.view.tree.walk(fake, Ipa(ipa)).0.pa, S2AP_WRITE);
}

const CPU: Flags = Flags::CPU;
const DMA: Flags = Flags::DMA;

fn clearing(flags: Flags) -> Flags {
    flags.with(Flags::CLEAR)
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn start_invalidates_a_dma_view_exactly_once_whatever_the_range_and_the_tier() {
    for tier in [DmaTier::Hardware, DmaTier::Assume] {
        for bytes in [2 * M, 64 * M, G] {
            let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
            let mut space = space(&fake, &tlb, G, tier);
            let mut log = DirtyLog::new(CpuTier::Hardware);
            take_trace();
            start(&mut log, &fake, &mut space, range(RAM, bytes));
            let trace = take_trace();
            assert_eq!(trace.iter().filter(|e| **e == INVALIDATED).count(), 1, "{tier} {bytes:#x}");
            assert_eq!(trace.last(), Some(&INVALIDATED), "the log is on when it has completed");
            assert_eq!((log.state(), log.range()), (LogState::On, Some(range(RAM, bytes))));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn start_and_stop_bring_back_the_blocks_and_every_frame() {
    for bytes in [2 * M, 6 * M, G] {
        let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
        let mut space = space(&fake, &tlb, G, DmaTier::Assume);
        let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
        let mut log = started(&fake, &mut space, range(RAM, bytes));
        assert_eq!(log.statistics().blocks_split, 2);
        assert_eq!(space.cpu_view().tree.leaves().pages_4k, bytes / 4096);
        stop(&mut log, &fake, &mut space);
        assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
        assert_eq!((log.state(), log.statistics().blocks_merged), (LogState::Off, 2));
    }
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn stop_invalidates_a_dma_view_exactly_once_and_frees_its_tables_after_that() {
    let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, G));
    stop(&mut log, &fake, &mut space);
    let trace = take_trace();
    assert_eq!(trace.iter().filter(|e| **e == INVALIDATED).count(), 1);
    let invalidated = trace.iter().position(|e| *e == INVALIDATED).unwrap();
    let frees_after = trace[invalidated..].iter().filter(|e| matches!(e, Event::Free(_))).count();
    assert!(frees_after > 513, "the DMA view's tables, the list and the bitmaps: {frees_after}");
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_start_that_lacks_frames_says_how_many_it_needs_and_changes_nothing() {
    let (fake, tlb) = (Fake::new(1000), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Assume);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let mut log = DirtyLog::new(CpuTier::Hardware);
    take_trace();
    let lack = log.start(&fake, &mut space, range(RAM, G), 0).unwrap_err();
    // Two views of 513 tables and one frame for the list of a stop; two bitmaps of 32 KiB.
    assert!(matches!(lack, LogError::OutOfFrames(lack) if lack.needed == 2 * (513 + 1) + 2 * 8), "{lack}");
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
    assert_eq!((take_trace(), log.state()), (vec![], LogState::Off));
    // What fits is still possible.
    start(&mut log, &fake, &mut space, range(RAM, 2 * M));
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn the_memory_of_a_log_is_its_formula() {
    for (bytes, blocks) in [(2 * M, 1), (512 * M, 1), (G, 1)] {
        let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
        let mut space = space(&fake, &tlb, G, DmaTier::Assume);
        let free = fake.free_frames();
        let log = started(&fake, &mut space, range(RAM, bytes));
        let pages = bytes / 4096;
        let tables = blocks + bytes / (2 * M);
        let bitmap = pages.div_ceil(8 * 4096).next_power_of_two();
        let list = (blocks + 1).div_ceil(511);
        assert_eq!((free - fake.free_frames()) as u64, 2 * (tables + bitmap + list), "{bytes:#x}");
        assert_eq!(log.state(), LogState::On);
    }
}

#[test]
fn what_is_out_of_turn_is_refused_and_changes_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let all = range(RAM, 8 * M);
    assert_eq!(log.stop(&fake, &mut space, 0), Err(LogError::NotOn));
    assert_eq!(log.step_of(all, 0), Err(LogError::NotOn));
    assert_eq!(log.start(&fake, &mut space, all, 7), Err(LogError::OutOfStep(0)));
    assert_eq!(
        log.start(&fake, &mut space, range(RAM + 4 * M, 8 * M), 0),
        Err(LogError::OutsideRam(Ipa(RAM + 8 * M)))
    );
    assert_eq!(
        log.start(&fake, &mut space, range(0x0809_0000, 0x1000), 0),
        Err(LogError::OutsideRam(Ipa(0x0809_0000)))
    );

    let Progress::More(step) = log.start(&fake, &mut space, all, 0).unwrap() else {
        panic!("it has more than one step")
    };
    assert_eq!(log.state(), LogState::Starting);
    assert_eq!(log.start(&fake, &mut space, all, 0), Err(LogError::Changing));
    assert_eq!(log.start(&fake, &mut space, range(RAM, 2 * M), step), Err(LogError::Changing));
    assert_eq!(log.start(&fake, &mut space, all, step + 1), Err(LogError::OutOfStep(step)));
    assert_eq!(log.step_of(all, 0), Err(LogError::Changing));
    let mut step = step;
    while let Progress::More(next) = log.start(&fake, &mut space, all, step).unwrap() {
        step = next;
    }
    assert_eq!(log.start(&fake, &mut space, all, 0), Err(LogError::AlreadyOn));
    assert_eq!(log.stop(&fake, &mut space, 9), Err(LogError::OutOfStep(0)));
    assert_eq!(log.step_of(range(RAM + 4 * M, 8 * M), 0), Err(LogError::OutsideLog(Ipa(RAM + 8 * M))));
    assert_eq!(log.step_of(range(RAM - M, 2 * M), 0), Err(LogError::OutsideLog(Ipa(RAM - M))));
    assert_eq!(log.step_of(all, 64), Err(LogError::OutOfStep(0)));
}

#[test]
fn a_cpu_without_dirty_state_is_refused() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let mut log = DirtyLog::new(CpuTier::None);
    assert_eq!(log.start(&fake, &mut space, range(RAM, 8 * M), 0), Err(LogError::NoCpuTier));
}

#[test]
fn tables_whose_invalidation_failed_are_never_given_back() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let before = fake.free_frames();
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let mut step = 0;
    let error = loop {
        match log.stop(&fake, &mut space, step) {
            Ok(Progress::More(next)) => step = next,
            other => break other,
        }
    };
    assert_eq!((error, log.state()), (Err(LogError::Untrusted), LogState::Off));
    // The 4 tables of the DMA view, and the frame that lists them.
    assert_eq!(before - fake.free_frames(), 5);
}

#[test]
fn memory_mapped_while_a_log_is_on_enters_it_by_pages_and_dirty() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let hole = range(RAM, 8 * M);
    space.unmap(&fake, hole).unwrap();
    space.map(&fake, Region { range: hole, pa: Pa(0x8000_0000), reach: Reach::Ram }).unwrap();
    let mut log = started(&fake, &mut space, hole);
    space.unmap(&fake, hole).unwrap();
    space.map(&fake, Region { range: hole, pa: Pa(0xc000_0000), reach: Reach::Ram }).unwrap();
    assert_eq!(space.cpu_view().tree.leaves().pages_4k, 2048);
    assert_eq!(sync(&mut log, &fake, &space, hole, clearing(CPU)).unwrap().len(), 2048);
    assert_eq!(sync(&mut log, &fake, &space, hole, clearing(CPU)).unwrap(), []);
}

#[test]
fn a_page_unmapped_while_a_log_is_on_stays_in_it_until_it_is_reported() {
    for (tier, by_devices) in [(DmaTier::Hardware, vec![5, 2047]), (DmaTier::Assume, (0..2048).collect())] {
        let (fake, tlb) = (Fake::new(128), FakeTlb::default());
        let mut space = space(&fake, &tlb, 8 * M, tier);
        let all = range(RAM, 8 * M);
        let mut log = started(&fake, &mut space, all);
        cpu_writes(&fake, &space, RAM + 3 * 4096);
        device_writes(&fake, &space, RAM + 5 * 4096);
        device_writes(&fake, &space, RAM + 2047 * 4096);
        space.unmap(&fake, all).unwrap();
        assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap(), [3]);
        assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), by_devices, "{tier}");
        assert_eq!(sync(&mut log, &fake, &space, all, Flags::BOTH).unwrap(), [], "{tier}: once");
    }
}

#[test]
fn logged_memory_is_unmapped_through_its_log_alone_and_not_while_that_changes() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    assert!(matches!(log.start(&fake, &mut space, range(RAM, 2 * M), 0), Ok(Progress::More(1))));
    let leaves = space.cpu_view().tree.leaves();
    assert_eq!(space.unmap(&fake, all), Err(SpaceError::Changing(all)));
    assert_eq!(space.unmap(&fake, all), Err(SpaceError::Changing(all)));
    assert_eq!(space.cpu_view().tree.leaves(), leaves);
    stop(&mut log, &fake, &mut space);
    assert_eq!(space.unmap(&fake, all), Ok(()));
}

#[test]
fn an_unmapping_that_cannot_be_made_changes_nothing() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let ram = range(RAM, 8 * M);
    // Against the rules, behind the address space's back: one of the CPU view's blocks is gone.
    fake.write_behind(space.cpu.tree.walk(&fake, Ipa(RAM + 4 * M)).0.pa, 0);
    let leaves = space.dma_totals();
    let refused = Err(SpaceError::Map(MapError::NotMapped(Ipa(RAM + 4 * M))));
    assert_eq!((space.unmap(&fake, ram), space.dma_totals()), (refused, leaves));
    assert_eq!(space.first_outside_ram(ram), None);
}

#[test]
fn where_a_dma_view_cannot_be_invalidated_the_other_views_are_unmapped_all_the_same() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let failed = Err(SpaceError::View(ViewError::Dma(DmaTlbError::Timeout)));
    assert_eq!(space.unmap(&fake, range(RAM, 8 * M)), failed);
    assert_eq!(space.cpu_view().tree.query(&fake, Ipa(RAM)), None);
    assert_eq!(space.first_outside_ram(range(RAM, 8 * M)), Some(Ipa(RAM)));
}

#[test]
fn a_stop_merges_no_two_mappings_into_one_block() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let halves = [range(RAM + 8 * M, M), range(RAM + 9 * M, M)];
    for (half, pa) in halves.into_iter().zip([0x8080_0000, 0x8090_0000]) {
        space.map(&fake, Region { range: half, pa: Pa(pa), reach: Reach::Ram }).unwrap();
    }
    let before = space.cpu_view().tree.leaves();
    let mut log = started(&fake, &mut space, range(RAM, 10 * M));
    stop(&mut log, &fake, &mut space);
    assert_eq!(space.cpu_view().tree.leaves(), before);
    assert_eq!(halves.map(|half| space.unmap(&fake, half)), [Ok(()), Ok(())]);
}

#[test]
fn an_unmapping_invalidates_dma_views_first_and_the_cpu_view_last() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    take_trace();
    space.unmap(&fake, range(RAM, 8 * M)).unwrap();
    let order: Vec<_> =
        take_trace().into_iter().filter(|e| *e == INVALIDATED || matches!(e, Event::Tlbi(..))).collect();
    assert!(matches!(order[..], [INVALIDATED, Event::Tlbi(..)]), "{order:?}");
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_vm_that_ends_gives_every_frame_back_whatever_its_log_was_doing() {
    for steps in [0, 1, 3, 100] {
        let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
        let mut space = space(&fake, &tlb, G, DmaTier::Hardware);
        let mut log = DirtyLog::new(CpuTier::Hardware);
        let mut step = 0;
        for _ in 0..steps {
            match log.start(&fake, &mut space, range(RAM, G), step).unwrap() {
                Progress::More(next) => step = next,
                Progress::Done => break,
            }
        }
        log.dismantle(&fake);
        space.free(&fake);
        assert_eq!(fake.free_frames(), 1200, "after {steps} steps");
    }
}

#[test]
fn stop_makes_every_view_whole_in_the_order_its_walker_needs() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 2 * M, DmaTier::Hardware);
    let slots = |space: &AddressSpace<'_, FakeTlb>| {
        let dma = space.dma_views().next().unwrap();
        [&space.cpu.tree, &dma.view.tree].map(|t| t.walk(&fake, Ipa(RAM)).0.pa)
    };
    let [cpu, dma] = slots(&space);
    let mut log = started(&fake, &mut space, range(RAM, 2 * M));
    let (tables, block) = ([cpu, dma].map(|pa| fake.read(pa)), 0x0008_0000_8000_07fd);
    take_trace();
    stop(&mut log, &fake, &mut space);
    // EL2's own memory (the lists of unlinked tables, the bitmaps) is nobody's business.
    let ours = |e: &Event| match e {
        Event::Store(pa, _) => *pa == cpu,
        Event::Free(pa) => tables.iter().any(|t| pa.0 == t & !0xfff),
        _ => true,
    };
    let vttbr = Vttbr { vmid: Vmid(1), root: space.cpu.tree.root() };
    let [cpu_table, dma_table] = tables.map(|t| Event::Free(Pa(t & !0xfff)));
    // Behind the DMA view's table only lists and bitmaps are freed.
    let seen: Vec<_> = take_trace().into_iter().filter(ours).take(13).collect();
    assert_eq!(
        seen,
        [
            Event::Hold,
            Event::Swap(cpu, tables[0], 0),
            Event::Barrier(Barrier::DsbIshst),
            Event::Tlbi(vttbr, Tlbi::VmallS12E1Is),
            Event::Barrier(Barrier::DsbIsh),
            Event::Store(cpu, block),
            Event::Barrier(Barrier::DsbIsh),
            Event::Release,
            cpu_table,
            Event::Barrier(Barrier::DsbSt),
            Event::Swap(dma, tables[1], block),
            INVALIDATED,
            dma_table,
        ]
    );
}

#[test]
fn a_view_whose_writes_are_known_in_no_way_is_refused() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::None);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let refused = log.start(&fake, &mut space, range(RAM, 8 * M), 0);
    assert_eq!((refused, log.state()), (Err(LogError::NoDmaTier(DmaTier::None)), LogState::Off));
}

#[test]
fn nothing_is_mapped_in_a_range_whose_log_is_being_started() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let (all, region) =
        (range(RAM, 8 * M), Region { range: range(RAM, M), pa: Pa(0x9000_0000), reach: Reach::Ram });
    let mut log = DirtyLog::new(CpuTier::Hardware);
    log.start(&fake, &mut space, all, 0).unwrap();
    assert_eq!(space.map(&fake, region), Err(SpaceError::Changing(region.range)));
    assert_eq!(space.unmap(&fake, all), Err(SpaceError::Changing(all)));
}

#[test]
fn what_no_view_could_take_is_refused_before_there_is_a_view() {
    let fake = Fake::new(64);
    let mut space = AddressSpace::<FakeTlb>::new(&fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    let region = |start, bytes, pa, reach| Region { range: range(start, bytes), pa: Pa(pa), reach };
    let ram = region(RAM, 8 * M, 0x8000_0000, Reach::Ram);
    space.map(&fake, ram).unwrap();
    let free = fake.free_frames();
    let refused = |space: &mut AddressSpace<'_, FakeTlb>, region| match space.map(&fake, region) {
        Err(SpaceError::Map(error)) => error,
        other => panic!("{other:?}"),
    };
    let doorbell = |start, pa| region(start, 0x1000, pa, Reach::DmaDoorbell);
    let taken = MapError::AlreadyMapped(Ipa(RAM + M));
    assert_eq!(refused(&mut space, doorbell(RAM + M, 0x0809_0000)), taken);
    let beyond = doorbell(1 << 36, 0x0809_0000);
    assert_eq!(refused(&mut space, beyond), MapError::OutOfFormat(beyond.range));
    assert_eq!(refused(&mut space, doorbell(0x0809_0000, 0x0809_0010)), MapError::BadPa(Pa(0x0809_0010)));
    space.map(&fake, doorbell(0x0809_0000, 0x0809_0000)).unwrap();
    let same = MapError::AlreadyMapped(Ipa(0x0809_0000));
    assert_eq!(refused(&mut space, doorbell(0x0809_0000, 0x0809_0000)), same);
    assert_eq!(refused(&mut space, region(0x0800_0000, 2 * M, 0x9000_0000, Reach::Ram)), same);
    // A device's registers and a doorbell never meet.
    space.map(&fake, region(0x0809_0000, 0x1000, 0x0809_0000, Reach::CpuDevice)).unwrap();
    assert!(fake.free_frames() < free);
    let tlb = FakeTlb::default();
    let walker = DmaWalker { tlb: &tlb, vmid: Vmid(2), coherent: true };
    assert_eq!(space.add_dma_view(&fake, walker, DmaTier::Assume), Ok(0));
}

#[test]
fn no_view_comes_past_a_log() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let (mut log, all) = (DirtyLog::new(CpuTier::Hardware), range(RAM, 8 * M));
    let walker = || DmaWalker { tlb: &tlb, vmid: Vmid(3), coherent: true };
    log.start(&fake, &mut space, all, 0).unwrap();
    assert_eq!(space.add_dma_view(&fake, walker(), DmaTier::Assume), Err(SpaceError::Changing(all)));
    ends_from(&mut log, &fake, &mut space, all, 1).unwrap();
    assert_eq!(space.add_dma_view(&fake, walker(), DmaTier::Assume), Err(SpaceError::Logged(all)));
    stop(&mut log, &fake, &mut space);
    assert_eq!(space.add_dma_view(&fake, walker(), DmaTier::Assume), Ok(1));
}
