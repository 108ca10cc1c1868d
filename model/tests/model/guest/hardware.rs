//! The SMMU stops answering, and answers again; and what is out of use for ever because it did.

use strandline::stage2::Tree;

use super::{Guest, Outcome};
use crate::guest::snapshot::tables_of;

/// How long a VM that ends waits for the SMMU, in hardware steps.
const PATIENCE: u32 = 100_000;

impl Guest<'_> {
    /// Now and then the SMMU stops answering, at once or in the middle of what comes; later it answers again.
    pub(super) fn fate(&mut self) {
        if self.silent {
            if self.dice.chance(256) {
                self.revive();
            }
        } else if self.dice.chance(self.mix.death) {
            self.silent = true;
            self.met.deaths += 1;
            let moment = if self.dice.chance(512) { self.dice.below(1200) } else { 0 };
            self.machine().die_after(moment);
        }
    }

    fn revive(&mut self) {
        self.silent = false;
        self.machine().set_dead(false);
        let pause = self.dice.below(200);
        self.host.run(pause);
    }

    /// The SMMU answers, and has answered everything.
    pub(super) fn wait_for_answers(&mut self) -> Outcome {
        self.revive();
        let answers = (0..PATIENCE).any(|_| {
            self.host.run(1);
            self.answers()
        });
        if answers { Ok(()) } else { Err("the SMMU does not come back".to_owned()) }
    }

    /// Every stalled transaction gets its answer.
    pub(super) fn wait_for_stalls(&mut self) -> Outcome {
        let answered = (0..PATIENCE).any(|_| {
            self.host.run(1);
            self.machine().unanswered() == 0
        });
        if answered { Ok(()) } else { Err("a stalled transaction waits for ever".to_owned()) }
    }

    /// Whether the SMMU answers, and nothing from before is left to be answered.
    pub(super) fn answers(&self) -> bool {
        self.machine().smmu_answers()
    }

    /// Whether an operation may fail which began when the SMMU `answered`, or did not.
    pub(super) fn excused(&self, answered: bool) -> bool {
        !answered || !self.answers()
    }

    /// Calls `look` with the tree of the view that has `index`.
    pub(super) fn with_tree<T>(&self, index: usize, look: impl FnOnce(&Tree) -> T) -> T {
        let space = self.host.space();
        // Views stand in ascending order of their indices.
        let before = self.views.iter().flatten().filter(|v| v.index < index).count();
        look(&space.dma_views().nth(before).expect("the view").view.tree)
    }

    /// How many table frames of a view are part of its tree, and how many are no more and are not free either.
    pub(super) fn tables(&self, index: usize) -> (u64, u64) {
        self.with_tree(index, |tree| {
            let linked = tables_of(self.machine(), tree).len() as u64;
            (linked, tree.tables() - linked)
        })
    }

    /// After an invalidation that did not complete: what was unlinked before it stays out of use, and so does the frame
    /// in which it is listed.
    pub(super) fn quarantine(&mut self) {
        for stream in 0..self.views.len() {
            let Some(view) = self.views[stream] else { continue };
            let (_, unlinked) = self.tables(view.index);
            if unlinked > view.unlinked {
                self.quarantined += (unlinked - view.unlinked) as usize + 1;
                self.views[stream] = Some(super::Plugged { unlinked, ..view });
            }
        }
    }
}
