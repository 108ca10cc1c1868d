//! Where things lie in a guest's physical address space: the one place that says so.
//!
//! ```text
//! 0x0900_0000  PL011 (emulated)
//! 0x1000_0000  PCI memory window: the BARs of the VM's own devices, mapped
//! 0x3000_0000  PCI configuration space of bus 0 (ECAM, emulated)
//! 0x3010_0000  the registers of its devices that are no PCI functions, mapped
//! 0x4000_0000  RAM
//! ```
//!
//! All BARs, 64-bit ones too, lie in the one window below 4 GiB: every guest finds it, whatever its IPA size is.

use strandline::addr::Ipa;

/// The emulated PL011.
pub const UART: Ipa = Ipa(0x0900_0000);
/// Bytes of the PL011's register frame.
pub const UART_BYTES: u64 = 0x1000;

/// The window the guest's BARs lie in; a PCI address is the same number as the guest address.
pub const PCI_WINDOW: Ipa = Ipa(0x1000_0000);
/// Bytes of the window.
pub const PCI_WINDOW_BYTES: u64 = 0x2000_0000;

/// The emulated configuration space.
pub const ECAM: Ipa = Ipa(0x3000_0000);
/// Bytes of the configuration space: one bus, 32 devices of 8 functions, 4 KiB each.
pub const ECAM_BYTES: u64 = 0x10_0000;

/// The window that the registers of devices lie in which are no PCI functions.
pub const PLATFORM_WINDOW: Ipa = Ipa(ECAM.0 + ECAM_BYTES);
/// Bytes of that window.
pub const PLATFORM_WINDOW_BYTES: u64 = RAM.0 - PLATFORM_WINDOW.0;

/// Where RAM begins: aligned to 1 GiB, so that stage 2 can map it with the largest blocks.
pub const RAM: Ipa = Ipa(0x4000_0000);
/// The smallest RAM a VM can have.
pub const RAM_MIN_BYTES: u64 = 32 << 20;
/// RAM comes in multiples of this many bytes.
pub const RAM_STEP_BYTES: u64 = 2 << 20;
/// The largest RAM a VM can have: what [`IPA_BITS_MAX`] bits leave above [`RAM`].
pub const RAM_MAX_BYTES: u64 = (1 << IPA_BITS_MAX) - RAM.0;

/// The smallest IPA size in use, in bits: it holds every window below RAM.
pub const IPA_BITS_MIN: u32 = 32;
/// The largest IPA size in use, in bits.
pub const IPA_BITS_MAX: u32 = 44;

/// The smallest IPA size, in bits, that holds all windows and `memory` bytes of RAM; `None` where
/// [`IPA_BITS_MAX`] bits do not.
#[must_use]
pub fn ipa_bits_for(memory: u64) -> Option<u32> {
    let end = RAM.checked_add(memory)?;
    (IPA_BITS_MIN..=IPA_BITS_MAX).find(|bits| end.0 <= 1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_lie_below_ram() {
        let platform = (PLATFORM_WINDOW, PLATFORM_WINDOW_BYTES);
        let windows =
            [(UART, UART_BYTES), (PCI_WINDOW, PCI_WINDOW_BYTES), (ECAM, ECAM_BYTES), platform, (RAM, 1)];
        for pair in windows.windows(2) {
            assert!(pair[0].0.offset(pair[0].1) <= pair[1].0, "{pair:?}");
        }
        assert!(RAM.is_aligned(1 << 30) && ECAM.is_aligned(ECAM_BYTES));
    }

    #[test]
    fn ipa_size_is_the_smallest_that_holds_ram() {
        assert_eq!(ipa_bits_for(32 << 20), Some(32));
        assert_eq!(ipa_bits_for(3 << 30), Some(32));
        assert_eq!(ipa_bits_for((3 << 30) + (2 << 20)), Some(33));
        assert_eq!(ipa_bits_for(7 << 30), Some(33));
        assert_eq!(ipa_bits_for(64 << 30), Some(37));
        assert_eq!(ipa_bits_for(RAM_MAX_BYTES), Some(44));
    }

    #[test]
    fn ram_that_no_ipa_size_holds_is_refused() {
        assert_eq!(ipa_bits_for(RAM_MAX_BYTES + 1), None);
        assert_eq!(ipa_bits_for(u64::MAX), None);
    }
}
