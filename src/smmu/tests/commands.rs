//! The Command queue: publication, wrap, full queue, time-outs, refused commands.

use super::*;
use crate::addr::StreamId;
use crate::fake::Event::{Barrier, Clean, Register, Store};
use crate::hw::Barrier::{DsbSt, DsbSy};
use crate::hw::{CommandCounts, DmaTlb, DmaTlbError, Scope};
use crate::smmu::spec::command::{Command, RawCommand};
use crate::smmu::spec::pages::Register32;
use crate::smmu::{CommandError, GlobalErrors, SmmuError};

const SYNC: [u64; 2] = [0x46, 0];

#[test]
fn commands_are_visible_before_the_write_index_moves() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    // Entries 3 and 4: bring-up used the first three.
    let entry = COMMAND_QUEUE.offset(0x30);
    let expected = [
        Store(entry, 0x0000_0005_0000_0028),
        Store(entry.offset(0x08), 0),
        Store(entry.offset(0x10), 0x46),
        Store(entry.offset(0x18), 0),
        Barrier(DsbSt),
        Register(0x98, 5),
    ];
    assert_eq!(take_trace(), expected);
}

#[test]
fn commands_without_coherency_are_cleaned_before_the_write_index_moves() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).not_coherent();
    let smmu = up(&memory, &hardware);
    smmu.sync().unwrap();
    let entry = COMMAND_QUEUE.offset(0x30);
    let expected =
        [Store(entry, 0x46), Store(entry.offset(8), 0), Clean(entry, 16), Barrier(DsbSy), Register(0x98, 4)];
    assert_eq!(take_trace(), expected);
}

#[test]
fn sync_waits_until_cons_passes_it() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.sync().unwrap();
    assert_eq!(hardware.get(Register32::CmdqCons), 4);
    assert_eq!(hardware.take_consumed(), [SYNC]);
}

#[test]
fn write_index_toggles_its_flag_where_the_queue_wraps() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let options = Options { command_queue_bits: 2, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    // Entry 3, then entry 0 with the wrap flag (bit 2) set.
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    let expected = [
        Store(COMMAND_QUEUE.offset(0x30), 0x0000_0005_0000_0028),
        Store(COMMAND_QUEUE.offset(0x38), 0),
        Store(COMMAND_QUEUE, 0x46),
        Store(COMMAND_QUEUE.offset(0x08), 0),
        Barrier(DsbSt),
        Register(0x98, 0x5),
    ];
    assert_eq!(take_trace(), expected);
    for _ in 0..3 {
        smmu.sync().unwrap();
    }
    assert_eq!(hardware.get(Register32::CmdqProd), 0x0);
}

#[test]
fn cleaning_follows_the_queue_around_its_end() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory).not_coherent();
    let options = Options { command_queue_bits: 2, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    let cleaned: Vec<_> = take_trace().into_iter().filter(|e| matches!(e, Clean(..))).collect();
    assert_eq!(cleaned, [Clean(COMMAND_QUEUE.offset(0x30), 16), Clean(COMMAND_QUEUE, 16)]);
}

#[test]
fn batch_longer_than_the_queue_goes_through_it_in_order() {
    let memory = Fake::new(8);
    // No invalidation by range: a command a page.
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr3, 0x1014);
    let options = Options { command_queue_bits: 2, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    smmu.invalidate(Vmid(5), super::invalidation::range(0x8000_0000, 10)).unwrap();
    let mut expected: Vec<_> = (0..10).map(|i| [0x0000_0005_0000_002a, 0x8000_0001 + i * 0x1000]).collect();
    expected.push(SYNC);
    assert_eq!(hardware.take_consumed(), expected);
}

#[test]
fn queue_of_one_entry_works() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let options = Options { command_queue_bits: 0, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [Command::TlbiS12Vmall(Vmid(5)).words(), SYNC]);
}

#[test]
fn smmu_that_stops_consuming_is_an_error_in_time() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.set_dead(true);
    let start = crate::hw::Cpu::now_us(&memory);
    assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Timeout));
    assert_eq!(crate::hw::Cpu::now_us(&memory) - start, 1000);
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::Command(CommandError::Timeout { cons: 3 })));
}

#[test]
fn after_a_time_out_nobody_waits_and_nothing_is_queued() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.set_dead(true);
    assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
    let (start, _) = (crate::hw::Cpu::now_us(&memory), take_trace());
    for _ in 0..1000 {
        assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
    }
    assert_eq!(crate::hw::Cpu::now_us(&memory), start);
    assert_eq!(take_trace(), []);
}

#[test]
fn queue_is_used_again_once_the_smmu_has_caught_up() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.set_dead(true);
    assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
    hardware.catch_up();
    assert_eq!(smmu.sync(), Ok(()));
    assert_eq!(hardware.take_consumed(), [SYNC, SYNC]);
}

#[test]
fn full_queue_that_does_not_move_is_an_error_in_time() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let options = Options { command_queue_bits: 0, ..small_options() };
    let smmu = up_with(&memory, &hardware, &options);
    hardware.set_dead(true);
    assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Timeout));
    assert_eq!(smmu.statistics().tlbi_vmall, 1);
}

#[test]
fn illegal_command_is_replaced_by_a_sync_and_the_error_acknowledged() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x28, 1, 1);
    assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Command(1)));
    let entry = COMMAND_QUEUE.offset(0x30);
    let repair = [
        Store(entry, 0x46),
        Store(entry.offset(8), 0),
        Barrier(DsbSt),
        // GERRORN.CMDQ_ERR made equal to GERROR.CMDQ_ERR: the SMMU goes on.
        Register(0x64, 0x1),
    ];
    assert_eq!(take_trace()[6..], repair);
    assert_eq!(hardware.take_consumed(), [SYNC, SYNC]);
    assert_eq!(smmu.statistics().errors, 1);
}

#[test]
fn queue_works_after_a_refused_command() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    for code in [1, 2, 3, 0x7f] {
        hardware.refuse(0x28, code, 1);
        assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Command(code as u8)));
        hardware.take_consumed();
        assert_eq!(smmu.invalidate(Vmid(6), Scope::All), Ok(()));
        assert_eq!(hardware.take_consumed(), [Command::TlbiS12Vmall(Vmid(6)).words(), SYNC]);
    }
    assert_eq!(smmu.statistics().errors, 4);
}

#[test]
fn refused_command_is_named() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x28, 1, 1);
    let command = RawCommand(Command::TlbiS12Vmall(Vmid(1)).words());
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::Command(CommandError::Refused { code: 1, command })));
}

#[test]
fn commands_behind_a_refused_one_are_carried_out() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x2a, 1, 1);
    // Pages 1 and 2 to 3: two commands, the first refused.
    let scope = super::invalidation::range(0x8000_1000, 3);
    assert_eq!(smmu.invalidate(Vmid(5), scope), Err(DmaTlbError::Command(1)));
    assert_eq!(hardware.take_consumed(), [SYNC, SYNC]);
    hardware.refuse(0x2a, 1, 1);
    let scope = super::invalidation::range(0x8000_1000, 33);
    assert_eq!(smmu.invalidate(Vmid(5), scope), Err(DmaTlbError::Command(1)));
    assert_eq!(hardware.take_consumed(), [SYNC, [0x0000_0005_0050_002a, 0x8000_2401], SYNC]);
}

#[test]
fn queue_that_cannot_be_fetched_is_withdrawn_from() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x28, 2, u32::MAX);
    assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Command(2)));
    // The write index goes back to the read index, then the error is acknowledged: nothing is fetched again.
    assert_eq!(take_trace()[6..], [Register(0x98, 3), Register(0x64, 0x1)]);
    assert_eq!(hardware.take_consumed(), [[0; 2]; 0]);
}

#[test]
fn command_refused_for_ever_ends_with_the_time_limit() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x46, 1, u32::MAX);
    assert_eq!(smmu.sync(), Err(DmaTlbError::Timeout));
}

#[test]
fn global_errors_are_acknowledged_and_reported() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.raise_global_errors(0x104);
    let report = smmu.handle_gerror();
    assert_eq!(report.errors, GlobalErrors::SERVICE_FAILURE | GlobalErrors::EVENT_QUEUE_ABORT);
    assert_eq!(report.command, None);
    assert_eq!(take_trace(), [Register(0x64, 0x104)]);
    assert_eq!((smmu.statistics().errors, smmu.statistics().events_lost), (2, 1));
    assert_eq!(smmu.handle_gerror().errors, GlobalErrors::empty());
    assert_eq!(take_trace(), []);
}

#[test]
fn command_error_after_a_time_out_is_repaired_by_the_interrupt() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.set_dead(true);
    assert_eq!(smmu.invalidate(Vmid(5), Scope::All), Err(DmaTlbError::Timeout));
    hardware.set_dead(false);
    hardware.refuse(0x28, 1, 1);
    crate::smmu::Registers::read32(&hardware, Register32::CmdqCons);
    let report = smmu.handle_gerror();
    let command = RawCommand(Command::TlbiS12Vmall(Vmid(5)).words());
    assert_eq!(report.errors, GlobalErrors::COMMAND_QUEUE);
    assert_eq!(report.command, Some(CommandError::Refused { code: 1, command }));
}

#[test]
fn commands_are_counted_by_kind() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    let before = smmu.statistics();
    smmu.invalidate(Vmid(5), Scope::All).unwrap();
    smmu.invalidate(Vmid(5), super::invalidation::range(0x1000, 33)).unwrap();
    smmu.detach(StreamId(1)).unwrap();
    let after = smmu.statistics();
    assert_eq!(after.commands - before.commands, 5);
    assert_eq!((after.tlbi_vmall, after.tlbi_ipa), (1, 2));
    assert_eq!(after.syncs - before.syncs, 2);
    // The same as the seam tells it.
    let told = CommandCounts { all: after.commands, tlbi_vmall: 1, tlbi_ipa: 2, syncs: after.syncs };
    assert_eq!(smmu.commands(), told);
}
