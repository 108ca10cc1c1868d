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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a function in lines 2 to 9, and two mutants of it.
    fn changed() -> BTreeMap<&'static str, Changed> {
        let (arms, functions) = (vec![(3..=4, 1), (5..=6, 2)], vec![(2..=9, vec![1, 2])]);
        BTreeMap::from([("src/a.rs", Changed { text: String::new(), arms, functions, left: vec![] })])
    }

    fn error(spans: &[(u64, bool)]) -> Value {
        let span = |(line, primary): &(u64, bool)| serde_json::json!({ "file_name": "src/a.rs", "line_start": line, "is_primary": primary });
        serde_json::json!({ "spans": spans.iter().map(span).collect::<Vec<_>>() })
    }

    #[test]
    fn an_error_is_blamed_on_the_mutant_it_points_at_or_else_on_one_it_mentions() {
        assert_eq!(blame(&error(&[(3, false), (6, true)]), &changed()), [2]);
        assert_eq!(blame(&error(&[(8, true), (3, false)]), &changed()), [1]);
    }

    #[test]
    fn an_error_of_the_signature_is_blamed_on_all_mutants_of_the_function() {
        assert_eq!(blame(&error(&[(1, true)]), &changed()), [1, 2]);
        assert_eq!(blame(&error(&[(10, true)]), &changed()), Vec::<usize>::new(), "behind all functions");
    }

    #[test]
    fn attributes_of_the_crate_stand_behind_its_text_and_the_module_behind_everything() {
        let root = with_chosen("//! Text.\n#![no_std]\nmod a;\n");
        assert_eq!(root, format!("//! Text.\n{FEATURES}#![no_std]\nmod a;\n\nmod chosen;\n"));
    }
}
