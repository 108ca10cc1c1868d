//! VMIDs: which of them tag somebody's TLB entries.

use crate::addr::Vmid;

/// How many VMIDs are given out at most; one view takes one. SMMUs with 16-bit VMIDs could have 65,536 views, and no
/// machine has frames for the trees.
const COUNT: usize = 4096;
const WORD_BITS: usize = u64::BITS as usize;

/// The VMIDs in use. VMID 0 is never given out: it tags what has no VMID of its own.
pub(super) struct VmidPool {
    used: Set,
    /// Of these, the ones that are never given back.
    quarantined: Set,
    /// The ones whose streams were sent through another tree.
    left: Set,
    /// VMIDs the SMMU has, at most `COUNT`.
    len: usize,
    /// Where to look first: a VMID is reused as late as possible.
    next: usize,
}

impl VmidPool {
    /// A pool of 8-bit or 16-bit VMIDs.
    pub(super) const fn new(sixteen_bits: bool) -> Self {
        let len = if sixteen_bits { COUNT } else { 256 };
        Self { used: Set::EMPTY, quarantined: Set::EMPTY, left: Set::EMPTY, len, next: 1 }
    }

    /// Takes a VMID.
    pub(super) fn take(&mut self) -> Option<Vmid> {
        let mut all =
            (self.next..self.len).chain(1..self.next).filter_map(|i| u16::try_from(i).ok().map(Vmid));
        let free = all.find(|vmid| !self.used.has(*vmid))?;
        self.used.set(free, true);
        self.next = usize::from(free.0) + 1;
        Some(free)
    }

    /// Whether `vmid` is taken.
    pub(super) fn is_taken(&self, vmid: Vmid) -> bool {
        usize::from(vmid.0) < self.len && self.used.has(vmid)
    }

    /// Takes a VMID that is taken out of use for good.
    pub(super) fn quarantine(&mut self, vmid: Vmid) {
        if self.is_taken(vmid) {
            self.quarantined.set(vmid, true);
        }
    }

    /// Whether `vmid` is out of use for good.
    pub(super) fn is_quarantined(&self, vmid: Vmid) -> bool {
        self.quarantined.has(vmid)
    }

    /// How many are out of use for good.
    pub(super) fn quarantined(&self) -> u32 {
        self.quarantined.count()
    }

    /// The streams of `from` are sent through the tree of `to`.
    pub(super) fn leave(&mut self, from: Vmid, to: Vmid) {
        self.left.set(from, true);
        self.left.set(to, false);
    }

    /// Whether the streams of `vmid` were sent through another tree, and not back.
    pub(super) fn is_left(&self, vmid: Vmid) -> bool {
        self.left.has(vmid)
    }

    /// Gives back a VMID that is taken, and not quarantined.
    pub(super) fn give_back(&mut self, vmid: Vmid) {
        if self.is_taken(vmid) && !self.is_quarantined(vmid) {
            self.used.set(vmid, false);
            self.left.set(vmid, false);
        }
    }
}

/// Some of the VMIDs below [`COUNT`].
struct Set([u64; COUNT / WORD_BITS]);

impl Set {
    const EMPTY: Self = Self([0; COUNT / WORD_BITS]);

    fn has(&self, vmid: Vmid) -> bool {
        let index = usize::from(vmid.0);
        self.0.get(index / WORD_BITS).is_some_and(|word| word >> (index % WORD_BITS) & 1 != 0)
    }

    /// Adds or removes one; others than it can hold it leaves alone.
    fn set(&mut self, vmid: Vmid, member: bool) {
        let index = usize::from(vmid.0);
        if let Some(word) = self.0.get_mut(index / WORD_BITS) {
            let bit = 1 << (index % WORD_BITS);
            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmid_zero_is_never_given_out() {
        let mut pool = VmidPool::new(false);
        assert_eq!(pool.take(), Some(Vmid(1)));
        pool.give_back(Vmid(0));
        assert!(!pool.is_taken(Vmid(0)));
        assert!((2..256).all(|i| pool.take() == Some(Vmid(i))));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn eight_bit_pool_ends_at_255() {
        let mut pool = VmidPool::new(false);
        let taken = core::iter::from_fn(|| pool.take()).last();
        assert_eq!(taken, Some(Vmid(255)));
        let mut wide = VmidPool::new(true);
        assert_eq!(core::iter::from_fn(|| wide.take()).last(), Some(Vmid(4095)));
    }

    #[test]
    fn freed_vmid_is_reused_last() {
        let mut pool = VmidPool::new(false);
        assert_eq!((pool.take(), pool.take()), (Some(Vmid(1)), Some(Vmid(2))));
        pool.give_back(Vmid(1));
        assert_eq!(pool.take(), Some(Vmid(3)));
        assert!(!pool.is_taken(Vmid(1)) && pool.is_taken(Vmid(2)));
        assert_eq!((4..=255).map(|_| pool.take()).last(), Some(Some(Vmid(255))));
        assert_eq!(pool.take(), Some(Vmid(1)));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn quarantined_vmid_stays_taken_whoever_gives_it_back() {
        let mut pool = VmidPool::new(false);
        assert_eq!((pool.take(), pool.take()), (Some(Vmid(1)), Some(Vmid(2))));
        // Whoever says so, however often.
        (0..2).for_each(|_| pool.quarantine(Vmid(2)));
        // Nobody took it: there is nothing to keep.
        pool.quarantine(Vmid(3));
        pool.quarantine(Vmid(0xffff));
        for vmid in [1, 2, 3].map(Vmid) {
            pool.give_back(vmid);
        }
        assert_eq!(pool.quarantined(), 1);
        assert!(pool.is_taken(Vmid(2)) && pool.is_quarantined(Vmid(2)));
        assert!(
            !pool.is_taken(Vmid(1)) && !pool.is_quarantined(Vmid(1)) && !pool.is_quarantined(Vmid(0xffff))
        );
        assert!(core::iter::from_fn(|| pool.take()).all(|vmid| vmid != Vmid(2)));
    }

    #[test]
    fn vmids_beyond_the_pool_are_not_taken() {
        let mut pool = VmidPool::new(false);
        pool.give_back(Vmid(0xffff));
        assert!(!pool.is_taken(Vmid(256)) && !pool.is_taken(Vmid(0xffff)));
    }
}
