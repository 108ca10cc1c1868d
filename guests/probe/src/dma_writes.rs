//! Step 6: what a device writes is in the log, as exactly as the tier can tell.

use guest_rt::edu::{Direction, Edu};
use guest_rt::reason::Checked;
use guest_rt::{log, println, reason};
use strandline_abi::{DmaTier, Flags, Tiers};

use crate::story::{Commands, Story};

/// Lets the device write one page and reads the log of DMA writes.
pub fn are_reported_by_the_tier(story: &mut Story<'_>) -> Checked {
    story.next_step("The device writes a page; what does the log tell?");
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
        DmaTier::Digest => story.check(
            hit,
            format_args!("known by {tier}: the page the device wrote is among {reported} changed ones"),
        ),
        DmaTier::Assume => {
            println!(
                "  this SMMU has no HTTU (it can't mark the pages a device writes), so nobody saw which page it was:"
            );
            println!("  every page the device may write must be assumed written");
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

/// Writes the target page by DMA alone; gives back its number.
fn write_by_dma(story: &Story<'_>, edu: &Edu) -> Checked<u64> {
    let target = story.places.target;
    // What earlier steps left in the log of DMA writes is taken out first.
    log::sync(story.ram(), &story.places.bitmap, Flags::DMA.with(Flags::CLEAR))?;
    edu.transfer(Direction::ToMemory, target.start(), target.area().bytes())?;
    Ok(story.page_of(target.start()))
}
