//! A tree that is taken apart in parts: how much of it goes in a step, and where the next one begins.

use super::*;

/// A tree of `ipa_bits`, with these mappings, all of them by pages.
fn of_pages(fake: &Fake, ipa_bits: u8, ranges: &[IpaRange]) -> Tree {
    let mut tree = Tree::new(fake, Format::new(ipa_bits).unwrap()).unwrap();
    for range in ranges {
        let mapping = Mapping { range: *range, pa: PA, rights: Rights::RAM, by_pages: Some(*range) };
        let mut reserve = fake.reserve(tree.map_needs(fake, &mapping).unwrap()).unwrap();
        tree.map(fake, &mapping, &mut reserve, false);
        fake.unreserve(reserve);
    }
    tree
}

/// Where each step ends, and how many table frames of the tree are left then.
fn steps(fake: &Fake, tree: &mut Tree) -> Vec<(u64, u64)> {
    let (mut at, mut steps) = (Ipa(0), vec![]);
    loop {
        let (free, tables) = (fake.free_frames() as u64, tree.tables());
        let done = tree.prune(fake, &mut at);
        assert_eq!(
            fake.free_frames() as u64 - free,
            tables - tree.tables(),
            "what is freed is what is counted"
        );
        steps.push((at.0, tree.tables()));
        if done {
            return steps;
        }
    }
}

#[test]
fn step_ends_with_the_sub_tree_in_which_the_512th_table_is_freed() {
    let fake = Fake::new(1100);
    let free = fake.free_frames();
    // 512 tables but for 2 MiB at the end, then 513.
    let mut tree = of_pages(&fake, 36, &[range(G, G - 2 * M), range(2 * G, G)]);
    assert_eq!(tree.tables(), 1 + 512 + 513);
    assert_eq!(steps(&fake, &mut tree), [(2 * G, 1 + 513), (3 * G, 1), (64 * G, 1)]);
    assert_eq!(tree.query(&fake, Ipa(G)), None, "nothing points at what is free");
    tree.free(&fake);
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn step_looks_at_512_entries_where_there_is_nothing_to_free() {
    let fake = Fake::new(8);
    let mut tree = of_pages(&fake, 40, &[]);
    assert_eq!(steps(&fake, &mut tree), [(512 * G, 2), (1024 * G, 2)]);
}

#[test]
fn tables_of_level_1_below_a_root_of_level_0_stay_for_the_end() {
    let fake = Fake::new(16);
    let free = fake.free_frames();
    // In the first and in the last but one of 512 GiB.
    let last = 510 * 512 * G;
    let mut tree = of_pages(&fake, 48, &[range(RAM.0, 4 * M), range(last + G, 2 * M)]);
    assert_eq!(tree.tables(), 1 + (1 + 1 + 2) + (1 + 1 + 1));
    let ends = steps(&fake, &mut tree);
    // 512 entries of level 1; 509 of level 0 and three of level 1, the second of which has a table; the others of level 1,
    // and the last of level 0.
    assert_eq!(ends, [(512 * G, 1 + 1 + 3), (last + 3 * G, 1 + 1 + 1), (512 * 512 * G, 3)]);
    tree.free(&fake);
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn list_of_retired_tables_gives_back_as_many_as_were_asked_for_and_not_one_more() {
    let fake = Fake::new(16);
    let mut retired = Retired::new(fake.reserve(1).unwrap());
    for _ in 0..4 {
        assert!(retired.push(&fake, fake.alloc(0).unwrap().into_pa(), 3));
    }
    let free = fake.free_frames();
    assert_eq!([1, 2, 8].map(|most| retired.free(&fake, most)), [1, 2, 1]);
    assert!(retired.is_empty() && fake.free_frames() == free + 4);
    assert_eq!(retired.end(&fake), 0);
    assert_eq!(fake.free_frames(), free + 5, "and the list itself");
}

#[test]
fn list_of_more_tables_than_a_frame_holds_gives_back_a_frame_of_its_own_when_that_is_empty() {
    let fake = Fake::new(700);
    let all = fake.free_frames();
    let mut retired = Retired::new(fake.reserve(Retired::frames_for(600)).unwrap());
    for _ in 0..600 {
        assert!(retired.push(&fake, fake.alloc(0).unwrap().into_pa(), 3));
    }
    // 511 in the first frame of the list, 89 in the second.
    assert_eq!((fake.free_frames(), retired.room()), (all - 602, 511 - 89));
    assert_eq!((retired.free(&fake, 88), fake.free_frames()), (88, all - 602 + 88));
    assert_eq!((retired.free(&fake, 1), fake.free_frames()), (1, all - 602 + 89 + 1));
    assert_eq!((retired.free(&fake, u64::MAX), retired.end(&fake)), (511, 0));
    assert_eq!(fake.free_frames(), all);
}
