//! The machine as software sees it, through the library's traits.

use strandline::addr::Pa;
use strandline::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use strandline::hw::{Barrier, Cpu, HoldTimeout, Memory, PairStore, Tlbi, Vttbr, Word};
use strandline::smmu::Registers;
use strandline::smmu::{Register32, Register64};

use super::{Machine, ModelWord, SmmuPort, turn};
use crate::alarm::Rule;
use crate::core::Core;
use crate::journal::Happening;
use crate::pe::CpuInvalidation;
use crate::tlb::Reach;
use crate::update::Walkers;

impl Word for ModelWord {
    fn load(&self) -> u64 {
        let core = &mut *turn(&self.core);
        if core.memory.is_stale(self.at) {
            let account = format!("software reads the record at {:#x} out of a cache", core.address(self.at));
            core.alarm(Rule::RecordStale, account);
        }
        core.memory.load(self.at, &mut core.random)
    }

    fn store(&self, value: u64) {
        let mut core = turn(&self.core);
        core.before_change(self.at, &|_| value);
        let old = core.memory.newest(self.at);
        core.check_change(self.at, old, value);
        core.memory.store(self.at, value, false);
        let pa = core.address(self.at);
        core.note(Happening::Store(pa, value));
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        let old = turn(&self.core).change(self.at, |word| if word == current { new } else { word });
        if old == current { Ok(old) } else { Err(old) }
    }

    fn fetch_and(&self, mask: u64) -> u64 {
        turn(&self.core).change(self.at, |word| word & mask)
    }

    fn fetch_or(&self, mask: u64) -> u64 {
        turn(&self.core).change(self.at, |word| word | mask)
    }
}

impl Memory for Machine {
    type Word = ModelWord;

    fn words(&self, pa: Pa, count: usize) -> &[ModelWord] {
        let first = self.core.borrow().index(pa.0);
        match first {
            Some(first) => &self.words[first as usize..][..count],
            None => panic!("software reaches for {pa}, where there is no memory it owns"),
        }
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        let first = self.words(pa, count).first().map_or(0, |w| w.at);
        let mut core = turn(&self.core);
        for i in 0..count {
            core.memory.store(first + i as u32, value(i), true);
        }
        core.note(Happening::Fill(pa.0, count));
    }

    fn pairs(&self) -> Option<&dyn PairStore> {
        if self.core.borrow().parameters.pes.lse2 { Some(self) } else { None }
    }
}

impl PairStore for Machine {
    fn store_pair(&self, pa: Pa, pair: [u64; 2]) {
        let first = self.words(pa, 2)[0].at;
        let mut core = turn(&self.core);
        core.memory.store_pair(first, pair);
        core.note(Happening::Store(pa.0, pair[0]));
        core.note(Happening::Store(pa.0 + 8, pair[1]));
    }
}

impl Frames for Machine {
    fn alloc(&self, order: u32) -> Option<FrameBlock> {
        let mut core = turn(&self.core);
        let block = core.pool.alloc(order)?;
        core.handed_out(&block);
        Some(block)
    }

    fn free(&self, block: FrameBlock) {
        let (order, bytes) = (block.order(), block.bytes());
        let pa = block.into_pa();
        let mut core = turn(&self.core);
        core.note(Happening::Freed(pa.0, order));
        if let Some(who) = core.referrer(pa.0, bytes) {
            core.alarm(Rule::FrameInUse, format!("the frame at {pa} is freed: {who}"));
        }
        if !core.pool.free(pa, order) {
            core.alarm(Rule::FrameFreedTwice, format!("the frame at {pa} is free already"));
        }
    }

    fn reserve(&self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        turn(&self.core).pool.reserve(count)
    }

    fn take(&self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        let mut core = turn(&self.core);
        let block = core.pool.take(reserve)?;
        core.handed_out(&block);
        Some(block)
    }

    fn unreserve(&self, reserve: FrameReserve) {
        turn(&self.core).pool.unreserve(&reserve);
    }

    fn free_frames(&self) -> usize {
        self.core.borrow().pool.free_frames()
    }
}

impl Core {
    fn handed_out(&mut self, block: &FrameBlock) {
        if let Some(at) = self.index(block.pa().0) {
            self.memory.forget_leaves(at, (block.bytes() / 8) as usize);
        }
    }
}

impl Cpu for Machine {
    fn barrier(&self, barrier: Barrier) {
        turn(&self.core).barrier(barrier);
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        let mut core = turn(&self.core);
        let begun = core.step;
        let of = match op {
            Tlbi::IpaS2E1(_) | Tlbi::VmallE1 => Walkers::OnePe(core.el2),
            Tlbi::VmallS12E1Is | Tlbi::VmallE1Is | Tlbi::IpaS2E1Is(_) => Walkers::AllPes,
        };
        core.cpu_invalidations.push(CpuInvalidation { of, reach: reach(vttbr, op), begun });
        core.note(Happening::Tlbi(vttbr.vmid.0, op));
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        let mut core = turn(&self.core);
        let (first, lines) = cache_lines(pa, bytes);
        core.tally.lines_cleaned += lines;
        if let Some(at) = core.index(first) {
            core.memory.clean(at, lines as usize * 8);
        }
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        let mut core = turn(&self.core);
        let (first, lines) = cache_lines(pa, bytes);
        core.tally.lines_invalidated += lines;
        if let Some(at) = core.index(first) {
            // Cleaned first, so that nothing beside it is lost.
            core.memory.clean(at, lines as usize * 8);
            core.memory.invalidate(at, lines as u32 * 8);
        }
    }

    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout> {
        if std::mem::take(&mut turn(&self.core).hold_fails) {
            return Err(HoldTimeout);
        }
        self.hold_with(vttbr, true);
        Ok(())
    }

    fn release(&self, vttbr: Vttbr) {
        let mut core = turn(&self.core);
        core.release(vttbr.root.0);
        core.note(Happening::Hold(false));
    }

    fn now_us(&self) -> u64 {
        self.core.borrow().clock_us
    }

    fn relax(&self) {
        let mut core = turn(&self.core);
        core.clock_us += 1;
        for _ in 0..4 {
            if !core.frozen {
                core.hardware_step();
            }
        }
    }
}

/// The cache lines, of 64 bytes, in which `bytes` from `pa` lie: where the first begins, and how many.
const fn cache_lines(pa: Pa, bytes: u64) -> (u64, u64) {
    let first = pa.0 & !63;
    (first, (pa.0 + bytes - first).div_ceil(64))
}

fn reach(vttbr: Vttbr, op: Tlbi) -> Reach {
    let vmid = vttbr.vmid.0;
    match op {
        Tlbi::VmallS12E1Is => Reach::Vmid(vmid),
        Tlbi::VmallE1Is | Tlbi::VmallE1 => Reach::Combined(vmid),
        Tlbi::IpaS2E1Is(ipa) | Tlbi::IpaS2E1(ipa) => {
            Reach::Ipa { vmid, first: ipa.0 & !0xfff, bytes: 0x1000, leaf_only: false, ttl: 0 }
        }
    }
}

impl Registers for SmmuPort {
    fn read32(&self, register: Register32) -> u32 {
        turn(&self.core).read_register(self.smmu, register)
    }

    fn write32(&self, register: Register32, value: u32) {
        turn(&self.core).write_register(self.smmu, register, value);
    }

    fn write64(&self, register: Register64, value: u64) {
        turn(&self.core).write_register64(self.smmu, register, value);
    }
}
