//! The emulated PCI config space.

use guest_rt::bar;
use guest_rt::boot::Guest;
use guest_rt::edu::{BAR_BYTES, Edu};
use guest_rt::pci::{BAR0, CLASS, COMMAND, COMMAND_MASTER, Function, HEADER, ID, Pci};
use guest_rt::reason::Checked;
use guest_rt::{check, println, reason};

const SUBSYSTEM: u64 = 0x2c;
const ROM_BAR: u64 = 0x30;
/// BARs of a type-0 header.
const BARS: u64 = 6;

/// `pci functions=N`: the guest's own functions (default 1) and no others are there, and behave as PCI functions.
pub fn config_space_shows_own_devices(guest: &Guest) -> Checked {
    let pci = Pci::of(guest)?.ok_or_else(|| reason!("no PCI host bridge in the device tree"))?;
    let mut count = 0;
    for function in pci.functions() {
        println!(
            "{function}: id {:#010x}, class {:#010x}",
            pci.read32(function, ID),
            pci.read32(function, CLASS)
        );
        count += 1;
    }
    let expected = guest.tree.args().number_or("functions", 1)?;
    check!(count == expected, "{count} functions on bus 0, not {expected}")?;
    let edu = Edu::of(guest)?;
    let function = edu.function();
    widths_agree(&pci, function)?;
    fixed_registers_stay(&pci, function)?;
    bars_tell_their_size(&pci, function)?;
    mastering_can_be_switched(&pci, function)?;
    nobody_answers_elsewhere(&pci)?;
    edu.set_liveness(0x600d_cafe);
    check!(edu.liveness() == !0x600d_cafe, "the device's registers do not answer any more")
}

fn widths_agree(pci: &Pci, function: Function) -> Checked {
    let config = pci.config(function);
    for offset in [ID, CLASS, SUBSYSTEM] {
        let whole = config.read32(offset).to_le_bytes();
        let bytes = [0, 1, 2, 3].map(|i| config.read8(offset + i));
        let [low, high] = [0, 2].map(|i| config.read16(offset + i).to_le_bytes());
        check!(bytes == whole, "bytes {bytes:x?} at {offset:#x} are not those of the word, {whole:x?}")?;
        check!(
            [low[0], low[1], high[0], high[1]] == whole,
            "halves at {offset:#x} are not those of {whole:x?}"
        )?;
    }
    Ok(())
}

fn fixed_registers_stay(pci: &Pci, function: Function) -> Checked {
    // The header type is the one fixed byte of its word.
    for (offset, fixed) in [(ID, u32::MAX), (CLASS, u32::MAX), (SUBSYSTEM, u32::MAX), (HEADER, 0x00ff_0000)] {
        let before = pci.read32(function, offset);
        pci.write32(function, offset, before ^ fixed);
        let after = pci.read32(function, offset);
        check!(after & fixed == before & fixed, "a write to {offset:#x} turned {before:#x} into {after:#x}")?;
    }
    Ok(())
}

/// The protocol of PCI Local Bus Specification 3.0 §6.2.5.1: all ones written, the size read back.
fn size_of(pci: &Pci, function: Function, offset: u64) -> Checked<u64> {
    let before = pci.read32(function, offset);
    pci.write32(function, offset, u32::MAX);
    let size = bar::size(pci.read32(function, offset));
    pci.write32(function, offset, before);
    let after = pci.read32(function, offset);
    check!(after == before, "the BAR at {offset:#x} was {before:#x} and is {after:#x} after it was sized")?;
    Ok(size)
}

fn bars_tell_their_size(pci: &Pci, function: Function) -> Checked {
    for index in 0..BARS {
        let expected = if index == 0 { BAR_BYTES } else { 0 };
        let size = size_of(pci, function, BAR0 + index * 4)?;
        check!(size == expected, "BAR {index} has {size:#x} bytes, not {expected:#x}")?;
    }
    let rom = size_of(pci, function, ROM_BAR)?;
    check!(rom == 0, "the device has no ROM, but a ROM BAR of {rom:#x} bytes")
}

fn mastering_can_be_switched(pci: &Pci, function: Function) -> Checked {
    let command = pci.read32(function, COMMAND) & 0xffff;
    pci.write32(function, COMMAND, command & !COMMAND_MASTER);
    let off = pci.read32(function, COMMAND) & COMMAND_MASTER == 0;
    pci.write32(function, COMMAND, command | COMMAND_MASTER);
    let on = pci.read32(function, COMMAND) & COMMAND_MASTER != 0;
    check!(off && on, "bus mastering can't be switched off and on")
}

/// A function that is not there reads as all ones and takes writes without an effect.
fn nobody_answers_elsewhere(pci: &Pci) -> Checked {
    let there = |f: Function| pci.functions().any(|present| present == f);
    let absent = (0..=u8::MAX).map(Function).find(|f| pci.covers(*f) && !there(*f));
    let Some(absent) = absent else { return Ok(()) };
    let config = pci.config(absent);
    config.write32(BAR0, 0x1000_0000);
    config.write8(COMMAND, 0xff);
    let ones = config.read32(ID) == u32::MAX
        && config.read32(BAR0) == u32::MAX
        && config.read16(COMMAND) == u16::MAX
        && config.read8(0xfff) == u8::MAX;
    check!(ones, "{absent}, where nothing is, does not read as all ones")
}
