//! Strandline's hypercalls: typed, each repeated until all of it is done.

use core::fmt;

use strandline_abi::{
    Call, Error, FaultRecord, Features, Flags, LogStatus, PAGE_BYTES, Status, Tiers, UID_WORDS, bitmap_bytes,
};

use crate::area::Area;
use crate::power::hvc;
use crate::reason::Reason;
use crate::window::Window;

/// More steps than any call on any guest's memory takes.
const MAX_STEPS: u32 = 1 << 24;

/// Why a call gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of the interface, and the offending value.
    Refused(Error, u64),
    /// An answer in x0 that the interface doesn't have.
    UnknownStatus(u64),
    /// A value in a result that the interface doesn't have.
    UnknownValue(u64),
    /// The call said 'more' without end.
    Endless,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error, value) => write!(f, "{error} (x1 = {value:#x})"),
            Self::UnknownStatus(x0) => write!(f, "unknown answer x0 = {x0:#x}"),
            Self::UnknownValue(value) => write!(f, "unknown value {value:#x} in an answer"),
            Self::Endless => f.write_str("the call does not end"),
        }
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        Self::new(format_args!("hypercall: {failure}"))
    }
}

/// One step of a call that did not fail: whether all is done, and x1..x4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// x0.
    pub status: Status,
    /// x1..x4.
    pub values: [u64; 4],
}

/// Makes one step of the call `function`; see [`hvc`] for what the arguments may name.
///
/// # Errors
/// x0 is not one of [`Status`].
pub fn step(function: u32, args: [u64; 5]) -> Result<Step, Failure> {
    let [x0, values @ ..] = hvc(function, args);
    let status = match x0 {
        0 => Status::Done,
        1 => Status::More,
        _ => {
            return Err(Error::from_x0(x0)
                .map_or(Failure::UnknownStatus(x0), |error| Failure::Refused(error, values[0])));
        }
    };
    Ok(Step { status, values })
}

/// Repeats a call until it is done; `each` sees x1..x4 of every step.
fn all_steps(call: Call, args: [u64; 4], mut each: impl FnMut([u64; 4])) -> Result<u32, Failure> {
    let [x1, x2, x3, x4] = args;
    let mut position = 0;
    for count in 1..=MAX_STEPS {
        let step = step(call.id(), [x1, x2, x3, x4, position])?;
        each(step.values);
        if step.status == Status::Done {
            return Ok(count);
        }
        position = step.values[0];
    }
    Err(Failure::Endless)
}

fn tiers(bits: u64) -> Result<Tiers, Failure> {
    Tiers::from_bits(bits).ok_or(Failure::UnknownValue(bits))
}

/// Whether the hypervisor underneath answers with Strandline's UID.
#[must_use]
pub fn uid_matches() -> bool {
    let [words @ .., _] = hvc(Call::Uid.id(), [0; 5]);
    words == UID_WORDS.map(u64::from)
}

/// The revision: major and minor.
#[must_use]
pub fn revision() -> (u64, u64) {
    let [major, minor, ..] = hvc(Call::Revision.id(), [0; 5]);
    (major, minor)
}

/// What the interface offers.
///
/// # Errors
/// As [`step`], or a tier is unknown.
pub fn features() -> Result<Features, Failure> {
    let [version, calls, granules, bits] = step(Call::Features.id(), [0; 5])?.values;
    let version = u32::try_from(version).map_err(|_| Failure::UnknownValue(version))?;
    Ok(Features { version, calls, granules, tiers: tiers(bits)? })
}

/// What a start did.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Hypercalls it took.
    pub steps: u32,
    /// How writes come to be known.
    pub tiers: Tiers,
    /// Blocks it split.
    pub blocks_split: u64,
}

/// Starts a log of `range` at 4 KiB.
///
/// # Errors
/// As [`step`], or a tier is unknown.
pub fn start(range: Area) -> Result<Started, Failure> {
    start_by(range, PAGE_BYTES)
}

/// Starts a log of `range` in which larger blocks than `granule` are split.
///
/// # Errors
/// As [`step`], or a tier is unknown.
pub fn start_by(range: Area, granule: u64) -> Result<Started, Failure> {
    let mut last = [0; 4];
    let steps = all_steps(Call::Start, [range.start(), range.bytes(), granule, 0], |x| last = x)?;
    let [_, bits, blocks_split, _] = last;
    Ok(Started { steps, tiers: tiers(bits)?, blocks_split })
}

/// What a sync or a clear did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harvested {
    /// Hypercalls it took.
    pub steps: u32,
    /// Pages it reported, or discarded, by its own count.
    pub pages: u64,
}

/// # Panics
/// `bitmap` has no room for the bits of `range`: EL2 would write behind it.
fn harvest(call: Call, range: Area, bitmap: &Window, flags: Flags) -> Result<Harvested, Failure> {
    assert!(bitmap_bytes(range.pages()) <= bitmap.area().bytes(), "no room for the bits of {range}");
    let mut pages = 0;
    let args = [range.start(), range.bytes(), bitmap.start(), flags.bits()];
    let steps = all_steps(call, args, |[_, more, ..]| pages += more)?;
    Ok(Harvested { steps, pages })
}

/// Reads the log of `range` into `bitmap`, which has room for it.
///
/// # Errors
/// As [`step`].
pub fn sync(range: Area, bitmap: &Window, flags: Flags) -> Result<Harvested, Failure> {
    harvest(Call::Sync, range, bitmap, flags)
}

/// Discards what `mask` names; the bits that were set are in it afterwards.
///
/// # Errors
/// As [`step`].
pub fn clear(range: Area, mask: &Window, sources: Flags) -> Result<Harvested, Failure> {
    harvest(Call::Clear, range, mask, sources)
}

/// Reads the pages of `range` into `buffer`, which has room for them; a log with digests compares them with these bytes
/// from then on.
///
/// # Errors
/// As [`step`].
///
/// # Panics
/// `buffer` has no room for them: EL2 would write behind it.
pub fn read(range: Area, buffer: &Window) -> Result<Harvested, Failure> {
    assert!(range.bytes() <= buffer.area().bytes(), "no room for {range}");
    let mut pages = 0;
    let args = [range.start(), range.bytes(), buffer.start(), 0];
    let steps = all_steps(Call::Read, args, |[_, more, ..]| pages += more)?;
    Ok(Harvested { steps, pages })
}

/// Ends the log; gives back how many hypercalls it took.
///
/// # Errors
/// As [`step`].
pub fn stop() -> Result<u32, Failure> {
    all_steps(Call::Stop, [0; 4], |_| ())
}

/// State and statistics of the log.
///
/// # Errors
/// As [`step`], or fewer bytes were written than this version's record has.
pub fn status() -> Result<LogStatus, Failure> {
    let mut words = [0_u64; LogStatus::WORDS];
    let buffer = words.as_mut_ptr().expose_provenance() as u64;
    let [written, ..] = step(Call::Status.id(), [buffer, LogStatus::BYTES, 0, 0, 0])?.values;
    if written == LogStatus::BYTES {
        Ok(LogStatus::from_words(words))
    } else {
        Err(Failure::UnknownValue(written))
    }
}

/// Accesses of the VM's devices that were stopped.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    records: [FaultRecord; Self::MOST],
    count: usize,
    /// Records lost since the last call.
    pub lost: u64,
}

impl Faults {
    /// Records one call asks for.
    pub const MOST: usize = 16;

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[FaultRecord] {
        &self.records[..self.count]
    }
}

/// Takes the next records of stopped accesses.
///
/// # Errors
/// As [`step`], or more records were written than were asked for.
pub fn faults() -> Result<Faults, Failure> {
    let mut words = [[0_u64; FaultRecord::WORDS]; Faults::MOST];
    let buffer = words.as_mut_ptr().expose_provenance() as u64;
    let [written, lost, ..] = step(Call::Faults.id(), [buffer, Faults::MOST as u64, 0, 0, 0])?.values;
    match usize::try_from(written) {
        Ok(count) if count <= Faults::MOST => {
            Ok(Faults { records: words.map(FaultRecord::from_words), count, lost })
        }
        _ => Err(Failure::UnknownValue(written)),
    }
}
