//! A guest's buffer: an allegation until every page of it has been found in the caller's own view.

use strandline_abi::Error;

use super::CallError;
use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa};
use crate::address_space::AddressSpace;
use crate::hw::{DmaTlb, Platform};

/// The most pages a buffer touches: it has at most one page of words, and begins anywhere.
const MAX_PAGES: usize = 2;

/// Words of the caller's own memory, validated: RAM that its vCPUs may read and write, at these physical addresses
/// for as long as the address space is held.
#[derive(Clone, Copy, Debug)]
pub struct GuestBuffer {
    start: Ipa,
    words: usize,
    pages: [Pa; MAX_PAGES],
}

impl GuestBuffer {
    /// The most words of a buffer.
    pub const MAX_WORDS: usize = PAGE_BYTES as usize / 8;

    /// Validates `words` 64-bit words from `start`, at most [`Self::MAX_WORDS`].
    ///
    /// # Errors
    /// *Unaligned*: `start` is not a multiple of 8. *Out of range*: it wraps, or the page at the returned address
    /// is not RAM that the caller may write.
    pub fn validate<P: Platform, D: DmaTlb>(
        platform: &P,
        space: &AddressSpace<'_, D>,
        start: Ipa,
        words: usize,
    ) -> Result<Self, CallError> {
        let words = words.min(Self::MAX_WORDS);
        let mut pages = [Pa(0); MAX_PAGES];
        for (page, ipa) in pages.iter_mut().zip(pages_of(start, words as u64)?) {
            *page = space.guest_ram(platform, ipa).ok_or(CallError::new(Error::OutOfRange, ipa.0))?;
        }
        Ok(Self { start, words, pages })
    }

    /// Checks every page of a buffer of any size, without keeping where they lie.
    ///
    /// # Errors
    /// As [`GuestBuffer::validate`].
    pub fn check<P: Platform, D: DmaTlb>(
        platform: &P,
        space: &AddressSpace<'_, D>,
        start: Ipa,
        words: u64,
    ) -> Result<(), CallError> {
        for (i, ipa) in (1_u64..).zip(pages_of(start, words)?) {
            if i.is_multiple_of(64) {
                platform.relax();
            }
            space.guest_ram(platform, ipa).ok_or(CallError::new(Error::OutOfRange, ipa.0))?;
        }
        Ok(())
    }

    /// Word `index`, or `None` behind the end.
    #[must_use]
    pub fn word<'p, P: Platform>(&self, platform: &'p P, index: u64) -> Option<&'p P::Word> {
        if index >= self.words as u64 {
            return None;
        }
        let offset = self.start.0 % PAGE_BYTES + index * 8;
        let page = self.pages.get(usize::try_from(offset / PAGE_BYTES).ok()?)?;
        Some(&platform.words(page.offset(offset % PAGE_BYTES), 1)[0])
    }

    /// The pages it touches, for [`AddressSpace::mark_written`].
    #[must_use]
    pub fn touched(&self) -> Option<IpaRange> {
        if self.words == 0 {
            return None;
        }
        let first = self.start.align_down(PAGE_BYTES);
        let end = self.start.0 + self.words as u64 * 8;
        IpaRange::new(first, (end - first.0).next_multiple_of(PAGE_BYTES)).ok()
    }
}

/// The first addresses of the pages that `words` words from `start` touch.
fn pages_of(start: Ipa, words: u64) -> Result<impl Iterator<Item = Ipa>, CallError> {
    if !start.is_aligned(8) {
        return Err(CallError::new(Error::Unaligned, start.0));
    }
    let end = words.checked_mul(8).and_then(|bytes| start.checked_add(bytes));
    let end = end.ok_or(CallError::new(Error::OutOfRange, start.0))?;
    let first = if words == 0 { end } else { start.align_down(PAGE_BYTES) };
    Ok((first.0..end.0).step_by(PAGE_BYTES as usize).map(Ipa))
}
