//! libFuzzer calls [`hallpass_fuzz::certificates::certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::certificates::certificate(data);
});
