//! What a run met: a test that met nothing proves nothing.

use std::ops::AddAssign;

/// Counts of what happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps of software and hardware together.
    pub steps: u64,
    /// Translations taken from a TLB entry that memory no longer agrees with.
    pub stale_hits: u64,
    /// Entries fetched that nobody asked for.
    pub prefetches: u64,
    /// Entries dropped that nobody invalidated.
    pub evictions: u64,
    /// Walks begun from a cached table descriptor.
    pub cached_walks: u64,
    /// Dirty bits set by hardware.
    pub updates: u64,
    /// Access flags of tables set by hardware.
    pub table_flags: u64,
    /// Of all updates, those held back until a CMD_SYNC, a TLB invalidation or a DSB forced them out.
    pub held_back: u64,
    /// Updates that landed between software's look at a descriptor and its change of it, or between its clean of it and
    /// the completion of the invalidation.
    pub races: u64,
    /// Updates that found the descriptor replaced, so that the access was translated again.
    pub retranslated: u64,
    /// Dirty bits the architecture permits and nothing wrote.
    pub spurious: u64,
    /// Walks that read an old value of a word not yet made visible.
    pub old_values_read: u64,
    /// DMA writes completed.
    pub dma_writes: u64,
    /// vCPU stores completed.
    pub cpu_writes: u64,
    /// Transactions completed by an invalidation that they were in flight across.
    pub completed_by_invalidation: u64,
    /// Addresses found in two sizes in one TLB.
    pub two_sizes: u64,
    /// Commands consumed.
    pub commands: u64,
    /// Write-protect faults reported to software.
    pub write_faults: u64,
    /// vCPU accesses that met an entry that is absent or forbids them, write-protect faults apart.
    pub cpu_faults: u64,
    /// Accesses of vCPUs and devices to memory that was being unmapped, or was.
    pub expected_faults: u64,
    /// Pages reported at last that could not be delivered before.
    pub retried: u64,
    /// Descriptors that walks of the SMMU have read.
    pub smmu_reads: u64,
    /// Entries that outlived an invalidation.
    pub outlived: u64,
    /// Accesses to addresses called translated that the SMMU refused.
    pub translated_refused: u64,
    /// Event records written.
    pub records: u64,
    /// Event records lost, the queue being full.
    pub records_lost: u64,
    /// Cache lines that software has cleaned.
    pub lines_cleaned: u64,
    /// Cache lines that software has invalidated.
    pub lines_invalidated: u64,
    /// Transactions that stalled and were recorded.
    pub stalls: u64,
    /// Of these, those that were tried again, and did what they were to do, before software answered.
    pub early_retries: u64,
    /// Transactions that stalled without a record: another one's would do, or the Event queue was full.
    pub stalls_unrecorded: u64,
    /// Stalled transactions that ended with their stream.
    pub stalls_terminated: u64,
    /// Stalled transactions that software aborted.
    pub stalls_aborted: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.stale_hits += other.stale_hits;
        self.prefetches += other.prefetches;
        self.evictions += other.evictions;
        self.cached_walks += other.cached_walks;
        self.updates += other.updates;
        self.table_flags += other.table_flags;
        self.held_back += other.held_back;
        self.races += other.races;
        self.retranslated += other.retranslated;
        self.spurious += other.spurious;
        self.old_values_read += other.old_values_read;
        self.dma_writes += other.dma_writes;
        self.cpu_writes += other.cpu_writes;
        self.completed_by_invalidation += other.completed_by_invalidation;
        self.two_sizes += other.two_sizes;
        self.commands += other.commands;
        self.write_faults += other.write_faults;
        self.cpu_faults += other.cpu_faults;
        self.expected_faults += other.expected_faults;
        self.retried += other.retried;
        self.smmu_reads += other.smmu_reads;
        self.outlived += other.outlived;
        self.translated_refused += other.translated_refused;
        self.records += other.records;
        self.records_lost += other.records_lost;
        self.lines_cleaned += other.lines_cleaned;
        self.lines_invalidated += other.lines_invalidated;
        self.stalls += other.stalls;
        self.early_retries += other.early_retries;
        self.stalls_unrecorded += other.stalls_unrecorded;
        self.stalls_terminated += other.stalls_terminated;
        self.stalls_aborted += other.stalls_aborted;
    }
}
