//! The SMMU (IHI 0070): registers that answer late, a Command queue worked off one command at a time, and what it
//! keeps of the stream table and of translations.

mod ats;
mod commands;
mod events;
mod registers;
mod stalls;
mod stream_table;

use std::collections::VecDeque;

use crate::core::Core;
use crate::parameters::SmmuParameters;
use crate::tlb::{Reach, Tlb};
pub(crate) use stalls::Stalled;
use stream_table::{CachedSte, ConfigInvalidation};

/// CR0.SMMUEN.
const SMMUEN: u32 = 0x1;
/// CR0.EVENTQEN.
const EVENTQEN: u32 = 0x4;
/// CR0.CMDQEN.
const CMDQEN: u32 = 0x8;
/// CR0.ATSCHK.
const ATSCHK: u32 = 0x10;
/// GBPA.ABORT.
const ABORT: u32 = 0x10_0000;
/// GBPA.UPDATE.
const UPDATE: u32 = 0x8000_0000;
/// GERROR.CMDQ_ERR.
const CMDQ_ERR: u32 = 0x1;

/// An SMMU.
pub(crate) struct Smmu {
    /// What it can do.
    pub has: SmmuParameters,
    id: [u32; 6],
    cr0: u32,
    cr0ack: u32,
    cr1: u32,
    cr2: u32,
    gbpa: u32,
    irq_ctrl: u32,
    irq_ctrlack: u32,
    gerror: u32,
    gerrorn: u32,
    strtab_base: u64,
    strtab_base_cfg: u32,
    cmdq_base: u64,
    cmdq_prod: u32,
    cmdq_cons: u32,
    eventq_base: u64,
    eventq_prod: u32,
    eventq_cons: u32,
    /// When each command that waits was submitted.
    submitted: VecDeque<u64>,
    pub tlb: Tlb,
    stes: Vec<CachedSte>,
    level1: Vec<(u64, u64, u64)>,
    /// TLB invalidations that no CMD_SYNC has completed, and when they were consumed.
    pub invalidations: Vec<(Reach, u64)>,
    config_invalidations: Vec<ConfigInvalidation>,
    /// What was in the configuration caches, and in the TLBs, at reset may still be there (§3.11).
    reset_config: bool,
    reset_tlb: bool,
    /// Records of stalled transactions that have no answer yet.
    pub stalls: Vec<Stalled>,
    /// From this step on it answers nothing.
    pub dead_from: Option<u64>,
    /// Errors that the next commands are answered with.
    pub failures: VecDeque<u8>,
    /// No CMD_SYNC completes.
    pub syncs_held: bool,
    /// The last command's number, and how many of it were consumed since the last CMD_SYNC.
    run: (u64, u32),
}

impl Smmu {
    pub fn new(has: SmmuParameters) -> Self {
        Self {
            has,
            id: identification(&has),
            cr0: 0,
            cr0ack: 0,
            cr1: 0,
            cr2: 0,
            gbpa: 0x1000,
            irq_ctrl: 0,
            irq_ctrlack: 0,
            gerror: 0,
            gerrorn: 0,
            strtab_base: 0,
            strtab_base_cfg: 0,
            cmdq_base: 0,
            cmdq_prod: 0,
            cmdq_cons: 0,
            eventq_base: 0,
            eventq_prod: 0,
            eventq_cons: 0,
            submitted: VecDeque::new(),
            tlb: Tlb::new(has.tlb_entries),
            stes: vec![],
            level1: vec![],
            invalidations: vec![],
            config_invalidations: vec![],
            stalls: vec![],
            reset_config: true,
            reset_tlb: true,
            dead_from: None,
            failures: VecDeque::new(),
            syncs_held: false,
            run: (0, 0),
        }
    }

    const fn active_errors(&self) -> u32 {
        self.gerror ^ self.gerrorn
    }

    const fn translates(&self) -> bool {
        self.cr0ack & SMMUEN != 0
    }
}

/// IDR0, IDR1, IDR3, IDR5, IIDR, AIDR (§6.3.1 to §6.3.8).
fn identification(parameters: &SmmuParameters) -> [u32; 6] {
    let flag = |on: bool, bit: u32| u32::from(on) << bit;
    // S2P, S1P, TTF=AArch64, ASID16, TTENDIAN=little, TERM_MODEL.
    let idr0 = 0x0440_100b
        | u32::from(parameters.stall_model) << 24
        | flag(parameters.coherent, 4)
        | flag(parameters.ats, 10)
        | u32::from(parameters.httu) << 6
        | flag(parameters.vmid16, 18)
        | flag(parameters.two_level, 27);
    // 16-bit StreamIDs.
    let (commands, records) = (parameters.command_queue_bits, parameters.event_queue_bits);
    let idr1 = 0x10 | u32::from(records) << 16 | u32::from(commands) << 21;
    let idr3 = 0x10 | flag(parameters.range_invalidation, 10) | u32::from(parameters.bbml) << 11;
    // 48-bit addresses, 4 KiB granule.
    let idr5 = 0x15 | u32::from(parameters.stall_max) << 16;
    // Access flags of tables are of SMMUv3.4, which SMMUv3.3 may have as well (§2.9).
    let aidr = match parameters.httu {
        3 => 3,
        _ if parameters.range_invalidation && parameters.bbml > 0 => 2,
        _ => 1,
    };
    [idr0, idr1, idr3, idr5, parameters.iidr, aidr]
}

impl Core {
    /// Whether the SMMU has stopped answering.
    pub fn smmu_is_dead(&self, smmu: usize) -> bool {
        self.smmus[smmu].dead_from.is_some_and(|from| from <= self.step)
    }

    /// Whether it answers, and has answered all that it was asked.
    pub fn answers(&self, smmu: usize) -> bool {
        !self.smmu_is_dead(smmu) && self.smmus[smmu].commands_waiting() == 0
    }

    /// The SMMU gets on with something: a handshake, or a command.
    pub fn smmu_step(&mut self, smmu: usize) {
        if self.smmu_is_dead(smmu) {
            return;
        }
        self.watch_stalls(smmu);
        if self.random.chance(256) {
            self.smmus[smmu].answer();
        } else {
            self.consume_command(smmu);
        }
    }
}
