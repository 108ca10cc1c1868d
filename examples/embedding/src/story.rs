//! What an embedder does with the library, from bring-up to the end. It knows no machine: here it runs on QEMU's, in the
//! project's tests on a model of the hardware.

use core::fmt::Write;

use strandline::addr::{Ipa, IpaRange, Pa, StreamId, Vmid};
use strandline::address_space::{Reach, Region};
use strandline::dirty_log::{CpuTier, DmaTier};
use strandline::guest::Guest;
use strandline::hw::Platform;
use strandline::smmu::{Options, Registers, Smmu};
use strandline::stage2::Format;
use strandline::{Error, check};

/// Where the guest sees its RAM, and how much it has.
pub const RAM: Ipa = Ipa(0x80_0000);
pub const RAM_BYTES: u64 = 8 << 20;

/// Gives a guest with RAM at `ram` the device whose stream is `stream`, logs what it writes when `dma` has it write to a
/// guest address, and tells it to `out`. Gives back how many pages were reported.
pub fn tell<P: Platform, R: Registers>(
    platform: &P,
    registers: R,
    ram: Pa,
    stream: StreamId,
    dma: impl FnOnce(Ipa),
    out: &mut impl Write,
) -> Result<u64, Error> {
    check::platform(platform)?;
    let smmu = Smmu::new(platform, registers, &Options { stream_bits: 9, ..Options::default() })?;
    let _ = writeln!(out, "the SMMU is up: every stream aborts");

    let all = IpaRange::new(RAM, RAM_BYTES)?;
    let mut guest = Guest::new(platform, Format::SMALLEST, Vmid(1), CpuTier::Faults)?;
    guest.map(Region { range: all, pa: ram, reach: Reach::Ram })?;
    let device = guest.attach(&smmu, stream, guest.best_tier(&smmu))?;

    let tier = guest.start(all)?.dma;
    let _ = writeln!(out, "{} pages are logged, by tier '{tier}': {}", all.pages(), meaning(tier));
    dma(RAM.offset(0x12_3000));
    let mut last = RAM;
    let reported = guest.sync(all, |page| last = page)?;
    let _ = writeln!(out, "{reported} of {} pages reported, the last is {last}", all.pages());

    guest.stop()?;
    guest.detach(device)?;
    guest.end()?;
    Ok(reported)
}

fn meaning(tier: DmaTier) -> &'static str {
    match tier {
        DmaTier::Hardware => "the SMMU marks each page that it translates a write to",
        _ => "the SMMU keeps no dirty state, so every page the device may write counts as written",
    }
}
