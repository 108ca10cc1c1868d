//! Behind an SMMU that bears no change of size, where its streams can be sent through another tree.

use super::*;
use crate::dirty_log::{AttachError, Weakening};
use crate::hw::{DmaRoot, SizeChange};
use crate::stage2::LeafCounts;

const SWITCH: Event = Event::Mark("switch");

fn tlb() -> FakeTlb {
    let tlb = FakeTlb::default();
    tlb.size_change.set(Some(SizeChange::Never));
    tlb.vmids.set(Some(2));
    tlb
}

fn view<'s>(space: &'s AddressSpace<'_, FakeTlb>) -> &'s crate::address_space::DmaView<'s, FakeTlb> {
    space.dma_views().next().unwrap()
}

fn leaves(space: &AddressSpace<'_, FakeTlb>) -> (u64, u64) {
    let leaves: LeafCounts = view(space).view.tree.leaves();
    (leaves.blocks(), leaves.pages_4k)
}

#[test]
fn start_sends_streams_through_a_tree_of_pages_and_a_stop_sends_them_back_to_the_blocks() {
    for tier in [DmaTier::Hardware, DmaTier::Stall] {
        let (fake, tlb) = (Fake::new(64), tlb());
        let mut space = space(&fake, &tlb, 8 * M, tier);
        let (rest, free) = (view(&space).view.dma_root(), fake.free_frames());
        assert_eq!(leaves(&space), (4, 1), "blocks while no log is on");
        let logged = range(RAM, 8 * M);
        let mut log = DirtyLog::new(CpuTier::Hardware);
        take_trace();
        start(&mut log, &fake, &mut space, logged);
        let trace = take_trace();
        assert_eq!((trace.iter().filter(|e| **e == SWITCH).count(), trace.last()), (1, Some(&SWITCH)));
        assert!(!trace.contains(&INVALIDATED), "what the switch does is all there is");
        assert_eq!(leaves(&space), (0, 4 * 512 + 1));
        let second = view(&space).view.dma_root();
        assert_eq!((tlb.streams_at.get(), second.vmid), (Some(second), Vmid(0x102)));
        device_writes(&fake, &space, RAM + 0x5000);
        assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap(), [5]);
        stop(&mut log, &fake, &mut space);
        let trace = take_trace();
        let (at, back) = (
            trace.iter().position(|e| *e == SWITCH).unwrap(),
            trace.iter().position(|e| *e == Event::Mark("a VMID back")).unwrap(),
        );
        let freed = trace.iter().rposition(|e| *e == Event::Free(second.root)).unwrap();
        assert!(at < freed && freed < back);
        assert_eq!((tlb.streams_at.get(), view(&space).view.dma_root()), (Some(rest), rest));
        assert_eq!((leaves(&space), fake.free_frames(), tlb.vmids.get()), ((4, 1), free, Some(2)));
    }
}

#[test]
fn memory_of_a_second_tree_is_that_of_the_first_one_and_of_what_is_split() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let free = fake.free_frames();
    // Parts of two blocks, and one between them.
    let logged = range(RAM + M, 4 * M);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    start(&mut log, &fake, &mut space, logged);
    // The doorbell takes two tables beside the root, RAM one: 1 + 3. Three blocks are split, in either view; the
    // CPU's are listed for the stop. Two bitmaps.
    assert_eq!(free - fake.free_frames(), (1 + 3 + 3) + (3 + 1) + 2);
    assert_eq!(leaves(&space), (1, 3 * 512 + 1));
    stop(&mut log, &fake, &mut space);
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn second_tree_with_a_root_of_two_frames_takes_what_it_needs_and_not_a_frame_more() {
    // The CPU's view: three blocks and their list. Two bitmaps. The second tree: its root, what the first one has beside
    // its own, and three blocks.
    let needed = (3 + 1) + 2 + (2 + 1 + 3);
    for left in [needed, needed - 1] {
        let (fake, tlb) = (Fake::new(64), tlb());
        let mut space = AddressSpace::new(&fake, Format::new(40).unwrap(), Vmid(1)).unwrap();
        let walker = DmaWalker { tlb: &tlb, vmid: Vmid(2), coherent: true };
        space.add_dma_view(&fake, walker, DmaTier::Hardware).unwrap();
        let region = Region { range: range(RAM, 8 * M), pa: Pa(0x8000_0000), reach: Reach::Ram };
        space.map(&fake, region).unwrap();
        while fake.free_frames() > left {
            let _taken = fake.alloc(0);
        }
        let mut log = DirtyLog::new(CpuTier::Hardware);
        let ended = ends(&mut log, &fake, &mut space, range(RAM + M, 4 * M));
        if left == needed {
            assert_eq!((ended, fake.free_frames()), (Ok(Progress::Done), 0));
        } else {
            assert!(matches!(ended, Err(LogError::OutOfFrames(_))), "{ended:?}");
            assert_eq!(fake.free_frames(), left);
        }
    }
}

#[test]
fn what_is_mapped_and_unmapped_under_the_log_is_so_in_both_trees() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let mut space = space(&fake, &tlb, 6 * M, DmaTier::Hardware);
    let old = Region { range: range(RAM + 6 * M, 2 * M), pa: Pa(0x8060_0000), reach: Reach::Ram };
    space.map(&fake, old).unwrap();
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    space.unmap(&fake, old.range).unwrap();
    let new = Region { pa: Pa(0x80a0_0000), ..old };
    space.map(&fake, new).unwrap();
    assert_eq!(leaves(&space), (0, 4 * 512 + 1), "by pages in the log");
    stop(&mut log, &fake, &mut space);
    assert_eq!(leaves(&space), (4, 1));
    let (leaf, pa) = view(&space).view.tree.query(&fake, Ipa(RAM + 7 * M)).unwrap();
    assert_eq!((leaf.level, pa), (2, Pa(0x80b0_0000)));
    assert_eq!(view(&space).view.tree.query(&fake, Ipa(RAM + 8 * M)), None);
}

#[test]
fn what_is_mapped_and_unmapped_beside_the_log_between_steps_is_so_in_the_tree_that_is_being_made() {
    for steps in 1..6 {
        let (fake, tlb) = (Fake::new(96), tlb());
        let mut space = space(&fake, &tlb, 4 * M, DmaTier::Hardware);
        let mut log = DirtyLog::new(CpuTier::Hardware);
        let (logged, mut step) = (range(RAM, 4 * M), 0);
        let mut ended = false;
        for _ in 0..steps {
            match log.start(&fake, &mut space, logged, step).unwrap() {
                Progress::More(next) => step = next,
                Progress::Done => ended = true,
            }
        }
        let new = Region { range: range(RAM + G, 2 * M), pa: Pa(0x9000_0000), reach: Reach::Ram };
        space.map(&fake, new).unwrap();
        space.unmap(&fake, range(0x0809_0000, 0x1000)).unwrap();
        assert!(ended || ends_from(&mut log, &fake, &mut space, logged, step).is_ok());
        for _ in 0..2 {
            let tree = &view(&space).view.tree;
            assert_eq!(
                tree.query(&fake, Ipa(RAM + G + M)).map(|(_, pa)| pa),
                Some(Pa(0x9010_0000)),
                "{steps}"
            );
            assert_eq!(tree.query(&fake, Ipa(0x0809_0000)), None, "{steps}");
            if log.state() == LogState::On {
                assert_eq!(view(&space).view.walker.vmid, Vmid(0x102));
                stop(&mut log, &fake, &mut space);
            }
        }
    }
}

#[test]
fn start_whose_switch_is_not_answered_is_undone() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let (rest, free) = (view(&space).view.dma_root(), fake.free_frames());
    let mut log = DirtyLog::new(CpuTier::Hardware);
    // The switch is the second thing that is asked.
    let mut step = 0;
    let ended = loop {
        if tlb.vmids.get() == Some(1) && tlb.streams_at.get().is_none() {
            *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout];
        }
        match log.start(&fake, &mut space, range(RAM, 8 * M), step) {
            Ok(Progress::More(next)) => step = next,
            ended => break ended,
        }
    };
    assert_eq!(ended, Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))));
    assert_eq!((tlb.streams_at.get(), view(&space).view.dma_root()), (Some(rest), rest));
    assert_eq!((leaves(&space), fake.free_frames(), tlb.vmids.get()), ((4, 1), free, Some(2)));
}

/// A log whose SMMU falls silent when streams are to be sent back.
fn silent_at_the_stop<'d>(fake: &Fake, tlb: &'d FakeTlb) -> (DirtyLog, AddressSpace<'d, FakeTlb>, DmaRoot) {
    let mut space = space(fake, tlb, 8 * M, DmaTier::Hardware);
    let rest = view(&space).view.dma_root();
    let mut log = started(fake, &mut space, range(RAM, 8 * M));
    *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout];
    let mut step = 0;
    let ended = loop {
        match log.stop(fake, &mut space, step) {
            Ok(Progress::More(next)) => step = next,
            ended => break ended,
        }
    };
    assert_eq!((ended, log.state()), (Err(LogError::Untrusted), LogState::Off));
    (log, space, rest)
}

#[test]
fn tree_that_the_smmu_may_still_use_is_kept_right_and_goes_with_the_next_start() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let (mut log, mut space, rest) = silent_at_the_stop(&fake, &tlb);
    assert_eq!((view(&space).view.dma_root(), tlb.vmids.get()), (rest, Some(1)));
    let second = view(&space).other_tree().unwrap();
    assert!(second.query(&fake, Ipa(RAM)).is_some());
    take_trace();
    space.unmap(&fake, range(RAM, 8 * M)).unwrap();
    assert_eq!(take_trace().iter().filter(|e| **e == INVALIDATED).count(), 2, "both are invalidated");
    assert_eq!(view(&space).other_tree().unwrap().query(&fake, Ipa(RAM)), None);
    let region = Region { range: range(RAM, 8 * M), pa: Pa(0x8000_0000), reach: Reach::Ram };
    space.map(&fake, region).unwrap();
    start(&mut log, &fake, &mut space, region.range);
    assert_eq!(view(&space).vmids().collect::<Vec<_>>(), [Vmid(0x102), Vmid(2)]);
    stop(&mut log, &fake, &mut space);
    assert_eq!((view(&space).vmids().collect::<Vec<_>>(), tlb.vmids.get()), (vec![Vmid(2)], Some(2)));
}

#[test]
fn start_behind_an_smmu_that_is_still_silent_changes_nothing() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let (mut log, mut space, _) = silent_at_the_stop(&fake, &tlb);
    let before = fake.contents();
    *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout];
    let ended = ends(&mut log, &fake, &mut space, range(RAM, 8 * M));
    assert_eq!(ended, Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))));
    assert!(fake.contents() == before && log.state() == LogState::Off);
}

#[test]
fn start_is_refused_whole_where_vmids_frames_or_answers_are_lacking() {
    for (vmids, frames, silent) in [(0, 64, false), (1, 14, false), (1, 64, true)] {
        let (fake, tlb) = (Fake::new(64), tlb());
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
        tlb.vmids.set(Some(vmids));
        let hoard: Vec<_> = (frames..64).filter_map(|_| fake.alloc(0)).collect();
        if silent {
            *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout];
        }
        let before = (fake.contents(), tlb.vmids.get());
        let ended = ends(&mut DirtyLog::new(CpuTier::Hardware), &fake, &mut space, range(RAM, 8 * M));
        match ended {
            Err(LogError::OutOfVmids) => assert_eq!(vmids, 0),
            Err(LogError::OutOfFrames(lack)) => assert!(frames == 14 && lack.needed > lack.free),
            Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))) => assert!(silent),
            other => panic!("{other:?}"),
        }
        assert!((fake.contents(), tlb.vmids.get()) == before, "{ended:?}");
        drop(hoard);
    }
}

#[test]
fn view_that_comes_to_a_log_has_both_trees_and_leaves_with_the_vmid_it_came_with() {
    let (fake, tlb) = (Fake::new(128), tlb());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let (logged, free) = (range(RAM, 8 * M), fake.free_frames());
    let mut log = started(&fake, &mut space, logged);
    let walker = || DmaWalker { tlb: &tlb, vmid: Vmid(7), coherent: true };
    let attach = |log: &mut DirtyLog, space: &mut _| {
        log.attach_view(&fake, space, walker(), DmaTier::Hardware, Weakening::Refused)
    };
    let held = fake.free_frames();
    let index = attach(&mut log, &mut space).unwrap();
    let new = space.dma_view(index).unwrap();
    assert_eq!(new.vmids().collect::<Vec<_>>(), [Vmid(0x101), Vmid(7)]);
    let trees = new.view.tree.tables() + new.other_tree().unwrap().tables();
    assert_eq!(
        (held - fake.free_frames()) as u64,
        trees,
        "no list of what a stop unlinks: one tree goes whole"
    );
    assert_eq!(
        (new.view.tree.leaves().pages_4k, new.other_tree().unwrap().leaves().pages_4k),
        (4 * 512 + 1, 1)
    );
    assert_eq!(log.detach_view(&fake, &mut space, index), Ok(Vmid(7)));
    assert_eq!((fake.free_frames(), tlb.vmids.get()), (held, Some(1)));
    // And stays to the end of it, where it has blocks again.
    let index = attach(&mut log, &mut space).unwrap();
    stop(&mut log, &fake, &mut space);
    assert_eq!(space.dma_view(index).unwrap().view.tree.leaves().blocks(), 4);
    assert_eq!(log.detach_view(&fake, &mut space, index), Ok(Vmid(7)));
    assert_eq!((fake.free_frames(), tlb.vmids.get()), (free, Some(2)));
    // Without a VMID it does not come.
    let mut log = started(&fake, &mut space, logged);
    tlb.vmids.set(Some(0));
    let before = fake.contents();
    assert_eq!(attach(&mut log, &mut space), Err(AttachError::Space(SpaceError::OutOfVmids)));
    assert!(fake.contents() == before);
}

#[test]
fn view_whose_last_invalidation_fails_leaves_its_second_tree_and_vmid_out_of_use_alone() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    let (first, second) = (view(&space).other_tree().unwrap().root(), view(&space).view.tree.tables());
    *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout];
    take_trace();
    let gone = log.detach_view(&fake, &mut space, 0);
    assert_eq!(gone, Err(AttachError::View(ViewError::Dma(DmaTlbError::Timeout))));
    let trace = take_trace();
    assert!(trace.contains(&Event::Mark("a VMID out of use")) && trace.contains(&Event::Free(first)));
    assert_eq!(space.quarantined_frames(), second);
}

#[test]
fn view_of_which_the_smmu_forgot_neither_tree_leaves_both_out_of_use() {
    let (fake, tlb) = (Fake::new(64), tlb());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    // The SMMU falls silent in the stop, when streams are to go back, and is silent still when the view goes.
    *tlb.failures.borrow_mut() = vec![DmaTlbError::Timeout; 8];
    let mut step = 0;
    let ended = loop {
        match log.stop(&fake, &mut space, step) {
            Ok(Progress::More(next)) => step = next,
            ended => break ended,
        }
    };
    assert_eq!(ended, Err(LogError::Untrusted));
    let stopped = space.quarantined_frames();
    let trees = view(&space).view.tree.tables() + view(&space).other_tree().unwrap().tables();
    let gone = log.detach_view(&fake, &mut space, 0);
    assert_eq!(gone, Err(AttachError::View(ViewError::Dma(DmaTlbError::Timeout))));
    assert_eq!(space.quarantined_frames(), stopped + trees);
}
