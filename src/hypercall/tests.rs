//! The contract at the register level: what a guest passes, what it gets back, what it must not be able to do.

mod bad_input;

use strandline_abi::{
    Call, CpuTier, DmaTier, Error, FaultRecord, Flags, LogState, LogStatus, Status, Tiers, UID_WORDS,
};

use crate::addr::{Ipa, IpaRange, Pa, StreamId, Vmid};
use crate::address_space::{AddressSpace, Reach, Region};
use crate::fake::{Fake, FakeTlb};
use crate::frames::Frames;
use crate::hypercall::{Arguments, Reply, dispatch, function_id};
use crate::stage2::descriptor::S2AP_WRITE;
use crate::stage2::{DmaWalker, Format};
use crate::vm::{self, Vm};

const M: u64 = 1 << 20;
/// The VM's RAM: 4 MiB, of which the fake machine really has the first frames.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 4 * M;
const RAM_FRAMES: u64 = 8;
/// A buffer in the VM's RAM, in its second page.
const BUFFER: u64 = RAM + 0x1000;

struct Rig<'d> {
    fake: &'d Fake,
    vm: Vm<'d, FakeTlb>,
    ram: Pa,
}

impl<'d> Rig<'d> {
    fn new(fake: &'d Fake, tlb: &'d FakeTlb) -> Self {
        Self::with_ram(fake, tlb, RAM_FRAMES)
    }

    /// One whose RAM the fake machine has more of.
    fn with_ram(fake: &'d Fake, tlb: &'d FakeTlb, frames: u64) -> Self {
        let ram = fake.alloc(frames.trailing_zeros()).unwrap().into_pa();
        let mut space = AddressSpace::new(fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
        space.add_dma_view(fake, DmaWalker { tlb, vmid: Vmid(2), coherent: true }, DmaTier::Assume).unwrap();
        let registers = Region { range: range(0x1000_0000, M), pa: Pa(0x1000_0000), reach: Reach::CpuDevice };
        space.map(fake, registers).unwrap();
        space.map(fake, Region { range: range(RAM, RAM_BYTES), pa: ram, reach: Reach::Ram }).unwrap();
        Self { fake, vm: Vm::new(space, CpuTier::Hardware), ram }
    }

    fn call(&self, call: Call, arguments: [u64; 5]) -> Reply {
        dispatch(self.fake, &self.vm, call.id(), &arguments).unwrap()
    }

    /// Calls until it is done; gives back the sum of x2.
    fn finish(&self, call: Call, mut arguments: [u64; 5]) -> u64 {
        let mut sum = 0;
        loop {
            let [x0, x1, x2, ..] = self.call(call, arguments);
            sum += x2;
            match x0 {
                0 => return sum,
                1 => arguments[4] = x1,
                error => panic!("{call:?}: {:?} ({x1:#x})", Error::from_x0(error)),
            }
        }
    }

    fn refused(&self, call: Call, arguments: [u64; 5]) -> (Error, u64) {
        let before = self.state();
        let [x0, x1, ..] = self.call(call, arguments);
        let error = Error::from_x0(x0).unwrap_or_else(|| panic!("{call:?} {arguments:x?} was not refused"));
        assert_eq!(self.state(), before, "{call:?} {arguments:x?} changed something");
        (error, x1)
    }

    /// All that a refused call must leave alone.
    fn state(&self) -> (LogStatus, Vec<u64>) {
        let words = (0..RAM_FRAMES * 512).map(|i| self.fake.read(self.ram.offset(i * 8))).collect();
        (vm::status(self.fake, &self.vm.log.lock(), &self.vm.space.read()), words)
    }

    fn start(&self) {
        self.finish(Call::Start, [RAM, RAM_BYTES, 4096, 0, 0]);
    }

    fn cpu_writes(&self, page: u64) {
        let space = self.vm.space.read();
        self.fake.or_behind(space.cpu.tree.walk(self.fake, Ipa(RAM + page * 4096)).0.pa, S2AP_WRITE);
    }

    fn guest_word(&self, ipa: u64) -> Pa {
        self.ram.offset(ipa - RAM)
    }
}

fn range(start: u64, bytes: u64) -> IpaRange {
    IpaRange::new(Ipa(start), bytes).unwrap()
}

const CPU: u64 = Flags::CPU.bits();
const CPU_CLEAR: u64 = Flags::CPU.with(Flags::CLEAR).bits();

#[test]
fn discovery_answers_as_smccc_says() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    let [a, b, c, d, _] = rig.call(Call::Uid, [0; 5]);
    assert_eq!([a, b, c, d], UID_WORDS.map(u64::from));
    assert_eq!(rig.call(Call::Revision, [0; 5]), [0, 3, 0, 0, 0]);
    let tiers = Tiers { cpu: CpuTier::Hardware, dma: DmaTier::Assume }.to_bits();
    assert_eq!(rig.call(Call::Features, [0; 5]), [0, 3, 0x1ff, 0x4020_1001, tiers]);
}

#[test]
fn unknown_functions_of_the_range_are_not_supported_and_others_are_not_ours() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    // A number that doesn't exist, the 32-bit form of one that does, 64-bit forms of UID and revision, the call
    // count (optional, DEN 0028 §6.2), reserved bits.
    for id in [0xc600_0009, 0xc600_0040, 0x8600_0001, 0xc600_ff01, 0xc600_ff03, 0x8600_ff00, 0xc602_0001] {
        let not_supported = Some([u64::MAX, id.into(), 0, 0, 4]);
        assert_eq!(dispatch(&fake, &rig.vm, id, &[1, 2, 3, 4, 5]), not_supported, "{id:#x}");
    }
    // Yielding calls, neighbouring owners.
    for id in [0x4600_0001, 0x0600_0001, 0x8400_0000, 0x8500_0000, 0xc700_0001, 0xbf00_ff01] {
        assert_eq!(dispatch(&fake, &rig.vm, id, &[0; 5]), None, "{id:#x}");
    }
}

#[test]
fn the_function_is_in_w0_and_its_sve_hint_is_no_part_of_it() {
    assert_eq!(function_id(0xdead_beef_c600_0005), 0xc600_0005);
    assert_eq!(function_id(0xc601_0005), 0xc600_0005);
    assert_eq!(function_id(0xc602_0005), 0xc602_0005);
}

#[test]
fn an_argument_that_a_call_does_not_have_is_zero() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    for (call, used) in [
        (Call::Features, 0b0_0000),
        (Call::Stop, 0b1_0000),
        (Call::Status, 0b0_0011),
        (Call::Faults, 0b0_0011),
        (Call::Read, 0b1_0111),
        (Call::Devices, 0b0_0011),
    ] {
        for register in (0..5).filter(|r| used >> r & 1 == 0) {
            for value in [1, 1 << 63] {
                let mut arguments = [BUFFER, 8, 0, 0, 0].map(|a| if used & 1 == 1 { a } else { 0 });
                arguments[register] = value;
                let refused = rig.refused(call, arguments);
                assert_eq!(refused, (Error::InvalidParameter, value), "{call:?} x{}", register + 1);
            }
        }
    }
    // The two calls that SMCCC itself defines have no arguments to look at.
    assert_eq!(rig.call(Call::Revision, [9; 5]), [0, 3, 0, 0, 9]);
}

#[test]
fn x4_is_a_result_of_features_alone() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    assert_eq!(rig.call(Call::Uid, [0, 0, 0, 44, 0])[4], 44);
    // Done, more and refused: x4 is as it came.
    assert_eq!(rig.call(Call::Start, [RAM, RAM_BYTES, 4096, 44, 0]), [invalid(), 44, 0, 0, 44]);
    assert_eq!(rig.call(Call::Sync, [RAM, RAM_BYTES, BUFFER, CPU_CLEAR, 0])[4], CPU_CLEAR);
    rig.start();
    assert_eq!(rig.call(Call::Sync, [RAM, RAM_BYTES, BUFFER, CPU_CLEAR, 0])[4], CPU_CLEAR);
    assert_eq!(rig.call(Call::Clear, [RAM, RAM_BYTES, BUFFER, CPU, 0])[4], CPU);
    assert_eq!(rig.call(Call::Features, [0; 5])[4], 0x401);
}

fn invalid() -> u64 {
    Error::InvalidParameter.to_x0()
}

#[test]
fn a_log_is_started_read_cleared_and_stopped() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    assert!(rig.finish(Call::Start, [RAM, RAM_BYTES, 4096, 0, 0]) > 0);
    rig.cpu_writes(3);
    rig.cpu_writes(100);
    assert_eq!(rig.finish(Call::Sync, [RAM, RAM_BYTES, BUFFER, CPU_CLEAR, 0]), 2);
    assert_eq!(fake.read(rig.guest_word(BUFFER)), 1 << 3);
    assert_eq!(fake.read(rig.guest_word(BUFFER + 8)), 1 << 36);
    // EL2 wrote the bitmap, in page 1.
    assert_eq!(rig.finish(Call::Sync, [RAM, RAM_BYTES, BUFFER, CPU, 0]), 1);
    assert_eq!(fake.read(rig.guest_word(BUFFER)), 1 << 1);
    fake.write_behind(rig.guest_word(BUFFER), u64::MAX);
    assert_eq!(rig.finish(Call::Clear, [RAM, 64 * 4096, BUFFER, CPU, 0]), 1);
    assert_eq!(fake.read(rig.guest_word(BUFFER)), 1 << 1, "what was discarded is given back");
    rig.finish(Call::Stop, [0; 5]);
    assert_eq!(rig.vm.log.lock().state(), LogState::Off);
}

#[test]
fn a_bitmap_has_exactly_the_bits_of_its_range() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    rig.start();
    for page in 0..RAM_BYTES / 4096 {
        rig.cpu_writes(page);
    }
    for (first, pages) in [(0, 1), (1, 63), (1, 64), (63, 2), (5, 65), (100, 130)] {
        let words = u64::div_ceil(pages, 64);
        for i in 0..=words {
            fake.write_behind(rig.guest_word(BUFFER + i * 8), 0xabcd);
        }
        assert_eq!(rig.finish(Call::Sync, [RAM + first * 4096, pages * 4096, BUFFER, CPU, 0]), pages);
        let last = if pages % 64 == 0 { u64::MAX } else { (1 << (pages % 64)) - 1 };
        assert_eq!(fake.read(rig.guest_word(BUFFER + (words - 1) * 8)), last, "{first} {pages}");
        assert_eq!(fake.read(rig.guest_word(BUFFER + words * 8)), 0xabcd, "nothing behind it is written");
    }
}

#[test]
fn every_bad_argument_is_refused_by_its_error_and_changes_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    let end = RAM + RAM_BYTES;
    let start = |arguments| rig.refused(Call::Start, arguments);
    assert_eq!(start([RAM + 1, M, 4096, 0, 0]), (Error::Unaligned, RAM + 1));
    assert_eq!(start([RAM, M + 8, 4096, 0, 0]), (Error::Unaligned, M + 8));
    assert_eq!(start([RAM, 0, 4096, 0, 0]), (Error::InvalidParameter, 0));
    assert_eq!(start([RAM, u64::MAX << 12, 4096, 0, 0]), (Error::OutOfRange, u64::MAX << 12));
    assert_eq!(start([u64::MAX << 12, M, 4096, 0, 0]), (Error::OutOfRange, M));
    assert_eq!(start([RAM, RAM_BYTES + 4096, 4096, 0, 0]), (Error::OutOfRange, end));
    assert_eq!(start([RAM - M, M, 4096, 0, 0]), (Error::OutOfRange, RAM - M));
    assert_eq!(start([0x1000_0000, M, 4096, 0, 0]), (Error::OutOfRange, 0x1000_0000));
    assert_eq!(start([RAM, M, 65536, 0, 0]), (Error::InvalidParameter, 65536));
    assert_eq!(start([RAM, M, 4096, 3, 0]), (Error::InvalidParameter, 3));
    assert_eq!(start([RAM, M, 4096, 1 << 16, 0]), (Error::InvalidParameter, 1 << 16));
    // The weakest tiers that will do: this VM's devices' writes are assumed.
    assert_eq!(start([RAM, M, 4096, 0x301, 0]), (Error::NotSupported, 0x401));
    assert_eq!(start([RAM, M, 4096, 0, 3]), (Error::InvalidParameter, 3));

    for call in [Call::Sync, Call::Clear] {
        assert_eq!(rig.refused(call, [RAM, M, BUFFER, CPU, 0]), (Error::Denied, 0));
    }
    assert_eq!(rig.refused(Call::Stop, [0; 5]), (Error::Denied, 0));

    rig.start();
    assert_eq!(start([RAM, RAM_BYTES, 4096, 0, 0]), (Error::Busy, 0));
    assert_eq!(rig.refused(Call::Stop, [0, 0, 0, 0, 1]), (Error::InvalidParameter, 1));
    for call in [Call::Sync, Call::Clear] {
        let refused = |arguments| rig.refused(call, arguments);
        assert_eq!(refused([RAM + 8, M, BUFFER, CPU, 0]), (Error::Unaligned, RAM + 8));
        assert_eq!(refused([RAM, 100, BUFFER, CPU, 0]), (Error::Unaligned, 100));
        assert_eq!(refused([RAM, 0, BUFFER, CPU, 0]), (Error::InvalidParameter, 0));
        assert_eq!(refused([RAM, u64::MAX << 12, BUFFER, CPU, 0]), (Error::OutOfRange, u64::MAX << 12));
        assert_eq!(refused([RAM, 2 * RAM_BYTES, BUFFER, CPU, 0]), (Error::OutOfRange, end));
        assert_eq!(refused([RAM, M, BUFFER, 0, 0]), (Error::InvalidParameter, 0));
        assert_eq!(refused([RAM, M, BUFFER, CPU | 8, 0]), (Error::InvalidParameter, CPU | 8));
        assert_eq!(refused([RAM, M, BUFFER + 4, CPU, 0]), (Error::Unaligned, BUFFER + 4));
        assert_eq!(refused([RAM, M, RAM - 8, CPU, 0]), (Error::OutOfRange, RAM - 4096));
        assert_eq!(refused([RAM, M, 0x1000_0000, CPU, 0]), (Error::OutOfRange, 0x1000_0000));
        assert_eq!(refused([RAM, M, end - 8, CPU, 0]), (Error::OutOfRange, end));
        assert_eq!(refused([RAM, M, u64::MAX - 7, CPU, 0]), (Error::OutOfRange, u64::MAX - 7));
        assert_eq!(refused([RAM, M, BUFFER, CPU, 64]), (Error::InvalidParameter, 64));
    }
    assert_eq!(
        rig.refused(Call::Clear, [RAM, M, BUFFER, CPU_CLEAR, 0]),
        (Error::InvalidParameter, CPU_CLEAR)
    );
    assert_eq!(rig.refused(Call::Status, [BUFFER, 12, 0, 0, 0]), (Error::Unaligned, 12));
    assert_eq!(rig.refused(Call::Status, [BUFFER + 1, 8, 0, 0, 0]), (Error::Unaligned, BUFFER + 1));
    assert_eq!(rig.refused(Call::Status, [end - 8, 16, 0, 0, 0]), (Error::OutOfRange, end));
    assert_eq!(rig.refused(Call::Faults, [end - 8, 1, 0, 0, 0]), (Error::OutOfRange, end));
    assert_eq!(rig.refused(Call::Faults, [BUFFER + 4, 0, 0, 0, 0]), (Error::Unaligned, BUFFER + 4));
}

#[test]
fn blocks_are_counted_as_they_are_split_by_a_start_and_by_all_starts() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    let split = || vm::status(&fake, &rig.vm.log.lock(), &rig.vm.space.read()).blocks_split;
    let blocks = || {
        let space = rig.vm.space.read();
        space.cpu_view().tree.leaves().blocks() + space.dma_totals().0.blocks()
    };
    // The second start is given up before its end.
    for steps in [u64::MAX, 2] {
        let (before, had, mut step) = (split(), blocks(), 0);
        while step < steps {
            let [x0, next, _, by_this_start, _] = rig.call(Call::Start, [RAM, RAM_BYTES, 4096, 0, step]);
            assert_eq!((by_this_start, split() - before), (had - blocks(), had - blocks()), "step {step}");
            step = if x0 == Status::More.to_x0() { next } else { u64::MAX };
        }
        let (so_far, merged) = (split(), vm::status(&fake, &rig.vm.log.lock(), &rig.vm.space.read()));
        let had = blocks();
        rig.finish(Call::Stop, [0; 5]);
        let after = vm::status(&fake, &rig.vm.log.lock(), &rig.vm.space.read());
        assert_eq!(after.blocks_split, so_far);
        assert_eq!(after.blocks_merged - merged.blocks_merged, blocks() - had);
    }
}

#[test]
fn status_writes_no_more_than_the_caller_has_room_for() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    rig.start();
    fake.write_behind(rig.guest_word(BUFFER + 32), 0xabcd);
    assert_eq!(rig.call(Call::Status, [BUFFER, 32, 0, 0, 0]), [0, 32, 0, 0, 0]);
    let words: [u64; 5] = core::array::from_fn(|i| fake.read(rig.guest_word(BUFFER + i as u64 * 8)));
    assert_eq!(words, [2, 0x401, RAM, RAM_BYTES, 0xabcd]);
    assert_eq!(rig.call(Call::Status, [BUFFER, 1 << 40, 0, 0, 0])[1], LogStatus::BYTES);
    assert_eq!(rig.finish(Call::Sync, [RAM, RAM_BYTES, BUFFER, CPU, 0]), 1, "the record's page is dirty");
}

#[test]
fn fault_records_are_delivered_once_and_losses_are_said() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    for ipa in 0..3 {
        rig.vm.faults.lock().push(FaultRecord { stream: 8, kind: 0x10, ipa, access: FaultRecord::WRITE });
    }
    rig.vm.faults.lock().count_lost(5);
    assert_eq!(rig.call(Call::Faults, [BUFFER, 2, 0, 0, 0]), [0, 2, 5, 0, 0]);
    let words: [u64; 8] = core::array::from_fn(|i| fake.read(rig.guest_word(BUFFER + i as u64 * 8)));
    assert_eq!(words, [8, 0x10, 0, 1, 8, 0x10, 1, 1]);
    assert_eq!(rig.call(Call::Faults, [BUFFER, u64::MAX, 0, 0, 0]), [0, 1, 0, 0, 0]);
    assert_eq!(rig.call(Call::Faults, [BUFFER, 10, 0, 0, 0]), [0, 0, 0, 0, 0]);
    // Room for none needs none.
    assert_eq!(rig.call(Call::Faults, [8, 0, 0, 0, 0]), [0, 0, 0, 0, 0]);
    assert_eq!(rig.call(Call::Status, [8, 0, 0, 0, 0]), [0, 0, 0, 0, 0]);
}

#[test]
fn a_second_operation_on_a_log_is_told_that_it_is_busy() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    let held = rig.vm.log.lock();
    assert_eq!(rig.call(Call::Start, [RAM, RAM_BYTES, 4096, 0, 0])[0], Error::Busy.to_x0());
    assert_eq!(rig.call(Call::Stop, [0; 5])[0], Error::Busy.to_x0());
    // None of the calls waits: the other vCPU may be waiting for this one to be stopped.
    for (call, arguments) in [
        (Call::Features, [0; 5]),
        (Call::Sync, [RAM, 4096, BUFFER, CPU, 0]),
        (Call::Clear, [RAM, 4096, BUFFER, CPU, 0]),
        (Call::Status, [BUFFER, 8, 0, 0, 0]),
    ] {
        assert_eq!(rig.call(call, arguments), [Error::Busy.to_x0(), 0, 0, 0, arguments[3]], "{call:?}");
    }
    // Faults needs the address space alone.
    assert_eq!(rig.call(Call::Faults, [BUFFER, 1, 0, 0, 0])[0], 0);
    let changing = rig.vm.space.write();
    assert_eq!(rig.call(Call::Faults, [BUFFER, 1, 0, 0, 0])[0], Error::Busy.to_x0());
    drop((held, changing));
    rig.start();
}

#[test]
fn pages_are_read_into_the_callers_memory_step_by_step() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let rig = Rig::with_ram(&fake, &tlb, 64);
    let pages = 31;
    for page in 0..pages {
        fake.write_behind(rig.guest_word(RAM + page * 4096 + 8 * page), 0x100 + page);
    }
    let to = RAM + pages * 4096 + 8;
    assert_eq!(rig.finish(Call::Read, [RAM, pages * 4096, to, 0, 0]), pages);
    for page in 0..pages {
        assert_eq!(fake.read(rig.guest_word(to + page * 4096 + 8 * page)), 0x100 + page);
    }
    // What EL2 wrote is in a log.
    rig.start();
    rig.finish(Call::Read, [RAM, 4096, BUFFER, 0, 0]);
    rig.finish(Call::Sync, [RAM, RAM_BYTES, BUFFER + 8192, CPU_CLEAR, 0]);
    assert_eq!(fake.read(rig.guest_word(BUFFER + 8192)), 1 << ((BUFFER - RAM) / 4096));
}

#[test]
fn a_page_whose_place_is_nowhere_is_not_read() {
    let (fake, tlb) = (Fake::new(96), FakeTlb::default());
    let rig = Rig::new(&fake, &tlb);
    let end = RAM + RAM_BYTES;
    let read = |arguments| rig.refused(Call::Read, arguments);
    assert_eq!(read([RAM, 8192, end - 4096, 0, 0]), (Error::OutOfRange, end));
    assert_eq!(read([end - 4096, 8192, RAM, 0, 0]), (Error::OutOfRange, end));
    assert_eq!(read([RAM, 4096, RAM + 4, 0, 0]), (Error::Unaligned, RAM + 4));
    assert_eq!(read([RAM + 8, 4096, RAM, 0, 0]), (Error::Unaligned, RAM + 8));
    assert_eq!(read([RAM, 0, RAM, 0, 0]), (Error::InvalidParameter, 0));
    assert_eq!(read([RAM, 4096, RAM, 0, 1]), (Error::InvalidParameter, 1));
    assert_eq!(read([RAM, 16 * 4096, RAM, 0, 16]), (Error::InvalidParameter, 16));
    assert_eq!(read([RAM, 32 * 4096, u64::MAX - 7, 0, 16]).0, Error::OutOfRange);
}

#[test]
fn devices_are_told_with_the_tier_of_each() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut rig = Rig::new(&fake, &tlb);
    assert_eq!(rig.call(Call::Devices, [0; 5]), [0, 0, 0, 0, 0]);
    assert!(rig.vm.devices.add(StreamId(8), DmaTier::Hardware));
    assert!(rig.vm.devices.add(StreamId(0x100), DmaTier::Digest));
    assert_eq!(rig.call(Call::Devices, [0; 5]), [0, 0, 2, 0, 0]);
    assert_eq!(rig.call(Call::Devices, [BUFFER, 9, 0, 0, 0]), [0, 2, 2, 0, 0]);
    let words = [0, 8, 16, 24].map(|at| fake.read(rig.guest_word(BUFFER + at)));
    assert_eq!(words, [8, 1, 0x100, 3]);
    assert_eq!(rig.call(Call::Devices, [BUFFER, 1, 0, 0, 0]), [0, 1, 2, 0, 0]);
    assert_eq!(rig.refused(Call::Devices, [BUFFER + 4, 1, 0, 0, 0]), (Error::Unaligned, BUFFER + 4));
    assert_eq!(rig.refused(Call::Devices, [0x1000_0000, 1, 0, 0, 0]), (Error::OutOfRange, 0x1000_0000));
    for stream in 2..8 {
        assert!(rig.vm.devices.add(StreamId(stream), DmaTier::Assume));
    }
    assert!(!rig.vm.devices.add(StreamId(9), DmaTier::Assume));
}
