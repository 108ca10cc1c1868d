//! Boot modules: what a boot loader has put into memory beside EL2, for the VMs (multiboot on Arm).

use arrayvec::ArrayVec;

use super::memory::push;
use super::tree::{Place, Tree};
use super::{Region, TreeError};

/// How many modules there may be.
pub const MAX_MODULES: usize = 16;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A guest's kernel: it starts a VM.
    Kernel,
    /// An initial RAM disk, of the VM whose kernel precedes it.
    Ramdisk,
}

/// A module in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where it is, to the byte.
    pub region: Region,
    /// What it is.
    pub kind: ModuleKind,
    /// Its arguments; empty where it has none.
    pub bootargs: &'static str,
    /// The name of its node.
    pub name: &'static str,
}

/// Adds the modules under `/chosen`, sorted by address. There may be none.
///
/// # Errors
/// A node is wrong, or is of a kind EL2 does not know.
pub fn read_modules(tree: Tree, modules: &mut ArrayVec<Module, MAX_MODULES>) -> Result<(), TreeError> {
    tree.each_compatible(&["multiboot,module"], &mut |place| {
        if place.parent_name() == "chosen" {
            push(modules, "boot modules", read_module(place)?)?;
        }
        Ok(())
    })?;
    crate::sort::by_key(modules, |m| m.region.start());
    Ok(())
}

fn read_module(place: &Place) -> Result<Module, TreeError> {
    let kind = match place.compatible_with(&["multiboot,kernel", "multiboot,ramdisk"]) {
        Some("multiboot,kernel") => ModuleKind::Kernel,
        Some(_) => ModuleKind::Ramdisk,
        None => return Err(place.wrong("compatible", "is neither multiboot,kernel nor multiboot,ramdisk")),
    };
    let bootargs = match place.property("bootargs") {
        Some(_) => place.string("bootargs").ok_or_else(|| place.wrong("bootargs", "is not a string"))?,
        None => "",
    };
    Ok(Module { region: place.reg(0)?, kind, bootargs, name: place.name() })
}
