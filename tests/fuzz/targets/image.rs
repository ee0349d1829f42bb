//! See sluice_fuzz::image.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::image::check(data));
