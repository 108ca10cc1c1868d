//! The stream table (IHI 0070 §3.3, §5.1, §5.2): which stream goes through which view.
//!
//! Every stream aborts until it is attached, and says so:
//! - beyond the table, or below a level-1 descriptor with Span=0: C_BAD_STREAMID is recorded (CR2.RECINVSID);
//! - an STE nobody has attached has V=0: C_BAD_STE is recorded. Memory of zeros is a table of such STEs;
//! - an STE that was detached has V=1 and Config=abort: nothing is recorded.
//!
//! Where the SMMU did not confirm that it has forgotten an STE, the stream is out of use for good (*quarantined*): its STE
//! says so itself, in the bits that are software's.
//!
//! A device nobody was given, doing DMA, is something to be told of; the Event queue is bounded, its overflow
//! counted, and none of these records takes the place of a stalled transaction's. A device that was taken away is
//! expected to be caught in the middle of its work, and would fill the queue with what nobody can do anything about.

use crate::addr::{Pa, StreamId, Vmid};
use crate::frames::FrameBlock;
use crate::hw::{DmaRoot, Memory, PairStore, Platform, Word};

use super::command_queue::CommandQueue;
use super::device::Device;
use super::error::{CommandError, SmmuError};
use super::features::Features;
use super::registers::Registers;
use super::spec::command::Command;
use super::spec::pages::{Register32, Register64};
use super::spec::registers::{STRTAB_BASE, STRTAB_BASE_CFG};
use super::spec::ste::{L1STD, L1STD_BYTES, STE_BYTES, STE_WORDS, STE0, STE1, STE2};
use super::stage2_config::{ViewSte, with_tree};

/// StreamID bits a level-2 table resolves: 64 STEs fill one 4 KiB frame. The other splits (8 and 10) would need
/// four and sixteen contiguous frames for each group of streams in use.
const SPLIT: u32 = 6;

/// Where words 2 and 3 of an STE stand in it: VMID and table base among them.
const STE_TREE: u64 = 16;

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One array of STEs.
    Linear,
    /// An array of level-1 descriptors; arrays of STEs below, made when they are needed.
    TwoLevel,
}

/// What a table is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    format: Format,
    /// Bits of the StreamIDs it covers, at most 32.
    bits: u32,
}

impl Layout {
    /// Two levels, unless the SMMU has no such table, or one level-2 table would hold every stream.
    pub(super) const fn new(features: &Features, bits: u32) -> Self {
        let format =
            if features.two_level_stream_table && bits > SPLIT { Format::TwoLevel } else { Format::Linear };
        Self { format, bits }
    }

    /// Bytes of the table, or of its first level; it is aligned to them (§6.3.24).
    pub(super) const fn bytes(self) -> u64 {
        match self.format {
            Format::Linear => STE_BYTES << self.bits,
            Format::TwoLevel => L1STD_BYTES << (self.bits - SPLIT),
        }
    }
}

/// The stream table.
pub(super) struct StreamTable {
    base: Pa,
    layout: Layout,
    /// Streams out of use for good.
    quarantined_streams: u32,
    /// Level-2 tables out of use for good, a frame each.
    quarantined_tables: u32,
}

impl StreamTable {
    /// An empty table in `block`, which holds [`Layout::bytes`].
    pub(super) fn new<P: Platform, R: Registers>(
        device: &Device<'_, P, R>,
        layout: Layout,
        block: FrameBlock,
    ) -> Self {
        device.zero(&block);
        Self { base: block.into_pa(), layout, quarantined_streams: 0, quarantined_tables: 0 }
    }

    /// Gives the registers the table. CR0.SMMUEN is 0.
    pub(super) fn program<P: Platform, R: Registers>(&self, device: &Device<'_, P, R>) {
        let base = STRTAB_BASE::RA::SET + STRTAB_BASE::ADDR.val(self.base.0 >> STRTAB_BASE::ADDR.shift);
        device.registers.write64(Register64::StrtabBase, base.value);
        let size = STRTAB_BASE_CFG::LOG2SIZE.val(self.layout.bits);
        let config = match self.layout.format {
            Format::Linear => size + STRTAB_BASE_CFG::FMT::Linear,
            Format::TwoLevel => size + STRTAB_BASE_CFG::FMT::TwoLevel + STRTAB_BASE_CFG::SPLIT::Bits6,
        };
        device.registers.write32(Register32::StrtabBaseCfg, config.value);
    }

    /// Sends `stream` through `ste`.
    ///
    /// # Errors
    /// The stream is out of range, attached or quarantined, or there is no frame for its level-2 table: nothing was
    /// changed. Or the SMMU did not carry the commands out: the stream aborts, but where it was quarantined the SMMU
    /// may still come to use the view.
    pub(super) fn attach<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        commands: &mut CommandQueue,
        stream: StreamId,
        ste: &ViewSte,
    ) -> Result<(), SmmuError> {
        self.check_range(stream)?;
        let entry = match self.find(device, stream) {
            Some(entry) => entry,
            None => self.link_level2(device, commands, stream)?,
        };
        if is_attached(device, entry) {
            return Err(SmmuError::StreamBusy(stream));
        }
        if is_quarantined(device, entry) {
            return Err(SmmuError::StreamQuarantined(stream));
        }
        install(device, commands, stream, entry, ste).map_err(|error| {
            // What the SMMU has taken in is unknown: the STE says abort, and if commands still work they say so too.
            // The caller hears of the first failure.
            if remove_and_terminate(device, commands, stream, entry).is_err() {
                self.quarantine(device, entry);
            }
            SmmuError::Command(error)
        })
    }

    /// Makes `stream` abort. A stream that is not attached aborts already, and is told so again: a detach that
    /// failed can be repeated.
    ///
    /// # Errors
    /// The stream is out of range. Or the SMMU did not carry the commands out: it may still use the view, and the
    /// stream, if it was attached, is quarantined.
    pub(super) fn detach<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        commands: &mut CommandQueue,
        stream: StreamId,
    ) -> Result<(), SmmuError> {
        self.check_range(stream)?;
        let Some(entry) = self.find(device, stream) else { return Ok(()) };
        let attached = is_attached(device, entry);
        remove_and_terminate(device, commands, stream, entry).map_err(|error| {
            if attached {
                self.quarantine(device, entry);
            }
            SmmuError::Command(error)
        })
    }

    /// Sends every stream that goes through the tree of `from` through that of `to`, while it works: VMID and table base,
    /// words 2 and 3, by one store of 128 bits each, visible; one CFGI_ALL, SYNC. Both fields lie in one aligned span of
    /// the size that the SMMU reads at once, so they may be altered without making the STE invalid first; word by word
    /// the SMMU might keep one of the one tree and one of the other (§3.21.3). No field changes that STEs of one VMID must
    /// agree in (§5.2.1) without the VMID.
    ///
    /// All configuration is forgotten, since the SMMU may also hold the STE of a stream whose detach failed. It can be
    /// repeated.
    ///
    /// # Errors
    /// The SMMU did not carry the commands out: it may use either tree.
    pub(super) fn switch<P: Platform, R: Registers>(
        &self,
        device: &Device<'_, P, R>,
        pairs: &dyn PairStore,
        commands: &mut CommandQueue,
        from: Vmid,
        to: DmaRoot,
    ) -> Result<(), CommandError> {
        // The tree, before an STE leads to it.
        device.order_stores();
        let group = 1 << self.layout.bits.min(SPLIT);
        for first in (0..1u64 << self.layout.bits).step_by(group) {
            if let Some(table) = self.find(device, StreamId(first as u32)) {
                device.platform.relax();
                (0..group as u32).for_each(|i| send_through(device, pairs, ste_in(table, i), from, to));
            }
        }
        commands.execute(device, [Command::CfgiAll])
    }

    /// How many streams are out of use for good, and how many level-2 tables.
    pub(super) const fn quarantined(&self) -> (u32, u32) {
        (self.quarantined_streams, self.quarantined_tables)
    }

    /// Takes the stream of an STE that says abort out of use for good.
    fn quarantine<P: Memory, R>(&mut self, device: &Device<'_, P, R>, entry: Pa) {
        let word = &device.platform.words(entry, STE_WORDS)[1];
        word.store(word.load() | STE1::SW_RESERVED::Quarantined.value);
        self.quarantined_streams += 1;
    }

    /// Whether the STE of `stream` lets it through, as it stands in memory.
    pub(super) fn is_attached<P: Memory, R>(&self, device: &Device<'_, P, R>, stream: StreamId) -> bool {
        self.check_range(stream).is_ok()
            && self.find(device, stream).is_some_and(|entry| is_attached(device, entry))
    }

    fn check_range(&self, stream: StreamId) -> Result<(), SmmuError> {
        let bits = self.layout.bits;
        if u64::from(stream.0) >> bits == 0 {
            Ok(())
        } else {
            Err(SmmuError::StreamOutOfRange { stream, bits })
        }
    }

    fn level1_descriptor(&self, stream: StreamId) -> Pa {
        self.base.offset(u64::from(stream.0 >> SPLIT) * L1STD_BYTES)
    }

    /// Where the STE of `stream`, which is in range, stands; `None` where its level-2 table was never needed.
    fn find<P: Memory, R>(&self, device: &Device<'_, P, R>, stream: StreamId) -> Option<Pa> {
        match self.layout.format {
            Format::Linear => Some(ste_in(self.base, stream.0)),
            Format::TwoLevel => {
                let descriptor = device.platform.words(self.level1_descriptor(stream), 1)[0].load();
                let table = Pa(L1STD::L2PTR.read(descriptor) << L1STD::L2PTR.shift);
                (L1STD::SPAN.read(descriptor) != 0).then(|| ste_in(table, stream.0 % (1 << SPLIT)))
            }
        }
    }

    /// Makes the level-2 table `stream` stands in, every STE of it with V=0, and gives back where the STE stands.
    ///
    /// The table is visible to the SMMU before the descriptor that leads to it. A level-1 descriptor can be cached
    /// whatever it says, so CMD_CFGI_STE with Leaf=0 follows (§5.1.1). Where that is not carried out the table is
    /// unlinked again, so that the next attach does not take the SMMU to know it; and it stays out of use, since the
    /// SMMU may.
    fn link_level2<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        commands: &mut CommandQueue,
        stream: StreamId,
    ) -> Result<Pa, SmmuError> {
        let block = device.alloc(STE_BYTES << SPLIT)?;
        device.zero(&block);
        let table = block.into_pa();
        let descriptor = L1STD::SPAN::Stes64 + L1STD::L2PTR.val(table.0 >> L1STD::L2PTR.shift);
        let at = self.level1_descriptor(stream);
        let link = |value| {
            device.platform.words(at, 1)[0].store(value);
            device.make_visible(at, L1STD_BYTES);
        };
        link(descriptor.value);
        commands.execute(device, [Command::CfgiSte { stream, leaf: false }]).inspect_err(|_| {
            link(0);
            self.quarantined_tables += 1;
        })?;
        Ok(ste_in(table, stream.0 % (1 << SPLIT)))
    }
}

fn ste_in(table: Pa, index: u32) -> Pa {
    table.offset(u64::from(index) * STE_BYTES)
}

/// Only we write STEs: what stands there is what was last done.
fn is_attached<P: Memory, R>(device: &Device<'_, P, R>, entry: Pa) -> bool {
    let word = device.platform.words(entry, 1)[0].load();
    STE0::V.is_set(word) && STE0::CONFIG.read(word) != STE0::CONFIG::Value::Abort as u64
}

/// Gives the STE at `entry`, if it lets a stream through the tree of `from`, that of `to`.
fn send_through<P: Memory, R>(
    device: &Device<'_, P, R>,
    pairs: &dyn PairStore,
    entry: Pa,
    from: Vmid,
    to: DmaRoot,
) {
    let words = device.platform.words(entry, STE_WORDS);
    let pair = [words[2].load(), words[3].load()];
    if is_attached(device, entry) && STE2::S2VMID.read(pair[0]) == u64::from(from.0) {
        pairs.store_pair(entry.offset(STE_TREE), with_tree(pair, to));
    }
}

fn is_quarantined<P: Memory, R>(device: &Device<'_, P, R>, entry: Pa) -> bool {
    STE1::SW_RESERVED.read(device.platform.words(entry, STE_WORDS)[1].load()) != 0
}

/// The one place an STE becomes valid (§3.21.3.1): V=0 and the body, visible; CFGI, SYNC; then word 0 with V=1 by a
/// single store, visible; CFGI, SYNC.
///
/// The SMMU may read the words of an STE in any order, so a copy with the new word 0 and an old body could otherwise
/// be in its cache. The STE aborts while its body changes, whether the SMMU sees V=0 or the abort that was there.
fn install<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    commands: &mut CommandQueue,
    stream: StreamId,
    entry: Pa,
    ste: &ViewSte,
) -> Result<(), CommandError> {
    let words = device.platform.words(entry, STE_WORDS);
    words[0].store(0);
    for (word, value) in words.iter().zip(ste.words()).skip(1) {
        word.store(*value);
    }
    publish(device, commands, stream, entry)?;
    words[0].store(ste.words()[0]);
    publish(device, commands, stream, entry)
}

/// The one place an STE stops letting traffic through: one store, visible; CFGI, SYNC. With Config=abort every other
/// field is ignored (§5.2), so the body may stay.
fn remove<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    commands: &mut CommandQueue,
    stream: StreamId,
    entry: Pa,
) -> Result<(), CommandError> {
    let abort = STE0::V::SET + STE0::CONFIG::Abort;
    device.platform.words(entry, 1)[0].store(abort.value);
    publish(device, commands, stream, entry)
}

/// [`remove`], and what had stalled under the STE ends: only when every new transaction aborts (§4.7.2). The body of
/// the STE says whether any could stall.
fn remove_and_terminate<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    commands: &mut CommandQueue,
    stream: StreamId,
    entry: Pa,
) -> Result<(), CommandError> {
    remove(device, commands, stream, entry)?;
    if STE2::S2S.is_set(device.platform.words(entry, STE_WORDS)[2].load()) {
        commands.execute(device, [Command::StallTerm(stream)])?;
    }
    Ok(())
}

/// Makes an STE visible as it stands, and makes the SMMU forget what it had of it.
fn publish<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    commands: &mut CommandQueue,
    stream: StreamId,
    entry: Pa,
) -> Result<(), CommandError> {
    device.make_visible(entry, STE_BYTES);
    commands.execute(device, [Command::CfgiSte { stream, leaf: true }])
}
