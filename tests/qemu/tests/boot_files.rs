//! The very files that `scripts/image` made, booted to the end: by U-Boot and by UEFI from a card, over the network, and
//! by a loader that knows Linux alone.

use std::fs;

use qemu_tests::card::{Card, bundle, file, script};
use qemu_tests::machine::Machine;
use qemu_tests::{Outcome, ScratchFile, built};

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
    assert!(boards.lines().any(|board| board == "rk3588"), "{boards}");
    for board in boards.lines() {
        let sums = file(board, "SHA256SUMS");
        let folder = sums.parent().expect("it lies in a folder");
        let checked = std::process::Command::new("sha256sum")
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
fn every_boards_bundle_boots_to_the_end_of_the_demo() {
    let boards = script("image", &["--list"]);
    for board in String::from_utf8(boards.stdout).expect("names of folders").lines().filter(|b| *b != BOARD) {
        let machine = Machine::direct(&file(board, "strandline.img"), &file(board, "strandline.bundle"));
        demo_passes(machine.with(&["-m", "3G"]).run());
    }
}
