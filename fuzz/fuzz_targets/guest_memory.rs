//! The target `guest_memory` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strandline_fuzz::guest_memory(data));
