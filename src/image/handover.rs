//! What UEFI firmware says of the machine in place of its device tree: the EFI application finds it out, and leaves it
//! in memory for the boot path that all loaders share.

use arrayvec::ArrayVec;

use crate::machine::{MAX_RAM, Region};

/// What the EFI application hands over, beside the device tree.
#[derive(Debug)]
pub struct Handover {
    /// RAM that firmware leaves to EL2: sorted, disjoint, neighbours merged. The tree's memory nodes don't know what
    /// firmware keeps.
    pub ram: ArrayVec<Region, MAX_RAM>,
    /// The bundle, where it was loaded.
    pub bundle: Region,
}
