//! One change inside the writer's transaction: its saves in order, then its events.

use rusqlite::Connection;

use super::{host, log, login, policy, request};
use crate::access::Permit;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::inventory::permit::HostPermit;
use crate::name::Serial;
use crate::ssh::PublicKey;
use crate::store::{Change, Committed, Head, RowVersion, Save, StoreError, Stored};
use crate::time::Timestamp;

/// A program error: the change can't be written as it was made.
fn wrong(why: impl Into<String>) -> StoreError {
    StoreError::Failed { doing: "checking a change", why: why.into() }
}

/// Writes `change` and moves `head` on. After an error the caller undoes both.
pub(super) fn apply(conn: &Connection, head: &mut Head, change: Change) -> Result<Committed, StoreError> {
    let Change { at, saves, events } = change;
    let mut done = Committed::default();
    let is_of_inventory = |event: &Event| matches!(event, Event::Host(event) if event.is_of_inventory());
    if events.iter().any(is_of_inventory) && !saves.iter().any(|save| matches!(save, Save::Inventory { .. })) {
        return Err(wrong("a change of the inventory rests on an inventory"));
    }
    for save in saves {
        apply_save(conn, head, at, save, &mut done)?;
    }
    for event in events {
        if makes_a_serial(&event) {
            return Err(wrong("a certificate's entry comes from its permit alone"));
        }
        done.entries.push(log::append(conn, head, at, event)?);
    }
    if done.entries.is_empty() {
        return Err(wrong("nothing may change without a log entry"));
    }
    Ok(done)
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
    conn: &Connection,
    head: &mut Head,
    at: Timestamp,
    save: Save,
    done: &mut Committed,
) -> Result<(), StoreError> {
    match save {
        Save::NewRequest(new) => done.requests.push(request::insert(conn, new)?),
        Save::Request { request, expected } => done.requests.push(request::update(conn, request, expected)?),
        Save::Certify { permit, ca, nonce, expected } => {
            if done.tbs.is_some() {
                return Err(wrong("one change certifies one request"));
            }
            let stored = certify(conn, head, at, &permit, (&ca, nonce, expected), done)?;
            done.requests.push(stored);
        }
        Save::NewSession(session) => login::insert_session(conn, &session)?,
        Save::EndSession(token) => login::end_session(conn, token)?,
        Save::EndSessionsOf(person) => login::end_sessions_of(conn, &person)?,
        Save::NewBrowserSession(session) => login::insert_browser_session(conn, &session)?,
        Save::EndBrowserSession(token) => login::end_browser_session(conn, token)?,
        Save::Redeem(redemption) => login::redeem(conn, &redemption)?,
        Save::NewPolicy(new) => policy::insert(conn, &new)?,
        Save::Inventory { expected } => {
            if head.inventory != expected {
                return Err(StoreError::Conflict);
            }
        }
        Save::CertifyHost { permit, ca, nonce } => {
            if done.tbs.is_some() {
                return Err(wrong("one change certifies one key"));
            }
            certify_host(conn, head, at, (&permit, &ca, nonce), done)?;
        }
        Save::HostCertificate { host, certificate } => host::save_certificate(conn, &host, &certificate)?,
        Save::NewHostSession(session) => host::insert_session(conn, &session)?,
        Save::Report { host, report } => host::insert_report(conn, &host, &report, at)?,
    }
    Ok(())
}

/// As [`certify`], for a host.
fn certify_host(
    conn: &Connection,
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
    done.entries.push(log::append(conn, head, at, event.into())?);
    done.tbs = Some(to_be_signed);
    Ok(())
}

/// The serial is the index of the entry that holds the bytes to be signed: assigned here, where no other entry can come
/// between, and written before anybody can sign (P2). A crash leaves both or neither.
fn certify(
    conn: &Connection,
    head: &mut Head,
    at: Timestamp,
    permit: &Permit,
    (ca, nonce, expected): (&PublicKey, [u8; 32], RowVersion),
    done: &mut Committed,
) -> Result<Stored, StoreError> {
    let index = head.frontier.size();
    let serial = Serial::new(index).map_err(|error| wrong(error.to_string()))?;
    let (request, event, to_be_signed) = permit.to_be_signed(serial, ca, nonce)?;
    let is_same = matches!(&event, Event::CertificateToBeSigned { request: id, serial: number, tbs, .. }
        if *id == request.id() && *number == serial && tbs == to_be_signed.bytes());
    if !is_same || to_be_signed.fields().serial != serial {
        return Err(wrong("the log entry doesn't hold the bytes to be signed"));
    }
    let stored = request::update(conn, request, expected)?;
    done.entries.push(log::append(conn, head, at, event)?);
    done.tbs = Some(to_be_signed);
    Ok(stored)
}
