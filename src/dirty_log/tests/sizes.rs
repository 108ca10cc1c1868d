//! What starts and stops ask of SMMUs of each break-before-make level, and of CPUs that need none.

use super::*;
use crate::dirty_log::Statistics;
use crate::hw::{CommandCounts, DmaTlb, SizeChange};
use crate::stage2::descriptor::BLOCK_NT;

fn tlb(size_change: SizeChange) -> FakeTlb {
    let tlb = FakeTlb::default();
    tlb.size_change.set(Some(size_change));
    tlb
}

fn dma_leaves(space: &AddressSpace<'_, FakeTlb>) -> (u64, u64) {
    let leaves = space.dma_totals().0;
    (leaves.blocks(), leaves.pages_4k)
}

fn invalidations(trace: &[Event]) -> usize {
    trace.iter().filter(|e| **e == INVALIDATED).count()
}

#[test]
fn at_bbml_1_start_and_stop_invalidate_once_a_chunk_and_once_more_never_once_a_block() {
    // 255 blocks of 2 MiB: chunks of 64, 64, 64 and 63.
    let (fake, tlb) = (Fake::new(700), tlb(SizeChange::ThroughNt));
    let mut space = space(&fake, &tlb, 510 * M, DmaTier::Hardware);
    let (before, free) = (dma_leaves(&space), fake.free_frames());
    let logged = range(RAM, 510 * M);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    take_trace();
    start(&mut log, &fake, &mut space, logged);
    let trace = take_trace();
    assert_eq!(invalidations(&trace), 4 + 1);
    assert_eq!(trace.last(), Some(&INVALIDATED), "the log is on when it has completed");
    stop(&mut log, &fake, &mut space);
    assert_eq!(invalidations(&take_trace()), 4 + 1);
    assert_eq!((dma_leaves(&space), fake.free_frames()), (before, free));
}

/// The blocks of the DMA view that have nT.
fn with_nt(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, range: IpaRange) -> usize {
    let mut count = 0;
    for dma in space.dma_views() {
        dma.view.tree.for_each(fake, range, |slot, _, _| {
            count += usize::from(slot.level < 3 && fake.read(slot.pa) & BLOCK_NT != 0);
        });
    }
    count
}

#[test]
fn a_start_at_bbml_1_whose_invalidation_fails_is_undone_and_leaves_nt_nowhere() {
    // Those of the two chunks of 64 and 16 blocks, and the last; then one that the start doesn't need.
    for fails_at in 1..=4 {
        let (fake, tlb) = (Fake::new(400), tlb(SizeChange::ThroughNt));
        let mut space = space(&fake, &tlb, 160 * M, DmaTier::Hardware);
        let (before, free) = (dma_leaves(&space), fake.free_frames());
        let logged = range(RAM, 160 * M);
        let mut log = DirtyLog::new(CpuTier::Hardware);
        tlb.silent_at.set(Some(fails_at));
        let ended = ends(&mut log, &fake, &mut space, logged);
        assert_eq!(with_nt(&fake, &space, logged), 0, "{fails_at}");
        if fails_at == 4 {
            assert_eq!(ended, Ok(Progress::Done));
            continue;
        }
        assert_eq!(ended, Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))), "{fails_at}");
        assert_eq!((dma_leaves(&space), fake.free_frames()), (before, free), "{fails_at}");
    }
}

#[test]
fn a_stop_at_bbml_1_whose_smmu_falls_silent_still_makes_every_page_dirty() {
    let (fake, tlb) = (Fake::new(400), tlb(SizeChange::ThroughNt));
    let mut space = space(&fake, &tlb, 256 * M, DmaTier::Hardware);
    let logged = range(RAM, 256 * M);
    let mut log = started(&fake, &mut space, logged);
    tlb.failures.borrow_mut().extend([DmaTlbError::Timeout; 2]);
    let mut step = 0;
    let ended = loop {
        match log.stop(&fake, &mut space, step) {
            Ok(Progress::More(next)) => step = next,
            ended => break ended,
        }
    };
    assert_eq!((ended, log.state()), (Err(LogError::Untrusted), LogState::Off));
    // The first chunk has become blocks, whose pages may still be cached.
    assert_eq!(with_nt(&fake, &space, logged), 64);
    assert_eq!(dma_leaves(&space), (64, 64 * 512 + 1));
    let mut clean = 0;
    space.dma_views().next().unwrap().view.tree.for_each(&fake, logged, |slot, _, _| {
        clean += usize::from(fake.read(slot.pa) & S2AP_WRITE == 0);
    });
    assert_eq!(clean, 0, "a clean page would abort or stall a device behind hardware that is no more asked");

    // The next log takes the blocks as they are, and its stop puts everything right.
    let mut log = DirtyLog::new(CpuTier::Hardware);
    start(&mut log, &fake, &mut space, logged);
    stop(&mut log, &fake, &mut space);
    assert_eq!((dma_leaves(&space), with_nt(&fake, &space, logged)), ((128, 1), 0));
}

#[test]
fn at_bbml_0_views_with_dirty_state_are_made_of_pages_from_the_beginning() {
    let (fake, tlb) = (Fake::new(64), tlb(SizeChange::Never));
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    // The doorbell is a page everywhere.
    assert_eq!(dma_leaves(&space), (0, 4 * 512 + 1));
    let free = fake.free_frames();
    let logged = range(RAM, 8 * M);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    take_trace();
    start(&mut log, &fake, &mut space, logged);
    assert_eq!(invalidations(&take_trace()), 1);
    assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap(), []);
    device_writes(&fake, &space, RAM + 5 * 4096);
    assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap(), [5]);
    take_trace();
    stop(&mut log, &fake, &mut space);
    assert_eq!(invalidations(&take_trace()), 1);
    assert_eq!((dma_leaves(&space), fake.free_frames()), ((0, 4 * 512 + 1), free));
    let mut clean = 0;
    space.dma_views().next().unwrap().view.tree.for_each(&fake, logged, |slot, _, _| {
        clean += usize::from(fake.read(slot.pa) & S2AP_WRITE == 0);
    });
    assert_eq!(clean, 0, "a stop makes pages dirty where they stand");
}

#[test]
fn at_bbml_0_views_without_dirty_state_keep_their_blocks_and_are_left_alone() {
    let (fake, tlb) = (Fake::new(64), tlb(SizeChange::Never));
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let free = fake.free_frames();
    // Parts of blocks at either end.
    let logged = range(RAM + M, 64 * 4096);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    take_trace();
    start(&mut log, &fake, &mut space, logged);
    let pages: Vec<u64> = (0..64).collect();
    assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap(), pages);
    let more = Region { range: range(RAM + 8 * M, 2 * M), pa: Pa(0x8080_0000), reach: Reach::Ram };
    space.map(&fake, more).unwrap();
    assert_eq!(dma_leaves(&space), (5, 1));
    stop(&mut log, &fake, &mut space);
    assert_eq!(invalidations(&take_trace()), 0, "nothing was changed");
    space.unmap(&fake, more.range).unwrap();
    assert_eq!((dma_leaves(&space), fake.free_frames()), ((4, 1), free));
}

#[test]
fn a_view_at_bbml_0_comes_to_a_log_and_goes_with_it() {
    for (tier, leaves) in
        [(DmaTier::Hardware, (0, 4 * 512 + 1)), (DmaTier::Assume, (4, 1)), (DmaTier::Digest, (4, 1))]
    {
        let (fake, tlb) = (Fake::new(128), tlb(SizeChange::Never));
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
        let (logged, free) = (range(RAM, 8 * M), fake.free_frames());
        let mut log = DirtyLog::new(CpuTier::Hardware)
            .with_key(crate::dirty_log::DigestKey([1, 2]), strandline_abi::KeySource::Cpu);
        start(&mut log, &fake, &mut space, logged);
        let held = fake.free_frames();
        let walker = DmaWalker { tlb: &tlb, vmid: Vmid(7), coherent: true };
        let accepted = crate::dirty_log::Weakening::Accepted;
        let index = log.attach_view(&fake, &mut space, walker, tier, accepted).unwrap();
        let of_new = space.dma[index].as_ref().unwrap().view.tree.leaves();
        assert_eq!((of_new.blocks(), of_new.pages_4k), leaves);
        log.detach_view(&fake, &mut space, index).unwrap();
        // The digests, where there are any now, stay with the log.
        assert!(tier == DmaTier::Digest || fake.free_frames() == held);
        stop(&mut log, &fake, &mut space);
        assert_eq!(fake.free_frames(), free);
    }
}

#[test]
fn a_view_at_bbml_0_without_dirty_state_takes_no_memory_of_a_log_it_comes_to_and_its_stop_leaves_it_alone() {
    let (fake, tlb) = (Fake::new(128), tlb(SizeChange::Never));
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    let before = fake.free_frames() as u64;
    let walker = DmaWalker { tlb: &tlb, vmid: Vmid(7), coherent: true };
    let refused = crate::dirty_log::Weakening::Refused;
    let index = log.attach_view(&fake, &mut space, walker, DmaTier::Assume, refused).unwrap();
    let tables = space.dma_view(index).unwrap().view.tree.tables();
    assert_eq!(fake.free_frames() as u64, before - tables, "its tree, and no list of what a stop unlinks");
    take_trace();
    stop(&mut log, &fake, &mut space);
    assert_eq!(invalidations(&take_trace()), 0);
    assert_eq!(space.dma_view(index).unwrap().view.tree.tables(), tables);
}

#[test]
fn statistics_count_how_often_vcpus_were_held_and_a_direct_swap_holds_none() {
    for (direct, holds) in [(false, 2), (true, 0)] {
        let (fake, tlb) = (Fake::new(64), FakeTlb::default());
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
        if direct {
            space = space.with_direct_swap();
        }
        let mut log = started(&fake, &mut space, range(RAM, 8 * M));
        stop(&mut log, &fake, &mut space);
        let trace = take_trace();
        assert_eq!(log.statistics().holds, holds);
        // The start's was seen by `started`.
        assert_eq!(trace.iter().filter(|e| **e == Event::Hold).count() as u64, holds / 2);
        assert_eq!((log.statistics().blocks_split, log.statistics().blocks_merged), (8, 8));
    }
}

#[test]
fn nobody_is_held_for_what_is_pages_already() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = AddressSpace::new(&fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    space
        .add_dma_view(&fake, DmaWalker { tlb: &tlb, vmid: Vmid(2), coherent: true }, DmaTier::Hardware)
        .unwrap();
    // No block of 2 MiB has room where guest and physical addresses differ in the bits below it.
    let all = range(RAM, 2 * M);
    space.map(&fake, Region { range: all, pa: Pa(0x8000_0000 + M), reach: Reach::Ram }).unwrap();
    let mut log = DirtyLog::new(CpuTier::Hardware);
    start(&mut log, &fake, &mut space, all);
    stop(&mut log, &fake, &mut space);
    assert!(!take_trace().contains(&Event::Hold));
    let Statistics { holds, blocks_split, blocks_merged, .. } = log.statistics();
    assert_eq!((holds, blocks_split, blocks_merged), (0, 0, 0));
}

/// What an SMMU was asked since it was last looked at: all commands, CMD_TLBI_S12_VMALL, CMD_SYNC.
fn asked(tlb: &FakeTlb, before: CommandCounts) -> (u64, u64, u64) {
    let now = tlb.commands();
    (now.all - before.all, now.tlbi_vmall - before.tlbi_vmall, now.syncs - before.syncs)
}

#[test]
fn smmus_of_every_ability_behind_one_vm_get_each_what_they_take() {
    let fake = Fake::new(200);
    let of = |size_change| tlb(size_change);
    let [direct, through_nt, second, fixed] =
        [SizeChange::Direct, SizeChange::ThroughNt, SizeChange::Never, SizeChange::Never].map(of);
    second.vmids.set(Some(1));
    let smmus = [&direct, &through_nt, &second, &fixed];
    let mut space = AddressSpace::new(&fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    // Each numbers VMIDs on its own.
    for tlb in smmus {
        let walker = DmaWalker { tlb, vmid: Vmid(2), coherent: true };
        space.add_dma_view(&fake, walker, DmaTier::Hardware).unwrap();
    }
    let region = Region { range: range(RAM, 8 * M), pa: Pa(0x8000_0000), reach: Reach::Ram };
    space.map(&fake, region).unwrap();
    let shape = |space: &AddressSpace<'_, FakeTlb>| {
        space.dma_views().map(|dma| dma.view.tree.leaves().blocks()).collect::<Vec<_>>()
    };
    let free = fake.free_frames();
    assert_eq!(shape(&space), [4, 4, 4, 0]);
    let before = smmus.map(FakeTlb::commands);
    let mut log = started(&fake, &mut space, region.range);
    assert_eq!(shape(&space), [0; 4]);
    let counts = |before: [CommandCounts; 4]| [0, 1, 2, 3].map(|i| asked(smmus[i], before[i]));
    // The third one's streams go another way, which counts for itself.
    assert_eq!(counts(before), [(2, 1, 1), (4, 2, 2), (0, 0, 0), (2, 1, 1)]);
    assert_eq!(second.streams_at.get(), space.dma_view(2).map(|dma| dma.view.dma_root()));
    // A page behind each of them, and one behind two.
    for (i, page) in [(0, 1), (1, 700), (2, 1300), (3, 2000), (2, 1)] {
        let tree = &space.dma_view(i).unwrap().view.tree;
        fake.or_behind(tree.walk(&fake, Ipa(RAM + page * 4096)).0.pa, S2AP_WRITE);
    }
    let before = smmus.map(FakeTlb::commands);
    assert_eq!(sync(&mut log, &fake, &space, region.range, clearing(DMA)).unwrap(), [1, 700, 1300, 2000]);
    assert_eq!(counts(before), [(3, 0, 2); 4], "a CMD_SYNC before, and an invalidation after");
    stop(&mut log, &fake, &mut space);
    assert_eq!((shape(&space), fake.free_frames()), (vec![4, 4, 4, 0], free));
}

#[test]
fn smmu_that_falls_silent_undoes_the_start_behind_all_others() {
    // Of three SMMUs the first, the second or the third does not answer what comes last.
    for silent in 0..3 {
        let fake = Fake::new(200);
        let smmus = [SizeChange::Direct, SizeChange::Never, SizeChange::Direct].map(tlb);
        smmus[1].vmids.set(Some(1));
        let mut space = AddressSpace::new(&fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
        for tlb in &smmus {
            let walker = DmaWalker { tlb, vmid: Vmid(2), coherent: true };
            space.add_dma_view(&fake, walker, DmaTier::Hardware).unwrap();
        }
        let region = Region { range: range(RAM, 8 * M), pa: Pa(0x8000_0000), reach: Reach::Ram };
        space.map(&fake, region).unwrap();
        let (free, root) = (fake.free_frames(), space.dma_view(1).unwrap().view.dma_root());
        let mut log = DirtyLog::new(CpuTier::Hardware);
        let mut step = 0;
        let ended = loop {
            // The VMID has been taken in the step that reserves.
            if step == 1 {
                *smmus[silent].failures.borrow_mut() = vec![DmaTlbError::Timeout];
            }
            match log.start(&fake, &mut space, region.range, step) {
                Ok(Progress::More(next)) => step = next,
                ended => break ended,
            }
        };
        assert_eq!(ended, Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))), "{silent}");
        let shape: Vec<u64> = space.dma_views().map(|dma| dma.view.tree.leaves().blocks()).collect();
        assert_eq!((shape, fake.free_frames()), (vec![4; 3], free), "{silent}");
        assert_eq!(space.dma_view(1).unwrap().view.dma_root(), root);
        assert!(smmus[1].streams_at.get().is_none_or(|at| at == root), "{silent}");
    }
}
