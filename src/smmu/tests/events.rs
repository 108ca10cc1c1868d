//! The Event queue: records, wrap, overflow, order of accesses.

use super::*;
use crate::addr::StreamId;
use crate::fake::Event::{Barrier, Invalidate, Mark, Register};
use crate::fake::record;
use crate::hw::Barrier::DsbSy;
use crate::smmu::{Access, Drained, FaultKind};

/// An unmapped write by stream 8.
const WRITE: [u64; 4] = [0x0000_0008_0000_0010, 0x0000_0280_0000_0000, 0x9000_0004, 0x9000_0004];

fn numbered(stream: u64) -> [u64; 4] {
    [stream << 32 | 0x10, 0x0000_0280_0000_0000, 0, 0]
}

/// The streams of the records that are there.
fn drain(smmu: &Driver<'_>) -> (Vec<u32>, Drained) {
    let mut streams = Vec::new();
    let drained = smmu.drain_events(|event| streams.push(event.stream.0));
    (streams, drained)
}

#[test]
fn unmapped_write_is_reported_with_stream_address_and_direction() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.raise_event(WRITE);
    let mut events = Vec::new();
    let drained = smmu.drain_events(|event| events.push(*event));
    assert_eq!(drained, Drained { records: 1, overflowed: false, more: false });
    let event = events[0];
    assert_eq!((event.stream, event.kind), (StreamId(8), FaultKind::Translation));
    assert_eq!((event.address, event.access), (0x9000_0004, Some(Access::Write)));
    assert_eq!(smmu.statistics().events, 1);
}

#[test]
fn records_are_read_after_prod_and_before_cons_moves() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.raise_event(WRITE);
    smmu.drain_events(|_| record(Mark("record")));
    let expected = [Barrier(DsbSy), Mark("record"), Barrier(DsbSy), Register(0x1_00ac, 1)];
    assert_eq!(take_trace(), expected);
}

#[test]
fn stale_cache_lines_are_dropped_before_records_are_read() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).not_coherent();
    let smmu = up(&memory, &hardware);
    for stream in 0..3 {
        hardware.raise_event(numbered(stream));
    }
    drain(&smmu);
    for stream in 0..2 {
        hardware.raise_event(numbered(stream));
    }
    take_trace();
    smmu.drain_events(|_| record(Mark("record")));
    // The last entry, then the first: two lines apart.
    let expected = [
        Invalidate(EVENT_QUEUE.offset(0x60), 32),
        Invalidate(EVENT_QUEUE, 32),
        Barrier(DsbSy),
        Mark("record"),
        Mark("record"),
        Barrier(DsbSy),
        Register(0x1_00ac, 0x5),
    ];
    assert_eq!(take_trace(), expected);
}

#[test]
fn empty_queue_is_left_alone() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(drain(&smmu), (vec![], Drained::default()));
    assert_eq!(take_trace(), []);
}

#[test]
fn records_come_in_order_around_the_end_of_the_queue() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let mut next = 0;
    for count in [3, 4, 2, 4, 1] {
        let expected: Vec<u32> = (next..next + count).collect();
        expected.iter().for_each(|stream| hardware.raise_event(numbered((*stream).into())));
        next += count;
        let drained = Drained { records: count, overflowed: false, more: false };
        assert_eq!(drain(&smmu), (expected, drained));
    }
    assert_eq!(smmu.statistics().events, 14);
}

#[test]
fn overflow_is_counted_and_acknowledged() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    for stream in 0..6 {
        hardware.raise_event(numbered(stream));
    }
    let (streams, drained) = drain(&smmu);
    assert_eq!(streams, [0, 1, 2, 3]);
    assert_eq!(drained, Drained { records: 4, overflowed: true, more: false });
    // Index 4 is the wrap flag; OVACKFLG follows OVFLG.
    assert_eq!(take_trace().last(), Some(&Register(0x1_00ac, 0x8000_0004)));
    assert_eq!(smmu.statistics().events_lost, 1);
    for stream in 0..5 {
        hardware.raise_event(numbered(stream));
    }
    assert!(drain(&smmu).1.overflowed);
    assert_eq!(take_trace().last(), Some(&Register(0x1_00ac, 0)));
    assert_eq!(smmu.statistics().events_lost, 2);
    assert_eq!(drain(&smmu), (vec![], Drained::default()));
}

#[test]
fn records_that_come_while_draining_are_drained_too() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.raise_event(numbered(0));
    let mut streams = Vec::new();
    let drained = smmu.drain_events(|event| {
        if event.stream.0 < 2 {
            hardware.raise_event(numbered(u64::from(event.stream.0) + 1));
        }
        streams.push(event.stream.0);
    });
    assert_eq!(streams, [0, 1, 2]);
    assert_eq!(drained, Drained { records: 3, overflowed: false, more: false });
}

#[test]
fn device_that_never_stops_faulting_does_not_keep_the_driver() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.raise_event(WRITE);
    let drained = smmu.drain_events(|_| hardware.raise_event(WRITE));
    assert_eq!(drained, Drained { records: 4, overflowed: false, more: true });
}

#[test]
fn smmu_that_overflows_at_every_poll_does_not_keep_the_driver() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.overflow_for_ever();
    assert_eq!(drain(&smmu), (vec![], Drained { records: 0, overflowed: true, more: true }));
}
