//! A frame pool on `buddy_system_allocator`, with a stack of single frames before it.
//!
//! Tables come and go one frame at a time, by the hundred thousand: giving a frame back to the buddy system walks a
//! free list, so single frames that are freed go onto a stack instead, threaded through the frames themselves, and are
//! handed out again from there. Only when a larger block can't be had is the stack given back to the buddy system, to
//! be merged. A frame is touched first when it is handed out or split off: memory that backs the pool lazily stays
//! untouched.
#![expect(unsafe_code, reason = "free frames hold the links of the lists they are in")]

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use buddy_system_allocator::Heap;
use spin::Mutex;

use super::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use crate::addr::{PAGE_BYTES, PAGE_SHIFT, Pa};

/// `log2` of the largest block's bytes: 64 TiB, beyond what a machine has in one piece.
const MAX_BLOCK_SHIFT: usize = 46;
/// How many pieces of memory a pool can be made of.
const MAX_REGIONS: usize = 16;
const FRAME_BYTES: usize = PAGE_BYTES as usize;

/// A pool of table frames. Physical addresses are the addresses of the memory it was given ([`FramePool::add`]).
pub struct FramePool(Mutex<Pool>);

/// Why memory could not be added to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// There is no whole frame in it.
    TooSmall,
    /// The pool is made of too many pieces already.
    TooManyRegions,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => f.write_str("no whole frame in it"),
            Self::TooManyRegions => write!(f, "a frame pool of more than {MAX_REGIONS} pieces"),
        }
    }
}

/// How a pool is doing, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// How many it has been given.
    pub total: usize,
    /// How many of them are not handed out; reserved ones count.
    pub free: usize,
    /// How many of the free ones are set aside.
    pub reserved: usize,
    /// The most that were handed out at one time.
    pub most_used: usize,
}

/// The link in a free frame on the stack.
struct FreeFrame {
    next: Option<NonNull<FreeFrame>>,
}

/// A piece of memory the pool was given.
#[derive(Clone, Copy)]
struct Region {
    base: NonNull<u8>,
    frames: usize,
}

struct Pool {
    buddies: Heap<{ MAX_BLOCK_SHIFT + 1 }>,
    stack: Option<NonNull<FreeFrame>>,
    regions: [Option<Region>; MAX_REGIONS],
    stats: PoolStats,
}

// SAFETY: the pointers are to memory that is the pool's alone (`FramePool::add`), not bound to a thread.
unsafe impl Send for Pool {}

impl FramePool {
    /// A pool without a frame.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Pool {
            buddies: Heap::new(),
            stack: None,
            regions: [None; MAX_REGIONS],
            stats: PoolStats { total: 0, free: 0, reserved: 0, most_used: 0 },
        }))
    }

    /// Adds the whole frames of `bytes` from `memory`.
    ///
    /// # Errors
    /// There is none, or the pool has too many pieces; nothing is added then.
    ///
    /// # Safety
    /// 1. The memory can be read and written through `memory`, as long as the pool or a block from it is in use.
    /// 2. It is the pool's alone: no Rust object lies in it, and nothing else is accessed through it, except by who
    ///    holds a block, in that block.
    /// 3. Where walkers use the frames, the address of `memory` is its physical address.
    pub unsafe fn add(&self, memory: *mut u8, bytes: usize) -> Result<(), AddError> {
        let skip = memory.addr().next_multiple_of(FRAME_BYTES) - memory.addr();
        let frames = bytes.saturating_sub(skip) / FRAME_BYTES;
        if frames == 0 {
            return Err(AddError::TooSmall);
        }
        let mut pool = self.0.lock();
        let slot = pool.regions.iter_mut().find(|r| r.is_none()).ok_or(AddError::TooManyRegions)?;
        let base = NonNull::new(memory.wrapping_add(skip)).ok_or(AddError::TooSmall)?;
        *slot = Some(Region { base, frames });
        // The buddy system takes addresses, and makes pointers of them.
        let start = base.as_ptr().expose_provenance();
        // SAFETY: the frames are valid (1) and nobody else's (2); `add` is called once for them, by 2.
        unsafe { pool.buddies.add_to_heap(start, start + frames * FRAME_BYTES) };
        pool.stats.total += frames;
        pool.stats.free += frames;
        Ok(())
    }

    /// How the pool is doing.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.0.lock().stats
    }
}

impl Default for FramePool {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames for FramePool {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        let mut pool = self.0.lock();
        let frames = 1_usize.checked_shl(order)?;
        if pool.stats.free - pool.stats.reserved < frames {
            return None;
        }
        pool.take_block(order)
    }

    /// # Panics
    /// The block is none of this pool's: an error of the caller's that would corrupt it.
    fn free(&self, block: FrameBlock) {
        self.0.lock().give_back(block);
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        let mut pool = self.0.lock();
        let free = pool.stats.free - pool.stats.reserved;
        if free < count {
            return Err(OutOfFrames { needed: count, free });
        }
        pool.stats.reserved += count;
        Ok(FrameReserve::of(count))
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        if !reserve.count_down() {
            return None;
        }
        let mut pool = self.0.lock();
        pool.stats.reserved -= 1;
        pool.take_block(0)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.0.lock().stats.reserved -= reserve.left();
    }

    fn free_frames(&self) -> usize {
        let pool = self.0.lock();
        pool.stats.free - pool.stats.reserved
    }
}

impl Pool {
    fn take_block(&mut self, order: u32) -> Option<FrameBlock> {
        let memory = match order {
            0 => self.pop().or_else(|| self.take_from_buddies(0))?,
            _ => self.take_from_buddies(order).or_else(|| {
                self.merge_stack();
                self.take_from_buddies(order)
            })?,
        };
        self.stats.free -= 1 << order;
        self.stats.most_used = self.stats.most_used.max(self.stats.total - self.stats.free);
        Some(FrameBlock::from_pa(Pa(memory.addr().get() as u64), order))
    }

    fn give_back(&mut self, block: FrameBlock) {
        let order = block.order();
        let memory = self.memory_of(block);
        self.stats.free += 1 << order;
        if order == 0 {
            self.push(memory);
        } else {
            self.give_to_buddies(memory, order);
        }
    }

    /// The memory of a block that its owner has given up.
    fn memory_of(&self, block: FrameBlock) -> NonNull<u8> {
        let (order, pa) = (block.order(), block.into_pa());
        let bytes = FRAME_BYTES << order;
        let inside = |region: &Region| {
            let offset = usize::try_from(pa.0).ok()?.checked_sub(region.base.addr().get())?;
            let end = offset.checked_add(bytes)?;
            (end <= region.frames * FRAME_BYTES && pa.is_aligned(bytes as u64))
                .then_some((region.base, offset))
        };
        let Some((base, offset)) = self.regions.iter().flatten().find_map(inside) else {
            panic!("{pa} is no block of 2^{order} frames of this pool");
        };
        // SAFETY: inside the region, as was just checked.
        unsafe { base.add(offset) }
    }

    fn take_from_buddies(&mut self, order: u32) -> Option<NonNull<u8>> {
        self.buddies.alloc(layout(order)?).ok()
    }

    fn give_to_buddies(&mut self, memory: NonNull<u8>, order: u32) {
        if let Some(layout) = layout(order) {
            // SAFETY: the block came from `take_from_buddies` with this order, and its owner has given it up.
            unsafe { self.buddies.dealloc(memory, layout) };
        }
    }

    fn push(&mut self, memory: NonNull<u8>) {
        let frame = memory.cast::<FreeFrame>();
        // SAFETY: a frame of the pool that nobody uses any more: valid, and aligned well beyond the link.
        unsafe { frame.write(FreeFrame { next: self.stack }) };
        self.stack = Some(frame);
    }

    fn pop(&mut self) -> Option<NonNull<u8>> {
        let frame = self.stack?;
        // SAFETY: a frame on the stack holds the link that `push` wrote.
        self.stack = unsafe { frame.read() }.next;
        Some(frame.cast())
    }

    /// Gives all single frames back to the buddy system. In ascending order, where each frame's buddy, if it is free
    /// too, is the one given back just before: looking for it is short then.
    fn merge_stack(&mut self) {
        self.stack = sort(self.stack.take());
        while let Some(frame) = self.pop() {
            self.give_to_buddies(frame, 0);
        }
    }
}

/// The layout of a block of `2^order` frames; `None` where that is beyond every pool.
fn layout(order: u32) -> Option<Layout> {
    let shift = PAGE_SHIFT.checked_add(order).filter(|s| (*s as usize) < MAX_BLOCK_SHIFT)?;
    Layout::from_size_align(1 << shift, 1 << shift).ok()
}

/// Sorts a list of free frames by address, ascending: a merge sort from the bottom up, whose sorted runs of 2^n frames
/// wait in bin n.
fn sort(mut list: Option<NonNull<FreeFrame>>) -> Option<NonNull<FreeFrame>> {
    let mut bins: [Option<NonNull<FreeFrame>>; usize::BITS as usize] = [None; usize::BITS as usize];
    while let Some(mut frame) = list {
        // SAFETY: a free frame on a list that is this function's alone holds a valid link.
        list = unsafe { frame.as_mut() }.next.take();
        let mut run = Some(frame);
        for bin in &mut bins {
            match bin.take() {
                Some(sorted) => run = merge(Some(sorted), run),
                None => {
                    *bin = run;
                    break;
                }
            }
        }
    }
    bins.into_iter().fold(None, merge)
}

/// Merges two sorted lists.
fn merge(mut a: Option<NonNull<FreeFrame>>, mut b: Option<NonNull<FreeFrame>>) -> Option<NonNull<FreeFrame>> {
    let mut head = None;
    let mut tail: Option<NonNull<FreeFrame>> = None;
    loop {
        let from = match (a, b) {
            (Some(x), Some(y)) if x.addr() < y.addr() => &mut a,
            (_, Some(_)) => &mut b,
            _ => &mut a,
        };
        let Some(mut frame) = *from else { return head };
        // SAFETY: free frames on lists that are this function's alone hold valid links.
        *from = unsafe { frame.as_mut() }.next.take();
        match tail {
            // SAFETY: as above; `last` is on the merged list, another frame than `frame`.
            Some(mut last) => unsafe { last.as_mut() }.next = Some(frame),
            None => head = Some(frame),
        }
        tail = Some(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{alloc, dealloc};
    use std::vec::Vec;

    /// A pool on memory of the host, aligned to `frames` (a power of two).
    struct Host {
        pool: FramePool,
        memory: *mut u8,
        layout: Layout,
    }

    impl Host {
        fn new(frames: usize) -> Self {
            let layout = Layout::from_size_align(frames * FRAME_BYTES, frames * FRAME_BYTES).unwrap();
            // SAFETY: the size is not zero.
            let memory = unsafe { alloc(layout) };
            let pool = FramePool::new();
            // SAFETY: the memory is freed after the pool's last use, and nothing else refers to it.
            unsafe { pool.add(memory, layout.size()) }.unwrap();
            Self { pool, memory, layout }
        }

        fn all_single(&self) -> Vec<FrameBlock> {
            std::iter::from_fn(|| self.pool.alloc(0)).collect()
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout; the pool is not used any more.
            unsafe { dealloc(self.memory, self.layout) };
        }
    }

    #[test]
    fn every_frame_is_handed_out_once_and_inside_the_memory() {
        let host = Host::new(16);
        let mut addresses: Vec<u64> = host.all_single().into_iter().map(|b| b.into_pa().0).collect();
        addresses.sort_unstable();
        let base = host.memory.addr() as u64;
        assert_eq!(addresses, (0..16).map(|i| base + i * 4096).collect::<Vec<_>>());
        assert_eq!(host.pool.free_frames(), 0);
    }

    #[test]
    fn block_of_an_order_is_aligned_to_its_size() {
        let host = Host::new(16);
        let single = host.pool.alloc(0).unwrap();
        for order in [1, 2, 3] {
            let block = host.pool.alloc(order).unwrap();
            assert!(block.pa().is_aligned(4096 << order), "order {order} at {}", block.pa());
            host.pool.free(block);
        }
        host.pool.free(single);
        assert_eq!(host.pool.stats(), PoolStats { total: 16, free: 16, reserved: 0, most_used: 9 });
    }

    #[test]
    fn single_frame_freed_is_the_next_handed_out() {
        let host = Host::new(4);
        let blocks = host.all_single();
        let last = blocks.last().unwrap().pa();
        for block in blocks {
            host.pool.free(block);
        }
        assert_eq!(host.pool.alloc(0).map(FrameBlock::into_pa), Some(last));
    }

    #[test]
    fn single_frames_freed_in_any_order_merge_into_a_large_block_again() {
        let host = Host::new(16);
        let mut blocks = host.all_single();
        assert_eq!(host.pool.alloc(4), None);
        while !blocks.is_empty() {
            let index = blocks.len() * 7 % 11 % blocks.len();
            host.pool.free(blocks.swap_remove(index));
        }
        let all = host.pool.alloc(4).unwrap();
        assert_eq!(all.pa(), Pa(host.memory.addr() as u64));
        host.pool.free(all);
        assert_eq!(host.pool.free_frames(), 16);
    }

    #[test]
    fn large_block_is_refused_where_the_free_frames_are_scattered() {
        let host = Host::new(8);
        let (even, odd): (Vec<_>, Vec<_>) =
            host.all_single().into_iter().partition(|b| b.pa().is_aligned(8192));
        for block in even {
            host.pool.free(block);
        }
        assert_eq!(host.pool.free_frames(), 4);
        assert_eq!(host.pool.alloc(1), None);
        for block in odd {
            host.pool.free(block);
        }
        assert!(host.pool.alloc(3).is_some());
    }

    #[test]
    fn reserved_frames_are_kept_from_others_and_taken_without_fail() {
        let host = Host::new(8);
        let mut reserve = host.pool.reserve(6).unwrap();
        assert_eq!(host.pool.reserve(3), Err(OutOfFrames { needed: 3, free: 2 }));
        assert_eq!(host.pool.alloc(2), None);
        let others = host.all_single();
        assert_eq!(others.len(), 2);
        let taken: Vec<_> = std::iter::from_fn(|| host.pool.take(&mut reserve)).collect();
        assert_eq!(taken.len(), 6);
        assert_eq!(host.pool.stats(), PoolStats { total: 8, free: 0, reserved: 0, most_used: 8 });
    }

    #[test]
    fn reservation_given_back_is_free_again() {
        let host = Host::new(8);
        let mut reserve = host.pool.reserve(8).unwrap();
        let block = host.pool.take(&mut reserve).unwrap();
        host.pool.unreserve(reserve);
        assert_eq!(host.pool.free_frames(), 7);
        host.pool.free(block);
        assert_eq!(host.pool.free_frames(), 8);
    }

    #[test]
    #[should_panic(expected = "is no block of 2^0 frames of this pool")]
    fn frame_of_somebody_else_is_refused() {
        Host::new(4).pool.free(FrameBlock::from_pa(Pa(0x1000), 0));
    }

    #[test]
    fn memory_without_a_whole_frame_is_refused() {
        let host = Host::new(2);
        let pool = FramePool::new();
        // SAFETY: refused, so never used; and inside memory that nothing else uses meanwhile.
        let result = unsafe { pool.add(host.memory.wrapping_add(1), 2 * FRAME_BYTES - 2) };
        assert_eq!(result, Err(AddError::TooSmall));
    }

    #[test]
    fn impossible_order_is_refused() {
        let host = Host::new(2);
        assert_eq!(host.pool.alloc(40), None);
        assert_eq!(host.pool.alloc(64), None);
    }
}
