//! Logs of views whose SMMU keeps the access flags of tables.

use super::*;
use crate::smmu::Httu;
use crate::stage2::descriptor::AF;

/// A log of 4 MiB, of a view whose table flags are used if its tier has any.
fn logged<'d>(fake: &Fake, tlb: &'d FakeTlb, tier: DmaTier) -> (AddressSpace<'d, FakeTlb>, DirtyLog) {
    let mut space = space(fake, tlb, 4 * M, tier);
    space.use_table_flags(fake, 0);
    let log = started(fake, &mut space, range(RAM, 4 * M));
    (space, log)
}

/// The descriptor of the table of pages that translates `ipa`, and its leaf.
fn descriptors(fake: &Fake, space: &AddressSpace<'_, FakeTlb>, ipa: u64) -> [Pa; 2] {
    let tree = &space.dma_view(0).unwrap().view.tree;
    [2, 3].map(|level| tree.walk_to(fake, Ipa(ipa), level).0.pa)
}

#[test]
fn sync_that_clears_the_flag_of_a_table_invalidates_all_of_it_and_its_descriptor() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let (space, mut log) = logged(&fake, &tlb, DmaTier::Hardware);
    let [table, leaf] = descriptors(&fake, &space, RAM + 2 * M + 0x5000);
    let all = range(RAM, 4 * M);
    let mut clears = || sync(&mut log, &fake, &space, all, Flags::DMA.with(Flags::CLEAR)).unwrap();

    fake.or_behind(table, AF);
    fake.or_behind(leaf, S2AP_WRITE);
    assert_eq!(clears(), [512 + 5]);
    assert_eq!((tlb.last_range.take(), tlb.last_with_tables.get()), (Some(range(RAM + 2 * M, 2 * M)), true));
    // A write that came before that had completed: the table is read once more, and its flag is no more changed.
    fake.or_behind(leaf, S2AP_WRITE);
    assert_eq!(clears(), [512 + 5]);
    let page = range(RAM + 2 * M + 0x5000, 0x1000);
    assert_eq!((tlb.last_range.take(), tlb.last_with_tables.get()), (Some(page), false));
    assert_eq!((clears(), tlb.last_range.take()), (vec![], None));
    // A device has read there: nothing to report, but the flag is cleared.
    fake.or_behind(table, AF);
    assert_eq!(clears(), []);
    assert_eq!((tlb.last_range.take(), tlb.last_with_tables.get()), (Some(range(RAM + 2 * M, 2 * M)), true));
}

#[test]
fn flags_are_used_where_hardware_keeps_dirty_state_and_stes_say_so() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let update = |space: &AddressSpace<'_, FakeTlb>| space.dma_view(0).unwrap().hardware_update();
    let mut space = space(&fake, &tlb, 4 * M, DmaTier::Hardware);
    assert_eq!(update(&space), Httu::Dirty);
    space.use_table_flags(&fake, 0);
    assert_eq!(update(&space), Httu::TableAccessFlag);
    space.use_table_flags(&fake, 3);
    let (assumed, mut log) = logged(&fake, &tlb, DmaTier::Assume);
    assert_eq!(update(&assumed), Httu::None);
    let pages = sync(&mut log, &fake, &assumed, range(RAM, 4 * M), Flags::DMA).unwrap();
    assert_eq!(pages.len(), 1024, "nobody sets flags there");
}
