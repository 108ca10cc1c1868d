//! How the driver reaches registers: a trait that real MMIO and the models of the tests implement alike.

use core::fmt;

use tock_registers::interfaces::{Readable, Writeable};

use super::spec::pages::{Page0, Page1, Register32, Register64};

/// The registers of one SMMU's non-secure programming interface.
///
/// Accesses reach the SMMU in program order (Device-nGnRE or stronger). They order no other memory: the driver asks
/// for the barriers it needs through [`crate::hw::Cpu`]. A write to a read-only register is ignored (IHI 0070 §6.2).
pub trait Registers {
    /// Reads a 32-bit register.
    fn read32(&self, register: Register32) -> u32;
    /// Writes a 32-bit register.
    fn write32(&self, register: Register32, value: u32);
    /// Writes a 64-bit register.
    fn write64(&self, register: Register64, value: u64);
}

impl<R: Registers + ?Sized> Registers for &R {
    fn read32(&self, register: Register32) -> u32 {
        (**self).read32(register)
    }

    fn write32(&self, register: Register32, value: u32) {
        (**self).write32(register, value);
    }

    fn write64(&self, register: Register64, value: u64) {
        (**self).write64(register, value);
    }
}

/// The registers where hardware has them.
///
/// Whoever maps the SMMU (as Device memory, for as long as the references live) makes the references; nothing here
/// is unsafe. The type is neither `Send` nor `Sync`, as the register types aren't: an image that shares the driver
/// between cores wraps it and argues there.
#[derive(Clone, Copy)]
pub struct Mmio {
    page0: &'static Page0,
    page1: &'static Page1,
}

impl Mmio {
    /// The SMMU whose register pages are mapped at `page0` and `page1`, 64 KiB apart (IHI 0070 §6.1).
    #[must_use]
    pub const fn new(page0: &'static Page0, page1: &'static Page1) -> Self {
        Self { page0, page1 }
    }
}

impl fmt::Debug for Mmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an SMMU's registers at {:p}", self.page0)
    }
}

impl Registers for Mmio {
    fn read32(&self, register: Register32) -> u32 {
        match register {
            Register32::Idr0 => self.page0.idr0.get(),
            Register32::Idr1 => self.page0.idr1.get(),
            Register32::Idr3 => self.page0.idr3.get(),
            Register32::Idr5 => self.page0.idr5.get(),
            Register32::Iidr => self.page0.iidr.get(),
            Register32::Aidr => self.page0.aidr.get(),
            Register32::Cr0 => self.page0.cr0.get(),
            Register32::Cr0Ack => self.page0.cr0ack.get(),
            Register32::Cr1 => self.page0.cr1.get(),
            Register32::Cr2 => self.page0.cr2.get(),
            Register32::Gbpa => self.page0.gbpa.get(),
            Register32::IrqCtrl => self.page0.irq_ctrl.get(),
            Register32::IrqCtrlAck => self.page0.irq_ctrlack.get(),
            Register32::Gerror => self.page0.gerror.get(),
            Register32::Gerrorn => self.page0.gerrorn.get(),
            Register32::StrtabBaseCfg => self.page0.strtab_base_cfg.get(),
            Register32::CmdqProd => self.page0.cmdq_prod.get(),
            Register32::CmdqCons => self.page0.cmdq_cons.get(),
            Register32::EventqProd => self.page1.eventq_prod.get(),
            Register32::EventqCons => self.page1.eventq_cons.get(),
        }
    }

    fn write32(&self, register: Register32, value: u32) {
        match register {
            Register32::Cr0 => self.page0.cr0.set(value),
            Register32::Cr1 => self.page0.cr1.set(value),
            Register32::Cr2 => self.page0.cr2.set(value),
            Register32::Gbpa => self.page0.gbpa.set(value),
            Register32::IrqCtrl => self.page0.irq_ctrl.set(value),
            Register32::Gerrorn => self.page0.gerrorn.set(value),
            Register32::StrtabBaseCfg => self.page0.strtab_base_cfg.set(value),
            Register32::CmdqProd => self.page0.cmdq_prod.set(value),
            Register32::CmdqCons => self.page0.cmdq_cons.set(value),
            Register32::EventqProd => self.page1.eventq_prod.set(value),
            Register32::EventqCons => self.page1.eventq_cons.set(value),
            Register32::Idr0
            | Register32::Idr1
            | Register32::Idr3
            | Register32::Idr5
            | Register32::Iidr
            | Register32::Aidr
            | Register32::Cr0Ack
            | Register32::IrqCtrlAck
            | Register32::Gerror => {}
        }
    }

    fn write64(&self, register: Register64, value: u64) {
        match register {
            Register64::GerrorIrqCfg0 => self.page0.gerror_irq_cfg0.set(value),
            Register64::StrtabBase => self.page0.strtab_base.set(value),
            Register64::CmdqBase => self.page0.cmdq_base.set(value),
            Register64::EventqBase => self.page0.eventq_base.set(value),
            Register64::EventqIrqCfg0 => self.page0.eventq_irq_cfg0.set(value),
        }
    }
}
