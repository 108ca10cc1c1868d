//! Where what stands. All numbers are little endian.

use core::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::Kind;

/// The first bytes of a bundle. The last four notice a transfer that changes ends of lines or drops the eighth bit.
pub const MAGIC: [u8; 8] = *b"STRB\x89\r\n\n";
/// The format's version.
pub const VERSION: u32 = 1;

/// Offset of the version, a 32-bit number.
pub const VERSION_AT: usize = 8;
/// Offset of the number of entries, 32 bits.
pub const COUNT_AT: usize = 12;
/// Offset of the bundle's length in bytes, 64 bits.
pub const LENGTH_AT: usize = 16;
/// Offset of the checksum.
pub const CHECKSUM_AT: usize = 24;
/// Bytes of the checksum.
pub const CHECKSUM_BYTES: usize = 16;
/// Offset of the first entry.
pub const ENTRIES_AT: usize = CHECKSUM_AT + CHECKSUM_BYTES;
/// Bytes of an entry: kind and bytes of arguments (32 bits each), offset of the arguments, offset and bytes of the data
/// (64 bits each).
pub const ENTRY_BYTES: usize = 32;
/// Data begins at multiples of this.
#[cfg(feature = "write")]
pub const DATA_ALIGN: usize = 4096;

/// A kind as an entry has it.
#[cfg(feature = "write")]
pub const fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::Kernel => 1,
        Kind::Ramdisk => 2,
    }
}

/// The kind that an entry's number means.
pub const fn kind(number: u32) -> Option<Kind> {
    match number {
        1 => Some(Kind::Kernel),
        2 => Some(Kind::Ramdisk),
        _ => None,
    }
}

/// SipHash-1-3 with 128 bits, under a key of zeros, of all of a bundle but the checksum itself.
pub fn checksum(bundle: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = SipHasher13::new();
    hasher.write(bundle.get(..CHECKSUM_AT).unwrap_or_default());
    hasher.write(bundle.get(ENTRIES_AT..).unwrap_or_default());
    hasher.finish128().as_bytes()
}
