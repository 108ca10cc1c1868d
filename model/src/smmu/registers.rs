//! Registers (§6.3): late handshakes, and what may be written when.

use strandline::smmu::{Register32, Register64};

use super::{ABORT, ATSCHK, CMDQ_ERR, CMDQEN, EVENTQEN, SMMUEN, Smmu, UPDATE};
use crate::alarm::Rule;
use crate::core::Core;
use crate::journal::Happening;
use crate::memory::Observer;
use crate::update::Walker;

/// Bits of CR0 that are there in any SMMU: SMMUEN, EVENTQEN, CMDQEN.
const CR0_BITS: u32 = SMMUEN | EVENTQEN | CMDQEN;
/// IDR0.ATS.
const ATS: u32 = 0x400;

impl Smmu {
    /// Answers handshakes that wait.
    pub fn answer(&mut self) {
        self.cr0ack = self.cr0;
        self.irq_ctrlack = self.irq_ctrl;
        self.gbpa &= !UPDATE;
    }

    pub(super) const fn ring_mask(base: u64) -> u32 {
        (2 << (base & 0x1f)) - 1
    }

    /// How many commands wait.
    pub const fn commands_waiting(&self) -> u32 {
        self.cmdq_prod.wrapping_sub(self.cmdq_cons) & Self::ring_mask(self.cmdq_base)
    }

    fn get(&self, register: Register32) -> u32 {
        match register {
            Register32::Idr0 => self.id[0],
            Register32::Idr1 => self.id[1],
            Register32::Idr3 => self.id[2],
            Register32::Idr5 => self.id[3],
            Register32::Iidr => self.id[4],
            Register32::Aidr => self.id[5],
            Register32::Cr0 => self.cr0,
            Register32::Cr0Ack => self.cr0ack,
            Register32::Cr1 => self.cr1,
            Register32::Cr2 => self.cr2,
            Register32::Gbpa => self.gbpa,
            Register32::IrqCtrl => self.irq_ctrl,
            Register32::IrqCtrlAck => self.irq_ctrlack,
            Register32::Gerror => self.gerror,
            Register32::Gerrorn => self.gerrorn,
            Register32::StrtabBaseCfg => self.strtab_base_cfg,
            Register32::CmdqProd => self.cmdq_prod,
            Register32::CmdqCons => self.cmdq_cons,
            Register32::EventqProd => self.eventq_prod,
            Register32::EventqCons => self.eventq_cons,
            // There are no others here: reserved, zero (§6.2).
            _ => 0,
        }
    }

    fn set(&mut self, register: Register32, value: u32) {
        match register {
            Register32::Cr0 => self.cr0 = value & (CR0_BITS | if self.id[0] & ATS != 0 { ATSCHK } else { 0 }),
            Register32::Cr1 => self.cr1 = value,
            Register32::Cr2 => self.cr2 = value,
            Register32::Gbpa => self.gbpa = value,
            Register32::IrqCtrl => self.irq_ctrl = value,
            Register32::Gerrorn => self.gerrorn = value,
            Register32::StrtabBaseCfg => self.strtab_base_cfg = value,
            Register32::CmdqProd => self.cmdq_prod = value & Self::ring_mask(self.cmdq_base),
            Register32::CmdqCons => self.cmdq_cons = value,
            Register32::EventqProd => self.eventq_prod = value,
            Register32::EventqCons => self.eventq_cons = value,
            // Read-only: ignored (§6.2).
            _ => {}
        }
    }

    /// Why `register` may not be written with `value` now.
    fn objection(&self, register: Register32, value: u32) -> Option<&'static str> {
        let enabled = self.cr0 | self.cr0ack;
        let on = |enables: u32, why| (enabled & enables != 0).then_some(why);
        match register {
            Register32::Cr0 if self.cr0 != self.cr0ack => Some("an update of CR0 is under way (§6.3.9)"),
            Register32::Cr0 if value & !enabled & SMMUEN != 0 && self.gbpa & (ABORT | UPDATE) != ABORT => {
                Some("traffic bypassed until now (§3.11)")
            }
            Register32::Cr1 => on(SMMUEN | CMDQEN | EVENTQEN, "CR1 is guarded by the enables (§6.3.11)"),
            Register32::Cr2 | Register32::StrtabBaseCfg => {
                on(SMMUEN, "it is guarded by SMMUEN (§6.3.12, §6.3.25)")
            }
            Register32::CmdqCons => on(CMDQEN, "it is guarded by CMDQEN (§6.3.28)"),
            Register32::EventqProd => on(EVENTQEN, "it is guarded by EVENTQEN (§6.3.95)"),
            Register32::Gbpa if value & UPDATE == 0 => Some("GBPA is written with Update=1 (§6.3.14)"),
            Register32::Gbpa if self.gbpa & UPDATE != 0 => Some("an update of GBPA is under way (§6.3.14)"),
            Register32::Gerrorn if (value ^ self.gerrorn) & !self.active_errors() != 0 => {
                Some("an error that is not active was acknowledged (§6.3.20)")
            }
            _ => None,
        }
    }
}

impl Core {
    /// Software reads a register.
    pub fn read_register(&mut self, smmu: usize, register: Register32) -> u32 {
        if !self.smmu_is_dead(smmu) && self.random.chance(128) {
            self.smmus[smmu].answer();
        }
        self.smmus[smmu].get(register)
    }

    /// Software writes a 32-bit register.
    pub fn write_register(&mut self, smmu: usize, register: Register32, value: u32) {
        self.note(Happening::Register(Walker::Smmu(smmu), register.offset(), value.into()));
        if let Some(why) = self.smmus[smmu].objection(register, value) {
            self.alarm(Rule::GuardedRegister, format!("{register:?} is written with {value:#x}: {why}"));
        }
        match register {
            Register32::CmdqProd => self.check_commands(smmu, value),
            Register32::Cr0 if value & SMMUEN != 0 && self.smmus[smmu].cr0 & SMMUEN == 0 => {
                self.check_invalidated(smmu)
            }
            _ => {}
        }
        self.smmus[smmu].set(register, value);
        if register == Register32::CmdqProd {
            let (waiting, step) = (self.smmus[smmu].commands_waiting() as usize, self.step);
            self.smmus[smmu].submitted.resize(waiting, step);
        }
    }

    fn check_invalidated(&mut self, smmu: usize) {
        if self.smmus[smmu].reset_config || self.smmus[smmu].reset_tlb {
            let account = "SMMUEN is set before CMD_CFGI_ALL, CMD_TLBI_NSNH_ALL and a CMD_SYNC".to_owned();
            self.alarm(Rule::EnabledUninvalidated, account);
        }
    }

    /// Looks at the commands that a write of CMDQ_PROD submits.
    fn check_commands(&mut self, smmu: usize, value: u32) {
        let mask = Smmu::ring_mask(self.smmus[smmu].cmdq_base);
        let entries = mask / 2 + 1;
        let (old, new, cons) = (self.smmus[smmu].cmdq_prod, value & mask, self.smmus[smmu].cmdq_cons & mask);
        if self.smmus[smmu].cr0 & CMDQEN == 0 {
            return;
        }
        let (before, after) = (old.wrapping_sub(cons) & mask, new.wrapping_sub(cons) & mask);
        let withdrawn = after < before;
        if after > entries || withdrawn && self.smmus[smmu].active_errors() & CMDQ_ERR == 0 {
            let account = format!("CMDQ_PROD goes from {old:#x} to {new:#x}, CMDQ_CONS is {cons:#x}");
            self.alarm(Rule::CommandQueueOverflow, account);
            return;
        }
        let mut index = old;
        while index != new && !withdrawn {
            let pa = self.command_pa(smmu, index);
            let hidden = |core: &Self, pa| {
                core.index(pa).is_some_and(|at| core.memory.is_unseen(Observer::Smmu(smmu), at))
            };
            if hidden(self, pa) || hidden(self, pa + 8) {
                let account = format!("CMDQ_PROD is made {new:#x}, the command at {pa:#x} is not visible");
                self.alarm(Rule::CommandNotVisible, account);
            }
            self.check_told_of(smmu, pa);
            index = (index + 1) & mask;
        }
    }

    /// Software writes a 64-bit register.
    pub fn write_register64(&mut self, smmu: usize, register: Register64, value: u64) {
        self.note(Happening::Register(Walker::Smmu(smmu), register.offset(), value));
        let enabled = self.smmus[smmu].cr0 | self.smmus[smmu].cr0ack;
        let guard = match register {
            Register64::StrtabBase => SMMUEN,
            Register64::CmdqBase => CMDQEN,
            Register64::EventqBase => EVENTQEN,
            _ => 0,
        };
        if enabled & guard != 0 {
            self.alarm(Rule::GuardedRegister, format!("{register:?} is written while CR0 is {enabled:#x}"));
        }
        match register {
            Register64::StrtabBase => self.smmus[smmu].strtab_base = value,
            Register64::CmdqBase => {
                self.smmus[smmu].cmdq_base = at_most(value, self.smmus[smmu].has.command_queue_bits);
            }
            Register64::EventqBase => {
                self.smmus[smmu].eventq_base = at_most(value, self.smmus[smmu].has.event_queue_bits);
            }
            // There are no messages here.
            _ => {}
        }
    }
}

/// SMMU_CMDQ_BASE or SMMU_EVENTQ_BASE with LOG2SIZE no larger than there is: a larger one is taken for that (§6.3.26).
fn at_most(base: u64, bits: u8) -> u64 {
    base & !0x1f | (base & 0x1f).min(u64::from(bits))
}
