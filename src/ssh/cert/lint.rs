//! The linter: what no certificate of ours may say, whatever asked for it.
//!
//! Most rules hold by type already: a window is not empty and ends before the year 10000, a serial is not zero, a key id
//! is safe text, a principal is in its alphabet, a subject key is accepted, the type is "user". Here are the others
//! (SECURITY I-1, I-4, I-5, P9), those that keep a restriction from being silently without effect, and those of each kind: OpenSSH's
//! own client takes a host certificate without principals for any host, and `sshd` an option of a host certificate for nothing.

use ipnet::IpNet;

use super::{CertError, Fields, Options, Purpose, Whose};
use crate::name::{HostName, Principal};
use crate::ssh::host::{CHECK_COMMAND, check_principal};
use crate::ssh::{KeyAlgorithm, PublicKey};

/// OpenSSH's own limit; with 257 it can't read the certificate.
const PRINCIPALS_MAX: usize = 256;

/// The longest window: the longest lifetime, and a day for backdating. Guards against seconds that are milliseconds.
const WINDOW_SECONDS_MAX: u64 = 367 * 86_400;

/// The longest window of a host's login to itself: two minutes, and one for a slow clock. Our own choice.
pub const CHECK_SECONDS_MAX: u64 = 180;

/// The longest window of a host certificate: seven days, and a day for slow clocks. Our own choice.
pub const HOST_SECONDS_MAX: u64 = 8 * 86_400;

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
    first_broken(&rules)?;
    match fields.key_id.whose() {
        Whose::Request { .. } => first_broken(&[is_users(fields)]),
        Whose::Check(host) => check_login_to_itself(fields, host),
        Whose::Host(host) => check_host(fields, host),
    }
}

/// A rule: whether it holds, and what is said if not.
type Rule = (bool, &'static str);

fn first_broken(rules: &[Rule]) -> Result<(), CertError> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(CertError::Lint(broken)),
        None => Ok(()),
    }
}

/// Common to both kinds of user certificate.
fn is_users(fields: &Fields) -> Rule {
    let holds = fields.key_id.purpose() == Purpose::User && fields.principals.iter().all(Principal::is_of_account);
    (holds, "a principal of a user certificate begins with a digit")
}

/// Opens nothing: one account that nobody has, one command that does nothing, for a moment.
fn check_login_to_itself(fields: &Fields, host: &HostName) -> Result<(), CertError> {
    let Options { force_command, source_addresses, verify_required, permits } = &fields.options;
    let principal = check_principal(host).ok();
    first_broken(&[
        is_users(fields),
        (
            fields.principals.len() == 1 && fields.principals.first() == principal.as_ref(),
            "a host's login to itself has another principal than its own",
        ),
        (fields.window.seconds() <= CHECK_SECONDS_MAX, "a host's login to itself is longer than three minutes"),
        (
            force_command.as_ref().is_some_and(|command| command.as_str() == CHECK_COMMAND),
            "a host's login to itself has another command than \"true\"",
        ),
        (
            permits.is_empty() && source_addresses.is_empty() && !verify_required,
            "a host's login to itself permits or demands something",
        ),
    ])
}

fn check_host(fields: &Fields, host: &HostName) -> Result<(), CertError> {
    let is_name = |principal: &Principal| HostName::parse(principal.as_str()).is_ok();
    first_broken(&[
        (fields.options == Options::default(), "a host certificate has options"),
        (fields.principals.iter().all(is_name), "a principal of a host certificate is no name of a host"),
        (fields.principals.contains(&Principal::of_host(host)), "a host certificate lacks the host's own name"),
        (fields.window.seconds() <= HOST_SECONDS_MAX, "a host certificate is longer than eight days"),
    ])
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
