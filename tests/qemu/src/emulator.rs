//! The emulators there are: the installed one, and the one with the patches of `emulator/`.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{built, root};

/// Tells why a test is not run, past the test runner, which shows nothing of tests that pass.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_string();
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "skipped: {name}: {why}");
}

/// The emulator with the patches; where it has not been built, says why the test is skipped.
#[must_use]
pub fn patched() -> Option<PathBuf> {
    let output = Command::new(root().join("scripts/qemu-httu")).arg("--no-build").output();
    let output = output.expect("scripts/qemu-httu starts");
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    skipped(String::from_utf8_lossy(&output.stderr).trim());
    None
}

/// The installed emulator, if it is the version that the patches are for and `patched` was made from; otherwise says why
/// the test is skipped.
#[must_use]
pub fn stock(patched: &Path) -> Option<PathBuf> {
    let stock = PathBuf::from(env::var("QEMU").unwrap_or_else(|_| "qemu-system-aarch64".into()));
    let [theirs, ours] = [&stock, patched].map(version);
    if theirs == ours {
        return Some(stock);
    }
    skipped(&format!("{} is QEMU {theirs}, the patched one is {ours}", stock.display()));
    None
}

/// Such as 10.0.2.
fn version(emulator: impl AsRef<Path>) -> String {
    let output = Command::new(emulator.as_ref()).arg("--version").output().expect("the emulator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split("version ").nth(1).unwrap_or_default();
    numbers.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

/// Runs a case of `emulator/selftest` on `emulator`, with further arguments for it, and gives back what it printed.
#[must_use]
pub fn selftest(emulator: &Path, case: &str, arguments: &[&str]) -> String {
    let output = raw_selftest(emulator, case, arguments);
    let [out, err] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).replace('\r', ""));
    assert!(output.status.success(), "{} failed or took too long:\n{out}{err}", emulator.display());
    out
}

/// The same, whatever became of it.
#[must_use]
pub fn raw_selftest(emulator: &Path, case: &str, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .arg("120")
        .arg(emulator)
        .args(["-M", "virt,virtualization=on,gic-version=3,iommu=smmuv3", "-cpu", "max", "-m", "512M"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none"])
        .args(["-device", "edu,addr=01.0,dma_mask=0xffffffffffffffff", "-kernel"])
        .arg(built("selftest.img"))
        .args(["-append", &format!("case={case}")])
        .args(arguments)
        .output()
        .expect("timeout starts")
}
