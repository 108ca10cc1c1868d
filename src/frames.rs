//! Table frames: the trait through which the library takes memory, and (feature `pool`) a frame pool on
//! `buddy_system_allocator`.

#[cfg(feature = "pool")]
mod pool;

use core::fmt;

#[cfg(feature = "pool")]
pub use pool::{AddError, FramePool, PoolStats};

use spin::Mutex;

use crate::addr::{PAGE_BYTES, PAGE_SHIFT, Pa};

/// `2^order` contiguous 4 KiB frames, aligned to their size, owned by whoever holds this value.
///
/// It is neither `Copy` nor `Clone`: a block is given back once. A block that has been linked into a live
/// structure is handed over to that structure ([`FrameBlock::into_pa`]) and taken back from it when no walker can
/// reach it any more.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame block that is dropped is lost; give it back with Frames::free"]
pub struct FrameBlock {
    pa: Pa,
    order: u32,
}

/// Why memory is no block of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadFrame {
    /// The address is not a multiple of the block's size.
    Unaligned {
        /// The address.
        pa: Pa,
        /// The block's size in bytes.
        bytes: u64,
    },
    /// Some of it lies beyond the 48 bits of address that a descriptor holds (Arm ARM D8.3).
    OutOfRange {
        /// The address.
        pa: Pa,
        /// The block's size in bytes.
        bytes: u64,
    },
    /// No block has this order.
    Order(u32),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { pa, bytes } => {
                write!(f, "a frame block of {bytes:#x} bytes is not aligned: {pa}")
            }
            Self::OutOfRange { pa, bytes } => {
                write!(f, "a frame block of {bytes:#x} bytes at {pa} lies beyond 48 address bits")
            }
            Self::Order(order) => write!(f, "no frame block has 2^{order} frames"),
        }
    }
}

/// `log2` of the first physical address that no descriptor holds.
const ADDRESS_BITS: u32 = 48;

impl FrameBlock {
    /// `2^order` frames at `pa`, for implementors of [`Frames`]: memory that is theirs to give away.
    ///
    /// # Errors
    /// It is not aligned to its size, or not all of it has an address that descriptors hold.
    pub const fn new(pa: Pa, order: u32) -> Result<Self, BadFrame> {
        if order >= ADDRESS_BITS - PAGE_SHIFT {
            return Err(BadFrame::Order(order));
        }
        let bytes = PAGE_BYTES << order;
        if !pa.is_aligned(bytes) {
            return Err(BadFrame::Unaligned { pa, bytes });
        }
        // Aligned to its size, it lies on one side of a power of two that is larger.
        if pa.0 >> ADDRESS_BITS != 0 {
            return Err(BadFrame::OutOfRange { pa, bytes });
        }
        Ok(Self { pa, order })
    }

    /// Hands ownership to the structure the block is linked into.
    #[must_use]
    pub fn into_pa(self) -> Pa {
        self.pa
    }

    /// Takes back a block of `2^order` frames at `pa` that [`FrameBlock::into_pa`] gave away.
    pub(crate) const fn from_pa(pa: Pa, order: u32) -> Self {
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

    /// Adds what `other` holds: both are of the same source.
    pub fn absorb(&mut self, other: Self) {
        self.left += other.left;
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

/// A source of physical memory in 4 KiB frames. What it hands out has arbitrary contents: nothing need be zeroed.
///
/// All methods take `&self`: frames are shared by the VMs of a machine, an implementation locks.
///
/// What the library counts on:
/// 1. A frame is handed out once, until it is given back, and nobody else uses it meanwhile. Tables and queues are made
///    of them: a frame that two owners have loses isolation, not a log alone. [`crate::check::platform`] finds the
///    plain cases.
/// 2. [`Memory::words`](crate::hw::Memory::words) reaches all that is handed out.
/// 3. It lies where all walkers reach it: below the CPU's and each SMMU's output size. The SMMU driver checks what it takes
///    itself, and [`FrameBlock::new`] that no address has more than 48 bits.
/// 4. What was reserved can be taken: [`Frames::take`] gives `None` only where the reservation is used up. Nothing is
///    undone where it does before: the change under way fails.
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

/// A plain source of frames: blocks out, blocks in. [`Frames`] follows from it, reservations and all.
///
/// Who has reservations of his own implements [`Frames`] instead.
pub trait FrameSource {
    /// Takes `2^order` contiguous free frames, aligned to their size.
    fn take_block(&self, order: u32) -> Option<FrameBlock>;

    /// Gives a block back, of any order.
    fn give_back(&self, block: FrameBlock);

    /// How many frames are not taken, those set aside among them: so many blocks of order 0 can be taken.
    fn unused_frames(&self) -> usize;

    /// Where what is set aside is counted: a field of its own, which starts as [`Reserved::none`].
    fn reserved(&self) -> &Reserved;
}

/// How many frames of a [`FrameSource`] are set aside. It is also the lock of the source's alloc and reserve.
#[derive(Debug, Default)]
pub struct Reserved(Mutex<usize>);

impl Reserved {
    /// None are.
    #[must_use]
    pub const fn none() -> Self {
        Self(Mutex::new(0))
    }
}

impl<S: FrameSource> Frames for S {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        let reserved = self.reserved().0.lock();
        let frames = 1_usize.checked_shl(order)?;
        if self.unused_frames().saturating_sub(*reserved) < frames {
            return None;
        }
        self.take_block(order)
    }

    fn free(&self, block: FrameBlock) {
        let _reserved = self.reserved().0.lock();
        self.give_back(block);
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        let mut reserved = self.reserved().0.lock();
        let free = self.unused_frames().saturating_sub(*reserved);
        if free < count {
            return Err(OutOfFrames { needed: count, free });
        }
        *reserved += count;
        Ok(FrameReserve::of(count))
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        if !reserve.count_down() {
            return None;
        }
        let mut reserved = self.reserved().0.lock();
        *reserved = reserved.saturating_sub(1);
        self.take_block(0)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        let mut reserved = self.reserved().0.lock();
        *reserved = reserved.saturating_sub(reserve.left());
    }

    fn free_frames(&self) -> usize {
        let reserved = self.reserved().0.lock();
        self.unused_frames().saturating_sub(*reserved)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    /// Single frames, in a list.
    struct List(RefCell<Vec<FrameBlock>>, Reserved);

    impl FrameSource for List {
        fn take_block(&self, order: u32) -> Option<FrameBlock> {
            if order == 0 { self.0.borrow_mut().pop() } else { None }
        }

        fn give_back(&self, block: FrameBlock) {
            self.0.borrow_mut().push(block);
        }

        fn unused_frames(&self) -> usize {
            self.0.borrow().len()
        }

        fn reserved(&self) -> &Reserved {
            &self.1
        }
    }

    #[test]
    fn what_a_plain_source_reserves_nobody_else_is_given() {
        let blocks = (1..4).map(|i| FrameBlock::new(Pa(i << PAGE_SHIFT), 0).unwrap());
        let list = List(RefCell::new(blocks.collect()), Reserved::none());
        let mut reserve = list.reserve(2).unwrap();
        assert_eq!((list.free_frames(), reserve.left()), (1, 2));
        assert_eq!(list.reserve(2), Err(OutOfFrames { needed: 2, free: 1 }));
        let third = list.alloc(0).unwrap();
        assert_eq!((list.alloc(0), list.free_frames()), (None, 0));
        let taken = list.take(&mut reserve).unwrap();
        list.unreserve(reserve);
        assert_eq!((list.free_frames(), list.alloc(1)), (1, None));
        list.free(taken);
        list.free(third);
        assert_eq!(list.free_frames(), 3);
        let mut none = FrameReserve::empty();
        assert_eq!(list.take(&mut none), None);
    }

    #[test]
    fn a_block_is_aligned_to_its_size_and_within_48_bits() {
        assert!(FrameBlock::new(Pa(0x1000), 0).is_ok());
        assert!(FrameBlock::new(Pa(0xffff_ffff_f000), 0).is_ok());
        assert!(FrameBlock::new(Pa(0x8000), 3).is_ok());
        let unaligned = |pa, bytes| Err(BadFrame::Unaligned { pa, bytes });
        assert_eq!(FrameBlock::new(Pa(0x1800), 0), unaligned(Pa(0x1800), 0x1000));
        assert_eq!(FrameBlock::new(Pa(0x3000), 1), unaligned(Pa(0x3000), 0x2000));
        let (pa, bytes) = (Pa(1 << 48), 0x1000);
        assert_eq!(FrameBlock::new(pa, 0), Err(BadFrame::OutOfRange { pa, bytes }));
        assert_eq!(
            [36, u32::MAX].map(|order| FrameBlock::new(Pa(0), order).unwrap_err()),
            [36, u32::MAX].map(BadFrame::Order)
        );
        let message = BadFrame::Unaligned { pa: Pa(0x3000), bytes: 0x2000 }.to_string();
        assert_eq!(message, "a frame block of 0x2000 bytes is not aligned: 0x3000");
    }
}
