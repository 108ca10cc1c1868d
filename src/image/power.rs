//! Switching the machine off: PSCI, by the conduit the device tree names (Arm DEN 0022).

use core::sync::atomic::{AtomicU8, Ordering};

use aarch64_cpu::asm;
use smccc::psci;
use smccc::{Hvc, Smc};

use super::console;
use super::machine::Conduit;

// Plain loads and stores: an enum in an atomic, since it is set before there are locks.
static CONDUIT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const SMC: u8 = 1;
const HVC: u8 = 2;

/// Says how PSCI is called.
pub fn init(conduit: Conduit) {
    let code = match conduit {
        Conduit::Smc => SMC,
        Conduit::Hvc => HVC,
    };
    CONDUIT.store(code, Ordering::Relaxed);
}

/// Switches the machine off. Where that can't be done, or doesn't happen, this CPU sleeps for ever.
pub fn off() -> ! {
    console::drain();
    // Whatever firmware answers, there is nobody left to tell.
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        SMC => psci::system_off::<Smc>(),
        HVC => psci::system_off::<Hvc>(),
        _ => Ok(()),
    };
    loop {
        asm::wfi();
    }
}
