//! Table frames: handed out with what was in them, the latest freed first.

use strandline::addr::Pa;
use strandline::frames::{FrameBlock, FrameReserve, OutOfFrames};

use crate::core::POOL;

const FRAME: u64 = 0x1000;

/// The frames of a machine, from [`Machine::FRAMES`](crate::Machine::FRAMES).
pub struct Pool {
    free: Vec<bool>,
    /// Free frames, the latest freed last; some may have been handed out in blocks meanwhile.
    latest: Vec<usize>,
    reserved: usize,
}

impl Pool {
    /// So many frames, all free.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self { free: vec![true; frames], latest: (0..frames).rev().collect(), reserved: 0 }
    }

    /// Frames that are neither handed out nor reserved.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.free.iter().filter(|f| **f).count() - self.reserved
    }

    /// Whether the frame `pa` lies in is one of these, and free.
    #[must_use]
    pub fn is_free(&self, pa: Pa) -> bool {
        let index = pa.0.checked_sub(POOL).and_then(|offset| usize::try_from(offset / FRAME).ok());
        index.and_then(|index| self.free.get(index)).is_some_and(|free| *free)
    }

    fn one(&mut self) -> Option<usize> {
        while let Some(frame) = self.latest.pop() {
            if std::mem::replace(&mut self.free[frame], false) {
                return Some(frame);
            }
        }
        None
    }

    /// A block of 2^`order` frames.
    pub fn alloc(&mut self, order: u32) -> Option<FrameBlock> {
        let count = 1usize.checked_shl(order)?;
        if self.free_frames() < count {
            return None;
        }
        let first = if order == 0 {
            self.one()?
        } else {
            let fits = |i: &usize| self.free.get(*i..*i + count).is_some_and(|run| run.iter().all(|f| *f));
            let first = (0..self.free.len()).step_by(count).find(fits)?;
            self.free[first..first + count].fill(false);
            first
        };
        FrameBlock::new(Pa(POOL + first as u64 * FRAME), order).ok()
    }

    /// Sets `count` frames aside.
    ///
    /// # Errors
    /// There are fewer.
    pub fn reserve(&mut self, count: usize) -> Result<FrameReserve, OutOfFrames> {
        let free = self.free_frames();
        if free < count {
            return Err(OutOfFrames { needed: count, free });
        }
        self.reserved += count;
        Ok(FrameReserve::of(count))
    }

    /// One of the frames set aside.
    pub fn take(&mut self, reserve: &mut FrameReserve) -> Option<FrameBlock> {
        if !reserve.count_down() {
            return None;
        }
        self.reserved -= 1;
        let frame = self.one()?;
        FrameBlock::new(Pa(POOL + frame as u64 * FRAME), 0).ok()
    }

    /// Gives back those that were not taken.
    pub fn unreserve(&mut self, reserve: &FrameReserve) {
        self.reserved -= reserve.left();
    }

    /// Takes a block back; `false` where part of it was free already.
    pub fn free(&mut self, pa: Pa, order: u32) -> bool {
        let first = ((pa.0 - POOL) / FRAME) as usize;
        let frames = first..first + (1 << order);
        if self.free[frames.clone()].iter().any(|f| *f) {
            return false;
        }
        self.free[frames.clone()].fill(true);
        self.latest.extend(frames);
        true
    }
}
