//! Stalled writes: how a device's writes come to be known on an SMMU without hardware dirty state, where its stream may
//! stall (IHI 0070 §3.12.2).

use strandline_abi::{DmaTier, LogSource};

use super::fault::{logged_leaf, permit_write};
use crate::addr::{Ipa, IpaRange, PAGE_BYTES};
use crate::address_space::{AddressSpace, DmaView};
use crate::hw::{DmaTlbError, Platform, Resume, ResumeError, Scope, Stall, StallTlb};
use crate::stage2::{LeafState, Lines};

/// What a stalled transaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallAnswer {
    /// The page is recorded as written, and may be written: the transaction is tried again.
    Recorded,
    /// It was to do what the VM's devices may not: it is terminated with an abort.
    Aborted,
}

impl<'d, D: StallTlb> AddressSpace<'d, D> {
    /// Answers `stall`, of a stream that goes through view `dma` of this address space. Whether a log is on does not
    /// matter: until a stop has ended there are writable-clean leaves, or TLB entries of some.
    ///
    /// The page is recorded first, then its leaf made writable-dirty (or found so), then the entry that forbade the write
    /// is invalidated, and only when that has completed the transaction is tried again: it can neither meet the old
    /// entry and stall once more, nor write before the log knows. The SMMU may try it again by itself as soon as it can
    /// see the new leaf (§3.12.2.2), which is why the record comes before that.
    ///
    /// # Errors
    /// The SMMU did not answer, or refused a command; whether the transaction has its answer nevertheless. Nothing is lost
    /// to the log, and where the answer was not issued it is to be tried again.
    pub fn answer_stall<P: Platform>(
        &self,
        platform: &P,
        dma: &DmaView<'d, D>,
        stall: &Stall,
    ) -> Result<StallAnswer, ResumeError> {
        let permitted = match stall.write {
            Some(ipa) => self.permit_device_write(platform, dma, ipa),
            None => Ok(false),
        };
        let permitted = permitted.map_err(|error| ResumeError { error, issued: false })?;
        let (how, answer) = match permitted {
            true => (Resume::Retry, StallAnswer::Recorded),
            false => (Resume::Abort, StallAnswer::Aborted),
        };
        dma.view.walker.tlb.resume(stall, how).map(|()| answer)
    }

    /// Records a device's write to `ipa` and lets it happen; `false` where devices may not write there.
    fn permit_device_write<P: Platform>(
        &self,
        platform: &P,
        dma: &DmaView<'d, D>,
        ipa: Ipa,
    ) -> Result<bool, DmaTlbError> {
        let Ok(page) = IpaRange::new(ipa.align_down(PAGE_BYTES), PAGE_BYTES) else { return Ok(false) };
        let walker = &dma.view.walker;
        let Some((slot, leaf)) = logged_leaf(&dma.view.tree, platform, page) else { return Ok(false) };
        if let Some(ledger) = &self.ledger {
            // A block that is logged counts whole. One that is dirty already is about to be split by a start, or has been
            // recorded by whoever made it so.
            let clean = leaf.state() == LeafState::WritableClean;
            let written = slot.range().filter(|_| clean).unwrap_or(page);
            ledger.record(platform, LogSource::Dma, written);
        }
        if !permit_write(platform, slot, leaf) {
            return Ok(false);
        }
        let mut lines = Lines::new(walker.coherent);
        lines.touch(platform, slot.pa);
        lines.clean(platform);
        // Of table descriptors as well: a merge may have replaced one that a retry would still go through.
        let scope = Scope::Range { range: page, leaf_only: false };
        walker.tlb.invalidate(walker.vmid, scope)?;
        // An SMMU that has not said that it goes another way may try it again in the tree of a log that has ended.
        if let Some(other) = dma.other_in_use()
            && let Some((slot, leaf)) = logged_leaf(&other.tree, platform, page)
        {
            permit_write(platform, slot, leaf);
            walker.tlb.invalidate(other.walker.vmid, scope)?;
        }
        Ok(true)
    }

    /// A device's write to `ipa` through view `dma` was *terminated* since stage 2 did not permit it. Where the page is one
    /// that the log of a stall view watches, the stream does not stall as it was said to (§3.12 allows that of a stream
    /// that nobody vouched for): its writes are lost, and the log is untrusted from now on. Says whether it is.
    pub fn write_terminated<P: Platform>(&self, platform: &P, dma: &DmaView<'d, D>, ipa: Ipa) -> bool {
        let page = IpaRange::new(ipa.align_down(PAGE_BYTES), PAGE_BYTES);
        let (Some(ledger), Ok(page), DmaTier::Stall) = (&self.ledger, page, dma.tier) else { return false };
        let watched = ledger.range().overlaps(page) && logged_leaf(&dma.view.tree, platform, page).is_some();
        if watched {
            ledger.distrust();
        }
        watched
    }
}
