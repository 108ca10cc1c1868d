//! Boots images under QEMU through `scripts/run`, as a person would, and keeps what they print and what QEMU traces.

pub mod card;
pub mod elf;
pub mod emulator;
pub mod machine;
mod scratch;
pub mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use scratch::ScratchFile;

/// The root of the project.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this package lies two folders deep")
        .into()
}

/// A file that `scripts/test qemu` has built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let path = root().join("target/strandline").join(name);
    assert!(path.exists(), "{} is missing: run `scripts/test qemu`, which builds it", path.display());
    path
}

/// A boot to be made.
pub struct Boot {
    image: PathBuf,
    guest: PathBuf,
    emulator: Option<PathBuf>,
    options: Vec<String>,
    qemu: Vec<String>,
    trace: Vec<String>,
}

/// What a boot left.
pub struct Outcome {
    /// Exit status 0.
    pub succeeded: bool,
    /// All lines the machine printed.
    pub lines: Vec<String>,
    /// What `scripts/run` and QEMU said on standard error.
    pub errors: String,
    /// What QEMU traced and logged.
    pub trace: Vec<String>,
}

impl Boot {
    /// The demo guest.
    #[must_use]
    pub fn probe() -> Self {
        Self::guest(built("probe.img"))
    }

    /// The guest in this file.
    #[must_use]
    pub fn guest(guest: impl Into<PathBuf>) -> Self {
        Self {
            image: built("strandline.img"),
            guest: guest.into(),
            emulator: None,
            options: vec![],
            qemu: vec![],
            trace: vec![],
        }
    }

    /// A case of the test guest, with its arguments.
    #[must_use]
    pub fn case(name: &str, arguments: &str) -> Self {
        Self::guest(built("cases.img")).option("--cmdline", &format!("case={name} {arguments}"))
    }

    /// With another image, `name` in `target/strandline`.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.image = built(name);
        self
    }

    /// On another emulator than the installed one.
    #[must_use]
    pub fn emulator(mut self, emulator: &Path) -> Self {
        self.emulator = Some(emulator.into());
        self
    }

    /// With an option of `scripts/run`.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.into(), value.into()]);
        self
    }

    /// With a flag of `scripts/run`.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }

    /// With arguments for QEMU itself.
    #[must_use]
    pub fn qemu(mut self, arguments: &[&str]) -> Self {
        self.qemu.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// With trace events, or items of QEMU's `-d`, kept in [`Outcome::trace`].
    #[must_use]
    pub fn trace(mut self, items: &[&str]) -> Self {
        self.trace.extend(items.iter().map(ToString::to_string));
        self
    }

    /// Boots, and waits for the end; `scripts/run` ends what does not end by itself.
    #[must_use]
    pub fn run(self) -> Outcome {
        let trace = ScratchFile::new("trace");
        let mut command = Command::new(root().join("scripts/run"));
        command.arg("--image").arg(&self.image).arg("--guest").arg(&self.guest).args(["--timeout", "300"]);
        command.args(&self.options).arg("--").args(&self.qemu);
        if let Some(emulator) = &self.emulator {
            command.env("QEMU", emulator);
        }
        if !self.trace.is_empty() {
            command.args(["-d", &self.trace.join(","), "-D"]).arg(trace.path());
        }
        let output = command.output().expect("scripts/run starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // A trace that was never begun is none.
        let traced = fs::read(trace.path()).map(|bytes| text(&bytes)).unwrap_or_default();
        Outcome {
            succeeded: output.status.success(),
            lines: text(&output.stdout).lines().map(String::from).collect(),
            errors: text(&output.stderr),
            trace: traced.lines().map(String::from).collect(),
        }
    }
}

/// Boots the emulated machine of a board, by `scripts/run` with further options.
///
/// # Panics
/// The script does not start.
#[must_use]
pub fn run_board(board: &str, options: &[&str]) -> Outcome {
    let mut command = Command::new(root().join("scripts/run"));
    command.args(["--board", board, "--timeout", "300"]).args(options);
    let output = command.output().expect("scripts/run starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        succeeded: output.status.success(),
        lines: text(&output.stdout).lines().map(String::from).collect(),
        errors: text(&output.stderr),
        trace: vec![],
    }
}

impl Outcome {
    /// Everything, for a failed test to show.
    #[must_use]
    pub fn show(&self) -> String {
        format!("\n{}\n--- standard error:\n{}", self.lines.join("\n"), self.errors)
    }

    /// Whether a line contains `text`.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// Asserts that the VM succeeded.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    pub fn success(self) -> Self {
        assert!(self.succeeded, "the run failed{}", self.show());
        assert_eq!(self.lines.last().map(String::as_str), Some("strandline: succeeded"), "{}", self.show());
        self
    }

    /// Asserts that the run failed in an orderly way, and that a line contains `text`.
    ///
    /// # Panics
    /// It succeeded, or said something else, or did not end by itself.
    #[must_use]
    pub fn failure(self, text: &str) -> Self {
        assert!(!self.succeeded, "the run succeeded{}", self.show());
        assert!(self.says(text), "no line says '{text}'{}", self.show());
        let last = self.lines.last().map_or("", String::as_str);
        assert!(last.starts_with("strandline: failed: "), "the last line does not say why{}", self.show());
        assert!(!self.says("PANIC"), "EL2 panicked{}", self.show());
        self
    }

    /// How many lines of the trace contain `text`.
    #[must_use]
    pub fn traced(&self, text: &str) -> usize {
        self.trace.iter().filter(|line| line.contains(text)).count()
    }
}
