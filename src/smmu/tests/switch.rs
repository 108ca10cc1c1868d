//! Streams that are sent through another tree while they work.

use super::*;
use crate::addr::StreamId;
use crate::fake::Event::{self, Barrier, Pair, Register};
use crate::hw::Barrier::DsbSt;
use crate::hw::{DmaRoot, DmaTlb, DmaTlbError, TreeSwitch};
use crate::smmu::spec::pages::Register32;
use crate::smmu::{CommandError, SmmuError};

/// Three of the view, in two level-2 tables; and one of another.
const STREAMS: [StreamId; 3] = [StreamId(0x40), StreamId(0x41), StreamId(0x80)];
const OTHER: StreamId = StreamId(0x42);
/// The second level-2 table: of stream 0x80.
const SECOND_LEVEL2: Pa = Pa(0x1_4000_4000);
const FROM: DmaRoot = DmaRoot { vmid: Vmid(5), root: Pa(0x4123_4000) };
const TO: DmaRoot = DmaRoot { vmid: Vmid(6), root: Pa(0x4567_8000) };
/// Words 2 and 3 of an STE that goes through [`TO`]: those of [`VIEW`] with another VMID and base.
const THROUGH_TO: [u64; 2] = [0x046c_3559_0000_0006, 0x4567_8000];

const CFGI_ALL: [u64; 2] = [0x04, 0x1f];
const SYNC: [u64; 2] = [0x46, 0];

fn vmall(vmid: u64) -> [u64; 2] {
    [vmid << 32 | 0x28, 0]
}

/// An SMMU of BBML 0 on PEs with FEAT_LSE2, and its streams attached.
fn attached<'a>(memory: &'a Fake, hardware: &'a FakeSmmu<'a>) -> Driver<'a> {
    memory.lse2.set(true);
    // IDR3.BBML, [12:11], is 0.
    hardware.set(Register32::Idr3, 0x0414);
    let smmu = up(memory, hardware);
    for stream in STREAMS {
        smmu.attach(stream, &smmu.view(&VIEW).unwrap()).unwrap();
    }
    let other = Stage2Config { vmid: Vmid(7), ..VIEW };
    smmu.attach(OTHER, &smmu.view(&other).unwrap()).unwrap();
    take_trace();
    hardware.take_consumed();
    smmu
}

#[test]
fn words_2_and_3_of_each_ste_change_at_once_and_configuration_goes_before_the_vmid() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = attached(&memory, &hardware);
    smmu.switching().unwrap().switch(FROM, TO).unwrap();
    let trace = take_trace();
    let tree = |table: Pa, index: u64| table.offset(index * 64 + 16);
    let expected = [
        // The tree before its first user.
        Barrier(DsbSt),
        Pair(tree(FIRST_LEVEL2, 0), THROUGH_TO),
        Pair(tree(FIRST_LEVEL2, 1), THROUGH_TO),
        Pair(tree(SECOND_LEVEL2, 0), THROUGH_TO),
    ];
    assert_eq!(trace[..4], expected);
    // The STEs before the command.
    let rest: Vec<Event> =
        trace.into_iter().skip(4).filter(|e| matches!(e, Pair(..) | Barrier(_) | Register(..))).collect();
    assert!(
        matches!(rest[..], [Barrier(DsbSt), Register(0x98, _), Barrier(DsbSt), Register(0x98, _)]),
        "{rest:?}"
    );
    assert_eq!(hardware.take_consumed(), [CFGI_ALL, SYNC, vmall(5), SYNC]);
}

#[test]
fn stream_that_may_stall_still_may_after_a_switch_and_one_that_was_taken_away_stays_so() {
    let memory = Fake::new(8);
    // STALL_MODEL=0b00.
    let hardware =
        FakeSmmu::new(&memory).with(Register32::Idr0, 0x0c44_101b).with(Register32::Idr5, 0x0010_0074);
    let smmu = attached(&memory, &hardware);
    for stream in STREAMS {
        smmu.detach(stream).unwrap();
    }
    let stalling = smmu.stalling(smmu.view(&VIEW).unwrap()).unwrap();
    smmu.attach(STREAMS[2], &stalling).unwrap();
    take_trace();
    smmu.switch(FROM, TO).unwrap();
    let pairs: Vec<Event> = take_trace().into_iter().filter(|e| matches!(e, Pair(..))).collect();
    assert_eq!(pairs, [Pair(SECOND_LEVEL2.offset(16), [THROUGH_TO[0] | 1 << 57, THROUGH_TO[1]])]);
}

#[test]
fn switch_that_is_not_answered_can_be_repeated_and_taken_back() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = attached(&memory, &hardware);
    hardware.set_dead(true);
    assert_eq!(smmu.switch(FROM, TO), Err(DmaTlbError::Timeout));
    hardware.catch_up();
    hardware.take_consumed();
    take_trace();
    smmu.switch(FROM, TO).unwrap();
    assert!(!take_trace().iter().any(|e| matches!(e, Pair(..))), "they stand there already");
    assert_eq!(hardware.take_consumed(), [CFGI_ALL, SYNC, vmall(5), SYNC]);
    smmu.switch(TO, FROM).unwrap();
    assert_eq!(take_trace().iter().filter(|e| matches!(e, Pair(..))).count(), 3);
    assert_eq!(hardware.take_consumed(), [CFGI_ALL, SYNC, vmall(6), SYNC]);
}

#[test]
fn ste_that_was_made_before_a_switch_is_refused_by_name_until_the_way_back() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = attached(&memory, &hardware);
    let (old, late) = (smmu.view(&VIEW).unwrap(), StreamId(0x43));
    smmu.switch(FROM, TO).unwrap();
    assert_eq!(smmu.attach(late, &old), Err(SmmuError::TreeLeft(Vmid(5))));
    let new = smmu.view(&Stage2Config { vmid: TO.vmid, root: TO.root, ..VIEW }).unwrap();
    smmu.attach(late, &new).unwrap();
    smmu.switch(TO, FROM).unwrap();
    assert_eq!(smmu.attach(StreamId(0x44), &new), Err(SmmuError::TreeLeft(Vmid(6))));
    smmu.attach(StreamId(0x44), &old).unwrap();
}

#[test]
fn switching_takes_pairs_coherent_accesses_and_no_better_way() {
    let bbml_0 = |coherent: bool, lse2: bool, idr3| {
        let memory = Fake::new(8);
        memory.lse2.set(lse2);
        let hardware = FakeSmmu::new(&memory).with(Register32::Idr3, idr3);
        let hardware = if coherent { hardware } else { hardware.not_coherent() };
        up(&memory, &hardware).switching().is_some()
    };
    assert!(bbml_0(true, true, 0x0414));
    assert!(!bbml_0(false, true, 0x0414) && !bbml_0(true, false, 0x0414));
    // BBML 1 and 2.
    assert!(!bbml_0(true, true, 0x0c14) && !bbml_0(true, true, 0x1414));
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    take_trace();
    assert_eq!(smmu.switch(FROM, TO), Err(DmaTlbError::NoSwitching));
    assert_eq!(take_trace(), []);
}

#[test]
fn vmid_for_a_second_tree_is_invalidated_before_and_quarantined_where_it_is_not_after() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.take_vmid(), Ok(Some(Vmid(1))));
    assert_eq!(hardware.take_consumed(), [vmall(1), SYNC]);
    smmu.end_vmid(Vmid(1), true);
    assert_eq!(smmu.free_vmid(Vmid(1)), Err(SmmuError::UnknownVmid(Vmid(1))));
    assert_eq!(smmu.take_vmid(), Ok(Some(Vmid(2))));
    smmu.end_vmid(Vmid(2), false);
    assert_eq!(
        (smmu.quarantined().vmids, smmu.free_vmid(Vmid(2))),
        (1, Err(SmmuError::VmidQuarantined(Vmid(2))))
    );
    hardware.set_dead(true);
    assert_eq!(smmu.take_vmid(), Err(DmaTlbError::Timeout));
    assert!(matches!(smmu.alloc_vmid(), Err(SmmuError::Command(CommandError::Timeout { .. }))));
}
