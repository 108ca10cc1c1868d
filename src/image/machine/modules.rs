//! Boot modules: what a boot loader has put into memory beside EL2, for the VMs: one by one (multiboot on Arm), or as a
//! bundle, which loaders that know nothing of it hand over as an initial ramdisk.

use arrayvec::ArrayVec;

use super::memory::push;
use super::tree::{Cells, Place, Tree};
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
    /// Both, for any number of VMs, and how they are configured.
    Bundle,
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

impl Module {
    /// The bundle that lies at `region`.
    pub const fn bundle(region: Region) -> Self {
        Self { region, kind: ModuleKind::Bundle, bootargs: "", name: "bundle" }
    }
}

/// Adds the modules under `/chosen`, sorted by address, and the initial ramdisk, unless there is a bundle already. There
/// may be none.
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
    if !modules.iter().any(|m| m.kind == ModuleKind::Bundle)
        && let Some(region) = read_initrd(tree)?
    {
        push(modules, "boot modules", Module::bundle(region))?;
    }
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

/// Where `/chosen` says that an initial ramdisk lies: `linux,initrd-start` and `-end`, of one cell or two.
fn read_initrd(tree: Tree) -> Result<Option<Region>, TreeError> {
    const START: &str = "linux,initrd-start";
    const END: &str = "linux,initrd-end";
    let Some(chosen) = tree.by_path("/chosen")? else { return Ok(None) };
    let address = |name| {
        let bytes = chosen.property(name).unwrap_or_default();
        Cells(bytes).take(bytes.len() / 4).ok_or_else(|| chosen.wrong(name, "is not an address"))
    };
    if chosen.property(START).is_none() && chosen.property(END).is_none() {
        return Ok(None);
    }
    let region = Region::between(address(START)?, address(END)?);
    region.map(Some).ok_or_else(|| chosen.wrong(END, "is not above linux,initrd-start"))
}
