//! Tries an embedder's [`Platform`] before it is relied on: what can be seen of a wrong implementation is seen here, with a
//! name, and not later as a lost page.
//!
//! What cannot be seen from inside: whether barriers, TLB invalidations and cache maintenance do anything, whether the clock
//! counts microseconds, and whether the frames are somebody else's as well. The model of the project's tests sees the
//! first of these; the contracts of [`crate::hw`] say what each is needed for.

use core::fmt;

use crate::addr::{PAGE_BYTES, Pa};
use crate::frames::{FrameBlock, FrameReserve};
use crate::hw::{Platform, Word};

/// Words of a frame.
const WORDS: usize = (PAGE_BYTES / 8) as usize;
/// `log2` of the frames of each block that is tried.
const ORDERS: [u32; 3] = [0, 0, 1];
/// How often a clock is looked at, with [`Cpu::relax`](crate::hw::Cpu::relax) between, before it is said to stand still.
const LOOKS_AT_A_CLOCK: u32 = if cfg!(test) { 1 << 10 } else { 1 << 24 };

/// What is wrong with a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlatformError {
    /// It has not the frames to be tried: it takes four, two of them contiguous.
    NoFrames,
    /// A block is not what was asked for: it has another order.
    WrongOrder {
        /// Where it is.
        pa: Pa,
        /// What was asked for.
        asked: u32,
        /// What it has.
        order: u32,
    },
    /// Two blocks that are both handed out share memory, which begins here.
    Overlap(Pa),
    /// A word that was written does not hold what it should: memory is not where it says, or not memory.
    Word {
        /// The word.
        pa: Pa,
        /// What it should hold.
        expected: u64,
        /// What it holds.
        found: u64,
    },
    /// An atomic operation on this word gave back, or left, something else than it should.
    Atomic(Pa),
    /// The number of free frames is not what it must be.
    Count {
        /// What it must be.
        expected: usize,
        /// What it is.
        found: usize,
    },
    /// A frame that was reserved could not be taken, or one that was not reserved could.
    Reserve,
    /// The clock goes backwards.
    ClockBackwards,
    /// The clock stands still: no wait would ever end.
    ClockStands,
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrames => f.write_str("there are no four free frames, two of them contiguous"),
            Self::WrongOrder { pa, asked, order } => {
                write!(f, "the block at {pa} has 2^{order} frames, 2^{asked} were asked for")
            }
            Self::Overlap(pa) => write!(f, "the memory at {pa} was handed out twice"),
            Self::Word { pa, expected, found } => {
                write!(f, "the word at {pa} holds {found:#x}, {expected:#x} was written")
            }
            Self::Atomic(pa) => write!(f, "an atomic operation on the word at {pa} went wrong"),
            Self::Count { expected, found } => write!(f, "{found} frames are free, {expected} must be"),
            Self::Reserve => f.write_str("a reservation does not hold as many frames as were reserved"),
            Self::ClockBackwards => f.write_str("the clock goes backwards"),
            Self::ClockStands => f.write_str("the clock stands still"),
        }
    }
}

/// Tries frames, memory and clock of `platform`; gives back what it took. Nobody else uses the platform meanwhile.
///
/// # Errors
/// The first thing that is wrong. Frames it had taken may stay taken then.
pub fn platform<P: Platform>(platform: &P) -> Result<(), PlatformError> {
    clock(platform)?;
    let free = platform.free_frames();
    let blocks = take_blocks(platform)?;
    memory(platform, &blocks)?;
    blocks.into_iter().for_each(|block| platform.free(block));
    counted(platform, free)?;
    reservations(platform, free)
}

fn clock(platform: &impl Platform) -> Result<(), PlatformError> {
    let mut last = platform.now_us();
    for _ in 0..LOOKS_AT_A_CLOCK {
        platform.relax();
        let now = platform.now_us();
        match now.cmp(&last) {
            core::cmp::Ordering::Less => return Err(PlatformError::ClockBackwards),
            core::cmp::Ordering::Equal => last = now,
            core::cmp::Ordering::Greater => return Ok(()),
        }
    }
    Err(PlatformError::ClockStands)
}

fn counted(platform: &impl Platform, expected: usize) -> Result<(), PlatformError> {
    let found = platform.free_frames();
    if found == expected { Ok(()) } else { Err(PlatformError::Count { expected, found }) }
}

fn take_blocks(platform: &impl Platform) -> Result<[FrameBlock; 3], PlatformError> {
    let [Some(a), Some(b), Some(c)] = ORDERS.map(|order| platform.alloc(order)) else {
        return Err(PlatformError::NoFrames);
    };
    let blocks = [a, b, c];
    for (block, asked) in blocks.iter().zip(ORDERS) {
        if block.order() != asked {
            return Err(PlatformError::WrongOrder { pa: block.pa(), asked, order: block.order() });
        }
    }
    for (i, block) in blocks.iter().enumerate() {
        for other in &blocks[..i] {
            if block.pa() < other.pa().offset(other.bytes()) && other.pa() < block.pa().offset(block.bytes())
            {
                return Err(PlatformError::Overlap(block.pa().max(other.pa())));
            }
        }
    }
    Ok(blocks)
}

/// Writes every word of `blocks` before it reads the first: what two words share is seen. Then the ways to write several
/// words, in the first block.
fn memory(platform: &impl Platform, blocks: &[FrameBlock]) -> Result<(), PlatformError> {
    let pattern = |pa: Pa, word: usize| !(pa.0 + word as u64 * 8);
    let frames = || {
        blocks.iter().flat_map(|block| (0..1u64 << block.order()).map(|i| block.pa().offset(i * PAGE_BYTES)))
    };
    for pa in frames() {
        platform.fill(pa, WORDS, |word| pattern(pa, word));
    }
    for pa in frames() {
        holds(platform, pa, WORDS, |word| pattern(pa, word))?;
        atomics(&platform.words(pa, WORDS)[0]).ok_or(PlatformError::Atomic(pa))?;
    }
    let [first, ..] = blocks else { return Ok(()) };
    // The words of a table of pages, and those of a sum that wraps.
    for (start, step) in [(first.pa().0 | 0x7ff, PAGE_BYTES), (u64::MAX - 7, 3)] {
        platform.fill_ascending(first.pa(), WORDS, start, step);
        let sum = |word| start.wrapping_add(step.wrapping_mul(word as u64));
        holds(platform, first.pa(), WORDS, sum)?;
    }
    let Some(pairs) = platform.pairs() else { return Ok(()) };
    let pair = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    pairs.store_pair(first.pa().offset(16), pair);
    holds(platform, first.pa().offset(16), 2, |word| pair[word])
}

/// Whether the `count` words from `pa` are those that `expected` says.
fn holds(
    platform: &impl Platform,
    pa: Pa,
    count: usize,
    expected: impl Fn(usize) -> u64,
) -> Result<(), PlatformError> {
    for (i, word) in platform.words(pa, count).iter().enumerate() {
        let (at, expected, found) = (pa.offset(i as u64 * 8), expected(i), word.load());
        if found != expected {
            return Err(PlatformError::Word { pa: at, expected, found });
        }
    }
    Ok(())
}

/// `None` where an operation does anything else than its contract says.
fn atomics(word: &impl Word) -> Option<()> {
    let holds = |value: u64| (word.load() == value).then_some(());
    let gave = |found: bool| found.then_some(());
    word.store(0xff00);
    holds(0xff00)?;
    gave(word.fetch_and(!0x0f00) == 0xff00)?;
    holds(0xf000)?;
    gave(word.fetch_or(0x000f) == 0xf000)?;
    holds(0xf00f)?;
    gave(word.compare_exchange(0xf00f, 1) == Ok(0xf00f))?;
    holds(1)?;
    gave(word.compare_exchange(2, 3) == Err(1))?;
    holds(1)
}

fn reservations<P: Platform>(platform: &P, free: usize) -> Result<(), PlatformError> {
    let mut reserve = platform.reserve(2).map_err(|_| PlatformError::NoFrames)?;
    counted(platform, free - 2)?;
    if platform.reserve(free).is_ok() {
        return Err(PlatformError::Reserve);
    }
    let first = taken(platform, &mut reserve)?;
    let second = taken(platform, &mut reserve)?;
    if platform.take(&mut reserve).is_some() {
        return Err(PlatformError::Reserve);
    }
    platform.unreserve(reserve);
    if first.pa() == second.pa() {
        return Err(PlatformError::Overlap(first.pa()));
    }
    platform.free(first);
    platform.free(second);
    counted(platform, free)
}

fn taken(platform: &impl Platform, reserve: &mut FrameReserve) -> Result<FrameBlock, PlatformError> {
    platform.take(reserve).ok_or(PlatformError::Reserve)
}

#[cfg(test)]
mod tests;
