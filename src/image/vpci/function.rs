//! Making a physical function quiet.

use super::bdf::Bdf;
use super::capability::{PciExpress, switch_off};
use super::config::{COMMAND_INTX_DISABLE, COMMAND_STATUS, ConfigSpace, IDS};

/// What became of a function that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It was reset.
    Done,
    /// It doesn't offer a function level reset: it is quiet, but keeps what its VM left in it.
    NotOffered,
}

/// How long a function is given to end its own requests before a reset, in steps of [`PENDING_STEP_US`].
const PENDING_STEPS: u32 = 100;
const PENDING_STEP_US: u64 = 1000;
/// How long a function is left alone after a reset was begun (PCI Express Base Specification, 'Function Level Reset').
const RESET_US: u64 = 100_000;

/// Whether there is a function.
pub(super) fn is_present(host: &impl ConfigSpace, bdf: Bdf) -> bool {
    host.read32(bdf, IDS) & 0xffff != 0xffff
}

/// Ends decode, bus mastering and INTx.
pub(super) fn disable(host: &impl ConfigSpace, bdf: Bdf) {
    host.write32(bdf, COMMAND_STATUS, COMMAND_INTX_DISABLE);
}

/// Makes a function quiet: no decode, no transactions of its own, and resets it where it can be reset alone. `wait_us`
/// waits for so many microseconds; it is called a bounded number of times.
///
/// Called when a VM ends, and before another gets the function. What the function had begun to write may still be on
/// its way when it has no reset: the stream aborts before this is called.
pub fn quiesce(host: &impl ConfigSpace, bdf: Bdf, mut wait_us: impl FnMut(u64)) -> Reset {
    disable(host, bdf);
    switch_off(host, bdf);
    let Some(express) = PciExpress::of(host, bdf).filter(|e| e.can_reset(host)) else {
        return Reset::NotOffered;
    };
    for _ in 0..PENDING_STEPS {
        if !express.is_pending(host) {
            break;
        }
        wait_us(PENDING_STEP_US);
    }
    express.reset(host);
    wait_us(RESET_US);
    disable(host, bdf);
    Reset::Done
}

/// Takes every function of `bus` out of the hands of firmware: decode and bus mastering off, bridges included, so that
/// no BAR a VM gets later meets one that firmware placed.
pub fn silence_bus(host: &impl ConfigSpace, bus: u8) {
    // A requester ID is the bus, and the number of the function on it.
    for number in 0..=u8::MAX {
        let bdf = Bdf::from_requester_id(u16::from_be_bytes([bus, number]));
        if is_present(host, bdf) {
            disable(host, bdf);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::super::fake::FakeHost;
    use super::*;

    fn waits(host: &FakeHost, bdf: Bdf) -> (Reset, Vec<u64>) {
        let mut waits = Vec::new();
        let reset = quiesce(host, bdf, |us| waits.push(us));
        (reset, waits)
    }

    #[test]
    fn quiesced_function_neither_decodes_nor_masters() {
        let (host, edu) = FakeHost::with_edu();
        host.write32(edu, 0x04, 0x0006);
        assert_eq!(waits(&host, edu), (Reset::NotOffered, Vec::new()));
        assert_eq!(host.read32(edu, 0x04) & 0xffff, 0x0400);
    }

    #[test]
    fn function_that_can_be_reset_is_reset_after_its_requests_ended() {
        let (host, nvme) = FakeHost::with_nvme();
        host.set(nvme, 0x88, 0x0020_0000);
        let mut left = 2;
        let reset = quiesce(&host, nvme, |us| {
            if us == 1000 {
                assert!(
                    host.written(nvme, 0x88).iter().all(|word| word & 0x8000 == 0),
                    "not reset while pending"
                );
                left -= 1;
            }
            if left == 0 {
                host.set(nvme, 0x88, 0);
            }
        });
        assert_eq!((reset, left), (Reset::Done, 0));
        assert_eq!(host.written(nvme, 0x88).last(), Some(&0x8000));
        assert_eq!(host.written(nvme, 0x04), [0x0400, 0x0400]);
    }

    #[test]
    fn wait_for_pending_requests_is_bounded() {
        let (host, nvme) = FakeHost::with_nvme();
        host.set(nvme, 0x88, 0x0020_0000);
        let (reset, waits) = waits(&host, nvme);
        assert_eq!((reset, waits.len()), (Reset::Done, 101));
        assert_eq!(waits.last(), Some(&100_000));
    }

    #[test]
    fn silencing_a_bus_reaches_every_function_and_no_other_bus() {
        let (host, edu) = FakeHost::with_edu();
        let last = Bdf::new(0, 31, 7).unwrap();
        let behind = Bdf::new(1, 0, 0).unwrap();
        for bdf in [last, behind] {
            host.add(bdf, 0x5678_1234);
        }
        silence_bus(&host, 0);
        assert_eq!(
            (host.written(edu, 0x04), host.written(last, 0x04)),
            (Vec::from([0x0400]), Vec::from([0x0400]))
        );
        assert!(host.written(behind, 0x04).is_empty());
    }
}
