//! The arm64 Image (Linux, 'Booting AArch64 Linux', 4): a flat kernel with a header of 64 bytes.

use alloc::vec::Vec;

use strandline::addr::{Ipa, IpaRange};

use super::{LoadError, LoadPlan, Segment};

/// Where the magic number stands, and what it is.
const MAGIC_AT: usize = 0x38;
const MAGIC: &[u8] = b"ARM\x64";
/// The header's fields that matter.
const TEXT_OFFSET_AT: usize = 0x08;
const IMAGE_SIZE_AT: usize = 0x10;
const FLAGS_AT: usize = 0x18;
const HEADER_BYTES: usize = 0x40;
/// Flags: a big-endian kernel.
const FLAG_BIG_ENDIAN: u64 = 1;
/// An image stands `text_offset` above a multiple of this.
const BASE_ALIGN: u64 = 2 << 20;

/// The header of an arm64 Image.
pub(super) struct Header {
    text_offset: u64,
    image_size: u64,
    flags: u64,
}

impl Header {
    /// The header of `module`, if it is such an image.
    pub fn of(module: &[u8]) -> Option<Self> {
        let header = module.first_chunk::<HEADER_BYTES>()?;
        let field = |at: usize| header.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        if !header.get(MAGIC_AT..)?.starts_with(MAGIC) {
            return None;
        }
        Some(Self {
            text_offset: field(TEXT_OFFSET_AT)?,
            image_size: field(IMAGE_SIZE_AT)?,
            flags: field(FLAGS_AT)?,
        })
    }

    /// Puts the image as low in RAM as it may stand.
    pub fn plan(&self, module: &[u8], ram: IpaRange) -> Result<LoadPlan, LoadError> {
        if self.flags & FLAG_BIG_ENDIAN != 0 {
            return Err(LoadError::BigEndian);
        }
        // Kernels before 3.17: what they need behind their end is not bounded.
        if self.image_size == 0 {
            return Err(LoadError::NoImageSize);
        }
        let bytes = self.image_size.max(module.len() as u64);
        let too_little = LoadError::TooLittleMemory {
            what: "kernel",
            needs: self.text_offset.saturating_add(bytes),
            has: ram.bytes(),
        };
        let base = ram.start().0.checked_next_multiple_of(BASE_ALIGN).ok_or(too_little)?;
        let start = base.checked_add(self.text_offset).ok_or(too_little)?;
        let end = start.checked_add(bytes).filter(|end| *end <= ram.end().0).ok_or(too_little)?;
        if !start.is_multiple_of(4) {
            return Err(LoadError::OddEntry(start));
        }
        let zeros = bytes - module.len() as u64;
        let whole = Segment { to: Ipa(start), from: 0..module.len(), zeros };
        Ok(LoadPlan { entry: Ipa(start), segments: Vec::from([whole]), start: Ipa(start), end: Ipa(end) })
    }
}
