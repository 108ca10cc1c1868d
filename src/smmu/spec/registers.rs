//! The fields of the registers the driver uses (IHI 0070 §6.3).

use tock_registers::register_bitfields;

register_bitfields![u32,
    /// SMMU_IDR0: features (§6.3.1).
    pub IDR0 [
        /// Stage 2 translation is there.
        S2P OFFSET(0) NUMBITS(1) [],
        /// Stage 1 translation is there.
        S1P OFFSET(1) NUMBITS(1) [],
        /// Table formats: bit 0 VMSAv8-32 LPAE, bit 1 VMSAv8-64.
        TTF OFFSET(2) NUMBITS(2) [],
        /// Structures, queues and table walks are coherent with the PEs' caches.
        COHACC OFFSET(4) NUMBITS(1) [],
        /// Broadcast TLB maintenance is received.
        BTM OFFSET(5) NUMBITS(1) [],
        /// Hardware update of translation tables.
        HTTU OFFSET(6) NUMBITS(2) [
            /// None.
            None = 0,
            /// The access flag.
            AccessFlag = 1,
            /// The access flag and the dirty state.
            Dirty = 2,
            /// Both, and the access flag of table descriptors.
            TableAccessFlag = 3
        ],
        /// EL2 stage-1 contexts (TLB entries tagged as EL2) are there.
        HYP OFFSET(9) NUMBITS(1) [],
        /// PCIe ATS is there.
        ATS OFFSET(10) NUMBITS(1) [],
        /// 16-bit ASIDs.
        ASID16 OFFSET(12) NUMBITS(1) [],
        /// Message-signalled interrupts.
        MSI OFFSET(13) NUMBITS(1) [],
        /// WFE wake-up events.
        SEV OFFSET(14) NUMBITS(1) [],
        /// PCIe page requests are there.
        PRI OFFSET(16) NUMBITS(1) [],
        /// 16-bit VMIDs.
        VMID16 OFFSET(18) NUMBITS(1) [],
        /// Endianness of table walks.
        TTENDIAN OFFSET(21) NUMBITS(2) [
            /// Either.
            Mixed = 0,
            /// Little-endian only.
            Little = 2,
            /// Big-endian only.
            Big = 3
        ],
        /// What may become of a faulting transaction.
        STALL_MODEL OFFSET(24) NUMBITS(2) [
            /// It stalls or is terminated, as the STE says.
            Both = 0,
            /// It is terminated.
            Terminate = 1,
            /// It stalls, always.
            Forced = 2
        ],
        /// Stream table formats: linear, or 2-level as well.
        ST_LEVEL OFFSET(27) NUMBITS(2) [
            /// Linear only.
            Linear = 0,
            /// 2-level as well.
            TwoLevel = 1
        ]
    ],

    /// SMMU_IDR1: sizes (§6.3.2).
    pub IDR1 [
        /// Bits of a StreamID.
        SIDSIZE OFFSET(0) NUMBITS(6) [],
        /// Bits of a SubstreamID.
        SSIDSIZE OFFSET(6) NUMBITS(5) [],
        /// `log2` of the largest Event queue.
        EVENTQS OFFSET(16) NUMBITS(5) [],
        /// `log2` of the largest Command queue.
        CMDQS OFFSET(21) NUMBITS(5) [],
        /// Incoming memory attributes can be overridden; otherwise STE.SHCFG and its like are RES0.
        ATTR_TYPES_OVR OFFSET(27) NUMBITS(1) [],
        /// Queue base registers are fixed.
        QUEUES_PRESET OFFSET(29) NUMBITS(1) [],
        /// Stream table base registers are fixed.
        TABLES_PRESET OFFSET(30) NUMBITS(1) []
    ],

    /// SMMU_IDR3: features (§6.3.4).
    pub IDR3 [
        /// EL0 and EL1 execution are told apart at stage 2.
        XNX OFFSET(4) NUMBITS(1) [],
        /// STE.S2FWB.
        FWB OFFSET(8) NUMBITS(1) [],
        /// TLB invalidation by range and level.
        RIL OFFSET(10) NUMBITS(1) [],
        /// Break-before-make level.
        BBML OFFSET(11) NUMBITS(2) []
    ],

    /// SMMU_IDR5: address sizes and granules (§6.3.6).
    pub IDR5 [
        /// Output address size.
        OAS OFFSET(0) NUMBITS(3) [],
        /// 4 KiB granule.
        GRAN4K OFFSET(4) NUMBITS(1) [],
        /// Most transactions that can be stalled at once.
        STALL_MAX OFFSET(16) NUMBITS(16) []
    ],

    /// SMMU_AIDR: architecture version (§6.3.8).
    pub AIDR [
        /// The y of SMMUvx.y.
        MINOR OFFSET(0) NUMBITS(4) [],
        /// The x of SMMUvx.y, less 3.
        MAJOR OFFSET(4) NUMBITS(4) []
    ],

    /// SMMU_CR0 and SMMU_CR0ACK: enables (§6.3.9, §6.3.10).
    pub CR0 [
        /// Translation is on.
        SMMUEN OFFSET(0) NUMBITS(1) [],
        /// The PRI queue is written.
        PRIQEN OFFSET(1) NUMBITS(1) [],
        /// The Event queue is written.
        EVENTQEN OFFSET(2) NUMBITS(1) [],
        /// Commands are processed.
        CMDQEN OFFSET(3) NUMBITS(1) [],
        /// ATS Translated traffic is checked against STE.EATS. RES0 where IDR0.ATS is 0.
        ATSCHK OFFSET(4) NUMBITS(1) []
    ],

    /// SMMU_CR1: how queues and stream tables are accessed (§6.3.11).
    pub CR1 [
        /// Inner cacheability of queues.
        QUEUE_IC OFFSET(0) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Outer cacheability of queues.
        QUEUE_OC OFFSET(2) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Shareability of queues.
        QUEUE_SH OFFSET(4) NUMBITS(2) [ Outer = 2, Inner = 3 ],
        /// Inner cacheability of stream tables.
        TABLE_IC OFFSET(6) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Outer cacheability of stream tables.
        TABLE_OC OFFSET(8) NUMBITS(2) [ NonCacheable = 0, WriteBack = 1 ],
        /// Shareability of stream tables.
        TABLE_SH OFFSET(10) NUMBITS(2) [ Outer = 2, Inner = 3 ]
    ],

    /// SMMU_CR2 (§6.3.12).
    pub CR2 [
        /// EL2 streams are tagged with ASIDs.
        E2H OFFSET(0) NUMBITS(1) [],
        /// C_BAD_STREAMID is recorded.
        RECINVSID OFFSET(1) NUMBITS(1) [],
        /// Broadcast TLB maintenance is not taken part in. RES0 where IDR0.BTM is 0.
        PTM OFFSET(2) NUMBITS(1) []
    ],

    /// SMMU_GBPA: what becomes of traffic while SMMUEN is 0 (§6.3.14).
    pub GBPA [
        /// It is aborted.
        ABORT OFFSET(20) NUMBITS(1) [],
        /// Set with every write, cleared by the SMMU when the write has taken effect.
        UPDATE OFFSET(31) NUMBITS(1) []
    ],

    /// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK: interrupt enables (§6.3.16, §6.3.18).
    pub IRQ_CTRL [
        /// Global errors.
        GERROR OFFSET(0) NUMBITS(1) [],
        /// The Event queue.
        EVENTQ OFFSET(2) NUMBITS(1) []
    ],

    /// SMMU_STRTAB_BASE_CFG (§6.3.25).
    pub STRTAB_BASE_CFG [
        /// `log2` of the number of StreamIDs.
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
        /// StreamID bits that index a level-2 table.
        SPLIT OFFSET(6) NUMBITS(5) [
            /// A level-2 table of 64 STEs, 4 KiB.
            Bits6 = 6
        ],
        /// Format.
        FMT OFFSET(16) NUMBITS(2) [ Linear = 0, TwoLevel = 1 ]
    ],

    /// SMMU_CMDQ_CONS (§6.3.28).
    pub CMDQ_CONS [
        /// Index of the next command to be consumed, and the wrap flag above it.
        RD OFFSET(0) NUMBITS(20) [],
        /// Why the command at RD was not consumed (§7.1).
        ERR OFFSET(24) NUMBITS(7) [
            /// None.
            None = 0,
            /// The command is illegal.
            Illegal = 1,
            /// The fetch of the command aborted.
            Abort = 2,
            /// A CMD_SYNC did not complete an earlier CMD_ATC_INV.
            AtcInvalidateSync = 3
        ]
    ],

    /// SMMU_EVENTQ_PROD and SMMU_EVENTQ_CONS (§6.3.95, §6.3.96).
    pub EVENTQ_INDEX [
        /// The index, and the wrap flag above it.
        INDEX OFFSET(0) NUMBITS(20) [],
        /// PROD: OVFLG, toggled when records were lost. CONS: OVACKFLG, made equal to it to acknowledge.
        OVERFLOW OFFSET(31) NUMBITS(1) []
    ]
];

register_bitfields![u64,
    /// SMMU_STRTAB_BASE (§6.3.24).
    pub STRTAB_BASE [
        /// Bits [55:6] of the address, which is aligned to the size of the table.
        ADDR OFFSET(6) NUMBITS(50) [],
        /// Read-allocate hint.
        RA OFFSET(62) NUMBITS(1) []
    ],

    /// SMMU_CMDQ_BASE and SMMU_EVENTQ_BASE (§6.3.26, §6.3.29).
    pub QUEUE_BASE [
        /// `log2` of the number of entries.
        LOG2SIZE OFFSET(0) NUMBITS(5) [],
        /// Bits [55:5] of the address, which is aligned to the size of the queue.
        ADDR OFFSET(5) NUMBITS(51) [],
        /// Command queue: read-allocate hint. Event queue: write-allocate hint.
        ALLOCATE OFFSET(62) NUMBITS(1) []
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
    fn identification_fields_are_where_section_6_3_puts_them() {
        assert_eq!(mask!(IDR0::S2P), 0x0000_0001);
        assert_eq!(mask!(IDR0::S1P), 0x0000_0002);
        assert_eq!(mask!(IDR0::TTF), 0x0000_000c);
        assert_eq!(mask!(IDR0::COHACC), 0x0000_0010);
        assert_eq!(mask!(IDR0::BTM), 0x0000_0020);
        assert_eq!(mask!(IDR0::HTTU), 0x0000_00c0);
        assert_eq!(mask!(IDR0::HYP), 0x0000_0200);
        assert_eq!(mask!(IDR0::ATS), 0x0000_0400);
        assert_eq!(mask!(IDR0::ASID16), 0x0000_1000);
        assert_eq!(mask!(IDR0::MSI), 0x0000_2000);
        assert_eq!(mask!(IDR0::SEV), 0x0000_4000);
        assert_eq!(mask!(IDR0::PRI), 0x0001_0000);
        assert_eq!(mask!(IDR0::VMID16), 0x0004_0000);
        assert_eq!(mask!(IDR0::TTENDIAN), 0x0060_0000);
        assert_eq!(mask!(IDR0::STALL_MODEL), 0x0300_0000);
        assert_eq!(mask!(IDR0::ST_LEVEL), 0x1800_0000);
        assert_eq!(mask!(IDR1::SIDSIZE), 0x0000_003f);
        assert_eq!(mask!(IDR1::SSIDSIZE), 0x0000_07c0);
        assert_eq!(mask!(IDR1::EVENTQS), 0x001f_0000);
        assert_eq!(mask!(IDR1::CMDQS), 0x03e0_0000);
        assert_eq!(mask!(IDR1::ATTR_TYPES_OVR), 0x0800_0000);
        assert_eq!(mask!(IDR1::QUEUES_PRESET), 0x2000_0000);
        assert_eq!(mask!(IDR1::TABLES_PRESET), 0x4000_0000);
        assert_eq!(mask!(IDR3::XNX), 0x0000_0010);
        assert_eq!(mask!(IDR3::FWB), 0x0000_0100);
        assert_eq!(mask!(IDR3::RIL), 0x0000_0400);
        assert_eq!(mask!(IDR3::BBML), 0x0000_1800);
        assert_eq!(mask!(IDR5::OAS), 0x0000_0007);
        assert_eq!(mask!(IDR5::GRAN4K), 0x0000_0010);
        assert_eq!(mask!(IDR5::STALL_MAX), 0xffff_0000);
        assert_eq!(mask!(AIDR::MINOR), 0x0000_000f);
        assert_eq!(mask!(AIDR::MAJOR), 0x0000_00f0);
    }

    #[test]
    fn control_fields_are_where_section_6_3_puts_them() {
        assert_eq!(CR0::SMMUEN::SET.value, 0x0000_0001);
        assert_eq!(CR0::PRIQEN::SET.value, 0x0000_0002);
        assert_eq!(CR0::EVENTQEN::SET.value, 0x0000_0004);
        assert_eq!(CR0::CMDQEN::SET.value, 0x0000_0008);
        assert_eq!(CR0::ATSCHK::SET.value, 0x0000_0010);
        assert_eq!(mask!(CR1::QUEUE_IC), 0x0000_0003);
        assert_eq!(mask!(CR1::QUEUE_OC), 0x0000_000c);
        assert_eq!(mask!(CR1::QUEUE_SH), 0x0000_0030);
        assert_eq!(mask!(CR1::TABLE_IC), 0x0000_00c0);
        assert_eq!(mask!(CR1::TABLE_OC), 0x0000_0300);
        assert_eq!(mask!(CR1::TABLE_SH), 0x0000_0c00);
        assert_eq!(CR1::QUEUE_IC::WriteBack.value, 0x0000_0001);
        assert_eq!(CR1::QUEUE_SH::Inner.value, 0x0000_0030);
        assert_eq!(CR1::TABLE_SH::Outer.value, 0x0000_0800);
        assert_eq!(CR2::E2H::SET.value, 0x0000_0001);
        assert_eq!(CR2::RECINVSID::SET.value, 0x0000_0002);
        assert_eq!(CR2::PTM::SET.value, 0x0000_0004);
        assert_eq!(GBPA::ABORT::SET.value, 0x0010_0000);
        assert_eq!(GBPA::UPDATE::SET.value, 0x8000_0000);
        assert_eq!(IRQ_CTRL::GERROR::SET.value, 0x0000_0001);
        assert_eq!(IRQ_CTRL::EVENTQ::SET.value, 0x0000_0004);
    }

    #[test]
    fn table_and_queue_fields_are_where_section_6_3_puts_them() {
        assert_eq!(mask!(STRTAB_BASE::ADDR), 0x00ff_ffff_ffff_ffc0);
        assert_eq!(STRTAB_BASE::RA::SET.value, 0x4000_0000_0000_0000);
        assert_eq!(mask!(STRTAB_BASE_CFG::LOG2SIZE), 0x0000_003f);
        assert_eq!(mask!(STRTAB_BASE_CFG::SPLIT), 0x0000_07c0);
        assert_eq!(STRTAB_BASE_CFG::SPLIT::Bits6.value, 0x0000_0180);
        assert_eq!(STRTAB_BASE_CFG::FMT::TwoLevel.value, 0x0001_0000);
        assert_eq!(mask!(QUEUE_BASE::LOG2SIZE), 0x0000_0000_0000_001f);
        assert_eq!(mask!(QUEUE_BASE::ADDR), 0x00ff_ffff_ffff_ffe0);
        assert_eq!(QUEUE_BASE::ALLOCATE::SET.value, 0x4000_0000_0000_0000);
        assert_eq!(mask!(CMDQ_CONS::RD), 0x000f_ffff);
        assert_eq!(mask!(CMDQ_CONS::ERR), 0x7f00_0000);
        assert_eq!(CMDQ_CONS::ERR::AtcInvalidateSync.value, 0x0300_0000);
        assert_eq!(mask!(EVENTQ_INDEX::INDEX), 0x000f_ffff);
        assert_eq!(EVENTQ_INDEX::OVERFLOW::SET.value, 0x8000_0000);
    }
}
