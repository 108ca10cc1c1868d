//! Hardware's traits with something left out: cleans, invalidations, bits of registers, errors.

use std::cell::Cell;

use strandline::addr::{Pa, Vmid};
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::{
    Barrier, CommandCounts, Cpu, DmaTlb, DmaTlbError, HoldTimeout, Memory, Scope, SizeChange, Tlbi,
    TreeSwitch, Vttbr,
};
use strandline::smmu::Registers;
use strandline::smmu::{Register32, Register64};
use strandline_model::{Machine, ModelWord, SmmuPort};

use crate::frames::frames_of_machine;

/// A machine on which cache maintenance is forgotten.
pub struct Forgetful<'m> {
    pub machine: &'m Machine,
    /// Cleans of so many bytes are left out.
    pub cleans: Cell<Option<u64>>,
    /// Invalidations are.
    pub invalidations: Cell<bool>,
}

impl<'m> Forgetful<'m> {
    /// One that forgets nothing yet.
    pub const fn new(machine: &'m Machine) -> Self {
        Self { machine, cleans: Cell::new(None), invalidations: Cell::new(false) }
    }
}

impl Memory for Forgetful<'_> {
    type Word = ModelWord;

    fn words(&self, pa: Pa, count: usize) -> &[ModelWord] {
        self.machine.words(pa, count)
    }

    fn fill(&self, pa: Pa, count: usize, value: impl Fn(usize) -> u64) {
        self.machine.fill(pa, count, value);
    }
}

impl Frames for Forgetful<'_> {
    frames_of_machine!();

    fn free(&self, block: FrameBlock) {
        self.machine.free(block);
    }
}

impl Cpu for Forgetful<'_> {
    fn barrier(&self, barrier: Barrier) {
        self.machine.barrier(barrier);
    }

    fn tlbi(&self, vttbr: Vttbr, op: Tlbi) {
        self.machine.tlbi(vttbr, op);
    }

    fn clean_to_poc(&self, pa: Pa, bytes: u64) {
        if self.cleans.get() != Some(bytes) {
            self.machine.clean_to_poc(pa, bytes);
        }
    }

    fn invalidate_from_poc(&self, pa: Pa, bytes: u64) {
        if !self.invalidations.get() {
            self.machine.invalidate_from_poc(pa, bytes);
        }
    }

    fn hold(&self, vttbr: Vttbr) -> Result<(), HoldTimeout> {
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

/// Registers of which some bits read as zero: software that does not look at them.
pub struct Blind {
    pub inner: SmmuPort,
    pub register: Register32,
    pub bits: u32,
}

impl Registers for Blind {
    fn read32(&self, register: Register32) -> u32 {
        let value = self.inner.read32(register);
        if register == self.register { value & !self.bits } else { value }
    }

    fn write32(&self, register: Register32, value: u32) {
        self.inner.write32(register, value);
    }

    fn write64(&self, register: Register64, value: u64) {
        self.inner.write64(register, value);
    }
}

/// Invalidations whose errors nobody hears of.
pub struct Deaf<'a, D>(pub &'a D);

impl<D: DmaTlb> DmaTlb for Deaf<'_, D> {
    fn sync(&self) -> Result<(), DmaTlbError> {
        let _unheard = self.0.sync();
        Ok(())
    }

    fn invalidate(&self, vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError> {
        let _unheard = self.0.invalidate(vmid, scope);
        Ok(())
    }

    fn commands(&self) -> CommandCounts {
        self.0.commands()
    }

    fn size_change(&self) -> SizeChange {
        self.0.size_change()
    }

    fn switching(&self) -> Option<&dyn TreeSwitch> {
        self.0.switching()
    }
}
