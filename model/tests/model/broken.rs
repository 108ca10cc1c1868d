//! Software that breaks one rule: the library unchanged, behind traits that leave something out or do it wrongly.

use std::cell::Cell;

use strandline::addr::{Pa, Vmid};
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{
    Barrier, CommandCounts, Cpu, DmaTlb, DmaTlbError, HoldTimeout, Memory, PairStore, Scope, SizeChange,
    Tlbi, TreeSwitch, Vttbr, Word,
};
use strandline::smmu::Registers;
use strandline::smmu::{Register32, Register64};
use strandline_model::{Machine, ModelWord, SmmuPort};

use crate::frames::frames_of_machine;
use crate::vm::RAM;

/// What is done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A sync's first CMD_SYNC is left out.
    NoSyncBeforeWalk,
    /// The DSB behind it is left out.
    NoBarrierBeforeWalk,
    /// The DSB before the CPU view is read is left out.
    NoCpuBarrierBeforeWalk,
    /// Nothing is invalidated in DMA views while the log is on.
    NoDmaInvalidationAfterClean,
    /// Nothing is invalidated in the CPU view while the log is on.
    NoCpuInvalidationAfterClean,
    /// The invalidation comes before the cleaning.
    InvalidationBeforeClean,
    /// CMD_SYNC is not waited for.
    NoWaitForSync,
    /// The invalidation is done when the next operation begins.
    InvalidationAfterDelivery,
    /// Tables are freed and the invalidation forgotten.
    NoInvalidationBeforeFree,
    /// All leaves are cleaned by a load and a store each.
    LoadThenStore,
    /// Sizes change in the CPU view under running vCPUs.
    DirectSwap,
    /// vCPUs are held without a DSB.
    HoldWithoutDsb,
    /// Leaves have the Contiguous bit.
    Contiguous,
    /// Leaves have AF=0.
    AccessFlagClear,
    /// Invalidation by range with TTL=3 although blocks were there.
    WrongLevel,
    /// Invalidation by range with TTL=2 and an address that is no multiple of 2 MiB.
    UnalignedLevel,
    /// Invalidation by range with Leaf=1 although tables were replaced.
    LeafOnly,
    /// CMDQ_PROD is written without a barrier.
    NoBarrierBeforeProd,
    /// Sub-trees are linked without a barrier.
    NoBarrierBeforeLink,
    /// CMD_CFGI_STE is left out.
    NoConfigInvalidation,
    /// Caches and TLBs are not emptied before SMMUEN.
    NoInvalidationAtBringUp,
    /// STEs have S2HD although the SMMU has no HTTU.
    HardwareUpdateWithoutHttu,
    /// The CPU view's broadcast invalidation has no DSB behind it.
    NoBarrierAfterTlbi,
    /// Frames are freed twice.
    DoubleFree,
    /// Every barrier is a full one: no fault.
    FullBarriers,
    /// A barrier of stores stands behind cache maintenance.
    StoreBarrierAfterClean,
    /// Sizes change in DMA views as if the SMMU were of BBML 2.
    SizesChangedDirectly,
    /// A start invalidates nothing in DMA views.
    NoInvalidationAtStart,
    /// Tables are linked without having been cleaned.
    NoCleanBeforeLink,
    /// What is swapped for a table is not cleaned.
    NoCleanAfterSplit,
    /// What is swapped for a block is not cleaned.
    NoCleanAfterMerge,
    /// nT is cleared from no block.
    NtLeft,
    /// Where access flags of tables were cleared, leaves alone are invalidated.
    TablesNotInvalidated,
    /// That the access flag of a table was cleared is forgotten by the next harvest.
    TrustedTooEarly,
    /// STEs have S2HAFT although the SMMU keeps no access flags of tables.
    TableFlagsWithoutHttu,
    /// Words 2 and 3 of an STE are stored one after the other.
    TornSwitch,
    /// Streams go to another tree without CMD_CFGI_ALL.
    SwitchWithoutConfigInvalidation,
    /// The VMID that streams have left is not invalidated.
    LeftVmidNotInvalidated,
    /// What devices write past the caches is read through them.
    NoCacheInvalidation,
    /// Of a block that is split because it is dirty no page is recorded.
    SplitUnrecorded,
    /// Tables whose places blocks have taken are freed without having been read again.
    MergedUnread,
    /// Invalidation by range with TTL=3 where blocks were.
    HintOfPages,
    /// Invalidation by range with TTL=2 where pages were.
    HintOfBlocks,
}

/// Where the life of a log has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Setup,
    Start,
    Sync,
    Stop,
    End,
}

/// A machine behind traits that do `fault`.
pub struct Broken<'m> {
    pub machine: &'m Machine,
    pub fault: Fault,
    pub phase: Cell<Phase>,
    words: Vec<BrokenWord>,
    /// A DSB is owed to an invalidation.
    invalidating: Cell<bool>,
}

/// A word that software changes wrongly.
pub struct BrokenWord {
    word: ModelWord,
    fault: Fault,
    shared: std::rc::Rc<Cell<Shared>>,
}

/// What the words of a machine must know of each other.
#[derive(Clone, Copy, Default)]
struct Shared {
    phase: Phase,
    /// The last thing stored was a run of words.
    filled: bool,
    /// The next word stored is the second one of a command that was changed.
    second: Option<u64>,
    /// These bits are set in the next word stored, the second one of a command.
    hint: u64,
    /// Dirty state is not seen.
    blind: bool,
}

const DBM: u64 = 1 << 51;
const NT: u64 = 1 << 16;
/// What the library notes in a table descriptor whose access flag it has cleared.
const AF_CLEARED: u64 = 1 << 55;
/// Bits that every leaf for RAM has: MemAttr, S2AP\[0\], SH, AF, valid.
const RAM_LEAF: u64 = 0x77d;

impl BrokenWord {
    /// What is stored in place of `value`.
    fn distort(&self, value: u64) -> u64 {
        let (ram_leaf, phase) = (value & RAM_LEAF == RAM_LEAF, self.shared.get().phase);
        match self.fault {
            Fault::Contiguous if ram_leaf => value | 1 << 52,
            Fault::AccessFlagClear if ram_leaf => value & !0x400,
            Fault::SwitchWithoutConfigInvalidation
                if value & 0xffff_ffff == 0x04 && phase == Phase::Start =>
            {
                0x46
            }
            Fault::LeftVmidNotInvalidated if value & 0xffff_ffff == 0x28 && phase == Phase::Stop => 0x46,
            Fault::NoConfigInvalidation if value & 0xffff_ffff == 0x03 => 0x46,
            // 2^11 pages: the 8 MiB of RAM. TG=4K, TTL=3; or Leaf=1.
            Fault::WrongLevel | Fault::UnalignedLevel | Fault::LeafOnly if value & 0xffff_ffff == 0x28 => {
                let word1 = match self.fault {
                    Fault::WrongLevel => 0x700,
                    Fault::UnalignedLevel => 0x1600,
                    _ => 0x401,
                };
                self.shared.set(Shared { second: Some(word1 | RAM.0), ..self.shared.get() });
                value & !0xff | 0x2a | 11 << 20
            }
            Fault::HintOfPages | Fault::HintOfBlocks
                if value & 0xff == 0x2a && value >> 48 == 0 && phase == Phase::Sync =>
            {
                let hint = if self.fault == Fault::HintOfPages { 3 << 8 } else { 2 << 8 };
                self.shared.set(Shared { hint, ..self.shared.get() });
                value
            }
            Fault::NoInvalidationAtBringUp if value == 0x30 => 0x46,
            Fault::TrustedTooEarly if value & (AF_CLEARED | 3) == AF_CLEARED | 3 => value & !AF_CLEARED,
            _ => value,
        }
    }
}

impl Word for BrokenWord {
    fn load(&self) -> u64 {
        let value = self.word.load();
        let clean = value & (RAM_LEAF | 0x80 | DBM) == RAM_LEAF | DBM;
        if clean && self.fault == Fault::LoadThenStore && self.shared.get().phase == Phase::Sync {
            self.word.store(value);
        }
        if self.shared.get().blind { value & !0x80 } else { value }
    }

    fn store(&self, value: u64) {
        let mut shared = self.shared.get();
        let value = shared.second.take().unwrap_or(value) | core::mem::take(&mut shared.hint);
        shared.filled = false;
        self.shared.set(shared);
        self.word.store(self.distort(value));
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.word.compare_exchange(self.distort(current), self.distort(new))
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        let clears_nt = mask == !NT;
        self.word.fetch_and(if clears_nt && self.fault == Fault::NtLeft { u64::MAX } else { mask })
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        // Runs of 64 pages are those of blocks: too much is written nowhere near.
        let whole = mask == u64::MAX && self.shared.get().phase == Phase::Sync;
        self.word.fetch_or(if whole && self.fault == Fault::SplitUnrecorded { 0 } else { mask })
    }
}

impl<'m> Broken<'m> {
    pub fn new(machine: &'m Machine, fault: Fault) -> Self {
        let shared = std::rc::Rc::new(Cell::new(Shared::default()));
        let word = |word: &ModelWord| BrokenWord { word: word.clone(), fault, shared: shared.clone() };
        let words = machine.all_words().iter().map(word).collect();
        Self { machine, fault, phase: Cell::new(Phase::Setup), words, invalidating: Cell::new(false) }
    }

    /// Where the life of the log has come to.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        let shared = &self.words[0].shared;
        shared.set(Shared { phase, ..shared.get() });
    }

    /// From the invalidation of a view until the next one is looked at, dirty state is not seen.
    fn blind(&self, blind: bool) {
        let shared = &self.words[0].shared;
        let blind = blind && self.during(Fault::MergedUnread, Phase::Sync);
        shared.set(Shared { blind, ..shared.get() });
    }

    fn during(&self, fault: Fault, phase: Phase) -> bool {
        self.fault == fault && self.phase.get() == phase
    }
}

impl Memory for Broken<'_> {
    type Word = BrokenWord;

    fn words(&self, pa: Pa, count: usize) -> &[BrokenWord] {
        let first = self.machine.words(pa, count)[0].index();
        &self.words[first..][..count]
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        let words = self.words(pa, count);
        let shared = &words[0].shared;
        shared.set(Shared { filled: true, ..shared.get() });
        self.machine.fill(pa, count, |i| words[i].distort(value(i)));
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        if self.machine.pairs().is_some() { Some(self) } else { None }
    }
}

impl PairStore for Broken<'_> {
    fn store_pair(&self, pa: Pa, pair: [u64; 2]) {
        if self.fault == Fault::TornSwitch {
            for (word, value) in self.words(pa, 2).iter().zip(pair) {
                word.store(value);
            }
        } else {
            self.machine.store_pair(pa, pair);
        }
    }
}

impl Frames for Broken<'_> {
    frames_of_machine!();

    fn free(&self, block: FrameBlock) {
        let again = FrameBlock::new(block.pa(), block.order()).expect("it is one");
        self.machine.free(block);
        if self.fault == Fault::DoubleFree && self.phase.get() == Phase::Stop {
            self.machine.free(again);
        }
    }
}

impl Cpu for Broken<'_> {
    fn barrier(&self, barrier: Barrier) {
        let dropped = match (self.fault, barrier) {
            (Fault::NoBarrierBeforeWalk, Barrier::DsbSy) => self.phase.get() == Phase::Sync,
            (Fault::NoCpuBarrierBeforeWalk, Barrier::DsbIsh) => {
                self.phase.get() == Phase::Sync && !self.invalidating.replace(false)
            }
            (Fault::NoBarrierAfterTlbi, Barrier::DsbIsh) => self.phase.get() != Phase::Setup,
            (Fault::NoBarrierBeforeProd, Barrier::DsbSt) => true,
            (Fault::NoBarrierBeforeLink, Barrier::DsbSt) => self.words[0].shared.get().filled,
            _ => false,
        };
        let instead = match (self.fault, barrier) {
            (Fault::FullBarriers, Barrier::DsbSt) => Barrier::DsbSy,
            (Fault::StoreBarrierAfterClean, Barrier::DsbSy) => Barrier::DsbSt,
            _ => barrier,
        };
        if !dropped {
            self.machine.barrier(instead);
        }
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        if self.during(Fault::NoCpuInvalidationAfterClean, Phase::Sync) {
            return;
        }
        // The DSB that completes the invalidation stays.
        self.invalidating.set(true);
        self.blind(true);
        self.machine.tlbi(vttbr, op);
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        let dropped = match self.fault {
            Fault::NoCleanBeforeLink => self.phase.get() == Phase::Start && bytes == 4096,
            Fault::NoCleanAfterSplit => self.phase.get() == Phase::Start && bytes == 64,
            Fault::NoCleanAfterMerge => self.phase.get() == Phase::Stop && bytes == 64,
            _ => false,
        };
        if !dropped {
            self.machine.clean_to_poc(pa, bytes);
        }
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        if self.fault != Fault::NoCacheInvalidation {
            self.machine.invalidate_from_poc(pa, bytes);
        }
    }

    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout> {
        if self.fault == Fault::HoldWithoutDsb {
            self.machine.hold_with(vttbr, false);
            return Ok(());
        }
        self.machine.hold(vttbr)
    }

    fn release(&self, vttbr: Vttbr) {
        self.machine.release(vttbr);
    }

    fn now_us(&self) -> u64 {
        self.machine.now_us()
    }

    fn relax(&self) {
        self.machine.relax();
    }
}

/// Invalidations that are left out, too early, or too late.
pub struct BrokenTlb<'a, 'm, D> {
    pub inner: &'a D,
    pub platform: &'a Broken<'m>,
    pub late: Cell<Option<(Vmid, Scope)>>,
    pub early: Cell<Option<Vmid>>,
}

impl<D: DmaTlb> BrokenTlb<'_, '_, D> {
    fn late(&self) -> Result<(), DmaTlbError> {
        self.late.take().map_or(Ok(()), |(vmid, scope)| self.inner.invalidate(vmid, scope))
    }
}

impl<D: DmaTlb> DmaTlb for BrokenTlb<'_, '_, D> {
    fn sync(&self) -> Result<(), DmaTlbError> {
        self.late()?;
        self.platform.blind(false);
        match (self.platform.fault, self.early.get()) {
            (Fault::NoSyncBeforeWalk, _) => Ok(()),
            (Fault::InvalidationBeforeClean, Some(vmid)) => self.inner.invalidate(vmid, Scope::All),
            _ => self.inner.sync(),
        }
    }

    fn invalidate(&self, vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError> {
        self.late()?;
        self.early.set(Some(vmid));
        self.platform.blind(true);
        match (self.platform.fault, self.platform.phase.get()) {
            (Fault::NoDmaInvalidationAfterClean | Fault::InvalidationBeforeClean, Phase::Sync) => Ok(()),
            (Fault::NoInvalidationBeforeFree, Phase::Stop) | (Fault::NoInvalidationAtStart, Phase::Start) => {
                Ok(())
            }
            (Fault::TablesNotInvalidated, Phase::Sync) => {
                let scope = match scope {
                    Scope::Range { range, .. } => Scope::Range { range, leaf_only: true },
                    Scope::All => scope,
                };
                self.inner.invalidate(vmid, scope)
            }
            (Fault::InvalidationAfterDelivery, Phase::Sync) => {
                self.late.set(Some((vmid, scope)));
                Ok(())
            }
            _ => self.inner.invalidate(vmid, scope),
        }
    }

    fn commands(&self) -> CommandCounts {
        self.inner.commands()
    }

    fn size_change(&self) -> SizeChange {
        self.inner.size_change()
    }

    fn switching(&self) -> Option<&dyn TreeSwitch> {
        self.inner.switching()
    }
}

/// Registers that lie.
pub struct BrokenPort {
    pub inner: SmmuPort,
    pub fault: Fault,
    pub prod: Cell<u32>,
}

impl Registers for BrokenPort {
    fn read32(&self, register: Register32) -> u32 {
        let value = self.inner.read32(register);
        match (self.fault, register) {
            (Fault::NoWaitForSync, Register32::CmdqCons) => self.prod.get(),
            (Fault::HardwareUpdateWithoutHttu, Register32::Idr0) => value | 2 << 6,
            (Fault::TableFlagsWithoutHttu, Register32::Idr0) => value | 3 << 6,
            // SMMUv3.3.
            (Fault::TableFlagsWithoutHttu, Register32::Aidr) => 3,
            (Fault::SizesChangedDirectly, Register32::Idr3) => value & !(3 << 11) | 2 << 11,
            _ => value,
        }
    }

    fn write32(&self, register: Register32, value: u32) {
        if register == Register32::CmdqProd {
            self.prod.set(value);
        }
        self.inner.write32(register, value);
    }

    fn write64(&self, register: Register64, value: u64) {
        self.inner.write64(register, value);
    }
}
