//! The VMs of the image: made from boot modules, run to their end, taken apart.

mod create;
mod plan;
mod run;

use alloc::vec::Vec;

use strandline::addr::Pa;
use strandline::vm::Vm;

use crate::audit::Audit;
use crate::cache;
use crate::console::say;
use crate::cpu::CpuFeatures;
use crate::entropy::Entropy;
use crate::failure::Failure;
use crate::machine::{Machine, Region};
use crate::pci::PciRoot;
use crate::platform::Platform;
use crate::ram::FreeRam;
use crate::smmus::{RealSmmu, Smmus, Stream};
use crate::timer;
use crate::vcpu::Vcpu;
use crate::vpci::VirtualPci;
use crate::vuart::Vuart;

pub use run::Ending;

/// A VM and all that belongs to it.
pub struct Guest<'a> {
    name: &'a str,
    vm: Vm<'a, RealSmmu>,
    vcpu: Vcpu,
    uart: Vuart,
    pci: VirtualPci,
    streams: Vec<Stream>,
    /// Frames of stream tables that were made for its streams. They stay with the SMMUs when it has ended.
    stream_tables: usize,
    vtcr: u64,
    /// How many faults of its devices have been told on the console.
    told: u32,
    /// How many exceptions it was given, as far as that is told.
    told_exceptions: u32,
}

/// What all VMs share.
pub struct Host<'m> {
    platform: &'static Platform,
    cpu: &'m CpuFeatures,
    pci: Option<PciRoot<'m>>,
    entropy: Entropy,
}

/// The alignment of a VM's RAM: that of the largest block that can map some of it.
const fn ram_align(bytes: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    const MIB2: u64 = 2 << 20;
    if bytes >= GIB { GIB } else { MIB2 }
}

/// Starts the VMs the boot loader has left modules for, one after the other, each to its end.
///
/// # Errors
/// There is no VM, one can't be made, or one of them failed.
pub fn run_all(machine: &Machine, cpu: &CpuFeatures, platform: &'static Platform) -> Result<(), Failure> {
    let plans = plan::read(machine)?;
    let mut free = FreeRam::new(&machine.free);
    let mut rams = Vec::new();
    for plan in &plans {
        let bytes = plan.config.memory;
        let ram = free.take(bytes, ram_align(bytes)).map_err(|lack| plan::of_vm(&plan.config.name, lack))?;
        rams.push(ram);
    }
    if machine.dirty_caches {
        // A guest may look past the caches at its RAM: with its MMU off it does. A line that firmware left would come
        // back over what was stored so.
        rams.iter().for_each(|ram| cache::invalidate(ram.start().0, ram.bytes()));
    }
    hand_over(platform, &rams, free)?;
    let mut smmus = Smmus::bring_up(machine, platform).map_err(Failure::Setup)?;
    let pci = PciRoot::new(machine, cpu.pa_bits());
    let generator = cpu.rng.then_some(CpuFeatures::random);
    let entropy = Entropy::gather(generator, &machine.seed, timer::counter());
    let mut host = Host { platform, cpu, pci, entropy };

    let mut failed = None;
    for (index, (plan, ram)) in plans.iter().zip(&rams).enumerate() {
        let name = &plan.config.name;
        let ending = one(&mut host, &mut smmus, plan, *ram, index)?;
        say!("strandline: VM {name}: {ending}");
        if !ending.is_success() && failed.is_none() {
            failed = Some(plan::of_vm(name, ending));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Makes a VM, runs it to its end, and takes it apart.
fn one(
    host: &mut Host<'_>,
    smmus: &mut Smmus,
    plan: &plan::VmPlan,
    ram: Region,
    index: usize,
) -> Result<Ending, Failure> {
    let name = &plan.config.name;
    let (list, inbox) = smmus.split();
    let mut before = Audit::take(host.platform);
    let mut guest = create::create(host, list, plan, ram, index).map_err(|why| plan::of_vm(name, why))?;
    before.give_away(guest.stream_tables);
    let ending = guest.run(host, list, inbox);
    guest.take_apart(host, list, inbox).map_err(|why| plan::of_vm(name, why))?;
    let after = Audit::take(host.platform);
    if after != before {
        return Err(plan::of_vm(name, format_args!("EL2 is not as it was: {before}; afterwards {after}")));
    }
    say!("strandline: VM {name}: EL2 is as it was before: {after}");
    Ok(ending)
}

/// Gives the VMs' RAM and, as table frames, all other RAM to the platform.
#[expect(unsafe_code, reason = "says whose memory is whose")]
fn hand_over(platform: &Platform, rams: &[Region], free: FreeRam) -> Result<(), Failure> {
    for ram in rams {
        // SAFETY: 1, 2. It was part of `Machine::free`: mapped RAM that holds neither image, nor tree, nor module.
        unsafe { platform.hand_over(*ram) }.map_err(|_| {
            Failure::Setup("there are more VMs than EL2 can keep: leave out some modules".into())
        })?;
    }
    for piece in free.rest() {
        // SAFETY: as above; 3. `FreeRam` has given it to nobody.
        if unsafe { platform.add_frames(piece) }.is_err() {
            // The pool holds so many pieces: the smaller ones stay unused.
            break;
        }
    }
    Ok(())
}

/// The physical address of what lies at `offset` in a VM's RAM.
const fn at(ram: Region, offset: u64) -> Pa {
    ram.start().offset(offset)
}
