//! ID registers made by hand, and by chance.

use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::smmu::testing::QEMU_FEATURES;

/// ID registers of QEMU's model: stage 1 and 2, coherent, no HTTU, no stall, 16-bit StreamIDs, 44-bit output.
const QEMU: Identification = Identification {
    idr0: 0x0d44_101b,
    idr1: 0x0273_0010,
    idr3: 0x0000_1414,
    idr5: 0x0000_0074,
    iidr: 0,
    aidr: 1,
};

fn refusal(id: Identification) -> Unsupported {
    id.refuse_what_is_lacking().unwrap_err()
}

#[test]
fn id_registers_of_a_known_model_decode() {
    assert_eq!(QEMU.refuse_what_is_lacking(), Ok(()));
    assert_eq!(QEMU.decode(Errata::empty()), QEMU_FEATURES);
}

#[test]
fn id_registers_of_a_full_featured_part_decode() {
    // IDR0: everything but big-endian and forced stall; IDR1: 32-bit StreamIDs, queues of 2^8 and 2^7.
    let id = Identification {
        idr0: 0x0805_76bf,
        idr1: 0x0d07_0020,
        idr3: 0x0000_0d10,
        idr5: 0x0040_0015,
        iidr: 0x4832_043b,
        aidr: 2,
    };
    let features = id.decode(Errata::empty());
    assert_eq!(features.minor_version, 2);
    assert_eq!(features.iidr, 0x4832_043b);
    assert_eq!(features.httu, Httu::Dirty);
    assert_eq!(features.bbml, Bbml::Level1);
    assert!(features.aarch32_tables && features.broadcast_tlbi && features.el2_contexts);
    assert!(features.ats && features.pri && features.msi && features.wake_events);
    assert!(features.vmid16 && features.asid16 && features.attribute_override && features.forced_write_back);
    assert_eq!((features.stall_model, features.stall_max), (StallModel::Both, 64));
    assert_eq!((features.stream_bits, features.command_queue_bits, features.event_queue_bits), (32, 8, 7));
    assert_eq!(features.output_bits, 48);
}

#[test]
fn output_address_sizes_match_section_6_3_6() {
    let bits = [0, 1, 2, 3, 4, 5, 6, 7].map(decode_output_bits);
    assert_eq!(bits, [32, 36, 40, 42, 44, 48, 48, 48]);
}

#[test]
fn input_size_is_forty_bits_where_aarch32_tables_are_there() {
    let small = Identification { idr5: 0x10, ..QEMU };
    assert_eq!(small.decode(Errata::empty()).input_bits(), 32);
    let with_aarch32 = Identification { idr0: QEMU.idr0 | 0x4, ..small };
    assert_eq!(with_aarch32.decode(Errata::empty()).input_bits(), 40);
}

#[test]
fn what_is_lacking_is_refused_with_the_register_that_says_so() {
    let stage1_only = Identification { idr0: 0x0d44_101a, ..QEMU };
    assert_eq!(refusal(stage1_only), Unsupported::Stage2(0x0d44_101a));
    let aarch32_only = Identification { idr0: 0x0d44_1017, ..QEMU };
    assert_eq!(refusal(aarch32_only), Unsupported::Aarch64Tables(0x0d44_1017));
    let big_endian = Identification { idr0: 0x0d64_101b, ..QEMU };
    assert_eq!(refusal(big_endian), Unsupported::LittleEndian(0x0d64_101b));
    let always_stalls = Identification { idr0: 0x0e44_101b, ..QEMU };
    assert_eq!(refusal(always_stalls), Unsupported::StallModel(0x0e44_101b));
    let fixed_tables = Identification { idr1: 0x4273_0010, ..QEMU };
    assert_eq!(refusal(fixed_tables), Unsupported::Preset(0x4273_0010));
    let fixed_queues = Identification { idr1: 0x2273_0010, ..QEMU };
    assert_eq!(refusal(fixed_queues), Unsupported::Preset(0x2273_0010));
    let only_64k = Identification { idr5: 0x44, ..QEMU };
    assert_eq!(refusal(only_64k), Unsupported::Granule4K(0x44));
    let other_version = Identification { aidr: 0x10, ..QEMU };
    assert_eq!(refusal(other_version), Unsupported::Version(0x10));
}

#[test]
fn registers_that_read_all_ones_are_refused() {
    let absent = Identification { idr0: !0, idr1: !0, idr3: !0, idr5: !0, iidr: !0, aidr: !0 }
        .refuse_what_is_lacking();
    assert_eq!(absent, Err(Unsupported::Version(!0)));
    let sizes = Identification { idr1: 0x03ff_003f, ..QEMU };
    assert_eq!(refusal(sizes), Unsupported::Sizes(0x03ff_003f));
}

#[test]
fn each_size_is_refused_by_itself_beyond_its_most() {
    // SIDSIZE 5:0 to 32, EVENTQS 20:16 and CMDQS 25:21 to 19 (§6.3.2).
    for idr1 in [0x0273_0020, 0x0273_001f, 0x0252_0010] {
        assert_eq!(Identification { idr1, ..QEMU }.refuse_what_is_lacking(), Ok(()), "{idr1:#x}");
    }
    for idr1 in [0x0273_0021, 0x0293_0010, 0x0274_0010] {
        assert_eq!(refusal(Identification { idr1, ..QEMU }), Unsupported::Sizes(idr1));
    }
}

#[test]
fn hardware_update_decodes_by_its_value() {
    // HTTU 7:6 (§6.3.1).
    let of = |httu: u32| unlimited(Identification { idr0: QEMU.idr0 | httu << 6, aidr: 4, ..QEMU }).httu;
    assert_eq!([0, 1, 2, 3].map(of), [Httu::None, Httu::AccessFlag, Httu::Dirty, Httu::TableAccessFlag]);
}

#[test]
fn abilities_and_notes_are_told_in_words() {
    let httu = [Httu::None, Httu::AccessFlag, Httu::Dirty, Httu::TableAccessFlag].map(|h| h.to_string());
    assert_eq!(httu, ["none", "access flag", "dirty state", "dirty state and table access flag"]);
    assert_eq!(
        [Bbml::Level0, Bbml::Level1, Bbml::Level2].map(|b| b.to_string()),
        ["level 0", "level 1", "level 2"]
    );
    assert_eq!(Note::RangeVersion.to_string(), "invalidation by range is not used: its version has none");
}

#[test]
fn refusal_says_what_is_missing() {
    let text = Unsupported::Stage2(0x0d44_101a).to_string();
    assert_eq!(text, "has no stage 2 translation (SMMU_IDR0=0xd44101a)");
}

/// What the driver relies on of `id`.
fn relied_on(id: Identification, limits: Limits) -> Result<Features, Unsupported> {
    id.decode(Errata::empty()).lowered(&limits)
}

fn unlimited(id: Identification) -> Features {
    relied_on(id, Limits::default()).unwrap()
}

/// The notes about `id`.
fn notes(id: Identification) -> Vec<Note> {
    unlimited(id).notes.iter().collect()
}

/// SMMUv3.4, HTTU=0b11 and coherent.
const ABLE: Identification = Identification { idr0: QEMU.idr0 | 0xc0, aidr: 4, ..QEMU };

#[test]
fn limits_lower_abilities() {
    let limits = Limits {
        httu: Some(Httu::AccessFlag),
        bbml: Some(Bbml::Level0),
        range_invalidation: Some(false),
        coherent: None,
    };
    let features = relied_on(ABLE, limits).unwrap();
    assert_eq!((features.httu, features.bbml), (Httu::AccessFlag, Bbml::Level0));
    assert!(!features.range_invalidation && features.coherent);
}

#[test]
fn limits_at_what_there_is_change_nothing() {
    let limits = Limits {
        coherent: Some(true),
        httu: Some(Httu::TableAccessFlag),
        bbml: Some(Bbml::Level2),
        range_invalidation: Some(true),
    };
    assert_eq!(relied_on(ABLE, limits), Ok(unlimited(ABLE)));
}

#[test]
fn limit_that_would_raise_an_ability_is_refused_by_its_name() {
    let none = Identification { idr0: QEMU.idr0 & !0x10, idr3: 0, ..QEMU };
    let raised = |limits| relied_on(none, limits).map(|_| ());
    let unlimited = Limits::default();
    let refused = [
        (Limits { coherent: Some(true), ..unlimited }, Ability::Coherency),
        (Limits { httu: Some(Httu::AccessFlag), ..unlimited }, Ability::HardwareUpdate),
        (Limits { bbml: Some(Bbml::Level1), ..unlimited }, Ability::BreakBeforeMake),
        (Limits { range_invalidation: Some(true), ..unlimited }, Ability::RangeInvalidation),
    ];
    for (limits, ability) in refused {
        assert_eq!(raised(limits), Err(Unsupported::Raised(ability)));
    }
    let text = Unsupported::Raised(Ability::HardwareUpdate).to_string();
    assert_eq!(text, "is given more by an override than it has: hardware update; an override only lowers");
    assert_eq!(raised(unlimited), Ok(()));
}

#[test]
fn limit_does_not_raise_what_a_contradiction_has_lowered() {
    let version0 = Identification { aidr: 0, ..QEMU };
    let limits = Limits { bbml: Some(Bbml::Level2), ..Limits::default() };
    assert_eq!(relied_on(version0, limits), Err(Unsupported::Raised(Ability::BreakBeforeMake)));
}

#[test]
fn hardware_update_needs_coherent_walks() {
    assert_eq!(unlimited(ABLE).httu, Httu::TableAccessFlag);
    assert_eq!(notes(ABLE), []);
    let limits = Limits { coherent: Some(false), ..Limits::default() };
    let features = relied_on(ABLE, limits).unwrap();
    assert_eq!((features.coherent, features.httu), (false, Httu::None));
    assert_eq!(features.notes.iter().collect::<Vec<_>>(), [Note::HttuWithoutCoherency]);
    let not_coherent = Identification { idr0: ABLE.idr0 & !0x10, ..ABLE };
    assert_eq!(unlimited(not_coherent).httu, Httu::None);
    assert_eq!(notes(not_coherent), [Note::HttuWithoutCoherency]);
}

#[test]
fn version_may_have_features_of_the_next_and_none_of_later_ones() {
    // RIL and BBML came with SMMUv3.2: QEMU's model, of SMMUv3.1, has them rightly.
    assert_eq!(notes(QEMU), []);
    let version0 = Identification { aidr: 0, ..QEMU };
    let features = unlimited(version0);
    assert_eq!((features.range_invalidation, features.bbml), (false, Bbml::Level0));
    assert_eq!(notes(version0), [Note::RangeVersion, Note::BbmlVersion]);
    let only_bbml = Identification { aidr: 0, idr3: 0x0800, ..QEMU };
    assert_eq!(notes(only_bbml), [Note::BbmlVersion]);
    assert_eq!(unlimited(only_bbml).bbml, Bbml::Level0);
}

#[test]
fn table_access_flag_needs_its_version() {
    for (aidr, httu) in [(2, Httu::Dirty), (3, Httu::TableAccessFlag), (4, Httu::TableAccessFlag)] {
        let id = Identification { aidr, ..ABLE };
        assert_eq!(unlimited(id).httu, httu, "SMMUv3.{aidr}");
        assert_eq!(notes(id).is_empty(), httu == Httu::TableAccessFlag);
    }
    assert_eq!(notes(Identification { aidr: 2, ..ABLE }), [Note::TableAccessFlagVersion]);
}

#[test]
fn reserved_break_before_make_level_promises_nothing() {
    let reserved = Identification { idr3: 0x1c14, ..QEMU };
    assert_eq!(unlimited(reserved).bbml, Bbml::Level0);
    assert_eq!(notes(reserved), [Note::BbmlReserved]);
    let level1 = Identification { idr3: 0x0c14, ..QEMU };
    assert_eq!(unlimited(level1).bbml, Bbml::Level1);
}

#[test]
fn break_before_make_level_without_stage_2_does_not_help() {
    let id = Identification { idr0: QEMU.idr0 & !0x1, ..QEMU };
    assert_eq!(refusal(id), Unsupported::Stage2(0x0d44_101a));
}

#[test]
fn reserved_stream_table_formats_are_taken_for_linear() {
    for (level, two_level) in [(0, false), (1, true), (2, false), (3, false)] {
        let id = Identification { idr0: QEMU.idr0 & !0x1800_0000 | level << 27, ..QEMU };
        assert_eq!(unlimited(id).two_level_stream_table, two_level);
        assert_eq!(!notes(id).is_empty(), level > 1);
    }
    let reserved = Identification { idr0: QEMU.idr0 | 0x1000_0000, ..QEMU };
    assert_eq!(notes(reserved), [Note::StreamTableReserved]);
}

#[test]
fn reserved_endianness_stall_model_and_table_format_are_refused() {
    let endianness = Identification { idr0: 0x0d24_101b, ..QEMU };
    assert_eq!(refusal(endianness), Unsupported::LittleEndian(0x0d24_101b));
    let stall_model = Identification { idr0: 0x0f44_101b, ..QEMU };
    assert_eq!(refusal(stall_model), Unsupported::StallModel(0x0f44_101b));
    let formats = Identification { idr0: 0x0d44_1013, ..QEMU };
    assert_eq!(refusal(formats), Unsupported::Aarch64Tables(0x0d44_1013));
}

#[test]
fn stalls_of_which_none_may_be_outstanding_are_not_used() {
    let claims = Identification { idr0: QEMU.idr0 & !0x0300_0000, ..QEMU };
    assert_eq!(
        (unlimited(claims).stall_model, notes(claims)),
        (StallModel::Terminate, [Note::StallMaxZero].into())
    );
    let able = Identification { idr5: QEMU.idr5 | 1 << 16, ..claims };
    assert_eq!((unlimited(able).stall_model, unlimited(able).stall_max), (StallModel::Both, 1));
    assert_eq!(notes(able), []);
    // Who stalls nothing says so by 0.
    assert_eq!((unlimited(QEMU).stall_model, notes(QEMU)), (StallModel::Terminate, [].into()));
}

#[test]
fn output_sizes_of_a_later_version_are_refused() {
    let of = |aidr, size| Identification { aidr, idr5: 0x70 | size, ..QEMU }.refuse_what_is_lacking();
    for (aidr, most) in [(0, 5), (1, 6), (2, 6), (3, 6), (4, 7)] {
        assert!((0..=most).all(|size| of(aidr, size).is_ok()), "SMMUv3.{aidr}");
        for size in most + 1..=7 {
            assert_eq!(of(aidr, size), Err(Unsupported::OutputSize(0x70 | size)), "SMMUv3.{aidr}");
        }
    }
}

#[test]
fn errata_lower_abilities_with_a_note() {
    // IDR0.SEV on an MMU-600 r0p2 and r0p3.
    let early = Identification { idr0: QEMU.idr0 | 0x4000, iidr: 0x4830_243b, ..QEMU };
    assert!(!unlimited(early).wake_events);
    assert_eq!(notes(early), [Note::WakeEventsErratum]);
    let mended = Identification { iidr: 0x4830_343b, ..early };
    assert!(unlimited(mended).wake_events);
    assert_eq!(notes(mended), []);
    // Where nothing is claimed nothing is lowered.
    assert_eq!(notes(Identification { idr0: QEMU.idr0, ..early }), []);
}

proptest::proptest! {
    #[test]
    fn any_id_registers_are_refused_or_within_bounds(
        idr0: u32, idr1: u32, idr3: u32, idr5: u32, iidr: u32, minor in 0u32..16, usual: bool,
    ) {
        // Few random registers are not refused: some get what is asked for.
        let (idr0, idr1) = if usual { (idr0 & 0xfc9f_ffff | 0x9, idr1 & 0x9bff_ffdf) } else { (idr0, idr1) };
        let idr1 = if usual { idr1 & !0x0210_0000 } else { idr1 };
        let id = Identification { idr0, idr1, idr3, idr5: idr5 | 0x10, iidr, aidr: minor };
        if id.refuse_what_is_lacking().is_ok() {
            let features = unlimited(id);
            assert!(features.stream_bits <= 32 && features.output_bits <= 48 && features.output_bits >= 32);
            assert!(features.command_queue_bits <= 19 && features.event_queue_bits <= 19);
            assert!(features.coherent || features.httu == Httu::None);
            assert!(minor > 0 || features.bbml == Bbml::Level0 && !features.range_invalidation);
        }
    }
}

#[test]
fn errata_of_the_part_and_of_the_board_add_up() {
    let id = Identification { iidr: 0x4871_043b, ..QEMU };
    assert_eq!(id.decode(Errata::empty()).errata, Errata::SYNC_BETWEEN);
    assert_eq!(id.decode(Errata::REPEAT).errata, Errata::SYNC_BETWEEN | Errata::REPEAT);
}
