//! What `docs/library.md` says of the package is so.

use std::path::Path;
use std::process::Command;

const LIBRARY: &str = include_str!("../docs/library.md");
const COMPARISON: &str = include_str!("../docs/comparison.md");
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

/// Every source file below `folder`, but those of the image.
fn sources(folder: &str) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.ends_with("src/image") {
            continue;
        }
        if path.is_dir() {
            text += &sources(&path.display().to_string());
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(path).expect("a source");
        }
    }
    text
}

#[test]
fn every_enum_of_errors_may_get_variants() {
    let src = sources("src");
    let errors =
        src.lines().filter_map(|line| line.split_once("error::Error for ")?.1.split([' ', '<']).next());
    let mut enums = 0;
    for name in errors {
        let declared = format!("\npub enum {name} {{");
        let Some(at) = src.find(&declared) else { continue };
        enums += 1;
        let attributes = &src[..at][src[..at].rfind("\n///").expect("it is documented")..];
        assert!(attributes.contains("#[non_exhaustive]"), "docs/library.md says so of {name}");
    }
    assert!(enums >= 14, "{enums}");
}

/// The tests of a folder: functions, and those that the macro of the model's catches makes.
fn tests(folder: &str) -> usize {
    let text = sources(folder);
    let made = text.split("\ncatches! {").nth(1).and_then(|rest| rest.split("\n}").next());
    text.matches("#[test]").count() + made.map_or(0, |made| made.matches(": ").count())
}

#[test]
fn as_many_tests_are_there_as_the_comparison_says() {
    // "over 200 on a device of its own (`src/smmu`)"
    let mut claims = 0;
    for claim in COMPARISON.split(" over ").skip(1) {
        let number: String = claim.chars().take_while(char::is_ascii_digit).collect();
        let folder = claim.split("(`").nth(1).and_then(|rest| rest.split("`)").next());
        let (Ok(number), Some(folder)) = (number.parse::<usize>(), folder) else { continue };
        claims += 1;
        let there = tests(folder);
        assert!(
            (number + 1..number * 3 / 2).contains(&there),
            "{folder}: {there} tests, over {number} are claimed"
        );
    }
    assert_eq!(claims, 5);
}
