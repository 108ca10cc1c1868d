//! Why a guest can't be what it was asked to be.

use core::fmt;

use crate::addr::{Pa, StreamId};
use crate::address_space::SpaceError;
use crate::dirty_log::{AttachError, DmaTier, LogError};
use crate::smmu::SmmuError;

use super::{Attached, Guest};

/// Why an operation on a [`Guest`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestError {
    /// Its address space can't be changed so.
    Space(SpaceError),
    /// The SMMU refused, or did not answer.
    Smmu(SmmuError),
    /// The log refused.
    Log(LogError),
    /// A device's view could not come or go.
    Attach(AttachError),
    /// Another operation of the log is under way: try again when it has ended.
    Busy,
    /// The device is attached to another guest.
    NotOurs(StreamId),
    /// Memory of the guest lies beyond what this SMMU can address.
    BeyondSmmu {
        /// The first address behind that memory.
        end: Pa,
        /// The SMMU's output size in bits.
        bits: u32,
    },
    /// A guest's devices can't have this tier: stalled writes have to be answered one by one, which is for who builds a guest
    /// of its parts ([`crate::smmu::StallQueue`]); and there has to be one.
    Tier(DmaTier),
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space(error) => error.fmt(f),
            Self::Smmu(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Attach(error) => error.fmt(f),
            Self::Busy => f.write_str("another operation of the log is under way"),
            Self::NotOurs(stream) => write!(f, "stream {stream} is attached to another guest"),
            Self::BeyondSmmu { end, bits } => {
                write!(f, "memory of the guest ends at {end}, the SMMU addresses {bits} bits")
            }
            Self::Tier(tier) => write!(f, "tier '{tier}' is none that a guest gives its devices"),
        }
    }
}

impl From<SpaceError> for GuestError {
    fn from(error: SpaceError) -> Self {
        Self::Space(error)
    }
}

impl From<SmmuError> for GuestError {
    fn from(error: SmmuError) -> Self {
        Self::Smmu(error)
    }
}

impl From<LogError> for GuestError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<AttachError> for GuestError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

/// A device that could not be detached, or is none of this guest's: it is attached as before.
#[must_use = "the device is still attached"]
pub struct NotDetached<'s, P, R> {
    /// The device.
    pub device: Attached<'s, P, R>,
    /// Why.
    pub error: GuestError,
}

impl<P, R> fmt::Debug for NotDetached<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} stays: {:?}", self.device, self.error)
    }
}

impl<P, R> fmt::Display for NotDetached<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} stays attached: {}", self.device.stream(), self.error)
    }
}

impl<P, R> core::error::Error for NotDetached<'_, P, R> {}
impl<P, R> core::error::Error for StillAttached<'_, P, R> {}

/// A guest that can't be ended while devices may reach its memory: it comes back whole.
#[must_use = "a guest that is dropped keeps its frames for good"]
pub struct StillAttached<'s, P, R> {
    /// The guest.
    pub guest: Guest<'s, P, R>,
    /// How many devices are attached; 0 where the SMMU did not confirm that it has forgotten a view.
    pub devices: u32,
}

impl<P, R> fmt::Debug for StillAttached<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.devices {
            0 => f.write_str("the SMMU did not confirm that it has forgotten a view"),
            devices => write!(f, "{devices} devices are still attached"),
        }
    }
}

impl<P, R> fmt::Display for StillAttached<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
