//! The bundle: where a boot loader says that an initial ramdisk lies, or where the EFI application has put it.

use super::*;
use crate::handover::Handover;
use crate::machine::{MAX_RAM, ModuleKind};
use arrayvec::ArrayVec;

const START: &str = "linux,initrd-start";
const END: &str = "linux,initrd-end";

/// A tree with an initial ramdisk, in addresses of two cells.
fn with_initrd(start: u64, end: u64) -> TestTree {
    virt().set("/chosen", START, start).set("/chosen", END, end)
}

fn bundles(machine: &Machine) -> Vec<Region> {
    machine.modules.iter().filter(|m| m.kind == ModuleKind::Bundle).map(|m| m.region).collect()
}

/// As the EFI application hands over, with RAM elsewhere than the tree says.
fn handed_over(tree: &TestTree) -> Result<Machine, TreeError> {
    let ram: ArrayVec<Region, MAX_RAM> =
        [region(0x4000_0000, 0x1000_0000), region(0x5100_0000, 0x1000_0000)].into_iter().collect();
    let tree = Tree::new(tree.blob())?;
    let mut machine = basics(tree)?;
    machine.take_over(&Handover { ram, bundle: region(0x5200_0000, 0x1234) });
    machine.read_lists(tree, region(0x4800_0000, 0x1_0000), region(0x4020_0000, 0x10_0000))?;
    Ok(machine)
}

#[test]
fn initial_ramdisk_is_the_bundle() {
    let machine = with_initrd(0x6000_0000, 0x6000_1234).read().unwrap();
    assert_eq!(bundles(&machine), [region(0x6000_0000, 0x1234)]);
    assert!(!machine.free.iter().any(|r| r.overlaps(region(0x6000_0000, 0x1234))));
}

#[test]
fn addresses_of_one_cell_are_understood_too() {
    let tree = virt().set("/chosen", START, 0x6000_0000_u32).set("/chosen", END, 0x6000_1234_u32);
    assert_eq!(bundles(&tree.read().unwrap()), [region(0x6000_0000, 0x1234)]);
}

#[test]
fn loader_that_reserves_what_it_hands_over_is_no_conflict() {
    let machine = with_initrd(0x6000_0000, 0x6000_1234).reserve(0x6000_0000, 0x2000).read().unwrap();
    assert_eq!(bundles(&machine), [region(0x6000_0000, 0x1234)]);
}

#[test]
fn reservation_that_cuts_through_a_bundle_is_a_conflict() {
    let tree = with_initrd(0x6000_0000, 0x6000_1234).reserve(0x6000_1000, 0x2000);
    assert_eq!(
        tree.error(),
        "device tree: bundle 0x60000000..0x60001234 overlaps /memreserve/ 0x60001000..0x60003000"
    );
}

#[test]
fn bundle_outside_ram_or_on_top_of_something_is_refused() {
    let outside = with_initrd(0xc000_0000, 0xc000_1000).error();
    assert_eq!(outside, "device tree: bundle 0xc0000000..0xc0001000 is not in RAM");
    let on_image = with_initrd(0x4020_0000, 0x4020_1000).error();
    assert!(on_image.contains("overlaps image of EL2"), "{on_image}");
}

#[test]
fn addresses_that_make_no_sense_are_refused_by_property() {
    let backwards = with_initrd(0x6000_1000, 0x6000_1000).error();
    assert_eq!(backwards, "device tree: chosen: linux,initrd-end: is not above linux,initrd-start");
    let half = virt().set("/chosen", START, 0x6000_0000_u64).error();
    assert_eq!(half, "device tree: chosen: linux,initrd-end: is not an address");
    let long = virt().set("/chosen", START, [0_u32; 3].as_slice()).set("/chosen", END, 1_u64).error();
    assert_eq!(long, "device tree: chosen: linux,initrd-start: is not an address");
}

#[test]
fn firmwares_word_on_ram_goes_before_the_trees() {
    let machine = handed_over(&virt()).unwrap();
    assert_eq!(machine.ram.as_slice(), [region(0x4000_0000, 0x1000_0000), region(0x5100_0000, 0x1000_0000)]);
    assert_eq!(bundles(&machine), [region(0x5200_0000, 0x1234)]);
    assert!(machine.dirty_caches);
    assert!(!virt().read().unwrap().dirty_caches);
}

#[test]
fn bundle_that_was_handed_over_is_the_only_one() {
    let machine = handed_over(&with_initrd(0x6000_0000, 0x6000_1234)).unwrap();
    assert_eq!(bundles(&machine), [region(0x5200_0000, 0x1234)]);
}

#[test]
fn reservations_of_the_tree_hold_under_firmware_too() {
    let machine = handed_over(&virt().reserve(0x5a00_0000, 0x1000)).unwrap();
    assert!(!machine.free.iter().any(|r| r.overlaps(region(0x5a00_0000, 0x1000))));
}
