//! What one VM leaves in the registers of the CPU, and what the next one finds there.

use guest_rt::boot::Guest;
use guest_rt::reason::Checked;
use guest_rt::{check, println};

use crate::trial::{Bench, EL1H, THROUGH, mrs, msr};
use crate::undefined::{encodings, open_extensions};

/// Registers that make this program run: SCTLR_EL1, VBAR_EL1, TPIDR_EL1, PSTATE.DAIF and SPSel, CPACR_EL1.
const OWN: [[u32; 5]; 6] =
    [[3, 0, 1, 0, 0], [3, 0, 12, 0, 0], [3, 0, 13, 0, 4], [3, 3, 4, 2, 1], [3, 0, 4, 2, 0], [3, 0, 1, 0, 2]];

/// Whether a register counts by itself: counters and timers' distances, and random numbers.
fn moves([op0, op1, crn, crm, op2]: [u32; 5]) -> bool {
    match (op0, op1, crn) {
        (3, 3, 14) => crm == 0 || op2 == 0,
        (3, 3, 2) => crm == 4,
        _ => false,
    }
}

/// `marks`: tells every system register that can be read, then writes ones to all that can be written. VMs that run one
/// after the other have to tell the same.
pub fn tells_and_leaves_marks(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let bench = Bench::new(&mut free)?;
    open_extensions(&bench)?;
    let mut written = 0;
    for register in encodings(2).chain(encodings(3)).filter(|r| !moves(*r)) {
        let end = bench.run(&[mrs(register)], EL1H, [0; 4]);
        if end.esr == THROUGH {
            println!("mark S{register:?} = {:#x}", end.x[0]);
        }
    }
    for register in encodings(2).chain(encodings(3)).filter(|r| !OWN.contains(r)) {
        let before = bench.run(&[mrs(register)], EL1H, [0; 4]);
        if before.esr == THROUGH {
            let end = bench.run(&[msr(register), mrs(register)], EL1H, [u64::MAX, 0, 0, 0]);
            written += u32::from(end.esr == THROUGH && end.x[0] != before.x[0]);
        }
    }
    println!("marks are in {written} registers");
    check!(written > 20, "hardly any register could be written")
}
