//! libFuzzer calls [`hallpass_fuzz::log::entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::log::entry(data);
});
