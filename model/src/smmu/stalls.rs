//! Stalled transactions (§3.12.2, §4.7.1, §4.7.2): recorded once, tried again when software says so, or earlier.

use strandline::addr::StreamId;

use crate::alarm::Rule;
use crate::core::Core;
use crate::descriptor::{DBM, WRITE, same_mapping};
use crate::device::Transaction;
use crate::truth::{Abort, Reason};
use crate::update::Walker;

/// Steps of an SMMU with nothing to do for which a record may be without an answer.
const PATIENCE: u32 = 6_000;

/// A record of a stalled transaction that software has not answered.
#[derive(Clone, Copy)]
pub(crate) struct Stalled {
    stag: u16,
    stream: u32,
    /// The transaction. It may have ended already.
    id: u64,
    ipa: u64,
    write: bool,
    vmid: u16,
    /// Why an abort would be no disturbance: nothing was mapped there.
    unmapped: bool,
    /// For how long software has owed the answer.
    idle: u32,
}

impl Core {
    /// Transaction `index` faulted, and its STE has it stall; `false` where it can't.
    pub fn stalls(&mut self, index: usize, reason: Reason) -> bool {
        let Transaction { id, master, ipa, write, walker, .. } = self.traffic[index];
        let Walker::Smmu(smmu) = walker else { return false };
        let can = matches!(reason, Reason::Translation | Reason::Permission);
        if !can || self.devices.iter().any(|d| d.stream == master && d.never_stalls) {
            return false;
        }
        // An early retry that failed: it is as it was.
        if self.traffic[index].is_stalled() && self.smmus[smmu].stalls.iter().any(|s| s.id == id) {
            return true;
        }
        let like = |s: &Stalled| (s.stream, s.ipa >> 12, s.write) == (master, ipa >> 12, write);
        let recorded = self.smmus[smmu].stalls.iter().find(|s| like(s)).map(|s| s.id);
        let first_waits = self.traffic.iter().any(|t| Some(t.id) == recorded && t.is_stalled());
        let suppressed = first_waits && self.random.coin();
        let stag = self.free_stag(smmu).filter(|_| !suppressed && self.smmus[smmu].event_queue_is_writable());
        self.traffic[index].stall();
        let Some(stag) = stag else {
            self.tally.stalls_unrecorded += 1;
            return true;
        };
        self.tally.stalls += 1;
        let vmid = self.regime_of(walker, master).map_or(0, |r| r.vmid);
        let unmapped = reason == Reason::Translation && self.truth.may_fault(ipa);
        self.smmus[smmu].stalls.push(Stalled {
            stag,
            stream: master,
            id,
            ipa,
            write,
            vmid,
            unmapped,
            idle: 0,
        });
        if write {
            self.truth.touch(walker, ipa, self.step);
        }
        self.record_event(smmu, master, ipa, write, reason, Some(stag));
        true
    }

    /// A tag that no record without an answer has.
    fn free_stag(&mut self, smmu: usize) -> Option<u16> {
        let most = self.smmus[smmu].has.stall_max;
        let free: Vec<u16> =
            (0..most).filter(|t| self.smmus[smmu].stalls.iter().all(|s| s.stag != *t)).collect();
        if free.is_empty() { None } else { Some(free[self.random.index(free.len())]) }
    }

    /// Whether a stalled transaction is tried again now, without an answer: early (§3.12.2.2), or because it has no record
    /// and could have one.
    pub fn tries_again(&mut self, transaction: &Transaction) -> bool {
        let Walker::Smmu(smmu) = transaction.walker else { return false };
        let recorded = self.smmus[smmu].stalls.iter().any(|s| s.id == transaction.id);
        if !recorded {
            let like = |s: &Stalled| {
                s.stream == transaction.master
                    && s.ipa >> 12 == transaction.ipa >> 12
                    && s.write == transaction.write
                    && self.traffic.iter().any(|t| t.id == s.id && t.is_stalled())
            };
            return !self.smmus[smmu].stalls.iter().any(like) && self.smmus[smmu].event_queue_is_writable();
        }
        self.random.chance(64)
    }

    /// CMD_RESUME.
    pub(super) fn resume_stalled(&mut self, smmu: usize, stream: u32, stag: u16, retry: bool) {
        let Some(place) = self.smmus[smmu].stalls.iter().position(|s| (s.stream, s.stag) == (stream, stag))
        else {
            let account =
                format!("CMD_RESUME of stream {stream:#x}, tag {stag:#x}: no record without an answer");
            self.alarm(Rule::ResumedTwice, account);
            return;
        };
        let stalled = self.smmus[smmu].stalls.swap_remove(place);
        if retry && stalled.write {
            self.check_retry(smmu, &stalled);
            // Who answered it took the page for written, whatever the device does next.
            self.truth.touch(Walker::Smmu(smmu), stalled.ipa, self.step);
        }
        let index = self.traffic.iter().position(|t| t.id == stalled.id && t.is_stalled());
        match index {
            // It was tried again early.
            None => self.tally.early_retries += 1,
            Some(index) if retry => self.traffic[index].translate_again(),
            Some(index) => {
                self.traffic.swap_remove(index);
                self.tally.stalls_aborted += 1;
                if !stalled.unmapped && !self.truth.may_fault(stalled.ipa) {
                    let Stalled { ipa, write, .. } = stalled;
                    let (stream, reason) = (StreamId(stream), Reason::Permission);
                    self.truth.aborts.push(Abort { stream, ipa, write, reason, step: self.step });
                }
            }
        }
    }

    /// A retry that meets the entry which stalled it, though the descriptor permits the write by now, stalls again.
    fn check_retry(&mut self, smmu: usize, stalled: &Stalled) {
        let forbids = |e: &crate::tlb::Entry| {
            let newest = self.memory.newest(e.at);
            e.word & WRITE == 0 && same_mapping(newest, e.word) && newest & (DBM | WRITE) == DBM | WRITE
        };
        let tlb = &self.smmus[smmu].tlb;
        let left = tlb.leaves(stalled.vmid, stalled.ipa).map(|i| tlb.entries[i]).find(forbids);
        if let Some(entry) = left {
            let account = format!("a write to {:#x} is tried again, and {entry} is left", stalled.ipa);
            self.alarm(Rule::ResumedTooEarly, account);
        }
    }

    /// CMD_STALL_TERM: what has stalled of a stream ends, and its tags are free.
    pub(super) fn terminate_stalled(&mut self, smmu: usize, stream: u32) {
        if self.stream_regime(smmu, stream) != Err(Reason::SteAborts) {
            let account = format!("CMD_STALL_TERM of stream {stream:#x}, whose STE does not abort");
            self.alarm(Rule::StallTermTooEarly, account);
        }
        self.smmus[smmu].stalls.retain(|s| s.stream != stream);
        let before = self.traffic.len();
        self.traffic.retain(|t| t.walker != Walker::Smmu(smmu) || t.master != stream || !t.is_stalled());
        self.tally.stalls_terminated += (before - self.traffic.len()) as u64;
    }

    /// Software owes answers, and the SMMU has nothing else to do.
    pub(super) fn watch_stalls(&mut self, smmu: usize) {
        if self.smmus[smmu].commands_waiting() > 0 {
            return;
        }
        for stalled in &mut self.smmus[smmu].stalls {
            stalled.idle += 1;
        }
        let forgotten = self.smmus[smmu].stalls.iter().find(|s| s.idle == PATIENCE).copied();
        if let Some(Stalled { stream, ipa, stag, .. }) = forgotten {
            let account = format!("stream {stream:#x} waits at {ipa:#x}, tag {stag:#x}: nobody answers");
            self.alarm(Rule::StallUnanswered, account);
        }
    }
}
