//! Loads, stores, fetches and cache maintenance where there is no memory, or a device that is emulated.

use guest_rt::boot::Guest;
use guest_rt::edu::Edu;
use guest_rt::reason::Checked;
use guest_rt::{check, println, reason};

use crate::trial::{self, Bench, EL0, EL1H, EL1T, THROUGH};

/// An instruction on `[x0]`, and what describes it in ESR_EL1.
pub struct Access {
    pub what: &'static str,
    pub word: u32,
    /// WnR of its abort; `None` where it both reads and writes.
    pub write: Option<bool>,
}

const fn read(what: &'static str, word: u32) -> Access {
    Access { what, word, write: Some(false) }
}

const fn write(what: &'static str, word: u32) -> Access {
    Access { what, word, write: Some(true) }
}

/// Loads and stores that hardware describes to EL2.
pub const PLAIN: &[Access] = &[
    read("ldr x1", 0xf940_0001),
    write("str x1", 0xf900_0001),
    read("ldr w1", 0xb940_0001),
    write("strb w1", 0x3900_0001),
];

/// Those it doesn't.
pub const ODD: &[Access] = &[
    read("ldp", 0xa940_0801),
    write("stp", 0xa900_0801),
    read("ldr with write-back", 0xf840_8401),
    read("ldr of a vector register", 0xfd40_0000),
    read("ld1", 0x4c40_7000),
    read("ldxr", 0xc85f_7c01),
    Access { what: "ldadd", word: 0xf821_0002, write: None },
    Access { what: "casal", word: 0xc8e1_fc02, write: None },
];

/// Cache maintenance by address, and a prefetch.
const MAINTENANCE: &[(&str, u32)] =
    &[("dc civac", 0xd50b_7e20), ("dc ivac", 0xd508_7620), ("ic ivau", 0xd50b_7520), ("prfm", 0xf980_0000)];

/// Cache maintenance by set and way: invalidate, clean, both.
const SET_WAY: [u32; 3] = [0xd508_7640, 0xd508_7a40, 0xd508_7e40];
/// BR x0.
pub const BRANCH: u32 = 0xd61f_0000;
/// MSR CPACR_EL1, x0; its FPEN.
const CPACR: [u32; 5] = [3, 0, 1, 0, 2];
const FPEN: u64 = 0b11 << 20;

/// ESR_EL1 of a data abort from EL1, external; from EL0 it is one class less.
pub const DATA: u64 = 0x9600_0010;
/// The same of an instruction abort.
pub const FETCH: u64 = 0x8600_0010;
/// From the same level to the one below.
pub const LOWER: u64 = 1 << 26;
const WNR: u64 = 1 << 6;

/// Lets EL1 and EL0 use the vector registers.
///
/// # Errors
/// It does not work.
pub fn enable_vectors(bench: &Bench) -> Checked {
    let end = bench.run(&[trial::msr(CPACR)], EL1H, [FPEN, 0, 0, 0]);
    check!(end.esr == THROUGH, "CPACR_EL1 can't be written: ESR {:#x}", end.esr)
}

/// `aborts`: what is not there answers by a synchronous External abort, of a load, a store and a fetch alike.
pub fn what_is_not_there_answers_by_an_abort(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    enable_vectors(&bench)?;
    let uart = guest.tree.uart()?.start();
    let ecam = guest.tree.pci()?.ok_or_else(|| reason!("no PCI host bridge"))?.ecam;
    let bar = Edu::of(guest)?.registers().start();
    // Nothing is there: below everything, in the PCI window, behind configuration space and RAM, and beyond what an
    // IPA can be.
    for address in [0, 0x2000_0000, ecam.end(), guest.ram.end(), 1 << 40, uart + 0x1000] {
        for access in PLAIN.iter().chain(ODD) {
            aborts(&bench, access, address)?;
        }
        fetch_aborts(&bench, address)?;
    }
    for address in [uart + 0x18, ecam.start()] {
        for access in ODD {
            aborts(&bench, access, address)?;
        }
    }
    for address in [uart, uart + 0x18, ecam.start(), bar] {
        fetch_aborts(&bench, address)?;
    }
    for address in [0, uart, ecam.start(), bar, guest.ram.end(), free.start()] {
        for (what, word) in MAINTENANCE {
            let end = bench.run(&[*word], EL1H, [address, 0, 0, 0]);
            check!(end.esr == THROUGH, "{what} of {address:#x}: ESR {:#x}", end.esr)?;
        }
    }
    let end = bench.run(&SET_WAY, EL1H, [0; 4]);
    check!(end.esr == THROUGH, "cache maintenance by set and way: ESR {:#x}", end.esr)?;
    println!("every access to what is not there was answered by an abort");
    Ok(())
}

/// One access aborts, at EL1 on both stacks and at EL0.
fn aborts(bench: &Bench, access: &Access, address: u64) -> Checked {
    for pstate in [EL1H, EL1T, EL0] {
        let end = bench.run(&[access.word], pstate, [address, 0, 0, 0]);
        let class = if pstate == EL0 { DATA - LOWER } else { DATA };
        let esr = class | if access.write == Some(true) { WNR } else { 0 };
        let seen = if access.write.is_none() { end.esr & !WNR } else { end.esr };
        let what = access.what;
        // With the MMU off all memory is Device, where some of these fault before EL2 is asked.
        let own = matches!(end.esr & 0x3f, 0x21 | 0x35) && end.esr >> 26 == esr >> 26;
        check!(
            seen == esr || own,
            "{what} of {address:#x} at {pstate:#x}: ESR {:#x}, not {esr:#x}",
            end.esr
        )?;
        check!(end.far == address, "{what} of {address:#x} at {pstate:#x}: FAR {:#x}", end.far)?;
        check!(end.pc == bench.start(), "{what} of {address:#x}: ELR {:#x}", end.pc)?;
        check!(end.x[0] == address, "{what} of {address:#x} wrote back {:#x}", end.x[0])?;
    }
    Ok(())
}

/// A branch to `address` ends there.
fn fetch_aborts(bench: &Bench, address: u64) -> Checked {
    for (pstate, esr) in [(EL1H, FETCH), (EL0, FETCH - LOWER)] {
        let end = bench.run(&[BRANCH], pstate, [address, 0, 0, 0]);
        check!(end.esr == esr, "a fetch from {address:#x} at {pstate:#x}: ESR {:#x}", end.esr)?;
        check!(
            [end.pc, end.far] == [address; 2],
            "a fetch from {address:#x}: ELR {:#x}, FAR {:#x}",
            end.pc,
            end.far
        )?;
    }
    Ok(())
}
