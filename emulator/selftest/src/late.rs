//! Dirty state that is held back until the next CMD_SYNC or TLB invalidation (IHI 0070 §3.13.4).

use guest_rt::reason::Checked;

use crate::bench::Bench;
use crate::edu::Edu;
use crate::flags::expect;
use crate::smmu::{S2HA, S2HD};
use crate::stage2::{Leaf, PAGE};

/// With the property `httu-late`.
pub fn dirty_state_is_held_back(bench: &Bench) -> Checked {
    let edu = bench.edu()?;
    bench.translate(S2HA | S2HD)?;
    a_sync_shows_it(bench, &edu)?;
    an_invalidation_shows_it(bench, &edu)?;
    a_clean_in_between_does_not_lose_it(bench, &edu)?;
    a_block_marked_for_a_split_gets_it(bench, &edu)?;
    a_descriptor_given_away_is_left_alone(bench, &edu)
}

fn a_sync_shows_it(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(0);
    bench.set_page(0, Leaf::Unused)?;
    edu.write(address, 4)?;
    expect("a write, before CMD_SYNC,", slot.get(), Leaf::Clean.page(address))?;
    bench.smmu.sync()?;
    expect("a write, after CMD_SYNC,", slot.get(), Leaf::Dirty.page(address))
}

fn an_invalidation_shows_it(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(1);
    bench.set_page(1, Leaf::Clean)?;
    edu.write(address, 4)?;
    expect("a write, before the invalidation,", slot.get(), Leaf::Clean.page(address))?;
    bench.smmu.forget(address)?;
    expect("a write, after the invalidation,", slot.get(), Leaf::Dirty.page(address))
}

/// Software that cleans before the update is visible finds it afterwards.
fn a_clean_in_between_does_not_lose_it(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(2);
    bench.set_page(2, Leaf::Clean)?;
    edu.write(address, 4)?;
    slot.set(Leaf::Unused.page(address));
    bench.smmu.sync()?;
    expect("a write, cleaned before CMD_SYNC,", slot.get(), Leaf::Dirty.page(address))
}

/// With BBML 1 software sets nT in a block before it puts a table there.
fn a_block_marked_for_a_split_gets_it(bench: &Bench, edu: &Edu) -> Checked {
    const NT: u64 = 1 << 16;
    let (slot, start) = (bench.block_slot(), bench.block.start());
    slot.set(Leaf::Clean.block(start));
    edu.write(start, 4)?;
    slot.set(Leaf::Clean.block(start) | NT);
    bench.smmu.sync()?;
    expect("a write to a block that got nT", slot.get(), Leaf::Dirty.block(start) | NT)
}

fn a_descriptor_given_away_is_left_alone(bench: &Bench, edu: &Edu) -> Checked {
    let (address, slot) = bench.page(3);
    for other in [0, Leaf::ReadOnly.page(address), Leaf::Clean.page(address + PAGE)] {
        bench.set_page(3, Leaf::Clean)?;
        edu.write(address, 4)?;
        slot.set(other);
        bench.smmu.sync()?;
        expect("a write, and then another mapping,", slot.get(), other)?;
    }
    Ok(())
}
