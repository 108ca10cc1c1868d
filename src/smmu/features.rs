//! What an SMMU can do: its ID registers (IHI 0070 §6.3.1 to §6.3.8) as a record, less what firmware or the board
//! take away.

use core::fmt;

use super::errata::Errata;
use super::note::{Note, Notes};
use super::registers::Registers;
use super::spec::pages::Register32;
use super::spec::registers::{AIDR, IDR0, IDR1, IDR3, IDR5};

/// Hardware update of translation tables, each ability including those before it (IDR0.HTTU).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Httu {
    /// None.
    None,
    /// The access flag.
    AccessFlag,
    /// The access flag and the dirty state.
    Dirty,
    /// Both, and the access flag of table descriptors.
    TableAccessFlag,
}

/// What may become of a transaction that faults (IDR0.STALL_MODEL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallModel {
    /// It is terminated, or stalls where its STE says so.
    Both,
    /// It is always terminated.
    Terminate,
}

/// What changing the size of a mapping takes (IDR3.BBML, §3.21.1), each level allowing what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bbml {
    /// Break before make.
    Level0,
    /// The nT bit.
    Level1,
    /// Nothing.
    Level2,
}

impl fmt::Display for Httu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::AccessFlag => "access flag",
            Self::Dirty => "dirty state",
            Self::TableAccessFlag => "dirty state and table access flag",
        })
    }
}

impl fmt::Display for Bbml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Level0 => "level 0",
            Self::Level1 => "level 1",
            Self::Level2 => "level 2",
        })
    }
}

/// What firmware, the device tree or a board says an SMMU can do, where that is less than its ID registers claim.
///
/// An ability can be lowered so, never raised: [`Features::read`] refuses that. `None`, the default, leaves what the ID
/// registers say, less errata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The SMMU's own accesses are coherent with the PEs' caches. A device tree says that they aren't by leaving
    /// `dma-coherent` out.
    pub coherent: Option<bool>,
    /// What it does of hardware table update.
    pub httu: Option<Httu>,
    /// The highest break-before-make level relied on.
    pub bbml: Option<Bbml>,
    /// Invalidation by range may be used.
    pub range_invalidation: Option<bool>,
}

/// What [`Limits`] can lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// [`Limits::coherent`].
    Coherency,
    /// [`Limits::httu`].
    HardwareUpdate,
    /// [`Limits::bbml`].
    BreakBeforeMake,
    /// [`Limits::range_invalidation`].
    RangeInvalidation,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coherency => "coherent accesses",
            Self::HardwareUpdate => "hardware update",
            Self::BreakBeforeMake => "a break-before-make level",
            Self::RangeInvalidation => "invalidation by range",
        })
    }
}

/// What an SMMU can do and this driver may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The y of SMMUv3.y (AIDR).
    pub minor_version: u8,
    /// The implementation (IIDR): product, variant, revision, implementer.
    pub iidr: u32,
    /// Stage 1 is there as well.
    pub stage1: bool,
    /// VMSAv8-32 tables are there as well; an IPA may then have 40 bits whatever `output_bits` is (§3.4).
    pub aarch32_tables: bool,
    /// Structures, queues and table walks are coherent with the PEs' caches.
    pub coherent: bool,
    /// Hardware table update; [`Httu::None`] without `coherent`.
    pub httu: Httu,
    /// What changing the size of a mapping takes.
    pub bbml: Bbml,
    /// CMD_TLBI_* by range and level.
    pub range_invalidation: bool,
    /// Broadcast TLB maintenance would be received.
    pub broadcast_tlbi: bool,
    /// EL2 TLB entries exist.
    pub el2_contexts: bool,
    /// PCIe ATS.
    pub ats: bool,
    /// PCIe page requests.
    pub pri: bool,
    /// ASIDs have 16 bits, not 8.
    pub asid16: bool,
    /// VMIDs have 16 bits, not 8.
    pub vmid16: bool,
    /// Interrupts can be messages.
    pub msi: bool,
    /// WFE wake-up events are sent, and no erratum is known of them.
    pub wake_events: bool,
    /// What may become of a faulting transaction.
    pub stall_model: StallModel,
    /// Most transactions stalled at once.
    pub stall_max: u16,
    /// Stream tables may have two levels.
    pub two_level_stream_table: bool,
    /// Bits of a StreamID, 0 to 32.
    pub stream_bits: u32,
    /// `log2` of the largest Command queue, 0 to 19.
    pub command_queue_bits: u32,
    /// `log2` of the largest Event queue, 0 to 19.
    pub event_queue_bits: u32,
    /// Incoming memory attributes can be overridden by the STE.
    pub attribute_override: bool,
    /// EL0 and EL1 execution are told apart at stage 2.
    pub execute_never_by_level: bool,
    /// Stage 2 can set memory types by itself (STE.S2FWB).
    pub forced_write_back: bool,
    /// Bits of an output address, at most 48: LPA2 and 64 KiB granules aren't used.
    pub output_bits: u32,
    /// What is to be worked around.
    pub errata: Errata,
    /// What the ID registers claim, and is not relied on.
    pub notes: Notes,
}

/// What an SMMU lacks that this driver cannot do without; each carries the register that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Not an SMMUv3; AIDR.
    Version(u32),
    /// No stage 2; IDR0.
    Stage2(u32),
    /// No VMSAv8-64 tables; IDR0.
    Aarch64Tables(u32),
    /// No little-endian table walks, or their endianness is reserved; IDR0.
    LittleEndian(u32),
    /// Every fault stalls, or the stall model is reserved; IDR0.
    StallModel(u32),
    /// Stream table or queues lie at addresses fixed in hardware; IDR1.
    Preset(u32),
    /// More than 32 StreamID bits or queues of more than `2^19` entries: not an SMMU's answer; IDR1.
    Sizes(u32),
    /// No 4 KiB granule; IDR5.
    Granule4K(u32),
    /// An output size that its version has not; IDR5.
    OutputSize(u32),
    /// It has all that is needed; but [`Limits`] give it more of this than it has.
    Raised(Ability),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(aidr) => {
                write!(f, "is not an SMMUv3 (SMMU_AIDR={aidr:#x}): check its base address")
            }
            Self::Stage2(idr0) => write!(f, "has no stage 2 translation (SMMU_IDR0={idr0:#x})"),
            Self::Aarch64Tables(idr0) => write!(f, "cannot walk AArch64 tables (SMMU_IDR0={idr0:#x})"),
            Self::LittleEndian(idr0) => write!(f, "cannot walk little-endian tables (SMMU_IDR0={idr0:#x})"),
            Self::StallModel(idr0) => write!(f, "stalls every faulting transaction (SMMU_IDR0={idr0:#x})"),
            Self::Preset(idr1) => write!(f, "has tables or queues at fixed addresses (SMMU_IDR1={idr1:#x})"),
            Self::Sizes(idr1) => {
                write!(f, "reports impossible sizes (SMMU_IDR1={idr1:#x}): check its base address")
            }
            Self::Granule4K(idr5) => write!(f, "has no 4 KiB granule (SMMU_IDR5={idr5:#x})"),
            Self::OutputSize(idr5) => {
                write!(f, "reports an output size that is reserved in its version (SMMU_IDR5={idr5:#x})")
            }
            Self::Raised(ability) => {
                write!(f, "is given more by an override than it has: {ability}; an override only lowers")
            }
        }
    }
}

/// The ID registers, as they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identification {
    idr0: u32,
    idr1: u32,
    idr3: u32,
    idr5: u32,
    iidr: u32,
    aidr: u32,
}

impl Features {
    /// Reads the ID registers, and takes away what contradicts itself, what errata break (those of the part and
    /// `errata`) and what `limits` say.
    ///
    /// # Errors
    /// What the driver cannot do without and the SMMU does not have; or an ability that `limits` would raise.
    pub fn read(registers: &impl Registers, limits: &Limits, errata: Errata) -> Result<Self, Unsupported> {
        let id = Identification {
            idr0: registers.read32(Register32::Idr0),
            idr1: registers.read32(Register32::Idr1),
            idr3: registers.read32(Register32::Idr3),
            idr5: registers.read32(Register32::Idr5),
            iidr: registers.read32(Register32::Iidr),
            aidr: registers.read32(Register32::Aidr),
        };
        id.refuse_what_is_lacking()?;
        id.decode(errata).lowered(limits)
    }

    /// Less what `limits` take away.
    fn lowered(mut self, limits: &Limits) -> Result<Self, Unsupported> {
        lower(&mut self.httu, limits.httu, Ability::HardwareUpdate)?;
        lower(&mut self.bbml, limits.bbml, Ability::BreakBeforeMake)?;
        lower(&mut self.range_invalidation, limits.range_invalidation, Ability::RangeInvalidation)?;
        lower(&mut self.coherent, limits.coherent, Ability::Coherency)?;
        let without = !self.coherent && self.httu != Httu::None;
        if self.notes.add(Note::HttuWithoutCoherency, without) {
            self.httu = Httu::None;
        }
        Ok(self)
    }

    /// The most bits an IPA can have: IAS of §3.4, at most 48.
    #[must_use]
    pub const fn input_bits(&self) -> u32 {
        if self.aarch32_tables && self.output_bits < 40 { 40 } else { self.output_bits }
    }
}

/// Lowers `ability`, which is called `name`, to `limit`.
fn lower<T: Copy + PartialOrd>(ability: &mut T, limit: Option<T>, name: Ability) -> Result<(), Unsupported> {
    match limit {
        Some(limit) if limit > *ability => return Err(Unsupported::Raised(name)),
        Some(limit) => *ability = limit,
        None => {}
    }
    Ok(())
}

impl Identification {
    fn refuse_what_is_lacking(&self) -> Result<(), Unsupported> {
        let Self { idr0, idr1, idr5, aidr, .. } = *self;
        let stall_model = IDR0::STALL_MODEL.read(idr0);
        if AIDR::MAJOR.read(aidr) != 0 {
            Err(Unsupported::Version(aidr))
        } else if !IDR0::S2P.is_set(idr0) {
            Err(Unsupported::Stage2(idr0))
        } else if IDR0::TTF.read(idr0) & 0b10 == 0 {
            Err(Unsupported::Aarch64Tables(idr0))
        } else if IDR0::TTENDIAN.read(idr0) & 0b01 != 0 {
            // Big-endian alone, or reserved.
            Err(Unsupported::LittleEndian(idr0))
        } else if stall_model > IDR0::STALL_MODEL::Value::Terminate as u32 {
            Err(Unsupported::StallModel(idr0))
        } else if IDR1::TABLES_PRESET.is_set(idr1) || IDR1::QUEUES_PRESET.is_set(idr1) {
            Err(Unsupported::Preset(idr1))
        } else if IDR1::SIDSIZE.read(idr1) > 32
            || IDR1::CMDQS.read(idr1) > 19
            || IDR1::EVENTQS.read(idr1) > 19
        {
            Err(Unsupported::Sizes(idr1))
        } else if !IDR5::GRAN4K.is_set(idr5) {
            Err(Unsupported::Granule4K(idr5))
        } else if IDR5::OAS.read(idr5) > most_output_size(AIDR::MINOR.read(aidr)) {
            Err(Unsupported::OutputSize(idr5))
        } else {
            Ok(())
        }
    }

    /// What is there, less what contradicts itself and what errata break.
    fn decode(&self, errata: Errata) -> Features {
        let Self { idr0, idr1, idr3, idr5, iidr, aidr } = *self;
        let errata = errata | Errata::of_iidr(iidr);
        let minor_version = AIDR::MINOR.read(aidr) as u8;
        let mut notes = Notes::NONE;
        let coherent = IDR0::COHACC.is_set(idr0);
        let ranges = IDR3::RIL.is_set(idr3);
        let sends_events = IDR0::SEV.is_set(idr0);
        let silent = sends_events && errata.contains(Errata::NO_WAKE_EVENTS);
        Features {
            minor_version,
            iidr,
            httu: decode_httu(idr0, minor_version, &mut notes),
            bbml: decode_bbml(idr3, minor_version, &mut notes),
            // Of the version after its own an SMMU may have any feature, of later ones none (§2.9).
            range_invalidation: ranges && !notes.add(Note::RangeVersion, ranges && minor_version == 0),
            two_level_stream_table: decode_two_level(idr0, &mut notes),
            wake_events: sends_events && !notes.add(Note::WakeEventsErratum, silent),
            coherent,
            errata,
            stage1: IDR0::S1P.is_set(idr0),
            aarch32_tables: IDR0::TTF.read(idr0) & 0b01 != 0,
            broadcast_tlbi: IDR0::BTM.is_set(idr0),
            el2_contexts: IDR0::HYP.is_set(idr0),
            ats: IDR0::ATS.is_set(idr0),
            pri: IDR0::PRI.is_set(idr0),
            asid16: IDR0::ASID16.is_set(idr0),
            vmid16: IDR0::VMID16.is_set(idr0),
            msi: IDR0::MSI.is_set(idr0),
            stall_model: match IDR0::STALL_MODEL.read(idr0) {
                0 => StallModel::Both,
                _ => StallModel::Terminate,
            },
            stall_max: IDR5::STALL_MAX.read(idr5) as u16,
            stream_bits: IDR1::SIDSIZE.read(idr1),
            command_queue_bits: IDR1::CMDQS.read(idr1),
            event_queue_bits: IDR1::EVENTQS.read(idr1),
            attribute_override: IDR1::ATTR_TYPES_OVR.is_set(idr1),
            execute_never_by_level: IDR3::XNX.is_set(idr3),
            forced_write_back: IDR3::FWB.is_set(idr3),
            output_bits: decode_output_bits(idr5),
            notes,
        }
    }
}

/// Without coherency too: [`Features::lowered`] takes it away then.
fn decode_httu(idr0: u32, minor_version: u8, notes: &mut Notes) -> Httu {
    match IDR0::HTTU.read(idr0) {
        0 => Httu::None,
        1 => Httu::AccessFlag,
        // A feature of SMMUv3.4 (§2.8).
        3 if !notes.add(Note::TableAccessFlagVersion, minor_version < 3) => Httu::TableAccessFlag,
        _ => Httu::Dirty,
    }
}

/// A feature of SMMUv3.2 (§2.4).
fn decode_bbml(idr3: u32, minor_version: u8, notes: &mut Notes) -> Bbml {
    let level = IDR3::BBML.read(idr3);
    notes.add(Note::BbmlReserved, level == 3);
    let too_early = notes.add(Note::BbmlVersion, level != 0 && minor_version == 0);
    match level {
        1 if !too_early => Bbml::Level1,
        2 if !too_early => Bbml::Level2,
        _ => Bbml::Level0,
    }
}

fn decode_two_level(idr0: u32, notes: &mut Notes) -> bool {
    let level = IDR0::ST_LEVEL.read(idr0);
    notes.add(Note::StreamTableReserved, level > 1);
    level == IDR0::ST_LEVEL::Value::TwoLevel as u32
}

/// The largest IDR5.OAS of a version: 52 bits are reserved in SMMUv3.0 and 56 up to SMMUv3.3 (§6.3.6).
const fn most_output_size(minor_version: u32) -> u32 {
    match minor_version {
        0 => 5,
        1..=3 => 6,
        _ => 7,
    }
}

fn decode_output_bits(idr5: u32) -> u32 {
    match IDR5::OAS.read(idr5) {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        // 52 and 56 bits need descriptors this library does not write.
        _ => 48,
    }
}

#[cfg(test)]
mod tests {
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
        assert!(
            features.vmid16 && features.asid16 && features.attribute_override && features.forced_write_back
        );
        assert_eq!((features.stall_model, features.stall_max), (StallModel::Both, 64));
        assert_eq!(
            (features.stream_bits, features.command_queue_bits, features.event_queue_bits),
            (32, 8, 7)
        );
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
        assert_eq!(
            text,
            "is given more by an override than it has: hardware update; an override only lowers"
        );
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
}
