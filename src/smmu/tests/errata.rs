//! What parts with errata see of the driver; every other test is of a part without.

use super::*;
use crate::addr::StreamId;
use crate::hw::{DmaTlb, Scope};
use crate::smmu::Errata;
use crate::smmu::spec::pages::Register32;

const SYNC: [u64; 2] = [0x46, 0];
const VMALL: [u64; 2] = [0x0000_0005_0000_0028, 0];
/// SMMU_IIDR of an MMU-700 r1p0.
const MMU_700: u32 = 0x4871_043b;

fn options(errata: Errata) -> Options {
    Options { errata, ..small_options() }
}

fn ipa(page: u64) -> [u64; 2] {
    [0x0000_0005_0000_002a, 0x8000_0001 + page * 0x1000]
}

#[test]
fn part_without_errata_gets_one_vmall_and_one_sync() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.features().errata, Errata::empty());
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [VMALL, SYNC]);
}

#[test]
fn repeated_invalidation_has_a_sync_each() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &options(Errata::REPEAT));
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [VMALL, SYNC, VMALL, SYNC]);
    // Pages 1 and 2 to 3: two commands, and the whole of them again.
    smmu.invalidate(Vmid(5), super::invalidation::range(0x8000_1000, 33)).unwrap();
    let range = [[0x0000_0005_0000_002a, 0x8000_1001], [0x0000_0005_0050_002a, 0x8000_2401]];
    assert_eq!(hardware.take_consumed(), [range[0], range[1], SYNC, range[0], range[1], SYNC]);
}

#[test]
fn repeated_invalidation_begins_when_the_first_sync_has_completed() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &options(Errata::REPEAT));
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    // One write of CMDQ_PROD would have given the SMMU both at once.
    let moved: Vec<_> = take_trace()
        .into_iter()
        .filter_map(|event| match event {
            crate::fake::Event::Register(0x98, prod) => Some(prod),
            _ => None,
        })
        .collect();
    assert_eq!(moved.len(), 2);
    assert_eq!(moved[1] - moved[0], 2);
}

#[test]
fn configuration_is_invalidated_twice_as_well() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &options(Errata::REPEAT));
    smmu.detach(StreamId(0x41)).unwrap();
    smmu.attach(StreamId(0x41), &smmu.view(&VIEW).unwrap()).unwrap();
    hardware.take_consumed();
    smmu.detach(StreamId(0x41)).unwrap();
    let cfgi = [0x0000_0041_0000_0003, 1];
    assert_eq!(hardware.take_consumed(), [cfgi, SYNC, cfgi, SYNC]);
}

#[test]
fn caches_are_emptied_twice_before_smmuen() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let _smmu = Smmu::new(&memory, &hardware, &options(Errata::REPEAT)).unwrap();
    let all = [[0x04, 0x1f], [0x30, 0], SYNC];
    assert_eq!(hardware.take_consumed(), [all, all].concat());
}

#[test]
fn sync_alone_is_not_repeated() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &options(Errata::REPEAT));
    smmu.sync().unwrap();
    assert_eq!(hardware.take_consumed(), [SYNC]);
}

#[test]
fn repetition_ends_with_the_first_error() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up_with(&memory, &hardware, &options(Errata::REPEAT));
    hardware.refuse(0x28, 1, 1);
    assert!(smmu.invalidate(Vmid(5), Scope::All).is_err());
    assert_eq!(hardware.take_consumed(), [SYNC, SYNC]);
}

#[test]
fn commands_of_two_kinds_have_a_sync_between_them_on_an_mmu_700() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Iidr, MMU_700);
    let smmu = Smmu::new(&memory, &hardware, &small_options()).unwrap();
    assert_eq!(smmu.features().errata, Errata::SYNC_BETWEEN);
    assert_eq!(hardware.take_consumed(), [[0x04, 0x1f], SYNC, [0x30, 0], SYNC]);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [VMALL, SYNC]);
}

#[test]
fn ranges_of_different_size_are_commands_of_one_kind() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Iidr, MMU_700);
    let smmu = up(&memory, &hardware);
    smmu.invalidate(Vmid(5), super::invalidation::range(0x8000_1000, 33)).unwrap();
    let range = [[0x0000_0005_0000_002a, 0x8000_1001], [0x0000_0005_0050_002a, 0x8000_2401]];
    assert_eq!(hardware.take_consumed(), [range[0], range[1], SYNC]);
}

/// What an MMU-700 without ranges and with `2^bits` commands in its queue sees of `pages` pages.
fn page_by_page(bits: u32, pages: u64) -> Vec<[u64; 2]> {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Iidr, MMU_700).with(Register32::Idr3, 0x1014);
    let options = Options { command_queue_bits: bits, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    smmu.invalidate(Vmid(5), super::invalidation::range(0x8000_0000, pages)).unwrap();
    hardware.take_consumed()
}

#[test]
fn many_commands_of_a_kind_have_a_sync_among_them_on_an_mmu_700() {
    let mut expected: Vec<_> = (0..63).map(ipa).collect();
    expected.push(SYNC);
    assert_eq!(page_by_page(8, 63), expected);
    expected.extend([ipa(63), SYNC]);
    assert_eq!(page_by_page(8, 64), expected);
}

#[test]
fn small_queue_never_fills_without_a_sync_on_an_mmu_700() {
    assert_eq!(page_by_page(2, 4), [ipa(0), ipa(1), ipa(2), SYNC, ipa(3), SYNC]);
    assert_eq!(page_by_page(1, 2), [ipa(0), SYNC, ipa(1), SYNC]);
    assert_eq!(page_by_page(0, 2), [ipa(0), SYNC, ipa(1), SYNC]);
}

#[test]
fn batch_that_broke_off_has_a_sync_behind_it_on_an_mmu_700_before_anything_else() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Iidr, MMU_700).with(Register32::Idr3, 0x1014);
    // One command at a time: the CMD_SYNC of a batch is written when the others were consumed.
    let smmu = up_with(&memory, &hardware, &Options { command_queue_bits: 0, ..small_options() });
    hardware.set_dead(true);
    assert!(smmu.invalidate(Vmid(5), Scope::All).is_err());
    hardware.set_dead(false);
    hardware.catch_up();
    assert_eq!(hardware.take_consumed(), [VMALL]);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [SYNC, VMALL, SYNC]);

    // The first command is consumed, the second can't be fetched (CERROR_ABT), and the CMD_SYNC is withdrawn with it.
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).with(Register32::Iidr, MMU_700).with(Register32::Idr3, 0x1014);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x46, 2, 1);
    assert!(smmu.invalidate(Vmid(5), super::invalidation::range(0x8000_0000, 2)).is_err());
    assert_eq!(hardware.take_consumed(), [ipa(0), ipa(1)]);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [SYNC, VMALL, SYNC]);
    // And once is enough.
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [VMALL, SYNC]);
}
