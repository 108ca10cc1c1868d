//! What is read from trees that are right.

use strandline::addr::{Pa, StreamId};

use super::*;
use crate::machine::{Interrupt, ModuleKind, Trigger, Window, WindowKind};

#[test]
fn machine_is_what_the_tree_says() {
    let machine = virt().read().unwrap();
    assert_eq!(machine.ram.as_slice(), [region(0x4000_0000, 0x8000_0000)]);
    assert_eq!(machine.ram_bytes(), 2 << 30);
    assert_eq!(machine.psci, Some(Conduit::Smc));
    assert_eq!(machine.gic.distributor, region(0x800_0000, 0x1_0000));
    assert_eq!(machine.gic.redistributors.as_slice(), [region(0x80a_0000, 0xf6_0000)]);
    assert_eq!(machine.timer, Interrupt { intid: 26, trigger: Trigger::Level });
    assert_eq!(machine.cpus, 2);
    assert!(machine.modules.is_empty());
}

#[test]
fn smmu_has_its_interrupts_by_name() {
    let machine = virt().read().unwrap();
    let smmu = machine.smmus.first().unwrap();
    assert_eq!(smmu.region, region(0x905_0000, 0x2_0000));
    assert!(smmu.coherent);
    assert_eq!((smmu.phandle, smmu.compatible), (Some(SMMU), "arm,smmu-v3"));
    // SPI 74 and 77; INTIDs of SPIs begin at 32.
    assert_eq!(smmu.event, Interrupt { intid: 106, trigger: Trigger::Edge });
    assert_eq!(smmu.gerror, Interrupt { intid: 109, trigger: Trigger::Edge });
}

#[test]
fn one_wire_of_an_smmu_may_stand_for_both_interrupts() {
    let names = ["combined", "priq"].as_slice();
    let smmu = virt().set("/smmuv3@9050000", "interrupt-names", names).read().unwrap().smmus[0];
    assert_eq!((smmu.event.intid, smmu.gerror.intid), (106, 106));
}

#[test]
fn smmu_that_is_not_called_coherent_is_not() {
    let smmu = virt().remove_property("/smmuv3@9050000", "dma-coherent").read().unwrap().smmus[0];
    assert!(!smmu.coherent);
}

#[test]
fn several_smmus_keep_the_order_of_the_tree_and_each_has_its_streams() {
    let second = smmu("smmuv3@9090000", 0x909_0000, 80).cells("phandle", &[8]);
    let map = [0, 8, 0x500, 0x100, 0x100, SMMU, 0x100, 0xff00_u32];
    let machine = virt().add("/", second).set("/pcie@10000000", "iommu-map", map.as_slice()).read().unwrap();
    let smmus: Vec<_> = machine.smmus.iter().map(|s| (s.region.start().0, s.event.intid)).collect();
    assert_eq!(smmus, [(0x905_0000, 106), (0x909_0000, 112)]);
    let host = &machine.pcie[0];
    assert_eq!(host.stream_of(0x08), Some((1, StreamId(0x508))));
    assert_eq!(host.stream_of(0x108), Some((0, StreamId(0x108))));
}

#[test]
fn pcie_host_has_its_windows_and_its_doorbell() {
    let machine = virt().read().unwrap();
    let host = machine.pcie.first().unwrap();
    assert_eq!(host.ecam, region(0x40_1000_0000, 0x1000_0000));
    assert_eq!((host.first_bus, host.last_bus), (0, 255));
    assert_eq!(
        host.windows.as_slice(),
        [
            Window { kind: WindowKind::Mem32, cpu: region(0x1000_0000, 0x2eff_0000), pci: 0x1000_0000 },
            Window {
                kind: WindowKind::Mem64,
                cpu: region(0x80_0000_0000, 0x80_0000_0000),
                pci: 0x80_0000_0000
            },
        ]
    );
    // GITS_TRANSLATER, in the ITS's second 64 KiB.
    assert_eq!(host.msi_doorbell, Some(Pa(0x809_0040)));
}

#[test]
fn doorbell_of_a_v2m_frame_is_its_setspi_register() {
    let v2m = node("v2m@8020000")
        .with("compatible", "arm,gic-v2m-frame")
        .with("reg", reg(&[(0x802_0000, 0x1000)]))
        .cells("phandle", &[9]);
    let tree = virt().add("/intc@8000000", v2m).remove_property("/pcie@10000000", "msi-map").set(
        "/pcie@10000000",
        "msi-parent",
        9_u32,
    );
    assert_eq!(tree.read().unwrap().pcie[0].msi_doorbell, Some(Pa(0x802_0040)));
}

#[test]
fn requester_becomes_the_stream_that_iommu_map_says() {
    let map = [0x100_u32, SMMU, 0x3000, 0x100];
    let machine = virt().set("/pcie@10000000", "iommu-map", map.as_slice()).read().unwrap();
    let host = &machine.pcie[0];
    assert_eq!(host.stream_of(0x0ff), None);
    assert_eq!(host.stream_of(0x100), Some((0, StreamId(0x3000))));
    assert_eq!(host.stream_of(0x1ff), Some((0, StreamId(0x30ff))));
}

#[test]
fn requesters_behind_an_smmu_that_is_switched_off_or_of_another_kind_have_no_stream() {
    let off = smmu("smmuv3@9090000", 0x909_0000, 80).cells("phandle", &[8]).with("status", "disabled");
    let older = node("smmu@9070000").with("compatible", "arm,mmu-500").cells("phandle", &[9]);
    let map = [0, 8, 0, 0x100, 0x100, 9, 0x100, 0x100, 0x200, SMMU, 0x200, 0xfe00_u32];
    let tree = virt().add("/", off).add("/", older).set("/pcie@10000000", "iommu-map", map.as_slice());
    let host = tree.read().unwrap().pcie[0].clone();
    assert_eq!([0x08, 0x108].map(|requester| host.stream_of(requester)), [None, None]);
    assert_eq!(host.stream_of(0x208), Some((0, StreamId(0x208))));
}

#[test]
fn machine_without_an_its_has_no_doorbell() {
    let tree = virt().remove_property("/pcie@10000000", "msi-map");
    assert_eq!(tree.read().unwrap().pcie[0].msi_doorbell, None);
}

#[test]
fn iommu_map_mask_is_applied_to_the_requester() {
    // All functions of a device are one stream.
    let tree = virt().set("/pcie@10000000", "iommu-map-mask", 0xfff8_u32);
    assert_eq!(tree.read().unwrap().pcie[0].stream_of(0x00b), Some((0, StreamId(8))));
}

#[test]
fn machine_without_pcie_or_modules_is_a_machine() {
    assert!(virt().remove("pcie@10000000").read().unwrap().pcie.is_empty());
}

#[test]
fn modules_are_sorted_by_address_and_keep_their_arguments() {
    let kernel = module(0x6000_0000, 0x1234, "multiboot,kernel").with("bootargs", "memory=1G -- quiet");
    let tree = virt().add("/chosen", module(0x6100_0000, 0x10, "multiboot,ramdisk")).add("/chosen", kernel);
    let machine = tree.read().unwrap();
    let [first, second] = machine.modules.as_slice() else { panic!("two modules: {:?}", machine.modules) };
    assert_eq!((first.kind, first.bootargs), (ModuleKind::Kernel, "memory=1G -- quiet"));
    assert_eq!(first.region, region(0x6000_0000, 0x1234));
    assert_eq!((second.kind, second.bootargs), (ModuleKind::Ramdisk, ""));
}

#[test]
fn cells_of_chosen_are_its_own_where_it_says_so() {
    let module = node("module@60000000")
        .with("compatible", ["multiboot,module", "multiboot,kernel"].as_slice())
        .cells("reg", &[0x6000_0000, 0x1000]);
    let tree = virt()
        .set("/chosen", "#address-cells", 1_u32)
        .set("/chosen", "#size-cells", 1_u32)
        .add("/chosen", module);
    assert_eq!(tree.read().unwrap().modules[0].region, region(0x6000_0000, 0x1000));
}

#[test]
fn free_ram_is_what_nothing_claims() {
    let pool = node("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .flag("ranges")
        .child(node("secure@41000000").with("reg", reg(&[(0x4100_0000, 0x1800)])).flag("no-map"))
        .child(node("pool").with("size", 0x100_0000_u64));
    let tree = virt()
        .reserve(0x4000_0000, 0x28)
        .add("/", pool)
        .add("/chosen", module(0x6000_0000, 1, "multiboot,kernel"));
    let machine = tree.read().unwrap();
    let ends: Vec<_> = machine.free.iter().map(|r| (r.start().0, r.end().0)).collect();
    assert_eq!(
        ends,
        [
            (0x4000_1000, 0x4020_0000), // behind /memreserve/, below the image
            (0x4030_0000, 0x4100_0000),
            (0x4100_2000, 0x4800_0000), // below the tree
            (0x4801_0000, 0x6000_0000), // below the module
            (0x6000_1000, 0xc000_0000),
        ]
    );
    let no_map: Vec<_> = machine.reserved.iter().filter(|r| r.no_map).map(|r| r.region).collect();
    assert_eq!(no_map, [region(0x4100_0000, 0x1800)]);
}

#[test]
fn neighbouring_pieces_of_ram_are_merged_and_empty_ones_left_out() {
    let pieces =
        [(0x1_0000_0000, 0x4000_0000), (0, 0), (0x4000_0000, 0x4000_0000), (0x8000_0000, 0x4000_0000)];
    let machine = virt().set("/memory@40000000", "reg", reg(&pieces)).read().unwrap();
    assert_eq!(
        machine.ram.as_slice(),
        [region(0x4000_0000, 0x8000_0000), region(0x1_0000_0000, 0x4000_0000)]
    );
}

#[test]
fn address_on_a_bus_is_translated_to_the_cpus() {
    // /soc maps its 0..0x1000_0000 to 0x10_0000_0000; the bus in it passes on what it is given, 32 bits wide.
    let uart = pl011("serial@0", 0).cells("reg", &[0x2000, 0x1000]);
    let inner =
        node("bus@0").cells("#address-cells", &[1]).cells("#size-cells", &[1]).flag("ranges").child(uart);
    let soc = node("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0, 0x10, 0, 0x1000_0000])
        .child(inner);
    let tree = virt().remove("pl011@9000000").add("/", soc);
    assert_eq!(tree.read().unwrap().uart.region, region(0x10_0000_2000, 0x1000));
}

#[test]
fn disabled_device_is_not_seen() {
    let tree = virt().set("/smmuv3@9050000", "status", "disabled");
    assert_eq!(tree.error(), "device tree: no SMMUv3 (compatible = \"arm,smmu-v3\")");
}

#[test]
fn timer_interrupt_is_found_by_name_where_there_are_names() {
    let tree = virt().set("/timer", "interrupt-names", ["phys", "virt", "hyp-phys"].as_slice()).set(
        "/timer",
        "interrupts",
        [1_u32, 14, 4, 1, 11, 4, 1, 10, 8].as_slice(),
    );
    assert_eq!(tree.read().unwrap().timer.intid, 26);
}

#[test]
fn seed_is_what_firmware_has_left_and_no_more_than_is_used() {
    assert!(virt().read().unwrap().seed.is_empty());
    let long: [u8; 40] = core::array::from_fn(|n| n as u8);
    let machine = virt().set("/chosen", "rng-seed", long.as_slice()).read().unwrap();
    assert_eq!(machine.seed.len(), 32);
    assert_eq!(machine.seed[..], long[..32]);
}
