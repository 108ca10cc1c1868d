//! EL2's own bitmap: where a dirty page that was found lives until it has been delivered.

use crate::addr::PAGE_BYTES;
use crate::bits::ones;
use crate::frames::{FrameBlock, Frames};
use crate::hw::{Cpu, Memory, Word};

/// One bit a page of the logged range, in contiguous frames; bits are set and taken by atomic operations.
#[derive(Debug)]
pub struct Bitmap {
    block: FrameBlock,
    pages: u64,
}

/// Pages set between two windows for interrupts.
const WINDOW_PAGES: u64 = 4096;

/// Bits of a word.
const BITS: u64 = 64;

impl Bitmap {
    /// `log2` of the frames that a bitmap for `pages` pages takes: one bit each, rounded up to a power of two of
    /// frames.
    #[must_use]
    pub const fn order(pages: u64) -> u32 {
        pages.div_ceil(8 * PAGE_BYTES).next_power_of_two().trailing_zeros()
    }

    /// Memory for a bitmap for `pages` pages, whose bits are anything before [`Bitmap::empty`]; `None` where there is
    /// none.
    pub fn new(platform: &impl Frames, pages: u64) -> Option<Self> {
        Some(Self { block: platform.alloc(Self::order(pages))?, pages })
    }

    /// Takes all bits of frame `frame` of the bitmap out, which nobody else reaches yet; `false` where it has no such
    /// frame.
    pub fn empty(&self, memory: &impl Memory, frame: u64) -> bool {
        let there = frame < self.pages.div_ceil(8 * PAGE_BYTES);
        if there {
            memory.fill(self.block.pa().offset(frame * PAGE_BYTES), (PAGE_BYTES / 8) as usize, |_| 0);
        }
        there
    }

    /// Gives its memory back.
    pub fn free(self, platform: &impl Frames) {
        platform.free(self.block);
    }

    /// Sets `count` bits from `first`, with windows for interrupts where they are those of a large block; what lies behind the
    /// end is ignored.
    pub fn set(&self, platform: &(impl Memory + Cpu), first: u64, count: u64) {
        let end = first.saturating_add(count).min(self.pages);
        let mut at = first;
        while at < end {
            let run = (BITS - at % BITS).min(end - at);
            self.word(platform, at / BITS).fetch_or(ones(run) << (at % BITS));
            at += run;
            if at < end && at.is_multiple_of(WINDOW_PAGES) {
                platform.relax();
            }
        }
    }

    /// The 64 bits from `first`, which need not be a multiple of 64; 0 behind the end.
    pub fn get(&self, memory: &impl Memory, first: u64) -> u64 {
        self.each_word(first, u64::MAX, |index, _| self.word(memory, index).load())
    }

    /// Takes those of the 64 bits from `first` that are set in `mask` out of the bitmap, and gives them back.
    pub fn take(&self, memory: &impl Memory, first: u64, mask: u64) -> u64 {
        self.each_word(first, mask, |index, wanted| {
            let word = self.word(memory, index);
            // Most hold nothing, and a load is a tenth of an atomic operation. A bit that is set after the load is taken
            // next time, as one that is set after the operation.
            if word.load() & wanted == 0 { 0 } else { word.fetch_and(!wanted) & wanted }
        })
    }

    /// Puts bits back that [`Bitmap::take`] took from `first`.
    pub fn put_back(&self, memory: &impl Memory, first: u64, bits: u64) {
        self.each_word(first, bits, |index, wanted| self.word(memory, index).fetch_or(wanted));
    }

    /// Calls `access` with each word that holds some of the 64 bits from `first` named in `mask`, and with which
    /// of that word's bits they are; joins what it returns.
    fn each_word(&self, first: u64, mask: u64, access: impl Fn(u64, u64) -> u64) -> u64 {
        let (index, shift) = (first / BITS, first % BITS);
        let mut bits = 0;
        let low = mask << shift;
        if low != 0 && first < self.pages {
            bits |= (access(index, low) & low) >> shift;
        }
        let high = if shift == 0 { 0 } else { mask >> (BITS - shift) };
        if high != 0 && (index + 1) * BITS < self.pages {
            bits |= (access(index + 1, high) & high) << (BITS - shift);
        }
        bits
    }

    fn word<'m, M: Memory>(&self, memory: &'m M, index: u64) -> &'m M::Word {
        &memory.words(self.block.pa().offset(index * 8), 1)[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, take_loads, take_trace};

    fn emptied(fake: &Fake, pages: u64) -> Bitmap {
        let bitmap = Bitmap::new(fake, pages).unwrap();
        assert!(bitmap.empty(fake, 0) && !bitmap.empty(fake, 1));
        bitmap
    }

    #[test]
    fn bits_are_read_and_taken_at_any_offset() {
        let fake = Fake::new(2);
        let bitmap = emptied(&fake, 200);
        bitmap.set(&fake, 60, 10);
        assert_eq!(bitmap.get(&fake, 60), 0x3ff);
        assert_eq!(bitmap.get(&fake, 0), 0xf000_0000_0000_0000);
        assert_eq!(bitmap.get(&fake, 64), 0x3f);
        assert_eq!(bitmap.take(&fake, 59, 0b1101), 0b1100);
        assert_eq!(bitmap.get(&fake, 59), 0b111_1111_0010);
        bitmap.put_back(&fake, 59, 0b1100);
        assert_eq!(bitmap.get(&fake, 60), 0x3ff);
    }

    #[test]
    fn bits_of_a_large_block_are_set_with_windows_for_interrupts() {
        let fake = Fake::new(8);
        let bitmap = Bitmap::new(&fake, 1 << 18).unwrap();
        let before = fake.now_us();
        bitmap.set(&fake, 0, 1 << 18);
        assert_eq!(
            fake.now_us() - before,
            (1 << 18) / WINDOW_PAGES - 1,
            "between them, and none behind the last"
        );
    }

    #[test]
    fn bits_behind_the_end_are_neither_set_nor_read() {
        let fake = Fake::new(2);
        let bitmap = emptied(&fake, 70);
        bitmap.set(&fake, 68, 1000);
        assert_eq!(bitmap.get(&fake, 64), 0b11_0000);
        assert_eq!(bitmap.get(&fake, 128), 0);
        assert_eq!(bitmap.take(&fake, 192, u64::MAX), 0);
    }

    #[test]
    fn the_frame_behind_a_full_bitmap_is_never_touched() {
        let fake = Fake::new(1);
        let pages = 8 * PAGE_BYTES;
        let bitmap = emptied(&fake, pages);
        bitmap.set(&fake, pages - 4, 1000);
        assert_eq!(bitmap.get(&fake, pages - 32), 0xf000_0000);
        assert_eq!(bitmap.get(&fake, pages), 0);
        bitmap.put_back(&fake, pages - 32, u64::MAX);
        assert_eq!(bitmap.take(&fake, pages - 32, u64::MAX), 0xffff_ffff);
    }

    #[test]
    fn words_that_hold_none_of_the_bits_are_left_alone() {
        let fake = Fake::new(1);
        let bitmap = emptied(&fake, 200);
        bitmap.set(&fake, 3, 1);
        take_trace();
        assert_eq!(bitmap.take(&fake, 0, !0b1000), 0);
        assert_eq!(bitmap.take(&fake, 32, u64::MAX), 0);
        assert_eq!(take_trace(), [], "no atomic operation for nothing");
        take_loads();
        assert_eq!(bitmap.take(&fake, 32, 0xffff), 0);
        assert_eq!(take_loads(), 1, "of the word that they are in");
        assert_eq!(bitmap.take(&fake, 32, 0xffff << 32), 0);
        assert_eq!(take_loads(), 1);
    }

    #[test]
    fn memory_is_one_bit_a_page_in_a_power_of_two_of_frames() {
        assert_eq!(Bitmap::order(1), 0);
        assert_eq!(Bitmap::order(8 * 4096), 0);
        assert_eq!(Bitmap::order(8 * 4096 + 1), 1);
        // 1 TiB: 2^28 pages, 32 MiB.
        assert_eq!(Bitmap::order(1 << 28), 13);
    }
}
