//! An NVMe controller (NVM Express Base Specification 1.4), polled: an admin queue and one I/O queue, one command in each
//! at a time.

use aarch64_cpu::asm::barrier;
use strandline_abi::PAGE_BYTES;

use crate::area::Area;
use crate::edu::Direction;
use crate::pci::{CLASS, COMMAND_MASTER, COMMAND_MEMORY, Pci};
use crate::reason::Checked;
use crate::window::Window;
use crate::{check, reason, timer};

/// Class code of an NVMe controller, above the revision.
const CLASS_NVME: u32 = 0x01_0802;
/// Bytes of BAR 0 that are used: registers, and the doorbells of two queue pairs at the usual stride.
const BAR_BYTES: u64 = 0x2000;

/// Controller registers (§3.1).
const CAP: u64 = 0x00;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
/// CC: enabled; I/O queue entries of 2^6 and 2^4 bytes; pages of 4 KiB.
const CC_ENABLE: u32 = 4 << 20 | 6 << 16 | 1;
const CSTS_READY: u32 = 1;

/// Entries of each queue: a page of submissions.
const ENTRIES: u64 = 64;
const SUBMISSION_BYTES: u64 = 64;
const COMPLETION_BYTES: u64 = 16;
/// Pages the controller's queues take: two of each pair, and the list of PRPs.
pub const RING_PAGES: u64 = 5;
/// The most bytes one command moves: the entries of a page of PRPs, and less than QEMU's limit of 512 KiB.
pub const MOST_BYTES: u64 = 256 << 10;

/// Admin commands (§5): create an I/O submission or completion queue, identify.
const CREATE_SQ: u32 = 0x01;
const CREATE_CQ: u32 = 0x05;
const IDENTIFY: u32 = 0x06;
/// I/O commands (NVM command set, §6).
const WRITE: u32 = 0x01;
const READ: u32 = 0x02;
/// Identify: a namespace, the controller.
const CNS_NAMESPACE: u32 = 0;
const CNS_CONTROLLER: u32 = 1;

const TIMEOUT_US: u64 = 5_000_000;

/// A pair of queues.
#[derive(Clone, Copy, Debug)]
struct Queue {
    submissions: Window,
    completions: Window,
    doorbells: [u64; 2],
    /// Commands submitted so far; completions are taken in the same order, since there is one at a time.
    submitted: u64,
    completed: u64,
}

impl Queue {
    /// Whether the last command has ended, and its status (0 is success).
    fn poll(&mut self, registers: &Window) -> Option<u32> {
        if self.completed == self.submitted {
            return Some(0);
        }
        let at = self.completed % ENTRIES * COMPLETION_BYTES;
        let last = self.completions.read32(at + 12);
        // The phase of a new entry is 1 in the first turn of the queue, 0 in the second, and so on.
        if u64::from(last >> 16 & 1) == self.completed / ENTRIES % 2 {
            return None;
        }
        self.completed += 1;
        registers.write32(self.doorbells[1], (self.completed % ENTRIES) as u32);
        Some(last >> 17)
    }

    fn submit(&mut self, registers: &Window, command: &Command) {
        let at = self.submitted % ENTRIES * SUBMISSION_BYTES;
        let Command { opcode, namespace, prps, words } = command;
        self.submissions.write32(at, opcode | ((self.submitted & 0xffff) as u32) << 16);
        self.submissions.write32(at + 4, *namespace);
        for offset in [8, 16] {
            self.submissions.write64(at + offset, 0);
        }
        self.submissions.write64(at + 24, prps[0]);
        self.submissions.write64(at + 32, prps[1]);
        for (offset, word) in [40, 44, 48, 52, 56, 60].into_iter().zip(words.iter().copied().chain([0; 3])) {
            self.submissions.write32(at + offset, word);
        }
        self.submitted += 1;
        barrier::dsb(barrier::SY);
        registers.write32(self.doorbells[0], (self.submitted % ENTRIES) as u32);
    }
}

/// What differs between commands.
struct Command {
    opcode: u32,
    namespace: u32,
    prps: [u64; 2],
    /// Command dwords 10 to 12.
    words: [u32; 3],
}

/// The controller.
#[derive(Clone, Copy, Debug)]
pub struct Nvme {
    registers: Window,
    admin: Queue,
    io: Queue,
    list: Window,
    /// Blocks of namespace 1; 0 where there is no drive.
    blocks: u64,
    block_bytes: u64,
}

impl Nvme {
    /// The first controller, made ready, with its queues in the [`RING_PAGES`] of `rings`; `None` where there is none.
    ///
    /// # Errors
    /// It doesn't get ready, or a command fails.
    pub fn find(pci: &Pci, rings: Area) -> Checked<Option<Self>> {
        let Some(function) = pci.functions().find(|f| pci.read32(*f, CLASS) >> 8 == CLASS_NVME) else {
            return Ok(None);
        };
        let registers = pci.bar0(function, BAR_BYTES).and_then(Window::new);
        let registers = registers.ok_or_else(|| reason!("BAR 0 of {function} has no address"))?;
        pci.enable(function, COMMAND_MEMORY | COMMAND_MASTER);
        let page = |index| {
            let page = rings.part(index, 1).and_then(Window::new);
            page.inspect(|page| page.fill(0)).ok_or_else(|| reason!("no room for NVMe's queues"))
        };
        let stride = 4 << (registers.read64(CAP) >> 32 & 0xf);
        let queue = |index: u64, submissions, completions| {
            let doorbells = [0, 1].map(|i| DOORBELLS + (2 * index + i) * stride);
            Queue { submissions, completions, doorbells, submitted: 0, completed: 0 }
        };
        let admin = queue(0, page(0)?, page(1)?);
        let io = queue(1, page(2)?, page(3)?);
        let mut nvme = Self { registers, admin, io, list: page(4)?, blocks: 0, block_bytes: 0 };
        nvme.enable()?;
        nvme.look_for_a_drive()?;
        Ok(Some(nvme))
    }

    fn enable(&self) -> Checked {
        self.registers.write32(CC, 0);
        self.wait_until(|| self.registers.read32(CSTS) & CSTS_READY == 0)?;
        let last = (ENTRIES - 1) as u32;
        self.registers.write32(AQA, last << 16 | last);
        self.registers.write64(ASQ, self.admin.submissions.start());
        self.registers.write64(ACQ, self.admin.completions.start());
        self.registers.write32(CC, CC_ENABLE);
        self.wait_until(|| self.registers.read32(CSTS) & CSTS_READY != 0)
    }

    fn wait_until(&self, done: impl Fn() -> bool) -> Checked {
        let start = timer::now();
        while !done() {
            check!(timer::us_since(start) < TIMEOUT_US, "the NVMe controller does not answer")?;
        }
        Ok(())
    }

    /// Reads namespace 1's size (Identify Namespace: NSZE, FLBAS and the format that names), by way of the page of PRPs;
    /// makes the I/O queues if there is one.
    fn look_for_a_drive(&mut self) -> Checked {
        let page = self.list;
        self.begin_identify(1, CNS_NAMESPACE, page.area())?;
        self.finish()?;
        self.blocks = page.read64(0);
        if self.blocks == 0 {
            return Ok(());
        }
        let format = page.read32(128 + 4 * u64::from(page.read8(26) & 0xf));
        self.block_bytes = 1_u64.checked_shl(format >> 16 & 0xff).unwrap_or(0);
        check!(
            (512..=4096).contains(&self.block_bytes),
            "the drive has blocks of {} bytes",
            self.block_bytes
        )?;
        let size = (ENTRIES as u32 - 1) << 16 | 1;
        // Physically contiguous, no interrupts; the submission queue goes with completion queue 1.
        for (opcode, ring, flags) in
            [(CREATE_CQ, self.io.completions, 1), (CREATE_SQ, self.io.submissions, 1 << 16 | 1)]
        {
            let command = Command { opcode, namespace: 0, prps: [ring.start(), 0], words: [size, flags, 0] };
            self.admin.submit(&self.registers, &command);
            self.finish()?;
        }
        Ok(())
    }

    /// The bytes of its drive; 0 where it has none.
    #[must_use]
    pub const fn drive_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes)
    }

    /// Has the 4096 bytes of `span` filled with what the controller tells of itself.
    ///
    /// # Errors
    /// The span is not so long, or the guest's own.
    pub fn identify(&mut self, span: Area) -> Checked {
        self.begin_identify(0, CNS_CONTROLLER, span)
    }

    fn begin_identify(&mut self, namespace: u32, what: u32, span: Area) -> Checked {
        check!(span.bytes() == PAGE_BYTES, "identify fills a page's bytes, not {}", span.bytes())?;
        let prps = self.prps(span)?;
        self.admin
            .submit(&self.registers, &Command { opcode: IDENTIFY, namespace, prps, words: [what, 0, 0] });
        Ok(())
    }

    /// Moves `span`, whole blocks of at most [`MOST_BYTES`], between memory and the drive from byte `at` on.
    ///
    /// # Errors
    /// It isn't that, lies beyond the drive's end, or is the guest's own memory.
    pub fn transfer(&mut self, direction: Direction, at: u64, span: Area) -> Checked {
        let fits = at.checked_add(span.bytes()).is_some_and(|end| end <= self.drive_bytes());
        let whole = |bytes: u64| bytes.is_multiple_of(self.block_bytes);
        check!(
            fits && whole(at) && whole(span.bytes()) && (1..=MOST_BYTES).contains(&span.bytes()),
            "no transfer of {:#x} bytes at {at:#x} of the drive",
            span.bytes()
        )?;
        let prps = self.prps(span)?;
        let opcode = if direction == Direction::ToMemory { READ } else { WRITE };
        let (block, count) = (at / self.block_bytes, span.bytes() / self.block_bytes);
        let words = [(block & 0xffff_ffff) as u32, (block >> 32) as u32, (count - 1) as u32];
        self.io.submit(&self.registers, &Command { opcode, namespace: 1, prps, words });
        Ok(())
    }

    /// Where the data is (§4.3): the first address, and the second page's or that of a list of the pages behind the first.
    fn prps(&self, span: Area) -> Checked<[u64; 2]> {
        check!(Window::new(span).is_some(), "a DMA over the guest's own image")?;
        let second = (span.start() + 1).next_multiple_of(PAGE_BYTES);
        let behind = Area::between(second, span.end()).bytes().div_ceil(PAGE_BYTES);
        Ok(match behind {
            0 => [span.start(), 0],
            1 => [span.start(), second],
            _ => {
                for index in 0..behind {
                    self.list.write64(index * 8, second + index * PAGE_BYTES);
                }
                [span.start(), self.list.start()]
            }
        })
    }

    /// Whether everything begun has ended.
    ///
    /// # Errors
    /// A command has failed.
    pub fn poll(&mut self) -> Checked<bool> {
        let mut done = true;
        for queue in [&mut self.admin, &mut self.io] {
            match queue.poll(&self.registers) {
                Some(status) => check!(status == 0, "an NVMe command failed: status {status:#x}")?,
                None => done = false,
            }
        }
        Ok(done)
    }

    /// Waits until everything begun has ended.
    fn finish(&mut self) -> Checked {
        let start = timer::now();
        while !self.poll()? {
            check!(timer::us_since(start) < TIMEOUT_US, "an NVMe command does not end")?;
        }
        Ok(())
    }
}
