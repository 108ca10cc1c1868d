//! Which VMs there are: boot modules in the order of their addresses. A kernel starts a VM, ramdisks that follow are
//! its own.
#![expect(unsafe_code, reason = "the bytes of boot modules")]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::with_exposed_provenance;
use core::slice;

use crate::args::{self, VmConfig};
use crate::failure::Failure;
use crate::machine::{Machine, Module, ModuleKind, Region};
use crate::vpci::Ownership;

/// A VM to be started.
pub struct VmPlan {
    /// What its kernel's arguments say.
    pub config: VmConfig,
    /// Its kernel.
    pub kernel: &'static [u8],
    /// Its ramdisk.
    pub ramdisk: Option<&'static [u8]>,
}

/// The VMs that the boot loader has left modules for.
///
/// # Errors
/// There is none, a module is out of place, or arguments can't be used: a line that says which.
pub fn read(machine: &Machine) -> Result<Vec<VmPlan>, Failure> {
    let mut plans: Vec<VmPlan> = Vec::new();
    for module in &machine.modules {
        match (module.kind, plans.last_mut()) {
            (ModuleKind::Kernel, _) => plans.push(kernel(module, plans.len())?),
            (ModuleKind::Ramdisk, None) => {
                return Err(about(module, "a ramdisk without a kernel at a lower address"));
            }
            (ModuleKind::Ramdisk, Some(plan)) if plan.ramdisk.is_some() => {
                return Err(about(module, "a second ramdisk of one VM"));
            }
            (ModuleKind::Ramdisk, Some(plan)) => plan.ramdisk = Some(bytes(module.region)),
        }
    }
    for (index, plan) in plans.iter().enumerate() {
        if plans.iter().take(index).any(|other| other.config.name == plan.config.name) {
            return Err(Failure::Setup(format!("two VMs are called {}", plan.config.name)));
        }
    }
    let mut owners = Ownership::default();
    for (index, plan) in plans.iter().enumerate() {
        for bdf in &plan.config.devices {
            owners.claim(*bdf, index).map_err(|error| of_vm(&plan.config.name, error))?;
        }
    }
    if plans.is_empty() { Err(Failure::NoVm) } else { Ok(plans) }
}

fn kernel(module: &Module, index: usize) -> Result<VmPlan, Failure> {
    let config =
        args::parse(module.bootargs, index).map_err(|error| about(module, &format!("bootargs: {error}")))?;
    Ok(VmPlan { config, kernel: bytes(module.region), ramdisk: None })
}

fn about(module: &Module, what: &str) -> Failure {
    // A name of its own invention may be longer than the heap.
    Failure::Setup(format!("{:.64}: {what}", module.name))
}

/// The bytes of a module.
fn bytes(region: Region) -> &'static [u8] {
    let start = with_exposed_provenance(region.start().0 as usize);
    // SAFETY: `Machine` has checked that the module lies in RAM and overlaps nothing else; it is not part of
    // `Machine::free`, so that nobody is given that memory; EL2 has mapped it.
    unsafe { slice::from_raw_parts(start, region.bytes() as usize) }
}

/// How a VM is called in a failure.
pub fn of_vm(name: &str, why: impl core::fmt::Display) -> Failure {
    let text: String = format!("VM {name}: {why}");
    Failure::Setup(text)
}
