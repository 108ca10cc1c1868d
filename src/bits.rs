//! The bits of a word that stand for pages, or for lines of descriptors.

use core::iter;

/// A word whose lowest `count` bits are set, `count` from 1 to 64.
pub(crate) const fn ones(count: u64) -> u64 {
    u64::MAX >> (u64::BITS as u64 - count)
}

/// The numbers of the bits that are set, in ascending order.
pub(crate) fn set_bits(mut left: u64) -> impl Iterator<Item = usize> {
    iter::from_fn(move || {
        let lowest = left.trailing_zeros() as usize;
        (left != 0).then(|| {
            left &= left - 1;
            lowest
        })
    })
}

/// The runs of adjacent bits that are set, in ascending order: the first of each, and how many.
pub(crate) fn runs(mut left: u64) -> impl Iterator<Item = (u64, u64)> + Clone {
    iter::from_fn(move || {
        let first = left.trailing_zeros();
        (left != 0).then(|| {
            let count = (left >> first).trailing_ones();
            // What is carried out of the lowest run clears it.
            left &= left.wrapping_add(1 << first);
            (first.into(), count.into())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_one_by_one_and_in_runs() {
        assert_eq!(set_bits(0).next(), None);
        assert!(set_bits(1 << 63 | 0b1101).eq([0, 2, 3, 63]));
        assert!(set_bits(u64::MAX).eq(0..64));
        assert_eq!(runs(0).next(), None);
        assert!(runs(1 << 63 | 0b1101).eq([(0, 1), (2, 2), (63, 1)]));
        assert!(runs(u64::MAX).eq([(0, 64)]));
        assert!(runs(u64::MAX << 40).eq([(40, 24)]));
    }
}
