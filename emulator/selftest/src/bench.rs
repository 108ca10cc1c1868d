//! The machine laid out for the cases: which memory is what, who maps it, and the devices' registers assigned.

use guest_rt::area::Area;
use guest_rt::boot::Guest;
use guest_rt::edu;
use guest_rt::pci::{BAR0, COMMAND_MASTER, COMMAND_MEMORY, Function, ID, Pci};
use guest_rt::reason;
use guest_rt::reason::{Checked, Reason};
use guest_rt::tree::PciHost;
use guest_rt::window::Window;

use crate::edu::Edu;
use crate::smmu::Smmu;
use crate::stage2::{BLOCK, GIBIBYTE, Leaf, PAGE, Slot, table};

/// The SMMU of QEMU's `virt`, both register pages.
const SMMU_REGISTERS: u64 = 0x0905_0000;
const SMMU_REGISTER_BYTES: u64 = 0x2_0000;

/// Where the SMMU's structures and the tables are, in the first block of the free memory.
const STREAMS: (u64, u64) = (0x0, 0x4000);
const COMMANDS: (u64, u64) = (0x4000, 0x1000);
const RECORDS: (u64, u64) = (0x6000, 0x2000);
const LEVEL1: (u64, u64) = (0x8000, 0x1000);
const LEVEL2: (u64, u64) = (0x9000, 0x1000);
const LEVEL3: (u64, u64) = (0xa000, 0x1000);
/// What is left of that block is for drivers' queues.
const QUEUES: (u64, u64) = (0x1_0000, BLOCK - 0x1_0000);
/// The next two are what devices write to, and so is a whole gibibyte under another address.
const PAGES: u64 = BLOCK;
const BLOCK_AT: u64 = 2 * BLOCK;
const TOTAL: u64 = 3 * BLOCK;
const ALIAS: u64 = 0x20_0000_0000;
/// Bytes of address space every function gets for one BAR.
const BAR_BYTES: u64 = 0x20_0000;

/// Everything a case uses.
#[derive(Clone, Copy)]
pub struct Bench {
    /// The SMMU; its streams have no valid STE until [`Bench::translate`].
    pub smmu: Smmu,
    /// 2 MiB that pages map, at their own addresses.
    pub pages: Window,
    /// 2 MiB that a block maps, at their own addresses.
    pub block: Window,
    /// Memory for the queues of drivers, which devices may always read and write.
    pub queues: Window,
    /// The PCI config space.
    pub pci: Pci,
    host: PciHost,
    level1: Window,
    level2: Window,
    level3: Window,
}

/// The window onto `bytes` from `start`.
pub fn window(start: u64, bytes: u64) -> Checked<Window> {
    Area::new(start, bytes)
        .and_then(Window::new)
        .ok_or_else(|| reason!("{bytes:#x} bytes from {start:#x} are not free"))
}

impl Bench {
    /// Lays everything out in the largest free part of memory, and enables the SMMU.
    pub fn new(guest: &Guest) -> Checked<Self> {
        let host = guest.tree.pci()?.ok_or_else(|| reason!("there is no PCI host bridge"))?;
        let pci = Pci::new(host).ok_or_else(|| reason!("the PCI config space can't be used"))?;
        let base = guest.free.start().next_multiple_of(BLOCK);
        if base + TOTAL > guest.free.end() {
            return Err(reason!("{} is too small", guest.free));
        }
        let part = |(offset, bytes)| window(base + offset, bytes);
        window(base, TOTAL)?.fill(0);
        let bench = Self {
            smmu: Smmu::enable(
                window(SMMU_REGISTERS, SMMU_REGISTER_BYTES)?,
                part(STREAMS)?,
                part(COMMANDS)?,
                part(RECORDS)?,
            )?,
            pages: part((PAGES, BLOCK))?,
            block: part((BLOCK_AT, BLOCK))?,
            queues: part(QUEUES)?,
            pci,
            host,
            level1: part(LEVEL1)?,
            level2: part(LEVEL2)?,
            level3: part(LEVEL3)?,
        };
        bench.map(base);
        Ok(bench)
    }

    /// Maps the queues for ever, and nothing that the cases look at.
    fn map(&self, base: u64) {
        Slot::of(self.level1, base, GIBIBYTE).set(table(self.level2.start()));
        Slot::of(self.level2, base, BLOCK).set(Leaf::Dirty.block(base));
        Slot::of(self.level2, self.pages.start(), BLOCK).set(table(self.level3.start()));
    }

    /// Sends all devices through the tables, with these STE flags.
    pub fn translate(&self, flags: u64) -> Checked {
        self.smmu.translate(self.level1.start(), flags)
    }

    /// The same behind the stage 1 of the Context Descriptor at `cd`.
    pub fn translate_twice(&self, cd: u64, flags: u64) -> Checked {
        self.smmu.translate_twice(cd, self.level1.start(), flags)
    }

    /// The address of page `index` of [`Bench::pages`], and its descriptor.
    #[must_use]
    pub fn page(&self, index: u64) -> (u64, Slot) {
        let address = self.pages.start() + index * PAGE;
        (address, Slot::of(self.level3, address, PAGE))
    }

    /// The descriptor of [`Bench::block`].
    #[must_use]
    pub fn block_slot(&self) -> Slot {
        Slot::of(self.level2, self.block.start(), BLOCK)
    }

    /// The alias of `address` under the gibibyte block, that block's descriptor, and what it maps.
    #[must_use]
    pub fn gibibyte(&self, address: u64) -> (u64, Slot, u64) {
        let alias = ALIAS + address % GIBIBYTE;
        (alias, Slot::of(self.level1, alias, GIBIBYTE), address / GIBIBYTE * GIBIBYTE)
    }

    /// Makes page `index` map itself as `leaf`, with no translation of it cached.
    pub fn set_page(&self, index: u64, leaf: Leaf) -> Checked {
        let (address, slot) = self.page(index);
        slot.set(leaf.page(address));
        self.smmu.forget(address)?;
        self.smmu.sync()
    }

    /// The edu device.
    pub fn edu(&self) -> Checked<Edu> {
        let (function, registers) =
            self.device("edu", 0, |pci, function| pci.read32(function, ID) == edu::VENDOR_DEVICE)?;
        Ok(Edu::new(edu::Edu::new(function, registers)))
    }

    /// The first function that `is` one of the kind named, enabled as a bus master, and what its BAR `index` decodes.
    pub fn device(
        &self,
        name: &str,
        index: u64,
        is: impl Fn(&Pci, Function) -> bool,
    ) -> Checked<(Function, Window)> {
        let absent = || -> Reason { reason!("there is no {name} device") };
        let function = self.pci.functions().find(|f| is(&self.pci, *f)).ok_or_else(absent)?;
        let offset = u64::from(function.0 >> 3) * BAR_BYTES;
        let bus = u32::try_from(self.host.memory.bus + offset).map_err(|_| absent())?;
        let bar = BAR0 + 4 * index;
        self.pci.write32(function, bar, bus);
        // The upper half of a 64-bit BAR; the next BAR of a device with a 32-bit one, which is not used.
        self.pci.write32(function, bar + 4, 0);
        self.pci.enable(function, COMMAND_MEMORY | COMMAND_MASTER);
        Ok((function, window(self.host.memory.cpu.start() + offset, BAR_BYTES)?))
    }
}
