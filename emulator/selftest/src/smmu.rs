//! The SMMU's programming interface, as little of it as the cases need (IHI 0070 chapters 4, 5 and 6).

use aarch64_cpu::asm::barrier;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, reason};

const IDR0: u64 = 0x0;
const IDR3: u64 = 0xc;
const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const CR1: u64 = 0x28;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;

/// Inner shareable, write-back: queues in bits 5:0, tables in bits 11:6.
const CR1_CACHED: u32 = 0xd75;
const CR0_SMMUEN_EVENTQEN_CMDQEN: u32 = 0xd;

/// `log2` of the streams: all of bus 0.
const STREAM_BITS: u32 = 8;
/// `log2` of the entries of either queue.
const QUEUE_BITS: u32 = 8;
const STE_BYTES: u64 = 64;
const COMMAND_BYTES: u64 = 16;
const RECORD_BYTES: u64 = 32;

/// Event numbers (§7.3).
pub const C_BAD_STE: u64 = 0x04;
/// See [`C_BAD_STE`].
pub const F_PERMISSION: u64 = 0x13;

/// The VMID of every stream.
pub const VMID: u64 = 1;

/// STE.S2HD: the dirty state is updated (dword 2).
pub const S2HD: u64 = 1 << 55;
/// STE.S2HA: the Access flag is updated (dword 2).
pub const S2HA: u64 = 1 << 56;

/// Dword 2 without S2HA and S2HD: S2R, S2AA64, S2PS = 40 bits, S2SH0 and S2OR0 and S2IR0 inner shareable write-back,
/// S2SL0 = level 1, S2T0SZ = 25 (39 bits), 4 KiB granule, the VMID.
const STE_STAGE2: u64 = 1 << 58 | 1 << 51 | 2 << 48 | 0b11_01_01 << 40 | 1 << 38 | 25 << 32 | VMID;
/// Dword 0: valid, stage 2 only. Dword 1: shareability as incoming.
const STE_VALID_STAGE2: u64 = 0b1101;
const STE_VALID_BOTH_STAGES: u64 = 0b1111;
const STE_SHCFG_INCOMING: u64 = 1 << 44;

/// A record of the Event queue.
pub type Record = [u64; 4];

/// The SMMU, with every stream of bus 0 in one stage-2 view.
#[derive(Clone, Copy)]
pub struct Smmu {
    registers: Window,
    streams: Window,
    commands: Window,
    records: Window,
}

impl Smmu {
    /// Enables the SMMU, every stream still without a valid STE. The windows are for the stream table, the Command queue
    /// and the Event queue: 16 KiB, 4 KiB and 8 KiB, aligned to their sizes, zeroed.
    pub fn enable(registers: Window, streams: Window, commands: Window, records: Window) -> Checked<Self> {
        registers.write32(CR1, CR1_CACHED);
        registers.write64(STRTAB_BASE, streams.start());
        registers.write32(STRTAB_BASE_CFG, STREAM_BITS);
        registers.write64(CMDQ_BASE, commands.start() | u64::from(QUEUE_BITS));
        registers.write64(EVENTQ_BASE, records.start() | u64::from(QUEUE_BITS));
        registers.write32(CR0, CR0_SMMUEN_EVENTQEN_CMDQEN);
        let ack = registers.read32(CR0ACK);
        check!(ack == CR0_SMMUEN_EVENTQEN_CMDQEN, "CR0ACK is {ack:#x}")?;
        let smmu = Self { registers, streams, commands, records };
        smmu.invalidate_all()?;
        Ok(smmu)
    }

    /// IDR0.HTTU.
    #[must_use]
    pub fn httu(&self) -> u32 {
        self.registers.read32(IDR0) >> 6 & 0b11
    }

    /// IDR3.BBML.
    #[must_use]
    pub fn bbml(&self) -> u32 {
        self.registers.read32(IDR3) >> 11 & 0b11
    }

    /// Sends every stream through the tables at `root`, with `flags` of [`S2HA`] and [`S2HD`]; forgets what was cached.
    pub fn translate(&self, root: u64, flags: u64) -> Checked {
        self.set_streams([STE_VALID_STAGE2, STE_SHCFG_INCOMING, STE_STAGE2 | flags, root])
    }

    /// The same behind the stage 1 of the Context Descriptor at `cd`, an address that stage 2 translates.
    pub fn translate_twice(&self, cd: u64, root: u64, flags: u64) -> Checked {
        self.set_streams([STE_VALID_BOTH_STAGES | cd, STE_SHCFG_INCOMING, STE_STAGE2 | flags, root])
    }

    fn set_streams(&self, words: [u64; 4]) -> Checked {
        for stream in 0..1 << STREAM_BITS {
            let ste = stream * STE_BYTES;
            for (word, offset) in words.into_iter().zip((0..).step_by(8)) {
                self.streams.write64(ste + offset, word);
            }
        }
        self.invalidate_all()
    }

    /// Forgets every cached STE and translation, and waits until it is done.
    pub fn invalidate_all(&self) -> Checked {
        self.command([0x04, 31])?;
        self.command([0x30, 0])?;
        self.sync()
    }

    /// CMD_TLBI_S2_IPA of one page: what translates `ipa` is forgotten. Not waited for.
    pub fn forget(&self, ipa: u64) -> Checked {
        self.command([0x2a | VMID << 32, ipa & !0xfff])
    }

    /// CMD_SYNC, waited for.
    pub fn sync(&self) -> Checked {
        self.command([0x46, 0])
    }

    /// Issues a command and waits until it has been consumed.
    fn command(&self, words: [u64; 2]) -> Checked {
        let index = self.registers.read32(CMDQ_PROD);
        let slot = u64::from(index & ((1 << QUEUE_BITS) - 1)) * COMMAND_BYTES;
        self.commands.write64(slot, words[0]);
        self.commands.write64(slot + 8, words[1]);
        barrier::dsb(barrier::SY);
        let next = (index + 1) & ((2 << QUEUE_BITS) - 1);
        self.registers.write32(CMDQ_PROD, next);
        // The model consumes commands inside the write.
        let consumed = self.registers.read32(CMDQ_CONS);
        check!(consumed == next, "command {words:#x?}: CMDQ_CONS is {consumed:#x}, not {next:#x}")
    }

    /// Takes the records out of the Event queue: how many, and the first.
    pub fn take_records(&self) -> (u32, Option<Record>) {
        let wrap = (2 << QUEUE_BITS) - 1;
        let produced = self.registers.read32(EVENTQ_PROD) & wrap;
        let consumed = self.registers.read32(EVENTQ_CONS) & wrap;
        let first = u64::from(consumed & ((1 << QUEUE_BITS) - 1)) * RECORD_BYTES;
        self.registers.write32(EVENTQ_CONS, produced);
        let count = produced.wrapping_sub(consumed) & wrap;
        let record = (count > 0).then(|| [0, 8, 16, 24].map(|word| self.records.read64(first + word)));
        (count, record)
    }

    /// Takes the one record that there must be.
    pub fn take_the_record(&self) -> Checked<Record> {
        match self.take_records() {
            (1, Some(record)) => Ok(record),
            (count, _) => Err(reason!("{count} event records, not 1")),
        }
    }
}
