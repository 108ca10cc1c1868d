//! Where errors meet the ABI: every error of the library becomes a code in x0 and an offending value in x1, here.

use strandline_abi::Error;

use crate::addr::RangeError;
use crate::dirty_log::LogError;

/// A call's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    /// For x0.
    pub code: Error,
    /// For x1: the value that was wrong, or how much is lacking.
    pub value: u64,
}

impl CallError {
    pub(super) const fn new(code: Error, value: u64) -> Self {
        Self { code, value }
    }

    pub(super) const fn unknown(id: u32) -> Self {
        Self::new(Error::NotSupported, id as u64)
    }

    pub(super) const fn invalid(value: u64) -> Self {
        Self::new(Error::InvalidParameter, value)
    }
}

impl From<RangeError> for CallError {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Unaligned(value) => Self::new(Error::Unaligned, value),
            RangeError::Empty => Self::invalid(0),
            RangeError::Wraps(bytes) => Self::new(Error::OutOfRange, bytes),
        }
    }
}

impl From<LogError> for CallError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NotOn => Self::new(Error::Denied, 0),
            LogError::AlreadyOn | LogError::Changing | LogError::NotHeld => Self::new(Error::Busy, 0),
            LogError::OutOfStep(expected) => Self::invalid(expected),
            LogError::OutsideRam(ipa) | LogError::OutsideLog(ipa) => Self::new(Error::OutOfRange, ipa.0),
            LogError::NoCpuTier | LogError::NoDmaTier(_) | LogError::NoKey | LogError::NotAdaptive => {
                Self::new(Error::NotSupported, 0)
            }
            LogError::Weaker(tiers) => Self::new(Error::NotSupported, tiers.to_bits()),
            // Buffers are validated before: this does not happen to a guest.
            LogError::NotDelivered(word) => Self::new(Error::OutOfRange, word),
            LogError::OutOfFrames(lack) => Self::new(Error::NoMemory, lack.needed as u64),
            LogError::OutOfVmids => Self::new(Error::NoMemory, 0),
            LogError::Abandoned(_) | LogError::Untrusted => Self::new(Error::Untrusted, 0),
        }
    }
}
