//! A configuration space for tests: functions whose registers have writable bits, and a log of writes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::bdf::Bdf;
use super::config::ConfigSpace;

struct Function {
    words: [u32; 1024],
    writable: [u32; 1024],
}

#[derive(Default)]
pub struct FakeHost {
    functions: RefCell<BTreeMap<Bdf, Function>>,
    writes: RefCell<Vec<(Bdf, u16, u32)>>,
}

pub fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

impl FakeHost {
    /// A machine with a device as QEMU's `edu` is: BAR0 of 1 MiB, 32-bit, and MSI at 0x40.
    pub fn with_edu() -> (Self, Bdf) {
        let (host, edu) = (Self::default(), bdf("00:01.0"));
        host.add_edu(edu);
        (host, edu)
    }

    pub fn add_edu(&self, edu: Bdf) {
        self.add(edu, 0x11e8_1234);
        self.set(edu, 0x04, 0x0010_0000);
        self.set(edu, 0x08, 0x00ff_0010);
        self.set(edu, 0x2c, 0x1100_1af4);
        self.set(edu, 0x34, 0x40);
        self.set(edu, 0x3c, 0x0000_0100);
        self.set_bars(edu, &[0xfff0_0000]);
        // MSI, 64-bit, switched on by firmware; no further capability.
        self.register(edu, 0x40, 0x0081_0005, 0x0071_0000);
    }

    /// A machine with a PCI Express device: BAR0 of 16 KiB, 64-bit; MSI-X at 0x50, PCI Express with reset at 0x80; ATS
    /// at 0x100, page requests at 0x140, PASID at 0x180, SR-IOV at 0x1c0, all switched on.
    pub fn with_nvme() -> (Self, Bdf) {
        let (host, nvme) = (Self::default(), bdf("00:02.0"));
        host.add(nvme, 0x0010_1b36);
        host.set(nvme, 0x04, 0x0010_0000);
        host.set(nvme, 0x08, 0x0108_0202);
        host.set(nvme, 0x34, 0x50);
        host.set_bars(nvme, &[0xffff_c004, 0xffff_ffff]);
        host.register(nvme, 0x50, 0x8040_8011, 0xc000_0000);
        host.set(nvme, 0x80, 0x0002_0010);
        host.set(nvme, 0x84, 0x1000_8fc0);
        host.register(nvme, 0x88, 0x0000_2a10, 0x0000_ffff);
        host.set(nvme, 0x100, 0x1401_000f);
        host.register(nvme, 0x104, 0x8000_0020, 0x801f_0000);
        host.set(nvme, 0x140, 0x1801_0013);
        host.register(nvme, 0x144, 0x0100_0001, 0x0000_0003);
        host.set(nvme, 0x180, 0x1c01_001b);
        host.register(nvme, 0x184, 0x0001_1404, 0x0007_0000);
        host.set(nvme, 0x1c0, 0x0001_0010);
        host.register(nvme, 0x1c8, 0x0000_0009, 0x0000_001f);
        (host, nvme)
    }

    /// A machine with a device whose BARs read `masks` after all ones were written.
    pub fn with_bars(masks: &[u32]) -> (Self, Bdf) {
        let (host, device) = (Self::default(), bdf("00:03.0"));
        host.add(device, 0x5678_1234);
        host.set_bars(device, masks);
        (host, device)
    }

    /// Adds a function with a type-0 header and the usual command bits.
    pub fn add(&self, bdf: Bdf, ids: u32) {
        let function = Function { words: [0; 1024], writable: [0; 1024] };
        self.functions.borrow_mut().insert(bdf, function);
        self.set(bdf, 0x00, ids);
        self.register(bdf, 0x04, 0, 0x0547);
    }

    fn set_bars(&self, bdf: Bdf, masks: &[u32]) {
        let mut high = false;
        for (offset, mask) in (0x10..).step_by(4).zip(masks) {
            let fixed = if high { 0 } else { mask & 0xf };
            self.register(bdf, offset, fixed, mask & !fixed);
            high = !high && mask & 7 == 4;
        }
    }

    fn register(&self, bdf: Bdf, offset: u16, value: u32, writable: u32) {
        self.set(bdf, offset, value);
        let mut functions = self.functions.borrow_mut();
        functions.get_mut(&bdf).unwrap().writable[usize::from(offset / 4)] = writable;
    }

    /// Sets a word as the function itself does: it is not in the log.
    pub fn set(&self, bdf: Bdf, offset: u16, value: u32) {
        let mut functions = self.functions.borrow_mut();
        functions.get_mut(&bdf).unwrap().words[usize::from(offset / 4)] = value;
    }

    /// What was written to a word, in order.
    pub fn written(&self, bdf: Bdf, offset: u16) -> Vec<u32> {
        let writes = self.writes.borrow();
        writes.iter().filter(|w| (w.0, w.1) == (bdf, offset)).map(|w| w.2).collect()
    }

    /// All writes so far, in order; the log is empty then.
    pub fn take_writes(&self) -> Vec<(Bdf, u16, u32)> {
        self.writes.take()
    }
}

impl ConfigSpace for FakeHost {
    fn read32(&self, bdf: Bdf, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4) && offset < 4096, "no word at {offset:#x}");
        self.functions.borrow().get(&bdf).map_or(u32::MAX, |f| f.words[usize::from(offset / 4)])
    }

    fn write32(&self, bdf: Bdf, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < 4096, "no word at {offset:#x}");
        self.writes.borrow_mut().push((bdf, offset, value));
        if let Some(function) = self.functions.borrow_mut().get_mut(&bdf) {
            let (index, mask) = (usize::from(offset / 4), function.writable[usize::from(offset / 4)]);
            function.words[index] = function.words[index] & !mask | value & mask;
        }
    }
}
