//! Replays the corpus: what the fuzzer once found to reach something new, and what once failed.

use std::fs;
use std::path::Path;

/// Runs `target` on every file of its corpus; gives back how many there are.
fn replay(name: &str, target: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
    for path in &paths {
        // The name of a file that fails is in the test's output.
        println!("{}", path.display());
        target(&fs::read(path).expect("it can be read"));
    }
    paths.len()
}

#[test]
fn the_corpus_of_the_dispatcher_breaks_no_rule() {
    assert!(replay("dispatch", strandline_fuzz::dispatch) >= 20);
}

#[test]
fn the_corpus_of_guest_memory_breaks_no_rule() {
    assert!(replay("guest_memory", strandline_fuzz::guest_memory) >= 10);
}

#[test]
fn the_corpus_of_device_trees_is_read_or_refused() {
    assert!(replay("device_tree", strandline_fuzz::device_tree) >= 10);
}

#[test]
fn no_input_and_inputs_of_one_value_are_inputs() {
    for byte in 0..=255 {
        for length in [0, 1, 7, 300] {
            strandline_fuzz::dispatch(&vec![byte; length]);
            strandline_fuzz::guest_memory(&vec![byte; length]);
            strandline_fuzz::device_tree(&vec![byte; length]);
        }
    }
}
