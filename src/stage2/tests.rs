//! The engine on fake memory: shapes, words, and the order of stores, barriers and invalidations.

mod bad_input;
mod harvest;
mod nt;
mod prune;
mod shapes;
mod table_flags;

use crate::addr::{Ipa, IpaRange, Pa, PageSize, Vmid};
use crate::fake::{Event, Fake, FakeTlb, take_trace};
use crate::frames::{Frames, OutOfFrames};
use crate::hw::{Barrier, Cpu, DmaTlbError, HoldTimeout, SizeChange, Tlbi, Vttbr};
use crate::stage2::descriptor::{self, LeafState};
use crate::stage2::{
    Count, CpuWalker, DmaWalker, Format, Harvest, MapError, Mapping, Merge, Published, Retired, Rights,
    Split, SplitNeeds, Tree, View, ViewError, Walker,
};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const RAM: Ipa = Ipa(0x4000_0000);
const PA: Pa = Pa(0x8000_0000);

fn range(start: u64, bytes: u64) -> IpaRange {
    IpaRange::new(Ipa(start), bytes).unwrap()
}

fn tree(fake: &Fake) -> Tree {
    Tree::new(fake, Format::new(36).unwrap()).unwrap()
}

fn map(fake: &Fake, tree: &mut Tree, range: IpaRange, pa: Pa) -> Result<(), MapError> {
    make(fake, tree, &Mapping { range, pa, rights: Rights::RAM, by_pages: None }).map(drop)
}

/// Makes `mapping` out of as many frames as are counted, and says how many these are.
fn make(fake: &Fake, tree: &mut Tree, mapping: &Mapping) -> Result<usize, MapError> {
    let needed = tree.map_needs(fake, mapping)?;
    let mut reserve = fake.reserve(needed).map_err(MapError::OutOfFrames)?;
    tree.map(fake, mapping, &mut reserve, false);
    assert_eq!(reserve.left(), 0, "what was counted is what was taken");
    fake.unreserve(reserve);
    Ok(needed)
}

fn cpu_view(fake: &Fake, bytes: u64) -> View<CpuWalker> {
    cpu_view_of(fake, bytes, PA)
}

/// [`cpu_view`] whose RAM begins at `pa`.
fn cpu_view_of(fake: &Fake, bytes: u64, pa: Pa) -> View<CpuWalker> {
    let mut tree = tree(fake);
    map(fake, &mut tree, range(RAM.0, bytes), pa).unwrap();
    View { tree, walker: CpuWalker { vmid: Vmid(3), direct: false, repeat: false } }
}

fn dma_view<'d>(fake: &Fake, tlb: &'d FakeTlb, bytes: u64, coherent: bool) -> View<DmaWalker<'d, FakeTlb>> {
    let mut tree = tree(fake);
    map(fake, &mut tree, range(RAM.0, bytes), PA).unwrap();
    View { tree, walker: DmaWalker { tlb, vmid: Vmid(5), coherent } }
}

fn needs(tree: &Tree, fake: &Fake, range: IpaRange) -> SplitNeeds {
    let mut count = Count::new(range, PageSize::Size4K);
    while !count.step(tree, fake) {}
    count.needs()
}

fn split<W: Walker<Fake>>(fake: &Fake, view: &mut View<W>, range: IpaRange, state: LeafState) -> u64 {
    let needs = needs(&view.tree, fake, range);
    let mut split = Split::new(range, PageSize::Size4K, state, fake.reserve(needs.frames).unwrap());
    while !split.step(fake, view).unwrap() {}
    let blocks = split.blocks();
    assert_eq!(blocks, needs.blocks as u64);
    split.end(fake);
    blocks
}

fn merge<W: Walker<Fake>>(fake: &Fake, view: &mut View<W>, range: IpaRange) -> u64 {
    let mut retired = Retired::new(fake.reserve(2).unwrap());
    let mut merge = Merge::new(range);
    while !merge.step(fake, view, &mut retired, |_| true).unwrap() {}
    view.walker.invalidate(fake, &view.tree).unwrap();
    view.free_retired(fake, &mut retired);
    retired.end(fake);
    merge.blocks()
}

fn dirty<W>(fake: &Fake, view: &View<W>, range: IpaRange, mode: Harvest) -> Vec<(u64, u64)> {
    let mut found = vec![];
    view.tree.harvest(fake, range, mode, |ipa, pages| found.push((ipa.0, pages)));
    found
}

/// The address of the leaf word that translates `ipa`.
fn leaf_pa(fake: &Fake, tree: &Tree, ipa: u64) -> Pa {
    tree.walk(fake, Ipa(ipa)).0.pa
}

fn blocks_and_pages(tree: &Tree) -> (u64, u64, u64) {
    let leaves = tree.leaves();
    (leaves.blocks_1g, leaves.blocks_2m, leaves.pages_4k)
}

#[test]
fn mapping_uses_the_largest_leaves_that_fit() {
    let fake = Fake::new(16);
    let mut tree = tree(&fake);
    // 8 KiB before a 2 MiB boundary, then up to 1 GiB + 4 KiB behind a 1 GiB boundary, congruent throughout.
    map(&fake, &mut tree, range(2 * G - 2 * M - 0x2000, G + 2 * M + 0x3000), Pa(6 * G - 2 * M - 0x2000))
        .unwrap();
    assert_eq!(blocks_and_pages(&tree), (1, 1, 3));
    let (leaf, pa) = tree.query(&fake, Ipa(2 * G + 0x1234_5678)).unwrap();
    assert_eq!((leaf.level, pa), (1, Pa(6 * G + 0x1234_5678)));
    assert_eq!(tree.query(&fake, Ipa(3 * G + 0x1000)), None);
    assert_eq!(tree.query(&fake, Ipa(1 << 36)), None, "beyond the format");
}

#[test]
fn addresses_that_are_not_congruent_are_mapped_by_pages() {
    let fake = Fake::new(16);
    let mut tree = tree(&fake);
    map(&fake, &mut tree, range(RAM.0, 2 * M), PA.offset(0x1000)).unwrap();
    assert_eq!(blocks_and_pages(&tree), (0, 0, 512));
}

#[test]
fn a_mapping_that_cannot_be_made_changes_nothing() {
    let fake = Fake::new(8);
    let mut tree = tree(&fake);
    map(&fake, &mut tree, range(RAM.0 + 4 * M, 2 * M), PA).unwrap();
    let (free, tables) = (fake.free_frames(), tree.tables());
    let overlap = map(&fake, &mut tree, range(RAM.0, 8 * M), PA);
    assert_eq!(overlap, Err(MapError::AlreadyMapped(Ipa(RAM.0 + 4 * M))));
    let far = range(1 << 36, 2 * M);
    assert_eq!(map(&fake, &mut tree, far, PA), Err(MapError::OutOfFormat(far)));
    assert_eq!(map(&fake, &mut tree, range(RAM.0, 2 * M), Pa(0x800)), Err(MapError::BadPa(Pa(0x800))));
    let end = Pa((1 << 48) - M);
    assert_eq!(map(&fake, &mut tree, range(RAM.0, 2 * M), end), Err(MapError::BadPa(end)));
    let lack = map(&fake, &mut tree, range(8 * G, 16 * M), PA.offset(0x1000));
    assert!(matches!(lack, Err(MapError::OutOfFrames(lack)) if lack.needed == 9 && lack.free == 6));
    assert_eq!((fake.free_frames(), tree.tables()), (free, tables));
}

#[test]
fn new_tables_are_whole_and_visible_before_they_are_linked() {
    let fake = Fake::new(8);
    let mut tree = tree(&fake);
    take_trace();
    map(&fake, &mut tree, range(RAM.0, 0x2000), PA).unwrap();
    let trace = take_trace();
    let root_word = tree.root_slot(RAM).pa;
    let fills = trace.iter().filter(|e| matches!(e, Event::Fill(_, 512))).count();
    let barrier = trace.iter().position(|e| *e == Event::Barrier(Barrier::DsbSt)).unwrap();
    let link = trace.iter().position(|e| matches!(e, Event::Store(pa, _) if *pa == root_word)).unwrap();
    assert_eq!(fills, 2);
    assert!(barrier < link && trace.last() == Some(&Event::Barrier(Barrier::DsbSt)));
}

#[test]
fn unmapping_needs_whole_leaves_and_frees_their_tables_only_after_the_invalidation() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    let free = fake.free_frames();
    let cut = range(RAM.0 + M, 2 * M);
    assert_eq!(view.tree.unmap_check(&fake, cut), Err(MapError::PartOfBlock(RAM)));
    let hole = range(RAM.0 + 2 * M, 4 * M);
    assert_eq!(view.tree.unmap_check(&fake, hole), Err(MapError::NotMapped(Ipa(RAM.0 + 4 * M))));

    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let whole = range(RAM.0, 4 * M);
    assert_eq!(view.tree.unmap_check(&fake, whole), Ok(()));
    let mut retired = Retired::new(fake.reserve(1).unwrap());
    let mut left = 0;
    view.tree.unmap(&fake, whole, &mut retired, false, |range, _| left += range.bytes());
    assert_eq!(left, 4 * M);
    assert_eq!((blocks_and_pages(&view.tree), view.tree.query(&fake, RAM)), ((0, 0, 0), None));
    let held = fake.free_frames();
    view.free_retired(&fake, &mut retired);
    retired.end(&fake);
    assert_eq!((fake.free_frames() - held, fake.free_frames()), (2, free), "the table and the list's frame");
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn splitting_a_gigabyte_takes_513_tables_and_leaves_every_page_in_its_final_state() {
    let fake = Fake::new(600);
    let mut view = cpu_view(&fake, G);
    assert_eq!(needs(&view.tree, &fake, range(RAM.0, G)).frames, 513);
    assert_eq!(split(&fake, &mut view, range(RAM.0, G), LeafState::WritableClean), 1);
    assert_eq!((blocks_and_pages(&view.tree), view.tree.tables()), ((0, 0, 512 * 512), 1 + 513));
    assert_eq!(dirty(&fake, &view, range(RAM.0, G), Harvest::Keep), []);
    let last = fake.read(leaf_pa(&fake, &view.tree, RAM.0 + G - 0x1000));
    assert_eq!(last, 0x0008_0000_bfff_f77f, "DBM, address, AF, SH, S2AP=01, MemAttr, page");
}

#[test]
fn parts_of_a_block_outside_the_range_keep_the_largest_blocks_and_stay_dirty() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, G);
    // From the last page of one 2 MiB piece to the first of the next but one.
    let log = range(RAM.0 + 2 * M - 0x1000, 2 * M + 0x2000);
    split(&fake, &mut view, log, LeafState::WritableClean);
    assert_eq!((blocks_and_pages(&view.tree), view.tree.tables()), ((0, 509, 3 * 512), 1 + 4));
    assert_eq!(dirty(&fake, &view, log, Harvest::Keep), []);
    let outside = fake.read(leaf_pa(&fake, &view.tree, RAM.0));
    assert_eq!(outside, 0x0008_0000_8000_07ff);
    let block = fake.read(leaf_pa(&fake, &view.tree, RAM.0 + 8 * M));
    assert_eq!(block, 0x0008_0000_8080_07fd);
}

#[test]
fn pages_that_are_small_already_are_cleaned_in_the_same_pass() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableDirty);
    assert_eq!(dirty(&fake, &view, range(RAM.0, 2 * M), Harvest::Keep), [(RAM.0, 512)]);
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    assert_eq!(dirty(&fake, &view, range(RAM.0, 4 * M), Harvest::Keep), []);
}

#[test]
fn a_cpu_view_changes_size_by_batched_break_before_make() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    let words = [leaf_pa(&fake, &view.tree, RAM.0), leaf_pa(&fake, &view.tree, RAM.0 + 2 * M)];
    let old = words.map(|pa| fake.read(pa));
    take_trace();
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let new = words.map(|pa| fake.read(pa));
    let vttbr = Vttbr { vmid: Vmid(3), root: view.tree.root() };
    let (fills, visible): (Vec<_>, Vec<_>) =
        take_trace().into_iter().partition(|e| matches!(e, Event::Fill(..)));
    assert_eq!(fills.len(), 2);
    assert_eq!(
        visible,
        [
            Event::Hold,
            Event::Swap(words[0], old[0], 0),
            Event::Swap(words[1], old[1], 0),
            Event::Barrier(Barrier::DsbIshst),
            Event::Tlbi(vttbr, Tlbi::VmallS12E1Is),
            Event::Barrier(Barrier::DsbIsh),
            Event::Store(words[0], new[0]),
            Event::Store(words[1], new[1]),
            Event::Barrier(Barrier::DsbIsh),
            Event::Release,
        ]
    );
}

#[test]
fn a_broadcast_is_issued_twice_with_a_barrier_between_where_cores_end_it_early() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    view.walker.repeat = true;
    let vttbr = view.walker.vttbr(&view.tree);
    take_trace();
    view.walker.invalidate(&fake, &view.tree).unwrap();
    let (tlbi, dsb) = (Event::Tlbi(vttbr, Tlbi::VmallS12E1Is), Event::Barrier(Barrier::DsbIsh));
    assert_eq!(take_trace(), [Event::Barrier(Barrier::DsbIshst), tlbi, dsb, tlbi, dsb]);
}

#[test]
fn a_cpu_view_of_cores_that_never_abort_changes_size_by_one_swap_a_block_and_holds_nobody() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    view.walker.direct = true;
    let words = [leaf_pa(&fake, &view.tree, RAM.0), leaf_pa(&fake, &view.tree, RAM.0 + 2 * M)];
    let old = words.map(|pa| fake.read(pa));
    take_trace();
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let new = words.map(|pa| fake.read(pa));
    let vttbr = Vttbr { vmid: Vmid(3), root: view.tree.root() };
    let visible: Vec<_> = take_trace().into_iter().filter(|e| !matches!(e, Event::Fill(..))).collect();
    assert_eq!(
        visible,
        [
            Event::Barrier(Barrier::DsbIshst),
            Event::Swap(words[0], old[0], new[0]),
            Event::Swap(words[1], old[1], new[1]),
            Event::Barrier(Barrier::DsbIshst),
            Event::Tlbi(vttbr, Tlbi::VmallS12E1Is),
            Event::Barrier(Barrier::DsbIsh),
        ]
    );
    assert_eq!(merge(&fake, &mut view, range(RAM.0, 4 * M)), 2);
    assert!(!take_trace().contains(&Event::Hold));
}

#[test]
fn a_split_that_meets_a_foreign_descriptor_keeps_what_it_linked_and_frees_the_rest() {
    for direct in [false, true] {
        let fake = Fake::new(16);
        let mut view = cpu_view(&fake, 4 * M);
        view.walker.direct = direct;
        let free = fake.free_frames();
        let foreign = leaf_pa(&fake, &view.tree, RAM.0 + 2 * M);
        let mut split = Split::new(
            range(RAM.0, 4 * M),
            PageSize::Size4K,
            LeafState::WritableClean,
            fake.reserve(2).unwrap(),
        );
        // Somebody else takes the second block away between the look at it and the swap.
        let word = fake.read(foreign);
        fake.intruder.set(Some((fake.now_us() + 2, foreign, word | descriptor::CONTIGUOUS)));
        assert_eq!(split.step(&fake, &mut view), Err(ViewError::Foreign(word | descriptor::CONTIGUOUS)));
        split.end(&fake);
        let linked = u64::from(direct);
        assert_eq!(blocks_and_pages(&view.tree), (0, 2 - linked, 512 * linked));
        assert_eq!((view.tree.tables(), fake.free_frames()), (2 + linked, free - linked as usize));
    }
}

#[test]
fn a_reservation_that_is_too_small_costs_no_frame() {
    let fake = Fake::new(600);
    let mut view = cpu_view(&fake, G);
    let free = fake.free_frames();
    // One table for the block, and those of the first two of 512 below.
    let mut split =
        Split::new(range(RAM.0, G), PageSize::Size4K, LeafState::WritableClean, fake.reserve(3).unwrap());
    assert_eq!(split.step(&fake, &mut view), Err(ViewError::ReserveShort));
    split.end(&fake);
    assert_eq!((fake.free_frames(), blocks_and_pages(&view.tree)), (free, (1, 0, 0)));
}

#[test]
fn a_vcpu_that_cannot_be_held_leaves_the_view_and_the_frames_as_they_were() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    let free = fake.free_frames();
    fake.hold_result.set(Err(HoldTimeout));
    let mut split =
        Split::new(range(RAM.0, 4 * M), PageSize::Size4K, LeafState::WritableClean, fake.reserve(2).unwrap());
    assert_eq!(split.step(&fake, &mut view), Err(ViewError::HoldTimeout));
    split.end(&fake);
    assert_eq!((blocks_and_pages(&view.tree), fake.free_frames()), ((0, 2, 0), free));
}

#[test]
fn a_dma_view_changes_size_by_one_swap_a_block_after_a_barrier() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let mut view = dma_view(&fake, &tlb, 4 * M, true);
    let words = [leaf_pa(&fake, &view.tree, RAM.0), leaf_pa(&fake, &view.tree, RAM.0 + 2 * M)];
    let old = words.map(|pa| fake.read(pa));
    take_trace();
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let new = words.map(|pa| fake.read(pa));
    let visible: Vec<_> = take_trace().into_iter().filter(|e| !matches!(e, Event::Fill(..))).collect();
    assert_eq!(
        visible,
        [
            Event::Barrier(Barrier::DsbSt),
            Event::Swap(words[0], old[0], new[0]),
            Event::Swap(words[1], old[1], new[1]),
        ]
    );
}

#[test]
fn for_a_walker_that_is_not_coherent_tables_are_cleaned_before_the_link_and_the_link_after() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let mut view = dma_view(&fake, &tlb, 2 * M, false);
    let word = leaf_pa(&fake, &view.tree, RAM.0);
    let old = fake.read(word);
    take_trace();
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let new = fake.read(word);
    let table = Pa(new & !0xfff);
    assert_eq!(
        take_trace(),
        [
            Event::Fill(table, 512),
            Event::Clean(table, 4096),
            // A DSB of stores alone would not wait for the clean.
            Event::Barrier(Barrier::DsbSy),
            Event::Swap(word, old, new),
            Event::Clean(word, 64),
        ]
    );
}

#[test]
#[cfg_attr(miri, ignore = "256 MiB take Miri too long")]
fn for_a_walker_that_is_not_coherent_each_cache_line_of_links_is_cleaned_once_a_pass() {
    for (size_change, passes) in [(SizeChange::Direct, 1), (SizeChange::ThroughNt, 2)] {
        let (fake, tlb) = (Fake::new(300), FakeTlb::default());
        tlb.size_change.set(Some(size_change));
        // 128 blocks of 2 MiB, whose descriptors fill 16 lines of 64 bytes, in two batches.
        let mut view = dma_view(&fake, &tlb, 256 * M, false);
        let lines = |trace: Vec<Event>| trace.iter().filter(|e| matches!(e, Event::Clean(_, 64))).count();
        take_trace();
        split(&fake, &mut view, range(RAM.0, 256 * M), LeafState::WritableDirty);
        let trace = take_trace();
        let tables = trace.iter().filter(|e| matches!(e, Event::Clean(_, 4096))).count();
        assert_eq!((tables, lines(trace)), (128, 16 * passes));
        merge(&fake, &mut view, range(RAM.0, 256 * M));
        assert_eq!(lines(take_trace()), 16 * passes);
    }
}

#[test]
fn a_mapping_for_a_walker_that_is_not_coherent_waits_for_every_clean() {
    let fake = Fake::new(8);
    let mut tree = tree(&fake);
    let mapping = Mapping { range: range(RAM.0, 0x1000), pa: PA, rights: Rights::RAM, by_pages: None };
    let mut reserve = fake.reserve(2).unwrap();
    let word = tree.root_slot(RAM).pa;
    take_trace();
    tree.map(&fake, &mapping, &mut reserve, true);
    let trace: Vec<_> = take_trace().into_iter().filter(|e| !matches!(e, Event::Fill(..))).collect();
    let Pa(table) = Pa(fake.read(word) & !0xfff);
    let page = leaf_pa(&fake, &tree, RAM.0).align_down(4096);
    assert_eq!(
        trace,
        [
            Event::Clean(page, 4096),
            Event::Clean(Pa(table), 4096),
            Event::Barrier(Barrier::DsbSy),
            Event::Store(word, table | 3),
            Event::Clean(word, 8),
            Event::Barrier(Barrier::DsbSy),
        ]
    );
}

#[test]
fn an_update_by_hardware_between_look_and_swap_does_not_stop_a_split() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let mut view = dma_view(&fake, &tlb, 2 * M, true);
    let word = leaf_pa(&fake, &view.tree, RAM.0);
    let dirty_block = fake.read(word);
    fake.write_behind(word, dirty_block & !descriptor::S2AP_WRITE);
    let (slot, _) = view.tree.walk(&fake, RAM);
    let mut batch = crate::stage2::Batch::new();
    let swap = |old, new| crate::stage2::view::Swap { slot, old, new, contents: Default::default() };
    batch.push(swap(fake.read(word), descriptor::table(Pa(0x5000))));
    fake.or_behind(word, descriptor::S2AP_WRITE);
    let published = view.walker.publish(&fake, &view.tree, &batch);
    assert_eq!(published, Published { replaced: 1, result: Ok(()) });
    assert_eq!(fake.read(word), 0x5003);
    // Whatever else changed is nobody's but the owner's.
    let mut batch = crate::stage2::Batch::new();
    batch.push(swap(dirty_block, descriptor::table(Pa(0x6000))));
    let published = view.walker.publish(&fake, &view.tree, &batch);
    assert_eq!(published, Published { replaced: 0, result: Err(ViewError::Foreign(0x5003)) });
    map(&fake, &mut view.tree, range(8 * G, 0x1000), PA).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn merging_brings_back_the_block_and_every_frame() {
    for bytes in [2 * M, G] {
        let (fake, tlb) = (Fake::new(600), FakeTlb::default());
        let mut view = dma_view(&fake, &tlb, G, true);
        let (before, free) = (view.tree.leaves(), fake.free_frames());
        split(&fake, &mut view, range(RAM.0, bytes), LeafState::WritableClean);
        fake.or_behind(leaf_pa(&fake, &view.tree, RAM.0), descriptor::S2AP_WRITE);
        assert_eq!(merge(&fake, &mut view, range(RAM.0, bytes)), 1);
        assert_eq!((view.tree.leaves(), fake.free_frames(), view.tree.tables()), (before, free, 1));
        assert_eq!(fake.read(leaf_pa(&fake, &view.tree, RAM.0)), 0x0008_0000_8000_07fd);
    }
}

#[test]
fn a_table_with_a_hole_or_a_foreign_page_is_not_merged_but_made_dirty() {
    let fake = Fake::new(16);
    let mut tree = tree(&fake);
    map(&fake, &mut tree, range(RAM.0, 2 * M - 0x1000), PA).unwrap();
    map(&fake, &mut tree, range(RAM.0 + 2 * M - 0x1000, 0x1000), PA.offset(16 * M)).unwrap();
    map(&fake, &mut tree, range(RAM.0 + 4 * M, 0x1000), PA).unwrap();
    let mut view = View { tree, walker: CpuWalker { vmid: Vmid(3), direct: false, repeat: false } };
    let all = range(RAM.0, 6 * M);
    view.tree.harvest(&fake, all, Harvest::Clean, |_, _| {});
    assert_eq!(dirty(&fake, &view, all, Harvest::Keep), []);
    assert_eq!(merge(&fake, &mut view, all), 0);
    let pages: u64 = dirty(&fake, &view, all, Harvest::Keep).iter().map(|(_, pages)| pages).sum();
    assert_eq!(pages, 513);
    assert_eq!(blocks_and_pages(&view.tree), (0, 0, 513));
}

#[test]
fn merged_tables_are_freed_only_after_the_invalidation() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let mut view = dma_view(&fake, &tlb, 2 * M, true);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    let table = leaf_pa(&fake, &view.tree, RAM.0);
    take_trace();
    merge(&fake, &mut view, range(RAM.0, 2 * M));
    let trace = take_trace();
    let position = |event| trace.iter().position(|e| *e == event).unwrap();
    assert!(position(Event::Mark("S12_VMALL + CMD_SYNC")) < position(Event::Free(table)));
}

#[test]
fn harvest_reports_what_hardware_set_and_cleans_it_by_one_atomic_and() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    let pages = [RAM.0, RAM.0 + 0x5000, RAM.0 + 2 * M - 0x1000, RAM.0 + 2 * M, RAM.0 + 4 * M - 0x1000];
    for page in pages {
        fake.or_behind(leaf_pa(&fake, &view.tree, page), descriptor::S2AP_WRITE);
    }
    let expected: Vec<_> = pages.iter().map(|p| (*p, 1)).collect();
    let all = range(RAM.0, 4 * M);
    assert_eq!(dirty(&fake, &view, all, Harvest::Keep), expected);
    take_trace();
    assert_eq!(dirty(&fake, &view, all, Harvest::Clean), expected);
    let ands: Vec<_> =
        pages.iter().map(|p| Event::And(leaf_pa(&fake, &view.tree, *p), !descriptor::S2AP_WRITE)).collect();
    assert_eq!(take_trace(), ands, "nothing else is written");
    assert_eq!(dirty(&fake, &view, all, Harvest::Keep), []);
}

#[test]
fn harvest_looks_at_its_range_alone() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 4 * M);
    split(&fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableDirty);
    let part = range(RAM.0 + 2 * M - 0x1000, 0x2000);
    let found = dirty(&fake, &view, part, Harvest::Clean);
    assert_eq!(found, [(RAM.0 + 2 * M - 0x1000, 1), (RAM.0 + 2 * M, 1)]);
    let left = dirty(&fake, &view, range(RAM.0, 4 * M), Harvest::Keep);
    assert_eq!(left, [(RAM.0, 511), (RAM.0 + 2 * M + 0x1000, 511)]);
}

#[test]
fn adjacent_dirty_pages_are_reported_together_wherever_a_cache_line_ends() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 2 * M);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    for page in [3, 6, 7, 8, 9, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26] {
        fake.or_behind(leaf_pa(&fake, &view.tree, RAM.0 + page * 0x1000), descriptor::S2AP_WRITE);
    }
    // From the middle of a line to the middle of another.
    let part = range(RAM.0 + 0x3000, 0x18000);
    let runs = [(3, 1), (6, 4), (15, 10), (26, 1)].map(|(page, pages)| (RAM.0 + page * 0x1000, pages));
    assert_eq!(dirty(&fake, &view, part, Harvest::Keep), runs);
    assert_eq!(dirty(&fake, &view, part, Harvest::Clean), runs);
    assert_eq!(dirty(&fake, &view, range(RAM.0, 2 * M), Harvest::Keep), []);
}

#[test]
fn a_dirty_block_counts_whole_and_is_cleaned_whole() {
    let fake = Fake::new(16);
    let view = cpu_view(&fake, 4 * M);
    let part = range(RAM.0 + M, 2 * M);
    assert_eq!(dirty(&fake, &view, part, Harvest::Clean), [(RAM.0, 512), (RAM.0 + 2 * M, 512)]);
    assert_eq!(dirty(&fake, &view, range(RAM.0, 4 * M), Harvest::Keep), []);
}

#[test]
fn device_registers_and_holes_are_never_reported() {
    let fake = Fake::new(16);
    let mut view = cpu_view(&fake, 2 * M);
    let registers = range(0x1000_0000, 2 * M);
    let mapping =
        Mapping { range: registers, pa: Pa(registers.start().0), rights: Rights::DEVICE, by_pages: None };
    let mut reserve = fake.reserve(1).unwrap();
    view.tree.map(&fake, &mapping, &mut reserve, false);
    assert_eq!(dirty(&fake, &view, range(0, 2 * G), Harvest::Assume), [(RAM.0, 512)]);
}

#[test]
fn a_failed_invalidation_reaches_the_caller() {
    let (fake, tlb) = (Fake::new(16), FakeTlb::default());
    let view = dma_view(&fake, &tlb, 2 * M, true);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    assert_eq!(view.walker.invalidate(&fake, &view.tree), Err(ViewError::Dma(DmaTlbError::Timeout)));
}

#[test]
fn a_list_of_retired_tables_takes_no_more_than_its_reservation() {
    let fake = Fake::new(8);
    assert_eq!((Retired::frames_for(0), Retired::frames_for(511), Retired::frames_for(512)), (0, 1, 2));
    let mut retired = Retired::new(fake.reserve(2).unwrap());
    assert_eq!(retired.room(), 1022);
    for _ in 0..600 {
        // A level-3 table has nothing below it.
        assert!(retired.push(&fake, fake.alloc(0).map_or(Pa(0), crate::frames::FrameBlock::into_pa), 3));
        if fake.free_frames() == 0 {
            break;
        }
    }
    let before = retired.room();
    assert!(before < 1022);
    assert!(retired.free(&fake, u64::MAX) > 0);
    retired.end(&fake);
    assert_eq!(fake.free_frames(), 8);
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn freeing_a_tree_gives_every_frame_back() {
    let fake = Fake::new(600);
    let mut view = cpu_view(&fake, G);
    split(&fake, &mut view, range(RAM.0, G), LeafState::WritableClean);
    view.tree.free(&fake);
    assert_eq!(fake.free_frames(), 600);
}
