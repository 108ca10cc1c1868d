//! The image as an EFI application: it fetches what a boot loader would hand over, leaves the firmware, and goes on as
//! every other boot does.
//!
//! From the volume it was started from it loads the bundle; from the firmware it takes the device tree and the map of
//! memory. Everything EL2 goes on with is copied into memory of its own (EfiLoaderData). What can be wrong is told on
//! the firmware's console, and the application returns; once the boot services have been left, EL2's own console tells.

mod error;
mod memory_map;

#[cfg(target_os = "none")]
mod firmware;
#[cfg(target_os = "none")]
mod start;
