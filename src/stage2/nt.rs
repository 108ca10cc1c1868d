//! Changes of size at BBML 1 (IHI 0070 §3.21.1.2): while there may be entries of another size, a block has nT set, with
//! which it translates and is not cached in a way that conflicts with them.
//!
//! One invalidation a batch lies between its two passes; the one owed after the second pass is that of the next batch, or
//! the last of the whole procedure.

use crate::hw::{Memory, Word};
use crate::stage2::descriptor::{BLOCK_NT, Entry};
use crate::stage2::view::{Batch, Published, Swap, ViewError, replace_each, same_but_updated};

/// Replaces the descriptors of `batch`, all of them blocks by tables or all of them by blocks. `stored` is told of what
/// was stored to.
pub(super) fn publish(
    memory: &impl Memory,
    batch: &Batch,
    stored: impl Fn(&[Swap]),
    invalidate: impl FnOnce() -> Result<(), ViewError>,
) -> Published {
    let splits =
        batch.swaps().iter().all(|swap| matches!(Entry::at(swap.slot.level, swap.new), Entry::Table(_)));
    if splits {
        split(memory, batch.swaps(), stored, invalidate)
    } else {
        merge(memory, batch.swaps(), stored, invalidate)
    }
}

/// Blocks get nT; when no entry without it is left, tables take their places. What goes wrong before that is undone.
fn split(
    memory: &impl Memory,
    swaps: &[Swap],
    stored: impl Fn(&[Swap]),
    invalidate: impl FnOnce() -> Result<(), ViewError>,
) -> Published {
    let marked = swaps.iter().try_for_each(|swap| mark(memory, swap));
    stored(swaps);
    if let Err(error) = marked.and_then(|()| invalidate()) {
        unmark(memory, swaps);
        stored(swaps);
        return Published { replaced: 0, result: Err(error) };
    }
    let published = replace_each(memory, swaps, |swap| (swap.old | BLOCK_NT, swap.new));
    unmark(memory, &swaps[published.replaced..]);
    stored(swaps);
    published
}

/// Sets nT in the block that `swap` replaces.
fn mark(memory: &impl Memory, swap: &Swap) -> Result<(), ViewError> {
    let word = swap.slot.word(memory);
    let found = word.load();
    if !same_but_updated(found, swap.old) {
        return Err(ViewError::Foreign(found));
    }
    // Hardware may make it dirty at any time.
    word.fetch_or(BLOCK_NT);
    Ok(())
}

/// Clears nT in the blocks that still stand where `swaps` were to replace them, but for those that had it before: entries
/// of another size may be left from when that was set.
fn unmark(memory: &impl Memory, swaps: &[Swap]) {
    for swap in swaps.iter().filter(|swap| swap.old & BLOCK_NT == 0) {
        let word = swap.slot.word(memory);
        if same_but_updated(word.load(), swap.old | BLOCK_NT) {
            word.fetch_and(!BLOCK_NT);
        }
    }
}

/// Blocks with nT take the places; when no entry of what they replace is left, nT goes. Where that is not sure it stays:
/// the next start or stop of a log there clears it.
fn merge(
    memory: &impl Memory,
    swaps: &[Swap],
    stored: impl Fn(&[Swap]),
    invalidate: impl FnOnce() -> Result<(), ViewError>,
) -> Published {
    let mut published = replace_each(memory, swaps, |swap| (swap.old, swap.new | BLOCK_NT));
    let replaced = &swaps[..published.replaced];
    stored(replaced);
    match invalidate() {
        Ok(()) => {
            for swap in replaced {
                swap.slot.word(memory).fetch_and(!BLOCK_NT);
            }
            stored(replaced);
        }
        Err(error) => published.result = Err(error),
    }
    published
}
