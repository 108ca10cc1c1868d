//! The accesses of a VM's devices that an SMMU stopped, kept until the VM asks for them.

use strandline_abi::FaultRecord;

use crate::fifo::Fifo;

/// The newest records of a VM; older ones are dropped and counted.
#[derive(Debug)]
pub struct FaultLog {
    records: Fifo<FaultRecord, { Self::CAPACITY }>,
    lost: u64,
    total: u64,
}

impl FaultLog {
    /// The most records kept.
    pub const CAPACITY: usize = 64;

    /// An empty log.
    #[must_use]
    pub const fn new() -> Self {
        Self { records: Fifo::new(), lost: 0, total: 0 }
    }

    /// Adds a record; where there is no room the oldest one goes.
    pub fn push(&mut self, record: FaultRecord) {
        self.total += 1;
        if self.records.room() == 0 {
            self.records.pop();
            self.lost += 1;
        }
        self.records.push(record);
    }

    /// Counts records that hardware dropped before they could be read.
    pub const fn count_lost(&mut self, records: u64) {
        self.lost += records;
    }

    /// Takes the oldest record.
    pub fn pop(&mut self) -> Option<FaultRecord> {
        self.records.pop()
    }

    /// How many records are there.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.len() == 0
    }

    /// How many were lost since this was last asked.
    pub const fn take_lost(&mut self) -> u64 {
        core::mem::replace(&mut self.lost, 0)
    }

    /// How many were added so far.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }
}

impl Default for FaultLog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ipa: u64) -> FaultRecord {
        FaultRecord { ipa, ..FaultRecord::default() }
    }

    #[test]
    fn records_come_out_in_the_order_they_went_in() {
        let mut log = FaultLog::new();
        log.push(at(1));
        log.push(at(2));
        assert_eq!([log.pop(), log.pop(), log.pop()], [Some(at(1)), Some(at(2)), None]);
    }

    #[test]
    fn a_full_log_drops_the_oldest_and_counts_it() {
        let mut log = FaultLog::new();
        (0..FaultLog::CAPACITY as u64 + 3).for_each(|i| log.push(at(i)));
        assert_eq!(
            (log.len(), log.pop(), log.take_lost(), log.take_lost()),
            (FaultLog::CAPACITY, Some(at(3)), 3, 0)
        );
        assert_eq!(log.total(), FaultLog::CAPACITY as u64 + 3);
    }
}
