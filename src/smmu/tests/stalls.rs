//! Stalled transactions: kept, answered once, and ended with their stream.

use super::*;
use crate::addr::{Ipa, StreamId, Vmid};
use crate::fake::Event::Store;
use crate::hw::{DmaTlb, DmaTlbError, Resume, ResumeError, Scope, Stall, StallTlb};
use crate::smmu::spec::pages::Register32;
use crate::smmu::stall::CAPACITY;
use crate::smmu::{Errata, FaultKind, SmmuError, Stage2Error, StallQueue};

const STREAM: StreamId = StreamId(0x41);
/// IDR0 of QEMU's model but for STALL_MODEL, which is 0b00.
const STALLS: u32 = 0x0c44_101b;
const SYNC: [u64; 2] = [0x46, 0];

/// The record of a write to page `page` that stage 2 did not permit, stalled with tag `stag`.
const fn stalled(stream: StreamId, stag: u64, page: u64) -> [u64; 4] {
    [(stream.0 as u64) << 32 | 0x13, 0x0000_0280_8000_0000 | stag, page << 12, page << 12]
}

const fn retry(stream: u64, stag: u64) -> [u64; 2] {
    [stream << 32 | 0x1044, stag]
}

fn stalling(memory: &Fake) -> FakeSmmu<'_> {
    FakeSmmu::new(memory).with(Register32::Idr0, STALLS).with(Register32::Idr5, 0x0010_0074)
}

/// The stalled transactions of an SMMU with two streams that may stall; the commands of attaching them are forgotten.
fn with_streams<'s, 'm>(
    smmu: &'s Driver<'m>,
    hardware: &FakeSmmu<'_>,
) -> StallQueue<'s, 'm, Fake, &'m FakeSmmu<'m>> {
    let ste = smmu.stalling(smmu.view(&VIEW).unwrap()).unwrap();
    for stream in [STREAM, StreamId(8)] {
        smmu.attach(stream, &ste).unwrap();
    }
    hardware.take_consumed();
    StallQueue::new(smmu)
}

/// Answers all that waits with a retry: streams and tags.
fn retry_all(smmu: &Driver<'_>, queue: &mut StallQueue<'_, '_, Fake, &FakeSmmu<'_>>) -> Vec<(u32, u16)> {
    let mut answered = Vec::new();
    while let Some(result) = queue.answer_next(|stall| {
        answered.push((stall.stream.0, stall.stag));
        smmu.resume(stall, Resume::Retry)
    }) {
        result.unwrap();
    }
    answered
}

#[test]
fn stalled_writes_are_kept_and_everything_else_is_told() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    hardware.raise_event(stalled(STREAM, 7, 0x4_0000));
    hardware.raise_event([0x0000_0041_0000_0010, 0x0000_0280_8000_0008, 0x1000, 0x1000]);
    hardware.raise_event([0x0000_0041_0000_0013, 0x0000_0280_0000_0000, 0x2000, 0x2000]);
    let mut told = Vec::new();
    let drained = queue.take_in(|event| told.push((event.kind, event.stall)));
    assert_eq!((drained.records, drained.more, queue.len()), (3, false, 2));
    assert_eq!(told, [(FaultKind::Translation, Some(8)), (FaultKind::Permission, None)]);
    let mut seen = Vec::new();
    while let Some(result) = queue.answer_next(|stall| {
        seen.push(Stall { stream: stall.stream, ..*stall });
        Ok(())
    }) {
        result.unwrap();
    }
    let write = Some(Ipa(0x4000_0000));
    assert_eq!(
        seen,
        [Stall { stream: STREAM, stag: 7, write }, Stall { stream: STREAM, stag: 8, write: None }]
    );
}

#[test]
fn each_transaction_is_answered_once_and_the_answer_is_consumed() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    hardware.raise_event(stalled(STREAM, 0xbeef, 1));
    hardware.raise_event(stalled(StreamId(8), 1, 2));
    queue.take_in(|_| ());
    assert!(!queue.is_empty() && queue.len() == 2);
    assert_eq!(format!("{queue:?}"), "2 stalled transactions");
    assert_eq!(retry_all(&smmu, &mut queue), [(0x41, 0xbeef), (8, 1)]);
    assert_eq!(hardware.take_consumed(), [retry(0x41, 0xbeef), SYNC, retry(8, 1), SYNC]);
    queue.take_in(|_| ());
    assert!(queue.is_empty() && queue.answer_next(|_| Ok(())).is_none());
}

#[test]
fn answer_that_could_not_be_given_is_given_later_and_one_in_the_queue_never_again() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    for stag in 1..4 {
        hardware.raise_event(stalled(STREAM, stag, 1));
    }
    queue.take_in(|_| ());
    let answer = |queue: &mut StallQueue<'_, '_, _, _>| {
        queue.answer_next(|stall| smmu.resume(stall, Resume::Retry)).unwrap()
    };
    hardware.refuse(0x44, 2, 1);
    assert_eq!((answer(&mut queue), queue.len()), (Err(DmaTlbError::Command(2)), 3));
    // The CMD_SYNC behind it is refused: the answer itself was consumed.
    hardware.refuse(0x46, 3, 1);
    assert_eq!((answer(&mut queue), queue.len()), (Err(DmaTlbError::Command(3)), 2));
    hardware.set_dead(true);
    assert_eq!((answer(&mut queue), queue.len()), (Err(DmaTlbError::Timeout), 1), "in the queue");
    assert_eq!((answer(&mut queue), queue.len()), (Err(DmaTlbError::Timeout), 1), "not even written");
    hardware.catch_up();
    assert_eq!((answer(&mut queue), queue.len()), (Ok(()), 0));
    let resumed: Vec<u64> =
        hardware.take_consumed().iter().filter(|c| c[0] & 0xff == 0x44).map(|c| c[1]).collect();
    assert_eq!(resumed, [1, 2, 3]);
}

#[test]
fn record_without_room_stays_in_the_event_queue() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    for stag in 0..CAPACITY as u64 {
        hardware.raise_event(stalled(STREAM, stag, 1));
        queue.take_in(|_| ());
    }
    hardware.raise_event(stalled(STREAM, 0x100, 1));
    let drained = queue.take_in(|_| ());
    assert_eq!((drained.records, drained.more, queue.len()), (0, true, CAPACITY));
    queue.answer_next(|_| Ok(())).unwrap().unwrap();
    let drained = queue.take_in(|_| ());
    assert_eq!((drained.records, drained.more, queue.len()), (1, false, CAPACITY));
    assert_eq!(retry_all(&smmu, &mut queue).last(), Some(&(0x41, 0x100)));
}

#[test]
fn stream_that_is_taken_away_aborts_first_and_its_transactions_end_then() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    let entry = FIRST_LEVEL2.offset(0x40);
    assert_eq!(memory.read(entry.offset(16)), 0x066c_3559_0000_0005);
    hardware.raise_event(stalled(STREAM, 1, 1));
    hardware.raise_event(stalled(StreamId(8), 1, 2));
    queue.take_in(|_| ());
    hardware.raise_event(stalled(STREAM, 2, 1));
    hardware.raise_event([0x0000_0009_0000_0004, 0, 0, 0]);
    hardware.take_consumed();
    take_trace();
    let mut told = Vec::new();
    queue.detach(STREAM, |event| told.push(event.stream)).unwrap();
    assert_eq!(take_trace()[0], Store(entry, 1));
    let cfgi = [0x0000_0041_0000_0003, 1];
    assert_eq!(hardware.take_consumed(), [cfgi, SYNC, [0x0000_0041_0000_0045, 0], SYNC]);
    assert_eq!(told, [StreamId(9)]);
    assert_eq!(retry_all(&smmu, &mut queue), [(8, 1)]);
}

#[test]
fn full_queue_of_others_makes_room_for_a_stream_that_is_taken_away() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    for stag in 0..CAPACITY as u64 {
        hardware.raise_event(stalled(StreamId(8), stag, 1));
        queue.take_in(|_| ());
    }
    hardware.raise_event(stalled(StreamId(8), 0x100, 1));
    hardware.raise_event(stalled(STREAM, 2, 1));
    hardware.take_consumed();
    queue.detach(STREAM, |_| ()).unwrap();
    // Those that made room come back in records of their own.
    assert_eq!(hardware.take_consumed()[4..], [retry(8, 0), SYNC, retry(8, 1), SYNC]);
    let left = retry_all(&smmu, &mut queue);
    assert!(left.len() == CAPACITY - 1 && left.iter().all(|(stream, _)| *stream == 8));
    assert_eq!(queue.take_in(|_| ()).records, 0);
}

#[test]
fn stream_that_does_not_stall_is_taken_away_without_more_ado() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &smmu.view(&VIEW).unwrap()).unwrap();
    hardware.take_consumed();
    smmu.detach(STREAM).unwrap();
    assert_eq!(hardware.take_consumed(), [[0x0000_0041_0000_0003, 1], SYNC]);
}

#[test]
fn detach_that_fails_is_repeated_and_drops_what_it_must() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    hardware.raise_event(stalled(STREAM, 1, 1));
    queue.take_in(|_| ());
    hardware.raise_event(stalled(STREAM, 2, 1));
    hardware.refuse(0x45, 1, 1);
    assert!(matches!(queue.detach(STREAM, |_| ()), Err(SmmuError::Command(_))));
    // It aborts already: the answer to what is read of it now is the CMD_STALL_TERM that is still to come.
    assert_eq!((queue.take_in(|_| ()).records, queue.len()), (1, 0));
    hardware.raise_event(stalled(STREAM, 3, 1));
    hardware.take_consumed();
    queue.detach(STREAM, |_| ()).unwrap();
    assert!(hardware.take_consumed().contains(&[0x0000_0041_0000_0045, 0]));
    assert!(queue.is_empty() && queue.take_in(|_| ()).records == 0);
}

#[test]
fn smmu_that_never_stalls_has_no_stream_that_does() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let ste = smmu.view(&VIEW).unwrap();
    assert_eq!(smmu.stalling(ste), Err(SmmuError::Stage2(Stage2Error::Stall)));
}

#[test]
fn transaction_is_terminated_with_an_abort() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let stall = Stall { stream: STREAM, stag: 3, write: None };
    assert_eq!(smmu.resume(&stall, Resume::Abort), Ok::<(), ResumeError>(()));
    assert_eq!(hardware.take_consumed(), [[0x0000_0041_0000_2044, 3], SYNC]);
}

#[test]
fn part_that_owes_invalidations_twice_gets_each_answer_and_each_end_once() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up_with(&memory, &hardware, &Options { errata: Errata::REPEAT, ..small_options() });
    let mut queue = with_streams(&smmu, &hardware);
    let stall = Stall { stream: STREAM, stag: 7, write: Some(Ipa(0x4000_0000)) };
    smmu.resume(&stall, Resume::Retry).unwrap();
    assert_eq!(hardware.take_consumed(), [retry(0x41, 7), SYNC]);
    queue.detach(STREAM, |_| ()).unwrap();
    let (cfgi, stall_term) = ([0x0000_0041_0000_0003, 1], [0x0000_0041_0000_0045, 0]);
    assert_eq!(hardware.take_consumed(), [cfgi, SYNC, cfgi, SYNC, stall_term, SYNC]);
}

/// A transaction that waits.
const STALL: Stall = Stall { stream: STREAM, stag: 5, write: None };

/// Answers [`STALL`] while the SMMU is silent: the answer is in its queue.
fn answer_in_silence(smmu: &Driver<'_>, hardware: &FakeSmmu<'_>) {
    hardware.set_dead(true);
    let given = ResumeError { error: DmaTlbError::Timeout, issued: true };
    assert_eq!(smmu.resume(&STALL, Resume::Retry), Err(given));
}

/// Lets the SMMU catch up, and asks for nothing, until that succeeds.
fn settle(smmu: &Driver<'_>, hardware: &FakeSmmu<'_>) {
    let settled = (0..8).any(|_| {
        hardware.catch_up();
        smmu.sync().is_ok()
    });
    assert!(settled, "a bounded number of calls is enough");
}

fn answers(consumed: &[[u64; 2]]) -> Vec<u64> {
    consumed.iter().filter(|c| c[0] & 0xff == 0x44).map(|c| c[1]).collect()
}

#[test]
fn answer_that_is_dropped_when_a_silent_smmu_comes_back_is_given_again_before_anything_else() {
    // It is illegal, once; the queue could not be read.
    for code in [1, 2] {
        let memory = Fake::new(8);
        let hardware = stalling(&memory);
        let smmu = up(&memory, &hardware);
        hardware.take_consumed();
        answer_in_silence(&smmu, &hardware);
        hardware.refuse(0x44, code, 1);
        settle(&smmu, &hardware);
        assert_eq!(answers(&hardware.take_consumed()), [5], "CERROR {code}");
        smmu.sync().unwrap();
        assert_eq!(hardware.take_consumed(), [SYNC], "once");
    }
}

#[test]
fn answer_that_is_refused_again_and_again_does_not_keep_the_queue_from_work() {
    // Illegal, and a code that no specification has.
    for code in [1, 0x7f] {
        let memory = Fake::new(8);
        let hardware = stalling(&memory);
        let smmu = up(&memory, &hardware);
        answer_in_silence(&smmu, &hardware);
        hardware.refuse(0x44, code, 9);
        settle(&smmu, &hardware);
        hardware.take_consumed();
        smmu.sync().unwrap();
        assert_eq!(hardware.take_consumed(), [SYNC]);
    }
}

#[test]
fn answer_that_was_consumed_is_not_given_again_whatever_becomes_of_the_sync_behind_it() {
    // A queue of one command has the CMD_SYNC where the answer was.
    for bits in [0, 1, 4] {
        let options = Options { command_queue_bits: bits, ..small_options() };
        let memory = Fake::new(8);
        let hardware = stalling(&memory);
        let smmu = up_with(&memory, &hardware, &options);
        hardware.refuse(0x46, 2, 1);
        assert!(smmu.resume(&STALL, Resume::Retry).is_err_and(|error| error.issued), "{bits}");
        // The same, told after a time-out.
        hardware.refuse(0x46, 3, u32::MAX);
        let late = Stall { stag: 6, ..STALL };
        assert!(smmu.resume(&late, Resume::Retry).is_err_and(|error| error.issued), "{bits}");
        hardware.refuse(0x46, 2, 1);
        settle(&smmu, &hardware);
        assert_eq!(answers(&hardware.take_consumed()), [5, 6], "{bits}");
    }
}

#[test]
fn answer_that_is_owed_comes_before_the_end_of_its_stream_and_fails_nobody_else() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    answer_in_silence(&smmu, &hardware);
    hardware.refuse(0x44, 2, 1);
    hardware.catch_up();
    // It is withdrawn at interrupt time; then the CMD_SYNC behind it is refused once.
    smmu.handle_gerror();
    hardware.refuse(0x46, 3, 1);
    queue.detach(StreamId(8), |_| ()).unwrap();
    let opcodes: Vec<u64> = hardware.take_consumed().iter().map(|c| c[0] & 0xff).collect();
    assert_eq!(opcodes, [0x44, 0x46, 0x03, 0x46, 0x45, 0x46]);
    assert_eq!(smmu.quarantined().streams, 0);
}

#[test]
fn answer_that_is_owed_stays_owed_while_the_smmu_is_silent() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    hardware.take_consumed();
    answer_in_silence(&smmu, &hardware);
    hardware.refuse(0x44, 2, 1);
    hardware.catch_up();
    smmu.handle_gerror();
    // Given again, not consumed, and withdrawn once more.
    hardware.set_dead(true);
    smmu.sync().unwrap_err();
    hardware.refuse(0x44, 2, 1);
    settle(&smmu, &hardware);
    assert_eq!(answers(&hardware.take_consumed()), [5]);
}

/// An MMU-700 r1p0 with a queue of one command, behind which a batch has broken off: it consumed what is there.
fn broken_off<'a>(memory: &'a Fake, hardware: &'a FakeSmmu<'a>) -> Driver<'a> {
    let smmu = up(memory, hardware);
    hardware.set_dead(true);
    smmu.invalidate(Vmid(5), Scope::All).unwrap_err();
    hardware.catch_up();
    hardware.take_consumed();
    smmu
}

fn mmu_700(memory: &Fake) -> FakeSmmu<'_> {
    stalling(memory).with(Register32::Iidr, 0x4871_043b).with(Register32::Idr1, 0x0013_0010)
}

#[test]
fn answer_that_finds_no_room_in_the_queue_is_not_given() {
    let memory = Fake::new(8);
    let hardware = mmu_700(&memory);
    let smmu = broken_off(&memory, &hardware);
    hardware.set_dead(true);
    // A CMD_SYNC has to stand before it, and nothing takes that out of its way.
    assert!(smmu.resume(&STALL, Resume::Retry).is_err_and(|error| !error.issued));
    settle(&smmu, &hardware);
    assert_eq!(answers(&hardware.take_consumed()), []);
    smmu.resume(&STALL, Resume::Retry).unwrap();
    assert_eq!(answers(&hardware.take_consumed()), [5]);
}

#[test]
fn batch_ends_where_the_sync_that_had_to_stand_in_it_is_withdrawn() {
    let memory = Fake::new(8);
    let hardware = mmu_700(&memory);
    let smmu = broken_off(&memory, &hardware);
    hardware.refuse(0x46, 2, 1);
    assert!(smmu.resume(&STALL, Resume::Retry).is_err_and(|error| !error.issued));
    smmu.resume(&STALL, Resume::Retry).unwrap();
    assert_eq!(hardware.take_consumed(), [SYNC, retry(0x41, 5), SYNC]);
}

#[test]
fn answer_that_is_owed_and_withdrawn_again_keeps_its_stream_from_its_end() {
    let memory = Fake::new(8);
    let hardware = stalling(&memory);
    let smmu = up(&memory, &hardware);
    let mut queue = with_streams(&smmu, &hardware);
    answer_in_silence(&smmu, &hardware);
    hardware.refuse(0x44, 2, 2);
    hardware.catch_up();
    smmu.handle_gerror();
    assert!(queue.detach(StreamId(8), |_| ()).is_err());
    assert!(hardware.take_consumed().is_empty(), "nothing goes before it");
    settle(&smmu, &hardware);
    assert_eq!(hardware.take_consumed()[0], retry(0x41, 5));
}

#[test]
fn answer_that_is_owed_stays_owed_where_it_cannot_even_be_written() {
    // No room, since nothing takes the CMD_SYNC out of its way; or that is refused, and then the queue is withdrawn.
    for silent in [true, false] {
        let memory = Fake::new(8);
        let hardware = mmu_700(&memory);
        let smmu = up(&memory, &hardware);
        hardware.take_consumed();
        answer_in_silence(&smmu, &hardware);
        hardware.refuse(0x44, 2, if silent { 1 } else { 2 });
        hardware.catch_up();
        smmu.handle_gerror();
        hardware.refuse(0x46, 1, u32::from(!silent));
        hardware.set_dead(silent);
        smmu.sync().unwrap_err();
        settle(&smmu, &hardware);
        assert_eq!(answers(&hardware.take_consumed()), [5], "{silent}");
    }
}
