//! PCI for guests: EL2 owns the configuration space, a VM gets functions.
//!
//! [`assign`] takes a function out of the hands of firmware, quiet and with BARs in windows of EL2's choice, and says
//! what is to be mapped. [`VirtualPci`] is the configuration space the VM sees: its own functions and nothing else.
//! [`Ownership`] keeps an isolation group in one VM. [`quiesce`] takes a function away.
//!
//! Only functions on the root bus can be assigned so far, and none has interrupts: neither MSI nor interrupt pins are
//! shown until there are virtual interrupts to deliver. A virtio function is assigned if it is behind the SMMU.

mod assign;
mod bar;
mod bdf;
mod capability;
mod config;
#[cfg(test)]
mod fake;
mod function;
mod ownership;
mod virtio;
mod virtual_pci;
mod window;

pub use assign::{AssignedFunction, BarMapping, assign};
pub use bdf::Bdf;
pub use config::ConfigSpace;
pub use function::{quiesce, silence_bus};
pub use ownership::Ownership;
pub use virtual_pci::VirtualPci;
pub use window::{HostWindows, PciWindow, Window};
