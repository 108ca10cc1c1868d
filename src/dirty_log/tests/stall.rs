//! Stalled writes: their order, what is denied, and streams that do not stall.

use super::*;
use crate::addr::StreamId;
use crate::dirty_log::StallAnswer;
use crate::hw::{ResumeError, Stall};

const S2_IPA: Event = Event::Mark("S2_IPA + CMD_SYNC");
const RETRY: Event = Event::Mark("CMD_RESUME(retry)");
const ABORT: Event = Event::Mark("CMD_RESUME(abort)");

/// A write to `ipa` that stage 2 did not permit.
fn write(ipa: u64) -> Stall {
    Stall { stream: StreamId(8), stag: 3, write: Some(Ipa(ipa)) }
}

fn answer(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, stall: &Stall) -> Result<StallAnswer, ResumeError> {
    space.answer_stall(fake, space.dma_view(0).unwrap(), stall)
}

/// The descriptor of a device's access to `ipa`.
fn leaf(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, ipa: u64) -> (Pa, u64) {
    let slot = space.dma_view(0).unwrap().view.tree.walk(fake, Ipa(ipa)).0;
    (slot.pa, fake.read(slot.pa))
}

#[test]
fn a_stalled_write_is_recorded_then_permitted_then_invalidated_then_tried_again() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    let (pa, clean) = leaf(&fake, &space, RAM + 0x3000);
    assert_eq!(clean, 0x0008_0000_8000_377f);
    assert_eq!(answer(&fake, &space, &write(RAM + 0x3000)), Ok(StallAnswer::Recorded));
    let trace = take_trace();
    let swap = Event::Swap(pa, clean, clean | S2AP_WRITE);
    // The log's bit is an atomic OR into EL2's bitmap.
    assert!(matches!(trace[0], Event::Or(_, 0x8)), "{trace:?}");
    assert_eq!(trace[1..], [swap, S2_IPA, RETRY]);
    assert_eq!(tlb.last_range.get(), Some(range(RAM + 0x3000, 0x1000)));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![3]));
    assert_eq!(leaf(&fake, &space, RAM + 0x3000).1, clean);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
}

#[test]
fn a_stalled_write_whose_page_is_writable_already_is_invalidated_all_the_same() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let _log = started(&fake, &mut space, range(RAM, 8 * M));
    for _ in 0..2 {
        assert_eq!(answer(&fake, &space, &write(RAM)), Ok(StallAnswer::Recorded));
    }
    let trace = take_trace();
    assert_eq!(trace[trace.len() - 3..], [trace[0], S2_IPA, RETRY]);
}

#[test]
fn what_devices_may_not_do_is_terminated_with_an_abort_and_not_recorded() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    let fault = Stall { write: None, ..write(RAM) };
    for stall in [fault, write(RAM + 8 * M), write(0x0809_0000), write(1 << 40), write(u64::MAX)] {
        assert_eq!(answer(&fake, &space, &stall), Ok(StallAnswer::Aborted), "{stall:?}");
        assert_eq!(take_trace(), [ABORT], "{stall:?}");
    }
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
}

#[test]
fn a_write_that_is_still_stalled_when_the_log_stops_is_tried_again() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    stop(&mut log, &fake, &mut space);
    take_trace();
    assert_eq!(answer(&fake, &space, &write(RAM)), Ok(StallAnswer::Recorded));
    assert_eq!(take_trace(), [S2_IPA, RETRY]);
}

#[test]
fn a_write_that_finds_its_block_not_yet_split_by_a_start_counts_as_a_page() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let (all, mut log, mut step) = (range(RAM, 8 * M), DirtyLog::new(CpuTier::Hardware), 0);
    while space.ledger.is_none() {
        let Progress::More(next) = log.start(&fake, &mut space, all, step).unwrap() else { unreachable!() };
        step = next;
    }
    assert_eq!(space.dma_view(0).unwrap().view.tree.leaves().pages_4k, 1, "the doorbell");
    assert_eq!(answer(&fake, &space, &write(RAM + 0x3000)), Ok(StallAnswer::Recorded));
    ends_from(&mut log, &fake, &mut space, all, step).unwrap();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![3]));
}

#[test]
fn an_invalidation_that_does_not_complete_leaves_the_transaction_unanswered_and_the_log_right() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let error = ResumeError { error: DmaTlbError::Timeout, issued: false };
    assert_eq!(answer(&fake, &space, &write(RAM)), Err(error));
    assert_eq!(take_trace().last(), Some(&S2_IPA));
    assert_eq!(answer(&fake, &space, &write(RAM)), Ok(StallAnswer::Recorded));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![0]));
}

#[test]
fn a_sync_of_a_stall_view_asks_for_no_updates_and_invalidates_what_it_cleaned() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    answer(&fake, &space, &write(RAM + 0x5000)).unwrap();
    take_trace();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![5]));
    let marks: Vec<Event> = take_trace().into_iter().filter(|e| matches!(e, Event::Mark(_))).collect();
    assert_eq!(marks, [S2_IPA]);
}

#[test]
fn a_clean_of_a_stall_view_reaches_a_walker_that_is_not_coherent_line_by_line() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    space.dma[0].as_mut().unwrap().view.walker.coherent = false;
    for page in [0, 1, 7, 8, 512] {
        let ipa = RAM + page * 0x1000;
        take_trace();
        answer(&fake, &space, &write(ipa)).unwrap();
        let trace = take_trace();
        let line = Event::Clean(Pa(leaf(&fake, &space, ipa).0.0 & !63), 64);
        assert_eq!(trace[2..], [line, S2_IPA, RETRY]);
    }
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), [0, 1, 7, 8, 512]);
    let trace = take_trace();
    let lines = [0, 8, 512].map(|page| Event::Clean(leaf(&fake, &space, RAM + page * 0x1000).0, 64));
    let cleans: Vec<Event> = trace.iter().copied().filter(|e| matches!(e, Event::Clean(..))).collect();
    assert_eq!(cleans, lines);
    let last_clean = trace.iter().rposition(|e| *e == lines[2]).unwrap();
    assert!(trace.iter().position(|e| *e == S2_IPA).unwrap() > last_clean);
}

#[test]
fn a_log_is_untrusted_once_a_write_that_should_have_stalled_was_terminated() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Stall);
    let logged = range(RAM, 4 * M);
    let mut log = started(&fake, &mut space, logged);
    let terminated = |ipa| space.write_terminated(&fake, space.dma_view(0).unwrap(), Ipa(ipa));
    // Not logged; not mapped; no address.
    assert!(!terminated(RAM + 6 * M) && !terminated(0x1000) && !terminated(u64::MAX));
    assert_eq!(sync(&mut log, &fake, &space, logged, DMA), Ok(vec![]));
    assert!(terminated(RAM + 0x3000));
    assert_eq!(sync(&mut log, &fake, &space, logged, DMA), Err(LogError::Untrusted));
    assert_eq!(log.state(), LogState::Untrusted);
}

#[test]
fn a_terminated_write_through_a_view_of_another_tier_says_nothing_of_the_log() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let _log = started(&fake, &mut space, range(RAM, 8 * M));
    assert!(!space.write_terminated(&fake, space.dma_view(0).unwrap(), Ipa(RAM)));
}
