//! Stage-2 descriptor words of the 4 KiB granule (Arm ARM D8.3, VMSAv8-64; the SMMU walks the same format,
//! IHI 0070 §3.4).

use crate::addr::Pa;

/// Bit 0: the entry is valid.
pub const VALID: u64 = 1 << 0;
/// Bit 1: a table (levels 0 to 2) or a page (level 3); 0 is a block.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 5:2, MemAttr: the memory type.
const MEM_ATTR_SHIFT: u32 = 2;
/// MemAttr of Normal memory, inner and outer write-back cacheable.
const MEM_ATTR_NORMAL_WB: u64 = 0b1111;
/// MemAttr of Device-nGnRE memory.
const MEM_ATTR_DEVICE_NGNRE: u64 = 0b0001;
/// Bit 6, S2AP\[0\]: reads are allowed.
pub const S2AP_READ: u64 = 1 << 6;
/// Bit 7, S2AP\[1\]: writes are allowed; with [`DBM`] the dirty state.
pub const S2AP_WRITE: u64 = 1 << 7;
/// Bits 9:8, SH: inner shareable.
const SH_INNER: u64 = 0b11 << 8;
/// Bit 10, AF: the entry may be cached in a TLB. Always set here in leaves; in a table descriptor it says, where hardware
/// keeps it there (FEAT_HAFT), that a walk has gone through the table since it was cleared.
pub const AF: u64 = 1 << 10;
/// Bit 55 of a table descriptor, which hardware ignores (Arm ARM D8.3.1): the harvest before this one has cleared AF.
pub const AF_CLEARED: u64 = 1 << 55;
/// Bits 58:56 of a table descriptor, which hardware ignores (Arm ARM D8.3.1): for how many passes of an adaptive log the
/// table has been clean.
pub const COLD: u64 = 0b111 << COLD_SHIFT;
/// Where [`COLD`] begins.
pub const COLD_SHIFT: u32 = 56;
/// Bit 16, nT, in block descriptors only (an address bit in pages).
pub const BLOCK_NT: u64 = 1 << 16;
/// Bit 51, DBM: hardware may set S2AP\[1\] on a write.
pub const DBM: u64 = 1 << 51;
/// Bit 52: one of 16 adjacent entries that may share a TLB entry. Never set here.
pub const CONTIGUOUS: u64 = 1 << 52;
/// Bits 54:53, XN: 0b10 forbids execution at EL1 and EL0.
const XN_ALL: u64 = 0b10 << 53;
/// Output address of a table, or of a page: bits 47:12.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Bytes one entry of a table at `level` translates.
#[must_use]
pub const fn entry_bytes(level: u8) -> u64 {
    1 << entry_shift(level)
}

/// `log2` of [`entry_bytes`].
#[must_use]
pub const fn entry_shift(level: u8) -> u32 {
    12 + 9 * (3 - level as u32)
}

/// The memory type of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM: Normal, write-back, inner shareable, executable.
    Ram,
    /// Device registers (and MSI doorbells): Device-nGnRE, never executable, never part of a log.
    Device,
}

/// What a mapping permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The memory type.
    pub kind: MemoryKind,
    /// Whether it may be written.
    pub writable: bool,
}

impl Rights {
    /// RAM that may be written: what a log is about.
    pub const RAM: Self = Self { kind: MemoryKind::Ram, writable: true };
    /// Device registers.
    pub const DEVICE: Self = Self { kind: MemoryKind::Device, writable: true };
}

/// The dirty state of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafState {
    /// DBM=0, S2AP\[1\]=0: it may not be written.
    ReadOnly,
    /// DBM=1, S2AP\[1\]=0: not written since it was cleaned.
    WritableClean,
    /// DBM=1, S2AP\[1\]=1: written, or not logged.
    WritableDirty,
}

/// The word of a table descriptor for the next-level table at `table`, a 4 KiB-aligned address.
#[must_use]
pub const fn table(table: Pa) -> u64 {
    table.0 & ADDRESS | TABLE_OR_PAGE | VALID
}

/// The word of a leaf at `level` (1 to 3) for `pa`, which is aligned to the leaf's size. A writable leaf is
/// writable-dirty.
#[must_use]
pub const fn leaf(level: u8, pa: Pa, rights: Rights) -> u64 {
    let shape = if level == 3 { TABLE_OR_PAGE | VALID } else { VALID };
    let kind = match rights.kind {
        MemoryKind::Ram => MEM_ATTR_NORMAL_WB << MEM_ATTR_SHIFT | SH_INNER,
        MemoryKind::Device => MEM_ATTR_DEVICE_NGNRE << MEM_ATTR_SHIFT | XN_ALL,
    };
    let write = if rights.writable { DBM | S2AP_WRITE } else { 0 };
    pa.0 & ADDRESS | shape | kind | S2AP_READ | AF | write
}

/// `word`, a leaf, in another dirty state. A read-only leaf stays what it is.
#[must_use]
pub const fn with_state(word: u64, state: LeafState) -> u64 {
    if word & DBM == 0 {
        return word;
    }
    match state {
        LeafState::WritableDirty => word | S2AP_WRITE,
        LeafState::WritableClean | LeafState::ReadOnly => word & !S2AP_WRITE,
    }
}

/// What an entry of a table is: the open word as a closed view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped.
    Absent,
    /// The next level's table.
    Table(Pa),
    /// A block or page.
    Leaf(Leaf),
}

impl Entry {
    /// The entry that `word` is at `level`.
    #[must_use]
    pub const fn at(level: u8, word: u64) -> Self {
        let table_or_page = word & TABLE_OR_PAGE != 0;
        match (word & VALID != 0, level, table_or_page) {
            (false, _, _) | (_, 3, false) | (_, 0, false) => Self::Absent,
            (true, 0..=2, true) => Self::Table(Pa(word & ADDRESS)),
            _ => Self::Leaf(Leaf { level, word }),
        }
    }
}

/// A valid block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The level it stands at, 1 to 3.
    pub level: u8,
    /// The descriptor.
    pub word: u64,
}

impl Leaf {
    /// Where it translates to.
    #[must_use]
    pub const fn pa(self) -> Pa {
        Pa(self.word & ADDRESS & !(entry_bytes(self.level) - 1))
    }

    /// Whether it is a block with nT set.
    #[must_use]
    pub const fn has_nt(self) -> bool {
        self.level < 3 && self.word & BLOCK_NT != 0
    }

    /// What it permits.
    #[must_use]
    pub const fn rights(self) -> Rights {
        let attr = self.word >> MEM_ATTR_SHIFT & 0b1111;
        let kind = if attr == MEM_ATTR_NORMAL_WB { MemoryKind::Ram } else { MemoryKind::Device };
        Rights { kind, writable: self.word & DBM != 0 }
    }

    /// Its dirty state.
    #[must_use]
    pub const fn state(self) -> LeafState {
        match (self.word & DBM != 0, self.word & S2AP_WRITE != 0) {
            (false, _) => LeafState::ReadOnly,
            (true, false) => LeafState::WritableClean,
            (true, true) => LeafState::WritableDirty,
        }
    }

    /// Whether a log says anything about it: writable RAM.
    #[must_use]
    pub const fn is_logged(self) -> bool {
        is_logged(self.word)
    }
}

/// What a leaf has set, all of it, whose writes are logged ([`Leaf::is_logged`]).
pub(crate) const LOGGED: u64 = DBM | MEM_ATTR_NORMAL_WB << MEM_ATTR_SHIFT;
// One comparison tells, since the memory type of RAM is all ones.
const _: () = assert!(MEM_ATTR_NORMAL_WB == 0b1111);

/// [`Leaf::is_logged`] of a word known to be a leaf.
#[must_use]
pub const fn is_logged(word: u64) -> bool {
    word & LOGGED == LOGGED
}

#[cfg(test)]
mod tests {
    use super::*;

    const RO: Rights = Rights { kind: MemoryKind::Ram, writable: false };

    #[test]
    fn words_are_those_worked_out_from_the_specification() {
        let pa = Pa(0x4000_0000);
        assert_eq!(table(Pa(0x4000_3000)), 0x0000_0000_4000_3003);
        // DBM | address | AF | SH=11 | S2AP=11 | MemAttr=1111 | page
        assert_eq!(leaf(3, pa, Rights::RAM), 0x0008_0000_4000_07ff);
        assert_eq!(leaf(2, pa, Rights::RAM), 0x0008_0000_4000_07fd);
        assert_eq!(leaf(1, pa, Rights::RAM), 0x0008_0000_4000_07fd);
        assert_eq!(with_state(leaf(3, pa, Rights::RAM), LeafState::WritableClean), 0x0008_0000_4000_077f);
        assert_eq!(with_state(leaf(2, pa, Rights::RAM), LeafState::WritableClean), 0x0008_0000_4000_077d);
        assert_eq!(leaf(3, pa, RO), 0x0000_0000_4000_077f);
        // XN=10 | DBM | AF | SH=00 | S2AP=11 | MemAttr=0001 | page
        assert_eq!(leaf(3, Pa(0x900_0000), Rights::DEVICE), 0x0048_0000_0900_04c7);
        assert_eq!(leaf(3, Pa(0xffff_ffff_f000), Rights::RAM), 0x0008_ffff_ffff_f7ff);
    }

    #[test]
    fn what_a_leaf_permits_is_what_it_was_made_for() {
        let rights = |level, rights| match Entry::at(level, leaf(level, Pa(0x4000_0000), rights)) {
            Entry::Leaf(leaf) => leaf.rights(),
            _ => panic!("no leaf"),
        };
        for level in 1..=3 {
            assert_eq!(
                [RO, Rights::RAM, Rights::DEVICE].map(|r| rights(level, r)),
                [RO, Rights::RAM, Rights::DEVICE]
            );
        }
    }

    #[test]
    fn each_constant_is_the_bit_the_specification_names() {
        assert_eq!(
            (VALID, TABLE_OR_PAGE, S2AP_READ, S2AP_WRITE, AF, BLOCK_NT, DBM, CONTIGUOUS),
            (0x1, 0x2, 0x40, 0x80, 0x400, 0x1_0000, 0x0008_0000_0000_0000, 0x0010_0000_0000_0000)
        );
        assert_eq!((AF_CLEARED, COLD), (0x0080_0000_0000_0000, 0x0700_0000_0000_0000));
    }

    #[test]
    fn an_entry_is_read_by_its_level() {
        assert_eq!(Entry::at(1, 0x4000_3003), Entry::Table(Pa(0x4000_3000)));
        // AF, and what software keeps in a table descriptor, are no part of the address.
        assert_eq!(Entry::at(2, 0x0080_0000_4000_3403), Entry::Table(Pa(0x4000_3000)));
        assert_eq!(Entry::at(3, 0x4000_3002), Entry::Absent);
        // Reserved encodings translate nothing: a block at level 3 and at level 0.
        assert_eq!(Entry::at(3, 0x0008_0000_4000_07fd), Entry::Absent);
        assert_eq!(Entry::at(0, 0x0008_0000_4000_07fd), Entry::Absent);
        let Entry::Leaf(page) = Entry::at(3, 0x0008_0000_4000_377f) else { panic!("a page") };
        assert_eq!(
            (page.pa(), page.state(), page.rights()),
            (Pa(0x4000_3000), LeafState::WritableClean, Rights::RAM)
        );
        // A block's address excludes nT (bit 16) and whatever else stands below its size.
        let Entry::Leaf(block) = Entry::at(2, 0x0008_0000_4020_07fd | BLOCK_NT) else { panic!("a block") };
        assert_eq!((block.pa(), block.state()), (Pa(0x4020_0000), LeafState::WritableDirty));
    }

    #[test]
    fn a_leaf_without_dbm_is_never_cleaned_and_device_memory_never_logged() {
        let read_only = leaf(3, Pa(0x1000), RO);
        assert_eq!(with_state(read_only, LeafState::WritableClean), read_only);
        assert_eq!(with_state(read_only, LeafState::WritableDirty), read_only);
        assert!(!is_logged(read_only) && !is_logged(leaf(3, Pa(0x1000), Rights::DEVICE)));
        assert!(is_logged(leaf(3, Pa(0x1000), Rights::RAM)));
    }
}
