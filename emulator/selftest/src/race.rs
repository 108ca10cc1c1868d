//! The SMMU and a vCPU that change one descriptor at the same time, each atomically.
#![expect(
    unsafe_code,
    reason = "one atomic instruction sequence on a descriptor; nothing else in this module is unsafe"
)]

use core::arch::asm;

use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::bench::Bench;
use crate::in_flight::Reader as _;
use crate::nvme::Nvme;
use crate::smmu::{S2HA, S2HD};
use crate::stage2::{Leaf, Slot};

/// A bit of a descriptor that hardware ignores (Arm ARM D8.3, reserved for use by software).
const SOFTWARE: u64 = 1 << 55;
const ROUNDS: u32 = 10_000;
/// Pages of one read.
const PAGES: u64 = 3;
/// How often the descriptor must have been changed while a device was at work, for the case to be one.
const FLOOR: u64 = 10 * ROUNDS as u64;

/// A vCPU toggles a bit of its own while a device writes through the descriptor: neither may undo the other's change.
pub fn neither_undoes_the_other(bench: &Bench) -> Checked {
    bench.translate(S2HA | S2HD)?;
    let mut drive = Nvme::new(bench)?;
    let (address, slot) = bench.page(0);
    for index in 1..PAGES {
        bench.set_page(index, Leaf::Dirty)?;
    }
    let (mut toggled, mut lost) = (0_u64, 0_u32);
    for _ in 0..ROUNDS {
        bench.set_page(0, Leaf::Clean)?;
        let mut expected = Leaf::Dirty.page(address);
        drive.begin_read(address, PAGES);
        while !drive.has_ended() {
            toggle(slot, SOFTWARE);
            expected ^= SOFTWARE;
            toggled += 1;
        }
        drive.end_read()?;
        bench.smmu.sync()?;
        if slot.get() != expected {
            lost += 1;
        }
    }
    println!("{ROUNDS} writes, {toggled} changes by the vCPU meanwhile, {lost} lost");
    check!(toggled > FLOOR, "only {toggled} changes by the vCPU while the device was at work")?;
    check!(lost == 0, "{lost} of {ROUNDS} updates were lost")
}

/// Exclusive-ORs `bits` into a descriptor in one atomic step.
fn toggle(slot: Slot, bits: u64) {
    let address = slot.address();
    // SAFETY: a slot is aligned and inside a window, so outside the image and its stack: no Rust object is changed.
    unsafe {
        asm!(
            "2: ldxr {value}, [{address}]",
            "eor {value}, {value}, {bits}",
            "stxr {failed:w}, {value}, [{address}]",
            "cbnz {failed:w}, 2b",
            value = out(reg) _, failed = out(reg) _, address = in(reg) address, bits = in(reg) bits,
            options(nostack, preserves_flags)
        );
    }
}
