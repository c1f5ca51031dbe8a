//! What the fuzz targets do: one function for each parser of bytes that others wrote.
//!
//! What for: a target gets any bytes and checks what must hold of them, not only that nothing panics: what is taken is written again and
//! read back to the same, two readers agree, an error is short and can be shown. `fuzz_targets/` hands these functions to libFuzzer;
//! `tests/it/fuzz.rs` calls them with the seeds and with some thousand changes of these, so that they can't rot.
//!
//! What not: no file, no clock, no randomness: the same bytes do the same. Each function says whether it took the bytes for something.
//!
//! The signature is where chance ends: nobody guesses one. So what lies behind a signature is signed here, with keys that are no secret.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod files;
pub mod keys;
pub mod log;
pub mod names;
pub mod wire;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its file in `fuzz_targets/` and of its folder in `seeds/`.
    pub name: &'static str,
    /// What it does; whether the bytes were taken for something.
    pub run: fn(&[u8]) -> bool,
    /// The longest input that libFuzzer makes: above the limits of what it tries.
    pub longest: usize,
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "agent", run: keys::agent, longest: 300_000 },
    Target { name: "auth_info", run: certificates::auth_info, longest: 140_000 },
    Target { name: "bodies", run: wire::bodies, longest: 70_000 },
    Target { name: "bundle", run: log::bundle, longest: 70_000 },
    Target { name: "certificate", run: certificates::certificate, longest: 270_000 },
    Target { name: "config", run: files::config, longest: 1_100_000 },
    Target { name: "entry", run: log::entry, longest: 1_100_000 },
    Target { name: "export", run: log::export, longest: 1_100_000 },
    Target { name: "host_files", run: files::host_files, longest: 270_000 },
    Target { name: "names", run: names::names, longest: 4_096 },
    Target { name: "policy", run: files::policy, longest: 1_100_000 },
    Target { name: "public_key", run: keys::public_key, longest: 17_000 },
    Target { name: "signature", run: keys::signature, longest: 17_000 },
];

/// Whatever is told about an input must be short, however long that is, and must not hold what a terminal obeys. Several lines are several
/// things told.
fn told(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes are told: {}", text.len(), text.chars().take(200).collect::<String>());
    let odd = text.chars().find(|c| c.is_control() && *c != '\n');
    assert!(odd.is_none(), "what is told holds {odd:?}: {text:?}");
}
