//! Cards, bundles and firmware that can't be booted from: one clear line on the console, whoever prints it.

use std::fs;
use std::path::Path;

use qemu_tests::card::{Card, bundle, file, script};
use qemu_tests::machine::Machine;
use qemu_tests::{ScratchFile, built};

const BOARD: &str = "qemu-virt";

/// A bundle that EL2 refuses, saying `why`.
fn refused(bundle: &[u8], why: &str) {
    let bundle = ScratchFile::with("bundle", bundle);
    let _ = Machine::direct(&file(BOARD, "strandline.img"), bundle.path()).run().failure(why);
}

fn good() -> Vec<u8> {
    bundle("memory=32M -- case=smc", None)
}

/// A bundle with one bit of its kernel wrong.
fn damaged() -> Vec<u8> {
    let mut bundle = good();
    bundle[0x1234] ^= 0x10;
    bundle
}

#[test]
fn bundle_that_is_damaged_is_not_started() {
    refused(&damaged(), "is damaged: its checksum is wrong; copy it anew");
}

#[test]
fn bundle_that_is_damaged_on_the_card_is_not_started_by_either_firmware() {
    let bundle = ScratchFile::with("bundle", &damaged());
    let card = Card::of(BOARD).with("strandline.bundle", bundle.path());
    let why = "is damaged: its checksum is wrong; copy it anew";
    let _ = Machine::uboot().card(card.path()).run().failure(why);
    let _ = Machine::uefi().card(card.path()).run().failure(why);
}

#[test]
fn bundle_that_is_cut_short_says_how_much_is_missing() {
    refused(&good()[..0x2000], "is cut short: it has ");
}

#[test]
fn initial_ramdisk_that_is_no_bundle_is_refused_as_such() {
    refused(b"070701 a ramdisk for somebody else", "is no bundle: scripts/image makes one");
}

#[test]
fn bundle_of_another_version_is_refused_by_its_number() {
    let mut bundle = good();
    bundle[8] = 2;
    refused(&bundle, "is of version 2, this image reads version 1: make both by one scripts/image");
}

#[test]
fn bundle_without_a_vm_says_that_there_is_none() {
    let empty = strandline_bundle::write(&[]).expect("nothing fits");
    refused(&empty, "there is no VM to start");
}

#[test]
fn entry_that_cannot_be_used_is_named() {
    refused(&bundle("flavour=sweet", None), "bundle entry 0: bootargs: unknown word 'flavour=sweet'");
}

#[test]
fn guest_that_does_not_fit_its_vm_is_refused() {
    refused(&bundle("memory=32M", Some(&vec![0; 33 << 20])), "too little memory: the ramdisk needs");
    refused(&bundle("memory=4G", None), "VM vm0: too little memory: its 4096 MiB of RAM");
}

#[test]
fn card_without_its_bundle_says_so_under_both_firmwares() {
    let card = Card::of(BOARD).without("strandline.bundle");
    let from = "strandline: failed: cannot load strandline.bundle from virtio 0:1 /";
    let _ = Machine::uboot().card(card.path()).until(from);
    let of = "strandline: failed: strandline.bundle is not on the volume this was started from: not found";
    let _ = Machine::uefi().card(card.path()).until(of);
}

#[test]
fn empty_bundle_is_refused_by_the_efi_application() {
    let nothing = ScratchFile::with("bundle", b"");
    let card = Card::of(BOARD).with("strandline.bundle", nothing.path());
    let _ = Machine::uefi().card(card.path()).until("strandline: failed: strandline.bundle is empty");
}

#[test]
fn boot_script_on_another_medium_than_its_files_names_that_medium() {
    let card = Card::of(BOARD).without("strandline.img").without("EFI/BOOT/BOOTAA64.EFI");
    let _ = Machine::uboot().card(card.path()).until(
        "strandline: failed: no strandline.img on virtio 0:1 /: run this script from the medium it was written to",
    );
}

#[test]
fn bundle_larger_than_the_machine_is_refused_by_both_firmwares() {
    // Sparse, as a kernel that large would not be.
    let large = ScratchFile::new("bundle");
    fs::File::create(large.path())
        .and_then(|f| f.set_len(200 << 20))
        .expect("the temporary directory can be written");
    let card = ScratchFile::new("card");
    make_card(&card, &large);
    let small = ["-m", "192M"];
    let _ = Machine::uboot()
        .card(card.path())
        .with(&small)
        .until("strandline: failed: cannot load strandline.bundle from virtio 0:1 /");
    let _ = Machine::uefi()
        .card(card.path())
        .with(&small)
        .until("strandline: failed: no free memory of 209715200 bytes");
}

/// A card with this bundle, larger than those that are made for boards.
fn make_card(card: &ScratchFile, bundle: &ScratchFile) {
    const START: u64 = 16 << 20;
    let master = fs::read(file(BOARD, "card.img")).expect("it was made");
    fs::write(card.path(), &master[..512]).expect("the temporary directory can be written");
    fs::File::options()
        .write(true)
        .open(card.path())
        .and_then(|f| f.set_len(START + (256 << 20)))
        .expect("the temporary directory can be written");
    let run = |command: &mut std::process::Command| {
        let output =
            command.env("MTOOLS_SKIP_CHECK", "1").output().expect("it is installed (scripts/setup card)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(std::process::Command::new("/usr/sbin/mkfs.vfat").args([
        "--offset",
        &(START / 512).to_string(),
        &card.name(),
        &(256 << 10).to_string(),
    ]));
    let partition = format!("{}@@{START}", card.name());
    run(std::process::Command::new("mcopy")
        .args(["-s", "-i", &partition])
        .args([file(BOARD, "EFI"), file(BOARD, "boot.scr"), file(BOARD, "strandline.img")])
        .arg("::/"));
    run(std::process::Command::new("mcopy").args(["-i", &partition, &bundle.name(), "::/strandline.bundle"]));
}

#[test]
fn uefi_that_publishes_no_device_tree_is_told_what_is_missing() {
    let machine = Machine::uefi().card(&file(BOARD, "card.img")).with(&["-machine", "acpi=on"]);
    let _ = machine.until("strandline: failed: this firmware publishes no device tree");
}

#[test]
fn firmware_at_el1_is_told_what_is_missing() {
    let machine = Machine::uefi().card(&file(BOARD, "card.img")).with(&["-machine", "virtualization=off"]);
    let _ = machine.until("strandline: failed: needs EL2");
}

/// `scripts/image` refuses these options, saying `why`.
fn image_refuses(options: &[&str], why: &str) {
    let output = script("image", options);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{said}");
}

#[test]
fn files_that_cannot_be_made_are_refused_with_the_reason() {
    let name = |path: &Path| path.display().to_string();
    let cases = name(&built("cases.img"));
    image_refuses(&["nonesuch"], "there is no board 'nonesuch': ");
    image_refuses(&[BOARD, "--guest", "/nonesuch"], "/nonesuch: no such file");
    image_refuses(&[BOARD, "--firmware", &cases], "does not say where on a card it goes");
    image_refuses(&[BOARD, "--flavour"], "unknown option --flavour");
    let large = ScratchFile::with("ramdisk", &vec![0; 33 << 20]);
    let options = [BOARD, "--guest", &cases, "--memory", "32M", "--ramdisk", &large.name()];
    image_refuses(&options, "does not fit: kernel and ramdisk have 33 MiB, the VM 32 MiB (--memory)");
}
