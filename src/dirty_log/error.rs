//! Why an operation of a log failed.

use core::fmt;

use strandline_abi::{DmaTier, Tiers};

use crate::addr::Ipa;
use crate::address_space::SpaceError;
use crate::frames::OutOfFrames;
use crate::stage2::ViewError;

/// Why an operation of a log failed. Unless it is [`LogError::Untrusted`] or [`LogError::NotDelivered`] nothing has been
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// No log is on.
    NotOn,
    /// A log is on already.
    AlreadyOn,
    /// A start or a stop has been begun and not ended.
    Changing,
    /// The call's step is not the one that was handed out; carries the one expected.
    OutOfStep(u64),
    /// This address of the range is not RAM of the VM.
    OutsideRam(Ipa),
    /// This address of the range is not logged.
    OutsideLog(Ipa),
    /// The CPU lacks what a log of its writes needs.
    NoCpuTier,
    /// A log can't know devices' writes in this way.
    NoDmaTier(DmaTier),
    /// An adaptive log was asked for, and no view of the VM bears that sizes change as writes come.
    NotAdaptive,
    /// Writes would come to be known in weaker ways than the caller demands: these.
    Weaker(Tiers),
    /// Devices' writes were to come to be known by digests, and there is no key for them.
    NoKey,
    /// Table frames are lacking.
    OutOfFrames(OutOfFrames),
    /// A second tree takes a VMID, and the SMMU has none left.
    OutOfVmids,
    /// The word with this index could not be delivered: it and those behind it are still in the log.
    NotDelivered(u64),
    /// A vCPU could not be held while a stop was under way: it goes on with the next call.
    NotHeld,
    /// Hardware did not answer in the middle of a start, which was undone.
    Abandoned(ViewError),
    /// Hardware stopped answering: what the log says can't be relied on until it has been stopped and started.
    Untrusted,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOn => f.write_str("no log is on: start one first"),
            Self::AlreadyOn => f.write_str("a log is on already: stop it first"),
            Self::Changing => f.write_str("a start or stop has not ended: call it again with its step"),
            Self::OutOfStep(expected) => write!(f, "step out of turn: {expected} is next"),
            Self::OutsideRam(ipa) => write!(f, "{ipa} is not RAM of the VM"),
            Self::OutsideLog(ipa) => write!(f, "{ipa} is outside the logged range"),
            Self::NoCpuTier => f.write_str("this CPU has no hardware dirty state (FEAT_HAFDBS)"),
            Self::NoDmaTier(tier) => write!(f, "logging by tier '{tier}' is not supported"),
            Self::NotAdaptive => f.write_str(
                "no view can be adaptive: that takes cores that raise no TLB conflict aborts, or HTTU and BBML 2"
            ),
            Self::Weaker(tiers) => {
                write!(f, "the log would be weaker than demanded: CPU {}, devices {}", tiers.cpu, tiers.dma)
            }
            Self::NoKey => f.write_str("logging by digests needs a key: give the log one"),
            Self::OutOfFrames(lack) => lack.fmt(f),
            Self::OutOfVmids => SpaceError::OutOfVmids.fmt(f),
            Self::NotDelivered(word) => {
                write!(f, "word {word} of the bitmap could not be delivered: sync again")
            }
            Self::NotHeld => f.write_str("a vCPU did not stop in time: call stop again"),
            Self::Abandoned(error) => write!(f, "the start was undone: {error}"),
            Self::Untrusted => f.write_str("hardware stopped answering: stop the log and start it again"),
        }
    }
}

impl From<OutOfFrames> for LogError {
    fn from(lack: OutOfFrames) -> Self {
        Self::OutOfFrames(lack)
    }
}
