//! A CA key in a PKCS#11 token: a hardware security module, a smart card, or `SoftHSM`.
//!
//! What for: keys that cannot be copied. The token is found by its label, the key by its own, and which key that is by a signature that
//! the configured public key verifies: two keys with one label are told apart, and one that was swapped is refused.
//!
//! What not: making keys and writing into tokens (the token's own tools do, `docs/ca-keys.md`); no session is ever opened for writing.
//!
//! Invariants: the PIN is a file's, is wiped, and is in no message. It is not given to a token that says that the next wrong PIN is the
//! last; and one that has refused it is asked no more until the next start.

mod library;

use std::path::PathBuf;
use std::time::Instant;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use secrecy::SecretString;

use self::library::Use;
use super::worker::{Backend, Device, Trouble, check};
use crate::secret;
use crate::ssh::{KeyAlgorithm, PublicKey, token};

/// The most keys with one label that are tried. Our own choice.
const CANDIDATES_MAX: usize = 8;

/// Where the key is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The token's library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub library: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label in it.
    pub label: String,
    /// A file holding the PIN on one line, readable by nobody else.
    pub pin_path: PathBuf,
    /// The public half, as in `id_ed25519.pub`.
    pub public_key: PathBuf,
}

/// A key in a token.
pub(super) struct Token {
    pub(super) settings: Settings,
    pub(super) pin: SecretString,
}

/// A session in which the key may be used.
struct Open {
    // Closed before the library is let go.
    session: Session,
    library: Use,
    key: ObjectHandle,
    algorithm: KeyAlgorithm,
}

impl Backend for Token {
    fn name(&self) -> String {
        let Settings { library, token, label, .. } = &self.settings;
        format!("key {label:?} in the token {token:?} of {}", library.display())
    }

    fn connect(&mut self, key: &PublicKey, until: Instant) -> Result<Box<dyn Device>, Trouble> {
        secret::is_ours_to_run(&self.settings.library).map_err(|why| Trouble::new(format!("its library: {why}")))?;
        let library = Use::begin(&self.settings.library).map_err(failed("loading the library"))?;
        match self.session(library.context(), key) {
            Ok((session, found)) => Self::chosen(session, library, &found, key, until),
            Err(trouble) => {
                // A refused PIN is not the library's fault.
                if !trouble.is_final {
                    library.blame();
                }
                Err(trouble)
            }
        }
    }
}

fn first(found: &[ObjectHandle]) -> Result<&ObjectHandle, Trouble> {
    found.first().ok_or_else(|| Trouble::new("it holds no private key with this label of the public key's type"))
}

impl Token {
    /// A session that is logged in, and the keys with our label.
    fn session(&self, library: &Pkcs11, key: &PublicKey) -> Result<(Session, Vec<ObjectHandle>), Trouble> {
        let slot = self.slot(library)?;
        let session = library.open_ro_session(slot).map_err(failed("opening a session"))?;
        self.login(library, slot, &session)?;
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(key_type(key.algorithm())?),
            Attribute::Label(self.settings.label.clone().into_bytes()),
        ];
        let found = session.find_objects(&template).map_err(failed("looking for the key"))?;
        first(&found)?;
        Ok((session, found))
    }

    /// The one of these keys that is the configured one.
    fn chosen(
        session: Session,
        library: Use,
        found: &[ObjectHandle],
        key: &PublicKey,
        until: Instant,
    ) -> Result<Box<dyn Device>, Trouble> {
        let mut open = Open { session, library, key: *first(found)?, algorithm: key.algorithm() };
        let mut trouble = Trouble::new("no key with this label is the one that is configured");
        for candidate in found.iter().take(CANDIDATES_MAX) {
            open.key = *candidate;
            match check(&mut open, key, until) {
                Ok(()) => return Ok(Box::new(open)),
                Err(why) => trouble = why,
            }
        }
        let Open { session, library, .. } = open;
        drop(session);
        library.blame();
        Err(trouble)
    }

    /// The one slot whose token has the label.
    fn slot(&self, library: &Pkcs11) -> Result<Slot, Trouble> {
        let slots = library.get_slots_with_token().map_err(failed("looking for the token"))?;
        let is_it = |slot: &Slot| library.get_token_info(*slot).is_ok_and(|info| info.label() == self.settings.token);
        let mut found = slots.into_iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(slot), None) => Ok(slot),
            (Some(_), Some(_)) => Err(Trouble::new("two tokens have this label")),
            (None, _) => Err(Trouble::new("there is no token with this label")),
        }
    }

    /// Logs in, unless another session of ours has done so: a login counts for the whole token.
    fn login(&self, library: &Pkcs11, slot: Slot, session: &Session) -> Result<(), Trouble> {
        let info = library.get_token_info(slot).map_err(failed("looking at the token"))?;
        // Nothing was tried, so to look again does no harm; a token that is just being taken away may say this, too.
        if let Some(why) = pin_at_risk(&info) {
            return Err(Trouble::new(why));
        }
        match session.login(UserType::User, Some(&self.pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(error, _)) if is_about_the_pin(error) => Err(Trouble::last(format!(
                "the token refused the PIN ({}); it is not tried again before the next start",
                code(error)
            ))),
            Err(error) => Err(failed("logging in")(error)),
        }
    }
}

/// Why the PIN must not be tried.
fn pin_at_risk(info: &TokenInfo) -> Option<&'static str> {
    if info.user_pin_locked() {
        Some("the token has locked the PIN")
    } else if info.user_pin_final_try() {
        Some("the token would lock itself after one more wrong PIN: log in once with its own tools")
    } else if !info.user_pin_initialized() {
        Some("the token has no PIN yet: initialise it with its own tools")
    } else {
        None
    }
}

const fn is_about_the_pin(error: RvError) -> bool {
    matches!(
        error,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired | RvError::PinLocked
    )
}

impl Device for Open {
    fn is_unwanted(&self) -> bool {
        self.library.is_unwanted()
    }

    fn sign(&mut self, data: &[u8], _until: Instant) -> Result<Vec<u8>, Trouble> {
        let none = || Trouble::new("no token signs with such a key");
        let mechanism = match self.algorithm {
            KeyAlgorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => Mechanism::Ecdsa,
            KeyAlgorithm::Rsa => Mechanism::Sha512RsaPkcs,
            KeyAlgorithm::EcdsaP521 | KeyAlgorithm::SkEd25519 | KeyAlgorithm::SkEcdsaP256 => return Err(none()),
        };
        let input = token::input(self.algorithm, data).ok_or_else(none)?;
        let raw = self.session.sign(&mechanism, self.key, &input).map_err(failed("signing"))?;
        token::signature(self.algorithm, &raw).ok_or_else(|| Trouble::new("it answered with no signature"))
    }
}

fn key_type(algorithm: KeyAlgorithm) -> Result<KeyType, Trouble> {
    match algorithm {
        KeyAlgorithm::Ed25519 => Ok(KeyType::EC_EDWARDS),
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => Ok(KeyType::EC),
        KeyAlgorithm::Rsa => Ok(KeyType::RSA),
        KeyAlgorithm::EcdsaP521 | KeyAlgorithm::SkEd25519 | KeyAlgorithm::SkEcdsaP256 => {
            Err(Trouble::new("no token signs with such a key"))
        }
    }
}

/// An error of the library as one line. Its own texts are pages of the standard.
fn failed(doing: &'static str) -> impl FnOnce(Error) -> Trouble {
    move |error| {
        Trouble::new(match error {
            Error::Pkcs11(error, _) => format!("{doing}: {}", code(error)),
            Error::LibraryLoading(error) => format!("{doing}: {error}"),
            error => format!("{doing}: {error:?}"),
        })
    }
}

/// The name of a return value, such as `DeviceRemoved`.
fn code(error: RvError) -> String {
    format!("{error:?}")
}
