//! The view of a VM's devices of one tier behind one SMMU, and the second tree that it has for a log where sizes can't
//! change.

use strandline_abi::DmaTier;

use crate::addr::{Ipa, IpaRange, PageSize, Vmid};
use crate::frames::{FrameReserve, OutOfFrames};
use crate::hw::{DmaTlb, DmaTlbError, Memory, Platform, SizeChange, TreeSwitch};
use crate::smmu::Httu;
use crate::stage2::descriptor::Leaf;
use crate::stage2::{DmaWalker, MapError, Mapping, Tree, View, ViewError, Walker};

use super::{SpaceError, map_one, unmap_one};

/// The view of the VM's devices of one tier behind one SMMU.
#[derive(Debug)]
pub struct DmaView<'d, D> {
    /// Tree and walker.
    ///
    /// Behind an SMMU that bears no change of size a log may exchange the tree, and the VMID with it: an STE is to be made
    /// of what stands here when its stream is attached.
    pub view: View<DmaWalker<'d, D>>,
    /// How writes through it come to be known.
    pub tier: DmaTier,
    /// The tree that streams are not sent through, where there are two: from the beginning of a start to the end of the
    /// stop, and longer where the SMMU did not answer then.
    pub(crate) other: Option<OtherTree<'d, D>>,
    /// Streams go through the tree that was made for a log.
    pub(crate) switched: bool,
}

/// The tree beside the one that streams go through.
#[derive(Debug)]
pub(crate) struct OtherTree<'d, D> {
    pub view: View<DmaWalker<'d, D>>,
    /// The SMMU does not use it, and has nothing of it cached.
    forgotten: bool,
    /// How far it has been taken apart.
    at: Ipa,
}

/// Why a view can't have a second tree; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherTreeError {
    /// Every VMID of the SMMU is taken.
    OutOfVmids,
    /// The SMMU did not answer when it was asked for one.
    NoAnswer(DmaTlbError),
    /// There is no memory for its root.
    OutOfFrames(OutOfFrames),
}

impl From<OtherTreeError> for SpaceError {
    fn from(error: OtherTreeError) -> Self {
        match error {
            OtherTreeError::OutOfVmids => Self::OutOfVmids,
            OtherTreeError::NoAnswer(error) => Self::NoAnswer(error),
            OtherTreeError::OutOfFrames(lack) => lack.into(),
        }
    }
}

impl<'d, D> DmaView<'d, D> {
    pub(super) const fn new(tree: Tree, walker: DmaWalker<'d, D>, tier: DmaTier) -> Self {
        Self { view: View { tree, walker }, tier, other: None, switched: false }
    }

    /// Whether a leaf that is written becomes writable-dirty: by hardware, or by the answer to a stalled write. In other
    /// tiers all leaves are.
    pub(crate) const fn shows_writes(&self) -> bool {
        matches!(self.tier, DmaTier::Hardware | DmaTier::Stall)
    }

    /// What hardware updates in its trees: for the STE of each of its streams
    /// ([`Stage2Config::hardware_update`](crate::smmu::Stage2Config::hardware_update)).
    #[must_use]
    pub const fn hardware_update(&self) -> Httu {
        match self.tier {
            DmaTier::Hardware if self.view.tree.has_table_flags() => Httu::TableAccessFlag,
            DmaTier::Hardware => Httu::Dirty,
            _ => Httu::None,
        }
    }

    /// From now on hardware keeps the access flags of tables, in all its trees: streams go from one to the other with the
    /// same STE. `mapped` is what they translate.
    pub(super) fn use_table_flags(
        &mut self,
        memory: &impl Memory,
        mapped: impl Iterator<Item = IpaRange> + Clone,
    ) {
        let other = self.other.as_mut().map(|other| &mut other.view.tree);
        for tree in [&mut self.view.tree].into_iter().chain(other) {
            tree.use_table_flags(memory, mapped.clone());
        }
    }

    /// The VMID it was added with, and is taken away with: the same in and out of a log.
    #[must_use]
    pub const fn home_vmid(&self) -> Vmid {
        match &self.other {
            Some(other) if self.switched => other.view.walker.vmid,
            _ => self.view.walker.vmid,
        }
    }

    /// The VMIDs of its trees: the one it was added with, and another one for the time of a log.
    pub fn vmids(&self) -> impl Iterator<Item = Vmid> {
        let other = self.other.as_ref().map(|other| other.view.walker.vmid);
        [self.view.walker.vmid].into_iter().chain(other)
    }

    /// The tree that streams are not sent through, where a log takes two: of the same addresses as the one in
    /// [`DmaView::view`].
    #[must_use]
    pub fn other_tree(&self) -> Option<&Tree> {
        self.other.as_ref().map(|other| &other.view.tree)
    }
}

impl<'d, D: DmaTlb> DmaView<'d, D> {
    /// Whether the sizes of its leaves may change while devices use it.
    pub(crate) fn changes_size(&self) -> bool {
        self.view.walker.tlb.size_change() != SizeChange::Never
    }

    /// The same, each by one swap and no step between.
    pub(crate) fn changes_size_directly(&self) -> bool {
        self.view.walker.tlb.size_change() == SizeChange::Direct
    }

    /// The way to another tree, where a log takes one.
    pub(crate) fn switching(&self) -> Option<&'d dyn TreeSwitch> {
        let walker = &self.view.walker;
        let wanted = self.shows_writes() && walker.coherent && !self.changes_size();
        walker.tlb.switching().filter(|_| wanted)
    }

    /// Whether a log changes anything in it: where sizes can't change, and no leaf has a state, there is nothing to do.
    pub(crate) fn takes_part(&self) -> bool {
        self.changes_size() || self.shows_writes()
    }

    /// `mapping` in the tree that streams go through, or in the other one: where it is made of pages. In a log, or
    /// everywhere where that can't be made up for later.
    fn mapping(&self, mapping: Mapping, other: bool) -> Mapping {
        let by_pages = match (self.changes_size(), self.shows_writes()) {
            (true, _) => mapping.by_pages,
            // Of two trees the one for the log.
            (false, true) if self.switching().is_some() => {
                mapping.by_pages.filter(|_| self.switched != other)
            }
            (false, true) => Some(mapping.range),
            (false, false) => None,
        };
        Mapping { by_pages, ..mapping }
    }

    /// How many table frames [`DmaView::map`] takes.
    pub(super) fn map_needs<P: Platform>(&self, platform: &P, mapping: Mapping) -> Result<usize, MapError> {
        let needed = self.view.tree.map_needs(platform, &self.mapping(mapping, false))?;
        let other = match &self.other {
            Some(other) => other.view.tree.map_needs(platform, &self.mapping(mapping, true))?,
            None => 0,
        };
        Ok(needed + other)
    }

    /// Maps in its trees, out of `reserve`, which holds what [`DmaView::map_needs`] says.
    pub(super) fn map<P: Platform>(&mut self, platform: &P, mapping: Mapping, reserve: &mut FrameReserve) {
        let (here, there) = (self.mapping(mapping, false), self.mapping(mapping, true));
        let clean = !self.view.walker.coherent;
        self.view.tree.map(platform, &here, reserve, clean);
        if let Some(other) = &mut self.other {
            other.view.tree.map(platform, &there, reserve, clean);
        }
    }

    /// [`DmaView::map`] into the tree that streams go through, which is new.
    pub(super) fn map_alone<P: Platform>(
        &mut self,
        platform: &P,
        mapping: Mapping,
    ) -> Result<(), SpaceError> {
        let mapping = self.mapping(mapping, false);
        map_one(platform, &mut self.view, &mapping)
    }

    /// Unmaps from its trees; `left` is shown the leaves of the one that streams go through. In the other one they tell
    /// nothing: it is the one that all leaves are dirty in, or no log is on any more.
    pub(super) fn unmap<P: Platform>(
        &mut self,
        platform: &P,
        range: IpaRange,
        quarantined: &mut u64,
        left: &mut dyn FnMut(IpaRange, Leaf),
    ) -> Result<(), SpaceError> {
        let unmapped = unmap_one(platform, &mut self.view, range, quarantined, left);
        match &mut self.other {
            Some(other) => {
                unmapped.and(unmap_one(platform, &mut other.view, range, quarantined, &mut |_, _| ()))
            }
            None => unmapped,
        }
    }

    /// Gives it a second tree, empty, under a VMID of its own; where a log takes none, nothing is done.
    ///
    /// # Errors
    /// [`OtherTreeError`].
    pub(crate) fn add_other<P: Platform>(&mut self, platform: &P) -> Result<(), OtherTreeError> {
        let Some(switching) = self.switching() else { return Ok(()) };
        let taken = switching.take_vmid().map_err(OtherTreeError::NoAnswer)?;
        let vmid = taken.ok_or(OtherTreeError::OutOfVmids)?;
        let mut tree = Tree::new(platform, self.view.tree.format()).map_err(|lack| {
            switching.end_vmid(vmid, true);
            OtherTreeError::OutOfFrames(lack)
        })?;
        if self.view.tree.has_table_flags() {
            tree.use_table_flags(platform, core::iter::empty());
        }
        let DmaWalker { tlb, coherent, .. } = self.view.walker;
        let view = View { tree, walker: DmaWalker { tlb, vmid, coherent } };
        self.other = Some(OtherTree { view, forgotten: true, at: Ipa(0) });
        Ok(())
    }

    /// Maps what of `mapping` lies in `window` into the second tree, out of `reserve`.
    pub(super) fn copy<P: Platform>(
        &mut self,
        platform: &P,
        mapping: Mapping,
        window: IpaRange,
        reserve: &mut FrameReserve,
    ) {
        if let (Some(other), Some(range)) = (&mut self.other, mapping.range.intersection(window)) {
            let pa = mapping.pa.offset(range.start().0 - mapping.range.start().0);
            // By the largest leaves: those of the log are split, as in any other view.
            let piece = Mapping { range, pa, by_pages: None, ..mapping };
            other.view.tree.map(platform, &piece, reserve, false);
        }
    }

    /// [`DmaView::copy`] of all of `mapping`, with frames of its own, as the log that is on has it.
    pub(super) fn map_other<P: Platform>(
        &mut self,
        platform: &P,
        mapping: Mapping,
    ) -> Result<(), SpaceError> {
        let mapping = self.mapping(mapping, true);
        self.other.as_mut().map_or(Ok(()), |other| map_one(platform, &mut other.view, &mapping))
    }

    /// Exchanges the trees, which translate the same to the same: from here on streams are to go through the other one.
    pub(super) fn exchange(&mut self) {
        if let Some(other) = &mut self.other {
            core::mem::swap(&mut self.view.tree, &mut other.view.tree);
            core::mem::swap(&mut self.view.walker.vmid, &mut other.view.walker.vmid);
            self.switched = !self.switched;
        }
    }

    /// Sends its streams through the other tree, if there are two.
    ///
    /// # Errors
    /// The SMMU did not answer: it may use either. Both are kept, and what is mapped and unmapped goes to both, until it
    /// does ([`DmaView::drop_other`]).
    pub(crate) fn switch_over(&mut self) -> Result<(), ViewError> {
        self.exchange();
        self.settle()
    }

    /// Has the SMMU forget the tree that streams are not to go through.
    fn settle(&mut self) -> Result<(), ViewError> {
        if let (Some(other), Some(switching)) = (&mut self.other, self.view.walker.tlb.switching()) {
            other.forgotten = false;
            switching.switch(other.view.dma_root(), self.view.dma_root()).map_err(ViewError::Dma)?;
            other.forgotten = true;
        }
        Ok(())
    }

    /// Takes a bounded part of the second tree apart, which no log needs any more; `true` when there is none.
    ///
    /// # Errors
    /// An SMMU that had not forgotten it did not answer now either.
    pub(crate) fn drop_other<P: Platform>(&mut self, platform: &P) -> Result<bool, ViewError> {
        if self.other.as_ref().is_some_and(|other| !other.forgotten) {
            self.settle()?;
        }
        let Some(other) = &mut self.other else { return Ok(true) };
        if !other.view.tree.prune(platform, &mut other.at) {
            return Ok(false);
        }
        self.free_other(platform);
        Ok(true)
    }

    /// Frees the second tree whole: it is small, or nobody waits. It is forgotten.
    pub(crate) fn free_other<P: Platform>(&mut self, platform: &P) {
        if let Some(other) = self.other.take() {
            let DmaWalker { tlb, vmid, .. } = other.view.walker;
            other.view.tree.free(platform);
            if let Some(switching) = tlb.switching() {
                switching.end_vmid(vmid, true);
            }
        }
    }

    /// Frees or abandons its second tree, when no stream goes through the view any more, and leaves it with the VMID that
    /// it was added with. `forgotten`: the SMMU has forgotten the tree that streams went through last. Says how many
    /// frames stay out of use.
    pub(crate) fn end_other<P: Platform>(&mut self, platform: &P, forgotten: bool) -> u64 {
        let Some(OtherTree { view: other, forgotten: known, .. }) = self.other.take() else { return 0 };
        let invalidated = known || other.walker.invalidate(platform, &other.tree).is_ok();
        // The VMID that was taken for a log, and whether anything is cached of it.
        let (mut own, mut of_own) = (other.walker.vmid, invalidated);
        if self.switched {
            (own, of_own) = (self.view.walker.vmid, forgotten);
            self.view.walker.vmid = other.walker.vmid;
            self.switched = false;
        }
        if let Some(switching) = self.view.walker.tlb.switching() {
            switching.end_vmid(own, of_own);
        }
        if invalidated {
            other.tree.free(platform);
            0
        } else {
            other.tree.abandon(platform)
        }
    }

    /// Frees its trees: no stream uses the view, and its VMIDs have been given back.
    pub(super) fn free<P: Platform>(self, platform: &P) {
        self.view.tree.free(platform);
        if let Some(other) = self.other {
            other.view.tree.free(platform);
        }
    }

    /// The tree that streams are not to go through, where the SMMU has not said that it has forgotten it.
    pub(crate) fn other_in_use(&self) -> Option<&View<DmaWalker<'d, D>>> {
        self.other.as_ref().filter(|other| !other.forgotten).map(|other| &other.view)
    }
}

/// What a second tree is mapped by in one step: the part of the mappings in a GiB, of which the largest leaves are.
const STEP: PageSize = PageSize::Size1G;

/// The window of a step that begins at `at`.
pub(super) fn window(at: Ipa) -> Option<IpaRange> {
    let start = at.align_down(STEP.bytes());
    let end = start.0.checked_add(STEP.bytes())?;
    IpaRange::new(at, end - at.0).ok()
}
