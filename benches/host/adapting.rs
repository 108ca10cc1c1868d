//! A VM with the view of its vCPUs alone, and a log of it: adaptive, or of one size of leaves.

use std::time::Duration;

use benches::clock::time;
use benches::machine::{Machine, NoTlb};
use strandline::addr::{Ipa, IpaRange, Pa, PageSize, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::{DirtyLog, Granule, LogError, Progress, Request, STEP_PAGES, Statistics};
use strandline::frames::Frames;
use strandline::hw::{Memory, Word};
use strandline::stage2::descriptor::{Entry, S2AP_WRITE};
use strandline::stage2::{Format, LeafCounts};
use strandline_abi::{CpuTier, Flags};

use crate::tables::{frames, pa_for};

/// Where the VM's memory begins, in guest addresses.
const BASE: u64 = 1 << 40;
/// Pages of 2 MiB.
pub const REGION_PAGES: u64 = 512;
/// What a round asks for: the vCPUs' writes, which leave the log.
const ROUND: Flags = Flags::CPU.with(Flags::CLEAR);

/// A VM that can be logged. There is no walker: what the vCPUs write is set in the leaves by hand.
pub struct Vm {
    pub machine: Machine,
    space: AddressSpace<'static, NoTlb>,
    log: DirtyLog,
    range: IpaRange,
    /// What was reported last.
    words: Vec<u64>,
}

impl Vm {
    /// A VM of `bytes`, mapped in `blocks` of 1 GiB or 2 MiB.
    pub fn new(bytes: u64, blocks: PageSize) -> Self {
        let machine = Machine::new(frames(bytes) << 12);
        let range = IpaRange::new(Ipa(BASE), bytes).expect("aligned");
        let format = Format::new(42).expect("a legal size");
        let mut space = AddressSpace::new(&machine, format, Vmid(1)).expect("memory").with_direct_swap();
        let region = Region { range, pa: pa_for(blocks), reach: Reach::Ram };
        space.map(&machine, region).expect("free addresses");
        let words = vec![0; range.pages().div_ceil(64) as usize];
        Self { machine, space, log: DirtyLog::new(CpuTier::Hardware), range, words }
    }

    /// The same, with a log by `granule` that is on.
    pub fn logged(bytes: u64, blocks: PageSize, granule: impl Into<Granule>) -> Self {
        let mut vm = Self::new(bytes, blocks);
        let _ = vm.start(granule);
        vm
    }

    pub const fn leaves(&self) -> LeafCounts {
        self.space.cpu_view().tree.leaves()
    }

    pub const fn statistics(&self) -> Statistics {
        self.log.statistics()
    }

    /// Starts the log.
    pub fn start(&mut self, granule: impl Into<Granule>) -> Duration {
        let request = Request { granule: granule.into(), ..Request::from(self.range) };
        time(|| {
            let mut step = 0;
            while let Progress::More(next) =
                self.log.start(&self.machine, &mut self.space, request, step).expect("nothing fails")
            {
                step = next;
            }
        })
    }

    /// Stops it.
    pub fn stop(&mut self) -> Duration {
        time(|| {
            let mut step = 0;
            while let Progress::More(next) =
                self.log.stop(&self.machine, &mut self.space, step).expect("nothing fails")
            {
                step = next;
            }
        })
    }

    /// Where the descriptor of the leaf is that translates `page`.
    pub fn leaf(&self, page: u64) -> Pa {
        let at = BASE + (page << 12);
        let mut table = self.space.cpu_view().tree.root();
        let mut index = at >> 30;
        for level in 1..=3 {
            let pa = table.offset(index * 8);
            match Entry::at(level, Word::load(&self.machine.words(pa, 1)[0])) {
                Entry::Table(next) => table = next,
                _ => return pa,
            }
            index = at >> (12 + 9 * (2 - level)) & 0x1ff;
        }
        unreachable!("there are no tables below level 3")
    }

    /// A vCPU writes what the leaf at `leaf` translates, as hardware records it.
    pub fn write_leaf(&self, leaf: Pa) {
        Word::fetch_or(&self.machine.words(leaf, 1)[0], S2AP_WRITE);
    }

    /// A vCPU writes `page`.
    pub fn write(&self, page: u64) {
        self.write_leaf(self.leaf(page));
    }

    /// A clearing sync of all of it; how long it took, and how many pages were reported.
    pub fn sync(&mut self) -> (Duration, u64) {
        let (mut done, mut reported) = (0, 0);
        let taken = time(|| {
            while done < self.range.pages() {
                let part = self.log.step_for(self.range, done, ROUND).expect("in turn");
                let words = &mut self.words[(done / 64) as usize..];
                let deliver = |index: u64, bits| words[index as usize] = bits;
                let synced = self.log.sync_adapting(&self.machine, &mut self.space, part, ROUND, deliver);
                reported += synced.expect("nothing fails").reported;
                done += part.pages();
            }
        });
        (taken, reported)
    }

    /// Has the first page of each step in the log, so that the word which a harvest delivers is in a cache.
    pub fn touch_steps(&mut self) {
        for page in (0..self.range.pages()).step_by(STEP_PAGES as usize) {
            let at = Ipa(BASE + (page << 12));
            self.space.mark_written(&self.machine, IpaRange::new(at, 4096).expect("a page"));
        }
    }

    /// What a clearing sync does before it delivers: its first word is refused in each step, and all that was found stays in
    /// EL2's bitmap.
    pub fn harvest(&mut self) -> Duration {
        time(|| {
            let mut done = 0;
            while done < self.range.pages() {
                done += self.harvest_step(done);
            }
        })
    }

    /// The longest step of a harvest.
    pub fn longest_step(&mut self) -> Duration {
        let (mut done, mut longest) = (0, Duration::ZERO);
        while done < self.range.pages() {
            let mut pages = 0;
            longest = longest.max(time(|| pages = self.harvest_step(done)));
            done += pages;
        }
        longest
    }

    fn harvest_step(&mut self, done: u64) -> u64 {
        let part = self.log.step_for(self.range, done, ROUND).expect("in turn");
        let refuse = |_, _| Err::<(), _>(());
        let result = self.log.sync_adapting(&self.machine, &mut self.space, part, ROUND, refuse);
        assert_eq!(result, Err(LogError::NotDelivered(0)), "the first word was refused");
        part.pages()
    }

    /// Frames that are free.
    pub fn free_frames(&self) -> usize {
        self.machine.free_frames()
    }
}
