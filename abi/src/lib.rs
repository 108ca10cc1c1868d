//! Strandline's hypercall interface: numbers, flags, records and errors, as `docs/hypercalls.md` defines them.
//!
//! One small crate without dependencies, for guests, for the image, and for tools that read a log.
#![no_std]
#![forbid(unsafe_code)]

mod call;
mod record;
mod status;

pub use call::{Call, Flags, LogSource, UID_WORDS};
pub use record::{
    CpuTier, DeviceRecord, DmaTier, FaultRecord, Features, KeySource, LogState, LogStatus, Tiers,
};
pub use status::{Error, Status};

/// Version of the interface, `major << 16 | minor`. A guest works with any minor at or above the one it was written
/// for.
pub const VERSION: u32 = 0x0000_0003;

/// The grain of a log: bytes of memory one bit of a bitmap stands for.
pub const PAGE_BYTES: u64 = 4096;
/// The granule of a start that asks for an adaptive log: blocks become pages where something is written, and blocks again
/// where nothing is any more.
pub const GRANULE_ADAPTIVE: u64 = 1;
/// In x2 of an adaptive start, beside the tiers: the view of the vCPUs adapts.
pub const ADAPTS_CPU: u64 = 1 << 16;
/// The same of all views of the devices.
pub const ADAPTS_DMA: u64 = 1 << 17;
/// Pages one 64-bit word of a bitmap stands for.
pub const PAGES_PER_WORD: u64 = 64;

/// Bytes of bitmap for `pages` pages: one bit each, in whole 64-bit words.
#[must_use]
pub const fn bitmap_bytes(pages: u64) -> u64 {
    pages.div_ceil(PAGES_PER_WORD) * 8
}
