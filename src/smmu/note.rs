//! What the driver makes of ID registers that contradict themselves: one line each, for whoever brings an SMMU up to
//! print.

use core::fmt;

/// An ability that ID registers claim and the driver does not rely on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// IDR0.HTTU without IDR0.COHACC: what it does is IMPLEMENTATION DEFINED (§3.15).
    HttuWithoutCoherency,
    /// IDR0.HTTU=0b11 before SMMUv3.3, which may have features of the version after it, and no later (§2.8, §2.9).
    TableAccessFlagVersion,
    /// IDR3.RIL in SMMUv3.0; it came with SMMUv3.2 (§2.4, §2.9).
    RangeVersion,
    /// IDR3.BBML in SMMUv3.0; it came with SMMUv3.2 (§2.4, §2.9).
    BbmlVersion,
    /// IDR3.BBML=0b11.
    BbmlReserved,
    /// IDR0.ST_LEVEL=0b1x.
    StreamTableReserved,
    /// IDR0.SEV, and an erratum.
    WakeEventsErratum,
    /// IDR0.STALL_MODEL=0b00, and IDR5.STALL_MAX=0: not one transaction could be stalled (§6.3.6).
    StallMaxZero,
}

impl Note {
    const ALL: [Self; 8] = [
        Self::HttuWithoutCoherency,
        Self::TableAccessFlagVersion,
        Self::RangeVersion,
        Self::BbmlVersion,
        Self::BbmlReserved,
        Self::StreamTableReserved,
        Self::WakeEventsErratum,
        Self::StallMaxZero,
    ];

    /// The note as a line.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::HttuWithoutCoherency => "hardware update is not used: its accesses aren't coherent",
            Self::TableAccessFlagVersion => "table access flags aren't used: its version has none",
            Self::RangeVersion => "invalidation by range is not used: its version has none",
            Self::BbmlVersion => "break-before-make level 0 is assumed: its version has no other",
            Self::BbmlReserved => "break-before-make level 0 is assumed: SMMU_IDR3.BBML is reserved",
            Self::StreamTableReserved => "the stream table is linear: SMMU_IDR0.ST_LEVEL is reserved",
            Self::WakeEventsErratum => "wake-up events aren't relied on: the part has an erratum",
            Self::StallMaxZero => "no stream may stall: SMMU_IDR5.STALL_MAX is 0",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A set of notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes(u8);

impl Notes {
    /// No note.
    pub const NONE: Self = Self(0);

    /// Adds `note` if `holds`, and says whether it does.
    pub(super) const fn add(&mut self, note: Note, holds: bool) -> bool {
        self.0 |= (holds as u8) << note as u8;
        holds
    }

    /// The notes, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Note> {
        Note::ALL.into_iter().filter(move |note| self.0 >> *note as u8 & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn notes_come_back_as_they_were_added() {
        for note in Note::ALL {
            let mut notes = Notes::NONE;
            assert!(!notes.add(note, false) && notes == Notes::NONE);
            assert!(notes.add(note, true));
            assert_eq!(notes.iter().collect::<Vec<_>>(), [note]);
        }
    }

    #[test]
    fn no_two_notes_say_the_same() {
        let mut texts: Vec<_> = Note::ALL.iter().map(|note| note.text()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Note::ALL.len());
    }
}
