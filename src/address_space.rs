//! The address space of one VM: its CPU view, its DMA views, and what is mapped in them.
//!
//! Structure changes only through `&mut AddressSpace`: whoever has it has every view of the VM, and nobody has to
//! know a rule. The dirty state of leaves changes under `&AddressSpace`, by atomic operations.

mod dma_view;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use strandline_abi::{DmaTier, LogSource};

use crate::addr::{Ipa, IpaRange, Pa, Vmid};
use crate::dirty_log::Ledger;
use crate::frames::{FrameReserve, OutOfFrames};
use crate::hw::{DmaTlb, DmaTlbError, Platform};
use crate::stage2::descriptor::Leaf;
use crate::stage2::{
    CpuWalker, DmaWalker, Format, LeafCounts, LeafState, MapError, Mapping, Retired, Rights, Tree, View,
    ViewError, Walker,
};

pub use dma_view::DmaView;
pub(crate) use dma_view::OtherTreeError;

/// The most DMA views of a VM: one for each tier and class of SMMU in front of its devices.
pub const MAX_DMA_VIEWS: usize = 4;
/// The most separate mappings of a VM.
pub const MAX_REGIONS: usize = 32;

/// Who reaches a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// vCPUs and devices: RAM.
    Ram,
    /// vCPUs only: the registers of a device.
    CpuDevice,
    /// Devices only: the doorbell that their MSIs are written to.
    DmaDoorbell,
}

impl Reach {
    /// Whether it is in the CPU view.
    const fn vcpus(self) -> bool {
        !matches!(self, Self::DmaDoorbell)
    }

    /// Whether it is in the DMA views.
    pub(crate) const fn devices(self) -> bool {
        !matches!(self, Self::CpuDevice)
    }

    const fn rights(self) -> Rights {
        match self {
            Self::Ram => Rights::RAM,
            Self::CpuDevice | Self::DmaDoorbell => Rights::DEVICE,
        }
    }
}

/// A mapping of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest addresses.
    pub range: IpaRange,
    /// Where they lie.
    pub pa: Pa,
    /// Who reaches them.
    pub reach: Reach,
}

impl Region {
    /// It, by the largest leaves.
    const fn mapping(&self) -> Mapping {
        Mapping { range: self.range, pa: self.pa, rights: self.reach.rights(), by_pages: None }
    }
}

/// Why an address space can't be changed; but for [`SpaceError::View`] nothing has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceError {
    /// A view can't take the mapping.
    Map(MapError),
    /// The VM has [`MAX_DMA_VIEWS`] DMA views already.
    TooManyViews,
    /// The VM has [`MAX_REGIONS`] mappings already: this one is too many.
    TooManyRegions(IpaRange),
    /// The mapping cannot be unmapped, since no mapping is exactly this range.
    NoSuchRegion(IpaRange),
    /// A log of some of this range is being started or stopped: end that first.
    Changing(IpaRange),
    /// This range is logged: a view is added through the log ([`crate::dirty_log::DirtyLog::attach_view`]).
    Logged(IpaRange),
    /// The view takes a second VMID for the log that is on, and all are taken.
    OutOfVmids,
    /// The SMMU did not answer when it was asked for that VMID.
    NoAnswer(DmaTlbError),
    /// An invalidation did not complete: the mapping is gone, but the memory must not be reused.
    View(ViewError),
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => error.fmt(f),
            Self::TooManyViews => write!(f, "the VM has {MAX_DMA_VIEWS} DMA views already"),
            Self::TooManyRegions(range) => {
                write!(f, "the VM has {MAX_REGIONS} mappings already: {range} is one too many")
            }
            Self::NoSuchRegion(range) => write!(f, "no mapping is exactly {range}"),
            Self::Changing(range) => write!(f, "a log of some of {range} is being started or stopped"),
            Self::Logged(range) => write!(f, "{range} is logged: attach the view through the log"),
            Self::OutOfVmids => f.write_str("the SMMU has no VMID left for a second tree"),
            Self::NoAnswer(error) => error.fmt(f),
            Self::View(error) => error.fmt(f),
        }
    }
}

impl From<MapError> for SpaceError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<OutOfFrames> for SpaceError {
    fn from(lack: OutOfFrames) -> Self {
        Self::Map(MapError::OutOfFrames(lack))
    }
}

/// The address space of one VM.
#[derive(Debug)]
pub struct AddressSpace<'d, D> {
    pub(crate) cpu: View<CpuWalker>,
    pub(crate) dma: [Option<DmaView<'d, D>>; MAX_DMA_VIEWS],
    regions: [Option<Region>; MAX_REGIONS],
    /// What EL2 holds of the log that is on, or being started or stopped: new mappings in its range use its granule.
    pub(crate) ledger: Option<Ledger>,
    /// The range of a log of which a start or stop is under way: its structure is theirs alone.
    changing: Option<IpaRange>,
    /// Frames out of use for good.
    pub(crate) quarantined: u64,
    /// Write-protect faults answered so far.
    pub(crate) write_faults: AtomicU64,
}

impl<'d, D: DmaTlb> AddressSpace<'d, D> {
    /// An empty address space whose CPU view has `vmid`, which no PE's TLB holds entries of.
    ///
    /// # Errors
    /// No memory for the root of its tree.
    pub fn new<P: Platform>(platform: &P, format: Format, vmid: Vmid) -> Result<Self, SpaceError> {
        let tree = Tree::new(platform, format)?;
        Ok(Self {
            cpu: View { tree, walker: CpuWalker { vmid, direct: false, repeat: false } },
            dma: [const { None }; MAX_DMA_VIEWS],
            regions: [None; MAX_REGIONS],
            ledger: None,
            changing: None,
            quarantined: 0,
            write_faults: AtomicU64::new(0),
        })
    }

    /// The same for a VM that runs on no PE but such as have FEAT_BBM level 2 and are known, by their MIDR
    /// ([`midr::never_conflicts`](crate::midr::never_conflicts)), never to raise a TLB conflict abort: sizes change in its CPU view while its vCPUs run.
    #[must_use]
    pub const fn with_direct_swap(mut self) -> Self {
        self.cpu.walker.direct = true;
        self
    }

    /// The same for a VM that may run on PEs which end a broadcast invalidation before all stores through the old entries
    /// are done ([`CpuWalker::repeat`], [`midr::repeats_invalidation`](crate::midr::repeats_invalidation)): each is issued
    /// twice.
    #[must_use]
    pub const fn with_repeated_invalidation(mut self) -> Self {
        self.cpu.walker.repeat = true;
        self
    }

    /// Frames that stay out of use for good, since an invalidation that covers them did not complete: tables that a
    /// stop or an unmap has unlinked, the lists of them, and the trees of views that were detached so. It never shrinks.
    #[must_use]
    pub const fn quarantined_frames(&self) -> u64 {
        self.quarantined
    }

    /// Adds a view for devices, with all RAM mapped so far; gives back its index. No stream uses it yet. Where there may
    /// be a log, [`crate::dirty_log::DirtyLog::attach_view`] is the way.
    ///
    /// # Errors
    /// The VM has as many as it can, frames are lacking, or there is a log; nothing has been changed.
    pub fn add_dma_view<P: Platform>(
        &mut self,
        platform: &P,
        walker: DmaWalker<'d, D>,
        tier: DmaTier,
    ) -> Result<usize, SpaceError> {
        if let Some(range) = self.changing {
            return Err(SpaceError::Changing(range));
        }
        if let Some(ledger) = &self.ledger {
            return Err(SpaceError::Logged(ledger.range()));
        }
        self.insert_dma_view(platform, walker, tier)
    }

    /// From now on the access flags of tables, which the SMMU of DMA view `index` keeps (IDR0.HTTU = 3), say where a log
    /// need not look. No stream uses the view yet, and [`DmaView::hardware_update`] goes into the STE of each that will:
    /// with S2HAFT clear the log would miss writes. Without effect on a view whose tier isn't [`DmaTier::Hardware`].
    pub fn use_table_flags<P: Platform>(&mut self, platform: &P, index: usize) {
        if let Some(Some(dma)) = self.dma.get_mut(index)
            && dma.tier == DmaTier::Hardware
        {
            let mapped = self.regions.iter().flatten().filter(|r| r.reach.devices()).map(|r| r.range);
            dma.use_table_flags(platform, mapped);
        }
    }

    /// [`AddressSpace::add_dma_view`], whatever a log is doing.
    pub(crate) fn insert_dma_view<P: Platform>(
        &mut self,
        platform: &P,
        walker: DmaWalker<'d, D>,
        tier: DmaTier,
    ) -> Result<usize, SpaceError> {
        let index = self.dma.iter().position(Option::is_none).ok_or(SpaceError::TooManyViews)?;
        let tree = Tree::new(platform, self.cpu.tree.format())?;
        let mut dma = DmaView::new(tree, walker, tier);
        if let Err(error) = self.map_all(platform, &mut dma) {
            dma.free_other(platform);
            dma.view.tree.free(platform);
            return Err(error);
        }
        self.dma[index] = Some(dma);
        Ok(index)
    }

    /// Maps what devices reach in a view that is new: in both its trees, where the log that is on takes two.
    fn map_all<P: Platform>(&self, platform: &P, dma: &mut DmaView<'d, D>) -> Result<(), SpaceError> {
        if self.ledger.is_some() {
            dma.add_other(platform)?;
        }
        for region in self.regions.iter().flatten().filter(|r| r.reach.devices()) {
            let mapping = self.mapping(region);
            dma.map_alone(platform, mapping)?;
            dma.map_other(platform, mapping)?;
        }
        dma.exchange();
        Ok(())
    }

    /// Maps a bounded part, from `at` on, of what devices reach into the second tree of view `index`, out of `reserve`;
    /// moves `at` behind it. `true` when all is mapped. What is mapped meanwhile is in it already.
    pub(crate) fn copy_step<P: Platform>(
        &mut self,
        platform: &P,
        index: usize,
        at: &mut Ipa,
        reserve: &mut FrameReserve,
    ) -> bool {
        let regions = self.regions;
        let shared = || regions.iter().flatten().filter(|r| r.reach.devices());
        let left = shared().filter(|r| r.range.end() > *at).map(|r| r.range.start().max(*at)).min();
        let (Some(window), Some(Some(dma))) = (left.and_then(dma_view::window), self.dma.get_mut(index))
        else {
            return true;
        };
        for region in shared() {
            dma.copy(platform, region.mapping(), window, reserve);
        }
        *at = window.end();
        false
    }

    /// Maps `region`, in the CPU view first, in the DMA views last; all or nothing.
    ///
    /// # Errors
    /// Something is mapped there already, frames are lacking, the region is beyond the address size, or a start or stop
    /// of a log of some of it is under way.
    pub fn map<P: Platform>(&mut self, platform: &P, region: Region) -> Result<(), SpaceError> {
        self.check_not_changing(region.range)?;
        let place = self.regions.iter().position(Option::is_none);
        let place = place.ok_or(SpaceError::TooManyRegions(region.range))?;
        let mapping = self.mapping(&region);
        let (cpu, dma) = (region.reach.vcpus(), region.reach.devices());
        // For the views that are still to come, as for those there are.
        mapping.check(self.cpu.tree.format())?;
        self.check_free(&region)?;

        let mut frames = if cpu { self.cpu.tree.map_needs(platform, &mapping)? } else { 0 };
        for view in self.dma.iter().flatten().filter(|_| dma) {
            frames += view.map_needs(platform, mapping)?;
        }
        let mut reserve = platform.reserve(frames)?;

        if cpu {
            self.cpu.tree.map(platform, &mapping, &mut reserve, false);
        }
        for view in self.dma.iter_mut().flatten().filter(|_| dma) {
            view.map(platform, mapping, &mut reserve);
        }
        platform.unreserve(reserve);
        self.regions[place] = Some(region);
        if let Some(ledger) = &self.ledger {
            ledger.forget_digests(platform, region.range);
        }
        Ok(())
    }

    /// Unmaps a region that was mapped as `range`, in the DMA views first, in the CPU view last. When it returns
    /// every view has been invalidated, and the memory may be reused. What the views knew to be written under a log,
    /// or must assume to be, stays in the log until it has been reported.
    ///
    /// # Errors
    /// No region is exactly `range`, or a start or stop of a log of some of it is under way: nothing was changed. Or
    /// hardware did not complete an invalidation: the mapping is gone, its memory and table frames stay out of use, and a
    /// log of some of `range` is untrusted, since devices may still write there unseen.
    pub fn unmap<P: Platform>(&mut self, platform: &P, range: IpaRange) -> Result<(), SpaceError> {
        self.check_not_changing(range)?;
        let (place, region) = self
            .regions
            .iter()
            .enumerate()
            .find_map(|(place, r)| r.filter(|r| r.range == range).map(|r| (place, r)))
            .ok_or(SpaceError::NoSuchRegion(range))?;
        let (cpu, dma) = (region.reach.vcpus(), region.reach.devices());
        for view in self.dma.iter().flatten().filter(|_| dma) {
            view.view.tree.unmap_check(platform, range)?;
        }
        if cpu {
            self.cpu.tree.unmap_check(platform, range)?;
        }

        let ledger = self.ledger.as_ref();
        let left = |source, range| {
            if let Some(ledger) = ledger {
                ledger.record(platform, source, range);
            }
        };
        self.regions[place] = None;
        let (mut result, quarantined) = (Ok(()), &mut self.quarantined);
        for view in self.dma.iter_mut().flatten().filter(|_| dma) {
            let exact = view.shows_writes();
            let unmapped = view.unmap(platform, range, quarantined, &mut |range, leaf| {
                if leaf.is_logged() && (!exact || leaf.state() == LeafState::WritableDirty) {
                    left(LogSource::Dma, range);
                }
            });
            result = result.and(unmapped);
        }
        if cpu {
            let unmapped = unmap_one(platform, &mut self.cpu, range, quarantined, &mut |range, leaf| {
                if leaf.is_logged() && leaf.state() == LeafState::WritableDirty {
                    left(LogSource::Cpu, range);
                }
            });
            result = result.and(unmapped);
        }
        if let (Err(_), Some(ledger)) = (result, &self.ledger)
            && ledger.range().overlaps(range)
        {
            ledger.distrust();
        }
        result
    }

    fn check_not_changing(&self, range: IpaRange) -> Result<(), SpaceError> {
        match self.changing {
            Some(changing) if changing.overlaps(range) => Err(SpaceError::Changing(range)),
            _ => Ok(()),
        }
    }

    /// Whether a start or stop of a log is under way.
    pub(crate) const fn is_changing(&self) -> bool {
        self.changing.is_some()
    }

    /// What is mapped.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().flatten()
    }

    /// Checks that nobody who will reach `region` reaches another mapping there.
    fn check_free(&self, region: &Region) -> Result<(), SpaceError> {
        let taken = self
            .regions
            .iter()
            .flatten()
            .filter(|r| {
                r.reach.vcpus() && region.reach.vcpus() || r.reach.devices() && region.reach.devices()
            })
            .filter_map(|r| r.range.intersection(region.range))
            .min_by_key(|common| common.start());
        taken.map_or(Ok(()), |common| Err(MapError::AlreadyMapped(common.start()).into()))
    }

    /// A start or stop of a log of `range` has begun.
    pub(crate) const fn begin_change(&mut self, range: IpaRange) {
        self.changing = Some(range);
    }

    /// The start or stop under way has ended.
    pub(crate) const fn end_change(&mut self) {
        self.changing = None;
    }

    /// The log has a ledger: what is mapped in its range from now on enters it by pages.
    pub(crate) fn set_ledger(&mut self, ledger: Ledger) {
        self.ledger = Some(ledger);
    }

    /// The log has ended.
    pub(crate) fn end_log(&mut self, platform: &impl Platform) {
        self.changing = None;
        if let Some(ledger) = self.ledger.take() {
            ledger.free(platform);
        }
    }

    /// Records that EL2 has written the pages of `range` on behalf of a vCPU: called *after* the store, so that a sync
    /// in between cannot deliver and drop the bit too early.
    pub fn mark_written(&self, platform: &impl Platform, range: IpaRange) {
        if let Some(ledger) = &self.ledger {
            ledger.record(platform, LogSource::Cpu, range);
        }
    }

    /// Whether all of a range is one mapping of the VM: what is mapped apart is unmapped apart, and never becomes one
    /// block.
    pub(crate) fn one_region(&self) -> impl Fn(IpaRange) -> bool + use<D> {
        let regions = self.regions;
        move |range| regions.iter().flatten().any(|r| r.range.covers(range))
    }

    fn mapping(&self, region: &Region) -> Mapping {
        Mapping { by_pages: self.ledger.as_ref().map(Ledger::range), ..region.mapping() }
    }

    /// The first address of `range` that is not RAM of the VM; `None` where all of it is.
    #[must_use]
    pub fn first_outside_ram(&self, range: IpaRange) -> Option<Ipa> {
        let mut at = range.start();
        while at < range.end() {
            let ram = self.regions.iter().flatten().find(|r| r.reach == Reach::Ram && r.range.contains(at));
            match ram {
                Some(region) => at = region.range.end(),
                None => return Some(at),
            }
        }
        None
    }

    /// The physical address of `ipa` where it is RAM that the VM's vCPUs may read and write.
    #[must_use]
    pub fn guest_ram<P: Platform>(&self, platform: &P, ipa: Ipa) -> Option<Pa> {
        let (leaf, pa) = self.cpu.tree.query(platform, ipa)?;
        leaf.is_logged().then_some(pa)
    }

    /// Write-protect faults of its vCPUs that were answered so far ([`AddressSpace::write_fault`]).
    pub fn write_faults(&self) -> u64 {
        self.write_faults.load(Ordering::Relaxed)
    }

    /// The CPU view.
    #[must_use]
    pub const fn cpu_view(&self) -> &View<CpuWalker> {
        &self.cpu
    }

    /// The DMA views.
    pub fn dma_views(&self) -> impl Iterator<Item = &DmaView<'d, D>> {
        self.dma.iter().flatten()
    }

    /// The DMA view that was given `index`.
    #[must_use]
    pub fn dma_view(&self, index: usize) -> Option<&DmaView<'d, D>> {
        self.dma.get(index)?.as_ref()
    }

    /// The weakest tier of the VM's devices; [`DmaTier::None`] where it owns none.
    #[must_use]
    pub fn dma_tier(&self) -> DmaTier {
        // Ascending codes promise less; `None` is the least code and stands for no device.
        self.dma_views().map(|v| v.tier).max_by_key(|t| t.code()).unwrap_or(DmaTier::None)
    }

    /// Whether some view's writes come to be known by digests.
    pub(crate) fn has_digest_views(&self) -> bool {
        self.dma_views().any(|dma| dma.tier == DmaTier::Digest)
    }

    /// Whether what devices write is in no cache that must be invalidated first.
    pub(crate) fn dma_is_coherent(&self) -> bool {
        self.dma_views().all(|dma| dma.view.walker.coherent)
    }

    /// The leaves of all DMA views together, and their table frames.
    #[must_use]
    pub fn dma_totals(&self) -> (LeafCounts, u64) {
        let mut sum = (LeafCounts::default(), 0);
        for view in self.dma_views() {
            let leaves = view.view.tree.leaves();
            sum.0.blocks_1g += leaves.blocks_1g;
            sum.0.blocks_2m += leaves.blocks_2m;
            sum.0.pages_4k += leaves.pages_4k;
            sum.1 += view.view.tree.tables() + view.other_tree().map_or(0, Tree::tables);
        }
        sum
    }

    /// Gives all table frames back. No vCPU runs on the CPU view any more, no stream uses a DMA view, and the VMIDs
    /// of all of them ([`DmaView::vmids`]) have been given back.
    pub fn free<P: Platform>(self, platform: &P) {
        if let Some(ledger) = self.ledger {
            ledger.free(platform);
        }
        for view in self.dma.into_iter().flatten() {
            view.free(platform);
        }
        self.cpu.tree.free(platform);
    }
}

fn map_one<P, W>(platform: &P, view: &mut View<W>, mapping: &Mapping) -> Result<(), SpaceError>
where
    P: Platform,
    W: Walker<P>,
{
    let needed = view.tree.map_needs(platform, mapping)?;
    let mut reserve = platform.reserve(needed)?;
    view.tree.map(platform, mapping, &mut reserve, !view.walker.is_coherent());
    platform.unreserve(reserve);
    Ok(())
}

/// Unmaps from one view, after [`Tree::unmap_check`]; frames that stay out of use are added to `quarantined`.
fn unmap_one<P, W>(
    platform: &P,
    view: &mut View<W>,
    range: IpaRange,
    quarantined: &mut u64,
    left: &mut dyn FnMut(IpaRange, Leaf),
) -> Result<(), SpaceError>
where
    P: Platform,
    W: Walker<P>,
{
    // Without a frame for the list tables stay linked and empty: unmapping never fails for memory.
    let reserve = platform.reserve(1).unwrap_or(FrameReserve::empty());
    let mut retired = Retired::new(reserve);
    view.tree.unmap(platform, range, &mut retired, !view.walker.is_coherent(), left);
    let invalidated = view.walker.invalidate(platform, &view.tree);
    if invalidated.is_ok() {
        view.free_retired(platform, &mut retired);
    }
    *quarantined += retired.end(platform);
    invalidated.map_err(SpaceError::View)
}
