//! The console of last resort: what `scripts/image` has written into the image of a board whose device tree may be broken,
//! so that somebody is told. It is touched where the tree names no console alone.
#![expect(unsafe_code, reason = "a static that is written to the image's file")]

use super::machine::{Region, Uart, UartKind};

/// Address of the registers (0: there are none), kind, and of a 16550 shift and width of its registers.
#[repr(C)]
struct Early {
    address: u64,
    kind: u8,
    shift: u8,
    width: u8,
    unused: [u8; 5],
}

const PL011: u8 = 1;
const NS16550: u8 = 2;
/// Either kind's registers.
const BYTES: u64 = 0x1000;

// SAFETY: the linker script places it, alone, in the last 16 bytes of the first page, which nothing else uses.
#[unsafe(link_section = ".early_console")]
#[used]
static EARLY: Early = Early { address: 0, kind: 0, shift: 0, width: 0, unused: [0; 5] };

/// The console of last resort, where the image has one.
pub fn console() -> Option<Uart> {
    // SAFETY: a static, read as what may have been changed in the file since it was compiled.
    let Early { address, kind, shift, width, .. } = unsafe { (&raw const EARLY).read_volatile() };
    let kind = match kind {
        PL011 => UartKind::Pl011 { clock_hz: 24_000_000, baud: 115_200 },
        NS16550 if shift <= 4 && matches!(width, 1 | 2 | 4) => UartKind::Ns16550 { shift, width },
        _ => return None,
    };
    Some(Uart { name: "early console", region: Region::new(address, BYTES)?, kind })
}
