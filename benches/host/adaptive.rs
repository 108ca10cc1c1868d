//! The adaptive granule beside a log by pages: what a start takes, and what a harvest costs by the share that is touched.

use std::time::Duration;

use benches::contest::Contest;
use benches::figure::{Figure, Goal, size_name};
use strandline::addr::{Pa, PageSize};
use strandline::dirty_log::{Granule, Policy};

use crate::Bench;
use crate::adapting::{REGION_PAGES, Vm};
use crate::tables::{SomethingElse, Tables};

const PAGED: &str = "the same by pages";
/// Pages that are dirty in a region that is touched.
const DIRTY_IN_REGION: u64 = 8;
/// Tenths of a percent of the regions that are touched.
const SHARES: [u64; 4] = [1, 10, 100, 1000];
/// The share that the goal is about.
const GOAL_SHARE: u64 = 10;
const GIB: u64 = 1 << 30;

fn adaptive() -> Granule {
    Granule::Adaptive(Policy::default())
}

/// All of one size. Times are of a GiB.
pub fn measure(bench: &mut Bench, bytes: u64) {
    for (blocks, goal) in [(PageSize::Size1G, 100.0), (PageSize::Size2M, 20.0)] {
        start_of_view(bench, bytes, blocks, goal);
        start_of_log(bench, bytes, blocks);
    }
    for share in SHARES {
        harvests(bench, bytes, share);
    }
    first_touch(bench, bytes);
}

fn name(blocks: PageSize) -> String {
    format!("from {} blocks", size_name(blocks.bytes()))
}

/// `adaptive` frames beside those `by_pages`.
fn frames(what: String, adaptive: usize, by_pages: usize, goal: Option<f64>) -> Figure {
    Figure {
        peer: Some(by_pages as f64),
        beside: Some(PAGED.into()),
        ratio: (adaptive > 0).then(|| by_pages as f64 / adaptive as f64),
        goal: goal.filter(|_| adaptive > 0).map(Goal::AtLeast),
        ..Figure::new(what, adaptive as f64, "frames")
    }
}

/// The structure of one view alone: neither bitmaps nor the account of a log.
fn start_of_view(bench: &mut Bench, bytes: u64, blocks: PageSize, goal: f64) {
    let mut tables = Tables::in_blocks(bytes, blocks);
    let of = format!("{}, {}", size_name(bytes), name(blocks));
    let run = |size| {
        move |tables: &mut Tables| {
            let taken = tables.split_to(size);
            let _ = tables.merge();
            taken
        }
    };
    let what = format!("adaptive start, one view, {of}, a GiB");
    let series = format!("adaptive start: one view, {}", name(blocks));
    let contest = Contest::new(what, bytes / GIB, run(PageSize::Size2M));
    let contest = contest.peer(PAGED, Some(goal), run(PageSize::Size4K)).series(&series, bytes as f64);
    bench.run(contest, &mut tables, bytes);
    let needs = [PageSize::Size2M, PageSize::Size4K].map(|size| tables.needs(size).frames);
    let what = format!("table frames of an adaptive start, one view, {of}");
    bench.figure(frames(what, needs[0], needs[1], Some(100.0)));
}

/// The whole log's start: bitmaps are emptied, lists and a reserve are set aside.
fn start_of_log(bench: &mut Bench, bytes: u64, blocks: PageSize) {
    let mut vm = Vm::new(bytes, blocks);
    let of = format!("{}, {}", size_name(bytes), name(blocks));
    let run = |granule: Granule| {
        move |vm: &mut Vm| {
            let taken = vm.start(granule);
            let _ = vm.stop();
            taken
        }
    };
    let what = format!("adaptive start, whole log, {of}, a GiB");
    let series = format!("adaptive start: whole log, {}", name(blocks));
    let contest = Contest::new(what, bytes / GIB, run(adaptive()));
    let contest = contest.peer(PAGED, None, run(PageSize::Size4K.into())).series(&series, bytes as f64);
    bench.run(contest, &mut vm, bytes);
    let mut taken = |granule| {
        let free = vm.free_frames();
        let _ = vm.start(granule);
        let taken = free - vm.free_frames();
        let _ = vm.stop();
        taken
    };
    let (adaptive, by_pages) = (taken(adaptive()), taken(PageSize::Size4K.into()));
    let bitmaps = (bytes >> 27) as usize * 2;
    let what = |what: &str| format!("{what} of an adaptive start, one view, {of}");
    bench.figure(frames(what("frames but the bitmaps'"), adaptive - bitmaps, by_pages - bitmaps, None));
    bench.figure(frames(what("all frames"), adaptive, by_pages, None));
}

/// Two logs of VMs of one size, of which the same pages are written between harvests.
struct Pair {
    adaptive: Logged,
    by_pages: Logged,
    something_else: SomethingElse,
}

struct Logged {
    vm: Vm,
    /// The leaves of the pages that are written, once they are pages.
    leaves: Vec<Pa>,
}

impl Logged {
    /// A log in which the regions of `dirty` are pages, and clean.
    fn new(mut vm: Vm, dirty: &[u64]) -> Self {
        dirty.iter().for_each(|page| vm.write(*page));
        let _ = vm.sync();
        let leaves = dirty.iter().map(|page| vm.leaf(*page)).collect();
        Self { vm, leaves }
    }

    fn write(&self) {
        self.leaves.iter().for_each(|leaf| self.vm.write_leaf(*leaf));
    }
}

impl Pair {
    fn new(bytes: u64, dirty: &[u64]) -> Self {
        let vm = |granule: Granule| Vm::logged(bytes, PageSize::Size1G, granule);
        Self {
            adaptive: Logged::new(vm(adaptive()), dirty),
            by_pages: Logged::new(vm(PageSize::Size4K.into()), dirty),
            something_else: SomethingElse::default(),
        }
    }

    /// Has `of` written, and then does `work`: with everything else in the caches, or with what the same has just read.
    fn run(
        &mut self,
        caches: Caches,
        of: impl Fn(&mut Self) -> &mut Logged,
        work: impl FnOnce(&mut Vm) -> Duration,
    ) -> Duration {
        if caches == Caches::Warm {
            let _ = of(self).vm.harvest();
        }
        of(self).write();
        if caches == Caches::Cold {
            self.something_else.read();
        }
        let vm = &mut of(self).vm;
        vm.touch_steps();
        work(vm)
    }
}

/// What is in the caches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caches {
    /// Something else: pages have been copied since the last harvest.
    Cold,
    /// What the last harvest has read, as far as they have room for it.
    Warm,
}

impl Caches {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Pages at random places of so many regions, which lie at equal distances.
fn dirty_pages(bytes: u64, share: u64) -> Vec<u64> {
    let regions = bytes >> 21;
    let touched = (regions * share).div_ceil(1000);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let region = |i: u64| i * regions / touched * REGION_PAGES;
    let pages = (0..touched).flat_map(|i| [region(i); DIRTY_IN_REGION as usize]);
    let mut pages: Vec<u64> = pages.map(|first| first + next() % REGION_PAGES).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// A clearing pass where the regions that are touched have been for some time: into EL2's bitmap, and with the delivery.
fn harvests(bench: &mut Bench, bytes: u64, share: u64) {
    let mut pair = Pair::new(bytes, &dirty_pages(bytes, share));
    let (percent, gib) = (share as f64 / 10.0, bytes / GIB);
    let of = format!("{}, {percent} % of 2 MiB regions touched", size_name(bytes));
    for caches in [Caches::Cold, Caches::Warm] {
        let how = caches.name();
        let harvest =
            Contest::new(format!("adaptive harvest, {of}, {how}, a GiB"), gib, |pair: &mut Pair| {
                pair.run(caches, |pair| &mut pair.adaptive, Vm::harvest)
            });
        let harvest = harvest.peer(PAGED, (share == GOAL_SHARE).then_some(20.0), |pair| {
            pair.run(caches, |pair| &mut pair.by_pages, Vm::harvest)
        });
        let series = format!("adaptive harvest: {}, {how}", size_name(bytes));
        bench.run(harvest.series(&series, percent), &mut pair, bytes);
    }
    let cold = Caches::Cold;
    let sync = Contest::new(
        format!("adaptive sync with its delivery, {of}, cold, a GiB"),
        gib,
        |pair: &mut Pair| pair.run(cold, |pair| &mut pair.adaptive, |vm| vm.sync().0),
    );
    let sync = sync.peer(PAGED, None, |pair| pair.run(cold, |pair| &mut pair.by_pages, |vm| vm.sync().0));
    let series = format!("adaptive sync with its delivery: {}, cold", size_name(bytes));
    bench.run(sync.series(&series, percent), &mut pair, bytes);
}

/// A guest that writes a page of every region for the first time: each is split in the pass that finds it.
fn first_touch(bench: &mut Bench, bytes: u64) {
    let dirty: Vec<u64> = (0..bytes >> 21).map(|region| region * REGION_PAGES).collect();
    let mut pair = Pair::new(bytes, &dirty);
    let anew = |vm: &mut Vm, dirty: &[u64]| {
        // The splits find the frames that the last stop has given back.
        let _ = vm.stop();
        let _ = vm.start(adaptive());
        dirty.iter().for_each(|page| vm.write(*page));
    };
    let what = format!("first harvest after a write to every region, {}, a GiB", size_name(bytes));
    let contest = Contest::new(what, bytes / GIB, |pair: &mut Pair| {
        anew(&mut pair.adaptive.vm, &dirty);
        pair.something_else.read();
        pair.adaptive.vm.harvest()
    });
    let contest =
        contest.peer(PAGED, None, |pair| pair.run(Caches::Cold, |pair| &mut pair.by_pages, Vm::harvest));
    bench.run(contest, &mut pair, bytes);

    let what = format!("longest step of it, {}", size_name(bytes));
    let contest = Contest::new(what, 1, |pair: &mut Pair| {
        anew(&mut pair.adaptive.vm, &dirty);
        pair.adaptive.vm.longest_step()
    });
    let contest = contest.peer(PAGED, None, |pair| {
        pair.by_pages.write();
        pair.by_pages.vm.longest_step()
    });
    bench.run(contest, &mut pair, bytes);
}
