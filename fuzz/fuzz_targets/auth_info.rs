//! libFuzzer calls [`hallpass_fuzz::certificates::auth_info`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::certificates::auth_info(data);
});
