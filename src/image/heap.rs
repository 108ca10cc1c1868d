//! The image's heap: a buddy allocator on a static region. There is none before the MMU is on.
#![expect(unsafe_code, reason = "the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use buddy_system_allocator::Heap;
use spin::Mutex;

use super::mmu;

/// Bytes of the heap.
const HEAP_BYTES: usize = 512 << 10;
/// The largest block is 2^(ORDER - 1) bytes: all of it.
const ORDER: usize = HEAP_BYTES.trailing_zeros() as usize + 1;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; HEAP_BYTES]>);

// SAFETY: its bytes are reached through the heap alone, which a mutex guards.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; HEAP_BYTES]));

struct LockedHeap(Mutex<Heap<ORDER>>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(Mutex::new(Heap::new()));

/// Gives the heap its memory. Called once, when the MMU is on.
pub fn init() {
    let start = ARENA.0.get().expose_provenance();
    // SAFETY: the arena is valid and writable, is nobody else's, and stays for ever; this runs once.
    unsafe { HEAP.0.lock().init(start, HEAP_BYTES) };
}

// SAFETY: `Heap` hands out blocks of at least the size and alignment of the layout, disjoint, until given back.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !mmu::is_on() {
            return null_mut();
        }
        self.0.lock().alloc(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let Some(ptr) = NonNull::new(ptr) {
            // SAFETY: the caller promises that `ptr` came from `alloc` with this layout, and is given back once.
            unsafe { self.0.lock().dealloc(ptr, layout) };
        }
    }
}
