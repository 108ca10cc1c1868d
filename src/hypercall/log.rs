//! The calls on the caller's own log.

use core::ops::Deref;

use spin::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use strandline_abi::{
    ADAPTS_CPU, ADAPTS_DMA, Call, DeviceRecord, Error, FaultRecord, Flags, GRANULE_ADAPTIVE, LogStatus,
    PAGE_BYTES, PAGES_PER_WORD, Status, Tiers, VERSION,
};

use super::{Answer, Arguments, CallError, GuestBuffer};
use crate::addr::{Ipa, IpaRange, PageSize};
use crate::address_space::AddressSpace;
use crate::dirty_log::{DirtyLog, Granule, LogError, PAGE_WORDS, Policy, Progress, Reading, Request};
use crate::hw::{DmaTlb, Platform, Word};
use crate::vm::{self, FaultLog, Vm};

/// The fixed granules a start takes; each one's bit in the features is its bytes.
const GRANULES: [PageSize; 3] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];
/// Pages that one step reads.
const READ_PAGES: u64 = 16;

/// One operation of a log runs at a time; a second caller is told so at once.
fn lock<'v, D>(vm: &'v Vm<'_, D>) -> Result<MutexGuard<'v, DirtyLog>, CallError> {
    vm.log.try_lock().ok_or(CallError::new(Error::Busy, 0))
}

const fn status_of(progress: Progress) -> (Status, u64) {
    match progress {
        Progress::Done => (Status::Done, 0),
        Progress::More(step) => (Status::More, step),
    }
}

/// A step out of turn: the offending value is the one the caller gave.
fn in_turn(error: LogError, given: u64) -> CallError {
    match error {
        LogError::OutOfStep(_) => CallError::invalid(given),
        other => other.into(),
    }
}

/// What goes into x1 to x3, and the tiers for x4.
pub(super) fn features<D: DmaTlb>(vm: &Vm<'_, D>) -> Result<([u64; 3], u64), CallError> {
    let numbered = Call::ALL.iter().filter(|c| c.id() >> 16 == 0xc600);
    let calls = numbered.fold(0, |bits, call| bits | 1 << (call.id() & 0xffff));
    let tiers = lock(vm)?.tiers(&*vm.space.read()).to_bits();
    let granules = GRANULES.iter().fold(GRANULE_ADAPTIVE, |bits, granule| bits | granule.bytes());
    Ok(([VERSION.into(), calls, granules], tiers))
}

pub(super) fn start<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let [ipa, bytes, granule, weakest, step] = *arguments;
    let range = IpaRange::new(Ipa(ipa), bytes)?;
    let granule = granule_of(granule).ok_or(CallError::invalid(granule))?;
    let tiers = Tiers::from_bits(weakest).filter(|tiers| tiers.to_bits() == weakest);
    let weakest = tiers.ok_or(CallError::invalid(weakest))?;
    let request = Request { range, granule, weakest };
    let mut log = lock(vm)?;
    let mut space = vm.space.write();
    let progress = log.start(platform, &mut space, request, step).map_err(|error| in_turn(error, step))?;
    let (status, next) = status_of(progress);
    let adapting = log.adapting(&*space);
    let adapts = [(adapting.cpu, ADAPTS_CPU), (adapting.dma, ADAPTS_DMA)];
    let adapts = adapts.iter().filter(|(adapts, _)| *adapts).fold(0, |bits, (_, bit)| bits | bit);
    Ok((status, [next, log.tiers(&*space).to_bits() | adapts, log.blocks_split_by_start()]))
}

/// The granule that a start's argument names.
fn granule_of(argument: u64) -> Option<Granule> {
    if argument == GRANULE_ADAPTIVE {
        return Some(Granule::Adaptive(Policy::default()));
    }
    GRANULES.into_iter().find(|known| known.bytes() == argument).map(Granule::Fixed)
}

pub(super) fn stop<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let step = arguments[4];
    let mut log = lock(vm)?;
    let mut space = vm.space.write();
    let (status, next) =
        status_of(log.stop(platform, &mut space, step).map_err(|error| in_turn(error, step))?);
    Ok((status, [next, 0, 0]))
}

/// The address space, as a sync or clear takes it: shared, or exclusively where the log is adaptive, for this step.
enum Held<'v, 'd, D> {
    Shared(RwLockReadGuard<'v, AddressSpace<'d, D>>),
    Exclusive(RwLockWriteGuard<'v, AddressSpace<'d, D>>),
}

impl<'v, 'd, D> Held<'v, 'd, D> {
    fn of(vm: &'v Vm<'d, D>, log: &DirtyLog) -> Self {
        if log.is_adaptive() { Self::Exclusive(vm.space.write()) } else { Self::Shared(vm.space.read()) }
    }
}

impl<'d, D> Deref for Held<'_, 'd, D> {
    type Target = AddressSpace<'d, D>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Shared(space) => space,
            Self::Exclusive(space) => space,
        }
    }
}

/// What sync and clear have in common: the next part of the range, and its words in the caller's memory.
struct Step {
    part: IpaRange,
    buffer: GuestBuffer,
    next: u64,
    more: bool,
}

impl Step {
    fn check<P: Platform, D: DmaTlb>(
        platform: &P,
        log: &DirtyLog,
        space: &AddressSpace<'_, D>,
        arguments: &Arguments,
        flags: Flags,
    ) -> Result<Self, CallError> {
        let [ipa, bytes, bitmap, _, done] = *arguments;
        let range = IpaRange::new(Ipa(ipa), bytes)?;
        let part = log.step_for(range, done, flags).map_err(|error| in_turn(error, done))?;
        let words = range.pages().div_ceil(PAGES_PER_WORD);
        if done == 0 {
            GuestBuffer::check(platform, space, Ipa(bitmap), words)?;
        }
        let at = bitmap.checked_add(done / 8).ok_or(CallError::new(Error::OutOfRange, bitmap))?;
        let here = part.pages().div_ceil(PAGES_PER_WORD) as usize;
        let buffer = GuestBuffer::validate(platform, space, Ipa(at), here)?;
        let next = done + part.pages();
        Ok(Self { part, buffer, next, more: next < range.pages() })
    }

    fn answer(&self, pages: u64, tiers: u64) -> (Status, [u64; 3]) {
        let (status, next) = if self.more { (Status::More, self.next) } else { (Status::Done, 0) };
        (status, [next, pages, tiers])
    }
}

/// Checks x4 of sync and clear.
fn flags(arguments: &Arguments, allowed: Flags) -> Result<Flags, CallError> {
    Flags::checked(arguments[3], allowed).ok_or(CallError::invalid(arguments[3]))
}

pub(super) fn sync<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let flags = flags(arguments, Flags::BOTH.with(Flags::CLEAR))?;
    let mut log = lock(vm)?;
    let mut space = Held::of(vm, &log);
    let step = Step::check(platform, &log, &space, arguments, flags)?;
    read_log(platform, &mut log, &mut space, &step, Reading::sync(step.part, flags))
}

pub(super) fn clear<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let flags = flags(arguments, Flags::BOTH)?;
    let mut log = lock(vm)?;
    let mut space = Held::of(vm, &log);
    let step = Step::check(platform, &log, &space, arguments, flags)?;
    // The guest may change the mask meanwhile: each word is read once.
    let mut mask = [0; GuestBuffer::MAX_WORDS];
    for (index, wanted) in mask.iter_mut().enumerate() {
        if index % 64 == 63 {
            platform.relax();
        }
        *wanted = step.buffer.word(platform, index as u64).map_or(0, Word::load);
    }
    let wanted = |index: u64| usize::try_from(index).ok().and_then(|i| mask.get(i)).copied().unwrap_or(0);
    read_log(platform, &mut log, &mut space, &step, Reading::clear(step.part, flags, &wanted))
}

/// Does a step of a sync or clear, changing sizes on the way where the log is adaptive, into the caller's words.
fn read_log<P: Platform, D: DmaTlb>(
    platform: &P,
    log: &mut DirtyLog,
    space: &mut Held<'_, '_, D>,
    step: &Step,
    mut reading: Reading<'_>,
) -> Answer {
    if let Held::Exclusive(space) = space {
        log.adapt(platform, space, &mut reading)?;
    }
    let pages = log.read(platform, space, &reading, &mut |index, bits| {
        if let Some(word) = step.buffer.word(platform, index) {
            word.store(bits);
        }
        true
    })?;
    mark(platform, space, &step.buffer);
    Ok(step.answer(pages, log.tiers(space).to_bits()))
}

/// EL2's own stores count as writes of the caller's; called after them.
fn mark<P: Platform, D: DmaTlb>(platform: &P, space: &AddressSpace<'_, D>, buffer: &GuestBuffer) {
    if let Some(touched) = buffer.touched() {
        space.mark_written(platform, touched);
    }
}

/// Reads pages into the caller's memory. All of range and buffer is checked at the first step, and what a step reads and
/// writes at that step; a page is read only when the place for it is known, since the log takes it for delivered then.
pub(super) fn read<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let [ipa, bytes, buffer, _, done] = *arguments;
    let range = IpaRange::new(Ipa(ipa), bytes)?;
    if done >= range.pages() || !done.is_multiple_of(READ_PAGES) {
        return Err(CallError::invalid(done));
    }
    if !buffer.is_multiple_of(8) {
        return Err(CallError::new(Error::Unaligned, buffer));
    }
    let mut log = lock(vm)?;
    let space = vm.space.read();
    let end = range.pages().min(done + READ_PAGES);
    let checked = if done == 0 { range.pages() } else { end } - done;
    let part = IpaRange::new(range.start().offset(done * PAGE_BYTES), checked * PAGE_BYTES)?;
    if let Some(outside) = space.first_outside_ram(part) {
        return Err(CallError::new(Error::OutOfRange, outside.0));
    }
    let to = buffer.checked_add(done * PAGE_BYTES).ok_or(CallError::new(Error::OutOfRange, buffer))?;
    GuestBuffer::check(platform, &space, Ipa(to), checked * PAGE_WORDS as u64)?;
    let mut words = [0; PAGE_WORDS];
    for page in 0..end - done {
        let place = GuestBuffer::validate(platform, &space, Ipa(to + page * PAGE_BYTES), PAGE_WORDS)?;
        log.read_page(platform, &space, part.start().offset(page * PAGE_BYTES), &mut words)?;
        store(platform, &place, 0, &words);
        mark(platform, &space, &place);
        platform.relax();
    }
    let (status, next) = if end < range.pages() { (Status::More, end) } else { (Status::Done, 0) };
    Ok((status, [next, end - done, 0]))
}

pub(super) fn status<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let [buffer, bytes, ..] = *arguments;
    if !bytes.is_multiple_of(8) {
        return Err(CallError::new(Error::Unaligned, bytes));
    }
    let words = (bytes.min(LogStatus::BYTES) / 8) as usize;
    let log = lock(vm)?;
    let space = vm.space.read();
    let buffer = GuestBuffer::validate(platform, &space, Ipa(buffer), words)?;
    let record = vm::status(platform, &log, &space).to_words();
    store(platform, &buffer, 0, record.get(..words).unwrap_or(&record));
    mark(platform, &space, &buffer);
    Ok((Status::Done, [words as u64 * 8, 0, 0]))
}

pub(super) fn faults<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let [buffer, records, ..] = *arguments;
    let space = vm.space.try_read().ok_or(CallError::new(Error::Busy, 0))?;
    let mut faults = vm.faults.lock();
    let count = records.min(faults.len() as u64) as usize;
    // What may be written is checked, so that whether a call is right doesn't depend on what has happened.
    let offered = records.min(FaultLog::CAPACITY as u64) * FaultRecord::WORDS as u64;
    GuestBuffer::check(platform, &space, Ipa(buffer), offered)?;
    let buffer = GuestBuffer::validate(platform, &space, Ipa(buffer), count * FaultRecord::WORDS)?;
    for i in 0..count {
        let Some(record) = faults.pop() else { break };
        store(platform, &buffer, i * FaultRecord::WORDS, &record.to_words());
    }
    mark(platform, &space, &buffer);
    Ok((Status::Done, [count as u64, faults.take_lost(), 0]))
}

pub(super) fn devices<P: Platform, D: DmaTlb>(platform: &P, vm: &Vm<'_, D>, arguments: &Arguments) -> Answer {
    let [buffer, room, ..] = *arguments;
    let space = vm.space.try_read().ok_or(CallError::new(Error::Busy, 0))?;
    let records = vm.devices.records();
    let written = records.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    let buffer = GuestBuffer::validate(platform, &space, Ipa(buffer), written * DeviceRecord::WORDS)?;
    for (i, record) in records.iter().take(written).enumerate() {
        store(platform, &buffer, i * DeviceRecord::WORDS, &record.to_words());
    }
    mark(platform, &space, &buffer);
    Ok((Status::Done, [written as u64, records.len() as u64, 0]))
}

fn store(platform: &impl Platform, buffer: &GuestBuffer, first: usize, words: &[u64]) {
    for (i, value) in words.iter().enumerate() {
        if let Some(word) = buffer.word(platform, (first + i) as u64) {
            word.store(*value);
        }
    }
}
