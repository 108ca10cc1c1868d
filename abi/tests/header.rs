//! The C header says what the crate says.

use std::collections::HashMap;

use strandline_abi::{
    Call, CpuTier, DmaTier, Error, FaultRecord, Flags, LogState, LogStatus, Status, UID_WORDS,
};

const HEADER: &str = include_str!("../include/strandline.h");

/// Every `#define NAME UINT64_C(value)` and its kin.
fn defines() -> HashMap<&'static str, i128> {
    let lines = HEADER.lines().filter_map(|line| line.strip_prefix("#define STRANDLINE_"));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            let value = rest.trim().split_once('(')?.1.strip_suffix(')')?;
            let value = match value.strip_prefix("0x") {
                Some(hex) => i128::from_str_radix(hex, 16).ok()?,
                None => value.parse().ok()?,
            };
            Some((name, value))
        })
        .collect()
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

/// The fields of `struct strandline_NAME`, in order.
fn fields(name: &str) -> Vec<&'static str> {
    let start = HEADER.find(&format!("struct strandline_{name} {{")).expect("the struct is there");
    let body = &HEADER[start..];
    let body = &body[..body.find("};").expect("it ends")];
    body.lines().filter_map(|l| l.trim().strip_prefix("uint64_t ")?.strip_suffix(';')).collect()
}

#[test]
fn every_call_status_and_flag_has_its_value_in_the_header() {
    let mut expected = HashMap::new();
    for call in Call::ALL {
        expected.insert(screaming(&format!("{call:?}")), i128::from(call.id()));
    }
    for error in Error::ALL {
        expected.insert(screaming(&format!("{error:?}")), i128::from(error.to_x0().cast_signed()));
    }
    for status in [Status::Done, Status::More] {
        expected.insert(screaming(&format!("{status:?}")), i128::from(status.to_x0()));
    }
    for (i, word) in UID_WORDS.iter().enumerate() {
        expected.insert(format!("UID_{i}"), i128::from(*word));
    }
    for (name, flag) in [("CPU", Flags::CPU), ("DMA", Flags::DMA), ("CLEAR_DELIVERED", Flags::CLEAR)] {
        expected.insert(name.into(), i128::from(flag.bits()));
    }
    for tier in CpuTier::ALL {
        expected.insert(format!("CPU_TIER_{}", screaming(&format!("{tier:?}"))), i128::from(tier.code()));
    }
    for tier in DmaTier::ALL {
        expected.insert(format!("DMA_TIER_{}", screaming(&format!("{tier:?}"))), i128::from(tier.code()));
    }
    for state in LogState::ALL {
        expected.insert(format!("LOG_STATE_{}", screaming(&format!("{state:?}"))), i128::from(state.code()));
    }
    expected.insert("FAULT_WRITE".into(), i128::from(FaultRecord::WRITE));
    expected.insert("FAULT_FETCH".into(), i128::from(FaultRecord::FETCH));

    let found: HashMap<String, i128> = defines().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
    assert_eq!(found, expected);
}

/// The fields of a record whose `Debug` shows them in order.
fn debug_fields(shown: &str) -> Vec<String> {
    let body = shown.split_once('{').expect("a struct").1;
    body.split(',').filter_map(|f| Some(f.split_once(':')?.0.trim().to_string())).collect()
}

#[test]
fn records_have_the_same_fields_in_the_same_order() {
    assert_eq!(fields("log_status"), debug_fields(&format!("{:?}", LogStatus::default())));
    assert_eq!(fields("fault_record"), debug_fields(&format!("{:?}", FaultRecord::default())));
}
