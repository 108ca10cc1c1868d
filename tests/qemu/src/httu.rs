//! The emulator whose SMMU keeps dirty state (`emulator/`).

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::root;

/// The emulator with HTTU: what `STRANDLINE_QEMU_HTTU` names, else what `scripts/qemu-httu` has built. `None`, and a line
/// that says why, where there is none.
///
/// # Panics
/// `STRANDLINE_QEMU_HTTU` names no file.
#[must_use]
pub fn httu_emulator() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(emulator) => Some(emulator.clone()),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

fn find() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("STRANDLINE_QEMU_HTTU") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "STRANDLINE_QEMU_HTTU names {}, which is no file", named.display());
        return Ok(named);
    }
    let script = root().join("scripts/qemu-httu");
    let output = Command::new(&script).arg("--no-build").output();
    let output = output.map_err(|error| format!("no emulator with HTTU: {}: {error}", script.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().into())
    } else {
        Err(format!("no emulator with HTTU: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
