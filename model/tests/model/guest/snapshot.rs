//! The state of a VM, to hold a refused operation against.

use strandline::addr::Pa;
use strandline::frames::Frames;
use strandline::stage2::{LeafCounts, Tree};
use strandline_abi::LogState;
use strandline_model::Machine;

use super::{Guest, Outcome};

const WRITE: u64 = 1 << 7;
const AF: u64 = 1 << 10;
const NT: u64 = 1 << 16;

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

/// The tables of `tree`, and their levels.
pub(super) fn tables_of(machine: &Machine, tree: &Tree) -> Vec<(Pa, u8)> {
    let mut tables = vec![(tree.root(), tree.format().start_level())];
    let mut next = 0;
    while let Some(&(table, level)) = tables.get(next) {
        let entries = words_of(machine, tree, table, level);
        let below = entries.into_iter().filter(|(_, word)| level < 3 && word & 2 != 0);
        tables.extend(below.map(|(_, word)| (Pa(word & 0xffff_ffff_f000), level + 1)));
        next += 1;
    }
    tables
}

/// Where the valid entries of a table of `tree` stand, and what they are.
fn words_of(machine: &Machine, tree: &Tree, table: Pa, level: u8) -> Vec<(u64, u64)> {
    // The root of this format has 64 entries; what lies behind them is not the tree's.
    let entries = if level == tree.format().start_level() { 64 } else { 512 };
    let words = (0..entries).map(|i| table.offset(i * 8)).map(|at| (at.0, machine.peek(at)));
    words.filter(|(_, word)| word & 1 != 0).collect()
}

/// The blocks of `tree` that have nT set.
pub fn blocks_with_nt(machine: &Machine, tree: &Tree) -> usize {
    let tables = tables_of(machine, tree).into_iter().filter(|(_, level)| *level < 3);
    let words = tables.flat_map(|(table, level)| words_of(machine, tree, table, level));
    words.filter(|(_, word)| word & 2 == 0 && word & NT != 0).count()
}

fn collect_words(machine: &Machine, tree: &Tree) -> Vec<(u64, u64)> {
    let tables = tables_of(machine, tree);
    tables.into_iter().flat_map(|(table, level)| words_of(machine, tree, table, level)).collect()
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

    /// Nothing is as it was not before, but for what hardware or a fault has made dirty, and walks have set.
    pub(super) fn check_unchanged(&self, what: &str, before: &Snapshot) -> Outcome {
        let mut after = self.snapshot();
        let same_places = after.words.len() == before.words.len();
        for (now, then) in after.words.iter_mut().zip(&before.words) {
            if *now == (then.0, then.1 | WRITE) || *now == (then.0, then.1 | AF) {
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
