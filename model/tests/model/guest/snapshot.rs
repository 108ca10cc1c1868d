//! The state of a VM, to hold a refused operation against.

use strandline::addr::Pa;
use strandline::frames::Frames;
use strandline::stage2::{LeafCounts, Tree};
use strandline_abi::LogState;
use strandline_model::Machine;

use super::{Guest, Outcome};

const WRITE: u64 = 1 << 7;

/// All that an operation which is refused must leave as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) state: LogState,
    pub(super) free_frames: usize,
    /// Table frames of each view.
    pub(super) tables: Vec<u64>,
    leaves: Vec<LeafCounts>,
    /// Where each descriptor stands, and what it is.
    words: Vec<(u64, u64)>,
}

fn collect_words(machine: &Machine, tree: &Tree) -> Vec<(u64, u64)> {
    let mut words = vec![];
    let mut tables = vec![(tree.root(), tree.format().start_level())];
    while let Some((table, level)) = tables.pop() {
        for i in 0..512 {
            let at = table.offset(i * 8);
            let word = machine.peek(at);
            // The root of this format has 64 entries; what lies behind them is not the tree's.
            if word & 1 == 0 || level == tree.format().start_level() && i >= 64 {
                continue;
            }
            words.push((at.0, word));
            if level < 3 && word & 2 != 0 {
                tables.push((Pa(word & 0xffff_ffff_f000), level + 1));
            }
        }
    }
    words
}

impl Guest<'_> {
    pub(super) fn snapshot(&self) -> Snapshot {
        let space = self.host.space();
        let trees: Vec<&Tree> =
            space.dma_views().map(|v| &v.view.tree).chain([&space.cpu_view().tree]).collect();
        Snapshot {
            state: self.log.state(),
            free_frames: self.machine().free_frames(),
            tables: trees.iter().map(|t| t.tables()).collect(),
            leaves: trees.iter().map(|t| t.leaves()).collect(),
            words: trees.iter().flat_map(|t| collect_words(self.machine(), t)).collect(),
        }
    }

    /// Nothing is as it was not before, but for what hardware or a fault has made dirty.
    pub(super) fn check_unchanged(&self, what: &str, before: &Snapshot) -> Outcome {
        let mut after = self.snapshot();
        let same_places = after.words.len() == before.words.len();
        for (now, then) in after.words.iter_mut().zip(&before.words) {
            if *now == (then.0, then.1 | WRITE) {
                *now = *then;
            }
        }
        if same_places && after == *before {
            return Ok(());
        }
        let different = after.words.iter().zip(&before.words).find(|(now, then)| now != then);
        Err(format!(
            "half done: {what} was refused, and changed frames {} to {}, tables {:?} to {:?}, a word {different:x?}",
            before.free_frames, after.free_frames, before.tables, after.tables
        ))
    }
}
