//! Calls with immediates, exceptions of the guest's own, and waiting without end.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::{check, println, timer};

use crate::trial::{Bench, EL0, EL1H, EL1T, THROUGH, UDF, mrs, msr};
use crate::undefined::UNDEFINED;

const NOT_SUPPORTED: u64 = u64::MAX;
/// PSCI_VERSION: what each call would be, could it be made so.
const FUNCTION: u64 = 0x8400_0000;
const ELR: [u32; 5] = [3, 0, 4, 0, 1];
/// WFI, WFE.
const WFI: u32 = 0xd503_207f;
const WFE: u32 = 0xd503_205f;
/// How often a storm of them waits.
const STORM: u64 = 20_000;
const BOUND_US: u64 = 60_000_000;

/// `odd`: calls that are none, exceptions by the CPU, and waiting: all are answered, none reaches EL2's own.
pub fn odd_instructions_are_answered(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    calls(&bench)?;
    own_exceptions(&bench)?;
    absent_extensions(&bench)?;
    storms(&bench)
}

/// HVC and SMC by immediate and level.
fn calls(bench: &Bench) -> Checked {
    let hvc = |immediate: u32| 0xd400_0002 | immediate << 5;
    let smc = |immediate: u32| 0xd400_0003 | immediate << 5;
    for immediate in [1, 2, 0x7fff, 0x8000, 0xffff] {
        for word in [hvc(immediate), smc(immediate), smc(0)] {
            for pstate in [EL1H, EL1T] {
                let end = bench.run(&[word], pstate, [FUNCTION, 1, 2, 3]);
                check!(end.esr == THROUGH, "{word:#x}: ESR {:#x}", end.esr)?;
                check!(end.x == [NOT_SUPPORTED, 1, 2, 3], "{word:#x}: x0 to x3 are {:#x?}", end.x)?;
            }
            let end = bench.run(&[word], EL0, [FUNCTION, 1, 2, 3]);
            check!(end.esr == UNDEFINED, "{word:#x} at EL0: ESR {:#x}", end.esr)?;
        }
    }
    let end = bench.run(&[hvc(0)], EL1H, [FUNCTION, 0, 0, 0]);
    check!(end.esr == THROUGH && end.x[0] != NOT_SUPPORTED, "HVC #0 answers {:#x}", end.x[0])
}

/// Exceptions that the CPU takes to EL1 by itself.
fn own_exceptions(bench: &Bench) -> Checked {
    let (brk, hlt, dcps1) = (0xd420_0020, 0xd440_0000, 0xd4a0_0001);
    let class =
        |words: &[u32], pstate, x0, sctlr| bench.run_with(words, pstate, [x0, 0, 0, 0], sctlr).esr >> 26;
    let sctlr = crate::trial::sctlr();
    check!(class(&[brk], EL1H, 0, sctlr) == 0x3c, "BRK")?;
    check!(class(&[brk], EL0, 0, sctlr) == 0x3c, "BRK at EL0")?;
    for word in [hlt, dcps1] {
        check!(class(&[word], EL1H, 0, sctlr) == 0x00, "HLT and DCPS1 are not undefined")?;
    }
    // MOV sp, x0; LDR x1, [sp], with SCTLR_EL1.SA. QEMU does not check SP: the load ends as it ends.
    let sp = class(&[0x9100_001f, 0xf940_03e1], EL1H, 0x4000_0001, sctlr | 1 << 3);
    check!(matches!(sp, 0x26 | 0x25 | 0x15), "SP misaligned: class {sp:#x}")?;
    // BR x0.
    check!(class(&[0xd61f_0000], EL1H, bench.start() + 2, sctlr) == 0x22, "PC misaligned")?;
    // MSR ELR_EL1, x0; MSR SPSR_EL1, x1; ERET. To EL2, EL3, AArch32 EL1 and what is reserved; each with its flag.
    for mode in [0x3c9, 0x3c8, 0x3cd, 0x1d3, 0x1da, 0x1df, 0x3c1, 0x3c7] {
        let back = bench.start() + 12;
        let words = [msr(ELR), 0xd518_4001, 0xd69f_03e0];
        let end = bench.run(&words, EL1H, [back, mode, 0, 0]);
        check!(end.esr >> 26 == 0x0e, "a return to PSTATE {mode:#x}: ESR {:#x}", end.esr)?;
        check!(end.pc == back && end.vector == 4, "a return to {mode:#x}: at {:#x}", end.pc)?;
    }
    // MSR MDSCR_EL1, x0 with SS and KDE and MDE; then a return with PSTATE.SS: nothing is stepped.
    let words = [msr([2, 0, 0, 2, 2]), msr([2, 0, 1, 0, 4])];
    let end = bench.run(&words, EL1H | 1 << 21, [1 | 1 << 13 | 1 << 15, 0, 0, 0]);
    check!(end.esr == THROUGH, "single-step: ESR {:#x}", end.esr)
}

/// Instructions of extensions that a guest is not given.
fn absent_extensions(bench: &Bench) -> Checked {
    // PTRUE p0.b (SVE), RDVL x0, #1 (SVE), SMSTART (SME), LD64B x4, [x0].
    for word in [0x2518_e3e0, 0x04bf_5020, 0xd503_477f, 0xf83f_d004] {
        let end = bench.run(&[word], EL1H, [bench.start(), 0, 0, 0]);
        // 0x19 and 0x1d are the guest's own: CPACR_EL1 traps first.
        check!(
            matches!(end.esr >> 26, 0x00 | 0x07 | 0x19 | 0x1d | 0x0a),
            "{word:#x}: ESR {:#x}, not undefined",
            end.esr
        )?;
    }
    // With CPACR_EL1.{FPEN,ZEN,SMEN} open it is EL2 that is asked.
    let open = bench.run(&[msr([3, 0, 1, 0, 2])], EL1H, [0x0333_0000, 0, 0, 0]);
    check!(open.esr == THROUGH, "CPACR_EL1: ESR {:#x}", open.esr)?;
    for word in [0x2518_e3e0, 0x04bf_5020, 0xd503_477f] {
        let end = bench.run(&[word], EL1H, [0; 4]);
        check!(end.esr == UNDEFINED, "{word:#x}: ESR {:#x}, not undefined", end.esr)?;
    }
    Ok(())
}

/// WFI and WFE, over and over, with a timer that has expired.
fn storms(bench: &Bench) -> Checked {
    let start = timer::now();
    // CNTV_CVAL_EL0 of 0 and CNTV_CTL_EL0.ENABLE: expired for ever.
    let armed = bench.run(&[msr([3, 3, 14, 3, 2]), 0xd51b_e321], EL1H, [0, 1, 0, 0]);
    check!(armed.esr == THROUGH, "the virtual timer: ESR {:#x}", armed.esr)?;
    for wait in [WFI, WFE] {
        // 1: wait; SUBS x0, x0, #1; B.NE 1b.
        let words = [wait, 0xf100_0400, 0x54ff_ffc1];
        let end = bench.run(&words, EL1H, [STORM, 0, 0, 0]);
        check!(end.esr == THROUGH && end.x[0] == 0, "a storm of {wait:#x}: ESR {:#x}", end.esr)?;
    }
    // WFIT and WFET x1 with a time that is past.
    for wait in [0xd503_1021, 0xd503_1001] {
        let end = bench.run(&[wait], EL1H, [0; 4]);
        check!(matches!(end.esr, THROUGH | UNDEFINED), "{wait:#x}: ESR {:#x}", end.esr)?;
    }
    let off = bench.run(&[msr([3, 3, 14, 3, 1]), mrs([3, 3, 14, 3, 1])], EL1H, [0; 4]);
    check!(off.esr == THROUGH && off.x[0] & 1 == 0, "the virtual timer stays on")?;
    let took = timer::us_since(start);
    println!("{STORM} WFI and as many WFE took {took} us");
    check!(took < BOUND_US, "they took too long")?;
    let end = bench.run(&[UDF], EL1H, [0; 4]);
    check!(end.esr == UNDEFINED, "UDF: ESR {:#x}", end.esr)
}
