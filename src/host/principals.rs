//! Answers sshd's question which principals open an account (`AuthorizedPrincipalsCommand`). Pure but for the reading of files.
//!
//! What for: one program instead of one file for each account, and one more reader that sees a certificate before sshd believes it.
//!
//! What not: the window. sshd runs this for expired certificates too and says "expired" afterwards; an empty answer here would
//! make it say something else. It runs twice for each login, first on an offer that nothing proves yet, and it runs
//! unprivileged: nothing is written, nobody is asked.
//!
//! Invariants: one answer, the principals of this host for this account, or none at all. What sshd says of the certificate beside
//! the certificate itself (serial, key id) must be what the certificate says.

use std::collections::BTreeSet;

use data_encoding::BASE64;

use super::judgement::{Denial, Rules};
use crate::name::Principal;

/// What sshd asks.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// `%u`: the account.
    pub user: &'a str,
    /// `%s`: the certificate's serial.
    pub serial: &'a str,
    /// `%i`: its key id.
    pub key_id: &'a str,
    /// `%k`: the certificate itself, base64.
    pub certificate: &'a str,
}

/// The principals that open the account, for a certificate that may be used here.
///
/// # Errors
/// In words; sshd must then be told nothing.
pub fn answer(rules: &Rules, question: &Question<'_>) -> Result<BTreeSet<Principal>, Denial> {
    let blob = BASE64.decode(question.certificate.as_bytes()).ok();
    let blob = blob.ok_or(Denial::Odd("the certificate is not base64"))?;
    let certificate = rules.read(&blob)?.ok_or(Denial::Odd("the certificate is by another CA"))?;
    let fields = certificate.tbs().fields();
    if fields.serial.to_string() != question.serial || fields.key_id.as_str() != question.key_id {
        return Err(Denial::Odd("serial or key id are not those of the certificate"));
    }
    let account = rules.check(fields, question.user)?;
    Ok(rules.settings.principals(&account))
}
