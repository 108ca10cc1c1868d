//! Steps 4 and 9: a start splits the blocks of the range, a stop brings them back.

use guest_rt::area::Size;
use guest_rt::reason::Checked;
use guest_rt::{log, println, reason};
use strandline_abi::{CpuTier, DmaTier, LogState, LogStatus};

use crate::device::copy_and_compare;
use crate::story::{Commands, Story};

const SIZE_1G: u64 = 1 << 30;
const SIZE_2M: u64 = 2 << 20;
/// From here on the VM's RAM has blocks of 1 GiB.
const RAM_WITH_GIB_BLOCKS: u64 = 4 * SIZE_1G;

/// Starts a log over all RAM; gives back the statistics of before.
pub fn splits_the_blocks(story: &mut Story<'_>) -> Checked<LogStatus> {
    story.next_step("Start a log of all RAM: large blocks become pages of 4 KiB");
    let ram = story.ram();
    let before = log::status()?;
    show_views("before", &before);
    story.check(before.state == state(LogState::Off), format_args!("no log is on"))?;
    check_blocks_before(story, &before)?;
    let started = log::start(ram)?;
    let after = log::status()?;
    show_views("after", &after);
    println!(
        "  the start split {} blocks, and took {} table frames",
        started.blocks_split,
        tables(&after).saturating_sub(tables(&before))
    );
    let commands = Commands::between(&before, &after);
    commands.show("start", started.steps);
    println!("  the CPUs of this VM were held {} time(s) for it", after.holds.wrapping_sub(before.holds));

    let on = after.state == state(LogState::On) && (after.start, after.bytes) == (ram.start(), ram.bytes());
    story.check(on, format_args!("the log is on, over {ram}"))?;
    story.check(
        started.tiers.cpu != CpuTier::None,
        format_args!("CPU writes are known by {}", started.tiers.cpu),
    )?;
    check_blocks_after(story, &before, &after, started.blocks_split)?;
    check_commands(story, &commands, started.tiers.dma)?;
    Ok(before)
}

/// One invalidation, as the SMMU's break-before-make level has it.
fn check_commands(story: &mut Story<'_>, commands: &Commands, tier: DmaTier) -> Checked {
    let views = u64::from(tier != DmaTier::None);
    let Commands { all, vmall, syncs, .. } = *commands;
    let pairs = vmall == syncs && all == 2 * vmall;
    match story.bbml {
        2 => story.check(
            pairs && vmall == views,
            format_args!(
                "however large the range: {views} TLBI_S12_VMALL, {views} SYNC, and no other command"
            ),
        ),
        1 => story.check(
            pairs && vmall > views,
            format_args!(
                "one TLBI_S12_VMALL and one SYNC a chunk, and once more: no block is used in two sizes"
            ),
        ),
        // Devices go to another tree, whose VMID is emptied before and the other one after.
        _ if vmall > views => story.check(
            vmall == 2 * views && syncs == 3 * views && all == 6 * views,
            format_args!(
                "however large the range: {views} CFGI_ALL, {vmall} TLBI_S12_VMALL and {syncs} SYNC send devices \
                 through a second tree"
            ),
        ),
        _ => story.check(
            pairs,
            format_args!("no size changes under a device, so that there is one invalidation at the most"),
        ),
    }
}

/// All RAM is mapped by blocks where blocks fit.
fn check_blocks_before(story: &mut Story<'_>, before: &LogStatus) -> Checked {
    let ram = story.ram().bytes();
    let in_blocks = ram - ram % SIZE_2M;
    let cpu = before.cpu_blocks_1g * SIZE_1G + before.cpu_blocks_2m * SIZE_2M;
    let dma = before.dma_blocks_1g * SIZE_1G + before.dma_blocks_2m * SIZE_2M;
    let kind = match (before.cpu_blocks_1g, before.cpu_blocks_2m) {
        (_, 0) => "1 GiB",
        (0, _) => "2 MiB",
        _ => "1 GiB and 2 MiB",
    };
    // Where no size can change under a device, its view may be of pages from the beginning.
    let fixed = story.edu.is_none() || story.bbml == 0;
    let mapped = cpu >= in_blocks && (dma >= in_blocks || fixed);
    story.check(mapped, format_args!("all {} of RAM are mapped by blocks, of {kind}", Size(ram)))?;
    if ram < RAM_WITH_GIB_BLOCKS {
        return Ok(());
    }
    let gib = before.cpu_blocks_1g > 0 && (before.dma_blocks_1g > 0 || fixed);
    story.check(gib, format_args!("a VM of this size has blocks of 1 GiB"))
}

/// The blocks of RAM are gone, and were counted.
fn check_blocks_after(story: &mut Story<'_>, before: &LogStatus, after: &LogStatus, split: u64) -> Checked {
    let gone = blocks(before).checked_sub(blocks(after)).ok_or_else(|| reason!("a start made blocks"))?;
    let pages = |s: &LogStatus| s.cpu_pages_4k + s.dma_pages_4k;
    let gone_1g = gib_blocks(before) - gib_blocks(after).min(gib_blocks(before));
    let new_pages = (gone_1g * SIZE_1G + (gone - gone_1g) * SIZE_2M) / 4096;
    story.check(
        split == gone && split > 0,
        format_args!("the {gone} blocks that are gone are those it says it split"),
    )?;
    story.check(
        after.blocks_split.wrapping_sub(before.blocks_split) == split,
        format_args!("the statistics say the same"),
    )?;
    let dma_left = story.bbml > 0 && after.dma_blocks_1g + after.dma_blocks_2m > 0;
    let all = !dma_left && after.cpu_blocks_1g == 0 && pages(after) == pages(before) + new_pages;
    story.check(all, format_args!("in their place are {new_pages} pages: no block of RAM is left"))
}

/// Stops the log and compares with what was `before` the start.
pub fn brings_the_blocks_back(story: &mut Story<'_>, before: &LogStatus) -> Checked {
    story.next_step("Stop the log: the pages become blocks again");
    let on = log::status()?;
    let steps = log::stop()?;
    let after = log::status()?;
    show_views("after", &after);
    Commands::between(&on, &after).show("stop", steps);
    println!("  {} blocks were merged", after.blocks_merged.wrapping_sub(on.blocks_merged));
    story.check(after.state == state(LogState::Off), format_args!("the log is off"))?;
    story.check(
        shape(&after) == shape(before),
        format_args!("blocks, pages and tables are as many as before the start"),
    )?;
    story.check(after.free_frames == before.free_frames, format_args!("every table frame was given back"))?;
    let Some(edu) = story.edu else { return Ok(()) };
    let same = copy_and_compare(story, &edu)?;
    story.check(same, format_args!("DMA works as before"))
}

/// Everything that counts mappings.
fn shape(s: &LogStatus) -> [u64; 8] {
    [
        s.cpu_blocks_1g,
        s.cpu_blocks_2m,
        s.cpu_pages_4k,
        s.cpu_tables,
        s.dma_blocks_1g,
        s.dma_blocks_2m,
        s.dma_pages_4k,
        s.dma_tables,
    ]
}

fn gib_blocks(s: &LogStatus) -> u64 {
    s.cpu_blocks_1g + s.dma_blocks_1g
}

fn blocks(s: &LogStatus) -> u64 {
    gib_blocks(s) + s.cpu_blocks_2m + s.dma_blocks_2m
}

fn tables(s: &LogStatus) -> u64 {
    s.cpu_tables + s.dma_tables
}

fn state(state: LogState) -> u64 {
    u64::from(state.code())
}

fn show_views(when: &str, s: &LogStatus) {
    println!("  {when:<7} 1 GiB blocks  2 MiB blocks  4 KiB pages  table frames");
    println!(
        "    CPU  {:>14}{:>14}{:>13}{:>14}",
        s.cpu_blocks_1g, s.cpu_blocks_2m, s.cpu_pages_4k, s.cpu_tables
    );
    println!(
        "    DMA  {:>14}{:>14}{:>13}{:>14}",
        s.dma_blocks_1g, s.dma_blocks_2m, s.dma_pages_4k, s.dma_tables
    );
}
