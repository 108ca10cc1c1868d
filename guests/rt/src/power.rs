//! Ending the VM (PSCI, DEN 0022), and plain SMCCC calls.

use aarch64_cpu::asm;
use smccc::{Hvc, psci};

/// SYSTEM_OFF: the VM succeeded.
pub fn off() -> ! {
    let _ = psci::system_off::<Hvc>();
    stay()
}

/// SYSTEM_RESET: the VM failed.
pub fn fail() -> ! {
    let _ = psci::system_reset::<Hvc>();
    stay()
}

/// CPU_OFF: this vCPU ends.
pub fn cpu_off() -> ! {
    let _ = psci::cpu_off::<Hvc>();
    stay()
}

/// What is left where a call that does not return did.
fn stay() -> ! {
    loop {
        asm::wfi();
    }
}

/// `HVC #0` with `function` in w0 and `args` in x1..x5; gives back x0..x4.
///
/// Where a call writes to memory, the caller names memory outside the image, or an object it borrows mutably for as
/// long as the call lasts.
#[must_use]
pub fn hvc(function: u32, args: [u64; 5]) -> [u64; 5] {
    results(smccc::hvc64(function, arguments(args)))
}

/// `SMC #0`, as [`hvc`].
#[must_use]
pub fn smc(function: u32, args: [u64; 5]) -> [u64; 5] {
    results(smccc::smc64(function, arguments(args)))
}

fn arguments([x1, x2, x3, x4, x5]: [u64; 5]) -> [u64; 17] {
    [x1, x2, x3, x4, x5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn results([x0, x1, x2, x3, x4, ..]: [u64; 18]) -> [u64; 5] {
    [x0, x1, x2, x3, x4]
}
