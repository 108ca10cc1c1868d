//! The very files that `scripts/image` made, booted to the end: by U-Boot and by UEFI from a card, over the network, and
//! by a loader that knows Linux alone.

use std::fs;
use std::process::Command;

use qemu_tests::card::{Card, bundle, file, script};
use qemu_tests::machine::Machine;
use qemu_tests::tree::Tree;
use qemu_tests::{Boot, Outcome, ScratchFile, built, root};

const BOARD: &str = "qemu-virt";

fn demo_passes(outcome: Outcome) {
    let outcome = outcome.success();
    assert!(outcome.says("vm0| probe: all "), "{}", outcome.show());
    assert!(!outcome.says("FAILED"), "{}", outcome.show());
}

/// A bundle whose guest succeeds at once.
fn short() -> ScratchFile {
    ScratchFile::with("bundle", &bundle("memory=32M -- case=smc", None))
}

fn short_case_passes(outcome: Outcome) {
    let outcome = outcome.success();
    assert!(outcome.says("vm0| case smc: ok"), "{}", outcome.show());
}

#[test]
fn card_boots_under_u_boot_by_its_script_to_the_end_of_the_demo() {
    let machine = Machine::uboot().card(&file(BOARD, "card.img")).with(&["-m", "3G"]);
    let outcome = machine.run();
    assert!(outcome.says("Found U-Boot script /boot.scr"), "{}", outcome.show());
    demo_passes(outcome);
}

#[test]
fn card_boots_under_uefi_to_the_end_of_the_demo() {
    demo_passes(Machine::uefi().card(&file(BOARD, "card.img")).with(&["-m", "3G"]).run());
}

#[test]
fn u_boot_starts_the_efi_application_of_a_card_without_a_script() {
    let card = Card::of(BOARD).without("boot.scr").with("strandline.bundle", short().path());
    let outcome = Machine::uboot().card(card.path()).run();
    assert!(outcome.says("Booting /efi\\boot\\bootaa64.efi"), "{}", outcome.show());
    short_case_passes(outcome);
}

#[test]
fn u_boot_loads_the_files_from_a_tftp_server() {
    let outcome = Machine::uboot()
        .tftp(file(BOARD, "boot.scr.uimg").parent().expect("it lies in a folder"))
        .with(&["-m", "3G"])
        .until("vm0| probe: a guest kernel");
    assert!(outcome.says("Filename 'strandline.bundle'"), "{}", outcome.show());
}

#[test]
fn loader_that_knows_linux_alone_boots_image_and_bundle() {
    short_case_passes(Machine::direct(&file(BOARD, "strandline.img"), short().path()).run());
}

#[test]
fn uefi_on_cores_of_another_kind_boots_to_the_end() {
    for core in ["cortex-a76", "neoverse-n2"] {
        let card = Card::of(BOARD).with("strandline.bundle", short().path());
        short_case_passes(Machine::uefi().card(card.path()).with(&["-cpu", core]).run());
    }
}

#[test]
fn firmware_that_leaves_the_host_extensions_on_is_no_obstacle() {
    // x0 = the tree, HCR_EL2 = E2H, RW and TGE, and a jump to the image.
    let code: Vec<u8> = [
        0xd2a8_0000_u32, // movz x0, #0x4000, lsl #16
        0xd2b1_0001,     // movz x1, #0x8800, lsl #16
        0xf2c0_0081,     // movk x1, #4, lsl #32
        0xd51c_1101,     // msr hcr_el2, x1
        0xd503_3fdf,     // isb
        0xd2a8_0402,     // movz x2, #0x4020, lsl #16
        0xd61f_0040,     // br x2
    ]
    .iter()
    .flat_map(|word| word.to_le_bytes())
    .collect();
    let stub = ScratchFile::with("elf", &qemu_tests::elf::executable(&code, 0x5000_0000, 0));
    let image =
        format!("loader,addr=0x40200000,force-raw=on,file={}", file(BOARD, "strandline.img").display());
    // Behind an ELF file the emulator tells of no initial ramdisk.
    let guest = format!(
        "guest-loader,addr=0x60000000,kernel={},bootargs=memory=32M -- case=smc",
        built("cases.img").display()
    );
    let machine = Machine::kernel(stub.path()).with(&["-device", &image, "-device", &guest]);
    short_case_passes(machine.run());
}

/// The console that `scripts/image` has written into the board's image.
#[test]
fn broken_device_tree_is_told_on_the_boards_early_console() {
    // x0 = where the emulator puts the broken tree, and a jump to the image.
    let code: Vec<u8> = [
        0xd2ab_0000_u32, // movz x0, #0x5800, lsl #16
        0xd2a8_0402,     // movz x2, #0x4020, lsl #16
        0xd61f_0040,     // br x2
    ]
    .iter()
    .flat_map(|word| word.to_le_bytes())
    .collect();
    let stub = ScratchFile::with("elf", &qemu_tests::elf::executable(&code, 0x5000_0000, 0));
    let tree = fs::read(root().join("fuzz/trees/virt.dtb")).expect("it is there");
    let mut badly_nested = tree.clone();
    // A token of the structure block, where it begins.
    let structure = u32::from_be_bytes(tree[8..12].try_into().expect("four bytes")) as usize;
    badly_nested[structure..structure + 4].copy_from_slice(&7_u32.to_be_bytes());
    let place = format!("broken at byte {structure}: neither node nor property");
    for (tree, problem) in [
        (&tree[..0], "no device tree at the address in x0"),
        (&[&tree[..4], &[0, 0, 0, 8]].concat()[..], "broken at byte 20: cut short"),
        (&badly_nested[..], place.as_str()),
    ] {
        let blob = ScratchFile::with("dtb", tree);
        let image =
            format!("loader,addr=0x40200000,force-raw=on,file={}", file(BOARD, "strandline.img").display());
        let tree = format!("loader,addr=0x58000000,force-raw=on,file={}", blob.name());
        let mut machine = Machine::kernel(stub.path()).with(&["-device", &image]);
        if fs::metadata(blob.path()).is_ok_and(|file| file.len() > 0) {
            machine = machine.with(&["-device", &tree]);
        }
        // Nobody has told it how it is switched off.
        let outcome = machine.until("strandline: failed: ");
        assert!(outcome.says(problem), "no line says '{problem}'{}", outcome.show());
        assert!(!outcome.says("PANIC"), "{}", outcome.show());
    }
}

#[test]
fn device_tree_on_the_card_goes_before_u_boots_own() {
    // The emulated board's U-Boot has no address for it.
    let commands = fs::read_to_string(root().join("boards/boot.cmd")).expect("it is there");
    let commands = ScratchFile::with("cmd", format!("setenv fdt_addr_r 0x48000000\n{commands}").as_bytes());
    let script = ScratchFile::new("scr");
    let made = Command::new("mkimage")
        .args(["-A", "arm64", "-O", "linux", "-T", "script", "-C", "none", "-d"])
        .args([commands.path(), script.path()])
        .output();
    assert!(made.expect("it is installed (scripts/setup card)").status.success());
    let tree = Tree::of(Boot::case("smc", "")).without("/smmuv3@9050000").file();
    let card = Card::of(BOARD).with("boot.scr", script.path()).with("strandline.dtb", tree.path());
    let _ = Machine::uboot().card(card.path()).run().failure("device tree: no SMMUv3");
}

#[test]
fn bundle_with_several_vms_and_a_ramdisk_starts_them_in_order() {
    let cases = fs::read(built("cases.img")).expect("it was built");
    let entry = |kind, arguments, data| strandline_bundle::Entry { kind, arguments, data };
    let parts = [
        entry(strandline_bundle::Kind::Kernel, "memory=32M name=one -- case=smc", cases.as_slice()),
        entry(strandline_bundle::Kind::Ramdisk, "", b"a ramdisk"),
        entry(strandline_bundle::Kind::Kernel, "memory=64M name=two -- case=smc", &cases),
    ];
    let bundle = ScratchFile::with("bundle", &strandline_bundle::write(&parts).expect("it holds them"));
    let outcome = Machine::direct(&file(BOARD, "strandline.img"), bundle.path()).run().success();
    let line = |text: &str| outcome.lines.iter().position(|l| l.contains(text));
    assert!(line("one| case smc: ok").is_some(), "{}", outcome.show());
    assert!(line("one| case smc: ok") < line("two| case smc: ok"), "{}", outcome.show());
}

#[test]
fn every_board_has_its_files_and_its_card_has_them_too() {
    let boards = script("image", &["--list"]);
    let boards = String::from_utf8(boards.stdout).expect("names of folders");
    let folders = fs::read_dir(root().join("boards")).expect("it is there").flatten();
    let folders = folders.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(boards.lines().count(), folders, "every folder of boards/ has a boot.conf: {boards}");
    for board in boards.lines() {
        let sums = file(board, "SHA256SUMS");
        let folder = sums.parent().expect("it lies in a folder");
        let checked = Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(folder)
            .status();
        assert!(checked.expect("sha256sum starts").success(), "{board}");
        let card = Card::of(board);
        for name in ["strandline.img", "strandline.bundle", "boot.scr", "EFI/BOOT/BOOTAA64.EFI"] {
            assert!(
                card.contents(name) == fs::read(file(board, name)).expect("it is there"),
                "{board}: {name}"
            );
        }
        let image = fs::read(file(board, "strandline.img")).expect("it is there");
        assert!(image == card.contents("EFI/BOOT/BOOTAA64.EFI"), "{board}: one file, both ways to boot");
    }
}

#[test]
fn firmware_goes_on_the_card_where_the_board_starts_from() {
    let folder = ScratchFile::new("folder");
    let firmware = ScratchFile::with("firmware", &[0xa5; 1000]);
    let options = ["rk3588", "--firmware", &firmware.name(), "--output", &folder.name()];
    let output = script("image", &options);
    let card = fs::read(folder.path().join("card.img"));
    let mine = fs::remove_dir_all(folder.path());
    assert!(output.status.success() && mine.is_ok(), "{}", String::from_utf8_lossy(&output.stderr));
    // Sector 64; the partition begins at 16 MiB and is as it always is.
    let card = card.expect("it was made");
    assert!(card[0x8000..0x8000 + 1000].iter().all(|byte| *byte == 0xa5));
    assert!(card[0x8000 + 1000..16 << 20].iter().all(|byte| *byte == 0), "nothing else lies in front");
    assert_eq!(card[(16 << 20) + 510..(16 << 20) + 512], [0x55, 0xaa]);
}

#[test]
fn every_other_boards_card_boots_on_the_emulated_board_too() {
    let boards = script("image", &["--list"]);
    for board in String::from_utf8(boards.stdout).expect("names of folders").lines().filter(|b| *b != BOARD) {
        // qemu-sbsa's VM has a device of this number.
        let machine = Machine::uboot().with(&["-device", "edu,addr=04.0,dma_mask=0xffffffffffffffff"]);
        demo_passes(machine.card(&file(board, "card.img")).run());
    }
}
