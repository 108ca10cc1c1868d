//! Every board that can be emulated, as a person boots it, and machines that are not quite QEMU's `virt`.

use std::fs;

use qemu_tests::machine::Machine;
use qemu_tests::tree::Tree;
use qemu_tests::{Boot, Outcome, ScratchFile, built, root, run_board};

/// The boards whose `boot.conf` says how they are emulated.
fn emulated() -> Vec<String> {
    let folders = fs::read_dir(root().join("boards")).expect("it is there").flatten();
    let is_emulated = |folder: &fs::DirEntry| {
        let conf = fs::read_to_string(folder.path().join("boot.conf"));
        conf.is_ok_and(|conf| conf.lines().any(|line| line.starts_with("emulator=")))
    };
    folders.filter(is_emulated).map(|folder| folder.file_name().to_string_lossy().into_owned()).collect()
}

fn demo_passes(outcome: Outcome) {
    let outcome = outcome.success();
    assert!(outcome.says("vm0| probe: all "), "{}", outcome.show());
    assert!(!outcome.says("FAILED"), "{}", outcome.show());
}

#[test]
fn every_board_that_can_be_emulated_boots_to_the_end_of_the_demo() {
    let boards = emulated();
    assert!(boards.contains(&"qemu-virt".to_string()), "{boards:?}");
    for board in boards {
        let outcome = run_board(&board, &[]);
        assert!(outcome.says(": device "), "{board} has a device for the demo{}", outcome.show());
        demo_passes(outcome);
    }
}

#[test]
fn every_board_that_can_be_emulated_ends_with_a_status_where_it_fails() {
    for board in emulated() {
        let _ = run_board(&board, &["--config", "device=00:1e.0"]).failure("no device at 00:1e.0");
    }
}

#[test]
fn machine_without_an_its_boots_to_the_end_of_the_demo() {
    // The demo's device can't do without one.
    let boot = Boot::probe().flag("--no-device").option("--cmdline", "nodma").qemu(&["-machine", "its=off"]);
    demo_passes(boot.run());
}

#[test]
fn machine_with_half_a_gibibyte_boots_to_the_end_of_the_demo() {
    demo_passes(Boot::probe().option("--memory", "192M").qemu(&["-m", "512M"]).run());
}

/// On this core, with so much memory, of which the host reserves nothing ahead.
fn with_memory(cpu: &str, size: &str) -> Boot {
    let backend = format!("memory-backend-ram,id=ram,size={size},reserve=off");
    let ram = ["-machine", "memory-backend=ram", "-object", &backend, "-m", size];
    Boot::probe().option("--cpu", cpu).option("--memory", "256M").qemu(&ram)
}

#[test]
fn machine_with_sixteen_gibibytes_boots_to_the_end_of_the_demo() {
    // FEAT_BBM 0, and 2.
    for cpu in ["cortex-a76", "max"] {
        let outcome = with_memory(cpu, "16G").run();
        assert!(outcome.says("RAM: 16384 MiB"), "{}", outcome.show());
        demo_passes(outcome);
    }
}

#[test]
fn machine_with_sixty_four_gibibytes_boots_to_the_end_of_the_demo() {
    for cpu in ["cortex-a76", "neoverse-n2"] {
        let outcome = with_memory(cpu, "64G").run();
        assert!(outcome.says("RAM: 65536 MiB"), "{}", outcome.show());
        demo_passes(outcome);
    }
}

#[test]
fn what_a_board_overrides_is_lowered_and_told() {
    let words = b"smmu-bbml=0 smmu-range=no smmu-coherent=no cpu-dirty=no\0";
    let outcome = with_overrides(words).success();
    for line in [
        "strandline: the board overrides: smmu-bbml=0 smmu-range=no smmu-coherent=no cpu-dirty=no",
        "not coherent, hardware update none, break-before-make level 0",
        "no hardware dirty state (access flag only)",
        "known by write-protect faults",
    ] {
        assert!(outcome.says(line), "no line says '{line}'{}", outcome.show());
    }
}

#[test]
fn override_that_would_raise_an_ability_is_refused() {
    let _ = with_overrides(b"smmu-httu=dirty\0").failure("SMMU at 0x9050000");
    let _ =
        with_overrides(b"smmu-bbml=7\0").failure("chosen: strandline,overrides: has a word that is none of");
}

/// A boot whose guest succeeds at once, with words of a board.
fn with_overrides(words: &[u8]) -> Outcome {
    let good = || Boot::case("smc", "");
    let tree = Tree::of(good()).with("/chosen", "strandline,overrides", words).file();
    good().qemu(&["-dtb", &tree.name()]).run()
}

/// A PCI card with a 16550, whose registers the machine shows in its window of I/O ports. A few instructions in front of the
/// image, as firmware would, put it there.
#[test]
fn console_may_be_a_16550() {
    let code: Vec<u8> = [
        0xd2a8_0000_u32, // movz x0, #0x4000, lsl #16: the tree
        0xd2a2_0021,     // movz x1, #0x1001, lsl #16
        0xf2c0_0801,     // movk x1, #0x40, lsl #32: the configuration space of 00:02.0
        0x5282_0002,     // movz w2, #0x1000
        0xb900_1022,     // str w2, [x1, #0x10]: BAR 0
        0x5280_0022,     // movz w2, #1
        0xb900_0422,     // str w2, [x1, #4]: it decodes I/O
        0xd2a8_0402,     // movz x2, #0x4020, lsl #16
        0xd61f_0040,     // br x2
    ]
    .iter()
    .flat_map(|word| word.to_le_bytes())
    .collect();
    let stub = ScratchFile::with("elf", &qemu_tests::elf::executable(&code, 0x6000_0000, 0));
    let console = ScratchFile::new("console");
    let quiet = || Boot::case("psci", "").flag("--no-device").option("--memory", "64M");
    let registers: Vec<u8> = [0, 0x3eff_1000, 0, 8_u32].iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let tree = Tree::of(quiet())
        .without("/pcie@10000000")
        .with_text("/pl011@9000000", "compatible", "ns16550a")
        .with("/pl011@9000000", "reg", &registers)
        .file();
    let image = format!("loader,addr=0x40200000,force-raw=on,file={}", built("strandline.img").display());
    let guest = format!(
        "guest-loader,addr=0x50000000,kernel={},bootargs=memory=64M -- case=psci",
        built("cases.img").display()
    );
    let chardev = format!("file,id=console,path={}", console.name());
    let outcome = Machine::kernel(stub.path())
        .with(&["-dtb", &tree.name(), "-device", &image, "-device", &guest])
        .with(&["-chardev", &chardev, "-device", "pci-serial,addr=02.0,chardev=console"])
        .run();
    let told = fs::read_to_string(console.path()).unwrap_or_default();
    assert!(outcome.lines.is_empty(), "the PL011 is not the console{}", outcome.show());
    assert!(told.contains("vm0| case psci: ok"), "{told}{}", outcome.show());
    assert!(told.ends_with("strandline: succeeded\r\n"), "{told}");
}

/// The clock of QEMU's machine, said to be a master behind the SMMU.
fn with_clock(words: &str, iommus: &[u32]) -> Outcome {
    let boot = || Boot::case("platform", "").option("--config", words);
    let cells: Vec<u8> = iommus.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let tree = Tree::of(boot()).with("/pl031@9010000", "iommus", &cells).file();
    boot().qemu(&["-dtb", &tree.name()]).run()
}

/// The phandle of QEMU's SMMU.
fn smmu() -> u32 {
    let mut tree = Tree::of(Boot::case("platform", ""));
    let phandle = tree.value("/smmuv3@9050000", "phandle");
    u32::from_be_bytes(phandle.try_into().expect("one cell"))
}

#[test]
fn device_that_is_no_pci_function_belongs_to_a_vm() {
    let outcome = with_clock("device=/pl031@9010000", &[smmu(), 0x77]).success();
    assert!(outcome.says("VM vm0: device /pl031@9010000 is stream 0x77 of SMMU 0"), "{}", outcome.show());
    assert!(outcome.says("vm0| clock at 0x30100000"), "{}", outcome.show());
    assert!(outcome.says("vm0| case platform: ok"), "{}", outcome.show());
}

#[test]
fn device_that_is_not_behind_the_smmu_or_shares_a_stream_is_not_given_away() {
    let lack = "device /pl031@9010000: device tree: pl031@9010000: iommus: is missing: no SMMU stands in front of it";
    let _ = with_clock("device=/pl031@9010000", &[]).failure(lack);
    let _ =
        with_clock("device=/nowhere", &[]).failure("device /nowhere: the machine's tree has no such node");
    let _ =
        with_clock("device=/pl011@9000000", &[]).failure("device tree: pl011@9000000: iommus: is missing");
}

#[test]
fn two_vms_that_claim_one_stream_are_refused() {
    // 00:01.0 is stream 8.
    let second = format!(
        "guest-loader,addr=0x60000000,kernel={},bootargs=memory=64M name=second device=/pl031@9010000 -- case=smc",
        built("cases.img").display()
    );
    let boot = || Boot::case("smc", "").qemu(&["-device", &second]);
    let cells: Vec<u8> = [smmu(), 8].iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let tree = Tree::of(boot()).with("/pl031@9010000", "iommus", &cells).file();
    let _ = boot().qemu(&["-dtb", &tree.name()]).run().failure(
        "VM second: /pl031@9010000 is not isolated from 00:01.0, which belongs to VM 0: they are one stream",
    );
}
