//! A configuration space for tests: functions whose registers have writable bits, and a log of writes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::bdf::Bdf;
use super::config::ConfigSpace;

struct Function {
    words: [u32; 1024],
    writable: [u32; 1024],
    virtio: Option<Virtio>,
}

/// The common configuration of a virtio function, at the start of BAR 4.
struct Virtio {
    features: u64,
    select: u32,
    status: u32,
}

/// Its PCI configuration access capability.
const ACCESS: usize = 0x98;

impl Function {
    /// The register that the window of the PCI configuration access is on, and its bytes.
    fn window(&self, offset: u16) -> Option<(u32, u32)> {
        let inside = self.virtio.is_some() && usize::from(offset) == ACCESS + 16;
        let [bar, at, length] = [1, 2, 3].map(|word| self.words[ACCESS / 4 + word]);
        (inside && bar == 4 && matches!(length, 1 | 4)).then_some((at, length))
    }

    fn read_window(&self, at: (u32, u32)) -> u32 {
        let Some(virtio) = &self.virtio else { return u32::MAX };
        match at {
            (0x00, 4) => virtio.select,
            (0x04, 4) => virtio.features.checked_shr(virtio.select * 32).unwrap_or(0) as u32,
            _ => u32::MAX,
        }
    }

    fn write_window(&mut self, at: (u32, u32), value: u32) {
        let Some(virtio) = &mut self.virtio else { return };
        match at {
            (0x00, 4) => virtio.select = value,
            (0x14, 1) => virtio.status = value & 0xff,
            other => panic!("the register {other:x?} is not for EL2 to write"),
        }
    }
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

    /// Adds a modern virtio function that offers `features`, and that a driver has used: MSI-X at 0x40, the common
    /// configuration at 0x50, ISR at 0x60, a structure of a later kind at 0x70, notifications at 0x80, PCI configuration
    /// access at 0x98.
    pub fn add_virtio(&self, bdf: Bdf, features: u64) {
        self.add(bdf, 0x1044_1af4);
        self.set(bdf, 0x04, 0x0010_0000);
        self.set(bdf, 0x34, 0x40);
        self.set_bars(bdf, &[0, 0, 0, 0, 0xffff_c00c, 0xffff_ffff]);
        self.set(bdf, 0x40, 0x0001_5011);
        let words = [
            (0x50, [0x0110_6009, 4, 0x0000, 0x1000]),
            (0x60, [0x0310_7009, 4, 0x1000, 0x1000]),
            (0x70, [0x0810_8009, 4, 0x2000, 0x1000]),
            (0x80, [0x0214_9809, 4, 0x3000, 0x1000]),
        ];
        for (at, words) in words {
            (at..).step_by(4).zip(words).for_each(|(at, word)| self.set(bdf, at, word));
        }
        self.set(bdf, 0x90, 4);
        self.set(bdf, 0x98, 0x0514_0009);
        for offset in [0x9c, 0xa0, 0xa4] {
            self.register(bdf, offset, 0, u32::MAX);
        }
        let virtio = Virtio { features, select: 0, status: 0x0f };
        self.functions.borrow_mut().get_mut(&bdf).unwrap().virtio = Some(virtio);
    }

    /// The device status of a virtio function.
    pub fn virtio_status(&self, bdf: Bdf) -> u32 {
        self.functions.borrow()[&bdf].virtio.as_ref().unwrap().status
    }

    /// Adds a function with a type-0 header and the usual command bits.
    pub fn add(&self, bdf: Bdf, ids: u32) {
        let function = Function { words: [0; 1024], writable: [0; 1024], virtio: None };
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

    /// Sets a word, and which of its bits can be written.
    pub fn register(&self, bdf: Bdf, offset: u16, value: u32, writable: u32) {
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
        let functions = self.functions.borrow();
        let Some(function) = functions.get(&bdf) else { return u32::MAX };
        match function.window(offset) {
            Some(at) => function.read_window(at),
            None => function.words[usize::from(offset / 4)],
        }
    }

    fn write32(&self, bdf: Bdf, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < 4096, "no word at {offset:#x}");
        self.writes.borrow_mut().push((bdf, offset, value));
        if let Some(function) = self.functions.borrow_mut().get_mut(&bdf) {
            if let Some(at) = function.window(offset) {
                return function.write_window(at, value);
            }
            let (index, mask) = (usize::from(offset / 4), function.writable[usize::from(offset / 4)]);
            function.words[index] = function.words[index] & !mask | value & mask;
        }
    }
}
