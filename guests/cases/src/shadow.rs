//! The log against a shadow of it: what the guest wrote, kept by the guest itself.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::pages::PageSet;
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason};
use strandline_abi::{Flags, LogStatus, PAGE_BYTES, PAGES_PER_WORD, bitmap_bytes};

use crate::places::cut;

/// Window lengths, in pages, around the ends of words and of the 2 MiB that one table maps.
const LENGTHS: [u64; 12] = [1, 2, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025];
/// Pages written in one round, apart from the ends of the window.
const RANDOM_PAGES: u64 = 60;
/// What stands on both sides of the bitmap.
const CANARY: u64 = 0xca4a_4419_0dd5_eed5;
/// What stands in the bitmap before a sync.
const POISON: u64 = 0xaaaa_aaaa_5555_5555;
/// Words before the bitmap, at most: it begins at another place of its page in each round.
const MOST_LEAD_WORDS: u64 = 512;

type Pages = PageSet<80>;

/// `shadow rounds=N seed=S size=BYTES`: rounds of random writes in windows that begin and end anywhere; each sync has to
/// report exactly what was written, each time it was written. `size` bounds the RAM that is logged.
pub fn every_round_reports_what_was_written(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let rounds = args.number_or("rounds", 24)?;
    let mut shadow = Shadow::new(guest, args.number_or("size", u64::MAX)?, args.number_or("seed", 1)?)?;
    let before = log::status()?;
    let started = log::start(shadow.logged)?;
    println!(
        "log of {}: {} hypercall(s), {} blocks split",
        shadow.logged, started.steps, started.blocks_split
    );
    for round in 0..rounds {
        shadow.round(round).map_err(|reason| reason!("round {round}: {reason}"))?;
    }
    log::stop()?;
    let after = log::status()?;
    println!("{rounds} rounds, {} pages reported", after.pages_reported.wrapping_sub(before.pages_reported));
    check!(
        mapped(&before) == mapped(&after),
        "the stop did not bring back the blocks there were before the start"
    )
}

fn mapped(s: &LogStatus) -> [u64; 6] {
    [s.cpu_blocks_1g, s.cpu_blocks_2m, s.cpu_pages_4k, s.dma_blocks_1g, s.dma_blocks_2m, s.dma_pages_4k]
}

struct Shadow {
    /// What is logged, and written by nothing but this case. Its ends are at no particular alignment.
    logged: Area,
    memory: Window,
    /// Room for the bits of all of it, with the words before and behind them.
    bits: Area,
    rng: Rng,
}

/// A bitmap between two canaries.
struct Guarded {
    whole: Window,
    bitmap: Window,
}

impl Guarded {
    fn check(&self) -> Checked {
        let behind = self.whole.area().bytes() - 8;
        let (first, last) = (self.whole.read64(0), self.whole.read64(behind));
        check!(first == CANARY, "the word before the bitmap became {first:#x}")?;
        check!(last == CANARY, "the word behind the bitmap became {last:#x}")
    }
}

impl Shadow {
    fn new(guest: &Guest, size: u64, seed: u64) -> Checked<Self> {
        let mut free = guest.free;
        let room = bitmap_bytes(free.pages()) + (MOST_LEAD_WORDS + 2) * 8;
        let bits = cut(&mut free, room)?.area();
        // One page more and one less, so that not even the guest's own layout makes the range aligned.
        let pages = free.pages().min(size / PAGE_BYTES).saturating_sub(2);
        let logged = free.part(1, pages).ok_or_else(|| reason!("too little free RAM: {free}"))?;
        check!(pages > 2 * LENGTHS[LENGTHS.len() - 1], "too little RAM to log: {logged}")?;
        let memory = Window::new(logged).ok_or_else(|| reason!("{logged} is this guest's own"))?;
        Ok(Self { logged, memory, bits, rng: Rng::new(seed) })
    }

    /// One window: the same pages written, read and cleaned twice; kept; discarded in part; and its neighbours.
    fn round(&mut self, round: u64) -> Checked {
        let (first, pages) = self.choose_window(round)?;
        let window =
            self.logged.part(first, pages).ok_or_else(|| reason!("the window is outside the log"))?;
        self.take(self.logged, &[], Check::Nothing)?;
        let written = self.choose_pages(pages);
        let neighbours = [first - 1, first + pages];
        for page in neighbours {
            self.write(page);
        }
        for _ in 0..2 {
            self.write_all(first, &written);
            self.take(window, written.as_slice(), Check::Exactly)?;
        }
        self.take(window, &[], Check::Exactly)?;
        self.keeps_what_is_not_cleaned(window, first, &written)?;
        self.discards_by_mask(window, first, &written)?;
        for page in neighbours {
            let one = self.logged.part(page, 1).ok_or_else(|| reason!("no neighbour"))?;
            self.take(one, &[0], Check::Exactly).map_err(|e| reason!("the page beside the window: {e}"))?;
        }
        Ok(())
    }

    /// A sync without CLEAR reports the same again and again.
    fn keeps_what_is_not_cleaned(&mut self, window: Area, first: u64, written: &Pages) -> Checked {
        self.write_all(first, written);
        for _ in 0..2 {
            self.read(window, written.as_slice(), Flags::CPU, Check::Exactly)?;
        }
        self.take(window, written.as_slice(), Check::Exactly)
    }

    /// A clear takes out of the log what its mask names, and nothing else.
    fn discards_by_mask(&mut self, window: Area, first: u64, written: &Pages) -> Checked {
        self.write_all(first, written);
        let guarded = self.guarded(window.pages())?;
        for index in 0..window.pages().div_ceil(PAGES_PER_WORD) {
            // Every other page of the window; no bit behind its last page.
            let named = (window.pages() - index * PAGES_PER_WORD).min(PAGES_PER_WORD);
            guarded.bitmap.write64(index * 8, 0x5555_5555_5555_5555 & u64::MAX >> (PAGES_PER_WORD - named));
        }
        let cleared = log::clear(window, &guarded.bitmap, Flags::CPU)?;
        let (mut discarded, mut left) = (Pages::new(), Pages::new());
        for page in written.as_slice() {
            if page % 2 == 0 {
                discarded.insert(*page)
            } else {
                left.insert(*page)
            };
        }
        let bits = Bitmap::new(&guarded.bitmap, window.pages());
        let same = bits.compare(0..window.pages(), discarded.as_slice());
        same.map_err(|e| reason!("clear of {window}: {e}"))?;
        let count = discarded.len();
        check!(cleared.pages == count, "clear counts {} pages, not {count}", cleared.pages)?;
        guarded.check()?;
        self.take(window, left.as_slice(), Check::Exactly)
    }

    /// The window of a round: each length once, then random ones, at random places, a page away from the log's ends.
    fn choose_window(&mut self, round: u64) -> Checked<(u64, u64)> {
        let all = self.logged.pages() - 2;
        let length = usize::try_from(round).ok().and_then(|r| LENGTHS.get(r).copied());
        let pages = length.unwrap_or_else(|| 1 + self.rng.below(all));
        let first = 1 + self.rng.below(all - pages + 1);
        check!(first + pages < self.logged.pages(), "the window does not fit")?;
        Ok((first, pages))
    }

    /// The first and last page of a window, and some between.
    fn choose_pages(&mut self, pages: u64) -> Pages {
        let mut chosen = Pages::new();
        chosen.insert(0);
        chosen.insert(pages - 1);
        for _ in 0..RANDOM_PAGES {
            chosen.insert(self.rng.below(pages));
        }
        chosen
    }

    fn write_all(&mut self, first: u64, pages: &Pages) {
        for page in pages.as_slice() {
            self.write(first + page);
        }
    }

    /// Writes one byte to one word of a page, the page's ends among them.
    fn write(&mut self, page: u64) {
        let offset = page * PAGE_BYTES;
        match self.rng.below(4) {
            0 => self.memory.write8(offset, 1),
            1 => self.memory.write8(offset + PAGE_BYTES - 1, 1),
            _ => self.memory.write64(offset + self.rng.below(PAGE_BYTES / 8) * 8, page),
        }
    }

    fn guarded(&mut self, pages: u64) -> Checked<Guarded> {
        let lead = self.rng.below(MOST_LEAD_WORDS) * 8;
        let bytes = bitmap_bytes(pages);
        let inside =
            |start, bytes| Area::new(start, bytes).filter(|a| self.bits.covers(*a)).and_then(Window::new);
        let start = self.bits.start() + lead;
        let (whole, bitmap) = inside(start, bytes + 16)
            .zip(inside(start + 8, bytes))
            .ok_or_else(|| reason!("no room for {bytes} bytes of bitmap"))?;
        whole.fill(POISON);
        whole.write64(0, CANARY);
        whole.write64(bytes + 8, CANARY);
        Ok(Guarded { whole, bitmap })
    }

    /// Reads and cleans the log of CPU writes of `range`.
    fn take(&mut self, range: Area, expected: &[u64], check: Check) -> Checked {
        self.read(range, expected, Flags::CPU.with(Flags::CLEAR), check)
    }

    fn read(&mut self, range: Area, expected: &[u64], flags: Flags, check: Check) -> Checked {
        let guarded = self.guarded(range.pages())?;
        let synced = log::sync(range, &guarded.bitmap, flags)?;
        guarded.check()?;
        let bits = Bitmap::new(&guarded.bitmap, range.pages());
        check!(bits.ends_clean(), "bits behind the last page of {range} are set")?;
        let count = bits.count(0..range.pages());
        check!(synced.pages == count, "a sync of {range} counts {} pages and reports {count}", synced.pages)?;
        if check == Check::Nothing {
            return Ok(());
        }
        bits.compare(0..range.pages(), expected).map_err(|e| reason!("sync of {range}: {e}"))
    }
}

/// What is expected of a sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// The pages given, and no others.
    Exactly,
    /// Whatever is there.
    Nothing,
}
