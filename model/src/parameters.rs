//! What hardware there is, and how hard it tries.

use strandline::addr::Pa;

/// A machine, and the seed of its chance.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Everything random follows from it.
    pub seed: u64,
    /// 4 KiB frames for tables, queues and stream tables.
    pub frames: usize,
    /// Where guest RAM begins.
    pub ram: Pa,
    /// Its length in bytes.
    pub ram_bytes: u64,
    /// Pages from its beginning that have contents, which software may read and write and devices and vCPUs do write.
    /// What is written elsewhere is known by its address alone.
    pub contents: u64,
    /// The SMMU; the first one, where there are two.
    pub smmu: SmmuParameters,
    /// A second SMMU, with devices of its own.
    pub second: Option<SmmuParameters>,
    /// The PEs.
    pub pes: PeParameters,
    /// Chance, of 1024, that hardware takes one more step before software goes on.
    pub pace: u32,
    /// Chance, of 1024, that a write through a translation is accompanied by a dirty bit that the architecture permits
    /// and nothing wrote (IHI 0070 §3.13.4; Arm ARM D8.5, RJCXVS).
    pub spurious: u32,
    /// TLBs forget, and walks begin anywhere, as chance has it. Otherwise they keep all they have room for, and begin at the
    /// last table descriptor they have: for measurements.
    pub whims: bool,
}

/// What the SMMU can do.
#[derive(Clone, Copy, Debug)]
pub struct SmmuParameters {
    /// IDR0.HTTU.
    pub httu: u8,
    /// IDR3.BBML.
    pub bbml: u8,
    /// IDR3.RIL.
    pub range_invalidation: bool,
    /// IDR0.VMID16.
    pub vmid16: bool,
    /// IDR0.COHACC.
    pub coherent: bool,
    /// IDR0.ST_LEVEL.
    pub two_level: bool,
    /// TLB entries, walk cache included.
    pub tlb_entries: usize,
    /// STEs that it keeps, at least one.
    pub ste_entries: usize,
    /// IDR0.ATS: and devices call addresses translated that are not.
    pub ats: bool,
    /// SMMU_IIDR.
    pub iidr: u32,
    /// An erratum: entries, of TLB and configuration caches, may outlive the first invalidation that reaches them.
    pub outliving: bool,
    /// An erratum: commands of two kinds, or too many of one, must not follow each other without a CMD_SYNC.
    pub sync_between: bool,
    /// IDR0.STALL_MODEL: 0 as the STE says, 1 never, 2 always.
    pub stall_model: u8,
    /// IDR5.STALL_MAX: how many transactions can be stalled, or have a record without an answer.
    pub stall_max: u16,
    /// IDR1.CMDQS: `log2` of the most commands its queue holds.
    pub command_queue_bits: u8,
    /// IDR1.EVENTQS: `log2` of the most records.
    pub event_queue_bits: u8,
}

/// What the PEs can do.
#[derive(Clone, Copy, Debug)]
pub struct PeParameters {
    /// PEs that run vCPUs. Software at EL2 has one to itself; what it invalidates locally is of PE 0, or of the PE whose
    /// write fault it handles.
    pub count: usize,
    /// FEAT_HAFDBS: hardware sets the dirty state.
    pub hafdbs: bool,
    /// Two sizes of one translation in a TLB make a PE raise a TLB conflict abort (Arm ARM D8.17, RFCPSG).
    pub conflict_aborts: bool,
    /// An erratum (CVE-2025-10263): a broadcast invalidation may end before every store through the old entries is done.
    /// Such a store does not outlive a second one.
    pub early_broadcast: bool,
    /// FEAT_LSE2: 128 bits are stored at once, and the SMMU reads so many of an STE at once.
    pub lse2: bool,
    /// TLB entries of each PE.
    pub tlb_entries: usize,
}

impl Parameters {
    /// Words of memory that software reaches.
    pub(crate) const fn words(&self) -> usize {
        (self.frames + self.contents as usize) * 512
    }

    /// The main line of hardware: coherent, HTTU, BBML 2, ranges, two-level stream table; two vCPUs with FEAT_HAFDBS
    /// that raise conflict aborts; 8 MiB of RAM.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            frames: 128,
            ram: Pa(0x8000_0000),
            ram_bytes: 8 << 20,
            contents: 16,
            smmu: SmmuParameters {
                httu: 2,
                bbml: 2,
                range_invalidation: true,
                vmid16: true,
                coherent: true,
                two_level: true,
                tlb_entries: 256,
                ste_entries: 64,
                ats: false,
                iidr: 0,
                outliving: false,
                sync_between: false,
                stall_model: 1,
                stall_max: 0,
                command_queue_bits: 19,
                event_queue_bits: 19,
            },
            second: None,
            pes: PeParameters {
                count: 2,
                hafdbs: true,
                conflict_aborts: true,
                early_broadcast: false,
                lse2: false,
                tlb_entries: 192,
            },
            pace: 512,
            spurious: 4,
            whims: true,
        }
    }
}
