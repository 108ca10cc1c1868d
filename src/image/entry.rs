//! The image's first instructions.
#![expect(unsafe_code, reason = "the entry point, in assembly")]

use core::arch::global_asm;

use super::{boot, cache, mmu};

/// All of PSTATE.{D,A,I,F}.
const DAIF_ALL: u64 = 0b1111;
/// CurrentEL at EL2.
pub const CURRENT_EL2: u64 = 2 << 2;

/// HCR_EL2 as long as no guest runs: the lower levels are AArch64 (RW, bit 31), interrupts and SErrors come to EL2
/// (AMO 5, IMO 4, FMO 3), no VHE, no stage 2.
pub const HCR_BOOT: u64 = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 3;

/// The bytes that a bitmap in the list of relocations covers (ELF's SHT_RELR): a word for each bit but the lowest.
const RELR_SPAN: usize = 63 * size_of::<u64>();

global_asm!(
    include_str!("entry.S"),
    DAIF_ALL = const DAIF_ALL,
    CURRENT_EL2 = const CURRENT_EL2,
    HCR_BOOT = const HCR_BOOT,
    SCTLR_MMU_OFF = const mmu::SCTLR_RES1,
    RELR_SPAN = const RELR_SPAN,
    BSS_STEP = const 2 * size_of::<u64>(),
    clean_and_invalidate = sym cache::clean_and_invalidate,
    start = sym boot::start,
);
