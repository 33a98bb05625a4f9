#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qualm_fuzz::reads(data));
