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

/// The arguments of a call: x1 to x5.
pub type Arguments = [u64; 5];

/// What a call leaves in x0 to x4.
pub type Reply = [u64; 5];

/// What a call that did not fail answers: a status, and x1 to x3.
type Answer = Result<(Status, [u64; 3]), CallError>;

/// The function identifier in x0: w0, without the hint that no SVE state is live (bit 16, DEN 0028 §2.5), which
/// is not part of a call's number.
#[must_use]
pub const fn function_id(x0: u64) -> u32 {
    const SVE_HINT: u32 = 1 << 16;
    x0 as u32 & !SVE_HINT
}

/// Whether a call of this identifier is in the vendor-specific hypervisor range: fast (bit 31), of owner 6 (bits
/// 29:24), 32-bit or 64-bit (bit 30). Yielding calls have no owners (DEN 0028 §2.5).
const fn is_ours(id: u32) -> bool {
    id & 0xbf00_0000 == 0x8600_0000
}

/// Carries out the call with function identifier `id` (see [`function_id`]) for the VM that makes it; `None` where
/// `id` is not in the vendor-specific hypervisor range.
///
/// x4 is a result of few calls. Otherwise it is given back as it came: a caller of SMCCC 1.1 counts on it.
pub fn dispatch<P: Platform, D: DmaTlb>(
    platform: &P,
    vm: &Vm<'_, D>,
    id: u32,
    arguments: &Arguments,
) -> Option<Reply> {
    if !is_ours(id) {
        return None;
    }
    let [.., mut x4, _] = *arguments;
    let answer = match Call::from_id(id) {
        Some(Call::Uid) => {
            let [a, b, c, d] = UID_WORDS.map(u64::from);
            return Some([a, b, c, d, x4]);
        }
        Some(Call::Revision) => return Some([(VERSION >> 16).into(), (VERSION & 0xffff).into(), 0, 0, x4]),
        Some(call) => unused_are_zero(call, arguments).and_then(|()| match call {
            Call::Start => log::start(platform, vm, arguments),
            Call::Sync => log::sync(platform, vm, arguments),
            Call::Clear => log::clear(platform, vm, arguments),
            Call::Stop => log::stop(platform, vm, arguments),
            Call::Status => log::status(platform, vm, arguments),
            Call::Faults => log::faults(platform, vm, arguments),
            Call::Read => log::read(platform, vm, arguments),
            // UID and revision have been answered above.
            Call::Features | Call::Uid | Call::Revision => {
                let (values, tiers) = log::features(vm)?;
                x4 = tiers;
                Ok((Status::Done, values))
            }
        }),
        None => Err(CallError::unknown(id)),
    };
    Some(match answer {
        Ok((status, [x1, x2, x3])) => [status.to_x0(), x1, x2, x3, x4],
        Err(error) => [error.code.to_x0(), error.value, 0, 0, x4],
    })
}

/// Refuses what is in an argument register that `call` doesn't have: a later version may give it a meaning.
fn unused_are_zero(call: Call, arguments: &Arguments) -> Result<(), CallError> {
    let used = match call {
        Call::Start | Call::Sync | Call::Clear => [true; 5],
        Call::Stop => [false, false, false, false, true],
        Call::Status | Call::Faults => [true, true, false, false, false],
        Call::Read => [true, true, true, false, true],
        Call::Features | Call::Uid | Call::Revision => [false; 5],
    };
    let wrong = arguments.iter().zip(used).find(|(value, used)| !used && **value != 0);
    wrong.map_or(Ok(()), |(value, _)| Err(CallError::invalid(*value)))
}
