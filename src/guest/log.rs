//! The guest's log, step by step or at once.

use crate::addr::{Ipa, IpaRange, PAGE_BYTES};
use crate::bits::set_bits;
use crate::dirty_log::{
    Flags, LogError, LogState, PAGE_WORDS, Progress, Request, Statistics, Synced, Tiers, WriteFault,
};
use crate::hw::Platform;
use crate::smmu::Registers;

use super::{Guest, GuestError};

/// How often a stop is tried again that could not hold a vCPU.
const TRIES: u32 = 8;

impl<P: Platform, R: Registers> Guest<'_, P, R> {
    /// Starts a log as `request` says (a range alone: of pages, by whatever tiers there are), to its end, and gives back its
    /// tiers. Every write that completes after this has returned is reported by the first sync that begins after it, as
    /// [`crate::dirty_log`] says of each tier. It takes long: [`Guest::start_step`] does the same in bounded steps.
    ///
    /// # Errors
    /// [`LogError`]: the log is off, and nothing has been changed; but see [`crate::dirty_log::DirtyLog::start`].
    pub fn start(&mut self, request: impl Into<Request>) -> Result<Tiers, GuestError> {
        let request = request.into();
        let mut step = 0;
        while let Progress::More(next) = self.start_step(request, step)? {
            step = next;
            self.platform.relax();
        }
        Ok(self.tiers())
    }

    /// Does one bounded step of a start: `step` is 0 first and then what [`Progress::More`] said.
    ///
    /// # Errors
    /// As [`crate::dirty_log::DirtyLog::start`].
    pub fn start_step(&mut self, request: impl Into<Request>, step: u64) -> Result<Progress, GuestError> {
        Ok(self.log.get_mut().start(self.platform, &mut self.space, request, step)?)
    }

    /// Stops the log, to its end. What was not reported is dropped.
    ///
    /// # Errors
    /// As [`crate::dirty_log::DirtyLog::stop`]. With [`LogError::NotHeld`] it is still under way: stop again.
    pub fn stop(&mut self) -> Result<(), GuestError> {
        let (mut step, mut tries) = (0, 0);
        loop {
            match self.stop_step(step) {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::More(next)) => step = next,
                Err(GuestError::Log(LogError::NotHeld)) if tries < TRIES => {
                    (step, tries) = (0, tries + 1);
                }
                Err(error) => return Err(error),
            }
            self.platform.relax();
        }
    }

    /// Does one bounded step of a stop: `step` is 0 first and then what [`Progress::More`] said.
    ///
    /// # Errors
    /// As [`crate::dirty_log::DirtyLog::stop`].
    pub fn stop_step(&mut self, step: u64) -> Result<Progress, GuestError> {
        Ok(self.log.get_mut().stop(self.platform, &mut self.space, step)?)
    }

    /// Reports the pages of `range` that were written, in ascending order, to `report`, and gives back how many. They leave
    /// the log: each view has been cleaned, and the invalidation has completed, before the first is reported. vCPUs, devices
    /// and faults go on meanwhile.
    ///
    /// `report` runs with the log locked: it notes the page, and [`Guest::read_page`] is called afterwards (from inside it is
    /// [`GuestError::Busy`]). It takes as long as the range is large; a caller who must not be away for long syncs parts.
    ///
    /// # Errors
    /// The log is not on, `range` is not all logged, another operation of the log is under way ([`GuestError::Busy`]), or
    /// hardware stopped answering ([`LogError::Untrusted`]).
    pub fn sync(&self, range: IpaRange, mut report: impl FnMut(Ipa)) -> Result<u64, GuestError> {
        let mut log = self.log.try_lock().ok_or(GuestError::Busy)?;
        let mut sum = Sum::default();
        while sum.pages < range.pages() {
            let part = log.step_of(range, sum.pages)?;
            let deliver = |word, bits| tell(part, word, bits, &mut report);
            let synced = log.sync(self.platform, &self.space, part, CLEARING, deliver)?;
            sum.add(part, synced);
            self.platform.relax();
        }
        Ok(sum.reported)
    }

    /// [`Guest::sync`] that changes sizes on the way, where the log is adaptive
    /// ([`Granule::Adaptive`](crate::dirty_log::Granule::Adaptive)): what is found written becomes pages, and what has rested
    /// blocks. It takes the VM exclusively: write-protect faults wait for it.
    ///
    /// # Errors
    /// As [`Guest::sync`].
    pub fn sync_adapting(&mut self, range: IpaRange, mut report: impl FnMut(Ipa)) -> Result<u64, GuestError> {
        let (log, mut sum) = (self.log.get_mut(), Sum::default());
        while sum.pages < range.pages() {
            let part = log.step_of(range, sum.pages)?;
            let deliver = |word, bits| tell(part, word, bits, &mut report);
            let synced = log.sync_adapting(self.platform, &mut self.space, part, CLEARING, deliver)?;
            sum.add(part, synced);
            self.platform.relax();
        }
        Ok(sum.reported)
    }

    /// What its log is doing.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        self.log.lock().state()
    }

    /// What its logs have done so far.
    #[must_use]
    pub fn log_statistics(&self) -> Statistics {
        self.log.lock().statistics()
    }

    /// Reads the page at `page`, each word once. In a log with digests the page is compared with these bytes from now on: it is
    /// reported until what was read here equals what memory holds.
    ///
    /// # Errors
    /// [`LogError::OutsideRam`], [`LogError::Changing`], or another operation of the log is under way.
    pub fn read_page(&self, page: Ipa, words: &mut [u64; PAGE_WORDS]) -> Result<(), GuestError> {
        let mut log = self.log.try_lock().ok_or(GuestError::Busy)?;
        Ok(log.read_page(self.platform, &self.space, page, words)?)
    }

    /// Answers a stage-2 permission fault of a vCPU's write to `ipa`, on the PE that took it
    /// ([`AddressSpace::write_fault`](crate::address_space::AddressSpace::write_fault)).
    pub fn write_fault(&self, ipa: Ipa) -> WriteFault {
        self.space.write_fault(self.platform, ipa)
    }

    /// Records that the hypervisor itself has written the pages of `range`: called *after* the store.
    pub fn mark_written(&self, range: IpaRange) {
        self.space.mark_written(self.platform, range);
    }
}

/// What a sync of everything asks for.
const CLEARING: Flags = Flags::BOTH.with(Flags::CLEAR);

/// What the steps of a sync have done.
#[derive(Default)]
struct Sum {
    pages: u64,
    reported: u64,
}

impl Sum {
    const fn add(&mut self, part: IpaRange, synced: Synced) {
        self.pages += part.pages();
        self.reported += synced.reported;
    }
}

/// Tells `report` of the pages of `part` that a delivered word names.
fn tell(part: IpaRange, word: u64, bits: u64, report: &mut impl FnMut(Ipa)) {
    set_bits(bits).for_each(|bit| report(part.start().offset((word * 64 + bit as u64) * PAGE_BYTES)));
}
