//! Which commands make an SMMU forget a range of guest pages (IHI 0070 §4.4.1.1, §4.4.3).

use crate::addr::{Ipa, PAGE_SHIFT, Vmid};
use crate::hw::Scope;

use super::spec::command::{Command, PageCount};

/// Where ranges have to be invalidated page by page, so many commands at most: a range of more pages takes one
/// CMD_TLBI_S12_VMALL. By what the model's SMMU reads (`model/tests/model/ranges.rs`), n commands for n pages and
/// fetching those pages' descriptors again cost less than fetching a working set of 2048 pages again until n is half of
/// that, and a quarter where a command weighs as much as three reads. With ranges no more than eight commands do, and
/// never cost more than everything would.
const MOST_PAGE_COMMANDS: u64 = 512;
/// Pages of the largest IPA space (48 bits). A range beyond it names addresses no view has.
const MOST_PAGES: u64 = 1 << 36;

/// The commands for one invalidation, in order.
#[derive(Clone)]
pub(super) enum Invalidation {
    /// Everything of the VMID.
    All(Option<Vmid>),
    /// A range.
    Range(RangeCommands),
}

impl Invalidation {
    /// What `scope` takes on an SMMU that has invalidation by range or not.
    pub(super) fn new(vmid: Vmid, scope: Scope, by_range: bool) -> Self {
        let most = if by_range { MOST_PAGES } else { MOST_PAGE_COMMANDS };
        match scope {
            Scope::Range { range, leaf_only } if range.pages() <= most => {
                let (ipa, pages) = (range.start(), range.pages());
                Self::Range(RangeCommands { vmid, leaf: leaf_only, ipa, pages, by_range })
            }
            Scope::Range { .. } | Scope::All => Self::All(Some(vmid)),
        }
    }
}

impl Iterator for Invalidation {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        match self {
            Self::All(vmid) => vmid.take().map(Command::TlbiS12Vmall),
            Self::Range(commands) => commands.next(),
        }
    }
}

/// CMD_TLBI_S2_IPA for what is left of a range.
#[derive(Clone)]
pub(super) struct RangeCommands {
    vmid: Vmid,
    leaf: bool,
    ipa: Ipa,
    pages: u64,
    by_range: bool,
}

impl Iterator for RangeCommands {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if self.pages == 0 {
            return None;
        }
        let count = if self.by_range { lowest_run(self.pages) } else { PageCount::ONE };
        let ipa = self.ipa;
        self.pages -= count.pages();
        self.ipa = ipa.offset(count.pages() << PAGE_SHIFT);
        Some(Command::TlbiS2Ipa { vmid: self.vmid, ipa, count, leaf: self.leaf })
    }
}

/// The five lowest significant bits of `pages`, 1 to [`MOST_PAGES`], as one count: what is left has at least five
/// trailing zeros more, so eight commands do for any range. The level hint is 0, with which a range may begin at any
/// page (§4.4.1.1).
fn lowest_run(pages: u64) -> PageCount {
    // SCALE goes to 31, and from there 32 multiples, which NUM can hold, are `MOST_PAGES`.
    let scale = pages.trailing_zeros().min(31);
    let multiple = if scale < 31 { (pages >> scale) & 0x1f } else { (pages >> scale).min(32) };
    PageCount { num: (multiple - 1) as u8, scale: scale as u8 }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::addr::IpaRange;

    fn range(start: u64, pages: u64) -> Scope {
        Scope::Range { range: IpaRange::new(Ipa(start), pages << 12).unwrap(), leaf_only: true }
    }

    fn words(scope: Scope, by_range: bool) -> Vec<[u64; 2]> {
        Invalidation::new(Vmid(7), scope, by_range).map(Command::words).collect()
    }

    /// Start and pages of each command.
    fn runs(scope: Scope) -> Vec<(u64, u64)> {
        let run = |command| match command {
            Command::TlbiS2Ipa { ipa, count, .. } => (ipa.0, count.pages()),
            other => panic!("{other:?}"),
        };
        Invalidation::new(Vmid(7), scope, true).map(run).collect()
    }

    #[test]
    fn everything_is_one_vmall() {
        assert_eq!(words(Scope::All, true), [[0x0000_0007_0000_0028, 0]]);
    }

    #[test]
    fn one_page_avoids_the_reserved_range() {
        let expected = [[0x0000_0007_0000_002a, 0x4000_0001]];
        assert_eq!(words(range(0x4000_0000, 1), true), expected);
        assert_eq!(words(range(0x4000_0000, 1), false), expected);
    }

    #[test]
    fn a_gigabyte_is_one_command_with_ranges() {
        // 2^18 pages: NUM=0, SCALE=18=0x12 in [24:20].
        assert_eq!(words(range(0x4000_0000, 1 << 18), true), [[0x0000_0007_0120_002a, 0x4000_0401]]);
    }

    #[test]
    fn table_entries_are_covered_unless_only_leaves_changed() {
        let scope =
            Scope::Range { range: IpaRange::new(Ipa(0x4000_0000), 2 << 12).unwrap(), leaf_only: false };
        // NUM=0, SCALE=1.
        assert_eq!(words(scope, true), [[0x0000_0007_0010_002a, 0x4000_0400]]);
    }

    #[test]
    fn odd_range_is_cut_into_runs_that_cover_it_once() {
        assert_eq!(runs(range(0x1000, 31)), [(0x1000, 31)]);
        assert_eq!(runs(range(0x1000, 33)), [(0x1000, 1), (0x2000, 32)]);
        // 0x2345 is 0x05, 0x0d << 6 and 1 << 13.
        assert_eq!(runs(range(0, 0x2345)), [(0, 0x5), (0x5000, 0x340), (0x34_5000, 0x2000)]);
    }

    #[test]
    fn runs_meet_and_end_where_the_range_does() {
        for pages in [1, 2, 3, 63, 64, 65, 511, 513, 0x1_2345, 0xf_ffff_ffff, 1 << 36] {
            let runs = runs(range(0x1000, pages));
            let mut at = 0x1000;
            for (ipa, pages) in &runs {
                assert_eq!(*ipa, at);
                at += pages << 12;
            }
            assert_eq!(at, 0x1000 + (pages << 12));
            assert!(runs.len() <= 8, "{pages:#x} pages took {} commands", runs.len());
        }
    }

    #[test]
    fn without_ranges_each_page_has_its_command_up_to_the_bound() {
        let pages = words(range(0x4000_0000, 3), false);
        let expected =
            [[0x7_0000_002a, 0x4000_0001], [0x7_0000_002a, 0x4000_1001], [0x7_0000_002a, 0x4000_2001]];
        assert_eq!(pages, expected);
        assert_eq!(words(range(0, 512), false).len(), 512);
        assert_eq!(words(range(0, 513), false), [[0x0000_0007_0000_0028, 0]]);
    }

    #[test]
    fn whole_address_space_is_one_command_and_beyond_it_one_vmall() {
        assert_eq!(runs(range(0, 1 << 36)), [(0, 1 << 36)]);
        assert_eq!(words(range(0, (1 << 36) + 1), true), [[0x0000_0007_0000_0028, 0]]);
    }

    #[test]
    fn no_command_has_the_reserved_combination() {
        for pages in 1..200 {
            for [word0, word1] in words(range(0x1000, pages), true) {
                let (num_scale, granule) = (word0 & 0x01f1_f000, word1 & 0xc00);
                assert!(granule == 0 || num_scale != 0, "{word0:#x} {word1:#x}");
            }
        }
    }
}
