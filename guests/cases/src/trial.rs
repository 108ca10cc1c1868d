//! Trials: a few instructions, given as words, run at EL1 or EL0 until an exception comes to EL1; and what that left.
#![expect(unsafe_code, reason = "runs code it has written itself, under vectors of its own")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use guest_rt::area::Area;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use strandline_abi::PAGE_BYTES;

use crate::places::cut;

global_asm!(
    include_str!("trial.S"),
    PC = const offset_of!(Record, pc),
    SPSR = const offset_of!(Record, spsr),
    SCTLR = const offset_of!(Record, sctlr),
    X = const offset_of!(Record, x),
    VECTOR = const offset_of!(Record, vector),
    ESR = const offset_of!(Record, esr),
    FAR = const offset_of!(Record, far),
    PSTATE = const offset_of!(Record, pstate),
    FIELDS = const offset_of!(Record, fields),
    MOST_FIELDS = const MOST_FIELDS.trailing_zeros(),
    ALL_FIELDS = const ALL_FIELDS.trailing_zeros(),
    VBAR = const offset_of!(Record, vbar),
    SP = const offset_of!(Record, sp),
    OLD_SCTLR = const offset_of!(Record, old_sctlr),
);

unsafe extern "C" {
    fn trial_run(record: *mut Record);
}

/// What a trial begins with and ends with; the assembly knows its layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where the code begins; afterwards ELR_EL1.
    pub pc: u64,
    /// PSTATE to begin with; afterwards SPSR_EL1.
    pub spsr: u64,
    /// SCTLR_EL1 while it runs.
    pub sctlr: u64,
    /// x0 to x3, before and afterwards.
    pub x: [u64; 4],
    /// Which vector was taken: its offset in VBAR_EL1's table, divided by 0x80.
    pub vector: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// PSTATE behind the vector, as far as it can be read.
    pub pstate: u64,
    /// [`MOST_FIELDS`], [`ALL_FIELDS`]: what of it the CPU has.
    pub fields: u64,
    vbar: u64,
    sp: u64,
    old_sctlr: u64,
}

/// [`Record::fields`]: the CPU has PAN and UAO, which [`Record::pstate`] then holds too.
const MOST_FIELDS: u64 = 1 << 0;
/// The same of DIT, SSBS, TCO and ALLINT.
pub const ALL_FIELDS: u64 = 1 << 1;

/// PSTATE of EL1 on SP_EL1, everything masked.
pub const EL1H: u64 = 0x3c5;
/// EL1 on SP_EL0.
pub const EL1T: u64 = 0x3c4;
/// EL0.
pub const EL0: u64 = 0x3c0;
/// EL0 in AArch32, A32 instructions.
pub const A32: u64 = 0x1d0;
/// EL0 in AArch32, T32 instructions.
pub const T32: u64 = 0x1f0;

/// SVC #0x5a5a: the end of what met no other exception. Its ESR_EL1 follows.
pub const SVC: u32 = 0xd40b_4b41;
/// ESR_EL1 of [`SVC`].
pub const THROUGH: u64 = 0x5600_5a5a;
/// UDF #0.
pub const UDF: u32 = 0;

/// Room for code.
pub struct Bench {
    code: Window,
    fields: u64,
}

impl Bench {
    /// Takes a page of `free` for code.
    ///
    /// # Errors
    /// There is none.
    pub fn new(free: &mut Area) -> Checked<Self> {
        let (pfr0, pfr1, mmfr1, mmfr2): (u64, u64, u64, u64);
        // SAFETY: ID registers; reading them has no effect.
        unsafe {
            asm!("mrs {}, id_aa64pfr0_el1", out(reg) pfr0, options(nomem, nostack, preserves_flags));
            asm!("mrs {}, id_aa64pfr1_el1", out(reg) pfr1, options(nomem, nostack, preserves_flags));
            asm!("mrs {}, id_aa64mmfr1_el1", out(reg) mmfr1, options(nomem, nostack, preserves_flags));
            asm!("mrs {}, id_aa64mmfr2_el1", out(reg) mmfr2, options(nomem, nostack, preserves_flags));
        }
        let field = |register: u64, shift: u32| register >> shift & 0xf;
        let most = field(mmfr1, 20) != 0 && field(mmfr2, 4) != 0;
        // DIT; SSBS with its register; MTE; NMI.
        let all = field(pfr0, 48) != 0 && field(pfr1, 4) >= 2 && field(pfr1, 8) != 0 && field(pfr1, 36) != 0;
        let fields = if most { MOST_FIELDS } else { 0 } | if most && all { ALL_FIELDS } else { 0 };
        Ok(Self { code: cut(free, PAGE_BYTES)?, fields })
    }

    /// Where the code of the next trial begins.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.code.start()
    }

    /// Whether [`Record::pstate`] has all fields.
    #[must_use]
    pub const fn has_all_fields(&self) -> bool {
        self.fields & ALL_FIELDS != 0
    }

    /// Runs `words` in the state `pstate`, with x0 to x3, to the first exception.
    #[must_use]
    pub fn run(&self, words: &[u32], pstate: u64, x: [u64; 4]) -> Record {
        self.run_with(words, pstate, x, sctlr())
    }

    /// As [`Bench::run`], with this SCTLR_EL1 as long as it lasts.
    #[must_use]
    pub fn run_with(&self, words: &[u32], pstate: u64, x: [u64; 4], sctlr: u64) -> Record {
        for (index, word) in words.iter().chain(&[SVC, UDF]).enumerate() {
            self.code.write32(index as u64 * 4, *word);
        }
        self.go(self.start(), pstate, x, sctlr)
    }

    /// As [`Bench::run_with`], with the code that is at `pc`.
    #[must_use]
    pub fn go(&self, pc: u64, pstate: u64, x: [u64; 4], sctlr: u64) -> Record {
        let fields = self.fields;
        let mut record = Record { pc, spsr: pstate, sctlr, x, fields, ..Record::default() };
        // SAFETY: the assembly saves what a C function must and restores it, SP and SCTLR_EL1 included, whatever the
        // code does to registers; that neither writes to this program's memory nor to its vectors is the business of
        // the cases, which write it.
        unsafe {
            asm!("dsb sy", "ic iallu", "dsb sy", "isb", options(nostack, preserves_flags));
            trial_run(&raw mut record);
        }
        record
    }
}

/// SCTLR_EL1 now.
#[must_use]
pub fn sctlr() -> u64 {
    let value;
    // SAFETY: reading it has no effect.
    unsafe { asm!("mrs {}, sctlr_el1", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// MRS x0, S\<op0\>_\<op1\>_C\<n\>_C\<m\>_\<op2\>.
#[must_use]
pub fn mrs([op0, op1, crn, crm, op2]: [u32; 5]) -> u32 {
    0xd520_0000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

/// MSR of the same from x0.
#[must_use]
pub fn msr(register: [u32; 5]) -> u32 {
    mrs(register) & !(1 << 21)
}
