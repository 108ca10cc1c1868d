//! What can go wrong, with the value that was wrong.

use core::fmt;

use crate::addr::{Pa, StreamId, Vmid};
use crate::hw::DmaTlbError;

use super::features::{Httu, Unsupported};
use super::spec::command::{Command, RawCommand};
use super::spec::pages::Register32;
use super::spec::registers::CMDQ_CONS;

/// Why commands were not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// The queue did not run empty in time; carries its read index. Nothing is known of the commands; later calls
    /// fail at once until the SMMU has caught up.
    Timeout {
        /// CMDQ_CONS as it was last read.
        cons: u32,
    },
    /// The SMMU refused a command (IHI 0070 §7.1). It was taken out and the queue goes on; what the batch was for
    /// has not happened in full.
    Refused {
        /// CMDQ_CONS.ERR: 1 illegal, 2 fetch aborted, 3 ATC invalidation not completed.
        code: u8,
        /// The command CONS pointed at.
        command: RawCommand,
    },
}

impl CommandError {
    /// CERROR_ABT (IHI 0070 §7.1).
    pub(super) const ABORT: u8 = CMDQ_CONS::ERR::Value::Abort as u8;

    /// Whether the queue's memory could not be read: all that was not consumed has been taken back.
    pub(super) const fn withdrew(&self) -> bool {
        matches!(self, Self::Refused { code: Self::ABORT, .. })
    }

    /// Whether it was `of` that was refused.
    pub(super) fn is_of(&self, of: Command) -> bool {
        matches!(self, Self::Refused { command, .. } if command.0 == of.words())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { cons } => {
                write!(f, "commands were not completed in time (SMMU_CMDQ_CONS={cons:#x})")
            }
            Self::Refused { code: 1, command } => write!(f, "{command} is illegal for this SMMU"),
            Self::Refused { code: 2, command } => {
                write!(f, "the fetch of {command} aborted: can the SMMU reach the queue's memory?")
            }
            Self::Refused { code: 3, command } => {
                write!(f, "{command}: an ATC invalidation did not complete")
            }
            Self::Refused { code, command } => write!(f, "{command} was refused with error {code:#x}"),
        }
    }
}

impl From<CommandError> for DmaTlbError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Timeout { .. } => Self::Timeout,
            CommandError::Refused { code, .. } => Self::Command(code),
        }
    }
}

/// Why a stage-2 configuration cannot be an STE of this SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage2Error {
    /// IPA bits outside what the SMMU takes.
    IpaBits {
        /// What was asked for.
        asked: u32,
        /// The most this SMMU takes; the least is 25.
        most: u32,
    },
    /// The walk cannot begin at this level for this many IPA bits.
    StartLevel {
        /// What was asked for.
        level: u8,
        /// The IPA bits it was asked for with.
        ipa_bits: u32,
    },
    /// Output bits that no address size has; 32, 36, 40, 42, 44 and 48 are there.
    OutputBits(u32),
    /// The root is not aligned to the size of all its tables.
    RootUnaligned {
        /// The address.
        root: Pa,
        /// What it has to be a multiple of.
        bytes: u64,
    },
    /// The root lies beyond the output size.
    RootOutOfRange(Pa),
    /// A VMID of more than 8 bits on an SMMU that has 8.
    Vmid(Vmid),
    /// More hardware update than the SMMU has.
    HardwareUpdate {
        /// What was asked for.
        asked: Httu,
        /// What there is.
        available: Httu,
    },
    /// A stream that may stall on an SMMU that always terminates.
    Stall,
}

impl fmt::Display for Stage2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IpaBits { asked, most } => {
                write!(f, "{asked} IPA bits asked for, 25 to {most} are possible")
            }
            Self::StartLevel { level, ipa_bits } => {
                write!(f, "a walk of {ipa_bits} IPA bits cannot start at level {level}")
            }
            Self::OutputBits(bits) => write!(f, "no address size has {bits} bits: 32, 36, 40, 42, 44 or 48"),
            Self::RootUnaligned { root, bytes } => {
                write!(
                    f,
                    "the root table {root} is not a multiple of {bytes:#x}, the size of the root tables"
                )
            }
            Self::RootOutOfRange(root) => write!(f, "the root table {root} lies beyond the output size"),
            Self::Vmid(vmid) => write!(f, "VMID {vmid} has more than 8 bits, the SMMU has 8"),
            Self::HardwareUpdate { asked, available } => {
                write!(f, "hardware update {asked:?} asked for, the SMMU has {available:?}")
            }
            Self::Stall => f.write_str("the SMMU cannot stall transactions"),
        }
    }
}

/// Why the driver could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmmuError {
    /// The SMMU lacks what the driver cannot do without, or an override would raise an ability of it.
    Unsupported(Unsupported),
    /// A register did not take the value written to it in time.
    Register {
        /// The register polled.
        register: Register32,
        /// What it read last.
        found: u32,
        /// What was waited for.
        expected: u32,
    },
    /// No contiguous run of `2^order` frames is free for a table or a queue; nothing was changed.
    OutOfFrames {
        /// `log2` of the frames needed.
        order: u32,
    },
    /// The frames that were to be had are smaller than was asked for, or lie beyond the SMMU's output size; nothing was
    /// changed.
    FrameOutOfReach {
        /// Where they are.
        pa: Pa,
        /// The SMMU's output size in bits.
        bits: u32,
    },
    /// The StreamID is beyond the stream table.
    StreamOutOfRange {
        /// The StreamID.
        stream: StreamId,
        /// Bits of the StreamIDs the table covers.
        bits: u32,
    },
    /// The stream is attached already.
    StreamBusy(StreamId),
    /// The stream is out of use for good: the SMMU did not confirm that it has forgotten an earlier view of it.
    StreamQuarantined(StreamId),
    /// The streams of the view with this VMID have been sent through another tree since its STE was made: make it anew.
    TreeLeft(Vmid),
    /// The stage-2 configuration does not suit this SMMU.
    Stage2(Stage2Error),
    /// Every VMID is taken.
    OutOfVmids,
    /// The VMID is not one [`super::Smmu::alloc_vmid`] gave out.
    UnknownVmid(Vmid),
    /// The VMID is out of use for good: its last invalidation did not complete.
    VmidQuarantined(Vmid),
    /// Commands were not carried out.
    Command(CommandError),
    /// A stalled transaction could not be answered.
    Unanswered(DmaTlbError),
}

impl fmt::Display for SmmuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "the SMMU {what}"),
            Self::Register { register, found, expected } => {
                write!(f, "the SMMU did not answer: {register:?} reads {found:#x}, {expected:#x} expected")
            }
            Self::OutOfFrames { order } => {
                write!(f, "no {} contiguous frames are free for an SMMU table or queue", 1u64 << order)
            }
            Self::FrameOutOfReach { pa, bits } => {
                write!(
                    f,
                    "the frames at {pa} are too small, or beyond the {bits} bits that the SMMU addresses"
                )
            }
            Self::StreamOutOfRange { stream, bits } => {
                write!(f, "stream {stream} is beyond the {bits} bits of the stream table")
            }
            Self::StreamBusy(stream) => write!(f, "stream {stream} is attached already: detach it first"),
            Self::StreamQuarantined(stream) => {
                write!(f, "stream {stream} is out of use: the SMMU did not confirm its last detach")
            }
            Self::Stage2(error) => write!(f, "{error}"),
            Self::TreeLeft(vmid) => {
                write!(f, "streams don't go through the tree of VMID {vmid} any more: make the STE anew")
            }
            Self::OutOfVmids => write!(f, "every VMID of the SMMU is taken"),
            Self::UnknownVmid(vmid) => write!(f, "VMID {vmid} was not allocated"),
            Self::VmidQuarantined(vmid) => {
                write!(f, "VMID {vmid} is out of use: its last invalidation did not complete")
            }
            Self::Command(error) => write!(f, "SMMU: {error}"),
            Self::Unanswered(error) => write!(f, "a stalled transaction could not be answered: {error}"),
        }
    }
}

impl From<Unsupported> for SmmuError {
    fn from(what: Unsupported) -> Self {
        Self::Unsupported(what)
    }
}

impl From<CommandError> for SmmuError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<Stage2Error> for SmmuError {
    fn from(error: Stage2Error) -> Self {
        Self::Stage2(error)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::smmu::spec::command::Command;

    #[test]
    fn messages_say_what_was_wrong() {
        let refused = CommandError::Refused { code: 1, command: RawCommand(Command::TlbiEl2All.words()) };
        assert_eq!(
            SmmuError::from(refused).to_string(),
            "SMMU: CMD_TLBI_EL2_ALL (0x0000000000000020 0x0000000000000000) is illegal for this SMMU"
        );
        let stuck = SmmuError::Register { register: Register32::Cr0Ack, found: 0, expected: 8 };
        assert_eq!(stuck.to_string(), "the SMMU did not answer: Cr0Ack reads 0x0, 0x8 expected");
        let stream = SmmuError::StreamOutOfRange { stream: StreamId(0x1_0000), bits: 16 };
        assert_eq!(stream.to_string(), "stream 0x10000 is beyond the 16 bits of the stream table");
        assert_eq!(
            SmmuError::StreamQuarantined(StreamId(0x41)).to_string(),
            "stream 0x41 is out of use: the SMMU did not confirm its last detach"
        );
        assert_eq!(
            SmmuError::VmidQuarantined(Vmid(5)).to_string(),
            "VMID 0x5 is out of use: its last invalidation did not complete"
        );
    }

    #[test]
    fn command_errors_keep_their_code_at_the_seam() {
        let refused = CommandError::Refused { code: 2, command: RawCommand([0x46, 0]) };
        assert_eq!(DmaTlbError::from(refused), DmaTlbError::Command(2));
        assert_eq!(DmaTlbError::from(CommandError::Timeout { cons: 7 }), DmaTlbError::Timeout);
    }
}
