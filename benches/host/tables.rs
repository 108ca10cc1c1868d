//! A view of a VM of some size, and what is done with it.

use std::time::Duration;

use benches::clock::time;
use benches::machine::Machine;
use strandline::addr::{Ipa, IpaRange, Pa, PageSize, Vmid};
use strandline::dirty_log::Bitmap;
use strandline::frames::{FrameBlock, FrameReserve, Frames};
use strandline::hw::{Memory, Word};
use strandline::stage2::descriptor::{Entry, S2AP_WRITE, VALID};
use strandline::stage2::{
    Count, CpuWalker, Format, Harvest, LeafState, Mapping, Merge, Retired, Rights, Split, SplitNeeds, Tree,
    View,
};

/// Entries of a table.
const ENTRIES: usize = 512;
/// Where the VM's memory begins: in guest addresses, and (nobody accesses it) in physical ones.
const BASE: u64 = 1 << 40;
/// What is read between two runs so that neither finds its tables in a cache: several times the largest there is.
const EVICTION_BYTES: usize = 256 << 20;

/// Which pages of a fixture are dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u64);

/// Something else, to have every cache hold.
#[derive(Default)]
pub struct SomethingElse(Vec<u64>);

impl SomethingElse {
    /// Reads all of it.
    pub fn read(&mut self) {
        if self.0.is_empty() {
            self.0 = vec![1; EVICTION_BYTES / 8];
        }
        let sum = self.0.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
        std::hint::black_box(sum);
    }
}

/// Where a VM's memory lies, so that its mapping is made of `blocks` at the largest: 1 GiB or 2 MiB.
pub const fn pa_for(blocks: PageSize) -> Pa {
    match blocks {
        PageSize::Size1G => Pa(BASE),
        PageSize::Size2M | PageSize::Size4K => Pa(BASE + (2 << 20)),
    }
}

/// A VM's RAM in one view, mapped by the largest blocks; split and merged again by what is measured.
pub struct Tables {
    pub machine: Machine,
    pub view: View<CpuWalker>,
    pub range: IpaRange,
    bitmap: Bitmap,
    /// The level-3 tables in order of what they translate, while it is split.
    level3: Vec<Pa>,
    /// The dirty pages of a hundredth, at random.
    hundredth: Vec<u32>,
    pa: Pa,
    something_else: SomethingElse,
}

/// Frames for a VM of so many bytes, in one view at 4 KiB: tables, root, bitmap, the list of a stop; and some to spare.
#[must_use]
pub const fn frames(bytes: u64) -> usize {
    (bytes >> 21) as usize * 513 / 512 + (bytes >> 27) as usize * 2 + 2048
}

impl Tables {
    /// A VM of `bytes`, in blocks of 1 GiB.
    pub fn new(bytes: u64) -> Self {
        Self::in_blocks(bytes, PageSize::Size1G)
    }

    /// A VM of `bytes`, in `blocks`.
    pub fn in_blocks(bytes: u64, blocks: PageSize) -> Self {
        let machine = Machine::new(frames(bytes) << 12);
        let range = IpaRange::new(Ipa(BASE), bytes).expect("aligned");
        let tree = Tree::new(&machine, Format::new(42).expect("a legal size")).expect("memory for the root");
        let view = View { tree, walker: CpuWalker { vmid: Vmid(1), direct: true, repeat: false } };
        let pages = range.pages();
        let bitmap = Bitmap::new(&machine, pages).expect("memory for the bitmap");
        for frame in 0.. {
            if !bitmap.empty(&machine, frame) {
                break;
            }
        }
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut hundredth: Vec<u32> = (0..pages.div_ceil(100))
            .map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((random >> 33) % pages) as u32
            })
            .collect();
        hundredth.sort_unstable();
        hundredth.dedup();
        let something_else = SomethingElse::default();
        let (level3, pa) = (vec![], pa_for(blocks));
        let mut tables = Self { machine, view, range, bitmap, level3, hundredth, pa, something_else };
        tables.map(None);
        tables
    }

    /// Maps all of it.
    pub fn map(&mut self, by_pages: Option<IpaRange>) -> Duration {
        let mapping = Mapping { range: self.range, pa: self.pa, rights: Rights::RAM, by_pages };
        let needs = self.view.tree.map_needs(&self.machine, &mapping).expect("free addresses");
        let mut reserve = self.machine.reserve(needs).expect("frames");
        let taken = time(|| self.view.tree.map(&self.machine, &mapping, &mut reserve, false));
        self.machine.unreserve(reserve);
        taken
    }

    /// Unmaps all of it; what is freed afterwards does not count.
    pub fn unmap(&mut self) -> Duration {
        let mut retired = self.retired(1 + (self.range.bytes() >> 30) as usize);
        let mut left = 0_u64;
        let taken = time(|| {
            self.view.tree.unmap(&self.machine, self.range, &mut retired, false, |_, leaf| left |= leaf.word);
        });
        std::hint::black_box(left);
        self.view.free_retired(&self.machine, &mut retired);
        let _quarantined = retired.end(&self.machine);
        taken
    }

    fn retired(&self, roots: usize) -> Retired {
        Retired::new(self.machine.reserve(Retired::frames_for(roots + 1)).expect("frames"))
    }

    /// Counts, and splits all blocks into pages; the counting is not counted.
    pub fn split(&mut self) -> Duration {
        self.split_to(PageSize::Size4K)
    }

    /// [`Tables::split`] into leaves of at most `size`; all leaves are clean after it.
    pub fn split_to(&mut self, size: PageSize) -> Duration {
        let needs = self.needs(size);
        let reserve = self.machine.reserve(needs.frames).expect("frames");
        let mut split = Split::new(self.range, size, LeafState::WritableClean, reserve);
        let taken = time(|| while !split.step(&self.machine, &mut self.view).expect("nothing fails") {});
        split.end(&self.machine);
        taken
    }

    /// What a split into leaves of at most `size` takes.
    pub fn needs(&self, size: PageSize) -> SplitNeeds {
        let mut count = Count::new(self.range, size);
        while !count.step(&self.view.tree, &self.machine) {}
        count.needs()
    }

    /// Merges all of it, and frees the tables, which does count.
    pub fn merge(&mut self) -> Duration {
        let mut retired = self.retired((self.range.bytes() >> 21) as usize);
        let mut merge = Merge::new(self.range);
        let taken = time(|| {
            while !merge.step(&self.machine, &mut self.view, &mut retired, |_| true).expect("nothing fails") {
            }
        });
        let _quarantined = retired.end(&self.machine);
        taken
    }

    /// The same stores as a split's, into as many frames, by a loop that does nothing else. Taking the frames does not count.
    pub fn plain_stores(&mut self) -> Duration {
        let count = self.needs(PageSize::Size4K).frames;
        let mut reserve = self.machine.reserve(count).expect("frames");
        let take =
            |reserve: &mut FrameReserve| self.machine.take(reserve).expect("it was reserved").into_pa();
        let frames: Vec<Pa> = (0..count).map(|_| take(&mut reserve)).collect();
        let taken = time(|| {
            let mut word = BASE | 0x0008_0000_0000_077f;
            for frame in &frames {
                self.machine.fill(*frame, ENTRIES, |i| word.wrapping_add((i as u64) << 12));
                word = word.wrapping_add(1 << 21);
            }
        });
        // Given back in the order in which a merge does, so that the next to take them finds them in the same order.
        for frame in frames.into_iter().rev() {
            self.machine.free(FrameBlock::new(frame, 0).expect("it was a frame"));
        }
        taken
    }

    /// Notes where the level-3 tables are; it is split.
    pub fn find_level3(&mut self) {
        self.level3.clear();
        let root = Pa(self.view.tree.root().0 + (BASE >> 30) * 8);
        let gib = self.range.bytes().div_ceil(1 << 30) as usize;
        for word in self.machine.words(root, gib) {
            let Entry::Table(table) = Entry::at(1, Word::load(word)) else { continue };
            let count = ((self.range.bytes() >> 21) as usize).min(ENTRIES);
            for word in self.machine.words(table, count) {
                if let Entry::Table(table) = Entry::at(2, Word::load(word)) {
                    self.level3.push(table);
                }
            }
        }
        assert_eq!(self.level3.len() as u64, self.range.bytes() >> 21, "it is not split");
    }

    /// Reads every descriptor of a page once, eight at a time: the best a harvest can do.
    pub fn plain_read(&mut self) -> Duration {
        time(|| {
            let mut all = 0;
            for table in &self.level3 {
                for line in self.machine.words(*table, ENTRIES).chunks_exact(8) {
                    all |= line.iter().fold(0, |all, word| all | Word::load(word));
                }
            }
            assert!(std::hint::black_box(all) & VALID != 0);
        })
    }

    /// Reads every descriptor, and cleans each dirty one by one atomic operation: the best that a harvest which cleans can do.
    pub fn plain_clean(&mut self) -> Duration {
        time(|| {
            for table in &self.level3 {
                for word in self.machine.words(*table, ENTRIES) {
                    if Word::load(word) & S2AP_WRITE != 0 {
                        Word::fetch_and(word, !S2AP_WRITE);
                    }
                }
            }
        })
    }

    /// Makes so many of the pages dirty, and all others clean.
    pub fn dirty(&mut self, percent: Percent) {
        for table in &self.level3 {
            for (i, word) in self.machine.words(*table, ENTRIES).iter().enumerate() {
                let dirty = percent.0 == 100 || percent.0 == 50 && i.wrapping_mul(0x9e37_79b9) >> 7 & 1 == 0;
                let clean = Word::load(word) & !S2AP_WRITE;
                Word::store(word, if dirty { clean | S2AP_WRITE } else { clean });
            }
        }
        if percent.0 == 1 {
            for page in &self.hundredth {
                let word =
                    self.level3[*page as usize / ENTRIES].offset(u64::from(*page) % ENTRIES as u64 * 8);
                Word::fetch_or(&self.machine.words(word, 1)[0], S2AP_WRITE);
            }
        }
    }

    /// Has every cache hold something else.
    pub fn evict(&mut self) {
        self.something_else.read();
    }

    /// One harvest into a bitmap, as the log's.
    pub fn harvest(&mut self, mode: Harvest) -> Duration {
        let (start, bitmap, machine) = (self.range.start().0, &self.bitmap, &self.machine);
        time(|| {
            let _cleaned = self.view.tree.harvest(machine, self.range, mode, |at, pages| {
                bitmap.set(machine, (at.0 - start) >> 12, pages);
            });
        })
    }

    /// Asks for the translation of every page, one by one.
    pub fn query_each(&mut self) -> Duration {
        time(|| {
            let mut all = 0;
            for page in 0..self.range.pages() {
                let at = Ipa(self.range.start().0 + (page << 12));
                all |= self.view.tree.query(&self.machine, at).map_or(0, |(leaf, _)| leaf.word);
            }
            std::hint::black_box(all);
        })
    }
}
