//! What is known of a core by its name, MIDR_EL1, alone: for whoever says of a VM what the cores that run it bear and owe
//! ([`AddressSpace::with_direct_swap`](crate::address_space::AddressSpace::with_direct_swap),
//! [`AddressSpace::with_repeated_invalidation`](crate::address_space::AddressSpace::with_repeated_invalidation)).
//!
//! Which cores bear a change of a translation's size without break-before-make: FEAT_BBM level 2 permits such a change,
//! and permits a TLB conflict abort at the next access as well (Arm ARM D8.17, RFCPSG). Of these cores their makers say
//! that they never raise one; the list is the one that Linux has for its BBML2_NOABORT feature
//! (arch/arm64/kernel/cpufeature.c). QEMU's `max` (implementer 0) raises none either.
//!
//! Which cores end a broadcast TLB invalidation too early: a store that went through the old entry can land after the
//! DSB, where a harvest has cleared the page's dirty bit already. Makers advise to do the invalidation twice; the list
//! is that of Linux's ARM64_WORKAROUND_REPEAT_TLBI (arch/arm64/kernel/cpu_errata.c).

/// Cores of one name: implementer and part, and the revisions that are meant, both included, as rNpM.
struct Core {
    implementer: u8,
    part: u16,
    revisions: (Revision, Revision),
}

/// Variant and revision.
type Revision = (u8, u8);

const FIRST: Revision = (0, 0);
const LAST: Revision = (0xf, 0xf);

impl Core {
    const fn all(implementer: u8, part: u16) -> Self {
        Self { implementer, part, revisions: (FIRST, LAST) }
    }

    const fn since(implementer: u8, part: u16, first: Revision) -> Self {
        Self { implementer, part, revisions: (first, LAST) }
    }

    const fn until(implementer: u8, part: u16, last: Revision) -> Self {
        Self { implementer, part, revisions: (FIRST, last) }
    }

    /// Whether it is on `list`.
    fn is_on(list: &[Self], midr: u64) -> bool {
        let field = |shift: u32, bits: u32| (midr >> shift & ((1 << bits) - 1)) as u16;
        let name = (field(24, 8) as u8, field(4, 12));
        let revision = (field(20, 4) as u8, field(0, 4) as u8);
        list.iter().any(|Self { implementer, part, revisions: (first, last) }| {
            (*implementer, *part) == name && (*first..=*last).contains(&revision)
        })
    }
}

/// Cores that never raise a conflict abort where a size changes.
const NEVER_CONFLICT: [Core; 6] = [
    // Cortex-X4; Neoverse V3 and V3AE, before erratum 3053180 was repaired not.
    Core::since(0x41, 0xd82, (0, 3)),
    Core::since(0x41, 0xd84, (0, 2)),
    Core::since(0x41, 0xd83, (0, 2)),
    // NVIDIA Olympus.
    Core::all(0x4e, 0x010),
    // AmpereOne, which does not even say that it has FEAT_BBM.
    Core::all(0xc0, 0xac3),
    Core::all(0xc0, 0xac4),
];

/// Cores that owe a broadcast invalidation twice.
const REPEAT: [Core; 27] = [
    // Cortex-A55 erratum 2441007; Cortex-A510 erratum 2441009, mended in r1p2.
    Core::all(0x41, 0xd05),
    Core::until(0x41, 0xd46, (1, 1)),
    // CVE-2025-10263 and, of the Cortex-A76, erratum 1286807: Cortex-A76, A76AE, A77, A78, A78AE, A78C, A710.
    Core::all(0x41, 0xd0b),
    Core::all(0x41, 0xd0e),
    Core::all(0x41, 0xd0d),
    Core::all(0x41, 0xd41),
    Core::all(0x41, 0xd42),
    Core::all(0x41, 0xd4b),
    Core::all(0x41, 0xd47),
    // Cortex-X1, X1C, X2, X3, X4, X925; C1-Ultra, C1-Premium.
    Core::all(0x41, 0xd44),
    Core::all(0x41, 0xd4c),
    Core::all(0x41, 0xd48),
    Core::all(0x41, 0xd4e),
    Core::all(0x41, 0xd82),
    Core::all(0x41, 0xd85),
    Core::all(0x41, 0xd8c),
    Core::all(0x41, 0xd90),
    // Neoverse N1, N2, V1, V2, V3, V3AE; Microsoft's Cobalt 100 and NVIDIA's Olympus.
    Core::all(0x41, 0xd0c),
    Core::all(0x41, 0xd49),
    Core::all(0x41, 0xd40),
    Core::all(0x41, 0xd4f),
    Core::all(0x41, 0xd84),
    Core::all(0x41, 0xd83),
    Core::all(0x6d, 0xd49),
    Core::all(0x4e, 0x010),
    // Qualcomm erratum 1009 of the Falkor v1; erratum 1286807 of the Kryo 4xx Gold.
    Core::until(0x51, 0x800, (0, 0)),
    Core::until(0x51, 0x804, (0xf, 0xe)),
];

/// Implementer and the higher half of the part number of the Kryo, which has many: Qualcomm erratum 1009 again.
const KRYO: u64 = 0x5100_2000;

/// Whether the core with this MIDR_EL1 must be told of a broadcast TLB invalidation twice.
#[must_use]
pub fn repeats_invalidation(midr: u64) -> bool {
    midr & 0xff00_f000 == KRYO || Core::is_on(&REPEAT, midr)
}

/// Whether the core with this MIDR_EL1 and this ID_AA64MMFR2_EL1.BBM never raises a conflict abort where a size changes.
#[must_use]
pub fn never_conflicts(midr: u64, bbm: u8) -> bool {
    let implementer = midr >> 24 & 0xff;
    if implementer == 0 { bbm >= 2 } else { Core::is_on(&NEVER_CONFLICT, midr) }
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
