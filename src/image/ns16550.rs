//! A 16550, DesignWare's among them: the transmitter alone, as the boot loader has set it up.
//!
//! Own code: what there is as a crate accesses registers by bytes, and DesignWare's want 32 bits.

/// Registers of a 16550, by number.
pub trait Registers {
    /// Reads one.
    fn read(&self, number: u8) -> u32;
    /// Writes one.
    fn write(&mut self, number: u8, value: u32);
}

/// Transmitter holding.
const THR: u8 = 0;
/// Line status.
const LSR: u8 = 5;
/// Line status: the holding register, or its FIFO, is empty.
const LSR_HOLDING_EMPTY: u32 = 1 << 5;
/// Line status: and the last bit has left.
const LSR_EMPTY: u32 = 1 << 6;

/// A 16550.
pub struct Ns16550<R>(pub R);

impl<R: Registers> Ns16550<R> {
    /// Whether another byte can be written. A FIFO is not relied on: a byte is written where it is empty.
    pub fn is_ready(&self) -> bool {
        self.0.read(LSR) & LSR_HOLDING_EMPTY != 0
    }

    /// Whether every byte has left.
    pub fn is_idle(&self) -> bool {
        self.0.read(LSR) & LSR_EMPTY != 0
    }

    /// Sends a byte.
    pub fn write(&mut self, byte: u8) {
        self.0.write(THR, byte.into());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::vec::Vec;

    use super::*;

    /// Line status, and what was written.
    struct Fake(RefCell<Vec<u32>>, Vec<(u8, u32)>);

    impl Registers for Fake {
        fn read(&self, number: u8) -> u32 {
            assert_eq!(number, 5, "line status alone is read");
            self.0.borrow_mut().remove(0)
        }

        fn write(&mut self, number: u8, value: u32) {
            self.1.push((number, value));
        }
    }

    #[test]
    fn byte_can_be_written_where_the_holding_register_is_empty() {
        let uart = Ns16550(Fake(RefCell::new(vec![0, 0x40, 0x20, 0x60]), Vec::new()));
        assert_eq!([uart.is_ready(), uart.is_ready(), uart.is_ready()], [false, false, true]);
        assert!(uart.is_ready());
    }

    #[test]
    fn uart_is_idle_when_the_last_bit_has_left() {
        let uart = Ns16550(Fake(RefCell::new(vec![0x00, 0x20, 0x60]), Vec::new()));
        assert_eq!([uart.is_idle(), uart.is_idle(), uart.is_idle()], [false, false, true]);
    }

    #[test]
    fn bytes_go_to_the_holding_register_and_nothing_else_is_written() {
        let mut uart = Ns16550(Fake(RefCell::new(vec![]), Vec::new()));
        uart.write(b'x');
        uart.write(0xff);
        assert_eq!(uart.0.1, [(0, 0x78), (0, 0xff)]);
    }
}
