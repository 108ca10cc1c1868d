//! Devices that are no PCI functions: what is read of them, and which are not given away.

use strandline::addr::StreamId;

use super::*;
use crate::machine::{Part, PlatformDevice};

/// A controller with two pieces of registers, on a bus at 0xa00_0000, behind the SMMU.
fn with(change: impl FnOnce(Node) -> Node) -> TestTree {
    let device = node("dma@1000")
        .with("compatible", ["maker,fast", "maker,slow"].as_slice())
        .cells("reg", &[0x1000, 0x1000, 0x1_0000, 0x2000])
        .cells("interrupts", &[0, 40, 4, 0, 41, 4])
        .cells("iommus", &[SMMU, 0x77, SMMU, 0x78])
        .flag("dma-coherent");
    let bus = node("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0, 0, 0xa00_0000, 0x10_0000]);
    virt().add("/", bus.child(change(device)))
}

fn read_device(tree: &TestTree) -> Result<Option<PlatformDevice>, String> {
    tree.read()
        .expect("the machine is right")
        .platform_device("/soc/dma@1000")
        .map_err(|error| error.to_string())
}

#[test]
fn device_is_what_its_node_says() {
    let device = read_device(&with(|node| node)).unwrap().expect("it is there");
    assert_eq!((device.name, device.coherent), ("dma@1000", true));
    assert_eq!(device.compatible, b"maker,fast\0maker,slow\0");
    let expected = [
        Part::Stream(0, StreamId(0x77)),
        Part::Stream(0, StreamId(0x78)),
        Part::Registers(region(0xa00_1000, 0x1000)),
        Part::Registers(region(0xa01_0000, 0x2000)),
        Part::Line(72),
        Part::Line(73),
    ];
    assert_eq!(device.parts, expected);
}

#[test]
fn device_that_is_not_there_or_switched_off_is_none() {
    assert_eq!(read_device(&virt()), Ok(None));
    assert_eq!(read_device(&with(|node| node.with("status", "disabled"))), Ok(None));
}

#[test]
fn device_may_have_neither_interrupts_nor_coherent_dma() {
    let tree = virt()
        .add("/", node("dma@a001000").with("reg", reg(&[(0xa00_1000, 0x1000)])).cells("iommus", &[SMMU, 1]));
    let device = tree.read().unwrap().platform_device("/dma").unwrap().expect("it is there");
    assert_eq!((device.coherent, device.parts.len(), device.compatible), (false, 2, &[][..]));
}

#[test]
fn device_that_no_smmu_of_the_machine_confines_is_never_given_away() {
    let error = |tree: TestTree| read_device(&tree).unwrap_err();
    let missing = error(with(|node| node.cells("iommus", &[])));
    let lack =
        "device tree: dma@1000: iommus: is missing: no SMMU stands in front of it, its DMA can't be confined";
    assert_eq!(missing, lack);
    let elsewhere = "device tree: dma@1000: iommus: names something else than a stream of an SMMUv3";
    for cells in [&[ITS, 7][..], &[99, 7], &[SMMU], &[SMMU, 7, SMMU]] {
        assert_eq!(error(with(|node| node.cells("iommus", cells))), elsewhere, "{cells:?}");
    }
}

#[test]
fn device_whose_registers_are_not_its_alone_is_refused() {
    let error = |cells: &[u32]| read_device(&with(|node| node.cells("reg", cells))).unwrap_err();
    let shared =
        "device tree: dma@1000: reg: is not whole pages: what else lies there would be given away, too";
    assert_eq!(error(&[0x1000, 0x800]), shared);
    assert_eq!(error(&[0x1800, 0x1000]), shared);
    let at = |start| {
        let device = node("dma@1000").with("reg", reg(&[(start, 0x2_0000)])).cells("iommus", &[SMMU, 1]);
        let machine = virt().add("/", device).read().unwrap();
        machine.platform_device("/dma@1000").unwrap_err().to_string()
    };
    assert!(at(0x905_0000).ends_with("overlaps smmuv3@9050000 0x9050000..0x9070000"), "{}", at(0x905_0000));
    assert!(at(0x4100_0000).contains("overlaps RAM"), "{}", at(0x4100_0000));
    assert!(at(0x1000_0000).contains("overlaps PCIe window"), "{}", at(0x1000_0000));
}

#[test]
fn device_with_a_line_of_el2s_own_or_of_another_controller_is_refused() {
    let error = |change: fn(Node) -> Node| read_device(&with(change)).unwrap_err();
    let own = "device tree: dma@1000: interrupts: has a line that is an SMMU's or the timer's";
    assert_eq!(error(|node| node.cells("interrupts", &[0, 74, 1])), own);
    assert_eq!(error(|node| node.cells("interrupts", &[0, 40, 1, 1, 10, 4])), own);
    assert!(error(|node| node.cells("interrupts", &[0, 40])).ends_with("interrupts: has too few entries"));
    assert!(
        error(|node| node.cells("interrupt-parent", &[ITS])).ends_with("interrupt-parent: is not the GIC")
    );
    let extended = error(|node| node.cells("interrupts-extended", &[GIC, 0, 40, 4]));
    assert_eq!(extended, "device tree: dma@1000: interrupts-extended: is not supported");
}
