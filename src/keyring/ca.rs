//! Which CA a key is of, and the key of a CA that signs.
//!
//! What for: there are several user CAs, so that the theft of one key opens the hosts of one; the host CA is one, since clients trust
//! it by each host's name. A key is of one CA for life.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use crate::name::CaName;
use crate::ssh::PublicKey;
use crate::ssh::cert::Purpose;

/// A CA: keys that take over from each other, and what they sign.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ca {
    /// Certificates for people, on the hosts of this CA.
    User(CaName),
    /// Host certificates; there is one such CA.
    Host,
}

impl Ca {
    /// The default user CA.
    pub const USER: Self = Self::User(CaName::DEFAULT);

    /// What its keys sign.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        match self {
            Self::User(_) => Purpose::User,
            Self::Host => Purpose::Host,
        }
    }

    /// The name, if it is a user CA with one.
    #[must_use]
    pub fn named(&self) -> Option<CaName> {
        match self {
            Self::User(name) => name.named(),
            Self::Host => None,
        }
    }

    /// The CA of this purpose and name, as they are written apart.
    ///
    /// # Errors
    /// For a host CA with a name.
    pub fn of(purpose: Purpose, name: Option<CaName>) -> Result<Self, &'static str> {
        match (purpose, name) {
            (Purpose::User, name) => Ok(Self::User(name.unwrap_or_default())),
            (Purpose::Host, None) => Ok(Self::Host),
            (Purpose::Host, Some(_)) => Err("there is one host CA, and it has no name"),
        }
    }

    /// Its table in the configuration: `ca.user`, `ca.named.prod`, `ca.host`.
    #[must_use]
    pub fn table(&self) -> String {
        match self {
            Self::User(name) if name.is_default() => "ca.user".to_owned(),
            Self::User(name) => format!("ca.named.{name}"),
            Self::Host => "ca.host".to_owned(),
        }
    }
}

impl fmt::Display for Ca {
    /// `user`, `prod user`, `host`: as it stands before "CA key".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named() {
            Some(name) => write!(f, "{name} {}", self.purpose()),
            None => fmt::Display::fmt(&self.purpose(), f),
        }
    }
}

/// The key that signs for a CA, and which CA that is. Only a ring makes one, so that what is decided for the hosts of one CA is not
/// signed by the key of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveKey {
    ca: Ca,
    key: PublicKey,
}

impl ActiveKey {
    pub(super) const fn new(ca: Ca, key: PublicKey) -> Self {
        Self { ca, key }
    }

    /// The CA.
    #[must_use]
    pub const fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }
}
