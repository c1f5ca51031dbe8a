//! Parsed names and ids: what each kind of name may look like, in one place.
//!
//! What for: a name that exists as a value has passed its check, so it is safe in a certificate, a log line, a
//! path component, a terminal and a SQL parameter. `Display` gives back exactly what [`parse`](PersonName::parse)
//! accepts.
//!
//! A name is copied by sharing its text: it stands in requests, verdicts, inventories and lists at once.
//!
//! What not: no lookup, no directory; whether a person or host exists is for `identity` and `policy`.
//!
//! Invariants: ASCII only, no control characters, no blanks, never empty, bounded length, lower case where two
//! spellings could otherwise mean one thing (people, hosts, groups, tags). An over-long or odd name is quoted in
//! the error with escapes and at most 64 characters.
//!
//! Limits: a key id is `hallpass/<request>/<person>` and must stay within 190 bytes (syslog cuts lines, see
//! `ssh::cert`), hence a person's 128; a principal is at most 128 bytes, `account@host`, hence a host's 90.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod ca;
mod host;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

pub use ca::CaName;
pub use host::{JoinId, NamePattern, ReportId, Tag};

/// Why a text is not a name of the wanted kind.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{given:?} is not {kind}: {rule}")]
pub struct NameError {
    /// What was wanted, with its article.
    pub kind: &'static str,
    /// The start of what was given.
    pub given: String,
    /// What would be accepted.
    pub rule: &'static str,
}

fn refuse(kind: &'static str, given: &str, rule: &'static str) -> NameError {
    NameError { kind, given: given.chars().take(64).collect(), rule }
}

fn is_between(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max
}

/// Whether each byte of `text` is a lower-case letter, a digit or in `extra`, and the first a letter or digit.
fn is_plain(text: &str, extra: &[u8]) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.as_bytes().first().is_some_and(lower) && text.bytes().all(|b| lower(&b) || extra.contains(&b))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses one.
            ///
            /// # Errors
            /// Says what would be accepted.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(refuse($kind, text, $rule)) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A human, as the directory knows them: `alice@example.com` or `alice`.
    PersonName, "a person",
    "1 to 128 of a-z 0-9 . _ + - @, starting with a letter or digit, at most one @",
    |t| is_between(t, 128) && is_plain(t, b"._+-@") && t.bytes().filter(|b| *b == b'@').count() <= 1 && !t.ends_with('@')
);
name!(
    /// A named set of people: `backend`.
    GroupName, "a group",
    "1 to 64 of a-z 0-9 . _ -, starting with a letter or digit",
    |t| is_between(t, 64) && is_plain(t, b"._-")
);
name!(
    /// A Unix login on a host: `deploy`.
    Account, "an account",
    "1 to 32 of a-z 0-9 _ . -, starting with a letter or _",
    |t| is_between(t, 32)
        && t.as_bytes().first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'_')
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
);
name!(
    /// A machine with sshd: `web-1`, `db.example.com`.
    HostName, "a host",
    "1 to 90 of a-z 0-9 . -, labels of 1 to 63 that start and end with a letter or digit",
    |t| is_between(t, 90)
        && t.split('.').all(|label| is_between(label, 63) && is_plain(label, b"-") && !label.ends_with('-'))
);
name!(
    /// The name of a policy rule: `prod-web-debug`.
    RuleName, "a rule name",
    "1 to 64 of a-z 0-9 . _ -, starting with a letter or digit",
    |t| is_between(t, 64) && is_plain(t, b"._-")
);
name!(
    /// A tag's key: `role`.
    TagKey, "a tag key",
    "1 to 32 of a-z 0-9 _ . -, starting with a letter or digit",
    |t| is_between(t, 32) && is_plain(t, b"._-")
);
name!(
    /// A tag's value: `web`.
    TagValue, "a tag value",
    "1 to 64 of a-z 0-9 _ . -, starting with a letter or digit",
    |t| is_between(t, 64) && is_plain(t, b"._-")
);

/// A string in a certificate's principal list: `account` or `account@host`; in a host's certificate a name of the host.
///
/// Alphabet `[a-z0-9_][a-z0-9_.@:=-]*`, at most 128 bytes. A user certificate's begins with a letter or `_` (invariant I-4; the
/// certificate's linter looks), as every account does; a host may be called `10.0.0.7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Parses one.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        let first = text.as_bytes().first().is_some_and(is_first);
        let rest = text.bytes().all(|b| is_first(&b) || b".@:=-".contains(&b));
        if first && rest && text.len() <= 128 {
            Ok(Self(text.into()))
        } else {
            Err(refuse("a principal", text, "1 to 128 of a-z 0-9 _ . @ : = -, starting with a letter, a digit or _"))
        }
    }

    /// Whether it can stand in a user certificate: no account begins with a digit.
    #[must_use]
    pub fn is_of_account(&self) -> bool {
        self.0.as_bytes().first().is_some_and(|b| !b.is_ascii_digit())
    }

    /// A name of a host, for its own certificate.
    #[must_use]
    pub fn of_host(host: &HostName) -> Self {
        Self(Arc::clone(&host.0))
    }

    /// The principal of an account on every host with account scope: the plain account name.
    #[must_use]
    pub fn of_account(account: &Account) -> Self {
        Self(Arc::clone(&account.0))
    }

    /// The principal of an account on one host: `account@host` (at most 32 + 1 + 90 bytes).
    #[must_use]
    pub fn on_host(account: &Account, host: &HostName) -> Self {
        Self([account.as_str(), "@", host.as_str()].concat().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a request may name: one host, or all hosts with a tag (expanded to hosts when asked).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One host by name.
    Host(HostName),
    /// All known hosts with this tag: `tag:role=web`.
    Tag(TagKey, TagValue),
}

impl Target {
    /// Parses `web-1` or `tag:role=web`.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some(tag) = text.strip_prefix("tag:") else { return HostName::parse(text).map(Self::Host) };
        let (key, value) = tag.split_once('=').ok_or_else(|| refuse("a tag", text, "tag:KEY=VALUE"))?;
        Ok(Self::Tag(TagKey::parse(key)?, TagValue::parse(value)?))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "{host}"),
            Self::Tag(key, value) => write!(f, "tag:{key}={value}"),
        }
    }
}

/// Crockford's base32 digits: no I, L, O or U.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The id of an access request: 40 random bits, eight Crockford digits, shown as `7K3F-9QX2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 8]);

// In the order of their digits. As one number each, since most of looking for a request is this.
impl Ord for RequestId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        u64::from_be_bytes(self.0).cmp(&u64::from_be_bytes(other.0))
    }
}

impl PartialOrd for RequestId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RequestId {
    /// The id made of five random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 5]) -> Self {
        let bits = random.iter().fold(0_u64, |acc, b| (acc << 8) | u64::from(*b));
        let mut digits = [b'0'; 8];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            let shift = u32::try_from(place).unwrap_or(0).saturating_mul(5);
            let index = usize::try_from((bits >> shift) & 31).unwrap_or(0);
            *digit = CROCKFORD.get(index).copied().unwrap_or(b'0');
        }
        Self(digits)
    }

    /// Parses a whole id, with or without the hyphen, in either case.
    ///
    /// # Errors
    /// For anything that is not eight digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(id) = Self::as_written(text) {
            return Ok(id);
        }
        let wrong = || refuse("a request id", text, "eight digits like 7K3F-9QX2");
        let prefix = RequestPrefix::parse(text).ok().ok_or_else(wrong)?;
        <[u8; 8]>::try_from(prefix.0.as_bytes()).map(Self).ok().ok_or_else(wrong)
    }

    /// The id whose digits these are, as they are shown or stored: the way in which most come.
    fn as_written(text: &str) -> Option<Self> {
        let digits: [u8; 8] = match *text.as_bytes() {
            [a, b, c, d, b'-', e, f, g, h] | [a, b, c, d, e, f, g, h] => [a, b, c, d, e, f, g, h],
            _ => return None,
        };
        let is_digit =
            |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'H' | b'J' | b'K' | b'M' | b'N' | b'P'..=b'T' | b'V'..=b'Z');
        digits.into_iter().all(is_digit).then_some(Self(digits))
    }

    /// The eight digits without the hyphen, as stored and as in key ids.
    #[must_use]
    pub fn digits(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("00000000")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.digits().split_at_checked(4).unwrap_or_default();
        f.pad(&format!("{first}-{last}"))
    }
}

/// The start of a request id, as people type it: one to eight digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPrefix(String);

impl RequestPrefix {
    /// Parses one; hyphens are dropped, `i l` read as `1` and `o` as `0` (Crockford's rule).
    ///
    /// # Errors
    /// For none or more than eight digits, or other characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || refuse("a request id", text, "one to eight digits like 7K3F");
        let mut digits = String::new();
        for c in text.chars().filter(|c| *c != '-') {
            let digit = match c.to_ascii_uppercase() {
                'I' | 'L' => '1',
                'O' => '0',
                other => other,
            };
            if !digit.is_ascii() || !CROCKFORD.iter().any(|d| char::from(*d) == digit) || digits.len() >= 8 {
                return Err(wrong());
            }
            digits.push(digit);
        }
        if digits.is_empty() { Err(wrong()) } else { Ok(Self(digits)) }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A certificate's serial number: the index of its log entry, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(std::num::NonZeroU64);

impl Serial {
    /// The serial `number`.
    ///
    /// # Errors
    /// For 0 (the log's own start) and for 2^63 and above (SQL integers are signed).
    pub fn new(number: u64) -> Result<Self, NameError> {
        let wrong = || refuse("a serial", &number.to_string(), "1 to 2^63 - 1");
        i64::try_from(number).ok().ok_or_else(wrong)?;
        std::num::NonZeroU64::new(number).map(Self).ok_or_else(wrong)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a policy version in the store, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyVersion(pub u32);

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of what is to be approved (computed by `access::digest`); shown as 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// These 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 lower-case hex digits.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || refuse("a digest", text, "64 lower-case hex digits");
        let mut bytes = [0; 32];
        let is_whole = text.len() == 64 && data_encoding::HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok();
        is_whole.then_some(Self(bytes)).ok_or_else(wrong)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Texts that no kind of name is.
    const NEVER: [&str; 14] =
        ["", " ", "a b", "A", "é", "a\0", "a\n", "../a", "/", "*", "a,b", "-a", "a\u{202e}b", "a\"b"];

    #[test]
    fn no_kind_of_name_takes_blanks_controls_wildcards_paths_or_upper_case() {
        for text in NEVER {
            assert!(PersonName::parse(text).is_err(), "{text:?}");
            assert!(GroupName::parse(text).is_err(), "{text:?}");
            assert!(Account::parse(text).is_err(), "{text:?}");
            assert!(HostName::parse(text).is_err(), "{text:?}");
            assert!(RuleName::parse(text).is_err(), "{text:?}");
            assert!(TagKey::parse(text).is_err(), "{text:?}");
            assert!(TagValue::parse(text).is_err(), "{text:?}");
            assert!(CaName::parse(text).is_err(), "{text:?}");
            assert!(Principal::parse(text).is_err(), "{text:?}");
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let long = |length| "a".repeat(length);
        assert!(PersonName::parse(&long(128)).is_ok() && PersonName::parse(&long(129)).is_err());
        assert!(GroupName::parse(&long(64)).is_ok() && GroupName::parse(&long(65)).is_err());
        assert!(Account::parse(&long(32)).is_ok() && Account::parse(&long(33)).is_err());
        assert!(HostName::parse(&long(63)).is_ok() && HostName::parse(&long(64)).is_err());
        let host = |length| format!("{}.{}", long(60), long(length));
        assert!(HostName::parse(&host(29)).is_ok() && HostName::parse(&host(30)).is_err());
        assert!(Principal::parse(&long(128)).is_ok() && Principal::parse(&long(129)).is_err());
        assert!(TagKey::parse(&long(32)).is_ok() && TagKey::parse(&long(33)).is_err());
    }

    #[test]
    fn a_person_has_at_most_one_at_sign_and_something_behind_it() {
        for text in ["alice", "alice@example.com", "a.b+c@x", "4711"] {
            assert!(PersonName::parse(text).is_ok(), "{text}");
        }
        for text in ["@example.com", "alice@", "a@b@c", "alice/x", "alice:x", "alice=x"] {
            assert!(PersonName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_made_of_labels() {
        for text in ["web-1", "db.example.com", "10.0.0.7", "x"] {
            assert!(HostName::parse(text).is_ok(), "{text}");
        }
        for text in [".web", "web.", "a..b", "web-", "web-.x", "web_1", "tag:role=web", "a@b"] {
            assert!(HostName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_is_a_host_or_a_tag() {
        let tag = Target::Tag(TagKey::parse("role").unwrap(), TagValue::parse("web").unwrap());
        assert_eq!(Target::parse("tag:role=web"), Ok(tag));
        assert_eq!(Target::parse("web-1"), Ok(Target::Host(HostName::parse("web-1").unwrap())));
        for text in ["tag:", "tag:role", "tag:=web", "tag:role=", "tag:role=web=x", "tag:role=*", "TAG:role=web"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_quotes_the_start_of_what_was_given_without_control_or_bidi_characters() {
        let error = HostName::parse(&format!("a\u{1b}[2J\u{202e}{}", "x".repeat(300))).unwrap_err().to_string();
        assert!(error.starts_with("\"a\\u{1b}[2J\\u{202e}xx"), "{error}");
        assert!(error.contains("is not a host: 1 to 90 of a-z 0-9"), "{error}");
        assert!(error.len() < 250, "{error}");
        assert!(!error.chars().any(|c| c.is_control() || c == '\u{202e}'));
    }

    #[test]
    fn a_request_id_is_typed_with_or_without_hyphen_in_either_case_and_shown_in_one_way() {
        let id = RequestId::parse("7K3F-9QX2").unwrap();
        for text in ["7k3f9qx2", "7K3F9QX2", "7k3f-9qx2"] {
            assert_eq!(RequestId::parse(text), Ok(id), "{text}");
        }
        assert_eq!((id.to_string().as_str(), id.digits()), ("7K3F-9QX2", "7K3F9QX2"));
        assert_eq!(RequestId::parse("O0il-LI1o").unwrap().digits(), "00111110");
        for text in ["", "7K3F", "7K3F-9QX22", "7K3F 9QX2", "7K3F-9QXU", "7K3F_9QX2", "７K3F9QX2"] {
            assert!(RequestId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_has_one_to_eight_digits() {
        assert_eq!(RequestPrefix::parse("7k3f-").unwrap().as_str(), "7K3F");
        for text in ["", "-", "7K3F-9QX2-1", "%", "7k%"] {
            assert!(RequestPrefix::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_serial_is_neither_0_nor_too_large_for_sql() {
        assert!(Serial::new(0).is_err() && Serial::new(1 << 63).is_err());
        assert_eq!(Serial::new((1 << 63) - 1).map(Serial::number), Ok((1 << 63) - 1));
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Digest::new([0xab; 32]);
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        for text in ["", &"ab".repeat(31), &"ab".repeat(33), &"AB".repeat(32), &"xy".repeat(32)] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }

    fn account() -> impl Strategy<Value = Account> {
        "[a-z_][a-z0-9_.-]{0,31}".prop_map(|text| Account::parse(&text).unwrap())
    }

    fn host() -> impl Strategy<Value = HostName> {
        let label = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?";
        proptest::collection::vec(label, 1..=4).prop_map(|labels| HostName::parse(&labels.join(".")).unwrap())
    }

    proptest! {
        #[test]
        fn whatever_text_is_a_name_is_printed_as_it_was_given(text in prop_oneof![any::<String>(), "[a-z0-9@:=_.+-]{0,40}"]) {
            macro_rules! printed_as_given {
                ($($kind:ident)*) => { $(
                    if let Ok(name) = $kind::parse(&text) {
                        prop_assert_eq!(name.to_string(), text.clone());
                        prop_assert!(text.is_ascii() && !text.is_empty());
                    }
                )* };
            }
            printed_as_given!(PersonName GroupName Account HostName RuleName TagKey TagValue Principal Target Digest);
        }

        #[test]
        fn principals_of_accounts_are_principals_and_tell_account_and_host_apart(
            account in account(), host in host(), other_account in account(), other_host in host()
        ) {
            let plain = Principal::of_account(&account);
            let scoped = Principal::on_host(&account, &host);
            prop_assert_eq!(Principal::parse(plain.as_str()), Ok(plain.clone()));
            prop_assert_eq!(Principal::parse(scoped.as_str()), Ok(scoped.clone()));
            prop_assert_ne!(&plain, &scoped);
            let same = account == other_account && host == other_host;
            prop_assert_eq!(scoped == Principal::on_host(&other_account, &other_host), same);
        }

        #[test]
        fn forty_random_bits_are_one_id_and_back(random in any::<[u8; 5]>()) {
            let id = RequestId::from_random(random);
            prop_assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
            prop_assert_eq!(RequestId::parse(id.digits()), Ok(id));
            let value = |digit: u8| CROCKFORD.iter().position(|d| *d == digit).unwrap();
            let bits = id.digits().bytes().fold(0, |bits, digit| (bits << 5) | value(digit));
            prop_assert_eq!(&bits.to_be_bytes()[3..], &random);
        }

        #[test]
        fn ids_are_in_the_order_of_their_digits(one in any::<[u8; 5]>(), other in any::<[u8; 5]>()) {
            let (one, other) = (RequestId::from_random(one), RequestId::from_random(other));
            prop_assert_eq!(one.cmp(&other), one.digits().cmp(other.digits()));
        }

        #[test]
        fn any_text_is_tried_as_an_id_without_panic(text in any::<String>()) {
            if let Ok(id) = RequestId::parse(&text) {
                prop_assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
            }
            prop_assert!(RequestPrefix::parse(&text).map_or(true, |prefix| (1..=8).contains(&prefix.as_str().len())));
        }
    }
}
