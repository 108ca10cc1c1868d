//! What the image makes of each board's device tree: `boards/BOARD/board.dts`, compiled by `dtc`, and QEMU's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strandline_fuzz::described;

fn boards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")
}

fn compiled(source: &Path) -> Vec<u8> {
    let output = Command::new("dtc").args(["-I", "dts", "-O", "dtb"]).arg(source).output();
    let output = output.unwrap_or_else(|error| panic!("dtc: {error}; scripts/setup trees installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", source.display());
    output.stdout
}

/// What the image would know of this board.
fn machine(board: &str) -> Vec<String> {
    described(&compiled(&boards().join(board).join("board.dts")))
        .unwrap_or_else(|line| panic!("{board}: {line}"))
}

#[test]
fn every_boards_tree_describes_a_machine() {
    let folders =
        fs::read_dir(boards()).expect("it is there").map(|entry| entry.expect("it can be listed").path());
    let mut trees = 0;
    for source in folders.map(|folder| folder.join("board.dts")).filter(|source| source.exists()) {
        let lines =
            described(&compiled(&source)).unwrap_or_else(|line| panic!("{}: {line}", source.display()));
        println!("{}:\n  {}", source.display(), lines.join("\n  "));
        trees += 1;
    }
    assert!(trees >= 3, "{trees}");
}

#[test]
fn qemu_virt_is_what_the_emulator_says_of_it() {
    let tree = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("trees/virt.dtb")).expect("it is there");
    let expected = [
        "RAM 0x40000000..0xc0000000",
        "PL011 at 0x9000000, 115200 baud",
        "PSCI Some(Smc), overrides ''",
        "GIC at 0x8000000, timer 26",
        "redistributors 0x80a0000..0x9000000",
        "SMMU at 0x9050000, coherent, INTID 106 and 109, edge",
        "PCIe at 0x4010000000, 00:01.0 is stream 0x8 of SMMU 0",
        "2 CPUs, 1 modules",
    ];
    assert_eq!(described(&tree).unwrap(), expected);
}

#[test]
fn qemu_sbsa_has_its_ram_beyond_a_tebibyte_and_no_psci() {
    let expected = [
        "RAM 0x10000000000..0x10040000000",
        "PL011 at 0x60000000, 115200 baud",
        "PSCI None, overrides 'end=semihosting'",
        "GIC at 0x40060000, timer 26",
        "redistributors 0x40080000..0x44080000",
        "SMMU at 0x60050000, coherent, INTID 44 and 47, edge",
        "PCIe at 0xf0000000, 00:01.0 is stream 0x8 of SMMU 0",
        "1 CPUs, 1 modules",
    ];
    assert_eq!(machine("qemu-sbsa"), expected);
}

#[test]
fn rk3588_has_a_16550_and_two_smmus_that_are_not_coherent() {
    let expected = [
        "RAM 0x200000..0xf0000000",
        "16550 at 0xfeb50000, shift 2, width 4",
        "PSCI Some(Smc), overrides ''",
        "GIC at 0xfe600000, timer 26",
        "redistributors 0xfe680000..0xfe780000",
        "SMMU at 0xfc900000, not coherent, INTID 401 and 403, edge",
        "SMMU at 0xfcb00000, not coherent, INTID 413 and 415, edge",
        "8 CPUs, 0 modules",
    ];
    assert_eq!(machine("rk3588"), expected);
}

#[test]
fn fvp_base_revc_has_its_uart_behind_three_buses_and_ram_in_two_pieces() {
    let expected = [
        "RAM 0x80000000..0x100000000",
        "RAM 0x880000000..0x900000000",
        "PL011 at 0x1c090000, 115200 baud",
        "PSCI Some(Smc), overrides ''",
        "GIC at 0x2f000000, timer 26",
        "redistributors 0x2f100000..0x2f300000",
        "SMMU at 0x2b400000, coherent, INTID 106 and 111, edge",
        "PCIe at 0x40000000, 00:01.0 is stream 0x8 of SMMU 0",
        "4 CPUs, 0 modules",
    ];
    assert_eq!(machine("fvp-base-revc"), expected);
}
