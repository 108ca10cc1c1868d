//! What a boot module is, and where its parts go in a guest's RAM.
//!
//! Nothing is copied here: a [`LoadPlan`] says which bytes of the module go where, and [`place`] finds room for ramdisk
//! and device tree beside them. A module is somebody else's file: every number in it is checked.

mod elf;
mod image;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use strandline::addr::{Ipa, IpaRange, PAGE_BYTES};

/// Bytes kept free for the guest's device tree, and its alignment: a guest may map it by one 2 MiB block (Linux,
/// 'Booting AArch64 Linux', 2).
pub const DTB_BYTES: u64 = 2 << 20;

/// A run of bytes in a guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it begins.
    pub start: Ipa,
    /// Its length; the sum does not wrap.
    pub bytes: u64,
}

/// One part of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes.
    pub to: Ipa,
    /// Which bytes of the module it is; they are there.
    pub from: Range<usize>,
    /// How many zeros follow them.
    pub zeros: u64,
}

/// How a kernel is loaded. All of it lies in the VM's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Where the guest is entered; a multiple of 4.
    pub entry: Ipa,
    /// The parts; no two overlap.
    pub segments: Vec<Segment>,
    /// The lowest address of the kernel.
    pub start: Ipa,
    /// The first address behind all that the kernel needs, what it clears itself included.
    pub end: Ipa,
}

/// Where everything lies that a guest is started with, apart from its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The device tree: [`DTB_BYTES`] at a multiple of as many.
    pub dtb: Placed,
    /// The ramdisk, at a multiple of 4 KiB, with the length it was given.
    pub ramdisk: Option<Placed>,
}

/// Why a module can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No known kind of kernel; carries its first bytes, zeros where it has fewer, and how many it has in all.
    NotAKernel([u8; 4], usize),
    /// A compressed kernel; carries the name of the format.
    Compressed(&'static str),
    /// A kernel for big-endian CPUs.
    BigEndian,
    /// An Image whose header leaves its size open.
    NoImageSize,
    /// An entry point that is no multiple of 4.
    OddEntry(u64),
    /// An ELF file that is no executable for this machine; carries what must be otherwise.
    ElfKind(&'static str),
    /// An ELF file that contradicts itself; carries what is wrong, and the offending value.
    ElfBroken(&'static str, u64),
    /// A segment that lies outside RAM: its address and length.
    OutsideRam(u64, u64, IpaRange),
    /// Two segments that overlap: their addresses.
    Overlap(Ipa, Ipa),
    /// The VM has too little RAM: for what, how many bytes it needs, and how many there are for it.
    TooLittleMemory {
        /// What doesn't fit.
        what: &'static str,
        /// The bytes it needs.
        needs: u64,
        /// The bytes there are.
        has: u64,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel([a, b, c, d], bytes) => write!(
                f,
                "not a kernel: neither arm64 Image nor AArch64 ELF \
                 (first bytes {a:02x} {b:02x} {c:02x} {d:02x}, {bytes} bytes in all)"
            ),
            Self::Compressed(format) => write!(f, "the kernel is compressed ({format}): unpack it first"),
            Self::BigEndian => f.write_str("the kernel is big-endian: not supported"),
            Self::NoImageSize => f.write_str("the Image's header says no image_size: not supported"),
            Self::OddEntry(entry) => write!(f, "the kernel's entry point {entry:#x} is no multiple of 4"),
            Self::ElfKind(problem) => write!(f, "the ELF file can't be started: {problem}"),
            Self::ElfBroken(problem, value) => write!(f, "the ELF file is damaged: {problem} ({value:#x})"),
            Self::OutsideRam(start, bytes, ram) => {
                write!(f, "the kernel wants {bytes:#x} bytes at {start:#x}, the VM's RAM is {ram}")
            }
            Self::Overlap(a, b) => write!(f, "the kernel's segments at {a} and {b} overlap"),
            Self::TooLittleMemory { what, needs, has } => {
                write!(f, "too little memory: the {what} needs {needs:#x} bytes, the VM has {has:#x} for it")
            }
        }
    }
}

/// Recognises the kernel in `module` and plans how it is loaded into `ram`.
///
/// # Errors
/// Why it can't be loaded.
pub fn plan(module: &[u8], ram: IpaRange) -> Result<LoadPlan, LoadError> {
    if module.starts_with(b"\x7fELF") {
        return elf::plan(module, ram);
    }
    if let Some(header) = image::Header::of(module) {
        return header.plan(module, ram);
    }
    Err(compressed(module).map_or_else(|| not_a_kernel(module), LoadError::Compressed))
}

fn compressed(module: &[u8]) -> Option<&'static str> {
    let formats: [(&[u8], _); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x02\x21\x4c\x18", "lz4"),
    ];
    formats.iter().find(|(magic, _)| module.starts_with(magic)).map(|(_, name)| *name)
}

fn not_a_kernel(module: &[u8]) -> LoadError {
    let mut first = [0; 4];
    for (place, byte) in first.iter_mut().zip(module) {
        *place = *byte;
    }
    LoadError::NotAKernel(first, module.len())
}

/// Finds room in `ram` for the guest's device tree, and for a ramdisk of `ramdisk` bytes, beside `kernel`: above it,
/// the device tree first, or else below it.
///
/// Being next to the kernel, they lie in the windows around it that Linux wants ('Booting AArch64 Linux', 2 and 4).
///
/// # Errors
/// There is too little RAM.
pub fn place(kernel: &LoadPlan, ram: IpaRange, ramdisk: Option<u64>) -> Result<Placement, LoadError> {
    let mut gaps =
        [Gap { start: kernel.end.0, end: ram.end().0 }, Gap { start: ram.start().0, end: kernel.start.0 }];
    let dtb = take(&mut gaps, DTB_BYTES, DTB_BYTES, "device tree")?;
    let ramdisk = ramdisk.map(|bytes| take(&mut gaps, bytes, PAGE_BYTES, "ramdisk")).transpose()?;
    Ok(Placement { dtb, ramdisk })
}

/// A run of RAM that nothing lies in.
struct Gap {
    start: u64,
    end: u64,
}

impl Gap {
    /// Takes `bytes` at the lowest multiple of `align`. What lies below is lost, which is less than `align`.
    fn take(&mut self, bytes: u64, align: u64) -> Option<Placed> {
        let start = self.start.checked_next_multiple_of(align)?;
        let end = start.checked_add(bytes)?;
        if end > self.end {
            return None;
        }
        self.start = end;
        Some(Placed { start: Ipa(start), bytes })
    }

    /// How much there is from the lowest multiple of `align` on.
    fn bytes(&self, align: u64) -> u64 {
        let start = self.start.checked_next_multiple_of(align);
        start.map_or(0, |start| self.end.saturating_sub(start))
    }
}

fn take(gaps: &mut [Gap], bytes: u64, align: u64, what: &'static str) -> Result<Placed, LoadError> {
    let placed = gaps.iter_mut().find_map(|gap| gap.take(bytes, align));
    placed.ok_or_else(|| {
        let has = gaps.iter().map(|gap| gap.bytes(align)).max().unwrap_or(0);
        LoadError::TooLittleMemory { what, needs: bytes, has }
    })
}

#[cfg(test)]
mod tests;
