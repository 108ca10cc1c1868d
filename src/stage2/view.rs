//! A view: a tree, its walker, and the order in which changes of a translation's size reach that walker.

use core::fmt;

use crate::addr::{Ipa, IpaRange, Pa, Vmid};
use crate::hw::{
    Barrier, Cpu, DmaRoot, DmaTlb, DmaTlbError, HoldTimeout, Memory, Scope, SizeChange, Tlbi, Vttbr, Word,
};
use crate::stage2::descriptor::{AF, Entry, S2AP_WRITE};
use crate::stage2::tree::{Contents, Slot};
use crate::stage2::{LeafCounts, Lines, Tree, nt};

/// Why a change of a view did not complete. What was unlinked by it must not be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewError {
    /// A vCPU could not be stopped; nothing was changed.
    HoldTimeout,
    /// The SMMU did not complete an invalidation.
    Dma(DmaTlbError),
    /// A descriptor changed in a way only its owner may change it: it holds this word.
    Foreign(u64),
    /// A reservation was smaller than what was counted.
    ReserveShort,
    /// The walker can't bear changes of size ([`SizeChange::Never`]).
    SizeFixed,
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HoldTimeout => HoldTimeout.fmt(f),
            Self::Dma(error) => error.fmt(f),
            Self::Foreign(word) => write!(f, "a descriptor was changed by somebody else: {word:#018x}"),
            Self::ReserveShort => f.write_str("fewer table frames were reserved than are needed"),
            Self::SizeFixed => f.write_str("the SMMU can't bear that a translation's size changes"),
        }
    }
}

/// One descriptor to be replaced by another that translates the same addresses in another size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    pub slot: Slot,
    pub old: u64,
    pub new: u64,
    /// What the sub-tree that comes or goes is made of.
    pub contents: Contents,
}

impl Tree {
    /// Notes that `swap` was done: tables that left are noted when they are freed ([`Tree::freed`]).
    pub(super) fn swapped(&mut self, swap: &Swap) {
        let whole = LeafCounts::one(swap.slot.level);
        if let Entry::Table(_) = Entry::at(swap.slot.level, swap.new) {
            self.lost(whole);
            self.gained(swap.contents);
        } else {
            self.lost(swap.contents.leaves);
            self.gained(Contents { tables: 0, leaves: whole });
        }
    }
}

/// The most descriptors replaced together.
pub(crate) const BATCH: usize = 64;

/// Descriptors to be replaced together, by [`Walker::publish`].
#[derive(Debug)]
pub struct Batch {
    swaps: [Swap; BATCH],
    len: usize,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        let none = Swap {
            slot: Slot { pa: Pa(0), level: 0, base: Ipa(0) },
            old: 0,
            new: 0,
            contents: Contents { tables: 0, leaves: LeafCounts { blocks_1g: 0, blocks_2m: 0, pages_4k: 0 } },
        };
        Self { swaps: [none; BATCH], len: 0 }
    }

    /// Empties it.
    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// Adds one; the batch is not full.
    pub(crate) fn push(&mut self, swap: Swap) {
        if let Some(place) = self.swaps.get_mut(self.len) {
            *place = swap;
            self.len += 1;
        }
    }

    pub(crate) fn swaps(&self) -> &[Swap] {
        &self.swaps[..self.len]
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// So many of its descriptors, the first ones, were replaced. The others are as they were, and what was to come in
    /// their place was never linked.
    pub replaced: usize,
    /// Whether that is all, and every invalidation on the way completed.
    pub result: Result<(), ViewError>,
}

impl Published {
    /// Nothing was replaced.
    const fn none(error: ViewError) -> Self {
        Self { replaced: 0, result: Err(error) }
    }
}

/// Who walks a tree, and what it takes to change a translation's size under it.
pub trait Walker<P: Memory + Cpu> {
    /// Whether it sees stores without cache maintenance.
    fn is_coherent(&self) -> bool;

    /// Whether [`Walker::publish`] has invalidated what it replaced when it returns.
    fn publishes_invalidated(&self) -> bool;

    /// Replaces the descriptors of `batch`; the new tables they point at are whole. Where it goes wrong (the walker could
    /// not be stopped, an invalidation did not complete, a descriptor was not what its owner left) the result says
    /// which of them were replaced.
    fn publish(&self, platform: &P, tree: &Tree, batch: &Batch) -> Published;

    /// Makes earlier stores to descriptors visible, removes all translations of the view, and returns when that
    /// has completed.
    ///
    /// # Errors
    /// The walker's hardware did not answer.
    fn invalidate(&self, platform: &P, tree: &Tree) -> Result<(), ViewError>;

    /// [`Walker::invalidate`] where only what translates `range` was changed, with `leaf_only` in the dirty state of leaves
    /// alone, else in access flags of tables and in sizes as well: an implementation may leave the rest of the view's
    /// translations cached. Leaves of any size may be cached of the range; unlinked tables are freed behind it.
    ///
    /// # Errors
    /// As [`Walker::invalidate`].
    fn invalidate_range(
        &self,
        platform: &P,
        tree: &Tree,
        range: IpaRange,
        leaf_only: bool,
    ) -> Result<(), ViewError> {
        let _ = (range, leaf_only);
        self.invalidate(platform, tree)
    }

    /// Makes descriptor updates by accesses that have completed visible to this CPU.
    ///
    /// # Errors
    /// The walker's hardware did not answer.
    fn collect_updates(&self, platform: &P) -> Result<(), ViewError>;
}

/// A tree with its walker.
#[derive(Debug)]
pub struct View<W> {
    /// The tree.
    pub tree: Tree,
    /// Who walks it.
    pub walker: W,
}

/// The vCPUs of a VM.
///
/// A PE with FEAT_BBM level 2 may still raise a TLB conflict abort when it meets two sizes of one translation
/// (Arm ARM D8.16.3), so sizes change by break-before-make, batched, while the vCPUs are held at EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuWalker {
    /// The view's VMID.
    pub vmid: Vmid,
    /// Every PE that may run the VM has FEAT_BBM level 2 and is on a list of those known never to raise a TLB conflict
    /// abort: sizes change under running vCPUs.
    pub direct: bool,
    /// Some PE may end a broadcast invalidation before all stores through the old entries are done (most Arm cores of
    /// 2018 to 2025: CVE-2025-10263), unless it is issued twice, with a DSB between: such a store would land on a page
    /// whose dirty bit has just been harvested.
    pub repeat: bool,
}

impl CpuWalker {
    /// The tree as VTTBR_EL2 holds it.
    #[must_use]
    pub const fn vttbr(&self, tree: &Tree) -> Vttbr {
        Vttbr { vmid: self.vmid, root: tree.root() }
    }

    /// Makes earlier stores to descriptors visible, and all PEs forget the translations of the view.
    pub(crate) fn invalidate_all(&self, cpu: &impl Cpu, tree: &Tree) {
        cpu.barrier(Barrier::DsbIshst);
        for _ in 0..1 + usize::from(self.repeat) {
            cpu.tlbi(self.vttbr(tree), Tlbi::VmallS12E1Is);
            cpu.barrier(Barrier::DsbIsh);
        }
    }

    /// Replaces the descriptors by others under running vCPUs.
    fn swap(&self, platform: &(impl Memory + Cpu), tree: &Tree, batch: &Batch) -> Published {
        platform.barrier(Barrier::DsbIshst);
        let published = replace_all(platform, batch, |_| ());
        self.invalidate_all(platform, tree);
        published
    }

    /// Makes the descriptors invalid, and puts the others in their places, while no vCPU runs.
    fn break_before_make(&self, platform: &(impl Memory + Cpu), tree: &Tree, batch: &Batch) -> Published {
        let vttbr = self.vttbr(tree);
        if platform.hold(vttbr).is_err() {
            return Published::none(ViewError::HoldTimeout);
        }
        let broken = batch.swaps().iter().try_for_each(|swap| replace(platform, swap, swap.old, 0));
        self.invalidate_all(platform, tree);
        for swap in batch.swaps() {
            let word = swap.slot.word(platform);
            match broken {
                Ok(()) => word.store(swap.new),
                // Make what was broken before the error was met, again.
                Err(_) if word.load() == 0 => word.store(swap.old),
                Err(_) => {}
            }
        }
        platform.barrier(Barrier::DsbIsh);
        platform.release(vttbr);
        let replaced = if broken.is_ok() { batch.swaps().len() } else { 0 };
        Published { replaced, result: broken }
    }
}

impl<P: Memory + Cpu> Walker<P> for CpuWalker {
    fn is_coherent(&self) -> bool {
        true
    }

    fn publishes_invalidated(&self) -> bool {
        true
    }

    fn publish(&self, platform: &P, tree: &Tree, batch: &Batch) -> Published {
        if self.direct {
            self.swap(platform, tree, batch)
        } else {
            self.break_before_make(platform, tree, batch)
        }
    }

    fn invalidate(&self, platform: &P, tree: &Tree) -> Result<(), ViewError> {
        self.invalidate_all(platform, tree);
        Ok(())
    }

    fn collect_updates(&self, platform: &P) -> Result<(), ViewError> {
        platform.barrier(Barrier::DsbIsh);
        Ok(())
    }
}

/// The devices of a VM behind one SMMU. Sizes change as that bears it ([`DmaTlb::size_change`]), and one invalidation is
/// owed at the end of the whole procedure (IHI 0070 §3.21.1.2, §3.21.1.3).
#[derive(Debug)]
pub struct DmaWalker<'d, D> {
    /// The SMMU.
    pub tlb: &'d D,
    /// The view's VMID on it.
    pub vmid: Vmid,
    /// Whether its walks are coherent (IDR0.COHACC, and the device tree agrees).
    pub coherent: bool,
}

impl<P: Memory + Cpu, D: DmaTlb> Walker<P> for DmaWalker<'_, D> {
    fn is_coherent(&self) -> bool {
        self.coherent
    }

    fn publishes_invalidated(&self) -> bool {
        false
    }

    fn publish(&self, platform: &P, _tree: &Tree, batch: &Batch) -> Published {
        let stored = |swaps: &[Swap]| {
            let mut lines = Lines::new(self.coherent);
            swaps.iter().for_each(|swap| lines.touch(platform, swap.slot.pa));
            lines.clean(platform);
        };
        let invalidate = || self.tlb.invalidate(self.vmid, Scope::All).map_err(ViewError::Dma);
        platform.barrier(Barrier::behind_tables(self.coherent));
        match self.tlb.size_change() {
            SizeChange::Direct => replace_all(platform, batch, stored),
            SizeChange::ThroughNt => nt::publish(platform, batch, stored, invalidate),
            // Sizes change in a tree that no stream goes through: nobody meets two of them.
            SizeChange::Never if self.tlb.switching().is_some() => replace_all(platform, batch, stored),
            SizeChange::Never => Published::none(ViewError::SizeFixed),
        }
    }

    fn invalidate(&self, _platform: &P, _tree: &Tree) -> Result<(), ViewError> {
        self.tlb.invalidate(self.vmid, Scope::All).map_err(ViewError::Dma)
    }

    fn invalidate_range(
        &self,
        _platform: &P,
        _tree: &Tree,
        range: IpaRange,
        leaf_only: bool,
    ) -> Result<(), ViewError> {
        self.tlb.invalidate(self.vmid, Scope::Range { range, leaf_only }).map_err(ViewError::Dma)
    }

    fn collect_updates(&self, platform: &P) -> Result<(), ViewError> {
        self.tlb.sync().map_err(ViewError::Dma)?;
        platform.barrier(Barrier::DsbSy);
        Ok(())
    }
}

impl<D> View<DmaWalker<'_, D>> {
    /// What the SMMU knows of it.
    #[must_use]
    pub const fn dma_root(&self) -> DmaRoot {
        DmaRoot { vmid: self.walker.vmid, root: self.tree.root() }
    }
}

/// Replaces each descriptor of `batch` by its new one, up to one that is not what its owner left; `stored` is told of
/// those that were replaced.
fn replace_all(memory: &impl Memory, batch: &Batch, stored: impl Fn(&[Swap])) -> Published {
    let published = replace_each(memory, batch.swaps(), |swap| (swap.old, swap.new));
    stored(&batch.swaps()[..published.replaced]);
    published
}

/// Replaces the descriptor at the place of each of `swaps`, the first of `words` of it by the second, up to one that is
/// not.
pub(super) fn replace_each(
    memory: &impl Memory,
    swaps: &[Swap],
    words: impl Fn(&Swap) -> (u64, u64),
) -> Published {
    for (i, swap) in swaps.iter().enumerate() {
        let (old, new) = words(swap);
        if let Err(error) = replace(memory, swap, old, new) {
            return Published { replaced: i, result: Err(error) };
        }
    }
    Published { replaced: swaps.len(), result: Ok(()) }
}

/// Replaces the descriptor at `swap`'s place, which is `old`, by `new` in one atomic step. Hardware may set AF and
/// S2AP\[1\] in the old one until then, each once, so that this ends after at most three tries.
fn replace(memory: &impl Memory, swap: &Swap, old: u64, new: u64) -> Result<(), ViewError> {
    let word = swap.slot.word(memory);
    let mut expected = old;
    while let Err(found) = word.compare_exchange(expected, new) {
        if !same_but_updated(found, old) {
            return Err(ViewError::Foreign(found));
        }
        expected = found;
    }
    Ok(())
}

/// Whether two descriptors differ at most in what hardware sets.
pub(super) const fn same_but_updated(a: u64, b: u64) -> bool {
    (a ^ b) & !(AF | S2AP_WRITE) == 0
}
