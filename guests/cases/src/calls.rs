//! PSCI and SMCCC discovery, as any arm64 guest uses them.

use guest_rt::boot::Guest;
use guest_rt::power::{hvc, smc};
use guest_rt::reason::Checked;
use guest_rt::{check, println};
use smccc::arch::SMCCC_VERSION;
use smccc::psci::{
    PSCI_CPU_OFF, PSCI_FEATURES, PSCI_MEM_PROTECT, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_VERSION,
};
use strandline_abi::Call;

/// NOT_SUPPORTED of SMCCC (DEN 0028 §7) and of PSCI (DEN 0022 §5.2.2): -1 in w0.
const NOT_SUPPORTED: u32 = u32::MAX;

fn call(function: u32, x1: u64) -> u32 {
    let [x0, ..] = hvc(function, [x1, 0, 0, 0, 0]);
    low(x0)
}

/// w0, which is what a 32-bit call answers in.
fn low(x0: u64) -> u32 {
    (x0 & 0xffff_ffff) as u32
}

/// `psci`: versions, what exists, and what does not.
pub fn psci_and_smccc_answer(_guest: &Guest) -> Checked {
    let psci = call(PSCI_VERSION, 0);
    println!("PSCI {}.{}", psci >> 16, psci & 0xffff);
    check!((0x1_0000..0x2_0000).contains(&psci), "PSCI_VERSION answers {psci:#x}")?;
    let smccc = call(SMCCC_VERSION, 0);
    println!("SMCCC {}.{}", smccc >> 16, smccc & 0xffff);
    check!((0x1_0001..0x2_0000).contains(&smccc), "SMCCC_VERSION answers {smccc:#x}")?;
    for there in
        [PSCI_VERSION, PSCI_CPU_OFF, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_FEATURES, SMCCC_VERSION]
    {
        let answer = call(PSCI_FEATURES, u64::from(there));
        check!(answer != NOT_SUPPORTED, "PSCI_FEATURES does not know {there:#x}")?;
    }
    for absent in [PSCI_MEM_PROTECT, 0x8400_00ff] {
        let answer = call(PSCI_FEATURES, u64::from(absent));
        check!(answer == NOT_SUPPORTED, "PSCI_FEATURES of {absent:#x} answers {answer:#x}")?;
    }
    // Unknown functions: of PSCI, of an owner nobody has, a yielding call, and zero.
    for unknown in [0x8400_00ff, 0xc400_00ff, 0xbf00_0000, 0x0000_1234, 0] {
        let answer = call(unknown, 0);
        check!(answer == NOT_SUPPORTED, "the unknown function {unknown:#x} answers {answer:#x}")?;
    }
    Ok(())
}

/// `smc`: the guest has no secure world to call, and is told so, whatever it asks for.
pub fn smc_is_not_supported(_guest: &Guest) -> Checked {
    for function in [SMCCC_VERSION, PSCI_VERSION, PSCI_SYSTEM_OFF, Call::Features.id(), 0] {
        let [x0, ..] = smc(function, [0; 5]);
        check!(low(x0) == NOT_SUPPORTED, "SMC {function:#x} answers {x0:#x}")?;
    }
    Ok(())
}
