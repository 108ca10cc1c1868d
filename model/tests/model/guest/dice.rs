//! The choices of a life.

use strandline::addr::IpaRange;

use super::PAGE;
use super::memory::pages_of;

/// The choices of a run: SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub(super) fn chance(&mut self, of_1024: u64) -> bool {
        self.below(1024) < of_1024
    }

    /// A range of whole pages in `all`: more often than not a small one, sometimes everything.
    pub(super) fn part(&mut self, all: IpaRange) -> IpaRange {
        if self.chance(128) {
            return all;
        }
        let first = self.below(all.pages());
        let most = (all.pages() - first).min(1 << self.below(12));
        let pages = 1 + self.below(most);
        pages_of(all.start().0 / PAGE + first, pages)
    }
}
