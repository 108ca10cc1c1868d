//! Table frames taken and given back.
#![expect(unsafe_code, reason = "the peer's own interface")]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::time::Duration;

use benches::clock::time;
use benches::contest::Contest;
use benches::machine::Machine;
use buddy_system_allocator::Heap;
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{Memory, Word};

use crate::Bench;

/// Frames that are given back, of as many again that are kept between them.
const COUNTS: [usize; 3] = [1 << 10, 1 << 12, 1 << 14];
/// Beyond this the peer takes seconds.
const PEER_MOST: usize = 1 << 12;

/// Gives every other frame back, in an order that merges nothing, and says how long that took.
fn free_every_other(machine: &Machine, count: usize, plainly: bool) -> Duration {
    let mut blocks: Vec<FrameBlock> = (0..2 * count).filter_map(|_| machine.alloc(0)).collect();
    blocks.sort_by_key(|block| block.pa().0 & 4096);
    let kept = blocks.split_off(count);
    let taken = if plainly {
        let taken = time(|| blocks.iter().for_each(|block| Word::store(&machine.words(block.pa(), 1)[0], 1)));
        blocks.into_iter().for_each(|block| machine.free(block));
        taken
    } else {
        time(|| blocks.into_iter().for_each(|block| machine.free(block)))
    };
    kept.into_iter().for_each(|block| machine.free(block));
    taken
}

/// The same by the buddy system alone.
fn buddies_free(count: usize) -> Duration {
    let page = Layout::from_size_align(4096, 4096).expect("a layout");
    let mut memory = vec![0_u64; 2 * count * 512 + 1024];
    let mut heap = Heap::<33>::empty();
    let start = memory.as_mut_ptr().expose_provenance().next_multiple_of(4096);
    // SAFETY: the memory is nobody else's, and outlives the heap.
    unsafe { heap.init(start, 2 * count * 4096) };
    let mut frames: Vec<NonNull<u8>> = (0..2 * count).filter_map(|_| heap.alloc(page).ok()).collect();
    frames.sort_by_key(|frame| frame.addr().get() & 4096);
    frames.truncate(count);
    time(|| {
        for frame in frames {
            // SAFETY: it came from this heap, with this layout, and is given back once.
            unsafe { heap.dealloc(frame, page) };
        }
    })
}

/// Frames freed one by one: the same for each, however many are free.
pub fn measure(bench: &mut Bench) {
    for count in COUNTS {
        let contest =
            Contest::new(format!("free each of {count} frames"), count as u64, move |m: &mut Machine| {
                free_every_other(m, count, false)
            });
        let contest =
            contest.limit("a store into each frame", None, move |m| free_every_other(m, count, true));
        let contest = if count <= PEER_MOST {
            contest.peer("buddy_system_allocator's Heap", None, move |_| buddies_free(count))
        } else {
            contest
        };
        let bytes = 2 * count * 4096;
        let contest = contest.series("free a frame", count as f64);
        bench.run(contest, &mut Machine::new(bytes + (2 << 20)), bytes as u64);
    }
}
