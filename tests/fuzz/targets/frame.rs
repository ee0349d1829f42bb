//! See sluice_fuzz::frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::frame::check(data));
