//! Stage-2 tables of three levels, 4 KiB granule, written by hand (Arm ARM D8.3).

use guest_rt::window::Window;

/// Bytes a level-3 descriptor maps.
pub const PAGE: u64 = 1 << 12;
/// Bytes a level-2 block descriptor maps.
pub const BLOCK: u64 = 1 << 21;
/// Bytes a level-1 block descriptor maps.
pub const GIBIBYTE: u64 = 1 << 30;

/// AF: the Access flag.
pub const AF: u64 = 1 << 10;
/// S2AP\[0\]: may be read.
const READ: u64 = 1 << 6;
/// S2AP\[1\]: may be written; is dirty, where DBM is set.
pub const DIRTY: u64 = 1 << 7;
/// DBM: may be written, and hardware records that.
const DBM: u64 = 1 << 51;
/// Normal write-back memory, inner shareable.
const MEMORY: u64 = 0b11 << 8 | 0b1111 << 2;
const PAGE_TYPE: u64 = 0b11;
const BLOCK_TYPE: u64 = 0b01;

/// What a leaf permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// DBM = 0, S2AP = 01, AF = 1.
    ReadOnly,
    /// DBM = 1, S2AP = 01, AF = 1.
    Clean,
    /// DBM = 1, S2AP = 01, AF = 0.
    Unused,
    /// DBM = 1, S2AP = 11, AF = 1.
    Dirty,
}

impl Leaf {
    const fn bits(self) -> u64 {
        MEMORY
            | READ
            | match self {
                Self::ReadOnly => AF,
                Self::Clean => DBM | AF,
                Self::Unused => DBM,
                Self::Dirty => DBM | AF | DIRTY,
            }
    }

    /// The level-3 descriptor of the page at `pa`.
    #[must_use]
    pub const fn page(self, pa: u64) -> u64 {
        pa | self.bits() | PAGE_TYPE
    }

    /// The level-1 or level-2 descriptor of the block at `pa`.
    #[must_use]
    pub const fn block(self, pa: u64) -> u64 {
        pa | self.bits() | BLOCK_TYPE
    }
}

/// A table descriptor of the table at `pa`.
#[must_use]
pub const fn table(pa: u64) -> u64 {
    pa | 0b11
}

/// A descriptor in memory.
#[derive(Clone, Copy)]
pub struct Slot {
    table: Window,
    offset: u64,
}

impl Slot {
    /// The descriptor of `address` in `table`, each of whose descriptors maps `bytes`.
    #[must_use]
    pub const fn of(table: Window, address: u64, bytes: u64) -> Self {
        Self { table, offset: address / bytes % 512 * 8 }
    }

    /// Writes it.
    pub fn set(self, descriptor: u64) {
        self.table.write64(self.offset, descriptor);
    }

    /// Reads it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.table.read64(self.offset)
    }

    /// Whether it says that it was written through.
    #[must_use]
    pub fn is_dirty(self) -> bool {
        self.get() & DIRTY != 0
    }
}
