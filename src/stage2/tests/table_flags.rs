//! Harvests that the access flags of tables prune.

use super::*;
use crate::addr::PAGE_BYTES;
use crate::fake::take_loads;
use crate::stage2::descriptor::{AF, AF_CLEARED, S2AP_WRITE};
use crate::stage2::harvest::What;

/// A view of 1 GiB split into clean pages, whose walker keeps the access flags of tables or does not.
fn split_gigabyte<'d>(fake: &Fake, tlb: &'d FakeTlb, flags: bool) -> View<DmaWalker<'d, FakeTlb>> {
    let mut view = dma_view(fake, tlb, G, true);
    if flags {
        view.tree.use_table_flags(fake, [range(RAM.0, G)].into_iter());
    }
    assert_eq!(split(fake, &mut view, range(RAM.0, G), LeafState::WritableClean), 1);
    view
}

/// The place of the descriptor of the table of pages that translates `ipa`.
fn table_pa(fake: &Fake, tree: &Tree, ipa: u64) -> Pa {
    tree.walk_to(fake, Ipa(ipa), 2).0.pa
}

/// Hardware walks to `ipa`, and for a write makes its page dirty.
fn touch(fake: &Fake, tree: &Tree, ipa: u64, write: bool) {
    fake.or_behind(table_pa(fake, tree, ipa), AF);
    if write {
        fake.or_behind(leaf_pa(fake, tree, ipa), S2AP_WRITE);
    }
}

/// What a harvest of `range` finds, and how many descriptors it reads.
fn reads(fake: &Fake, tree: &Tree, range: IpaRange, mode: Harvest) -> (Vec<u64>, u64) {
    let mut found = vec![];
    take_loads();
    tree.harvest(fake, range, mode, |ipa, pages| {
        found.extend((0..pages).map(|page| ipa.0 + page * PAGE_BYTES));
    });
    (found, take_loads())
}

#[test]
fn harvest_reads_one_descriptor_for_each_table_that_was_not_touched() {
    let counts = [false, true].map(|flags| {
        let (fake, tlb) = (Fake::new(520), FakeTlb::default());
        let view = split_gigabyte(&fake, &tlb, flags);
        let all = range(RAM.0, G);
        let harvest = || reads(&fake, &view.tree, all, Harvest::Clean);
        let untouched = harvest().1;
        // A page in 1 % of the tables: 5 of 512.
        let written: Vec<u64> = (0..5).map(|i| RAM.0 + i * 200 * M + 0x3000).collect();
        written.iter().for_each(|ipa| touch(&fake, &view.tree, *ipa, true));
        let (found, touched) = harvest();
        assert_eq!(found, written);
        let (none, next) = harvest();
        assert_eq!(none, []);
        [untouched, touched, next, harvest().1]
    });
    // Without flags 512 tables of 512 entries, each table found by the descriptor beside the last one's, the first of them by
    // two; with them the tables that a walk has gone through, in this harvest and the next. The eight descriptors beside a
    // dirty one are read again.
    assert_eq!(counts[0], [513 + 512 * 512, 513 + 512 * 512 + 5 * 8, 513 + 512 * 512, 513 + 512 * 512]);
    assert_eq!(counts[1], [513, 513 + 5 * (512 + 8), 513 + 5 * 512, 513]);
}

#[test]
fn table_whose_flag_was_cleared_is_read_by_the_next_harvest_whatever_its_flag_says() {
    let (fake, tlb) = (Fake::new(520), FakeTlb::default());
    let tree = split_gigabyte(&fake, &tlb, true).tree;
    let (table, at) = (range(RAM.0, 2 * M), table_pa(&fake, &tree, RAM.0));
    let state = || fake.read(at) & (AF | AF_CLEARED);
    touch(&fake, &tree, RAM.0, true);
    assert_eq!(reads(&fake, &tree, table, Harvest::Clean).0, [RAM.0]);
    assert_eq!(state(), AF_CLEARED);
    // Through a TLB entry that the invalidation has not removed yet.
    fake.or_behind(leaf_pa(&fake, &tree, RAM.0), S2AP_WRITE);
    assert_eq!(reads(&fake, &tree, table, Harvest::Clean).0, [RAM.0]);
    assert_eq!(state(), 0);
    assert_eq!(reads(&fake, &tree, table, Harvest::Clean), (vec![], 2));
    // Touched again before the next harvest: cleared again, and read once more.
    touch(&fake, &tree, RAM.0, false);
    assert_eq!(reads(&fake, &tree, table, Harvest::Clean).1, 2 + 512);
    touch(&fake, &tree, RAM.0, false);
    assert_eq!(reads(&fake, &tree, table, Harvest::Clean).1, 2 + 512);
    assert_eq!(state(), AF_CLEARED);
}

#[test]
fn harvest_of_part_of_a_table_and_one_that_cleans_nothing_leave_its_flag() {
    let (fake, tlb) = (Fake::new(520), FakeTlb::default());
    let tree = split_gigabyte(&fake, &tlb, true).tree;
    let at = table_pa(&fake, &tree, RAM.0);
    touch(&fake, &tree, RAM.0 + M, true);
    for (part, mode, found) in [
        (range(RAM.0, M), Harvest::Clean, vec![]),
        (range(RAM.0, 2 * M), Harvest::Keep, vec![RAM.0 + M]),
        (range(RAM.0 + M, M), Harvest::Clean, vec![RAM.0 + M]),
        (range(RAM.0 + 0x1000, 2 * M - 0x1000), Harvest::Clean, vec![]),
    ] {
        assert_eq!(reads(&fake, &tree, part, mode).0, found);
        assert_eq!(fake.read(at) & (AF | AF_CLEARED), AF);
    }
    reads(&fake, &tree, range(RAM.0, 2 * M), Harvest::Clean);
    reads(&fake, &tree, range(RAM.0, M), Harvest::Clean);
    assert_eq!(fake.read(at) & (AF | AF_CLEARED), AF_CLEARED, "taken back by a whole harvest alone");
}

#[test]
fn flag_that_was_cleared_owes_an_invalidation_though_nothing_was_dirty() {
    let (fake, tlb) = (Fake::new(520), FakeTlb::default());
    let tree = split_gigabyte(&fake, &tlb, true).tree;
    touch(&fake, &tree, RAM.0 + 4 * M, false);
    let mut found = vec![];
    tree.harvest_words(&fake, range(RAM.0, G), Harvest::Clean, |one| found.push(one));
    let [one] = found[..] else { panic!("{found:?}") };
    let at = table_pa(&fake, &tree, RAM.0 + 4 * M);
    assert_eq!((one.what, one.pa, one.words), (What::TableFlag, at, 1));
    assert_eq!((one.ipa, one.pages), (Ipa(RAM.0 + 4 * M), 512));
}

#[test]
fn table_that_pages_are_mapped_into_is_read() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let mut tree = dma_view(&fake, &tlb, 0x4000, true).tree;
    tree.use_table_flags(&fake, [range(RAM.0, 0x4000)].into_iter());
    let all = range(RAM.0, 2 * M);
    let found = |tree: &Tree| reads(&fake, tree, all, Harvest::Clean).0;
    assert_eq!(found(&tree).len(), 4, "what was there before the flags were");
    assert_eq!((found(&tree), found(&tree)), (vec![], vec![]));
    map(&fake, &mut tree, range(RAM.0 + 0x8000, 0x1000), PA).unwrap();
    assert_eq!(found(&tree), [RAM.0 + 0x8000]);
}

#[test]
fn table_with_its_flags_set_is_merged() {
    let (fake, tlb) = (Fake::new(520), FakeTlb::default());
    let mut view = split_gigabyte(&fake, &tlb, true);
    touch(&fake, &view.tree, RAM.0, true);
    reads(&fake, &view.tree, range(RAM.0, G), Harvest::Clean);
    assert_eq!(merge(&fake, &mut view, range(RAM.0, G)), 1);
    assert_eq!(blocks_and_pages(&view.tree), (1, 0, 0));
}
