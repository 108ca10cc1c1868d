//! Starts and stops in steps: what a step may take, what is undone, and what a caller that has lost its step does.

use super::*;
use crate::hw::SizeChange;

#[test]
#[cfg_attr(miri, ignore = "many GiB take Miri too long")]
fn no_step_of_a_start_or_stop_grows_with_the_range() {
    steps_are_bounded(&FakeTlb::default(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "many GiB take Miri too long")]
fn no_step_with_a_second_tree_grows_with_the_range() {
    let tlb = FakeTlb::default();
    tlb.size_change.set(Some(SizeChange::Never));
    tlb.vmids.set(Some(1));
    // Its root, and the two tables over the doorbell.
    steps_are_bounded(&tlb, 3);
}

/// Starts and stops a log of 32 GiB behind `tlb`, which fills `more` tables than are split.
fn steps_are_bounded(tlb: &FakeTlb, more: usize) {
    let fake = Fake::new(36_000);
    let mut space = space(&fake, tlb, 32 * G, DmaTier::Hardware);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let (mut log, all) = (DirtyLog::new(CpuTier::Hardware), range(RAM, 32 * G));
    // One step: what is filled is one table or one frame of a bitmap, each with a window for interrupts.
    let most = |trace: &[Event], what: fn(&Event) -> bool| {
        let count = trace.iter().filter(|e| what(e)).count();
        assert!(count <= 1200, "{count}");
        count
    };
    let (mut step, mut fills, mut frees, mut steps) = (0, 0, 0, 0);
    take_trace();
    while let Progress::More(next) = log.start(&fake, &mut space, all, step).unwrap() {
        fills += most(&take_trace(), |e| matches!(e, Event::Fill(..)));
        (step, steps) = (next, steps + 1);
    }
    // Two views of 32 trees of 513 tables, two bitmaps of 256 frames.
    assert_eq!(fills, 2 * 32 * 513 + 2 * 256 + more);
    assert!(steps > 64, "{steps}");
    assert_eq!(log.statistics().blocks_split, 2 * 32);
    step = 0;
    while let Progress::More(next) = log.stop(&fake, &mut space, step).unwrap() {
        frees += most(&take_trace(), |e| matches!(e, Event::Free(_)));
        step = next;
    }
    frees += take_trace().iter().filter(|e| matches!(e, Event::Free(_))).count();
    // 32 in the CPU's view; a second tree is dropped, not merged.
    let merged = if more == 0 { 2 * 32 } else { 32 };
    assert_eq!(log.statistics().blocks_merged, merged);
    assert!(frees >= 2 * 32 * 513, "{frees}");
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
}

#[test]
#[cfg_attr(miri, ignore = "many GiB take Miri too long")]
fn a_large_start_that_lacks_frames_says_so_after_counting_and_has_changed_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 16 * G, DmaTier::Hardware);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let (mut log, all) = (DirtyLog::new(CpuTier::Hardware), range(RAM, 16 * G));
    take_trace();
    assert_eq!(log.start(&fake, &mut space, all, 0), Ok(Progress::More(1)));
    assert_eq!((log.state(), log.range()), (LogState::Starting, Some(all)));
    let taken = Region { range: range(RAM, M), pa: Pa(0x9000_0000), reach: Reach::Ram };
    assert_eq!(space.map(&fake, taken), Err(SpaceError::Changing(taken.range)));
    let Err(LogError::OutOfFrames(lack)) = ends_from(&mut log, &fake, &mut space, all, 1) else { panic!() };
    // For each view 16 trees of 513 tables and a list; two bitmaps of 128 frames.
    assert_eq!(lack.needed, 2 * (16 * 513 + 1) + 2 * 128);
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
    assert_eq!((take_trace(), log.state()), (vec![], LogState::Off));
    assert_eq!(space.map(&fake, taken), Err(SpaceError::Map(MapError::AlreadyMapped(Ipa(RAM)))));
}

#[test]
fn a_start_that_is_given_up_while_it_counts_or_empties_bitmaps_has_taken_nothing() {
    for steps in 0..3 {
        let (fake, tlb) = (Fake::new(64), FakeTlb::default());
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
        let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
        let (mut log, all) = (DirtyLog::new(CpuTier::Hardware), range(RAM, 8 * M));
        let mut step = 0;
        for _ in 0..=steps {
            if let Progress::More(next) = log.start(&fake, &mut space, all, step).unwrap() {
                step = next;
            }
        }
        stop(&mut log, &fake, &mut space);
        assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
        assert_eq!((log.state(), log.range()), (LogState::Off, None));
        assert!(space.unmap(&fake, all).is_ok());
    }
}

#[test]
fn a_start_whose_undoing_waits_for_a_vcpu_goes_on_with_the_same_step() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let (mut log, all) = (DirtyLog::new(CpuTier::Hardware), range(RAM, 8 * M));
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let mut step = 0;
    while log.state() != LogState::Stopping {
        match log.start(&fake, &mut space, all, step) {
            Ok(Progress::More(next)) => step = next,
            held => assert_eq!(held, Err(LogError::NotHeld)),
        }
        // Once the CPU view is split no vCPU stops any more.
        let split = space.cpu_view().tree.leaves().pages_4k > 0;
        fake.hold_result.set(if split { Err(HoldTimeout) } else { Ok(()) });
    }
    assert_eq!(log.state(), LogState::Stopping);
    assert_eq!(log.start(&fake, &mut space, all, step), Err(LogError::NotHeld));
    let other = range(RAM, 2 * M);
    assert_eq!(
        log.start(&fake, &mut space, other, step),
        Err(LogError::Changing),
        "not the one that is undone"
    );
    fake.hold_result.set(Ok(()));
    let ended = ends_from(&mut log, &fake, &mut space, all, step);
    assert_eq!(ended, Err(LogError::Abandoned(ViewError::Dma(DmaTlbError::Timeout))));
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_stop_whose_step_was_lost_goes_on_from_zero() {
    let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Assume);
    let mut log = started(&fake, &mut space, range(RAM, G));
    let Progress::More(step) = log.stop(&fake, &mut space, 0).unwrap() else {
        panic!("it has more than one step")
    };
    assert_eq!(log.stop(&fake, &mut space, step + 1), Err(LogError::OutOfStep(step)));
    while log.stop(&fake, &mut space, 0).unwrap() != Progress::Done {}
    assert_eq!((log.state(), space.cpu_view().tree.leaves().blocks_1g), (LogState::Off, 1));
}

#[test]
fn a_stop_that_cannot_hold_a_vcpu_is_still_under_way_and_ends_later() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    fake.hold_result.set(Err(HoldTimeout));
    assert_eq!(log.stop(&fake, &mut space, 0), Err(LogError::NotHeld));
    assert_eq!(log.state(), LogState::Stopping);
    fake.hold_result.set(Ok(()));
    while log.stop(&fake, &mut space, 0).unwrap() != Progress::Done {}
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn an_abandoned_start_is_rolled_back_by_stop() {
    let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Assume);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let mut step = 0;
    for _ in 0..2 {
        let Progress::More(next) = log.start(&fake, &mut space, range(RAM, G), step).unwrap() else { break };
        step = next;
    }
    assert_eq!(log.state(), LogState::Starting);
    stop(&mut log, &fake, &mut space);
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
    assert_eq!(log.state(), LogState::Off);
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_start_during_which_hardware_fails_is_undone() {
    let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let before = (space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames());
    let mut log = DirtyLog::new(CpuTier::Hardware);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let all = range(RAM, 8 * M);
    let error = ends(&mut log, &fake, &mut space, all);
    assert!(matches!(error, Err(LogError::Abandoned(_))), "{error:?}");
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);

    fake.hold_result.set(Err(HoldTimeout));
    let error = ends(&mut log, &fake, &mut space, all);
    assert!(matches!(error, Err(LogError::Abandoned(_))), "{error:?}");
    assert_eq!((space.cpu_view().tree.leaves(), space.dma_totals(), fake.free_frames()), before);
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_vm_that_ends_in_the_middle_of_a_stop_gives_every_frame_back() {
    for steps in 1..3 {
        let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
        let mut space = space(&fake, &tlb, G, DmaTier::Hardware);
        let mut log = started(&fake, &mut space, range(RAM, G));
        for step in 0..steps {
            assert_eq!(log.stop(&fake, &mut space, step), Ok(Progress::More(step + 1)));
        }
        log.dismantle(&fake);
        space.free(&fake);
        assert_eq!(fake.free_frames(), 1200, "after {steps} steps");
    }
}
