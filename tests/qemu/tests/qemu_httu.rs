//! `scripts/qemu-httu` where it can't build: one clear line each, and nothing on standard output.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use qemu_tests::emulator::patched;
use qemu_tests::{ScratchFile, root};

/// A place with a cache of its own, and programs that stand before the machine's own ones.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = ScratchFile::new("qemu-httu").path().to_path_buf();
        fs::create_dir_all(path.join("bin")).expect("the temporary directory can be written");
        Self(path)
    }

    /// With a program `name` that is this shell script.
    fn program(self, name: &str, script: &str) -> Self {
        let path = self.0.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the place can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self
    }

    /// A tarball of a folder whose file VERSION says `version`.
    fn tarball(&self, version: &str) -> String {
        let source = self.0.join("qemu");
        fs::create_dir_all(source.join("pc-bios")).expect("the place can be written");
        fs::write(source.join("VERSION"), version).expect("the place can be written");
        let tarball = self.0.join("qemu.tar");
        let tar = Command::new("tar").arg("-cf").arg(&tarball).arg("-C").arg(&self.0).arg("qemu").status();
        assert!(tar.expect("tar starts").success());
        tarball.display().to_string()
    }

    /// Asserts that the script fails, and that its last line on standard error says this.
    fn fails(&self, arguments: &[&str], says: &str) {
        let path = format!("{}:{}", self.0.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new(root().join("scripts/qemu-httu"))
            .args(arguments)
            .env("XDG_CACHE_HOME", self.0.join("cache"))
            .env("PATH", path)
            .output()
            .expect("scripts/qemu-httu starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "it succeeded\n{errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(last.starts_with("qemu-httu: ") && last.contains(says), "not '{says}':\n{errors}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What was never made can't be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn nothing_is_built_where_only_the_path_is_asked_for() {
    Place::new().fails(&["--no-build"], "has not been built");
}

#[test]
fn options_that_make_no_sense_are_named() {
    Place::new().fails(&["--sauce"], "unknown option --sauce");
    Place::new().fails(&["--source"], "--source needs a file");
    Place::new().fails(&["--source", "/nowhere.tar"], "/nowhere.tar: no such file");
}

#[test]
fn a_full_disk_is_noticed_beforehand() {
    let place = Place::new().program("df", "echo header; echo /dev/x 100 90 10 90% /");
    place.fails(&[], "no space: building takes 2048 MiB");
}

// The tests below get as far as the build tools, which the script installs where they are missing: not for a test.

#[test]
fn a_missing_source_package_is_named() {
    let Some(_) = patched() else { return };
    let place = Place::new().program("apt-get", "exit 0").program("apt-cache", "echo Version: 1:7.2-1");
    place.fails(&[], "has no source package of QEMU 10.0: name a tarball with --source");
}

#[test]
fn a_mirror_that_cannot_be_reached_is_named() {
    let Some(_) = patched() else { return };
    let place = Place::new().program("apt-get", "echo E: no route >&2; exit 100");
    place.fails(&[], "the lists of source packages can't be had from");
}

#[test]
fn the_source_of_another_version_is_refused() {
    let Some(_) = patched() else { return };
    let place = Place::new();
    place.fails(&["--source", &place.tarball("9.2.4")], "is QEMU 9.2.4: the patches are for 10.0");
}

#[test]
fn a_patch_that_does_not_apply_is_named() {
    let Some(_) = patched() else { return };
    let place = Place::new();
    place.fails(&["--source", &place.tarball("10.0.2")], "applying 0001-hw-arm-smmuv3-report-stage-2");
}

#[test]
fn a_build_that_fails_shows_where_its_log_is() {
    let Some(_) = patched() else { return };
    let place = Place::new().program("patch", "exit 0");
    place.fails(&["--source", &place.tarball("10.0.2")], "failed (log: ");
}
