//! Address windows BARs are placed in.

use alloc::vec::Vec;

use strandline::addr::{PAGE_BYTES, Pa};

/// A range of addresses that is handed out in naturally aligned pieces, the lowest free one first.
#[derive(Clone, Debug)]
pub struct Window {
    start: u64,
    bytes: u64,
    /// Start and bytes of each piece handed out, by address.
    taken: Vec<(u64, u64)>,
}

impl Window {
    /// The window of `bytes` from `start`; what would wrap is cut off.
    #[must_use]
    pub const fn new(start: u64, bytes: u64) -> Self {
        let room = u64::MAX - start;
        Self { start, bytes: if bytes < room { bytes } else { room }, taken: Vec::new() }
    }

    /// Takes `bytes`, a power of two, aligned to their number; `None` where no gap is large enough.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let mut candidate = self.start.checked_next_multiple_of(bytes)?;
        let mut index = 0;
        for (start, length) in &self.taken {
            if candidate.checked_add(bytes)? <= *start {
                break;
            }
            candidate = candidate.max(start + length).checked_next_multiple_of(bytes)?;
            index += 1;
        }
        if candidate.checked_add(bytes)? > self.start + self.bytes {
            return None;
        }
        self.taken.insert(index, (candidate, bytes));
        Some(candidate)
    }

    /// Gives back the piece that [`Window::take`] put at `start`; an address it never gave out is ignored.
    pub fn give_back(&mut self, start: u64) {
        self.taken.retain(|piece| piece.0 != start);
    }
}

/// A memory window of a PCI host bridge, as its `ranges` describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciWindow {
    /// Where the CPU finds it.
    pub cpu: Pa,
    /// Its address on the bus.
    pub pci: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A piece of a host bridge's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub cpu: Pa,
    pub pci: u64,
}

/// The memory windows of a PCI host bridge, with what is handed out of them.
#[derive(Clone, Debug)]
pub struct HostWindows {
    low: Option<Translated>,
    high: Option<Translated>,
}

#[derive(Clone, Debug)]
struct Translated {
    whole: PciWindow,
    pci: Window,
}

impl Translated {
    /// The window, unless it is so aligned that no page of the bus is a page of the CPU, or it wraps there.
    fn new(whole: PciWindow, bus_end: u64) -> Option<Self> {
        let end = whole.pci.checked_add(whole.bytes)?.min(bus_end);
        whole.cpu.checked_add(whole.bytes)?;
        if !whole.cpu.is_aligned(PAGE_BYTES) || !whole.pci.is_multiple_of(PAGE_BYTES) {
            return None;
        }
        Some(Self { whole, pci: Window::new(whole.pci, end.checked_sub(whole.pci)?) })
    }

    fn take(&mut self, bytes: u64) -> Option<Placed> {
        let pci = self.pci.take(bytes)?;
        Some(Placed { cpu: self.whole.cpu.offset(pci - self.whole.pci), pci })
    }
}

impl HostWindows {
    /// The windows below and above 4 GiB on the bus. One that no page can be mapped from (unaligned, or wrapping) is as
    /// good as none. Give `high` only where the CPU's output addresses and stage 2 reach it.
    #[must_use]
    pub fn new(low: Option<PciWindow>, high: Option<PciWindow>) -> Self {
        Self {
            low: low.and_then(|w| Translated::new(w, 1 << 32)),
            high: high.and_then(|w| Translated::new(w, u64::MAX)),
        }
    }

    /// Takes `bytes`, a power of two of at least a page, for a BAR of 32 or 64 bits: a 64-bit one comes out of the
    /// high window while there is room, so that the low one is left to those that need it.
    pub(super) fn take(&mut self, bytes: u64, sixty_four: bool) -> Option<Placed> {
        let high = self.high.as_mut().filter(|_| sixty_four).and_then(|w| w.take(bytes));
        high.or_else(|| self.low.as_mut()?.take(bytes))
    }

    pub(super) fn give_back(&mut self, pci: u64) {
        for window in [&mut self.low, &mut self.high].into_iter().flatten() {
            window.pci.give_back(pci);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_to_their_size_and_lie_apart() {
        let mut window = Window::new(0x1000_1000, 0x10_0000);
        assert_eq!(window.take(0x1000), Some(0x1000_1000));
        assert_eq!(window.take(0x1_0000), Some(0x1001_0000));
        assert_eq!(window.take(0x1000), Some(0x1000_2000));
        assert_eq!(window.take(0x2000), Some(0x1000_4000));
    }

    #[test]
    fn full_window_gives_nothing() {
        let mut window = Window::new(0x1000_0000, 0x2000);
        assert_eq!(window.take(0x4000), None);
        assert_eq!((window.take(0x1000), window.take(0x1000)), (Some(0x1000_0000), Some(0x1000_1000)));
        assert_eq!(window.take(0x1000), None);
    }

    #[test]
    fn what_is_given_back_is_handed_out_again() {
        let mut window = Window::new(0x1000_0000, 0x3000);
        let pieces = [window.take(0x1000), window.take(0x1000), window.take(0x1000)];
        window.give_back(pieces[1].unwrap());
        window.give_back(0xdead_0000);
        assert_eq!((window.take(0x1000), window.take(0x1000)), (Some(0x1000_1000), None));
    }

    #[test]
    fn sums_that_wrap_are_no_room() {
        let mut window = Window::new(u64::MAX - 0xfff, 0x4000);
        assert_eq!(window.take(0x1000), None);
        assert_eq!(Window::new(0x1000, 0x1000).take(1 << 63), None);
    }

    #[test]
    fn wide_bar_goes_high_and_falls_back_low() {
        let low = PciWindow { cpu: Pa(0x5000_0000), pci: 0x1000_0000, bytes: 0x10_0000 };
        let high = PciWindow { cpu: Pa(0x80_0000_0000), pci: 0x40_0000_0000, bytes: 0x1000 };
        let mut windows = HostWindows::new(Some(low), Some(high));
        let mut take = |sixty_four| windows.take(0x1000, sixty_four).map(|p| (p.cpu, p.pci));
        assert_eq!(take(false), Some((Pa(0x5000_0000), 0x1000_0000)));
        assert_eq!(take(true), Some((Pa(0x80_0000_0000), 0x40_0000_0000)));
        assert_eq!(take(true), Some((Pa(0x5000_1000), 0x1000_1000)));
    }

    #[test]
    fn narrow_bar_never_leaves_the_low_4_gib_of_the_bus() {
        let low = PciWindow { cpu: Pa(0x5000_0000), pci: 0xffff_f000, bytes: 0x10_0000 };
        let mut windows = HostWindows::new(Some(low), None);
        assert_eq!(windows.take(0x1000, false).map(|p| p.pci), Some(0xffff_f000));
        assert_eq!(windows.take(0x1000, false), None);
    }

    #[test]
    fn window_without_whole_pages_is_none() {
        let skewed = PciWindow { cpu: Pa(0x5000_0800), pci: 0x1000_0000, bytes: 0x10_0000 };
        assert_eq!(HostWindows::new(Some(skewed), None).take(0x1000, true), None);
        let wrapping = PciWindow { cpu: Pa(0x5000_0000), pci: 0xffff_ffff_ffff_0000, bytes: 0x10_0000 };
        assert_eq!(HostWindows::new(None, Some(wrapping)).take(0x1000, true), None);
    }
}
