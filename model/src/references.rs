//! Who still refers to a frame: nobody may, when it is given back.

use crate::core::Core;
use crate::descriptor::{Shape, output, shape, span};
use crate::update::Walker;
use crate::walk::Regime;

impl Core {
    fn walkers(&self) -> impl Iterator<Item = Walker> + use<> {
        (0..self.smmus.len()).map(Walker::Smmu).chain((0..self.pes.len()).map(Walker::Pe))
    }

    fn entries(&self, walker: Walker) -> &[crate::tlb::Entry] {
        &self.tlb(walker).entries
    }

    /// Something in hardware that would still use the table frames from `first`.
    pub fn referrer(&self, first: u64, bytes: u64) -> Option<String> {
        let inside = |pa: u64| pa.wrapping_sub(first) < bytes;
        let cached = self.walkers().find_map(|w| {
            let uses = |e: &&crate::tlb::Entry| inside(self.address(e.at)) || e.table().is_some_and(inside);
            self.entries(w).iter().find(uses).map(|e| format!("{w} still caches {e}"))
        });
        let in_flight = || {
            let uses = |at: u32| inside(self.address(at));
            self.traffic.iter().find(|t| t.leaf().is_some_and(uses)).map(|t| {
                format!("an access to {:#x} through {} that it translated is in flight", t.ipa, t.walker)
            })
        };
        cached
            .or_else(in_flight)
            .or_else(|| self.live_tree(&inside))
            .or_else(|| self.smmu_structure(first, bytes))
    }

    fn live_tree(&self, inside: &impl Fn(u64) -> bool) -> Option<String> {
        let of_pes = self.pes.iter().enumerate().filter_map(|(i, p)| Some((Walker::Pe(i), p.regime?)));
        let of_streams = self.cached_regimes().map(|(smmu, regime)| (Walker::Smmu(smmu), regime));
        of_pes.chain(of_streams).find_map(|(walker, regime)| {
            self.tree_uses(walker, &regime, inside)
                .then(|| format!("it is part of the tree at {:#x} that {walker} walks", regime.root))
        })
    }

    /// Whether the frame at `pa` holds a table of the tree.
    pub fn tree_contains(&self, regime: &Regime, pa: u64) -> bool {
        self.tree_uses(Walker::Pe(0), regime, &|table| table == pa)
    }

    fn tree_uses(&self, walker: Walker, regime: &Regime, inside: &impl Fn(u64) -> bool) -> bool {
        let entries = 1u64 << (regime.ipa_bits - span(regime.start_level).trailing_zeros());
        (0..entries.div_ceil(512)).any(|i| inside(regime.root + i * 0x1000))
            || self.table_uses(walker, regime.root, regime.start_level, entries, inside)
    }

    fn table_uses(
        &self,
        walker: Walker,
        table: u64,
        level: u8,
        entries: u64,
        inside: &impl Fn(u64) -> bool,
    ) -> bool {
        let Some(first) = self.index(table) else { return false };
        (0..entries as u32).any(|i| {
            let [seen, newest] = self.memory.both(walker.observer(), first + i);
            let uses = |word| match shape(level, word) {
                Shape::Table(next) => {
                    inside(next) || level < 2 && self.table_uses(walker, next, level + 1, 512, inside)
                }
                _ => false,
            };
            uses(newest) || seen != newest && uses(seen)
        })
    }

    /// Something in hardware that would still reach guest memory from `first`.
    pub fn reaches(&self, first: u64, bytes: u64) -> Option<String> {
        let cached = self.walkers().find_map(|w| {
            let leads = |e: &&crate::tlb::Entry| {
                let start = output(e.level, e.word, e.base);
                let used = !self.is_quarantined(w, e.vmid);
                used && e.is_leaf() && start < first + bytes && first < start + span(e.level)
            };
            self.entries(w).iter().find(leads).map(|e| format!("{w} still caches {e}"))
        });
        let inside = |pa: u64| pa.wrapping_sub(first) < bytes;
        let in_flight = || {
            let on_its_way = self.traffic.iter().find(|t| t.target().is_some_and(inside))?;
            Some(format!("an access to {:#x} through {} is in flight", on_its_way.ipa, on_its_way.walker))
        };
        cached.or_else(in_flight)
    }
}
