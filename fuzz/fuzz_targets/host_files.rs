//! libFuzzer calls [`hallpass_fuzz::files::host_files`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hallpass_fuzz::files::host_files(data);
});
