//! The library's view of the real machine: memory, barriers, TLBs, caches, time, frames.
#![expect(unsafe_code, reason = "physical memory, TLB maintenance")]

use core::arch::asm;
use core::ptr::{self, with_exposed_provenance_mut};
use core::slice;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{Readable, VTTBR_EL2, Writeable};
use strandline::addr::{PAGE_SHIFT, Pa};
use strandline::frames::{FrameBlock, FramePool, FrameReserve, Frames, OutOfFrames};
use strandline::hw::{Barrier, Cpu, HoldTimeout, Memory, PairStore, Tlbi, Vttbr};

use super::cache;
use super::cpu::CpuFeatures;
use super::irq;
use super::machine::Region;
use super::timer;

/// How many regions can be handed over.
const MAX_REGIONS: usize = 32;

/// Words of a cache line, stored together.
const LINE: usize = 8;

/// The machine as the library's traits see it.
pub struct Platform {
    /// The regions whose words may be accessed: first address, address behind the last.
    regions: [(AtomicU64, AtomicU64); MAX_REGIONS],
    /// How many of them are filled in.
    count: AtomicUsize,
    pool: FramePool,
    /// The cores have FEAT_LSE2.
    lse2: AtomicBool,
}

/// A region could not be handed over: there are too many already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRegions;

impl Platform {
    /// A machine that has handed nothing over.
    pub const fn new() -> Self {
        Self {
            regions: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; MAX_REGIONS],
            count: AtomicUsize::new(0),
            pool: FramePool::new(),
            lse2: AtomicBool::new(false),
        }
    }

    /// Takes note of what the CPU can do. One core runs EL2, and stands for all of the machine.
    pub fn note_core(&self, cpu: &CpuFeatures) {
        self.lse2.store(cpu.lse2, Ordering::Relaxed);
    }

    /// Hands RAM over to the library for a guest: its words can be accessed from here on. Called by one CPU at a
    /// time.
    ///
    /// # Errors
    /// There have been too many.
    ///
    /// # Safety
    /// 1. `region` is RAM of the machine, mapped by EL2 as cacheable memory ([`super::machine::Machine::free`]).
    /// 2. Nothing in it is a Rust object or part of the image, now or later.
    pub unsafe fn hand_over(&self, region: Region) -> Result<(), TooManyRegions> {
        let index = self.count.load(Ordering::Relaxed);
        let (start, end) = self.regions.get(index).ok_or(TooManyRegions)?;
        start.store(region.start().0, Ordering::Relaxed);
        end.store(region.end().0, Ordering::Relaxed);
        self.count.store(index + 1, Ordering::Release);
        Ok(())
    }

    /// Hands RAM over to the library for table frames.
    ///
    /// # Errors
    /// There have been too many regions.
    ///
    /// # Safety
    /// Those of [`Platform::hand_over`], and:
    /// 3. Nothing else uses any of it: it belongs to the frame pool from here on.
    pub unsafe fn add_frames(&self, region: Region) -> Result<(), TooManyRegions> {
        let address = usize::try_from(region.start().0).unwrap_or_default();
        let bytes = usize::try_from(region.bytes()).unwrap_or_default();
        // SAFETY: 1 and 2 are the caller's.
        unsafe { self.hand_over(region)? };
        // SAFETY: the region is mapped, identity, as ordinary memory (1); it is the pool's alone (2, 3).
        unsafe { self.pool.add(with_exposed_provenance_mut(address), bytes) }.map_err(|_| TooManyRegions)
    }

    /// Copies `bytes` to `pa`, RAM of a guest that has not started, and cleans it to the point of coherency: a guest
    /// begins with its caches off.
    ///
    /// # Panics
    /// The memory was not handed over: an error of EL2's own.
    pub fn write_bytes(&self, pa: Pa, bytes: &[u8]) {
        assert!(self.owns(pa.0, bytes.len() as u64), "EL2 may not write {} bytes at {pa}", bytes.len());
        let to = with_exposed_provenance_mut::<u8>(pa.0 as usize);
        // SAFETY: by `hand_over` the memory is mapped RAM without Rust objects in it, so it does not overlap `bytes`;
        // the guest whose it is has not started, so nobody else accesses it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        cache::clean(pa.0, bytes.len() as u64);
        barrier::dsb(barrier::SY);
    }

    /// As [`Platform::write_bytes`], with `count` zeros.
    ///
    /// # Panics
    /// As [`Platform::write_bytes`].
    pub fn write_zeros(&self, pa: Pa, count: u64) {
        assert!(self.owns(pa.0, count), "EL2 may not write {count} bytes at {pa}");
        let to = with_exposed_provenance_mut::<u8>(pa.0 as usize);
        // SAFETY: as in `write_bytes`.
        unsafe { ptr::write_bytes(to, 0, count as usize) };
        cache::clean(pa.0, count);
        barrier::dsb(barrier::SY);
    }

    fn owns(&self, start: u64, bytes: u64) -> bool {
        let count = self.count.load(Ordering::Acquire);
        let end = start.checked_add(bytes);
        self.regions.iter().take(count).any(|(region_start, region_end)| {
            let (region_start, region_end) =
                (region_start.load(Ordering::Relaxed), region_end.load(Ordering::Relaxed));
            region_start <= start && end.is_some_and(|end| end <= region_end)
        })
    }
}

impl Memory for Platform {
    type Word = AtomicU64;

    /// # Panics
    /// The words are not in memory that was handed over, or not aligned: an error of EL2's own.
    fn words(&self, pa: Pa, count: usize) -> &[AtomicU64] {
        let bytes = count as u64 * size_of::<AtomicU64>() as u64;
        assert!(pa.is_aligned(8) && self.owns(pa.0, bytes), "EL2 may not access {count} words at {pa}");
        let words = with_exposed_provenance_mut::<AtomicU64>(pa.0 as usize);
        // SAFETY: by `hand_over` the memory is RAM, mapped for ever at its own address, and holds no other Rust
        // object; aligned as checked. What else accesses it (walkers, devices, guests, other CPUs) may do so at any
        // time, which is what atomics allow for.
        unsafe { slice::from_raw_parts(words, count) }
    }

    /// # Panics
    /// As [`Platform::words`].
    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        let words = self.words(pa, count).as_ptr().cast_mut().cast::<u64>();
        for index in 0..count {
            // SAFETY: inside the `count` words that were just checked; nobody else reaches them yet (this method's
            // contract), so plain stores do, which the compiler may merge.
            unsafe { words.add(index).write(value(index)) };
        }
    }

    /// # Panics
    /// As [`Platform::words`].
    fn fill_ascending(&self, pa: Pa, count: usize, first: u64, step: u64) {
        let (lines, rest) = (count / LINE, count % LINE);
        let words = self.words(pa, lines * LINE).as_ptr().cast_mut().cast::<[u64; LINE]>();
        let mut word = first;
        for line in 0..lines {
            let mut next = || {
                let this = word;
                word = this.wrapping_add(step);
                this
            };
            // Written out: where code is made small a loop would store one word at a time.
            let values = [next(), next(), next(), next(), next(), next(), next(), next()];
            // SAFETY: inside the words that were just checked, and aligned as they are, which is what an array of words
            // asks for; nobody else reaches them yet (this method's contract).
            unsafe { words.add(line).write(values) };
        }
        let behind = pa.offset((lines * LINE) as u64 * 8);
        self.fill(behind, rest, |i| word.wrapping_add((i as u64).wrapping_mul(step)));
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        if self.lse2.load(Ordering::Relaxed) { Some(self) } else { None }
    }
}

impl PairStore for Platform {
    /// # Panics
    /// As [`Platform::words`], and where `pa` is no multiple of 16.
    fn store_pair(&self, pa: Pa, [first, second]: [u64; 2]) {
        assert!(pa.is_aligned(16), "EL2 may not store 16 bytes at {pa}");
        let to = self.words(pa, 2).as_ptr();
        // SAFETY: the two words are memory that may be written at any time, as `words` has checked; the instruction stores
        // to them and nothing else. With FEAT_LSE2 it does so at once, since the memory is write-back and the address a
        // multiple of 16 (Arm ARM B2.2.1).
        unsafe {
            asm!("stp {}, {}, [{}]", in(reg) first, in(reg) second, in(reg) to, options(nostack, preserves_flags))
        };
    }
}

impl Frames for Platform {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        self.pool.alloc(order)
    }

    fn free(&self, block: FrameBlock) {
        self.pool.free(block);
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        self.pool.reserve(count)
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        self.pool.take(reserve)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        self.pool.unreserve(reserve);
    }

    fn free_frames(&self) -> usize {
        self.pool.free_frames()
    }
}

impl Cpu for Platform {
    fn barrier(&self, barrier: Barrier) {
        match barrier {
            Barrier::DsbIshst => barrier::dsb(barrier::ISHST),
            Barrier::DsbIsh => barrier::dsb(barrier::ISH),
            Barrier::DsbNsh => barrier::dsb(barrier::NSH),
            Barrier::DsbSt => barrier::dsb(barrier::ST),
            Barrier::DsbSy => barrier::dsb(barrier::SY),
            Barrier::Isb => barrier::isb(barrier::SY),
        }
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        let wanted = vttbr_word(vttbr);
        let current = VTTBR_EL2.get();
        let foreign = current != wanted;
        if foreign {
            // No guest runs on this CPU now, so what VTTBR_EL2 holds only decides which VMID is meant.
            VTTBR_EL2.set(wanted);
            barrier::isb(barrier::SY);
        }
        issue(op);
        if foreign {
            // The invalidation has taken its VMID before the register changes back.
            barrier::dsb(barrier::ISH);
            VTTBR_EL2.set(current);
            barrier::isb(barrier::SY);
        }
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        cache::clean(pa.0, bytes);
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        cache::invalidate(pa.0, bytes);
    }

    /// One CPU runs guests: this one, which is at EL2. The DSB ends the walks its guest had begun.
    fn hold(&self, _vttbr: Vttbr) -> Result<(), HoldTimeout> {
        barrier::dsb(barrier::ISH);
        Ok(())
    }

    fn release(&self, _vttbr: Vttbr) {}

    fn now_us(&self) -> u64 {
        timer::now_us()
    }

    fn relax(&self) {
        irq::window();
        core::hint::spin_loop();
    }
}

/// VTTBR_EL2: VMID in bits 63:48, address of the root table in 47:1 (Arm ARM, VTTBR_EL2).
pub fn vttbr_word(vttbr: Vttbr) -> u64 {
    const VMID_SHIFT: u32 = 48;
    u64::from(vttbr.vmid.0) << VMID_SHIFT | vttbr.root.0
}

fn issue(op: Tlbi) {
    // SAFETY: a TLB invalidation changes no translation, it only has it looked up again; EL2's own is not concerned.
    unsafe {
        match op {
            Tlbi::VmallS12E1Is => asm!("tlbi vmalls12e1is", options(nostack, preserves_flags)),
            Tlbi::VmallE1Is => asm!("tlbi vmalle1is", options(nostack, preserves_flags)),
            // The operand is the IPA's page number, in bits 35:0.
            Tlbi::IpaS2E1Is(ipa) => {
                asm!("tlbi ipas2e1is, {}", in(reg) ipa.0 >> PAGE_SHIFT, options(nostack, preserves_flags));
            }
            Tlbi::IpaS2E1(ipa) => {
                asm!("tlbi ipas2e1, {}", in(reg) ipa.0 >> PAGE_SHIFT, options(nostack, preserves_flags));
            }
            Tlbi::VmallE1 => asm!("tlbi vmalle1", options(nostack, preserves_flags)),
        }
    }
}
