//! EL0 in AArch32, which no hypervisor can keep a guest from where the CPU has it.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::aborts::{DATA, FETCH, LOWER};
use crate::trial::{self, A32, Bench, EL1H, T32, THROUGH, msr};
use crate::undefined::{UNDEFINED, has_aarch32};

/// SVC #0x5a in A32, and in T32 (twice); ESR_EL1 of each.
const SVC_A32: u32 = 0xef00_005a;
const SVC_T32: u32 = 0xdf5a_df5a;
const THROUGH_A32: u64 = 0x4600_005a;
const THROUGH_T32: u64 = 0x4400_005a;
/// SCTLR_EL1.nTWI: WFI at EL0 does not trap to EL1.
const NTWI: u64 = 1 << 16;
/// The synchronous vector for exceptions from AArch32.
const VECTOR: u64 = 12;

/// `aarch32`: a program in A32 and T32 meets the traps of EL2; without AArch32 the case says so.
pub fn a_program_in_aarch32_is_answered_as_one_in_aarch64(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    if !has_aarch32(&bench) {
        println!("skipped: this CPU has no AArch32 at EL0");
        return Ok(());
    }
    let uart = guest.tree.uart()?.start();
    // EL0 may read the counter and, as far as the guest goes, the physical timer; the PMU is EL2's.
    let open = bench.run(&[msr([3, 0, 14, 1, 0])], EL1H, [0x3ff, 0, 0, 0]);
    check!(open.esr == THROUGH, "CNTKCTL_EL1: ESR {:#x}", open.esr)?;
    in_a32(&bench, uart)?;
    in_t32(&bench, uart)
}

fn in_a32(bench: &Bench, uart: u64) -> Checked {
    let run = |word, x0| bench.run_with(&[word, SVC_A32], A32, [x0, 0x41, 0, 0], trial::sctlr() | NTWI);
    // WFI, LDR r1, [r0].
    for word in [0xe320_f003, 0xe590_1000] {
        let end = run(word, uart + 0x18);
        check!(end.esr == THROUGH_A32 && end.pc == bench.start() + 8, "{word:#x}: ESR {:#x}", end.esr)?;
        check!(end.vector == VECTOR && end.spsr & 0x1f == 0x10, "{word:#x}: vector {}", end.vector)?;
    }
    check!(run(0xe590_1000, uart + 0x18).x[1] == 0x90, "the UART's flags are wrong")?;
    // HVC, SMC, UDF, MRC of PMCR and CNTP_CTL and DBGDSCRint, MRRC of CNTP_CVAL.
    for word in [0xe140_0070, 0xe160_0070, 0xe7f0_00f0, 0xee1e_0f32, 0xec51_0f2e] {
        let end = run(word, 0);
        check!(end.esr == UNDEFINED, "{word:#x}: ESR {:#x}", end.esr)?;
        check!(end.vector == VECTOR && end.pc == bench.start(), "{word:#x}: at {:#x}", end.pc)?;
    }
    for word in [0xee19_0f1c, 0xee10_0e11] {
        // The guest's own PMUSERENR_EL0 and MDSCR_EL1 may send these to EL1 as what they are.
        let end = run(word, 0);
        check!(matches!(end.esr >> 26, 0x00 | 0x03 | 0x05), "{word:#x}: ESR {:#x}", end.esr)?;
    }
    // LDM r0, {r1, r2} and LDR r1, [r0], #4 of the UART; LDR r1, [r0] of nothing.
    for (word, address) in [(0xe890_0006, uart), (0xe490_1004, uart), (0xe590_1000, 0x2000_0000)] {
        let end = run(word, address);
        check!(end.esr == DATA - LOWER, "{word:#x} of {address:#x}: ESR {:#x}", end.esr)?;
        check!(end.far == address && end.vector == VECTOR, "{word:#x}: FAR {:#x}", end.far)?;
    }
    let end = bench.go(0x2000_0000, A32, [0; 4], trial::sctlr());
    check!(end.esr == FETCH - LOWER && end.pc == 0x2000_0000, "a fetch: ESR {:#x}", end.esr)
}

/// 16-bit instructions, two in a word, the first in its lower half.
fn in_t32(bench: &Bench, uart: u64) -> Checked {
    let run = |words: &[u32], x0| bench.run_with(words, T32, [x0, 0, 0, 0], trial::sctlr() | NTWI);
    // LDR r1, [r0]; WFI.
    let end = run(&[0xbf30_6801, SVC_T32], uart + 0x18);
    check!(end.esr == THROUGH_T32 && end.pc == bench.start() + 6, "at {:#x}: ESR {:#x}", end.pc, end.esr)?;
    check!(end.x[1] == 0x90, "the UART's flags are {:#x}", end.x[1])?;
    // CMP r0, r0; ITE EQ; LDREQ r1, [r0]; LDRNE r0, [r0]; the block must have moved on behind the load EL2 emulated.
    let end = run(&[0xbf0c_4280, 0x6800_6801, SVC_T32], uart + 0x18);
    check!(end.esr == THROUGH_T32 && end.pc == bench.start() + 10, "IT: ESR {:#x}", end.esr)?;
    check!(end.x[0] == uart + 0x18 && end.x[1] == 0x90, "IT: r0 and r1 are {:#x?}", end.x)?;
    // LDR.W r1, [r0].
    let end = run(&[0x1000_f8d0, SVC_T32], uart + 0x18);
    check!(end.esr == THROUGH_T32 && end.x[1] == 0x90, "LDR.W: ESR {:#x}", end.esr)
}
