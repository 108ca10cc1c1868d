//! What a harvest finds and leaves behind, page by page, against the rule written down as a loop over pages.

use super::*;
use crate::stage2::descriptor::{DBM, S2AP_WRITE};

/// A generator of numbers that are as good as random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Two tables of pages, one in `one_in` of which is dirty; some can't be, or are not there.
fn tables(fake: &Fake, numbers: &mut Numbers, one_in: u64) -> View<CpuWalker> {
    let mut view = cpu_view(fake, 4 * M);
    split(fake, &mut view, range(RAM.0, 4 * M), LeafState::WritableClean);
    for page in 0..1024 {
        let at = leaf_pa(fake, &view.tree, RAM.0 + page * 0x1000);
        let dirty = if numbers.below(one_in) == 0 { S2AP_WRITE } else { 0 };
        let word = fake.read(at) | dirty;
        fake.write_behind(
            at,
            match numbers.below(20) {
                // Read-only, whatever hardware is told; a device's registers; nothing.
                0 => word & !DBM,
                1 => word & !(0b1110 << 2),
                2 => 0,
                _ => word,
            },
        );
    }
    view
}

#[test]
fn two_dirty_pages_of_one_cache_line_are_both_found() {
    let fake = Fake::new(8);
    let mut view = cpu_view(&fake, 2 * M);
    split(&fake, &mut view, range(RAM.0, 2 * M), LeafState::WritableClean);
    for (a, b) in (0..8).flat_map(|a| (0..a).map(move |b| (b, a))) {
        for page in [a, b] {
            fake.or_behind(leaf_pa(&fake, &view.tree, RAM.0 + (64 + page) * 0x1000), S2AP_WRITE);
        }
        let found: u64 =
            dirty(&fake, &view, range(RAM.0, 2 * M), Harvest::Clean).iter().map(|(_, n)| n).sum();
        assert_eq!(found, 2, "{a} and {b}");
    }
}

#[test]
fn harvest_finds_and_cleans_what_a_loop_over_pages_would() {
    let mut numbers = Numbers(1);
    for (round, one_in) in (0..60).zip([1, 2, 10, 100, 1000].into_iter().cycle()) {
        let fake = Fake::new(8);
        let view = tables(&fake, &mut numbers, one_in);
        let words = |fake: &Fake| -> Vec<u64> {
            (0..1024).map(|page| fake.read(leaf_pa(fake, &view.tree, RAM.0 + page * 0x1000))).collect()
        };
        let before = words(&fake);
        let first = numbers.below(1024);
        let count = 1 + numbers.below(1024 - first);
        let mode = [Harvest::Keep, Harvest::Clean, Harvest::Assume][round % 3];
        let is_found = |page: u64| {
            let word = before[page as usize];
            let asked = (first..first + count).contains(&page);
            asked
                && word & 1 != 0
                && descriptor::is_logged(word)
                && (mode == Harvest::Assume || word & S2AP_WRITE != 0)
        };
        let part = range(RAM.0 + first * 0x1000, count * 0x1000);
        let mut told = vec![];
        let owed = view.tree.harvest(&fake, part, mode, |ipa, pages| told.push((ipa.0, pages)));
        let expected: Vec<u64> = (0..1024).filter(|page| is_found(*page)).collect();
        let page_of = |ipa: u64| (ipa - RAM.0) / 0x1000;
        let found: Vec<u64> =
            told.iter().flat_map(|(ipa, pages)| page_of(*ipa)..page_of(*ipa) + pages).collect();
        assert_eq!(found, expected, "{mode:?} of {count} pages from {first}");
        // Adjacent pages of a table are told of together.
        assert!(
            told.windows(2).all(|two| two[0].0 + two[0].1 * 0x1000 < two[1].0 || two[1].0 % (2 * M) == 0)
        );
        assert_eq!(owed, mode == Harvest::Clean && !expected.is_empty());
        for (page, (before, after)) in before.iter().zip(words(&fake)).enumerate() {
            let cleaned = mode == Harvest::Clean && is_found(page as u64);
            assert_eq!(after, if cleaned { before & !S2AP_WRITE } else { *before }, "page {page}");
        }
    }
}
