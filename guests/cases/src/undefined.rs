//! Instructions and system registers that a guest may not have.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::{check, println, reason};

use crate::trial::{self, Bench, EL0, EL1H, EL1T, Record, THROUGH, UDF, mrs, msr};

/// ESR_EL1 of an Undefined Instruction exception: EC 0, IL.
pub const UNDEFINED: u64 = 0x0200_0000;
/// CNTKCTL_EL1, and its bit by which EL0 reaches the physical timer.
const CNTKCTL: [u32; 5] = [3, 0, 14, 1, 0];
const EL0PTEN: u64 = 1 << 9;
/// CNTP_CTL_EL0: EL2's trap takes it, at EL0 too where CNTKCTL_EL1 lets it.
const CNTP_CTL: [u32; 5] = [3, 3, 14, 2, 1];
/// CPACR_EL1 with FPEN, ZEN and SMEN.
const CPACR: [u32; 5] = [3, 0, 1, 0, 2];
const CPACR_OPEN: u64 = 0x0333_0000;
/// SCTLR_EL1.SPAN and DSSBS.
const SPAN: u64 = 1 << 23;
const DSSBS: u64 = 1 << 44;

/// Registers by name that a guest may not have.
const FORBIDDEN: &[(&str, [u32; 5])] = &[
    ("PMCR_EL0", [3, 3, 9, 12, 0]),
    ("PMCCNTR_EL0", [3, 3, 9, 13, 0]),
    ("PMUSERENR_EL0", [3, 3, 9, 14, 0]),
    ("PMEVCNTR0_EL0", [3, 3, 14, 8, 0]),
    ("PMSCR_EL1 (profiling)", [3, 0, 9, 9, 0]),
    ("PMBLIMITR_EL1 (profiling)", [3, 0, 9, 10, 0]),
    ("TRBLIMITR_EL1 (trace buffer)", [3, 0, 9, 11, 0]),
    ("TRCPRGCTLR (trace)", [2, 1, 0, 1, 0]),
    ("TRFCR_EL1 (trace filter)", [3, 0, 1, 2, 1]),
    ("AMCR_EL0 (activity monitor)", [3, 3, 13, 2, 0]),
    ("ERRIDR_EL1 (error records)", [3, 0, 5, 3, 0]),
    ("LORC_EL1 (limited ordering)", [3, 0, 10, 4, 3]),
    ("ZCR_EL1 (SVE)", [3, 0, 1, 2, 0]),
    ("SMCR_EL1 (SME)", [3, 0, 1, 2, 6]),
    ("TPIDR2_EL0 (SME)", [3, 3, 13, 0, 5]),
    ("GCR_EL1 (memory tags)", [3, 0, 1, 0, 6]),
    ("SCXTNUM_EL1", [3, 0, 13, 0, 7]),
    ("TCR2_EL1", [3, 0, 2, 0, 3]),
    ("ICC_IAR1_EL1", [3, 0, 12, 12, 0]),
    ("ICC_PMR_EL1", [3, 0, 4, 6, 0]),
    ("ICC_SGI1R_EL1", [3, 0, 12, 11, 5]),
    ("CNTP_CTL_EL0", CNTP_CTL),
    ("S3_1_C15_C0_0 (implementation defined)", [3, 1, 15, 0, 0]),
    ("HCR_EL2", [3, 4, 1, 1, 0]),
    ("VTTBR_EL2", [3, 4, 2, 1, 0]),
    ("TTBR0_EL2", [3, 4, 2, 0, 0]),
    ("VBAR_EL2", [3, 4, 12, 0, 0]),
    ("SCR_EL3", [3, 6, 1, 1, 0]),
];

/// Extensions that identification registers may not tell of: register, and first bit of the field.
const ABSENT: &[(&str, [u32; 5], u32)] = &[
    ("GIC", [3, 0, 0, 4, 0], 24),
    ("RAS", [3, 0, 0, 4, 0], 28),
    ("SVE", [3, 0, 0, 4, 0], 32),
    ("AMU", [3, 0, 0, 4, 0], 44),
    ("SME", [3, 0, 0, 4, 1], 24),
    ("the trace unit", [3, 0, 0, 5, 0], 4),
    ("the PMU", [3, 0, 0, 5, 0], 8),
    ("profiling", [3, 0, 0, 5, 0], 32),
    ("the trace buffer", [3, 0, 0, 5, 0], 44),
    ("limited ordering", [3, 0, 0, 7, 1], 16),
    ("copy instructions", [3, 0, 0, 6, 2], 16),
];

/// Registers that are there and do nothing.
const NOTHING: &[(&str, [u32; 5])] = &[
    ("MDSCR_EL1", [2, 0, 0, 2, 2]),
    ("DBGBCR0_EL1", [2, 0, 0, 0, 5]),
    ("DBGBVR0_EL1", [2, 0, 0, 0, 4]),
    ("DBGWCR0_EL1", [2, 0, 0, 0, 7]),
    ("OSDLR_EL1", [2, 0, 1, 3, 4]),
    ("DBGCLAIMSET_EL1", [2, 0, 7, 8, 6]),
    ("ACTLR_EL1", [3, 0, 1, 0, 1]),
];

/// `undefined`: what a guest may not have is undefined to it, exactly as an instruction that no CPU has; debug registers
/// read as zero.
pub fn what_a_guest_may_not_have_is_undefined(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    let allowed = bench.run(&[msr(CNTKCTL)], EL1H, [EL0PTEN, 0, 0, 0]);
    check!(allowed.esr == THROUGH, "CNTKCTL_EL1 can't be written: ESR {:#x}", allowed.esr)?;
    let mut count = 0;
    for pstate in states(&bench) {
        for sctlr in [trial::sctlr(), trial::sctlr() ^ SPAN, trial::sctlr() ^ DSSBS] {
            let own = bench.run_with(&[UDF], pstate, [0; 4], sctlr);
            let given = bench.run_with(&[mrs(CNTP_CTL)], pstate, [0; 4], sctlr);
            same_but_for_flags(&own, &given).map_err(|e| reason!("PSTATE {pstate:#x}: {e}"))?;
            count += 1;
        }
    }
    println!("{count} exceptions were as the CPU's own, PSTATE with all fields: {}", bench.has_all_fields());
    open_extensions(&bench)?;
    for (name, register) in FORBIDDEN {
        for word in [mrs(*register), msr(*register)] {
            let end = bench.run(&[word], EL1H, [0; 4]);
            check!(end.esr == UNDEFINED, "{name}: ESR {:#x}, not undefined", end.esr)?;
            check!(end.vector == 4 && end.pc == bench.start(), "{name}: taken at {:#x}", end.pc)?;
        }
    }
    for (name, register, field) in ABSENT {
        let end = bench.run(&[mrs(*register)], EL1H, [0; 4]);
        check!(end.esr == THROUGH && end.x[0] >> field & 0xf == 0, "{name} is told of: {:#x}", end.x[0])?;
    }
    for (name, register) in NOTHING {
        let end = bench.run(&[msr(*register), mrs(*register)], EL1H, [u64::MAX, 0, 0, 0]);
        check!(end.esr == THROUGH, "{name}: ESR {:#x}", end.esr)?;
        check!(end.x[0] == 0, "{name} reads as {:#x}", end.x[0])?;
    }
    Ok(())
}

/// What CPACR_EL1 keeps from EL1 is the guest's own: EL2 is asked where that is open.
pub fn open_extensions(bench: &Bench) -> Checked {
    let open = bench.run(&[msr(CPACR)], EL1H, [CPACR_OPEN, 0, 0, 0]);
    check!(open.esr == THROUGH, "CPACR_EL1 can't be written: ESR {:#x}", open.esr)
}

/// PSTATE of each kind, with flags none, some and all set: NZCV, DIT, UAO, PAN, SSBS, and with TCO.
fn states(bench: &Bench) -> impl Iterator<Item = u64> + use<> {
    let all = if bench.has_all_fields() { 0xf3c0_1000 } else { 0xf0c0_0000 };
    [EL1H, EL1T, EL0].into_iter().flat_map(move |mode| [0, 0xa000_0000, 0x0040_0000, all].map(|f| f | mode))
}

/// NZCV and DIT, which an exception's entry leaves as they are (Arm ARM D1.4.2); QEMU clears them.
const LEFT: u64 = 0xf100_0000;

/// # Errors
/// The exceptions differ in more than FAR_EL1, which neither has, and what the injected one left as it was.
fn same_but_for_flags(own: &Record, given: &Record) -> Checked {
    let fields = |r: &Record| [r.vector, r.pc, r.esr, r.spsr, r.pstate & !LEFT];
    let read = if given.fields & trial::ALL_FIELDS == 0 { LEFT & !(1 << 24) } else { LEFT };
    let expected = given.spsr & read;
    check!(given.pstate & LEFT == expected, "PSTATE {:#x} has other flags than {expected:#x}", given.pstate)?;
    let (own, given) = (fields(own), fields(given));
    check!(own == given, "vector, ELR, ESR, SPSR, PSTATE are {given:x?}, the CPU's own {own:x?}")
}

/// `registers`: reads every system register there can be, at EL1 and EL0, and writes it as it was (or zero); executes
/// every system instruction. Each goes through or is undefined.
pub fn every_register_goes_through_or_is_undefined(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    let victim = crate::places::cut(&mut free, strandline_abi::PAGE_BYTES)?;
    open_extensions(&bench)?;
    let (mut through, mut undefined) = (0_u32, 0_u32);
    for op0 in 2..4 {
        for register in encodings(op0) {
            let read = bench.run(&[mrs(register)], EL1H, [0; 4]);
            let known = read.esr == THROUGH;
            let value = if known { read.x[0] } else { 0 };
            let write = bench.run(&[msr(register)], EL1H, [value, 0, 0, 0]);
            for end in [read, write] {
                match end.esr {
                    THROUGH => through += 1,
                    UNDEFINED => undefined += 1,
                    // FEAT_IDST: ID registers that do not exist are told by their own class.
                    other if other >> 26 == 0x18 && register[2] == 0 => undefined += 1,
                    other => return Err(reason!("S{register:?}: ESR {other:#x}")),
                }
            }
            let _ = bench.run(&[mrs(register)], EL0, [0; 4]);
        }
    }
    println!("{through} reads and writes went through, {undefined} were undefined");
    let mut instructions = 0_u32;
    for instruction in encodings(1) {
        for pstate in [EL1H, EL0] {
            let end = bench.run(&[msr(instruction)], pstate, [victim.start(), 0, 0, 0]);
            instructions += u32::from(end.esr == THROUGH);
        }
    }
    println!("{instructions} system instructions went through");
    check!(through > 100 && undefined > 100 && instructions > 10, "hardly anything was tried")
}

/// Every op1, CRn, CRm and op2.
pub fn encodings(op0: u32) -> impl Iterator<Item = [u32; 5]> {
    (0..1 << 14).map(move |n| [op0, n >> 11, n >> 7 & 0xf, n >> 3 & 0xf, n & 7])
}

/// Whether EL0 can be in AArch32 (ID_AA64PFR0_EL1.EL0 is 2).
pub fn has_aarch32(bench: &Bench) -> bool {
    let end = bench.run(&[mrs([3, 0, 0, 4, 0])], EL1H, [0; 4]);
    end.x[0] & 0xf == 2
}
