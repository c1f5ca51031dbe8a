//! Sessions: an opaque token on the client, its SHA-256 in the store, rights read anew at each use.
//!
//! What for: after a login, a bearer token stands for the person until it expires, they log out, or they or their login
//! key leave the directory (I-17). What leaves ends its sessions for good (`service/policy.rs`): put back, it has to log in anew.
//!
//! What not: no claims inside the token, so nothing in it can be forged, read or go stale.
//!
//! A token is `hps_` and 43 characters of unpadded base64url: 32 random bytes in their one canonical spelling. The prefix
//! lets secret scanners find it. The store keeps only the SHA-256: who reads the database can't log in, and looking a hash
//! up leaks nothing of the token through time. No salt and no slow hash, because 256 random bits can't be guessed.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use data_encoding::BASE64URL_NOPAD;
use hmac::Mac as _;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::mac::MacKey;
use super::{Directory, Proven};
use crate::name::PersonName;
use crate::ssh::Fingerprint;
use crate::time::{Lifetime, Timestamp};

/// How long a login lasts: 12 hours (design; settings may shorten it).
pub const SESSION_LIFETIME: Lifetime = Lifetime::minutes(12 * 60);

/// What every token starts with.
const PREFIX: &str = "hps_";

/// The SHA-256 of a token's text: what the store keeps and looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash(pub [u8; 32]);

/// A stored session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hash of the token.
    pub token: TokenHash,
    /// Whose.
    pub person: PersonName,
    /// The login key that opened it; when it leaves the directory, the session is dead, and is deleted with the same change.
    pub key: Fingerprint,
    /// When it was opened.
    pub opened: Timestamp,
    /// The first second it is no longer valid.
    pub expires: Timestamp,
    /// HMAC-SHA256 over the other fields under the service's key for sessions: who can write the database but has not
    /// the service's keys makes no session that counts. Set by [`Session::sealed`].
    pub seal: [u8; 32],
}

/// Why a session does not count. Not told apart to the caller: "log in".
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SessionRefusal {
    /// No such token, or not in its form.
    #[error("no such session")]
    Unknown,
    /// Its row is not as the service wrote it.
    #[error("the session's row was not written by this service")]
    Forged,
    /// Over.
    #[error("the session has expired")]
    Expired,
    /// The person or the login key has left the directory.
    #[error("the person or key is no longer known")]
    Gone,
}

/// Makes a token of 32 random bytes: `hps_` and base64url. Returns the secret text and its hash.
#[must_use]
pub fn mint(random: [u8; 32]) -> (SecretString, TokenHash) {
    mint_as(PREFIX, random)
}

/// The same for another kind of token, with the prefix that tells it apart.
pub(super) fn mint_as(prefix: &str, random: [u8; 32]) -> (SecretString, TokenHash) {
    let token = format!("{prefix}{}", BASE64URL_NOPAD.encode(&random));
    let hash = TokenHash(Sha256::digest(token.as_bytes()).into());
    (SecretString::from(token), hash)
}

/// The hash of a token as received.
///
/// # Errors
/// [`SessionRefusal::Unknown`] if it is not in the form of a token (whole, canonical base64url).
pub fn hash(token: &str) -> Result<TokenHash, SessionRefusal> {
    hash_as(PREFIX, token)
}

/// The same for another kind of token.
pub(super) fn hash_as(prefix: &str, token: &str) -> Result<TokenHash, SessionRefusal> {
    let digits = token.strip_prefix(prefix).ok_or(SessionRefusal::Unknown)?;
    let bytes = BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_spelling| SessionRefusal::Unknown)?;
    if bytes.len() == 32 {
        Ok(TokenHash(Sha256::digest(token.as_bytes()).into()))
    } else {
        Err(SessionRefusal::Unknown)
    }
}

impl Session {
    /// This session with the seal that makes it count.
    #[must_use]
    pub fn sealed(self, key: &MacKey) -> Self {
        let seal = key.mac(&self.body()).finalize().into_bytes().into();
        Self { seal, ..self }
    }

    /// What the seal covers: texts with their length before them.
    fn body(&self) -> Vec<u8> {
        let (person, key) = (self.person.as_str(), self.key.to_string());
        let mut body = self.token.0.to_vec();
        for text in [person, &key] {
            body.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        for time in [self.opened, self.expires] {
            body.extend_from_slice(&time.unix().to_be_bytes());
        }
        body
    }

    /// Whether it proves its person at `now`, with their groups as they are now.
    ///
    /// # Errors
    /// [`SessionRefusal`].
    pub fn check(&self, key: &MacKey, directory: &Directory, now: Timestamp) -> Result<Proven, SessionRefusal> {
        key.mac(&self.body()).verify_slice(&self.seal).map_err(|_differs| SessionRefusal::Forged)?;
        // A row that claims more than a session can last gets the most a session can last.
        let longest = self.opened.plus(SESSION_LIFETIME).unwrap_or(self.opened);
        if now >= self.expires.min(longest) {
            return Err(SessionRefusal::Expired);
        }
        let person = directory.person(&self.person).ok_or(SessionRefusal::Gone)?;
        if person.keys.iter().any(|key| key.fingerprint() == self.key) {
            Ok(Proven::of(person, self.key))
        } else {
            Err(SessionRefusal::Gone)
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_token_hashes_to_what_was_minted() {
        let (token, minted) = mint([0xfb; 32]);
        let text = token.expose_secret();
        assert_eq!(text, "hps_-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(hash(text), Ok(minted));
        assert_ne!(mint([0xfa; 32]).1, minted);
        assert!(!format!("{token:?}").contains("_v7"), "a token is not printed");
    }

    #[test]
    fn only_a_whole_token_in_its_one_spelling_is_looked_up() {
        let (token, _) = mint([0; 32]);
        let text = token.expose_secret();
        let digits = text.strip_prefix("hps_").unwrap();
        let short = |by: usize| text.get(..text.len() - by).unwrap();
        let wrong = [
            String::new(),
            "hps_".to_owned(),
            digits.to_owned(),
            format!("HPS_{digits}"),
            format!(" {text}"),
            format!("{text} "),
            format!("{text}="),
            format!("{text}A"),
            format!("{text}AA"),
            short(1).to_owned(),
            short(2).to_owned(),
            // The last digit holds four unused bits; a decoder that ignores them would take it for the same token.
            format!("{}B", short(1)),
            format!("hps_{}", digits.replacen('A', "+", 1)),
        ];
        for token in wrong {
            assert_eq!(hash(&token), Err(SessionRefusal::Unknown), "{token:?}");
        }
    }
}
