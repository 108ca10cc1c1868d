//! Commands of the Command queue (IHI 0070 chapter 4): two 64-bit words each.

use core::fmt;

use tock_registers::register_bitfields;

use crate::addr::{Ipa, StreamId, Vmid};
use crate::hw::Resume;

/// Bytes of a command.
pub const COMMAND_BYTES: u64 = 16;
/// 64-bit words of a command.
pub const COMMAND_WORDS: usize = 2;

register_bitfields![u64,
    /// Word 0, bits [63:0].
    pub COMMAND0 [
        /// What the command is (§4.1.1).
        OPCODE OFFSET(0) NUMBITS(8) [
            /// CMD_CFGI_STE (§4.3.1).
            CfgiSte = 0x03,
            /// CMD_CFGI_STE_RANGE, and CMD_CFGI_ALL with a range of 31 (§4.3.2, §4.3.6).
            CfgiSteRange = 0x04,
            /// CMD_TLBI_EL2_ALL (§4.4.2.7).
            TlbiEl2All = 0x20,
            /// CMD_TLBI_S12_VMALL (§4.4.3.2).
            TlbiS12Vmall = 0x28,
            /// CMD_TLBI_S2_IPA (§4.4.3.1).
            TlbiS2Ipa = 0x2a,
            /// CMD_TLBI_NSNH_ALL (§4.4.4.1).
            TlbiNsnhAll = 0x30,
            /// CMD_RESUME (§4.7.1).
            Resume = 0x44,
            /// CMD_STALL_TERM (§4.7.2).
            StallTerm = 0x45,
            /// CMD_SYNC (§4.7.3).
            Sync = 0x46
        ],
        /// CMD_SYNC: completion signal.
        SYNC_CS OFFSET(12) NUMBITS(2) [
            /// None: software polls the read index.
            None = 0
        ],
        /// CMD_RESUME, Ac and Ab: what becomes of the transaction.
        RESUME_ACTION OFFSET(12) NUMBITS(2) [
            /// Ac=1: it is tried again as though it had just arrived.
            Retry = 1,
            /// Ac=0, Ab=1: it is terminated with an abort.
            Abort = 2
        ],
        /// CMD_TLBI_S2_IPA: granules to invalidate, less one, before scaling (§4.4.1.1).
        TLBI_NUM OFFSET(12) NUMBITS(5) [],
        /// CMD_TLBI_S2_IPA: `log2` of what NUM is multiplied by.
        TLBI_SCALE OFFSET(20) NUMBITS(5) [],
        /// CMD_CFGI_*, CMD_RESUME, CMD_STALL_TERM: the stream.
        STREAM OFFSET(32) NUMBITS(32) [],
        /// CMD_TLBI_*: the VMID.
        VMID OFFSET(32) NUMBITS(16) []
    ],

    /// Word 1, bits [127:64].
    pub COMMAND1 [
        /// CMD_CFGI_STE: only the STE, not the level-1 descriptor. CMD_TLBI_S2_IPA: only last-level entries.
        LEAF OFFSET(0) NUMBITS(1) [],
        /// CMD_RESUME: which of the stream's transactions.
        STAG OFFSET(0) NUMBITS(16) [],
        /// CMD_CFGI_STE_RANGE: `log2` of the number of streams, less one.
        RANGE OFFSET(0) NUMBITS(5) [
            /// Every stream.
            All = 31
        ],
        /// CMD_TLBI_S2_IPA: level of the leaf entries; 0: any.
        TLBI_TTL OFFSET(8) NUMBITS(2) [ Any = 0 ],
        /// CMD_TLBI_S2_IPA: granule, and whether NUM and SCALE are looked at.
        TLBI_TG OFFSET(10) NUMBITS(2) [
            /// One address, entries of any granule.
            NoRange = 0,
            /// A range of 4 KiB granules.
            Granule4K = 1
        ],
        /// CMD_TLBI_S2_IPA: bits [55:12] of the address.
        TLBI_ADDRESS OFFSET(12) NUMBITS(44) []
    ]
];

/// How many pages one [`Command::TlbiS2Ipa`] names: `(num + 1) << scale`, in one range command.
///
/// `num` and `scale` both zero is one page. With a level hint of 0, as this driver always gives it, that range is
/// reserved and refused with CERROR_ILL (§4.4.1.1), so [`Command::words`] writes the form without a range for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCount {
    /// Granules less one, 0 to 31.
    pub num: u8,
    /// `log2` of the multiplier, 0 to 31.
    pub scale: u8,
}

impl PageCount {
    /// One page: the only count an SMMU without range invalidation takes.
    pub const ONE: Self = Self { num: 0, scale: 0 };

    /// The number of pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        (self.num as u64 + 1) << self.scale
    }
}

/// A command this driver issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Forget the cached STE of a stream and, unless `leaf`, the level-1 descriptor that led to it.
    CfgiSte {
        /// The stream.
        stream: StreamId,
        /// Only the STE.
        leaf: bool,
    },
    /// Forget every cached configuration.
    CfgiAll,
    /// Forget all EL2 TLB entries. CERROR_ILL where IDR0.Hyp is 0.
    TlbiEl2All,
    /// Forget all non-secure EL1 TLB entries, of every VMID and stage.
    TlbiNsnhAll,
    /// Forget all TLB entries of a VMID.
    TlbiS12Vmall(Vmid),
    /// Forget stage-2 entries of a VMID for a run of pages.
    TlbiS2Ipa {
        /// The VMID.
        vmid: Vmid,
        /// The first page; a multiple of 4 KiB.
        ipa: Ipa,
        /// How many pages.
        count: PageCount,
        /// Only last-level entries: table descriptors did not change.
        leaf: bool,
    },
    /// Let a stalled transaction go on. CERROR_ILL where the SMMU never stalls.
    Resume {
        /// Its stream.
        stream: StreamId,
        /// The tag its event record gave.
        stag: u16,
        /// What becomes of it.
        how: Resume,
    },
    /// Terminate every stalled transaction of a stream whose STE aborts already. CERROR_ILL where the SMMU never stalls.
    StallTerm(StreamId),
    /// Complete what came before; consumed when it has.
    Sync,
}

impl Command {
    /// Whether it makes the SMMU forget something: to be asked twice does no harm.
    pub(crate) const fn invalidates(&self) -> bool {
        !matches!(self, Self::Resume { .. } | Self::StallTerm(_) | Self::Sync)
    }

    /// The command as the queue holds it.
    #[must_use]
    pub fn words(self) -> [u64; COMMAND_WORDS] {
        use COMMAND0::OPCODE;
        match self {
            Self::CfgiSte { stream, leaf } => [
                (OPCODE::CfgiSte + COMMAND0::STREAM.val(u64::from(stream.0))).value,
                COMMAND1::LEAF.val(u64::from(leaf)).value,
            ],
            Self::CfgiAll => [OPCODE::CfgiSteRange.value, COMMAND1::RANGE::All.value],
            Self::TlbiEl2All => [OPCODE::TlbiEl2All.value, 0],
            Self::TlbiNsnhAll => [OPCODE::TlbiNsnhAll.value, 0],
            Self::TlbiS12Vmall(vmid) => {
                [(OPCODE::TlbiS12Vmall + COMMAND0::VMID.val(u64::from(vmid.0))).value, 0]
            }
            Self::TlbiS2Ipa { vmid, ipa, count, leaf } => tlbi_s2_ipa(vmid, ipa, count, leaf),
            Self::Resume { stream, stag, how } => resume(stream, stag, how),
            Self::StallTerm(stream) => {
                [(OPCODE::StallTerm + COMMAND0::STREAM.val(u64::from(stream.0))).value, 0]
            }
            Self::Sync => [(OPCODE::Sync + COMMAND0::SYNC_CS::None).value, 0],
        }
    }
}

fn resume(stream: StreamId, stag: u16, how: Resume) -> [u64; COMMAND_WORDS] {
    let action = match how {
        Resume::Retry => COMMAND0::RESUME_ACTION::Retry,
        Resume::Abort => COMMAND0::RESUME_ACTION::Abort,
    };
    let word0 = COMMAND0::OPCODE::Resume + action + COMMAND0::STREAM.val(u64::from(stream.0));
    [word0.value, COMMAND1::STAG.val(u64::from(stag)).value]
}

fn tlbi_s2_ipa(vmid: Vmid, ipa: Ipa, count: PageCount, leaf: bool) -> [u64; COMMAND_WORDS] {
    let granule =
        if count == PageCount::ONE { COMMAND1::TLBI_TG::NoRange } else { COMMAND1::TLBI_TG::Granule4K };
    let word0 = COMMAND0::OPCODE::TlbiS2Ipa
        + COMMAND0::VMID.val(u64::from(vmid.0))
        + COMMAND0::TLBI_NUM.val(u64::from(count.num))
        + COMMAND0::TLBI_SCALE.val(u64::from(count.scale));
    let word1 = COMMAND1::LEAF.val(u64::from(leaf))
        + COMMAND1::TLBI_TTL::Any
        + granule
        + COMMAND1::TLBI_ADDRESS.val(ipa.0 >> 12);
    [word0.value, word1.value]
}

/// A command as it was found in the queue, for messages: the opcode and both words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawCommand(pub [u64; COMMAND_WORDS]);

impl RawCommand {
    /// The name of the opcode in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        use COMMAND0::OPCODE::Value;
        match COMMAND0::OPCODE.read_as_enum(self.0[0]) {
            Some(Value::CfgiSte) => "CMD_CFGI_STE",
            Some(Value::CfgiSteRange) => "CMD_CFGI_STE_RANGE",
            Some(Value::TlbiEl2All) => "CMD_TLBI_EL2_ALL",
            Some(Value::TlbiS12Vmall) => "CMD_TLBI_S12_VMALL",
            Some(Value::TlbiS2Ipa) => "CMD_TLBI_S2_IPA",
            Some(Value::TlbiNsnhAll) => "CMD_TLBI_NSNH_ALL",
            Some(Value::Resume) => "CMD_RESUME",
            Some(Value::StallTerm) => "CMD_STALL_TERM",
            Some(Value::Sync) => "CMD_SYNC",
            None => "unknown command",
        }
    }
}

impl fmt::Display for RawCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#018x} {:#018x})", self.name(), self.0[0], self.0[1])
    }
}

impl fmt::Debug for RawCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_commands_match_section_4_3() {
        let ste = Command::CfgiSte { stream: StreamId(0x100), leaf: true };
        assert_eq!(ste.words(), [0x0000_0100_0000_0003, 0x1]);
        let with_level_1 = Command::CfgiSte { stream: StreamId(0xffff_fffe), leaf: false };
        assert_eq!(with_level_1.words(), [0xffff_fffe_0000_0003, 0x0]);
        assert_eq!(Command::CfgiAll.words(), [0x0000_0000_0000_0004, 0x1f]);
    }

    #[test]
    fn whole_tlb_commands_match_section_4_4() {
        assert_eq!(Command::TlbiEl2All.words(), [0x20, 0]);
        assert_eq!(Command::TlbiNsnhAll.words(), [0x30, 0]);
        assert_eq!(Command::TlbiS12Vmall(Vmid(0xabcd)).words(), [0x0000_abcd_0000_0028, 0]);
    }

    #[test]
    fn stall_commands_match_section_4_7() {
        // Ac is bit 12, Ab bit 13; the tag is bits 79:64, the stream bits 63:32.
        let resume = |how| Command::Resume { stream: StreamId(0x1234_5678), stag: 0xbeef, how }.words();
        assert_eq!(resume(Resume::Retry), [0x1234_5678_0000_1044, 0xbeef]);
        assert_eq!(resume(Resume::Abort), [0x1234_5678_0000_2044, 0xbeef]);
        assert_eq!(Command::StallTerm(StreamId(0xffff_fffe)).words(), [0xffff_fffe_0000_0045, 0]);
        assert_eq!(RawCommand(resume(Resume::Retry)).name(), "CMD_RESUME");
        assert_eq!(RawCommand([0x45, 0]).name(), "CMD_STALL_TERM");
    }

    #[test]
    fn sync_asks_for_no_signal() {
        assert_eq!(Command::Sync.words(), [0x46, 0]);
    }

    #[test]
    fn one_page_is_invalidated_without_range_and_level() {
        let page =
            |leaf| Command::TlbiS2Ipa { vmid: Vmid(5), ipa: Ipa(0x8000_3000), count: PageCount::ONE, leaf };
        assert_eq!(page(true).words(), [0x0000_0005_0000_002a, 0x0000_0000_8000_3001]);
        assert_eq!(page(false).words(), [0x0000_0005_0000_002a, 0x0000_0000_8000_3000]);
    }

    #[test]
    fn range_of_pages_carries_num_scale_and_granule() {
        // 512 pages: NUM=0, SCALE=9; TG=0b01 in bits 11:10 of word 1.
        let two_mib = Command::TlbiS2Ipa {
            vmid: Vmid(1),
            ipa: Ipa(0x4000_0000),
            count: PageCount { num: 0, scale: 9 },
            leaf: false,
        };
        assert_eq!(two_mib.words(), [0x0000_0001_0090_002a, 0x0000_0000_4000_0400]);
        // The largest of everything: NUM=31 in [16:12], SCALE=31 in [24:20], address [55:12].
        let most = Command::TlbiS2Ipa {
            vmid: Vmid(0xffff),
            ipa: Ipa(0x00ff_ffff_ffff_f000),
            count: PageCount { num: 31, scale: 31 },
            leaf: true,
        };
        assert_eq!(most.words(), [0x0000_ffff_01f1_f02a, 0x00ff_ffff_ffff_f401]);
    }

    #[test]
    fn page_count_is_num_plus_one_scaled() {
        assert_eq!(PageCount::ONE.pages(), 1);
        assert_eq!(PageCount { num: 2, scale: 4 }.pages(), 48);
    }

    #[test]
    fn raw_command_says_its_name_and_words() {
        let command = RawCommand(Command::TlbiS12Vmall(Vmid(3)).words());
        let text = command.to_string();
        assert_eq!(std::format!("{command:?}"), text);
        assert_eq!(text, "CMD_TLBI_S12_VMALL (0x0000000300000028 0x0000000000000000)");
        assert_eq!(RawCommand([0xff, 0]).name(), "unknown command");
    }
}
