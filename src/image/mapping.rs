//! EL2's stage-1 tables, as data: identity, 4 KiB granule, four levels, the largest blocks that fit.
//!
//! Written for tables that nobody walks yet, while the MMU and the caches are off: plain stores into a pool of fixed
//! size. `aarch64-paging`, which is made for this, changes descriptors by atomic swaps, and those need cacheable
//! memory, that is, the MMU on already; EL2 maps itself once and never changes that again.

use core::fmt;

use strandline::addr::PAGE_BYTES;

/// Descriptors of a table.
const ENTRIES: usize = 512;
/// The level with 4 KiB pages.
const LAST_LEVEL: u32 = 3;
/// Addresses are below this: what four levels translate.
const END: u64 = 1 << 48;

/// A translation table.
#[repr(C, align(4096))]
pub struct Table([u64; ENTRIES]);

impl Table {
    /// A table that translates nothing.
    pub const EMPTY: Self = Self([0; ENTRIES]);
}

/// What software may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: not mapped.
    None,
    /// Cacheable memory, executed and read.
    Code,
    /// Cacheable memory, read.
    Constant,
    /// Cacheable memory, read and written.
    Data,
    /// Device registers (Device-nGnRE), read and written.
    Device,
}

/// Index into MAIR_EL2 of cacheable memory: Normal, inner and outer write-back, read- and write-allocate.
pub const MAIR_NORMAL: u64 = 0;
/// Index into MAIR_EL2 of device memory: Device-nGnRE.
pub const MAIR_DEVICE: u64 = 1;

/// Fields of a stage-1 descriptor of a regime with one privilege level (Arm ARM D8.3.1, D8.3.2).
mod field {
    pub const VALID: u64 = 1;
    /// A table (levels 0–2) or a page (level 3); clear in a block.
    pub const TABLE_OR_PAGE: u64 = 1 << 1;
    pub const ATTR_INDEX_SHIFT: u32 = 2;
    /// AP\[1\] is RES1 in this regime.
    pub const AP_RES1: u64 = 1 << 6;
    /// AP\[2\]: read-only.
    pub const READ_ONLY: u64 = 1 << 7;
    pub const INNER_SHAREABLE: u64 = 0b11 << 8;
    /// The access flag: without it the first access would fault.
    pub const ACCESSED: u64 = 1 << 10;
    pub const EXECUTE_NEVER: u64 = 1 << 54;
    pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
}

impl Access {
    /// The attributes of a leaf; 0 (invalid) for [`Access::None`].
    const fn attributes(self) -> u64 {
        let leaf = field::VALID | field::AP_RES1 | field::ACCESSED;
        let normal = leaf | MAIR_NORMAL << field::ATTR_INDEX_SHIFT | field::INNER_SHAREABLE;
        match self {
            Self::None => 0,
            Self::Code => normal | field::READ_ONLY,
            Self::Constant => normal | field::READ_ONLY | field::EXECUTE_NEVER,
            Self::Data => normal | field::EXECUTE_NEVER,
            Self::Device => leaf | MAIR_DEVICE << field::ATTR_INDEX_SHIFT | field::EXECUTE_NEVER,
        }
    }
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// All tables of the pool are in use; carries how many there are.
    OutOfTables(usize),
    /// The range is not page-aligned, or passes 2^48.
    Range(u64, u64),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfTables(count) => {
                write!(
                    f,
                    "EL2's own mapping needs more than its {count} tables: memory or devices too scattered"
                )
            }
            Self::Range(start, end) => write!(f, "EL2 cannot map {start:#x}..{end:#x}"),
        }
    }
}

/// A tree under construction in a pool of tables, the first of which is the root (level 0).
pub struct Mapping<'p> {
    pool: &'p mut [Table],
    /// What a walker calls the address of the pool.
    pool_address: u64,
    used: usize,
}

impl<'p> Mapping<'p> {
    /// A tree that maps nothing, in `pool`, which a walker finds at `pool_address`.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn new(pool: &'p mut [Table], pool_address: u64) -> Result<Self, MapError> {
        let root = pool.first_mut().ok_or(MapError::OutOfTables(0))?;
        root.0 = [0; ENTRIES];
        Ok(Self { pool, pool_address, used: 1 })
    }

    /// The address of the root table.
    pub fn root(&self) -> u64 {
        self.pool_address
    }

    /// How many tables are in use.
    pub fn tables(&self) -> usize {
        self.used
    }

    /// Gives `start..end` the rights of `access`, whatever it had before.
    ///
    /// # Errors
    /// The range is not one of pages below 2^48, or the pool is used up; part of it may be mapped then.
    pub fn set(&mut self, start: u64, end: u64, access: Access) -> Result<(), MapError> {
        if !(start | end).is_multiple_of(PAGE_BYTES) || start > end || end > END {
            return Err(MapError::Range(start, end));
        }
        self.set_in(0, 0, start, end, access.attributes())
    }

    /// The same inside the table number `table`, of `level`, whose reach the range does not leave.
    fn set_in(
        &mut self,
        table: usize,
        level: u32,
        start: u64,
        end: u64,
        attributes: u64,
    ) -> Result<(), MapError> {
        let reach = entry_bytes(level);
        let mut at = start;
        while at < end {
            let entry_end = (at & !(reach - 1)) + reach;
            let piece_end = end.min(entry_end);
            let index = (at / reach) as usize % ENTRIES;
            if level > 0 && at.is_multiple_of(reach) && piece_end == entry_end {
                self.pool[table].0[index] = leaf(at, level, attributes);
            } else {
                let below = self.table_at(table, index, level)?;
                self.set_in(below, level + 1, at, piece_end, attributes)?;
            }
            at = piece_end;
        }
        Ok(())
    }

    /// The table that entry `index` of `table` points to; made, with what the entry mapped, where it is none yet.
    fn table_at(&mut self, table: usize, index: usize, level: u32) -> Result<usize, MapError> {
        let entry = self.pool[table].0[index];
        if entry & field::VALID != 0 && entry & field::TABLE_OR_PAGE != 0 {
            return Ok(((entry & field::ADDRESS) - self.pool_address) as usize / size_of::<Table>());
        }
        let count = self.pool.len();
        let new = self.pool.get_mut(self.used).ok_or(MapError::OutOfTables(count))?;
        let child_bytes = entry_bytes(level + 1);
        for (i, child) in new.0.iter_mut().enumerate() {
            let address = (entry & field::ADDRESS) + i as u64 * child_bytes;
            *child = leaf(address, level + 1, entry & !(field::ADDRESS | field::TABLE_OR_PAGE));
        }
        let number = self.used;
        self.used += 1;
        let address = self.pool_address + (number * size_of::<Table>()) as u64;
        self.pool[table].0[index] = address | field::TABLE_OR_PAGE | field::VALID;
        Ok(number)
    }
}

/// The bytes that one descriptor of `level` translates.
const fn entry_bytes(level: u32) -> u64 {
    PAGE_BYTES << (9 * (LAST_LEVEL - level))
}

/// A leaf for `address`, or an invalid descriptor where `attributes` are those of no access.
const fn leaf(address: u64, level: u32, attributes: u64) -> u64 {
    if attributes & field::VALID == 0 {
        return 0;
    }
    address | attributes | if level == LAST_LEVEL { field::TABLE_OR_PAGE } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: u64 = 0x4100_0000;

    fn pool(tables: usize) -> Vec<Table> {
        (0..tables).map(|_| Table::EMPTY).collect()
    }

    /// The leaf a walker finds for `address`, and its level.
    fn walk(pool: &[Table], address: u64) -> (u64, u32) {
        let mut table = 0;
        for level in 0..=3 {
            let entry = pool[table].0[(address >> (39 - 9 * level)) as usize & 511];
            if level == 3 || entry & 3 != 3 {
                return (entry, level);
            }
            table = ((entry & 0x0000_ffff_ffff_f000) - POOL) as usize / 4096;
        }
        unreachable!()
    }

    #[test]
    fn leaves_have_the_words_the_architecture_gives_them() {
        let mut tables = pool(8);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        mapping.set(0x4000_0000, 0x8000_0000, Access::Data).unwrap();
        mapping.set(0x0900_0000, 0x0900_1000, Access::Device).unwrap();
        mapping.set(0x4020_0000, 0x4020_1000, Access::Code).unwrap();
        mapping.set(0x4020_1000, 0x4020_2000, Access::Constant).unwrap();
        // 2 MiB of data: valid, AttrIndx 0, AP[1], SH inner, AF, XN (bit 54).
        assert_eq!(walk(&tables, 0x4040_0000), (0x0040_0000_4040_0741, 2));
        // A page adds bit 1; read-only adds AP[2] (0x80); device: AttrIndx 1 (0x4), SH 0.
        assert_eq!(walk(&tables, 0x4020_2000), (0x0040_0000_4020_2743, 3));
        assert_eq!(walk(&tables, 0x4020_0000), (0x0000_0000_4020_07c3, 3));
        assert_eq!(walk(&tables, 0x4020_1000), (0x0040_0000_4020_17c3, 3));
        assert_eq!(walk(&tables, 0x0900_0000), (0x0040_0000_0900_0447, 3));
        // Table descriptors: the second table of the pool is the first level-1 table.
        assert_eq!(tables[0].0[0], 0x4100_1003);
    }

    #[test]
    fn sixty_four_gib_take_no_table_beyond_level_one() {
        let mut tables = pool(2);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        mapping.set(0x4000_0000, 0x4000_0000 + (64 << 30), Access::Data).unwrap();
        assert_eq!((mapping.tables(), mapping.root()), (2, POOL));
        assert_eq!(walk(&tables, 0x10_4000_0000 - 1), (0x0040_0010_0000_0741, 1));
        assert_eq!(walk(&tables, 0x10_4000_0000), (0, 1));
    }

    #[test]
    fn ram_at_the_top_of_48_bits_is_mapped() {
        let mut tables = pool(3);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        mapping.set(0xffff_c000_0000, 0x1_0000_0000_0000, Access::Data).unwrap();
        assert_eq!(walk(&tables, 0xffff_ffff_ffff), (0x0040_ffff_c000_0741, 1));
    }

    #[test]
    fn hole_in_a_block_splits_it_and_keeps_the_rest() {
        let mut tables = pool(4);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        mapping.set(0x4000_0000, 0x8000_0000, Access::Data).unwrap();
        mapping.set(0x4020_3000, 0x4020_4000, Access::None).unwrap();
        assert_eq!(walk(&tables, 0x4020_2000), (0x0040_0000_4020_2743, 3));
        assert_eq!(walk(&tables, 0x4020_3000), (0, 3));
        assert_eq!(walk(&tables, 0x4020_4000), (0x0040_0000_4020_4743, 3));
        assert_eq!(walk(&tables, 0x4000_0000), (0x0040_0000_4000_0741, 2));
        assert_eq!(walk(&tables, 0x7fff_f000), (0x0040_0000_7fe0_0741, 2));
    }

    #[test]
    fn used_up_pool_is_an_error_that_says_how_large_it_was() {
        let mut tables = pool(2);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        assert_eq!(mapping.set(0x1000, 0x2000, Access::Data), Err(MapError::OutOfTables(2)));
    }

    #[test]
    fn range_that_is_unaligned_or_beyond_48_bits_is_refused() {
        let mut tables = pool(4);
        let mut mapping = Mapping::new(&mut tables, POOL).unwrap();
        for (start, end) in [(0x1001, 0x2000), (0x1000, 0x2001), (0x2000, 0x1000), (0, 0x1_0000_0000_1000)] {
            assert_eq!(mapping.set(start, end, Access::Data), Err(MapError::Range(start, end)));
        }
    }
}
