//! `cargo run`: boots the image, by `scripts/run` with the same arguments.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs the script and passes its exit status on.
pub fn main() -> ExitCode {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run");
    match Command::new(&script).args(std::env::args_os().skip(1)).status() {
        // No code: a signal ended it.
        Ok(status) => {
            status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("strandline: {}: {error}", script.display());
            ExitCode::FAILURE
        }
    }
}
