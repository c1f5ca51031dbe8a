//! The linter: what no certificate of ours may say, whatever asked for it.
//!
//! Most rules hold by type already: a window is not empty and ends before the year 10000, a serial is not zero, a key id
//! is safe text, a principal is in its alphabet, a subject key is accepted, the type is "user". Here are the others
//! (SECURITY I-1, I-4, I-5, P9), and those that keep a restriction from being silently without effect.

use ipnet::IpNet;

use super::{CertError, Fields};
use crate::ssh::{KeyAlgorithm, PublicKey};

/// OpenSSH's own limit; with 257 it can't read the certificate.
const PRINCIPALS_MAX: usize = 256;

/// The longest window: the longest lifetime, and a day for backdating. Guards against seconds that are milliseconds.
const WINDOW_SECONDS_MAX: u64 = 367 * 86_400;

/// Our own choice, far above what a policy lists.
const SOURCE_ADDRESSES_MAX: usize = 256;

/// The largest certificate, without its signature: its base64 must fit into one environment string of the guard
/// (128 KiB), which gets it from `sshd`. The largest that the other rules allow has about 50 KiB.
pub(super) const BYTES_MAX: usize = 64 * 1024;

pub(super) fn check(fields: &Fields, subject: &PublicKey, ca: &PublicKey) -> Result<(), CertError> {
    let rules = [
        (!fields.principals.is_empty(), "it has no principals"),
        (fields.principals.len() <= PRINCIPALS_MAX, "it has more than 256 principals"),
        (fields.window.seconds() <= WINDOW_SECONDS_MAX, "its window is longer than a year"),
        (subject != ca, "its subject is the CA key itself"),
        (is_ca_algorithm(ca.algorithm()), "the CA key's algorithm is not one for CA keys"),
        // sshd looks at the option only when the key is a security key, so over another key it would mean nothing.
        (
            !fields.options.verify_required || subject.algorithm().is_security_key(),
            "verify-required means nothing without a security key",
        ),
        (fields.options.source_addresses.len() <= SOURCE_ADDRESSES_MAX, "it has more than 256 source addresses"),
        (
            fields.options.source_addresses.iter().all(has_no_host_bits),
            "a source address has bits set behind its prefix",
        ),
        (
            !fields.options.source_addresses.iter().any(is_mapped),
            "a source address is IPv4 written as IPv6, which sshd never matches",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(CertError::Lint(broken)),
        None => Ok(()),
    }
}

/// Whether a CA key may have this algorithm: those of the design. A security key as CA would need a touch per certificate.
#[must_use]
pub const fn is_ca_algorithm(algorithm: KeyAlgorithm) -> bool {
    match algorithm {
        KeyAlgorithm::Ed25519 | KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::Rsa => true,
        KeyAlgorithm::EcdsaP521 | KeyAlgorithm::SkEd25519 | KeyAlgorithm::SkEcdsaP256 => false,
    }
}

/// One with host bits makes sshd refuse the whole certificate.
fn has_no_host_bits(block: &IpNet) -> bool {
    block.trunc() == *block
}

fn is_mapped(block: &IpNet) -> bool {
    matches!(block, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some())
}
