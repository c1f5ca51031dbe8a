//! An event about enrolled hosts as one line for people. Texts that a host reports are quoted: they are whoever's who logged in there.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::host_event::HostEvent;
use super::sentence::{TimeText, and, list, span};
use crate::name::RequestId;

/// `7K3F-9QX2: `, or nothing.
fn about(request: Option<RequestId>) -> String {
    request.map(|request| format!("{request}: ")).unwrap_or_default()
}

/// ` from "192.0.2.1"`, or nothing.
fn origin(from: &str) -> String {
    and(" from ", from)
}

const fn no(is: bool) -> &'static str {
    if is { "" } else { "no " }
}

impl HostEvent {
    /// One line, escaped, with times written so.
    pub(super) fn sentence_in(&self, time: TimeText<'_>) -> String {
        match self {
            Self::JoinCreated { join, by, uses, expires, names, tags, may_tag, .. } => {
                let (names, expires) = (list(names), time(*expires));
                let tags = if tags.is_empty() { String::new() } else { format!(" with {}", list(tags)) };
                let own = match may_tag {
                    Some(keys) if keys.is_empty() => String::new(),
                    Some(keys) => format!(", which may set {}", list(keys)),
                    None => ", which may set any other tag".to_owned(),
                };
                format!("{by} made join token {join} for {uses} hosts named {names}{tags}{own}, until {expires}")
            }
            Self::JoinRevoked { join, by } => format!("{by} revoked join token {join}"),
            Self::HostEnrolled { host, join, keys, names, tags } => {
                let key = keys.first().map(|key| key.fingerprint().to_string()).unwrap_or_default();
                let also = if names.is_empty() { String::new() } else { format!(", also called {}", list(names)) };
                let tags = if tags.is_empty() { "no tags".to_owned() } else { list(tags) };
                format!("host {host} enrolled with join token {join} and key {key}: {tags}{also}")
            }
            Self::HostRefused { host, join, key, known, why } => {
                format!("host {host} with key {key} and join token {join} was refused, {known} is known: {why:?}")
            }
            Self::HostTagged { host, by, tags } => {
                let tags = if tags.is_empty() { "no tags".to_owned() } else { list(tags) };
                format!("{by} tagged host {host}: {tags}")
            }
            Self::HostMoved { host, ca, keeps, waits } => {
                let keeps =
                    if keeps.is_empty() { String::new() } else { format!(", and still trusts {}", list(keeps)) };
                let waits =
                    if *waits { "; nothing is issued for it before it proves that it trusts its key" } else { "" };
                format!("host {host} is of CA {ca}{keeps}{waits}")
            }
            Self::HostRetired { host, by, reason } => format!("{by} retired host {host}{}", and(": ", reason)),
            Self::HostLeft { host } => format!("host {host} left"),
            Self::HostCertificateToBeSigned { host, serial, ca, window, .. } => {
                format!("host certificate {serial} for {host} is about to be signed by {ca}, {}", span(window, time))
            }
            Self::HostCertificateSigned { host, serial, sha256 } => {
                format!("host certificate {serial} for {host} was signed, SHA-256 {sha256:?}")
            }
            Self::CheckCertificateToBeSigned { host, serial, ca, window, .. } => {
                format!("check certificate {serial} for {host} is about to be signed by {ca}, {}", span(window, time))
            }
            Self::CheckCertificateSigned { host, serial, sha256 } => {
                format!("check certificate {serial} for {host} was signed, SHA-256 {sha256:?}")
            }
            Self::CheckInChanged { .. } => self.check_in(),
            Self::HostDoubled { host } => format!("two machines check in as host {host}, by turns"),
            Self::SessionOpened { .. }
            | Self::SessionEnded { .. }
            | Self::SessionRefused { .. }
            | Self::SessionFlagged { .. } => self.session(time),
        }
    }

    fn check_in(&self) -> String {
        let Self::CheckInChanged { host, program, sshd, os, guard, clock_ok, keys, proven, risky, .. } = self else {
            return String::new();
        };
        let (guard, clock) = (no(*guard), if *clock_ok { "clock right" } else { "clock wrong" });
        let trusts = if keys.is_empty() { "no CA key".to_owned() } else { list(keys) };
        let proven = format!("{} of {} proven", proven.len(), keys.len());
        let risky: Vec<String> = risky.iter().map(|word| format!("{word:?}")).collect();
        let risky = if risky.is_empty() { String::new() } else { format!("; risky: {}", list(risky)) };
        format!(
            "host {host} trusts {trusts} ({proven}), {guard}guard, {clock}; hallpass {program:?}, sshd {sshd:?} on {os:?}{risky}"
        )
    }

    fn session(&self, time: TimeText<'_>) -> String {
        match self {
            Self::SessionOpened { host, serial, key_id, account, from, opened, request, .. } => {
                let (about, from, at) = (about(*request), origin(from), time(*opened));
                format!("{about}login on {host} as {account:?}{from} at {at} with certificate {serial} {key_id:?}")
            }
            Self::SessionEnded { host, serial, account, ended, why, request, .. } => {
                let (about, why, at) = (about(*request), and(": ", why), time(*ended));
                format!("{about}session on {host} as {account:?} with certificate {serial} ended at {at}{why}")
            }
            Self::SessionRefused { host, serial, key_id, account, from, refused, why, request, .. } => {
                let (about, from, why, at) = (about(*request), origin(from), and(": ", why), time(*refused));
                format!(
                    "{about}{host} refused a login as {account:?}{from} at {at} with certificate {serial} {key_id:?}{why}"
                )
            }
            Self::SessionFlagged { host, serial, flag, why, request, .. } => {
                let about = about(*request);
                format!("{about}the login on {host} with certificate {serial} does not fit ({}): {why:?}", flag.word())
            }
            Self::JoinCreated { .. }
            | Self::JoinRevoked { .. }
            | Self::HostEnrolled { .. }
            | Self::HostRefused { .. }
            | Self::HostTagged { .. }
            | Self::HostMoved { .. }
            | Self::HostRetired { .. }
            | Self::HostLeft { .. }
            | Self::HostCertificateToBeSigned { .. }
            | Self::HostCertificateSigned { .. }
            | Self::CheckCertificateToBeSigned { .. }
            | Self::CheckCertificateSigned { .. }
            | Self::CheckInChanged { .. }
            | Self::HostDoubled { .. } => String::new(),
        }
    }
}
