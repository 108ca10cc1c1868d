//! The devices of the VM as sources of DMA: transfers of their own choice in a range, begun and ended one by one.

use guest_rt::area::Area;
use guest_rt::boot::Guest;
use guest_rt::edu::{BUFFER_BYTES, Direction, Edu};
use guest_rt::marks::pages_of;
use guest_rt::nvme::{self, Nvme};
use guest_rt::pci::Pci;
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::virtio::{self, Virtio};
use guest_rt::{check, println, reason, timer};
use strandline_abi::PAGE_BYTES;

/// Pages that the devices' queues take together.
pub const RING_PAGES: u64 = nvme::RING_PAGES + 2 * virtio::RING_PAGES;
/// The longest transfer: its pages are numbered by the bits of a word.
const MOST_BYTES: u64 = 128 << 10;
/// A transfer that doesn't end in this time never will. (A throttled drive takes its time.)
const TIMEOUT_US: u64 = 20_000_000;
/// Kinds of devices.
const MOST: usize = 4;

/// A device.
enum Device {
    Edu(Edu),
    Nvme(Nvme),
    Entropy(Virtio),
    Block(Virtio),
}

impl Device {
    const fn name(&self) -> &'static str {
        match self {
            Self::Edu(_) => "edu",
            Self::Nvme(nvme) if nvme.drive_bytes() == 0 => "nvme without a drive",
            Self::Nvme(_) => "nvme",
            Self::Entropy(_) => "virtio-rng",
            Self::Block(_) => "virtio-blk",
        }
    }

    /// Whether a drive's speed is what its transfers take.
    const fn is_drive(&self) -> bool {
        match self {
            Self::Edu(_) | Self::Entropy(_) => false,
            Self::Nvme(nvme) => nvme.drive_bytes() != 0,
            Self::Block(_) => true,
        }
    }

    /// Begins a transfer of `span` or, of what can't be so long, so short or so odd, of its front; gives back of what.
    fn begin(&mut self, direction: Direction, span: Area, rng: &mut Rng) -> Checked<(Direction, Area)> {
        let front = |bytes| Area::new(span.start(), bytes).ok_or_else(|| reason!("{span} wraps"));
        let to_memory = Direction::ToMemory;
        match self {
            Self::Edu(edu) => {
                let span = front(span.bytes().min(BUFFER_BYTES))?;
                edu.begin(direction, span.start(), span.bytes())?;
                Ok((direction, span))
            }
            Self::Nvme(nvme) if nvme.drive_bytes() == 0 || rng.below(8) == 0 => {
                let span = front(PAGE_BYTES)?;
                nvme.identify(span)?;
                Ok((to_memory, span))
            }
            Self::Nvme(nvme) => {
                let span = front(span.bytes().min(nvme::MOST_BYTES).next_multiple_of(PAGE_BYTES))?;
                nvme.transfer(direction, place(rng, nvme.drive_bytes(), span)?, span)?;
                Ok((direction, span))
            }
            Self::Entropy(device) => {
                let span = front(span.bytes().min(virtio::MOST_BYTES))?;
                device.fill(span)?;
                Ok((to_memory, span))
            }
            Self::Block(device) => {
                let span =
                    front(span.bytes().min(virtio::MOST_BYTES).next_multiple_of(virtio::SECTOR_BYTES))?;
                device.transfer(direction, place(rng, device.drive_bytes(), span)?, span)?;
                Ok((direction, span))
            }
        }
    }

    /// Whether it is idle, and how many bytes of its last transfer of `span` were made.
    fn poll(&mut self, span: Area) -> Checked<Option<u64>> {
        match self {
            Self::Edu(edu) => Ok((!edu.is_busy()).then_some(span.bytes())),
            Self::Nvme(nvme) => Ok(nvme.poll()?.then_some(span.bytes())),
            Self::Entropy(device) => device.poll(),
            Self::Block(device) => Ok(device.poll()?.map(|_| span.bytes())),
        }
    }
}

/// A page of the drive from which all of `span` fits.
fn place(rng: &mut Rng, drive: u64, span: Area) -> Checked<u64> {
    let room =
        drive.checked_sub(span.bytes()).ok_or_else(|| reason!("a drive of {drive} bytes is too small"))?;
    Ok(rng.below(room / PAGE_BYTES + 1) * PAGE_BYTES)
}

/// A transfer on its way, or ended.
#[derive(Clone, Copy)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// Where in memory.
    pub span: Area,
    /// Of its pages in turn, those that a sync has reported while it was on its way.
    pub reported: u64,
}

impl Transfer {
    /// The pages it writes, as numbers in `range`; none of a transfer from memory.
    pub fn written(&self, range: Area) -> impl Iterator<Item = u64> + use<> {
        let writes = self.direction == Direction::ToMemory;
        pages_of(range, self.span).filter(move |_| writes)
    }
}

/// A device and what it does.
struct Source {
    device: Device,
    /// What it may write to.
    range: Area,
    now: Option<Transfer>,
    writes: u64,
    reads: u64,
    /// Transfers that were on their way before and after a sync, once for each sync.
    across: u64,
}

/// All devices of the VM that can be used.
pub struct Sources {
    list: [Option<Source>; MOST],
    rng: Rng,
}

impl Sources {
    /// The devices, each with a part of `range` to itself, their queues in `rings`, [`RING_PAGES`] long.
    pub fn new(guest: &Guest, rings: Area, range: Area, seed: u64) -> Checked<Self> {
        let pci = Pci::of(guest)?.ok_or_else(|| reason!("the VM owns no PCI device"))?;
        let ring = |first, pages| rings.part(first, pages).ok_or_else(|| reason!("no room for queues"));
        let edu = Edu::find(&pci).ok().map(Device::Edu);
        let nvme = Nvme::find(&pci, ring(0, nvme::RING_PAGES)?)?.map(Device::Nvme);
        let entropy = Virtio::entropy(&pci, ring(nvme::RING_PAGES, 1)?)?.map(Device::Entropy);
        let block = Virtio::block(&pci, ring(nvme::RING_PAGES + 1, 1)?)?.map(Device::Block);
        let part = range.pages() / MOST as u64;
        let mut first = 0;
        let list = [edu, nvme, entropy, block].map(|device| {
            let range = range.part(first, part)?;
            first += part;
            device.map(|device| Source { device, range, now: None, writes: 0, reads: 0, across: 0 })
        });
        let sources = Self { list, rng: Rng::new(seed) };
        check!(sources.each().next().is_some(), "the VM owns no device that can do DMA")?;
        Ok(sources)
    }

    fn each(&self) -> impl Iterator<Item = &Source> {
        self.list.iter().flatten()
    }

    /// How many devices there are.
    pub fn count(&self) -> u64 {
        self.each().count() as u64
    }

    /// Has every idle device begin a transfer; `begun` is told of each.
    pub fn begin(&mut self, mut begun: impl FnMut(&Transfer)) -> Checked {
        for source in self.list.iter_mut().flatten().filter(|source| source.now.is_none()) {
            let rng = &mut self.rng;
            // One in four reads memory, which nobody may take for a write.
            let direction = if rng.below(4) == 0 { Direction::FromMemory } else { Direction::ToMemory };
            let bytes =
                if rng.below(4) == 0 { 1 + rng.below(MOST_BYTES) } else { 512 + rng.below(PAGE_BYTES) };
            // Rounded up to pages by a device, it still ends in the range.
            let longest = bytes.next_multiple_of(PAGE_BYTES);
            // Anywhere at a multiple of 8, or at a page's start: whole pages, and ones that lie across two.
            let offset =
                rng.below(source.range.bytes() - longest) & if rng.below(3) == 0 { !0xfff } else { !7 };
            let span = Area::new(source.range.start() + offset, bytes);
            let span = span.ok_or_else(|| reason!("a transfer that wraps"))?;
            let (direction, span) = source.device.begin(direction, span, rng)?;
            check!(source.range.covers(span), "{} beyond its part", source.device.name())?;
            if direction == Direction::ToMemory {
                source.writes += 1;
            } else {
                source.reads += 1;
            }
            let transfer = Transfer { direction, span, reported: 0 };
            begun(&transfer);
            source.now = Some(transfer);
        }
        Ok(())
    }

    /// Tells `ended` of each transfer that has ended since.
    pub fn poll(&mut self, mut ended: impl FnMut(&Transfer)) -> Checked {
        for source in self.list.iter_mut().flatten() {
            let Some(mut transfer) = source.now else { continue };
            let made =
                source.device.poll(transfer.span).map_err(|e| reason!("{}: {e}", source.device.name()))?;
            let Some(made) = made else { continue };
            // A source of entropy may give less than was asked for.
            transfer.span = Area::new(transfer.span.start(), made).unwrap_or(transfer.span);
            ended(&transfer);
            source.now = None;
        }
        Ok(())
    }

    /// Polls right after a sync: what has not ended was on its way across it.
    pub fn poll_after_sync(&mut self, ended: impl FnMut(&Transfer)) -> Checked {
        self.poll(ended)?;
        for source in self.list.iter_mut().flatten().filter(|source| source.now.is_some()) {
            source.across += 1;
        }
        Ok(())
    }

    /// How often a drive's transfer was on its way across a sync.
    pub fn drives_across(&self) -> u64 {
        self.each().filter(|source| source.device.is_drive()).map(|source| source.across).sum()
    }

    /// Waits until no transfer is on its way.
    pub fn finish(&mut self, mut ended: impl FnMut(&Transfer)) -> Checked {
        let start = timer::now();
        while self.in_flight() != 0 {
            self.poll(&mut ended)?;
            check!(timer::us_since(start) < TIMEOUT_US, "a transfer does not end")?;
        }
        Ok(())
    }

    /// How many transfers are on their way.
    pub fn in_flight(&self) -> u64 {
        self.each().filter(|source| source.now.is_some()).count() as u64
    }

    /// Those transfers.
    pub fn on_their_way(&mut self) -> impl Iterator<Item = &mut Transfer> {
        self.list.iter_mut().flatten().filter_map(|source| source.now.as_mut())
    }

    /// Prints what each device has done.
    pub fn tell(&self) {
        for source in self.each() {
            let (name, across) = (source.device.name(), source.across);
            println!("{name}: {} transfers to memory, {} from it", source.writes, source.reads);
            println!("{name}: {across} times one was on its way across a sync");
        }
    }
}
