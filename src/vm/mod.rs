//! A VM as the hypercalls see it: its address space, its log, and the faults of its devices.

mod faults;

use spin::{Mutex, RwLock};
use strandline_abi::{CpuTier, DeviceRecord, DmaTier, LogStatus};

pub use faults::FaultLog;

use crate::addr::StreamId;
use crate::address_space::AddressSpace;
use crate::dirty_log::DirtyLog;
use crate::hw::{CommandCounts, DmaTlb, Platform};

/// The most devices of a VM.
pub const MAX_DEVICES: usize = 8;

/// The devices of a VM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Devices {
    records: [DeviceRecord; MAX_DEVICES],
    count: usize,
}

impl Devices {
    /// Adds one; `false`, and nothing is done, where there are [`MAX_DEVICES`] already.
    pub fn add(&mut self, stream: StreamId, tier: DmaTier) -> bool {
        let Some(place) = self.records.get_mut(self.count) else { return false };
        *place = DeviceRecord { stream: stream.0.into(), tier: tier.code().into() };
        self.count += 1;
        true
    }

    /// All of them.
    #[must_use]
    pub fn records(&self) -> &[DeviceRecord] {
        self.records.get(..self.count).unwrap_or_default()
    }
}

/// One VM. Where two of its locks are taken, the log's comes first and the address space's second.
#[derive(Debug)]
pub struct Vm<'d, D> {
    /// What its vCPUs and devices reach.
    pub space: RwLock<AddressSpace<'d, D>>,
    /// Its log. One operation runs at a time; a second one is answered with *busy*.
    pub log: Mutex<DirtyLog>,
    /// Its devices, and how their writes come to be known: what the call *devices* tells.
    pub devices: Devices,
    /// Accesses of its devices that an SMMU stopped.
    pub faults: Mutex<FaultLog>,
}

impl<'d, D: DmaTlb> Vm<'d, D> {
    /// A VM with this address space, whose vCPUs' writes come to be known by `cpu_tier`.
    #[must_use]
    pub fn new(space: AddressSpace<'d, D>, cpu_tier: CpuTier) -> Self {
        Self::with_log(space, DirtyLog::new(cpu_tier))
    }

    /// A VM with this address space and this log, which is off.
    #[must_use]
    pub fn with_log(space: AddressSpace<'d, D>, log: DirtyLog) -> Self {
        Self {
            space: RwLock::new(space),
            log: Mutex::new(log),
            devices: Devices::default(),
            faults: Mutex::new(FaultLog::new()),
        }
    }
}

/// State and statistics of a VM's log, as the status call reports them.
pub fn status<P: Platform, D: DmaTlb>(
    platform: &P,
    log: &DirtyLog,
    space: &AddressSpace<'_, D>,
) -> LogStatus {
    let range = log.range();
    let (cpu, statistics) = (space.cpu_view().tree.leaves(), log.statistics());
    let (dma, dma_tables) = space.dma_totals();
    let commands = commands(space);
    LogStatus {
        state: log.state().code().into(),
        tiers: log.tiers(space).to_bits(),
        start: range.map_or(0, |r| r.start().0),
        bytes: range.map_or(0, |r| r.bytes()),
        cpu_blocks_1g: cpu.blocks_1g,
        cpu_blocks_2m: cpu.blocks_2m,
        cpu_pages_4k: cpu.pages_4k,
        cpu_tables: space.cpu_view().tree.tables(),
        dma_blocks_1g: dma.blocks_1g,
        dma_blocks_2m: dma.blocks_2m,
        dma_pages_4k: dma.pages_4k,
        dma_tables,
        blocks_split: statistics.blocks_split,
        blocks_merged: statistics.blocks_merged,
        pages_reported: statistics.pages_reported,
        smmu_commands: commands.all,
        smmu_tlbi_vmall: commands.tlbi_vmall,
        smmu_tlbi_ipa: commands.tlbi_ipa,
        smmu_syncs: commands.syncs,
        free_frames: platform.free_frames() as u64,
        write_faults: space.write_faults(),
        key_source: log.key_source().code().into(),
        holds: statistics.holds,
        digest_bytes: crate::dirty_log::DIGEST_BYTES,
        page_read_ns: log.digest_cost().page_read_ns,
        page_digest_ns: log.digest_cost().page_digest_ns,
        splits_by_syncs: statistics.splits_by_syncs,
        merges_by_syncs: statistics.merges_by_syncs,
        splits_refused: statistics.splits_refused,
    }
}

/// The commands of all SMMUs in front of the VM's devices, each SMMU counted once.
fn commands<D: DmaTlb>(space: &AddressSpace<'_, D>) -> CommandCounts {
    let mut sum = CommandCounts::default();
    for (i, place) in space.dma.iter().enumerate() {
        let Some(tlb) = place.as_ref().map(|view| view.view.walker.tlb) else { continue };
        if space.dma[..i].iter().flatten().any(|v| core::ptr::eq(v.view.walker.tlb, tlb)) {
            continue;
        }
        let counts = tlb.commands();
        sum.all += counts.all;
        sum.tlbi_vmall += counts.tlbi_vmall;
        sum.tlbi_ipa += counts.tlbi_ipa;
        sum.syncs += counts.syncs;
    }
    sum
}
