//! Making a bundle.

use alloc::vec::Vec;
use core::fmt;

use crate::Entry;
use crate::format::{
    self, CHECKSUM_AT, CHECKSUM_BYTES, DATA_ALIGN, ENTRIES_AT, ENTRY_BYTES, MAGIC, VERSION, kind_number,
};

/// What can't be bundled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// More entries, or longer arguments, than a 32-bit number counts.
    TooMuch,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch => f.write_str("more entries, or longer arguments, than a bundle holds"),
        }
    }
}

/// The bundle of `entries`, in this order. The same entries make the same bytes.
///
/// # Errors
/// There is too much of something.
pub fn write(entries: &[Entry<'_>]) -> Result<Vec<u8>, WriteError> {
    let count = u32::try_from(entries.len()).map_err(|_| WriteError::TooMuch)?;
    let mut bundle = Vec::from(MAGIC);
    bundle.extend(VERSION.to_le_bytes());
    bundle.extend(count.to_le_bytes());
    // Length and checksum: known at the end.
    bundle.resize(ENTRIES_AT + entries.len() * ENTRY_BYTES, 0);
    for (index, entry) in entries.iter().enumerate() {
        let arguments = bundle.len() as u64;
        let argument_bytes = u32::try_from(entry.arguments.len()).map_err(|_| WriteError::TooMuch)?;
        bundle.extend(entry.arguments.as_bytes());
        bundle.resize(bundle.len().next_multiple_of(DATA_ALIGN), 0);
        let data = bundle.len() as u64;
        bundle.extend(entry.data);
        let record = [
            &kind_number(entry.kind).to_le_bytes()[..],
            &argument_bytes.to_le_bytes(),
            &arguments.to_le_bytes(),
            &data.to_le_bytes(),
            &(entry.data.len() as u64).to_le_bytes(),
        ];
        put(&mut bundle, ENTRIES_AT + index * ENTRY_BYTES, &record.concat());
    }
    let length = bundle.len() as u64;
    put(&mut bundle, format::LENGTH_AT, &length.to_le_bytes());
    let checksum: [u8; CHECKSUM_BYTES] = format::checksum(&bundle);
    put(&mut bundle, CHECKSUM_AT, &checksum);
    Ok(bundle)
}

fn put(bundle: &mut [u8], at: usize, bytes: &[u8]) {
    bundle[at..at + bytes.len()].copy_from_slice(bytes);
}
