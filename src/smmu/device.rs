//! What every part of the driver shares: the registers, the platform, the rule by which memory becomes visible to
//! this SMMU, bounded register handshakes, and the counters.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::addr::{PAGE_BYTES, Pa};
use crate::frames::FrameBlock;
use crate::hw::{Barrier, Platform, wait_until};

use super::errata::Errata;
use super::error::SmmuError;
use super::features::Features;
use super::registers::Registers;
use super::spec::pages::Register32;

/// What the driver has done since bring-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commands put into the queue, of any kind.
    pub commands: u64,
    /// Of these, CMD_TLBI_S12_VMALL.
    pub tlbi_vmall: u64,
    /// Of these, CMD_TLBI_S2_IPA.
    pub tlbi_ipa: u64,
    /// Of these, CMD_SYNC.
    pub syncs: u64,
    /// Of these, CMD_CFGI_*.
    pub cfgi: u64,
    /// Event records read.
    pub events: u64,
    /// Times records were lost, one or more each time: the Event queue overflowed, or a write to it aborted.
    pub events_lost: u64,
    /// Global errors, command errors among them, that were acknowledged.
    pub errors: u64,
}

/// A counter that only grows; it orders nothing.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`Statistics`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) commands: Counter,
    pub(super) tlbi_vmall: Counter,
    pub(super) tlbi_ipa: Counter,
    pub(super) syncs: Counter,
    pub(super) cfgi: Counter,
    pub(super) events: Counter,
    pub(super) events_lost: Counter,
    pub(super) errors: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Statistics {
        Statistics {
            commands: self.commands.get(),
            tlbi_vmall: self.tlbi_vmall.get(),
            tlbi_ipa: self.tlbi_ipa.get(),
            syncs: self.syncs.get(),
            cfgi: self.cfgi.get(),
            events: self.events.get(),
            events_lost: self.events_lost.get(),
            errors: self.errors.get(),
        }
    }
}

/// 64-bit words of a frame.
const WORDS_PER_FRAME: usize = 512;

/// `log2` of the frames that hold `bytes`.
const fn order_of(bytes: u64) -> u32 {
    bytes.div_ceil(PAGE_BYTES).next_power_of_two().trailing_zeros()
}

/// Whether `block` is as large as was asked for, and all of it has addresses of `bits` bits.
fn is_fit(block: &FrameBlock, order: u32, bits: u32) -> bool {
    block.order() >= order && block.pa().0.checked_add(block.bytes()).is_some_and(|end| end <= 1 << bits)
}

/// One SMMU and the platform it is on.
pub(super) struct Device<'p, P, R> {
    pub(super) platform: &'p P,
    pub(super) registers: R,
    /// The SMMU sees the PEs' caches.
    pub(super) coherent: bool,
    /// Bits of the addresses it can reach.
    output_bits: u32,
    pub(super) errata: Errata,
    /// How long any one wait may take, in microseconds.
    pub(super) limit_us: u64,
    pub(super) counters: Counters,
    /// Held while GERRORN is read, changed and written; never while anything is waited for.
    acknowledging: Mutex<()>,
}

impl<'p, P: Platform, R: Registers> Device<'p, P, R> {
    pub(super) fn new(platform: &'p P, registers: R, features: &Features, limit_us: u64) -> Self {
        Self {
            platform,
            registers,
            coherent: features.coherent,
            output_bits: features.output_bits,
            errata: features.errata,
            limit_us,
            counters: Counters::default(),
            acknowledging: Mutex::new(()),
        }
    }

    /// Frames for `bytes`, contiguous and aligned to their size.
    ///
    /// # Errors
    /// There are none, or they lie where the SMMU can't reach them.
    pub(super) fn alloc(&self, bytes: u64) -> Result<FrameBlock, SmmuError> {
        let order = order_of(bytes);
        let block = self.platform.alloc(order).ok_or(SmmuError::OutOfFrames { order })?;
        if !is_fit(&block, order, self.output_bits) {
            let (pa, bits) = (block.pa(), self.output_bits);
            self.platform.free(block);
            return Err(SmmuError::FrameOutOfReach { pa, bits });
        }
        Ok(block)
    }

    /// Fills `block`, which the SMMU cannot reach yet, with zeros, visible to it before any later store or register
    /// write.
    pub(super) fn zero(&self, block: &FrameBlock) {
        // A frame's 512 words at a time: no block is too large to count its words.
        for frame in 0..1u64 << block.order() {
            self.platform.fill(block.pa().offset(frame * PAGE_BYTES), WORDS_PER_FRAME, |_| 0);
        }
        self.make_visible(block.pa(), block.bytes());
    }

    /// Makes the `bytes` stored at `pa` visible to the SMMU before any later store or register write.
    pub(super) fn make_visible(&self, pa: Pa, bytes: u64) {
        self.clean(pa, bytes);
        self.order_stores();
    }

    /// Cleans `bytes` from `pa` out of the caches, where the SMMU does not see these. [`Self::order_stores`]
    /// completes it.
    pub(super) fn clean(&self, pa: Pa, bytes: u64) {
        if !self.coherent {
            self.platform.clean_to_poc(pa, bytes);
        }
    }

    /// Orders every earlier store of this PE before any later store or register write, as the SMMU sees them.
    ///
    /// `DSB ST` completes stores, but not cache maintenance: that takes a DSB of reads and writes (Arm ARM B2.6.9).
    pub(super) fn order_stores(&self) {
        self.platform.barrier(if self.coherent { Barrier::DsbSt } else { Barrier::DsbSy });
    }

    /// Polls `register` until the bits of `mask` read as in `expected`.
    ///
    /// # Errors
    /// They did not within the time limit.
    pub(super) fn wait(&self, register: Register32, mask: u32, expected: u32) -> Result<(), SmmuError> {
        let mut found = 0;
        let done = wait_until(self.platform, self.limit_us, || {
            found = self.registers.read32(register) & mask;
            found == expected
        });
        if done { Ok(()) } else { Err(SmmuError::Register { register, found, expected }) }
    }

    /// The global errors that are active: GERROR and GERRORN differ in their bits (IHI 0070 §7.5).
    pub(super) fn active_errors(&self) -> u32 {
        self.registers.read32(Register32::Gerror) ^ self.registers.read32(Register32::Gerrorn)
    }

    /// Acknowledges those of `errors` that are active, and gives these back. Only active ones may be toggled
    /// (§6.3.20).
    pub(super) fn acknowledge(&self, errors: u32) -> u32 {
        let _guard = self.acknowledging.lock();
        let acknowledged = self.registers.read32(Register32::Gerrorn);
        let active = (self.registers.read32(Register32::Gerror) ^ acknowledged) & errors;
        if active != 0 {
            self.registers.write32(Register32::Gerrorn, acknowledged ^ active);
            self.counters.errors.add(u64::from(active.count_ones()));
        }
        active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_the_smallest_block_that_holds_the_bytes() {
        assert_eq!([64, 4096, 4097, 8192, 0x1_0000].map(order_of), [0, 0, 1, 1, 4]);
    }

    #[test]
    fn a_block_is_fit_that_is_large_enough_and_within_reach_to_its_last_byte() {
        let fit = |pa, order| is_fit(&FrameBlock::from_pa(Pa(pa), order), 0, 32);
        assert!(fit(0xffff_f000, 0) && fit(0xffff_0000, 4) && fit(0, 0));
        assert!(!fit(0x1_0000_0000, 0) && !fit(0xffff_f000, 1) && !fit(!0xfff, 0));
        let for_order = |order| is_fit(&FrameBlock::from_pa(Pa(0), 1), order, 32);
        assert_eq!([0, 1, 2].map(for_order), [true, true, false]);
    }
}
