//! Any registers, in any phase of a log: what is refused names a value that was wrong and changes nothing.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use strandline_abi::GRANULE_ADAPTIVE;

use super::*;
use crate::hw::DmaTlbError;

/// RAM that is only logged, and the RAM behind it, which the fake machine really has: buffers lie there.
const REAL: u64 = RAM + RAM_BYTES;
const REAL_FRAMES: u64 = 64;
const END: u64 = REAL + REAL_FRAMES * 4096;
const REGISTERS: u64 = 0x1000_0000;

#[derive(Clone, Debug)]
enum Step {
    /// A call; whether its step is replaced by the one that was handed out.
    Call(u32, Box<Arguments>, bool),
    /// The next operation on the SMMU fails.
    SmmuFails,
}

fn a_vm<'d>(fake: &Fake, tlb: &'d FakeTlb, tier: DmaTier) -> Vm<'d, FakeTlb> {
    let real = fake.alloc(REAL_FRAMES.trailing_zeros()).unwrap().into_pa();
    let mut space = AddressSpace::new(fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    space.add_dma_view(fake, DmaWalker { tlb, vmid: Vmid(2), coherent: true }, tier).unwrap();
    for (start, bytes, pa, reach) in [
        (REGISTERS, M, Pa(REGISTERS), Reach::CpuDevice),
        (RAM, RAM_BYTES, Pa(0x8000_0000), Reach::Ram),
        (REAL, REAL_FRAMES * 4096, real, Reach::Ram),
    ] {
        space.map(fake, Region { range: range(start, bytes), pa, reach }).unwrap();
    }
    let vm = Vm::new(space, CpuTier::Hardware);
    (0..3).for_each(|ipa| {
        vm.faults.lock().push(FaultRecord { stream: 8, kind: 0x10, ipa, access: FaultRecord::WRITE });
    });
    vm
}

/// All there is: every word in use, what is reserved, and every field of the VM.
fn state(fake: &Fake, vm: &Vm<'_, FakeTlb>) -> impl PartialEq + use<> {
    (fake.contents(), vm::status(fake, &vm.log.lock(), &vm.space.read()), format!("{vm:?}"))
}

/// Whether `value` is what was wrong with a call that failed by `error`.
fn names(
    vm: &Vm<'_, FakeTlb>,
    fake: &Fake,
    id: u32,
    arguments: &Arguments,
    error: Error,
    value: u64,
) -> bool {
    let given = arguments.contains(&value);
    match error {
        Error::NotSupported if id == Call::Start.id() => {
            let weaker = value == vm.log.lock().tiers(&*vm.space.read()).to_bits() && arguments[3] != 0;
            // No view of these VMs adapts, unless devices are known by hardware.
            let adaptive = arguments[2] == GRANULE_ADAPTIVE && value == 0;
            weaker || adaptive && vm.space.read().dma_tier() != DmaTier::Hardware
        }
        Error::NotSupported => Call::from_id(id).is_none() && value == id.into(),
        Error::InvalidParameter => given,
        Error::Unaligned => given && !value.is_multiple_of(4096),
        // A length that wraps, or an address: of a buffer, where the VM may not write; of a range, where no RAM or
        // no log is.
        Error::OutOfRange => {
            let log = vm.log.lock().range();
            given
                || vm.space.read().guest_ram(fake, Ipa(value)).is_none()
                || log.is_some_and(|l| !l.contains(Ipa(value)))
        }
        Error::NoMemory => value > fake.free_frames() as u64,
        Error::Denied | Error::Busy | Error::Untrusted => value == 0,
    }
}

fn a_pointer() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..REAL_FRAMES * 512).prop_map(|word| REAL + word * 8),
        1 => (0..REAL_FRAMES * 4096).prop_map(|byte| REAL + byte),
        3 => (1_u64..80).prop_map(|word| END - word * 8),
        1 => select(vec![END, RAM - 8, REGISTERS, REGISTERS + M - 8, 0, 8, (1 << 36) - 8, 1 << 36]),
        1 => (0_u64..600).prop_map(|word| !(word * 8)),
        1 => (1_u64..600).prop_map(|word| 0u64.wrapping_sub(word * 8)),
        1 => any::<u64>(),
    ]
}

/// Address and length of a range.
fn a_range() -> impl Strategy<Value = (u64, u64)> {
    let start = prop_oneof![
        6 => (0..(END - RAM) / 4096 + 2).prop_map(|page| RAM + page * 4096),
        1 => select(vec![0, REGISTERS, RAM - 4096, RAM + 1, (1 << 36) - 4096, u64::MAX << 12]),
        1 => any::<u64>(),
    ];
    let bytes = prop_oneof![
        6 => (1_u64..200).prop_map(|pages| pages * 4096),
        2 => select(vec![M, RAM_BYTES, 0, 8, 1 << 36, u64::MAX << 12, u64::MAX]),
        1 => any::<u64>(),
    ];
    prop_oneof![3 => (start, bytes), 3 => Just((RAM, END - RAM)), 2 => Just((RAM, RAM_BYTES))]
}

/// A register of little meaning: mostly what is right.
fn mostly(right: Vec<u64>) -> impl Strategy<Value = u64> {
    prop_oneof![8 => select(right), 1 => 0_u64..9, 1 => any::<u64>()]
}

fn a_step() -> impl Strategy<Value = Step> {
    let call = |call: Call, [a, b, c, d]: [u64; 4], e: u64, right: bool| {
        Step::Call(call.id(), Box::new([a, b, c, d, e]), right)
    };
    let start = (
        a_range(),
        mostly(vec![4096]),
        mostly(vec![0, 0x401]),
        mostly(vec![0]),
        proptest::bool::weighted(0.8),
    )
        .prop_map(move |((ipa, bytes), grain, flags, step, right)| {
            call(Call::Start, [ipa, bytes, grain, flags], step, right)
        });
    let of_log = (
        select(vec![Call::Sync, Call::Clear]),
        a_range(),
        a_pointer(),
        mostly((1..8).collect()),
        mostly(vec![0]),
    )
        .prop_map(move |(id, (ipa, bytes), pointer, flags, step)| {
            call(id, [ipa, bytes, pointer, flags], step, false)
        });
    let stop = (prop_oneof![Just(0), 0_u64..9, any::<u64>()], proptest::bool::weighted(0.3))
        .prop_map(move |(step, right)| call(Call::Stop, [0; 4], step, right));
    let records =
        (select(vec![Call::Status, Call::Faults]), a_pointer(), mostly(vec![0, 1, 8, 64, LogStatus::BYTES]))
            .prop_map(move |(id, pointer, room)| call(id, [pointer, room, 0, 0], 0, false));
    let read = (0..REAL_FRAMES + 2, 0_u64..REAL_FRAMES, a_pointer(), mostly(vec![0, 16, 32])).prop_map(
        move |(page, pages, pointer, step)| {
            call(Call::Read, [REAL + page * 4096, pages * 4096, pointer, 0], step, false)
        },
    );
    let known = select(Call::ALL.to_vec()).prop_map(Call::id);
    let any_id = prop_oneof![known, any::<u32>(), (0_u32..32).prop_map(|n| 0xc600_0000 | n)];
    // Where a buffer may lie in RAM that the fake machine lacks, its address comes from the others.
    let anything = (any_id, any::<[u64; 2]>(), a_pointer(), any::<[u64; 2]>())
        .prop_map(|(id, [_, b], p, [c, d])| Step::Call(id, Box::new([p, b, p, c, d]), false));
    prop_oneof![8 => start, 6 => of_log, 3 => stop, 2 => records, 1 => read, 2 => anything, 3 => Just(Step::SmmuFails)]
}

#[test]
#[cfg_attr(miri, ignore = "thousands of calls, and all memory compared after each, take Miri too long")]
fn any_registers_that_are_refused_name_a_wrong_value_and_change_nothing() {
    let config = Config { cases: 240, failure_persistence: None, ..Config::default() };
    // Always the same cases, so that what they meet can be asserted.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tier = select(vec![DmaTier::Hardware, DmaTier::Hardware, DmaTier::Assume]);
    let input = (80_usize..128, tier, vec(a_step(), 80));
    let met = std::cell::RefCell::new(BTreeSet::new());
    runner
        .run(&input, |(frames, tier, steps)| {
            let (fake, tlb) = (Fake::new(frames), FakeTlb::default());
            let vm = a_vm(&fake, &tlb, tier);
            let mut handed_out = 0;
            for step in steps {
                match step {
                    // In half of the cases starts succeed, so that there are logs to fail.
                    Step::SmmuFails if frames % 2 == 0 && vm.log.lock().state() != LogState::On => {}
                    Step::SmmuFails => tlb.failures.borrow_mut().push(DmaTlbError::Timeout),
                    Step::Call(id, mut arguments, right) => {
                        if right {
                            arguments[4] = handed_out;
                        }
                        if id == Call::Read.id() {
                            // There is nothing to be read in RAM that is only logged, nor room for a later step's pages.
                            for at in [0, 2] {
                                if (RAM - M..REAL).contains(&arguments[at]) {
                                    arguments[at] += REAL - RAM + M;
                                }
                            }
                        }
                        let next = check(&fake, &vm, id, &arguments, &mut met.borrow_mut());
                        handed_out = next.unwrap_or(handed_out);
                    }
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let met = met.into_inner();
    for state in LogState::ALL {
        for call in [Call::Start, Call::Sync, Call::Clear, Call::Stop] {
            assert!(met.contains(&(call.id(), state.code())), "{call:?} was never refused while {state}");
        }
    }
}

/// Makes one call, and gives back the step it handed out.
fn check(
    fake: &Fake,
    vm: &Vm<'_, FakeTlb>,
    id: u32,
    arguments: &Arguments,
    met: &mut BTreeSet<(u32, u8)>,
) -> Option<u64> {
    let (before, phase) = (state(fake, vm), vm.log.lock().state());
    let reply = dispatch(fake, vm, id, arguments);
    crate::fake::take_trace();
    let unchanged = || state(fake, vm) == before;
    let Some([x0, x1, ..]) = reply else {
        assert!(unchanged(), "{id:#x} is not ours");
        return None;
    };
    if id == Call::Uid.id() {
        return None;
    }
    let Some(error) = Error::from_x0(x0) else {
        let stepped = id == Call::Start.id() || id == Call::Stop.id();
        return stepped.then_some(if x0 == Status::More.to_x0() { x1 } else { 0 });
    };
    met.insert((id, phase.code()));
    assert!(
        names(vm, fake, id, arguments, error, x1),
        "{id:#x} {arguments:x?}: {error:?} {x1:#x} while {phase}"
    );
    // Hardware that fails changes what the contract says it does; after that, nothing more.
    let failed_now = error == Error::Untrusted && (phase != LogState::Untrusted || id == Call::Stop.id());
    assert!(failed_now || unchanged(), "{id:#x} {arguments:x?}: {error:?} changed something while {phase}");
    failed_now.then_some(0)
}
