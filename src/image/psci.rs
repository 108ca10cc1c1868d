//! The firmware a guest sees: SMCCC's own calls and PSCI (Arm DEN 0028, DEN 0022), answered as a machine of one CPU.

use smccc::arch::{SMCCC_ARCH_FEATURES, SMCCC_VERSION};
use smccc::psci::{
    PSCI_AFFINITY_INFO_32, PSCI_AFFINITY_INFO_64, PSCI_CPU_OFF, PSCI_CPU_ON_32, PSCI_CPU_ON_64,
    PSCI_FEATURES, PSCI_MIGRATE_INFO_TYPE, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_VERSION,
};

/// What a call of the guest's to its firmware comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This value in x0.
    Value(u64),
    /// The VM ends: it succeeded.
    Off,
    /// The VM ends: it wants to be started again, which counts as a failure.
    Reset,
    /// This vCPU ends; it was the last.
    LastCpuOff,
}

/// 1.3: the SVE hint of function identifiers is understood. There is nothing else in it that 1.2 lacks.
const VERSION_1_3: u64 = 0x1_0003;
const PSCI_1_1: u64 = 0x1_0001;
const SUCCESS: Answer = Answer::Value(0);
/// SMCCC's answer to what it doesn't know, and PSCI's NOT_SUPPORTED.
pub const NOT_SUPPORTED: Answer = Answer::Value(u64::MAX);
/// PSCI's INVALID_PARAMETERS.
const INVALID_PARAMETERS: Answer = Answer::Value((-2_i64).cast_unsigned());
/// PSCI's ALREADY_ON.
const ALREADY_ON: Answer = Answer::Value((-4_i64).cast_unsigned());
/// MIGRATE_INFO_TYPE: there is no Trusted OS to migrate.
const NO_TRUSTED_OS: Answer = Answer::Value(2);

const SUPPORTED: [u32; 11] = [
    SMCCC_VERSION,
    PSCI_VERSION,
    PSCI_CPU_OFF,
    PSCI_CPU_ON_32,
    PSCI_CPU_ON_64,
    PSCI_AFFINITY_INFO_32,
    PSCI_AFFINITY_INFO_64,
    PSCI_MIGRATE_INFO_TYPE,
    PSCI_SYSTEM_OFF,
    PSCI_SYSTEM_RESET,
    PSCI_FEATURES,
];

/// Answers the call with this identifier, and x1.
pub fn call(id: u32, x1: u64) -> Answer {
    /// A 64-bit call. The arguments of the others are in w registers: bits 63:32 are ignored (DEN 0028 §3.1).
    const SMC64: u32 = 1 << 30;
    let x1 = if id & SMC64 == 0 { x1 & 0xffff_ffff } else { x1 };
    match id {
        SMCCC_VERSION => Answer::Value(VERSION_1_3),
        SMCCC_ARCH_FEATURES => match x1 as u32 {
            SMCCC_VERSION | SMCCC_ARCH_FEATURES => SUCCESS,
            _ => NOT_SUPPORTED,
        },
        PSCI_VERSION => Answer::Value(PSCI_1_1),
        PSCI_FEATURES if SUPPORTED.contains(&(x1 as u32)) => SUCCESS,
        PSCI_CPU_OFF => Answer::LastCpuOff,
        PSCI_CPU_ON_32 | PSCI_CPU_ON_64 if is_cpu0(x1) => ALREADY_ON,
        PSCI_CPU_ON_32 | PSCI_CPU_ON_64 => INVALID_PARAMETERS,
        PSCI_AFFINITY_INFO_32 | PSCI_AFFINITY_INFO_64 if is_cpu0(x1) => SUCCESS,
        PSCI_AFFINITY_INFO_32 | PSCI_AFFINITY_INFO_64 => INVALID_PARAMETERS,
        PSCI_MIGRATE_INFO_TYPE => NO_TRUSTED_OS,
        PSCI_SYSTEM_OFF => Answer::Off,
        PSCI_SYSTEM_RESET => Answer::Reset,
        _ => NOT_SUPPORTED,
    }
}

/// The only vCPU has affinity 0.
const fn is_cpu0(affinity: u64) -> bool {
    affinity == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_smccc_1_3_and_psci_1_1() {
        assert_eq!(call(0x8000_0000, 0), Answer::Value(0x1_0003));
        assert_eq!(call(0x8400_0000, 0), Answer::Value(0x1_0001));
    }

    #[test]
    fn features_knows_what_exists() {
        assert_eq!(call(0x8400_000a, 0x8400_0008), Answer::Value(0));
        assert_eq!(call(0x8400_000a, 0x8000_0000), Answer::Value(0));
        assert_eq!(call(0x8400_000a, 0xc400_0001), NOT_SUPPORTED, "CPU_SUSPEND");
        assert_eq!(call(0x8000_0001, 0x8000_0001), Answer::Value(0));
        assert_eq!(call(0x8000_0001, 0x8000_8000), NOT_SUPPORTED);
    }

    #[test]
    fn a_vm_ends_by_off_reset_or_its_last_cpu() {
        assert_eq!(call(0x8400_0008, 0), Answer::Off);
        assert_eq!(call(0x8400_0009, 0), Answer::Reset);
        assert_eq!(call(0x8400_0002, 0), Answer::LastCpuOff);
    }

    #[test]
    fn the_one_cpu_is_on_and_there_is_no_other() {
        assert_eq!(call(0xc400_0003, 0), ALREADY_ON);
        assert_eq!(call(0xc400_0003, 1), INVALID_PARAMETERS);
        assert_eq!(call(0xc400_0004, 0), Answer::Value(0));
        assert_eq!(call(0x8400_0006, 0), Answer::Value(2));
    }

    #[test]
    fn only_a_64_bit_call_looks_at_all_of_x1() {
        assert_eq!(call(0x8400_0003, 0xdead_beef_0000_0000), ALREADY_ON);
        assert_eq!(call(0xc400_0003, 0xdead_beef_0000_0000), INVALID_PARAMETERS);
        assert_eq!(call(0x8400_0004, 1 << 32), SUCCESS);
        assert_eq!(call(0xc400_0004, 1 << 32), INVALID_PARAMETERS);
        assert_eq!(call(0x8400_000a, 0xdead_beef_8400_0008), SUCCESS);
        assert_eq!(call(0x8000_0001, 0xdead_beef_8000_0001), SUCCESS);
    }

    #[test]
    fn what_is_unknown_is_not_supported() {
        for id in [0, 0x8400_0001, 0xc400_000e, 0x8000_7fff, 0xffff_ffff] {
            assert_eq!(call(id, 0), Answer::Value(u64::MAX), "{id:#x}");
        }
    }
}
