//! Browsers: sign-in tokens, the sessions they open, and the proof that a form came from our own page.
//!
//! What for: a command line that is logged in lets a browser in. It gets a *sign-in token*, which the browser brings back once and
//! within a minute; the browser then has a session of its own, whose token is its cookie.
//!
//! What not: no cookies, no pages (`http`), no storing. Redeeming the nonce is the caller's next step, with the session.
//!
//! A sign-in token authenticates itself, like a login challenge: asking for one stores nothing. It names the session that asked, and
//! counts while that one does. It is `hpo_` and these bytes as unpadded base64url, in their one canonical spelling:
//!
//! | Bytes | Field |
//! |---|---|
//! | 8 | the first second it no longer counts, Unix seconds, big endian |
//! | 16 | nonce |
//! | 32 | SHA-256 of the token of the session that asked |
//! | 32 | HMAC-SHA256 of the 56 bytes before, under the [`MacKey`] of this purpose |
//!
//! Invariants: a browser session proves whom its parent proves, and nothing once the parent does not (over, ended, person or key gone),
//! so it can't outlive it. Its token (`hpb_`) is looked up in another place than a session's (`hps_`): neither can be used as the other.
//! It is new at each sign-in: nothing that a browser had before is taken over.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use data_encoding::BASE64URL_NOPAD;
use secrecy::SecretString;

use super::challenge::{LoginRefusal, Redemption};
use super::mac::MacKey;
use super::session::{Session, SessionRefusal, TokenHash, hash_as, mint_as};
use super::{Directory, Proven};
use crate::time::{Lifetime, Timestamp};

/// How long a sign-in token counts: a minute, our own choice; time to read one page and press one button.
pub const SIGN_IN_LIFETIME: Lifetime = Lifetime::minutes(1);

const SIGN_IN_PREFIX: &str = "hpo_";
const BROWSER_PREFIX: &str = "hpb_";

/// Bytes of expiry, nonce and parent, which the HMAC covers.
const BODY_BYTES: usize = 56;

/// The keys for what browsers bring, each of its own purpose.
#[derive(Debug)]
pub struct BrowserKeys {
    sign_in: MacKey,
    session: MacKey,
    form: MacKey,
}

/// A sign-in token of ours that counts by itself: which session asked, and what is to be redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// The session that asked; it must still count.
    pub parent: TokenHash,
    /// The nonce.
    pub redemption: Redemption,
}

/// A stored session of a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSession {
    /// Hash of its token.
    pub token: TokenHash,
    /// The session that let it in.
    pub parent: TokenHash,
    /// When it was opened.
    pub opened: Timestamp,
    /// The first second it is no longer valid; never later than its parent's.
    pub expires: Timestamp,
    /// HMAC-SHA256 over the other fields under the service's key for them. Set by [`BrowserSession::sealed`].
    pub seal: [u8; 32],
}

impl BrowserKeys {
    /// Derived from the service's own key.
    #[must_use]
    pub fn new(derive: impl Fn(&str) -> MacKey) -> Self {
        Self { sign_in: derive("browser sign-in"), session: derive("browser sessions"), form: derive("browser forms") }
    }

    /// A new sign-in token for a browser of whoever holds this session.
    #[must_use]
    pub fn issue(&self, parent: TokenHash, nonce: [u8; 16], now: Timestamp) -> SecretString {
        // At the end of representable time a token is born expired: refused, not wrapped.
        let expires = now.plus(SIGN_IN_LIFETIME).unwrap_or(now);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&expires.unix().to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&parent.0);
        let seal = self.sign_in.seal(&bytes);
        bytes.extend_from_slice(&seal);
        SecretString::from(format!("{SIGN_IN_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// What a sign-in token says, if it is ours and counts at `now`. One that ends later than a new one would was made on a clock
    /// that has been set back since, and whether it was used may be forgotten.
    ///
    /// # Errors
    /// [`LoginRefusal::Challenge`] or [`LoginRefusal::Expired`].
    pub fn read(&self, token: &str, now: Timestamp) -> Result<SignIn, LoginRefusal> {
        let signed = self.parse(token).ok_or(LoginRefusal::Challenge)?;
        let expires = signed.redemption.expires;
        if now >= expires || now.plus(SIGN_IN_LIFETIME).is_ok_and(|newest| newest < expires) {
            return Err(LoginRefusal::Expired);
        }
        Ok(signed)
    }

    fn parse(&self, token: &str) -> Option<SignIn> {
        let bytes = BASE64URL_NOPAD.decode(token.strip_prefix(SIGN_IN_PREFIX)?.as_bytes()).ok()?;
        let (body, seal) = bytes.split_at_checked(BODY_BYTES)?;
        if !self.sign_in.has_sealed(body, seal) {
            return None;
        }
        let (expires, rest) = body.split_first_chunk::<8>()?;
        let (nonce, parent) = rest.split_first_chunk::<16>()?;
        let expires = Timestamp::from_unix(u64::from_be_bytes(*expires)).ok()?;
        Some(SignIn { parent: TokenHash(parent.try_into().ok()?), redemption: Redemption { nonce: *nonce, expires } })
    }

    /// What the forms of this browser session carry, so that no other page can send one in its name.
    #[must_use]
    pub fn form_token(&self, session: TokenHash) -> String {
        BASE64URL_NOPAD.encode(&self.form.seal(&session.0))
    }

    /// Whether a form came from a page that this browser session was shown. In constant time.
    #[must_use]
    pub fn is_own_form(&self, session: TokenHash, given: &str) -> bool {
        BASE64URL_NOPAD.decode(given.as_bytes()).is_ok_and(|seal| self.form.has_sealed(&session.0, &seal))
    }
}

/// Makes a browser session's token: the secret text and its hash.
#[must_use]
pub fn mint_browser(random: [u8; 32]) -> (SecretString, TokenHash) {
    mint_as(BROWSER_PREFIX, random)
}

/// The hash of a browser session's token as received.
///
/// # Errors
/// [`SessionRefusal::Unknown`] if it is not in the form of one.
pub fn hash_browser(token: &str) -> Result<TokenHash, SessionRefusal> {
    hash_as(BROWSER_PREFIX, token)
}

impl BrowserSession {
    /// This session with the seal that makes it count.
    #[must_use]
    pub fn sealed(self, keys: &BrowserKeys) -> Self {
        Self { seal: keys.session.seal(&self.body()), ..self }
    }

    /// What the seal covers.
    fn body(&self) -> Vec<u8> {
        let mut body = self.token.0.to_vec();
        body.extend_from_slice(&self.parent.0);
        for time in [self.opened, self.expires] {
            body.extend_from_slice(&time.unix().to_be_bytes());
        }
        body
    }

    /// Whether it proves a person at `now`: the one whom its parent proves. `session_key` seals parents.
    ///
    /// # Errors
    /// [`SessionRefusal`].
    pub fn check(
        &self,
        keys: &BrowserKeys,
        parent: &Session,
        session_key: &MacKey,
        directory: &Directory,
        now: Timestamp,
    ) -> Result<Proven, SessionRefusal> {
        if !keys.session.has_sealed(&self.body(), &self.seal) || parent.token != self.parent {
            return Err(SessionRefusal::Forged);
        }
        if now >= self.expires {
            return Err(SessionRefusal::Expired);
        }
        parent.check(session_key, directory, now)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::identity::{Person, session};
    use crate::name::PersonName;
    use crate::ssh::PublicKey;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap()
    }

    fn keys() -> BrowserKeys {
        BrowserKeys::new(|purpose| MacKey::new([7; 32]).derive(purpose))
    }

    fn key() -> PublicKey {
        crate::ssh::private::SessionKey::generate([9; 32]).public_key().clone()
    }

    fn alice() -> (Directory, Session) {
        let name = PersonName::parse("alice").unwrap();
        let person = Person { name: name.clone(), groups: [].into(), keys: vec![key()] };
        let (_, token) = session::mint([1; 32]);
        let (opened, expires) = (at(0), at(600));
        let session = Session { token, person: name, key: key().fingerprint(), opened, expires, seal: [0; 32] };
        (Directory::new([person]), session.sealed(&MacKey::new([3; 32])))
    }

    #[test]
    fn a_sign_in_token_names_its_session_and_counts_for_a_minute() {
        let token = keys().issue(TokenHash([5; 32]), [9; 16], at(0));
        let token = token.expose_secret();
        assert_eq!(token.len(), 4 + 118);
        let redemption = Redemption { nonce: [9; 16], expires: at(60) };
        let read = SignIn { parent: TokenHash([5; 32]), redemption };
        assert_eq!(keys().read(token, at(59)), Ok(read));
        assert_eq!(keys().read(token, at(60)), Err(LoginRefusal::Expired));
        let before = Timestamp::from_unix(at(0).unix() - 1).unwrap();
        assert_eq!(keys().read(token, before), Err(LoginRefusal::Expired), "made on a clock that was set back");
        let others = BrowserKeys::new(|_| MacKey::new([8; 32]));
        assert_eq!(others.read(token, at(1)), Err(LoginRefusal::Challenge));
    }

    #[test]
    fn any_other_text_is_no_sign_in_token() {
        let token = keys().issue(TokenHash([5; 32]), [9; 16], at(0));
        let text = token.expose_secret();
        for place in 0..text.len() {
            for other in "AQgw_-9=+/ ".chars() {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[place] != other {
                    changed[place] = other;
                    let changed: String = changed.into_iter().collect();
                    assert_eq!(keys().read(&changed, at(1)), Err(LoginRefusal::Challenge), "{changed}");
                }
            }
            assert_eq!(keys().read(text.get(..place).unwrap(), at(1)), Err(LoginRefusal::Challenge));
        }
        assert_eq!(keys().read(&format!("{text}A"), at(1)), Err(LoginRefusal::Challenge));
        assert!(!format!("{token:?} {:?}", keys()).contains("BQUF"), "nothing secret is printed");
    }

    #[test]
    fn a_token_of_one_kind_is_none_of_another() {
        let (person, browser) = (session::mint([1; 32]).0, mint_browser([1; 32]).0);
        assert!(hash_browser(person.expose_secret()).is_err() && session::hash(browser.expose_secret()).is_err());
        assert!(hash_browser(browser.expose_secret()).is_ok());
        let sign_in = keys().issue(TokenHash([5; 32]), [9; 16], at(0));
        assert!(hash_browser(sign_in.expose_secret()).is_err() && session::hash(sign_in.expose_secret()).is_err());
        assert!(keys().read(browser.expose_secret(), at(1)).is_err());
    }

    #[test]
    fn a_browser_session_proves_whom_its_parent_proves_and_never_longer() {
        let (directory, parent) = alice();
        let seals = MacKey::new([3; 32]);
        let (_, token) = mint_browser([2; 32]);
        let of = |parent: TokenHash, expires| {
            BrowserSession { token, parent, opened: at(0), expires, seal: [0; 32] }.sealed(&keys())
        };
        let check = |session: &BrowserSession, parent: &Session, directory: &Directory, now| {
            session.check(&keys(), parent, &seals, directory, now).map(|proven| proven.person().to_string())
        };
        let session = of(parent.token, at(300));
        assert_eq!(check(&session, &parent, &directory, at(299)), Ok("alice".to_owned()));
        assert_eq!(check(&session, &parent, &directory, at(300)), Err(SessionRefusal::Expired));
        let longer = of(parent.token, at(100_000));
        assert_eq!(check(&longer, &parent, &directory, at(600)), Err(SessionRefusal::Expired), "the parent is over");
        assert_eq!(check(&session, &parent, &Directory::default(), at(1)), Err(SessionRefusal::Gone));
        let other = Session { token: TokenHash([6; 32]), ..parent.clone() }.sealed(&seals);
        for forged in [
            BrowserSession { expires: at(301), ..session.clone() },
            BrowserSession { token: TokenHash([0; 32]), ..session.clone() },
            BrowserSession { parent: other.token, ..session.clone() },
        ] {
            let parent = if forged.parent == other.token { &other } else { &parent };
            assert_eq!(check(&forged, parent, &directory, at(1)), Err(SessionRefusal::Forged));
        }
        assert_eq!(check(&session, &other, &directory, at(1)), Err(SessionRefusal::Forged), "not its parent");
    }

    #[test]
    fn a_form_is_of_one_session() {
        let (mine, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let token = keys().form_token(mine);
        assert!(keys().is_own_form(mine, &token));
        for wrong in ["", "x", &keys().form_token(other), &format!("{token}A"), &token.replace(['a', 'b', 'c'], "d")] {
            assert!(!keys().is_own_form(mine, wrong) || wrong == token, "{wrong}");
        }
        assert!(!keys().is_own_form(other, &token));
    }
}
