//! The application's course: fetch, leave, go on.
#![expect(unsafe_code, reason = "the entry point, and the way out of the firmware")]

use core::arch::{global_asm, naked_asm};
use core::convert::Infallible;
use core::mem::MaybeUninit;
use core::slice;

use arrayvec::ArrayVec;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

use super::error::EfiError;
use super::firmware::Firmware;
use super::memory_map;
use crate::boot::{MAX_TREE_BYTES, TREE_PREFIX_BYTES, tree_bytes};
use crate::entry::CURRENT_EL2;
use crate::handover::Handover;
use crate::machine::Region;
use crate::sysreg::read_sysreg;
use crate::{cache, layout, mmu};

/// The bundle's file, `\strandline.bundle`, in UCS-2.
const BUNDLE: [u16; 19] = ucs2(b"\\strandline.bundle\0");

const fn ucs2<const N: usize>(ascii: &[u8; N]) -> [u16; N] {
    let mut text = [0; N];
    let mut at = 0;
    while at < N {
        text[at] = ascii[at] as u16;
        at += 1;
    }
    text
}

// Where the firmware enters, with its own MMU, stack and interrupts. Nothing of Rust may run before the image is
// relocated; .bss is zero already.
global_asm!(
    ".section .text.efi_entry, \"ax\"",
    ".global efi_entry",
    "efi_entry:",
    "stp x29, x30, [sp, #-32]!",
    "stp x0, x1, [sp, #16]",
    "mov x29, sp",
    "bl relocate",
    "ldp x0, x1, [sp, #16]",
    "bl {main}",
    "ldp x29, x30, [sp], #32",
    "ret",
    main = sym main,
);

/// Called by the entry code with the arguments of an EFI application; returns only where something is wrong.
extern "efiapi" fn main(image: Handle, table: *const SystemTable) -> Status {
    // SAFETY: 1. These are the application's own arguments, as the entry code got them. 2. The boot services are left
    // by `boot` alone, which doesn't return then.
    let Some(firmware) = (unsafe { Firmware::new(image, table) }) else {
        return Status::INVALID_PARAMETER;
    };
    match boot(&firmware) {
        Ok(never) => match never {},
        Err(error) => {
            firmware.say(format_args!("strandline: failed: {error}"));
            error.status()
        }
    }
}

fn boot(firmware: &Firmware<'_>) -> Result<Infallible, EfiError> {
    if read_sysreg!("currentel") != CURRENT_EL2 {
        return Err(EfiError::NotEl2);
    }
    let tree = copy_tree(firmware)?;
    let (bundle, length) = firmware.read_file(&BUNDLE)?;
    let bundle = Region::new(address(bundle), length as u64).ok_or(EfiError::EmptyBundle)?;
    let place = firmware.allocate(size_of::<Handover>())?;
    // SAFETY: pages of this application's own, larger than a `Handover` and aligned; this is the only reference to it.
    let place = unsafe { &mut *place.as_mut_ptr().cast::<MaybeUninit<Handover>>() };
    let handover = place.write(Handover { ram: ArrayVec::new(), bundle });
    let map = firmware.leave()?;
    memory_map::usable(map.descriptors(), &mut handover.ram);

    // What is read with the MMU off, or by a guest with its own off, must have left the caches.
    let handover_address = core::ptr::from_ref(handover).addr() as u64;
    let image = layout::image();
    for (start, bytes) in [
        (image.start, image.end - image.start),
        (address(tree), tree.len() as u64),
        (handover_address, size_of::<Handover>() as u64),
    ] {
        cache::clean_and_invalidate(start, start + bytes);
    }
    // SAFETY: 1. The boot services have been left. 2. The image, the tree and the handover have just been cleaned, and
    // nothing has been stored to them since.
    unsafe { go_on(address(tree), handover_address) }
}

/// A copy of the firmware's device tree, which may lie in memory that the firmware keeps.
fn copy_tree(firmware: &Firmware<'_>) -> Result<&'static [u8], EfiError> {
    let tree = firmware.device_tree().ok_or(EfiError::NoTree)?;
    // SAFETY: by its GUID the table is a device tree, so its header is there to be read.
    let prefix = unsafe { slice::from_raw_parts(tree.as_ptr(), TREE_PREFIX_BYTES as usize) };
    let bytes = tree_bytes(prefix).filter(|bytes| *bytes <= MAX_TREE_BYTES).ok_or(EfiError::BadTree)?;
    // SAFETY: and then as much as that says.
    let tree = unsafe { slice::from_raw_parts(tree.as_ptr(), bytes as usize) };
    let copy = firmware.allocate(tree.len())?;
    if let Some(place) = copy.get_mut(..tree.len()) {
        place.copy_from_slice(tree);
    }
    Ok(copy)
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

/// Switches the firmware's MMU off and goes on as after a boot loader's jump, with x0 and x1 as they are.
///
/// SCTLR_EL2 first: with VHE on (HCR_EL2.E2H), which the entry code ends, the translation registers mean something else.
///
/// # Safety
/// 1. The boot services have been left.
/// 2. No dirty line of the image, the device tree or the handover is in a cache.
#[unsafe(naked)]
unsafe extern "C" fn go_on(tree: u64, handover: u64) -> ! {
    naked_asm!(
        "msr daifset, #0b1111",
        "movz x2, #{SCTLR_LOW}",
        "movk x2, #{SCTLR_HIGH}, lsl #16",
        "msr sctlr_el2, x2",
        "isb",
        "ic iallu",
        "dsb sy",
        "isb",
        "b image_entry_with",
        SCTLR_LOW = const mmu::SCTLR_RES1 & 0xffff,
        SCTLR_HIGH = const mmu::SCTLR_RES1 >> 16,
    )
}
