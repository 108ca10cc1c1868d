//! What has to be the same before and after a VM: EL2's code and constants, and how many frames are free. Always on:
//! it costs one pass over the image for each VM.
#![expect(unsafe_code, reason = "reads the image's own bytes")]

use core::fmt;
use core::ops::Range;
use core::ptr::with_exposed_provenance;

use strandline::frames::Frames;

use super::layout;
use super::platform::Platform;

/// A state of EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    sum: u64,
    free_frames: usize,
}

impl Audit {
    /// The state now.
    pub fn take(platform: &Platform) -> Self {
        let sum = [layout::text(), layout::rodata()].into_iter().fold(FNV_OFFSET, sum);
        Self { sum, free_frames: platform.free_frames() }
    }

    /// So many frames are given away for good.
    pub const fn give_away(&mut self, frames: usize) {
        self.free_frames = self.free_frames.saturating_sub(frames);
    }
}

/// FNV-1a (Fowler, Noll, Vo), by words in place of bytes: each step is one to one, so that no single change is missed.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

fn sum(sum: u64, region: Range<u64>) -> u64 {
    region.step_by(size_of::<u64>()).fold(sum, |sum, address| {
        let word = with_exposed_provenance::<u64>(address as usize);
        // SAFETY: a word of the image: `region` is whole pages of code or constants, mapped to be read, which nobody
        // may change. Whether somebody has is the question, so that it is not the compiler's to answer.
        let word = unsafe { word.read_volatile() };
        (sum ^ word).wrapping_mul(FNV_PRIME)
    })
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sum of EL2's code and constants {:#018x}, {} frames free", self.sum, self.free_frames)
    }
}
