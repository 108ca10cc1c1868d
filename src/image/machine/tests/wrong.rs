//! Trees whose structure is sound and whose contents are not: one line each, which names node and property.

use super::*;

#[test]
fn what_is_missing_is_named() {
    for (name, message) in [
        ("memory@40000000", "no RAM (device_type = \"memory\")"),
        ("pl011@9000000", "no console (compatible = \"arm,pl011\", \"snps,dw-apb-uart\" or \"ns16550a\")"),
        ("intc@8000000", "no GICv3 (compatible = \"arm,gic-v3\")"),
        ("smmuv3@9050000", "no SMMUv3 (compatible = \"arm,smmu-v3\")"),
        ("timer", "no generic timer (compatible = \"arm,armv8-timer\")"),
    ] {
        assert_eq!(virt().remove(name).error(), format!("device tree: {message}"));
    }
}

#[test]
fn gicv2_is_not_supported() {
    let tree = virt().set("/intc@8000000", "compatible", "arm,cortex-a15-gic");
    assert_eq!(tree.error(), "device tree: intc@8000000: not supported: GICv2 (a GICv3 is needed)");
}

#[test]
fn psci_without_a_conduit_is_refused() {
    let tree = virt().set("/psci", "method", "telepathy");
    assert_eq!(tree.error(), "device tree: psci: method: is neither \"smc\" nor \"hvc\"");
}

#[test]
fn reg_that_is_missing_short_empty_or_wraps_is_refused() {
    let node = "/smmuv3@9050000";
    assert_eq!(virt().remove_property(node, "reg").error(), "device tree: smmuv3@9050000: reg: is missing");
    let short = virt().set(node, "reg", [0_u32, 1, 2].as_slice());
    assert_eq!(
        short.error(),
        "device tree: smmuv3@9050000: reg: is not a whole number of address and size pairs"
    );
    for pair in [(0x905_0000, 0), (u64::MAX - 0xfff, 0x2000)] {
        let tree = virt().set(node, "reg", reg(&[pair]));
        assert_eq!(tree.error(), "device tree: smmuv3@9050000: reg: is empty, wraps or is too large");
    }
}

#[test]
fn smmu_smaller_than_its_registers_is_refused() {
    let tree = virt().set("/smmuv3@9050000", "reg", reg(&[(0x905_0000, 0x1_0000)]));
    assert!(tree.error().ends_with("reg: is smaller than the two register pages of an SMMUv3"));
}

#[test]
fn interrupt_that_no_gicv3_has_is_refused() {
    for (kind, number) in [(0, 988), (1, 16), (2, 0), (7, 7)] {
        let cells = [kind, number, 1, 0, 75, 1, 0, 76, 1, 0, 77, 1_u32];
        let tree = virt().set("/smmuv3@9050000", "interrupts", cells.as_slice());
        assert_eq!(
            tree.error(),
            "device tree: smmuv3@9050000: interrupts: names no shared or private interrupt of a GICv3"
        );
    }
    let few = virt().set("/smmuv3@9050000", "interrupts", [0_u32, 74, 1].as_slice());
    assert_eq!(few.error(), "device tree: smmuv3@9050000: interrupts: has too few entries");
}

#[test]
fn smmu_without_interrupts_is_refused() {
    let node = "/smmuv3@9050000";
    let lack = "device tree: smmuv3@9050000: interrupt-names: has neither eventq and gerror nor combined";
    assert_eq!(virt().remove_property(node, "interrupt-names").error(), lack);
    assert_eq!(virt().set(node, "interrupt-names", ["eventq", "priq"].as_slice()).error(), lack);
    let none = virt().remove_property(node, "interrupts").error();
    assert_eq!(none, "device tree: smmuv3@9050000: interrupts: has too few entries");
}

#[test]
fn interrupt_of_another_controller_is_refused() {
    let tree = virt().set("/smmuv3@9050000", "interrupt-parent", 42_u32);
    assert_eq!(tree.error(), "device tree: smmuv3@9050000: interrupt-parent: is not the GIC");
}

#[test]
fn overlapping_ram_is_refused() {
    let tree =
        virt().set("/memory@40000000", "reg", reg(&[(0x4000_0000, 0x1000_0000), (0x4fff_f000, 0x2000)]));
    assert_eq!(
        tree.error(),
        "device tree: memory@40000000: reg: 0x4ffff000..0x50001000 overlaps RAM 0x40000000..0x50000000"
    );
}

#[test]
fn device_in_ram_or_in_another_device_is_refused() {
    let in_ram = virt().set("/smmuv3@9050000", "reg", reg(&[(0x5000_0000, 0x2_0000)]));
    assert_eq!(
        in_ram.error(),
        "device tree: smmuv3@9050000: reg: 0x50000000..0x50020000 overlaps RAM 0x40000000..0xc0000000"
    );
    let twice = virt().set("/smmuv3@9050000", "reg", reg(&[(0x8ff_f000, 0x2_0000)]));
    assert!(
        twice
            .error()
            .starts_with("device tree: smmuv3@9050000: reg: 0x8fff000..0x901f000 overlaps pl011@9000000 "),
        "{}",
        twice.error()
    );
}

#[test]
fn module_outside_ram_or_on_top_of_something_is_refused() {
    let outside = virt().add("/chosen", module(0xbfff_f000, 0x1001, "multiboot,kernel"));
    assert_eq!(outside.error(), "device tree: module@0xbffff000: reg: 0xbffff000..0xc0000001 is not in RAM");
    let on_image = virt().add("/chosen", module(0x402f_ffff, 0x10, "multiboot,kernel"));
    assert!(on_image.error().contains("overlaps image of EL2"), "{}", on_image.error());
    let on_tree = virt().add("/chosen", module(0x47ff_f000, 0x1001, "multiboot,kernel"));
    assert!(on_tree.error().contains("overlaps device tree"), "{}", on_tree.error());
    let on_module = virt()
        .add("/chosen", module(0x6000_0000, 0x1001, "multiboot,kernel"))
        .add("/chosen", module(0x6000_1000, 0x1000, "multiboot,ramdisk"));
    assert!(on_module.error().contains("overlaps module@0x60000000"), "{}", on_module.error());
}

#[test]
fn module_of_an_unknown_kind_or_without_a_place_is_refused() {
    let unknown = virt().add("/chosen", module(0x6000_0000, 0x1000, "multiboot,nonsense"));
    assert!(unknown.error().ends_with("compatible: is neither multiboot,kernel nor multiboot,ramdisk"));
    let nowhere = node("module@0").with("compatible", ["multiboot,module", "multiboot,kernel"].as_slice());
    assert_eq!(virt().add("/chosen", nowhere).error(), "device tree: module@0: reg: is missing");
}

#[test]
fn image_or_tree_outside_ram_is_refused() {
    let tree = virt().set("/memory@40000000", "reg", reg(&[(0x4400_0000, 0x1000_0000)]));
    assert_eq!(tree.error(), "device tree: image of EL2 0x40200000..0x40300000 is not in RAM");
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let tree = (0..17_u64).fold(virt(), |tree, i| {
        tree.add("/chosen", module(0x6000_0000 + i * 0x1_0000, 0x1000, "multiboot,ramdisk"))
    });
    assert_eq!(tree.error(), "device tree: more than 16 boot modules");
}

#[test]
fn pcie_host_that_contradicts_itself_is_refused() {
    let node = "/pcie@10000000";
    let few = virt().set(node, "reg", reg(&[(0x40_1000_0000, 0x10_0000)]));
    assert!(few.error().ends_with("bus-range: has more buses than reg has configuration space for"));
    let descending = virt().set(node, "bus-range", [5_u32, 4].as_slice());
    assert!(descending.error().ends_with("bus-range: is not two ascending bus numbers"));
    let wraps = virt().set(node, "iommu-map", [0_u32, SMMU, u32::MAX, 2].as_slice());
    assert!(wraps.error().ends_with("iommu-map: has an entry that is broken or wraps"));
    let nowhere = virt().set(node, "iommu-map", [0_u32, 77, 0, 0x1_0000].as_slice());
    assert!(nowhere.error().ends_with("pcie@10000000: iommu-map: leads to a node that is not there"));
    let twice = virt().set(node, "iommu-map", [0_u32, SMMU, 0, 0x100, 0xff, SMMU, 0x500, 1].as_slice());
    assert!(twice.error().ends_with("pcie@10000000: iommu-map: maps one requester twice"));
    let short = virt().set(node, "ranges", [0x0200_0000_u32, 0].as_slice());
    assert!(short.error().ends_with("ranges: has an entry that is broken"));
}

/// A BAR placed there would be mapped for a guest: it must not be EL2's memory, or another device.
#[test]
fn pcie_window_over_ram_or_a_device_is_refused() {
    let window =
        |at| virt().set("/pcie@10000000", "ranges", [0x0200_0000_u32, 0, at, 0, at, 0, 0x1_0000].as_slice());
    assert!(window(0x1000_0000).read().is_ok());
    assert_eq!(
        window(0x4020_0000).error(),
        "device tree: PCIe window 0x40200000..0x40210000 overlaps RAM 0x40000000..0xc0000000"
    );
    assert_eq!(
        window(0x0906_0000).error(),
        "device tree: PCIe window 0x9060000..0x9070000 overlaps smmuv3@9050000 0x9050000..0x9070000"
    );
}

#[test]
fn image_or_tree_in_memory_that_may_not_be_mapped_is_refused() {
    let hole = |at| {
        let hole = node("hole@0").with("reg", reg(&[(at, 0x1000)])).flag("no-map");
        let memory = node("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
        virt().add("/", memory.flag("ranges").child(hole))
    };
    assert!(hole(0x5000_0000).read().is_ok());
    assert_eq!(
        hole(0x4800_0000).error(),
        "device tree: device tree 0x48000000..0x48010000 overlaps hole@0 0x48000000..0x48001000"
    );
    assert_eq!(
        hole(0x402f_f000).error(),
        "device tree: image of EL2 0x40200000..0x40300000 overlaps hole@0 0x402ff000..0x40300000"
    );
}

#[test]
fn device_on_a_bus_that_is_not_mapped_is_refused() {
    let smmu = smmu("smmuv3@9050000", 0, 74).cells("reg", &[0x1000, 0x2_0000]);
    let bus = node("bus").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    let tree = virt().remove("smmuv3@9050000").add("/", bus.child(smmu));
    assert!(tree.error().ends_with("reg: lies on a bus that is not mapped into the CPU's addresses"));
}
