//! Time on the host: the very code that runs at EL2, beside its limits and its peers.
//!
//! Criterion asks for runs and reports the library's own time; whoever stands beside it takes turns with it
//! ([`benches::contest`]). What came of it is in `target/bench/parts/host.json`.

mod adapting;
mod adaptive;
mod engine;
mod frames;
mod log;
mod peers;
mod policy;
mod tables;

use std::ops::RangeInclusive;
use std::time::Duration;

use benches::contest::Contest;
use benches::figure::{Figure, Part, size_name};
use benches::machine::spare_memory;
use criterion::{BenchmarkId, Criterion, SamplingMode};

/// Guest memory, of which the tables of one view at 4 KiB take a 512th.
const SIZES: [u64; 4] = [4 << 20, 1 << 30, 64 << 30, 1 << 40];
/// Of these, those of which an adaptive log is measured beside one by pages.
const ADAPTIVE: RangeInclusive<u64> = 1 << 30..=64 << 30;
/// Everything after this size is slow: fewer and longer samples.
const LARGE: u64 = 64 << 30;

/// What is measured with, and what came of it.
pub struct Bench {
    criterion: Criterion,
    part: Part,
}

impl Bench {
    /// Measures `contest`, which works on `bytes` of guest memory, and keeps its figures.
    pub fn run<F>(&mut self, mut contest: Contest<'_, F>, fixture: &mut F, bytes: u64) {
        let mut group = self.criterion.benchmark_group("strandline");
        let large = bytes >= LARGE;
        group.sample_size(if large { 10 } else { 20 });
        group.sampling_mode(if large { SamplingMode::Flat } else { SamplingMode::Auto });
        group.warm_up_time(Duration::from_millis(100));
        group.measurement_time(Duration::from_millis(if large { 200 } else { 1000 }));
        group.bench_function(BenchmarkId::from_parameter(contest.name()), |b| {
            b.iter_custom(|turns| (0..turns).map(|_| contest.turn(fixture)).sum());
        });
        group.finish();
        self.part.figures.extend(contest.figures());
    }

    /// Keeps a figure that is no time.
    pub fn figure(&mut self, figure: Figure) {
        self.part.figures.push(figure);
    }

    /// Says what is left out, here and in the report.
    pub fn note(&mut self, text: String) {
        println!("{text}");
        self.part.notes.push(text);
    }
}

fn main() {
    let criterion = Criterion::default().without_plots().configure_from_args();
    let mut bench = Bench { criterion, part: Part::default() };
    frames::measure(&mut bench);
    engine::digests(&mut bench);
    engine::peers(&mut bench);
    // For a quick look: no more than so many bytes of guest memory.
    let most =
        std::env::var("STRANDLINE_BENCH_MOST").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    for bytes in SIZES.into_iter().filter(|bytes| *bytes <= most) {
        let (needed, spare) = ((tables::frames(bytes) as u64) << 12, spare_memory());
        // Half of it at the most: the machine is not the benchmark's alone.
        if needed > spare / 2 {
            bench.note(format!(
                "{} of guest memory left out: its tables take {}, and the host has {} to spare",
                size_name(bytes),
                size_name(needed),
                size_name(spare)
            ));
            continue;
        }
        engine::measure(&mut bench, bytes);
        log::measure(&mut bench, bytes);
        if ADAPTIVE.contains(&bytes) {
            adaptive::measure(&mut bench, bytes);
        }
        // What there is by now is kept, should somebody end it.
        bench.part.write("host");
    }
    if policy::BYTES <= most {
        policy::measure().write("policy");
    }
    bench.criterion.final_summary();
}
