//! A virtual CPU: the registers EL2 keeps for it, the way into it, and the traps around it.
#![expect(unsafe_code, reason = "guest entry, and EL1's system registers")]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTKCTL_EL1, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVOFF_EL2, CPACR_EL1, CPTR_EL2, ESR_EL2,
    FAR_EL2, HCR_EL2, HPFAR_EL2, ICH_HCR_EL2, MAIR_EL1, MDCR_EL2, MIDR_EL1, Readable, SCTLR_EL1, TCR_EL1,
    VBAR_EL1, VMPIDR_EL2, Writeable,
};

use super::cpu::CpuFeatures;
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
    /// The guest went into AArch32 state, which no guest is given.
    AArch32,
}

unsafe extern "C" {
    /// In vectors.S. Changes nothing of EL2's but what a C function may, TPIDR_EL2, ELR_EL2 and SPSR_EL2.
    fn vcpu_enter(vcpu: *mut Vcpu) -> u64;
    /// In vectors.S.
    fn fp_reset();
}

/// PSTATE of a CPU out of reset: EL1 on its own stack pointer, D, A, I, F masked.
const PSTATE_RESET: u64 = 0b1111 << 6 | 0b0101;
/// PSTATE.M: not AArch64 (bit 4), or EL2 and EL3 (bit 3).
const PSTATE_FORBIDDEN: u64 = 0b1_1000;
/// PSTATE.BTYPE: how the instruction was branched to; no instruction leaves it set but a branch.
const PSTATE_BTYPE: u64 = 0b11 << 10;
/// Bytes of an instruction.
const INSTRUCTION_BYTES: u64 = 4;

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
    /// `pstate` would enter something else than EL0 or EL1 in AArch64: an error of EL2's own.
    pub fn run(&mut self) -> Exit {
        assert!(
            self.pstate & PSTATE_FORBIDDEN == 0,
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
            kind::SERROR => Exit::SError { esr: ESR_EL2.get() },
            _ => Exit::AArch32,
        }
    }

    /// Goes on behind the instruction that trapped, which EL2 has carried out. The last word of the address space is
    /// followed by the first, as in the hardware: where a guest puts its instructions is no error of EL2's.
    pub const fn skip_instruction(&mut self) {
        self.pc = self.pc.wrapping_add(INSTRUCTION_BYTES);
        self.pstate &= !PSTATE_BTYPE;
    }

    /// Puts EL1&0 of this CPU into the state a guest expects out of reset, and sets the traps and the identity of
    /// virtual CPU number `index` of its VM. VTTBR_EL2 and VTCR_EL2 are the caller's, and are set before.
    pub fn init_el1(index: u8, cpu: &CpuFeatures) {
        reset_el1_registers();
        set_traps(cpu);
        set_identity(index);
        HCR_EL2.set(hcr());
        barrier::isb(barrier::SY);
    }
}

/// HCR_EL2 while a guest runs (Arm ARM, HCR_EL2): stage 2 (VM), set/way cleaning also invalidates (SWIO), interrupts
/// and SErrors come to EL2 (FMO, IMO, AMO), WFI and SMC trap (TWI, TSC), EL1 is AArch64 (RW), pointer authentication
/// is the guest's own (APK, API). What belongs to the physical CPU and outlives the guest traps too: registers that
/// are IMPLEMENTATION DEFINED (TIDCP, TACR), error records (TERR), limited ordering regions (TLOR).
pub const fn hcr() -> u64 {
    const VM: u64 = 1 << 0;
    const SWIO: u64 = 1 << 1;
    const FMO: u64 = 1 << 3;
    const IMO: u64 = 1 << 4;
    const AMO: u64 = 1 << 5;
    const TWI: u64 = 1 << 13;
    const TSC: u64 = 1 << 19;
    const TIDCP: u64 = 1 << 20;
    const TACR: u64 = 1 << 21;
    const RW: u64 = 1 << 31;
    const TLOR: u64 = 1 << 35;
    const TERR: u64 = 1 << 36;
    const APK: u64 = 1 << 40;
    const API: u64 = 1 << 41;
    let interrupts = FMO | IMO | AMO;
    let traps = TWI | TSC | TIDCP | TACR | TLOR | TERR;
    VM | SWIO | RW | interrupts | traps | APK | API
}

/// SCTLR_EL1 out of reset: MMU and caches off, and the bits that are 1 where nothing gives them a meaning (29, 28,
/// 23, 22, 20, 11).
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

fn reset_el1_registers() {
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
    ICH_HCR_EL2.set(0);
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
