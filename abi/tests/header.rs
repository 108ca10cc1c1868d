//! The C header says what the crate says.

use std::collections::{BTreeMap, BTreeSet};

use strandline_abi::{
    ADAPTS_CPU, ADAPTS_DMA, Call, CpuTier, DmaTier, Error, FaultRecord, Flags, GRANULE_ADAPTIVE, KeySource,
    LogState, PAGE_BYTES, PAGES_PER_WORD, Status, UID_WORDS, VERSION,
};

const HEADER: &str = include_str!("../include/strandline.h");
const SOURCES: [&str; 4] = [
    include_str!("../src/lib.rs"),
    include_str!("../src/call.rs"),
    include_str!("../src/record.rs"),
    include_str!("../src/status.rs"),
];

/// Constants of the crate that are no values of the interface: what can be computed from others, and lists.
const RUST_ONLY: [&str; 5] = ["BOTH", "ALL", "WORDS", "BYTES", "FIELDS"];

/// Every `#define STRANDLINE_NAME UINT64_C(value)` and its kin. All there are but the include guard have a value.
fn defines() -> BTreeMap<String, i128> {
    let lines = HEADER.lines().filter_map(|line| line.strip_prefix("#define STRANDLINE_"));
    lines.filter(|line| *line != "H").map(define).collect()
}

fn define(line: &str) -> (String, i128) {
    let parse = || {
        let (name, rest) = line.split_once(' ')?;
        let value = rest.split_once('(')?.1.split_once(')')?.0;
        let value = match value.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16).ok()?,
            None => value.parse().ok()?,
        };
        Some((name.to_string(), value))
    };
    parse().unwrap_or_else(|| panic!("no value in #define STRANDLINE_{line}"))
}

/// `NotSupported` -> `NOT_SUPPORTED`.
fn screaming(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, c| {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
        text
    })
}

/// The constants of the crate: name there, name in the header, value.
fn constants() -> Vec<(&'static str, String, i128)> {
    let mut all = vec![
        ("VERSION", "VERSION".into(), VERSION.into()),
        ("PAGE_BYTES", "PAGE_BYTES".into(), PAGE_BYTES.into()),
        ("PAGES_PER_WORD", "PAGES_PER_WORD".into(), PAGES_PER_WORD.into()),
        ("GRANULE_ADAPTIVE", "GRANULE_ADAPTIVE".into(), GRANULE_ADAPTIVE.into()),
        ("ADAPTS_CPU", "ADAPTS_CPU".into(), ADAPTS_CPU.into()),
        ("ADAPTS_DMA", "ADAPTS_DMA".into(), ADAPTS_DMA.into()),
        ("CPU", "CPU".into(), Flags::CPU.bits().into()),
        ("DMA", "DMA".into(), Flags::DMA.bits().into()),
        ("CLEAR", "CLEAR_DELIVERED".into(), Flags::CLEAR.bits().into()),
        ("WRITE", "FAULT_WRITE".into(), FaultRecord::WRITE.into()),
        ("FETCH", "FAULT_FETCH".into(), FaultRecord::FETCH.into()),
    ];
    all.extend(
        UID_WORDS.iter().enumerate().map(|(i, word)| ("UID_WORDS", format!("UID_{i}"), (*word).into())),
    );
    all
}

/// The values of the crate's enums: name in the header, value.
fn variants() -> Vec<(String, i128)> {
    fn named(prefix: &str, name: impl std::fmt::Debug) -> String {
        format!("{prefix}{}", screaming(&format!("{name:?}")))
    }
    let mut all = vec![];
    all.extend(Call::ALL.iter().map(|c| (named("", c), i128::from(c.id()))));
    all.extend(Error::ALL.iter().map(|e| (named("", e), i128::from(e.to_x0().cast_signed()))));
    all.extend([Status::Done, Status::More].map(|s| (named("", s), i128::from(s.to_x0()))));
    all.extend(CpuTier::ALL.iter().map(|t| (named("CPU_TIER_", t), i128::from(t.code()))));
    all.extend(DmaTier::ALL.iter().map(|t| (named("DMA_TIER_", t), i128::from(t.code()))));
    all.extend(KeySource::ALL.iter().map(|s| (named("KEY_SOURCE_", s), i128::from(s.code()))));
    all.extend(LogState::ALL.iter().map(|s| (named("LOG_STATE_", s), i128::from(s.code()))));
    all
}

#[test]
fn every_constant_of_the_crate_is_in_the_header_and_the_other_way_round() {
    let constants = constants().into_iter().map(|(_, name, value)| (name, value));
    let expected: BTreeMap<String, i128> = constants.chain(variants()).collect();
    assert_eq!(defines(), expected);
}

#[test]
fn every_public_constant_and_enum_of_the_crate_is_compared() {
    let after = |line: &'static str, prefix: &str| {
        let rest = line.trim_start().strip_prefix(prefix)?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    };
    let lines = || SOURCES.iter().flat_map(|source| source.lines());
    let found: BTreeSet<&str> =
        lines().filter_map(|line| after(line, "pub const ")).filter(|name| *name != "fn").collect();
    let compared: BTreeSet<&str> = constants().iter().map(|(name, ..)| *name).chain(RUST_ONLY).collect();
    assert_eq!(found, compared);
    // `$name` of the macros is read as nothing; what they make is named where they are used.
    let enums: BTreeSet<&str> = lines().filter_map(|line| after(line, "pub enum ")).collect();
    assert_eq!(enums, ["", "Call", "Error", "LogSource", "Status"].into());
    let coded = SOURCES[2].split("\ncoded! {").skip(1).count();
    assert_eq!(coded, 4, "CpuTier, DmaTier, LogState, KeySource");
}
