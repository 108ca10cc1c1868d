//! What the CPU can do, from its ID registers.
#![expect(unsafe_code, reason = "ID registers without a type in aarch64-cpu")]

use core::arch::global_asm;
use core::fmt;

use aarch64_cpu::registers::{
    ID_AA64DFR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, MIDR_EL1, MPIDR_EL1, Readable,
};

use super::sysreg::read_sysreg;

/// The features of one CPU that EL2's decisions rest on. Field values are those of the ID registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// MIDR_EL1: implementer, part, revision.
    pub midr: u64,
    /// MPIDR_EL1's affinity fields.
    pub affinity: u64,
    /// ID_AA64MMFR1_EL1.HAFDBS: 1 access flag, 2 dirty state, 3 table access flag.
    pub hafdbs: u8,
    /// ID_AA64MMFR2_EL1.BBM: the break-before-make level, 0–2.
    pub bbm: u8,
    /// ID_AA64MMFR0_EL1.PARange, encoded as TCR.PS is.
    pub pa_range: u8,
    /// ID_AA64MMFR1_EL1.VMIDBits says 16.
    pub vmid16: bool,
    /// Stage 2 can use 4 KiB pages (ID_AA64MMFR0_EL1.TGran4_2, or TGran4 where that says so).
    pub tgran4_2: bool,
    /// FEAT_TTL: TLB invalidations may name a level.
    pub ttl: bool,
    /// FEAT_S2FWB: stage 2 can force write-back.
    pub s2fwb: bool,
    /// FEAT_LSE2: 16 bytes that are aligned are loaded and stored at once (ID_AA64MMFR2_EL1.AT).
    pub lse2: bool,
    /// FEAT_FGT: there are fine-grained traps.
    pub fgt: bool,
    /// FEAT_FGT2: there are more of them.
    pub fgt2: bool,
    /// FEAT_RNG: there is a generator of random numbers.
    pub rng: bool,
    /// FEAT_HCX: there is HCRX_EL2.
    pub hcx: bool,
    /// There is a PMU by the architecture (ID_AA64DFR0_EL1.PMUVer).
    pub pmu: bool,
    /// FEAT_PAuth: there are keys to sign pointers with.
    pub pauth: bool,
    /// FEAT_RAS.
    pub ras: bool,
    /// FEAT_MPAM.
    pub mpam: bool,
    /// FEAT_SVE.
    pub sve: bool,
    /// FEAT_SME.
    pub sme: bool,
}

/// The affinity fields of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;

impl CpuFeatures {
    /// Reads the ID registers of the CPU this runs on.
    pub fn read() -> Self {
        let (mmfr0, mmfr1) = (ID_AA64MMFR0_EL1.get(), ID_AA64MMFR1_EL1.get());
        let (mmfr2, dfr0) = (ID_AA64MMFR2_EL1.get(), ID_AA64DFR0_EL1.get());
        let (pfr0, pfr1) = (read_sysreg!("id_aa64pfr0_el1"), read_sysreg!("id_aa64pfr1_el1"));
        let (isar1, isar2) = (read_sysreg!("id_aa64isar1_el1"), read_sysreg!("s3_0_c0_c6_2"));
        let pmu_version = field(dfr0, 8);
        Self {
            midr: MIDR_EL1.get(),
            affinity: MPIDR_EL1.get() & AFFINITY,
            hafdbs: field(mmfr1, 0),
            bbm: field(mmfr2, 52),
            pa_range: field(mmfr0, 0),
            vmid16: field(mmfr1, 4) == 2,
            tgran4_2: match field(mmfr0, 40) {
                // 'As for stage 1', where 15 means not supported.
                0 => field(mmfr0, 28) != 15,
                tgran4_2 => tgran4_2 >= 2,
            },
            ttl: field(mmfr2, 48) != 0,
            s2fwb: field(mmfr2, 40) != 0,
            lse2: field(mmfr2, 32) != 0,
            fgt: field(mmfr0, 56) != 0,
            fgt2: field(mmfr0, 56) >= 2,
            rng: field(read_sysreg!("id_aa64isar0_el1"), 60) != 0,
            hcx: field(mmfr1, 40) != 0,
            pmu: pmu_version != 0 && pmu_version != 15,
            // APA 7:4, API 11:8, GPA 27:24, GPI 31:28; APA3 15:12, GPA3 11:8.
            pauth: (isar1 & 0xff00_0ff0) | (isar2 & 0xff00) != 0,
            ras: field(pfr0, 28) != 0,
            mpam: field(pfr0, 40) | field(pfr1, 16) != 0,
            sve: field(pfr0, 32) != 0,
            sme: field(pfr1, 24) != 0,
        }
    }

    /// Has nothing rely on the CPU's dirty state; its access flag stays.
    pub fn leave_dirty_state_out(&mut self) {
        const ACCESS_FLAG: u8 = 1;
        self.hafdbs = self.hafdbs.min(ACCESS_FLAG);
    }

    /// A random number of the CPU's, which has [`CpuFeatures::rng`]; `None` where it has none ready.
    pub fn random() -> Option<u64> {
        let (value, flags): (u64, u64);
        // SAFETY: RNDR (S3_3_C2_C4_0) has no side effect but PSTATE's flags, which tell whether it gave a number.
        unsafe {
            core::arch::asm!("mrs {}, s3_3_c2_c4_0", "mrs {}, nzcv", out(reg) value, out(reg) flags, options(nomem, nostack));
        }
        const ZERO: u64 = 1 << 30;
        (flags & ZERO == 0).then_some(value)
    }

    /// How many bits a physical address has.
    pub fn pa_bits(&self) -> u32 {
        match self.pa_range {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }

    /// TCR_EL2.PS for EL2's own tables: 48 bits at most, which is what a descriptor of the 4 KiB granule holds.
    pub fn stage1_ps(&self) -> u64 {
        const BITS_48: u8 = 5;
        self.pa_range.min(BITS_48).into()
    }
}

global_asm!(
    // x0 = index: eight bytes of code for each register.
    "read_id_register:",
    "adr x1, 1f",
    "add x1, x1, x0, lsl #3",
    "br x1",
    "1:",
    ".irp crm, 1, 2, 3, 4, 5, 6, 7",
    ".irp op2, 0, 1, 2, 3, 4, 5, 6, 7",
    "mrs x0, s3_0_c0_c\\crm\\()_\\op2",
    "ret",
    ".endr",
    ".endr",
);

unsafe extern "C" {
    /// Reads S3_0_C0_C\<crm\>_\<op2\>; `index` is (crm - 1) * 8 + op2, below 56.
    fn read_id_register(index: u64) -> u64;
}

/// The identification register S3_0_C0_C\<crm\>_\<op2\>; 0 where `crm` is not 1 to 7 or `op2` not 0 to 7.
pub fn id_register(crm: u8, op2: u8) -> u64 {
    if !matches!((crm, op2), (1..=7, 0..=7)) {
        return 0;
    }
    // SAFETY: the index is below 56; the whole space of identification registers can be read, and reads as zero where
    // it has no register.
    unsafe { read_id_register(u64::from(crm - 1) * 8 + u64::from(op2)) }
}

/// The four-bit field from `shift`.
fn field(register: u64, shift: u32) -> u8 {
    (register >> shift & 0xf) as u8
}

impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirty = match self.hafdbs {
            0 => "no hardware dirty state",
            1 => "no hardware dirty state (access flag only)",
            _ => "hardware dirty state",
        };
        let vmid = if self.vmid16 { 16 } else { 8 };
        let fwb = if self.s2fwb { ", S2FWB" } else { "" };
        let ttl = if self.ttl { ", TTL" } else { "" };
        write!(
            f,
            "MIDR {:#010x}, {dirty} (HAFDBS {}), BBM level {}, {}-bit addresses, {vmid}-bit VMIDs{ttl}{fwb}",
            self.midr,
            self.hafdbs,
            self.bbm,
            self.pa_bits(),
        )
    }
}
