//! The library in a program that is none of the project's image (`examples/embedding`), built from the package.

use std::path::Path;
use std::process::Command;

use qemu_tests::built;
use qemu_tests::emulator::patched;

const MACHINE: &str = "virt,virtualization=on,gic-version=3,iommu=smmuv3";

/// Boots the example on `emulator`, with further arguments for it, and gives back what it printed.
fn printed(emulator: &Path, arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .arg(emulator)
        .args(["-M", MACHINE, "-cpu", "max", "-m", "512M"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none"])
        .args(["-device", "edu,addr=1"])
        .args(arguments)
        .arg("-kernel")
        .arg(built("embedding.elf"))
        .output()
        .expect("the emulator starts");
    let [out, err] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).replace('\r', ""));
    assert!(output.status.success(), "it failed or took too long:\n{out}{err}");
    assert!(out.ends_with("embedding: succeeded\n"), "{out}{err}");
    out
}

#[test]
fn an_embedder_without_hardware_dirty_state_is_told_the_tier_and_what_it_means() {
    let emulator = std::env::var("QEMU").unwrap_or_else(|_| "qemu-system-aarch64".into());
    let out = printed(Path::new(&emulator), &[]);
    let tier = "by tier 'assume': the SMMU keeps no dirty state, so every page the device may write counts as written";
    assert!(out.contains(tier), "{out}");
    assert!(out.contains("2048 of 2048 pages reported, the last is 0xfff000"), "{out}");
}

#[test]
fn an_embedder_with_hardware_dirty_state_is_told_exactly_the_page_that_was_written() {
    let Some(patched) = patched() else { return };
    let out = printed(&patched, &["-global", "arm-smmuv3.httu=2"]);
    assert!(
        out.contains("by tier 'hardware': the SMMU marks each page that it translates a write to"),
        "{out}"
    );
    assert!(out.contains("1 of 2048 pages reported, the last is 0x923000"), "{out}");
}

#[test]
fn a_device_that_is_missing_ends_the_example_with_the_reason() {
    let emulator = std::env::var("QEMU").unwrap_or_else(|_| "qemu-system-aarch64".into());
    let output = Command::new("timeout")
        .args(["60", &emulator, "-M", MACHINE, "-cpu", "max", "-m", "512M"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none", "-kernel"])
        .arg(built("embedding.elf"))
        .output()
        .expect("the emulator starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("the machine has no edu device at 00:01.0"), "{out}");
}

#[test]
fn the_sources_of_the_example_stay_short() {
    let folder = qemu_tests::root().join("examples/embedding/src");
    let lines = std::fs::read_dir(folder)
        .expect("the example is there")
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text").lines().count());
    assert!(lines.sum::<usize>() < 250);
}
