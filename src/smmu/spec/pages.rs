//! The register map: pages 0 and 1 (IHI 0070 §6.2.1, §6.2.2), and a name for each register the driver uses.

use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

use super::registers::{
    AIDR, CMDQ_CONS, CR0, CR1, CR2, EVENTQ_INDEX, GBPA, IDR0, IDR1, IDR3, IDR5, IRQ_CTRL, QUEUE_BASE,
    STRTAB_BASE, STRTAB_BASE_CFG,
};

register_structs! {
    /// Page 0: 64 KiB at the SMMU's base address (§6.2.1).
    pub Page0 {
        (0x0000 => pub(in crate::smmu) idr0: ReadOnly<u32, IDR0::Register>),
        (0x0004 => pub(in crate::smmu) idr1: ReadOnly<u32, IDR1::Register>),
        (0x0008 => _reserved_idr2),
        (0x000c => pub(in crate::smmu) idr3: ReadOnly<u32, IDR3::Register>),
        (0x0010 => _reserved_idr4),
        (0x0014 => pub(in crate::smmu) idr5: ReadOnly<u32, IDR5::Register>),
        (0x0018 => pub(in crate::smmu) iidr: ReadOnly<u32>),
        (0x001c => pub(in crate::smmu) aidr: ReadOnly<u32, AIDR::Register>),
        (0x0020 => pub(in crate::smmu) cr0: ReadWrite<u32, CR0::Register>),
        (0x0024 => pub(in crate::smmu) cr0ack: ReadOnly<u32, CR0::Register>),
        (0x0028 => pub(in crate::smmu) cr1: ReadWrite<u32, CR1::Register>),
        (0x002c => pub(in crate::smmu) cr2: ReadWrite<u32, CR2::Register>),
        (0x0030 => _reserved_statusr),
        (0x0044 => pub(in crate::smmu) gbpa: ReadWrite<u32, GBPA::Register>),
        (0x0048 => _reserved_agbpa),
        (0x0050 => pub(in crate::smmu) irq_ctrl: ReadWrite<u32, IRQ_CTRL::Register>),
        (0x0054 => pub(in crate::smmu) irq_ctrlack: ReadOnly<u32, IRQ_CTRL::Register>),
        (0x0058 => _reserved_58),
        (0x0060 => pub(in crate::smmu) gerror: ReadOnly<u32>),
        (0x0064 => pub(in crate::smmu) gerrorn: ReadWrite<u32>),
        (0x0068 => pub(in crate::smmu) gerror_irq_cfg0: ReadWrite<u64>),
        (0x0070 => _reserved_gerror_irq_cfg1),
        (0x0080 => pub(in crate::smmu) strtab_base: ReadWrite<u64, STRTAB_BASE::Register>),
        (0x0088 => pub(in crate::smmu) strtab_base_cfg: ReadWrite<u32, STRTAB_BASE_CFG::Register>),
        (0x008c => _reserved_8c),
        (0x0090 => pub(in crate::smmu) cmdq_base: ReadWrite<u64, QUEUE_BASE::Register>),
        (0x0098 => pub(in crate::smmu) cmdq_prod: ReadWrite<u32>),
        (0x009c => pub(in crate::smmu) cmdq_cons: ReadWrite<u32, CMDQ_CONS::Register>),
        (0x00a0 => pub(in crate::smmu) eventq_base: ReadWrite<u64, QUEUE_BASE::Register>),
        (0x00a8 => _reserved_eventq_alias),
        (0x00b0 => pub(in crate::smmu) eventq_irq_cfg0: ReadWrite<u64>),
        (0x00b8 => _reserved_eventq_irq_cfg1),
        (0x1_0000 => @END),
    }
}

register_structs! {
    /// Page 1: 64 KiB behind [`Page0`] (§6.2.2). The Event queue's indexes stand here; page 0 may alias them, or
    /// read as zero.
    pub Page1 {
        (0x0000 => _reserved_0),
        (0x00a8 => pub(in crate::smmu) eventq_prod: ReadWrite<u32, EVENTQ_INDEX::Register>),
        (0x00ac => pub(in crate::smmu) eventq_cons: ReadWrite<u32, EVENTQ_INDEX::Register>),
        (0x00b0 => _reserved_b0),
        (0x1_0000 => @END),
    }
}

/// A 32-bit register; its value is its offset from the SMMU's base address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum Register32 {
    /// Features, read-only.
    Idr0 = 0x00,
    /// Sizes, read-only.
    Idr1 = 0x04,
    /// Features, read-only.
    Idr3 = 0x0c,
    /// Address sizes and granules, read-only.
    Idr5 = 0x14,
    /// Implementation identification, read-only.
    Iidr = 0x18,
    /// Architecture version, read-only.
    Aidr = 0x1c,
    /// Enables.
    Cr0 = 0x20,
    /// The enables that have taken effect, read-only.
    Cr0Ack = 0x24,
    /// Attributes of queue and table accesses.
    Cr1 = 0x28,
    /// Further controls.
    Cr2 = 0x2c,
    /// What becomes of traffic while translation is off.
    Gbpa = 0x44,
    /// Interrupt enables.
    IrqCtrl = 0x50,
    /// The interrupt enables that have taken effect, read-only.
    IrqCtrlAck = 0x54,
    /// Global errors, read-only.
    Gerror = 0x60,
    /// Acknowledged global errors.
    Gerrorn = 0x64,
    /// Format and size of the stream table.
    StrtabBaseCfg = 0x88,
    /// Command queue write index.
    CmdqProd = 0x98,
    /// Command queue read index and error.
    CmdqCons = 0x9c,
    /// Event queue write index and overflow flag, in page 1.
    EventqProd = 0x1_00a8,
    /// Event queue read index and overflow acknowledgement, in page 1.
    EventqCons = 0x1_00ac,
}

/// A 64-bit register; its value is its offset from the SMMU's base address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum Register64 {
    /// Where global-error MSIs go; zero: nowhere.
    GerrorIrqCfg0 = 0x68,
    /// Address of the stream table.
    StrtabBase = 0x80,
    /// Address and size of the Command queue.
    CmdqBase = 0x90,
    /// Address and size of the Event queue.
    EventqBase = 0xa0,
    /// Where Event queue MSIs go; zero: nowhere.
    EventqIrqCfg0 = 0xb0,
}

impl Register32 {
    /// The offset from the SMMU's base address.
    #[must_use]
    pub const fn offset(self) -> usize {
        self as usize
    }
}

impl Register64 {
    /// The offset from the SMMU's base address.
    #[must_use]
    pub const fn offset(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn registers_stand_at_the_offsets_of_section_6_2() {
        assert_eq!((offset_of!(Page0, idr0), Register32::Idr0.offset()), (0x00, 0x00));
        assert_eq!((offset_of!(Page0, idr1), Register32::Idr1.offset()), (0x04, 0x04));
        assert_eq!((offset_of!(Page0, idr3), Register32::Idr3.offset()), (0x0c, 0x0c));
        assert_eq!((offset_of!(Page0, idr5), Register32::Idr5.offset()), (0x14, 0x14));
        assert_eq!((offset_of!(Page0, iidr), Register32::Iidr.offset()), (0x18, 0x18));
        assert_eq!((offset_of!(Page0, aidr), Register32::Aidr.offset()), (0x1c, 0x1c));
        assert_eq!((offset_of!(Page0, cr0), Register32::Cr0.offset()), (0x20, 0x20));
        assert_eq!((offset_of!(Page0, cr0ack), Register32::Cr0Ack.offset()), (0x24, 0x24));
        assert_eq!((offset_of!(Page0, cr1), Register32::Cr1.offset()), (0x28, 0x28));
        assert_eq!((offset_of!(Page0, cr2), Register32::Cr2.offset()), (0x2c, 0x2c));
        assert_eq!((offset_of!(Page0, gbpa), Register32::Gbpa.offset()), (0x44, 0x44));
        assert_eq!((offset_of!(Page0, irq_ctrl), Register32::IrqCtrl.offset()), (0x50, 0x50));
        assert_eq!((offset_of!(Page0, irq_ctrlack), Register32::IrqCtrlAck.offset()), (0x54, 0x54));
        assert_eq!((offset_of!(Page0, gerror), Register32::Gerror.offset()), (0x60, 0x60));
        assert_eq!((offset_of!(Page0, gerrorn), Register32::Gerrorn.offset()), (0x64, 0x64));
        assert_eq!((offset_of!(Page0, strtab_base_cfg), Register32::StrtabBaseCfg.offset()), (0x88, 0x88));
        assert_eq!((offset_of!(Page0, cmdq_prod), Register32::CmdqProd.offset()), (0x98, 0x98));
        assert_eq!((offset_of!(Page0, cmdq_cons), Register32::CmdqCons.offset()), (0x9c, 0x9c));
        assert_eq!((offset_of!(Page0, gerror_irq_cfg0), Register64::GerrorIrqCfg0.offset()), (0x68, 0x68));
        assert_eq!((offset_of!(Page0, strtab_base), Register64::StrtabBase.offset()), (0x80, 0x80));
        assert_eq!((offset_of!(Page0, cmdq_base), Register64::CmdqBase.offset()), (0x90, 0x90));
        assert_eq!((offset_of!(Page0, eventq_base), Register64::EventqBase.offset()), (0xa0, 0xa0));
        assert_eq!((offset_of!(Page0, eventq_irq_cfg0), Register64::EventqIrqCfg0.offset()), (0xb0, 0xb0));
        assert_eq!(size_of::<Page0>(), 0x1_0000);
    }

    #[test]
    fn event_queue_indexes_stand_in_page_1() {
        assert_eq!(offset_of!(Page1, eventq_prod), 0xa8);
        assert_eq!(offset_of!(Page1, eventq_cons), 0xac);
        assert_eq!(Register32::EventqProd.offset(), 0x1_00a8);
        assert_eq!(Register32::EventqCons.offset(), 0x1_00ac);
        assert_eq!(size_of::<Page1>(), 0x1_0000);
    }
}
