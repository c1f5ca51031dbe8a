//! Login challenges: what they contain, how long they live, and when an answer proves a person.
//!
//! What for: login by SSH key. An unauthenticated caller makes us store nothing, because a challenge authenticates
//! itself. Its nonce is redeemed once (the store refuses a second time, I-16). The answer is an SSHSIG under
//! `login@hallpass` over [`statement`], which names the server the client talks to, the person and the challenge,
//! so that an answer given to another server, by another person or for another purpose is worth nothing here.
//!
//! What not: no storing, no clock, no randomness; redeeming the nonce is the caller's next step, before any session.
//!
//! | Bytes | Field |
//! |---|---|
//! | 8 | the first second it can no longer be answered, Unix seconds, big endian |
//! | 16 | nonce |
//! | 32 | HMAC-SHA256 of the 24 bytes before, under the [`MacKey`] of this purpose |
//!
//! as unpadded base64url, in its one canonical spelling (75 characters).
//!
//! A challenge that ends later than a new one would is refused like one that has ended: it was made on a clock that has been
//! set back since, and whether it was used may be forgotten.
//!
//! Order of [`check`]: form and HMAC, expiry, signature, service keys, directory. The signature is verified before the
//! directory is looked at, so that unknown people take as long as known ones (I-40); the challenge is checked before the
//! signature, because it says nothing about anybody and spares us public-key arithmetic for strangers' garbage.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use data_encoding::BASE64URL_NOPAD;
use hmac::Mac as _;
use thiserror::Error;

use super::mac::MacKey;
use super::{Directory, Proven};
use crate::name::PersonName;
use crate::ssh::sig::{LOGIN_NAMESPACE, SshSignature};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp};

/// How long a challenge can be answered: two minutes, our own choice; time to touch a security key or type a PIN.
pub const CHALLENGE_LIFETIME: Lifetime = Lifetime::minutes(2);

/// Bytes of expiry and nonce, which the HMAC covers.
const BODY_BYTES: usize = 24;

/// A checked, unexpired challenge of ours: its nonce is to be redeemed until `expires`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// The nonce, unique.
    pub nonce: [u8; 16],
    /// When the record of the redemption may be forgotten.
    pub expires: Timestamp,
}

/// An answer to a challenge, as received.
#[derive(Debug)]
pub struct Answer {
    /// Who they say they are.
    pub person: PersonName,
    /// The challenge text.
    pub challenge: String,
    /// The key they used.
    pub key: PublicKey,
    /// Their signature.
    pub signature: SshSignature,
}

/// Why a login was refused. Shown to the caller as one sentence for all arms but `Expired`; logged in full.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Not a challenge of ours.
    #[error("the challenge is not ours")]
    Challenge,
    /// Too late.
    #[error("the challenge has expired")]
    Expired,
    /// Used before.
    #[error("the challenge has been used already")]
    Replayed,
    /// No such person, or not their key.
    #[error("no person with this name and key")]
    Unknown,
    /// The signature does not fit.
    #[error("the signature does not fit: {0}")]
    Signature(#[from] crate::ssh::sig::SigError),
    /// A CA or log key was used to log in.
    #[error("a signing key of the service is no login key")]
    ServiceKey,
}

/// A new challenge text.
#[must_use]
pub fn issue(key: &MacKey, nonce: [u8; 16], now: Timestamp) -> String {
    // At the end of representable time a challenge is born expired: refused, not wrapped.
    let expires = now.plus(CHALLENGE_LIFETIME).unwrap_or(now);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&expires.unix().to_be_bytes());
    bytes.extend_from_slice(&nonce);
    let mac = key.mac(&bytes).finalize().into_bytes();
    bytes.extend_from_slice(&mac);
    BASE64URL_NOPAD.encode(&bytes)
}

/// What a challenge text of ours says; every other text is refused, also another spelling of the same bytes.
fn parse(challenge: &str, key: &MacKey) -> Result<Redemption, LoginRefusal> {
    let bytes = BASE64URL_NOPAD.decode(challenge.as_bytes()).map_err(|_spelling| LoginRefusal::Challenge)?;
    let (body, mac) = bytes.split_at_checked(BODY_BYTES).ok_or(LoginRefusal::Challenge)?;
    key.mac(body).verify_slice(mac).map_err(|_differs| LoginRefusal::Challenge)?;
    let (expires, nonce) = body.split_first_chunk::<8>().ok_or(LoginRefusal::Challenge)?;
    let expires = Timestamp::from_unix(u64::from_be_bytes(*expires)).map_err(|_range| LoginRefusal::Challenge)?;
    let nonce = <[u8; 16]>::try_from(nonce).map_err(|_length| LoginRefusal::Challenge)?;
    Ok(Redemption { nonce, expires })
}

/// What a challenge of ours says that can be answered at `now`.
pub(super) fn live(challenge: &str, key: &MacKey, now: Timestamp) -> Result<Redemption, LoginRefusal> {
    let redemption = parse(challenge, key)?;
    if now >= redemption.expires || now.plus(CHALLENGE_LIFETIME).is_ok_and(|newest| newest < redemption.expires) {
        return Err(LoginRefusal::Expired);
    }
    Ok(redemption)
}

/// The text that an answer signs. `server` is the public URL as the client was told to use it, without a final slash.
#[must_use]
pub fn statement(server: &str, person: &PersonName, challenge: &str) -> String {
    format!("hallpass login v1\nserver: {server}\nperson: {person}\nchallenge: {challenge}\n")
}

/// Checks an answer. On success the caller redeems the nonce, durably and once, before it opens a session.
///
/// # Errors
/// [`LoginRefusal`]; never [`LoginRefusal::Replayed`], which only the store can know.
pub fn check(
    answer: &Answer,
    key: &MacKey,
    server: &str,
    directory: &Directory,
    service_keys: &BTreeSet<Fingerprint>,
    now: Timestamp,
) -> Result<(Proven, Redemption), LoginRefusal> {
    let redemption = live(&answer.challenge, key, now)?;
    let signed = statement(server, &answer.person, &answer.challenge);
    answer.signature.check(&answer.key, LOGIN_NAMESPACE, signed.as_bytes())?;
    let fingerprint = answer.key.fingerprint();
    if service_keys.contains(&fingerprint) {
        return Err(LoginRefusal::ServiceKey);
    }
    let person = directory.person(&answer.person).ok_or(LoginRefusal::Unknown)?;
    if !person.keys.contains(&answer.key) {
        return Err(LoginRefusal::Unknown);
    }
    Ok((Proven::of(person, fingerprint), redemption))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_607_200;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds).unwrap()
    }

    fn key() -> MacKey {
        MacKey::new([7; 32])
    }

    #[test]
    fn a_challenge_reads_back_with_its_nonce_and_its_end() {
        let text = issue(&key(), [9; 16], at(NOW));
        assert_eq!(text.len(), 75);
        assert_eq!(parse(&text, &key()), Ok(Redemption { nonce: [9; 16], expires: at(NOW + 120) }));
    }

    #[test]
    fn the_mac_is_plain_hmac_sha256_over_expiry_and_nonce() {
        // python3: hmac.new(b"\x07" * 32, (1767607320).to_bytes(8, "big") + b"\x09" * 16, "sha256").hexdigest()
        let bytes = BASE64URL_NOPAD.decode(issue(&key(), [9; 16], at(NOW)).as_bytes()).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&bytes[24..]),
            "57a780b3a2fbc1e3de325c5de254e278561f9b884b74bb608345cc411bc618ae"
        );
    }

    #[test]
    fn any_other_text_is_not_a_challenge_of_ours() {
        let text = issue(&key(), [9; 16], at(NOW));
        assert_eq!(parse(&text, &MacKey::new([8; 32])), Err(LoginRefusal::Challenge), "another key");
        for place in 0..text.len() {
            for other in "AQgw_-9=+/ ".chars() {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[place] != other {
                    changed[place] = other;
                    let changed: String = changed.into_iter().collect();
                    assert_eq!(parse(&changed, &key()), Err(LoginRefusal::Challenge), "{changed}");
                }
            }
            assert_eq!(parse(text.get(..place).unwrap(), &key()), Err(LoginRefusal::Challenge), "cut at {place}");
        }
        for longer in [format!("{text}A"), format!("{text}="), format!("{text}\n"), format!(" {text}"), text.repeat(2)]
        {
            assert_eq!(parse(&longer, &key()), Err(LoginRefusal::Challenge), "{longer}");
        }
        assert_eq!(parse("", &key()), Err(LoginRefusal::Challenge));
        assert_eq!(parse("näin", &key()), Err(LoginRefusal::Challenge));
    }

    #[test]
    fn at_the_end_of_time_a_challenge_is_born_expired() {
        let last = at(253_402_207_200);
        assert_eq!(parse(&issue(&key(), [0; 16], last), &key()).unwrap().expires, last);
    }

    #[test]
    fn the_statement_names_server_person_and_challenge_on_lines_of_their_own() {
        let person = PersonName::parse("alice@example.com").unwrap();
        assert_eq!(
            statement("https://pass.example.com", &person, "abc"),
            "hallpass login v1\nserver: https://pass.example.com\nperson: alice@example.com\nchallenge: abc\n"
        );
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", key()), "MacKey(…)");
    }
}
