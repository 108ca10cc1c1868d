//! A VM on the machine, and every rule that a call has to keep whatever was in its registers.

use std::collections::BTreeSet;

use strandline::addr::{Ipa, IpaRange, Pa, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::STEP_PAGES;
use strandline::frames::Frames;
use strandline::hypercall::{self, Arguments, Reply};
use strandline::stage2::{DmaWalker, Format, Tree};
use strandline::vm::Vm;
use strandline_abi::{
    Call, CpuTier, DmaTier, Error, FaultRecord, Flags, GRANULE_ADAPTIVE, LogSource, LogState, LogStatus,
    PAGE_BYTES, Status, VERSION,
};

use crate::shadow::Shadow;
use crate::strict::{Machine, Tlb};

/// Where RAM begins: blocks of 2 MiB.
pub const RAM: u64 = 0x4000_0000;
/// Pages behind the blocks, which lie elsewhere in physical memory.
pub const TAIL_PAGES: u64 = 64;
/// Registers that vCPUs alone reach.
pub const REGISTERS: u64 = 0x1000_0000;
/// Pages of a block.
const BLOCK_PAGES: u64 = 512;
/// Pages that a step of read copies.
const READ_PAGES: u64 = 16;
/// 4 KiB, 2 MiB, 1 GiB.
const GRANULES: u64 = 0x4020_1001;
const BLOCKS_PA: u64 = 0x8000_0000;
const TAIL_PA: u64 = 0x9f00_1000;
const IPA_BITS: u8 = 36;

/// What machine and VM there are.
#[derive(Clone, Copy)]
pub struct Setting {
    pub tier: DmaTier,
    pub frames: usize,
    /// RAM in blocks of 2 MiB.
    pub blocks: u64,
}

impl Setting {
    pub const fn tail(&self) -> u64 {
        RAM + (self.blocks << 21)
    }

    pub const fn end(&self) -> u64 {
        self.tail() + TAIL_PAGES * PAGE_BYTES
    }

    pub fn machine(&self) -> Machine {
        Machine::new(self.frames, &[(Pa(BLOCKS_PA), self.blocks << 9), (Pa(TAIL_PA), TAIL_PAGES)])
    }

    /// Where the RAM at `ipa` lies.
    pub fn pa(&self, ipa: u64) -> Option<Pa> {
        if (RAM..self.tail()).contains(&ipa) {
            Some(Pa(BLOCKS_PA + (ipa - RAM)))
        } else if (self.tail()..self.end()).contains(&ipa) {
            Some(Pa(TAIL_PA + (ipa - self.tail())))
        } else {
            None
        }
    }
}

/// The address space of the setting.
pub fn space<'d>(machine: &Machine, tlb: &'d Tlb, setting: &Setting) -> AddressSpace<'d, Tlb> {
    let format = Format::new(IPA_BITS).expect("36 bits");
    let mut space = AddressSpace::new(machine, format, Vmid(1)).expect("frames for the root");
    if setting.tier != DmaTier::None {
        let walker = DmaWalker { tlb, vmid: Vmid(2), coherent: true };
        space.add_dma_view(machine, walker, setting.tier).expect("frames for the root");
    }
    for (start, bytes, pa, reach) in [
        (REGISTERS, 1 << 20, REGISTERS, Reach::CpuDevice),
        (RAM, setting.blocks << 21, BLOCKS_PA, Reach::Ram),
        (setting.tail(), TAIL_PAGES * PAGE_BYTES, TAIL_PA, Reach::Ram),
    ] {
        let range = IpaRange::new(Ipa(start), bytes).expect("a range");
        space.map(machine, Region { range, pa: Pa(pa), reach }).expect("frames for the tables");
    }
    space
}

/// A VM whose calls are watched.
pub struct Life<'m> {
    pub machine: &'m Machine,
    pub tlb: &'m Tlb,
    pub vm: Vm<'m, Tlb>,
    pub setting: Setting,
    shadow: Shadow,
    /// The granule of the log.
    granule: u64,
    frames_at_first: usize,
    /// Hardware was made to fail: frames may stay out of use.
    failed: bool,
    /// Fault records that wait, and how many were lost.
    waiting: u64,
    lost: u64,
}

/// What was the case before a call.
struct Before {
    state: LogState,
    range: Option<IpaRange>,
    free: usize,
    status: LogStatus,
    mask: Vec<u64>,
}

impl<'m> Life<'m> {
    pub fn new(machine: &'m Machine, tlb: &'m Tlb, setting: Setting) -> Self {
        let vm = Vm::new(space(machine, tlb, &setting), CpuTier::Hardware);
        let frames_at_first = machine.free_frames();
        let shadow = Shadow::default();
        let (granule, failed, waiting, lost) = (PAGE_BYTES, false, 0, 0);
        Self { machine, tlb, vm, setting, shadow, granule, frames_at_first, failed, waiting, lost }
    }

    pub fn state(&self) -> LogState {
        self.vm.log.lock().state()
    }

    /// The next operation on the SMMU, or the next hold of vCPUs, fails.
    pub fn fail(&mut self, smmu: bool) {
        self.failed = true;
        if smmu { self.tlb.fails.set(true) } else { self.machine.hold_fails.set(true) }
    }

    pub fn stopped_device(&mut self) {
        self.vm.faults.lock().push(FaultRecord { stream: 8, kind: 0x10, ipa: self.waiting, access: 1 });
        self.lost += u64::from(self.waiting == 64);
        self.waiting = (self.waiting + 1).min(64);
    }

    /// A write to a page of RAM, as hardware records it.
    pub fn write(&mut self, source: LogSource, page: u64) {
        let ipa = page * PAGE_BYTES;
        {
            let space = self.vm.space.read();
            let tree = match (source, space.dma_views().next()) {
                (LogSource::Cpu, _) => &space.cpu_view().tree,
                (LogSource::Dma, Some(dma)) if dma.tier == DmaTier::Hardware => &dma.view.tree,
                (LogSource::Dma, _) => return,
            };
            set_dirty(self.machine, tree, ipa);
        }
        self.note(source, page);
        // In an adaptive log it may lie in a block.
        if self.granule != PAGE_BYTES && page * PAGE_BYTES < self.setting.tail() {
            let log = self.vm.log.lock();
            let first = page & !(BLOCK_PAGES - 1);
            let logged = |page: &u64| log.range().is_some_and(|range| range.contains(Ipa(page * PAGE_BYTES)));
            for beside in (first..first + BLOCK_PAGES).filter(logged) {
                self.shadow.may_be_reported(source, beside);
            }
        }
    }

    fn note(&mut self, source: LogSource, page: u64) {
        let log = self.vm.log.lock();
        if log.range().is_some_and(|range| range.contains(Ipa(page * PAGE_BYTES))) {
            self.shadow.written(source, page, log.state() == LogState::On);
        }
    }

    /// The words that a call may store to, as the contract says: first address and number.
    fn room(&self, id: u32, [x1, x2, x3, _, x5]: Arguments) -> (u64, u64) {
        match Call::from_id(id) {
            Some(Call::Sync | Call::Clear) => {
                let pages = (x2 / PAGE_BYTES).saturating_sub(x5).min(STEP_PAGES);
                (x3.wrapping_add(x5 / 8), pages.div_ceil(64))
            }
            Some(Call::Read) => {
                let pages = (x2 / PAGE_BYTES).saturating_sub(x5).min(READ_PAGES);
                (x3.wrapping_add(x5.wrapping_mul(PAGE_BYTES)), pages * (PAGE_BYTES / 8))
            }
            Some(Call::Status) => (x1, x2.min(LogStatus::BYTES) / 8),
            Some(Call::Faults) => (x1, x2.min(self.waiting) * FaultRecord::WORDS as u64),
            _ => (0, 0),
        }
    }

    fn words(&self, first: u64, count: u64) -> Vec<u64> {
        let word = |i| self.setting.pa(first.wrapping_add(i * 8)).filter(|pa| pa.is_aligned(8));
        (0..count).map(|i| word(i).map_or(0, |pa| self.machine.read(pa))).collect()
    }

    /// Makes a call and holds it against the contract.
    pub fn call(&mut self, id: u32, arguments: Arguments) -> Reply {
        let (first, count) = self.room(id, arguments);
        let before = {
            let (log, space) = (self.vm.log.lock(), self.vm.space.read());
            let status = strandline::vm::status(self.machine, &log, &space);
            let (state, range) = (log.state(), log.range());
            let free = self.machine.free_frames();
            Before { state, range, free, status, mask: self.words(first, count) }
        };
        self.machine.forget();
        let Some(reply) = hypercall::dispatch(self.machine, &self.vm, id, &arguments) else {
            assert!(id & 0xbf00_0000 != 0x8600_0000, "{id:#x} is in our range");
            return [u64::MAX, 0, 0, 0, arguments[3]];
        };
        self.check_stores(first, count);
        if [Call::Uid.id(), Call::Revision.id()].contains(&id) {
            assert_eq!(reply[4], arguments[3], "{id:#x} keeps x4");
        } else if let Some(error) = Error::from_x0(reply[0]) {
            self.check_refusal(id, arguments, reply, error, &before);
        } else {
            self.check_answer(id, arguments, reply, &before, first);
        }
        self.check_next_call();
        reply
    }

    /// Guest memory is stored to inside the caller's buffer alone.
    fn check_stores(&self, first: u64, count: u64) {
        let room: BTreeSet<u64> =
            (0..count).filter_map(|i| self.setting.pa(first.wrapping_add(i * 8))).map(|pa| pa.0).collect();
        for pa in self.machine.guest_stores() {
            assert!(room.contains(&pa.0), "{pa} is stored to and not in the caller's buffer");
        }
    }

    fn check_refusal(&mut self, id: u32, arguments: Arguments, reply: Reply, error: Error, before: &Before) {
        assert_eq!(reply[2..], [0, 0, arguments[3]], "{id:#x}: x2 to x4 of {error:?}");
        assert_eq!(self.machine.guest_stores(), [], "{id:#x} {arguments:x?}: {error:?} has written");
        match error {
            Error::NotSupported if id == Call::Start.id() => {
                let tiers = self.vm.log.lock().tiers(&*self.vm.space.read()).to_bits();
                let weaker = arguments[3] != 0 && reply[1] == tiers;
                let no_view_adapts = arguments[2] == GRANULE_ADAPTIVE && reply[1] == 0;
                assert!(weaker || no_view_adapts, "tiers that were not demanded");
            }
            Error::NotSupported => assert!(Call::from_id(id).is_none() && reply[1] == id.into(), "{id:#x}"),
            Error::Denied => assert!(before.state == LogState::Off),
            Error::Untrusted => assert!(self.failed, "{id:#x}: untrusted without a cause"),
            Error::NoMemory => assert!(reply[1] > before.free as u64, "{} frames would do", reply[1]),
            Error::InvalidParameter | Error::Unaligned | Error::OutOfRange | Error::Busy => {}
        }
        if error == Error::Untrusted {
            if self.state() == LogState::Off {
                self.shadow.reset();
            }
            return;
        }
        let state = self.state();
        // A stop, or the undoing of a start, for which a vCPU could not be held has begun.
        if error == Error::Busy && self.failed && state == LogState::Stopping {
            return;
        }
        // A start that has counted more than there is has not begun.
        if error == Error::NoMemory && before.state == LogState::Starting && state == LogState::Off {
            self.check_end();
            return;
        }
        let (log, space) = (self.vm.log.lock(), self.vm.space.read());
        let status = strandline::vm::status(self.machine, &log, &space);
        assert_eq!(
            (self.machine.changes(), log.state(), log.range(), status),
            (0, before.state, before.range, before.status),
            "{id:#x} {arguments:x?}: {error:?} changed something"
        );
    }

    fn check_answer(&mut self, id: u32, arguments: Arguments, reply: Reply, before: &Before, first: u64) {
        let call = Call::from_id(id).expect("only calls that exist succeed");
        let [x0, x1, x2, _, x4] = reply;
        assert!(x0 == Status::Done.to_x0() || x0 == Status::More.to_x0(), "{call:?} answers {x0:#x}");
        assert!(call == Call::Features || x4 == arguments[3], "{call:?} keeps x4");
        let stepped = matches!(call, Call::Start | Call::Sync | Call::Clear | Call::Stop | Call::Read);
        assert_eq!(
            x0 == Status::More.to_x0(),
            stepped && x1 != 0,
            "{call:?}: a next step where there is more"
        );
        match call {
            Call::Sync | Call::Clear => self.check_bitmap(call, arguments, x2, &before.mask, first),
            Call::Start if before.state == LogState::Off => {
                self.shadow.reset();
                self.granule = arguments[2];
            }
            Call::Read => self.check_copy(arguments, x2, first),
            Call::Stop if self.state() == LogState::Off => self.check_end(),
            Call::Status => assert_eq!(x1, arguments[1].min(LogStatus::BYTES)),
            Call::Faults => {
                assert_eq!((x1, x2), (arguments[1].min(self.waiting), self.lost), "records and losses");
                (self.waiting, self.lost) = (self.waiting - x1, 0);
            }
            _ => {}
        }
        // EL2's stores count as the vCPU's.
        let stored = self.machine.guest_stores().len() as u64;
        if stored != 0 {
            let pages = first / PAGE_BYTES..=(first + stored * 8 - 1) / PAGE_BYTES;
            pages.for_each(|page| self.note(LogSource::Cpu, page));
        }
    }

    fn check_bitmap(&mut self, call: Call, arguments: Arguments, pages: u64, mask: &[u64], first: u64) {
        let [start, bytes, _, flags, done] = arguments;
        let allowed = Flags::BOTH.with(if call == Call::Sync { Flags::CLEAR } else { Flags::CPU });
        let flags = Flags::checked(flags, allowed).expect("bad flags are refused");
        let left = bytes / PAGE_BYTES - done;
        let part = IpaRange::new(Ipa(start + done * PAGE_BYTES), left.min(STEP_PAGES) * PAGE_BYTES);
        let part = part.expect("a bad range is refused");
        let bits = self.words(first, part.pages().div_ceil(64));
        let counted: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        assert_eq!(counted, pages, "{call:?}: the bits are those of its pages, and as many as it says");
        let page = part.start().0 / PAGE_BYTES;
        let bit = |words: &[u64], p: u64| words[((p - page) / 64) as usize] >> ((p - page) % 64) & 1 == 1;
        self.shadow.reported(
            part,
            flags,
            self.setting.tier,
            call == Call::Clear || flags.has(Flags::CLEAR),
            |p| call == Call::Sync || bit(mask, p),
            |p| bit(&bits, p),
        );
    }

    /// What was read is what is there, where the one does not lie in the other.
    fn check_copy(&self, [start, bytes, _, _, done]: Arguments, pages: u64, to: u64) {
        assert!((1..=READ_PAGES).contains(&pages) && done + pages <= bytes / PAGE_BYTES);
        let (from, words) = (start + done * PAGE_BYTES, pages * (PAGE_BYTES / 8));
        if from.abs_diff(to) >= words * 8 {
            assert!(self.words(from, words) == self.words(to, words), "the copy is another");
        }
    }

    /// The log has ended.
    fn check_end(&mut self) {
        self.shadow.reset();
        assert!(self.failed || self.machine.free_frames() == self.frames_at_first, "frames are lost");
    }

    /// Whatever came before, the next well-formed call is answered rightly.
    fn check_next_call(&self) {
        let [x0, version, calls, granules, _] =
            hypercall::dispatch(self.machine, &self.vm, Call::Features.id(), &[0; 5]).expect("it is ours");
        assert_eq!((x0, version, calls, granules), (0, VERSION.into(), 0x1ff, GRANULES));
    }
}

/// Sets the dirty bit of the leaf that maps `ipa`, where hardware would.
fn set_dirty(machine: &Machine, tree: &Tree, ipa: u64) {
    const DBM: u64 = 1 << 51;
    const WRITE: u64 = 1 << 7;
    let (mut table, mut level) = (tree.root(), tree.format().start_level());
    loop {
        let at = table.offset((ipa >> (39 - 9 * level) & 511) * 8);
        let word = machine.read(at);
        if word & 1 == 0 {
            return;
        }
        if level < 3 && word & 2 != 0 {
            (table, level) = (Pa(word & 0xffff_ffff_f000), level + 1);
            continue;
        }
        if word & DBM != 0 {
            machine.write(at, word | WRITE);
        }
        return;
    }
}
