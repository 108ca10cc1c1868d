//! Step 10: what splitting blocks gains. One byte by DMA, logged by the blocks there are, and logged by pages.

use guest_rt::area::Size;
use guest_rt::edu::{Direction, Edu};
use guest_rt::picture::Picture;
use guest_rt::reason::Checked;
use guest_rt::{log, print, println, reason};
use strandline_abi::{DmaTier, Flags, PAGE_BYTES, Tiers};

use crate::story::Story;

const GIB: u64 = 1 << 30;
const PICTURE_ROWS: u64 = 8;

/// What a log said.
struct Outcome {
    /// Table frames it took.
    frames: u64,
    /// Pages reported.
    pages: u64,
}

/// Logs one DMA of one byte twice, and sets the answers side by side.
pub fn shows_as_what_the_log_can_see(story: &mut Story<'_>) -> Checked {
    story.next_step("One byte by DMA: logged by blocks, and logged by pages");
    let Some(edu) = story.edu else {
        println!("  left out: no device");
        return Ok(());
    };
    let status = log::status()?;
    let bits = status.tiers;
    let tier = Tiers::from_bits(bits).ok_or_else(|| reason!("unknown tiers {bits:#x}"))?.dma;
    if tier != DmaTier::Hardware {
        println!(
            "  left out: this SMMU doesn't mark what a device writes (tier {tier}), so that the size of a mapping"
        );
        println!("  makes no difference to it; one with HTTU shows it: scripts/run --httu");
        return Ok(());
    }
    if status.dma_blocks_1g + status.dma_blocks_2m == 0 {
        println!("  left out: under this SMMU no size can change, so that its view is of pages always");
        return Ok(());
    }
    let blocks = log_one_byte(story, &edu, GIB)?;
    let pages = log_one_byte(story, &edu, PAGE_BYTES)?;
    println!("                       by blocks of 1 GiB     by pages of 4 KiB");
    println!("  table frames taken   {:>18}    {:>18}", blocks.frames, pages.frames);
    println!("  pages reported       {:>18}    {:>18}", blocks.pages, pages.pages);
    let bytes = |outcome: &Outcome| reason!("{}", Size(outcome.pages * PAGE_BYTES));
    println!("  memory to be copied  {:>18}    {:>18}", bytes(&blocks), bytes(&pages));
    // RAM of less has blocks of 2 MiB.
    let block = if story.ram().bytes() < GIB { 2 << 20 } else { GIB } / PAGE_BYTES;
    story.check(blocks.pages == block, format_args!("by blocks, the byte makes a whole block dirty"))?;
    story.check(pages.pages == 1, format_args!("by pages, the byte makes one page dirty"))
}

/// Starts a log of all RAM, lets the device write one byte, draws what the log says, and stops it.
fn log_one_byte(story: &Story<'_>, edu: &Edu, granule: u64) -> Checked<Outcome> {
    let target = story.places.target;
    let free = log::status()?.free_frames;
    log::start_by(story.ram(), granule)?;
    let frames = free.saturating_sub(log::status()?.free_frames);
    log::sync(story.ram(), &story.places.bitmap, Flags::DMA.with(Flags::CLEAR))?;
    edu.transfer(Direction::ToMemory, target.start() + 0x123, 1)?;
    let pages = log::sync(story.ram(), &story.places.bitmap, Flags::DMA)?.pages;
    let hit = story.page_of(target.start());
    let bits = story.ram_bits();
    if bits.count(hit..hit + 1) != 1 {
        return Err(reason!("the page that the device wrote is not reported"));
    }
    println!("  one byte at {:#x}, logged by {}:", target.start() + 0x123, Size(granule));
    let all = 0..story.ram().pages();
    print!("{}", Picture { bitmap: bits, base: story.ram().start(), range: all, rows: PICTURE_ROWS });
    log::stop()?;
    Ok(Outcome { frames, pages })
}
