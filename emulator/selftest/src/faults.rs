//! What is refused, and how that is told (IHI 0070 §5.2, §7.3).

use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::bench::Bench;
use crate::smmu::{C_BAD_STE, F_PERMISSION, S2HA, S2HD};
use crate::stage2::Leaf;

/// The StreamID of the edu device, at 00:01.0.
const EDU: u64 = 0x8;

/// Every combination of S2HA and S2HD: those beyond IDR0.HTTU make the STE ILLEGAL, the others do not.
pub fn streams_may_not_ask_for_more_than_is_offered(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    let (address, _) = bench.page(0);
    let httu = bench.smmu.httu();
    for (name, flags, needs) in
        [("nothing", 0, 0), ("S2HA", S2HA, 1), ("S2HD", S2HD, 2), ("S2HA and S2HD", S2HA | S2HD, 2)]
    {
        bench.set_page(0, Leaf::Dirty)?;
        bench.translate(flags)?;
        bench.pages.write32(0, !0);
        edu.write(address, 4)?;
        let landed = bench.pages.read32(0) == 0;
        println!(
            "HTTU = {httu}, {name}: {}",
            if landed { "the write landed" } else { "the write was refused" }
        );
        check!(
            landed == (httu >= needs),
            "an STE with {name} was {}",
            if landed { "taken" } else { "refused" }
        )?;
        if !landed {
            let record = bench.smmu.take_the_record()?;
            check!(record[0] == EDU << 32 | C_BAD_STE, "the record is {record:#x?}, not C_BAD_STE")?;
        }
    }
    let (left, _) = bench.smmu.take_records();
    check!(left == 0, "{left} records too many")
}

/// It is recorded as the same write is where nothing is cached.
pub fn a_write_that_hits_a_cached_read_only_entry(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    let (address, _) = bench.page(0);
    bench.translate(0)?;
    bench.set_page(0, Leaf::ReadOnly)?;
    edu.write(address, 4)?;
    let missed = bench.smmu.take_the_record()?;
    // S2 (bit 39) and CLASS = IN (bits 41:40 = 2); a write.
    let expected = [EDU << 32 | F_PERMISSION, 0x280 << 32, address, address];
    check!(missed == expected, "a miss is recorded as {missed:#x?}")?;
    edu.read(address, 4)?;
    edu.write(address, 4)?;
    let hit = bench.smmu.take_the_record()?;
    check!(hit == missed, "a hit is recorded as {hit:#x?}, a miss as {missed:#x?}")
}
