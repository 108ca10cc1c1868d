//! Step 6: what a device writes is in the log, as exactly as the tier can tell: one byte is one page.

use guest_rt::bitmap::Mismatch;
use guest_rt::edu::{Direction, Edu};
use guest_rt::reason::Checked;
use guest_rt::{log, println, reason};
use strandline_abi::{DmaTier, Flags, Tiers};

use crate::story::{Commands, Story};

/// Where in the page the byte is written.
const WRITTEN_BYTE: u64 = 0x128;

/// Lets the device write one byte and reads the log of DMA writes.
pub fn are_reported_by_the_tier(story: &mut Story<'_>) -> Checked {
    story.next_step("The device writes one byte; what does the log tell?");
    let Some(edu) = story.edu else {
        println!("  left out: no device");
        return Ok(());
    };
    let bits = log::status()?.tiers;
    let tier = Tiers::from_bits(bits).ok_or_else(|| reason!("unknown tiers {bits:#x}"))?.dma;
    let written = write_by_dma(story, &edu)?;
    let before = log::status()?;
    let synced = log::sync(story.ram(), &story.places.bitmap, Flags::DMA)?;
    Commands::between(&before, &log::status()?).show("sync of DMA writes", synced.steps);
    let pages = story.ram().pages();
    let bits = story.ram_bits();
    let (reported, hit) = (bits.count(0..pages), bits.count(written..written + 1) == 1);
    match tier {
        DmaTier::Hardware | DmaTier::Stall => story.check(
            hit && reported == 1,
            format_args!("known by {tier}: exactly the page the device wrote is reported"),
        ),
        DmaTier::Digest => {
            println!(
                "  this SMMU has no HTTU (it can't mark the pages a device writes), so the log compares what pages"
            );
            println!("  hold: {reported} page(s) changed, some by this guest itself (its stack, the bitmap)");
            let found = compare_playground(story);
            story.check(hit, format_args!("known by {tier}: the page the device wrote is reported"))?;
            story.compare(found, format_args!("apart from this guest's own pages, it is the only one"))
        }
        DmaTier::Assume => {
            println!(
                "  nobody saw which page it was: every page the device may write must be assumed written"
            );
            story.check(
                reported == pages,
                format_args!("all {pages} pages of RAM are reported, the written one with them"),
            )
        }
        DmaTier::None => {
            story.check(false, format_args!("a VM with a device has a way to know of DMA writes"))
        }
    }
}

/// Nothing is reported of the playground, where nobody has written.
fn compare_playground(story: &Story<'_>) -> Result<(), Mismatch> {
    let area = story.places.playground.area();
    story.ram_bits().compare(story.page_of(area.start())..story.page_of(area.end()), &[])
}

/// Writes one byte of the target page by DMA, another than is there; gives back the page's number.
fn write_by_dma(story: &Story<'_>, edu: &Edu) -> Checked<u64> {
    let target = story.places.target;
    let there = target.read64(WRITTEN_BYTE) as u8;
    let source = story.places.source;
    source.write64(0, u64::from(!there));
    edu.transfer(Direction::FromMemory, source.start(), 8)?;
    // What earlier steps left in the log of DMA writes is taken out first.
    log::sync(story.ram(), &story.places.bitmap, Flags::DMA.with(Flags::CLEAR))?;
    edu.transfer(Direction::ToMemory, target.start() + WRITTEN_BYTE, 1)?;
    Ok(story.page_of(target.start()))
}
