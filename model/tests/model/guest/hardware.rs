//! The SMMU stops answering, and answers again; and what is out of use for ever because it did.

use std::collections::BTreeMap;

use strandline::addr::Pa;
use strandline::address_space::DmaView;
use strandline::stage2::Tree;

use super::{Guest, Outcome};
use crate::gate::Gate;
use crate::guest::snapshot::tables_of;
use crate::vm::STREAMS;

/// How long a VM that ends waits for the SMMU, in hardware steps.
const PATIENCE: u32 = 100_000;

impl Guest<'_> {
    /// Now and then the SMMU stops answering, at once or in the middle of what comes; later it answers again.
    pub(super) fn fate(&mut self) {
        if self.silent {
            if self.dice.chance(256) {
                self.revive();
            }
        } else {
            self.fall_silent(1200);
        }
    }

    /// Now and then the SMMU stops answering, at once or within `soon` hardware steps.
    pub(super) fn fall_silent(&mut self, soon: u64) {
        if !self.silent && self.dice.chance(self.mix.death) {
            self.silent = true;
            self.met.deaths += 1;
            let moment = if self.dice.chance(512) { self.dice.below(soon) } else { 0 };
            let which = if self.machine().second_smmu().is_some() { self.dice.below(2) as usize } else { 0 };
            self.port(which).die_after(moment);
        }
    }

    fn revive(&mut self) {
        self.silent = false;
        (0..2).for_each(|stream| self.port(stream).set_dead(false));
        let pause = self.dice.below(200);
        self.host.run(pause);
    }

    /// The SMMU answers, and has answered everything.
    pub(super) fn wait_for_answers(&mut self) -> Outcome {
        self.revive();
        let answers = (0..PATIENCE).any(|_| {
            self.host.run(1);
            // A command that was refused stops the queue until somebody hears of it: the interrupt.
            for smmu in self.smmus {
                let _told = self.host.driving(|| smmu.handle_gerror());
            }
            self.answers()
        });
        if answers { Ok(()) } else { Err("the SMMU does not come back".to_owned()) }
    }

    /// Every stalled transaction gets its answer. Devices begin no others: where nothing is mapped one would always wait.
    pub(super) fn wait_for_stalls(&mut self) -> Outcome {
        STREAMS.iter().for_each(|stream| self.machine().set_active(*stream, false));
        let answered = (0..PATIENCE).any(|_| {
            self.host.run(1);
            self.machine().unanswered() == 0
        });
        if answered { Ok(()) } else { Err("a stalled transaction waits for ever".to_owned()) }
    }

    /// Whether the SMMU answers, and nothing from before is left to be answered.
    pub(super) fn answers(&self) -> bool {
        self.machine().smmus_answer()
    }

    /// Whether an operation may fail which began when the SMMU `answered`, or did not.
    pub(super) fn excused(&self, answered: bool) -> bool {
        !answered || !self.answers()
    }

    /// Calls `look` with the view that has `index`.
    pub(super) fn with_view<T>(&self, index: usize, look: impl FnOnce(&DmaView<'_, Gate<'_>>) -> T) -> T {
        let space = self.host.space();
        look(space.dma_view(index).expect("the view"))
    }

    /// How many table frames are part of the tree that streams go through, and of the other one.
    pub(super) fn tables(&self, index: usize) -> (u64, u64) {
        let count = |tree: &Tree| tables_of(self.machine(), tree).len() as u64;
        self.with_view(index, |dma| (count(&dma.view.tree), dma.other_tree().map_or(0, count)))
    }

    /// Table frames of second trees, which come back when the SMMU has forgotten them.
    pub(super) fn second_trees(&self) -> usize {
        let space = self.host.space();
        let second = space.dma_views().filter_map(DmaView::other_tree);
        second.map(|tree| tables_of(self.machine(), tree).len()).sum()
    }

    /// The trees of the views: the root of each, and how many of its table frames are no more part of it and are not free
    /// either.
    fn unlinked_now(&self) -> Vec<(Pa, u64)> {
        let space = self.host.space();
        let trees = space.dma_views().flat_map(|dma| [&dma.view.tree].into_iter().chain(dma.other_tree()));
        trees.map(|t| (t.root(), t.tables() - tables_of(self.machine(), t).len() as u64)).collect()
    }

    /// After an invalidation that did not complete: what was unlinked before it stays out of use, and so does the frame
    /// in which it is listed.
    pub(super) fn quarantine(&mut self) {
        for (root, unlinked) in self.unlinked_now() {
            let before = self.unlinked.insert(root, unlinked).unwrap_or(0);
            if unlinked > before {
                self.quarantined += (unlinked - before) as usize + 1;
            }
        }
    }

    /// [`Guest::quarantine`] of a sync that has changed sizes: there is no list.
    pub(super) fn quarantine_unlisted(&mut self) {
        for (root, unlinked) in self.unlinked_now() {
            let before = self.unlinked.insert(root, unlinked).unwrap_or(0);
            self.quarantined += unlinked.saturating_sub(before) as usize;
        }
    }

    /// Forgets the trees that are gone: others may come to stand where they did, of which less was unlinked.
    pub(super) fn forget_trees(&mut self) {
        let now = BTreeMap::from_iter(self.unlinked_now());
        let kept = self.unlinked.iter().filter_map(|(root, known)| Some((*root, *known.min(now.get(root)?))));
        self.unlinked = kept.collect();
    }
}
