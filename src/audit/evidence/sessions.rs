//! Every login of a period that a host reported, and how each session ended.
//!
//! A host gives what it reports ids of its own, `opened-…` and `ended-…` with one rest for one session. Where they have no such form, an end is
//! that of the oldest session with its host, certificate and account that has none yet.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::requests::{Mark, text};
use super::table::Csv;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::name::{HostName, PersonName, ReportId, RequestId};
use crate::ssh::cert::KeyId;
use crate::time::Timestamp;

/// A session on a host.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) mark: Mark,
    pub(super) host: HostName,
    report: ReportId,
    pub(super) serial: u64,
    pub(super) request: Option<RequestId>,
    /// As the certificate's key id has it.
    who: Option<PersonName>,
    pub(super) account: String,
    pub(super) from: String,
    /// By the host's clock.
    pub(super) opened: Timestamp,
    pub(super) ended: Option<Ended>,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) entry: u64,
    /// By the host's clock.
    pub(super) at: Timestamp,
    pub(super) why: String,
}

/// Sessions in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Vec<Session>,
    /// Those without an end, by host and what their reports' ids have in common.
    open: BTreeMap<(HostName, String), usize>,
}

impl Sessions {
    /// Takes one that was opened.
    pub(super) fn begin(&mut self, entry: &Entry) {
        let Event::Host(HostEvent::SessionOpened {
            host,
            report,
            serial,
            key_id,
            account,
            from,
            opened,
            request,
            ca: _,
        }) = &entry.event
        else {
            return;
        };
        self.open.insert(key(host, report), self.all.len());
        self.all.push(Session {
            mark: Mark::of(entry),
            host: host.clone(),
            report: report.clone(),
            serial: *serial,
            request: *request,
            who: KeyId::parse(key_id).ok().and_then(|id| id.person().cloned()),
            account: account.clone(),
            from: from.clone(),
            opened: *opened,
            ended: None,
        });
    }

    /// Takes the end of one.
    pub(super) fn end(&mut self, entry: &Entry) {
        let Event::Host(HostEvent::SessionEnded { host, report, serial, account, ended, why, request: _ }) =
            &entry.event
        else {
            return;
        };
        let is_it = |session: &Session| {
            session.ended.is_none() && session.host == *host && session.serial == *serial && session.account == *account
        };
        let oldest = || self.open.values().copied().filter(|at| self.all.get(*at).is_some_and(is_it)).min();
        let index = self.open.get(&key(host, report)).copied();
        // An id of a host's own form says of which session it is, perhaps of one from before.
        let index = if rest(report).is_some() { index } else { index.or_else(oldest) };
        let Some(session) = index.and_then(|index| self.all.get_mut(index)) else { return };
        self.open.remove(&key(host, &session.report));
        session.ended = Some(Ended { entry: entry.index, at: *ended, why: why.clone() });
    }

    pub(super) fn all(&self) -> &[Session] {
        &self.all
    }

    /// `flags` says by entry which do not fit what was granted.
    pub(super) fn csv(&self, flags: &BTreeMap<u64, &'static str>) -> (String, usize) {
        let mut csv = Csv::new([
            "entry",
            "reported_at",
            "host",
            "serial",
            "request",
            "who",
            "account",
            "from",
            "opened",
            "ended",
            "seconds",
            "how",
            "ended_entry",
            "fits",
        ]);
        for session in &self.all {
            let Session { mark, host, serial, request, who, account, from, opened, ended, report: _ } = session;
            let ended = ended.as_ref();
            csv.row([
                mark.entry.to_string(),
                mark.at.to_string(),
                host.to_string(),
                serial.to_string(),
                text(*request),
                text(who.as_ref()),
                account.clone(),
                from.clone(),
                opened.to_string(),
                text(ended.map(|ended| ended.at)),
                text(ended.map(|ended| ended.at.seconds_since(*opened))),
                ended.map(|ended| ended.why.clone()).unwrap_or_default(),
                text(ended.map(|ended| ended.entry)),
                flags.get(&mark.entry).copied().unwrap_or("yes").to_owned(),
            ]);
        }
        csv.finish()
    }
}

/// What the ids of reports on one session have in common, if they have the form that hosts give them.
fn rest(report: &ReportId) -> Option<&str> {
    let parts = report.as_str().split_once('-').filter(|(kind, _)| matches!(*kind, "opened" | "ended"));
    parts.map(|(_, rest)| rest)
}

fn key(host: &HostName, report: &ReportId) -> (HostName, String) {
    (host.clone(), rest(report).unwrap_or(report.as_str()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::PublicKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMb+l8giIP5zrZWPUwNuUirItoKdUKeWKAjliIPI+b5T";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds).unwrap()
    }

    fn opened(index: u64, report: &str, serial: u64) -> Entry {
        let event = HostEvent::SessionOpened {
            host: HostName::parse("web-1").unwrap(),
            report: ReportId::parse(report).unwrap(),
            serial,
            key_id: "hallpass/7K3F9QX2/alice".to_owned(),
            ca: PublicKey::parse_openssh(KEY).unwrap().fingerprint(),
            account: "deploy".to_owned(),
            from: String::new(),
            opened: at(index),
            request: None,
        };
        Entry { index, at: at(index), event: event.into() }
    }

    fn ended(index: u64, report: &str, serial: u64) -> Entry {
        let event = HostEvent::SessionEnded {
            host: HostName::parse("web-1").unwrap(),
            report: ReportId::parse(report).unwrap(),
            serial,
            account: "deploy".to_owned(),
            ended: at(index),
            why: String::new(),
            request: None,
        };
        Entry { index, at: at(index), event: event.into() }
    }

    fn ends(entries: &[Entry]) -> Vec<Option<u64>> {
        let mut sessions = Sessions::default();
        for entry in entries {
            sessions.begin(entry);
            sessions.end(entry);
        }
        sessions.all().iter().map(|session| session.ended.as_ref().map(|ended| ended.entry)).collect()
    }

    #[test]
    fn an_end_is_that_of_the_session_whose_id_it_has() {
        let both = [opened(1, "opened-b-1", 9), opened(2, "opened-b-2", 9)];
        assert_eq!(ends(&[&both[..], &[ended(3, "ended-b-2", 9)]].concat()), [None, Some(3)]);
        let all = [&both[..], &[ended(3, "ended-b-2", 9), ended(4, "ended-b-1", 9)]].concat();
        assert_eq!(ends(&all), [Some(4), Some(3)]);
        assert_eq!(ends(&[&both[..], &[ended(3, "ended-b-3", 9)]].concat()), [None, None], "of one from before");
    }

    #[test]
    fn without_such_ids_it_is_that_of_the_oldest_one_with_its_certificate() {
        let all = [opened(1, "a", 9), opened(2, "b", 9), opened(3, "c", 8), ended(4, "d", 9), ended(5, "e", 8)];
        assert_eq!(ends(&all), [Some(4), None, Some(5)]);
    }
}
