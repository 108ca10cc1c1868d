//! Going on behind an instruction that EL2 has carried out, and what is different where EL0 is in AArch32.
//!
//! EL1 is AArch64 for every guest, but its EL0 may be in AArch32 where the CPU has that: nothing can forbid it. The
//! traps of such a program have 16-bit instructions, conditions, and IT blocks.

/// SPSR.M\[4\]: AArch32.
const AARCH32: u64 = 1 << 4;
/// SPSR.BTYPE, of AArch64: how the instruction was branched to. Only a branch leaves it set.
const BTYPE: u64 = 0b11 << 10;
/// SPSR.IT, of AArch32: bits 7:2 in 15:10, bits 1:0 in 26:25.
const IT_HIGH: u64 = 0b11_1111 << 10;
const IT_LOW: u64 = 0b11 << 25;
/// ESR.IL: the instruction has 32 bits.
const IL: u64 = 1 << 25;

/// PC and PSTATE behind the instruction at `pc` that trapped with this ESR_EL2. The last word of the address space is
/// followed by the first, as in the hardware: where a guest puts its instructions is no error of EL2's.
#[must_use]
pub const fn behind(esr: u64, pc: u64, pstate: u64) -> (u64, u64) {
    if pstate & AARCH32 == 0 {
        return (pc.wrapping_add(4), pstate & !BTYPE);
    }
    let bytes = if esr & IL == 0 { 2 } else { 4 };
    (pc.wrapping_add(bytes) & 0xffff_ffff, with_it(pstate, advanced(it(pstate))))
}

const fn it(pstate: u64) -> u64 {
    (pstate & IT_HIGH) >> 10 << 2 | (pstate & IT_LOW) >> 25
}

const fn with_it(pstate: u64, it: u64) -> u64 {
    pstate & !(IT_HIGH | IT_LOW) | it >> 2 << 10 | (it & 0b11) << 25
}

/// The IT state of the next instruction (Arm ARM, ITAdvance): the base condition stays, the rest moves up.
const fn advanced(it: u64) -> u64 {
    if it & 0b111 == 0 { 0 } else { it & 0b1110_0000 | (it << 1) & 0b1_1111 }
}

/// Whether the instruction's condition holds. A CPU may trap one whose condition fails, which is to have no effect
/// (Arm ARM, ESR_EL2, ISS encodings of trapped WFI and of trapped MCR, MRC, MCRR, MRRC, LDC and STC).
#[must_use]
pub const fn condition_holds(esr: u64, pstate: u64) -> bool {
    const CV: u64 = 1 << 24;
    const ALWAYS: u64 = 0b1110;
    if pstate & AARCH32 == 0 || !matches!(esr >> 26 & 0x3f, 0x01 | 0x03..=0x08 | 0x0c) {
        return true;
    }
    let condition = match (esr & CV != 0, it(pstate)) {
        (true, _) => esr >> 20 & 0xf,
        (false, 0) => ALWAYS,
        (false, it) => it >> 4,
    };
    holds(condition, pstate)
}

/// Arm ARM, ConditionHolds: bit 0 inverts what bits 3:1 say.
const fn holds(condition: u64, pstate: u64) -> bool {
    let [n, z, c, v] =
        [pstate >> 31 & 1 == 1, pstate >> 30 & 1 == 1, pstate >> 29 & 1 == 1, pstate >> 28 & 1 == 1];
    let base = match condition >> 1 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    base != (condition & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EC 0x24 with IL, and without; EC 0x03 (MCR and MRC).
    const ABORT_32: u64 = 0x9300_0007;
    const ABORT_16: u64 = 0x9100_0007;
    const MRC: u64 = 0x0e00_0000;

    #[test]
    fn an_aarch64_instruction_has_four_bytes_and_leaves_no_btype() {
        assert_eq!(behind(ABORT_32, 0x4000_0000, 0x6000_0fc5), (0x4000_0004, 0x6000_03c5));
        assert_eq!(behind(ABORT_32, u64::MAX - 3, 0x3c5).0, 0);
    }

    #[test]
    fn an_aarch32_instruction_has_two_or_four_bytes() {
        assert_eq!(behind(ABORT_16, 0x8000, 0x1f0), (0x8002, 0x1f0));
        assert_eq!(behind(ABORT_32, 0x8000, 0x1f0), (0x8004, 0x1f0));
        assert_eq!(behind(ABORT_32, 0xffff_fffc, 0x1d0).0, 0);
    }

    #[test]
    fn an_it_block_moves_on() {
        // ITTE EQ: IT = 0b0000_0110 (condition 0000, mask 0110). It lies in SPSR bits 15:10 and 26:25.
        assert_eq!(behind(ABORT_16, 0, 0x0400_0430).1, 0x0000_0c30, "0b0000_0110 -> 0b0000_1100");
        assert_eq!(behind(ABORT_16, 0, 0x0000_0c30).1, 0x0000_1830, "0b0000_1100 -> 0b0001_1000: NE");
        assert_eq!(behind(ABORT_16, 0, 0x0000_1830).1, 0x30, "it was the last one");
    }

    #[test]
    fn a_condition_is_that_of_the_syndrome_or_of_the_it_block() {
        const Z: u64 = 1 << 30;
        let eq = MRC | 1 << 24;
        assert!(condition_holds(eq, Z | 0x10) && !condition_holds(eq, 0x10));
        assert!(condition_holds(eq | 1 << 20, 0x10) && !condition_holds(eq | 1 << 20, Z | 0x10), "NE");
        // No condition in the syndrome (CV is 0): IT = 0b0001_1000, NE; no IT block: always.
        assert!(condition_holds(MRC, 0x1830) && !condition_holds(MRC, Z | 0x1830));
        assert!(condition_holds(MRC, 0x10));
    }

    #[test]
    fn other_exceptions_and_aarch64_have_no_condition() {
        assert!(condition_holds(MRC | 1 << 24, 0x0), "AArch64");
        assert!(condition_holds(0x9100_0007, 0x10), "a data abort has been executed");
    }

    #[test]
    fn every_condition_is_as_the_manual_says() {
        // Of EQ, CS, MI, VS, HI, GE, GT, AL with NZCV = 0b1001 and 0b0110; each odd one is its opposite.
        let table = [(0b1001, 0b110_1100), (0b0110, 0b010_0011)];
        for (flags, expected) in table {
            for index in 0..7 {
                let holds_now = holds(index << 1, flags << 28);
                assert_eq!(holds_now, expected >> index & 1 == 1, "{index} with NZCV {flags:#b}");
                assert_eq!(holds(index << 1 | 1, flags << 28), !holds_now);
            }
            assert!(holds(14, flags << 28) && holds(15, flags << 28));
        }
    }
}
