//! The second tree: how a log comes to pages, and goes back to blocks, behind an SMMU that bears no change of size
//! (IDR3.BBML=0), where its streams can be sent through another tree while they work ([`TreeSwitch`](crate::hw::TreeSwitch)).
//!
//! A start makes the tree, under a VMID of its own, while nobody uses it: mapped like the first, and then split as any
//! view is. Its last step sends the streams through it. A stop sends them back and takes it apart. The first tree is kept
//! meanwhile, and what is mapped and unmapped goes to both, so that the way back never fails for memory.
//!
//! The first tree is not read when it is left: its leaves are writable-dirty, all of them and always, and tell nothing.
//! What is written through it has completed when the switch has, that is before the start returns, and no promise covers
//! it. What the second one knows when it is left by a stop is dropped with the log; where a view leaves while the log is
//! on, it is read once more behind the last invalidation, as any other.

use super::{Copying, LogError};
use crate::address_space::{AddressSpace, DmaView, OtherTreeError};
use crate::hw::{DmaTlb, Platform};
use crate::stage2::ViewError;

/// Gives each view that takes one a second tree, empty; all of them or none.
pub(super) fn add_all<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'_, D>,
) -> Result<(), LogError> {
    let added = space.dma.iter_mut().flatten().try_for_each(|view| view.add_other(platform));
    added.map_err(|error| {
        free_all(platform, space);
        match error {
            OtherTreeError::OutOfVmids => LogError::OutOfVmids,
            OtherTreeError::NoAnswer(error) => LogError::Abandoned(ViewError::Dma(error)),
            OtherTreeError::OutOfFrames(lack) => lack.into(),
        }
    })
}

/// Frees second trees that nobody has used, and that are all but empty.
pub(super) fn free_all<P: Platform, D: DmaTlb>(platform: &P, space: &mut AddressSpace<'_, D>) {
    space.dma.iter_mut().flatten().for_each(|view| view.free_other(platform));
}

/// Table frames that a second tree takes before it is split, its root apart: what the first one has.
pub(super) fn copied_tables<D>(view: &DmaView<'_, D>) -> usize {
    let tree = &view.view.tree;
    usize::try_from(tree.tables()).unwrap_or(usize::MAX).saturating_sub(1 << tree.format().root_order())
}

/// Maps a bounded part of the second trees; `true` when all are mapped.
pub(super) fn copy_step<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'_, D>,
    copies: &mut [Option<Copying>],
) -> bool {
    for (index, place) in copies.iter_mut().enumerate() {
        if let Some(copy) = place {
            if space.copy_step(platform, index, &mut copy.at, &mut copy.reserve)
                && let Some(copy) = place.take()
            {
                platform.unreserve(copy.reserve);
            }
            return false;
        }
    }
    true
}

/// Sends the streams of each view that has two trees through the one for a log, or back; those of all views, whatever the
/// SMMUs say.
///
/// # Errors
/// The first one's.
pub(super) fn switch_all<D: DmaTlb>(
    space: &mut AddressSpace<'_, D>,
    to_second: bool,
) -> Result<(), ViewError> {
    let concerned =
        space.dma.iter_mut().flatten().filter(|view| view.other.is_some() && view.switched != to_second);
    concerned.map(DmaView::switch_over).fold(Ok(()), Result::and)
}

/// Takes a bounded part of the trees apart that no stream goes through any more; `true` when there are none.
///
/// # Errors
/// An SMMU that fell silent when it was to forget one has not come back.
pub(super) fn drop_step<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &mut AddressSpace<'_, D>,
) -> Result<bool, ViewError> {
    for view in space.dma.iter_mut().flatten().filter(|view| view.other.is_some()) {
        if !view.drop_other(platform)? {
            return Ok(false);
        }
    }
    Ok(true)
}
