//! Mutants, one run of the tests each.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutant::Mutant;

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A test failed.
    Caught,
    /// None did.
    Missed,
    /// The tests did not end.
    OutOfTime,
}

/// How long the tests of a mutant may take. Without one they take a second or two, some more on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `tests` in `copy` once for each of `mutants`, some at a time.
pub fn all(tests: &Path, copy: &Path, mutants: &[&Mutant]) -> Result<Vec<Outcome>, String> {
    match one(tests, copy, 0)? {
        Outcome::Missed => {}
        other => return Err(format!("the tests of the library as it is: {other:?}")),
    }
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(vec![Outcome::Missed; mutants.len()]));
    let work = || -> Result<(), String> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(index) else { return Ok(()) };
            let outcome = one(tests, copy, mutant.id)?;
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes[index] = outcome;
            }
            if outcome == Outcome::Missed {
                println!("survived: {}", mutant.name);
            }
            if index % 100 == 99 {
                eprintln!("mutants: {} of {} tried", index + 1, mutants.len());
            }
        }
    };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())))
    })?;
    outcomes.into_inner().map_err(|e| e.to_string())
}

/// Runs the tests with one mutant, up to the first test that fails.
fn one(tests: &Path, copy: &Path, mutant: usize) -> Result<Outcome, String> {
    let mut command = Command::new(tests);
    command.current_dir(copy).args(["-Zunstable-options", "--fail-fast"]).env("MUTANT", mutant.to_string());
    command.env("RUST_BACKTRACE", "0").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", tests.display()))?;
    let outcome = end_of(&mut child);
    // Whoever is still running has had his time; one that has ended can't be stopped any more.
    let _ended = child.kill();
    child.wait().map_err(|e| e.to_string())?;
    outcome
}

fn end_of(child: &mut Child) -> Result<Outcome, String> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(if status.success() { Outcome::Missed } else { Outcome::Caught });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(Outcome::OutOfTime)
}
