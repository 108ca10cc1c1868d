//! The target `device_tree` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strandline_fuzz::device_tree(data));
