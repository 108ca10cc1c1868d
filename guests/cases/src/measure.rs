//! What the calls cost, told to whoever counts: under `-icount shift=0` a tick of the counter is an instruction.

use guest_rt::area::Area;
use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason, timer};
use strandline_abi::{Call, Flags, LogStatus, PAGE_BYTES, Status, bitmap_bytes};

use crate::places::cut;

/// One page in so many is written before a sync that is to find some.
const EVERY: u64 = 512;
/// Where the ranges begin: the first multiple in RAM behind the guest itself.
const ALIGNMENT: u64 = 1 << 30;
/// The largest range is 64 GiB.
const SIZES: [u64; 6] = [2 << 20, 32 << 20, 256 << 20, 1 << 30, 8 << 30, 64 << 30];

/// Ticks of one call, all steps together, and of its longest step.
#[derive(Clone, Copy, Default)]
struct Cost {
    steps: u64,
    ticks: u64,
    longest: u64,
}

/// `measure most=BYTES`: for ranges of 2 MiB and more, up to `most` (1 GiB), a start, syncs, a clear and a stop; one line
/// each: `cost CALL BYTES: STEPS steps, TICKS ticks, LONGEST in the longest step`.
pub fn tells_what_calls_cost(guest: &Guest) -> Checked {
    let most = guest.tree.args().number_or("most", 1 << 30)?;
    check!(timer::frequency() == 1_000_000_000, "the counter counts no nanoseconds")?;
    let start = guest.free.start().checked_next_multiple_of(ALIGNMENT).ok_or_else(|| reason!("no RAM"))?;
    let mut small = Area::between(guest.free.start(), start);
    let bits = cut(&mut small, bitmap_bytes(most / PAGE_BYTES))?;
    for bytes in SIZES.into_iter().filter(|bytes| *bytes <= most) {
        let range = Area::new(start, bytes).filter(|range| guest.free.covers(*range));
        let range = range.ok_or_else(|| reason!("too little RAM for {bytes:#x} bytes"))?;
        costs_of(range, &bits)?;
    }
    let before = log::status()?;
    println!("digest: {} ns to read a page, {} with its digest", before.page_read_ns, before.page_digest_ns);
    Ok(())
}

/// Everything over one range.
fn costs_of(range: Area, bits: &Window) -> Checked {
    let before = log::status()?;
    tell("start", range, || call(Call::Start, [range.start(), range.bytes(), PAGE_BYTES, 0]))?;
    let on = log::status()?;
    println!("tables {}: {} frames", range.bytes(), before.free_frames - on.free_frames);
    let sync = |flags: Flags| call(Call::Sync, [range.start(), range.bytes(), bits.start(), flags.bits()]);
    let (keep, clear) = (Flags::BOTH, Flags::BOTH.with(Flags::CLEAR));
    // What the calls themselves write is not in the range.
    tell("sync-clean", range, || sync(clear))?;
    write_some(range)?;
    tell("sync-keep", range, || sync(keep))?;
    tell("sync-clear", range, || sync(clear))?;
    write_some(range)?;
    for at in (0..bitmap_bytes(range.pages())).step_by(8) {
        bits.write64(at, u64::MAX >> 1 << 1);
    }
    mask_ends(range, bits);
    tell("clear", range, || call(Call::Clear, [range.start(), range.bytes(), bits.start(), keep.bits()]))?;
    tell("stop", range, || call(Call::Stop, [0; 4]))?;
    let after = log::status()?;
    check!(mapped(&before) == mapped(&after), "the stop did not bring back what was before the start")
}

/// No bit of the mask is behind the range's last page.
fn mask_ends(range: Area, bits: &Window) {
    let left = range.pages() % 64;
    if left != 0 {
        bits.write64(range.pages() / 64 * 8, (1 << left) - 1);
    }
}

fn mapped(s: &LogStatus) -> [u64; 5] {
    [s.cpu_blocks_1g, s.cpu_pages_4k, s.dma_blocks_1g, s.dma_pages_4k, s.free_frames]
}

/// Writes one page in [`EVERY`].
fn write_some(range: Area) -> Checked {
    let memory = Window::new(range).ok_or_else(|| reason!("{range} is this guest's own"))?;
    (0..range.pages()).step_by(EVERY as usize).for_each(|page| memory.write64(page * PAGE_BYTES, page));
    Ok(())
}

/// Carries `call` out between two lines that name it, and tells what it cost.
fn tell(name: &str, range: Area, call: impl FnOnce() -> Checked<Cost>) -> Checked {
    println!("begin {name} {}", range.bytes());
    let Cost { steps, ticks, longest } = call()?;
    println!("end {name} {}", range.bytes());
    println!("cost {name} {}: {steps} steps, {ticks} ticks, {longest} in the longest step", range.bytes());
    Ok(())
}

/// Repeats a call until it is done.
fn call(call: Call, [x1, x2, x3, x4]: [u64; 4]) -> Checked<Cost> {
    let (mut cost, mut position) = (Cost::default(), 0);
    loop {
        let began = timer::now();
        let step = log::step(call.id(), [x1, x2, x3, x4, position])?;
        let ticks = timer::now() - began;
        cost.steps += 1;
        cost.ticks += ticks;
        cost.longest = cost.longest.max(ticks);
        if step.status == Status::Done {
            return Ok(cost);
        }
        position = step.values[0];
    }
}
