//! The guest's own translation, pointing where it should not.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::edu::Edu;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason};
use strandline_abi::{Flags, PAGE_BYTES};

use crate::aborts::{self, BRANCH, DATA, FETCH, ODD, PLAIN};
use crate::places::cut;
use crate::trial::{self, Bench, EL1H, THROUGH, msr};

const GIB: u64 = 1 << 30;
/// TCR_EL1: 39 bits by TTBR0 (T0SZ 25), 4 KiB, walks without caches; no TTBR1 (EPD1); 40-bit addresses (IPS).
const TCR_VALUE: u64 = 25 | 1 << 23 | 0b010 << 32;
/// MAIR_EL1: attribute 0 is Normal memory without caches.
const MAIR_VALUE: u64 = 0x44;
const TCR: [u32; 5] = [3, 0, 2, 0, 2];
const MAIR: [u32; 5] = [3, 0, 10, 2, 0];
const TTBR0: [u32; 5] = [3, 0, 2, 0, 0];
/// SCTLR_EL1.M.
const MMU: u64 = 1;
/// Level 1: a block with AF, executable; a table.
const BLOCK: u64 = 1 << 10 | 0b01;
const TABLE: u64 = 0b11;
/// TLBI VMALLE1; DSB SY; ISB.
const TLBI: [u32; 3] = [0xd508_871f, 0xd503_3f9f, 0xd503_3fdf];

/// The translation: GiB n of virtual addresses is entry n.
struct Tables {
    bench: Bench,
    root: Window,
    free: Area,
}

impl Tables {
    /// Devices and RAM at their own addresses (entries 0 and 1).
    fn new(guest: &Guest) -> Checked<Self> {
        let mut free = guest.free;
        let bench = Bench::new(&mut free)?;
        aborts::enable_vectors(&bench)?;
        let root = cut(&mut free, PAGE_BYTES)?;
        root.fill(0);
        root.write64(0, BLOCK);
        root.write64(8, GIB | BLOCK);
        for (register, value) in [(TCR, TCR_VALUE), (MAIR, MAIR_VALUE), (TTBR0, root.start())] {
            let end = bench.run(&[msr(register)], EL1H, [value, 0, 0, 0]);
            check!(end.esr == THROUGH, "S{register:?} can't be written: ESR {:#x}", end.esr)?;
        }
        Ok(Self { bench, root, free })
    }

    /// Runs `word` on the virtual address `va` with the MMU on.
    fn run(&self, word: u32, va: u64) -> trial::Record {
        let _ = self.bench.run(&TLBI, EL1H, [0; 4]);
        self.bench.run_with(&[word], EL1H, [va, 0, 0, 0], trial::sctlr() | MMU)
    }

    /// Makes `descriptor` entry 2, and gives back the first virtual address it is used for.
    fn point(&self, descriptor: u64) -> u64 {
        self.root.write64(16, descriptor);
        2 * GIB
    }
}

/// `stage1`: page tables in device registers, outside RAM, beyond all addresses and in a circle; then unaligned and
/// page-crossing accesses, which only translation makes possible.
pub fn own_translation_may_point_anywhere(guest: &Guest) -> Checked {
    let tables = Tables::new(guest)?;
    let uart = guest.tree.uart()?.start();
    let ecam = guest.tree.pci()?.ok_or_else(|| reason!("no PCI host bridge"))?.ecam;
    let bar = Edu::of(guest)?.registers();
    let word = tables.free.start();
    Window::new(tables.free).ok_or_else(|| reason!("no free RAM"))?.write64(0, 0x600d_f00d);
    let end = tables.run(PLAIN[0].word, word);
    check!(end.esr == THROUGH && end.x[1] == 0x600d_f00d, "the translation itself: ESR {:#x}", end.esr)?;

    walks(&tables, &[0, 0x2000_0000, uart, ecam.start(), bar.start(), guest.ram.end(), 0xff_ffff_f000])?;
    let here = tables.point(tables.root.start() | TABLE);
    // Entry 1 of the root, taken for one of level 2, maps 2 MiB at its address.
    let end = tables.run(PLAIN[0].word, here | 1 << 21);
    check!(end.esr == THROUGH, "a table that is its own: ESR {:#x}", end.esr)?;
    for address in [2 * GIB * 64, 0xff << 30] {
        let va = tables.point(address | BLOCK);
        faults(&tables, va, DATA, FETCH)?;
    }
    crossings(&tables, uart, ecam, guest.ram, bar.start())?;
    println!("the guest's own translation led nowhere it should not");
    Ok(())
}

/// Tables at each of `places`, none of which can hold one: loads, stores and fetches through them abort.
fn walks(tables: &Tables, places: &[u64]) -> Checked {
    for place in places {
        let va = tables.point(place | TABLE);
        faults(tables, va, DATA, FETCH).map_err(|e| reason!("a table at {place:#x}: {e}"))?;
    }
    Ok(())
}

fn faults(tables: &Tables, va: u64, data: u64, fetch: u64) -> Checked {
    for access in PLAIN.iter().chain(ODD) {
        let end = tables.run(access.word, va);
        // Which of read and write a walk counts as is the CPU's to say.
        check!(end.esr & !(1 << 6) == data, "{}: ESR {:#x}", access.what, end.esr)?;
        check!(end.far == va && end.pc == tables.bench.start(), "{}: FAR {:#x}", access.what, end.far)?;
    }
    let end = tables.run(BRANCH, va);
    check!(end.esr == fetch && end.pc == va, "fetch: ESR {:#x}, ELR {:#x}", end.esr, end.pc)
}

/// Unaligned and page-crossing loads and stores of eight bytes.
fn crossings(tables: &Tables, uart: u64, ecam: Area, ram: Area, bar: u64) -> Checked {
    let (load, store) = (PLAIN[0].word, PLAIN[1].word);
    // Emulated: the bytes of the registers there are, and nothing between them.
    for address in [uart + 0x19, uart + 0xff1, ecam.start() + 1, ecam.start() + 0xffc] {
        for word in [load, store] {
            let end = tables.run(word, address);
            check!(end.esr == THROUGH, "{word:#x} at {address:#x}: ESR {:#x}", end.esr)?;
        }
    }
    // With one end outside the window, or RAM: nothing of it is done.
    for address in [uart - 4, uart + 0xffc, ecam.start() - 1, ecam.end() - 7, ram.start() - 4] {
        for word in [load, store] {
            let end = tables.run(word, address);
            check!(end.esr & !(1 << 6) == DATA, "{word:#x} at {address:#x}: ESR {:#x}", end.esr)?;
        }
    }
    // The device's own registers: mapped as Device memory, of which unaligned accesses may fault.
    let end = tables.run(load, bar + 0x81);
    check!(
        end.esr == THROUGH || matches!(end.esr & 0x3f, 0x21 | 0x10),
        "an unaligned load from the device: ESR {:#x}",
        end.esr
    )?;
    println!("an unaligned load from the device ended with ESR_EL1 {:#x}", end.esr);
    Ok(())
}

/// `walk-nowhere`: page tables where there is no memory, so that not even the exception vector can be fetched. The VM is
/// stopped.
pub fn walks_nowhere(guest: &Guest) -> Checked {
    let tables = Tables::new(guest)?;
    println!("case walk-nowhere: page tables at 0x20000000");
    let end = tables.bench.run(&[msr(TTBR0)], EL1H, [0x2000_0000, 0, 0, 0]);
    check!(end.esr == THROUGH, "TTBR0_EL1 can't be written: ESR {:#x}", end.esr)?;
    let end = tables.run(PLAIN[0].word, 0);
    Err(reason!("it goes on: ESR {:#x}", end.esr))
}

/// TCR_EL1.HA and HD: the walk updates access flags and dirty state.
const HARDWARE_UPDATE: u64 = 1 << 39 | 1 << 40;
/// A descriptor's DBM, and AP[2]: read-only, until hardware makes it writable for a write.
const DBM: u64 = 1 << 51;
const READ_ONLY: u64 = 1 << 7;
/// Of an alias of RAM: what a walk that updates changes.
const ACCESSED: u64 = 1 << 10;
/// MRS x1, ID_AA64MMFR1_EL1.
const READ_MMFR1: u32 = 0xd538_0721;

/// `stage1-log`: a log of memory in which the guest's own page tables lie. What is stored through them is reported, and so
/// are the tables where the CPU's walks write them (access flags and dirty state); nothing else is.
pub fn own_tables_are_logged(guest: &Guest) -> Checked {
    let mut tables = Tables::new(guest)?;
    let mmfr1 = tables.bench.run(&[READ_MMFR1], EL1H, [0; 4]).x[1];
    let updates = mmfr1 & 0xf >= 2;
    if updates {
        let end = tables.bench.run(&[msr(TCR)], EL1H, [TCR_VALUE | HARDWARE_UPDATE, 0, 0, 0]);
        check!(end.esr == THROUGH, "TCR_EL1 can't be written: ESR {:#x}", end.esr)?;
    }
    let bitmap = cut(&mut tables.free, PAGE_BYTES)?;
    let data = Window::new(cut(&mut tables.free, DATA_PAGES * PAGE_BYTES)?.area());
    let data = data.ok_or_else(|| reason!("no room"))?;
    let logged = Area::new(tables.root.start(), data.area().end() - tables.root.start());
    log::start(logged.ok_or_else(|| reason!("no room"))?)?;
    for round in 0..DATA_PAGES {
        let alias = GIB | BLOCK | DBM | READ_ONLY;
        let descriptor = if updates { alias & !ACCESSED } else { alias & !READ_ONLY };
        let va = tables.point(descriptor) + (data.start() - GIB) + round * PAGE_BYTES;
        let both = Flags::CPU.with(Flags::CLEAR);
        log::sync(tables.root.area(), &bitmap, both)?;
        log::sync(data.area(), &bitmap, both)?;
        let end = tables.run(PLAIN[1].word, va);
        check!(end.esr == THROUGH, "the store through the alias: ESR {:#x}", end.esr)?;
        log::sync(data.area(), &bitmap, both)?;
        let found = Bitmap::new(&bitmap, DATA_PAGES).compare(0..DATA_PAGES, &[round]);
        found.map_err(|mismatch| reason!("round {round}, the page stored to: {mismatch}"))?;
        log::sync(tables.root.area(), &bitmap, both)?;
        let walked = Bitmap::new(&bitmap, 1).count(0..1) == 1;
        let descriptor = tables.root.read64(16);
        check!(
            descriptor & ACCESSED != 0 && descriptor & READ_ONLY == 0,
            "round {round}: the walk left the descriptor {descriptor:#x}"
        )?;
        check!(!updates || walked, "round {round}: the table that the walk wrote is not reported")?;
        check!(updates || !walked, "round {round}: the table is reported, though nothing wrote it")?;
    }
    log::stop()?;
    println!("{DATA_PAGES} stores, tables {} by walks", if updates { "written" } else { "not written" });
    Ok(())
}

/// Pages stored to.
const DATA_PAGES: u64 = 24;
