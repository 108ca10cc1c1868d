//! The configuration space of the machine, and where things stand in a function's part of it (PCI Express Base
//! Specification, 'PCI-compatible configuration registers').

use super::bdf::Bdf;

/// The physical configuration space: accesses of 32 bits.
///
/// `offset` is a multiple of 4 below 4096. A function that isn't there reads as all ones and ignores writes; so does
/// what a function's space doesn't have.
pub trait ConfigSpace {
    /// Reads a word.
    fn read32(&self, bdf: Bdf, offset: u16) -> u32;
    /// Writes a word.
    fn write32(&self, bdf: Bdf, offset: u16, value: u32);
}

/// Vendor ID (bits 15:0) and device ID (bits 31:16).
pub const IDS: u16 = 0x00;
/// Command register (bits 15:0) and status register (bits 31:16).
pub const COMMAND_STATUS: u16 = 0x04;
/// Revision ID (bits 7:0) and class code (bits 31:8).
pub const CLASS: u16 = 0x08;
/// Cache line size, latency timer, header type (bits 23:16), BIST.
pub const HEADER: u16 = 0x0c;
/// The first of the base address registers of a type-0 header.
pub const BAR0: u16 = 0x10;
/// How many there are.
pub const BARS: usize = 6;
/// Subsystem vendor ID (bits 15:0) and subsystem ID (bits 31:16).
pub const SUBSYSTEM: u16 = 0x2c;
/// Expansion ROM base address of a type-0 header.
pub const ROM: u16 = 0x30;
/// Capabilities pointer (bits 7:0).
pub const CAPABILITIES: u16 = 0x34;

/// Command: the function answers to its memory BARs.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// Command: the function may start transactions.
pub const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// Command: the function raises no INTx.
pub const COMMAND_INTX_DISABLE: u32 = 1 << 10;
/// Status: INTx is asserted.
pub const STATUS_INTX: u32 = 1 << 19;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u32 = 1 << 20;
/// The status half of the word at [`COMMAND_STATUS`]. Its bits are read-only, or cleared by writing one: a command is
/// written with zeros here.
pub const STATUS: u32 = 0xffff_0000;

/// Header type: the layout of the header, without the multi-function flag.
pub const HEADER_LAYOUT: u32 = 0x007f_0000;
/// Header type: the device has more functions than function 0.
pub const HEADER_MULTI_FUNCTION: u32 = 0x0080_0000;

/// Where BAR `index` stands; `index` is below [`BARS`].
pub const fn bar(index: usize) -> u16 {
    BAR0 + 4 * index as u16
}
