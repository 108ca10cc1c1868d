//! EL2's console: a UART, from the first moment the device tree is known, through to the last word of a panic.
#![expect(unsafe_code, reason = "the console before there are locks, and when a panic needs it")]

use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer};
use spin::mutex::SpinMutex;

use super::machine::{self, UartKind};
use super::mmu;
use super::ns16550::{Ns16550, Registers};

static CONSOLE: SpinMutex<Option<Console>> = SpinMutex::new(None);
/// How often a UART is asked whether it is ready: longer than any line is slow. What is none is not waited for for ever.
const PATIENCE: u32 = 1 << 20;

struct Console {
    uart: Driver,
    /// How often it is still asked; little once it has not answered.
    patience: u32,
}

enum Driver {
    Pl011(Uart<'static>),
    Ns16550(Ns16550<Ports>),
}

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
    let driver = match uart.kind {
        UartKind::Pl011 { clock_hz, baud } => pl011(address, clock_hz, baud),
        UartKind::Ns16550 { shift, width } => Some(Driver::Ns16550(Ns16550(Ports { address, shift, width }))),
    };
    with_console(|console| *console = driver.map(|uart| Console { uart, patience: PATIENCE }));
}

fn pl011(address: usize, clock_hz: u32, baud: u32) -> Option<Driver> {
    let registers = NonNull::new(with_exposed_provenance_mut::<PL011Registers>(address))?;
    // SAFETY: 1. The device tree says that a PL011's registers are there; a tree that says so of RAM or of another
    // device is refused before anything but this console uses it. 2. EL2 makes no other reference to them: this runs
    // once. 3. Without the MMU, and by EL2's own mapping later, they are device memory for ever.
    let mut pl011 = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
    let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
    // Where the tree's clock can't make the baud rate, whatever firmware has set is the better guess.
    let _ = pl011.enable(line, baud, clock_hz);
    Some(Driver::Pl011(pl011))
}

/// The registers of a 16550: number n at `address` + (n << `shift`), accessed by `width` bytes.
struct Ports {
    address: usize,
    shift: u8,
    width: u8,
}

impl Ports {
    fn at<T>(&self, number: u8) -> *mut T {
        with_exposed_provenance_mut(self.address + (usize::from(number) << self.shift))
    }
}

impl Registers for Ports {
    fn read(&self, number: u8) -> u32 {
        // SAFETY: the device tree says that a 16550's registers are there, and how they are accessed; `machine::Uart` has
        // checked that they lie in them, aligned. They are device memory for ever, as a PL011's.
        unsafe {
            match self.width {
                4 => self.at::<u32>(number).read_volatile(),
                2 => self.at::<u16>(number).read_volatile().into(),
                _ => self.at::<u8>(number).read_volatile().into(),
            }
        }
    }

    fn write(&mut self, number: u8, value: u32) {
        // SAFETY: as for reads; the console's lock lets one CPU at a time.
        unsafe {
            match self.width {
                4 => self.at::<u32>(number).write_volatile(value),
                2 => self.at::<u16>(number).write_volatile(value as u16),
                _ => self.at::<u8>(number).write_volatile(value as u8),
            }
        }
    }
}

/// Prints a line; nothing where there is no console yet.
pub fn line(args: fmt::Arguments<'_>) {
    with_console(|console| {
        if let Some(console) = console {
            // Writing to a UART can't fail. A terminal wants both.
            let _ = console.write_fmt(format_args!("{args}\r\n"));
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

impl Console {
    fn put(&mut self, byte: u8) {
        self.wait(|uart| match uart {
            Driver::Pl011(uart) => !uart.is_tx_fifo_full(),
            Driver::Ns16550(uart) => uart.is_ready(),
        });
        match &mut self.uart {
            Driver::Pl011(uart) => uart.write_word(byte),
            Driver::Ns16550(uart) => uart.write(byte),
        }
    }

    /// Until it is so, within reason.
    fn wait(&mut self, is_so: impl Fn(&Driver) -> bool) {
        for _ in 0..self.patience {
            if is_so(&self.uart) {
                return;
            }
            spin_loop();
        }
        self.patience = 1;
    }
}

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

/// Waits until every byte has left the UART: before the power goes.
pub fn drain() {
    with_console(|console| {
        if let Some(console) = console {
            console.wait(|uart| match uart {
                Driver::Pl011(uart) => !uart.is_busy(),
                Driver::Ns16550(uart) => uart.is_idle(),
            });
        }
    });
}
