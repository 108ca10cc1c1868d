//! Blocks and tables where addresses, rights and neighbours do not fit as they mostly do.

use super::*;
use crate::fake::take_loads;
use crate::stage2::builder::{self, MapLayout};
use crate::stage2::descriptor::{MemoryKind, S2AP_WRITE};

#[test]
fn only_what_is_to_be_pages_is_made_of_pages() {
    let fake = Fake::new(8);
    let mut tree = tree(&fake);
    let by_pages = Some(range(RAM.0 + 4 * M, 2 * M));
    let mapping = Mapping { range: range(RAM.0, G), pa: PA, rights: Rights::RAM, by_pages };
    assert_eq!(make(&fake, &mut tree, &mapping), Ok(2));
    assert_eq!(blocks_and_pages(&tree), (0, 511, 512));
}

#[test]
fn a_gigabyte_that_is_not_congruent_is_made_of_pages() {
    let fake = Fake::new(600);
    let mut tree = tree(&fake);
    map(&fake, &mut tree, range(RAM.0, G), Pa(PA.0 + M)).unwrap();
    assert_eq!(blocks_and_pages(&tree), (0, 0, 1 << 18));
    assert_eq!(fake.read(leaf_pa(&fake, &tree, RAM.0 + 0x5000)) & !0xfff, 0x0008_0000_8010_5000);
}

#[test]
fn half_a_tebibyte_is_made_of_gigabytes() {
    let fake = Fake::new(4);
    let mut tree = Tree::new(&fake, Format::new(48).unwrap()).unwrap();
    map(&fake, &mut tree, range(512 * G, 512 * G), Pa(512 * G)).unwrap();
    assert_eq!(blocks_and_pages(&tree), (512, 0, 0));
    let fifth = fake.read(leaf_pa(&fake, &tree, (512 + 5) * G));
    assert_eq!(fifth, descriptor::leaf(1, Pa((512 + 5) * G), Rights::RAM));
}

#[test]
fn tables_of_half_a_tebibyte_of_pages_are_counted_without_a_look_at_each() {
    let fake = Fake::new(1);
    let all = range(0, 512 * G);
    let (rights, state) = (Rights::RAM, LeafState::WritableDirty);
    let layout = MapLayout { range: all, pa: Pa(0), rights, state, by_pages: Some(all) };
    let before = fake.now_us();
    assert_eq!(builder::count(&fake, &layout, 1, Ipa(0)), 1 + 512 + 512 * 512);
    assert_eq!(fake.now_us(), before);
}

#[test]
fn a_mapping_may_end_where_physical_addresses_do() {
    let fake = Fake::new(8);
    let mut tree = tree(&fake);
    let last = Pa((1 << 48) - 2 * M);
    map(&fake, &mut tree, range(RAM.0, 2 * M), last).unwrap();
    assert_eq!(fake.read(leaf_pa(&fake, &tree, RAM.0)), descriptor::leaf(2, last, Rights::RAM));
    let beyond = map(&fake, &mut tree, range(RAM.0 + G, 2 * M + 0x1000), last);
    assert_eq!(beyond, Err(MapError::BadPa(last)));
}

#[test]
fn blocks_that_fit_no_larger_one_stay_as_they_are() {
    // Aligned to 2 MiB, 4 MiB, 512 MiB, but not to 1 GiB.
    for beside in [2 * M, 4 * M, 512 * M] {
        let fake = Fake::new(1100);
        let mut view = cpu_view(&fake, 4096);
        map(&fake, &mut view.tree, range(2 * G, G), Pa(PA.0 + beside)).unwrap();
        split(&fake, &mut view, range(2 * G, G), LeafState::WritableClean);
        assert_eq!(merge(&fake, &mut view, range(2 * G, G)), 512);
        assert_eq!(blocks_and_pages(&view.tree), (0, 512, 1));
    }
}

#[test]
fn a_gigabyte_one_block_of_which_leads_elsewhere_or_permits_less_stays_512_blocks() {
    let read_only = Rights { kind: MemoryKind::Ram, writable: false };
    for (pa, rights) in [(Pa(0x1_0000_0000), Rights::RAM), (Pa(PA.0 + 6 * M), read_only)] {
        let fake = Fake::new(1100);
        let mut view = cpu_view(&fake, G);
        split(&fake, &mut view, range(RAM.0, 4096), LeafState::WritableClean);
        let other = view.tree.walk_to(&fake, Ipa(RAM.0 + 6 * M), 2).0.pa;
        fake.write_behind(other, descriptor::leaf(2, pa, rights));
        assert_eq!(merge(&fake, &mut view, range(RAM.0, G)), 1, "the one that was split");
        assert_eq!(blocks_and_pages(&view.tree), (0, 512, 0));
    }
}

#[test]
fn a_table_beside_one_with_a_hole_is_merged_and_no_page_of_it_touched() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    fake.write_behind(leaf_pa(&fake, &view.tree, RAM.0 + 0x3000), 0);
    take_trace();
    assert_eq!(merge(&fake, &mut view, range(RAM.0, 4 * M)), 1);
    // Those beside the hole become dirty, one by one.
    assert_eq!(take_trace().iter().filter(|e| matches!(e, Event::Or(..))).count(), 511);
    assert_eq!(view.tree.walk_to(&fake, Ipa(RAM.0 + 2 * M), 3).0.level, 2);
}

#[test]
fn a_merge_makes_clean_leaves_dirty_and_touches_no_other() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 2 * M);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let at = |page: u64| leaf_pa(&fake, &view.tree, RAM.0 + page * 0x1000);
    let read_only = Rights { kind: MemoryKind::Ram, writable: false };
    let forbidden = descriptor::leaf(3, Pa(PA.0 + 0x7000), read_only);
    fake.write_behind(at(7), forbidden);
    fake.or_behind(at(9), S2AP_WRITE);
    let (clean, dirty) = (at(8), at(9));
    take_trace();
    assert_eq!(merge(&fake, &mut view, range(RAM.0, 2 * M)), 0);
    let trace = take_trace();
    assert!(trace.contains(&Event::Or(clean, S2AP_WRITE)) && !trace.contains(&Event::Or(dirty, S2AP_WRITE)));
    assert_eq!(
        fake.read(leaf_pa(&fake, &view.tree, RAM.0 + 0x7000)),
        forbidden,
        "nobody may write there now"
    );
}

/// A tree of the CPU's in which `bytes` of RAM are pages, since no block fits.
fn of_pages(fake: &Fake, bytes: u64) -> View<CpuWalker> {
    cpu_view_of(fake, bytes, Pa(PA.0 + M))
}

#[test]
fn pages_that_a_start_cleans_are_invalidated_though_nothing_was_split() {
    let fake = Fake::new(8);
    let mut view = of_pages(&fake, 2 * M);
    take_trace();
    assert_eq!(split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean), 0);
    let invalidated = Event::Tlbi(view.walker.vttbr(&view.tree), Tlbi::VmallS12E1Is);
    let trace = take_trace();
    assert_eq!(trace.iter().filter(|e| **e == invalidated).count(), 1);
    assert!(matches!(trace[511], Event::And(..)) && trace[512..].contains(&invalidated));
    // What is clean is left alone, and nothing is owed.
    assert_eq!(split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean), 0);
    assert_eq!(take_trace(), []);
}

#[test]
fn pages_that_stay_dirty_and_registers_are_left_alone_by_a_start() {
    let fake = Fake::new(8);
    let mut view = of_pages(&fake, 2 * M);
    let registers = leaf_pa(&fake, &view.tree, RAM.0 + 0x7000);
    fake.write_behind(registers, descriptor::leaf(3, Pa(0x900_0000), Rights::DEVICE));
    take_trace();
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableDirty);
    assert_eq!(take_trace(), []);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    assert!(!take_trace().contains(&Event::And(registers, !S2AP_WRITE)));
    assert!(fake.read(registers) & S2AP_WRITE != 0);
}

#[test]
fn pages_in_the_middle_of_one_table_to_the_middle_of_the_next_are_cleaned_table_by_table() {
    let fake = Fake::new(8);
    let mut view = of_pages(&fake, 4 * M);
    let part = range(RAM.0 + M, 2 * M);
    take_loads();
    split(&fake, &mut view, part, LeafState::WritableClean);
    // 512 pages, and the ways to four tables: two counted, two cleaned.
    assert_eq!(take_loads(), 512 + 4 * 3);
    let clean = |ipa: u64| fake.read(leaf_pa(&fake, &view.tree, ipa)) & S2AP_WRITE == 0;
    let around = [RAM.0 + M - 0x1000, RAM.0 + M, RAM.0 + 3 * M - 0x1000, RAM.0 + 3 * M];
    assert_eq!(around.map(clean), [false, true, true, false]);
}

#[test]
fn each_cache_line_of_pages_that_are_cleaned_is_cleaned_to_memory_once() {
    let (fake, tlb) = (Fake::new(8), FakeTlb::default());
    let tree = of_pages(&fake, 2 * M).tree;
    let mut view = View { tree, walker: DmaWalker { tlb: &tlb, vmid: Vmid(5), coherent: false } };
    take_trace();
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let first = leaf_pa(&fake, &view.tree, RAM.0);
    let cleaned: Vec<Event> = take_trace().into_iter().filter(|e| matches!(e, Event::Clean(..))).collect();
    assert_eq!(cleaned, (0..64).map(|line| Event::Clean(first.offset(line * 64), 64)).collect::<Vec<_>>());
}

#[test]
fn a_step_cleans_no_more_pages_than_it_may() {
    let fake = Fake::new(80);
    let mut view = of_pages(&fake, 128 * M);
    let all = range(RAM.0, 128 * M);
    let mut split = Split::new(all, PageSize::Size4K, LeafState::WritableClean, fake.reserve(0).unwrap());
    let mut steps = vec![];
    take_trace();
    loop {
        let done = split.step(&fake, &mut view).unwrap();
        steps.push(take_trace().iter().filter(|e| matches!(e, Event::And(..))).count());
        if done {
            break;
        }
    }
    split.end(&fake);
    assert_eq!(steps, [16 * 1024, 16 * 1024]);
}

#[test]
fn all_roots_of_a_tree_that_is_left_behind_are_counted() {
    let fake = Fake::new(8);
    // 40 bits: two root tables, one after the other.
    let mut tree = Tree::new(&fake, Format::new(40).unwrap()).unwrap();
    map(&fake, &mut tree, range(512 * G + RAM.0, 0x1000), PA).unwrap();
    assert_eq!(tree.abandon(&fake), 2 + 2);
}
