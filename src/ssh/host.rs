//! What a host signs with its SSH host key to show who it is, and the names on its certificates.
//!
//! What for: the text is one function, which the host calls to sign and the service to check. It names the server, the purpose,
//! the host and the service's challenge, so that a signature given to another server, for another purpose or by another host is
//! worth nothing here; and its namespace keeps it apart from a person's login.
//!
//! What not: whose key it is (`identity`), and how the host reads its private key (`host`).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use crate::name::{Account, HostName, NameError, Principal};

/// The namespace of what hosts sign: a login answer or an approval is none, and the other way round.
pub const HOST_NAMESPACE: &str = "host@hallpass";

/// The account of a host's login to itself.
pub const CHECK_ACCOUNT: &str = "hallpass-check";

/// The forced command of a host's login to itself.
pub const CHECK_COMMAND: &str = "true";

/// What a host asks a challenge for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPurpose {
    /// To join.
    Enrol,
    /// To get a host token.
    Session,
}

impl HostPurpose {
    /// `enrol` or `session`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Session => "session",
        }
    }

    /// Parses the word.
    ///
    /// # Errors
    /// For any other.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let known = [Self::Enrol, Self::Session].into_iter().find(|purpose| purpose.word() == text);
        known.ok_or_else(|| NameError {
            kind: "a purpose",
            given: text.chars().take(64).collect(),
            rule: "enrol or session",
        })
    }
}

/// The text that a host's key signs. `server` is the public URL as the service gives it, without a final slash.
#[must_use]
pub fn statement(server: &str, purpose: HostPurpose, host: &HostName, challenge: &str) -> String {
    format!("hallpass host v1\nserver: {server}\npurpose: {}\nhost: {host}\nchallenge: {challenge}\n", purpose.word())
}

/// The principal of a host's login to itself: `hallpass-check@web-1`.
///
/// # Errors
/// Never; the account's name is one.
pub fn check_principal(host: &HostName) -> Result<Principal, NameError> {
    Ok(Principal::on_host(&Account::parse(CHECK_ACCOUNT)?, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_names_everything_on_lines_of_their_own() {
        let host = HostName::parse("web-1").unwrap();
        assert_eq!(
            statement("https://pass.example.com", HostPurpose::Enrol, &host, "abc"),
            "hallpass host v1\nserver: https://pass.example.com\npurpose: enrol\nhost: web-1\nchallenge: abc\n"
        );
        assert_eq!(check_principal(&host).unwrap().as_str(), "hallpass-check@web-1");
        assert_eq!(HostPurpose::parse("session"), Ok(HostPurpose::Session));
        assert!(HostPurpose::parse("Session").is_err());
    }
}
