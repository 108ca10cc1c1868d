//! A virtio block device that reads (Virtual I/O Device Version 1.2): one split queue, polled, every access translated.

use aarch64_cpu::asm::barrier;
use guest_rt::pci::{Function, ID, Pci};
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, reason, timer};

use crate::bench::{Bench, window};
use crate::in_flight::Reader;
use crate::stage2::PAGE;

/// A modern block device (§4.1.2).
const ID_BLOCK: u32 = 0x1042_1af4;
/// The BAR of QEMU's that all structures are in.
const BAR: u64 = 4;

// Capabilities that tell where the structures are (§4.1.4).
const CAPABILITIES: u64 = 0x34;
const CAPABILITY_VENDOR: u32 = 0x09;
const COMMON: u32 = 1;
const NOTIFY: u32 = 2;

// The common configuration (§4.1.4.3).
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const STATUS: u64 = 0x14;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESCRIPTORS: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM, as bits of the second word.
const FEATURES_HIGH: u32 = 0b11;
/// ACKNOWLEDGE and DRIVER, FEATURES_OK, DRIVER_OK.
const STATUS_DRIVER: u8 = 3;
const STATUS_FEATURES: u8 = 8;
const STATUS_READY: u8 = 4;

const ENTRIES: u16 = 16;
/// Descriptors of a request: header, data, status.
const CHAIN: u16 = 3;
const NEXT: u64 = 1 << 32;
const WRITE: u64 = 1 << 33;
/// Bytes a request's header and status take.
const REQUEST_BYTES: u64 = 32;
const HEADER_BYTES: u64 = 16;
const LIMIT_US: u64 = 10_000_000;

/// The device. Its queue and requests take the first 16 KiB of [`Bench::queues`].
pub struct VirtioBlock {
    notify: Window,
    descriptors: Window,
    driver: Window,
    device: Window,
    requests: Window,
    begun: u16,
    ended: u16,
}

/// Where structure `kind` is in the BAR.
fn structure(pci: &Pci, function: Function, kind: u32) -> Option<u64> {
    let mut at = u64::from(pci.read32(function, CAPABILITIES) & 0xfc);
    while at != 0 {
        let head = pci.read32(function, at);
        if head & 0xff == CAPABILITY_VENDOR && head >> 24 == kind {
            return Some(u64::from(pci.read32(function, at + 8)));
        }
        at = u64::from(head >> 8 & 0xfc);
    }
    None
}

impl VirtioBlock {
    /// Sets the device up.
    pub fn new(bench: &Bench) -> Checked<Self> {
        let (function, bar) = bench.device("virtio block", BAR, |pci, f| pci.read32(f, ID) == ID_BLOCK)?;
        let part = |kind| {
            let offset = structure(&bench.pci, function, kind);
            let offset = offset.ok_or_else(|| reason!("the virtio device has no structure {kind}"))?;
            window(bar.start() + offset, PAGE)
        };
        let page = |n| window(bench.queues.start() + n * PAGE, PAGE);
        let block = Self {
            notify: part(NOTIFY)?,
            descriptors: page(0)?,
            driver: page(1)?,
            device: page(2)?,
            requests: page(3)?,
            begun: 0,
            ended: 0,
        };
        block.enable(part(COMMON)?)?;
        Ok(block)
    }

    fn enable(&self, common: Window) -> Checked {
        common.write8(STATUS, STATUS_DRIVER);
        common.write32(DRIVER_FEATURE_SELECT, 1);
        common.write32(DRIVER_FEATURE, FEATURES_HIGH);
        common.write8(STATUS, STATUS_DRIVER | STATUS_FEATURES);
        let status = common.read8(STATUS);
        check!(status & STATUS_FEATURES != 0, "the virtio device refuses its features: status {status:#x}")?;
        common.write16(QUEUE_SIZE, ENTRIES);
        common.write64(QUEUE_DESCRIPTORS, self.descriptors.start());
        common.write64(QUEUE_DRIVER, self.driver.start());
        common.write64(QUEUE_DEVICE, self.device.start());
        common.write16(QUEUE_ENABLE, 1);
        common.write8(STATUS, STATUS_DRIVER | STATUS_FEATURES | STATUS_READY);
        Ok(())
    }

    fn describe(&self, index: u16, address: u64, length_and_flags: u64) {
        let slot = u64::from(index) * 16;
        self.descriptors.write64(slot, address);
        self.descriptors.write64(slot + 8, length_and_flags | u64::from(index + 1) << 48);
    }

    /// The requests one after another use a third of the descriptors each, so that five may be under way.
    fn slot(request: u16) -> u16 {
        request % (ENTRIES / CHAIN)
    }

    fn status_of(&self, request: u16) -> u8 {
        self.requests.read8(u64::from(Self::slot(request)) * REQUEST_BYTES + HEADER_BYTES)
    }
}

impl Reader for VirtioBlock {
    fn begin_read(&mut self, address: u64, pages: u64) {
        let slot = Self::slot(self.begun);
        let (first, request) = (slot * CHAIN, u64::from(slot) * REQUEST_BYTES);
        // VIRTIO_BLK_T_IN (0), of sector 0; a status that no device gives.
        self.requests.write64(request, 0);
        self.requests.write64(request + 8, 0);
        self.requests.write8(request + HEADER_BYTES, 0xff);
        let header = self.requests.start() + request;
        self.describe(first, header, NEXT | HEADER_BYTES);
        self.describe(first + 1, address, NEXT | WRITE | (pages * PAGE));
        self.describe(first + 2, header + HEADER_BYTES, WRITE | 1);
        self.driver.write16(4 + u64::from(self.begun % ENTRIES) * 2, first);
        self.begun += 1;
        barrier::dsb(barrier::SY);
        self.driver.write16(2, self.begun);
        barrier::dsb(barrier::SY);
        self.notify.write16(0, 0);
    }

    fn has_ended(&self) -> bool {
        self.device.read16(2) != self.ended
    }

    fn end_read(&mut self) -> Checked {
        let start = timer::now();
        while !self.has_ended() {
            check!(timer::us_since(start) < LIMIT_US, "a virtio request did not end")?;
        }
        let status = self.status_of(self.ended);
        self.ended += 1;
        check!(status == 0, "a virtio request ended with status {status:#x}")
    }
}
