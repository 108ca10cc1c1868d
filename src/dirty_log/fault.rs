//! Write-protect faults: how a vCPU's writes come to be known on a CPU without hardware dirty state.

use core::sync::atomic::Ordering;

use crate::addr::{Ipa, IpaRange, PAGE_BYTES};
use crate::address_space::AddressSpace;
use crate::hw::{Barrier, DmaTlb, Memory, Platform, Tlbi, Word};
use crate::stage2::descriptor::{Entry, Leaf, S2AP_WRITE};
use crate::stage2::{LeafState, Slot, Tree};

/// What a vCPU's write fault came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The page is recorded as written, and may be written: the vCPU tries again.
    Recorded,
    /// The VM may not write there: the fault is the guest's.
    Denied,
}

/// The leaf of `tree` that translates `page`, if what is written there can be logged.
pub(super) fn logged_leaf(tree: &Tree, memory: &impl Memory, page: IpaRange) -> Option<(Slot, Leaf)> {
    if !tree.format().covers(page) {
        return None;
    }
    match tree.walk(memory, page.start()) {
        (slot, Entry::Leaf(leaf)) if leaf.is_logged() => Some((slot, leaf)),
        _ => None,
    }
}

/// Makes `leaf`, as it was read in `slot`, writable-dirty, or finds it so: somebody else was faster.
pub(super) fn permit_write(memory: &impl Memory, slot: Slot, leaf: Leaf) -> bool {
    let word = slot.word(memory);
    let mut seen = leaf.word;
    while seen & S2AP_WRITE == 0 {
        match word.compare_exchange(seen, seen | S2AP_WRITE) {
            Ok(_) => break,
            Err(found) => match Entry::at(slot.level, found) {
                Entry::Leaf(leaf) if leaf.state() != LeafState::ReadOnly => seen = found,
                // Structure can't change under shared access: somebody else's bug is not made worse.
                _ => return false,
            },
        }
    }
    true
}

impl<D: DmaTlb> AddressSpace<'_, D> {
    /// Answers a stage-2 permission fault of a vCPU's write to `ipa` (a stage-1 table walk's counts as a write), on the
    /// PE that took it.
    ///
    /// The page is recorded first, then made writable-dirty by compare-and-swap (or found so: another vCPU was faster),
    /// then the entry that faulted is removed from this PE's TLB, where it may stay (Arm ARM, IWZCBG). Nothing is
    /// broadcast, nobody is waited for: an entry elsewhere that still forbids the write only faults there too.
    pub fn write_fault<P: Platform>(&self, platform: &P, ipa: Ipa) -> WriteFault {
        let page = ipa.align_down(PAGE_BYTES);
        let Ok(range) = IpaRange::new(page, PAGE_BYTES) else { return WriteFault::Denied };
        let tree = &self.cpu.tree;
        let Some((slot, leaf)) = logged_leaf(tree, platform, range) else { return WriteFault::Denied };
        self.write_faults.fetch_add(1, Ordering::Relaxed);
        // A block that is logged counts whole.
        self.mark_written(platform, slot.range().unwrap_or(range));
        if !permit_write(platform, slot, leaf) {
            return WriteFault::Denied;
        }
        let vttbr = self.cpu.walker.vttbr(tree);
        platform.barrier(Barrier::DsbIshst);
        platform.tlbi(vttbr, Tlbi::IpaS2E1(page));
        platform.barrier(Barrier::DsbNsh);
        platform.tlbi(vttbr, Tlbi::VmallE1);
        platform.barrier(Barrier::DsbNsh);
        platform.barrier(Barrier::Isb);
        WriteFault::Recorded
    }
}
