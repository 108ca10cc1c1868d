//! Exceptions that EL2 gives to a guest, as the CPU would take them to EL1 itself (Arm ARM D1.4.2, rule RWTXBY).
//!
//! A guest that does what it may not gets what a machine without that thing would give it: an Undefined Instruction
//! exception for an instruction that traps, a synchronous External abort for an address at which nothing answers.

/// What the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The instruction does not exist.
    Undefined,
    /// A load, store or cache maintenance instruction failed. Of ESR_EL2 it keeps what describes the access.
    Data {
        /// ESR_EL2.
        esr: u64,
        /// FAR_EL2.
        far: u64,
    },
    /// The instruction could not be fetched.
    Instruction {
        /// FAR_EL2.
        far: u64,
    },
}

/// What of EL1's system registers decides how an exception is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// VBAR_EL1.
    pub vbar: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
}

/// The state in which the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The vector.
    pub pc: u64,
    /// PSTATE, in the format of an SPSR.
    pub pstate: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception has an address.
    pub far: Option<u64>,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

/// SPSR: fields of PSTATE (Arm ARM, SPSR_EL1).
mod spsr {
    pub const NZCV: u64 = 0b1111 << 28;
    pub const DIT: u64 = 1 << 24;
    pub const PAN: u64 = 1 << 22;
    pub const TCO: u64 = 1 << 25;
    pub const SSBS: u64 = 1 << 12;
    pub const ALLINT: u64 = 1 << 13;
    pub const PM: u64 = 1 << 32;
    pub const DAIF: u64 = 0b1111 << 6;
    pub const AARCH32: u64 = 1 << 4;
    pub const MODE: u64 = 0b1_1111;
    pub const EL1T: u64 = 0b0_0100;
    pub const EL1H: u64 = 0b0_0101;
}

/// SCTLR_EL1: what becomes of PSTATE on an exception.
mod sctlr {
    pub const SPAN: u64 = 1 << 23;
    pub const DSSBS: u64 = 1 << 44;
    pub const SPINTMASK: u64 = 1 << 62;
}

/// ESR_EL1 (Arm ARM, ESR_EL1): classes are in bits 31:26.
mod esr {
    pub const UNKNOWN: u64 = 0x00 << 26;
    pub const INSTRUCTION_ABORT_LOWER: u64 = 0x20 << 26;
    pub const DATA_ABORT_LOWER: u64 = 0x24 << 26;
    /// Added to the class of an abort from a lower level, for one from the same level.
    pub const SAME_LEVEL: u64 = 1 << 26;
    /// A 32-bit instruction, or an exception for which that is not told.
    pub const IL: u64 = 1 << 25;
    pub const FNV: u64 = 1 << 10;
    pub const CM: u64 = 1 << 8;
    pub const WNR: u64 = 1 << 6;
    pub const STATUS: u64 = 0x3f;
    /// Synchronous External abort, not on a translation table walk.
    pub const EXTERNAL: u64 = 0x10;
    /// Alignment fault: the access was unaligned, and it is stage 2 that makes the memory Device.
    pub const ALIGNMENT: u64 = 0x21;
    /// An exclusive or atomic access to memory that supports none.
    pub const UNSUPPORTED_ATOMIC: u64 = 0x35;
}

/// Bytes of VBAR_EL1's table, whose alignment it has: the lower bits of the register are RES0.
const VECTORS_BYTES: u64 = 0x800;

/// The state after the guest, which was at `pc` with `pstate`, has taken `fault` to EL1.
///
/// Fields of PSTATE that a CPU does not have are RES0 in its SPSR: setting them there has no effect.
#[must_use]
pub const fn take(fault: Fault, pc: u64, pstate: u64, control: Control) -> Taken {
    let (syndrome, far) = syndrome(fault, is_el1(pstate));
    Taken {
        pc: (control.vbar & !(VECTORS_BYTES - 1)) + vector(pstate),
        pstate: entered(pstate, control.sctlr),
        esr: syndrome,
        far,
        elr: pc,
        spsr: pstate,
    }
}

const fn is_el1(pstate: u64) -> bool {
    matches!(pstate & spsr::MODE, spsr::EL1T | spsr::EL1H)
}

/// The offset of the synchronous vector for an exception from where `pstate` says (Arm ARM D1.4.1.1).
const fn vector(pstate: u64) -> u64 {
    match pstate & spsr::MODE {
        spsr::EL1T => 0x000,
        spsr::EL1H => 0x200,
        mode if mode & spsr::AARCH32 == 0 => 0x400,
        _ => 0x600,
    }
}

/// PSTATE behind the exception's entry. What is named neither here nor there is 0: SS, IL, UAO, BTYPE, and the
/// execution state.
const fn entered(pstate: u64, sctlr: u64) -> u64 {
    let mut new = pstate & (spsr::NZCV | spsr::DIT | spsr::PAN);
    new |= spsr::EL1H | spsr::DAIF | spsr::TCO | spsr::PM;
    if sctlr & sctlr::SPAN == 0 {
        new |= spsr::PAN;
    }
    if sctlr & sctlr::DSSBS != 0 {
        new |= spsr::SSBS;
    }
    if sctlr & sctlr::SPINTMASK == 0 {
        new |= spsr::ALLINT;
    }
    new
}

/// ESR_EL1, and FAR_EL1 where the exception has one.
const fn syndrome(fault: Fault, from_el1: bool) -> (u64, Option<u64>) {
    let level = if from_el1 { esr::SAME_LEVEL } else { 0 };
    match fault {
        Fault::Undefined => (esr::UNKNOWN | esr::IL, None),
        Fault::Instruction { far } => {
            (esr::INSTRUCTION_ABORT_LOWER | level | esr::IL | esr::EXTERNAL, Some(far))
        }
        Fault::Data { esr, far } => {
            let status = match esr & esr::STATUS {
                told @ (esr::ALIGNMENT | esr::UNSUPPORTED_ATOMIC) => told,
                _ => esr::EXTERNAL,
            };
            let kept = esr & (esr::FNV | esr::CM | esr::WNR);
            (esr::DATA_ABORT_LOWER | level | esr::IL | kept | status, Some(far))
        }
    }
}

#[cfg(test)]
mod tests;
