//! How a guest comes to life: the entry code, what it finds, and what ends it when something goes wrong.
#![expect(
    unsafe_code,
    reason = "the entry from assembly, the linker's symbols, and the device tree's address"
)]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aarch64_cpu::registers::{ELR_EL1, ESR_EL1, FAR_EL1, Readable};
use dtoolkit::fdt::Fdt;

use crate::area::Area;
use crate::tree::{Tree, TreeError};
use crate::window::Window;
use crate::{console, power, println};

// Flags of the arm64 Image header: little endian, 4 KiB pages, may be loaded anywhere in memory.
const HEADER_FLAGS: u64 = 0b01 << 1 | 1 << 3;
// R_AARCH64_RELATIVE (ELF for the Arm 64-bit Architecture, dynamic relocations).
const RELATIVE: u64 = 1027;

global_asm!(
    include_str!("entry.S"),
    HEADER_FLAGS = const HEADER_FLAGS,
    RELATIVE = const RELATIVE,
    SYSTEM_RESET = const smccc::psci::PSCI_SYSTEM_RESET,
    start = sym start,
    exception = sym exception,
);

unsafe extern "Rust" {
    /// The program's main function, defined by [`guest_main!`](crate::guest_main).
    safe fn guest_main(guest: &Guest) -> !;
}

/// Makes `$main`, a `fn(&Guest) -> !`, what the guest runs.
#[macro_export]
macro_rules! guest_main {
    ($main:path) => {
        #[expect(unsafe_code, reason = "the entry code calls it by this name, which no other item has")]
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main(guest: &$crate::boot::Guest) -> ! {
            $main(guest)
        }
    };
}

/// What the guest found at its start.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its device tree.
    pub tree: Tree<'static>,
    /// Its RAM.
    pub ram: Area,
    /// What the virtual counter was at its first instruction.
    pub entered: u64,
    /// The largest part of the RAM that holds neither the image, nor its stack, nor the device tree: whole pages.
    pub free: Area,
}

/// The program's own addresses, as two pairs of first address and length: loads and stores only, since without caches
/// there are no exclusive accesses.
static OWN: [[AtomicU64; 2]; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];

/// The image with its stack, and the device tree.
#[must_use]
pub fn own_areas() -> [Area; 2] {
    OWN.each_ref()
        .map(|[start, end]| Area::between(start.load(Ordering::Relaxed), end.load(Ordering::Relaxed)))
}

fn set_own(index: usize, area: Area) {
    OWN[index][0].store(area.start(), Ordering::Relaxed);
    OWN[index][1].store(area.end(), Ordering::Relaxed);
}

/// Called by the entry code, once, with x0 as the guest was entered with it, the image's bounds, and the counter then.
extern "C" fn start(tree: u64, image_start: u64, image_end: u64, entered: u64) -> ! {
    set_own(0, Area::between(image_start, image_end));
    let Ok(address) = usize::try_from(tree) else { power::fail() };
    // SAFETY: the boot protocol promises a device tree at x0 that stays where it is; nothing writes to it, since no
    // window can be made over it.
    let Ok(fdt) = (unsafe { Fdt::from_raw(core::ptr::with_exposed_provenance(address)) }) else {
        power::fail()
    };
    set_own(1, Area::between(tree, tree.saturating_add(fdt.data().len() as u64)));
    match find(Tree::new(fdt), entered) {
        Ok(guest) => guest_main(&guest),
        Err(error) => {
            println!("FAILED: {error}");
            power::fail()
        }
    }
}

fn find(tree: Tree<'static>, entered: u64) -> Result<Guest, TreeError> {
    console::open(tree.uart()?);
    let ram = tree.ram()?;
    Ok(Guest { tree, ram, entered, free: ram.largest_gap(&own_areas()) })
}

/// Goes on at the start of `target`, which is no code of this program's, and does not come back.
pub fn jump(target: Window) -> ! {
    let address = target.start();
    // SAFETY: a window is outside the image, so none of its code is entered at a place it does not expect; nothing
    // returns, so no state of the program is used again.
    unsafe { asm!("br {address}", address = in(reg) address, options(noreturn)) }
}

/// Whether an exception or a panic is being reported already.
static FAILING: AtomicBool = AtomicBool::new(false);

/// Ends the VM if a failure comes up while another one is reported.
fn fail_once() {
    if FAILING.load(Ordering::Relaxed) {
        power::fail();
    }
    FAILING.store(true, Ordering::Relaxed);
}

/// Called by every exception vector: nothing here takes exceptions on purpose.
extern "C" fn exception(vector: u64) -> ! {
    fail_once();
    println!(
        "FAILED: unexpected exception (vector {vector}): ESR_EL1 {:#x}, ELR_EL1 {:#x}, FAR_EL1 {:#x}",
        ESR_EL1.get(),
        ELR_EL1.get(),
        FAR_EL1.get()
    );
    power::fail()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail_once();
    println!("FAILED: {info}");
    power::fail()
}
