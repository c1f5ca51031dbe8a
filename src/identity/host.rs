//! Who a host is: join tokens, proofs by SSH host key, host tokens.
//!
//! What for: a host that joins brings a join token and proves each of its keys; later it proves its identity key alone and gets a
//! host token for an hour. [`HostProven`] exists only because such a token was checked against the inventory.
//!
//! What not: which names a token gives and which hosts there are (`inventory`).
//!
//! The challenge is a login's ([`super::challenge`]) under a key of its own for each purpose and host name, so that it can be answered by
//! that host, for that purpose, and by nobody as a login.
//!
//! The kinds of token differ in their prefix (`hps_` a person's, `hpb_` a browser's, `hph_` a host's, `hpj_` to join) and are looked up
//! in different places: none can be used as another. All are 32 random bytes, and the service keeps their SHA-256 alone.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use secrecy::SecretString;

use super::challenge::{LoginRefusal, Redemption, issue, live};
use super::mac::MacKey;
use super::session::{SessionRefusal, TokenHash, hash_as, mint_as};
use crate::name::HostName;
use crate::ssh::host::{HOST_NAMESPACE, HostPurpose, statement};
use crate::ssh::sig::SshSignature;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp};

/// How long a host token lasts: an hour (design).
pub const HOST_SESSION_LIFETIME: Lifetime = Lifetime::minutes(60);

/// The most keys of a host. Our own choice: sshd makes one for each of three or four algorithms.
pub const HOST_KEYS_MAX: usize = 8;

const HOST_PREFIX: &str = "hph_";
const JOIN_PREFIX: &str = "hpj_";

/// Makes a join token: the secret text and its hash.
#[must_use]
pub fn mint_join(random: [u8; 32]) -> (SecretString, TokenHash) {
    mint_as(JOIN_PREFIX, random)
}

/// The hash of a join token as received.
///
/// # Errors
/// If it is not in the form of one.
pub fn hash_join(token: &str) -> Result<TokenHash, SessionRefusal> {
    hash_as(JOIN_PREFIX, token)
}

/// Makes a host token: the secret text and its hash.
#[must_use]
pub fn mint_host(random: [u8; 32]) -> (SecretString, TokenHash) {
    mint_as(HOST_PREFIX, random)
}

/// The hash of a host token as received.
///
/// # Errors
/// If it is not in the form of one.
pub fn hash_host(token: &str) -> Result<TokenHash, SessionRefusal> {
    hash_as(HOST_PREFIX, token)
}

/// A challenge for this host and purpose.
#[must_use]
pub fn challenge(key: &MacKey, purpose: HostPurpose, host: &HostName, nonce: [u8; 16], now: Timestamp) -> String {
    issue(&key_of(key, purpose, host), nonce, now)
}

fn key_of(key: &MacKey, purpose: HostPurpose, host: &HostName) -> MacKey {
    key.derive(&format!("{} {host}", purpose.word()))
}

/// What a host answers.
#[derive(Debug)]
pub struct HostAnswer {
    /// Who it says it is.
    pub host: HostName,
    /// What for.
    pub purpose: HostPurpose,
    /// The challenge text.
    pub challenge: String,
    /// Its keys, each with its signature.
    pub proofs: Vec<(PublicKey, SshSignature)>,
}

/// Public keys whose private halves somebody has just used, in the name of this host. Only this file makes one.
#[derive(Debug)]
pub struct ProvenKeys {
    host: HostName,
    keys: Vec<PublicKey>,
}

impl ProvenKeys {
    /// In whose name.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// The keys, in the order in which they were given; at least one.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

/// Checks an answer: every key has signed. The caller redeems the nonce, durably and once, with what it does next.
///
/// # Errors
/// [`LoginRefusal`]; [`LoginRefusal::Unknown`] for no key or too many.
pub fn check(
    answer: &HostAnswer,
    key: &MacKey,
    server: &str,
    now: Timestamp,
) -> Result<(ProvenKeys, Redemption), LoginRefusal> {
    let HostAnswer { host, purpose, challenge, proofs } = answer;
    let redemption = live(challenge, &key_of(key, *purpose, host), now)?;
    if proofs.is_empty() || proofs.len() > HOST_KEYS_MAX {
        return Err(LoginRefusal::Unknown);
    }
    let signed = statement(server, *purpose, host, challenge);
    for (key, signature) in proofs {
        signature.check(key, HOST_NAMESPACE, signed.as_bytes())?;
    }
    let keys = proofs.iter().map(|(key, _)| key.clone()).collect();
    Ok((ProvenKeys { host: host.clone(), keys }, redemption))
}

/// A stored host session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSession {
    /// Hash of the token.
    pub token: TokenHash,
    /// Whose.
    pub host: HostName,
    /// The identity key that opened it; when the host has another, the session is dead.
    pub key: Fingerprint,
    /// When it was opened.
    pub opened: Timestamp,
    /// HMAC-SHA256 over the other fields under the service's key for host sessions. Set by [`HostSession::sealed`].
    pub seal: [u8; 32],
}

/// Evidence that a host has just shown its token and is in the inventory. Only this file makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostProven {
    host: HostName,
}

impl HostProven {
    /// Which host.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }
}

impl HostSession {
    /// This session with the seal that makes it count.
    #[must_use]
    pub fn sealed(self, key: &MacKey) -> Self {
        Self { seal: key.seal(&self.body()), ..self }
    }

    /// The first second it is no longer valid.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.opened.plus(HOST_SESSION_LIFETIME).unwrap_or(self.opened)
    }

    /// What the seal covers: the texts hold no zero byte.
    fn body(&self) -> Vec<u8> {
        let mut body = self.token.0.to_vec();
        body.extend_from_slice(&self.opened.unix().to_be_bytes());
        body.extend_from_slice(format!("{}\0{}", self.host, self.key).as_bytes());
        body
    }

    /// Whether it proves its host at `now`; `identity`: the host's identity key as the inventory has it, if it has the host.
    ///
    /// # Errors
    /// [`SessionRefusal`].
    pub fn check(
        &self,
        key: &MacKey,
        identity: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<HostProven, SessionRefusal> {
        if !key.has_sealed(&self.body(), &self.seal) {
            return Err(SessionRefusal::Forged);
        }
        if now >= self.expires() {
            return Err(SessionRefusal::Expired);
        }
        if identity == Some(self.key) { Ok(HostProven { host: self.host.clone() }) } else { Err(SessionRefusal::Gone) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::session;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap()
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn a_token_of_one_kind_is_none_of_another() {
        use secrecy::ExposeSecret as _;
        let tokens = [mint_host([1; 32]).0, mint_join([1; 32]).0, session::mint([1; 32]).0];
        for (number, token) in tokens.iter().enumerate() {
            let token = token.expose_secret();
            let takes = [hash_host(token).is_ok(), hash_join(token).is_ok(), session::hash(token).is_ok()];
            for (kind, takes) in takes.into_iter().enumerate() {
                assert_eq!(takes, kind == number, "{token} as kind {kind}");
            }
        }
    }

    #[test]
    fn a_challenge_is_for_one_host_one_purpose_and_one_server() {
        use crate::ssh::private::{LoginKey, SessionKey};
        let (mac, web) = (MacKey::new([1; 32]), host("web-1"));
        let private = SessionKey::generate([9; 32]).to_openssh("").unwrap();
        let private = LoginKey::parse(private.as_bytes(), None).unwrap();
        let text = challenge(&mac, HostPurpose::Enrol, &web, [2; 16], at(0));
        let answer = |server: &str, purpose, name: &HostName| {
            let signed = statement(server, purpose, name, &text);
            let signature = private.sign(HOST_NAMESPACE, signed.as_bytes()).unwrap();
            let proofs = vec![(private.public_key().clone(), SshSignature::parse(&signature).unwrap())];
            HostAnswer { host: name.clone(), purpose, challenge: text.clone(), proofs }
        };
        let good = answer("https://a", HostPurpose::Enrol, &web);
        assert_eq!(check(&good, &mac, "https://a", at(1)).unwrap().0.keys(), [private.public_key().clone()]);
        assert!(check(&good, &mac, "https://b", at(1)).is_err(), "another server");
        assert!(check(&good, &MacKey::new([3; 32]), "https://a", at(1)).is_err(), "another service");
        assert!(check(&good, &mac, "https://a", at(120)).is_err(), "too late");
        assert!(check(&answer("https://a", HostPurpose::Session, &web), &mac, "https://a", at(1)).is_err());
        assert!(check(&answer("https://a", HostPurpose::Enrol, &host("web-2")), &mac, "https://a", at(1)).is_err());
        let none = HostAnswer { proofs: Vec::new(), ..answer("https://a", HostPurpose::Enrol, &web) };
        assert!(check(&none, &mac, "https://a", at(1)).is_err(), "no key");
    }

    #[test]
    fn a_host_session_counts_only_as_written_for_an_hour_and_while_the_host_has_its_key() {
        let (mac, key) =
            (MacKey::new([1; 32]), crate::ssh::private::SessionKey::generate([9; 32]).public_key().fingerprint());
        let (_, token) = mint_host([4; 32]);
        let session = HostSession { token, host: host("web-1"), key, opened: at(0), seal: [0; 32] }.sealed(&mac);
        assert_eq!(session.check(&mac, Some(key), at(3599)).unwrap().host(), &host("web-1"));
        assert_eq!(session.check(&mac, Some(key), at(3600)), Err(SessionRefusal::Expired));
        assert_eq!(session.check(&mac, None, at(1)), Err(SessionRefusal::Gone));
        for forged in [
            HostSession { host: host("web-2"), ..session.clone() },
            HostSession { opened: at(60), ..session.clone() },
            HostSession { token: TokenHash([0; 32]), ..session },
        ] {
            assert_eq!(forged.check(&mac, Some(key), at(61)), Err(SessionRefusal::Forged));
        }
    }
}
