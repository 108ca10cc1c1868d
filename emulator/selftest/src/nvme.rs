//! An NVMe controller that reads (NVM Express Base Specification 2.0): one I/O queue, polled.

use aarch64_cpu::asm::barrier;
use guest_rt::pci::CLASS;
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, timer};

use crate::bench::{Bench, window};
use crate::stage2::PAGE;

/// Class code 01 08 02, in CLASS bits 31:8.
const CLASS_NVME: u32 = 0x01_0802;

const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

/// EN, IOSQES = 2^6, IOCQES = 2^4.
const CC_ENABLE: u32 = 4 << 20 | 6 << 16 | 1;
const CSTS_READY: u32 = 1;

const CREATE_SQ: u64 = 0x01;
const READ: u64 = 0x02;
const CREATE_CQ: u64 = 0x05;

const ENTRIES: u32 = 16;
const SQ_ENTRY_BYTES: u64 = 64;
const CQ_ENTRY_BYTES: u64 = 16;
const SECTOR: u64 = 512;
const LIMIT_US: u64 = 10_000_000;

/// A submission queue and its completion queue, 4 KiB each.
struct Queue {
    id: u64,
    submissions: Window,
    completions: Window,
    submitted: u32,
    completed: u32,
}

/// The controller. Its queues take the first 16 KiB of [`Bench::queues`], the lists of pages what follows.
pub struct Nvme {
    registers: Window,
    admin: Queue,
    io: Queue,
    lists: Window,
}

impl Queue {
    fn new(id: u64, memory: Window, index: u64) -> Checked<Self> {
        let part = |n| window(memory.start() + (2 * index + n) * PAGE, PAGE);
        Ok(Self { id, submissions: part(0)?, completions: part(1)?, submitted: 0, completed: 0 })
    }

    fn submit(&mut self, registers: Window, words: [u64; 8]) {
        let slot = u64::from(self.submitted % ENTRIES) * SQ_ENTRY_BYTES;
        for (word, offset) in words.into_iter().zip((0..).step_by(8)) {
            self.submissions.write64(slot + offset, word);
        }
        self.submitted += 1;
        barrier::dsb(barrier::SY);
        registers.write32(DOORBELLS + self.id * 8, self.submitted % ENTRIES);
    }

    /// Whether the next command has ended. The phase tag of an entry is 1 in every first round, 0 in every second.
    fn has_ended(&self) -> bool {
        let round = self.completed / ENTRIES;
        self.status() >> 16 & 1 != round & 1
    }

    /// Command identifier (15:0), phase tag (16), status (31:17) of the next entry.
    fn status(&self) -> u32 {
        self.completions.read32(u64::from(self.completed % ENTRIES) * CQ_ENTRY_BYTES + 12)
    }

    fn wait(&mut self, registers: Window) -> Checked {
        let start = timer::now();
        while !self.has_ended() {
            check!(timer::us_since(start) < LIMIT_US, "an NVMe command did not end")?;
        }
        let status = self.status() >> 17;
        self.completed += 1;
        registers.write32(DOORBELLS + self.id * 8 + 4, self.completed % ENTRIES);
        check!(status == 0, "an NVMe command ended with status {status:#x}")
    }
}

impl Nvme {
    /// Enables the controller.
    pub fn new(bench: &Bench) -> Checked<Self> {
        let registers =
            bench.device("nvme", |pci, function| pci.read32(function, CLASS) >> 8 == CLASS_NVME)?;
        let admin = Queue::new(0, bench.queues, 0)?;
        let io = Queue::new(1, bench.queues, 1)?;
        let lists = window(bench.queues.start() + 4 * PAGE, u64::from(ENTRIES) * PAGE)?;
        let mut nvme = Self { registers, admin, io, lists };
        nvme.enable()?;
        let (sq, cq) = (nvme.io.submissions.start(), nvme.io.completions.start());
        let size_and_id = u64::from(ENTRIES - 1) << 16 | 1;
        nvme.administer([CREATE_CQ, 0, 0, cq, 0, 1 << 32 | size_and_id, 0, 0])?;
        nvme.administer([CREATE_SQ, 0, 0, sq, 0, 0x1_0001 << 32 | size_and_id, 0, 0])?;
        Ok(nvme)
    }

    fn enable(&self) -> Checked {
        let sizes = (ENTRIES - 1) << 16 | (ENTRIES - 1);
        self.registers.write32(AQA, sizes);
        self.registers.write64(ASQ, self.admin.submissions.start());
        self.registers.write64(ACQ, self.admin.completions.start());
        self.registers.write32(CC, CC_ENABLE);
        let start = timer::now();
        while self.registers.read32(CSTS) & CSTS_READY == 0 {
            check!(timer::us_since(start) < LIMIT_US, "the NVMe controller does not become ready")?;
        }
        Ok(())
    }

    fn administer(&mut self, words: [u64; 8]) -> Checked {
        self.admin.submit(self.registers, words);
        self.admin.wait(self.registers)
    }

    /// Begins to read `pages` pages (2 to 512) of the first namespace into memory at `address`, page by page.
    pub fn begin_read(&mut self, address: u64, pages: u64) {
        let list = u64::from(self.io.submitted % ENTRIES) * PAGE;
        for page in 1..pages {
            self.lists.write64(list + (page - 1) * 8, address + page * PAGE);
        }
        let sectors = pages * PAGE / SECTOR;
        let namespace = 1 << 32;
        let words = [namespace | READ, 0, 0, address, self.lists.start() + list, 0, sectors - 1, 0];
        self.io.submit(self.registers, words);
    }

    /// Whether the next of the reads has ended.
    pub fn has_ended(&self) -> bool {
        self.io.has_ended()
    }

    /// Waits until the next of the reads has ended.
    pub fn end_read(&mut self) -> Checked {
        self.io.wait(self.registers)
    }
}
