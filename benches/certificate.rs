//! What a certificate costs beside the bare Ed25519 signature in it: build and lint, sign, verify and read back.
//!
//! Run: `cargo bench --bench certificate`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

#[path = "support/fields.rs"]
mod fields;
mod support;

use std::hint::black_box;

use ed25519_dalek::{Signer as _, SigningKey};
use hallpass::signer::Signer as _;
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::ssh::cert::{Certificate, Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;

const PASSES: usize = 51;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    FileSigner::create(&path, "bench", None).unwrap();
    let signer = FileSigner::open(&Settings { path, passphrase_path: None }, Purpose::User).unwrap();
    let ca = signer.public_key().clone();
    let subject = SessionKey::generate([1; 32]).public_key().clone();

    let raw = SigningKey::from_bytes(&[2; 32]);
    let raw_public = raw.verifying_key();
    let build = || TbsCert::new(fields::usual(), &subject, &ca, [7; 32]).unwrap();
    let tbs = build();
    let message = tbs.bytes().to_vec();
    let raw_signature = raw.sign(&message);
    let signature = signer.sign(&tbs).unwrap();
    let issue = || {
        let tbs = build();
        let signature = signer.sign(&tbs).unwrap();
        Certificate::assemble(tbs, &signature).unwrap()
    };
    let certificate = issue();
    println!("{} bytes to be signed, {} in the certificate", message.len(), certificate.blob().len());

    support::compare(
        &[
            "raw Ed25519 signature of as many bytes",
            "raw signature and strict verification",
            "build and lint",
            "build, lint and sign",
            "verify and read back (assemble)",
            "read stored bytes back (TbsCert::parse)",
            "whole certificate: build, sign, verify, read",
        ],
        &mut [
            &mut || {
                black_box(raw.sign(&message));
            },
            &mut || {
                black_box(raw.sign(&message));
                raw_public.verify_strict(&message, &raw_signature).unwrap();
            },
            &mut || drop(black_box(build())),
            &mut || drop(black_box(signer.sign(&build()).unwrap())),
            &mut || drop(black_box(Certificate::assemble(tbs.clone(), &signature).unwrap())),
            &mut || drop(black_box(TbsCert::parse(&message).unwrap())),
            &mut || drop(black_box(issue())),
        ],
        PASSES,
    );
}
