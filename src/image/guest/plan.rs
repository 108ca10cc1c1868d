//! Which VMs there are: boot modules in the order of their addresses, a bundle's parts in their own. A kernel starts a VM,
//! a ramdisk that follows is its own.
#![expect(unsafe_code, reason = "the bytes of boot modules")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ptr::with_exposed_provenance;
use core::slice;

use strandline_bundle::{Bundle, Entry, Kind};

use crate::args::{self, VmConfig};
use crate::failure::Failure;
use crate::machine::{Machine, Module, ModuleKind, Part, PlatformDevice, Region};
use crate::vpci::Ownership;

/// A VM to be started.
pub struct VmPlan {
    /// What its kernel's arguments say.
    pub config: VmConfig,
    /// Its kernel.
    pub kernel: &'static [u8],
    /// Its ramdisk.
    pub ramdisk: Option<&'static [u8]>,
    /// Its devices that are no PCI functions, in the order of their paths in `config`.
    pub nodes: Vec<PlatformDevice>,
}

/// The VMs that the boot loader has left modules for.
///
/// # Errors
/// There is none, a module is out of place, or arguments can't be used: a line that says which.
pub fn read(machine: &Machine) -> Result<Vec<VmPlan>, Failure> {
    let mut plans: Vec<VmPlan> = Vec::new();
    for module in &machine.modules {
        let data = bytes(module.region);
        let kind = match module.kind {
            ModuleKind::Kernel => Kind::Kernel,
            ModuleKind::Ramdisk => Kind::Ramdisk,
            ModuleKind::Bundle => {
                let bundle = Bundle::read(data)
                    .map_err(|error| Failure::Setup(format!("bundle at {} {error}", module.region)))?;
                for (number, entry) in bundle.entries().enumerate() {
                    let part = About { module, entry: Some(number) };
                    add(&mut plans, &entry).map_err(|why| part.failure(why))?;
                }
                continue;
            }
        };
        let entry = Entry { kind, arguments: module.bootargs, data };
        add(&mut plans, &entry).map_err(|why| About { module, entry: None }.failure(why))?;
    }
    for (index, plan) in plans.iter().enumerate() {
        if plans.iter().take(index).any(|other| other.config.name == plan.config.name) {
            return Err(Failure::Setup(format!("two VMs are called {}", plan.config.name)));
        }
    }
    let mut owners = Ownership::default();
    for (index, plan) in plans.iter_mut().enumerate() {
        claim(machine, &mut owners, index, plan).map_err(|why| of_vm(&plan.config.name, why))?;
    }
    if plans.is_empty() { Err(Failure::NoVm) } else { Ok(plans) }
}

/// Finds the devices of VM number `index`, and claims them for it.
fn claim(machine: &Machine, owners: &mut Ownership, index: usize, plan: &mut VmPlan) -> Result<(), String> {
    for bdf in &plan.config.devices {
        let mut parts = Vec::from([bdf.part()]);
        let host = machine.pcie.first();
        if let Some((smmu, stream)) = host.and_then(|host| host.stream_of(bdf.requester_id())) {
            parts.push(Part::Stream(smmu, stream));
        }
        owners.claim(&bdf.to_string(), index, parts)?;
    }
    for path in &plan.config.nodes {
        let device = machine.platform_device(path).map_err(|error| format!("device {path}: {error}"))?;
        let device = device.ok_or_else(|| format!("device {path}: the machine's tree has no such node"))?;
        owners.claim(path, index, device.parts.clone())?;
        plan.nodes.push(device);
    }
    Ok(())
}

/// Adds a kernel's VM, or a ramdisk to the last one.
fn add(plans: &mut Vec<VmPlan>, part: &Entry<'static>) -> Result<(), String> {
    match (part.kind, plans.last_mut()) {
        (Kind::Kernel, _) => {
            let config =
                args::parse(part.arguments, plans.len()).map_err(|error| format!("bootargs: {error}"))?;
            plans.push(VmPlan { config, kernel: part.data, ramdisk: None, nodes: Vec::new() });
            Ok(())
        }
        (Kind::Ramdisk, None) => Err("a ramdisk without a kernel before it".into()),
        (Kind::Ramdisk, Some(plan)) if plan.ramdisk.is_some() => Err("a second ramdisk of one VM".into()),
        (Kind::Ramdisk, Some(plan)) => {
            plan.ramdisk = Some(part.data);
            Ok(())
        }
    }
}

/// What a failure is about: a module, or an entry of a bundle.
struct About<'a> {
    module: &'a Module,
    entry: Option<usize>,
}

impl About<'_> {
    #[cold]
    fn failure(self, why: impl fmt::Display) -> Failure {
        // A name of its own invention may be longer than the heap.
        let name = self.module.name;
        Failure::Setup(match self.entry {
            Some(entry) => format!("{name:.64} entry {entry}: {why}"),
            None => format!("{name:.64}: {why}"),
        })
    }
}

/// The bytes of a module.
fn bytes(region: Region) -> &'static [u8] {
    let start = with_exposed_provenance(region.start().0 as usize);
    // SAFETY: `Machine` has checked that the module lies in RAM and overlaps nothing else; it is not part of
    // `Machine::free`, so that nobody is given that memory; EL2 has mapped it.
    unsafe { slice::from_raw_parts(start, region.bytes() as usize) }
}

/// How a VM is called in a failure.
#[cold]
#[inline(never)]
pub fn of_vm(name: &str, why: impl fmt::Display) -> Failure {
    let text: String = format!("VM {name}: {why}");
    Failure::Setup(text)
}
