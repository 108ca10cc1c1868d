//! Any error of the library, for who passes them on; and all of them as [`core::error::Error`].

use core::error;
use core::fmt;

use crate::addr::RangeError;
use crate::address_space::SpaceError;
use crate::check::PlatformError;
use crate::dirty_log::{AttachError, LogError};
use crate::frames::{BadFrame, OutOfFrames};
use crate::guest::{GuestError, NotDetached, StillAttached};
use crate::hw::{DmaTlbError, HoldTimeout, ResumeError};
use crate::mmio::BadBase;
use crate::smmu::{CommandError, SmmuError, Stage2Error, Unsupported};
use crate::stage2::{MapError, ViewError};

/// Any error of bringing an SMMU up, and of a guest behind it: what `?` makes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The embedder's platform is wrong.
    Platform(PlatformError),
    /// No SMMU can be there.
    Base(BadBase),
    /// A range is none.
    Range(RangeError),
    /// The SMMU.
    Smmu(SmmuError),
    /// The guest, and its log.
    Guest(GuestError),
    /// A guest can't be ended while so many devices are attached to it; 0 where the SMMU did not confirm that it has
    /// forgotten a view.
    StillAttached(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(error) => error.fmt(f),
            Self::Base(error) => error.fmt(f),
            Self::Range(error) => error.fmt(f),
            Self::Smmu(error) => error.fmt(f),
            Self::Guest(error) => error.fmt(f),
            Self::StillAttached(0) => {
                f.write_str("the SMMU did not confirm that it has forgotten a view of the guest")
            }
            Self::StillAttached(devices) => write!(f, "{devices} devices are still attached to the guest"),
        }
    }
}

impl From<PlatformError> for Error {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}

impl From<BadBase> for Error {
    fn from(error: BadBase) -> Self {
        Self::Base(error)
    }
}

impl From<RangeError> for Error {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<SmmuError> for Error {
    fn from(error: SmmuError) -> Self {
        Self::Smmu(error)
    }
}

impl From<GuestError> for Error {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

/// Forgets the device, which stays attached for good.
impl<P, R> From<NotDetached<'_, P, R>> for Error {
    fn from(refused: NotDetached<'_, P, R>) -> Self {
        Self::Guest(refused.error)
    }
}

/// Forgets the guest, whose frames stay taken for good.
impl<P, R> From<StillAttached<'_, P, R>> for Error {
    fn from(refused: StillAttached<'_, P, R>) -> Self {
        Self::StillAttached(refused.devices)
    }
}

impl error::Error for Error {}
impl error::Error for AttachError {}
impl error::Error for BadBase {}
impl error::Error for BadFrame {}
impl error::Error for CommandError {}
impl error::Error for DmaTlbError {}
impl error::Error for GuestError {}
impl error::Error for HoldTimeout {}
impl error::Error for LogError {}
impl error::Error for MapError {}
impl error::Error for OutOfFrames {}
impl error::Error for PlatformError {}
impl error::Error for RangeError {}
impl error::Error for ResumeError {}
impl error::Error for SmmuError {}
impl error::Error for SpaceError {}
impl error::Error for Stage2Error {}
impl error::Error for Unsupported {}
impl error::Error for ViewError {}
