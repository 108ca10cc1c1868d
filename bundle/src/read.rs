//! Reading: everything is checked once, before anything of it is used.

use crate::format::{self, COUNT_AT, ENTRIES_AT, ENTRY_BYTES, LENGTH_AT, MAGIC, VERSION, VERSION_AT};
use crate::{BundleError, EntryError, Kind};

/// A bundle that has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    count: u32,
}

/// A part of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its arguments: of a kernel, the configuration of its VM.
    pub arguments: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// The bundle at the beginning of `loaded`, which may be longer: loaders round up.
    ///
    /// # Errors
    /// It is none, is of another version, is not all there, or was damaged on the way.
    pub fn read(loaded: &'a [u8]) -> Result<Self, BundleError> {
        if !loaded.starts_with(&MAGIC) {
            return Err(BundleError::NoBundle);
        }
        let cut = |says| BundleError::Truncated { says, loaded: loaded.len() as u64 };
        let header = |at| number(loaded, at).ok_or(cut(ENTRIES_AT as u64));
        let version = header(VERSION_AT)?;
        if version != VERSION {
            return Err(BundleError::Version(version));
        }
        let length = wide(loaded, LENGTH_AT).ok_or(cut(ENTRIES_AT as u64))?;
        let whole = usize::try_from(length).ok().and_then(|length| loaded.get(..length));
        let bundle = Self { bytes: whole.ok_or(cut(length))?, count: header(COUNT_AT)? };
        if bundle.bytes.get(format::CHECKSUM_AT..ENTRIES_AT) != Some(&format::checksum(bundle.bytes)) {
            return Err(BundleError::Damaged);
        }
        for index in 0..bundle.count {
            let _entry = bundle.entry(index).map_err(|error| BundleError::Entry(index, error))?;
        }
        Ok(bundle)
    }

    /// Its entries, in order.
    pub fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        // None is left out: `read` has tried each.
        (0..self.count).filter_map(move |index| self.entry(index).ok())
    }

    fn entry(self, index: u32) -> Result<Entry<'a>, EntryError> {
        let start = usize::try_from(index).ok().and_then(|index| index.checked_mul(ENTRY_BYTES));
        let at = start.and_then(|start| start.checked_add(ENTRIES_AT)).ok_or(EntryError::Outside)?;
        let entry = at.checked_add(ENTRY_BYTES).and_then(|end| self.bytes.get(at..end));
        let entry = entry.ok_or(EntryError::Outside)?;
        let half = |at| number(entry, at).ok_or(EntryError::Outside);
        let word = |at| wide(entry, at).ok_or(EntryError::Outside);
        let kind = half(0)?;
        let arguments = self.piece(word(8)?, half(4)?.into())?;
        let data = self.piece(word(16)?, word(24)?)?;
        if data.is_empty() {
            return Err(EntryError::Empty);
        }
        Ok(Entry {
            kind: format::kind(kind).ok_or(EntryError::Kind(kind))?,
            arguments: core::str::from_utf8(arguments).map_err(|_| EntryError::Arguments)?,
            data,
        })
    }

    /// `bytes` from offset `start`.
    fn piece(self, start: u64, bytes: u64) -> Result<&'a [u8], EntryError> {
        let end = start.checked_add(bytes).and_then(|end| usize::try_from(end).ok());
        let range = usize::try_from(start).ok().zip(end).map(|(start, end)| start..end);
        range.and_then(|range| self.bytes.get(range)).ok_or(EntryError::Outside)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn wide(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
