//! DMA that was begun before an invalidation and lands behind it.

use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::bench::Bench;
use crate::nvme::Nvme;
use crate::smmu::{S2HA, S2HD};
use crate::stage2::{Leaf, PAGE};

/// Pages of one read: 512 KiB, the most a command of QEMU's controller moves.
const PAGES_A_READ: u64 = 128;
/// Reads at a time: together they write all of [`Bench::pages`].
const READS: u64 = 4;
const PAGES: u64 = READS * PAGES_A_READ;

/// Memory that no queue takes, in [`Bench::queues`].
const SPARE: u64 = 0x10_0000;

/// Reads of a slow drive are begun, every page is cleaned, the SMMU forgets everything and says so, and only then the
/// data arrive: every page must be dirty again. The drive reads as zeros.
pub fn what_lands_late_is_recorded_late(bench: &Bench) -> Checked {
    bench.translate(S2HA | S2HD)?;
    let mut nvme = Nvme::new(bench)?;
    bench.pages.fill(!0);
    clean(bench)?;
    // What the drive gives at once, so that everything behind it has to wait.
    nvme.begin_read(bench.queues.start() + SPARE, 2);
    nvme.end_read()?;
    for read in 0..READS {
        nvme.begin_read(bench.pages.start() + read * PAGES_A_READ * PAGE, PAGES_A_READ);
    }
    clean(bench)?;
    check!(!nvme.has_ended() && landed(bench) == 0, "the drive is too fast to have anything in flight")?;
    for _ in 0..READS {
        nvme.end_read()?;
    }
    bench.smmu.sync()?;
    let (landed, dirty) = (landed(bench), dirty(bench));
    println!("{landed} of {PAGES} pages written, {dirty} dirty");
    check!(landed == PAGES, "{landed} of {PAGES} pages were written")?;
    check!(dirty == PAGES, "{dirty} of {PAGES} written pages are dirty")
}

fn clean(bench: &Bench) -> Checked {
    for index in 0..PAGES {
        let (address, slot) = bench.page(index);
        slot.set(Leaf::Clean.page(address));
    }
    bench.smmu.invalidate_all()
}

fn landed(bench: &Bench) -> u64 {
    let last_word = |page| bench.pages.read64(page * PAGE + PAGE - 8);
    (0..PAGES).filter(|page| last_word(*page) == 0).count() as u64
}

fn dirty(bench: &Bench) -> u64 {
    (0..PAGES).filter(|page| bench.page(*page).1.is_dirty()).count() as u64
}
