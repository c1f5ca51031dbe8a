//! libFuzzer calls [`hallpass_fuzz::names::names`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::names::names(data);
});
