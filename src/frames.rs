//! Table frames: the trait through which the library takes memory, and (feature `pool`) a frame pool on
//! `buddy_system_allocator`.

#[cfg(feature = "pool")]
mod pool;

use core::fmt;

#[cfg(feature = "pool")]
pub use pool::{AddError, FramePool, PoolStats};

use crate::addr::{PAGE_BYTES, Pa};

/// `2^order` contiguous 4 KiB frames, aligned to their size, owned by whoever holds this value.
///
/// It is neither `Copy` nor `Clone`: a block is given back once. A block that has been linked into a live
/// structure is handed over to that structure ([`FrameBlock::into_pa`]) and taken back from it when no walker can
/// reach it any more ([`FrameBlock::from_pa`]).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame block that is dropped is lost; give it back with Frames::free"]
pub struct FrameBlock {
    pa: Pa,
    order: u32,
}

impl FrameBlock {
    /// Hands ownership to the structure the block is linked into.
    #[must_use]
    pub fn into_pa(self) -> Pa {
        self.pa
    }

    /// Takes back a block of `2^order` frames at `pa` that [`FrameBlock::into_pa`] gave away.
    pub const fn from_pa(pa: Pa, order: u32) -> Self {
        Self { pa, order }
    }

    /// Where the block begins.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.pa
    }

    /// `log2` of its number of frames.
    #[must_use]
    pub const fn order(&self) -> u32 {
        self.order
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        PAGE_BYTES << self.order
    }
}

/// Single frames set aside by [`Frames::reserve`] and not yet taken.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is dropped is lost; give it back with Frames::unreserve"]
pub struct FrameReserve {
    left: usize,
}

impl FrameReserve {
    /// A reservation of no frame.
    pub const fn empty() -> Self {
        Self { left: 0 }
    }

    /// A reservation of `frames`, for implementors of [`Frames::reserve`].
    pub const fn of(frames: usize) -> Self {
        Self { left: frames }
    }

    /// How many frames are left in it.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Moves `frames` of it into a reservation of their own; fewer where fewer are left.
    pub fn split_off(&mut self, frames: usize) -> Self {
        let moved = frames.min(self.left);
        self.left -= moved;
        Self { left: moved }
    }

    /// Counts one frame as taken; `false` where none is left. For implementors of [`Frames::take`].
    pub const fn count_down(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// There were not as many frames as were asked for; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames {
    /// How many 4 KiB frames the caller needed.
    pub needed: usize,
    /// How many were free.
    pub free: usize,
}

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} table frames needed, {} free", self.needed, self.free)
    }
}

/// A source of physical memory in 4 KiB frames. What it hands out has arbitrary contents.
///
/// All methods take `&self`: frames are shared by the VMs of a machine, an implementation locks.
pub trait Frames {
    /// Takes `2^order` contiguous frames, aligned to their size. Frames set aside by others are never handed out.
    fn alloc(&self, order: u32) -> Option<FrameBlock>;

    /// Gives a block back, of any order, however it was obtained. No walker can reach it any more.
    fn free(&self, block: FrameBlock);

    /// Sets `count` single frames aside: as many [`Frames::take`]s cannot fail then.
    ///
    /// # Errors
    /// Fewer are free; nothing is set aside.
    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames>;

    /// Takes one frame out of `reserve`; `None` where the reservation is used up.
    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock>;

    /// Gives back what is left of a reservation.
    fn unreserve(&self, reserve: FrameReserve);

    /// How many frames are free and not set aside.
    fn free_frames(&self) -> usize;
}
