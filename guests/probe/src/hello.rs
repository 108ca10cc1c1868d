//! Step 1: who is underneath.

use guest_rt::reason::Checked;
use guest_rt::{log, println, reason};
use strandline_abi::{Call, CpuTier, DmaTier, Features, PAGE_BYTES, VERSION};

use crate::story::Story;

/// Finds Strandline by its device tree node and by hypercall, and says how writes come to be known.
pub fn introduces_itself(story: &mut Story<'_>) -> Checked {
    story.next_step("Who is underneath?");
    let tree = story.guest.tree;
    story.check(tree.names_strandline(), format_args!("the device tree names the hypervisor: Strandline"))?;
    story.check(tree.psci_by_hvc(), format_args!("power is switched by HVC"))?;
    story.check(log::uid_matches(), format_args!("the hypercalls answer with Strandline's UID"))?;
    let (major, minor) = log::revision();
    let features = log::features()?;
    println!(
        "  revision {major}.{minor}, interface {}.{}",
        features.version >> 16,
        features.version & 0xffff
    );
    story.check(speaks_our_version(&features), format_args!("the interface is the one this guest speaks"))?;
    story.check(has_all_calls(&features), format_args!("every call is there, and a log at 4 KiB"))?;
    println!("  writes of CPUs are known by: {}", features.tiers.cpu);
    println!("  writes of devices are known by: {}", explain(features.tiers.dma));
    let wants_dma = story.edu.is_some();
    let knows = features.tiers.cpu != CpuTier::None && (features.tiers.dma != DmaTier::None || !wants_dma);
    story.check(knows, format_args!("there is a way to know of every kind of write"))?;
    let Some(edu) = story.edu else {
        println!("  no device is used, as the command line says");
        return Ok(());
    };
    println!("  PCI device: edu at {}, registers at {}", edu.function(), edu.registers().area());
    edu.set_liveness(0x1234_5678);
    let alive = edu.liveness() == !0x1234_5678;
    story.check(alive, format_args!("the device's registers answer"))
}

fn speaks_our_version(features: &Features) -> bool {
    features.version >> 16 == VERSION >> 16 && features.version & 0xffff >= VERSION & 0xffff
}

/// Whether the calls 0xC600_0000 onwards that this guest makes, and 4 KiB as a granule, are offered.
fn has_all_calls(features: &Features) -> bool {
    let first = Call::Features.id();
    let ours =
        Call::ALL.iter().filter_map(|call| call.id().checked_sub(first)).fold(0, |bits, n| bits | 1_u64 << n);
    features.calls & ours == ours && features.granules & PAGE_BYTES != 0
}

fn explain(tier: DmaTier) -> impl core::fmt::Display {
    match tier {
        DmaTier::None => reason!("nothing, since the VM owns no device"),
        DmaTier::Assume => {
            reason!("assumption: every page a device may write counts as written")
        }
        DmaTier::Digest => reason!("digest: this SMMU has no HTTU, so what pages hold is compared"),
        other => reason!("{other}"),
    }
}
