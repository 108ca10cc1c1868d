//! The hypercalls of the vendor-specific hypervisor range: registers in, registers out.
//!
//! `docs/hypercalls.md` is the contract. Every argument is an allegation of the guest's: it is checked before
//! anything is changed, and an error leaves everything as it was.

mod error;
mod guest_memory;
mod log;
#[cfg(test)]
mod tests;

use strandline_abi::{Call, Status, UID_WORDS, VERSION};

pub use error::CallError;
pub use guest_memory::GuestBuffer;

use crate::hw::{DmaTlb, Platform};
use crate::vm::Vm;

/// The arguments of a call: x1 to x6.
pub type Arguments = [u64; 6];

/// What a call leaves in x0 to x4.
pub type Reply = [u64; 5];

/// What a call that did not fail answers: a status, and x1 to x4.
type Answer = Result<(Status, [u64; 4]), CallError>;

/// Carries out the call with function identifier `id` for the VM that makes it; `None` where `id` is not in the
/// vendor-specific hypervisor range.
pub fn dispatch<P: Platform, D: DmaTlb>(
    platform: &P,
    vm: &Vm<'_, D>,
    id: u32,
    arguments: &Arguments,
) -> Option<Reply> {
    // Bits 29:24 are the owner; bit 31 (fast) and bit 30 (64-bit) are part of a call's number (DEN 0028 §2.5).
    if id >> 24 & 0x3f != 6 {
        return None;
    }
    let answer = match Call::from_id(id) {
        Some(Call::Uid) => {
            let [a, b, c, d] = UID_WORDS.map(u64::from);
            return Some([a, b, c, d, 0]);
        }
        Some(Call::Revision) => return Some([(VERSION >> 16).into(), (VERSION & 0xffff).into(), 0, 0, 0]),
        Some(Call::Features) => log::features(vm),
        Some(Call::Start) => log::start(platform, vm, arguments),
        Some(Call::Sync) => log::sync(platform, vm, arguments),
        Some(Call::Clear) => log::clear(platform, vm, arguments),
        Some(Call::Stop) => log::stop(platform, vm, arguments),
        Some(Call::Status) => log::status(platform, vm, arguments),
        Some(Call::Faults) => log::faults(platform, vm, arguments),
        None => Err(CallError::unknown(id)),
    };
    Some(match answer {
        Ok((status, [x1, x2, x3, x4])) => [status.to_x0(), x1, x2, x3, x4],
        Err(error) => [error.code.to_x0(), error.value, 0, 0, 0],
    })
}
