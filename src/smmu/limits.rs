//! What firmware, the device tree or a board takes away from an SMMU's abilities.

use core::fmt;

use super::features::{Bbml, Httu, Unsupported};

/// What firmware, the device tree or a board says an SMMU can do, where that is less than its ID registers claim.
///
/// An ability can be lowered so, never raised: [`Features::read`](super::Features::read) refuses that. `None`, the default, leaves what the ID
/// registers say, less errata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The SMMU's own accesses are coherent with the PEs' caches. A device tree says that they aren't by leaving
    /// `dma-coherent` out.
    pub coherent: Option<bool>,
    /// What it does of hardware table update.
    pub httu: Option<Httu>,
    /// The highest break-before-make level relied on.
    pub bbml: Option<Bbml>,
    /// Invalidation by range may be used.
    pub range_invalidation: Option<bool>,
}

/// What [`Limits`] can lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// [`Limits::coherent`].
    Coherency,
    /// [`Limits::httu`].
    HardwareUpdate,
    /// [`Limits::bbml`].
    BreakBeforeMake,
    /// [`Limits::range_invalidation`].
    RangeInvalidation,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coherency => "coherent accesses",
            Self::HardwareUpdate => "hardware update",
            Self::BreakBeforeMake => "a break-before-make level",
            Self::RangeInvalidation => "invalidation by range",
        })
    }
}

/// Lowers `ability`, which is called `name`, to `limit`.
pub(super) fn lower<T: Copy + PartialOrd>(
    ability: &mut T,
    limit: Option<T>,
    name: Ability,
) -> Result<(), Unsupported> {
    match limit {
        Some(limit) if limit > *ability => return Err(Unsupported::Raised(name)),
        Some(limit) => *ability = limit,
        None => {}
    }
    Ok(())
}
