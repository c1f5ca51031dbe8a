//! The table of kinds with their members: the words of [`Event::kind`], and writing and reading by the same rows.
//!
//! A row has its members in the order of their names, which is the order in which they are written and found; the compiler refuses another
//! one. `as later` stands behind a member that was added to its kind later: nothing is written where there is nothing. The members that
//! every entry has ([`Head`]) are written in their places between.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::entry::Entry;
use super::event::Event;
use super::host_event::HostEvent;
use super::json::{HEAD, Members, Name, Out, name};
use crate::time::Timestamp;

/// The version of the format; a change of any kind's members makes a new one.
pub(super) const VERSION: u64 = 1;

/// What every entry says, to be written.
pub(super) struct Head {
    at: Timestamp,
    index: u64,
    kind: &'static str,
    /// How many of [`HEAD`] have been written.
    written: usize,
}

impl Head {
    pub(super) const fn of(entry: &Entry) -> Self {
        Self { at: entry.at, index: entry.index, kind: entry.event.kind(), written: 0 }
    }

    /// Writes the first `count` of them, as far as they have not been.
    fn put(&mut self, count: usize, out: &mut Out) {
        while self.written < count {
            match self.written {
                0 => out.member(name!(at), &self.at),
                1 => out.member(name!(index), &self.index),
                2 => out.text_member(name!(kind), self.kind),
                _ => out.member(name!(v), &VERSION),
            }
            self.written = self.written.saturating_add(1);
        }
    }

    /// Writes the rest of them.
    pub(super) fn finish(&mut self, out: &mut Out) {
        self.put(HEAD.len(), out);
    }
}

/// Whether one name comes before another, by their bytes.
const fn is_before(one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        (_, []) => false,
        ([], _) => true,
        ([first, one @ ..], [second, other @ ..]) => *first < *second || (*first == *second && is_before(one, other)),
    }
}

/// How many members of every entry come before this one.
const fn head_before(name: &str) -> usize {
    let mut heads: &[Name] = &HEAD;
    while let [rest @ .., last] = heads {
        if is_before(last.plain.as_bytes(), name.as_bytes()) {
            break;
        }
        heads = rest;
    }
    heads.len()
}

/// Whether each name comes before the next.
const fn are_in_order(names: &[&str]) -> bool {
    match names {
        [one, rest @ ..] => match rest {
            [other, ..] => is_before(one.as_bytes(), other.as_bytes()) && are_in_order(rest),
            [] => true,
        },
        [] => true,
    }
}

/// Writes one member in its place.
macro_rules! put {
    ($head:ident $out:ident $field:ident) => {
        $head.put(const { head_before(stringify!($field)) }, $out);
        $out.member(name!($field), $field);
    };
    ($head:ident $out:ident $field:ident later) => {
        if let Some(value) = $field {
            $head.put(const { head_before(stringify!($field)) }, $out);
            $out.member(name!($field), value);
        }
    };
}

/// Reads one.
macro_rules! take {
    ($members:ident $field:ident) => {
        $members.take_in(name!($field), const { head_before(stringify!($field)) })?
    };
    ($members:ident $field:ident later) => {
        $members.take_later_in(name!($field), const { head_before(stringify!($field)) })?
    };
}

macro_rules! kinds {
    (
        $($kind:literal $arm:ident { $($field:ident $(as $later:ident)?),+ })+
        hosts $($host_kind:literal $host_arm:ident { $($host_field:ident $(as $host_later:ident)?),+ })+
    ) => {
        $(const _: () = assert!(are_in_order(&[$(stringify!($field)),+]), "members in the order of their names");)+
        $(const _: () = assert!(are_in_order(&[$(stringify!($host_field)),+]), "members in the order of their names");)+

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

            /// Writes the event's own members, and those of `head` that come before the last of them.
            pub(super) fn put(&self, head: &mut Head, out: &mut Out) {
                match self {
                    $(Self::$arm { $($field),+ } => {
                        $(put!(head out $field $($later)?);)+
                    })+
                    $(Self::Host(HostEvent::$host_arm { $($host_field),+ }) => {
                        $(put!(head out $host_field $($host_later)?);)+
                    })+
                }
            }

            /// Reads the event of `kind`.
            pub(super) fn from_members(kind: &str, members: &mut Members<'_>) -> Result<Self, String> {
                match kind {
                    $($kind => Ok(Self::$arm { $($field: take!(members $field $($later)?)),+ }),)+
                    $($host_kind => Ok(Self::Host(HostEvent::$host_arm {
                        $($host_field: take!(members $host_field $($host_later)?)),+
                    })),)+
                    other => Err(format!("the kind {} is not known to this program", super::json::quoted(other))),
                }
            }
        }
    };
}

kinds! {
    "log_started" LogStarted { log_key, service }
    "service_started" ServiceStarted { ca, kept as later, keys as later, version }
    "ca_keys_changed" CaKeysChanged {
        by, ca as later, early as later, kept as later, keys, proposer as later, purpose as later, step, unproven,
        why
    }
    "ca_step_proposed" CaStepProposed { by, kept as later, keys, proposal, reason, since, until, version }
    "policy_applied" PolicyApplied { by, changes, sha256, tests, version }
    "logged_in" LoggedIn { address, expires, key, person }
    "browser_signed_in" BrowserSignedIn { address, expires, key, person }
    "logged_out" LoggedOut { person }
    "refused" Refused { account, hosts, person, policy, reason, why }
    "asked" Asked {
        account, account_scope, backdate, ca as later, command, digest, hosts, key, lifetime, permits, person, policy,
        reason, request, rules, sources, start, ticket, verdict, verify_required
    }
    "narrowed" Narrowed { by, digest, hosts, lifetime, permits, request }
    "approved" Approved { by, comment, digest, policy, request, signature as later }
    "granted" Granted { approvers, digest, policy, request, window }
    "denied" Denied { by, extension, reason, request }
    "withdrawn" Withdrawn { by, extension, request }
    "lapsed" Lapsed { extension, request }
    "certificate_to_be_signed" CertificateToBeSigned { ca, person, policy, request, serial, tbs, window }
    "certificate_signed" CertificateSigned { request, serial, sha256 }
    "certificate_refused" CertificateRefused { person, policy, request, why }
    "extension_asked" ExtensionAsked { digest, lifetime, person, policy, reason, request, verdict }
    "ended" Ended { by, reason, request }
    "expired" Expired { request }
    "entry_lost" EntryLost { of }
    "log_recovered" LogRecovered { by, heads, kept, reason }
    hosts
    "join_created" JoinCreated { by, expires, join, may_tag as later, names, tags, token, uses }
    "join_revoked" JoinRevoked { by, join }
    "host_enrolled" HostEnrolled { host, join, keys, names, tags }
    "host_refused" HostRefused { host, join, key, known, why }
    "host_tagged" HostTagged { by, host, tags }
    "host_moved" HostMoved { ca, host, keeps, waits }
    "host_retired" HostRetired { by, host, reason }
    "host_left" HostLeft { host }
    "host_certificate_to_be_signed" HostCertificateToBeSigned { ca, host, serial, tbs, window }
    "host_certificate_signed" HostCertificateSigned { host, serial, sha256 }
    "check_certificate_to_be_signed" CheckCertificateToBeSigned { ca, host, serial, tbs, window }
    "check_certificate_signed" CheckCertificateSigned { host, serial, sha256 }
    "check_in_changed" CheckInChanged { clock_ok, file_sha256, guard, host, keys, os, program, proven, risky, sshd }
    "host_doubled" HostDoubled { host }
    "session_opened" SessionOpened { account, ca, from, host, key_id, opened, report, request, serial }
    "session_ended" SessionEnded { account, ended, host, report, request, serial, why }
    "session_refused" SessionRefused { account, ca, from, host, key_id, refused, report, request, serial, why }
    "session_flagged" SessionFlagged { flag, host, report, request, serial, why }
}
