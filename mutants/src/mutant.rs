//! What cargo-mutants would change.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// A place in a file: line and column, counted from 1.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Text from `start` to before `end`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

/// The function that a mutant is in.
#[derive(Debug, Deserialize)]
pub struct Function {
    pub span: Span,
}

/// A change of one place.
#[derive(Debug, Deserialize)]
pub struct Mutant {
    /// Its number, from 1.
    #[serde(default)]
    pub id: usize,
    pub name: String,
    pub file: String,
    pub function: Option<Function>,
    /// What is replaced.
    pub span: Span,
    /// By what.
    pub replacement: String,
    genre: String,
}

impl Mutant {
    /// What stands in the place of what was there.
    pub fn text(&self) -> &str {
        // Of an arm that goes cargo-mutants tells a comment.
        if self.genre == "MatchArm" { "" } else { &self.replacement }
    }
}

/// The mutants in the tree `copy`, those that `options` of cargo-mutants name.
pub fn list(copy: &Path, options: &[String]) -> Result<Vec<Mutant>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(copy).args(["mutants", "--list", "--json"]).args(options);
    let output = command.output().map_err(|e| format!("cargo mutants: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo mutants --list: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut mutants: Vec<Mutant> =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo mutants --list: {e}"))?;
    for (id, mutant) in (1..).zip(&mut mutants) {
        mutant.id = id;
    }
    Ok(mutants)
}
