//! The bad requests of each call of the log. In each, one thing alone is wrong.

use guest_rt::reason::Checked;
use strandline_abi::{Call, Error, Flags, PAGE_BYTES};

use crate::bad::{Attempt, LAST_PAGE, Pieces};

/// A request that blames the value `value`.
fn blame(call: Call, what: &'static str, args: [u64; 5], error: Error, value: u64) -> Attempt {
    Attempt { what, function: call.id(), args, error, value: Some(value) }
}

/// A request that blames no single value.
fn refuse(call: Call, what: &'static str, args: [u64; 5], error: Error) -> Attempt {
    Attempt { what, function: call.id(), args, error, value: None }
}

/// Ranges that are wrong in themselves or not in RAM, put into `args` as x1 and x2.
fn ranges(call: Call, p: &Pieces, args: [u64; 5], attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    let with = |start: u64, bytes: u64| [start, bytes, args[2], args[3], args[4]];
    let (start, bytes) = (p.area.start(), p.area.bytes());
    for odd in [1, 8, PAGE_BYTES / 2] {
        attempt(blame(call, "unaligned address", with(start + odd, bytes), Error::Unaligned, start + odd))?;
        attempt(blame(call, "unaligned length", with(start, bytes + odd), Error::Unaligned, bytes + odd))?;
    }
    attempt(blame(call, "no length", with(start, 0), Error::InvalidParameter, 0))?;
    let out = Error::OutOfRange;
    attempt(refuse(call, "a sum that wraps", with(LAST_PAGE, 2 * PAGE_BYTES), out))?;
    attempt(refuse(call, "a sum that wraps to zero", with(LAST_PAGE, PAGE_BYTES), out))?;
    attempt(refuse(call, "a length that wraps", with(start, LAST_PAGE), out))?;
    for huge in [1 << 62, 1 << 63, 1 << 47] {
        attempt(refuse(call, "a huge length", with(start, huge), out))?;
    }
    attempt(refuse(call, "past the end of RAM", with(p.ram.end() - PAGE_BYTES, 2 * PAGE_BYTES), out))?;
    attempt(refuse(call, "from below RAM", with(p.ram.start() - PAGE_BYTES, 2 * PAGE_BYTES), out))?;
    for other in p.not_ram {
        attempt(refuse(call, "no RAM", with(other, PAGE_BYTES), out))?;
    }
    Ok(())
}

/// Starts, with no log on.
pub fn starts(p: &Pieces, attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    let (call, start, bytes) = (Call::Start, p.area.start(), p.area.bytes());
    ranges(call, p, [start, bytes, PAGE_BYTES, 0, 0], attempt)?;
    let invalid = Error::InvalidParameter;
    for granule in [0, 2, 2048, 8192, 0x1_0000, 0x40_0000, 1 << 32 | PAGE_BYTES, u64::MAX] {
        attempt(blame(call, "granule", [start, bytes, granule, 0, 0], invalid, granule))?;
    }
    for reserved in [3, 5 << 8, 1 << 16, 1 << 63] {
        attempt(blame(call, "no tiers in x4", [start, bytes, PAGE_BYTES, reserved, 0], invalid, reserved))?;
    }
    for step in [1, PAGE_BYTES, u64::MAX] {
        attempt(blame(call, "step out of turn", [start, bytes, PAGE_BYTES, 0, step], invalid, step))?;
    }
    Ok(())
}

/// Calls that want a log, with none on.
pub fn without_a_log(p: &Pieces, attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    let args = [p.area.start(), p.area.bytes(), p.bits, Flags::CPU.bits(), 0];
    attempt(refuse(Call::Sync, "sync without a log", args, Error::Denied))?;
    attempt(refuse(Call::Clear, "clear without a log", args, Error::Denied))?;
    attempt(refuse(Call::Stop, "stop without a log", [0; 5], Error::Denied))
}

/// Starts while a log is on: of the same range and of another one.
pub fn second_starts(p: &Pieces, attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    for bytes in [p.area.bytes(), PAGE_BYTES] {
        let args = [p.area.start(), bytes, PAGE_BYTES, 0, 0];
        attempt(refuse(Call::Start, "second start", args, Error::Busy))?;
    }
    Ok(())
}

/// Syncs and clears of the log that is on.
pub fn reads(p: &Pieces, attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    let (start, bytes) = (p.area.start(), p.area.bytes());
    let cpu = Flags::CPU.bits();
    for call in [Call::Sync, Call::Clear] {
        ranges(call, p, [start, bytes, p.bits, cpu, 0], attempt)?;
        let out = Error::OutOfRange;
        let beside = [start - PAGE_BYTES, PAGE_BYTES, p.bits, cpu, 0];
        attempt(refuse(call, "RAM that is not logged", beside, out))?;
        attempt(refuse(call, "past the logged range", [start, bytes + PAGE_BYTES, p.bits, cpu, 0], out))?;
        for odd in [1, 4] {
            let bits = p.bits + odd;
            attempt(blame(call, "unaligned bitmap", [start, bytes, bits, cpu, 0], Error::Unaligned, bits))?;
        }
        for other in p.not_ram {
            attempt(refuse(call, "bitmap outside RAM", [start, bytes, other, cpu, 0], out))?;
        }
        // The log has 100 pages: two words of bitmap.
        attempt(refuse(call, "bitmap past the end of RAM", [start, bytes, p.ram.end() - 8, cpu, 0], out))?;
        attempt(refuse(call, "bitmap from below RAM", [start, bytes, p.ram.start() - 8, cpu, 0], out))?;
        attempt(refuse(call, "bitmap that wraps", [start, bytes, u64::MAX - 7, cpu, 0], out))?;
        let invalid = Error::InvalidParameter;
        // No source; a reserved bit, alone and with a source.
        for flags in [0, 1 << 3, 1 << 3 | cpu, 1 << 63 | cpu, u64::MAX, Flags::CLEAR.bits()] {
            attempt(blame(call, "flags", [start, bytes, p.bits, flags, 0], invalid, flags))?;
        }
        for step in [1, 64, PAGE_BYTES, u64::MAX] {
            attempt(blame(call, "step out of turn", [start, bytes, p.bits, cpu, step], invalid, step))?;
        }
    }
    let clearing = cpu | Flags::CLEAR.bits();
    let args = [start, bytes, p.bits, clearing, 0];
    attempt(blame(Call::Clear, "a clear with the sync's flag", args, Error::InvalidParameter, clearing))
}

/// Stops out of turn.
pub fn stops(attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    for step in [1, u64::MAX] {
        attempt(blame(Call::Stop, "step out of turn", [0, 0, 0, 0, step], Error::InvalidParameter, step))?;
    }
    Ok(())
}

/// Buffers of the calls that write records.
pub fn buffers(p: &Pieces, attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    for (call, room) in [(Call::Status, PAGE_BYTES), (Call::Faults, 4)] {
        for odd in [1, 4] {
            let buffer = p.bits + odd;
            attempt(blame(call, "unaligned buffer", [buffer, room, 0, 0, 0], Error::Unaligned, buffer))?;
        }
        for other in p.not_ram {
            attempt(refuse(call, "buffer outside RAM", [other, room, 0, 0, 0], Error::OutOfRange))?;
        }
        attempt(refuse(
            call,
            "buffer past the end of RAM",
            [p.ram.end() - 8, room, 0, 0, 0],
            Error::OutOfRange,
        ))?;
        attempt(refuse(call, "buffer that wraps", [u64::MAX - 7, room, 0, 0, 0], Error::OutOfRange))?;
    }
    Ok(())
}
