//! Views that come and go while a log is on.

use core::fmt;

use strandline_abi::{DmaTier, LogSource};

use super::adaptive::most_roots;
use super::digest::Digests;
use super::start::is_supported;
use super::{DirtyLog, Ledger, Phase, STEP_PAGES_DIGEST};
use crate::addr::{IpaRange, Vmid};
use crate::address_space::{AddressSpace, DmaView, SpaceError};
use crate::hw::{Barrier, DmaTlb, Platform};
use crate::stage2::{DmaWalker, Found, Harvest, Retired, ViewError, Walker};

/// Why a view could not be attached or detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// A start or stop is under way: end it first.
    Changing,
    /// The view would weaken the log that is on to this tier, and the caller did not allow that.
    Weaker(DmaTier),
    /// The log that is on can't know writes in this way.
    NoTier(DmaTier),
    /// The view's writes were to come to be known by digests, and there is no key for them.
    NoKey,
    /// There is no DMA view with this index.
    NoSuchView(usize),
    /// The address space can't take the view; nothing was changed.
    Space(SpaceError),
    /// The view's last invalidation did not complete: it is gone, its frames and its VMID stay out of use, and a log that
    /// is on is untrusted.
    View(ViewError),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changing => f.write_str("a start or stop of the log is under way: end it first"),
            Self::Weaker(tier) => {
                write!(f, "the device would weaken the log that is on to '{tier}': allow that")
            }
            Self::NoTier(tier) => write!(f, "logging by tier '{tier}' is not supported"),
            Self::NoKey => f.write_str("logging by digests needs a key: give the log one"),
            Self::NoSuchView(index) => write!(f, "there is no DMA view {index}"),
            Self::Space(error) => error.fmt(f),
            Self::View(error) => error.fmt(f),
        }
    }
}

impl From<SpaceError> for AttachError {
    fn from(error: SpaceError) -> Self {
        Self::Space(error)
    }
}

/// Whether a log may become weaker by a device that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakening {
    /// It may not: such a device is refused.
    Refused,
    /// The caller knows, and wants the device.
    Accepted,
}

impl DirtyLog {
    /// Adds a view for devices, as [`AddressSpace::add_dma_view`] does; under a log its pages have the log's granule
    /// and enter it dirty (those of a digest view, if it is not the first one, as they are). Gives back its index. No
    /// stream uses it yet.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has been changed.
    pub fn attach_view<'d, P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'d, D>,
        walker: DmaWalker<'d, D>,
        tier: DmaTier,
        weakening: Weakening,
    ) -> Result<usize, AttachError> {
        let on = match &mut self.phase {
            Phase::Off => return Ok(space.add_dma_view(platform, walker, tier)?),
            Phase::On(on) => on,
            Phase::Starting(_) | Phase::Stopping(_) => return Err(AttachError::Changing),
        };
        if !is_supported(tier) {
            return Err(AttachError::NoTier(tier));
        }
        let weaker = space.dma_tier() != DmaTier::None && tier.code() > space.dma_tier().code();
        if weaker && weakening == Weakening::Refused {
            return Err(AttachError::Weaker(tier));
        }
        let digests = match (&space.ledger, tier, self.key) {
            (Some(Ledger { digests: None, .. }), DmaTier::Digest, Some(key)) => {
                Some(Digests::unknown(platform, on.range.pages(), key).map_err(SpaceError::from)?)
            }
            (Some(Ledger { digests: None, .. }), DmaTier::Digest, None) => return Err(AttachError::NoKey),
            _ => None,
        };
        match attach(platform, space, on.range, walker, tier) {
            Ok((index, retired)) => {
                on.dma_retired[index] = retired;
                if let (Some(digests), Some(ledger)) = (digests, &mut space.ledger) {
                    ledger.digests = Some(digests);
                    on.step_pages = STEP_PAGES_DIGEST;
                }
                Ok(index)
            }
            Err(error) => {
                if let Some(digests) = digests {
                    digests.free(platform);
                }
                Err(error.into())
            }
        }
    }

    /// Takes away DMA view `index`, which no stream uses any more: it is invalidated, then read once more (a log keeps
    /// what it knew, or in tiers that keep no dirty state every page a device might have written, once), then its
    /// frames are free. Gives back its VMID, which is the caller's to give back. Where the SMMU fell silent behind that, and did
    /// not forget a second tree, that one's frames and VMID stay out of use, and are counted; the view is gone all the same.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has been changed, unless it is [`AttachError::View`].
    pub fn detach_view<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &mut AddressSpace<'_, D>,
        index: usize,
    ) -> Result<Vmid, AttachError> {
        if matches!(self.phase, Phase::Starting(_) | Phase::Stopping(_)) {
            return Err(AttachError::Changing);
        }
        let place = space.dma.get_mut(index).ok_or(AttachError::NoSuchView(index))?;
        let mut dma = place.take().ok_or(AttachError::NoSuchView(index))?;
        if let Phase::On(on) = &mut self.phase
            && let Some(retired) = on.dma_retired[index].take()
        {
            space.quarantined += retired.end(platform);
        }
        let invalidated = dma.view.walker.invalidate(platform, &dma.view.tree);
        space.quarantined += dma.end_other(platform, invalidated.is_ok());
        if let Err(error) = invalidated {
            space.quarantined += dma.view.tree.abandon(platform);
            // What it knew of writes is gone with it.
            let _untrusted = self.distrust();
            return Err(AttachError::View(error));
        }
        // Hardware's last updates are visible to this CPU only behind a barrier after the CMD_SYNC (IHI 0070 §3.13.4).
        platform.barrier(Barrier::DsbSy);
        if let Some(ledger) = &space.ledger {
            let mode = if dma.shows_writes() { Harvest::Keep } else { Harvest::Assume };
            // By reference: one copy of the harvest serves all who are in no hurry.
            let found: &mut dyn FnMut(Found) = &mut |found| {
                if found.is_dirty() {
                    ledger.record_pages(platform, LogSource::Dma, found.ipa, found.pages);
                }
            };
            dma.view.tree.harvest_words(platform, ledger.range(), mode, found);
        }
        let vmid = dma.view.walker.vmid;
        dma.view.tree.free(platform);
        Ok(vmid)
    }
}

/// Adds a view to a log of `logged`: its index, and room for the tables that a stop of the log will unlink, where the
/// log changes anything in it.
fn attach<'d, P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'d, D>,
    logged: IpaRange,
    walker: DmaWalker<'d, D>,
    tier: DmaTier,
) -> Result<(usize, Option<Retired>), SpaceError> {
    let reserve = platform.reserve(Retired::frames_for(most_roots(logged)))?;
    match space.insert_dma_view(platform, walker, tier) {
        Ok(index) if space.dma[index].as_ref().is_some_and(merges) => {
            Ok((index, Some(Retired::new(reserve))))
        }
        Ok(index) => {
            platform.unreserve(reserve);
            Ok((index, None))
        }
        Err(error) => {
            platform.unreserve(reserve);
            Err(error)
        }
    }
}

/// Whether a stop changes anything in the tree itself.
fn merges<D: DmaTlb>(view: &DmaView<'_, D>) -> bool {
    view.takes_part() && view.other.is_none()
}
