//! The log of devices' writes against what the devices were told to write, several at once, while the CPU writes too.

use guest_rt::area::Area;
use guest_rt::bitmap::{Bitmap, Mismatch};
use guest_rt::boot::Guest;
use guest_rt::marks::Marks;
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason};
use strandline_abi::{CpuTier, DmaTier, Flags, PAGE_BYTES, bitmap_bytes};

use crate::devices::{RING_PAGES, Sources, Transfer};
use crate::places::cut;

/// Pages of the log: 8 MiB, at no particular place.
const PAGES: u64 = 2048;
type Written = Marks<{ PAGES as usize / 64 }>;
/// Times that devices are set off before a sync that nothing is in flight at.
const BURSTS: u64 = 6;
/// Rounds that count for the number of distinct pages that devices have to write: half a page a round and device.
const MOST_FLOOR_ROUNDS: u64 = 256;
/// Pages that the CPU writes between two syncs.
const CPU_PAGES: u64 = 24;

/// `dma rounds=N seed=S devices=N inflight=N`: in each round a sync while transfers are on their way, one after they have
/// ended, and one after transfers that began and ended since. At least so many devices (1) have to be there, and so many
/// times (0) a drive's transfer has to be on its way across a sync.
///
/// Where hardware keeps the dirty state the last sync is exact, and the others hold what had completed and no more than
/// what had begun. Where devices' pages are told by digests, what changed is reported, and nothing but what a device or the
/// CPU could have written; where they are assumed, every page.
pub fn every_round_reports_what_devices_wrote(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let (rounds, seed) = (args.number_or("rounds", 24)?, args.number_or("seed", 1)?);
    let mut free = guest.free;
    let bits = cut(&mut free, bitmap_bytes(PAGES))?;
    let rings = cut(&mut free, RING_PAGES * PAGE_BYTES)?.area();
    let memory = cut(&mut free, PAGES * PAGE_BYTES)?;
    let kept = cut(&mut free, PAGES * PAGE_BYTES)?;
    let sources = Sources::new(guest, rings, memory.area(), seed)?;
    let tier = log::features()?.tiers;
    let truth = Truth { completed: Written::new(), begun: Written::new() };
    let rng = Rng::new(!seed);
    let (cpu, all) = (Written::new(), Written::new());
    let mut case = Case { memory, kept, bits, sources, truth, cpu, all, rng, tier: tier.dma, syncs: 0 };
    println!("writes of the CPU by {}, of {} device(s) by {}", tier.cpu, case.sources.count(), tier.dma);
    let enough = args.number_or("devices", 1)?;
    check!(case.sources.count() >= enough, "{} devices, not {enough}", case.sources.count())?;
    check!(tier.cpu != CpuTier::None && tier.dma != DmaTier::None, "nothing can be logged")?;
    case.run(rounds)?;
    let (across, enough) = (case.sources.drives_across(), args.number_or("inflight", 0)?);
    check!(
        across >= enough,
        "only {across} times a drive's transfer was on its way across a sync, not {enough}"
    )
}

/// What devices have written, and may have written, since the last sync.
struct Truth {
    /// By transfers that have ended.
    completed: Written,
    /// By those and others.
    begun: Written,
}

impl Truth {
    fn begin(&mut self, range: Area, transfer: &Transfer) {
        transfer.written(range).for_each(|page| _ = self.begun.mark(page));
    }

    /// What a sync reported while the transfer was on its way may have been written before it.
    fn end(&mut self, range: Area, transfer: &Transfer) {
        for (index, page) in transfer.written(range).enumerate() {
            if transfer.reported >> index & 1 == 0 {
                self.completed.mark(page);
            }
        }
    }
}

struct Case {
    memory: Window,
    /// What the memory held at the last sync, where that is how writes are known.
    kept: Window,
    bits: Window,
    sources: Sources,
    truth: Truth,
    cpu: Written,
    /// Every page that was found written by devices in an exact sync.
    all: Written,
    rng: Rng,
    tier: DmaTier,
    syncs: u64,
}

impl Case {
    fn run(&mut self, rounds: u64) -> Checked {
        // Translations of the blocks are cached before they are split.
        self.write_by_devices()?;
        self.finish()?;
        let started = log::start(self.memory.area())?;
        println!("log of {}: {} blocks split", self.memory.area(), started.blocks_split);
        self.forget();
        for round in 0..rounds {
            self.round().map_err(|reason| reason!("round {round}: {reason}"))?;
        }
        log::stop()?;
        self.sources.tell();
        let distinct = self.all.count();
        println!("{rounds} rounds, {} syncs, {distinct} of {PAGES} pages written by devices", self.syncs);
        let floor = rounds.min(MOST_FLOOR_ROUNDS) * self.sources.count() / 2;
        check!(rounds > 0 && distinct >= floor, "only {distinct} pages were written by devices, not {floor}")
    }

    /// Nothing is known to be written: the log has just been started.
    fn forget(&mut self) {
        self.truth = Truth { completed: Written::new(), begun: Written::new() };
        self.cpu = Written::new();
        self.keep();
    }

    fn round(&mut self) -> Checked {
        // In flight.
        self.write_by_cpu();
        self.write_by_devices()?;
        self.sync(false).map_err(|e| reason!("with DMA in flight: {e}"))?;
        // What was in flight has ended.
        self.finish()?;
        self.sync(false).map_err(|e| reason!("after what was in flight: {e}"))?;
        // Begun and ended since.
        for _ in 0..BURSTS {
            self.write_by_devices()?;
            self.write_by_cpu();
        }
        self.finish()?;
        self.sync(true).map_err(|e| reason!("with nothing in flight: {e}"))
    }

    fn write_by_devices(&mut self) -> Checked {
        let range = self.memory.area();
        let Self { sources, truth, .. } = self;
        sources.poll(|ended| truth.end(range, ended))?;
        sources.begin(|begun| truth.begin(range, begun))
    }

    fn finish(&mut self) -> Checked {
        let range = self.memory.area();
        let Self { sources, truth, .. } = self;
        sources.finish(|ended| truth.end(range, ended))
    }

    fn write_by_cpu(&mut self) {
        for _ in 0..CPU_PAGES {
            let (page, word) = (self.rng.below(PAGES), self.rng.below(PAGE_BYTES / 8));
            self.memory.write64(page * PAGE_BYTES + word * 8, self.rng.next());
            self.cpu.mark(page);
        }
    }

    /// Reads and cleans the log of both, and compares.
    fn sync(&mut self, quiet: bool) -> Checked {
        self.syncs += 1;
        let range = self.memory.area();
        let Self { sources, truth, .. } = self;
        sources.poll(|ended| truth.end(range, ended))?;
        let before = self.truth.completed.clone();
        log::sync(range, &self.bits, Flags::DMA.with(Flags::CLEAR))?;
        let bits = self.bits;
        let reported = Bitmap::new(&bits, PAGES);
        self.compare_devices(&reported, &before, quiet)?;
        if quiet {
            reported.ones(0..PAGES).for_each(|page| _ = self.all.mark(page));
        }
        self.carry_over(&reported);
        log::sync(range, &self.bits, Flags::CPU.with(Flags::CLEAR))?;
        let (missing, extra) = (self.cpu.outside(&bits), Bitmap::new(&bits, PAGES).outside(&self.cpu));
        let mismatch = Mismatch { missing, extra };
        check!(mismatch == Mismatch::default(), "the CPU's: {mismatch}")?;
        self.cpu = Written::new();
        self.keep();
        let Self { sources, truth, .. } = self;
        sources.poll_after_sync(|ended| truth.end(range, ended))
    }

    fn compare_devices(&self, reported: &Bitmap<'_, Window>, completed: &Written, quiet: bool) -> Checked {
        let mismatch = match self.tier {
            DmaTier::Hardware | DmaTier::Stall => Mismatch {
                missing: completed.outside(&self.bits),
                extra: reported.outside(&self.truth.begun),
            },
            DmaTier::Digest => {
                let mut possible = self.truth.begun.clone();
                possible.mark_all(&self.cpu);
                Mismatch {
                    missing: self.changed(quiet).outside(&self.bits),
                    extra: reported.outside(&possible),
                }
            }
            DmaTier::Assume | DmaTier::None => {
                let mut every = Written::new();
                (0..PAGES).for_each(|page| _ = every.mark(page));
                Mismatch { missing: every.outside(&self.bits), ..Mismatch::default() }
            }
        };
        check!(mismatch == Mismatch::default(), "the devices': {mismatch}")?;
        // With nothing in flight, what completed is what began, or this case is wrong.
        let same = self.truth.begun.outside(completed).count == 0;
        check!(!quiet || same, "transfers ended without having written what they were told to write")
    }

    /// The pages that differ from what they held; none while a device may be writing.
    fn changed(&self, quiet: bool) -> Written {
        let mut changed = Written::new();
        for page in (0..PAGES).filter(|_| quiet) {
            let mut words = (page * PAGE_BYTES..(page + 1) * PAGE_BYTES).step_by(8);
            if words.any(|at| self.memory.read64(at) != self.kept.read64(at)) {
                changed.mark(page);
            }
        }
        changed
    }

    /// Keeps what the memory holds, where digests are what tells of writes.
    fn keep(&mut self) {
        if self.tier == DmaTier::Digest {
            for at in (0..PAGES * PAGE_BYTES).step_by(8) {
                self.kept.write64(at, self.memory.read64(at));
            }
        }
    }

    /// Begins anew, with the transfers that are on their way.
    fn carry_over(&mut self, reported: &Bitmap<'_, Window>) {
        let range = self.memory.area();
        self.truth = Truth { completed: Written::new(), begun: Written::new() };
        for transfer in self.sources.on_their_way() {
            for (index, page) in transfer.written(range).enumerate() {
                transfer.reported |= reported.count(page..page + 1) << index;
                self.truth.begun.mark(page);
            }
        }
    }
}
