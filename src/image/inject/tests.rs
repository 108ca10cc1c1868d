//! Words worked out by hand from the Arm ARM: SPSR_EL1, ESR_EL1, and D1.4.2.

use proptest::prelude::*;

use super::*;

const VBAR: u64 = 0xffff_8000_0001_0800;
/// SPAN (bit 23) is 1, as out of reset; neither DSSBS nor SPINTMASK.
const SCTLR: u64 = 0x30d0_0800;
const CONTROL: Control = Control { vbar: VBAR, sctlr: SCTLR };
const PC: u64 = 0xffff_8000_1234_5678;
const FAR: u64 = 0x0000_7fff_dead_b000;

/// M (bits 4:0) of EL0, EL1 on SP_EL0, EL1 on SP_EL1, and EL0 in AArch32.
const EL0: u64 = 0x00;
const EL1T: u64 = 0x04;
const EL1H: u64 = 0x05;
const USER: u64 = 0x10;

/// What every entry has where SPAN is 1: EL1h, DAIF (bits 9:6), ALLINT (13), TCO (25), PM (32).
const ENTERED: u64 = 0x1_0200_23c5;

fn undefined(pstate: u64) -> Taken {
    take(Fault::Undefined, PC, pstate, CONTROL)
}

#[test]
fn an_undefined_instruction_at_el1_is_taken_as_the_cpu_does() {
    let taken = Taken {
        pc: 0xffff_8000_0001_0a00,
        pstate: ENTERED,
        esr: 0x0200_0000,
        far: None,
        elr: PC,
        spsr: EL1H,
    };
    assert_eq!(undefined(EL1H), taken);
}

#[test]
fn the_vector_is_that_of_where_the_guest_was() {
    let offset = |pstate| undefined(pstate).pc - VBAR;
    assert_eq!(offset(EL1T), 0x000);
    assert_eq!(offset(EL1H), 0x200);
    assert_eq!(offset(EL0), 0x400);
    assert_eq!(offset(USER), 0x600);
}

#[test]
fn bits_of_vbar_below_the_table_are_no_address() {
    let control = Control { vbar: 0x4008_0fff, sctlr: SCTLR };
    assert_eq!(take(Fault::Undefined, PC, EL0, control).pc, 0x4008_0c00);
}

#[test]
fn flags_dit_and_pan_stay_and_the_rest_is_set_as_an_entry_sets_it() {
    // NZCV (31:28), DIT (24), PAN (22) stay.
    assert_eq!(undefined(0xf140_0000).pstate, 0xf140_0000 | ENTERED);
    // SS (21), IL (20), UAO (23), SSBS (12), BTYPE (11:10) go.
    assert_eq!(undefined(0x00b0_1c05).pstate, ENTERED);
    // Of AArch32: Q (27), IT (26:25 and 15:10), GE (19:16), E (9), T (5), and the state itself go.
    assert_eq!(undefined(0x0e0f_fe30).pstate, ENTERED);
}

#[test]
fn what_the_guest_was_is_saved_as_it_is() {
    for pstate in [0xf1f0_1fc5, 0x0e0f_fe30, 0] {
        assert_eq!((undefined(pstate).spsr, undefined(pstate).elr), (pstate, PC));
    }
}

#[test]
fn span_dssbs_and_spintmask_decide_pan_ssbs_and_allint() {
    let with = |sctlr| take(Fault::Undefined, PC, EL1H, Control { vbar: VBAR, sctlr }).pstate;
    assert_eq!(with(0x3050_0800), ENTERED | 0x0040_0000, "SPAN is 0");
    assert_eq!(with(0x0000_1000_30d0_0800), ENTERED | 0x1000, "DSSBS");
    assert_eq!(with(0x4000_0000_30d0_0800), 0x1_0200_03c5, "SPINTMASK");
}

#[test]
fn an_abort_is_external_and_tells_the_level_it_came_from() {
    // A load by x3 at level 3 of a translation fault.
    let load = Fault::Data { esr: 0x93c3_8007, far: FAR };
    let esr = |fault, pstate| take(fault, PC, pstate, CONTROL).esr;
    assert_eq!(esr(load, EL0), 0x9200_0010);
    assert_eq!(esr(load, USER), 0x9200_0010);
    assert_eq!(esr(load, EL1T), 0x9600_0010);
    assert_eq!(esr(load, EL1H), 0x9600_0010);
    let fetch = Fault::Instruction { far: FAR };
    assert_eq!(esr(fetch, EL0), 0x8200_0010);
    assert_eq!(esr(fetch, EL1H), 0x8600_0010);
    assert_eq!(take(fetch, PC, EL0, CONTROL).far, Some(FAR));
    assert_eq!(take(load, PC, EL0, CONTROL).far, Some(FAR));
}

#[test]
fn an_abort_keeps_direction_cache_maintenance_and_whether_there_is_an_address() {
    let esr = |esr| take(Fault::Data { esr, far: FAR }, PC, EL1H, CONTROL).esr;
    assert_eq!(esr(0x9200_0046), 0x9600_0050, "a store");
    assert_eq!(esr(0x9200_0147), 0x9600_0150, "cache maintenance");
    assert_eq!(esr(0x9200_0410), 0x9600_0410, "FAR is not valid");
    // S1PTW (7), of stage 2 alone, and SET, AR, SF, SRT, SSE, SAS, ISV go.
    assert_eq!(esr(0x93ff_f887), 0x9600_0010);
}

#[test]
fn alignment_and_unsupported_atomics_are_told_as_they_are() {
    let esr = |esr| take(Fault::Data { esr, far: FAR }, PC, EL0, CONTROL).esr;
    assert_eq!(esr(0x9200_0021), 0x9200_0021);
    assert_eq!(esr(0x9200_0075), 0x9200_0075);
}

proptest! {
    #[test]
    fn wherever_the_guest_was_it_goes_on_at_el1_with_everything_masked(
        pc: u64, pstate: u64, vbar: u64, sctlr: u64, esr: u64, far: u64
    ) {
        for fault in [Fault::Undefined, Fault::Data { esr, far }, Fault::Instruction { far }] {
            let taken = take(fault, pc, pstate, Control { vbar, sctlr });
            prop_assert_eq!(taken.pstate & 0x3df, 0x3c5);
            prop_assert_eq!(taken.pc & !0x7ff, vbar & !0x7ff);
            prop_assert_eq!(taken.esr >> 32, 0);
        }
    }
}
