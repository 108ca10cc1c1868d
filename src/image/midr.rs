//! Which cores bear a change of a translation's size without break-before-make.
//!
//! FEAT_BBM level 2 permits such a change, and permits a TLB conflict abort at the next access as well (Arm ARM D8.17,
//! RFCPSG). Of these cores their makers say that they never raise one; the list is the one that Linux has for its
//! BBML2_NOABORT feature (arch/arm64/kernel/cpufeature.c). QEMU's `max` (implementer 0) raises none either.

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

/// Whether the core with this MIDR_EL1 and this ID_AA64MMFR2_EL1.BBM never raises a conflict abort where a size changes.
#[must_use]
pub fn never_conflicts(midr: u64, bbm: u8) -> bool {
    let field = |shift: u32, bits: u32| midr >> shift & ((1 << bits) - 1);
    let revision = (field(20, 4) as u8, field(0, 4) as u8);
    if field(24, 8) == 0 {
        return bbm >= 2;
    }
    CORES.iter().any(|core| {
        field(24, 8) == u64::from(core.implementer)
            && field(4, 12) == u64::from(core.part)
            && revision >= core.since
    })
}

#[cfg(test)]
mod tests {
    use super::never_conflicts;

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
}
