//! Random calls with random arguments: whatever is answered, the VM lives on and the log works afterwards.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::log::{self, Failure};
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, println, reason};
use strandline_abi::{Call, Error, Flags, PAGE_BYTES, Status, bitmap_bytes};

use crate::places::cut;

const LOG_PAGES: u64 = 200;

/// `fuzz rounds=N seed=S`: random calls, most of them nonsense.
pub fn random_calls_do_no_harm(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let rounds = args.number_or("rounds", 3000)?;
    let mut rng = Rng::new(args.number_or("seed", 1)?);
    let mut free = guest.free;
    // Room for the bits of all RAM behind any address in the first page, so that no answer reaches other memory.
    let room = cut(&mut free, bitmap_bytes(guest.ram.pages()) + PAGE_BYTES)?.area();
    let memory = cut(&mut free, LOG_PAGES * PAGE_BYTES)?.area();
    let (mut done, mut refused) = (0_u64, 0_u64);
    for round in 0..rounds {
        let (function, values) = random_call(&mut rng, guest.ram, memory, room);
        match finish(function, values) {
            Ok(()) => done += 1,
            Err(Failure::Refused(..)) => refused += 1,
            Err(other) => return Err(reason!("round {round}: {function:#x} {values:#x?}: {other}")),
        }
    }
    println!("{done} calls did something, {refused} were refused");
    works_afterwards(memory, room)
}

/// Makes a call and, where it says 'more', the calls that end it.
fn finish(function: u32, mut values: [u64; 5]) -> Result<(), Failure> {
    loop {
        let step = log::step(function, values)?;
        if step.status == Status::Done {
            return Ok(());
        }
        values[4] = step.values[0];
    }
}

/// A call whose pointers, where EL2 would write, lie in `room` or outside all RAM.
fn random_call(rng: &mut Rng, ram: Area, memory: Area, room: Area) -> (u32, [u64; 5]) {
    const CALLS: [Call; 7] =
        [Call::Features, Call::Start, Call::Sync, Call::Clear, Call::Stop, Call::Status, Call::Faults];
    let call = pick(rng, &CALLS);
    let target =
        [room.start(), room.start() + 8, room.start() + 1, ram.end(), ram.start() - 8, 0, u64::MAX - 7];
    let anything = [
        0,
        1,
        4096,
        8192,
        1 << 21,
        1 << 30,
        1 << 47,
        1 << 63,
        u64::MAX,
        u64::MAX << 12,
        ram.bytes(),
        rng.next(),
    ];
    let addresses =
        [ram.start(), memory.start(), memory.start() + 4096, memory.start() + 1, ram.end() - 4096];
    let x1 = if rng.below(4) == 0 { pick(rng, &anything) } else { pick(rng, &addresses) };
    let x2 = if rng.below(2) == 0 { memory.bytes() } else { pick(rng, &anything) };
    let x4 = if rng.below(2) == 0 { rng.below(16) } else { pick(rng, &anything) };
    // A step out of turn now and then.
    let x5 = if rng.below(8) == 0 { pick(rng, &anything) } else { 0 };
    let args = match call {
        Call::Start => {
            [x1, x2, if rng.below(8) == 0 { x4 } else { 4096 }, if rng.below(8) == 0 { x4 } else { 0 }, x5]
        }
        // What a call doesn't have is zero, mostly.
        Call::Features | Call::Stop => [0, 0, 0, 0, x5],
        Call::Status | Call::Faults => [pick(rng, &target), x2, 0, 0, x5],
        _ => [x1, x2, pick(rng, &target), x4, x5],
    };
    (call.id(), args)
}

fn pick<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    // The remainder is below the length of a slice.
    values[rng.below(values.len() as u64) as usize]
}

/// Ends whatever log is on, and makes a new one work.
pub fn works_afterwards(memory: Area, room: Area) -> Checked {
    match log::stop() {
        Ok(_) | Err(Failure::Refused(Error::Denied, _)) => {}
        Err(other) => return Err(reason!("the stop afterwards: {other}")),
    }
    log::start(memory)?;
    let window = Window::new(memory).ok_or_else(|| reason!("{memory} is this guest's own"))?;
    let bits = Window::new(room).ok_or_else(|| reason!("{room} is this guest's own"))?;
    let written = [3, LOG_PAGES - 1];
    for page in written {
        window.write64(page * PAGE_BYTES, 1);
    }
    let synced = log::sync(memory, &bits, Flags::CPU.with(Flags::CLEAR))?;
    check!(synced.pages == 2, "a log made afterwards reports {} pages, not 2", synced.pages)?;
    Bitmap::new(&bits, LOG_PAGES).compare(0..LOG_PAGES, &written).map_err(|e| reason!("{e}"))?;
    log::stop()?;
    Ok(())
}
