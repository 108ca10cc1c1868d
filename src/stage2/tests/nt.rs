//! Changes of size at BBML 1: which words pass, in which order, and what is left where hardware does not answer.

use super::*;
use crate::hw::DmaTlb;

const NT: u64 = descriptor::BLOCK_NT;
const INVALIDATED: Event = Event::Mark("S12_VMALL + CMD_SYNC");

fn nt_tlb() -> FakeTlb {
    let tlb = FakeTlb::default();
    tlb.size_change.set(Some(SizeChange::ThroughNt));
    tlb
}

/// What was done, but for building tables.
fn visible() -> Vec<Event> {
    take_trace().into_iter().filter(|e| !matches!(e, Event::Fill(..) | Event::Clean(_, 4096))).collect()
}

fn blocks_with_nt(fake: &Fake, tree: &Tree) -> usize {
    let mut count = 0;
    tree.for_each(fake, range(RAM.0, 4 * M), |_, entry, _| {
        count += usize::from(matches!(entry, descriptor::Entry::Leaf(leaf) if leaf.has_nt()));
    });
    count
}

fn begin<'d>(
    fake: &Fake,
    tlb: &'d FakeTlb,
    coherent: bool,
) -> (View<DmaWalker<'d, FakeTlb>>, [Pa; 2], [u64; 2]) {
    let view = dma_view(fake, tlb, 4 * M, coherent);
    let words = [leaf_pa(fake, &view.tree, RAM.0), leaf_pa(fake, &view.tree, RAM.0 + 2 * M)];
    (view, words, words.map(|pa| fake.read(pa)))
}

#[test]
fn a_split_sets_nt_on_all_blocks_invalidates_once_and_swaps() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, words, old) = begin(&fake, &tlb, true);
    take_trace();
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let new = words.map(|pa| fake.read(pa));
    assert_eq!(old[0], 0x0008_0000_8000_07fd);
    assert_eq!(
        visible(),
        [
            Event::Barrier(Barrier::DsbSt),
            Event::Or(words[0], 0x1_0000),
            Event::Or(words[1], 0x1_0000),
            INVALIDATED,
            Event::Swap(words[0], 0x0008_0000_8001_07fd, new[0]),
            Event::Swap(words[1], 0x0008_0000_8021_07fd, new[1]),
        ]
    );
}

#[test]
fn a_merge_puts_blocks_with_nt_in_place_invalidates_once_and_clears_nt_by_an_atomic_and() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, words, old) = begin(&fake, &tlb, true);
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let tables = words.map(|pa| fake.read(pa));
    take_trace();
    assert_eq!(merge(&fake, &mut view, range(RAM.0, 4 * M)), 2);
    let visible = visible();
    assert_eq!(
        visible[..6],
        [
            Event::Barrier(Barrier::DsbSt),
            Event::Swap(words[0], tables[0], 0x0008_0000_8001_07fd),
            Event::Swap(words[1], tables[1], 0x0008_0000_8021_07fd),
            INVALIDATED,
            Event::And(words[0], !0x1_0000),
            Event::And(words[1], !0x1_0000),
        ]
    );
    // The list of unlinked tables is written, and then comes the last invalidation.
    assert_eq!(visible[6..].iter().find(|e| !matches!(e, Event::Store(..))), Some(&INVALIDATED));
    assert_eq!(words.map(|pa| fake.read(pa)), old);
}

#[test]
fn for_a_walker_that_is_not_coherent_every_store_is_cleaned_before_the_invalidation() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, [word, _], [old, _]) = begin(&fake, &tlb, false);
    take_trace();
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let new = fake.read(word);
    assert_eq!(
        visible(),
        [
            Event::Barrier(Barrier::DsbSy),
            Event::Or(word, NT),
            Event::Clean(word, 64),
            INVALIDATED,
            Event::Swap(word, old | NT, new),
            Event::Clean(word, 64),
        ]
    );
    merge(&fake, &mut view, range(RAM.0, 2 * M));
    assert_eq!(
        visible()[..6],
        [
            Event::Barrier(Barrier::DsbSy),
            Event::Swap(word, new, old | NT),
            Event::Clean(word, 64),
            INVALIDATED,
            Event::And(word, !NT),
            Event::Clean(word, 64),
        ]
    );
}

#[test]
fn a_block_that_becomes_dirty_while_it_has_nt_is_split_all_the_same() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (view, [word, _], [dirty, _]) = begin(&fake, &tlb, true);
    let clean = dirty & !descriptor::S2AP_WRITE;
    fake.write_behind(word, clean);
    let (slot, _) = view.tree.walk(&fake, RAM);
    let mut batch = crate::stage2::Batch::new();
    batch.push(crate::stage2::view::Swap { slot, old: clean, new: 0x5003, contents: Default::default() });
    let device_writes = || {
        fake.or_behind(word, descriptor::S2AP_WRITE);
        Ok(())
    };
    let published = crate::stage2::nt::publish(&fake, &batch, |_| (), device_writes);
    assert_eq!(published, Published { replaced: 1, result: Ok(()) });
    assert_eq!(fake.read(word), 0x5003);
}

#[test]
fn a_split_whose_invalidation_does_not_complete_is_rolled_back_and_nt_is_nowhere_left() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, words, old) = begin(&fake, &tlb, true);
    let free = fake.free_frames();
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let mut split =
        Split::new(range(RAM.0, 4 * M), PageSize::Size4K, LeafState::WritableClean, fake.reserve(2).unwrap());
    take_trace();
    assert_eq!(split.step(&fake, &mut view), Err(ViewError::Dma(DmaTlbError::Timeout)));
    split.end(&fake);
    assert_eq!((words.map(|pa| fake.read(pa)), fake.free_frames()), (old, free));
    let ands: Vec<_> = take_trace().into_iter().filter(|e| matches!(e, Event::And(..))).collect();
    assert_eq!(ands, words.map(|pa| Event::And(pa, !NT)));
}

#[test]
fn a_foreign_descriptor_stops_a_split_before_any_size_has_changed() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, words, old) = begin(&fake, &tlb, true);
    let free = fake.free_frames();
    let mut split =
        Split::new(range(RAM.0, 4 * M), PageSize::Size4K, LeafState::WritableClean, fake.reserve(2).unwrap());
    fake.intruder.set(Some((fake.now_us() + 2, words[1], 0)));
    assert_eq!(split.step(&fake, &mut view), Err(ViewError::Foreign(0)));
    split.end(&fake);
    assert_eq!((words.map(|pa| fake.read(pa)), fake.free_frames()), ([old[0], 0], free));
    assert_eq!(tlb.commands().tlbi_vmall, 0);
}

#[test]
fn a_merge_whose_invalidation_does_not_complete_leaves_nt_to_the_next_one() {
    let (fake, tlb) = (Fake::new(16), nt_tlb());
    let (mut view, words, old) = begin(&fake, &tlb, true);
    let all = range(RAM.0, 4 * M);
    split(&fake, &mut view, all, LeafState::WritableClean);
    let tables = view.tree.tables();
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let mut retired = Retired::new(fake.reserve(1).unwrap());
    let mut merge_once = Merge::new(all);
    let step = merge_once.step(&fake, &mut view, &mut retired, |_| true);
    assert_eq!(step, Err(ViewError::Dma(DmaTlbError::Timeout)));
    // Entries of pages may be left: without nT the blocks would be a second size beside them.
    assert_eq!((blocks_with_nt(&fake, &view.tree), view.tree.tables()), (2, tables));
    retired.end(&fake);
    assert_eq!(merge(&fake, &mut view, all), 2);
    assert_eq!(words.map(|pa| fake.read(pa)), old);

    // A split takes such blocks as they are, and where it fails leaves them so.
    words.iter().for_each(|pa| fake.or_behind(*pa, NT));
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    let mut failing = Split::new(all, PageSize::Size4K, LeafState::WritableClean, fake.reserve(2).unwrap());
    assert!(failing.step(&fake, &mut view).is_err());
    failing.end(&fake);
    assert_eq!(blocks_with_nt(&fake, &view.tree), 2);
    assert_eq!(split(&fake, &mut view, all, LeafState::WritableClean), 2);
}

#[test]
fn where_sizes_cannot_change_a_split_is_refused_and_nothing_is_linked() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    tlb.size_change.set(Some(SizeChange::Never));
    let (mut view, words, old) = begin(&fake, &tlb, true);
    let free = fake.free_frames();
    let mut split =
        Split::new(range(RAM.0, 4 * M), PageSize::Size4K, LeafState::WritableClean, fake.reserve(2).unwrap());
    assert_eq!(split.step(&fake, &mut view), Err(ViewError::SizeFixed));
    split.end(&fake);
    assert_eq!((words.map(|pa| fake.read(pa)), fake.free_frames()), (old, free));
}
