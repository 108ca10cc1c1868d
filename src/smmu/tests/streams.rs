//! The stream table: attach, detach, and what is refused.

use super::*;
use crate::addr::StreamId;
use crate::fake::Event;
use crate::fake::Event::{Barrier, Clean, Fill, Register, Store};
use crate::frames::Frames;
use crate::hw::Barrier::{DsbSt, DsbSy};
use crate::smmu::spec::pages::Register32;
use crate::smmu::{CommandError, Quarantined, SmmuError, Stage2Error, ViewSte};

const STREAM: StreamId = StreamId(0x41);
/// Level-1 descriptor 1, STE 1 of its table.
const DESCRIPTOR: Pa = Pa(0x1_4000_0008);
const STE: Pa = Pa(0x1_4000_3040);
/// Words 2 and 3 of the STE of [`VIEW`].
const STE2: u64 = 0x046c_3559_0000_0005;
const STE3: u64 = 0x4123_4000;

/// CMD_CFGI_STE of [`STREAM`] and CMD_SYNC, as consumed.
const CFGI: [u64; 2] = [0x0000_0041_0000_0003, 1];
const SYNC: [u64; 2] = [0x46, 0];

fn view(smmu: &Driver<'_>) -> ViewSte {
    smmu.view(&VIEW).unwrap()
}

/// The trace without what happens in the Command queue, but for the write index.
fn outside_command_queue(trace: Vec<Event>) -> Vec<Event> {
    let inside = |pa: &Pa| (COMMAND_QUEUE.0..EVENT_QUEUE.0).contains(&pa.0);
    trace.into_iter().filter(|e| !matches!(e, Store(pa, _) | Clean(pa, _) if inside(pa))).collect()
}

/// The stores of one batch of two commands at entry `index`.
fn batch(index: u64, first: [u64; 2]) -> [Event; 6] {
    let entry = COMMAND_QUEUE.offset(index * 16);
    [
        Store(entry, first[0]),
        Store(entry.offset(8), first[1]),
        Store(entry.offset(16), 0x46),
        Store(entry.offset(24), 0),
        Barrier(DsbSt),
        Register(0x98, index + 2),
    ]
}

#[test]
fn ste_is_installed_as_section_3_21_3_1_says() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    // Makes the level-2 table.
    smmu.attach(StreamId(0x40), &view(&smmu)).unwrap();
    let next = u64::from(hardware.get(Register32::CmdqProd));
    take_trace();
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    let mut expected = vec![
        // The body, while V=0.
        Store(STE, 0),
        Store(STE.offset(0x08), 0),
        Store(STE.offset(0x10), STE2),
        Store(STE.offset(0x18), STE3),
        Store(STE.offset(0x20), 0),
        Store(STE.offset(0x28), 0),
        Store(STE.offset(0x30), 0),
        Store(STE.offset(0x38), 0),
        Barrier(DsbSt),
    ];
    expected.extend(batch(next, CFGI));
    // V=1, Config=0b110, by one store.
    expected.extend([Store(STE, 0xd), Barrier(DsbSt)]);
    expected.extend(batch(next + 2, CFGI));
    assert_eq!(take_trace(), expected);
}

#[test]
fn each_step_of_an_install_is_complete_before_the_next() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    let level1 = [0x0000_0041_0000_0003, 0];
    assert_eq!(hardware.take_consumed(), [level1, SYNC, CFGI, SYNC, CFGI, SYNC]);
}

#[test]
fn ste_is_removed_by_one_store() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    let next = u64::from(hardware.get(Register32::CmdqProd));
    take_trace();
    smmu.detach(STREAM).unwrap();
    // V=1, Config=0b000.
    let mut expected = vec![Store(STE, 0x1), Barrier(DsbSt)];
    expected.extend(batch(next, CFGI));
    assert_eq!(take_trace(), expected);
}

#[test]
fn level_2_table_is_made_and_visible_before_it_is_linked() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    // Span=7: 2^6 STEs. The descriptor is invalidated with Leaf=0.
    let mut expected =
        vec![Fill(FIRST_LEVEL2, 512), Barrier(DsbSt), Store(DESCRIPTOR, 0x1_4000_3007), Barrier(DsbSt)];
    expected.extend(batch(3, [0x0000_0041_0000_0003, 0]));
    let trace = take_trace();
    assert_eq!(trace[..expected.len()], expected);
}

#[test]
fn without_coherency_everything_is_cleaned_before_what_leads_to_it() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).not_coherent();
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    smmu.detach(STREAM).unwrap();
    let mut expected = vec![
        Fill(FIRST_LEVEL2, 512),
        Clean(FIRST_LEVEL2, 4096),
        Barrier(DsbSy),
        Store(DESCRIPTOR, 0x1_4000_3007),
        Clean(DESCRIPTOR, 8),
        Barrier(DsbSy),
        Barrier(DsbSy),
        Register(0x98, 5),
    ];
    expected.extend((0..8).map(|i| {
        // Walks are not cacheable either: IR0=OR0=0, SH0=0b10.
        Store(STE.offset(i * 8), [0, 0, 0x046c_2059_0000_0005, STE3, 0, 0, 0, 0][i as usize])
    }));
    for (word0, prod) in [(None, 7), (Some(0xd), 9), (Some(0x1), 11)] {
        expected.extend(word0.map(|value| Store(STE, value)));
        expected.extend([Clean(STE, 64), Barrier(DsbSy), Barrier(DsbSy), Register(0x98, prod)]);
    }
    assert_eq!(outside_command_queue(take_trace()), expected);
}

#[test]
fn linear_table_needs_no_second_level() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &Options { stream_bits: 6, ..small_options() });
    smmu.attach(StreamId(0x3f), &view(&smmu)).unwrap();
    assert_eq!(memory.read(STREAM_TABLE.offset(0x3f * 64)), 0xd);
    assert_eq!(memory.free_frames(), 5);
}

#[test]
fn streams_of_one_group_share_a_level_2_table() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    for stream in 0x40..0x80 {
        smmu.attach(StreamId(stream), &view(&smmu)).unwrap();
    }
    assert_eq!(memory.free_frames(), 4);
    smmu.attach(StreamId(0x80), &view(&smmu)).unwrap();
    assert_eq!(memory.free_frames(), 3);
    assert_eq!(memory.read(Pa(0x1_4000_0010)), 0x1_4000_4007);
}

#[test]
fn every_other_stream_still_aborts() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    for descriptor in [0, 2, 3] {
        assert_eq!(memory.read(STREAM_TABLE.offset(descriptor * 8)), 0);
    }
    let valid = (0..64).filter(|i| memory.read(FIRST_LEVEL2.offset(i * 64)) & 1 != 0);
    assert_eq!(valid.collect::<Vec<_>>(), [1]);
}

#[test]
fn views_share_the_words_of_their_ste() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let ste = view(&smmu);
    smmu.attach(StreamId(0x42), &ste).unwrap();
    smmu.attach(StreamId(0x43), &ste).unwrap();
    for stream in [2, 3] {
        let words = [0, 1, 2, 3].map(|i| memory.read(FIRST_LEVEL2.offset(stream * 64 + i * 8)));
        assert_eq!(words, [0xd, 0, STE2, STE3]);
    }
}

#[test]
fn attached_stream_is_not_attached_again() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    take_trace();
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Err(SmmuError::StreamBusy(STREAM)));
    assert_eq!(take_trace(), []);
}

#[test]
fn detached_stream_can_be_attached_again() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    smmu.detach(STREAM).unwrap();
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    assert_eq!(memory.read(STE), 0xd);
}

#[test]
fn stream_beyond_the_table_is_refused() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    for stream in [StreamId(0x100), StreamId(u32::MAX)] {
        let expected = Err(SmmuError::StreamOutOfRange { stream, bits: 8 });
        assert_eq!(smmu.attach(stream, &view(&smmu)), expected);
        assert_eq!(smmu.detach(stream), expected);
    }
    assert_eq!(take_trace(), []);
}

#[test]
fn level_2_table_without_a_frame_changes_nothing() {
    let memory = Fake::new(3);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Err(SmmuError::OutOfFrames { order: 0 }));
    assert_eq!(take_trace(), []);
    assert_eq!(hardware.take_consumed(), [[0; 2]; 0]);
}

#[test]
fn detaching_a_stream_never_attached_needs_nothing() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.detach(STREAM), Ok(()));
    assert_eq!(take_trace(), []);
}

#[test]
fn attach_the_smmu_did_not_confirm_leaves_the_stream_aborting() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(StreamId(0x40), &view(&smmu)).unwrap();
    hardware.set_dead(true);
    let error = smmu.attach(STREAM, &view(&smmu));
    assert!(matches!(error, Err(SmmuError::Command(CommandError::Timeout { .. }))), "{error:?}");
    assert_eq!(memory.read(STE), 0x1);
    // SW_RESERVED, bits [87:84], which the SMMU ignores.
    assert_eq!(memory.read(STE.offset(8)), 0x0010_0000);
    hardware.catch_up();
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Err(SmmuError::StreamQuarantined(STREAM)));
    assert_eq!(smmu.quarantined(), Quarantined { streams: 1, ..Quarantined::default() });
}

#[test]
fn refused_cfgi_fails_the_attach_and_leaves_the_stream_aborting() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(StreamId(0x40), &view(&smmu)).unwrap();
    hardware.take_consumed();
    hardware.refuse(0x03, 1, 1);
    let error = smmu.attach(STREAM, &view(&smmu));
    assert!(matches!(error, Err(SmmuError::Command(CommandError::Refused { code: 1, .. }))), "{error:?}");
    assert_eq!(memory.read(STE), 0x1);
    // The refused one (now a SYNC), its SYNC, then the abort made known.
    assert_eq!(hardware.take_consumed(), [SYNC, SYNC, CFGI, SYNC]);
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Ok(()));
    assert_eq!(smmu.quarantined(), Quarantined::default());
}

#[test]
fn detach_that_timed_out_can_be_repeated_and_the_stream_stays_out_of_use() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(STREAM, &view(&smmu)).unwrap();
    hardware.set_dead(true);
    assert!(smmu.detach(STREAM).is_err());
    assert!(smmu.detach(STREAM).is_err());
    hardware.catch_up();
    hardware.take_consumed();
    assert_eq!(smmu.detach(STREAM), Ok(()));
    assert_eq!(hardware.take_consumed(), [CFGI, SYNC]);
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Err(SmmuError::StreamQuarantined(STREAM)));
    assert_eq!(smmu.quarantined(), Quarantined { streams: 1, ..Quarantined::default() });
    // Its neighbours are not concerned.
    assert_eq!(smmu.attach(StreamId(0x42), &view(&smmu)), Ok(()));
}

#[test]
fn detach_of_a_stream_that_was_not_attached_quarantines_nothing() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.attach(StreamId(0x40), &view(&smmu)).unwrap();
    hardware.set_dead(true);
    assert!(smmu.detach(STREAM).is_err());
    hardware.catch_up();
    assert_eq!(smmu.quarantined(), Quarantined::default());
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Ok(()));
}

#[test]
fn level_2_table_the_smmu_did_not_take_note_of_is_unlinked_and_out_of_use() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let free = memory.free_frames();
    hardware.set_dead(true);
    assert!(smmu.attach(STREAM, &view(&smmu)).is_err());
    assert_eq!(memory.read(DESCRIPTOR), 0);
    assert_eq!(smmu.quarantined(), Quarantined { frames: 1, ..Quarantined::default() });
    assert_eq!(memory.free_frames(), free - 1);
    hardware.catch_up();
    hardware.take_consumed();
    // Another table, and the SMMU is told of it.
    assert_eq!(smmu.attach(STREAM, &view(&smmu)), Ok(()));
    assert_eq!(memory.read(DESCRIPTOR), 0x1_4000_4007);
    assert_eq!(hardware.take_consumed()[..2], [[0x0000_0041_0000_0003, 0], SYNC]);
}

#[test]
fn view_an_smmu_cannot_have_is_refused() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let asked = Stage2Config { hardware_update: Httu::Dirty, ..VIEW };
    let error = Stage2Error::HardwareUpdate { asked: Httu::Dirty, available: Httu::None };
    assert_eq!(smmu.view(&asked), Err(SmmuError::Stage2(error)));
}
