//! The identification registers a guest reads: the CPU's own, without the extensions a guest is not given. What these
//! registers don't tell of is undefined to the guest (`trapped.rs`, `vcpu.rs`), and the other way round.

/// Bits `high` to `low`.
const fn bits(high: u32, low: u32) -> u64 {
    u64::MAX >> (63 - high) & u64::MAX << low
}

/// What the guest reads where the CPU says `value`. The register is S3_0_C0_C\<crm\>_\<op2\>, of AArch64's own (crm 4 to
/// 7) or of AArch32's.
#[must_use]
pub const fn shown(crm: u8, op2: u8, value: u64) -> u64 {
    match (crm, op2) {
        // ID_PFR0_EL1: RAS, AMU. ID_PFR1_EL1: GIC. ID_DFR0_EL1: trace and PerfMon.
        (1, 0) => value & !(bits(31, 28) | bits(23, 20)),
        (1, 1) => value & !bits(31, 28),
        (1, 2) => value & !bits(31, 12),
        // ID_AA64PFR0_EL1: GIC and RAS, SVE, MPAM and AMU; SCXTNUM_ELx is not there (CSV2 of 2 becomes 1).
        (4, 0) => at_most(value & !(bits(31, 24) | bits(35, 32) | bits(47, 40)), 56, 1),
        // ID_AA64PFR1_EL1: BT, SSBS, RNDR_trap and NMI stay, and of memory tags the instructions.
        (4, 1) => at_most(value & (bits(11, 0) | bits(31, 28) | bits(39, 36)), 8, 1),
        // ID_AA64DFR0_EL1: debug and its breakpoints and watchpoints stay, and the OS double lock.
        (5, 0) => value & (bits(3, 0) | bits(15, 12) | bits(23, 20) | bits(31, 28) | bits(39, 36)),
        // ID_AA64ISAR0_EL1: TME. ID_AA64ISAR1_EL1: LS64. ID_AA64ISAR2_EL1: MOPS, 128-bit registers and instructions.
        (6, 0) => value & !bits(27, 24),
        (6, 1) => value & !bits(63, 60),
        (6, 2) => value & !(bits(19, 16) | bits(39, 32)),
        // ID_AA64MMFR1_EL1: LO.
        (7, 1) => value & !bits(19, 16),
        // ID_DFR1_EL1; ID_AA64PFR2_EL1, ZFR0, SMFR0, FPFR0; DFR1 and 2; MMFR3 and MMFR4.
        (3, 5) | (4, 2 | 4 | 5 | 7) | (5, 1 | 2) | (7, 3 | 4) => 0,
        _ => value,
    }
}

/// With the four-bit field from `shift` at most `most`.
const fn at_most(value: u64, shift: u32, most: u64) -> u64 {
    let field = bits(shift + 3, shift);
    if (value & field) >> shift > most { value & !field | most << shift } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The values are those of QEMU's `max`.

    #[test]
    fn features_of_the_processor_in_aarch32_lose_gic_ras_and_amu() {
        assert_eq!(shown(1, 0, u64::MAX), 0xffff_ffff_0f0f_ffff);
        assert_eq!(shown(1, 1, 0x1001_1001), 0x0001_1001);
    }

    #[test]
    fn features_of_the_processor_lose_gic_ras_sve_mpam_and_amu() {
        assert_eq!(shown(4, 0, 0x1301_0011_2111_0222), 0x1101_0010_0011_0222);
        assert_eq!(shown(4, 0, u64::MAX), 0xf1ff_00f0_00ff_ffff);
        assert_eq!(shown(4, 1, 0x0000_0010_0100_0321), 0x0000_0010_0000_0121);
        assert_eq!(shown(4, 1, u64::MAX), 0x0000_00f0_f000_01ff);
    }

    #[test]
    fn debug_stays_and_pmu_profiling_and_trace_go() {
        // DebugVer 10, BRPs 5, WRPs 3, CTX_CMPs 1; PMUVer 6.
        assert_eq!(shown(5, 0, 0x1000_0000_1030_560a), 0x0000_0000_1030_500a);
        assert_eq!(shown(5, 0, u64::MAX), 0x0000_00f0_f0f0_f00f);
        assert_eq!(shown(1, 2, 0x0600_000a), 0x0000_000a);
        assert_eq!(shown(1, 2, u64::MAX), 0xffff_ffff_0000_0fff);
    }

    #[test]
    fn copies_and_64_byte_loads_go() {
        assert_eq!(shown(6, 1, u64::MAX), 0x0fff_ffff_ffff_ffff);
        assert_eq!(shown(6, 2, u64::MAX), 0xffff_ff00_fff0_ffff);
        assert_eq!(shown(6, 0, u64::MAX), 0xffff_ffff_f0ff_ffff);
        assert_eq!(shown(7, 1, u64::MAX), 0xffff_ffff_fff0_ffff);
    }

    #[test]
    fn later_registers_are_zero_and_the_rest_is_the_cpus() {
        for (crm, op2) in [(3, 5), (4, 2), (4, 4), (4, 5), (4, 7), (5, 1), (7, 3), (7, 4)] {
            assert_eq!(shown(crm, op2, u64::MAX), 0, "S3_0_C0_C{crm}_{op2}");
        }
        for (crm, op2) in [(1, 4), (2, 5), (7, 0), (7, 2), (5, 4)] {
            assert_eq!(shown(crm, op2, 0x1221_1111_1f21_2120), 0x1221_1111_1f21_2120);
        }
    }
}
