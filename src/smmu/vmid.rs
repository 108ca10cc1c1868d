//! VMIDs: which of them tag somebody's TLB entries.

use crate::addr::Vmid;

/// How many VMIDs are given out at most; one view takes one. SMMUs with 16-bit VMIDs could have 65,536 views, and no
/// machine has frames for the trees.
const COUNT: usize = 4096;
const WORD_BITS: usize = u64::BITS as usize;

/// The VMIDs in use. VMID 0 is never given out: it tags what has no VMID of its own.
pub(super) struct VmidPool {
    used: [u64; COUNT / WORD_BITS],
    /// Of these, the ones that are never given back.
    quarantined: [u64; COUNT / WORD_BITS],
    /// VMIDs the SMMU has, at most `COUNT`.
    len: usize,
    /// Where to look first: a VMID is reused as late as possible.
    next: usize,
}

impl VmidPool {
    /// A pool of 8-bit or 16-bit VMIDs.
    pub(super) const fn new(sixteen_bits: bool) -> Self {
        let mut used = [0; COUNT / WORD_BITS];
        used[0] = 1;
        Self {
            used,
            quarantined: [0; COUNT / WORD_BITS],
            len: if sixteen_bits { COUNT } else { 256 },
            next: 1,
        }
    }

    /// Takes a VMID.
    pub(super) fn take(&mut self) -> Option<Vmid> {
        let free = (self.next..self.len).chain(1..self.next).find(|i| !self.is_used(*i))?;
        self.used[free / WORD_BITS] |= 1 << (free % WORD_BITS);
        self.next = free + 1;
        u16::try_from(free).ok().map(Vmid)
    }

    /// Whether `vmid` is taken.
    pub(super) fn is_taken(&self, vmid: Vmid) -> bool {
        let index = usize::from(vmid.0);
        index != 0 && index < self.len && self.is_used(index)
    }

    /// Takes a VMID that is taken out of use for good.
    pub(super) fn quarantine(&mut self, vmid: Vmid) {
        if self.is_taken(vmid) {
            let index = usize::from(vmid.0);
            self.quarantined[index / WORD_BITS] |= 1 << (index % WORD_BITS);
        }
    }

    /// Whether `vmid` is out of use for good.
    pub(super) fn is_quarantined(&self, vmid: Vmid) -> bool {
        let index = usize::from(vmid.0);
        self.quarantined.get(index / WORD_BITS).is_some_and(|word| word >> (index % WORD_BITS) & 1 != 0)
    }

    /// How many are out of use for good.
    pub(super) fn quarantined(&self) -> u32 {
        self.quarantined.iter().map(|word| word.count_ones()).sum()
    }

    /// Gives back a VMID that is taken, and not quarantined.
    pub(super) fn give_back(&mut self, vmid: Vmid) {
        if self.is_taken(vmid) && !self.is_quarantined(vmid) {
            let index = usize::from(vmid.0);
            self.used[index / WORD_BITS] &= !(1 << (index % WORD_BITS));
        }
    }

    fn is_used(&self, index: usize) -> bool {
        self.used[index / WORD_BITS] >> (index % WORD_BITS) & 1 != 0
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
        pool.quarantine(Vmid(2));
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
