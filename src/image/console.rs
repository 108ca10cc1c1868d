//! EL2's console: a PL011, from the first moment the device tree is known, through to the last word of a panic.
#![expect(unsafe_code, reason = "the console before there are locks, and when a panic needs it")]

use core::fmt::{self, Write};
use core::ptr::{NonNull, with_exposed_provenance_mut};

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use spin::mutex::SpinMutex;

use super::machine;
use super::mmu;

static CONSOLE: SpinMutex<Option<Console>> = SpinMutex::new(None);

struct Console(Uart<'static>);

// SAFETY: device registers can be accessed from every CPU; the mutex lets one at a time.
unsafe impl Send for Console {}

/// Prints a line. Lines of EL2's own begin with `strandline: `, those of a guest with its VM's name.
macro_rules! say {
    ($($arg:tt)*) => { $crate::console::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Makes `uart` the console, and enables it. Called once, before the MMU is on.
pub fn init(uart: &machine::Uart) {
    let address = usize::try_from(uart.region.start().0).unwrap_or_default();
    let Some(registers) = NonNull::new(with_exposed_provenance_mut::<PL011Registers>(address)) else {
        return;
    };
    // SAFETY: 1. The device tree says that a PL011's registers are there; a tree that says so of RAM or of another
    // device is refused before anything but this console uses it. 2. EL2 makes no other reference to them: this runs
    // once. 3. Without the MMU, and by EL2's own mapping later, they are device memory for ever.
    let mut pl011 = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
    let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
    // Where the tree's clock can't make the baud rate, whatever firmware has set is the better guess.
    let _ = pl011.enable(line, uart.baud, uart.clock_hz);
    with_console(|console| *console = Some(Console(pl011)));
}

/// Prints a line; nothing where there is no console yet.
pub fn line(args: fmt::Arguments<'_>) {
    with_console(|console| {
        if let Some(console) = console {
            // Writing to a PL011 can't fail.
            let _ = console.write_fmt(format_args!("{args}\n"));
        }
    });
}

/// Takes the console away from whoever has it. For a panic, which may have interrupted its owner.
pub fn seize() {
    if mmu::is_on() && CONSOLE.is_locked() {
        // SAFETY: the lock's owner is this CPU, which never returns from the panic, so no two use the console.
        unsafe { CONSOLE.force_unlock() };
    }
}

fn with_console(f: impl FnOnce(&mut Option<Console>)) {
    if mmu::is_on() {
        f(&mut CONSOLE.lock());
    } else {
        // SAFETY: before the MMU is on one CPU runs, and nothing interrupts it; nobody can hold the lock, which takes
        // an atomic read-modify-write, so this is the only reference.
        f(unsafe { &mut *CONSOLE.as_mut_ptr() });
    }
}

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            while self.0.is_tx_fifo_full() {
                core::hint::spin_loop();
            }
            self.0.write_word(byte);
        }
        Ok(())
    }
}

/// Waits until every byte has left the UART: before the power goes.
pub fn drain() {
    with_console(|console| {
        if let Some(Console(uart)) = console {
            while uart.is_busy() {
                core::hint::spin_loop();
            }
        }
    });
}
