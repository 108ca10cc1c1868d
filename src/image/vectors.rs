//! The vector table, and what becomes of an exception that EL2 itself causes: none is expected, each is fatal.
//!
//! EL2 runs with interrupts masked throughout: it asks the interrupt controller where it wants to know
//! ([`super::irq::window`]). So an interrupt never finds EL2 half-way through something, and no lock has to care.
#![expect(unsafe_code, reason = "the vectors, in assembly")]

use core::arch::global_asm;
use core::fmt;
use core::mem::offset_of;

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, Readable};

use super::layout;
use super::vcpu::Vcpu;

/// The kinds of exception that the vectors tell apart.
pub mod kind {
    /// A synchronous exception.
    pub const SYNC: u64 = 0;
    /// A physical interrupt.
    pub const IRQ: u64 = 1;
    /// A physical fast interrupt.
    pub const FIQ: u64 = 2;
    /// An asynchronous external abort.
    pub const SERROR: u64 = 3;
}

/// Bytes from one vector to the next, and alignment of the table (Arm ARM D1.3.1.5).
const VECTOR_BYTES: usize = 0x80;
const VECTORS_BYTES: usize = 16 * VECTOR_BYTES;
/// Two registers on the stack.
const PAIR: usize = 2 * size_of::<u64>();
/// x19–x30.
const HOST_FRAME: usize = 6 * PAIR;

global_asm!(
    include_str!("vectors.S"),
    VECTOR_BYTES = const VECTOR_BYTES,
    VECTORS_BYTES = const VECTORS_BYTES,
    PAIR = const PAIR,
    HOST_FRAME = const HOST_FRAME,
    X = const offset_of!(Vcpu, x),
    PC = const offset_of!(Vcpu, pc),
    PSTATE = const offset_of!(Vcpu, pstate),
    SYNC = const kind::SYNC,
    IRQ = const kind::IRQ,
    FIQ = const kind::FIQ,
    SERROR = const kind::SERROR,
    exception_at_el2 = sym exception_at_el2,
);

/// The end of every exception that EL2 causes. Runs on the emergency stack.
extern "C" fn exception_at_el2(kind: u64) -> ! {
    let report = Report { kind, esr: ESR_EL2.get(), elr: ELR_EL2.get(), far: FAR_EL2.get() };
    panic!("{report}");
}

struct Report {
    kind: u64,
    esr: u64,
    elr: u64,
    far: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { esr, elr, far, .. } = *self;
        let what = match self.kind {
            kind::SYNC => class(esr),
            kind::IRQ => "unexpected interrupt",
            kind::FIQ => "unexpected fast interrupt",
            _ => "SError",
        };
        let image = layout::image();
        let in_guard = |guard: core::ops::Range<u64>| guard.contains(&far) && is_data_abort(esr);
        if self.kind == kind::SYNC && in_guard(layout::stack_guard()) {
            f.write_str("stack guard page hit: ")?;
        }
        write!(f, "{what} at EL2, ESR {esr:#x}, FAR {far:#x}, ELR {elr:#x}")?;
        if image.contains(&elr) {
            write!(f, " (image + {:#x})", elr - image.start)?;
        }
        Ok(())
    }
}

/// ESR_ELx.EC, bits 31:26.
fn exception_class(esr: u64) -> u64 {
    esr >> 26 & 0x3f
}

fn is_data_abort(esr: u64) -> bool {
    exception_class(esr) == 0x25
}

/// The name of a synchronous exception's class, as far as EL2 can cause it (Arm ARM, ESR_EL2.EC).
fn class(esr: u64) -> &'static str {
    match exception_class(esr) {
        0x00 => "undefined instruction",
        0x07 => "use of floating point",
        0x0e => "illegal execution state",
        0x15..=0x17 => "trapped call",
        0x18 => "trapped system register",
        0x21 => "instruction abort",
        0x22 => "misaligned program counter",
        0x25 => "data abort",
        0x26 => "misaligned stack pointer",
        0x3c => "breakpoint instruction",
        _ => "unexpected exception",
    }
}
