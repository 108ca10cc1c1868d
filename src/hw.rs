//! The seam between the library's logic and the machine: memory that hardware shares with us, barriers, TLB and
//! cache maintenance, time.
//!
//! The library reaches hardware through these traits alone, so that a test (or a model of the hardware) sees every
//! store, barrier, invalidation and command in order. The image implements them in its architecture shim; tests
//! implement them in `src/fake.rs`.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{Ipa, IpaRange, Pa, StreamId, Vmid};
use crate::frames::Frames;

/// A 64-bit word in memory that a page-table walker, an SMMU or another CPU may read or change at any time.
///
/// Each method is one single-copy atomic access. None of them orders other memory: what must be ordered for a
/// walker is ordered by [`Cpu::barrier`], which tests can see.
pub trait Word {
    /// Reads the word (relaxed).
    fn load(&self) -> u64;
    /// Replaces the word (relaxed).
    fn store(&self, value: u64);
    /// Replaces `current` by `new` in one atomic step (acquire and release).
    ///
    /// # Errors
    /// Gives back the word found where it was not `current`; nothing is written then.
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// ANDs `mask` in, in one atomic step (acquire and release), and gives back the word as it was.
    fn fetch_and(&self, mask: u64) -> u64;
    /// ORs `mask` in, in one atomic step (acquire and release), and gives back the word as it was.
    fn fetch_or(&self, mask: u64) -> u64;
}

// Inlined wherever they are used: a call for each descriptor would cost ten times the access.
impl Word for AtomicU64 {
    #[inline]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }

    #[inline]
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        AtomicU64::compare_exchange(self, current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    #[inline]
    fn fetch_and(&self, mask: u64) -> u64 {
        AtomicU64::fetch_and(self, mask, Ordering::AcqRel)
    }

    #[inline]
    fn fetch_or(&self, mask: u64) -> u64 {
        AtomicU64::fetch_or(self, mask, Ordering::AcqRel)
    }
}

/// Physical memory as EL2 reaches it: the frames [`Frames`] hands out, and the RAM of guests.
///
/// What the library counts on, for isolation and for a log that loses nothing:
/// 1. The same address is the same memory, for CPU, walkers and devices: there is no copy between.
/// 2. It is mapped with the attributes that walkers use (write-back, inner shareable, where these are coherent), since
///    atomics need that.
/// 3. Each method of a word is one single-copy atomic access, as [`Word`] says.
///
/// [`crate::check::platform`] tries the first as far as frames go, and the third without another CPU.
pub trait Memory {
    /// How a word of memory is accessed.
    type Word: Word;

    /// The `count` words from `pa`, which is a multiple of 8 inside one frame block or one guest page run that the
    /// caller owns or has validated.
    fn words(&self, pa: Pa, count: usize) -> &[Self::Word];

    /// Stores `value(i)` into word `i` of `count` words from `pa`, memory that **no walker and no other CPU can
    /// reach yet**: plain stores, which the compiler may merge and vectorise.
    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        for (i, word) in self.words(pa, count).iter().enumerate() {
            word.store(value(i));
        }
    }

    /// [`Memory::fill`] by words that ascend: `first`, and each the one before and `step`, modulo 2^64. Whole tables are
    /// filled so.
    fn fill_ascending(&self, pa: Pa, count: usize, first: u64, step: u64) {
        // Wrapping, which no caller has need of: with a check of each sum the stores would not be vectorised.
        self.fill(pa, count, |i| first.wrapping_add((i as u64).wrapping_mul(step)));
    }

    /// Stores of 128 bits at once, where every PE of the machine has FEAT_LSE2: an SMMU that is integrated with such PEs
    /// reads 128 bits of an STE at once as well (IHI 0070 §3.21.3). `None` where that is not so, or not known.
    fn pairs(&self) -> Option<&dyn PairStore> {
        None
    }
}

/// Memory whose words can be stored two at a time.
pub trait PairStore {
    /// Stores `pair` at `pa`, a multiple of 16 in memory that is [`Memory::words`]' and cacheable, in one single-copy
    /// atomic access (`STP` with FEAT_LSE2, Arm ARM B2.2.1): nobody ever sees one word of it without the other. It orders
    /// nothing.
    fn store_pair(&self, pa: Pa, pair: [u64; 2]);
}

/// The barriers the library asks for (Arm ARM B2.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// `DSB ISHST`: earlier stores are visible to the walkers of all PEs before what follows.
    DsbIshst,
    /// `DSB ISH`: earlier accesses and TLB invalidations are complete on all PEs before what follows.
    DsbIsh,
    /// `DSB NSH`: earlier accesses and TLB invalidations of this PE are complete before what follows.
    DsbNsh,
    /// `DSB ST`: earlier stores are visible to every observer, SMMUs included, before what follows (a register
    /// write that makes an SMMU look, above all).
    DsbSt,
    /// `DSB SY`: earlier accesses are complete for every observer before what follows.
    DsbSy,
    /// `ISB`.
    Isb,
}

impl Barrier {
    /// The barrier behind stores to tables, and the cache cleans of them that a walker needs which is not
    /// `coherent`: it waits for both. One of stores alone does not wait for cache maintenance (Arm ARM B2.6.9).
    #[must_use]
    pub const fn behind_tables(coherent: bool) -> Self {
        if coherent { Self::DsbSt } else { Self::DsbSy }
    }
}

/// TLB invalidations of EL1&0 stage 1 and 2, for the VMID of the tree that is named with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlbi {
    /// `TLBI VMALLS12E1IS`: stage 1, stage 2 and combined entries of the VMID, on all PEs of the inner shareable
    /// domain.
    VmallS12E1Is,
    /// `TLBI VMALLE1IS`: stage 1 and combined entries of the VMID.
    VmallE1Is,
    /// `TLBI IPAS2E1IS`: stage-2 entries of any level for one guest page; combined entries stay.
    IpaS2E1Is(Ipa),
    /// `TLBI IPAS2E1`: the same, on this PE alone.
    IpaS2E1(Ipa),
    /// `TLBI VMALLE1`: stage-1 and combined entries of the VMID, on this PE alone.
    VmallE1,
}

impl Tlbi {
    /// Whether other PEs take part.
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        matches!(self, Self::VmallS12E1Is | Self::VmallE1Is | Self::IpaS2E1Is(_))
    }
}

/// The root of a stage-2 tree as a PE's VTTBR_EL2 holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vttbr {
    /// The view's VMID.
    pub vmid: Vmid,
    /// The (first) root table, aligned to the size of all concatenated root tables.
    pub root: Pa,
}

/// What the library asks of the CPU it runs on.
///
/// What each method carries: [`Cpu::barrier`] and [`Cpu::clean_to_poc`] isolation (what points at a table must not be seen
/// before the table) and a log that loses nothing; [`Cpu::tlbi`] the log and the reuse of memory; [`Cpu::hold`] that no PE
/// meets two sizes of a translation; [`Cpu::invalidate_from_poc`] event records and digests where devices are not coherent;
/// [`Cpu::now_us`] that every wait ends. Software cannot see whether the first four do anything: a no-op passes every check
/// and loses writes.
pub trait Cpu {
    /// Executes `barrier`.
    fn barrier(&self, barrier: Barrier);

    /// Issues `op` for the VMID of `vttbr`, with `vttbr` loaded in VTTBR_EL2 while it executes. Completion needs
    /// [`Barrier::DsbIsh`] after it.
    fn tlbi(&self, vttbr: Vttbr, op: Tlbi);

    /// Cleans the cache lines of `bytes` from `pa` to the point of coherency. A no-op is right where every walker
    /// and queue is coherent. Completion needs a DSB after it.
    fn clean_to_poc(&self, pa: Pa, bytes: u64);

    /// Cleans and invalidates the cache lines of `bytes` from `pa`, so that what a device that is not coherent wrote is
    /// read from memory, and nothing that a CPU wrote beside it is lost. Completion needs a DSB after it.
    fn invalidate_from_poc(&self, pa: Pa, bytes: u64);

    /// Makes every vCPU that runs on `vttbr` stop at EL2, having executed a DSB there: until [`Cpu::release`] no
    /// walk of that tree is begun or under way. A vCPU that is at EL2 already (the caller's) counts.
    ///
    /// # Errors
    /// A vCPU did not arrive in the shim's time limit; none is held then.
    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout>;

    /// Lets the vCPUs held by [`Cpu::hold`] go on.
    fn release(&self, vttbr: Vttbr);

    /// Time since some fixed moment, in microseconds; never goes backwards.
    fn now_us(&self) -> u64;

    /// Called between the polls of a bounded wait: a hint to the CPU, and a window in which interrupts may be
    /// taken.
    fn relax(&self);
}

/// A vCPU did not come to EL2 when it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTimeout;

impl fmt::Display for HoldTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vCPU did not stop in time")
    }
}

/// All the library needs of its surroundings, in one bound.
pub trait Platform: Memory + Frames + Cpu {}

impl<T: Memory + Frames + Cpu> Platform for T {}

/// Polls during which a clock has to move, or it is taken to stand still: a poll reads a register, which takes a tenth of a
/// microsecond at the very least.
const POLLS_OF_A_CLOCK: u32 = 1 << 24;

/// Polls `done` until it is true or `limit_us` microseconds have passed, and says whether it came true. `done` is
/// asked at least once after the time is up, so that a CPU that was away for long does not report a time-out that
/// was none. A clock that stands still ends it too.
pub(crate) fn wait_until(cpu: &impl Cpu, limit_us: u64, done: impl FnMut() -> bool) -> bool {
    wait_by_polls(cpu, limit_us, POLLS_OF_A_CLOCK, done)
}

fn wait_by_polls(cpu: &impl Cpu, limit_us: u64, most: u32, mut done: impl FnMut() -> bool) -> bool {
    let start = cpu.now_us();
    let (mut moved, mut polls) = (start, 0);
    loop {
        let now = cpu.now_us();
        (moved, polls) = if now == moved { (moved, polls + 1) } else { (now, 0) };
        let expired = now.saturating_sub(start) >= limit_us || polls >= most;
        if done() {
            return true;
        }
        if expired {
            return false;
        }
        cpu.relax();
    }
}

/// The DMA side of a view: what the stage-2 engine and the log ask of the SMMU in front of it.
///
/// One call is one invalidation: the implementation owns barriers, commands, their repetition
/// where a part needs it, and the bounded wait.
pub trait DmaTlb {
    /// Issues one CMD_SYNC and waits for it: descriptor updates of every transaction that had completed before are
    /// visible to this CPU after a DSB (IHI 0070 §3.13.4).
    ///
    /// # Errors
    /// The SMMU did not complete it in time, or reported an error.
    fn sync(&self) -> Result<(), DmaTlbError>;

    /// Makes earlier descriptor stores visible to the SMMU, removes what `scope` names from the TLBs of `vmid`, and
    /// returns when that has completed.
    ///
    /// # Errors
    /// The SMMU did not complete it in time, or reported an error: nothing that the invalidation covered may be
    /// reused.
    fn invalidate(&self, vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError>;

    /// The commands issued so far, by whomever.
    fn commands(&self) -> CommandCounts;

    /// What a change of a translation's size takes.
    fn size_change(&self) -> SizeChange;

    /// How the streams of a view are sent through another tree, where the SMMU bears that while they work. `None` where
    /// it does not: the default.
    fn switching(&self) -> Option<&dyn TreeSwitch> {
        None
    }
}

/// A stage-2 tree as an SMMU knows it. No two trees have one VMID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRoot {
    /// Tags what is cached of it.
    pub vmid: Vmid,
    /// Its (first) root table.
    pub root: Pa,
}

/// An SMMU whose streams can be sent through another tree while they work: what stands in for changes of size where
/// these are not borne ([`SizeChange::Never`]).
pub trait TreeSwitch {
    /// A VMID of which nothing is cached; `Ok(None)` where all are taken.
    ///
    /// # Errors
    /// The SMMU did not complete the invalidation: no VMID was taken.
    fn take_vmid(&self) -> Result<Option<Vmid>, DmaTlbError>;

    /// Gives a VMID of [`TreeSwitch::take_vmid`] back, which no stream has. `forgotten`: nothing is cached of it; otherwise
    /// it stays out of use for good.
    fn end_vmid(&self, vmid: Vmid, forgotten: bool);

    /// Sends every stream that goes through `from` through `to`, which translates the same addresses to the same memory
    /// with the same rights. When this returns, no stream uses `from`, transactions that did have completed, and nothing
    /// is cached of it.
    ///
    /// # Errors
    /// The SMMU did not answer, or refused a command. It may use either tree then: both are to be kept until this, or the
    /// way back, has succeeded. It can be repeated.
    fn switch(&self, from: DmaRoot, to: DmaRoot) -> Result<(), DmaTlbError>;
}

/// What it takes to change the size of a valid translation under an SMMU that uses it (IDR3.BBML, IHI 0070 §3.21.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeChange {
    /// Level 2: one descriptor is replaced by another, and an invalidation follows.
    Direct,
    /// Level 1: the block has nT set while there may be entries of another size.
    ThroughNt,
    /// Level 0: nothing but break-before-make, which would fault the device's accesses. No size is changed.
    Never,
}

/// Commands issued to an SMMU since its bring-up began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// All commands.
    pub all: u64,
    /// CMD_TLBI_S12_VMALL.
    pub tlbi_vmall: u64,
    /// CMD_TLBI_S2_IPA.
    pub tlbi_ipa: u64,
    /// CMD_SYNC.
    pub syncs: u64,
}

/// What an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the VMID: one CMD_TLBI_S12_VMALL.
    All,
    /// The leaves, of whatever size (TTL = 0: sizes may have changed), and, unless `leaf_only`, the table descriptors that
    /// translate a range: CMD_TLBI_S2_IPA. Unless `leaf_only` tables may be freed when it has completed.
    Range {
        /// The addresses whose translation changed.
        range: IpaRange,
        /// No table descriptor was replaced in the range since the last invalidation of it.
        leaf_only: bool,
    },
}

/// What becomes of a transaction that an SMMU has stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is tried again as though it had just arrived.
    Retry,
    /// It is terminated with an abort.
    Abort,
}

/// A transaction that waits in an SMMU for its answer.
///
/// It is answered once: what hands it out ([`crate::smmu::StallQueue`]) keeps it until it has been.
#[derive(Debug, PartialEq, Eq)]
pub struct Stall {
    /// The stream it came from.
    pub stream: StreamId,
    /// What names it to the SMMU, among those of its stream.
    pub stag: u16,
    /// Where it was to write, if it was a write that stage 2 did not permit: the page. Any other fault is none that a
    /// log causes.
    pub write: Option<Ipa>,
}

/// An SMMU that can stall what faults (IHI 0070 §3.12.2).
pub trait StallTlb: DmaTlb {
    /// Answers `stall`: one CMD_RESUME, consumed when this returns. What was invalidated before has an effect on a retry.
    ///
    /// # Errors
    /// The SMMU did not answer, or refused a command; whether the transaction has its answer nevertheless.
    fn resume(&self, stall: &Stall, how: Resume) -> Result<(), ResumeError>;
}

/// Why a CMD_RESUME was not seen to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeError {
    /// What went wrong.
    pub error: DmaTlbError,
    /// The command was given: it is in the queue, and is carried out should the SMMU come back, or it was consumed and that
    /// was not seen. It must not be given again. (One that the SMMU then refuses, twice, is given up: the transaction ends with
    /// its stream.) Otherwise the transaction still waits for its answer.
    pub issued: bool,
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = if self.issued { "was given" } else { "was not given" };
        write!(f, "a stalled transaction was not seen to get its answer, which {given}: {}", self.error)
    }
}

/// Why an invalidation on the DMA side did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DmaTlbError {
    /// CMD_SYNC did not complete within the driver's time limit.
    Timeout,
    /// The SMMU refused a command; carries CMDQ_CONS.ERR (IHI 0070 §6.3.27).
    Command(u8),
    /// Its streams can't be sent through another tree while they work ([`DmaTlb::switching`]); nothing was changed.
    NoSwitching,
}

impl fmt::Display for DmaTlbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the SMMU did not complete a CMD_SYNC in time"),
            Self::Command(code) => write!(f, "the SMMU refused a command (CERROR {code:#x})"),
            Self::NoSwitching => f.write_str("the SMMU's streams can't be sent through another tree"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn a_wait_ends_where_the_clock_stands_still() {
        /// A CPU whose clock never moves.
        struct Standing(Fake);
        impl Cpu for Standing {
            fn barrier(&self, _: Barrier) {}
            fn tlbi(&self, _: Vttbr, _: Tlbi) {}
            fn clean_to_poc(&self, _: Pa, _: u64) {}
            fn invalidate_from_poc(&self, _: Pa, _: u64) {}
            fn hold(&self, _: Vttbr) -> Result<(), HoldTimeout> {
                Ok(())
            }
            fn release(&self, _: Vttbr) {}
            fn now_us(&self) -> u64 {
                self.0.now_us()
            }
            fn relax(&self) {}
        }
        let mut polls = 0;
        let done = wait_by_polls(&Standing(Fake::new(0)), 1_000_000, 100, || {
            polls += 1;
            false
        });
        assert_eq!((done, polls), (false, 100));
    }

    #[test]
    fn a_wait_of_a_clock_that_moves_ends_by_time_alone() {
        let mut polls = 0;
        // Fake time moves by a microsecond a poll.
        let done = wait_by_polls(&Fake::new(0), 1000, 10, || {
            polls += 1;
            false
        });
        assert_eq!((done, polls), (false, 1001));
    }
}
