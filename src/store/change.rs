//! One change inside a transaction: its saves in order, then its events. The rules of every store; a database is [`Rows`].

use super::log::{self, EntryRow};
use super::{Basis, Change, Committed, Head, Note, RowVersion, Save, StoreError, Stored, StoredPolicy};
use crate::access::{AccessRequest, Permit};
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::audit::tree::{Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::challenge::Redemption;
use crate::identity::host::HostSession;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::inventory::permit::HostPermit;
use crate::keyring::ActiveKey;
use crate::name::{HostName, PersonName, ReportId, RequestId, Serial};
use crate::ssh::cert::Certificate;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// What a change does to the rows of a database, inside its transaction. Nobody else writes meanwhile.
///
/// Each may refuse: [`StoreError::Conflict`] when the row is another than was read, `Failed` when the database fails.
pub(super) trait Rows {
    /// A new request; its id must be free.
    fn insert_request(&mut self, request: AccessRequest) -> Result<Stored, StoreError>;

    /// The next state of a request whose row is still at `expected`.
    fn update_request(&mut self, request: AccessRequest, expected: RowVersion) -> Result<Stored, StoreError>;

    /// The version of a request's row, if there is one.
    fn version_of(&mut self, id: RequestId) -> Result<Option<RowVersion>, StoreError>;

    /// How many requests this person has open, and how many of them hold this key.
    fn count_open(&mut self, asker: &PersonName, key: &PublicKey) -> Result<(u64, u64), StoreError>;

    /// A log entry with the tree nodes that it completes.
    fn insert_entry(&mut self, row: EntryRow, nodes: Vec<(Node, Hash)>) -> Result<(), StoreError>;

    /// A certificate whose outcome is not in the log yet.
    fn insert_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError>;

    /// Its outcome is; a second time is a conflict.
    fn sign_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError>;

    /// A new session; its token must be free.
    fn insert_session(&mut self, session: Session) -> Result<(), StoreError>;

    /// A session ends, if it is there, with those of browsers that it let in.
    fn end_session(&mut self, token: TokenHash) -> Result<(), StoreError>;

    /// All sessions of a person end, with those of browsers that they let in.
    fn end_sessions_of(&mut self, person: &PersonName) -> Result<(), StoreError>;

    /// The sessions end that a person opened with a login key, with those of browsers that they let in.
    fn end_sessions_by(&mut self, person: &PersonName, key: Fingerprint) -> Result<(), StoreError>;

    /// All sessions of people end, with those of browsers.
    fn end_all_sessions(&mut self) -> Result<(), StoreError>;

    /// A new session of a browser; its token must be free, and its parent there.
    fn insert_browser_session(&mut self, session: BrowserSession) -> Result<(), StoreError>;

    /// A browser's session ends, if it is there.
    fn end_browser_session(&mut self, token: TokenHash) -> Result<(), StoreError>;

    /// A challenge is used up; a second time is [`StoreError::Replayed`].
    fn redeem(&mut self, redemption: &Redemption) -> Result<(), StoreError>;

    /// A new policy version; must be the last plus one.
    fn insert_policy(&mut self, policy: StoredPolicy) -> Result<(), StoreError>;

    /// A new host session; its token must be free.
    fn insert_host_session(&mut self, session: HostSession) -> Result<(), StoreError>;

    /// A report is taken once.
    fn insert_report(&mut self, host: &HostName, report: &ReportId, at: Timestamp) -> Result<(), StoreError>;

    /// The newest certificate of one host key.
    fn save_host_certificate(&mut self, host: &HostName, certificate: &Certificate) -> Result<(), StoreError>;

    /// What a host told of itself last.
    fn save_seen(&mut self, host: &HostName, seen: &Seen) -> Result<(), StoreError>;

    /// Deletes what was over at `now`; says whether it may have.
    fn sweep(&mut self, now: Timestamp) -> Result<bool, StoreError>;

    /// Writes something that nobody reads.
    fn probe(&mut self) -> Result<(), StoreError>;
}

/// A program error: the change can't be written as it was made.
fn wrong(why: impl Into<String>) -> StoreError {
    StoreError::Failed { doing: "checking a change", why: why.into() }
}

/// Writes `change` and moves `head` on. After an error the caller undoes both.
pub(super) fn apply(rows: &mut impl Rows, head: &mut Head, change: Change) -> Result<Committed, StoreError> {
    let Change { at, saves, events } = change;
    let mut done = Committed::default();
    let is_of_inventory = |event: &Event| matches!(event, Event::Host(event) if event.is_of_inventory());
    if events.iter().any(is_of_inventory) && !saves.iter().any(|save| matches!(save, Save::Inventory { .. })) {
        return Err(wrong("a change of the inventory rests on an inventory"));
    }
    let (certifying, saves): (Vec<Save>, Vec<Save>) =
        saves.into_iter().partition(|save| matches!(save, Save::Certify { .. }));
    let is_new = certifying.iter().any(|certify| saves.iter().any(|save| is_of_new(certify, save)));
    for save in saves {
        // A new request that is certified at once is written as it is then.
        if !certifying.iter().any(|certify| is_of_new(certify, &save)) {
            apply_save(rows, head, at, save, &mut done)?;
        }
    }
    if events.iter().any(makes_a_serial) {
        return Err(wrong("a certificate's entry comes from its permit alone"));
    }
    // A request's row is there before the entries about it: they are found by its number.
    let serial = head.frontier.size().saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX));
    let mut intents = Vec::new();
    for save in certifying {
        let Save::Certify { permit, ca, nonce, expected } = save else { continue };
        let expected = Some(expected).filter(|_| !is_new);
        intents.push(certify(rows, serial, &permit, (&ca, nonce, expected), &mut done)?);
        // The log's time may be ahead of the clock by what is tolerated, and then the window may be over by the one and not by the other.
        let end = done.tbs.as_ref().map(|tbs| tbs.fields().window.end());
        let is_open = end.is_some_and(|end| at.max(head.at) < end);
        check(is_open, StoreError::Behind { now: at, last: head.at })?;
    }
    for event in events {
        done.entries.push(log::append(rows, head, at, event)?);
    }
    for intent in intents {
        let index = log::append(rows, head, at, intent)?;
        check(index == serial, wrong("a certificate's serial is not the number of its entry"))?;
        done.entries.push(index);
    }
    if done.entries.is_empty() {
        return Err(wrong("nothing may change without a log entry"));
    }
    done.log.clone_from(&head.frontier);
    Ok(done)
}

/// Whether the one certifies what the other makes, as it makes it.
fn is_of_new(certify: &Save, save: &Save) -> bool {
    matches!((certify, save), (Save::Certify { permit, expected, .. }, Save::NewRequest(new))
        if permit.request() == new && *expected == RowVersion::FIRST)
}

/// Writes something on which no decision rests.
pub(super) fn note(rows: &mut impl Rows, note: &Note) -> Result<(), StoreError> {
    match note {
        Note::HostSession { redemption, session } => {
            rows.redeem(redemption)?;
            rows.insert_host_session(session.clone())
        }
        Note::Seen { host, seen } => rows.save_seen(host, seen),
    }
}

/// Whether the entry's index is a certificate's serial: then only a permit makes it.
const fn makes_a_serial(event: &Event) -> bool {
    matches!(
        event,
        Event::CertificateToBeSigned { .. }
            | Event::Host(HostEvent::HostCertificateToBeSigned { .. } | HostEvent::CheckCertificateToBeSigned { .. })
    )
}

fn apply_save(
    rows: &mut impl Rows,
    head: &mut Head,
    at: Timestamp,
    save: Save,
    done: &mut Committed,
) -> Result<(), StoreError> {
    match save {
        Save::NewRequest(new) => done.requests.push(rows.insert_request(new)?),
        Save::Request { request, expected } => done.requests.push(rows.update_request(request, expected)?),
        Save::NewSession(session) => rows.insert_session(session)?,
        Save::EndSession(token) => rows.end_session(token)?,
        Save::EndSessionsOf(person) => rows.end_sessions_of(&person)?,
        Save::EndSessionsBy(person, key) => rows.end_sessions_by(&person, key)?,
        Save::EndAllSessions => rows.end_all_sessions()?,
        Save::NewBrowserSession(session) => rows.insert_browser_session(session)?,
        Save::EndBrowserSession(token) => rows.end_browser_session(token)?,
        Save::Redeem(redemption) => rows.redeem(&redemption)?,
        Save::NewPolicy(new) => rows.insert_policy(new)?,
        Save::Inventory { expected } => check(head.inventory == expected, StoreError::Conflict)?,
        Save::AtSize(size) => check(head.frontier.size() == size, StoreError::Conflict)?,
        Save::OnBasis(basis) => check(Basis::of(head) == basis, StoreError::Overtaken)?,
        Save::AsRead { request, version } => {
            check(rows.version_of(request)? == Some(version), StoreError::Superseded)?;
        }
        Save::OnTime { tolerance } => {
            check(head.at.seconds_since(at) <= tolerance, StoreError::Behind { now: at, last: head.at })?;
        }
        Save::OpenAsRead { asker, key, count, with_key } => {
            check(rows.count_open(&asker, &key)? == (count, with_key), StoreError::Conflict)?;
        }
        Save::Certify { .. } => return Err(wrong("a certificate comes after all else of its change")),
        Save::CertifyHost { permit, ca, nonce } => {
            if done.tbs.is_some() {
                return Err(wrong("one change certifies one key"));
            }
            certify_host(rows, head, at, (&permit, &ca, nonce), done)?;
        }
        Save::HostCertificate { host, certificate } => rows.save_host_certificate(&host, &certificate)?,
        Save::NewHostSession(session) => rows.insert_host_session(session)?,
        Save::Report { host, report } => rows.insert_report(&host, &report, at)?,
    }
    Ok(())
}

fn check(holds: bool, refusal: StoreError) -> Result<(), StoreError> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// As [`certify`], for a host.
fn certify_host(
    rows: &mut impl Rows,
    head: &mut Head,
    at: Timestamp,
    (permit, ca, nonce): (&HostPermit, &PublicKey, [u8; 32]),
    done: &mut Committed,
) -> Result<(), StoreError> {
    let serial = Serial::new(head.frontier.size()).map_err(|error| wrong(error.to_string()))?;
    let (event, to_be_signed) = permit.to_be_signed(serial, ca, nonce)?;
    if event.serial() != Some(serial) || to_be_signed.fields().serial != serial {
        return Err(wrong("the log entry doesn't hold the bytes to be signed"));
    }
    done.entries.push(log::append(rows, head, at, event.into())?);
    done.tbs = Some(to_be_signed);
    Ok(())
}

/// The row of what is certified, and the entry that holds the bytes to be signed, to be appended as number `serial`. `expected`: at which version the
/// row is; none for a new one. The serial is assigned where no other entry can come between, and both are written before anybody can sign (P2): a crash
/// leaves both or neither.
fn certify(
    rows: &mut impl Rows,
    serial: u64,
    permit: &Permit,
    (ca, nonce, expected): (&ActiveKey, [u8; 32], Option<RowVersion>),
    done: &mut Committed,
) -> Result<Event, StoreError> {
    if done.tbs.is_some() {
        return Err(wrong("one change certifies one key"));
    }
    let serial = Serial::new(serial).map_err(|error| wrong(error.to_string()))?;
    let (request, event, to_be_signed) = permit.to_be_signed(serial, ca, nonce)?;
    let is_same = matches!(&event, Event::CertificateToBeSigned { request: id, serial: number, tbs, .. }
        if *id == request.id() && *number == serial && tbs == to_be_signed.bytes());
    if !is_same || to_be_signed.fields().serial != serial {
        return Err(wrong("the log entry doesn't hold the bytes to be signed"));
    }
    done.requests.push(match expected {
        Some(expected) => rows.update_request(request, expected)?,
        None => rows.insert_request(request)?,
    });
    done.tbs = Some(to_be_signed);
    Ok(event)
}
