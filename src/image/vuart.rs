//! A VM's emulated PL011 (Arm DDI 0183, revision r1p5): output by the line, no input, no interrupts.
//!
//! It has what an early console, Linux' `amba-pl011` and a simple guest need: a transmit FIFO that is always empty, a
//! receive FIFO that is always empty too, control registers that read back what was written, and the identification
//! registers. A guest's bytes never reach the console as they are: they are collected, and only printable ASCII is
//! handed on, so that no guest can send the terminal an escape sequence or draw another VM's line.

use crate::mmio::Width;

/// Register offsets (DDI 0183, table 3-1).
mod offset {
    pub const DR: u64 = 0x00;
    pub const FR: u64 = 0x18;
    pub const IBRD: u64 = 0x24;
    pub const FBRD: u64 = 0x28;
    pub const LCR_H: u64 = 0x2c;
    pub const CR: u64 = 0x30;
    pub const IFLS: u64 = 0x34;
    pub const IMSC: u64 = 0x38;
    pub const PERIPH_ID0: u64 = 0xfe0;
    pub const PCELL_ID3: u64 = 0xffc;
}

/// FR.TXFE and FR.RXFE: both FIFOs are empty, the UART is not busy.
const FR_TXFE_RXFE: u16 = 1 << 7 | 1 << 4;

/// UARTPeriphID0..3 (part 0x011, designer 0x41, revision 3: r1p5, configuration 0) and UARTPCellID0..3.
const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The longest line handed on in one piece, in bytes.
pub const LINE_BYTES: usize = 256;

/// What stands for a byte that can't be printed.
const REPLACEMENT: u8 = b'?';

/// A register that keeps what is written: offset, bits that exist, the value after reset.
struct Kept {
    offset: u64,
    bits: u16,
    reset: u16,
}

const KEPT: [Kept; 6] = [
    Kept { offset: offset::IBRD, bits: 0xffff, reset: 0 },
    Kept { offset: offset::FBRD, bits: 0x3f, reset: 0 },
    Kept { offset: offset::LCR_H, bits: 0xff, reset: 0 },
    Kept { offset: offset::CR, bits: 0xff87, reset: 0x300 },
    Kept { offset: offset::IFLS, bits: 0x3f, reset: 0x12 },
    Kept { offset: offset::IMSC, bits: 0x7ff, reset: 0 },
];

/// The UART of one VM.
pub struct Vuart {
    kept: [u16; KEPT.len()],
    line: [u8; LINE_BYTES],
    length: usize,
}

impl Default for Vuart {
    fn default() -> Self {
        Self { kept: KEPT.map(|k| k.reset), line: [0; LINE_BYTES], length: 0 }
    }
}

impl Vuart {
    /// The value a load of `width` at `offset` in the register frame gets. Registers that don't exist here, and
    /// addresses between registers, read as zero.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        u64::from(self.register(offset)) & width.mask()
    }

    fn register(&self, offset: u64) -> u16 {
        match offset {
            offset::FR => FR_TXFE_RXFE,
            offset::PERIPH_ID0..=offset::PCELL_ID3 if offset.is_multiple_of(4) => {
                let index = (offset - offset::PERIPH_ID0) / 4;
                IDENTIFICATION.get(index as usize).copied().map_or(0, u16::from)
            }
            // DR and RSR: nothing was received. RIS and MIS: no interrupt is pending.
            _ => Self::index(offset).and_then(|i| self.kept.get(i).copied()).unwrap_or(0),
        }
    }

    /// A store of `value` at `offset` in the register frame. A line that becomes complete is handed to `sink`, without
    /// its end. Stores to other registers than DR and those that keep their value have no effect.
    pub fn write(&mut self, offset: u64, value: u64, sink: impl FnMut(&str)) {
        if offset == offset::DR {
            self.transmit(value as u8, sink);
        } else if let Some(index) = Self::index(offset) {
            self.kept[index] = value as u16 & KEPT[index].bits;
        }
    }

    /// Hands a last line without an end to `sink`: the VM has ended.
    pub fn flush(&mut self, sink: impl FnMut(&str)) {
        if self.length != 0 {
            self.hand_on(sink);
        }
    }

    fn index(offset: u64) -> Option<usize> {
        KEPT.iter().position(|k| k.offset == offset)
    }

    /// Whether the transmitter is enabled is not asked: an early console may write before any driver has set it up.
    fn transmit(&mut self, byte: u8, sink: impl FnMut(&str)) {
        match byte {
            b'\n' => self.hand_on(sink),
            b'\r' => {}
            b'\t' | b' '..=b'~' => self.collect(byte, sink),
            _ => self.collect(REPLACEMENT, sink),
        }
    }

    fn collect(&mut self, byte: u8, sink: impl FnMut(&str)) {
        if let Some(place) = self.line.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
        if self.length == LINE_BYTES {
            self.hand_on(sink);
        }
    }

    fn hand_on(&mut self, mut sink: impl FnMut(&str)) {
        // Only ASCII was collected, so this is never the empty string in place of a line.
        sink(str::from_utf8(&self.line[..self.length]).unwrap_or_default());
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::*;

    fn lines(uart: &mut Vuart, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            uart.write(0x00, u64::from(*byte), |line| lines.push(line.to_string()));
        }
        lines
    }

    #[test]
    fn line_is_handed_on_when_its_end_comes() {
        let mut uart = Vuart::default();
        assert!(lines(&mut uart, b"hello").is_empty());
        assert_eq!(lines(&mut uart, b", world\r\nnext"), ["hello, world"]);
        assert_eq!(lines(&mut uart, b"\n\n"), ["next", ""]);
    }

    #[test]
    fn bytes_that_cannot_be_printed_are_replaced() {
        let mut uart = Vuart::default();
        assert_eq!(lines(&mut uart, b"a\x1b[2Jb\x00\x7f\xc3\xa4\tc\n"), ["a?[2Jb????\tc"]);
    }

    #[test]
    fn line_without_end_is_handed_on_after_256_bytes() {
        let mut uart = Vuart::default();
        assert!(lines(&mut uart, &[b'x'; 255]).is_empty());
        assert_eq!(lines(&mut uart, b"x"), ["x".repeat(256)]);
        assert_eq!(lines(&mut uart, b"y\n"), ["y"]);
    }

    #[test]
    fn flush_hands_on_what_is_left_and_no_more() {
        let mut uart = Vuart::default();
        lines(&mut uart, b"login: ");
        let mut flushed = Vec::new();
        uart.flush(|line| flushed.push(line.to_string()));
        uart.flush(|line| flushed.push(line.to_string()));
        assert_eq!(flushed, ["login: "]);
    }

    #[test]
    fn only_the_low_byte_of_a_store_is_transmitted() {
        let mut uart = Vuart::default();
        uart.write(0x00, 0xffff_ff41, |_| panic!("no line yet"));
        assert_eq!(lines(&mut uart, b"\n"), ["A"]);
    }

    #[test]
    fn flags_say_that_both_fifos_are_empty() {
        assert_eq!(Vuart::default().read(0x18, Width::Word), 0x90);
    }

    #[test]
    fn control_registers_have_their_reset_values() {
        let uart = Vuart::default();
        let values = [0x24, 0x28, 0x2c, 0x30, 0x34, 0x38].map(|offset| uart.read(offset, Width::Word));
        assert_eq!(values, [0, 0, 0, 0x300, 0x12, 0]);
    }

    #[test]
    fn control_registers_keep_the_bits_that_exist() {
        let mut uart = Vuart::default();
        for offset in [0x24, 0x28, 0x2c, 0x30, 0x34, 0x38] {
            uart.write(offset, 0xffff_ffff, |_| panic!("no output"));
        }
        let values = [0x24, 0x28, 0x2c, 0x30, 0x34, 0x38].map(|offset| uart.read(offset, Width::Word));
        assert_eq!(values, [0xffff, 0x3f, 0xff, 0xff87, 0x3f, 0x7ff]);
    }

    #[test]
    fn no_interrupt_is_ever_pending() {
        let mut uart = Vuart::default();
        uart.write(0x38, 0x7ff, |_| panic!("no output"));
        lines(&mut uart, b"output\n");
        assert_eq!((uart.read(0x3c, Width::Word), uart.read(0x40, Width::Word)), (0, 0));
    }

    #[test]
    fn identification_is_that_of_a_pl011_r1p5() {
        let uart = Vuart::default();
        let ids: Vec<u64> = (0xfe0..0x1000).step_by(4).map(|offset| uart.read(offset, Width::Word)).collect();
        assert_eq!(ids, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    }

    #[test]
    fn narrow_loads_get_the_low_bits() {
        assert_eq!(Vuart::default().read(0x30, Width::Byte), 0x00);
        assert_eq!(Vuart::default().read(0x30, Width::Half), 0x300);
    }

    #[test]
    fn other_offsets_read_zero_and_ignore_stores() {
        let mut uart = Vuart::default();
        for offset in [0x04, 0x08, 0x1a, 0x44, 0x48, 0xfdc, 0xfe2, 0xfff, 0x1000, u64::MAX] {
            uart.write(offset, 0xff, |_| panic!("no output"));
            assert_eq!(uart.read(offset, Width::Double), 0, "{offset:#x}");
        }
        assert_eq!(uart.read(0x18, Width::Word), 0x90);
    }
}
