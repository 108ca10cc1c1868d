//! Event records, decoded (IHI 0070 §7.3).

use core::fmt;

use crate::addr::{Ipa, StreamId};

use super::spec::event::{EVENT_WORDS, EVENT0, EVENT1, EVENT3};

/// What an event record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// F_UUT: a transaction of a kind the SMMU does not take.
    UnsupportedTransaction,
    /// C_BAD_STREAMID: the stream is beyond the stream table, or in a part of it nobody was assigned in.
    UnknownStream,
    /// F_STE_FETCH: the stream table could not be read.
    SteFetch,
    /// C_BAD_STE: the stream is assigned to nobody (or its STE is illegal).
    UnassignedStream,
    /// F_BAD_ATS_TREQ: an ATS translation request; ATS is off.
    AtsRequest,
    /// F_STREAM_DISABLED: a stream of a stage-1 context that is off.
    StreamDisabled,
    /// F_TRANSL_FORBIDDEN: ATS translated traffic; ATS is off.
    AtsTranslated,
    /// C_BAD_SUBSTREAMID: a SubstreamID where none is taken.
    BadSubstream,
    /// F_CD_FETCH: a context descriptor could not be read.
    CdFetch,
    /// C_BAD_CD: a context descriptor is invalid.
    BadCd,
    /// F_WALK_EABT: a translation table could not be read, or updated.
    WalkAbort,
    /// F_TRANSLATION: nothing is mapped at the address.
    Translation,
    /// F_ADDR_SIZE: the address, or what it is translated to, is too large.
    AddressSize,
    /// F_ACCESS: the access flag is clear.
    AccessFlag,
    /// F_PERMISSION: the page may not be accessed so.
    Permission,
    /// F_TLB_CONFLICT: several TLB entries match.
    TlbConflict,
    /// F_CFG_CONFLICT: several cached configurations match.
    ConfigConflict,
    /// E_PAGE_REQUEST: a hint that a page will be wanted.
    PageRequest,
    /// F_VMS_FETCH: a virtual machine structure could not be read.
    VmsFetch,
    /// A number this driver does not know; the raw record says all there is.
    Other(u8),
}

impl FaultKind {
    fn decode(word0: u64) -> Self {
        use EVENT0::TYPE::Value;
        match EVENT0::TYPE.read_as_enum(word0) {
            Some(Value::UnsupportedTransaction) => Self::UnsupportedTransaction,
            Some(Value::BadStreamId) => Self::UnknownStream,
            Some(Value::SteFetch) => Self::SteFetch,
            Some(Value::BadSte) => Self::UnassignedStream,
            Some(Value::BadAtsRequest) => Self::AtsRequest,
            Some(Value::StreamDisabled) => Self::StreamDisabled,
            Some(Value::TranslatedForbidden) => Self::AtsTranslated,
            Some(Value::BadSubstreamId) => Self::BadSubstream,
            Some(Value::CdFetch) => Self::CdFetch,
            Some(Value::BadCd) => Self::BadCd,
            Some(Value::WalkAbort) => Self::WalkAbort,
            Some(Value::Translation) => Self::Translation,
            Some(Value::AddressSize) => Self::AddressSize,
            Some(Value::AccessFlag) => Self::AccessFlag,
            Some(Value::Permission) => Self::Permission,
            Some(Value::TlbConflict) => Self::TlbConflict,
            Some(Value::ConfigConflict) => Self::ConfigConflict,
            Some(Value::PageRequest) => Self::PageRequest,
            Some(Value::VmsFetch) => Self::VmsFetch,
            None => Self::Other(EVENT0::TYPE.read(word0) as u8),
        }
    }

    /// Whether the record says where and how memory was accessed (§7.3.13 to §7.3.16).
    #[must_use]
    pub const fn is_translation_related(self) -> bool {
        matches!(self, Self::Translation | Self::AddressSize | Self::AccessFlag | Self::Permission)
    }

    /// Whether the record carries the fields of `FaultEvent::access`.
    const fn has_access(self) -> bool {
        self.is_translation_related()
            || matches!(
                self,
                Self::UnsupportedTransaction | Self::AtsTranslated | Self::WalkAbort | Self::TlbConflict
            )
    }
}

/// How memory was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data was read.
    Read,
    /// Data was written.
    Write,
    /// An instruction was fetched.
    Fetch,
}

/// What was being translated (CLASS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// The fetch of a context descriptor.
    ContextDescriptor,
    /// A stage-1 table walk.
    Stage1Walk,
    /// The transaction's own address.
    Input,
}

/// One event record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEvent {
    /// The stream it is about.
    pub stream: StreamId,
    /// The SubstreamID, where one came with the transaction.
    pub substream: Option<u32>,
    /// What happened.
    pub kind: FaultKind,
    /// The address the device gave; for a stream of stage 2 alone that is the IPA, to the byte. Zero where the kind
    /// has none. Where several events were merged into one record, the low 12 bits are those of one of them.
    pub address: u64,
    /// The page of the IPA that stage 2 was asked for, where stage 2 faulted.
    pub ipa: Option<Ipa>,
    /// How memory was accessed, where the kind says.
    pub access: Option<Access>,
    /// The access was privileged.
    pub privileged: bool,
    /// Stage 2 faulted, not stage 1. An IPA too large for the SMMU faults in stage 1 even where only stage 2
    /// translates (§3.4).
    pub stage2: bool,
    /// What was being translated, where the kind says.
    pub class: Option<FaultClass>,
    /// The transaction waits for CMD_RESUME with this tag.
    pub stall: Option<u16>,
    /// The record as it was written.
    pub raw: [u64; EVENT_WORDS],
}

impl FaultEvent {
    /// Decodes a record. Fields that its kind does not define are left out; nothing the SMMU writes is refused.
    #[must_use]
    pub fn decode(raw: [u64; EVENT_WORDS]) -> Self {
        let [word0, word1, word2, word3] = raw;
        let kind = FaultKind::decode(word0);
        let stage2 = kind.is_translation_related() && EVENT1::S2.is_set(word1);
        let ipa = Ipa(word3 & (EVENT3::IPA.mask << EVENT3::IPA.shift));
        let stalled = kind.is_translation_related() && EVENT1::STALL.is_set(word1);
        Self {
            stream: StreamId(EVENT0::STREAM.read(word0) as u32),
            substream: EVENT0::SSV.is_set(word0).then(|| EVENT0::SUBSTREAM.read(word0) as u32),
            kind,
            address: word2,
            ipa: stage2.then_some(ipa),
            access: kind.has_access().then(|| decode_access(word1)),
            privileged: kind.has_access() && EVENT1::PNU.is_set(word1),
            stage2,
            class: if kind.is_translation_related() { decode_class(word1) } else { None },
            stall: stalled.then(|| EVENT1::STAG.read(word1) as u16),
            raw,
        }
    }
}

impl FaultEvent {
    /// The page that was to be written where the record is of a write that stage 2 did not permit.
    #[must_use]
    pub fn denied_write(&self) -> Option<Ipa> {
        let write = self.kind == FaultKind::Permission
            && self.access == Some(Access::Write)
            && self.class == Some(FaultClass::Input);
        self.ipa.filter(|_| write)
    }
}

fn decode_access(word1: u64) -> Access {
    match (EVENT1::RNW.is_set(word1), EVENT1::IND.is_set(word1)) {
        (false, _) => Access::Write,
        (true, false) => Access::Read,
        (true, true) => Access::Fetch,
    }
}

fn decode_class(word1: u64) -> Option<FaultClass> {
    use EVENT1::CLASS::Value;
    match EVENT1::CLASS.read_as_enum(word1) {
        Some(Value::ContextDescriptor) => Some(FaultClass::ContextDescriptor),
        Some(Value::Stage1Walk) => Some(FaultClass::Stage1Walk),
        Some(Value::Input) => Some(FaultClass::Input),
        None => None,
    }
}

impl fmt::Display for FaultEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}: {:?}", self.stream, self.kind)?;
        match self.access {
            Some(Access::Read) => write!(f, ", reading {:#x}", self.address)?,
            Some(Access::Write) => write!(f, ", writing {:#x}", self.address)?,
            Some(Access::Fetch) => write!(f, ", fetching {:#x}", self.address)?,
            None => {}
        }
        if self.stall.is_some() { f.write_str(", stalled") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn unmapped_write_decodes() {
        let raw =
            [0x0000_0008_0000_0010, 0x0000_0280_0000_0000, 0x0000_0000_8000_1234, 0x0000_0000_8000_1234];
        let event = FaultEvent::decode(raw);
        let expected = FaultEvent {
            stream: StreamId(8),
            substream: None,
            kind: FaultKind::Translation,
            address: 0x8000_1234,
            ipa: Some(Ipa(0x8000_1000)),
            access: Some(Access::Write),
            privileged: false,
            stage2: true,
            class: Some(FaultClass::Input),
            stall: None,
            raw,
        };
        assert_eq!(event, expected);
        assert_eq!(event.to_string(), "stream 0x8: Translation, writing 0x80001234");
    }

    #[test]
    fn stalled_permission_fault_carries_its_tag() {
        let raw = [0x0000_0100_0000_0013, 0x0000_0280_8000_beef, 0x4000_0000, 0x4000_0000];
        let event = FaultEvent::decode(raw);
        assert_eq!((event.kind, event.stall), (FaultKind::Permission, Some(0xbeef)));
        assert_eq!(event.to_string(), "stream 0x100: Permission, writing 0x40000000, stalled");
    }

    #[test]
    fn only_a_write_that_stage_2_did_not_permit_is_a_denied_write() {
        let denied = |kind, word1| FaultEvent::decode([kind, word1, 0, 0x4000_1000]).denied_write();
        assert_eq!(denied(0x13, 0x0000_0280_8000_0000), Some(Ipa(0x4000_1000)));
        assert_eq!(denied(0x13, 0x0000_0280_0000_0000), Some(Ipa(0x4000_1000)), "stalled or not");
        assert_eq!(denied(0x13, 0x0000_0288_8000_0000), None, "a read");
        assert_eq!(denied(0x13, 0x0000_0200_8000_0000), None, "of stage 1");
        assert_eq!(denied(0x13, 0x0000_0180_8000_0000), None, "of a stage-1 walk");
        assert_eq!(denied(0x10, 0x0000_0280_8000_0000), None, "nothing mapped");
    }

    #[test]
    fn reads_and_fetches_are_told_apart() {
        let access = |word1| FaultEvent::decode([0x10, word1, 0, 0]).access;
        assert_eq!(access(0x0000_0288_0000_0000), Some(Access::Read));
        assert_eq!(access(0x0000_028c_0000_0000), Some(Access::Fetch));
        assert!(FaultEvent::decode([0x10, 0x0000_0282_0000_0000, 0, 0]).privileged);
    }

    #[test]
    fn substream_is_there_only_with_its_flag() {
        let with = FaultEvent::decode([0x0000_0001_abcd_e802, 0, 0, 0]);
        assert_eq!(with.substream, Some(0xabcde));
        let without = FaultEvent::decode([0x0000_0001_abcd_e002, 0, 0, 0]);
        assert_eq!(without.substream, None);
    }

    #[test]
    fn configuration_errors_say_nothing_of_an_access() {
        let event = FaultEvent::decode([0x0000_1234_0000_0002, 0, 0, 0]);
        assert_eq!((event.kind, event.stream), (FaultKind::UnknownStream, StreamId(0x1234)));
        assert_eq!((event.access, event.ipa, event.class, event.stall), (None, None, None, None));
        assert_eq!(event.to_string(), "stream 0x1234: UnknownStream");
    }

    #[test]
    fn stage_1_address_size_fault_has_no_ipa() {
        let event = FaultEvent::decode([0x11, 0x0000_0200_0000_0000, 1 << 45, 0xffff_f000]);
        assert_eq!((event.stage2, event.ipa, event.address), (false, None, 1 << 45));
    }

    #[test]
    fn reserved_class_is_no_class() {
        assert_eq!(FaultEvent::decode([0x10, 0x0000_0380_0000_0000, 0, 0]).class, None);
    }

    #[test]
    fn every_event_number_of_section_7_3_has_its_kind() {
        let kinds = [
            (0x01, FaultKind::UnsupportedTransaction),
            (0x02, FaultKind::UnknownStream),
            (0x03, FaultKind::SteFetch),
            (0x04, FaultKind::UnassignedStream),
            (0x05, FaultKind::AtsRequest),
            (0x06, FaultKind::StreamDisabled),
            (0x07, FaultKind::AtsTranslated),
            (0x08, FaultKind::BadSubstream),
            (0x09, FaultKind::CdFetch),
            (0x0a, FaultKind::BadCd),
            (0x0b, FaultKind::WalkAbort),
            (0x10, FaultKind::Translation),
            (0x11, FaultKind::AddressSize),
            (0x12, FaultKind::AccessFlag),
            (0x13, FaultKind::Permission),
            (0x20, FaultKind::TlbConflict),
            (0x21, FaultKind::ConfigConflict),
            (0x24, FaultKind::PageRequest),
            (0x25, FaultKind::VmsFetch),
        ];
        for (number, kind) in kinds {
            assert_eq!(FaultEvent::decode([number, 0, 0, 0]).kind, kind);
        }
    }

    #[test]
    fn unknown_event_is_kept_raw() {
        let raw = [0x0000_0007_0000_00ee, u64::MAX, u64::MAX, u64::MAX];
        let event = FaultEvent::decode(raw);
        assert_eq!((event.kind, event.raw), (FaultKind::Other(0xee), raw));
        assert_eq!((event.stream, event.access, event.stall), (StreamId(7), None, None));
    }
}
