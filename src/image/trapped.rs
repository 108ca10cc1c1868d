//! System registers that a guest accesses and does not have: what it gets for each.

/// An access by MRS or MSR that trapped: ESR_EL2's ISS of class 0x18 (Arm ARM, ISS encoding for an exception from MSR,
/// MRS, or System instruction execution in AArch64 state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess {
    /// op0, op1, CRn, CRm, op2, as in the register's name S\<op0\>_\<op1\>_C\<n\>_C\<m\>_\<op2\>.
    pub register: [u8; 5],
    /// MRS, else MSR.
    pub read: bool,
    /// The register loaded or stored: 0 to 30 for x0 to x30, 31 for the zero register.
    pub rt: u8,
}

/// What an access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It reads as zero, and ignores what is written.
    Nothing,
    /// It reads as what [`super::id_registers`] makes of the CPU's own.
    Identification,
    /// It does not exist.
    Undefined,
}

impl SystemAccess {
    /// The access that trapped with this ESR_EL2.
    #[must_use]
    pub fn decode(esr: u64) -> Self {
        let field = |shift: u32, bits: u32| (esr >> shift & ((1 << bits) - 1)) as u8;
        Self {
            register: [field(20, 2), field(14, 3), field(10, 4), field(1, 4), field(17, 3)],
            read: esr & 1 == 1,
            rt: field(5, 5),
        }
    }

    /// What it comes to. Debug registers are a part of every CPU, so that no guest asks whether there are any: they
    /// are there and do nothing, as is the auxiliary control register. Whatever else traps is not there.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self.register {
            // op1 = 1 would be the trace unit.
            [2, 0 | 3, 0 | 1 | 7, _, _] | [3, 0, 1, 0, 1] => Answer::Nothing,
            [3, 0, 0, 1..=7, _] if self.read => Answer::Identification,
            _ => Answer::Undefined,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EC 0x18 with IL; op0 is bits 21:20, op2 19:17, op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, and bit 0 a read.
    const CLASS: u64 = 0x6200_0000;

    #[test]
    fn a_read_of_pmccntr_el0_is_decoded() {
        // S3_3_C9_C13_0 to x7.
        let access = SystemAccess { register: [3, 3, 9, 13, 0], read: true, rt: 7 };
        assert_eq!(SystemAccess::decode(CLASS | 0x0030_e4fb), access);
    }

    #[test]
    fn a_write_of_oslar_el1_is_decoded() {
        // S2_0_C1_C0_4 from xzr.
        let access = SystemAccess { register: [2, 0, 1, 0, 4], read: false, rt: 31 };
        assert_eq!(SystemAccess::decode(CLASS | 0x0028_07e0), access);
    }

    fn answer(register: [u8; 5]) -> Answer {
        SystemAccess { register, read: true, rt: 0 }.answer()
    }

    #[test]
    fn debug_registers_and_actlr_do_nothing() {
        for register in [
            [2, 0, 0, 2, 2],  // MDSCR_EL1
            [2, 0, 0, 15, 5], // DBGBCR15_EL1
            [2, 0, 1, 0, 4],  // OSLAR_EL1
            [2, 0, 1, 1, 4],  // OSLSR_EL1
            [2, 0, 1, 4, 4],  // DBGPRCR_EL1
            [2, 0, 7, 14, 6], // DBGAUTHSTATUS_EL1
            [2, 3, 0, 1, 0],  // MDCCSR_EL0
            [3, 0, 1, 0, 1],  // ACTLR_EL1
        ] {
            assert_eq!(answer(register), Answer::Nothing, "{register:?}");
        }
    }

    #[test]
    fn identification_registers_can_be_read() {
        assert_eq!(answer([3, 0, 0, 1, 0]), Answer::Identification);
        assert_eq!(answer([3, 0, 0, 7, 7]), Answer::Identification);
        let write = SystemAccess { register: [3, 0, 0, 4, 0], read: false, rt: 0 };
        assert_eq!(write.answer(), Answer::Undefined);
    }

    #[test]
    fn what_a_guest_may_not_have_is_undefined() {
        for register in [
            [2, 1, 0, 4, 0],   // TRCPRGCTLR
            [2, 4, 0, 7, 0],   // DBGVCR32_EL2
            [3, 0, 9, 9, 0],   // PMSCR_EL1
            [3, 0, 9, 11, 0],  // TRBLIMITR_EL1
            [3, 0, 12, 12, 0], // ICC_IAR1_EL1
            [3, 3, 9, 12, 0],  // PMCR_EL0
            [3, 3, 14, 2, 1],  // CNTP_CTL_EL0
            [3, 1, 15, 0, 0],  // IMPLEMENTATION DEFINED
        ] {
            assert_eq!(answer(register), Answer::Undefined, "{register:?}");
        }
    }
}
