//! How each type of event field is written in an entry, and the table of kinds with their fields.
//!
//! | Type | JSON |
//! |---|---|
//! | times | Unix seconds |
//! | lifetimes | seconds |
//! | windows | `{"end":…,"start":…}` |
//! | names, ids, digests, fingerprints, actors | their text: `alice`, `7K3F-9QX2`, 64 hex digits, `SHA256:…`, `person:alice` |
//! | sets | arrays sorted by text, without doubles |
//! | lists | arrays in their order |
//! | bytes | base64 with padding |
//! | what may be missing | `null` |
//! | what was added to a kind later | no member where there is nothing, so that older entries keep their one spelling |
//! | a CA key | `{"key":…,"purpose":"user","since":…,"state":"active"}`: an OpenSSH line, `user` or `host`, a time, its state; `"ca":"prod"` before them, of a user CA with a name |
//! | stands of trust bundles | `{"prod":{"since":…,"version":…}}`: for each user CA a time and the index of an entry |
//! | an approval's signature | `{"key":…,"server":…,"signed":…,"sshsig":…}`: an OpenSSH line, the server's URL, a time, the armoured SSHSIG |
//!
//! One trait both ways and one table, so that writing and reading can't drift apart; `Entry::parse` compares the bytes as well.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::event::{Answer, Event, Kept, Mover, Stand};
use super::host_event::{Flag, HostEvent};
use crate::identity::Actor;
use crate::identity::approval::Signature;
use crate::keyring::step::{Proposal, Step};
use crate::keyring::{Ca, Ring, RingKey};
use crate::name::{
    Account, CaName, Digest, HostName, JoinId, NamePattern, PersonName, PolicyVersion, ReportId, RequestId, RuleName,
    Serial, Tag, TagKey,
};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::{Extension, Purpose};
use crate::ssh::sig::SshSignature;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp, Window};

/// A type that can stand in an entry.
pub(super) trait Field: Sized {
    /// As JSON.
    fn put(&self) -> Value;

    /// From JSON; the error says what was expected.
    fn take(value: Value) -> Result<Self, String>;
}

/// The members of an entry that have not been read yet.
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub(super) const fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Reads one member.
    pub(super) fn take<F: Field>(&mut self, name: &str) -> Result<F, String> {
        let value = self.0.remove(name).ok_or_else(|| format!("\"{name}\" is missing"))?;
        F::take(value).map_err(|why| format!("\"{name}\": {why}"))
    }

    /// Reads one member that was added to its kind later.
    fn take_later<F: Field>(&mut self, name: &str) -> Result<Option<F>, String> {
        if self.0.contains_key(name) { self.take(name).map(Some) } else { Ok(None) }
    }

    /// Refuses members that nobody read.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("{name:?} is not known here")),
            None => Ok(()),
        }
    }
}

/// The kinds with their members: the words of [`Event::kind`], and writing and reading by the same table. Behind a `;` stand
/// members that were added later; behind `hosts` the kinds of [`HostEvent`].
macro_rules! kinds {
    (
        $($kind:literal $arm:ident { $($field:ident),+ $(; $($later:ident),+)? })+
        hosts $($host_kind:literal $host_arm:ident { $($host_field:ident),+ $(; $($host_later:ident),+)? })+
    ) => {
        impl Event {
            /// The words of all kinds.
            pub const KINDS: &[&str] = &[$($kind,)+ $($host_kind),+];

            /// `log_started`, `asked`, …
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$arm { .. } => $kind,)+
                    $(Self::Host(HostEvent::$host_arm { .. }) => $host_kind),+
                }
            }

            /// The event's own members.
            pub(super) fn members(&self) -> BTreeMap<&'static str, Value> {
                match self {
                    $(Self::$arm { $($field,)+ $($($later,)+)? } => {
                        let members = [$((stringify!($field), Some($field.put())),)+
                            $($((stringify!($later), $later.as_ref().map(Field::put)),)+)?];
                        members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
                    })+
                    $(Self::Host(HostEvent::$host_arm { $($host_field,)+ $($($host_later,)+)? }) => {
                        let members = [$((stringify!($host_field), Some($host_field.put())),)+
                            $($((stringify!($host_later), $host_later.as_ref().map(Field::put)),)+)?];
                        members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
                    })+
                }
            }

            /// Reads the event of `kind`.
            pub(super) fn from_members(kind: &str, members: &mut Members) -> Result<Self, String> {
                match kind {
                    $($kind => Ok(Self::$arm {
                        $($field: members.take(stringify!($field))?,)+
                        $($($later: members.take_later(stringify!($later))?,)+)?
                    }),)+
                    $($host_kind => Ok(Self::Host(HostEvent::$host_arm {
                        $($host_field: members.take(stringify!($host_field))?,)+
                        $($($host_later: members.take_later(stringify!($host_later))?,)+)?
                    })),)+
                    other => Err(format!("the kind {other:?} is not known to this program")),
                }
            }
        }
    };
}

kinds! {
    "log_started" LogStarted { service, log_key }
    "service_started" ServiceStarted { ca, version; keys, kept }
    "ca_keys_changed" CaKeysChanged { by, step, why, unproven, keys; purpose, early, proposer, ca, kept }
    "ca_step_proposed" CaStepProposed { by, proposal, reason, until, version, since, keys; kept }
    "policy_applied" PolicyApplied { by, version, sha256, tests, changes }
    "logged_in" LoggedIn { person, key, address, expires }
    "browser_signed_in" BrowserSignedIn { person, key, address, expires }
    "logged_out" LoggedOut { person }
    "refused" Refused { person, hosts, account, reason, why, policy }
    "asked" Asked {
        request, person, key, hosts, account, lifetime, start, backdate, account_scope, permits, command, sources,
        verify_required, reason, ticket, rules, policy, digest, verdict; ca
    }
    "narrowed" Narrowed { request, by, lifetime, hosts, permits, digest }
    "approved" Approved { request, by, digest, comment, policy; signature }
    "granted" Granted { request, approvers, window, digest, policy }
    "denied" Denied { request, by, reason, extension }
    "withdrawn" Withdrawn { request, by, extension }
    "lapsed" Lapsed { request, extension }
    "certificate_to_be_signed" CertificateToBeSigned { request, person, serial, ca, window, tbs, policy }
    "certificate_signed" CertificateSigned { request, serial, sha256 }
    "certificate_refused" CertificateRefused { request, person, why, policy }
    "extension_asked" ExtensionAsked { request, person, lifetime, reason, policy, digest, verdict }
    "ended" Ended { request, by, reason }
    "expired" Expired { request }
    "entry_lost" EntryLost { of }
    "log_recovered" LogRecovered { by, reason, kept, heads }
    hosts
    "join_created" JoinCreated { join, by, token, uses, expires, names, tags; may_tag }
    "join_revoked" JoinRevoked { join, by }
    "host_enrolled" HostEnrolled { host, join, keys, names, tags }
    "host_refused" HostRefused { host, join, key, known, why }
    "host_tagged" HostTagged { host, by, tags }
    "host_moved" HostMoved { host, ca, keeps, waits }
    "host_retired" HostRetired { host, by, reason }
    "host_left" HostLeft { host }
    "host_certificate_to_be_signed" HostCertificateToBeSigned { host, serial, ca, window, tbs }
    "host_certificate_signed" HostCertificateSigned { host, serial, sha256 }
    "check_certificate_to_be_signed" CheckCertificateToBeSigned { host, serial, ca, window, tbs }
    "check_certificate_signed" CheckCertificateSigned { host, serial, sha256 }
    "check_in_changed" CheckInChanged {
        host, program, sshd, os, guard, clock_ok, file_sha256, keys, proven, risky
    }
    "host_doubled" HostDoubled { host }
    "session_opened" SessionOpened { host, report, serial, key_id, ca, account, from, opened, request }
    "session_ended" SessionEnded { host, report, serial, account, ended, why, request }
    "session_refused" SessionRefused { host, report, serial, key_id, ca, account, from, refused, why, request }
    "session_flagged" SessionFlagged { host, report, serial, flag, why, request }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("not text".to_owned())
        }
    }
}

fn array(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err("not an array".to_owned())
        }
    }
}

/// Fields that are their own text.
macro_rules! by_text {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn put(&self) -> Value {
                self.to_string().into()
            }

            fn take(value: Value) -> Result<Self, String> {
                Self::parse(&text(value)?).map_err(|e| e.to_string())
            }
        }
    )+};
}

by_text!(
    Account,
    Actor,
    CaName,
    Digest,
    Fingerprint,
    HostName,
    JoinId,
    Mover,
    NamePattern,
    PersonName,
    ReportId,
    RequestId,
    RuleName,
    Tag,
    TagKey
);

/// Fields that are a whole number, each with its way there and back.
macro_rules! by_number {
    ($($type:ty: $to:expr, $from:expr;)+) => {$(
        impl Field for $type {
            fn put(&self) -> Value {
                let to: fn(&$type) -> u64 = $to;
                to(self).into()
            }

            fn take(value: Value) -> Result<Self, String> {
                let from: fn(u64) -> Option<$type> = $from;
                value.as_u64().and_then(from).ok_or_else(|| "not a whole number in range".to_owned())
            }
        }
    )+};
}

by_number! {
    u64: |n| *n, Some;
    usize: |n| u64::try_from(*n).unwrap_or(u64::MAX), |n| Self::try_from(n).ok();
    Lifetime: |l| l.seconds().into(), |n| u32::try_from(n).ok().and_then(|s| Self::from_seconds(s).ok());
    PolicyVersion: |v| v.0.into(), |n| u32::try_from(n).ok().map(Self);
    Serial: |s| s.number(), |n| Self::new(n).ok();
    Timestamp: |t| t.unix(), |n| Self::from_unix(n).ok();
}

impl Field for String {
    fn put(&self) -> Value {
        self.as_str().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        text(value)
    }
}

impl Field for bool {
    fn put(&self) -> Value {
        (*self).into()
    }

    fn take(value: Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "not true or false".to_owned())
    }
}

impl Field for Answer {
    fn put(&self) -> Value {
        self.word().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let word = text(value)?;
        [Self::Allow, Self::Ask].into_iter().find(|a| a.word() == word).ok_or_else(|| "not allow or ask".to_owned())
    }
}

impl Field for Flag {
    fn put(&self) -> Value {
        self.word().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let word = text(value)?;
        Self::ALL.into_iter().find(|flag| flag.word() == word).ok_or_else(|| "not a flag of a session".to_owned())
    }
}

impl Field for Extension {
    fn put(&self) -> Value {
        self.key().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let key = text(value)?;
        Self::ALL.into_iter().find(|e| e.key() == key).ok_or_else(|| "not a certificate extension".to_owned())
    }
}

impl Field for Window {
    fn put(&self) -> Value {
        // In order, whatever kind of map the JSON crate was built with.
        Map::from_iter([("end".to_owned(), self.end().put()), ("start".to_owned(), self.start().put())]).into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not a window".to_owned()) };
        let mut members = Members::new(object);
        let (start, end) = (members.take("start")?, members.take("end")?);
        members.finish()?;
        Self::new(start, end).map_err(|e| e.to_string())
    }
}

impl Field for PublicKey {
    fn put(&self) -> Value {
        self.to_openssh().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        Self::parse_openssh(&text(value)?).map_err(|e| e.to_string())
    }
}

impl Field for SshSignature {
    fn put(&self) -> Value {
        self.to_armoured().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        Self::parse(&text(value)?).map_err(|e| e.to_string())
    }
}

impl Field for Signature {
    fn put(&self) -> Value {
        Map::from_iter([
            ("key".to_owned(), self.key().put()),
            ("server".to_owned(), self.server().into()),
            ("signed".to_owned(), self.signed().put()),
            ("sshsig".to_owned(), self.sshsig().put()),
        ])
        .into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not a signature".to_owned()) };
        let mut members = Members::new(object);
        let (key, server) = (members.take("key")?, members.take("server")?);
        let (signed, sshsig) = (members.take("signed")?, members.take("sshsig")?);
        members.finish()?;
        Self::new(server, key, signed, sshsig).map_err(|e| e.to_string())
    }
}

impl Field for KeyState {
    fn put(&self) -> Value {
        self.word().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        Self::from_word(&text(value)?).ok_or_else(|| "not a state of CA keys".to_owned())
    }
}

impl Field for Step {
    fn put(&self) -> Value {
        self.word().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        Self::from_word(&text(value)?).ok_or_else(|| "not a step of a rotation".to_owned())
    }
}

impl Field for Proposal {
    fn put(&self) -> Value {
        let Self { step, ca, key, accepted, is_early } = self;
        let members = [
            ("accepted", accepted.put()),
            ("early", is_early.put()),
            ("key", key.put()),
            ("purpose", ca.purpose().put()),
            ("step", step.put()),
        ];
        with_ca(ca, members)
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not a proposal".to_owned()) };
        let mut members = Members::new(object);
        let (step, ca, key) = (members.take("step")?, take_ca(&mut members)?, members.take("key")?);
        let (accepted, is_early) = (members.take("accepted")?, members.take("early")?);
        members.finish()?;
        Ok(Self { step, ca, key, accepted, is_early })
    }
}

impl Field for Purpose {
    fn put(&self) -> Value {
        self.word().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        Self::from_word(&text(value)?).ok_or_else(|| "not user or host".to_owned())
    }
}

/// These members, and in its place that of the CA's name: there is none for the default one.
fn with_ca<const N: usize>(ca: &Ca, members: [(&str, Value); N]) -> Value {
    let name = ca.named().map(|name| ("ca", name.put()));
    let members: BTreeMap<&str, Value> = members.into_iter().chain(name).collect();
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<String, Value>>().into()
}

/// The CA that `purpose` and `ca` say together.
fn take_ca(members: &mut Members) -> Result<Ca, String> {
    let (purpose, name) = (members.take("purpose")?, members.take_later("ca")?);
    Ca::of(purpose, name).map_err(str::to_owned)
}

impl Field for Stand {
    fn put(&self) -> Value {
        Map::from_iter([("since".to_owned(), self.since.put()), ("version".to_owned(), self.version.put())]).into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not the stand of a trust bundle".to_owned()) };
        let mut members = Members::new(object);
        let (since, version) = (members.take("since")?, members.take("version")?);
        members.finish()?;
        Ok(Self { version, since })
    }
}

impl Field for Kept {
    fn put(&self) -> Value {
        // By text, as everything else.
        let by_text: BTreeMap<&str, Value> = self.iter().map(|(ca, stand)| (ca.as_str(), stand.put())).collect();
        by_text.into_iter().map(|(ca, stand)| (ca.to_owned(), stand)).collect::<Map<String, Value>>().into()
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not the stands of trust bundles".to_owned()) };
        let parsed = |(ca, stand): (String, Value)| -> Result<(CaName, Stand), String> {
            Ok((CaName::parse(&ca).map_err(|e| e.to_string())?, Stand::take(stand)?))
        };
        object.into_iter().map(parsed).collect()
    }
}

impl Field for RingKey {
    fn put(&self) -> Value {
        let members = [
            ("key", self.key.put()),
            ("purpose", self.purpose().put()),
            ("since", self.since.put()),
            ("state", self.state.put()),
        ];
        with_ca(&self.ca, members)
    }

    fn take(value: Value) -> Result<Self, String> {
        let Value::Object(object) = value else { return Err("not a CA key".to_owned()) };
        let mut members = Members::new(object);
        let (key, ca) = (members.take("key")?, take_ca(&mut members)?);
        let (since, state) = (members.take("since")?, members.take("state")?);
        members.finish()?;
        Ok(Self { ca, key, state, since })
    }
}

impl Field for Ring {
    fn put(&self) -> Value {
        self.keys().iter().map(Field::put).collect()
    }

    fn take(value: Value) -> Result<Self, String> {
        let keys = array(value)?.into_iter().map(RingKey::take).collect::<Result<_, _>>()?;
        Self::new(keys).map_err(|e| e.to_string())
    }
}

impl Field for Vec<u8> {
    fn put(&self) -> Value {
        BASE64.encode(self).into()
    }

    fn take(value: Value) -> Result<Self, String> {
        BASE64.decode(text(value)?.as_bytes()).map_err(|_| "not base64".to_owned())
    }
}

impl<F: Field> Field for Vec<F> {
    fn put(&self) -> Value {
        self.iter().map(Field::put).collect()
    }

    fn take(value: Value) -> Result<Self, String> {
        array(value)?.into_iter().map(F::take).collect()
    }
}

impl<F: Field + Ord> Field for BTreeSet<F> {
    fn put(&self) -> Value {
        let mut items: Vec<Value> = self.iter().map(Field::put).collect();
        // By text, not by the type's own order, so that a reader in another language can check it.
        items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        items.into()
    }

    fn take(value: Value) -> Result<Self, String> {
        // Order and doubles: `Entry::parse` compares the bytes.
        array(value)?.into_iter().map(F::take).collect()
    }
}

impl<F: Field> Field for Option<F> {
    fn put(&self) -> Value {
        self.as_ref().map_or(Value::Null, Field::put)
    }

    fn take(value: Value) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { F::take(value).map(Some) }
    }
}
