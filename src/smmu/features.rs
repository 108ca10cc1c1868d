//! What an SMMU can do: its ID registers (IHI 0070 §6.3.1 to §6.3.8) as a record, less what firmware or the board
//! take away.

use core::fmt;

use super::errata::Errata;
use super::limits::{Ability, Limits, lower};
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
#[non_exhaustive]
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
            stall_model: decode_stall_model(idr0, idr5, &mut notes),
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

fn decode_stall_model(idr0: u32, idr5: u32, notes: &mut Notes) -> StallModel {
    let stalls = IDR0::STALL_MODEL.read(idr0) == 0;
    let none_fits = notes.add(Note::StallMaxZero, stalls && IDR5::STALL_MAX.read(idr5) == 0);
    if stalls && !none_fits { StallModel::Both } else { StallModel::Terminate }
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
mod tests;
