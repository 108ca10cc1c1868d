//! Transactions that wait in an SMMU, kept in order until each has been answered, once (IHI 0070 §3.12.2).

use core::fmt;

use crate::addr::StreamId;
use crate::fifo::Fifo;
use crate::hw::{DmaTlbError, Platform, Resume, ResumeError, Stall, StallTlb};

use super::driver::Smmu;
use super::error::SmmuError;
use super::event_queue::Drained;
use super::fault::FaultEvent;
use super::registers::Registers;

/// The most records that are kept here. Others stay in the Event queue, and when that is full in the SMMU: none is lost.
pub(super) const CAPACITY: usize = 64;

/// The stalled transactions of one SMMU.
///
/// Who answers them has it exclusively, so that no record is answered twice, and none of a stream that has been taken
/// away. An interrupt handler does not touch it: it notes that there are records, which are then taken in outside.
pub struct StallQueue<'s, 'p, P, R> {
    smmu: &'s Smmu<'p, P, R>,
    waiting: Fifo<Stall, CAPACITY>,
}

impl<P, R> fmt::Debug for StallQueue<'_, '_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stalled transactions", self.len())
    }
}

impl<'s, 'p, P, R> StallQueue<'s, 'p, P, R> {
    /// An empty queue for `smmu`, which has no other.
    #[must_use]
    pub const fn new(smmu: &'s Smmu<'p, P, R>) -> Self {
        Self { smmu, waiting: Fifo::new() }
    }

    /// How many transactions wait for an answer, so far as it is known.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.waiting.len() == 0
    }

    /// Adds `event` if it is of a stalled transaction; there is room.
    fn push(&mut self, event: &FaultEvent) {
        if let Some(stag) = event.stall {
            self.waiting.push(Stall { stream: event.stream, stag, write: event.denied_write() });
        }
    }

    /// Drops what is known of streams that `stays` does not name, without an answer; the others keep their order.
    fn keep(&mut self, stays: impl Fn(StreamId) -> bool) {
        self.waiting.retain(|stall| stays(stall.stream));
    }
}

impl<P: Platform, R: Registers> StallQueue<'_, '_, P, R> {
    /// Reads the SMMU's event records: keeps those of stalled transactions, as long as there is room, and gives `sink`
    /// all but the stalled writes that stage 2 did not permit, which are how a log comes to know of them.
    ///
    /// Where it says that there are `more`, answer what waits and call it again.
    pub fn take_in(&mut self, mut sink: impl FnMut(&FaultEvent)) -> Drained {
        let (smmu, room) = (self.smmu, self.waiting.room());
        let drained = smmu.drain_some_events(room as u32, |event| {
            self.push(event);
            if event.stall.is_none() || event.denied_write().is_none() {
                sink(event);
            }
        });
        // What had stalled of a stream that aborts ends by CMD_STALL_TERM, in a detach that may have to be repeated.
        self.keep(|stream| smmu.is_attached(stream));
        drained
    }

    /// Has `answer` answer the oldest transaction that waits, by [`StallTlb::resume`]; `None` where none does. It stays
    /// the oldest one where the command could not be given.
    ///
    /// # Errors
    /// What `answer` says.
    pub fn answer_next<T>(
        &mut self,
        answer: impl FnOnce(&Stall) -> Result<T, ResumeError>,
    ) -> Option<Result<T, DmaTlbError>> {
        let answered = answer(self.waiting.front()?);
        if !matches!(answered, Err(ResumeError { issued: false, .. })) {
            self.waiting.pop();
        }
        Some(answered.map_err(|error| error.error))
    }

    /// [`Smmu::detach`] of a stream that may have stalled transactions: they end with an abort, and what the Event queue
    /// and this one hold of them is dropped, since their tags may name others from now on (§4.7.2.1). `sink` is given
    /// what [`StallQueue::take_in`] would give it.
    ///
    /// # Errors
    /// As [`Smmu::detach`], or a transaction of another stream stood in the way and could not be answered. Repeat it: the
    /// stream must not be attached before.
    pub fn detach(&mut self, stream: StreamId, mut sink: impl FnMut(&FaultEvent)) -> Result<(), SmmuError> {
        let detached = self.smmu.detach(stream);
        // From the STE's abort on a retry ends as well: nothing of the stream needs an answer, whatever came of it.
        self.keep(|other| other != stream);
        detached?;
        // With the CMD_SYNC all records of the stream have been written: as many as the queue holds at the most.
        let mut left = self.smmu.event_capacity();
        while left > 0 {
            if self.waiting.room() == 0 {
                self.retry_oldest()?;
            }
            let drained = self.take_in(&mut sink);
            left = if drained.more { left.saturating_sub(drained.records) } else { 0 };
        }
        Ok(())
    }

    /// Makes room: a transaction that is tried again comes back in another record, unless its cause has gone.
    fn retry_oldest(&mut self) -> Result<(), SmmuError> {
        let smmu = self.smmu;
        match self.answer_next(|stall| smmu.resume(stall, Resume::Retry)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(SmmuError::Unanswered(error)),
        }
    }
}
