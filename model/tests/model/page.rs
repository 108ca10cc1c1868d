//! docs/testing.md names every rule of the model, with its section, and every catch, and nothing that is not there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../../docs/testing.md");
const RULES: &str = include_str!("../../src/alarm.rs");

/// The text between the first `from` and the next `to`.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let rest = text.split_once(from).expect(from).1;
    rest.split_once(to).expect(to).0
}

/// The rules of the model, as its source names them.
fn rules() -> Vec<&'static str> {
    let body = between(RULES, "pub enum Rule {", "\n}");
    let name = |line: &'static str| line.trim().strip_suffix(',').filter(|name| !name.starts_with("//"));
    body.lines().filter_map(name).collect()
}

/// Each rule's section, by the arms that give it.
fn sections() -> Vec<(&'static str, &'static str)> {
    let arms = between(RULES, "const fn section", "\n    }\n");
    let arms = arms.lines().filter_map(|line| line.split_once(" => \""));
    let names =
        |names: &'static str| names.split(" | ").filter_map(|name| name.trim().strip_prefix("Self::"));
    arms.flat_map(|(left, right)| names(left).map(move |name| (name, right.trim_end_matches("\","))))
        .collect()
}

/// The files of this test.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the tests' sources") {
        let path = entry.expect("a file").path();
        // This file quotes what it looks for.
        if path.ends_with("page.rs") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The tests of each file: functions, and those that the macro of the catches makes.
fn tests() -> Vec<(String, BTreeSet<String>)> {
    let (mut files, folder) = (vec![], Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model"));
    sources(&folder, &mut files);
    let names = |path: PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source");
        let functions = text.split("#[test]").skip(1).filter_map(|test| {
            let name = test.split_once("fn ")?.1.split_once('(')?.0;
            (!name.starts_with('$')).then(|| name.to_owned())
        });
        let entries = text.split("\ncatches! {").nth(1).and_then(|rest| rest.split_once("\n}"));
        let made = entries.map_or("", |(entries, _)| entries).lines();
        let made = made.filter_map(|line| line.split_once(": ").map(|(name, _)| name.trim().to_owned()));
        let names = functions.chain(made).collect();
        (text, names)
    };
    files.into_iter().map(names).collect()
}

/// Words in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn page_has_a_row_for_every_rule_with_its_section_and_a_catch() {
    let (rules, sections) = (rules(), sections());
    assert!(rules.len() > 20 && rules.len() == sections.len(), "{rules:?}, {sections:?}");
    let tests: BTreeSet<String> = tests().into_iter().flat_map(|(_, names)| names).collect();
    for rule in rules {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{rule}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/testing.md has no row for the rule {rule}"));
        let section = sections.iter().find(|(name, _)| *name == rule).expect(rule).1;
        assert!(row.contains(section), "docs/testing.md does not say of {rule}: {section}");
        let caught = quoted(row).into_iter().any(|name| tests.contains(name));
        assert!(caught, "docs/testing.md names no test that catches {rule}");
    }
}

#[test]
fn page_names_every_test_of_a_file_that_catches_something() {
    let named = quoted(PAGE);
    let catching = |text: &str| text.contains("caught(") || text.contains("fn broken(");
    let all = tests().into_iter().filter(|(text, _)| catching(text)).flat_map(|(_, names)| names);
    let (all, ignored): (BTreeSet<String>, _) = (all.collect(), ["soak", "soak_of_random_lives"]);
    assert!(all.len() > 60, "{}", all.len());
    let missing: Vec<_> = all
        .iter()
        .filter(|name| !named.contains(name.as_str()) && !ignored.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/testing.md does not name {missing:#?}");
}

#[test]
fn page_names_no_test_that_is_not_there() {
    let tests: BTreeSet<String> = tests().into_iter().flat_map(|(_, names)| names).collect();
    let model = between(PAGE, "## What the model covers", "\n## What the model can't");
    let names = quoted(model).into_iter().filter(|name| name.matches('_').count() > 2);
    let gone: Vec<_> = names.filter(|name| !tests.contains(*name)).collect();
    assert!(gone.is_empty(), "docs/testing.md names tests that are not there: {gone:#?}");
}
