//! Stage 2 behind a stage 1: what fetches the tables of stage 1 goes through stage 2 as well (IHI 0070 §3.13.5).

use guest_rt::reason::Checked;

use crate::bench::{Bench, window};
use crate::flags::expect;
use crate::smmu::{S2HA, S2HD};
use crate::stage2::{AF, GIBIBYTE, Leaf, PAGE, Slot};

/// Pages for the Context Descriptor, the level-1 table of stage 1, and what the device writes.
const CD: u64 = 20;
const TABLE: u64 = 21;
const DATA: u64 = 22;

/// CD dword 0 (§5.4): ASID 5, A, R, AA64, IPS = 40 bits; V, EPD1, 4 KiB granule, T0SZ = 25 (39 bits, from level 1).
const CD_STAGE1: u64 = (5 << 16 | 1 << 14 | 1 << 13 | 1 << 9 | 2) << 32 | 1 << 31 | 1 << 30 | 25;
/// A block that EL0 may write, inner shareable (Arm ARM D8.3).
const BLOCK: u64 = AF | 0b11 << 8 | 0b01 << 6 | 0b01;

/// Reading a Context Descriptor and a table sets their Access flags alone; the write makes its own page dirty alone.
pub fn stage_1_is_fetched_and_not_written(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    let (cd, table, data) = (bench.page(CD).0, bench.page(TABLE).0, bench.page(DATA).0);
    let descriptor = window(cd, PAGE)?;
    descriptor.write64(0, CD_STAGE1);
    descriptor.write64(8, table);
    Slot::of(window(table, PAGE)?, data, GIBIBYTE).set(BLOCK | data / GIBIBYTE * GIBIBYTE);
    for page in [CD, TABLE, DATA] {
        bench.set_page(page, Leaf::Unused)?;
    }
    bench.translate_twice(cd, S2HA | S2HD)?;

    edu.read(data, 4)?;
    expect_leaves(bench, "a read", [Leaf::Clean; 3])?;
    edu.write(data, 4)?;
    expect_leaves(bench, "a write behind the read", [Leaf::Clean, Leaf::Clean, Leaf::Dirty])
}

fn expect_leaves(bench: &Bench, what: &str, leaves: [Leaf; 3]) -> Checked {
    for (page, leaf) in [CD, TABLE, DATA].into_iter().zip(leaves) {
        let (address, slot) = bench.page(page);
        expect(what, slot.get(), leaf.page(address))?;
    }
    Ok(())
}
