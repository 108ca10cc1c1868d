//! Switching the machine off: PSCI, by the conduit the device tree names (Arm DEN 0022), or, where a board says so, an
//! emulator's semihosting.
#![expect(unsafe_code, reason = "the semihosting call")]

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use aarch64_cpu::asm;
use smccc::psci;
use smccc::{Hvc, Smc};

use super::console;
use super::machine::Conduit;

// Plain loads and stores: an enum in an atomic, since it is set before there are locks.
static WAY: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const SMC: u8 = 1;
const HVC: u8 = 2;
const SEMIHOSTING: u8 = 3;

/// Says how PSCI is called, and whether a board wants semihosting in its place.
pub fn init(psci: Option<Conduit>, semihosting: bool) {
    let code = match psci {
        _ if semihosting => SEMIHOSTING,
        Some(Conduit::Smc) => SMC,
        Some(Conduit::Hvc) => HVC,
        None => NONE,
    };
    WAY.store(code, Ordering::Relaxed);
}

/// Switches the machine off. Where that can't be done, or doesn't happen, this CPU sleeps for ever.
pub fn off(succeeded: bool) -> ! {
    console::drain();
    // Once: where nothing listens to it, a semihosting call is an undefined instruction, whose report ends here again.
    let way = WAY.load(Ordering::Relaxed);
    WAY.store(NONE, Ordering::Relaxed);
    // Whatever firmware answers, there is nobody left to tell.
    let _ = match way {
        SMC => psci::system_off::<Smc>(),
        HVC => psci::system_off::<Hvc>(),
        SEMIHOSTING => {
            exit(succeeded);
            Ok(())
        }
        _ => Ok(()),
    };
    loop {
        asm::wfi();
    }
}

/// SYS_EXIT (Semihosting for AArch32 and AArch64, 6.5): reason and exit status.
fn exit(succeeded: bool) {
    const SYS_EXIT: u64 = 0x18;
    const APPLICATION_EXIT: u64 = 0x2_0026;
    let block = [APPLICATION_EXIT, u64::from(!succeeded)];
    // SAFETY: the call reads the block, and does not return where a debugger or an emulator listens. Where none does, it
    // is an exception, which EL2's own vector reports.
    unsafe { asm!("hlt #0xf000", inout("x0") SYS_EXIT => _, in("x1") &raw const block, options(nostack)) };
}
