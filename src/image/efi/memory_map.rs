//! Which memory is ours, by the firmware's map of it (UEFI specification 7.2, GetMemoryMap).
//!
//! What the application and the boot services used is free when they have been left. All else stays the firmware's and
//! is not even mapped: runtime services (nobody calls them, but secure firmware may know where they are), ACPI's tables,
//! what is reserved or broken, and memory for which a special purpose is asked.

use arrayvec::ArrayVec;
use strandline::addr::PAGE_BYTES;
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};

use crate::machine::{MAX_RAM, Region};

/// The memory of `map` that is ours, in whichever order `map` is: sorted, disjoint, neighbours merged. Where these are
/// more pieces than `ram` holds, the smallest are left out, and nobody uses them.
pub fn usable(map: impl Iterator<Item = MemoryDescriptor> + Clone, ram: &mut ArrayVec<Region, MAX_RAM>) {
    let ours = map.filter_map(|descriptor| region(&descriptor));
    let mut at = 0;
    // The next piece at or above `at`: descriptors that overlap, which there should be none of, count once.
    while let Some(next) = ours.clone().filter(|r| r.start().0 >= at).min_by_key(|r| r.start()) {
        at = next.end().0;
        let joined = ram.last().filter(|last| last.end() == next.start());
        match joined.and_then(|last| Region::between(last.start().0, at)) {
            Some(both) => {
                ram.pop();
                ram.push(both);
            }
            None => add(ram, next),
        }
    }
}

/// Appends; in a full list in place of a smaller piece, if there is one.
fn add(ram: &mut ArrayVec<Region, MAX_RAM>, piece: Region) {
    if ram.is_full() {
        let smallest = ram.iter().enumerate().min_by_key(|(_, r)| r.bytes());
        match smallest.filter(|(_, r)| r.bytes() < piece.bytes()).map(|(index, _)| index) {
            Some(index) => ram.remove(index),
            None => return,
        };
    }
    ram.push(piece);
}

/// The memory of a descriptor, where it is ours.
fn region(descriptor: &MemoryDescriptor) -> Option<Region> {
    let ours = matches!(
        descriptor.ty,
        MemoryType::LOADER_CODE
            | MemoryType::LOADER_DATA
            | MemoryType::BOOT_SERVICES_CODE
            | MemoryType::BOOT_SERVICES_DATA
            | MemoryType::CONVENTIONAL
    );
    let attributes = descriptor.att;
    if !ours
        || !attributes.contains(MemoryAttribute::WRITE_BACK)
        || attributes.intersects(MemoryAttribute::RUNTIME | MemoryAttribute::SPECIAL_PURPOSE)
    {
        return None;
    }
    Region::new(descriptor.phys_start, descriptor.page_count.checked_mul(PAGE_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(ty: MemoryType, start: u64, pages: u64) -> MemoryDescriptor {
        let att = MemoryAttribute::WRITE_BACK | MemoryAttribute::UNCACHEABLE;
        MemoryDescriptor { ty, phys_start: start, page_count: pages, att, ..MemoryDescriptor::default() }
    }

    fn ours(map: &[MemoryDescriptor]) -> Vec<Region> {
        let mut ram = ArrayVec::new();
        usable(map.iter().copied(), &mut ram);
        ram.to_vec()
    }

    fn region(start: u64, bytes: u64) -> Region {
        Region::new(start, bytes).unwrap()
    }

    #[test]
    fn what_boot_services_and_application_used_is_ours_in_one_piece() {
        let map = [
            descriptor(MemoryType::BOOT_SERVICES_DATA, 0x4010_0000, 0x100),
            descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, 0x100),
            descriptor(MemoryType::LOADER_DATA, 0x4030_0000, 0x10),
            descriptor(MemoryType::LOADER_CODE, 0x4031_0000, 0xf0),
            descriptor(MemoryType::BOOT_SERVICES_CODE, 0x4020_0000, 0x100),
        ];
        assert_eq!(ours(&map), [region(0x4000_0000, 0x40_0000)]);
    }

    #[test]
    fn what_firmware_keeps_is_left_out() {
        for ty in [
            MemoryType::RESERVED,
            MemoryType::RUNTIME_SERVICES_CODE,
            MemoryType::RUNTIME_SERVICES_DATA,
            MemoryType::UNUSABLE,
            MemoryType::ACPI_RECLAIM,
            MemoryType::ACPI_NON_VOLATILE,
            MemoryType::MMIO,
            MemoryType::MMIO_PORT_SPACE,
            MemoryType::PAL_CODE,
            MemoryType::PERSISTENT_MEMORY,
            MemoryType::UNACCEPTED,
            MemoryType(0x7000_0000),
            MemoryType(0x8000_0000),
        ] {
            let map = [
                descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, 0x100),
                descriptor(ty, 0x4010_0000, 0x100),
                descriptor(MemoryType::CONVENTIONAL, 0x4020_0000, 0x100),
            ];
            assert_eq!(
                ours(&map),
                [region(0x4000_0000, 0x10_0000), region(0x4020_0000, 0x10_0000)],
                "{ty:?}"
            );
        }
    }

    #[test]
    fn memory_that_is_not_write_back_or_has_a_purpose_is_left_out() {
        let plain = descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, 1);
        let with = |att| ours(&[MemoryDescriptor { att, ..plain }]).len();
        assert_eq!(with(MemoryAttribute::WRITE_BACK), 1);
        assert_eq!(with(MemoryAttribute::UNCACHEABLE), 0);
        assert_eq!(with(MemoryAttribute::WRITE_BACK | MemoryAttribute::SPECIAL_PURPOSE), 0);
        assert_eq!(with(MemoryAttribute::WRITE_BACK | MemoryAttribute::RUNTIME), 0);
    }

    #[test]
    fn descriptors_that_make_no_sense_are_left_out() {
        let nothing = descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, 0);
        let wraps = descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, u64::MAX);
        let last = descriptor(MemoryType::CONVENTIONAL, 0xffff_ffff_ffff_f000, 1);
        assert_eq!(ours(&[nothing, wraps, last]), []);
    }

    #[test]
    fn overlapping_descriptors_count_once() {
        let map = [
            descriptor(MemoryType::CONVENTIONAL, 0x4000_0000, 4),
            descriptor(MemoryType::CONVENTIONAL, 0x4000_1000, 8),
        ];
        assert_eq!(ours(&map), [region(0x4000_0000, 0x4000)]);
    }

    #[test]
    fn of_too_many_pieces_the_largest_stay() {
        // Every second one has two pages.
        let pieces = 2 * MAX_RAM as u64;
        let map: Vec<_> =
            (0..pieces).map(|n| descriptor(MemoryType::CONVENTIONAL, n * 0x1_0000, 1 + n % 2)).collect();
        let kept = ours(&map);
        assert_eq!(kept.len(), MAX_RAM);
        assert!(kept.iter().all(|r| r.bytes() == 0x2000), "{kept:?}");
        assert!(kept.is_sorted_by_key(|r| r.start()));
    }
}
