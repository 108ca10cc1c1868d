//! The adaptive granule: what it splits and merges, in which order, and what it takes.

use super::*;
use crate::addr::PageSize;
use crate::dirty_log::{Adapting, Granule, Policy, Statistics};
use crate::fake::take_loads;
use crate::hw::Cpu;
use crate::stage2::{LeafCounts, LeafState};

const QUICK: Policy = Policy { cold_passes: 2, splits: 64, reserve: 4 };

fn adaptive(range: IpaRange, policy: Policy) -> Request {
    Request { granule: Granule::Adaptive(policy), ..Request::from(range) }
}

/// A VM of `bytes` whose views all adapt.
fn adapting_space<'d>(fake: &Fake, tlb: &'d FakeTlb, bytes: u64) -> AddressSpace<'d, FakeTlb> {
    space(fake, tlb, bytes, DmaTier::Hardware).with_direct_swap()
}

fn adaptive_log(
    fake: &Fake,
    space: &mut AddressSpace<'_, FakeTlb>,
    range: IpaRange,
    policy: Policy,
) -> DirtyLog {
    let mut log = DirtyLog::new(CpuTier::Hardware);
    start(&mut log, fake, space, adaptive(range, policy));
    take_trace();
    log
}

/// A VM of `bytes` all of which is logged, by `policy`.
fn adapting_vm<'d>(
    fake: &Fake,
    tlb: &'d FakeTlb,
    bytes: u64,
    policy: Policy,
) -> (AddressSpace<'d, FakeTlb>, IpaRange, DirtyLog) {
    let mut space = adapting_space(fake, tlb, bytes);
    let all = range(RAM, bytes);
    let log = adaptive_log(fake, &mut space, all, policy);
    (space, all, log)
}

/// As [`sync`], changing sizes on the way.
fn sync_adapting(
    log: &mut DirtyLog,
    fake: &Fake,
    space: &mut AddressSpace<'_, FakeTlb>,
    range: IpaRange,
    flags: Flags,
) -> Result<Vec<u64>, LogError> {
    by_steps(log, range, |log, part, deliver| log.sync_adapting(fake, space, part, flags, deliver))
}

fn leaves(space: &AddressSpace<'_, FakeTlb>) -> LeafCounts {
    space.dma_views().next().unwrap().view.tree.leaves()
}

/// What syncs have done: splits, merges, refusals.
fn adapted(log: &DirtyLog) -> (u64, u64, u64) {
    let Statistics { splits_by_syncs, merges_by_syncs, splits_refused, .. } = log.statistics();
    (splits_by_syncs, merges_by_syncs, splits_refused)
}

#[test]
fn a_start_takes_one_table_for_each_gib_and_a_list_for_what_is_split_later() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, G);
    let (all, free) = (range(RAM, G), fake.free_frames());
    let log = adaptive_log(&fake, &mut space, all, QUICK);
    assert_eq!(leaves(&space).blocks_2m, 512);
    // Two bitmaps of 8 frames, 4 set aside; in each view a table, and a list of up to 514 tables.
    assert_eq!(free - fake.free_frames(), 2 * 8 + 4 + 2 * (1 + 2));
    assert_eq!(log.adapting(&space), Adapting { cpu: true, dma: true });
    assert!(log.is_adaptive());
}

#[test]
fn a_block_that_was_written_is_reported_whole_once_and_then_by_pages() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    device_writes(&fake, &space, RAM + 3 * M);
    let whole: Vec<u64> = (512..1024).collect();
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Ok(whole));
    assert_eq!((leaves(&space).blocks_2m, leaves(&space).pages_4k), (3, 512 + 1));
    device_writes(&fake, &space, RAM + 3 * M);
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Ok(vec![768]));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Ok(vec![]));
    assert_eq!(adapted(&log), (1, 0, 0));
}

#[test]
fn a_keeping_sync_splits_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    cpu_writes(&fake, &space, RAM);
    for _ in 0..2 {
        let kept = sync_adapting(&mut log, &fake, &mut space, all, CPU).unwrap();
        assert_eq!((kept.len(), adapted(&log)), (512, (0, 0, 0)));
    }
}

#[test]
fn a_region_that_stays_clean_for_the_passes_of_the_policy_is_a_block_again() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { cold_passes: 3, ..QUICK });
    let free = fake.free_frames();
    device_writes(&fake, &space, RAM);
    let mut pass = |space: &mut _| {
        sync_adapting(&mut log, &fake, space, all, clearing(DMA)).unwrap();
        adapted(&log)
    };
    assert_eq!([pass(&mut space), pass(&mut space), pass(&mut space)], [(1, 0, 0); 3]);
    // A write in between, and the count begins anew.
    device_writes(&fake, &space, RAM + 0x1000);
    assert_eq!([pass(&mut space), pass(&mut space), pass(&mut space)], [(1, 0, 0); 3]);
    assert_eq!(pass(&mut space), (1, 1, 0));
    assert_eq!((leaves(&space).blocks_2m, leaves(&space).pages_4k, fake.free_frames()), (4, 1, free));
    // It is writable-clean: what is written next is found.
    device_writes(&fake, &space, RAM + 0x1000);
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap().len(), 512);
}

#[test]
fn passes_over_part_of_a_region_do_not_count_and_none_merge_it() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, 8 * M);
    let (all, part) = (range(RAM, 8 * M), range(RAM, M));
    let mut log = adaptive_log(&fake, &mut space, all, Policy { cold_passes: 1, ..QUICK });
    device_writes(&fake, &space, RAM);
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    for _ in 0..3 {
        sync_adapting(&mut log, &fake, &mut space, part, clearing(DMA)).unwrap();
    }
    assert_eq!(adapted(&log), (1, 0, 0));
}

#[test]
fn a_pass_that_splits_and_merges_swaps_then_invalidates_once_and_reads_what_is_gone_again() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { cold_passes: 1, ..QUICK });
    device_writes(&fake, &space, RAM);
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    device_writes(&fake, &space, RAM + 2 * M);
    take_trace();
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    let view = space.dma_views().next().unwrap();
    let merged = view.view.tree.walk_to(&fake, Ipa(RAM), 2).0.pa;
    let split = view.view.tree.walk_to(&fake, Ipa(RAM + 2 * M), 2).0.pa;
    let steps: Vec<Event> = take_trace()
        .into_iter()
        .filter_map(|event| match event {
            Event::Swap(at, _, new) if at == merged && new & 2 == 0 => Some(Event::Mark("merged")),
            Event::Swap(at, ..) if at == split => Some(Event::Mark("split")),
            Event::Fill(..) => Some(Event::Mark("filled")),
            Event::Free(_) => Some(Event::Mark("freed")),
            Event::Barrier(_) | Event::Mark(_) => Some(event),
            _ => None,
        })
        .collect();
    assert!(tlb.last_with_tables.get());
    assert_eq!(
        steps,
        [
            Event::Mark("CMD_SYNC"),
            Event::Barrier(Barrier::DsbSy),
            Event::Mark("filled"),
            Event::Barrier(Barrier::DsbSt),
            Event::Mark("merged"),
            Event::Mark("split"),
            Event::Mark("S2_IPA + CMD_SYNC"),
            Event::Barrier(Barrier::DsbSy),
            Event::Mark("freed"),
        ]
    );
}

#[test]
fn a_write_that_lands_in_a_table_whose_place_a_block_has_taken_is_reported() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { cold_passes: 1, ..QUICK });
    device_writes(&fake, &space, RAM);
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    let page = space.dma_views().next().unwrap().view.tree.walk(&fake, Ipa(RAM + 0x7000)).0.pa;
    // Until the invalidation has completed the SMMU still uses the table; the barrier behind it is the second one.
    fake.late.set(Some((2, page, S2AP_WRITE)));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Ok(vec![7]));
    assert_eq!(adapted(&log), (1, 1, 0));
}

#[test]
fn without_a_frame_a_block_stays_a_block_and_is_reported_whole_again() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) =
        adapting_vm(&fake, &tlb, 8 * M, Policy { reserve: 1, cold_passes: 0, ..QUICK });
    let hoard: Vec<_> = core::iter::from_fn(|| fake.alloc(0)).collect();
    for i in 0..2 {
        device_writes(&fake, &space, RAM + i * 2 * M);
    }
    let round = |log: &mut DirtyLog, space: &mut _| {
        sync_adapting(log, &fake, space, all, clearing(DMA)).unwrap().len()
    };
    // The frame set aside is enough for one of them.
    assert_eq!((round(&mut log, &mut space), adapted(&log)), (1024, (1, 0, 1)));
    device_writes(&fake, &space, RAM);
    device_writes(&fake, &space, RAM + 2 * M);
    assert_eq!((round(&mut log, &mut space), adapted(&log)), (1 + 512, (1, 0, 2)));
    // Frames come back, and a pass that has no use for them sets one aside again.
    hoard.into_iter().for_each(|frame| fake.free(frame));
    assert_eq!((round(&mut log, &mut space), adapted(&log)), (0, (1, 0, 2)));
    let hoard: Vec<_> = core::iter::from_fn(|| fake.alloc(0)).collect();
    device_writes(&fake, &space, RAM + 2 * M);
    assert_eq!((round(&mut log, &mut space), adapted(&log)), (512, (2, 0, 2)));
    hoard.into_iter().for_each(|frame| fake.free(frame));
    stop(&mut log, &fake, &mut space);
    assert_eq!(leaves(&space).blocks_2m, 4);
}

#[test]
fn a_step_splits_no_more_blocks_than_the_policy_says() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { splits: 1, ..QUICK });
    for i in 0..4 {
        device_writes(&fake, &space, RAM + i * 2 * M);
    }
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap().len(), 2048);
    assert_eq!(adapted(&log), (1, 0, 3));
}

#[test]
fn a_clear_splits_what_its_mask_names_and_keeps_the_rest_of_it() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    cpu_writes(&fake, &space, RAM);
    cpu_writes(&fake, &space, RAM + 2 * M);
    let wanted = |word| if word == 0 { 0b101 } else { 0 };
    let cleared = log.clear_adapting(&fake, &mut space, all, CPU, wanted, |_, _| ()).unwrap();
    assert_eq!((cleared.discarded, adapted(&log)), (2, (1, 0, 0)));
    let left = sync_adapting(&mut log, &fake, &mut space, all, clearing(CPU)).unwrap();
    assert_eq!((left.len(), &left[..3]), (1022, &[1, 3, 4][..]));
}

#[test]
fn a_sync_under_shared_access_reads_an_adaptive_log_and_leaves_its_blocks() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    for _ in 0..2 {
        device_writes(&fake, &space, RAM);
        assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap().len(), 512);
    }
    assert_eq!((adapted(&log), leaves(&space).blocks_2m), ((0, 0, 0), 4));
}

#[test]
fn stop_brings_back_the_blocks_and_every_frame_whatever_syncs_have_done() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, G);
    let (all, free) = (range(RAM, G), fake.free_frames());
    let mut log = adaptive_log(&fake, &mut space, all, QUICK);
    for i in 0..20 {
        device_writes(&fake, &space, RAM + i * 50 * M);
        cpu_writes(&fake, &space, RAM + i * 30 * M);
    }
    sync_adapting(&mut log, &fake, &mut space, all, clearing(Flags::BOTH)).unwrap();
    device_writes(&fake, &space, RAM + 8 * M);
    sync_adapting(&mut log, &fake, &mut space, all, clearing(Flags::BOTH)).unwrap();
    assert_eq!(adapted(&log), (41, 0, 0));
    stop(&mut log, &fake, &mut space);
    assert_eq!((leaves(&space).blocks_1g, space.cpu_view().tree.leaves().blocks_1g), (1, 1));
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn views_that_do_not_bear_it_are_logged_by_pages_and_the_log_says_so() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = adaptive_log(&fake, &mut space, all, QUICK);
    assert_eq!(log.adapting(&space), Adapting { cpu: false, dma: true });
    assert_eq!((space.cpu_view().tree.leaves().pages_4k, leaves(&space).blocks_2m), (2048, 4));
    cpu_writes(&fake, &space, RAM + 0x3000);
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(CPU)), Ok(vec![3]));
    stop(&mut log, &fake, &mut space);
    // Devices that are known by digests, or not at all: their leaves stay as they are.
    let mut space = super::space(&fake, &tlb, 8 * M, DmaTier::Assume).with_direct_swap();
    let log = adaptive_log(&fake, &mut space, all, QUICK);
    assert_eq!(log.adapting(&space), Adapting { cpu: true, dma: false });
    assert_eq!((space.cpu_view().tree.leaves().blocks_2m, leaves(&space).blocks_2m), (4, 4));
}

#[test]
fn a_log_that_nobody_bears_is_refused_by_name_and_changes_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let before = fake.contents();
    let refused = log.start(&fake, &mut space, adaptive(range(RAM, 8 * M), QUICK), 0);
    assert_eq!(refused, Err(LogError::NotAdaptive));
    assert_eq!((log.state(), fake.contents() == before), (LogState::Off, true));
    assert!(!log.is_adaptive());
    let fixed = Request { granule: PageSize::Size2M.into(), ..Request::from(range(RAM, 8 * M)) };
    start(&mut log, &fake, &mut space, fixed);
    assert_eq!((log.is_adaptive(), log.adapting(&space)), (false, Adapting::default()));
    stop(&mut log, &fake, &mut space);
    // Nor is a log of fixed granule adaptive where the views could be.
    let mut space = adapting_space(&fake, &tlb, 8 * M);
    start(&mut log, &fake, &mut space, fixed);
    assert_eq!((log.is_adaptive(), log.adapting(&space)), (false, Adapting::default()));
}

#[test]
fn a_sync_of_one_source_changes_no_size_of_the_other() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    device_writes(&fake, &space, RAM);
    cpu_writes(&fake, &space, RAM + 2 * M);
    let sizes = |space: &AddressSpace<'_, FakeTlb>| {
        (space.cpu_view().tree.leaves().blocks_2m, leaves(space).blocks_2m)
    };
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(CPU)).unwrap()[0], 512);
    assert_eq!((adapted(&log), sizes(&space)), ((1, 0, 0), (3, 4)));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap()[0], 0);
    assert_eq!((adapted(&log), sizes(&space)), ((2, 0, 0), (3, 3)));
}

#[test]
fn an_invalidation_that_fails_makes_the_log_untrusted_and_quarantines_what_was_merged() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { cold_passes: 1, ..QUICK });
    device_writes(&fake, &space, RAM);
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    // The CMD_SYNC before the walk completes, that of the invalidation does not.
    tlb.silent_at.set(Some(tlb.commands().syncs + 2));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Err(LogError::Untrusted));
    assert_eq!((space.quarantined_frames(), log.state()), (1, LogState::Untrusted));
}

#[test]
fn each_table_that_was_merged_is_quarantined_when_an_invalidation_fails() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, Policy { cold_passes: 1, ..QUICK });
    for i in 0..3 {
        device_writes(&fake, &space, RAM + i * 2 * M);
    }
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    tlb.silent_at.set(Some(tlb.commands().syncs + 2));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)), Err(LogError::Untrusted));
    assert_eq!((space.quarantined_frames(), adapted(&log)), (3, (3, 3, 0)));
}

#[test]
fn a_pass_that_meets_a_foreign_descriptor_counts_what_it_split_and_frees_the_rest() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    let free = fake.free_frames();
    for i in 0..3 {
        cpu_writes(&fake, &space, RAM + i * 2 * M);
    }
    // Somebody else takes the second block away while its table is made.
    let second = space.cpu.tree.walk(&fake, Ipa(RAM + 2 * M)).0.pa;
    fake.intruder.set(Some((fake.now_us() + 3, second, 0)));
    assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(CPU)), Err(LogError::Untrusted));
    let left = space.cpu_view().tree.leaves();
    assert_eq!((left.blocks_2m, left.pages_4k, fake.free_frames()), (3, 512, free - 1));
    assert_eq!(adapted(&log), (1, 0, 0));
}

#[test]
fn more_blocks_than_are_replaced_together_are_split_by_one_pass() {
    let (fake, tlb) = (Fake::new(300), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 136 * M, Policy { splits: 100, ..QUICK });
    for i in 0..68 {
        device_writes(&fake, &space, RAM + i * 2 * M);
    }
    // A step of 128 MiB from the middle of a block: of 65 blocks.
    sync_adapting(&mut log, &fake, &mut space, range(RAM + M, 128 * M), clearing(DMA)).unwrap();
    assert_eq!((adapted(&log), leaves(&space).blocks_2m), ((65, 0, 0), 3));
    let reported = sync_adapting(&mut log, &fake, &mut space, all, DMA).unwrap().len();
    // Of the first block the half before the step, of the 65th the half behind it, and three blocks.
    assert_eq!(reported, 256 + 256 + 3 * 512);
}

#[test]
fn a_pass_that_merges_nothing_waits_for_nothing_behind_its_invalidation() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    device_writes(&fake, &space, RAM);
    take_trace();
    sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    let waits = |event: &Event| matches!(event, Event::Barrier(_) | Event::Mark(_));
    let waited: Vec<Event> = take_trace().into_iter().filter(waits).collect();
    let invalidated = Event::Mark("S2_IPA + CMD_SYNC");
    assert_eq!(
        waited,
        [
            Event::Mark("CMD_SYNC"),
            Event::Barrier(Barrier::DsbSy),
            Event::Barrier(Barrier::DsbSt),
            invalidated
        ]
    );
}

#[test]
fn two_blocks_of_one_cache_line_are_both_found() {
    for (a, b) in (0..8).flat_map(|a| (0..a).map(move |b| (b, a))) {
        let (fake, tlb) = (Fake::new(64), FakeTlb::default());
        let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 16 * M, QUICK);
        for block in [a, b] {
            device_writes(&fake, &space, RAM + block * 2 * M);
        }
        assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap().len(), 1024);
        assert_eq!(adapted(&log), (2, 0, 0), "{a} and {b}");
    }
}

#[test]
fn memory_that_rests_is_read_once_a_block() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 128 * M, QUICK);
    let loads = |log: &mut DirtyLog, space: &mut _, part| {
        take_loads();
        sync_adapting(log, &fake, space, part, clearing(DMA)).unwrap();
        take_loads()
    };
    let [most, few] = [all, range(RAM, 64 * M)].map(|part| loads(&mut log, &mut space, part));
    // 32 descriptors more, and 256 words of EL2's bitmap.
    assert_eq!(most - few, 32 + 256);
}

#[test]
fn two_mappings_never_become_one_block() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, M);
    let region = Region { range: range(RAM + M, M), pa: Pa(0x8000_0000 + M), reach: Reach::Ram };
    space.map(&fake, region).unwrap();
    let all = range(RAM, 2 * M);
    let mut log = adaptive_log(&fake, &mut space, all, Policy { cold_passes: 1, ..QUICK });
    for _ in 0..3 {
        sync_adapting(&mut log, &fake, &mut space, all, clearing(DMA)).unwrap();
    }
    assert_eq!((adapted(&log), leaves(&space).pages_4k), ((0, 0, 0), 513));
}

#[test]
fn device_registers_in_the_range_are_in_no_log_and_become_no_block_of_it() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, 2 * M);
    let region = |at, reach| Region { range: range(at, 2 * M), pa: Pa(0x8000_0000 + at), reach };
    space.map(&fake, region(RAM + 2 * M, Reach::Ram)).unwrap();
    let all = range(RAM, 4 * M);
    let mut log = adaptive_log(&fake, &mut space, all, Policy { cold_passes: 1, ..QUICK });
    space.unmap(&fake, range(RAM + 2 * M, 2 * M)).unwrap();
    space.map(&fake, region(RAM + 2 * M, Reach::CpuDevice)).unwrap();
    for _ in 0..3 {
        assert_eq!(sync_adapting(&mut log, &fake, &mut space, all, clearing(CPU)), Ok(vec![]));
    }
    let (leaf, _) = space.cpu_view().tree.query(&fake, Ipa(RAM + 2 * M)).unwrap();
    assert_eq!((leaf.level, leaf.state(), adapted(&log)), (3, LeafState::WritableDirty, (0, 0, 0)));
}

#[test]
fn clears_of_all_of_a_region_merge_it_too() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (mut space, all, mut log) = adapting_vm(&fake, &tlb, 8 * M, QUICK);
    device_writes(&fake, &space, RAM);
    for _ in 0..3 {
        log.clear_adapting(&fake, &mut space, all, DMA, |_| u64::MAX, |_, _| ()).unwrap();
    }
    assert_eq!((adapted(&log), leaves(&space).blocks_2m), ((1, 1, 0), 4));
}

#[test]
fn a_pass_over_part_of_a_region_that_finds_a_write_begins_the_count_anew() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = adapting_space(&fake, &tlb, 8 * M);
    let (all, part) = (range(RAM, 8 * M), range(RAM, M));
    let mut log = adaptive_log(&fake, &mut space, all, QUICK);
    device_writes(&fake, &space, RAM);
    let mut pass =
        |space: &mut _, of| sync_adapting(&mut log, &fake, space, of, clearing(DMA)).unwrap().len();
    assert_eq!([pass(&mut space, all), pass(&mut space, all)], [512, 0]);
    device_writes(&fake, &space, RAM);
    assert_eq!([pass(&mut space, part), pass(&mut space, all)], [1, 0]);
    assert_eq!(adapted(&log), (1, 0, 0));
}
