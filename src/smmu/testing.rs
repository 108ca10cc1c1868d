//! An SMMU for the driver's tests: it answers late, works its queues off the memory of [`Fake`], fails on demand, and
//! panics where the driver breaks a rule of IHI 0070.
//!
//! Register writes go into the log of [`crate::fake`], among the stores and barriers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::addr::Pa;
use crate::fake::{Event, Fake, record};

use super::errata::Errata;
use super::features::{Bbml, Features, Httu, StallModel};
use super::note::Notes;
use super::registers::Registers;
use super::spec::pages::{Register32, Register64};

/// What QEMU's model can do: 16-bit StreamIDs and VMIDs, no HTTU, no override of attributes, 44-bit addresses.
pub(super) const QEMU_FEATURES: Features = Features {
    minor_version: 1,
    iidr: 0,
    stage1: true,
    aarch32_tables: false,
    coherent: true,
    httu: Httu::None,
    bbml: Bbml::Level2,
    range_invalidation: true,
    broadcast_tlbi: false,
    el2_contexts: false,
    ats: false,
    pri: false,
    asid16: true,
    vmid16: true,
    msi: false,
    wake_events: false,
    stall_model: StallModel::Terminate,
    stall_max: 0,
    two_level_stream_table: true,
    stream_bits: 16,
    command_queue_bits: 19,
    event_queue_bits: 19,
    attribute_override: false,
    execute_never_by_level: true,
    forced_write_back: false,
    output_bits: 44,
    errata: Errata::empty(),
    notes: Notes::NONE,
};

/// An SMMU with hardware update, attribute override and 48-bit addresses.
pub(super) const FULL_FEATURES: Features = Features {
    minor_version: 2,
    httu: Httu::TableAccessFlag,
    attribute_override: true,
    output_bits: 48,
    ..QEMU_FEATURES
};

const SMMUEN: u64 = 0x1;
const EVENTQEN: u64 = 0x4;
const CMDQEN: u64 = 0x8;
const CMDQ_ERR: u64 = 0x1;

#[derive(Default)]
struct State {
    registers: BTreeMap<usize, u64>,
    /// Polls left before CR0ACK, IRQ_CTRLACK and GBPA.UPDATE answer.
    polls_left: u32,
    /// How many polls that takes.
    late: u32,
    /// Nothing is answered any more: neither handshakes nor commands.
    dead: bool,
    /// Commands consumed with each read of CMDQ_CONS.
    pace: u32,
    /// Opcodes refused, each with an error code and how often.
    refuse: Vec<(u64, u64, u32)>,
    /// Every poll of EVENTQ_PROD finds that records were lost.
    always_overflows: bool,
    /// Commands consumed.
    consumed: Vec<[u64; 2]>,
}

/// The SMMU.
pub(super) struct FakeSmmu<'m> {
    memory: &'m Fake,
    state: RefCell<State>,
}

impl<'m> FakeSmmu<'m> {
    /// An SMMU with the ID registers of QEMU's model and GBPA as it resets there; handshakes take three polls, and
    /// each poll of CMDQ_CONS consumes one command.
    pub(super) fn new(memory: &'m Fake) -> Self {
        let mut state = State { late: 3, pace: 1, ..State::default() };
        let reset = [
            (Register32::Idr0, 0x0d44_101b),
            (Register32::Idr1, 0x0273_0010),
            (Register32::Idr3, 0x1414),
            (Register32::Idr5, 0x74),
            (Register32::Aidr, 1),
            (Register32::Gbpa, 0x1000),
        ];
        state.registers.extend(reset.map(|(register, value)| (register.offset(), value)));
        Self { memory, state: RefCell::new(state) }
    }

    /// Sets a register as reset, firmware or the SMMU itself leaves it.
    pub(super) fn with(self, register: Register32, value: u32) -> Self {
        self.set(register, value);
        self
    }

    /// Not coherent: IDR0.COHACC is 0.
    pub(super) fn not_coherent(self) -> Self {
        self.with(Register32::Idr0, 0x0d44_100b)
    }

    /// Sets a register; a handshake it is part of takes its time.
    pub(super) fn set(&self, register: Register32, value: u32) {
        let state = &mut *self.state.borrow_mut();
        state.registers.insert(register.offset(), value.into());
        state.polls_left = state.late;
    }

    pub(super) fn get(&self, register: Register32) -> u32 {
        self.state.borrow().get(register.offset()) as u32
    }

    /// Stops answering anything, or starts again.
    pub(super) fn set_dead(&self, dead: bool) {
        self.state.borrow_mut().dead = dead;
    }

    /// From now on, every poll of the Event queue finds that records were lost.
    pub(super) fn overflow_for_ever(&self) {
        self.state.borrow_mut().always_overflows = true;
    }

    /// Consumes all commands that are there, as an SMMU does that answers again.
    pub(super) fn catch_up(&self) {
        let state = &mut *self.state.borrow_mut();
        state.dead = false;
        let pace = std::mem::replace(&mut state.pace, u32::MAX);
        state.consume(self.memory);
        state.pace = pace;
    }

    /// Refuses the next `times` commands with `opcode` by error `code`.
    pub(super) fn refuse(&self, opcode: u64, code: u64, times: u32) {
        let refuse = &mut self.state.borrow_mut().refuse;
        refuse.retain(|(of, ..)| *of != opcode);
        refuse.push((opcode, code, times));
    }

    /// The commands consumed since the last call.
    pub(super) fn take_consumed(&self) -> Vec<[u64; 2]> {
        std::mem::take(&mut self.state.borrow_mut().consumed)
    }

    /// Activates global errors that aren't active.
    pub(super) fn raise_global_errors(&self, errors: u32) {
        self.state.borrow_mut().raise(errors.into());
    }

    /// Writes an event record, or loses it where the queue is full.
    pub(super) fn raise_event(&self, record: [u64; 4]) {
        let state = &mut *self.state.borrow_mut();
        assert!(state.cr0() & EVENTQEN != 0, "an event while the queue is off");
        let base = state.get(Register64::EventqBase.offset());
        let ring = 1u64 << (base & 0x1f);
        let prod = state.get(Register32::EventqProd.offset());
        let cons = state.get(Register32::EventqCons.offset());
        let (index, read) = (prod & (2 * ring - 1), cons & (2 * ring - 1));
        let next = if index ^ read == ring {
            // Full: OVFLG becomes the opposite of OVACKFLG.
            index | (!cons & 0x8000_0000)
        } else {
            let pa = Pa((base & 0x00ff_ffff_ffff_ffe0) + (index & (ring - 1)) * 32);
            for (i, word) in record.into_iter().enumerate() {
                self.memory.write_behind(pa.offset(i as u64 * 8), word);
            }
            ((index + 1) & (2 * ring - 1)) | (prod & 0x8000_0000)
        };
        state.registers.insert(Register32::EventqProd.offset(), next);
    }
}

impl State {
    fn get(&self, offset: usize) -> u64 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn cr0(&self) -> u64 {
        self.get(Register32::Cr0.offset())
    }

    fn active_errors(&self) -> u64 {
        self.get(Register32::Gerror.offset()) ^ self.get(Register32::Gerrorn.offset())
    }

    fn raise(&mut self, errors: u64) {
        let new = errors & !self.active_errors();
        *self.registers.entry(Register32::Gerror.offset()).or_default() ^= new;
    }

    /// Whether a handshake is complete: a poll of it.
    fn has_answered(&mut self) -> bool {
        if self.dead {
            return false;
        }
        let done = self.polls_left == 0;
        self.polls_left = self.polls_left.saturating_sub(1);
        done
    }

    fn handshake(&mut self, value: Register32, acknowledgement: Register32) {
        if self.has_answered() {
            self.registers.insert(acknowledgement.offset(), self.get(value.offset()));
        }
    }

    /// The position in the Command queue: index mask, read index, write index.
    fn command_queue(&self) -> (u64, u64, u64) {
        let mask = (2u64 << (self.get(Register64::CmdqBase.offset()) & 0x1f)) - 1;
        let cons = self.get(Register32::CmdqCons.offset()) & mask;
        (mask, cons, self.get(Register32::CmdqProd.offset()) & mask)
    }

    fn consume(&mut self, memory: &Fake) {
        for _ in 0..self.pace {
            let (mask, cons, prod) = self.command_queue();
            let running = self.cr0() & CMDQEN != 0 && !self.dead && self.active_errors() & CMDQ_ERR == 0;
            if !running || cons == prod {
                return;
            }
            let base = self.get(Register64::CmdqBase.offset()) & 0x00ff_ffff_ffff_ffe0;
            let pa = Pa(base + (cons & (mask >> 1)) * 16);
            let command = [memory.read(pa), memory.read(pa.offset(8))];
            let refusal = self.refuse.iter_mut().find(|(of, ..)| *of == command[0] & 0xff);
            match refusal {
                Some((_, code, times)) if *times > 0 => {
                    *times -= 1;
                    let register = cons | *code << 24;
                    self.registers.insert(Register32::CmdqCons.offset(), register);
                    self.raise(CMDQ_ERR);
                }
                _ => {
                    self.consumed.push(command);
                    self.registers.insert(Register32::CmdqCons.offset(), (cons + 1) & mask);
                }
            }
        }
    }

    /// Panics where a write breaks a rule.
    fn check(&self, offset: usize, value: u64) {
        let enabled = self.cr0() | self.get(Register32::Cr0Ack.offset());
        let off =
            |enables: u64| assert!(enabled & enables == 0, "{offset:#x} written while CR0={enabled:#x}");
        const CR0: usize = Register32::Cr0.offset();
        const CR1: usize = Register32::Cr1.offset();
        const CR2: usize = Register32::Cr2.offset();
        const GBPA: usize = Register32::Gbpa.offset();
        const STRTAB_BASE: usize = Register64::StrtabBase.offset();
        const STRTAB_BASE_CFG: usize = Register32::StrtabBaseCfg.offset();
        const CMDQ_BASE: usize = Register64::CmdqBase.offset();
        const CMDQ_CONS: usize = Register32::CmdqCons.offset();
        const CMDQ_PROD: usize = Register32::CmdqProd.offset();
        const EVENTQ_BASE: usize = Register64::EventqBase.offset();
        const EVENTQ_PROD: usize = Register32::EventqProd.offset();
        const GERRORN: usize = Register32::Gerrorn.offset();
        const GERROR_IRQ: usize = Register64::GerrorIrqCfg0.offset();
        const EVENTQ_IRQ: usize = Register64::EventqIrqCfg0.offset();
        match offset {
            CR0 => {
                let acknowledged = self.get(Register32::Cr0Ack.offset());
                assert!(acknowledged == self.cr0(), "CR0 written during an update");
                if value & SMMUEN != 0 && acknowledged & SMMUEN == 0 {
                    assert!(self.get(GBPA) & 0x8010_0000 == 0x0010_0000, "traffic bypassed before SMMUEN");
                    let opcodes: Vec<u64> = self.consumed.iter().map(|c| c[0] & 0xff).collect();
                    assert!(opcodes.ends_with(&[0x30, 0x46]), "caches were not emptied before SMMUEN");
                }
            }
            CR1 => off(SMMUEN | CMDQEN | EVENTQEN),
            CR2 | STRTAB_BASE | STRTAB_BASE_CFG => off(SMMUEN),
            CMDQ_BASE | CMDQ_CONS => off(CMDQEN),
            EVENTQ_BASE | EVENTQ_PROD => off(EVENTQEN),
            GERROR_IRQ | EVENTQ_IRQ => {
                assert!(self.get(Register32::IrqCtrlAck.offset()) == 0, "MSI address written while enabled");
            }
            GBPA => {
                assert!(value & 0x8000_0000 != 0, "GBPA written without Update");
                assert!(self.get(GBPA) & 0x8000_0000 == 0, "GBPA written during an update");
            }
            GERRORN => {
                let toggled = value ^ self.get(GERRORN);
                assert!(toggled & !self.active_errors() == 0, "an inactive error was acknowledged");
            }
            CMDQ_PROD if enabled & CMDQEN != 0 && self.active_errors() & CMDQ_ERR == 0 => {
                let (mask, cons, prod) = self.command_queue();
                let (before, after) = (prod.wrapping_sub(cons) & mask, value.wrapping_sub(cons) & mask);
                assert!(before <= after && after <= mask.div_ceil(2), "CMDQ_PROD went astray");
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: usize, value: u64) {
        self.check(offset, value);
        record(Event::Register(offset, value));
        self.registers.insert(offset, value);
        let handshakes = [Register32::Cr0, Register32::IrqCtrl, Register32::Gbpa].map(Register32::offset);
        if handshakes.contains(&offset) {
            self.polls_left = self.late;
        }
    }
}

impl Registers for FakeSmmu<'_> {
    fn read32(&self, register: Register32) -> u32 {
        let state = &mut *self.state.borrow_mut();
        match register {
            Register32::Cr0Ack => state.handshake(Register32::Cr0, Register32::Cr0Ack),
            Register32::IrqCtrlAck => state.handshake(Register32::IrqCtrl, Register32::IrqCtrlAck),
            Register32::Gbpa if state.has_answered() => {
                *state.registers.entry(Register32::Gbpa.offset()).or_default() &= !0x8000_0000;
            }
            Register32::CmdqCons => state.consume(self.memory),
            Register32::EventqProd if state.always_overflows => {
                let flag = !state.get(Register32::EventqCons.offset()) & 0x8000_0000;
                let prod = state.registers.entry(Register32::EventqProd.offset()).or_default();
                *prod = *prod & 0x7fff_ffff | flag;
            }
            _ => {}
        }
        state.get(register.offset()) as u32
    }

    fn write32(&self, register: Register32, value: u32) {
        self.state.borrow_mut().write(register.offset(), value.into());
    }

    fn write64(&self, register: Register64, value: u64) {
        self.state.borrow_mut().write(register.offset(), value);
    }
}
