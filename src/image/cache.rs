//! Data cache maintenance by address, to the point of coherency (Arm ARM D7.5.9).
#![expect(unsafe_code, reason = "cache maintenance instructions")]

use core::arch::{asm, naked_asm};

use aarch64_cpu::asm::barrier;

use super::sysreg::read_sysreg;

/// CTR_EL0.DminLine: log2 of the words in the smallest data cache line.
const CTR_DMINLINE_SHIFT: u32 = 16;
const CTR_DMINLINE_BITS: u32 = 4;
const BYTES_PER_WORD: u64 = 4;

/// Cleans and invalidates the lines of `start..end`, and waits for it.
///
/// In assembly without a stack, because the entry code calls it before there is one. Clobbers x0–x3.
#[unsafe(naked)]
pub extern "C" fn clean_and_invalidate(start: u64, end: u64) {
    naked_asm!(
        "mrs x2, ctr_el0",
        "ubfx x2, x2, #{SHIFT}, #{BITS}",
        "mov x3, #{BYTES_PER_WORD}",
        "lsl x2, x3, x2",
        "sub x3, x2, #1",
        "bic x0, x0, x3",
        "1: dc civac, x0",
        "add x0, x0, x2",
        "cmp x0, x1",
        "b.lo 1b",
        "dsb sy",
        "ret",
        SHIFT = const CTR_DMINLINE_SHIFT,
        BITS = const CTR_DMINLINE_BITS,
        BYTES_PER_WORD = const BYTES_PER_WORD,
    )
}

/// Cleans the lines of `bytes` from `start`. Completion needs a DSB.
pub fn clean(start: u64, bytes: u64) {
    for line in lines(start, bytes) {
        // SAFETY: `DC CVAC` changes no memory that software sees; the caller's address is mapped.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
}

/// Makes the lines of `bytes` from `start` be read from memory again, after what a device wrote there. A dirty line
/// (there should be none) is written back, not lost. Waits for it.
pub fn invalidate(start: u64, bytes: u64) {
    barrier::dsb(barrier::SY);
    if bytes != 0 {
        clean_and_invalidate(start, start + bytes);
    }
}

/// The addresses of the cache lines that hold `bytes` from `start`.
fn lines(start: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let words = read_sysreg!("ctr_el0") >> CTR_DMINLINE_SHIFT & ((1 << CTR_DMINLINE_BITS) - 1);
    let line = BYTES_PER_WORD << words;
    let first = start & !(line - 1);
    (first..start + bytes).step_by(usize::try_from(line).unwrap_or(usize::MAX))
}
