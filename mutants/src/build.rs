//! The build that has all mutants in it; what can't be in it is found by what the compiler says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::body::{self, Changed};
use crate::mutant::Mutant;

/// What says which mutant runs.
const CHOSEN: &str = include_str!("chosen.rs.in");
/// What the crate that has it needs.
const FEATURES: &str = "#![feature(core_intrinsics, const_eval_select)]\n#![allow(internal_features)]\n";
/// As often as the compiler is asked at the most. What it says of one function hides what it would say of others.
const ROUNDS: usize = 40;

/// A build of the library's tests.
pub struct Built {
    /// The program.
    pub tests: PathBuf,
    /// Mutants that are not in it.
    pub left: BTreeSet<usize>,
}

/// Builds the tests of the library in `copy` with all `mutants` that can be in one build.
pub fn all_at_once(copy: &Path, mutants: &[Mutant]) -> Result<Built, String> {
    let mut files: BTreeMap<&str, (String, Vec<&Mutant>)> = BTreeMap::new();
    for mutant in mutants {
        if !files.contains_key(mutant.file.as_str()) {
            files.insert(&mutant.file, (read(&copy.join(&mutant.file))?, vec![]));
        }
        files.entry(&mutant.file).and_modify(|(_, of_it)| of_it.push(mutant));
    }
    let root = copy.join("src/lib.rs");
    write(&copy.join("src/chosen.rs"), CHOSEN)?;
    write(&root, &with_chosen(&read(&root)?))?;
    let mut left = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut changed: BTreeMap<&str, Changed> = BTreeMap::new();
        for (file, (original, mutants)) in &files {
            let now = body::change(original, mutants, &left);
            write(&copy.join(file), &now.text)?;
            changed.insert(file, now);
        }
        left.extend(changed.values().flat_map(|file| file.left.iter().copied()));
        let errors = compile(copy, "check")?.errors;
        if errors.is_empty() {
            let tests = compile(copy, "test")?.tests.ok_or("cargo names no test program")?;
            return Ok(Built { tests, left });
        }
        let refused: BTreeSet<usize> = errors.iter().flat_map(|error| blame(error, &changed)).collect();
        if refused.is_empty() {
            return Err(format!("the tests don't compile: {}", errors[0]["rendered"]));
        }
        eprintln!("mutants: {} can't stand beside the others", refused.len());
        left.extend(refused);
    }
    Err(format!("the tests still don't compile after {ROUNDS} rounds"))
}

/// The root of the crate, told of what it has now.
fn with_chosen(root: &str) -> String {
    let attributes = root.find("#![").unwrap_or(0);
    format!("{}{FEATURES}{}\nmod chosen;\n", &root[..attributes], &root[attributes..])
}

/// The mutants at the place of `error`: those named first, or else all of the function that it is in.
fn blame(error: &Value, changed: &BTreeMap<&str, Changed>) -> Vec<usize> {
    let places: Vec<(bool, &Changed, usize)> = error["spans"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|span| {
            let file = changed.get(span["file_name"].as_str()?)?;
            Some((span["is_primary"].as_bool()?, file, span["line_start"].as_u64()? as usize))
        })
        .collect();
    for primary in [true, false] {
        let of_arms =
            places.iter().filter(|(is_primary, ..)| *is_primary == primary).filter_map(|(_, file, line)| {
                file.arms.iter().find(|(lines, _)| lines.contains(line)).map(|(_, id)| *id)
            });
        let arms: Vec<usize> = of_arms.collect();
        if !arms.is_empty() {
            return arms;
        }
    }
    // A signature stands before its body: the next function that ends behind the place.
    let function = places
        .iter()
        .find_map(|(_, file, line)| file.functions.iter().find(|(lines, _)| lines.end() >= line));
    function.map(|(_, ids)| ids.clone()).unwrap_or_default()
}

/// What cargo says.
#[derive(Default)]
struct Said {
    errors: Vec<Value>,
    tests: Option<PathBuf>,
}

fn compile(copy: &Path, how: &str) -> Result<Said, String> {
    let mut command = Command::new("cargo");
    command.current_dir(copy).args([
        "+nightly",
        how,
        "--package",
        "strandline",
        "--lib",
        "--profile",
        "mutants",
    ]);
    command.args(if how == "check" { ["--tests", "--quiet"] } else { ["--no-run", "--quiet"] });
    command.arg("--message-format=json").env("RUSTFLAGS", "--cap-lints=warn");
    let output = command.output().map_err(|e| format!("cargo: {e}"))?;
    let mut said = Said::default();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            said.errors.push(message["message"].clone());
        }
        if let Some(program) = message["executable"].as_str() {
            said.tests = Some(PathBuf::from(program));
        }
    }
    if !output.status.success() && said.errors.is_empty() {
        return Err(format!("cargo {how}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(said)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
