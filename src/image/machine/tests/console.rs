//! Which UART is the console.

use super::*;
use crate::machine::UartKind;

fn ns16550(compatible: &str) -> Node {
    node("serial@feb50000").with("compatible", compatible).with("reg", reg(&[(0xfeb5_0000, 0x100)]))
}

/// The machine with a 16550 in place of its PL011.
fn with_16550(uart: Node) -> TestTree {
    virt().remove("pl011@9000000").add("/", uart)
}

fn kind(tree: &TestTree) -> UartKind {
    tree.read().unwrap().uart.kind
}

#[test]
fn pl011_has_its_clock_and_baud_rate() {
    let uart = virt().read().unwrap().uart;
    assert_eq!(uart.region, region(0x900_0000, 0x1000));
    assert_eq!(uart.kind, UartKind::Pl011 { clock_hz: 24_000_000, baud: 115_200 });
}

#[test]
fn console_is_the_one_stdout_path_names() {
    let tree = virt()
        .add("/", pl011("pl011@9040000", 0x904_0000))
        .add("/", node("aliases").with("serial1", "/pl011@9040000"))
        .set("/chosen", "stdout-path", "serial1:921600n8");
    let uart = tree.read().unwrap().uart;
    assert_eq!(uart.region.start().0, 0x904_0000);
    assert_eq!(uart.kind, UartKind::Pl011 { clock_hz: 24_000_000, baud: 921_600 });
    let first = virt().remove_property("/chosen", "stdout-path").read().unwrap().uart;
    assert_eq!(first.region.start().0, 0x900_0000);
}

#[test]
fn console_may_be_a_16550_beside_a_pl011() {
    let tree =
        virt().add("/", ns16550("ns16550a")).set("/chosen", "stdout-path", "/serial@feb50000:1500000n8");
    let uart = tree.read().unwrap().uart;
    assert_eq!(uart.region, region(0xfeb5_0000, 0x100));
    assert_eq!(uart.kind, UartKind::Ns16550 { shift: 0, width: 1 });
}

#[test]
fn registers_of_a_designware_uart_are_words_four_bytes_apart() {
    let uart = ns16550("snps,dw-apb-uart").cells("reg-shift", &[2]).cells("reg-io-width", &[4]);
    assert_eq!(kind(&with_16550(uart)), UartKind::Ns16550 { shift: 2, width: 4 });
}

#[test]
fn layout_that_no_16550_has_is_refused() {
    let error = |uart: Node| with_16550(uart).error();
    let wide = error(ns16550("ns16550a").cells("reg-io-width", &[8]));
    assert_eq!(wide, "device tree: serial@feb50000: reg-io-width: is none of 1, 2 and 4");
    let far = error(ns16550("ns16550a").cells("reg-shift", &[5]));
    assert_eq!(far, "device tree: serial@feb50000: reg-shift: is more than 4");
    let held = "device tree: serial@feb50000: reg: does not hold a 16550's registers, as reg-shift and reg-io-width lay \
                them out";
    // Words one byte apart; at an odd address; beyond the end.
    assert_eq!(error(ns16550("ns16550a").cells("reg-io-width", &[4])), held);
    let layout = |uart: Node| uart.cells("reg-shift", &[2]).cells("reg-io-width", &[4]);
    assert_eq!(error(layout(ns16550("ns16550a").with("reg", reg(&[(0xfeb5_0002, 0x100)])))), held);
    assert_eq!(error(layout(ns16550("ns16550a").with("reg", reg(&[(0xfeb5_0000, 0x17)])))), held);
}
