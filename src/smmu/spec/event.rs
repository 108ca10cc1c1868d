//! Event records (IHI 0070 §7.3): four 64-bit words each.

use tock_registers::register_bitfields;

/// Bytes of a record.
pub const EVENT_BYTES: u64 = 32;
/// 64-bit words of a record.
pub const EVENT_WORDS: usize = 4;

register_bitfields![u64,
    /// Word 0, bits [63:0].
    pub EVENT0 [
        /// The event number.
        TYPE OFFSET(0) NUMBITS(8) [
            /// F_UUT: unsupported upstream transaction.
            UnsupportedTransaction = 0x01,
            /// C_BAD_STREAMID: the stream has no STE.
            BadStreamId = 0x02,
            /// F_STE_FETCH: the STE could not be fetched.
            SteFetch = 0x03,
            /// C_BAD_STE: the STE is invalid or illegal.
            BadSte = 0x04,
            /// F_BAD_ATS_TREQ: an ATS translation request that isn't allowed.
            BadAtsRequest = 0x05,
            /// F_STREAM_DISABLED.
            StreamDisabled = 0x06,
            /// F_TRANSL_FORBIDDEN: ATS translated traffic that isn't allowed.
            TranslatedForbidden = 0x07,
            /// C_BAD_SUBSTREAMID.
            BadSubstreamId = 0x08,
            /// F_CD_FETCH.
            CdFetch = 0x09,
            /// C_BAD_CD.
            BadCd = 0x0a,
            /// F_WALK_EABT: a table walk met an external abort.
            WalkAbort = 0x0b,
            /// F_TRANSLATION: nothing is mapped there.
            Translation = 0x10,
            /// F_ADDR_SIZE: an address is too large.
            AddressSize = 0x11,
            /// F_ACCESS: the access flag is clear.
            AccessFlag = 0x12,
            /// F_PERMISSION: the page may not be accessed so.
            Permission = 0x13,
            /// F_TLB_CONFLICT: several TLB entries matched.
            TlbConflict = 0x20,
            /// F_CFG_CONFLICT: several cached STEs matched.
            ConfigConflict = 0x21,
            /// E_PAGE_REQUEST: a speculative page request hint.
            PageRequest = 0x24,
            /// F_VMS_FETCH.
            VmsFetch = 0x25
        ],
        /// A SubstreamID came with the transaction.
        SSV OFFSET(11) NUMBITS(1) [],
        /// The SubstreamID.
        SUBSTREAM OFFSET(12) NUMBITS(20) [],
        /// The StreamID.
        STREAM OFFSET(32) NUMBITS(32) []
    ],

    /// Word 1, bits [127:64].
    pub EVENT1 [
        /// What names a stalled transaction to CMD_RESUME.
        STAG OFFSET(0) NUMBITS(16) [],
        /// Bit [95]: the transaction is stalled.
        STALL OFFSET(31) NUMBITS(1) [],
        /// Bit [97]: privileged.
        PNU OFFSET(33) NUMBITS(1) [],
        /// Bit [98]: an instruction fetch.
        IND OFFSET(34) NUMBITS(1) [],
        /// Bit [99]: a read.
        RNW OFFSET(35) NUMBITS(1) [],
        /// Bit [103]: stage 2.
        S2 OFFSET(39) NUMBITS(1) [],
        /// Bits [105:104]: what was being translated.
        CLASS OFFSET(40) NUMBITS(2) [
            /// The fetch of a context descriptor.
            ContextDescriptor = 0,
            /// A stage-1 table walk.
            Stage1Walk = 1,
            /// The transaction itself.
            Input = 2
        ]
    ],

    /// Word 3, bits [255:192].
    pub EVENT3 [
        /// Bits [247:204]: bits [55:12] of the intermediate address.
        IPA OFFSET(12) NUMBITS(44) []
    ]
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The mask of a field, in place.
    macro_rules! mask {
        ($field:expr) => {
            $field.mask << $field.shift
        };
    }

    #[test]
    fn record_fields_are_where_section_7_3_puts_them() {
        assert_eq!(mask!(EVENT0::TYPE), 0x0000_0000_0000_00ff);
        assert_eq!(EVENT0::SSV::SET.value, 0x0000_0000_0000_0800);
        assert_eq!(mask!(EVENT0::SUBSTREAM), 0x0000_0000_ffff_f000);
        assert_eq!(mask!(EVENT0::STREAM), 0xffff_ffff_0000_0000);
        assert_eq!(mask!(EVENT1::STAG), 0x0000_0000_0000_ffff);
        assert_eq!(EVENT1::STALL::SET.value, 0x0000_0000_8000_0000);
        assert_eq!(EVENT1::PNU::SET.value, 0x0000_0002_0000_0000);
        assert_eq!(EVENT1::IND::SET.value, 0x0000_0004_0000_0000);
        assert_eq!(EVENT1::RNW::SET.value, 0x0000_0008_0000_0000);
        assert_eq!(EVENT1::S2::SET.value, 0x0000_0080_0000_0000);
        assert_eq!(EVENT1::CLASS::Input.value, 0x0000_0200_0000_0000);
        assert_eq!(mask!(EVENT3::IPA), 0x00ff_ffff_ffff_f000);
    }
}
