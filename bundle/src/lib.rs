//! One file with the VMs of a machine in it: guest kernels, ramdisks, and the words that configure each VM.
//!
//! A boot loader needs to know nothing of it: it is loaded as one piece and handed over as an initial ramdisk is.
//! `docs/boot.md` has the format. The checksum tells of damage on the way (a bad card, a transfer cut short); it is no
//! signature, and protects from nobody who means harm.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "write")]
extern crate alloc;

mod error;
mod format;
mod read;
#[cfg(feature = "write")]
mod write;

pub use error::{BundleError, EntryError};
pub use read::{Bundle, Entry};
#[cfg(feature = "write")]
pub use write::{WriteError, write};

/// What a part of a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A guest's kernel: it starts a VM.
    Kernel,
    /// An initial ramdisk, of the VM whose kernel precedes it.
    Ramdisk,
}
