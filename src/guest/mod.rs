//! The front of the library: one guest, with its memory, its devices and its log.
//!
//! A [`Guest`] is made of the library's parts ([`AddressSpace`], [`DirtyLog`], [`Smmu`]), which stay there for who needs
//! more, and leaves out what can be got wrong with them:
//!
//! * *A view in use can't be dropped.* Views belong to the guest. [`Guest::end`] gives their frames back, and does so only
//!   when no device is attached; a guest that is merely dropped keeps its frames for good, since an SMMU may walk them.
//! * *A log can't outlive its VM*, or be used with another one's address space: it is part of the guest.
//! * *A stream belongs to one view.* [`Guest::attach`] hands out an [`Attached`], which can't be copied, and which
//!   [`Guest::detach`] takes back; the SMMU refuses a second view for the stream meanwhile.
//! * *Structure has one owner.* What changes it takes `&mut self`; what vCPUs do all the time (faults, EL2's own stores), and
//!   syncs, take `&self`. A hypervisor with several cores puts the guest in a reader-writer lock, and nobody has to know a
//!   rule.

mod error;
mod log;

use core::fmt;

use spin::Mutex;

pub use error::{GuestError, NotDetached, StillAttached};

use crate::addr::{IpaRange, Pa, StreamId, Vmid};
use crate::address_space::{AddressSpace, MAX_DMA_VIEWS, Region};
use crate::dirty_log::{
    AttachError, CpuTier, DigestKey, DirtyLog, DmaTier, KeySource, LogState, Tiers, Weakening,
};
use crate::hw::{Platform, Vttbr};
use crate::smmu::{Httu, Registers, Smmu, SmmuError, Stage2Config};
use crate::stage2::{DmaWalker, Format};

/// One guest: what its vCPUs and its devices reach, and the log of what they write.
pub struct Guest<'s, P, R> {
    platform: &'s P,
    space: AddressSpace<'s, Smmu<'s, P, R>>,
    log: Mutex<DirtyLog>,
    /// Streams attached to each view.
    streams: [u32; MAX_DMA_VIEWS],
}

/// A device of a guest: proof that its stream goes through one of the guest's views.
///
/// It is given back to [`Guest::detach`]. One that is dropped stays attached for good, and its guest can't be ended.
#[must_use = "a device whose proof is dropped can't be detached any more"]
pub struct Attached<'s, P, R> {
    smmu: &'s Smmu<'s, P, R>,
    stream: StreamId,
    view: usize,
    /// The VMID the view was added with: with the SMMU, what tells views of different guests apart.
    vmid: Vmid,
}

impl<P, R> Attached<'_, P, R> {
    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }
}

impl<P, R> fmt::Debug for Guest<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vmid, devices) = (self.space.cpu.walker.vmid, self.streams.iter().sum::<u32>());
        write!(f, "guest of VMID {vmid} with {devices} devices")
    }
}

impl<P, R> fmt::Debug for Attached<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} in view {}", self.stream, self.view)
    }
}

impl<'s, P: Platform, R: Registers> Guest<'s, P, R> {
    /// A guest without memory and devices, whose vCPUs' TLB entries have `vmid` and whose vCPUs' writes come to be known by
    /// `cpu_tier`. `vmid` is no other guest's; what PEs may hold of it is invalidated here.
    ///
    /// # Errors
    /// No frames for the root of its tree.
    pub fn new(platform: &'s P, format: Format, vmid: Vmid, cpu_tier: CpuTier) -> Result<Self, GuestError> {
        let space = AddressSpace::new(platform, format, vmid)?;
        let guest =
            Self { platform, space, log: Mutex::new(DirtyLog::new(cpu_tier)), streams: [0; MAX_DMA_VIEWS] };
        guest.forget_vcpus();
        Ok(guest)
    }

    /// The same with a key for digests, whose randomness comes from `source`; before a log is started.
    #[must_use]
    pub fn with_key(mut self, key: DigestKey, source: KeySource) -> Self {
        self.log = Mutex::new(self.log.into_inner().with_key(key, source));
        self
    }

    /// The same on cores that never raise a TLB conflict abort ([`AddressSpace::with_direct_swap`]): a start or stop holds no
    /// vCPU.
    #[must_use]
    pub fn with_direct_swap(mut self) -> Self {
        self.space = self.space.with_direct_swap();
        self
    }

    /// The same on cores that may end a broadcast invalidation too early
    /// ([`AddressSpace::with_repeated_invalidation`]): each is issued twice.
    #[must_use]
    pub fn with_repeated_invalidation(mut self) -> Self {
        self.space = self.space.with_repeated_invalidation();
        self.forget_vcpus();
        self
    }

    /// What a vCPU of it has in VTTBR_EL2 while it runs. VTCR_EL2 is [`Format::vtcr`] of the guest's format.
    #[must_use]
    pub fn vttbr(&self) -> Vttbr {
        let view = self.space.cpu_view();
        view.walker.vttbr(&view.tree)
    }

    /// Its address space, to be looked at.
    #[must_use]
    pub const fn space(&self) -> &AddressSpace<'s, Smmu<'s, P, R>> {
        &self.space
    }

    /// How its writes come to be known.
    #[must_use]
    pub fn tiers(&self) -> Tiers {
        self.log.lock().tiers(&self.space)
    }

    /// Maps `region`, in all its views or in none.
    ///
    /// # Errors
    /// [`AddressSpace::map`]'s; or an SMMU in front of its devices can't address the memory. Nothing was changed.
    pub fn map(&mut self, region: Region) -> Result<(), GuestError> {
        for dma in self.space.dma_views() {
            within(&region, dma.view.walker.tlb)?;
        }
        Ok(self.space.map(self.platform, region)?)
    }

    /// Unmaps a region that was mapped as `range`. When it returns the memory may be reused.
    ///
    /// # Errors
    /// [`AddressSpace::unmap`]'s: with [`SpaceError::View`](crate::address_space::SpaceError::View) the mapping is gone, but
    /// its memory must not be reused.
    pub fn unmap(&mut self, range: IpaRange) -> Result<(), GuestError> {
        Ok(self.space.unmap(self.platform, range)?)
    }

    /// The best way in which writes of a device behind `smmu` come to be known: the SMMU's dirty state, or digests where the
    /// guest has a key, or else none. (Stalls are better than digests, but firmware has to vouch for the device.)
    #[must_use]
    pub fn best_tier(&self, smmu: &Smmu<'s, P, R>) -> DmaTier {
        if smmu.features().httu >= Httu::Dirty {
            DmaTier::Hardware
        } else if self.log.lock().has_key() {
            DmaTier::Digest
        } else {
            DmaTier::Assume
        }
    }

    /// Gives the guest the device behind `smmu` whose stream is `stream`, its writes known by `tier`
    /// ([`Guest::best_tier`] says which is possible). When it returns the device reaches
    /// the guest's memory, and nothing else. Under a log that is on it may not be of a weaker tier than what is logged.
    ///
    /// # Errors
    /// The SMMU or the address space refused, or memory lies beyond the SMMU's reach: the device is not attached.
    pub fn attach(
        &mut self,
        smmu: &'s Smmu<'s, P, R>,
        stream: StreamId,
        tier: DmaTier,
    ) -> Result<Attached<'s, P, R>, GuestError> {
        if matches!(tier, DmaTier::None | DmaTier::Stall) {
            return Err(GuestError::Tier(tier));
        }
        let known = self.space.dma.iter().position(|dma| {
            dma.as_ref().is_some_and(|dma| core::ptr::eq(dma.view.walker.tlb, smmu) && dma.tier == tier)
        });
        let view = match known {
            Some(view) => view,
            None => self.add_view(smmu, tier)?,
        };
        match self.attach_to(smmu, stream, view) {
            Ok(device) => Ok(device),
            Err(error) => {
                // A stream that the SMMU was not seen to forget may use the view: that stays then.
                if known.is_none() && !matches!(error, GuestError::Smmu(SmmuError::Command(_))) {
                    // What could not be invalidated is quarantined, and counted.
                    let _quarantined = self.remove_view(view, smmu);
                }
                Err(error)
            }
        }
    }

    /// Takes a device away: when it returns none of its accesses is under way, and it reaches nothing. With the last device of
    /// a view the view goes; what a log knew of its writes stays in the log until it is reported.
    ///
    /// # Errors
    /// [`NotDetached`], with the device: it may still reach the guest's memory. Try again, when it is known to have stopped
    /// at the latest.
    pub fn detach(&mut self, device: Attached<'s, P, R>) -> Result<(), NotDetached<'s, P, R>> {
        let Attached { smmu, stream, view, vmid } = device;
        let is_ours = self
            .space
            .dma_view(view)
            .is_some_and(|dma| core::ptr::eq(dma.view.walker.tlb, smmu) && dma.home_vmid() == vmid);
        if !is_ours {
            return Err(NotDetached { device, error: GuestError::NotOurs(stream) });
        }
        // Before the stream is touched: a view that can't go now would be left without a device.
        if self.streams[view] == 1 && self.space.is_changing() {
            return Err(NotDetached { device, error: AttachError::Changing.into() });
        }
        if let Err(error) = smmu.detach(stream) {
            return Err(NotDetached { device, error: error.into() });
        }
        self.streams[view] = self.streams[view].saturating_sub(1);
        if self.streams[view] == 0 {
            // What could not be invalidated is quarantined, and counted; the stream is gone either way.
            let _quarantined = self.remove_view(view, smmu);
        }
        Ok(())
    }

    /// Ends the guest: all its frames are free when this returns, but for those that hardware was not seen to forget. It says
    /// how many these are: they stay out of use for good. No vCPU runs on it any more. Its memory is the caller's again.
    ///
    /// # Errors
    /// Devices are attached, or an SMMU was not seen to forget a view: the guest comes back.
    #[expect(
        clippy::result_large_err,
        reason = "the guest comes back in it, and there is no heap to put it on"
    )]
    pub fn end(self) -> Result<u64, StillAttached<'s, P, R>> {
        let devices = self.streams.iter().sum();
        // A view that could not be taken away is one that a device may use.
        if devices != 0 || self.space.dma_views().next().is_some() {
            return Err(StillAttached { guest: self, devices });
        }
        self.forget_vcpus();
        self.log.into_inner().dismantle(self.platform);
        let quarantined = self.space.quarantined_frames();
        self.space.free(self.platform);
        Ok(quarantined)
    }

    /// Invalidates all that PEs hold of its vCPUs' translations.
    fn forget_vcpus(&self) {
        let view = self.space.cpu_view();
        view.walker.invalidate_all(self.platform, &view.tree);
    }

    fn add_view(&mut self, smmu: &'s Smmu<'s, P, R>, tier: DmaTier) -> Result<usize, GuestError> {
        for region in self.space.regions() {
            within(region, smmu)?;
        }
        let vmid = smmu.alloc_vmid()?;
        let walker = DmaWalker { tlb: smmu, vmid, coherent: smmu.features().coherent };
        let log = self.log.get_mut();
        let attached = log.attach_view(self.platform, &mut self.space, walker, tier, Weakening::Refused);
        let view = attached.inspect_err(|_| {
            // No stream has used it: what becomes of it is the SMMU's to count.
            let _quarantined = smmu.free_vmid(vmid);
        })?;
        if log.state() == LogState::Off && smmu.features().httu == Httu::TableAccessFlag {
            self.space.use_table_flags(self.platform, view);
        }
        Ok(view)
    }

    fn attach_to(
        &mut self,
        smmu: &'s Smmu<'s, P, R>,
        stream: StreamId,
        view: usize,
    ) -> Result<Attached<'s, P, R>, GuestError> {
        let dma = self.space.dma_view(view).ok_or(AttachError::NoSuchView(view))?;
        let ste = smmu.view(&Stage2Config::of(dma))?;
        smmu.attach(stream, &ste)?;
        let vmid = dma.home_vmid();
        self.streams[view] += 1;
        Ok(Attached { smmu, stream, view, vmid })
    }

    /// Takes a view away that no stream uses.
    fn remove_view(&mut self, view: usize, smmu: &'s Smmu<'s, P, R>) -> Result<(), GuestError> {
        let vmid = self.log.get_mut().detach_view(self.platform, &mut self.space, view)?;
        Ok(smmu.free_vmid(vmid)?)
    }
}

/// Checks that `smmu` can address the memory of `region`, where devices reach it.
fn within<P: Platform, R: Registers>(region: &Region, smmu: &Smmu<'_, P, R>) -> Result<(), GuestError> {
    let (bits, end) = (smmu.features().output_bits, region.pa.0.saturating_add(region.range.bytes()));
    if region.reach.devices() && (end - 1) >> bits != 0 {
        return Err(GuestError::BeyondSmmu { end: Pa(end), bits });
    }
    Ok(())
}
