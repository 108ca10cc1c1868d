//! From the entry code to [`super::run`]: read the machine, map it, switch the MMU on, set up what EL2 drives.
#![expect(unsafe_code, reason = "reads the device tree at the address the loader gives")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::with_exposed_provenance;
use core::slice;

use aarch64_cpu::registers::{HCR_EL2, Readable};

use super::console::{self, say};
use super::cpu::CpuFeatures;
use super::entry::CURRENT_EL2;
use super::failure::Failure;
use super::handover::Handover;
use super::machine::{Conduit, Machine, Overrides, Region, Tree, TreeError, Uart};
use super::platform::Platform;
use super::{banner, cache, early, guest, heap, irq, layout, midr, mmu, power, timer};

/// A larger device tree is none. The arm64 boot protocol has 2 MiB for it, but loaders make room for what they add:
/// QEMU doubles the size of a tree it is given, which it dumped with 1 MiB already.
pub const MAX_TREE_BYTES: u32 = 8 << 20;
/// It lies at a multiple of this.
const TREE_ALIGN: u64 = 8;
/// Magic number and size: what must be read before anything is known.
pub const TREE_PREFIX_BYTES: u64 = 8;
const TREE_MAGIC: u32 = 0xd00d_feed;

/// The one machine, filled in before the MMU is on: too early for anything that locks.
struct Slot(UnsafeCell<MaybeUninit<Machine>>);

// SAFETY: written by `boot` alone, before another CPU can run, and only read after that.
unsafe impl Sync for Slot {}

static MACHINE: Slot = Slot(UnsafeCell::new(MaybeUninit::uninit()));
static PLATFORM: Platform = Platform::new();

/// Called once by the entry code, on the boot stack, with the MMU off.
///
/// `handover` is where the EFI application has left a [`Handover`], or 0.
pub extern "C" fn start(tree: u64, current_el: u64, handover: u64) -> ! {
    match boot(tree, current_el, handover).and_then(|(machine, cpu, tables)| {
        PLATFORM.note_core(&cpu);
        banner::print(machine, &cpu, tables);
        guest::run_all(machine, &cpu, &PLATFORM)
    }) {
        Ok(()) => {
            say!("strandline: succeeded");
            power::off(true);
        }
        Err(failure) => {
            say!("strandline: failed: {failure}");
            power::off(false);
        }
    }
}

/// The machine, its CPU, and how many tables EL2's mapping took.
fn boot(
    tree_address: u64,
    current_el: u64,
    handover: u64,
) -> Result<(&'static Machine, CpuFeatures, usize), Failure> {
    let found = find_tree(tree_address).and_then(|blob| Ok((blob, Tree::new(blob)?)));
    // Console and power first: whatever else is wrong can then be told.
    let uart = found.clone().and_then(|(_, tree)| Uart::read(tree));
    if let Some(uart) = uart.clone().ok().or_else(early::console) {
        console::init(&uart);
    }
    let (blob, tree) = found?;
    let psci = Conduit::read(tree)?;
    power::init(psci, false);
    let overrides = Overrides::read(tree)?;
    power::init(psci, overrides.semihosting);
    let uart = uart?;
    if current_el != CURRENT_EL2 {
        return Err(Failure::NotEl2);
    }
    // The entry code has cleared it; without FEAT_E2H0 it stays, and half of EL2's registers mean something else.
    if HCR_EL2.is_set(HCR_EL2::E2H) {
        return Err(Failure::Vhe);
    }
    let mut cpu = CpuFeatures::read();
    if overrides.no_cpu_dirty || midr::dirty_state_is_broken(cpu.midr) {
        cpu.leave_dirty_state_out();
    }
    let tree_region = Region::new(tree_address, blob.len() as u64);
    let image = layout::image();
    let regions = tree_region.zip(Region::between(image.start, image.end));
    let (tree_region, image) = regions.ok_or(TreeError::Missing("addresses for tree and image"))?;
    // SAFETY: this function runs once, so there is no other reference.
    let machine = unsafe { &mut *MACHINE.0.get() }.write(Machine::read_basics(tree, uart, psci, overrides)?);
    let handover = with_exposed_provenance::<Handover>(handover as usize);
    // SAFETY: 0, or where the EFI application has left one, in memory that nobody else has had since.
    if let Some(handover) = unsafe { handover.as_ref() } {
        machine.take_over(handover);
    }
    machine.read_lists(tree, tree_region, image)?;
    let tables = mmu::enable(machine, &cpu)?;
    heap::init();
    if timer::frequency() == 0 {
        return Err(Failure::NoTimerFrequency);
    }
    irq::init(machine, &cpu)?;
    Ok((machine, cpu, tables))
}

/// The device tree's bytes, as many as its header says.
fn find_tree(address: u64) -> Result<&'static [u8], TreeError> {
    let end_of_space = u64::MAX - u64::from(MAX_TREE_BYTES);
    if address == 0 || !address.is_multiple_of(TREE_ALIGN) || address > end_of_space {
        return Err(TreeError::Missing("device tree at the address in x0"));
    }
    let bytes = |count: usize| {
        // SAFETY: by the boot protocol x0 is the address of a device tree in RAM, which is nobody's to change; its
        // header is there to be read, and then as much as that says.
        unsafe { slice::from_raw_parts(with_exposed_provenance::<u8>(address as usize), count) }
    };
    // The loader may have written it through a cache, which is passed by as long as the MMU is off.
    cache::clean_and_invalidate(address, address + TREE_PREFIX_BYTES);
    let size = tree_bytes(bytes(TREE_PREFIX_BYTES as usize)).filter(|size| *size <= MAX_TREE_BYTES);
    let size = size.ok_or(TreeError::Missing("device tree at the address in x0"))?;
    cache::clean_and_invalidate(address, address + u64::from(size).max(TREE_PREFIX_BYTES));
    Ok(bytes(size as usize))
}

/// How many bytes the device tree has that begins with `prefix`; `None` where that is none.
pub fn tree_bytes(prefix: &[u8]) -> Option<u32> {
    let word = |offset: usize| Some(u32::from_be_bytes(*prefix.get(offset..)?.first_chunk()?));
    if word(0)? == TREE_MAGIC { word(4) } else { None }
}
