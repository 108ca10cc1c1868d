//! Views that come and go while a log is on.

use super::*;
use crate::dirty_log::{AttachError, Weakening};

fn walker(tlb: &FakeTlb, vmid: u16) -> DmaWalker<'_, FakeTlb> {
    DmaWalker { tlb, vmid: Vmid(vmid), coherent: true }
}

#[test]
fn a_view_attached_under_a_log_enters_it_by_pages_and_dirty_and_leaves_by_blocks() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let free = fake.free_frames();
    let logged = range(RAM, 4 * M);
    let mut log = started(&fake, &mut space, logged);
    let tier = DmaTier::Hardware;
    let index = log.attach_view(&fake, &mut space, walker(&tlb, 7), tier, Weakening::Refused).unwrap();
    let leaves = space.dma[index].as_ref().unwrap().view.tree.leaves();
    assert_eq!(
        (leaves.pages_4k, leaves.blocks_2m),
        (1024 + 1, 2),
        "RAM in the log, the doorbell, RAM outside"
    );
    assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap().len(), 1024);
    assert_eq!(sync(&mut log, &fake, &space, logged, clearing(DMA)).unwrap(), []);
    stop(&mut log, &fake, &mut space);
    assert_eq!(space.dma[index].as_ref().unwrap().view.tree.leaves().blocks_2m, 4);
    assert_eq!(log.detach_view(&fake, &mut space, index), Ok(Vmid(7)));
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn a_device_that_would_weaken_the_log_is_refused_unless_the_caller_accepts() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    let before = (fake.free_frames(), space.dma_totals());
    let refused = log.attach_view(&fake, &mut space, walker(&tlb, 7), DmaTier::Assume, Weakening::Refused);
    assert_eq!(refused, Err(AttachError::Weaker(DmaTier::Assume)));
    assert_eq!((fake.free_frames(), space.dma_totals()), before);
    log.attach_view(&fake, &mut space, walker(&tlb, 7), DmaTier::Assume, Weakening::Accepted).unwrap();
    assert_eq!(log.tiers(&space).dma, DmaTier::Assume);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap().len(), 2048);
}

#[test]
fn a_view_of_a_tier_that_a_log_cannot_have_is_refused_whatever_the_caller_accepts() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    for (tier, error) in
        [(DmaTier::None, AttachError::NoTier(DmaTier::None)), (DmaTier::Digest, AttachError::NoKey)]
    {
        let free = fake.free_frames();
        let attached = log.attach_view(&fake, &mut space, walker(&tlb, 3), tier, Weakening::Accepted);
        assert_eq!((attached, fake.free_frames()), (Err(error), free));
    }
}

#[test]
fn a_view_is_read_once_more_between_its_last_invalidation_and_the_end_of_its_frames() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    device_writes(&fake, &space, RAM + 0x5000);
    let root = space.dma_views().next().unwrap().view.tree.root();
    take_trace();
    assert_eq!(log.detach_view(&fake, &mut space, 0), Ok(Vmid(2)));
    let trace = take_trace();
    let position = |wanted: &dyn Fn(&Event) -> bool| trace.iter().position(wanted).unwrap();
    let invalidated = position(&|e| *e == INVALIDATED);
    let ordered = position(&|e| *e == Event::Barrier(Barrier::DsbSy));
    let recorded = position(&|e| matches!(e, Event::Or(..)));
    let freed = position(&|e| *e == Event::Free(root));
    assert!(invalidated < ordered && ordered < recorded && recorded < freed, "{trace:?}");
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), [5]);
    assert_eq!(log.detach_view(&fake, &mut space, 0), Err(AttachError::NoSuchView(0)));
    stop(&mut log, &fake, &mut space);
}

#[test]
fn a_view_without_dirty_state_reports_all_it_could_write_once_when_it_leaves() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    log.detach_view(&fake, &mut space, 0).unwrap();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap().len(), 2048);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), []);
}

#[test]
fn what_the_last_invalidation_did_not_reach_is_never_given_back() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    take_trace();
    assert!(matches!(log.detach_view(&fake, &mut space, 0), Err(AttachError::View(_))));
    assert!(!take_trace().iter().any(|e| matches!(e, Event::Free(_))));
    assert_eq!(space.dma_tier(), DmaTier::None);
}

#[test]
fn a_log_of_which_a_view_is_lost_unread_is_untrusted_until_it_is_restarted() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    device_writes(&fake, &space, RAM);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    assert!(matches!(log.detach_view(&fake, &mut space, 0), Err(AttachError::View(_))));
    assert_eq!(log.state(), LogState::Untrusted);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Err(LogError::Untrusted));
    stop(&mut log, &fake, &mut space);
    let mut log = started(&fake, &mut space, all);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
}

#[test]
fn a_log_some_of_which_devices_reach_unmapped_is_untrusted_and_another_is_not() {
    for (logged, trusted) in [(range(RAM, M), false), (range(RAM + 8 * M, M), true)] {
        let (fake, tlb) = (Fake::new(256), FakeTlb::default());
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
        let more = Region { range: range(RAM + 8 * M, 8 * M), pa: Pa(0x9000_0000), reach: Reach::Ram };
        space.map(&fake, more).unwrap();
        let mut log = started(&fake, &mut space, logged);
        tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
        assert!(matches!(space.unmap(&fake, range(RAM, 8 * M)), Err(SpaceError::View(_))));
        let synced = sync(&mut log, &fake, &space, logged, clearing(CPU));
        assert_eq!(synced, if trusted { Ok(vec![]) } else { Err(LogError::Untrusted) });
        assert_eq!(log.state(), if trusted { LogState::On } else { LogState::Untrusted });
    }
}

#[test]
fn nothing_comes_or_goes_while_a_start_is_under_way() {
    let (fake, tlb) = (Fake::new(256), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    log.start(&fake, &mut space, range(RAM, 8 * M), 0).unwrap();
    let attached =
        log.attach_view(&fake, &mut space, walker(&tlb, 7), DmaTier::Hardware, Weakening::Accepted);
    assert_eq!(attached, Err(AttachError::Changing));
    assert_eq!(log.detach_view(&fake, &mut space, 0), Err(AttachError::Changing));
}

#[test]
fn each_refusal_of_a_view_says_what_to_do() {
    let told = |error: AttachError| error.to_string();
    assert_eq!(told(AttachError::Changing), "a start or stop of the log is under way: end it first");
    assert_eq!(
        told(AttachError::Weaker(DmaTier::Assume)),
        "the device would weaken the log that is on to 'assume': allow that"
    );
    assert_eq!(told(AttachError::NoTier(DmaTier::Stall)), "logging by tier 'stall' is not supported");
    assert_eq!(told(AttachError::NoKey), "logging by digests needs a key: give the log one");
    assert_eq!(told(AttachError::NoSuchView(3)), "there is no DMA view 3");
    let (space, view) = (SpaceError::TooManyViews, ViewError::HoldTimeout);
    assert_eq!(told(AttachError::Space(space)), space.to_string());
    assert_eq!(told(AttachError::View(view)), view.to_string());
}
