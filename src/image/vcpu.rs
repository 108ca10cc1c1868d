//! A virtual CPU: the registers EL2 keeps for it, the way into it, and the traps around it.
#![expect(unsafe_code, reason = "guest entry, and EL1's system registers")]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTKCTL_EL1, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVOFF_EL2, CPACR_EL1, CPTR_EL2, ESR_EL2,
    FAR_EL2, HCR_EL2, HPFAR_EL2, ICH_HCR_EL2, MAIR_EL1, MDCR_EL2, MIDR_EL1, Readable, SCTLR_EL1, TCR_EL1,
    VBAR_EL1, VMPIDR_EL2, VTTBR_EL2, Writeable,
};

use strandline::addr::Ipa;

use super::aarch32;
use super::cpu::CpuFeatures;
use super::entry::HCR_BOOT;
use super::inject::{self, Control, Fault};
use super::sysreg::{read_sysreg, write_sysreg};
use super::vectors::kind;

/// A virtual CPU's general registers. The rest of its state (EL1's system registers, FP and SIMD) stays in the
/// hardware: one virtual CPU runs on a physical one.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vcpu {
    /// x0–x30.
    pub x: [u64; 31],
    /// Where it goes on: ELR_EL2.
    pub pc: u64,
    /// Its PSTATE: SPSR_EL2.
    pub pstate: u64,
}

/// Why a virtual CPU came to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A synchronous exception: a trap, an abort, a call.
    Sync {
        /// ESR_EL2: class and syndrome.
        esr: u64,
        /// FAR_EL2: the guest's virtual address of an abort.
        far: u64,
        /// HPFAR_EL2: the page of the IPA of an abort of stage 2, bits 47:12 in bits 43:4.
        hpfar: u64,
    },
    /// A physical interrupt is pending: [`super::irq::handle`].
    Irq,
    /// A physical fast interrupt is pending; nothing here enables one.
    Fiq,
    /// An asynchronous external abort.
    SError {
        /// ESR_EL2: the syndrome, where the CPU gives one.
        esr: u64,
    },
}

unsafe extern "C" {
    /// In vectors.S. Changes nothing of EL2's but what a C function may, TPIDR_EL2, ELR_EL2 and SPSR_EL2.
    fn vcpu_enter(vcpu: *mut Vcpu) -> u64;
    /// In vectors.S.
    fn fp_reset();
}

/// PSTATE of a CPU out of reset: EL1 on its own stack pointer, D, A, I, F masked.
const PSTATE_RESET: u64 = 0b1111 << 6 | 0b0101;
/// PSTATE.M.
const PSTATE_MODE: u64 = 0b1_1111;
/// The modes a guest can be in: EL0, EL1 on SP_EL0 and on SP_EL1, and EL0 in AArch32, which nothing can keep it from.
const GUEST_MODES: [u64; 4] = [0b0_0000, 0b0_0100, 0b0_0101, 0b1_0000];

impl Vcpu {
    /// One that starts at `pc` as out of reset, with `x0`.
    pub const fn new(pc: u64, x0: u64) -> Self {
        let mut x = [0; 31];
        x[0] = x0;
        Self { x, pc, pstate: PSTATE_RESET }
    }

    /// Runs the guest until something brings it back to EL2. Interrupts stay masked at EL2; they interrupt the guest.
    ///
    /// The guest is at the mercy of VTTBR_EL2, VTCR_EL2 and [`Vcpu::init_el1`]: set them first.
    ///
    /// # Panics
    /// `pstate` would enter something else than EL0, or EL1 in AArch64: an error of EL2's own.
    pub fn run(&mut self) -> Exit {
        assert!(
            GUEST_MODES.contains(&(self.pstate & PSTATE_MODE)),
            "a guest may not be entered with PSTATE {:#x}",
            self.pstate
        );
        // SAFETY: `self` is a valid, exclusive `repr(C)` register file for the whole call. By the check above the
        // guest runs at EL0 or EL1, where stage 2 confines it; it can reach neither this stack nor TPIDR_EL2.
        let kind = unsafe { vcpu_enter(self) };
        match kind {
            kind::SYNC => Exit::Sync { esr: ESR_EL2.get(), far: FAR_EL2.get(), hpfar: HPFAR_EL2.get() },
            kind::IRQ => Exit::Irq,
            kind::FIQ => Exit::Fiq,
            _ => Exit::SError { esr: ESR_EL2.get() },
        }
    }

    /// Goes on behind the instruction that trapped with this ESR_EL2, and that EL2 has carried out.
    pub const fn skip_instruction(&mut self, esr: u64) {
        (self.pc, self.pstate) = aarch32::behind(esr, self.pc, self.pstate);
    }

    /// Has the guest take an exception to EL1. Gives back whether that leads anywhere: where it does not, the guest
    /// was at its own vector already, and would take the same exception for ever.
    pub fn inject(&mut self, fault: Fault) -> bool {
        let control = Control { vbar: VBAR_EL1.get(), sctlr: SCTLR_EL1.get() };
        let taken = inject::take(fault, self.pc, self.pstate, control);
        // SAFETY: these belong to the guest, which does not run now; they have no meaning at EL2.
        unsafe {
            write_sysreg!("esr_el1", taken.esr);
            write_sysreg!("elr_el1", taken.elr);
            write_sysreg!("spsr_el1", taken.spsr);
            if let Some(far) = taken.far {
                write_sysreg!("far_el1", far);
            }
        }
        let moved = taken.pc != self.pc;
        (self.pc, self.pstate) = (taken.pc, taken.pstate);
        moved
    }

    /// Puts EL1&0 of this CPU into the state a guest expects out of reset, and sets the traps and the identity of
    /// virtual CPU number `index` of its VM. VTTBR_EL2 and VTCR_EL2 are the caller's, and are set before.
    pub fn init_el1(index: u8, cpu: &CpuFeatures) {
        reset_el1_registers(cpu);
        set_traps(cpu);
        set_identity(index);
        HCR_EL2.set(HCR_GUEST);
        barrier::isb(barrier::SY);
    }

    /// The page that the guest's stage 1 makes of `far`, as the guest would read there; `None` where its tables don't say.
    ///
    /// For permission faults of stage 2, of which HPFAR_EL2 need not tell the address (Arm ARM, HPFAR_EL2).
    pub fn translate(&self, far: u64) -> Option<Ipa> {
        /// PAR_EL1.F: the translation failed. PA, bits 51:12, where it did not.
        const FAILED: u64 = 1;
        const PAGE: u64 = 0x000f_ffff_ffff_f000;
        const EL_MASK: u64 = 0b1100;
        let guests = read_sysreg!("par_el1");
        // SAFETY: it translates by the tables of the guest, which does not run now, and changes PAR_EL1 alone.
        unsafe {
            if self.pstate & EL_MASK == 0 {
                core::arch::asm!("at s1e0r, {}", in(reg) far, options(nostack, preserves_flags));
            } else {
                core::arch::asm!("at s1e1r, {}", in(reg) far, options(nostack, preserves_flags));
            }
        }
        barrier::isb(barrier::SY);
        let result = read_sysreg!("par_el1");
        // SAFETY: it is the guest's again.
        unsafe { write_sysreg!("par_el1", guests) };
        (result & FAILED == 0).then_some(Ipa(result & PAGE))
    }

    /// Takes the guest's tables away from this CPU: called when a VM has ended, before its memory goes to others. A
    /// CPU may walk EL1's tables at any time, also while EL2 runs. So the guest's own translation goes off first, then
    /// stage 2, whose walks could write flags into what were tables (VTCR_EL2.HA and HD).
    pub fn leave(cpu: &CpuFeatures) {
        reset_el1_registers(cpu);
        barrier::isb(barrier::SY);
        HCR_EL2.set(HCR_BOOT);
        VTTBR_EL2.set(0);
        // SAFETY: stage 2 is off.
        unsafe { write_sysreg!("vtcr_el2", VTCR_RES1) };
        barrier::isb(barrier::SY);
    }
}

/// VTCR_EL2 bit 31 is RES1.
const VTCR_RES1: u64 = 1 << 31;

/// HCR_EL2 while a guest runs (Arm ARM, HCR_EL2): stage 2 (VM), interrupts and SErrors come to EL2 (FMO, IMO, AMO), WFI
/// and SMC trap (TWI, TSC), EL1 is AArch64 (RW), pointer authentication is the guest's own (APK, API). Its page tables
/// may not lie in device registers, which a walk would read at any time (PTW). Cache maintenance by set and way is not
/// trapped: it only invalidates what it cleans (SWIO), so that it costs time and loses nothing. What belongs to the
/// physical CPU and outlives the guest traps: registers that are IMPLEMENTATION DEFINED (TIDCP, TACR), error records
/// (TERR), limited ordering regions (TLOR). Identification registers (TID3) trap, so that they tell of what a guest has. Memory tags (ATA) trap where they are not off already.
const HCR_GUEST: u64 = {
    const VM: u64 = 1 << 0;
    const SWIO: u64 = 1 << 1;
    const PTW: u64 = 1 << 2;
    const FMO: u64 = 1 << 3;
    const IMO: u64 = 1 << 4;
    const AMO: u64 = 1 << 5;
    const TWI: u64 = 1 << 13;
    const TID3: u64 = 1 << 18;
    const TSC: u64 = 1 << 19;
    const TIDCP: u64 = 1 << 20;
    const TACR: u64 = 1 << 21;
    const RW: u64 = 1 << 31;
    const TLOR: u64 = 1 << 35;
    const TERR: u64 = 1 << 36;
    const APK: u64 = 1 << 40;
    const API: u64 = 1 << 41;
    let interrupts = FMO | IMO | AMO;
    let traps = TWI | TID3 | TSC | TIDCP | TACR | TLOR | TERR;
    VM | SWIO | PTW | RW | interrupts | traps | APK | API
};

/// SCTLR_EL1 out of reset: MMU and caches off, and the bits that are 1 where nothing gives them a meaning (29, 28,
/// 23, 22, 20, 11).
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

/// All that a guest can write at EL1 and EL0 and the next one could read: what is not here traps ([`set_traps`]).
fn reset_el1_registers(cpu: &CpuFeatures) {
    SCTLR_EL1.set(SCTLR_EL1_RESET);
    CPACR_EL1.set(0);
    TCR_EL1.set(0);
    MAIR_EL1.set(0);
    VBAR_EL1.set(0);
    CNTKCTL_EL1.set(0);
    CNTV_CTL_EL0.set(0);
    CNTV_CVAL_EL0.set(0);
    // SAFETY: none of these has a meaning at EL2: they belong to EL1&0, where no guest runs now.
    unsafe {
        write_sysreg!("ttbr0_el1", 0_u64);
        write_sysreg!("ttbr1_el1", 0_u64);
        write_sysreg!("amair_el1", 0_u64);
        write_sysreg!("esr_el1", 0_u64);
        write_sysreg!("far_el1", 0_u64);
        write_sysreg!("afsr0_el1", 0_u64);
        write_sysreg!("afsr1_el1", 0_u64);
        write_sysreg!("elr_el1", 0_u64);
        write_sysreg!("spsr_el1", 0_u64);
        write_sysreg!("sp_el0", 0_u64);
        write_sysreg!("sp_el1", 0_u64);
        write_sysreg!("par_el1", 0_u64);
        write_sysreg!("contextidr_el1", 0_u64);
        write_sysreg!("tpidr_el0", 0_u64);
        write_sysreg!("tpidrro_el0", 0_u64);
        write_sysreg!("tpidr_el1", 0_u64);
        write_sysreg!("csselr_el1", 0_u64);
        write_sysreg!("mdscr_el1", 0_u64);
        write_sysreg!("cntp_ctl_el0", 0_u64);
        if cpu.pauth {
            reset_keys();
        }
        if cpu.ras {
            // VDISR_EL2, which is what a guest accesses as DISR_EL1 where SErrors come to EL2.
            write_sysreg!("s3_4_c12_c1_1", 0_u64);
        }
    }
}

/// The keys of pointer authentication: APIA, APIB, APDA, APDB, APGA, of two words each.
///
/// # Safety
/// The CPU has FEAT_PAuth.
unsafe fn reset_keys() {
    macro_rules! reset {
        ($($name:literal)*) => {
            // SAFETY: they belong to EL1&0, where no guest runs now; EL2's own code signs no pointers.
            $(unsafe { write_sysreg!($name, 0_u64) };)*
        };
    }
    reset! {
        "s3_0_c2_c1_0" "s3_0_c2_c1_1" "s3_0_c2_c1_2" "s3_0_c2_c1_3"
        "s3_0_c2_c2_0" "s3_0_c2_c2_1" "s3_0_c2_c2_2" "s3_0_c2_c2_3"
        "s3_0_c2_c3_0" "s3_0_c2_c3_1"
    }
}

/// What a guest may use without EL2, and what traps.
fn set_traps(cpu: &CpuFeatures) {
    /// CPTR_EL2 where HCR_EL2.E2H is 0: RES1 13, 9, 7:0; TSM 12 and TZ 8 trap SME and SVE; TTA 20 and TAM 30 trap
    /// trace and activity monitors. Floating point (TFP, 10) is the guest's.
    const CPTR: u64 = 0x33ff | 1 << 20 | 1 << 30;
    /// MDCR_EL2: TPMCR 5, TPM 6 (PMU), TDA 9, TDOSA 10, TDRA 11 (debug), TPMS 14 (profiling), TTRF 19 (trace
    /// filter). E2PB (13:12) and E2TB (25:24) of 0 trap the profiling and trace buffers.
    const MDCR_TRAPS: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 19;
    /// PMCR_EL0.N: how many event counters there are. MDCR_EL2.HPMN may not be 0.
    const PMCR_N_SHIFT: u32 = 11;
    const PMCR_N: u64 = 0x1f;

    // First, so that EL2 can reach the FP registers: the one place where it does.
    CPTR_EL2.set(CPTR);
    barrier::isb(barrier::SY);
    // SAFETY: zeroes the FP and SIMD registers, which EL2's code (soft float) never uses.
    unsafe { fp_reset() };
    let counters = if cpu.pmu { read_sysreg!("pmcr_el0") >> PMCR_N_SHIFT & PMCR_N } else { 0 };
    MDCR_EL2.set(MDCR_TRAPS | counters);
    // The physical timer traps, the physical counter doesn't; the virtual timer counts with it.
    CNTHCTL_EL2.write(CNTHCTL_EL2::EL1PCTEN::SET);
    CNTVOFF_EL2.set(0);
    // A guest has no interrupt controller: the virtual CPU interface traps (TC 10, TALL0 11, TALL1 12).
    ICH_HCR_EL2.set(1 << 10 | 1 << 11 | 1 << 12);
    // SAFETY: these bound what a guest does, none of them changes what EL2 does; those that not every CPU has are
    // written where the ID registers say they exist (s3_4_c1_c2_2 is HCRX_EL2, then the fine-grained traps).
    unsafe {
        write_sysreg!("hstr_el2", 0_u64);
        if cpu.hcx {
            write_sysreg!("s3_4_c1_c2_2", 0_u64);
        }
        if cpu.fgt {
            write_sysreg!("s3_4_c1_c1_4", 0_u64); // HFGRTR_EL2
            write_sysreg!("s3_4_c1_c1_5", 0_u64); // HFGWTR_EL2
            write_sysreg!("s3_4_c1_c1_6", 0_u64); // HFGITR_EL2
            write_sysreg!("s3_4_c3_c1_4", 0_u64); // HDFGRTR_EL2
            write_sysreg!("s3_4_c3_c1_5", 0_u64); // HDFGWTR_EL2
        }
        if cpu.fgt2 {
            write_sysreg!("s3_4_c3_c1_2", 0_u64); // HFGRTR2_EL2
            write_sysreg!("s3_4_c3_c1_3", 0_u64); // HFGWTR2_EL2
            write_sysreg!("s3_4_c3_c1_7", 0_u64); // HFGITR2_EL2
            write_sysreg!("s3_4_c3_c1_0", 0_u64); // HDFGRTR2_EL2
            write_sysreg!("s3_4_c3_c1_1", 0_u64); // HDFGWTR2_EL2
        }
        if cpu.mpam {
            // MPAM2_EL2.TRAPMPAM0EL1 and TRAPMPAM1EL1: partitions are the machine's.
            write_sysreg!("s3_4_c10_c5_0", 1_u64 << 49 | 1 << 48);
        }
    }
}

/// The MIDR and MPIDR a guest reads: this CPU's model, and the number of the virtual CPU in its VM.
fn set_identity(index: u8) {
    /// MPIDR_EL1 bit 31 is RES1.
    const MPIDR_RES1: u64 = 1 << 31;
    VMPIDR_EL2.set(MPIDR_RES1 | u64::from(index));
    let midr = MIDR_EL1.get();
    // SAFETY: VPIDR_EL2 only changes what EL1 reads as MIDR_EL1.
    unsafe { write_sysreg!("vpidr_el2", midr) };
}
