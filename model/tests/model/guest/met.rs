//! How a life is mixed, and what was met in it.

use std::ops::AddAssign;

use strandline_model::Tally;

/// How often, of 1024, what happens.
#[derive(Clone, Copy, Default)]
pub struct Mix {
    /// Frames are nearly used up before an operation that takes some.
    pub exhaust: u64,
    /// A region comes or goes.
    pub remap: u64,
    /// A view comes or goes.
    pub replug: u64,
    /// The log is started or stopped.
    pub toggle: u64,
    /// A sync or clear whose consumer fails.
    pub undelivered: u64,
    /// The SMMU stops answering.
    pub death: u64,
    /// A device that comes may write unseen.
    pub mixed: u64,
    /// A log has a granule of 2 MiB.
    pub blocks: u64,
    /// A start during which the SMMU refuses a command.
    pub refusal: u64,
    /// The SMMU of the second device bears less than that of the first where sizes change.
    pub lesser: bool,
}

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    pub tally: Tally,
    pub splits: u64,
    pub merges: u64,
    pub starts: u64,
    pub abandoned_starts: u64,
    pub refused_starts: u64,
    pub other_refusals: u64,
    pub syncs: u64,
    pub clears: u64,
    pub reported: u64,
    pub unmaps_under_log: u64,
    pub maps_under_log: u64,
    pub attaches_under_log: u64,
    pub detaches_under_log: u64,
    pub el2_writes: u64,
    pub faults_answered: u64,
    pub el2_writes_across_starts: u64,
    pub failed_deliveries: u64,
    pub weakened: u64,
    pub weaker_refused: u64,
    pub deaths: u64,
    pub untrusted_syncs: u64,
    pub dead_starts: u64,
    pub dead_stops: u64,
    pub dead_unmaps: u64,
    pub dead_detaches: u64,
    pub quarantined: u64,
    pub starts_by_blocks: u64,
    pub refused_commands: u64,
    pub holds: u64,
    pub switches: u64,
    pub stalls_recorded: u64,
    pub stalls_aborted: u64,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        self.tally += other.tally;
        self.splits += other.splits;
        self.merges += other.merges;
        self.starts += other.starts;
        self.abandoned_starts += other.abandoned_starts;
        self.refused_starts += other.refused_starts;
        self.other_refusals += other.other_refusals;
        self.syncs += other.syncs;
        self.clears += other.clears;
        self.reported += other.reported;
        self.unmaps_under_log += other.unmaps_under_log;
        self.maps_under_log += other.maps_under_log;
        self.attaches_under_log += other.attaches_under_log;
        self.detaches_under_log += other.detaches_under_log;
        self.el2_writes += other.el2_writes;
        self.faults_answered += other.faults_answered;
        self.el2_writes_across_starts += other.el2_writes_across_starts;
        self.failed_deliveries += other.failed_deliveries;
        self.weakened += other.weakened;
        self.weaker_refused += other.weaker_refused;
        self.deaths += other.deaths;
        self.untrusted_syncs += other.untrusted_syncs;
        self.dead_starts += other.dead_starts;
        self.dead_stops += other.dead_stops;
        self.dead_unmaps += other.dead_unmaps;
        self.dead_detaches += other.dead_detaches;
        self.quarantined += other.quarantined;
        self.starts_by_blocks += other.starts_by_blocks;
        self.refused_commands += other.refused_commands;
        self.holds += other.holds;
        self.switches += other.switches;
        self.stalls_recorded += other.stalls_recorded;
        self.stalls_aborted += other.stalls_aborted;
    }
}
