//! What `scripts/image` has made, and cards that were changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use strandline_bundle::{Entry, Kind};

use crate::{ScratchFile, built, root};

/// Where the partition begins on a card, in bytes.
const PARTITION: u64 = 16 << 20;

/// A file of a board's.
#[must_use]
pub fn file(board: &str, name: &str) -> PathBuf {
    built(&format!("boards/{board}/{name}"))
}

/// Runs a script of the project's.
///
/// # Panics
/// It can't be started.
#[must_use]
pub fn script(name: &str, arguments: &[&str]) -> Output {
    Command::new(root().join("scripts").join(name)).args(arguments).output().expect("the script starts")
}

/// A copy of a board's card, to be changed.
pub struct Card(ScratchFile);

impl Card {
    /// As `scripts/image` made it.
    ///
    /// # Panics
    /// It can't be copied.
    #[must_use]
    pub fn of(board: &str) -> Self {
        let copy = ScratchFile::new("card");
        fs::copy(file(board, "card.img"), copy.path()).expect("the temporary directory can be written");
        Self(copy)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Without a file.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        self.tool("mdel", &[&format!("::/{name}")]);
        self
    }

    /// With another file of this name.
    #[must_use]
    pub fn with(self, name: &str, file: &Path) -> Self {
        self.tool("mcopy", &["-o", &file.display().to_string(), &format!("::/{name}")]);
        self
    }

    /// The contents of a file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.tool("mtype", &[&format!("::/{name}")])
    }

    /// One of the mtools, on the card's partition.
    fn tool(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(name)
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(format!("{}@@{PARTITION}", self.0.name()))
            .args(arguments)
            .output()
            .expect("mtools are installed (scripts/setup card)");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// A bundle with the test guest in it, under these arguments, and a ramdisk.
///
/// # Panics
/// It can't be made.
#[must_use]
pub fn bundle(arguments: &str, ramdisk: Option<&[u8]>) -> Vec<u8> {
    let kernel = fs::read(built("cases.img")).expect("it was built");
    let ramdisk = ramdisk.map(|data| Entry { kind: Kind::Ramdisk, arguments: "", data });
    let kernel = Entry { kind: Kind::Kernel, arguments, data: &kernel };
    let entries: Vec<_> = [kernel].into_iter().chain(ramdisk).collect();
    strandline_bundle::write(&entries).expect("a bundle holds them")
}
