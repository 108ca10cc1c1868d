//! Sub-trees that have been unlinked and wait for the invalidation after which their frames are free.

use crate::addr::{PAGE_BYTES, Pa};
use crate::frames::{FrameBlock, FrameReserve, Frames};
use crate::hw::{Cpu, Memory, Word};
use crate::stage2::tree::{ENTRIES, count_tables, free_table};

/// Roots of unlinked sub-trees. A walker may still be reading those tables, so nothing may be written into them:
/// the list lies in frames of its own, taken out of a reservation made when the log was started. It is full when
/// that is used up; what doesn't fit stays linked.
#[derive(Debug)]
pub struct Retired {
    reserve: FrameReserve,
    /// The newest frame of the list: word 0 holds the address of the one before it, or 0; the others hold roots.
    newest: Option<FrameBlock>,
    /// Words used in the newest frame.
    used: usize,
}

impl Retired {
    /// A list with room for what `reserve` allows.
    pub const fn new(reserve: FrameReserve) -> Self {
        Self { reserve, newest: None, used: ENTRIES }
    }

    /// How many frames a list of `roots` takes.
    #[must_use]
    pub const fn frames_for(roots: usize) -> usize {
        roots.div_ceil(ENTRIES - 1)
    }

    /// How many more roots fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        (ENTRIES - self.used) + self.reserve.left() * (ENTRIES - 1)
    }

    /// Puts an unlinked table at `level` on the list; `false`, and nothing is done, where there is no room.
    pub(crate) fn push(&mut self, platform: &(impl Memory + Frames + Cpu), table: Pa, level: u8) -> bool {
        if self.used == ENTRIES && !self.grow(platform) {
            return false;
        }
        let Some(newest) = &self.newest else { return false };
        // Tables are page-aligned: the low bits have room for the level.
        platform.words(newest.pa().offset(self.used as u64 * 8), 1)[0].store(table.0 | u64::from(level));
        self.used += 1;
        true
    }

    fn grow(&mut self, platform: &(impl Memory + Frames + Cpu)) -> bool {
        let Some(frame) = platform.take(&mut self.reserve) else { return false };
        let before = self.newest.take().map_or(0, |b| b.into_pa().0);
        platform.words(frame.pa(), 1)[0].store(before);
        self.newest = Some(frame);
        self.used = 1;
        true
    }

    /// Frees sub-trees of the list, the last ones first, until it is empty or `most` table frames have been freed (one
    /// sub-tree's more at the most); says how many. All frames of an empty list but one are free, which is kept for what
    /// comes. Every invalidation that covers the sub-trees has completed.
    pub(crate) fn free(&mut self, platform: &(impl Memory + Frames + Cpu), most: u64) -> u64 {
        let mut freed = 0;
        while freed < most
            && let Some(root) = self.pop(platform)
        {
            freed += free_table(platform, Pa(root & !(PAGE_BYTES - 1)), (root & 0xf) as u8);
        }
        freed
    }

    /// Whether nothing is on the list.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.newest.is_none() || self.used == 1
    }

    /// Takes the last root off the list, and gives a frame of it back that has become empty, the first one apart.
    fn pop(&mut self, platform: &(impl Memory + Frames + Cpu)) -> Option<u64> {
        let words = platform.words(self.newest.as_ref()?.pa(), ENTRIES);
        if self.used == 1 {
            return None;
        }
        self.used -= 1;
        let root = words[self.used].load();
        let before = words[0].load();
        if self.used == 1 && before != 0 {
            let full = FrameBlock::from_pa(Pa(before), 0);
            platform.free(self.newest.replace(full)?);
            self.used = ENTRIES;
        }
        Some(root)
    }

    /// Ends the list: what is still on it stays out of use for ever (an invalidation that covers it did not
    /// complete), and the list with it; the rest of its memory is given back. Says how many frames stay out of use.
    pub fn end(self, platform: &(impl Memory + Frames + Cpu)) -> u64 {
        let left = if self.is_empty() { 0 } else { self.frames(platform) };
        platform.unreserve(self.reserve);
        if left == 0
            && let Some(frame) = self.newest
        {
            platform.free(frame);
        }
        left
    }

    /// How many frames the list and the sub-trees on it take.
    fn frames(&self, memory: &impl Memory) -> u64 {
        let mut at = self.newest.as_ref().map_or(0, |frame| frame.pa().0);
        let (mut used, mut frames) = (self.used, 0);
        while at != 0 {
            let words = memory.words(Pa(at), ENTRIES);
            let tables = words[1..used].iter().map(|word| {
                let root = word.load();
                count_tables(memory, Pa(root & !(PAGE_BYTES - 1)), (root & 0xf) as u8)
            });
            frames += 1 + tables.sum::<u64>();
            (at, used) = (words[0].load(), ENTRIES);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    /// A table at level 2 over two at level 3.
    fn subtree(fake: &Fake) -> Pa {
        let [root, first, second] = [(); 3].map(|()| fake.alloc(0).unwrap().into_pa());
        fake.fill(root, ENTRIES, |i| [first.0 | 3, second.0 | 3].get(i).copied().unwrap_or(0));
        fake.fill(first, ENTRIES, |_| 0);
        fake.fill(second, ENTRIES, |_| 0);
        root
    }

    #[test]
    fn frames_that_stay_out_of_use_are_counted_with_their_list() {
        let fake = Fake::new(16);
        let mut retired = Retired::new(fake.reserve(2).unwrap());
        for _ in 0..2 {
            let root = subtree(&fake);
            assert!(retired.push(&fake, root, 2));
        }
        let free = fake.free_frames();
        // Two sub-trees of three, and the frame that lists them; the other frame of the reservation comes back.
        assert_eq!(retired.end(&fake), 7);
        assert_eq!(fake.free_frames(), free + 1);
    }

    #[test]
    fn list_that_was_freed_leaves_nothing() {
        let fake = Fake::new(16);
        let free = fake.free_frames();
        let mut retired = Retired::new(fake.reserve(2).unwrap());
        let root = subtree(&fake);
        assert!(retired.push(&fake, root, 2));
        assert_eq!(retired.free(&fake, u64::MAX), 3);
        assert_eq!(retired.end(&fake), 0);
        assert_eq!(fake.free_frames(), free);
    }

    #[test]
    fn list_of_several_frames_is_counted_whole() {
        let fake = Fake::new(520);
        let mut retired = Retired::new(fake.reserve(2).unwrap());
        for _ in 0..ENTRIES {
            let table = fake.alloc(0).unwrap().into_pa();
            assert!(retired.push(&fake, table, 3));
        }
        assert_eq!(retired.end(&fake), ENTRIES as u64 + 2);
    }
}
