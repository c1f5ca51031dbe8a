//! Key ids: whose a certificate is, in one line that `sshd` writes into its log.
//!
//! | Key id | Certificate | Type |
//! |---|---|---|
//! | `hallpass/<request>/<person>` | a person's, for the window of a request | user |
//! | `hallpass/check/<host>` | of a host's login to itself | user |
//! | `hallpass/host/<host>` | of a host's own key | host |
//!
//! A request's id has eight digits, so neither `check` nor `host` is one.

use std::fmt;

use crate::name::{HostName, NameError, PersonName, RequestId};

/// Whose a certificate is: at most 190 bytes of `[A-Za-z0-9._@:=/+-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId {
    text: String,
    whose: Whose,
}

/// What a key id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A person's, for this request.
    Request {
        /// The request.
        request: RequestId,
        /// The person.
        person: PersonName,
    },
    /// Of this host's login to itself.
    Check(HostName),
    /// This host's own.
    Host(HostName),
}

/// What a CA key is for: it signs certificates of this type and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// `SSH_CERT_TYPE_USER`.
    User,
    /// `SSH_CERT_TYPE_HOST`.
    Host,
}

impl Purpose {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::Host];

    /// `user` or `host`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
        }
    }

    /// The purpose of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }

    /// The number of PROTOCOL.certkeys.
    pub(super) const fn type_number(self) -> u32 {
        match self {
            Self::User => 1,
            Self::Host => 2,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl KeyId {
    /// The most bytes: with more, syslog's 500 bytes per message could lose the serial and the CA's fingerprint.
    const BYTES_MAX: usize = 190;

    /// The key id of a request's certificate.
    ///
    /// # Errors
    /// When it would be longer than 190 bytes.
    pub fn new(request: &RequestId, person: &PersonName) -> Result<Self, NameError> {
        Self::of(Whose::Request { request: *request, person: person.clone() })
    }

    /// The key id of a host's login to itself.
    ///
    /// # Errors
    /// When it would be longer than 190 bytes.
    pub fn of_check(host: &HostName) -> Result<Self, NameError> {
        Self::of(Whose::Check(host.clone()))
    }

    /// The key id of a host's own certificate.
    ///
    /// # Errors
    /// When it would be longer than 190 bytes.
    pub fn of_host(host: &HostName) -> Result<Self, NameError> {
        Self::of(Whose::Host(host.clone()))
    }

    fn of(whose: Whose) -> Result<Self, NameError> {
        let text = match &whose {
            Whose::Request { request, person } => ["hallpass/", request.digits(), "/", person.as_str()].concat(),
            Whose::Check(host) => ["hallpass/check/", host.as_str()].concat(),
            Whose::Host(host) => ["hallpass/host/", host.as_str()].concat(),
        };
        let is_safe = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@:=/+-".contains(&b));
        if is_safe && text.len() <= Self::BYTES_MAX { Ok(Self { text, whose }) } else { Err(Self::wrong(&text)) }
    }

    /// Parses one as it is made here.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts = text.strip_prefix("hallpass/").and_then(|rest| rest.split_once('/'));
        let id = match parts.ok_or_else(|| Self::wrong(text))? {
            ("check", host) => Self::of(Whose::Check(HostName::parse(host)?))?,
            ("host", host) => Self::of(Whose::Host(HostName::parse(host)?))?,
            (request, person) => {
                let (request, person) = (RequestId::parse(request)?, PersonName::parse(person)?);
                Self::of(Whose::Request { request, person })?
            }
        };
        if id.text == text { Ok(id) } else { Err(Self::wrong(text)) }
    }

    fn wrong(text: &str) -> NameError {
        let rule = "hallpass/REQUEST/PERSON, hallpass/check/HOST or hallpass/host/HOST, at most 190 bytes";
        NameError { kind: "a key id", given: text.chars().take(64).collect(), rule }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it says.
    #[must_use]
    pub const fn whose(&self) -> &Whose {
        &self.whose
    }

    /// What the CA key must be for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        match self.whose {
            Whose::Request { .. } | Whose::Check(_) => Purpose::User,
            Whose::Host(_) => Purpose::Host,
        }
    }

    /// The request, of a person's certificate.
    #[must_use]
    pub const fn request(&self) -> Option<&RequestId> {
        match &self.whose {
            Whose::Request { request, .. } => Some(request),
            Whose::Check(_) | Whose::Host(_) => None,
        }
    }

    /// The person, of a person's certificate.
    #[must_use]
    pub const fn person(&self) -> Option<&PersonName> {
        match &self.whose {
            Whose::Request { person, .. } => Some(person),
            Whose::Check(_) | Whose::Host(_) => None,
        }
    }

    /// The host, of a certificate for a host or for its login to itself.
    #[must_use]
    pub const fn host(&self) -> Option<&HostName> {
        match &self.whose {
            Whose::Request { .. } => None,
            Whose::Check(host) | Whose::Host(host) => Some(host),
        }
    }
}
