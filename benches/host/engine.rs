//! The stage-2 engine on one view.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use benches::contest::Contest;
use benches::figure::{BEST_HASH, size_name};
use benches::machine::Machine;
use strandline::dirty_log::DigestCost;
use strandline::frames::Frames;
use strandline::hw::Memory;
use strandline::stage2::Harvest;

use crate::Bench;
use crate::peers::{Aarch64Paging, Generic};
use crate::tables::{Percent, Tables};

/// What the goals are about.
const GIB: u64 = 1 << 30;
/// Beyond this, mapping by pages, or making them dirty, again and again takes minutes.
const LARGEST_MAPPED: u64 = 64 << 30;
const STORES: &str = "plain stores of the same tables";
const READ: &str = "plain read of the same descriptors";
const CLEAN: &str = "plain read, and an atomic AND of each dirty descriptor";

/// All of one size.
pub fn measure(bench: &mut Bench, bytes: u64) {
    let mut tables = Tables::new(bytes);
    sizes(bench, &mut tables, bytes);
    let _ = tables.split();
    tables.find_level3();
    harvests(bench, &mut tables, bytes);
}

fn pages(bytes: u64) -> u64 {
    bytes >> 12
}

/// What changes the structure. Times are of a page.
fn sizes(bench: &mut Bench, tables: &mut Tables, bytes: u64) {
    let named = |what: &str| format!("{what} {}", size_name(bytes));
    let split = Contest::new(named("split"), pages(bytes), |t: &mut Tables| {
        let taken = t.split();
        let _ = t.merge();
        taken
    });
    let split = split.limit(STORES, Some(1.5), Tables::plain_stores).series("split", bytes as f64);
    bench.run(split, tables, bytes);

    let merge = Contest::new(named("merge"), pages(bytes), |t: &mut Tables| {
        let _ = t.split();
        t.merge()
    });
    let merge = merge.limit(READ, None, |t: &mut Tables| {
        let _ = t.split();
        t.find_level3();
        let taken = t.plain_read();
        let _ = t.merge();
        taken
    });
    bench.run(merge.series("merge", bytes as f64), tables, bytes);

    if bytes > LARGEST_MAPPED {
        bench.note(format!(
            "map and unmap of {} by pages left out: a run of ten takes minutes",
            size_name(bytes)
        ));
        return;
    }
    let _ = tables.unmap();
    let map = Contest::new(named("map by pages"), pages(bytes), |t: &mut Tables| {
        let taken = t.map(Some(t.range));
        let _ = t.unmap();
        taken
    });
    let map = map.limit(STORES, None, |t: &mut Tables| {
        let _ = t.map(None);
        let taken = t.plain_stores();
        let _ = t.unmap();
        taken
    });
    bench.run(map.series("map", bytes as f64), tables, bytes);

    let unmap = Contest::new(named("unmap of pages"), pages(bytes), |t: &mut Tables| {
        let _ = t.map(Some(t.range));
        t.unmap()
    });
    let unmap = unmap.limit(CLEAN, None, |t: &mut Tables| {
        let _ = t.map(None);
        let _ = t.split();
        t.find_level3();
        t.dirty(Percent(100));
        let taken = t.plain_clean();
        let _ = t.unmap();
        taken
    });
    bench.run(unmap.series("unmap", bytes as f64), tables, bytes);
    let _ = tables.map(None);
}

/// What reads the dirty state of pages.
fn harvests(bench: &mut Bench, tables: &mut Tables, bytes: u64) {
    let cached = bytes <= GIB;
    for (how, cold) in [("warm", false), ("cold", true)] {
        // Tables of a large VM fit into no cache: there is but one way to find them.
        if cold && !cached {
            continue;
        }
        let how = if cached { how } else { "cold" };
        let all = [
            (0, Harvest::Clean),
            (1, Harvest::Keep),
            (1, Harvest::Clean),
            (50, Harvest::Clean),
            (100, Harvest::Keep),
            (100, Harvest::Clean),
        ];
        // Making half of the pages of the largest dirty again and again takes minutes.
        let shown = |(percent, mode): &(u64, Harvest)| {
            bytes <= LARGEST_MAPPED || *mode == Harvest::Clean && *percent <= 1
        };
        for (percent, mode) in all.into_iter().filter(shown) {
            harvest(bench, tables, bytes, Harvested { percent: Percent(percent), mode, how, cold });
        }
    }
    let walk =
        Contest::new(format!("walk to each page of {}", size_name(bytes)), pages(bytes), Tables::query_each);
    bench.run(walk, tables, bytes);
}

#[derive(Clone, Copy)]
struct Harvested {
    percent: Percent,
    mode: Harvest,
    how: &'static str,
    cold: bool,
}

impl Harvested {
    /// Everything as before the first harvest.
    fn prepare(self, tables: &mut Tables) {
        if self.mode == Harvest::Clean && self.percent != Percent(0) {
            tables.dirty(self.percent);
        }
        if self.cold {
            tables.evict();
        } else {
            let _ = tables.plain_read();
        }
    }
}

fn harvest(bench: &mut Bench, tables: &mut Tables, bytes: u64, what: Harvested) {
    let Harvested { percent: Percent(percent), mode, how, .. } = what;
    let verb = if mode == Harvest::Clean { "clear" } else { "keep" };
    let name = format!("harvest {}, {percent} % dirty, {verb}, {how}", size_name(bytes));
    let goal = match (percent, mode) {
        (0, _) => Some(1.25),
        (1, Harvest::Clean) => Some(2.0),
        _ => None,
    };
    tables.dirty(Percent(percent));
    // A small VM is harvested so quickly that the clock would tell more of itself than of the harvest.
    let repeat = if percent == 0 && !what.cold { (GIB / bytes).clamp(1, 64) } else { 1 };
    let contest = Contest::new(name, pages(bytes) * repeat, move |t: &mut Tables| {
        what.prepare(t);
        (0..repeat).map(|_| t.harvest(mode)).sum()
    });
    let contest = contest.limit(READ, goal, move |t: &mut Tables| {
        what.prepare(t);
        (0..repeat).map(|_| t.plain_read()).sum()
    });
    let contest = if percent >= 50 && mode == Harvest::Clean {
        contest.limit(CLEAN, None, move |t: &mut Tables| {
            what.prepare(t);
            t.plain_clean()
        })
    } else {
        contest
    };
    let series = format!("harvest, {percent} % dirty, {verb}");
    let shown = !what.cold || bytes > GIB;
    let contest = if shown { contest.series(&series, bytes as f64) } else { contest };
    bench.run(contest, tables, bytes);
}

/// Digests of a page, beside the same loads alone.
pub fn digests(bench: &mut Bench) {
    const ROUNDS: u64 = 500;
    let loads = Rc::new(Cell::new(Duration::ZERO));
    let seen = Rc::clone(&loads);
    let digest = Contest::new("digest of a page", 1, move |machine: &mut Machine| {
        let page = machine.alloc(0).expect("a frame");
        machine.fill(page.pa(), 512, |i| i as u64);
        let cost = DigestCost::measure(machine, page.pa(), ROUNDS);
        machine.free(page);
        seen.set(Duration::from_nanos(cost.page_read_ns));
        Duration::from_nanos(cost.page_digest_ns)
    });
    // Both are taken by the same call, one after the other.
    let digest = digest.limit("the same loads alone", Some(1.25), move |_| loads.get()).instead(BEST_HASH);
    bench.run(digest, &mut Machine::new(2 << 20), 1 << 20);
}

/// 1 GiB by pages: made, and walked, as other crates do it.
pub fn peers(bench: &mut Bench) {
    let make = Contest::new("make 1 GiB of pages", pages(GIB), |t: &mut Tables| {
        let taken = t.map(Some(t.range));
        let _ = t.unmap();
        taken
    });
    let make = make.peer("aarch64-paging", Some(10.0), |_| Aarch64Paging::map(GIB).1).peer(
        "page-table-generic",
        Some(10.0),
        |_| Generic::map(GIB).1,
    );
    let mut tables = Tables::new(GIB);
    let _ = tables.unmap();
    bench.run(make, &mut tables, GIB);

    let _ = tables.map(None);
    let _ = tables.split();
    tables.find_level3();
    tables.dirty(Percent(0));
    let walk = Contest::new("walk all leaves of 1 GiB, all clean", pages(GIB), |t: &mut Tables| {
        // Each once before it counts, so that its own tables are in the caches, not its neighbour's.
        let _ = t.harvest(Harvest::Keep);
        t.harvest(Harvest::Keep)
    });
    let (linear, _) = Aarch64Paging::map(GIB);
    let (generic, _) = Generic::map(GIB);
    let walk = walk
        .peer("aarch64-paging", Some(25.0), move |_| {
            let _ = linear.walk();
            linear.walk()
        })
        .peer("page-table-generic", Some(25.0), move |_| {
            let _ = generic.walk();
            generic.walk()
        });
    bench.run(walk, &mut tables, GIB);
}
