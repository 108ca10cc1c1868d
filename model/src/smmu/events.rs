//! Event records (§7.3) and the Event queue (§7.2, §7.4).

use super::{EVENTQEN, Smmu};
use crate::core::Core;
use crate::memory::Observer;
use crate::truth::Reason;

/// OVFLG and OVACKFLG.
const OVERFLOW: u32 = 0x8000_0000;

/// The event number; `None` where nothing is recorded.
const fn number(reason: Reason) -> Option<u64> {
    match reason {
        Reason::Disabled | Reason::SteAborts => None,
        Reason::BadStream => Some(0x02),
        Reason::BadSte => Some(0x04),
        Reason::CalledTranslated => Some(0x07),
        Reason::External => Some(0x0b),
        Reason::Translation => Some(0x10),
        Reason::Permission => Some(0x13),
    }
}

impl Smmu {
    /// How many records wait for software.
    pub const fn events_waiting(&self) -> u32 {
        let mask = Self::ring_mask(self.eventq_base);
        (self.eventq_prod & mask).wrapping_sub(self.eventq_cons & mask) & mask
    }

    /// Whether a record can be written (§7.2.1).
    pub const fn event_queue_is_writable(&self) -> bool {
        let full = self.events_waiting() > Self::ring_mask(self.eventq_base) / 2;
        self.cr0ack & EVENTQEN != 0 && !full
    }
}

impl Core {
    /// Records why a transaction was aborted, or is stalled with a tag; loses the record where the queue is full.
    pub fn record_event(
        &mut self,
        smmu: usize,
        stream: u32,
        ipa: u64,
        write: bool,
        reason: Reason,
        stag: Option<u16>,
    ) {
        let Some(number) = number(reason).filter(|_| self.smmus[smmu].cr0ack & EVENTQEN != 0) else { return };
        let mask = Smmu::ring_mask(self.smmus[smmu].eventq_base);
        let prod = self.smmus[smmu].eventq_prod & mask;
        if !self.smmus[smmu].event_queue_is_writable() {
            // Full: OVFLG becomes the opposite of OVACKFLG.
            self.smmus[smmu].eventq_prod = prod | !self.smmus[smmu].eventq_cons & OVERFLOW;
            self.tally.records_lost += 1;
            return;
        }
        let translated = number >= 0x10;
        let stall = stag.map_or(0, |stag| 1 << 31 | u64::from(stag));
        // RnW; of a translation fault S2 and CLASS=IN as well.
        let word1 =
            u64::from(!write) << 35 | stall | if translated { 0x0280_0000_0000 & !(1 << 35) } else { 0 };
        let ipa_word = if translated { ipa & !0xfff } else { 0 };
        let record = [number | u64::from(stream) << 32, word1, ipa, ipa_word];
        let pa = (self.smmus[smmu].eventq_base & 0x00ff_ffff_ffff_ffe0) + u64::from(prod & mask >> 1) * 32;
        for (i, word) in record.into_iter().enumerate() {
            if let Some(at) = self.index(pa + i as u64 * 8) {
                self.memory.record_store(at, word, Observer::Smmu(smmu));
            }
        }
        self.tally.records += 1;
        self.smmus[smmu].eventq_prod = (prod + 1) & mask | self.smmus[smmu].eventq_prod & OVERFLOW;
    }
}
