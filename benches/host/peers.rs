//! The published crates that make and walk tables of the same format, on the same frames.
#![expect(unsafe_code, reason = "their traits ask for pointers")]

use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::sync::OnceLock;
use std::time::Duration;

use aarch64_paging::descriptor::{Descriptor, PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, RootTable, Stage2, Translation};
use benches::clock::time;
use benches::machine::Machine;
use page_table_generic::{
    FrameAllocator, MapConfig, PageTable as GenericTable, PageTableEntry, PhysAddr, TableMeta, VirtAddr,
};
use strandline::addr::Pa;
use strandline::frames::{FrameBlock, Frames};
use strandline::hw::Memory;
use strandline::stage2::Rights;
use strandline::stage2::descriptor::{self, S2AP_WRITE};

/// Where the mapping is.
const BASE: usize = 1 << 30;
/// The memory of both: they keep no reference to an allocator.
static MACHINE: OnceLock<Shared> = OnceLock::new();

struct Shared(Machine);

// SAFETY: the benchmark has one thread.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

fn machine() -> &'static Machine {
    &MACHINE.get_or_init(|| Shared(Machine::new(8 << 20))).0
}

fn frame() -> u64 {
    let frame = machine().alloc(0).expect("8 MiB are enough for 1 GiB by pages").into_pa();
    machine().fill(frame, 512, |_| 0);
    frame.0
}

fn give_back(frame: u64) {
    machine().free(FrameBlock::new(Pa(frame), 0).expect("it was a frame"));
}

/// Frames for `aarch64-paging`.
struct Linear;

impl Translation<Stage2Attributes> for Linear {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let frame = PhysicalAddress(frame() as usize);
        (self.physical_to_virtual(frame), frame)
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<Stage2Attributes>>) {
        give_back(table.addr().get() as u64);
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        NonNull::new(with_exposed_provenance_mut(pa.0)).expect("a frame")
    }
}

const RAM: Stage2Attributes = Stage2Attributes::VALID
    .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
    .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
    .union(Stage2Attributes::S2AP_ACCESS_RW)
    .union(Stage2Attributes::SH_INNER)
    .union(Stage2Attributes::ACCESS_FLAG);

/// `aarch64-paging` with `bytes` mapped by pages.
pub struct Aarch64Paging {
    root: RootTable<Stage2, Linear>,
    region: MemoryRegion,
}

impl Aarch64Paging {
    /// Makes the tables; says how long that took.
    pub fn map(bytes: u64) -> (Self, Duration) {
        let region = MemoryRegion::new(BASE, BASE + bytes as usize);
        let mut root = RootTable::new(Linear, 1, Stage2);
        let constraints = Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT;
        let taken = time(|| {
            root.map_range(&region, PhysicalAddress(BASE), RAM, constraints).expect("free addresses");
        });
        (Self { root, region }, taken)
    }

    /// Visits every leaf, and looks whether it may be written.
    pub fn walk(&self) -> Duration {
        let mut writable = 0_u64;
        let mut visit = |_: &MemoryRegion, descriptor: &Descriptor<Stage2Attributes>, _| {
            writable += u64::from(descriptor.flags().contains(Stage2Attributes::S2AP_ACCESS_WO));
            Ok(())
        };
        let taken = time(|| self.root.walk_range(&self.region, &mut visit).expect("it is all mapped"));
        assert_eq!(writable, self.region.len() as u64 >> 12, "pages seen");
        taken
    }
}

/// A stage-2 descriptor for `page-table-generic`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Stage2Entry(u64);

impl PageTableEntry for Stage2Entry {
    type PteConfig = Rights;

    fn new_page(paddr: PhysAddr, config: Rights, is_huge: bool) -> Self {
        Self(descriptor::leaf(if is_huge { 2 } else { 3 }, Pa(paddr.as_usize() as u64), config))
    }

    fn new_table(paddr: PhysAddr) -> Self {
        Self(descriptor::table(Pa(paddr.as_usize() as u64)))
    }

    fn paddr(&self, _is_dir: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & 0x0000_ffff_ffff_f000) as usize)
    }

    fn config(&self, _is_dir: bool) -> Rights {
        Rights::RAM
    }

    fn present(&self) -> bool {
        self.0 & descriptor::VALID != 0
    }

    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & descriptor::TABLE_OR_PAGE == 0 && self.present()
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

#[derive(Clone, Copy)]
struct Meta;

impl TableMeta for Meta {
    type P = Stage2Entry;

    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    fn flush(_vaddr: Option<VirtAddr>) {}
}

/// Frames for `page-table-generic`.
#[derive(Clone)]
struct Pool;

impl FrameAllocator for Pool {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(frame() as usize))
    }

    fn dealloc_frame(&self, frame: PhysAddr) {
        give_back(frame.as_usize() as u64);
    }

    fn phys_to_virt(&self, paddr: PhysAddr) -> *mut u8 {
        with_exposed_provenance_mut(paddr.as_usize())
    }
}

/// `page-table-generic` with `bytes` mapped by pages.
pub struct Generic {
    table: GenericTable<Meta, Pool>,
    pages: u64,
}

impl Generic {
    /// Makes the tables; says how long that took.
    pub fn map(bytes: u64) -> (Self, Duration) {
        let mut table = GenericTable::new(Pool).expect("a frame");
        let config = MapConfig {
            vaddr: BASE.into(),
            paddr: BASE.into(),
            size: bytes as usize,
            pte: Rights::RAM,
            allow_huge: false,
            flush: false,
        };
        let taken = time(|| table.map(&config).expect("free addresses"));
        (Self { table, pages: bytes >> 12 }, taken)
    }

    /// Visits every leaf, and looks whether it may be written.
    pub fn walk(&self) -> Duration {
        let end = BASE + (self.pages << 12) as usize;
        let mut writable = 0;
        let taken = time(|| {
            let leaves = self.table.walk(BASE.into(), end.into()).filter(|entry| entry.is_final_mapping);
            writable = leaves.filter(|leaf| leaf.pte.0 & S2AP_WRITE != 0).count();
        });
        assert_eq!(writable as u64, self.pages, "pages seen");
        taken
    }
}
