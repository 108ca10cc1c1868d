//! Why a bundle can't be used, each in a line that a person at a console can act on.

use core::fmt;

use crate::format::VERSION;

/// What is wrong with a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It does not begin as a bundle does.
    NoBundle,
    /// It is of another version of the format.
    Version(u32),
    /// Less has been loaded than it says it has.
    Truncated {
        /// Bytes that it says it has.
        says: u64,
        /// Bytes that there are.
        loaded: u64,
    },
    /// Its checksum is not that of its bytes.
    Damaged,
    /// An entry makes no sense, though the checksum is right: whatever made the bundle is wrong.
    Entry(u32, EntryError),
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// It, its arguments or its data lie outside the bundle.
    Outside,
    /// It is neither a kernel nor a ramdisk.
    Kind(u32),
    /// Its arguments are not UTF-8.
    Arguments,
    /// It has no data.
    Empty,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBundle => f.write_str("is no bundle: scripts/image makes one"),
            Self::Version(version) => write!(
                f,
                "is of version {version}, this image reads version {VERSION}: make both by one scripts/image"
            ),
            Self::Truncated { says, loaded } => {
                write!(f, "is cut short: it has {says} bytes, {loaded} of them were loaded")
            }
            Self::Damaged => f.write_str("is damaged: its checksum is wrong; copy it anew"),
            Self::Entry(number, error) => write!(f, "entry {number} {error}"),
        }
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("lies outside the bundle"),
            Self::Kind(number) => write!(f, "is of unknown kind {number}"),
            Self::Arguments => f.write_str("has arguments that are not UTF-8"),
            Self::Empty => f.write_str("is empty"),
        }
    }
}
