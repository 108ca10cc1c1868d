//! The Command queue (§3.5, chapter 4): one command at a time, at a time of chance; CMD_SYNC when what came before
//! has completed.

use super::stream_table::ConfigInvalidation;
use super::{CMDQ_ERR, CMDQEN, Smmu};
use crate::alarm::Rule;
use crate::core::Core;
use crate::journal::Happening;
use crate::memory::Observer;
use crate::tlb::Reach;
use crate::update::{Walker, Walkers};

/// CERROR_ILL.
const ILLEGAL: u8 = 1;
/// CERROR_ABT.
const FETCH_ABORT: u8 = 2;
/// CERROR_ATC_INV_SYNC.
const ATC_INVALIDATE_SYNC: u8 = 3;
/// CMD_SYNC.
const SYNC: u64 = 0x46;
/// As many commands of one kind as may follow each other on a part that minds.
const MOST_OF_A_KIND: u32 = 63;

/// Bits `low` and up of `word`, as many as `count`.
const fn bits(word: u64, low: u32, count: u32) -> u64 {
    word >> low & ((1 << count) - 1)
}

impl Core {
    pub(super) fn command_pa(&self, smmu: usize, index: u32) -> u64 {
        let mask = Smmu::ring_mask(self.smmus[smmu].cmdq_base);
        (self.smmus[smmu].cmdq_base & 0x00ff_ffff_ffff_ffe0) + u64::from(index & mask >> 1) * 16
    }

    /// Consumes the next command, if there is one and chance has it.
    pub(super) fn consume_command(&mut self, smmu: usize) {
        let unit = &self.smmus[smmu];
        let runs = unit.cr0ack & CMDQEN != 0 && unit.active_errors() & CMDQ_ERR == 0;
        if !runs || unit.commands_waiting() == 0 {
            return;
        }
        let pa = self.command_pa(smmu, self.smmus[smmu].cmdq_cons);
        let outcome = match (self.fetch(smmu, pa), self.fetch(smmu, pa + 8)) {
            (Some(word0), Some(word1)) => match self.failure_of(smmu, word0) {
                Some(code) => Err(code),
                None => self
                    .execute(smmu, [word0, word1])
                    .inspect(|consumed| self.note_run(smmu, word0, *consumed)),
            },
            _ => Err(FETCH_ABORT),
        };
        match outcome {
            Ok(true) => {
                self.smmus[smmu].submitted.pop_front();
                self.tally.commands += 1;
                let mask = Smmu::ring_mask(self.smmus[smmu].cmdq_base);
                self.smmus[smmu].cmdq_cons = (self.smmus[smmu].cmdq_cons & mask).wrapping_add(1) & mask;
            }
            Ok(false) => {}
            Err(code) => {
                let mask = Smmu::ring_mask(self.smmus[smmu].cmdq_base);
                self.smmus[smmu].cmdq_cons = self.smmus[smmu].cmdq_cons & mask | u32::from(code) << 24;
                self.smmus[smmu].gerror ^= CMDQ_ERR;
            }
        }
    }

    /// The error that the command is to be answered with; that of an ATC invalidation is a CMD_SYNC's (§7.1).
    fn failure_of(&mut self, smmu: usize, word0: u64) -> Option<u8> {
        let waits = |code: &u8| *code == ATC_INVALIDATE_SYNC && word0 & 0xff != SYNC;
        if self.smmus[smmu].failures.front().is_some_and(waits) {
            None
        } else {
            self.smmus[smmu].failures.pop_front()
        }
    }

    /// Looks at what was consumed since the last CMD_SYNC, on a part that minds.
    fn note_run(&mut self, smmu: usize, word0: u64, consumed: bool) {
        if !consumed || !self.smmus[smmu].has.sync_between {
            return;
        }
        let (opcode, (before, count)) = (word0 & 0xff, self.smmus[smmu].run);
        let most = MOST_OF_A_KIND.min(Smmu::ring_mask(self.smmus[smmu].cmdq_base) / 2).max(1);
        if opcode == SYNC {
            self.smmus[smmu].run = (SYNC, 0);
            return;
        }
        if count > 0 && (opcode != before || count >= most) {
            let account = format!("command {opcode:#x} follows {count} of {before:#x}");
            self.alarm(Rule::NoSyncBetween, account);
        }
        self.smmus[smmu].run = (opcode, count + 1);
    }

    /// The word at `pa` as the SMMU finds it.
    pub(super) fn fetch(&mut self, smmu: usize, pa: u64) -> Option<u64> {
        let at = self.index(pa)?;
        Some(self.memory.look(Observer::Smmu(smmu), at, &mut self.random).value)
    }

    /// Executes a command; `Ok(false)` where it is not consumed yet.
    fn execute(&mut self, smmu: usize, [word0, word1]: [u64; 2]) -> Result<bool, u8> {
        let (vmid, step) = (bits(word0, 32, 16) as u16, self.step);
        match word0 & 0xff {
            0x03 => self.smmus[smmu].config_invalidations.push(ConfigInvalidation {
                stream: Some(bits(word0, 32, 32) as u32),
                leaf: word1 & 1 != 0,
                begun: step,
            }),
            // A range of 31 is CFGI_ALL; a smaller one reaches further than asked, which is allowed.
            0x04 => {
                self.smmus[smmu].config_invalidations.push(ConfigInvalidation {
                    stream: None,
                    leaf: false,
                    begun: step,
                });
            }
            0x28 => self.smmus[smmu].invalidations.push((Reach::Vmid(vmid), step)),
            0x2a => {
                let reach = self.ipa_reach(smmu, vmid, word0, word1)?;
                self.smmus[smmu].invalidations.push((reach, step));
            }
            0x30 => self.smmus[smmu].invalidations.push((Reach::All, step)),
            0x44 | 0x45 if self.smmus[smmu].has.stall_model == 1 => return Err(ILLEGAL),
            0x44 => {
                let (stream, stag) = (bits(word0, 32, 32) as u32, bits(word1, 0, 16) as u16);
                self.resume_stalled(smmu, stream, stag, bits(word0, 12, 1) != 0);
            }
            0x45 => self.terminate_stalled(smmu, bits(word0, 32, 32) as u32),
            0x46 => {
                if self.smmus[smmu].syncs_held || self.random.coin() {
                    return Ok(false);
                }
                self.sync(smmu);
            }
            _ => return Err(ILLEGAL),
        }
        self.note(Happening::Command(Walker::Smmu(smmu), [word0, word1]));
        Ok(true)
    }

    /// What CMD_TLBI_S2_IPA reaches (§4.4.1.1, §4.4.3.1), and not a page more.
    fn ipa_reach(&mut self, smmu: usize, vmid: u16, word0: u64, word1: u64) -> Result<Reach, u8> {
        let first = word1 & 0x00ff_ffff_ffff_f000;
        let leaf_only = word1 & 1 != 0;
        let granule = bits(word1, 10, 2);
        if granule == 0 || !self.smmus[smmu].has.range_invalidation {
            return Ok(Reach::Ipa { vmid, first, bytes: 0x1000, leaf_only, ttl: 0 });
        }
        let (num, scale, ttl) = (bits(word0, 12, 5), bits(word0, 20, 5), bits(word1, 8, 2) as u8);
        if num == 0 && scale == 0 && ttl == 0 {
            return Err(ILLEGAL);
        }
        let aligned = match ttl {
            1 => 0x3fff_ffff,
            2 => 0x1f_ffff,
            _ => 0xfff,
        };
        if first & aligned != 0 {
            let account = format!("CMD_TLBI_S2_IPA with TTL={ttl} and address {first:#x}");
            self.alarm(Rule::LevelHint, account);
        }
        Ok(Reach::Ipa { vmid, first, bytes: (num + 1) << (scale + 12), leaf_only, ttl })
    }

    /// CMD_SYNC completes: with it all that came before (§4.7.3), and the updates of what had completed when it was
    /// submitted (§3.13.4).
    fn sync(&mut self, smmu: usize) {
        for (reach, begun) in std::mem::take(&mut self.smmus[smmu].invalidations) {
            self.memory.forget_cleans();
            self.complete_covered(Walkers::Smmu(smmu), reach, begun);
            if self.smmus[smmu].has.outliving {
                let Self { smmus, random, tally, .. } = self;
                tally.outlived += smmus[smmu].tlb.remove_most(reach, begun, random);
            } else {
                self.smmus[smmu].tlb.remove(reach, begun);
            }
            self.smmus[smmu].reset_tlb &= !matches!(reach, Reach::All);
        }
        for invalidation in std::mem::take(&mut self.smmus[smmu].config_invalidations) {
            self.complete_all_of(Walker::Smmu(smmu), invalidation.stream);
            self.forget_config(smmu, invalidation);
        }
        let submitted = self.smmus[smmu].submitted.front().copied().unwrap_or(self.step);
        self.force(|u| u.walker == Walker::Smmu(smmu) && u.relied.is_some_and(|r| r <= submitted));
    }
}
