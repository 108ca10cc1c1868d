//! Files of the tests' own, in the system's temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file that goes with this value.
pub struct ScratchFile(PathBuf);

impl ScratchFile {
    /// A name that no other test uses; nothing has been written there.
    #[must_use]
    pub fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("strandline-{what}-{}-{number}", std::process::id())))
    }

    /// A file with these contents.
    ///
    /// # Panics
    /// It can't be written.
    #[must_use]
    pub fn with(what: &str, contents: &[u8]) -> Self {
        let file = Self::new(what);
        fs::write(file.path(), contents).expect("the temporary directory can be written");
        file
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is, for a command line.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // What was never written can't be removed.
        let _ = fs::remove_file(&self.0);
    }
}
