//! The Event queue (IHI 0070 §3.5.3, §7.2, §7.4): records out, overflow acknowledged.

use crate::addr::Pa;
use crate::frames::FrameBlock;
use crate::hw::{Barrier, Platform, Word};

use super::device::Device;
use super::fault::FaultEvent;
use super::registers::Registers;
use super::ring::Ring;
use super::spec::event::{EVENT_BYTES, EVENT_WORDS};
use super::spec::pages::{Register32, Register64};
use super::spec::registers::{EVENTQ_INDEX, QUEUE_BASE};

/// What one call of [`super::Smmu::drain_events`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records given to the sink.
    pub records: u32,
    /// The queue had overflowed: records were lost.
    pub overflowed: bool,
    /// As many records as the queue holds, or as were asked for, were read, and there are more: call again, since the
    /// queue may not have run empty and so may not interrupt again.
    pub more: bool,
}

/// The Event queue.
pub(super) struct EventQueue {
    base: Pa,
    ring: Ring,
    /// EVENTQ_CONS: the read index and the overflow acknowledgement.
    cons: u32,
    acknowledged: bool,
}

impl EventQueue {
    /// A queue of `2^bits` records in `block`.
    pub(super) fn new(block: FrameBlock, bits: u32) -> Self {
        Self { base: block.into_pa(), ring: Ring::new(bits), cons: 0, acknowledged: false }
    }

    /// Bytes of a queue of `2^bits` records.
    pub(super) const fn bytes(bits: u32) -> u64 {
        EVENT_BYTES << bits
    }

    /// How many records it holds.
    pub(super) const fn capacity(&self) -> u32 {
        self.ring.len()
    }

    /// Gives the registers the empty queue, no overflow pending. CR0.EVENTQEN is 0; the base comes first, since it
    /// decides which index bits exist (§6.3.26).
    ///
    /// What the frames held before is cleaned out of the caches: a dirty line written back later would overwrite a
    /// record of an SMMU that is not coherent. The barrier before CR0 is written completes that.
    pub(super) fn program<P: Platform, R: Registers>(&self, device: &Device<'_, P, R>) {
        device.clean(self.base, Self::bytes(self.ring.bits()));
        let base = QUEUE_BASE::ALLOCATE::SET
            + QUEUE_BASE::ADDR.val(self.base.0 >> QUEUE_BASE::ADDR.shift)
            + QUEUE_BASE::LOG2SIZE.val(u64::from(self.ring.bits()));
        device.registers.write64(Register64::EventqBase, base.value);
        device.registers.write32(Register32::EventqProd, 0);
        device.registers.write32(Register32::EventqCons, 0);
    }

    /// Gives `sink` the records that are there, oldest first, at most `most` and at most as many as the queue holds.
    pub(super) fn drain<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        most: u32,
        mut sink: impl FnMut(&FaultEvent),
    ) -> Drained {
        let mut drained = Drained::default();
        let most = most.min(self.ring.len());
        // Every pass but the last reads a record, or acknowledges an overflow.
        for _ in 0..=self.ring.len() {
            let (prod, overflowed) = self.poll(device);
            drained.overflowed |= overflowed;
            let waiting = self.ring.used(prod, self.cons);
            let count = waiting.min(most - drained.records);
            drained.more = waiting > count;
            if count == 0 && !overflowed {
                return drained;
            }
            self.read(device, count, &mut sink);
            self.give_back(device, count);
            drained.records += count;
        }
        drained.more = true;
        drained
    }

    /// Reads EVENTQ_PROD: the write index, and whether records have been lost since the last time. The flag is
    /// acknowledged with the next [`Self::give_back`].
    fn poll<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) -> (u32, bool) {
        let raw = device.registers.read32(Register32::EventqProd);
        let overflowed = EVENTQ_INDEX::OVERFLOW.is_set(raw) != self.acknowledged;
        if overflowed {
            self.acknowledged = !self.acknowledged;
            device.counters.events_lost.add(1);
        }
        (self.ring.index(EVENTQ_INDEX::INDEX.read(raw)), overflowed)
    }

    /// Reads `count` records from the read index on: after PROD was read, and from memory, not from stale cache
    /// lines.
    fn read<P: Platform, R: Registers>(
        &self,
        device: &Device<'_, P, R>,
        count: u32,
        sink: &mut impl FnMut(&FaultEvent),
    ) {
        let end = self.cons + count;
        if !device.coherent {
            for (first, count) in self.ring.spans(self.cons, self.ring.index(end)) {
                device.platform.invalidate_from_poc(self.record(first), u64::from(count) * EVENT_BYTES);
            }
        }
        device.platform.barrier(Barrier::DsbSy);
        for index in self.cons..end {
            let words = device.platform.words(self.record(self.ring.slot(index)), EVENT_WORDS);
            let mut raw = [0; EVENT_WORDS];
            for (value, word) in raw.iter_mut().zip(words) {
                *value = word.load();
            }
            sink(&FaultEvent::decode(raw));
        }
        device.counters.events.add(u64::from(count));
    }

    /// Gives `count` entries back to the SMMU, which may overwrite them: after they have been read.
    fn give_back<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>, count: u32) {
        self.cons = self.ring.index(self.cons + count);
        let cons =
            EVENTQ_INDEX::INDEX.val(self.cons) + EVENTQ_INDEX::OVERFLOW.val(u32::from(self.acknowledged));
        device.platform.barrier(Barrier::DsbSy);
        device.registers.write32(Register32::EventqCons, cons.value);
    }

    fn record(&self, slot: u32) -> Pa {
        self.base.offset(u64::from(slot) * EVENT_BYTES)
    }
}
