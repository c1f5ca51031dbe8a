//! libFuzzer calls [`hallpass_fuzz::keys::public_key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::keys::public_key(data);
});
