//! Steps 7 and 8: EL2's own writes are logged too, and a clear takes bits out of the log.

use guest_rt::bitmap::Bitmap;
use guest_rt::pages::PageSet;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{log, println, reason};
use strandline_abi::{Flags, PAGE_BYTES, PAGES_PER_WORD, bitmap_bytes};

use crate::story::{Commands, Story};

/// Pages written before the clear.
const PAGES: u64 = 40;

/// Reads the log of the bitmap's own pages: only EL2 wrote them.
pub fn sees_the_hypervisors_own_writes(story: &mut Story<'_>) -> Checked {
    story.next_step("The hypervisor wrote the bitmap into this VM's memory: is that in the log?");
    let (bitmap, bits) = (story.places.bitmap, story.places.bitmap_bits);
    let cpu = Flags::CPU.with(Flags::CLEAR);
    // The first sync takes everything out of the log before it writes the bitmap; this guest only reads it.
    log::sync(story.ram(), &bitmap, cpu)?;
    let pages = bitmap_bytes(story.ram().pages()).div_ceil(PAGE_BYTES);
    let own = bitmap.area().part(0, pages).ok_or_else(|| reason!("the bitmap is too short"))?;
    log::sync(own, &bits, cpu)?;
    let reported = Bitmap::new(&bits, pages).count(0..pages);
    story.check(
        reported == pages,
        format_args!("all {pages} page(s) of the bitmap are reported, though this guest did not write them"),
    )
}

/// Writes pages, discards them by a mask of all ones, and finds nothing afterwards.
pub fn discards_what_a_mask_names(story: &mut Story<'_>) -> Checked {
    story.next_step("Clear: pages that need no copying are taken out of the log");
    let (playground, mask) = (story.places.playground, story.places.bitmap);
    let area = playground.area();
    // An empty log of the playground first.
    log::sync(area, &mask, Flags::CPU.with(Flags::CLEAR))?;
    let mut written = PageSet::<64>::new();
    while written.len() < PAGES {
        let page = story.rng.below(area.pages());
        written.insert(page);
        playground.write64(page * PAGE_BYTES, story.rng.next());
    }
    name_all(&mask, area.pages());
    let before = log::status()?;
    let cleared = log::clear(area, &mask, Flags::CPU)?;
    Commands::between(&before, &log::status()?).show("clear", cleared.steps);
    let discarded = Bitmap::new(&mask, area.pages()).compare(0..area.pages(), written.as_slice());
    story.compare(
        discarded,
        format_args!("the mask named every page; what it discarded are exactly the {PAGES} pages written"),
    )?;
    story.check(cleared.pages == PAGES, format_args!("the clear counts as many"))?;
    let synced = log::sync(area, &mask, Flags::CPU)?;
    let left = Bitmap::new(&mask, area.pages()).count(0..area.pages());
    println!("  a sync after it reports {} page(s)", synced.pages);
    story.check((synced.pages, left) == (0, 0), format_args!("nothing is left in the log"))
}

/// Sets the bits of `pages` pages, and none behind them.
fn name_all(mask: &Window, pages: u64) {
    for index in 0..pages.div_ceil(PAGES_PER_WORD) {
        let named = (pages - index * PAGES_PER_WORD).min(PAGES_PER_WORD);
        mask.write64(index * 8, u64::MAX >> (PAGES_PER_WORD - named));
    }
}
