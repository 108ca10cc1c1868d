//! EL2's interrupts: those of the SMMUs and of its own timer.
//!
//! EL2 runs with interrupts masked and asks the GIC where it has time for the answer: after a guest's exit, and
//! between the polls of every wait ([`window`]). What is pending is acknowledged, noted in atomics and ended; no lock
//! is taken, nothing else is done. The run loop then takes the notes ([`take_pending`]).
#![expect(unsafe_code, reason = "the GIC's registers")]

use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicError, GicRedistributorIterator, GicV3};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};

use super::cpu::CpuFeatures;
use super::machine::{Interrupt, Machine, Region, Trigger};
use super::masked;
use super::timer;

/// As many SMMUs as there can be bits in the notes.
const SMMUS: usize = 8;
/// At most this many interrupts are acknowledged in one go: one that never goes away may not keep EL2 here.
const MAX_AT_ONCE: usize = 32;

/// Which INTID means what: 0 where nothing does. Written by [`init`], read from then on.
static EVENT_INTIDS: [AtomicU32; SMMUS] = [const { AtomicU32::new(0) }; SMMUS];
static GERROR_INTIDS: [AtomicU32; SMMUS] = [const { AtomicU32::new(0) }; SMMUS];
static TIMER_INTID: AtomicU32 = AtomicU32::new(0);

/// What has been noted and not yet taken: a bit for each SMMU.
static EVENTS: AtomicU8 = AtomicU8::new(0);
static GERRORS: AtomicU8 = AtomicU8::new(0);
static TIMER: AtomicBool = AtomicBool::new(false);

/// What interrupts have said since they were last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Bit n: SMMU n has put records into its event queue.
    pub events: u8,
    /// Bit n: SMMU n has raised a global error.
    pub gerrors: u8,
    /// EL2's timer has expired.
    pub timer: bool,
}

/// Why the interrupt controller could not be set up.
#[derive(Clone, Copy, Debug)]
pub enum IrqError {
    /// No redistributor answers to this CPU's affinity; carries that.
    NoRedistributor(u64),
    /// The device tree gives these registers too few bytes, or no alignment.
    Registers(Region),
    /// The driver refused.
    Gic(GicError),
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRedistributor(affinity) => write!(f, "GIC: no redistributor for CPU {affinity:#x}"),
            Self::Registers(region) => write!(f, "GIC: {region} can't be its registers"),
            Self::Gic(error) => write!(f, "GIC: {error}"),
        }
    }
}

impl From<GicError> for IrqError {
    fn from(error: GicError) -> Self {
        Self::Gic(error)
    }
}

/// Sets up the GIC for this CPU and enables EL2's own interrupts; all others are off. Called once, with the MMU on.
///
/// # Errors
/// This CPU has no redistributor, or an interrupt is none the GIC knows.
pub fn init(machine: &Machine, cpu: &CpuFeatures) -> Result<(), IrqError> {
    /// This CPU's number among those the driver knows: it is given this CPU's redistributor alone.
    const THIS_CPU: usize = 0;
    /// Lets every priority through.
    const LOWEST_PRIORITY: u8 = 0xff;

    // For EL2 alone.
    GicCpuInterface::enable_system_register_el2(false);
    let redistributor = find_redistributor(&machine.gic.redistributors, cpu.affinity)?;
    let distributor = registers::<Gicd>(machine.gic.distributor)?;
    // SAFETY: 1. The device tree says that a GICv3 is there, and no other device or RAM; EL2 has mapped it as device
    // memory. 2. This runs once, and the driver is the only one that accesses these registers.
    let mut gic = unsafe { GicV3::new(UniqueMmioPointer::new(distributor), redistributor, 1)? };
    gic.gicr_power_on(THIS_CPU)?;
    gic.setup(THIS_CPU);
    // The driver leaves shared interrupts as firmware had them: one whose line stays up would never let a guest run.
    gic.enable_all_interrupts(false);
    for (index, smmu) in machine.smmus.iter().enumerate().take(SMMUS) {
        for (interrupt, intids) in [(smmu.event, &EVENT_INTIDS), (smmu.gerror, &GERROR_INTIDS)] {
            if let Some(slot) = intids.get(index) {
                slot.store(interrupt.intid, Ordering::Relaxed);
                enable(&mut gic, interrupt, cpu.affinity)?;
            }
        }
    }
    TIMER_INTID.store(machine.timer.intid, Ordering::Relaxed);
    enable(&mut gic, machine.timer, cpu.affinity)?;
    GicCpuInterface::set_priority_mask(LOWEST_PRIORITY);
    Ok(())
}

fn enable(gic: &mut GicV3<'_>, interrupt: Interrupt, affinity: u64) -> Result<(), IrqError> {
    let trigger = match interrupt.trigger {
        Trigger::Edge => arm_gic::Trigger::Edge,
        Trigger::Level => arm_gic::Trigger::Level,
    };
    let (intid, cpu) = match interrupt.intid {
        private @ 16..32 => (IntId::ppi(private - 16), Some(0)),
        shared @ 32..1020 => (IntId::spi(shared - 32), None),
        _ => return Ok(()),
    };
    gic.set_trigger(intid, cpu, trigger)?;
    if cpu.is_none() {
        gic.distributor().set_routing(intid, Some(affinity))?;
    }
    gic.enable_interrupt(intid, cpu, true)?;
    Ok(())
}

/// The redistributor that answers to `affinity`, in whichever region it is.
fn find_redistributor(regions: &[Region], affinity: u64) -> Result<NonNull<GicrSgi>, IrqError> {
    for region in regions {
        let first = registers::<GicrSgi>(*region)?;
        // SAFETY: the device tree says that redistributors are there, mapped as device memory; nothing else refers to
        // them yet, and what this iterator yields is dropped before the driver is made. Should the region end before
        // the one that calls itself the last, the iterator isn't asked for the next.
        let frames = unsafe { GicRedistributorIterator::new(first)? };
        for (index, redistributor) in frames.enumerate() {
            let typer = redistributor.typer();
            // Two 64 KiB frames each or, where there are virtual LPIs, four.
            let stride = if typer.virtual_lpis_supported() { 2 } else { 1 };
            let end_of = |index: usize| ((index + 1) * stride * size_of::<GicrSgi>()) as u64;
            if typer.core_mpidr() == affinity && end_of(index) <= region.bytes() {
                // SAFETY: the frame ends inside the region, as was just checked.
                return Ok(unsafe { first.add(index * stride) });
            }
            if end_of(index + 1) > region.bytes() {
                break;
            }
        }
    }
    Err(IrqError::NoRedistributor(affinity))
}

/// The registers at the beginning of `region`.
fn registers<T>(region: Region) -> Result<NonNull<T>, IrqError> {
    let address = usize::try_from(region.start().0).unwrap_or_default();
    let fits = size_of::<T>() as u64 <= region.bytes() && address.is_multiple_of(align_of::<T>());
    NonNull::new(with_exposed_provenance_mut(address)).filter(|_| fits).ok_or(IrqError::Registers(region))
}

/// Acknowledges, notes and ends what is pending. Called after [`super::vcpu::Exit::Irq`].
pub fn handle() {
    for _ in 0..MAX_AT_ONCE {
        let Some(intid) = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) else {
            return;
        };
        note(intid.raw_value());
        GicCpuInterface::end_interrupt(intid, InterruptGroup::Group1);
    }
}

/// A moment in which EL2 hears its interrupts. Called between the polls of a wait.
pub fn window() {
    handle();
    masked::window();
}

fn note(intid: u32) {
    if intid == TIMER_INTID.load(Ordering::Relaxed) {
        // Its line stays up until it is disarmed.
        timer::disarm();
        TIMER.store(true, Ordering::Relaxed);
        return;
    }
    // One INTID may stand for several reasons, of several SMMUs.
    for (intids, notes) in [(&EVENT_INTIDS, &EVENTS), (&GERROR_INTIDS, &GERRORS)] {
        for (index, slot) in intids.iter().enumerate() {
            if slot.load(Ordering::Relaxed) == intid {
                notes.fetch_or(1 << index, Ordering::Relaxed);
            }
        }
    }
}

/// Whether something has been noted and not yet taken.
pub fn is_pending() -> bool {
    EVENTS.load(Ordering::Relaxed) != 0
        || GERRORS.load(Ordering::Relaxed) != 0
        || TIMER.load(Ordering::Relaxed)
}

/// Takes what has been noted.
pub fn take_pending() -> Pending {
    Pending {
        events: EVENTS.swap(0, Ordering::Relaxed),
        gerrors: GERRORS.swap(0, Ordering::Relaxed),
        timer: TIMER.swap(false, Ordering::Relaxed),
    }
}

/// Notes that the event queue of SMMU `index` is to be looked at again.
pub fn note_events(index: usize) {
    EVENTS.fetch_or(1_u8.checked_shl(index as u32).unwrap_or(0), Ordering::Relaxed);
}

/// Drops the note that the timer has expired: who slept on it is awake.
pub fn forget_timer() {
    TIMER.store(false, Ordering::Relaxed);
}
