//! Hardware updates of the Access flag and the dirty state (IHI 0070 §3.13).

use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::bench::Bench;
use crate::edu::Edu;
use crate::smmu::{F_PERMISSION, S2HA, S2HD};
use crate::stage2::{Leaf, PAGE};

/// What the ID registers offer.
pub fn ids(bench: &Bench) -> Checked {
    println!("IDR0.HTTU = {}", bench.smmu.httu());
    println!("IDR3.BBML = {}", bench.smmu.bbml());
    Ok(())
}

/// With S2HA and S2HD.
pub fn accesses_and_writes_are_recorded(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    bench.translate(S2HA | S2HD)?;
    a_read_sets_the_access_flag_alone(bench, &edu)?;
    a_write_makes_one_page_dirty(bench, &edu)?;
    a_write_that_hits_a_clean_entry_walks_again(bench, &edu)?;
    a_write_across_two_pages_makes_both_dirty(bench, &edu)?;
    a_dirty_entry_is_not_walked_again(bench, &edu)?;
    a_block_is_dirty_as_a_whole(bench, &edu)?;
    a_read_only_page_stays_as_it_is(bench, &edu)
}

fn a_read_sets_the_access_flag_alone(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(0);
    bench.set_page(0, Leaf::Unused)?;
    edu.read(address, 4)?;
    expect("a read of an unused page", slot.get(), Leaf::Clean.page(address))
}

fn a_write_makes_one_page_dirty(bench: &Bench, edu: &Edu) -> Checked {
    for index in [1, 2, 3] {
        bench.set_page(index, Leaf::Unused)?;
    }
    let (address, slot) = bench.page(2);
    edu.write(address + 0x123, 1)?;
    expect("a write of one byte", slot.get(), Leaf::Dirty.page(address))?;
    for index in [1, 3] {
        let (neighbour, slot) = bench.page(index);
        expect("the page beside it", slot.get(), Leaf::Unused.page(neighbour))?;
    }
    Ok(())
}

fn a_write_that_hits_a_clean_entry_walks_again(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(4);
    bench.set_page(4, Leaf::Clean)?;
    edu.read(address, 4)?;
    expect("a read of a clean page", slot.get(), Leaf::Clean.page(address))?;
    edu.write(address, 4)?;
    expect("a write behind the read", slot.get(), Leaf::Dirty.page(address))
}

fn a_write_across_two_pages_makes_both_dirty(bench: &Bench, edu: &Edu) -> Checked {
    for index in [5, 6] {
        bench.set_page(index, Leaf::Clean)?;
    }
    edu.write(bench.page(5).0 + PAGE - 2, 4)?;
    for index in [5, 6] {
        let (address, slot) = bench.page(index);
        expect("a write across two pages", slot.get(), Leaf::Dirty.page(address))?;
    }
    Ok(())
}

/// What is cached is honoured: a clean without an invalidation goes unnoticed by the SMMU.
fn a_dirty_entry_is_not_walked_again(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(7);
    bench.set_page(7, Leaf::Clean)?;
    edu.write(address, 4)?;
    slot.set(Leaf::Clean.page(address));
    edu.write(address, 4)?;
    expect("a write through a cached dirty entry", slot.get(), Leaf::Clean.page(address))?;
    bench.set_page(7, Leaf::Clean)?;
    edu.write(address, 4)?;
    expect("a write behind the invalidation", slot.get(), Leaf::Dirty.page(address))
}

fn a_block_is_dirty_as_a_whole(bench: &Bench, edu: &Edu) -> Checked {
    let (slot, start) = (bench.block_slot(), bench.block.start());
    slot.set(Leaf::Unused.block(start));
    edu.read(start, 4)?;
    expect("a read of a 2 MiB block", slot.get(), Leaf::Clean.block(start))?;
    edu.write(start + 0x12_3456, 1)?;
    expect("a write of one byte to a 2 MiB block", slot.get(), Leaf::Dirty.block(start))?;

    let (alias, slot, maps) = bench.gibibyte(start);
    slot.set(Leaf::Unused.block(maps));
    edu.write(alias, 1)?;
    expect("a write of one byte to a 1 GiB block", slot.get(), Leaf::Dirty.block(maps))
}

fn a_read_only_page_stays_as_it_is(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(8);
    bench.set_page(8, Leaf::ReadOnly)?;
    edu.write(address, 4)?;
    expect("a write to a read-only page", slot.get(), Leaf::ReadOnly.page(address))?;
    let event = bench.smmu.take_the_record()?[0] & 0xff;
    check!(event == F_PERMISSION, "a write to a read-only page: event {event:#x}, not F_PERMISSION")
}

/// With S2HA alone, a writable-clean page may not be written.
pub fn access_flag_alone(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    let (address, slot) = bench.page(0);
    bench.translate(S2HA)?;
    bench.set_page(0, Leaf::Unused)?;
    edu.read(address, 4)?;
    expect("a read of an unused page", slot.get(), Leaf::Clean.page(address))?;
    bench.set_page(0, Leaf::Clean)?;
    edu.write(address, 4)?;
    expect("a write to a clean page", slot.get(), Leaf::Clean.page(address))?;
    let event = bench.smmu.take_the_record()?[0] & 0xff;
    check!(event == F_PERMISSION, "a write to a clean page: event {event:#x}, not F_PERMISSION")
}

/// Checks that `what` left the descriptor `expected`.
pub fn expect(what: &str, found: u64, expected: u64) -> Checked {
    check!(found == expected, "{what} left the descriptor {found:#018x}, not {expected:#018x}")
}
