//! Steps 2 and 3: DMA works inside the VM's own RAM, and nowhere else.

use guest_rt::edu::{BUFFER_BYTES, Direction, Edu};
use guest_rt::reason::Checked;
use guest_rt::{check, log, println};
use strandline_abi::{FaultRecord, PAGE_BYTES};

use crate::story::Story;

/// Event F_TRANSLATION: nothing is mapped there (IHI 0070 §7.3.13).
const F_TRANSLATION: u64 = 0x10;
/// One aligned access of this many bytes makes one record.
const ROGUE_BYTES: u64 = 4;
/// What the liveness register reads while rogue DMA is aimed at it.
const LIVE: u32 = 0x0dd0_5afe;

/// Copies a page of random words by DMA and compares.
pub fn copies_memory(story: &mut Story<'_>) -> Checked {
    story.next_step("The device reads and writes this VM's memory");
    let Some(edu) = story.edu else {
        println!("  left out: no device");
        return Ok(());
    };
    let same = copy_and_compare(story, &edu)?;
    let (from, to) = (story.places.source.start(), story.places.target.start());
    story.check(
        same,
        format_args!("by DMA, {BUFFER_BYTES} bytes went from {from:#x} to the device and on to {to:#x}"),
    )
}

/// Whether a page of new random words arrives where the device copies it to.
pub fn copy_and_compare(story: &mut Story<'_>, edu: &Edu) -> Checked<bool> {
    let (source, target) = (story.places.source, story.places.target);
    for offset in (0..BUFFER_BYTES).step_by(8) {
        source.write64(offset, story.rng.next());
    }
    target.fill(0);
    edu.copy(source.start(), target.start(), BUFFER_BYTES)?;
    Ok((0..BUFFER_BYTES).step_by(8).all(|offset| target.read64(offset) == source.read64(offset)))
}

/// Aims DMA at addresses that are not the VM's, and at the device's own registers, and looks what became of it.
pub fn cannot_leave_the_vm(story: &mut Story<'_>) -> Checked {
    story.next_step("Rogue DMA: the device is told to touch memory that is not this VM's");
    let Some(edu) = story.edu else {
        println!("  left out: no device");
        return Ok(());
    };
    forget_faults()?;
    let ram = story.ram();
    rogue(story, &edu, Direction::ToMemory, ram.end(), "just behind the end of RAM")?;
    rogue(story, &edu, Direction::FromMemory, ram.end(), "just behind the end of RAM")?;
    let below = ram.start() - PAGE_BYTES;
    rogue(story, &edu, Direction::ToMemory, below, "just below RAM, memory or devices of somebody else")?;
    edu.set_liveness(!LIVE);
    rogue(story, &edu, Direction::ToMemory, edu.liveness_address(), "a device's register")?;
    story.check(
        edu.liveness() == LIVE,
        format_args!("the register, which this CPU can read, has its old value"),
    )?;
    let same = copy_and_compare(story, &edu)?;
    story.check(same, format_args!("DMA to the VM's own memory works as before"))
}

/// Takes and drops the records of earlier accesses.
fn forget_faults() -> Checked {
    // More calls than any queue of records needs.
    for _ in 0..4096 {
        if log::faults()?.records().is_empty() {
            return Ok(());
        }
    }
    check!(false, "the list of stopped accesses does not end")
}

/// One access to `address` that has to be stopped and recorded.
fn rogue(story: &mut Story<'_>, edu: &Edu, direction: Direction, address: u64, where_: &str) -> Checked {
    edu.transfer(direction, address, ROGUE_BYTES)?;
    let faults = log::faults()?;
    for record in faults.records() {
        println!(
            "  stopped: stream {:#x}, address {:#x}, {}, event {:#x}",
            record.stream,
            record.ipa,
            if record.access & FaultRecord::WRITE != 0 { "write" } else { "read" },
            record.kind
        );
    }
    let (verb, access) = match direction {
        Direction::ToMemory => ("write to", FaultRecord::WRITE),
        Direction::FromMemory => ("read from", 0),
    };
    let stream = edu.function().requester_id();
    let told = matches!(faults.records(), [r] if r.stream == stream && r.kind == F_TRANSLATION
        && r.ipa / PAGE_BYTES == address / PAGE_BYTES && r.access == access);
    story.check(
        told && faults.lost == 0,
        format_args!("the {verb} {address:#x} ({where_}) was stopped, and one record tells so"),
    )
}
