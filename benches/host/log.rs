//! A whole log of one VM without devices: start, sync, clear by mask, stop.

use std::time::Duration;

use benches::clock::time;
use benches::contest::Contest;
use benches::figure::size_name;
use benches::machine::{Machine, NoTlb};
use strandline::addr::{Ipa, IpaRange, Pa, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::{DirtyLog, Progress, Request, STEP_PAGES};
use strandline::frames::Frames;
use strandline::stage2::Format;
use strandline_abi::{CpuTier, Flags};

use crate::Bench;
use crate::tables::frames;

const BASE: u64 = 1 << 40;

/// A VM that can be logged.
struct Logged {
    machine: Machine,
    space: AddressSpace<'static, NoTlb>,
    log: DirtyLog,
    range: IpaRange,
    words: Vec<u64>,
}

impl Logged {
    fn new(bytes: u64) -> Self {
        let machine = Machine::new(frames(bytes) << 12);
        let range = IpaRange::new(Ipa(BASE), bytes).expect("aligned");
        let format = Format::new(42).expect("a legal size");
        let mut space = AddressSpace::new(&machine, format, Vmid(1)).expect("memory").with_direct_swap();
        space.map(&machine, Region { range, pa: Pa(BASE), reach: Reach::Ram }).expect("free addresses");
        let words = vec![0; range.pages().div_ceil(64) as usize];
        Self { machine, space, log: DirtyLog::new(CpuTier::Hardware), range, words }
    }

    fn start(&mut self) -> Duration {
        time(|| {
            let mut step = 0;
            let request = Request::from(self.range);
            while let Progress::More(next) =
                self.log.start(&self.machine, &mut self.space, request, step).expect("nothing fails")
            {
                step = next;
            }
        })
    }

    fn stop(&mut self) -> Duration {
        time(|| {
            let mut step = 0;
            while let Progress::More(next) =
                self.log.stop(&self.machine, &mut self.space, step).expect("nothing fails")
            {
                step = next;
            }
        })
    }

    /// Has every hundredth page written by EL2 itself, which a log records as a vCPU's writes.
    fn write_hundredth(&mut self) {
        for page in (0..self.range.pages()).step_by(100) {
            let at = Ipa(BASE + (page << 12));
            self.space.mark_written(&self.machine, IpaRange::new(at, 4096).expect("a page"));
        }
    }

    fn sync(&mut self) -> Duration {
        self.write_hundredth();
        time(|| {
            let mut done = 0;
            while done < self.range.pages() {
                let part = self.log.step_of(self.range, done).expect("in turn");
                let words = &mut self.words[(done / 64) as usize..];
                let flags = Flags::BOTH.with(Flags::CLEAR);
                let deliver = |index: u64, bits| words[index as usize] = bits;
                let _ =
                    self.log.sync(&self.machine, &self.space, part, flags, deliver).expect("nothing fails");
                done += STEP_PAGES;
            }
        })
    }

    /// Clears what every other word's mask names.
    fn clear(&mut self) -> Duration {
        self.write_hundredth();
        time(|| {
            let mut done = 0;
            while done < self.range.pages() {
                let part = self.log.step_of(self.range, done).expect("in turn");
                let words = &mut self.words[(done / 64) as usize..];
                let wanted = |index: u64| if index.is_multiple_of(2) { u64::MAX } else { 0 };
                let deliver = |index: u64, bits| words[index as usize] = bits;
                let cleared = self.log.clear(&self.machine, &self.space, part, Flags::BOTH, wanted, deliver);
                let _ = cleared.expect("nothing fails");
                done += STEP_PAGES;
            }
        })
    }
}

/// All of one size. Times are of a page.
pub fn measure(bench: &mut Bench, bytes: u64) {
    let mut logged = Logged::new(bytes);
    let named = |what: &str| format!("{what} {}", size_name(bytes));
    let pages = bytes >> 12;
    let free = logged.machine.free_frames();
    let start = Contest::new(named("log: start"), pages, |l: &mut Logged| {
        let taken = l.start();
        let _ = l.stop();
        taken
    });
    bench.run(start.series("log: start", bytes as f64), &mut logged, bytes);
    let stop = Contest::new(named("log: stop"), pages, |l: &mut Logged| {
        let _ = l.start();
        l.stop()
    });
    bench.run(stop.series("log: stop", bytes as f64), &mut logged, bytes);
    assert_eq!(free, logged.machine.free_frames(), "a log gives back what it took");
    let _ = logged.start();
    let sync = Contest::new(named("log: sync, 1 % dirty, clear,"), pages, Logged::sync);
    bench.run(sync.series("log: sync", bytes as f64), &mut logged, bytes);
    let clear = Contest::new(named("log: clear by mask of every other word,"), pages, Logged::clear);
    bench.run(clear.series("log: clear by mask", bytes as f64), &mut logged, bytes);
    let _ = logged.stop();
}
