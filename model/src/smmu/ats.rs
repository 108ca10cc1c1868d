//! Addresses that devices call translated (ATS, §3.9): a device that lies reaches what it likes, unless somebody looks.

use super::ATSCHK;
use crate::alarm::Rule;
use crate::core::Core;
use crate::truth::Reason;

impl Core {
    /// `stream` goes for `pa`, which it calls translated; whether it got there.
    pub fn called_translated(&mut self, smmu: usize, stream: u32, pa: u64) -> bool {
        let allowed = if self.smmus[smmu].translates() && self.smmus[smmu].cr0ack & ATSCHK == 0 {
            Ok(true)
        } else {
            self.translated_allowed(smmu, stream)
        };
        let reason = match allowed {
            Ok(true) => {
                let account = format!("stream {stream:#x} reaches {pa:#x}, which it calls translated");
                self.alarm(Rule::TranslatedUnchecked, account);
                return true;
            }
            Ok(false) => Reason::CalledTranslated,
            // An STE that aborts says nothing of it (§5.2, Config).
            Err(reason) => reason,
        };
        self.tally.translated_refused += 1;
        self.record_event(smmu, stream, pa, false, reason, None);
        false
    }
}
