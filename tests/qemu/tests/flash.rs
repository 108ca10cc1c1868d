//! `scripts/flash`: what it writes, and what it refuses to.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use qemu_tests::card::{file, script};
use qemu_tests::{ScratchFile, root};

const BOARD: &str = "qemu-virt";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn card() -> Vec<u8> {
    fs::read(file(BOARD, "card.img")).expect("it was made")
}

/// A file as large as the card and a little more, full of something else.
fn medium() -> ScratchFile {
    ScratchFile::with("medium", &vec![0x5a; card().len() + 4096])
}

/// Runs the script with somebody at the keyboard who types `answer`.
fn answered(device: &str, answer: &str) -> Output {
    let mut child = Command::new(root().join("scripts/flash"))
        .args([BOARD, device])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script starts");
    child.stdin.take().expect("it was piped").write_all(answer.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn card_is_written_when_its_device_was_named_again() {
    let medium = medium();
    let output = answered(&medium.name(), &format!("{}\n", medium.name()));
    assert!(output.status.success(), "{}", said(&output));
    let written = fs::read(medium.path()).expect("it is there");
    assert!(written[..card().len()] == card());
    assert!(written[card().len()..].iter().all(|byte| *byte == 0x5a), "what lies behind is left alone");
}

#[test]
fn nothing_is_written_without_the_right_answer() {
    let medium = medium();
    for answer in ["y\n", "yes\n", "\n", ""] {
        let output = answered(&medium.name(), answer);
        assert!(
            !output.status.success() && said(&output).contains("nothing was written"),
            "{}",
            said(&output)
        );
    }
    assert!(fs::read(medium.path()).expect("it is there").iter().all(|byte| *byte == 0x5a));
}

#[test]
fn dry_run_writes_nothing() {
    let medium = medium();
    let output = script("flash", &[BOARD, &medium.name(), "--dry-run", "--yes"]);
    assert!(output.status.success() && said(&output).contains("dry run"), "{}", said(&output));
    assert!(fs::read(medium.path()).expect("it is there").iter().all(|byte| *byte == 0x5a));
}

#[test]
fn what_cannot_be_a_card_is_refused() {
    let refused = |device: &str, why: &str| {
        let output = script("flash", &[BOARD, device, "--yes"]);
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
    };
    let small = ScratchFile::with("small", &[0; 4096]);
    refused(&small.name(), "it is too small");
    refused("/nonesuch", "it does not exist");
    refused("/dev/null", "it is neither block device nor file");
    refused("/tmp", "it is neither block device nor file");
    let output = script("flash", &["nonesuch", "/dev/null"]);
    assert!(said(&output).contains("there is no board 'nonesuch'"), "{}", said(&output));
}

/// A machine made of files, whose devices are never written.
struct FakeMachine(PathBuf);

impl FakeMachine {
    /// With a USB stick `sdz` of 8 GiB that has one partition.
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("strandline-machine-{name}-{}", std::process::id()));
        let machine = Self(folder);
        for (file, contents) in [
            ("sys/class/block/sdz/size", "16777216"),
            ("sys/class/block/sdz/ro", "0"),
            ("sys/class/block/sdz/removable", "1"),
            ("sys/class/block/sdz/dev", "8:400"),
            ("sys/class/block/sdz/sdz1/dev", "8:401"),
            ("sys/class/block/sdz/sdz1/partition", "1"),
            ("sys/class/block/sdz1/dev", "8:401"),
            ("sys/class/block/sdz1/partition", "1"),
            ("proc/self/mountinfo", "20 1 254:0 / / rw - ext4 /dev/root rw"),
            ("proc/self/mounts", "/dev/root / ext4 rw 0 0"),
            ("proc/swaps", "Filename Type Size Used Priority"),
        ] {
            machine.set(file, contents);
        }
        machine
    }

    fn set(&self, file: &str, contents: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .expect("the temporary directory can be written");
        fs::write(path, format!("{contents}\n")).expect("the temporary directory can be written");
    }

    /// What the script says of a device, and whether it would write it.
    fn flash(&self, device: &str) -> (bool, String) {
        let output = Command::new(root().join("scripts/flash"))
            .env("STRANDLINE_FAKE_MACHINE", &self.0)
            .args([BOARD, device, "--yes"])
            .output()
            .expect("the script starts");
        (output.status.success(), said(&output))
    }

    fn refuses(&self, device: &str, why: &str) {
        let (accepted, said) = self.flash(device);
        assert!(!accepted && said.contains(why), "{said}");
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        // What is left of it harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn stick_that_nobody_uses_is_accepted() {
    let (accepted, said) = FakeMachine::new("good").flash("/dev/sdz");
    assert!(accepted && said.contains("8192 MiB") && said.contains("nothing was written"), "{said}");
}

#[test]
fn device_that_is_not_removable_is_refused() {
    let machine = FakeMachine::new("fixed");
    machine.set("sys/class/block/sdz/removable", "0");
    machine.refuses("/dev/sdz", "it is not removable");
}

#[test]
fn memory_card_in_a_slot_is_accepted_and_soldered_memory_is_not() {
    let machine = FakeMachine::new("slot");
    for (file, contents) in [("size", "16777216"), ("ro", "0"), ("removable", "0"), ("dev", "179:0")] {
        machine.set(&format!("sys/class/block/mmcblk7/{file}"), contents);
    }
    machine.set("sys/class/block/mmcblk7/device/type", "SD");
    assert!(machine.flash("/dev/mmcblk7").0);
    machine.set("sys/class/block/mmcblk7/device/type", "MMC");
    machine.refuses("/dev/mmcblk7", "it is not removable");
}

#[test]
fn device_in_use_is_refused_whatever_uses_it() {
    let machine = FakeMachine::new("used");
    machine.set("proc/self/mountinfo", "40 1 8:401 / /media/stick rw - vfat /dev/sdz1 rw");
    machine.refuses("/dev/sdz", "sdz1 is mounted at /media/stick: unmount it first");
    machine.set("proc/self/mountinfo", "40 1 0:55 / /media/stick rw - btrfs /dev/sdz1 rw");
    machine.set("proc/self/mounts", "/dev/sdz1 /media/stick btrfs rw 0 0");
    machine.refuses("/dev/sdz", "sdz1 is mounted at /media/stick: unmount it first");
    machine.set("proc/self/mounts", "");
    machine.set("proc/swaps", "/dev/sdz partition 1 0 -2");
    machine.refuses("/dev/sdz", "sdz is in use as swap");
    machine.set("proc/swaps", "");
    machine.set("sys/class/block/sdz1/holders/dm-3/dm/name", "secret");
    machine.refuses("/dev/sdz", "sdz1 is in use by dm-3");
}

#[test]
fn partition_or_unknown_or_small_or_protected_device_is_refused() {
    let machine = FakeMachine::new("others");
    machine.refuses("/dev/sdz1", "it is a partition");
    machine.refuses("/dev/sdy", "this machine knows no block device sdy");
    machine.set("sys/class/block/sdz/ro", "1");
    machine.refuses("/dev/sdz", "it is write-protected");
    machine.set("sys/class/block/sdz/ro", "0");
    machine.set("sys/class/block/sdz/size", "2048");
    machine.refuses("/dev/sdz", "it is too small: 1 MiB");
}
