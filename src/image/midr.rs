//! What is known of a core by its name, MIDR_EL1, alone.
//!
//! Which cores bear a change of a translation's size without break-before-make: FEAT_BBM level 2 permits such a change,
//! and permits a TLB conflict abort at the next access as well (Arm ARM D8.17, RFCPSG). Of these cores their makers say
//! that they never raise one; the list is the one that Linux has for its BBML2_NOABORT feature
//! (arch/arm64/kernel/cpufeature.c). QEMU's `max` (implementer 0) raises none either.
//!
//! Which cores end a broadcast TLB invalidation too early: a store that went through the old entry can land after the
//! DSB, where a harvest has cleared the page's dirty bit already. Makers advise to do the invalidation twice; the list
//! is that of Linux's ARM64_WORKAROUND_REPEAT_TLBI (arch/arm64/kernel/cpu_errata.c).

/// A core: implementer, part, and the first revision that will do.
struct Core {
    implementer: u8,
    part: u16,
    /// Variant and revision, as rNpM.
    since: (u8, u8),
}

const CORES: [Core; 6] = [
    // Cortex-X4; Neoverse V3 and V3AE, before erratum 3053180 was repaired not.
    Core { implementer: 0x41, part: 0xd82, since: (0, 3) },
    Core { implementer: 0x41, part: 0xd84, since: (0, 2) },
    Core { implementer: 0x41, part: 0xd83, since: (0, 2) },
    // NVIDIA Olympus.
    Core { implementer: 0x4e, part: 0x010, since: (0, 0) },
    // AmpereOne, which does not even say that it has FEAT_BBM.
    Core { implementer: 0xc0, part: 0xac3, since: (0, 0) },
    Core { implementer: 0xc0, part: 0xac4, since: (0, 0) },
];

/// Cores that owe a broadcast invalidation twice: implementer, part, and the last variant and revision that does.
const REPEAT: [(u8, u16, (u8, u8)); 27] = [
    // Cortex-A55 erratum 2441007; Cortex-A510 erratum 2441009, mended in r1p2.
    (0x41, 0xd05, ALL),
    (0x41, 0xd46, (1, 1)),
    // CVE-2025-10263 and, of the Cortex-A76, erratum 1286807: Cortex-A76, A76AE, A77, A78, A78AE, A78C, A710.
    (0x41, 0xd0b, ALL),
    (0x41, 0xd0e, ALL),
    (0x41, 0xd0d, ALL),
    (0x41, 0xd41, ALL),
    (0x41, 0xd42, ALL),
    (0x41, 0xd4b, ALL),
    (0x41, 0xd47, ALL),
    // Cortex-X1, X1C, X2, X3, X4, X925; C1-Ultra, C1-Premium.
    (0x41, 0xd44, ALL),
    (0x41, 0xd4c, ALL),
    (0x41, 0xd48, ALL),
    (0x41, 0xd4e, ALL),
    (0x41, 0xd82, ALL),
    (0x41, 0xd85, ALL),
    (0x41, 0xd8c, ALL),
    (0x41, 0xd90, ALL),
    // Neoverse N1, N2, V1, V2, V3, V3AE; Microsoft's Cobalt 100 and NVIDIA's Olympus.
    (0x41, 0xd0c, ALL),
    (0x41, 0xd49, ALL),
    (0x41, 0xd40, ALL),
    (0x41, 0xd4f, ALL),
    (0x41, 0xd84, ALL),
    (0x41, 0xd83, ALL),
    (0x6d, 0xd49, ALL),
    (0x4e, 0x010, ALL),
    // Qualcomm erratum 1009 of the Falkor v1; erratum 1286807 of the Kryo 4xx Gold.
    (0x51, 0x800, (0, 0)),
    (0x51, 0x804, (0xf, 0xe)),
];

/// Every variant and revision.
const ALL: (u8, u8) = (0xf, 0xf);

/// Whether the core with this MIDR_EL1 must be told of a broadcast TLB invalidation twice.
#[must_use]
pub fn repeats_invalidation(midr: u64) -> bool {
    let (implementer, part, revision) = name(midr);
    // Qualcomm erratum 1009 again: the Kryo has many part numbers, 0x2xx.
    let kryo = implementer == 0x51 && part >> 8 == 2;
    kryo || REPEAT.iter().any(|&(i, p, last)| (i, p) == (implementer, part) && revision <= last)
}

/// Implementer, part, and variant with revision, as rNpM.
fn name(midr: u64) -> (u8, u16, (u8, u8)) {
    let field = |shift: u32, bits: u32| (midr >> shift & ((1 << bits) - 1)) as u16;
    (field(24, 8) as u8, field(4, 12), (field(20, 4) as u8, field(0, 4) as u8))
}

/// Whether the core with this MIDR_EL1 and this ID_AA64MMFR2_EL1.BBM never raises a conflict abort where a size changes.
#[must_use]
pub fn never_conflicts(midr: u64, bbm: u8) -> bool {
    let (implementer, part, revision) = name(midr);
    if implementer == 0 {
        return bbm >= 2;
    }
    CORES.iter().any(|core| (core.implementer, core.part) == (implementer, part) && revision >= core.since)
}

#[cfg(test)]
mod tests {
    use super::{never_conflicts, repeats_invalidation};

    #[test]
    fn cores_on_the_list_are_trusted_from_their_revision_on() {
        // Cortex-X4 r0p2, r0p3, r1p0; Neoverse V3 r0p1, r0p2; AmpereOne.
        let midrs = [0x410f_d822, 0x410f_d823, 0x411f_d820, 0x410f_d841, 0x410f_d842, 0xc00f_ac30];
        assert_eq!(midrs.map(|midr| never_conflicts(midr, 2)), [false, true, true, false, true, true]);
    }

    #[test]
    fn other_cores_are_not_whatever_they_say_of_themselves() {
        // Neoverse N2, Cortex-A72.
        assert!(!never_conflicts(0x410f_d493, 2) && !never_conflicts(0x410f_d083, 0));
    }

    #[test]
    fn the_emulators_own_core_is_where_it_has_the_feature() {
        assert!(never_conflicts(0x000f_0510, 2) && !never_conflicts(0x000f_0510, 1));
    }

    #[test]
    fn cores_that_end_an_invalidation_early_are_told_twice() {
        // Cortex-A76 r4p1, Neoverse N2 r0p3, Cortex-A55 r2p0, Cortex-A510 r1p1, Falkor r0p0, Kryo.
        let midrs = [0x414f_d0b1, 0x410f_d493, 0x412f_d050, 0x411f_d461, 0x510f_8000, 0x510f_2050];
        assert_eq!(midrs.map(repeats_invalidation), [true; 6]);
    }

    #[test]
    fn cores_without_that_erratum_are_told_once() {
        // QEMU's max, Cortex-A72, Cortex-A53, Cortex-A510 r1p2, Falkor r0p1.
        let midrs = [0x000f_0510, 0x410f_d083, 0x410f_d034, 0x411f_d462, 0x510f_8001];
        assert_eq!(midrs.map(repeats_invalidation), [false; 5]);
    }
}
