//! Questions to a tree about any addresses: an answer or an error that names the address, and never a change.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::stage2::MemoryKind;

/// A range of any kind: small, at the edge of what a format translates, or nearly everything.
fn a_range() -> impl Strategy<Value = IpaRange> {
    let start = prop_oneof![
        4 => (0_u64..3072).prop_map(|page| RAM.0 + page * 4096),
        2 => select(vec![0, RAM.0 - 4096, RAM.0 + 2 * M, 3 * G, (1 << 32) - 4096, 1 << 36, 1 << 48, u64::MAX << 12]),
        1 => any::<u64>().prop_map(|any| any & !0xfff),
    ];
    let bytes = prop_oneof![
        4 => (1_u64..2048).prop_map(|pages| pages * 4096),
        2 => select(vec![2 * M, 4 * M, G, 3 * G, 1 << 36, 1 << 48]),
        1 => any::<u64>().prop_map(|any| any & !0xfff),
    ];
    (start, bytes).prop_filter_map("no range", |(start, bytes)| IpaRange::new(Ipa(start), bytes).ok())
}

fn rights() -> impl Strategy<Value = Rights> {
    let kind = select(vec![MemoryKind::Ram, MemoryKind::Device]);
    (kind, any::<bool>()).prop_map(|(kind, writable)| Rights { kind, writable })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 600 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_question_about_any_address_is_answered_and_changes_nothing(
        bits in select(vec![32_u8, 36, 40]),
        range in a_range(),
        pa in prop_oneof![Just(PA.0), Just(PA.0 + 0x1000), Just((1 << 48) - 0x2000), any::<u64>()],
        rights in rights(),
        by_pages in proptest::option::of(a_range()),
        ipa in prop_oneof![(0..8 * M).prop_map(|offset| RAM.0 + offset), any::<u64>()],
    ) {
        let fake = Fake::new(16);
        let mut tree = Tree::new(&fake, Format::new(bits).unwrap()).unwrap();
        // A block, a hole and pages.
        map(&fake, &mut tree, super::range(RAM.0, 2 * M), PA).unwrap();
        map(&fake, &mut tree, super::range(RAM.0 + 4 * M, M), PA.offset(0x1000)).unwrap();
        let before = (fake.contents(), format!("{tree:?}"));
        let mapped = |ipa: Ipa| {
            (RAM.0..RAM.0 + 2 * M).contains(&ipa.0) || (RAM.0 + 4 * M..RAM.0 + 5 * M).contains(&ipa.0)
        };

        prop_assert_eq!(tree.query(&fake, Ipa(ipa)).is_some(), mapped(Ipa(ipa)));
        match tree.map_needs(&fake, &Mapping { range, pa: Pa(pa), rights, by_pages }) {
            Ok(_) => prop_assert!(!mapped(range.start()) && range.end().0 <= 1 << bits),
            Err(MapError::AlreadyMapped(at)) => prop_assert!(range.contains(at) && mapped(at)),
            Err(MapError::OutOfFormat(far)) => prop_assert!(far == range && range.end().0 > 1 << bits),
            Err(MapError::BadPa(bad)) => {
                let end = u128::from(pa) + u128::from(range.bytes());
                prop_assert!(bad == Pa(pa) && (pa % 4096 != 0 || end > 1 << 48));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        match tree.unmap_check(&fake, range) {
            Ok(()) => prop_assert!(mapped(range.start()) && mapped(Ipa(range.end().0 - 1))),
            Err(MapError::NotMapped(at)) => prop_assert!(range.contains(at) && !mapped(at)),
            Err(MapError::PartOfBlock(block)) => prop_assert!(block == RAM && range.overlaps(super::range(RAM.0, 2 * M))),
            Err(MapError::OutOfFormat(far)) => prop_assert!(far == range && range.end().0 > 1 << bits),
            Err(other) => prop_assert!(false, "{other}"),
        }
        let after = (fake.contents(), format!("{tree:?}"));
        prop_assert!(after == before);
    }
}

#[test]
fn cpu_view_that_meets_a_foreign_descriptor_makes_whole_what_it_broke_and_leaves_that_one_alone() {
    let fake = Fake::new(16);
    let view = cpu_view(&fake, 6 * M);
    let blocks = [0, 2, 4].map(|at| view.tree.walk(&fake, Ipa(RAM.0 + at * M)).0);
    let old = blocks.map(|slot| fake.read(slot.pa));
    let foreign = old[1] | descriptor::CONTIGUOUS;
    fake.write_behind(blocks[1].pa, foreign);
    let mut batch = crate::stage2::Batch::new();
    for (slot, old) in blocks.into_iter().zip(old) {
        batch.push(crate::stage2::view::Swap { slot, old, new: 0x5003, contents: Default::default() });
    }
    take_trace();
    let published = view.walker.publish(&fake, &view.tree, &batch);
    assert_eq!(published, Published { replaced: 0, result: Err(ViewError::Foreign(foreign)) });
    assert_eq!(blocks.map(|slot| fake.read(slot.pa)), [old[0], foreign, old[2]]);
    assert_eq!(take_trace().last(), Some(&Event::Release), "the vCPUs go on");
}

#[test]
fn each_error_of_a_view_says_what_happened() {
    let told = |error: ViewError| error.to_string();
    assert_eq!(told(ViewError::HoldTimeout), HoldTimeout.to_string());
    assert_eq!(told(ViewError::Dma(DmaTlbError::Timeout)), DmaTlbError::Timeout.to_string());
    let foreign = "a descriptor was changed by somebody else: 0x0000000000005003";
    assert_eq!(told(ViewError::Foreign(0x5003)), foreign);
    assert_eq!(told(ViewError::ReserveShort), "fewer table frames were reserved than are needed");
    assert_eq!(told(ViewError::SizeFixed), "the SMMU can't bear that a translation's size changes");
}

#[test]
fn each_error_of_a_mapping_names_where_it_is_wrong() {
    let told = |error: MapError| error.to_string();
    assert_eq!(told(MapError::AlreadyMapped(RAM)), "guest address 0x40000000 is mapped already");
    assert_eq!(told(MapError::NotMapped(RAM)), "guest address 0x40000000 is not mapped");
    assert_eq!(told(MapError::BadPa(Pa(0x123))), "physical address 0x123 is unaligned or beyond 48 bits");
    assert_eq!(told(MapError::PartOfBlock(RAM)), "the range cuts the block at guest address 0x40000000");
    let lack = OutOfFrames { needed: 4, free: 1 };
    assert_eq!(told(MapError::OutOfFrames(lack)), lack.to_string());
    let large = range(RAM.0, 1 << 40);
    let said = format!("guest range {large} exceeds the view's address size");
    assert_eq!(told(MapError::OutOfFormat(large)), said);
}

#[test]
fn a_cpu_view_that_is_asked_to_forget_a_range_forgets_everything() {
    let fake = Fake::new(16);
    let view = cpu_view(&fake, 4 * M);
    take_trace();
    view.walker.invalidate_range(&fake, &view.tree, range(RAM.0, 4096), true).unwrap();
    let all = Event::Tlbi(view.walker.vttbr(&view.tree), Tlbi::VmallS12E1Is);
    assert_eq!(take_trace(), [Event::Barrier(Barrier::DsbIshst), all, Event::Barrier(Barrier::DsbIsh)]);
}
