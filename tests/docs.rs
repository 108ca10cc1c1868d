//! What `docs/library.md` says of the package is so.

use std::path::Path;
use std::process::Command;

const LIBRARY: &str = include_str!("../docs/library.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

/// The block of `docs/library.md` that begins with `first`, up to its end.
fn block(first: &str) -> &'static str {
    let from = LIBRARY.find(first).unwrap_or_else(|| panic!("docs/library.md has no '{first}'"));
    LIBRARY[from..].split("```").next().unwrap_or_default()
}

/// The names of the packages of a tree, one a line, as deep as they stand in it.
fn names(tree: &str) -> Vec<String> {
    tree.lines().map(|line| line.split(" v").next().unwrap_or_default().trim_end().into()).collect()
}

#[test]
fn the_default_dependencies_are_those_the_documentation_shows() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--charset",
            "utf8",
            "--package",
            "strandline",
        ])
        .args(["--target", "aarch64-unknown-none-softfloat"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    assert_eq!(names(tree.trim_end()), names(block("strandline v").trim_end()), "cargo tree says:\n{tree}");
}

#[test]
fn every_feature_is_in_the_documentation() {
    let features = MANIFEST.split("\n[features]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    let features = features.expect("the manifest has features");
    let names = features.lines().filter_map(|line| line.split_once(" = [")).map(|(name, _)| name);
    let table = LIBRARY.split("## Features").nth(1).expect("it has a section of features");
    for name in names.filter(|name| *name != "default") {
        assert!(table.contains(&format!("| `{name}` |")), "the feature {name} is not in docs/library.md");
    }
}

#[test]
fn the_version_that_the_documentation_names_is_this_one() {
    let (major_minor, _) = env!("CARGO_PKG_VERSION").rsplit_once('.').expect("a version");
    assert!(LIBRARY.contains(&format!("strandline = \"{major_minor}\"")));
    let rust = MANIFEST.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next());
    assert!(LIBRARY.contains(&format!("The minimum Rust is {}", rust.expect("it names one"))));
}
