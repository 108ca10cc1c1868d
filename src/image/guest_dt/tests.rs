//! The tree is read back by the library's parser; what stands in it is written out here as bytes and cells.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node as _, Property as _};
use strandline::addr::{Ipa, Pa};

use super::*;

fn guest<'a>() -> GuestDescription<'a> {
    GuestDescription {
        memory: IpaRange::new(Ipa(0x4000_0000), 0x1_2000_0000).unwrap(),
        command_line: "console=ttyAMA0 quiet",
        ramdisk: Some(Placed { start: Ipa(0x4a00_0000), bytes: 0x12_3456 }),
        has_devices: true,
        nodes: &[],
    }
}

fn bytes(dtb: &[u8], node: &str, property: &str) -> Option<Vec<u8>> {
    let node = Fdt::new(dtb).unwrap().find_node(node)?;
    Some(node.property(property)?.value().to_vec())
}

/// The cells of a property of the full description's tree.
fn cells_of(node: &str, property: &str) -> Vec<u32> {
    let value = bytes(&build(&guest()).unwrap(), node, property).unwrap();
    let (cells, rest) = value.as_chunks::<4>();
    assert!(rest.is_empty());
    cells.iter().map(|c| u32::from_be_bytes(*c)).collect()
}

/// The text of a property of the full description's tree, its end included.
fn text_of(node: &str, property: &str) -> String {
    String::from_utf8(bytes(&build(&guest()).unwrap(), node, property).unwrap()).unwrap()
}

#[test]
fn memory_is_all_of_ram() {
    assert_eq!(text_of("/memory@40000000", "device_type"), "memory\0");
    assert_eq!(cells_of("/memory@40000000", "reg"), [0, 0x4000_0000, 1, 0x2000_0000]);
    assert_eq!((cells_of("/", "#address-cells"), cells_of("/", "#size-cells")), (vec![2], vec![2]));
}

#[test]
fn chosen_has_command_line_console_and_ramdisk() {
    assert_eq!(text_of("/chosen", "bootargs"), "console=ttyAMA0 quiet\0");
    assert_eq!(text_of("/chosen", "stdout-path"), "/pl011@9000000\0");
    assert_eq!(cells_of("/chosen", "linux,initrd-start"), [0, 0x4a00_0000]);
    assert_eq!(cells_of("/chosen", "linux,initrd-end"), [0, 0x4a12_3456]);
}

#[test]
fn one_cpu_is_enabled_by_psci() {
    assert_eq!(cells_of("/cpus", "#address-cells"), [1]);
    assert_eq!(cells_of("/cpus", "#size-cells"), [0]);
    assert_eq!(text_of("/cpus/cpu@0", "device_type"), "cpu\0");
    assert_eq!(text_of("/cpus/cpu@0", "compatible"), "arm,armv8\0");
    assert_eq!(text_of("/cpus/cpu@0", "enable-method"), "psci\0");
    assert_eq!(cells_of("/cpus/cpu@0", "reg"), [0]);
}

#[test]
fn psci_and_hypercalls_are_reached_by_hvc() {
    assert_eq!(text_of("/psci", "compatible"), "arm,psci-1.0\0arm,psci-0.2\0");
    assert_eq!(text_of("/psci", "method"), "hvc\0");
    assert_eq!(text_of("/hypervisor", "compatible"), "strandline,strandline\0");
    assert_eq!(text_of("/hypervisor", "method"), "hvc\0");
}

#[test]
fn uart_is_a_primecell_with_its_clock() {
    assert_eq!(text_of("/pl011@9000000", "compatible"), "arm,pl011\0arm,primecell\0");
    assert_eq!(cells_of("/pl011@9000000", "reg"), [0, 0x0900_0000, 0, 0x1000]);
    assert_eq!(cells_of("/pl011@9000000", "clocks"), cells_of("/apb-pclk", "phandle").repeat(2));
    assert_eq!(text_of("/pl011@9000000", "clock-names"), "uartclk\0apb_pclk\0");
    assert_eq!(text_of("/apb-pclk", "compatible"), "fixed-clock\0");
    assert_eq!(cells_of("/apb-pclk", "clock-frequency"), [24_000_000]);
}

#[test]
fn pci_host_has_one_bus_and_one_window() {
    let node = "/pcie@30000000";
    assert_eq!(text_of(node, "compatible"), "pci-host-ecam-generic\0");
    assert_eq!(text_of(node, "device_type"), "pci\0");
    assert_eq!(cells_of(node, "reg"), [0, 0x3000_0000, 0, 0x10_0000]);
    assert_eq!(cells_of(node, "bus-range"), [0, 0]);
    assert_eq!(cells_of(node, "#address-cells"), [3]);
    assert_eq!(cells_of(node, "#size-cells"), [2]);
    assert_eq!(cells_of(node, "ranges"), [0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2000_0000]);
    assert_eq!(text_of(node, "dma-coherent"), "");
    assert_eq!(cells_of("/chosen", "linux,pci-probe-only"), [1]);
}

#[test]
fn vm_without_devices_has_no_pci_host_and_without_ramdisk_no_initrd() {
    let dtb = build(&GuestDescription { ramdisk: None, has_devices: false, ..guest() }).unwrap();
    assert!(Fdt::new(&dtb).unwrap().find_node("/pcie@30000000").is_none());
    for property in ["linux,initrd-start", "linux,initrd-end", "linux,pci-probe-only"] {
        assert_eq!(bytes(&dtb, "/chosen", property), None, "{property}");
    }
}

#[test]
fn device_that_is_no_pci_function_has_a_node_of_its_own() {
    let device = GuestNode {
        name: "dma-controller",
        compatible: b"maker,fast\0maker,slow\0",
        coherent: true,
        registers: [(0x3010_0000, 0x1000), (0x3020_0000, 0x3000)]
            .map(|(ipa, bytes)| BarMapping { ipa: Ipa(ipa), pa: Pa(0xfe00_0000), bytes })
            .to_vec(),
    };
    let dtb = build(&GuestDescription { nodes: std::slice::from_ref(&device), ..guest() }).unwrap();
    let node = "/dma-controller@30100000";
    assert_eq!(bytes(&dtb, node, "compatible"), Some(device.compatible.to_vec()));
    let words: Vec<u8> = [0, 0x3010_0000, 0, 0x1000, 0, 0x3020_0000, 0, 0x3000_u32]
        .iter()
        .flat_map(|w| w.to_be_bytes())
        .collect();
    assert_eq!(bytes(&dtb, node, "reg"), Some(words));
    assert_eq!(bytes(&dtb, node, "dma-coherent"), Some(vec![]));
    let other =
        build(&GuestDescription { nodes: &[GuestNode { coherent: false, ..device }], ..guest() }).unwrap();
    assert_eq!(bytes(&other, node, "dma-coherent"), None);
}

#[test]
fn empty_command_line_is_an_empty_text() {
    let dtb = build(&GuestDescription { command_line: "", ..guest() }).unwrap();
    assert_eq!(bytes(&dtb, "/chosen", "bootargs"), Some(vec![0]));
}

#[test]
fn same_description_makes_the_same_bytes() {
    assert_eq!(build(&guest()), build(&guest()));
}

#[test]
fn header_is_that_of_version_17_and_says_its_length() {
    let dtb = build(&guest()).unwrap();
    assert_eq!(dtb[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    assert_eq!(dtb[4..8], u32::try_from(dtb.len()).unwrap().to_be_bytes());
    assert_eq!(dtb[20..24], [0, 0, 0, 17]);
}

#[test]
fn command_line_that_does_not_fit_is_refused() {
    let long = "x".repeat(2 << 20);
    assert!(matches!(
        build(&GuestDescription { command_line: &long, ..guest() }),
        Err(GuestDtError::TooLarge(_))
    ));
    let longer = "x".repeat((2 << 20) + 1);
    let error = build(&GuestDescription { command_line: &longer, ..guest() }).unwrap_err();
    assert!(error.to_string().contains("has 2097153 bytes, more than 2097152"), "{error}");
}

#[test]
fn command_line_with_a_nul_is_refused() {
    let error = build(&GuestDescription { command_line: "a\0b", ..guest() });
    assert_eq!(error, Err(GuestDtError::NulInCommandLine));
}
