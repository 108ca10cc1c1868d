//! The stage-2 engine: trees of descriptors that CPUs and SMMUs walk, and the changes a dirty log makes to them.
//!
//! [`Tree`] is one translation tree; it knows no CPU and no SMMU. A *view* is a tree with the walker that uses it:
//! [`View`] adds the order of stores, barriers and invalidations that its walker needs when the size of a
//! translation changes.

mod adapt;
mod builder;
pub mod descriptor;
mod format;
mod harvest;
mod lines;
mod map;
mod merge;
mod nt;
mod prune;
mod retired;
mod split;
mod table_flags;
#[cfg(test)]
mod tests;
mod tree;
mod view;
mod vtcr;

pub(crate) use adapt::{Adapted, Owed, Pass};
pub use descriptor::{LeafState, MemoryKind, Rights};
pub use format::Format;
pub(crate) use harvest::Found;
pub use harvest::Harvest;
pub(crate) use lines::Lines;
pub use map::{MapError, Mapping};
pub use merge::Merge;
pub use retired::Retired;
pub use split::{Count, Split, SplitNeeds};
pub(crate) use tree::Slot;
pub use tree::{LeafCounts, Tree};
pub use view::{Batch, CpuWalker, DmaWalker, Published, View, ViewError, Walker};
pub use vtcr::VtcrOptions;
