//! Access to physical memory and device registers that are not the program's own.
#![expect(unsafe_code, reason = "reads and writes physical addresses; nothing else in this module is unsafe")]

use core::arch::asm;

use crate::area::Area;
use crate::bitmap::Words;
use crate::boot;

/// Addresses outside the program's image and device tree, read and written by single aligned accesses.
///
/// Whether something answers there is not known: an access to an address the VM does not have is answered by an
/// exception.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    area: Area,
}

/// One plain load or store instruction, base register and no offset: an emulated device can't decode others, since the
/// syndrome of a data abort describes no access with writeback (Arm ARM, ISS encoding for Data Aborts, ISV).
macro_rules! accessors {
    ($($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $form:literal;)*) => {$(
        #[doc = concat!("Reads the `", stringify!($type), "` at byte `offset`, a multiple of its size inside the window.")]
        #[must_use]
        pub fn $read(&self, offset: u64) -> $type {
            let address = self.address::<$type>(offset);
            let value: $type;
            // SAFETY: the address is aligned and inside the window, so outside the image and its stack: no Rust
            // object is read.
            unsafe {
                asm!(concat!($load, " {value:", $form, "}, [{address}]"),
                    value = out(reg) value, address = in(reg) address, options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes the `", stringify!($type), "` at byte `offset`, a multiple of its size inside the window.")]
        pub fn $write(&self, offset: u64, value: $type) {
            let address = self.address::<$type>(offset);
            // SAFETY: the address is aligned and inside the window, so outside the image and its stack: no Rust
            // object is changed.
            unsafe {
                asm!(concat!($store, " {value:", $form, "}, [{address}]"),
                    value = in(reg) value, address = in(reg) address, options(nostack, preserves_flags));
            }
        }
    )*};
}

impl Window {
    /// The window onto `area`, or `None` where that shares an address with the program's image, its stack or its device
    /// tree.
    #[must_use]
    pub fn new(area: Area) -> Option<Self> {
        boot::own_areas().iter().all(|own| !own.overlaps(area)).then_some(Self { area })
    }

    /// The addresses.
    #[must_use]
    pub const fn area(&self) -> Area {
        self.area
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.area.start()
    }

    /// # Panics
    /// The access is not aligned or not inside: a mistake of the program's.
    fn address<T>(&self, offset: u64) -> u64 {
        let bytes = size_of::<T>() as u64;
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.area.bytes()),
            "offset {offset:#x} is outside {}",
            self.area
        );
        let address = self.area.start() + offset;
        assert!(address.is_multiple_of(bytes), "unaligned access to {address:#x}");
        address
    }

    accessors! {
        read8, write8, u8, "ldrb", "strb", "w";
        read16, write16, u16, "ldrh", "strh", "w";
        read32, write32, u32, "ldr", "str", "w";
        read64, write64, u64, "ldr", "str", "x";
    }

    /// Writes `value` to every 64-bit word.
    pub fn fill(&self, value: u64) {
        for offset in (0..self.area.bytes() & !7).step_by(8) {
            self.write64(offset, value);
        }
    }
}

impl Words for Window {
    fn word(&self, index: u64) -> u64 {
        self.read64(index * 8)
    }
}
