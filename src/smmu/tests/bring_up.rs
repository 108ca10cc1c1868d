//! Bring-up: from what firmware left to translation with every stream aborting.

use super::*;
use crate::fake::Event::{Barrier, Clean, Fill, Free, Register};
use crate::fake::{Event, record};
use crate::frames::Frames;
use crate::hw::Barrier::{DsbSt, DsbSy};
use crate::smmu::spec::pages::Register32;
use crate::smmu::{SmmuError, Unsupported};

fn store(pa: Pa, value: u64) -> Event {
    Event::Store(pa, value)
}

/// The values written to `offset`, in order.
fn writes(trace: &[Event], offset: usize) -> Vec<u64> {
    let value = |event: &Event| match event {
        Register(at, value) if *at == offset => Some(*value),
        _ => None,
    };
    trace.iter().filter_map(value).collect()
}

fn bring_up_trace(hardware: &FakeSmmu<'_>, memory: &Fake) -> Vec<Event> {
    take_trace();
    Smmu::new(memory, hardware, &small_options()).unwrap();
    take_trace()
}

#[test]
fn bring_up_aborts_traffic_first_and_translates_last() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let expected = [
        // GBPA: what it was, ABORT, UPDATE.
        Register(0x44, 0x8010_1000),
        Barrier(DsbSt),
        Register(0x20, 0x0),
        Register(0x50, 0x0),
        Fill(STREAM_TABLE, 512),
        Barrier(DsbSt),
        // CR1: write-back, inner shareable. CR2: RECINVSID.
        Register(0x28, 0xd75),
        Register(0x2c, 0x2),
        // STRTAB_BASE with RA; two levels, split 6, 8 bits.
        Register(0x80, 0x4000_0001_4000_0000),
        Register(0x88, 0x1_0188),
        Register(0x90, 0x4000_0001_4000_1008),
        Register(0x98, 0),
        Register(0x9c, 0),
        Register(0xa0, 0x4000_0001_4000_2002),
        Register(0x1_00a8, 0),
        Register(0x1_00ac, 0),
        // CMDQEN.
        Barrier(DsbSt),
        Register(0x20, 0x8),
        // CFGI_ALL, TLBI_NSNH_ALL, SYNC.
        store(COMMAND_QUEUE, 0x04),
        store(COMMAND_QUEUE.offset(0x08), 0x1f),
        store(COMMAND_QUEUE.offset(0x10), 0x30),
        store(COMMAND_QUEUE.offset(0x18), 0),
        store(COMMAND_QUEUE.offset(0x20), 0x46),
        store(COMMAND_QUEUE.offset(0x28), 0),
        Barrier(DsbSt),
        Register(0x98, 3),
        // Interrupts of the Event queue and of global errors, then EVENTQEN, then SMMUEN.
        Register(0x50, 0x5),
        Barrier(DsbSt),
        Register(0x20, 0xc),
        Barrier(DsbSt),
        Register(0x20, 0xd),
    ];
    assert_eq!(bring_up_trace(&hardware, &memory), expected);
    assert_eq!(hardware.get(Register32::Cr0Ack), 0xd);
    assert_eq!(hardware.take_consumed(), [[0x04, 0x1f], [0x30, 0], [0x46, 0]]);
}

#[test]
fn bring_up_without_coherency_cleans_before_it_publishes() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).not_coherent();
    let trace = bring_up_trace(&hardware, &memory);
    // Non-cacheable, outer shareable.
    assert_eq!(writes(&trace, 0x28), [0x820]);
    assert!(!trace.contains(&Barrier(DsbSt)), "a DSB of stores does not complete a clean");
    let order = [
        Fill(STREAM_TABLE, 512),
        Clean(STREAM_TABLE, 4096),
        Barrier(DsbSy),
        Register(0x80, 0x4000_0001_4000_0000),
        Clean(EVENT_QUEUE, 128),
        Register(0x1_00ac, 0),
        Barrier(DsbSy),
        Register(0x20, 0x8),
        store(COMMAND_QUEUE.offset(0x28), 0),
        Clean(COMMAND_QUEUE, 48),
        Barrier(DsbSy),
        Register(0x98, 3),
    ];
    let mut rest = trace.iter();
    for event in order {
        assert!(rest.any(|e| *e == event), "{event:?} is missing, or too early, in {trace:?}");
    }
}

#[test]
fn smmu_left_on_by_firmware_is_turned_off_before_it_is_set_up() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory)
        .with(Register32::Cr0, 0xd)
        .with(Register32::Cr0Ack, 0xd)
        .with(Register32::IrqCtrl, 5);
    // The fake panics at a guarded register written while its enable is on.
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(trace[0], Register(0x44, 0x8010_1000));
    assert_eq!(writes(&trace, 0x20), [0x0, 0x8, 0xc, 0xd]);
    assert_eq!(writes(&trace, 0x50), [0x0, 0x5]);
}

#[test]
fn update_of_gbpa_under_way_is_waited_for() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Gbpa, 0x8000_1000);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(writes(&trace, 0x44), [0x8010_1000]);
}

#[test]
fn ats_is_checked_from_the_first_write_on() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d44_141b);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(writes(&trace, 0x20), [0x10, 0x18, 0x1c, 0x1d]);
}

#[test]
fn broadcast_maintenance_is_not_taken_part_in() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d44_103b);
    assert_eq!(writes(&bring_up_trace(&hardware, &memory), 0x2c), [0x6]);
}

#[test]
fn el2_entries_are_invalidated_only_where_they_exist() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d44_121b);
    bring_up_trace(&hardware, &memory);
    assert_eq!(hardware.take_consumed(), [[0x04, 0x1f], [0x20, 0], [0x30, 0], [0x46, 0]]);
}

#[test]
fn message_addresses_are_zeroed_while_interrupts_are_off() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d44_301b);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!((writes(&trace, 0x68), writes(&trace, 0xb0)), (vec![0], vec![0]));
}

#[test]
fn errors_firmware_left_active_are_acknowledged_before_the_queue_is_on() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Gerror, 0x5).with(Register32::Gerrorn, 0x104);
    hardware.raise_global_errors(0);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(writes(&trace, 0x64), [0x5]);
    let acknowledged = trace.iter().position(|e| *e == Register(0x64, 0x5));
    assert!(acknowledged < trace.iter().position(|e| *e == Register(0x20, 0x8)));
}

#[test]
fn linear_table_serves_where_streams_are_few() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr1, 0x0273_0006);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(writes(&trace, 0x88), [0x0_0006]);
    assert!(trace.contains(&Fill(STREAM_TABLE, 512)));
}

#[test]
fn linear_table_serves_where_there_is_no_other() {
    let memory = Fake::new(16);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0544_101b);
    let trace = bring_up_trace(&hardware, &memory);
    // 256 STEs: four frames, aligned to their size.
    assert_eq!((writes(&trace, 0x88), writes(&trace, 0x80)), (vec![0x8], vec![0x4000_0001_4000_0000]));
    assert!(trace.contains(&Fill(STREAM_TABLE.offset(0x3000), 512)));
}

#[test]
fn queues_are_no_larger_than_the_smmu_takes() {
    let memory = Fake::new(8);
    // CMDQS=3, EVENTQS=1.
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr1, 0x0061_0010);
    let trace = bring_up_trace(&hardware, &memory);
    assert_eq!(writes(&trace, 0x90), [0x4000_0001_4000_1003]);
    assert_eq!(writes(&trace, 0xa0), [0x4000_0001_4000_2001]);
}

#[test]
fn smmu_without_stage_2_is_refused_untouched() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d44_101a);
    let error = Smmu::new(&memory, &hardware, &small_options()).err();
    assert_eq!(error, Some(SmmuError::Unsupported(Unsupported::Stage2(0x0d44_101a))));
    assert_eq!(take_trace(), []);
}

#[test]
fn smmu_that_does_not_answer_is_given_up_in_time() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    hardware.set_dead(true);
    let error = Smmu::new(&memory, &hardware, &small_options()).err();
    let expected =
        SmmuError::Register { register: Register32::Gbpa, found: 0x8010_0000, expected: 0x0010_0000 };
    assert_eq!(error, Some(expected));
    assert_eq!(memory.free_frames(), 8);
}

#[test]
fn frames_are_given_back_where_they_do_not_suffice() {
    let memory = Fake::new(2);
    let hardware = FakeSmmu::new(&memory);
    let error = Smmu::new(&memory, &hardware, &small_options()).err();
    assert_eq!(error, Some(SmmuError::OutOfFrames { order: 0 }));
    assert_eq!(memory.free_frames(), 2);
    assert_eq!(hardware.get(Register32::Cr0), 0);
    let freed = take_trace().into_iter().filter(|e| matches!(e, Free(_))).count();
    assert_eq!(freed, 2);
}

#[test]
fn disabled_smmu_aborts_and_still_takes_commands() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.disable().unwrap();
    record(Event::Mark("disabled"));
    assert_eq!(
        take_trace(),
        [Register(0x44, 0x8010_1000), Barrier(DsbSt), Register(0x20, 0xc), Event::Mark("disabled")]
    );
    assert_eq!(smmu.alloc_vmid(), Ok(Vmid(1)));
}

#[test]
fn statistics_count_bring_up() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let statistics = up(&memory, &hardware).statistics();
    assert_eq!((statistics.commands, statistics.cfgi, statistics.syncs), (3, 1, 1));
    assert_eq!(
        (statistics.tlbi_vmall, statistics.tlbi_ipa, statistics.events, statistics.errors),
        (0, 0, 0, 0)
    );
}

/// Frames that bring-up takes with queues of `2^command_bits` commands and `2^event_bits` records.
fn frames_taken(command_bits: u32, event_bits: u32) -> usize {
    let memory = Fake::new(64);
    let hardware = FakeSmmu::new(&memory);
    let free = memory.free_frames();
    let options =
        Options { command_queue_bits: command_bits, event_queue_bits: event_bits, ..small_options() };
    let _smmu = Smmu::new(&memory, &hardware, &options).unwrap();
    free - memory.free_frames()
}

#[test]
fn queues_take_the_frames_their_entries_need() {
    // The stream table, commands of 16 bytes, records of 32: 256 and 128 of them to a frame.
    assert_eq!(frames_taken(8, 7), 3);
    assert_eq!(frames_taken(10, 7), 1 + 4 + 1);
    assert_eq!(frames_taken(8, 10), 1 + 1 + 8);
}

#[test]
fn stream_table_takes_the_frames_its_first_level_needs() {
    let taken = |idr0, stream_bits| {
        let memory = Fake::new(128);
        let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, idr0);
        let free = memory.free_frames();
        let _smmu = Smmu::new(&memory, &hardware, &Options { stream_bits, ..small_options() }).unwrap();
        // A frame for each queue.
        free - memory.free_frames() - 2
    };
    // Two levels: 2^(bits - 6) descriptors of 8 bytes.
    assert_eq!(taken(0x0d44_101b, 8), 1);
    assert_eq!(taken(0x0d44_101b, 16), 2);
    // Linear: STEs of 64 bytes.
    assert_eq!(taken(0x0544_101b, 6), 1);
    assert_eq!(taken(0x0544_101b, 8), 4);
    assert_eq!(taken(0x0544_101b, 10), 16);
}

#[test]
fn frames_that_the_smmu_cannot_reach_are_refused_by_address_and_given_back() {
    let memory = Fake::new(8);
    // IDR5.OAS: 32 bits.
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr5, 0x70);
    let error = Smmu::new(&memory, &hardware, &small_options()).err();
    assert_eq!(error, Some(SmmuError::FrameOutOfReach { pa: Fake::BASE, bits: 32 }));
    assert_eq!(memory.free_frames(), 8);
}

#[test]
fn a_driver_is_told_from_another_by_what_its_smmu_can_do() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = Smmu::new(&memory, &hardware, &small_options()).unwrap();
    assert!(format!("{smmu:?}").starts_with("Smmu { features: Features { minor_version: 1,"));
}
