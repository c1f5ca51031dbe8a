//! Keys by which the service knows again what it wrote itself: login challenges, stored sessions, the log's head.
//!
//! What for: a challenge in a stranger's hands, and a row in a database that others can write, count only with a MAC
//! that nobody else can make. The keys are derived from the log key, which every node has and no database holds.
//!
//! What not: no encryption, no passwords.
//!
//! Invariant: one key per purpose ([`MacKey::derive`]); a MAC made for one is worth nothing for another.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;

/// 32 secret bytes for HMAC-SHA256; wiped on drop, not printed.
pub struct MacKey(SecretBox<[u8; 32]>);

impl MacKey {
    /// The key of these 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// The key for one purpose, a short constant text: HMAC-SHA256 of it under this key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self::new(self.mac(purpose.as_bytes()).finalize().into_bytes().into())
    }

    /// The MAC over `body`, to be stored beside it.
    #[must_use]
    pub fn seal(&self, body: &[u8]) -> [u8; 32] {
        self.mac(body).finalize().into_bytes().into()
    }

    /// Whether `seal` is this key's MAC over `body`; in constant time.
    #[must_use]
    pub fn has_sealed(&self, body: &[u8], seal: &[u8]) -> bool {
        self.mac(body).verify_slice(seal).is_ok()
    }

    /// HMAC-SHA256 over `body`, not yet finished.
    pub(super) fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        // HMAC pads a short key with zeros to the hash's block; done here, the constructor cannot fail.
        let mut block = zeroize::Zeroizing::new([0_u8; 64]);
        for (place, byte) in block.iter_mut().zip(self.0.expose_secret()) {
            *place = *byte;
        }
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(body);
        mac
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}
