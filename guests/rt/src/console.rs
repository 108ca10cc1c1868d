//! The console: a PL011 UART, polled.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::area::Area;
use crate::window::Window;

// Registers (PrimeCell UART PL011, DDI 0183, chapter 3).
const DATA: u64 = 0x00;
const FLAGS: u64 = 0x18;
const FLAGS_TX_FULL: u32 = 1 << 5;
const LINE_CONTROL: u64 = 0x2c;
const LINE_CONTROL_8N1_FIFO: u32 = 0b11 << 5 | 1 << 4;
const CONTROL: u64 = 0x30;
const CONTROL_ENABLE_TX: u32 = 1 << 8 | 1;
const REGISTER_BYTES: u64 = 0x1000;

/// The register base; 0 before [`open`].
static BASE: AtomicU64 = AtomicU64::new(0);

/// Enables the UART and makes it the console.
pub fn open(registers: Area) {
    BASE.store(registers.start(), Ordering::Relaxed);
    if let Some(uart) = registers_at(registers.start()) {
        uart.write32(LINE_CONTROL, LINE_CONTROL_8N1_FIFO);
        uart.write32(CONTROL, CONTROL_ENABLE_TX);
    }
}

fn registers_at(base: u64) -> Option<Window> {
    if base == 0 { None } else { Window::new(Area::new(base, REGISTER_BYTES)?) }
}

struct Uart(Window);

impl fmt::Write for Uart {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            while self.0.read32(FLAGS) & FLAGS_TX_FULL != 0 {}
            self.0.write32(DATA, u32::from(byte));
        }
        Ok(())
    }
}

/// Prints to the console; nothing where there is none yet.
pub fn print(args: fmt::Arguments<'_>) {
    if let Some(registers) = registers_at(BASE.load(Ordering::Relaxed)) {
        // The UART takes everything; what a `Display` of ours wrote before it failed is shown.
        let _ = fmt::write(&mut Uart(registers), args);
    }
}

/// Prints formatted text and a line feed.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(::core::format_args!("\n")) };
    ($format:literal $($rest:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($format $($rest)*)))
    };
}

/// Prints formatted text.
#[macro_export]
macro_rules! print {
    ($($text:tt)+) => { $crate::console::print(::core::format_args!($($text)+)) };
}
