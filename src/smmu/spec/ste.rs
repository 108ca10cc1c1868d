//! The Stream Table Entry (IHI 0070 §5.2) and the level-1 descriptor that points at a table of them (§5.1).
//!
//! An STE is eight 64-bit words; bit `n` of the specification is bit `n % 64` of word `n / 64`. Fields the driver
//! leaves at zero are not named.

use tock_registers::register_bitfields;

/// Bytes of an STE.
pub const STE_BYTES: u64 = 64;
/// 64-bit words of an STE.
pub const STE_WORDS: usize = 8;
/// Bytes of a level-1 descriptor.
pub const L1STD_BYTES: u64 = 8;

register_bitfields![u64,
    /// Level-1 stream table descriptor (§5.1).
    pub L1STD [
        /// 0: no table, every stream below is invalid. `n`: a table of `2^(n - 1)` STEs.
        SPAN OFFSET(0) NUMBITS(5) [
            /// 64 STEs: 4 KiB.
            Stes64 = 7
        ],
        /// Bits [55:6] of the table's address, which is aligned to the table's size.
        L2PTR OFFSET(6) NUMBITS(50) []
    ],

    /// STE word 0, bits [63:0].
    pub STE0 [
        /// The STE is valid. Transactions of a stream with V=0 are aborted, C_BAD_STE is recorded.
        V OFFSET(0) NUMBITS(1) [],
        /// What becomes of the stream's traffic.
        CONFIG OFFSET(1) NUMBITS(3) [
            /// Aborted, nothing recorded; all other fields are ignored.
            Abort = 0,
            /// Stage 1 bypassed, stage 2 translates.
            Stage2 = 6
        ]
    ],

    /// STE word 1, bits [127:64].
    pub STE1 [
        /// Bits [87:84]: software's own, ignored by the SMMU.
        SW_RESERVED OFFSET(20) NUMBITS(4) [
            /// The stream is out of use for good.
            Quarantined = 1
        ],
        /// Bits [93:92]: ATS.
        EATS OFFSET(28) NUMBITS(2) [
            /// Translation requests are refused and, with CR0.ATSCHK=1, translated traffic is aborted.
            Off = 0
        ],
        /// Bits [109:108]: shareability of the incoming transaction. RES0 where IDR1.ATTR_TYPES_OVR is 0.
        SHCFG OFFSET(44) NUMBITS(2) [
            /// As it comes.
            Incoming = 1
        ]
    ],

    /// STE word 2, bits [191:128].
    pub STE2 [
        /// Bits [143:128]: the VMID that tags TLB entries; [15:8] zero where IDR0.VMID16 is 0.
        S2VMID OFFSET(0) NUMBITS(16) [],
        /// Bits [165:160]: 64 less the bits of an IPA.
        S2T0SZ OFFSET(32) NUMBITS(6) [],
        /// Bits [167:166]: start level, 2 less the level for a 4 KiB granule.
        S2SL0 OFFSET(38) NUMBITS(2) [],
        /// Bits [169:168]: inner cacheability of table walks.
        S2IR0 OFFSET(40) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Bits [171:170]: outer cacheability of table walks.
        S2OR0 OFFSET(42) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Bits [173:172]: shareability of table walks.
        S2SH0 OFFSET(44) NUMBITS(2) [ Outer = 2, Inner = 3 ],
        /// Bits [175:174]: granule.
        S2TG OFFSET(46) NUMBITS(2) [ Granule4K = 0 ],
        /// Bits [178:176]: output address size, encoded as IDR5.OAS.
        S2PS OFFSET(48) NUMBITS(3) [],
        /// Bit [179]: VMSAv8-64 tables.
        S2AA64 OFFSET(51) NUMBITS(1) [],
        /// Bit [180]: big-endian tables.
        S2ENDI OFFSET(52) NUMBITS(1) [],
        /// Bit [181]: AF=0 does not fault. Ignored where S2HA is 1.
        S2AFFD OFFSET(53) NUMBITS(1) [],
        /// Bit [182]: a stage-1 walk through Device memory faults. Ignored where stage 1 is bypassed.
        S2PTW OFFSET(54) NUMBITS(1) [],
        /// Bit [183]: hardware updates the dirty state; with S2HA only.
        S2HD OFFSET(55) NUMBITS(1) [],
        /// Bit [184]: hardware updates the access flag.
        S2HA OFFSET(56) NUMBITS(1) [],
        /// Bit [185]: a faulting transaction stalls.
        S2S OFFSET(57) NUMBITS(1) [],
        /// Bit [186]: a fault that does not stall is recorded.
        S2R OFFSET(58) NUMBITS(1) [],
        /// Bit [187]: hardware updates the access flag of table descriptors; with S2HA only, and RES0 unless IDR0.HTTU is 3.
        S2HAFT OFFSET(59) NUMBITS(1) []
    ],

    /// STE word 3, bits [255:192].
    pub STE3 [
        /// Bits [243:196]: bits [51:4] of the address of the first table.
        S2TTB OFFSET(4) NUMBITS(48) []
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
    fn level_1_descriptor_fields_are_where_section_5_1_puts_them() {
        assert_eq!(mask!(L1STD::SPAN), 0x0000_0000_0000_001f);
        assert_eq!(mask!(L1STD::L2PTR), 0x00ff_ffff_ffff_ffc0);
        assert_eq!(L1STD::SPAN::Stes64.value, 7);
    }

    #[test]
    fn ste_fields_are_where_section_5_2_puts_them() {
        assert_eq!(STE0::V::SET.value, 0x1);
        assert_eq!(mask!(STE0::CONFIG), 0xe);
        assert_eq!(STE0::CONFIG::Stage2.value, 0xc);
        // Bits 87:84, 93:92 and 109:108 of the entry.
        assert_eq!(mask!(STE1::SW_RESERVED), 0x0000_0000_00f0_0000);
        assert_eq!(STE1::SW_RESERVED::Quarantined.value, 0x0000_0000_0010_0000);
        assert_eq!(mask!(STE1::EATS), 0x0000_0000_3000_0000);
        assert_eq!(mask!(STE1::SHCFG), 0x0000_3000_0000_0000);
        assert_eq!(STE1::SHCFG::Incoming.value, 0x0000_1000_0000_0000);
        // Bits 143:128.
        assert_eq!(mask!(STE2::S2VMID), 0x0000_0000_0000_ffff);
        // Bits 165:160, 167:166, 169:168, 171:170, 173:172, 175:174.
        assert_eq!(mask!(STE2::S2T0SZ), 0x0000_003f_0000_0000);
        assert_eq!(mask!(STE2::S2SL0), 0x0000_00c0_0000_0000);
        assert_eq!(mask!(STE2::S2IR0), 0x0000_0300_0000_0000);
        assert_eq!(mask!(STE2::S2OR0), 0x0000_0c00_0000_0000);
        assert_eq!(mask!(STE2::S2SH0), 0x0000_3000_0000_0000);
        assert_eq!(mask!(STE2::S2TG), 0x0000_c000_0000_0000);
        // Bits 178:176, then 179 to 186 one by one.
        assert_eq!(mask!(STE2::S2PS), 0x0007_0000_0000_0000);
        assert_eq!(STE2::S2AA64::SET.value, 0x0008_0000_0000_0000);
        assert_eq!(STE2::S2ENDI::SET.value, 0x0010_0000_0000_0000);
        assert_eq!(STE2::S2AFFD::SET.value, 0x0020_0000_0000_0000);
        assert_eq!(STE2::S2PTW::SET.value, 0x0040_0000_0000_0000);
        assert_eq!(STE2::S2HD::SET.value, 0x0080_0000_0000_0000);
        assert_eq!(STE2::S2HA::SET.value, 0x0100_0000_0000_0000);
        assert_eq!(STE2::S2HAFT::SET.value, 0x0800_0000_0000_0000);
        assert_eq!(STE2::S2S::SET.value, 0x0200_0000_0000_0000);
        assert_eq!(STE2::S2R::SET.value, 0x0400_0000_0000_0000);
        // Bits 243:196.
        assert_eq!(mask!(STE3::S2TTB), 0x000f_ffff_ffff_fff0);
    }
}
