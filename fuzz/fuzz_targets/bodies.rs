//! libFuzzer calls [`hallpass_fuzz::wire::bodies`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::wire::bodies(data);
});
