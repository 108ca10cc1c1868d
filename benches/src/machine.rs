//! The host as the library's surroundings: memory at its own addresses, frames of the library's own pool, no walker.
#![expect(unsafe_code, reason = "memory by its address, as EL2 has it")]

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::with_exposed_provenance_mut;
use std::slice;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use strandline::addr::{Pa, Vmid};
use strandline::frames::{FrameBlock, FramePool, FrameReserve, Frames, OutOfFrames};
use strandline::hw::{
    Barrier, CommandCounts, Cpu, DmaTlb, DmaTlbError, HoldTimeout, Memory, Scope, SizeChange, Tlbi, Vttbr,
};

/// What memory is aligned to: a huge page, since EL2 maps its memory by blocks.
const ALIGNMENT: usize = 2 << 20;

/// A machine with so much memory for table frames.
pub struct Machine {
    memory: *mut u8,
    layout: Layout,
    pool: FramePool,
    began: Instant,
}

impl Machine {
    /// A machine with `bytes` of memory for frames, which the host is asked to back by huge pages.
    ///
    /// # Panics
    /// The host has no such memory.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.next_multiple_of(ALIGNMENT), ALIGNMENT).expect("a size");
        // SAFETY: the size is not zero: it is rounded up.
        let memory = unsafe { alloc(layout) };
        assert!(!memory.is_null(), "the host has no {bytes} bytes");
        // SAFETY: advice about memory that was just allocated; what comes of it is seen in the report.
        unsafe { libc::madvise(memory.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        let pool = FramePool::new();
        // SAFETY: 1. valid until `drop`, after the pool's last use. 2. Nobody else has it. 3. There are no walkers.
        unsafe { pool.add(memory, layout.size()) }.expect("whole frames");
        Self { memory, layout, pool, began: Instant::now() }
    }

    /// The pool itself.
    #[must_use]
    pub const fn pool(&self) -> &FramePool {
        &self.pool
    }

    fn check(&self, pa: Pa, count: usize) {
        let offset = pa.0.wrapping_sub(self.memory.addr() as u64);
        let inside = offset + count as u64 * 8 <= self.layout.size() as u64;
        assert!(pa.is_aligned(8) && inside, "{count} words at {pa} are none of the machine's");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; nothing is borrowed from it any more.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

impl Memory for Machine {
    type Word = AtomicU64;

    fn words(&self, pa: Pa, count: usize) -> &[AtomicU64] {
        self.check(pa, count);
        let words = with_exposed_provenance_mut::<AtomicU64>(pa.0 as usize);
        // SAFETY: inside memory that lives as long as `self`, aligned, and accessed by atomics alone, or by `fill` while
        // nobody else reaches it.
        unsafe { slice::from_raw_parts(words, count) }
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        self.check(pa, count);
        let words = with_exposed_provenance_mut::<u64>(pa.0 as usize);
        for index in 0..count {
            // SAFETY: inside the machine's memory, as checked; nobody else reaches it yet (this method's contract).
            unsafe { words.add(index).write(value(index)) };
        }
    }
}

impl Frames for Machine {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        self.pool.alloc(order)
    }

    fn free(&self, block: FrameBlock) {
        self.pool.free(block);
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        self.pool.reserve(count)
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        self.pool.take(reserve)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.pool.unreserve(reserve);
    }

    fn free_frames(&self) -> usize {
        self.pool.free_frames()
    }
}

/// There is no walker: barriers and invalidations have nothing to do, and cost nothing.
impl Cpu for Machine {
    fn barrier(&self, _barrier: Barrier) {}

    fn tlbi(&self, _vttbr: Vttbr, _op: Tlbi) {}

    fn clean_to_poc(&self, _pa: Pa, _bytes: u64) {}

    fn invalidate_from_poc(&self, _pa: Pa, _bytes: u64) {}

    fn hold(&self, _vttbr: Vttbr) -> Result<(), HoldTimeout> {
        Ok(())
    }

    fn release(&self, _vttbr: Vttbr) {}

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn relax(&self) {}
}

/// An SMMU that does at once what it is told.
#[derive(Debug)]
pub struct NoTlb;

impl DmaTlb for NoTlb {
    fn sync(&self) -> Result<(), DmaTlbError> {
        Ok(())
    }

    fn invalidate(&self, _vmid: Vmid, _scope: Scope) -> Result<(), DmaTlbError> {
        Ok(())
    }

    fn commands(&self) -> CommandCounts {
        CommandCounts::default()
    }

    fn size_change(&self) -> SizeChange {
        SizeChange::Direct
    }
}

/// Bytes of memory that the host can spare; 0 where it does not say.
#[must_use]
pub fn spare_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
