//! Mapping and unmapping: entries come and go where nothing was, or what was is given up whole.

use core::fmt;

use crate::addr::{Ipa, IpaRange, PAGE_BYTES, Pa};
use crate::frames::{FrameReserve, Frames, OutOfFrames};
use crate::hw::{Barrier, Cpu, Memory, Word};
use crate::stage2::builder::{self, Built, Layout, MapLayout, Plan};
use crate::stage2::descriptor::{self, Entry, Leaf, LeafState};
use crate::stage2::tree::{Contents, LeafCounts, Slot, Tree, remove_leaves};
use crate::stage2::{Format, Retired, Rights};

/// A mapping to be made: `range` translates to as many bytes from `pa`.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Guest addresses.
    pub range: IpaRange,
    /// Physical address of the first byte, page-aligned.
    pub pa: Pa,
    /// What it permits.
    pub rights: Rights,
    /// Where leaves are 4 KiB pages, as in a logged range; elsewhere they are the largest that fit.
    pub by_pages: Option<IpaRange>,
}

impl Mapping {
    /// Checks that a tree of `format` can have it.
    ///
    /// # Errors
    /// [`MapError::OutOfFormat`], [`MapError::BadPa`].
    pub fn check(&self, format: Format) -> Result<(), MapError> {
        if !format.covers(self.range) {
            return Err(MapError::OutOfFormat(self.range));
        }
        let end = self.pa.checked_add(self.range.bytes()).map_or(u64::MAX, |end| end.0);
        if !self.pa.is_aligned(PAGE_BYTES) || end > 1 << 48 {
            return Err(MapError::BadPa(self.pa));
        }
        Ok(())
    }

    const fn layout(&self) -> MapLayout {
        // What is mapped while a log is on enters dirty, so that its contents are carried over.
        let state = LeafState::WritableDirty;
        MapLayout { range: self.range, pa: self.pa, rights: self.rights, state, by_pages: self.by_pages }
    }
}

/// Why a mapping can't be changed; nothing has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// Something is mapped at this address already.
    AlreadyMapped(Ipa),
    /// Nothing is mapped at this address.
    NotMapped(Ipa),
    /// The range is larger than the tree's format can translate.
    OutOfFormat(IpaRange),
    /// The physical address is not page-aligned, or the range would leave the 48-bit physical addresses.
    BadPa(Pa),
    /// The range cuts the block at this address: split it first.
    PartOfBlock(Ipa),
    /// Table frames are lacking.
    OutOfFrames(OutOfFrames),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyMapped(ipa) => write!(f, "guest address {ipa} is mapped already"),
            Self::NotMapped(ipa) => write!(f, "guest address {ipa} is not mapped"),
            Self::OutOfFormat(range) => write!(f, "guest range {range} exceeds the view's address size"),
            Self::BadPa(pa) => write!(f, "physical address {pa} is unaligned or beyond 48 bits"),
            Self::PartOfBlock(ipa) => write!(f, "the range cuts the block at guest address {ipa}"),
            Self::OutOfFrames(lack) => lack.fmt(f),
        }
    }
}

impl Tree {
    /// How many table frames [`Tree::map`] will take for `mapping`.
    ///
    /// # Errors
    /// Whatever makes the mapping impossible, frames apart.
    pub fn map_needs<P: Memory + Cpu>(&self, platform: &P, mapping: &Mapping) -> Result<usize, MapError> {
        mapping.check(self.format())?;
        let layout = mapping.layout();
        let mut needed = 0;
        let mut taken = None;
        self.for_each(platform, mapping.range, |slot, entry, part| match entry {
            Entry::Absent => needed += tables_below(platform, &layout, slot),
            _ => taken = taken.or(Some(part.start())),
        });
        taken.map_or(Ok(needed), |ipa| Err(MapError::AlreadyMapped(ipa)))
    }

    /// Maps, taking table frames out of `reserve`, which holds at least [`Tree::map_needs`]. Each new sub-tree is
    /// whole before it is linked; no invalidation is due, since absent entries are never cached. `clean` is set for
    /// walkers that aren't coherent.
    ///
    /// On return the new entries are visible to the walkers of CPUs; a device's next translation sees them after
    /// the barrier issued here.
    pub fn map<P: Memory + Frames + Cpu>(
        &mut self,
        platform: &P,
        mapping: &Mapping,
        reserve: &mut FrameReserve,
        clean: bool,
    ) {
        let layout = mapping.layout();
        let mut at = mapping.range.start();
        while at < mapping.range.end() {
            let (slot, entry) = self.walk(platform, at);
            let Some(end) = slot.range().map(IpaRange::end) else { break };
            if entry == Entry::Absent {
                self.link(platform, &layout, slot, reserve, clean);
            }
            at = end;
        }
        self.note_dirty(platform, mapping.range);
        platform.barrier(Barrier::behind_tables(!clean));
    }

    /// Fills one absent entry: with a leaf, or with a whole sub-tree.
    fn link<P: Memory + Frames + Cpu>(
        &mut self,
        platform: &P,
        layout: &MapLayout,
        slot: Slot,
        reserve: &mut FrameReserve,
        clean: bool,
    ) {
        let (word, contents) = match plan_at(layout, slot) {
            Plan::Word(word) => (word, Contents { tables: 0, leaves: LeafCounts::one(slot.level) }),
            Plan::Table => {
                let built = builder::build(platform, layout, slot.level + 1, slot.base, reserve, clean);
                let Some(Built { table, contents }) = built else { return };
                platform.barrier(Barrier::behind_tables(!clean));
                (descriptor::table(table), contents)
            }
        };
        slot.word(platform).store(word);
        if clean {
            platform.clean_to_poc(slot.pa, 8);
        }
        self.gained(contents);
    }

    /// Checks that [`Tree::unmap`] can remove `range`.
    ///
    /// # Errors
    /// The range has holes, leaves the format, or cuts a block.
    pub fn unmap_check(&self, memory: &impl Memory, range: IpaRange) -> Result<(), MapError> {
        if !self.format().covers(range) {
            return Err(MapError::OutOfFormat(range));
        }
        let mut result = Ok(());
        self.for_each(memory, range, |slot, entry, part| {
            let found = match entry {
                Entry::Leaf(_) if slot.range() == Some(part) => Ok(()),
                Entry::Leaf(_) => Err(MapError::PartOfBlock(slot.base)),
                _ => Err(MapError::NotMapped(part.start())),
            };
            result = result.and(found);
        });
        result
    }

    /// Removes the leaves of `range`, after [`Tree::unmap_check`], and shows each to `left` as it was when it went:
    /// hardware changes it no more. Tables whose whole range goes are put on `retired` where it has room. The caller
    /// invalidates, and only then frees them and reuses the memory.
    pub fn unmap<P: Memory + Frames + Cpu>(
        &mut self,
        platform: &P,
        range: IpaRange,
        retired: &mut Retired,
        clean: bool,
        mut left: impl FnMut(IpaRange, Leaf),
    ) {
        let mut at = range.start();
        while at < range.end() {
            let slot = self.widest_within(platform, range, at, retired.room() > 0);
            self.lost(remove_leaves(platform, slot, &mut left));
            if let Entry::Table(table) = Entry::at(slot.level, slot.word(platform).fetch_and(0)) {
                retired.push(platform, table, slot.level + 1);
            }
            if clean {
                platform.clean_to_poc(slot.pa, 8);
            }
            let Some(end) = slot.range().map(IpaRange::end) else { break };
            at = end;
        }
    }

    /// The slot nearest to the root that lies in `range` whole; a leaf where tables may not be retired.
    fn widest_within(&self, memory: &impl Memory, range: IpaRange, at: Ipa, tables: bool) -> Slot {
        let mut slot = self.root_slot(at);
        while let Entry::Table(table) = slot.entry(memory) {
            if tables && slot.range().is_some_and(|r| range.covers(r)) {
                break;
            }
            slot = slot.below(table, at);
        }
        slot
    }
}

/// The plan for an entry of a live table. At level 0 there are no leaves.
fn plan_at(layout: &impl Layout, slot: Slot) -> Plan {
    if slot.level == 0 { Plan::Table } else { layout.plan(slot.level, slot.base) }
}

fn tables_below(cpu: &impl Cpu, layout: &impl Layout, slot: Slot) -> usize {
    match plan_at(layout, slot) {
        Plan::Word(_) => 0,
        Plan::Table => builder::count(cpu, layout, slot.level + 1, slot.base),
    }
}
