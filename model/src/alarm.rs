//! What software must never do, and the account given when it does.

use core::fmt;

/// A rule of the architecture, or of a view that can be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A frame was given back while a TLB entry, a transaction or a live table referred to it.
    FrameInUse,
    /// A frame was given back twice.
    FrameFreedTwice,
    /// A walk reached a table whose contents had not been made visible before the link to it.
    TableNotVisible,
    /// A walk left memory.
    WalkAstray,
    /// A translation led outside guest RAM.
    OutputAstray,
    /// A leaf with the Contiguous bit in a view.
    Contiguous,
    /// A leaf with AF=0 in a view.
    AccessFlagClear,
    /// Software cleared S2AP\[1\] of a leaf without DBM.
    CleanedWithoutDbm,
    /// Two sizes of one translation in an SMMU's TLB below BBML 2.
    SmmuTlbConflict,
    /// Two sizes of one translation in the TLB of a PE that raises conflict aborts.
    TlbConflictAbort,
    /// The size of a translation was changed while a walk of a held vCPU was under way.
    WalkUnderWay,
    /// A vCPU faults again and again though the descriptor permits the access.
    FaultsForEver,
    /// STEs of one VMID differ.
    StesDiffer,
    /// An STE that is ILLEGAL.
    IllegalSte,
    /// A VMID was used with another tree while entries of the old tree were left.
    VmidReused,
    /// CMDQ_PROD was written while commands were not visible.
    CommandNotVisible,
    /// CMDQ_PROD went past what the queue holds.
    CommandQueueOverflow,
    /// A register was written when it must not be.
    GuardedRegister,
    /// SMMUEN was set while caches or TLBs held what was there at reset.
    EnabledUninvalidated,
    /// A level hint with an address or range it does not fit.
    LevelHint,
    /// Guest memory was reused while a translation to it was left.
    MemoryInUse,
    /// The SMMU was told of an STE, or read one, that was not visible to it.
    StreamTableNotVisible,
    /// Software read what a cache held of a record that an SMMU without coherent accesses had written.
    RecordStale,
    /// An address that a device calls translated passed unchecked.
    TranslatedUnchecked,
    /// Hardware update was turned on where the SMMU's accesses aren't coherent, or not write-back cacheable.
    UpdateNotCoherent,
    /// The access flags of tables were turned on where the SMMU keeps none.
    TableFlagsReserved,
    /// Commands that such a part must not see behind each other without a CMD_SYNC.
    NoSyncBetween,
    /// A stalled transaction was tried again while the TLB entry that stalled it was left.
    ResumedTooEarly,
    /// CMD_RESUME for what is not stalled, or has its answer already.
    ResumedTwice,
    /// A stalled transaction waits for an answer that nobody gives.
    StallUnanswered,
    /// CMD_STALL_TERM for a stream of which more could stall.
    StallTermTooEarly,
}

impl Rule {
    /// Where the rule stands.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::FrameInUse | Self::MemoryInUse => "IHI 0070 §4.4, §4.7.3; Arm ARM D8.17",
            Self::FrameFreedTwice => "contract of Frames::free",
            Self::TableNotVisible => "IHI 0070 §3.21.2; Arm ARM D8.2.6",
            Self::WalkAstray | Self::OutputAstray => "Arm ARM D8.3",
            Self::Contiguous => "Arm ARM D8.5, RJKCXG",
            Self::AccessFlagClear => "Arm ARM D8.5",
            Self::CleanedWithoutDbm => "Arm ARM D8.5; IHI 0070 §3.13",
            Self::SmmuTlbConflict => "IHI 0070 §3.21.1",
            Self::TlbConflictAbort => "Arm ARM D8.17, RFCPSG",
            Self::WalkUnderWay => "contract of Cpu::hold; Arm ARM D8.2",
            Self::FaultsForEver => "Arm ARM D8.17, IWZCBG",
            Self::StesDiffer => "IHI 0070 §5.2.1",
            Self::IllegalSte => "IHI 0070 §5.2",
            Self::VmidReused => "IHI 0070 §5.2 (S2VMID); Arm ARM D8.17",
            Self::CommandNotVisible => "IHI 0070 §3.21.2",
            Self::CommandQueueOverflow => "IHI 0070 §3.5.1",
            Self::GuardedRegister => "IHI 0070 §6.3",
            Self::EnabledUninvalidated => "IHI 0070 §3.11",
            Self::LevelHint => "IHI 0070 §4.4.1.1",
            Self::StreamTableNotVisible => "IHI 0070 §3.21.2, §3.21.3",
            Self::RecordStale => "IHI 0070 §3.15",
            Self::TranslatedUnchecked => "IHI 0070 §3.9, §6.3.9",
            Self::UpdateNotCoherent => "IHI 0070 §3.15, §5.2",
            Self::TableFlagsReserved => "IHI 0070 §5.2 (S2HAFT)",
            Self::NoSyncBetween => "Arm MMU-700 erratum 2812531",
            Self::ResumedTooEarly => "IHI 0070 §3.21.3, §4.7.1",
            Self::ResumedTwice => "IHI 0070 §4.7.1",
            Self::StallUnanswered => "IHI 0070 §3.12.2",
            Self::StallTermTooEarly => "IHI 0070 §4.7.2",
        }
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// The rule.
    pub rule: Rule,
    /// What happened: which access, which entry or frame.
    pub account: String,
    /// The step at which it was noticed.
    pub step: u64,
    /// What happened before it, oldest first.
    pub before: Vec<String>,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {}: {:?} ({}): {}", self.step, self.rule, self.rule.section(), self.account)?;
        for line in &self.before {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}
