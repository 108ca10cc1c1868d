//! QEMU's virt machine as the library's traits see it: frames, memory, barriers, time.

use core::{arch::asm, cell::Cell, slice, sync::atomic::AtomicU64};

use strandline::addr::{PAGE_BYTES, Pa};
use strandline::frames::{FrameBlock, FrameSource, Reserved};
use strandline::hw::{Barrier, Cpu, HoldTimeout, Memory, Tlbi, Vttbr};

/// RAM that nothing else uses: 128 frames for tables and queues, and the guest's RAM.
const FRAMES: u64 = 0x4400_0000;
pub const GUEST_RAM: u64 = 0x4800_0000;

/// The machine, on its one core, with a bit for each frame that is used.
#[derive(Default)]
pub struct Board {
    used: Cell<u128>,
    reserved: Reserved,
}

impl Memory for Board {
    type Word = AtomicU64;
    fn words(&self, pa: Pa, count: usize) -> &[AtomicU64] {
        let (end, limit) = (pa.0 + count as u64 * 8, FRAMES + 128 * PAGE_BYTES);
        assert!(pa.is_aligned(8) && pa.0 >= FRAMES && end <= limit, "{count} words at {pa} are no frame's");
        // SAFETY: RAM, mapped at its own address for ever, without a Rust object in it; aligned. Whatever else accesses it
        // does so as it would access an atomic.
        unsafe { slice::from_raw_parts(pa.0 as *const AtomicU64, count) }
    }
}

impl FrameSource for Board {
    fn take_block(&self, order: u32) -> Option<FrameBlock> {
        let (used, mask) = (self.used.get(), u128::MAX >> (128 - (1 << order)));
        let first = (0..128).step_by(1 << order).find(|first| used & mask << first == 0)?;
        self.used.set(used | mask << first);
        FrameBlock::new(Pa(FRAMES + first * PAGE_BYTES), order).ok()
    }
    fn give_back(&self, block: FrameBlock) {
        let mask = u128::MAX >> (128 - (1 << block.order()));
        self.used.set(self.used.get() & !(mask << ((block.pa().0 - FRAMES) / PAGE_BYTES)));
    }
    fn unused_frames(&self) -> usize {
        self.used.get().count_zeros() as usize
    }
    fn reserved(&self) -> &Reserved {
        &self.reserved
    }
}

/// One instruction that EL2 may execute at any time.
macro_rules! el2 {
    ($instruction:literal $(, $operand:expr)?) => {
        // SAFETY: barriers, cleaning caches, and forgetting a guest's translations change no memory and nothing of EL2's.
        unsafe { asm!($instruction $(, in(reg) $operand)?) }
    };
}

impl Cpu for Board {
    fn barrier(&self, barrier: Barrier) {
        match barrier {
            Barrier::DsbIshst => el2!("dsb ishst"),
            Barrier::DsbIsh => el2!("dsb ish"),
            Barrier::DsbNsh => el2!("dsb nsh"),
            Barrier::DsbSt => el2!("dsb st"),
            Barrier::DsbSy => el2!("dsb sy"),
            Barrier::Isb => el2!("isb"),
        }
    }
    /// No guest runs here: VTTBR_EL2 only says which VMID is meant. QEMU's cores need no broadcast twice.
    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        el2!("msr vttbr_el2, {}", u64::from(vttbr.vmid.0) << 48 | vttbr.root.0);
        el2!("isb");
        match op {
            Tlbi::VmallS12E1Is => el2!("tlbi vmalls12e1is"),
            Tlbi::VmallE1Is => el2!("tlbi vmalle1is"),
            Tlbi::IpaS2E1Is(ipa) => el2!("tlbi ipas2e1is, {}", ipa.0 >> 12),
            Tlbi::IpaS2E1(ipa) => el2!("tlbi ipas2e1, {}", ipa.0 >> 12),
            Tlbi::VmallE1 => el2!("tlbi vmalle1"),
        }
    }
    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        (pa.0 & !15..pa.0 + bytes).step_by(16).for_each(|line| el2!("dc cvac, {}", line));
    }
    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        (pa.0 & !15..pa.0 + bytes).step_by(16).for_each(|line| el2!("dc civac, {}", line));
    }
    /// There are no vCPUs to hold.
    fn hold(&self, _: Vttbr) -> Result<(), HoldTimeout> {
        Ok(())
    }
    fn release(&self, _: Vttbr) {}
    fn now_us(&self) -> u64 {
        let (count, hertz): (u64, u64);
        // SAFETY: reads two registers.
        unsafe { asm!("isb", "mrs {}, cntpct_el0", "mrs {}, cntfrq_el0", out(reg) count, out(reg) hertz) };
        (u128::from(count) * 1_000_000 / u128::from(hertz)) as u64
    }
    fn relax(&self) {
        core::hint::spin_loop();
    }
}
