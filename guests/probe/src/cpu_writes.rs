//! Step 5: what this CPU writes is in the log, and nothing else is.

use guest_rt::bitmap::Mismatch;
use guest_rt::pages::PageSet;
use guest_rt::picture::Picture;
use guest_rt::reason::Checked;
use guest_rt::{log, print, println};
use strandline_abi::{Flags, PAGE_BYTES};

use crate::story::{Commands, Story};

/// Pages written at random places of the whole playground.
const FAR_PAGES: u64 = 80;
/// Pages written in the part of which each page is drawn.
const NEAR_PAGES: u64 = 120;
/// Pages of that part: eight rows of the picture.
const NEAR_RANGE: u64 = 512;
const PICTURE_ROWS: u64 = 8;

/// Pages written, counted from the start of RAM.
type Written = PageSet<256>;

/// Writes random pages, reads the log, and does the same again with the same pages.
pub fn are_reported_exactly(story: &mut Story<'_>) -> Checked {
    story.next_step("This CPU writes random pages; the log tells which");
    let (written, near) = choose(story);
    write_all(story, &written);
    let pages = sync_all(story, "sync of CPU writes")?;
    draw(story, near);
    let counted = story.ram_bits().count(0..story.ram().pages());
    let clean_end = story.ram_bits().ends_clean();
    story.check(
        pages == counted && clean_end,
        format_args!("the bitmap has as many bits as pages were reported: {pages}"),
    )?;
    let count = written.len();
    let found = compare(story, &written);
    story.compare(
        found,
        format_args!("apart from this guest's own pages, exactly the {count} written are reported"),
    )?;

    write_all(story, &written);
    sync_all(story, "sync")?;
    let found = compare(story, &written);
    story.compare(found, format_args!("written once more, the same {count} pages are reported once more"))?;

    sync_all(story, "sync")?;
    let found = compare(story, &Written::new());
    story.compare(found, format_args!("with nothing written in between, nothing is reported"))
}

/// Chooses pages of the playground: its first and its last, some anywhere, and more in a part of it; gives that part's
/// first page as well.
fn choose(story: &mut Story<'_>) -> (Written, u64) {
    let area = story.places.playground.area();
    let (first, pages) = (story.page_of(area.start()), area.pages());
    // The part begins in the middle, at a multiple of what one row shows.
    let near = (first + pages / 2).next_multiple_of(64);
    let mut written = Written::new();
    written.insert(first);
    written.insert(first + pages - 1);
    for _ in 0..FAR_PAGES {
        written.insert(first + story.rng.below(pages));
    }
    for _ in 0..NEAR_PAGES {
        written.insert(near + story.rng.below(NEAR_RANGE));
    }
    (written, near)
}

/// Writes one word of each page, anywhere in it.
fn write_all(story: &mut Story<'_>, written: &Written) {
    let playground = story.places.playground;
    let first = story.page_of(playground.start());
    for page in written.as_slice() {
        let offset = (page - first) * PAGE_BYTES + story.rng.below(PAGE_BYTES / 8) * 8;
        playground.write64(offset, story.rng.next());
    }
}

/// Reads and cleans the log of CPU writes of all RAM; gives back how many pages were reported.
fn sync_all(story: &Story<'_>, operation: &str) -> Checked<u64> {
    let before = log::status()?;
    let synced = log::sync(story.ram(), &story.places.bitmap, Flags::CPU.with(Flags::CLEAR))?;
    Commands::between(&before, &log::status()?).show(operation, synced.steps);
    Ok(synced.pages)
}

/// Compares the log of the playground with the pages written there.
fn compare(story: &Story<'_>, written: &Written) -> Result<(), Mismatch> {
    let area = story.places.playground.area();
    story.ram_bits().compare(story.page_of(area.start())..story.page_of(area.end()), written.as_slice())
}

fn draw(story: &Story<'_>, near: u64) {
    let pages = story.ram().pages();
    let picture = |range, rows| Picture { bitmap: story.ram_bits(), base: story.ram().start(), range, rows };
    let whole = picture(0..pages, PICTURE_ROWS);
    println!("  the log of all RAM: one character for {} page(s);", whole.pages_per_cell());
    println!("  '.' none of them written, a digit: so many, '+': ten or more, '#': all");
    print!("{whole}");
    println!("  (marks near the start may be this guest's own: its stack and data, and the bitmap)");
    println!("  a part of it, one character for each page:");
    print!("{}", picture(near..near + NEAR_RANGE, PICTURE_ROWS));
}
