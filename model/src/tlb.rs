//! A TLB and walk cache: it keeps what was once valid until somebody invalidates it, or chance evicts it.

use std::fmt;

use crate::descriptor::{Shape, shape, span};
use crate::random::Random;

/// A cached descriptor: a leaf, or (walk cache) a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub vmid: u16,
    /// The tree it was read from.
    pub root: u64,
    /// First address it translates.
    pub base: u64,
    /// Level of the descriptor.
    pub level: u8,
    /// The descriptor, S2AP\[1\] as hardware may use it.
    pub word: u64,
    /// Where the descriptor stands: word index.
    pub at: u32,
    /// When the oldest thing that it was made of was read.
    pub born: u64,
    /// Of both stages (Arm ARM D8.17): IPAS2E1 does not reach it.
    pub combined: bool,
    /// It has outlived an invalidation; it does not outlive another.
    pub spared: bool,
}

impl Entry {
    pub fn covers(&self, vmid: u16, ipa: u64) -> bool {
        self.vmid == vmid && ipa.wrapping_sub(self.base) < span(self.level)
    }

    pub fn overlaps(&self, first: u64, bytes: u64) -> bool {
        self.base < first.saturating_add(bytes) && first < self.base + span(self.level)
    }

    /// The next table, where it is a table descriptor.
    pub fn table(&self) -> Option<u64> {
        match shape(self.level, self.word) {
            Shape::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn is_leaf(&self) -> bool {
        self.table().is_none()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_leaf() { "leaf" } else { "table" };
        let Self { vmid, base, level, word, born, root, .. } = self;
        write!(
            f,
            "{kind} {word:#x} (level {level}, from {base:#x}, VMID {vmid}, tree {root:#x}, of step {born})"
        )
    }
}

/// What an invalidation reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    /// Everything.
    All,
    /// Everything of a VMID.
    Vmid(u16),
    /// Combined entries of a VMID.
    Combined(u16),
    /// Entries of stage 2 alone.
    Ipa {
        vmid: u16,
        first: u64,
        bytes: u64,
        /// Table descriptors stay.
        leaf_only: bool,
        /// Level of the leaves reached; 0: any.
        ttl: u8,
    },
}

impl Reach {
    pub fn covers(&self, entry: &Entry) -> bool {
        match *self {
            Self::All => true,
            Self::Vmid(vmid) => entry.vmid == vmid,
            Self::Combined(vmid) => entry.vmid == vmid && entry.combined,
            Self::Ipa { vmid, first, bytes, leaf_only, ttl } => {
                let level = if entry.is_leaf() {
                    ttl == 0 || ttl == entry.level
                } else {
                    !leaf_only && (ttl == 0 || entry.level < ttl)
                };
                entry.vmid == vmid && !entry.combined && level && entry.overlaps(first, bytes)
            }
        }
    }

    /// Whether a translation of `ipa` under `vmid` is one whose users it completes.
    pub fn completes(&self, vmid: u16, ipa: u64) -> bool {
        match *self {
            Self::All => true,
            Self::Vmid(of) | Self::Combined(of) => of == vmid,
            Self::Ipa { vmid: of, first, bytes, .. } => of == vmid && ipa.wrapping_sub(first) < bytes,
        }
    }
}

/// A TLB of bounded size.
pub(crate) struct Tlb {
    pub entries: Vec<Entry>,
    capacity: usize,
}

impl Tlb {
    pub fn new(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), capacity }
    }

    /// Adds an entry, in place of any other where there is no room; what it holds of the same descriptor stays.
    pub fn insert(&mut self, entry: Entry, random: &mut Random) -> bool {
        let same = |e: &Entry| {
            (e.vmid, e.base, e.level, e.combined, e.is_leaf())
                == (entry.vmid, entry.base, entry.level, entry.combined, entry.is_leaf())
        };
        if self.entries.iter().any(same) {
            return false;
        }
        if self.entries.len() == self.capacity {
            self.entries.swap_remove(random.index(self.capacity));
        }
        self.entries.push(entry);
        true
    }

    /// Indices of the leaves that translate `ipa`: at most a few.
    pub fn leaves(&self, vmid: u16, ipa: u64) -> impl Iterator<Item = usize> {
        self.entries
            .iter()
            .enumerate()
            .filter(move |(_, e)| e.covers(vmid, ipa) && e.is_leaf())
            .map(|(i, _)| i)
    }

    /// Indices of the table descriptors on the way to `ipa`.
    pub fn tables(&self, vmid: u16, ipa: u64) -> impl Iterator<Item = usize> {
        self.entries
            .iter()
            .enumerate()
            .filter(move |(_, e)| e.covers(vmid, ipa) && !e.is_leaf())
            .map(|(i, _)| i)
    }

    /// Removes what `reach` covers and was made of what was read at `until` or before.
    pub fn remove(&mut self, reach: Reach, until: u64) {
        self.entries.retain(|e| e.born > until || !reach.covers(e));
    }

    /// The same on a part with an erratum: some stay, each once. Says how many.
    pub fn remove_most(&mut self, reach: Reach, until: u64, random: &mut Random) -> u64 {
        let mut stayed = 0;
        self.entries.retain_mut(|e| {
            let covered = e.born <= until && reach.covers(e);
            let stays = covered && !e.spared && random.coin();
            e.spared |= stays;
            stayed += u64::from(stays);
            !covered || stays
        });
        stayed
    }
}
