//! Syndromes worked out by hand: EC 0x24 in bits 31:26 and IL in bit 25 make 0x9200_0000, ISV makes 0x9300_0000; SAS is
//! bits 23:22, SSE bit 21, SRT bits 20:16, SF bit 15, AR bit 14, WnR bit 6, DFSC bits 5:0.

use proptest::prelude::*;

use super::*;

/// FAR and HPFAR of an access to guest address 0x0900_0018 through a virtual address of the guest's own.
const FAR: u64 = 0xffff_8000_1234_5018;
const HPFAR: u64 = 0x0000_0000_0009_0000;

fn decoded(esr: u64) -> MmioAccess {
    decode(esr, FAR, HPFAR).unwrap()
}

fn refused(esr: u64) -> NotMmio {
    decode(esr, FAR, HPFAR).unwrap_err()
}

#[test]
fn place_of_a_permission_fault_is_the_virtual_address() {
    // Level 3 of a translation fault (DFSC 0b000111) and of a permission fault (0b001111), of a load and of a fetch.
    for class in [0x9200_0000, 0x8200_0000] {
        assert_eq!(place_of_fault(class | 0x07, FAR, HPFAR), "0x9000018");
        assert_eq!(place_of_fault(class | 0x0f, FAR, HPFAR), "virtual address 0xffff800012345018");
    }
}

#[test]
fn ldr_w3_is_decoded() {
    let access = MmioAccess {
        ipa: Ipa(0x0900_0018),
        width: Width::Word,
        write: false,
        register: 3,
        sign_extend: false,
        sixty_four: false,
    };
    assert_eq!(decoded(0x9383_0007), access);
}

#[test]
fn str_x0_is_decoded() {
    let access = decoded(0x93c0_8046);
    assert_eq!((access.width, access.write, access.register), (Width::Double, true, 0));
    assert!(access.sixty_four && !access.sign_extend);
}

#[test]
fn ldrsb_x5_is_decoded() {
    let access = decoded(0x9325_8007);
    assert_eq!((access.width, access.write, access.register), (Width::Byte, false, 5));
    assert!(access.sixty_four && access.sign_extend);
}

#[test]
fn strb_wzr_is_decoded() {
    let access = decoded(0x931f_0047);
    assert_eq!((access.width, access.write, access.register), (Width::Byte, true, 31));
}

#[test]
fn ldarh_w1_is_decoded_as_any_load() {
    let access = decoded(0x9341_4005);
    assert_eq!((access.width, access.write, access.register), (Width::Half, false, 1));
}

#[test]
fn level_zero_translation_fault_is_decoded() {
    assert_eq!(decoded(0x9383_0004).register, 3);
}

#[test]
fn address_is_taken_from_fipa_and_page_offset() {
    // FIPA is bits 47:4 and stands for address bits 55:12; bit 63 says the address space, bits 3:0 nothing.
    assert_eq!(faulting_ipa(0x0000_ffff_ffff_fabc, 0x8000_0000_0009_0000), Ipa(0x0900_0abc));
    assert_eq!(faulting_ipa(0xabc, 0x0000_8000_0000_0000), Ipa(0x0080_0000_0000_0abc));
    assert_eq!(faulting_ipa(0, 0xffff_0000_0000_000f), Ipa(0));
}

#[test]
fn instruction_abort_and_own_data_abort_are_other_exceptions() {
    assert_eq!(refused(0x8200_0007), NotMmio::OtherException(0x20));
    assert_eq!(refused(0x9600_0007), NotMmio::OtherException(0x25));
}

#[test]
fn load_pair_has_no_syndrome() {
    assert_eq!(refused(0x9200_0007), NotMmio::NoSyndrome);
}

#[test]
fn fault_of_a_stage_one_walk_is_none_of_a_device() {
    assert_eq!(refused(0x9200_0087), NotMmio::StageOneWalk);
    assert_eq!(refused(0x9383_0087), NotMmio::StageOneWalk);
}

#[test]
fn cache_maintenance_is_refused() {
    assert_eq!(refused(0x9200_0147), NotMmio::CacheMaintenance);
}

#[test]
fn permission_access_flag_and_other_faults_are_told_apart() {
    assert_eq!(refused(0x9383_000f), NotMmio::Permission);
    assert_eq!(refused(0x9383_000b), NotMmio::AccessFlag);
    assert_eq!(refused(0x9200_0010), NotMmio::OtherFault(0x10));
    assert_eq!(refused(0x9200_0021), NotMmio::OtherFault(0x21));
    assert_eq!(refused(0x9383_0003), NotMmio::OtherFault(0x03));
}

#[test]
fn address_that_is_not_valid_is_not_used() {
    assert_eq!(refused(0x9383_0407), NotMmio::NoAddress);
}

#[test]
fn ld64b_is_refused_though_its_syndrome_is_valid() {
    assert_eq!(refused(0x93c0_9007), NotMmio::SixtyFourBytes);
}

#[test]
fn byte_load_is_extended_as_the_instruction_says() {
    let mut registers = [u64::MAX; 31];
    decoded(0x9305_0007).load(&mut registers, 0x1280); // ldrb w5
    assert_eq!(registers[5], 0x80);
    decoded(0x9325_0007).load(&mut registers, 0x1280); // ldrsb w5
    assert_eq!(registers[5], 0xffff_ff80);
    decoded(0x9325_8007).load(&mut registers, 0x1280); // ldrsb x5
    assert_eq!(registers[5], 0xffff_ffff_ffff_ff80);
    decoded(0x9325_8007).load(&mut registers, 0x7f);
    assert_eq!(registers[5], 0x7f);
}

#[test]
fn word_and_doubleword_loads_fill_the_register() {
    let mut registers = [u64::MAX; 31];
    decoded(0x9383_0007).load(&mut registers, 0x1_8765_4321); // ldr w3
    assert_eq!(registers[3], 0x8765_4321);
    decoded(0x93a3_8007).load(&mut registers, 0x8765_4321); // ldrsw x3
    assert_eq!(registers[3], 0xffff_ffff_8765_4321);
    decoded(0x93c3_8007).load(&mut registers, 0x8765_4321_0fed_cba9); // ldr x3
    assert_eq!(registers[3], 0x8765_4321_0fed_cba9);
    assert_eq!(registers[2], u64::MAX);
}

#[test]
fn an_access_is_in_a_window_with_all_of_its_bytes_or_not_at_all() {
    let at = |ipa, esr| MmioAccess { ipa: Ipa(ipa), ..decoded(esr) }.offset_in(Ipa(0x0900_0000), 0x1000);
    let (word, double) = (0x9383_0007, 0x93c0_8046);
    assert_eq!(at(0x0900_0000, double), Some(0));
    assert_eq!(at(0x0900_0ff8, double), Some(0xff8));
    assert_eq!(at(0x0900_0ffc, word), Some(0xffc));
    assert_eq!(at(0x0900_0ffc, double), None, "the last four bytes are in the next page");
    assert_eq!(at(0x0900_1000, word), None);
    assert_eq!(at(0x08ff_fffc, double), None, "the first four bytes are in the page before");
    assert_eq!(at(0x08ff_ffff, word), None);
}

#[test]
fn zero_register_swallows_a_load_and_stores_zero() {
    let mut registers = [0x55; 31];
    decoded(0x93df_8007).load(&mut registers, 7);
    assert_eq!(registers, [0x55; 31]);
    assert_eq!(decoded(0x93df_8047).stored(&registers), 0);
}

#[test]
fn store_takes_the_bytes_of_its_width() {
    let mut registers = [0; 31];
    registers[30] = 0x1122_3344_5566_7788;
    assert_eq!(decoded(0x931e_0047).stored(&registers), 0x88);
    assert_eq!(decoded(0x935e_0047).stored(&registers), 0x7788);
    assert_eq!(decoded(0x939e_0047).stored(&registers), 0x5566_7788);
    assert_eq!(decoded(0x93de_8047).stored(&registers), 0x1122_3344_5566_7788);
}

proptest! {
    #[test]
    fn whatever_the_registers_hold_decoding_ends_in_an_access_or_a_reason(esr: u64, far: u64, hpfar: u64) {
        for esr in [esr, esr & 0x03ff_ffff | 0x9000_0000, esr & 0x00ff_e07f | 0x9300_0004] {
            if let Ok(access) = decode(esr, far, hpfar) {
                let mut registers = [far; 31];
                access.load(&mut registers, hpfar);
                prop_assert!(access.stored(&registers) <= access.width.mask());
                prop_assert!(access.ipa.0 >> 56 == 0);
            }
        }
    }
}
