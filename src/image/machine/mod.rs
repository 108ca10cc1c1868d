//! The machine: what of a device tree EL2 needs to know, checked once and then relied upon.
//!
//! Read before the MMU is on, so there is neither an allocator nor an atomic read-modify-write here: lists have a
//! fixed capacity, and too many of something is an error that says so. A tree is input: nothing in it makes EL2
//! panic.

mod console;
mod devices;
mod error;
mod fdt;
mod firmware;
mod memory;
mod modules;
mod pcie;
mod platform;
mod region;
#[cfg(test)]
mod tests;
mod tree;

use arrayvec::ArrayVec;

use crate::handover::Handover;

pub use console::{Uart, UartKind};
pub use devices::{Gic, Interrupt, SmmuNode, Trigger};
pub use error::TreeError;
pub use firmware::{Conduit, Overrides};
pub use memory::{MAX_RAM, Reserved};
pub use modules::{Module, ModuleKind};
pub use pcie::{PcieHost, Window, WindowKind};
pub use platform::{Part, PlatformDevice};
pub use region::Region;
pub use tree::Tree;

/// RAM, UART, distributor, redistributors, SMMUs, PCIe hosts and their windows.
const MAX_CLAIMED: usize = MAX_RAM
    + 2
    + devices::MAX_REDISTRIBUTORS
    + devices::MAX_SMMUS
    + pcie::MAX_HOSTS * (1 + pcie::MAX_WINDOWS);
/// The most bytes used of the seed that firmware leaves.
pub const SEED_BYTES: usize = 32;

/// Everything EL2 knows of the machine it runs on.
#[derive(Debug)]
pub struct Machine {
    /// Where all of it stands.
    pub tree: Tree,
    /// RAM in whole pages: sorted, disjoint, neighbours merged.
    pub ram: ArrayVec<Region, { memory::MAX_RAM }>,
    /// What is claimed: by the tree's reservations, by the tree itself, by EL2's image.
    pub reserved: ArrayVec<Reserved, { memory::MAX_RESERVED }>,
    /// RAM in whole pages that is neither reserved nor part of a module: sorted, disjoint.
    pub free: ArrayVec<Region, { memory::MAX_FREE }>,
    /// The console.
    pub uart: Uart,
    /// How PSCI is called, where the tree names it.
    pub psci: Option<Conduit>,
    /// What the board says beside.
    pub overrides: Overrides,
    /// The interrupt controller.
    pub gic: Gic,
    /// The interrupt of EL2's physical timer.
    pub timer: Interrupt,
    /// The SMMUs; at least one.
    pub smmus: ArrayVec<SmmuNode, { devices::MAX_SMMUS }>,
    /// The PCIe hosts.
    pub pcie: ArrayVec<PcieHost, { pcie::MAX_HOSTS }>,
    /// How many CPUs the tree names.
    pub cpus: usize,
    /// The seed for random numbers that firmware has left (`/chosen/rng-seed`), as much of it as is used.
    pub seed: ArrayVec<u8, SEED_BYTES>,
    /// What the boot loader has left for the VMs, sorted by address.
    pub modules: ArrayVec<Module, { modules::MAX_MODULES }>,
    /// Caches may hold dirty lines of RAM: UEFI firmware works with its caches on, and does not clean them at its end.
    pub dirty_caches: bool,
}

impl Machine {
    /// What fits into a register or two; the lists are empty as yet. For [`Machine::read_lists`] to go on.
    ///
    /// Two steps, so that the lists are filled where they stay: they are several KiB, and the stack below is small.
    ///
    /// # Errors
    /// Something is missing, wrong or not supported.
    pub fn read_basics(
        tree: Tree,
        uart: Uart,
        psci: Option<Conduit>,
        overrides: Overrides,
    ) -> Result<Self, TreeError> {
        let gic = Gic::read(tree)?;
        Ok(Self {
            tree,
            ram: ArrayVec::new(),
            reserved: ArrayVec::new(),
            free: ArrayVec::new(),
            uart,
            psci,
            overrides,
            timer: gic.read_el2_timer(tree)?,
            gic,
            smmus: ArrayVec::new(),
            pcie: ArrayVec::new(),
            cpus: count_cpus(tree)?,
            seed: read_seed(tree)?,
            modules: ArrayVec::new(),
            dirty_caches: false,
        })
    }

    /// Takes what UEFI firmware has said in place of the tree: [`Machine::read_lists`] then asks the tree for the rest.
    pub fn take_over(&mut self, handover: &Handover) {
        self.ram = handover.ram.clone();
        self.modules.push(Module::bundle(handover.bundle));
        self.dirty_caches = true;
    }

    /// The rest of `tree`, which lies at `tree_region`, for an EL2 that lies at `image`.
    ///
    /// # Errors
    /// Something is missing, wrong, not supported, or collides with something else.
    pub fn read_lists(&mut self, tree: Tree, tree_region: Region, image: Region) -> Result<(), TreeError> {
        if self.ram.is_empty() {
            memory::read_ram(tree, &mut self.ram)?;
        }
        devices::read_smmus(tree, &self.gic, &mut self.smmus)?;
        memory::read_reserved(tree, &mut self.reserved)?;
        for (region, what) in [(tree_region, "device tree"), (image, "image of EL2")] {
            if !self.ram.iter().any(|r| r.covers(region)) {
                return Err(TreeError::OutsideRam(what, region));
            }
            // What may not be mapped could not be read, or run, once EL2 maps the machine.
            if let Some(hole) = self.reserved.iter().find(|r| r.no_map && r.region.overlaps(region)) {
                return Err(TreeError::Overlap { one: (what, region), other: (hole.what, hole.region) });
            }
            memory::push(&mut self.reserved, "reservations", Reserved { region, what, no_map: false })?;
        }
        modules::read_modules(tree, &mut self.modules)?;
        memory::check_modules(&self.ram, &self.reserved, &self.modules)?;
        let taken = self.reserved.iter().map(|r| r.region).chain(self.modules.iter().map(|m| m.region));
        memory::subtract(&self.ram, taken, &mut self.free)?;
        pcie::read_hosts(tree, &self.smmus, &mut self.pcie)?;
        self.check_devices()
    }

    /// The bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.ram.iter().map(|r| r.bytes()).sum()
    }

    /// The registers EL2 accesses, each with the name of its node.
    pub fn devices(&self) -> impl Iterator<Item = (&'static str, Region)> + Clone + '_ {
        let fixed = [(self.uart.name, self.uart.region), (self.gic.name, self.gic.distributor)];
        let redistributors = self.gic.redistributors.iter().map(|r| (self.gic.name, *r));
        let smmus = self.smmus.iter().map(|s| (s.name, s.region));
        let ecam = self.pcie.iter().map(|p| (p.name, p.ecam));
        fixed.into_iter().chain(redistributors).chain(smmus).chain(ecam)
    }

    /// Registers are not RAM, and no two devices are one. Nor is what a PCIe host forwards: BARs are placed there, and
    /// mapped for guests.
    fn check_devices(&self) -> Result<(), TreeError> {
        let claimed = self.claimed();
        for (index, device) in claimed.iter().enumerate().skip(self.ram.len()) {
            if let Some(other) = claimed.iter().take(index).find(|other| other.1.overlaps(device.1)) {
                return Err(TreeError::Overlap { one: *device, other: *other });
            }
        }
        Ok(())
    }

    /// RAM, the registers that EL2 accesses, and what PCIe hosts forward, each with a name.
    fn claimed(&self) -> ArrayVec<(&'static str, Region), MAX_CLAIMED> {
        let mut claimed = ArrayVec::new();
        let mut claim = |name, region| claimed.push((name, region));
        self.ram.iter().for_each(|ram| claim("RAM", *ram));
        self.devices().for_each(|(name, region)| claim(name, region));
        for host in &self.pcie {
            host.windows.iter().for_each(|window| claim("PCIe window", window.cpu));
        }
        claimed
    }
}

fn read_seed<const N: usize>(tree: Tree) -> Result<ArrayVec<u8, N>, TreeError> {
    let chosen = tree.by_path("/chosen")?;
    let bytes = chosen.and_then(|c| c.property("rng-seed")).unwrap_or_default();
    Ok(bytes.iter().copied().take(N).collect())
}

fn count_cpus(tree: Tree) -> Result<usize, TreeError> {
    let mut cpus = 0;
    tree.each(&mut |place| {
        cpus += usize::from(place.parent_name() == "cpus" && place.string("device_type") == Some("cpu"));
        Ok(())
    })?;
    Ok(cpus)
}
