//! Tries mutants of the library without a build for each (`scripts/mutants all`).
//!
//! cargo-mutants says what there is to be changed. Here a copy of the tree gets all of it at once: the body of a function
//! stands there once as it is and once for each of its mutants, and which one runs is said by an environment variable when
//! the tests are started. What can't stand beside the rest (constants, what the compiler refuses) is left to cargo-mutants.
//!
//! A nightly compiler builds it: what a `const fn` is depends on whether it runs when the program does.

mod body;
mod build;
mod mutant;
mod trial;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use mutant::Mutant;
use trial::Outcome;

/// `mutants COPY REPORT OPTION...`: the mutants in the tree `COPY`, which is changed, that options of cargo-mutants name.
/// `REPORT` is a directory: `caught`, `missed`, `timeout` and `left` list them there by name.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [copy, report, options @ ..] = arguments.as_slice() else {
        eprintln!("mutants COPY REPORT OPTION...");
        return ExitCode::from(2);
    };
    match run(Path::new(copy), Path::new(report), options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(copy: &Path, report: &Path, options: &[String]) -> Result<(), String> {
    let mutants = mutant::list(copy, options)?;
    if mutants.is_empty() {
        return Err(format!("there is nothing to change: {}", options.join(" ")));
    }
    let built = build::all_at_once(copy, &mutants)?;
    let trials: Vec<&Mutant> = mutants.iter().filter(|m| !built.left.contains(&m.id)).collect();
    eprintln!("mutants: {} of {} are tried by one build", trials.len(), mutants.len());
    let outcomes = trial::all(&built.tests, copy, &trials)?;
    let named = |outcome| {
        let of_it = trials.iter().zip(&outcomes).filter(move |(_, is)| **is == outcome);
        of_it.map(|(mutant, _)| mutant.name.as_str()).collect::<BTreeSet<&str>>()
    };
    let left = mutants.iter().filter(|m| built.left.contains(&m.id)).map(|m| m.name.as_str()).collect();
    let lists = [
        ("caught", named(Outcome::Caught)),
        ("missed", named(Outcome::Missed)),
        ("timeout", named(Outcome::OutOfTime)),
        ("left", left),
    ];
    std::fs::create_dir_all(report).map_err(|e| format!("{}: {e}", report.display()))?;
    for (list, names) in lists {
        let path = report.join(list);
        let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&path, lines).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
