//! The arithmetic of SMMU queues (IHI 0070 §3.5.1): an index with a wrap flag above it.

/// A queue of `2^bits` entries. An *index* here is a PROD or CONS value: `bits` bits of position and the wrap flag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    bits: u32,
}

impl Ring {
    /// `bits` is at most 19.
    pub(super) const fn new(bits: u32) -> Self {
        Self { bits }
    }

    pub(super) const fn bits(self) -> u32 {
        self.bits
    }

    /// The number of entries.
    pub(super) const fn len(self) -> u32 {
        1 << self.bits
    }

    /// The index in a register, without bits that mean nothing in a queue of this size.
    pub(super) const fn index(self, raw: u32) -> u32 {
        raw & (2 * self.len() - 1)
    }

    /// Which entry an index stands at.
    pub(super) const fn slot(self, index: u32) -> u32 {
        index & (self.len() - 1)
    }

    /// The index behind `index`; the wrap flag toggles past the last entry.
    pub(super) const fn next(self, index: u32) -> u32 {
        self.index(index + 1)
    }

    /// How many entries lie between the indexes.
    pub(super) const fn used(self, prod: u32, cons: u32) -> u32 {
        self.index(prod.wrapping_sub(cons))
    }

    pub(super) const fn is_empty(self, prod: u32, cons: u32) -> bool {
        prod == cons
    }

    /// Whether nothing more can be written. Indexes no queue can have count as full.
    pub(super) const fn is_full(self, prod: u32, cons: u32) -> bool {
        self.used(prod, cons) >= self.len()
    }

    /// The runs of entries from index `from` up to index `to`: one, or two where it wraps, as first entry and count.
    pub(super) fn spans(self, from: u32, to: u32) -> impl Iterator<Item = (u32, u32)> {
        let count = self.used(to, from).min(self.len());
        let first = self.slot(from);
        let before_wrap = count.min(self.len() - first);
        [(first, before_wrap), (0, count - before_wrap)].into_iter().filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Eight entries: three index bits, wrap flag 0x8.
    const RING: Ring = Ring::new(3);

    #[test]
    fn wrap_flag_tells_full_from_empty() {
        assert!(RING.is_empty(0x5, 0x5));
        assert!(!RING.is_full(0x5, 0x5));
        assert!(RING.is_full(0xd, 0x5));
        assert!(!RING.is_empty(0xd, 0x5));
        assert!(RING.is_full(0x2, 0xa));
    }

    #[test]
    fn next_toggles_the_wrap_flag_past_the_last_entry() {
        assert_eq!(RING.next(0x7), 0x8);
        assert_eq!(RING.next(0xf), 0x0);
        assert_eq!(RING.slot(0xd), 5);
    }

    #[test]
    fn queue_of_one_entry_has_only_the_wrap_flag() {
        let ring = Ring::new(0);
        assert_eq!((ring.next(0), ring.next(1)), (1, 0));
        assert!(ring.is_full(1, 0));
        assert_eq!(ring.slot(1), 0);
    }

    #[test]
    fn bits_above_the_wrap_flag_mean_nothing() {
        assert_eq!(RING.index(0xf_fff5), 0x5);
    }

    #[test]
    fn indexes_no_queue_can_have_count_as_full() {
        assert!(RING.is_full(0x2, 0x5));
    }

    #[test]
    fn spans_split_where_the_queue_wraps() {
        assert_eq!(RING.spans(2, 5).collect::<Vec<_>>(), [(2, 3)]);
        assert_eq!(RING.spans(6, 0xa).collect::<Vec<_>>(), [(6, 2), (0, 2)]);
        assert_eq!(RING.spans(4, 0xc).collect::<Vec<_>>(), [(4, 4), (0, 4)]);
        assert_eq!(RING.spans(3, 3).count(), 0);
    }
}
