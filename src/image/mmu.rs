//! EL2's own address space: built from the machine's description, then switched on with the caches, once.
#![expect(unsafe_code, reason = "system registers, and the static pool of tables")]

use core::cell::UnsafeCell;
use core::ptr::with_exposed_provenance;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{MAIR_EL2, SCTLR_EL2, TCR_EL2, TTBR0_EL2, Writeable};

use super::cache;
use super::cpu::CpuFeatures;
use super::layout;
use super::machine::{Machine, Region};
use super::mapping::{Access, MAIR_DEVICE, MAIR_NORMAL, MapError, Mapping, Table};

/// Tables of the pool. A machine with its RAM in one or two pieces takes about a dozen; UEFI firmware may leave it in many.
const TABLES: usize = 64;

struct Pool(UnsafeCell<[Table; TABLES]>);

// SAFETY: touched by `build` alone, which runs once, on one CPU, before any other can run.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([Table::EMPTY; TABLES]));
static ON: AtomicBool = AtomicBool::new(false);

/// Whether the MMU is on, and with it atomic read-modify-writes are possible: they need cacheable memory.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Maps the machine and switches the MMU and the caches on. Called once, at EL2, with both off.
///
/// Returns how many tables the mapping took.
///
/// # Panics
/// The stack has run into its guard page, which nothing could notice so far: an error of EL2's own.
///
/// # Errors
/// The pool is too small, or something lies beyond 48 bits; the MMU stays off then.
pub fn enable(machine: &Machine, cpu: &CpuFeatures) -> Result<usize, MapError> {
    assert!(guard_is_untouched(), "the stack is too small");
    // SAFETY: called once (this function's contract), so this is the only reference there ever is.
    let pool = unsafe { &mut *POOL.0.get() };
    let address = pool.as_ptr().addr() as u64;
    let mut mapping = Mapping::new(pool, address)?;
    build(&mut mapping, machine)?;
    let (root, tables) = (mapping.root(), mapping.tables());

    // What was stored with the caches off went past any stale line of the image: drop those before they can be hit.
    // Nothing dirty is among them, since this CPU has not cached a store since the entry code cleaned them.
    let image = layout::image();
    cache::clean_and_invalidate(image.start, image.end);
    switch_on(root, cpu);
    ON.store(true, Ordering::Relaxed);
    Ok(tables)
}

/// Whether the guard page below the stack is as the entry code left it, zero.
fn guard_is_untouched() -> bool {
    let guard = layout::stack_guard();
    let words = (guard.end - guard.start) as usize / size_of::<u64>();
    let start = with_exposed_provenance::<u64>(guard.start as usize);
    // SAFETY: a page of the image that no Rust object lies in; still mapped, since the MMU is off.
    let page = unsafe { slice::from_raw_parts(start, words) };
    page.iter().all(|word| *word == 0)
}

fn build(mapping: &mut Mapping, machine: &Machine) -> Result<(), MapError> {
    for region in &machine.ram {
        set(mapping, *region, Access::Data)?;
    }
    for hole in machine.reserved.iter().filter(|r| r.no_map) {
        set(mapping, hole.region, Access::None)?;
    }
    for (_, device) in machine.devices() {
        set(mapping, device, Access::Device)?;
    }
    for (range, access) in [
        (layout::text(), Access::Code),
        (layout::rodata(), Access::Constant),
        (layout::data(), Access::Data),
        (layout::stack_guard(), Access::None),
        (layout::stack(), Access::Data),
        (layout::emergency_guard(), Access::None),
        (layout::emergency_stack(), Access::Data),
    ] {
        mapping.set(range.start, range.end, access)?;
    }
    Ok(())
}

fn set(mapping: &mut Mapping, region: Region, access: Access) -> Result<(), MapError> {
    let pages = region.pages_around();
    mapping.set(pages.start().0, pages.end().0, access)
}

/// RES1 bits of SCTLR_EL2 where HCR_EL2.E2H is 0 (Arm ARM, SCTLR_EL2): 29, 28, 23, 22, 18, 16, 11, 5, 4.
pub const SCTLR_RES1: u64 = 0x30c5_0830;
/// RES1 bits of TCR_EL2 where HCR_EL2.E2H is 0 (Arm ARM, TCR_EL2): 31, 23.
const TCR_RES1: u64 = 1 << 31 | 1 << 23;
/// TCR_EL2.T0SZ for 48 bits of address.
const T0SZ: u64 = 64 - 48;

const _: () = assert!(MAIR_NORMAL == 0 && MAIR_DEVICE == 1, "switch_on fills these two attributes");

fn switch_on(root: u64, cpu: &CpuFeatures) {
    MAIR_EL2.write(
        MAIR_EL2::Attr0_Normal_Outer::WriteBack_NonTransient_ReadWriteAlloc
            + MAIR_EL2::Attr0_Normal_Inner::WriteBack_NonTransient_ReadWriteAlloc
            + MAIR_EL2::Attr1_Device::nonGathering_nonReordering_EarlyWriteAck,
    );
    let tcr = TCR_EL2::PS.val(cpu.stage1_ps())
        + TCR_EL2::TG0::KiB_4
        + TCR_EL2::SH0::Inner
        + TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::T0SZ.val(T0SZ);
    TCR_EL2.set(TCR_RES1 | tcr.value);
    TTBR0_EL2.set(root);
    let sctlr = SCTLR_EL2::M::Enable
        + SCTLR_EL2::C::Cacheable
        + SCTLR_EL2::I::Cacheable
        + SCTLR_EL2::SA::Enable
        + SCTLR_EL2::WXN::Enable;
    barrier::isb(barrier::SY);
    // SAFETY: invalidating EL2's TLB changes no translation: the MMU is off.
    unsafe { core::arch::asm!("tlbi alle2", options(nostack, preserves_flags)) };
    barrier::dsb(barrier::SY);
    barrier::isb(barrier::SY);
    SCTLR_EL2.set(SCTLR_RES1 | sctlr.value);
    barrier::isb(barrier::SY);
}
