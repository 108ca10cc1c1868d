//! Who answers stalled transactions: between any two steps of whatever else software does, sooner or later.

use std::cell::{Cell, RefCell};

use strandline::addr::StreamId;
use strandline::dirty_log::StallAnswer;
use strandline::hw::{Resume, StallTlb};
use strandline::smmu::{FaultEvent, SmmuError};
use strandline_model::Machine;

use crate::host::{Driver, Host, Mischief, Space, Stalls};

/// The stalled transactions of a host, and where each stream belongs.
#[derive(Default)]
pub struct StallDesk<'a> {
    /// Of each SMMU.
    queues: RefCell<Vec<(&'a Driver<'a>, Stalls<'a>)>>,
    /// The view of each stream.
    routes: RefCell<Vec<(StreamId, usize)>>,
    answering: Cell<bool>,
    /// Some stream may stall: records are read as they come.
    busy: Cell<bool>,
    turns: Cell<u64>,
    /// Writes recorded.
    pub recorded: Cell<u64>,
    /// Transactions aborted.
    pub aborted: Cell<u64>,
    /// Writes that were terminated though they should have stalled.
    pub terminated: Cell<u64>,
}

impl<'a> StallDesk<'a> {
    pub fn open(&self, smmus: &[&'a Driver<'a>]) {
        *self.queues.borrow_mut() = smmus.iter().map(|smmu| (*smmu, Stalls::new(smmu))).collect();
    }

    /// `stream` goes through view `index`, and `may_stall`.
    pub fn route(&self, stream: StreamId, index: usize, may_stall: bool) {
        self.routes.borrow_mut().push((stream, index));
        self.busy.set(self.busy.get() || may_stall);
    }

    pub fn is_answering(&self) -> bool {
        self.answering.get()
    }

    /// Whether somebody gets round to it now.
    pub fn are_due(&self, machine: &Machine) -> bool {
        // What a silent SMMU could not be told waits here until it answers again.
        let waits = || self.queues.try_borrow().is_ok_and(|queues| queues.iter().any(|(_, q)| !q.is_empty()));
        self.busy.get() && (machine.has_events() || machine.smmus_answer() && waits()) && {
            let turn = self.turns.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            self.turns.set(turn);
            turn >> 61 == 0
        }
    }

    /// Reads what event records there are, and answers what has stalled.
    pub fn attend(&self, host: &Host<'a>, space: &Space<'a>) {
        let Ok(mut queues) = self.queues.try_borrow_mut() else { return };
        self.answering.set(true);
        for (smmu, queue) in queues.iter_mut() {
            self.attend_to(host, space, smmu, queue);
        }
        self.answering.set(false);
    }

    fn attend_to(&self, host: &Host<'a>, space: &Space<'a>, smmu: &'a Driver<'a>, queue: &mut Stalls<'a>) {
        loop {
            let more = host.driving(|| queue.take_in(|event| self.told(host, space, event))).more;
            while self.answer_next(host, space, smmu, queue) {}
            // Where the SMMU is silent what waits keeps its place.
            if !more || !queue.is_empty() {
                return;
            }
        }
    }

    fn answer_next(
        &self,
        host: &Host<'a>,
        space: &Space<'a>,
        smmu: &'a Driver<'a>,
        queue: &mut Stalls<'a>,
    ) -> bool {
        let answer = queue.answer_next(|stall| {
            let forgotten = host.mischief == Mischief::StallForgotten && self.recorded.get() % 16 == 15;
            if forgotten {
                self.recorded.set(self.recorded.get() + 1);
                return Ok(StallAnswer::Aborted);
            }
            let index = self.routes.borrow().iter().find(|(of, _)| *of == stall.stream).map(|(_, i)| *i);
            match index.and_then(|index| space.dma_view(index)) {
                Some(view) => {
                    if let Some(page) = stall.write {
                        host.machine.taken_for_written(page);
                    }
                    if host.mischief == Mischief::AnsweredTwice {
                        space.answer_stall(host, view, stall)?;
                    }
                    space.answer_stall(host, view, stall)
                }
                None => host.driving(|| smmu.resume(stall, Resume::Abort)).map(|()| StallAnswer::Aborted),
            }
        });
        match answer {
            Some(Ok(StallAnswer::Recorded)) => self.recorded.set(self.recorded.get() + 1),
            Some(Ok(StallAnswer::Aborted)) => self.aborted.set(self.aborted.get() + 1),
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// An event that is no stalled write.
    fn told(&self, host: &Host<'a>, space: &Space<'a>, event: &FaultEvent) {
        let Some(ipa) = event.denied_write().filter(|_| event.stall.is_none()) else { return };
        let index = self.routes.borrow().iter().find(|(of, _)| *of == event.stream).map(|(_, i)| *i);
        if let Some(view) = index.and_then(|index| space.dma_view(index))
            && space.write_terminated(host, view, ipa)
        {
            self.terminated.set(self.terminated.get() + 1);
        }
    }

    /// Takes `stream` away, which is behind `smmu`.
    pub fn detach(&self, host: &Host<'a>, smmu: &'a Driver<'a>, stream: StreamId) -> Result<(), SmmuError> {
        let mut queues = self.queues.borrow_mut();
        let Some((_, queue)) = queues.iter_mut().find(|(of, _)| std::ptr::eq(*of, smmu)) else {
            return Ok(());
        };
        host.driving(|| queue.detach(stream, |_| ()))?;
        self.routes.borrow_mut().retain(|(of, _)| *of != stream);
        Ok(())
    }
}
