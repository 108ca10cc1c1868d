//! The log of one VM: which of its pages were written, by a vCPU or by a device.
//!
//! [`DirtyLog`] is the state; every operation takes the VM's [`AddressSpace`]
//! with it, exclusively where it changes the size of translations. Long operations are stepped: each call does a
//! bounded part and says whether there is more.

mod adaptive;
mod attach;
mod bitmap;
mod digest;
mod error;
mod fault;
mod key;
mod ledger;
mod second_tree;
mod stall;
mod start;
mod stop;
mod sync;
#[cfg(test)]
mod tests;

/// What a log says of itself, as `strandline-abi` defines it for guests too.
pub use strandline_abi::{CpuTier, DmaTier, Flags, KeySource, LogSource, LogState, Tiers};

use adaptive::Adaptive;
pub use adaptive::{Adapting, Granule, Policy};
pub use attach::{AttachError, Weakening};
pub use bitmap::Bitmap;
pub use digest::{DIGEST_BYTES, DigestCost, PAGE_WORDS};
pub use error::LogError;
pub use fault::WriteFault;
pub use key::DigestKey;
pub(crate) use ledger::Ledger;
pub use stall::StallAnswer;
pub use start::Request;
#[cfg(feature = "hypercall")]
pub(crate) use sync::Reading;
pub use sync::{Cleared, Delivery, Synced};

use crate::addr::{Ipa, IpaRange, PAGE_BYTES};
use crate::address_space::{AddressSpace, MAX_DMA_VIEWS};
use crate::frames::FrameReserve;
use crate::hw::Platform;
use crate::stage2::{Count, Merge, Retired, Split, ViewError};

/// The range a sync or clear handles in one call at the most: its bitmap is one 4 KiB page.
pub const STEP_PAGES: u64 = 8 * PAGE_BYTES;
/// The same of a log with digests, each page of which is read.
pub const STEP_PAGES_DIGEST: u64 = 1024;

/// The log of one VM.
#[derive(Debug)]
pub struct DirtyLog {
    phase: Phase,
    cpu_tier: CpuTier,
    key: Option<DigestKey>,
    key_source: KeySource,
    digest_cost: DigestCost,
    statistics: Statistics,
    /// Blocks split by the last start that ended.
    split_by_start: u64,
}

/// What logs of a VM have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Blocks split by starts, in all views.
    pub blocks_split: u64,
    /// Blocks made by merging, in all views.
    pub blocks_merged: u64,
    /// Pages reported by syncs.
    pub pages_reported: u64,
    /// Blocks split by syncs and clears of adaptive logs, in all views.
    pub splits_by_syncs: u64,
    /// Blocks made by these.
    pub merges_by_syncs: u64,
    /// Blocks that these found dirty and left whole: no frame was free, or [`Policy::splits`] was reached.
    pub splits_refused: u64,
    /// Times that the vCPUs were held at EL2 for changes of size, by starts and stops.
    pub holds: u64,
}

/// How far a stepped operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has ended.
    Done,
    /// Call it again, with this step.
    More(u64),
}

#[derive(Debug)]
enum Phase {
    Off,
    Starting(Starting),
    On(On),
    Stopping(Stopping),
}

/// What a log holds from its start to its stop.
#[derive(Debug)]
struct On {
    range: IpaRange,
    /// Pages of a step of a sync or clear.
    step_pages: u64,
    /// Room for the tables that a stop unlinks.
    cpu_retired: Retired,
    /// Where no second tree stands in for changes of size.
    dma_retired: [Option<Retired>; MAX_DMA_VIEWS],
    /// Of an adaptive log.
    adaptive: Option<Adaptive>,
    /// Hardware stopped answering: what the log says can't be relied on.
    untrusted: bool,
}

/// A start under way.
#[derive(Debug)]
struct Starting {
    request: Request,
    stage: Stage,
    steps: u64,
    /// Blocks split so far.
    blocks: u64,
}

/// How far a start has come.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a log holds one of them, and there is no heap to put the larger on"
)]
enum Stage {
    /// What it will take is being counted: nothing has been taken.
    Counting(Counting),
    /// Everything has been taken; views are being split.
    Splitting(Splitting),
}

/// What the views need, counted one after the other.
#[derive(Debug)]
struct Counting {
    cpu: Count,
    dma: [Option<Count>; MAX_DMA_VIEWS],
}

/// A ledger that is being made.
#[derive(Debug)]
struct Preparing {
    ledger: Ledger,
    /// Frames of each bitmap that are empty.
    emptied: u64,
    /// For its digests.
    reserve: FrameReserve,
}

/// The splits of the views, one after the other.
#[derive(Debug)]
struct Splitting {
    on: On,
    /// Until it is ready.
    preparing: Option<Preparing>,
    /// What is left of the range whose first digests are still to be taken.
    undigested: Option<IpaRange>,
    cpu: Option<Split>,
    /// Second trees that are being mapped: before their splits.
    copies: [Option<Copying>; MAX_DMA_VIEWS],
    dma: [Option<Split>; MAX_DMA_VIEWS],
}

/// A second tree that is being mapped like the first.
#[derive(Debug)]
struct Copying {
    /// Up to where it is.
    at: Ipa,
    reserve: FrameReserve,
}

/// A stop under way, or a start that is being undone.
#[derive(Debug)]
struct Stopping {
    on: On,
    cpu: Option<Merge>,
    dma: [Option<Merge>; MAX_DMA_VIEWS],
    /// The DMA views have been invalidated: what was merged in them is being freed.
    invalidated: bool,
    /// Why a start is being undone.
    abandoned: Option<ViewError>,
    steps: u64,
}

impl On {
    /// Gives back what the log holds; says how many frames stay out of use for good.
    fn free(self, platform: &impl Platform) -> u64 {
        if let Some(adaptive) = self.adaptive {
            adaptive.free(platform);
        }
        let retired = self.dma_retired.into_iter().flatten().chain([self.cpu_retired]);
        retired.map(|retired| retired.end(platform)).sum()
    }
}

impl Splitting {
    /// Gives back what the splits have not used.
    fn end(self, platform: &impl Platform) -> On {
        if let Some(preparing) = self.preparing {
            platform.unreserve(preparing.reserve);
            preparing.ledger.free(platform);
        }
        for split in self.dma.into_iter().flatten().chain(self.cpu) {
            split.end(platform);
        }
        for copy in self.copies.into_iter().flatten() {
            platform.unreserve(copy.reserve);
        }
        self.on
    }
}

impl DirtyLog {
    /// A log that is off, of a VM whose vCPUs' writes come to be known by `cpu_tier`.
    #[must_use]
    pub fn new(cpu_tier: CpuTier) -> Self {
        Self {
            phase: Phase::Off,
            cpu_tier,
            key: None,
            key_source: KeySource::None,
            digest_cost: DigestCost::default(),
            statistics: Statistics::default(),
            split_by_start: 0,
        }
    }

    /// The same with a key, whose randomness comes from `source`; without one a VM with devices of the digest tier can't
    /// be logged.
    #[must_use]
    pub const fn with_key(mut self, key: DigestKey, source: KeySource) -> Self {
        self.key = Some(key);
        self.key_source = source;
        self
    }

    /// The same, knowing what digests cost here (measured by `DigestCost::measure`, with the feature `digest`).
    #[must_use]
    pub const fn with_digest_cost(mut self, cost: DigestCost) -> Self {
        self.digest_cost = cost;
        self
    }

    /// What digests cost here, as far as it was measured.
    #[must_use]
    pub const fn digest_cost(&self) -> DigestCost {
        self.digest_cost
    }

    /// Whether it has a key, without which there are no digests.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Where the randomness of its key comes from.
    #[must_use]
    pub const fn key_source(&self) -> KeySource {
        self.key_source
    }

    /// What it is doing.
    #[must_use]
    pub const fn state(&self) -> LogState {
        match &self.phase {
            Phase::Off => LogState::Off,
            Phase::Starting(_) => LogState::Starting,
            Phase::On(on) if on.untrusted => LogState::Untrusted,
            Phase::On(_) => LogState::On,
            Phase::Stopping(_) => LogState::Stopping,
        }
    }

    /// The logged range, from the beginning of a start to the end of a stop.
    #[must_use]
    pub const fn range(&self) -> Option<IpaRange> {
        match &self.phase {
            Phase::Off => None,
            Phase::Starting(starting) => Some(starting.request.range),
            Phase::On(on) | Phase::Stopping(Stopping { on, .. }) => Some(on.range),
        }
    }

    /// The tiers of a log of `space`.
    #[must_use]
    pub fn tiers<D: crate::hw::DmaTlb>(&self, space: &AddressSpace<'_, D>) -> Tiers {
        Tiers { cpu: self.cpu_tier, dma: space.dma_tier() }
    }

    /// What logs of this VM have done so far.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Frees what the log of a VM that has ended holds, the tables that a stop under way has unlinked among it: the
    /// VMIDs of the VM's views have been invalidated since. The views are freed apart, as they are.
    pub fn dismantle(self, platform: &impl Platform) {
        let mut on = match self.phase {
            Phase::Off | Phase::Starting(Starting { stage: Stage::Counting(_), .. }) => return,
            Phase::On(on) | Phase::Stopping(Stopping { on, .. }) => on,
            Phase::Starting(Starting { stage: Stage::Splitting(splitting), .. }) => splitting.end(platform),
        };
        for retired in on.dma_retired.iter_mut().flatten().chain([&mut on.cpu_retired]) {
            retired.free(platform, u64::MAX);
        }
        on.free(platform);
    }

    const fn not_changing(&self) -> Result<(), LogError> {
        match &self.phase {
            Phase::Starting(_) | Phase::Stopping(_) => Err(LogError::Changing),
            Phase::Off | Phase::On(_) => Ok(()),
        }
    }

    fn on(&self) -> Result<&On, LogError> {
        match &self.phase {
            Phase::On(on) if on.untrusted => Err(LogError::Untrusted),
            Phase::On(on) => Ok(on),
            Phase::Off => Err(LogError::NotOn),
            Phase::Starting(_) | Phase::Stopping(_) => Err(LogError::Changing),
        }
    }

    fn distrust(&mut self) -> LogError {
        if let Phase::On(on) = &mut self.phase {
            on.untrusted = true;
        }
        LogError::Untrusted
    }
}
