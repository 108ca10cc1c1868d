//! What the policy of an adaptive log comes to: how much it reports beside what was written, round by round, how often it
//! changes sizes, and what stays in blocks. Nothing here is timed: the figures are the same on every machine.

use std::collections::BTreeSet;

use benches::figure::{Figure, Part};
use strandline::addr::PageSize;
use strandline::dirty_log::{Granule, Policy, Statistics};
use strandline::frames::Frames;

use crate::adapting::{REGION_PAGES, Vm};

/// Guest memory of the VM that is simulated.
pub const BYTES: u64 = 4 << 30;
const PAGES: u64 = BYTES >> 12;
/// Pages written in a round, some of them perhaps twice.
const WRITES: u64 = 1024;
/// Rounds, of which the second half counts as how things are in the long run.
const ROUNDS: u64 = 64;
/// Pages in which those of a hot spot or a working set lie, next to each other.
const HOT: u64 = 32 * REGION_PAGES;
/// Rounds (in a copy: times as many writes) after which it lies elsewhere.
const MOVES: u64 = 16;
/// Pages copied while one is written.
const PAGES_A_WRITE: u64 = 64;
/// So few pages are copied while nothing runs: the end of a copy.
const FEW: u64 = 64;
/// A copy that has not come to its end by then never does.
const MOST_ROUNDS: u64 = 30;

/// Where is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// One page after the other.
    Sequential,
    /// Anywhere.
    Random,
    /// Nine of ten writes go to a hot spot, the others anywhere.
    HotSpot,
    /// All writes go to a part of the memory, which moves.
    WorkingSet,
}

const PATTERNS: [(Pattern, &str); 4] = [
    (Pattern::Sequential, "sequential"),
    (Pattern::Random, "random"),
    (Pattern::HotSpot, "hot spot"),
    (Pattern::WorkingSet, "working set"),
];

/// Writes of one kind, in the same order each time.
struct Writes {
    pattern: Pattern,
    random: u64,
    count: u64,
}

impl Writes {
    const fn new(pattern: Pattern) -> Self {
        Self { pattern, random: 0x9e37_79b9_7f4a_7c15, count: 0 }
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn page(&mut self) -> u64 {
        let count = self.count;
        self.count += 1;
        // Nobody's memory begins at a multiple of 2 MiB of what he writes.
        let set = (count / (WRITES * MOVES) * 7 + 3) * HOT / 2 % (PAGES - HOT);
        let hot = match self.pattern {
            Pattern::Sequential => return (count + REGION_PAGES / 3) % PAGES,
            Pattern::Random => false,
            Pattern::HotSpot => self.below(10) < 9,
            Pattern::WorkingSet => true,
        };
        if hot { set + self.below(HOT) } else { self.below(PAGES) }
    }

    /// So many writes of `vm`; the pages that were written.
    fn write(&mut self, vm: &Vm, count: u64) -> u64 {
        let pages: BTreeSet<u64> = (0..count).map(|_| self.page()).collect();
        pages.iter().for_each(|page| vm.write(*page));
        pages.len() as u64
    }
}

/// The ways to log that stand beside each other.
fn modes() -> Vec<(String, Granule)> {
    let adaptive = |passes| {
        let name = match passes {
            0 => "adaptive, never merged".to_string(),
            1 => "adaptive, 1 pass".to_string(),
            _ => format!("adaptive, {passes} passes"),
        };
        (name, Granule::Adaptive(Policy { cold_passes: passes, ..Policy::default() }))
    };
    let fixed = |size: PageSize, name: &str| (name.to_string(), Granule::Fixed(size));
    let adaptive = [1, 2, 4, 7, 0].map(adaptive);
    [fixed(PageSize::Size2M, "2 MiB")]
        .into_iter()
        .chain(adaptive)
        .chain([fixed(PageSize::Size4K, "4 KiB")])
        .collect()
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    written: u64,
    reported: u64,
    /// Splits and merges.
    changes: u64,
    /// Bytes that blocks map after it.
    in_blocks: u64,
    /// Descriptors that the next harvest reads.
    descriptors: u64,
}

const fn changes(statistics: Statistics) -> u64 {
    statistics.splits_by_syncs + statistics.merges_by_syncs
}

fn round(vm: &mut Vm, writes: &mut Writes, count: u64) -> Round {
    let before = changes(vm.statistics());
    let written = writes.write(vm, count);
    let (_, reported) = vm.sync();
    let leaves = vm.leaves();
    Round {
        written,
        reported,
        changes: changes(vm.statistics()) - before,
        in_blocks: (leaves.blocks_1g << 30) + (leaves.blocks_2m << 21),
        descriptors: leaves.blocks_1g + leaves.blocks_2m + leaves.pages_4k * 513 / 512,
    }
}

/// All of it.
pub fn measure() -> Part {
    let mut part = Part::default();
    for (pattern, name) in PATTERNS {
        for (mode, granule) in modes() {
            rounds(&mut part, (pattern, name), &mode, granule);
        }
    }
    for (pattern, name) in PATTERNS {
        for (mode, granule) in modes() {
            copy(&mut part, (pattern, name), &mode, granule);
        }
    }
    few_splits(&mut part);
    few_frames(&mut part);
    part.notes.push(format!(
        "{} GiB of memory in blocks of 1 GiB; {WRITES} writes a round, {ROUNDS} rounds; a hot spot or working set of {} MiB lies elsewhere every {MOVES} rounds.",
        BYTES >> 30,
        HOT >> 8
    ));
    part
}

fn rounds(part: &mut Part, (pattern, name): (Pattern, &str), mode: &str, granule: Granule) {
    let mut vm = Vm::logged(BYTES, PageSize::Size1G, granule);
    let mut writes = Writes::new(pattern);
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&mut vm, &mut writes, WRITES)).collect();
    for (i, round) in (1_u64..).zip(&rounds) {
        let point = |what: &str, value: f64, unit: &str| {
            let series = format!("{what}, {name}: {mode}");
            Figure::new(format!("{series}, round {i}"), value, unit).series(&series, i as f64)
        };
        let factor = round.reported as f64 / round.written as f64;
        part.points.push(point("reported by round", factor, "reported / written"));
        part.points.push(point("in blocks", round.in_blocks as f64 / BYTES as f64 * 100.0, "%"));
    }
    let late = &rounds[rounds.len() / 2..];
    let sum = |of: fn(&Round) -> u64| late.iter().map(of).sum::<u64>() as f64;
    let each = |of: fn(&Round) -> u64| sum(of) / late.len() as f64;
    let what = format!(
        "{name}, {mode}: {:.1} % in blocks, {:.1} splits and merges a round, {:.0} descriptors a harvest; false-dirty factor",
        each(|round| round.in_blocks) / BYTES as f64 * 100.0,
        each(|round| round.changes),
        each(|round| round.descriptors)
    );
    let factor = sum(|round| round.reported) / sum(|round| round.written);
    part.figures.push(Figure::new(what, factor, "reported / written"));
}

/// How a copy of all memory went.
struct Copied {
    rounds: u64,
    ended: bool,
    pages: u64,
    changes: u64,
}

/// Copies all memory as a migration does, while one page is written for each so many copied.
fn copied(vm: &mut Vm, pattern: Pattern) -> Copied {
    let mut writes = Writes::new(pattern);
    let (mut left, mut all) = (PAGES, Copied { rounds: 0, ended: false, pages: 0, changes: 0 });
    loop {
        all.rounds += 1;
        all.pages += left;
        all.ended = left <= FEW;
        if all.ended || all.rounds == MOST_ROUNDS {
            all.changes = changes(vm.statistics());
            return all;
        }
        left = round(vm, &mut writes, left.div_ceil(PAGES_A_WRITE)).reported;
    }
}

fn told(what: &str, copied: &Copied) -> Figure {
    let how = if copied.ended { "ended in" } else { "not ended after" };
    let Copied { rounds, changes, .. } = copied;
    let what = format!("copy of all memory, {what}: {how} {rounds} rounds, {changes} splits and merges");
    Figure::new(what, copied.pages as f64 / PAGES as f64, "times the memory")
}

fn copy(part: &mut Part, (pattern, name): (Pattern, &str), mode: &str, granule: Granule) {
    let mut vm = Vm::logged(BYTES, PageSize::Size1G, granule);
    part.figures.push(told(&format!("{name}, {mode}"), &copied(&mut vm, pattern)));
}

/// What it costs to split fewer blocks in a step than it has regions.
fn few_splits(part: &mut Part) {
    for splits in [4, 16, 64] {
        let granule = Granule::Adaptive(Policy { splits, ..Policy::default() });
        let mut vm = Vm::logged(BYTES, PageSize::Size1G, granule);
        let copied = copied(&mut vm, Pattern::Random);
        part.figures.push(told(&format!("random, {splits} splits a step"), &copied));
    }
}

/// What a reserve is worth where no other frame is free.
fn few_frames(part: &mut Part) {
    for reserve in [0, 16, 64, 256] {
        let granule = Granule::Adaptive(Policy { reserve, ..Policy::default() });
        let mut vm = Vm::logged(BYTES, PageSize::Size1G, granule);
        let hoard: Vec<_> = core::iter::from_fn(|| vm.machine.alloc(0)).collect();
        let mut writes = Writes::new(Pattern::WorkingSet);
        let rounds: Vec<Round> = (0..MOVES).map(|_| round(&mut vm, &mut writes, WRITES)).collect();
        hoard.into_iter().for_each(|frame| vm.machine.free(frame));
        let late = &rounds[rounds.len() / 2..];
        let sum = |of: fn(&Round) -> u64| late.iter().map(of).sum::<u64>() as f64;
        let refused = vm.statistics().splits_refused;
        let what = format!(
            "working set, no frame free but {reserve} set aside: {refused} splits refused; false-dirty factor"
        );
        let factor = sum(|round| round.reported) / sum(|round| round.written);
        part.figures.push(Figure::new(what, factor, "reported / written"));
    }
}
