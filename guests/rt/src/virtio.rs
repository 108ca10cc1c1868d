//! Modern virtio functions (Virtio 1.2), polled: a source of entropy or a block device, one request at a time in a split
//! virtqueue.

use aarch64_cpu::asm::barrier;

use crate::area::Area;
use crate::edu::Direction;
use crate::pci::{CAPABILITIES, COMMAND_MASTER, COMMAND_MEMORY, Function, ID, Pci};
use crate::reason::Checked;
use crate::window::Window;
use crate::{check, reason, timer};

/// Vendor and device IDs (§4.1.2, §5).
const BLOCK: u32 = 0x1042_1af4;
const ENTROPY: u32 = 0x1044_1af4;

/// A virtio capability (§4.1.4): vendor-specific, its kind in bits 31:24.
const VENDOR_SPECIFIC: u32 = 0x09;
const KIND_COMMON: u32 = 1;
const KIND_NOTIFY: u32 = 2;
const KIND_DEVICE: u32 = 4;
/// More entries than a list without a loop has.
const MOST_CAPABILITIES: usize = 48;

/// Common configuration (§4.1.4.3).
const FEATURE_SELECT: u64 = 0x00;
const FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY: u64 = 0x1e;
const QUEUE_ADDRESSES: [u64; 3] = [0x20, 0x28, 0x30];
const COMMON_BYTES: u64 = 0x38;

/// Device status (§2.1).
const DRIVER: u8 = 1 << 0 | 1 << 1;
const FEATURES_OK: u8 = 1 << 3;
const DRIVER_OK: u8 = 1 << 2;
/// VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM, bits 32 and 33.
const FEATURES_HIGH: u32 = 0b11;

/// Descriptors of the queue.
const SIZE: u16 = 8;
/// The queue's parts in its page (§2.7), and the header and status of a block request (§5.2.6).
const DESCRIPTORS: u64 = 0x000;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;
const HEADER: u64 = 0x300;
const REQUEST_STATUS: u64 = 0x310;
/// Descriptor flags: another one follows, the device writes.
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// Of the available ring: no interrupts.
const NO_INTERRUPT: u16 = 1;

/// Pages a device's queue takes.
pub const RING_PAGES: u64 = 1;
/// Bytes of a block device's unit of addressing.
pub const SECTOR_BYTES: u64 = 512;
/// The most bytes one request moves.
pub const MOST_BYTES: u64 = 64 << 10;
/// Request types.
const BLOCK_IN: u32 = 0;
const BLOCK_OUT: u32 = 1;

const TIMEOUT_US: u64 = 5_000_000;

/// What the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Entropy,
    /// With so many sectors.
    Block(u64),
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Virtio {
    kind: Kind,
    ring: Window,
    doorbell: Window,
    /// Requests made so far.
    begun: u16,
}

impl Virtio {
    /// The first source of entropy, ready, with its queue in `ring`, a page; `None` where there is none.
    ///
    /// # Errors
    /// It can't be used.
    pub fn entropy(pci: &Pci, ring: Area) -> Checked<Option<Self>> {
        Self::find(pci, ENTROPY, ring)
    }

    /// The first block device; as [`Virtio::entropy`].
    ///
    /// # Errors
    /// It can't be used.
    pub fn block(pci: &Pci, ring: Area) -> Checked<Option<Self>> {
        Self::find(pci, BLOCK, ring)
    }

    fn find(pci: &Pci, ids: u32, ring: Area) -> Checked<Option<Self>> {
        let Some(function) = pci.functions().find(|f| pci.read32(*f, ID) == ids) else { return Ok(None) };
        let ring = Window::new(ring).ok_or_else(|| reason!("{ring} is this guest's own"))?;
        ring.fill(0);
        ring.write16(AVAILABLE, NO_INTERRUPT);
        pci.enable(function, COMMAND_MEMORY | COMMAND_MASTER);
        let common = structure(pci, function, KIND_COMMON, COMMON_BYTES)?.0;
        negotiate(&common)?;
        let doorbell = set_up_queue(pci, function, &common, &ring)?;
        common.write8(STATUS, DRIVER | FEATURES_OK | DRIVER_OK);
        let kind = if ids == BLOCK {
            Kind::Block(structure(pci, function, KIND_DEVICE, 8)?.0.read64(0))
        } else {
            Kind::Entropy
        };
        Ok(Some(Self { kind, ring, doorbell, begun: 0 }))
    }

    /// The bytes of a block device; 0 of another one.
    #[must_use]
    pub const fn drive_bytes(&self) -> u64 {
        match self.kind {
            Kind::Entropy => 0,
            Kind::Block(sectors) => sectors.saturating_mul(SECTOR_BYTES),
        }
    }

    /// Has `span` filled with random bytes, or some of it from the front.
    ///
    /// # Errors
    /// It is too long, or the guest's own.
    pub fn fill(&mut self, span: Area) -> Checked {
        self.begin(&[(self.check(span)?, DEVICE_WRITES)]);
        Ok(())
    }

    /// Moves `span`, whole sectors, between memory and the drive from byte `at` on.
    ///
    /// # Errors
    /// It isn't that, lies beyond the drive's end, or is the guest's own memory.
    pub fn transfer(&mut self, direction: Direction, at: u64, span: Area) -> Checked {
        let fits = at.checked_add(span.bytes()).is_some_and(|end| end <= self.drive_bytes());
        check!(
            fits && (at | span.bytes()).is_multiple_of(SECTOR_BYTES),
            "no transfer of {:#x} bytes at {at:#x} of the drive",
            span.bytes()
        )?;
        let (kind, flags) = match direction {
            Direction::ToMemory => (BLOCK_IN, DEVICE_WRITES),
            Direction::FromMemory => (BLOCK_OUT, 0),
        };
        self.ring.write32(HEADER, kind);
        self.ring.write64(HEADER + 8, at / SECTOR_BYTES);
        self.ring.write8(REQUEST_STATUS, u8::MAX);
        let own = |offset, bytes| Area::new(self.ring.start() + offset, bytes);
        let (header, status) =
            own(HEADER, 16).zip(own(REQUEST_STATUS, 1)).ok_or_else(|| reason!("the ring's page wraps"))?;
        self.begin(&[(header, 0), (self.check(span)?, flags), (status, DEVICE_WRITES)]);
        Ok(())
    }

    fn check(&self, span: Area) -> Checked<Area> {
        check!((1..=MOST_BYTES).contains(&span.bytes()), "a request of {:#x} bytes", span.bytes())?;
        check!(Window::new(span).is_some(), "a DMA over the guest's own image")?;
        Ok(span)
    }

    /// Makes a request of a chain of descriptors from the first on.
    fn begin(&mut self, chain: &[(Area, u16)]) {
        for (index, (span, flags)) in (0..).zip(chain) {
            let at = DESCRIPTORS + 16 * u64::from(index);
            let more = usize::from(index) + 1 < chain.len();
            self.ring.write64(at, span.start());
            // Bounded by `MOST_BYTES`.
            self.ring.write32(at + 8, span.bytes() as u32);
            self.ring.write16(at + 12, flags | if more { NEXT } else { 0 });
            self.ring.write16(at + 14, index + 1);
        }
        // Every request begins with descriptor 0.
        self.ring.write16(AVAILABLE + 4 + 2 * u64::from(self.begun % SIZE), 0);
        self.begun = self.begun.wrapping_add(1);
        barrier::dsb(barrier::SY);
        self.ring.write16(AVAILABLE + 2, self.begun);
        barrier::dsb(barrier::SY);
        self.doorbell.write16(0, 0);
    }

    /// How many bytes the device has written for the last request, once it has ended.
    ///
    /// # Errors
    /// It failed.
    pub fn poll(&self) -> Checked<Option<u64>> {
        if self.ring.read16(USED + 2) != self.begun {
            return Ok(None);
        }
        let last = u64::from(self.begun.wrapping_sub(1) % SIZE);
        let written = u64::from(self.ring.read32(USED + 4 + 8 * last + 4));
        let status = self.ring.read8(REQUEST_STATUS);
        let block = matches!(self.kind, Kind::Block(_));
        check!(!block || self.begun == 0 || status == 0, "a virtio request failed: status {status}")?;
        Ok(Some(written))
    }
}

/// The first structure of a kind: its first `bytes`, and the last word of its capability.
fn structure(pci: &Pci, function: Function, kind: u32, bytes: u64) -> Checked<(Window, u32)> {
    let mut at = u64::from(pci.read32(function, CAPABILITIES) & 0xfc);
    for _ in 0..MOST_CAPABILITIES {
        if at == 0 {
            break;
        }
        let header = pci.read32(function, at);
        if header & 0xff == VENDOR_SPECIFIC && header >> 24 == kind {
            let bar = u64::from(pci.read32(function, at + 4) & 0xff);
            let part = Area::new(pci.read32(function, at + 8).into(), bytes);
            let place = part.and_then(|part| pci.bar(function, bar, part)).and_then(Window::new);
            let place = place.ok_or_else(|| reason!("{function}: structure {kind} has no address"))?;
            return Ok((place, pci.read32(function, at + 16)));
        }
        at = u64::from(header >> 8 & 0xfc);
    }
    Err(reason!("{function}: no virtio structure of kind {kind}"))
}

/// Resets the device and accepts the two features that are needed, no others (§3.1.1).
fn negotiate(common: &Window) -> Checked {
    common.write8(STATUS, 0);
    let start = timer::now();
    while common.read8(STATUS) != 0 {
        check!(timer::us_since(start) < TIMEOUT_US, "a virtio device does not end its reset")?;
    }
    common.write8(STATUS, DRIVER);
    common.write32(FEATURE_SELECT, 1);
    let offered = common.read32(FEATURE);
    check!(offered & FEATURES_HIGH == FEATURES_HIGH, "virtio features {offered:#x} are too few")?;
    for (select, features) in [(0, 0), (1, FEATURES_HIGH)] {
        common.write32(DRIVER_FEATURE_SELECT, select);
        common.write32(DRIVER_FEATURE, features);
    }
    common.write8(STATUS, DRIVER | FEATURES_OK);
    check!(common.read8(STATUS) & FEATURES_OK != 0, "a virtio device refuses its features")
}

/// Puts queue 0 into `ring`; gives back its doorbell (§4.1.5.1).
fn set_up_queue(pci: &Pci, function: Function, common: &Window, ring: &Window) -> Checked<Window> {
    common.write16(QUEUE_SELECT, 0);
    let most = common.read16(QUEUE_SIZE);
    check!(most >= SIZE, "{function}: a virtqueue of {most}")?;
    common.write16(QUEUE_SIZE, SIZE);
    for (register, part) in QUEUE_ADDRESSES.into_iter().zip([DESCRIPTORS, AVAILABLE, USED]) {
        let address = ring.start() + part;
        common.write32(register, (address & 0xffff_ffff) as u32);
        common.write32(register + 4, (address >> 32) as u32);
    }
    common.write16(QUEUE_ENABLE, 1);
    let index = u64::from(common.read16(QUEUE_NOTIFY));
    let (first, multiplier) = structure(pci, function, KIND_NOTIFY, 2)?;
    let doorbell = Area::new(first.start() + index * u64::from(multiplier), 2).and_then(Window::new);
    doorbell.ok_or_else(|| reason!("{function}: the doorbell has no address"))
}
