//! See sluice_fuzz::sockets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::sockets::check(data));
