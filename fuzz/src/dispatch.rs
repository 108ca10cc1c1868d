//! The target `dispatch`: a VM's life, with any registers in its calls.

use strandline::hypercall::Arguments;
use strandline_abi::{Call, DmaTier, Flags, LogSource, LogState, LogStatus, PAGE_BYTES, Status};

use crate::input::Input;
use crate::life::{Life, RAM, REGISTERS, Setting, TAIL_PAGES};
use crate::strict::Tlb;

/// Calls, writes and failures as the bytes say; then a log that has to work.
pub fn dispatch(data: &[u8]) {
    let mut input = Input::new(data);
    let setting = setting(&mut input);
    let (machine, tlb) = (setting.machine(), Tlb::default());
    let mut life = Life::new(&machine, &tlb, setting);
    let mut handed_out = 0;
    while !input.is_empty() {
        step(&mut life, &mut input, &mut handed_out);
    }
    works_afterwards(life);
}

fn setting(input: &mut Input<'_>) -> Setting {
    let tier = input.of(&[DmaTier::Hardware, DmaTier::Assume, DmaTier::None]);
    // Two blocks, and frames that just do or don't; or enough for ranges of several steps of sync.
    let frames = 40 + input.below(32) as usize;
    if input.below(16) == 15 {
        Setting { tier, frames: 256, blocks: 70 }
    } else {
        Setting { tier, frames, blocks: 2 }
    }
}

fn step(life: &mut Life<'_>, input: &mut Input<'_>, handed_out: &mut u64) {
    let pages = (life.setting.end() - RAM) / PAGE_BYTES;
    match input.below(16) {
        0 | 1 => life.write(LogSource::Cpu, RAM / PAGE_BYTES + input.below(pages)),
        2 => life.write(LogSource::Dma, RAM / PAGE_BYTES + input.below(pages)),
        3 => {
            let (address, value) = (RAM + input.below(pages * 512) * 8, input.word());
            if let Some(pa) = life.setting.pa(address) {
                life.machine.write(pa, value);
            }
            life.write(LogSource::Cpu, address / PAGE_BYTES);
        }
        4 => life.stopped_device(),
        5 if input.below(8) == 7 => life.fail(input.below(2) == 0),
        _ => {
            let (id, mut arguments) = call(&life.setting, input);
            if input.below(2) == 0 && (id == Call::Start.id() || id == Call::Stop.id()) {
                arguments[4] = *handed_out;
            }
            let [x0, x1, ..] = life.call(id, arguments);
            if x0 == Status::More.to_x0() {
                *handed_out = x1;
            } else if x0 == Status::Done.to_x0() {
                *handed_out = 0;
            }
        }
    }
}

/// A call, most of its registers of a kind that it may be right.
fn call(setting: &Setting, input: &mut Input<'_>) -> (u32, Arguments) {
    let known = Call::ALL;
    let id = match input.below(known.len() as u64 + 8) {
        0 => input.word() as u32,
        n => known.get(n as usize - 1).map_or(Call::Start.id() + (n as u32 & 3), |call| call.id()),
    };
    let step = |input: &mut Input<'_>| mostly(input, &[0, 0, 0, 32768, 1, 65536]);
    let arguments = match Call::from_id(id) {
        Some(Call::Start) => {
            let [start, bytes] = range(setting, input);
            let granule = mostly(input, &[4096, 4096, 4096, 2 << 20, 1 << 30, 1, 1]);
            [start, bytes, granule, mostly(input, &[0, 0, 0, 0x401, 0x101, 0x302]), step(input)]
        }
        Some(Call::Sync | Call::Clear) => {
            let [start, bytes] = range(setting, input);
            let flags = mostly(input, &[1, 2, 3, 5, 6, 7, Flags::CLEAR.bits()]);
            [start, bytes, pointer(setting, input), flags, step(input)]
        }
        Some(Call::Read) => {
            let [start, bytes] = range(setting, input);
            [start, bytes, pointer(setting, input), mostly(input, &[0]), mostly(input, &[0, 0, 0, 16, 32])]
        }
        Some(Call::Stop) => [mostly(input, &[0]), 0, 0, 0, step(input)],
        Some(Call::Status | Call::Faults) => {
            let room = mostly(input, &[LogStatus::BYTES, 0, 1, 8, 64, 1 << 40]);
            [pointer(setting, input), room, mostly(input, &[0]), 0, 0]
        }
        _ => [mostly(input, &[0]), mostly(input, &[0]), 0, mostly(input, &[0]), mostly(input, &[0])],
    };
    (id, arguments)
}

fn mostly(input: &mut Input<'_>, right: &[u64]) -> u64 {
    match input.byte() {
        255 => input.word(),
        254 => 1 << input.below(64),
        n => right[n as usize % right.len()],
    }
}

fn range(setting: &Setting, input: &mut Input<'_>) -> [u64; 2] {
    let all = [RAM, setting.end() - RAM];
    let pages = all[1] / PAGE_BYTES;
    match input.below(8) {
        0..=2 => all,
        3 => [RAM, setting.blocks << 21],
        4 | 5 => {
            let first = input.below(pages);
            [RAM + first * PAGE_BYTES, (1 + input.below(200).min(pages - first - 1)) * PAGE_BYTES]
        }
        6 => [pointer(setting, input), mostly(input, &[0, PAGE_BYTES, u64::MAX << 12, all[1]])],
        _ => [input.word(), input.word()],
    }
}

/// An address for a buffer.
fn pointer(setting: &Setting, input: &mut Input<'_>) -> u64 {
    let tail = setting.tail();
    match input.below(8) {
        0..=2 => tail + input.below(TAIL_PAGES * 512) * 8,
        3 => RAM + input.below((setting.blocks << 18) - 1) * 8,
        // Where one mapping ends and the next begins.
        4 => tail - 8 * input.below(64),
        5 => setting.end() - 8 * input.below(600),
        6 => input.of(&[REGISTERS, RAM - 8, 0, (1 << 36) - 8, 1 << 36, u64::MAX - 7, RAM + 4, RAM + 1]),
        _ => input.word(),
    }
}

/// Ends whatever is on; then a log reports what is written, no more and no less, and gives its frames back.
fn works_afterwards(mut life: Life<'_>) {
    life.tlb.fails.set(false);
    life.machine.hold_fails.set(false);
    let setting = life.setting;
    if life.state() != LogState::Off {
        assert!(finish(&mut life, Call::Stop, [0; 5]), "a log that is on, or half, can be stopped");
    }
    let bytes = setting.blocks << 21;
    // Refused, for frames, or done.
    if finish(&mut life, Call::Start, [RAM, bytes, 4096, 0, 0]) {
        let page = RAM / PAGE_BYTES;
        life.write(LogSource::Cpu, page + 3);
        life.write(LogSource::Dma, page + (bytes / PAGE_BYTES) - 1);
        let flags = Flags::BOTH.with(Flags::CLEAR).bits();
        assert!(finish(&mut life, Call::Sync, [RAM, bytes, setting.tail(), flags, 0]), "a log is read");
        assert!(finish(&mut life, Call::Stop, [0; 5]), "a log is stopped");
    }
}

/// Repeats a call until it is done; `false` where it is refused.
fn finish(life: &mut Life<'_>, call: Call, mut arguments: Arguments) -> bool {
    loop {
        match life.call(call.id(), arguments) {
            [0, ..] => return true,
            [1, next, ..] => arguments[4] = next,
            _ => return false,
        }
    }
}
