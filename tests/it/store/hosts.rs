//! What every store keeps of hosts.

use std::collections::BTreeSet;

use hallpass::audit::event::Event;
use hallpass::audit::host_event::HostEvent;
use hallpass::identity::challenge::Redemption;
use hallpass::identity::host::HostSession;
use hallpass::identity::session::TokenHash;
use hallpass::inventory::Inventory;
use hallpass::inventory::check_in::{CheckIn, Seen};
use hallpass::inventory::double::Runs;
use hallpass::inventory::permit::{HostPermit, certify_host};
use hallpass::name::{CaName, Digest, HostName, JoinId, ReportId, Serial};
use hallpass::ssh::cert::Certificate;
use hallpass::store::{LIST_MAX, Note, Save, Store, StoreError};

use super::{Database, Desk, change, event};
use crate::hosts::machine::private;
use crate::support::fixtures::{at, ca, host, id, key, person};

fn created(n: u8) -> Event {
    let event = HostEvent::JoinCreated {
        join: JoinId::from_random([n; 5]),
        by: person("olga@example.com"),
        token: Digest::new([n; 32]),
        uses: 1,
        expires: at(100),
        names: BTreeSet::new(),
        tags: BTreeSet::new(),
        may_tag: Some(BTreeSet::new()),
    };
    event.into()
}

fn enrolled(name: &str) -> Event {
    let event = HostEvent::HostEnrolled {
        host: host(name),
        join: JoinId::from_random([1; 5]),
        keys: vec![key(60)],
        names: BTreeSet::new(),
        tags: BTreeSet::new(),
    };
    event.into()
}

async fn inventory(store: &dyn Store) -> Inventory {
    let mut inventory = Inventory::default();
    loop {
        let page = store.inventory(inventory.entries(), inventory.next()).await.unwrap();
        page.iter().for_each(|entry| inventory.take(entry));
        if page.len() < LIST_MAX {
            return inventory;
        }
    }
}

pub(super) async fn the_inventory_is_the_logs_and_changes_rest_on_what_was_read(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let on = |expected| Save::Inventory { expected };
    let commit = async |saves, events| desk.store.commit(change(at(1), saves, events)).await;
    assert!(matches!(commit(vec![], vec![created(1)]).await, Err(StoreError::Failed { .. })), "rests on nothing");
    commit(vec![on(0)], vec![created(1)]).await.unwrap();
    assert!(matches!(commit(vec![on(0)], vec![enrolled("web-1")]).await, Err(StoreError::Conflict)));
    assert!(matches!(commit(vec![on(2)], vec![enrolled("web-1")]).await, Err(StoreError::Conflict)));
    commit(vec![on(1)], vec![enrolled("web-1"), event()]).await.unwrap();
    commit(vec![], vec![event()]).await.unwrap();
    let moved = HostEvent::HostMoved {
        host: host("web-1"),
        ca: CaName::parse("prod").unwrap(),
        keeps: BTreeSet::from([ca().fingerprint()]),
        waits: true,
    };
    assert!(matches!(commit(vec![], vec![moved.clone().into()]).await, Err(StoreError::Failed { .. })));
    let at_entry = commit(vec![on(2)], vec![moved.clone().into()]).await.unwrap().entries[0];
    let now = inventory(&*desk.store).await;
    let known = now.host(&host("web-1")).unwrap();
    assert_eq!((known.ca.as_str(), known.waits, known.moved.unwrap().version), ("prod", true, at_entry));
    assert_eq!((now.entries(), desk.store.head().await.unwrap().inventory), (3, 3));
    let all = desk.store.inventory(0, 0).await.unwrap();
    for (from, entry) in (0_u64..).zip(&all) {
        let rest = desk.store.inventory(from, entry.index).await.unwrap();
        assert_eq!(rest, all[usize::try_from(from).unwrap()..]);
        // More or fewer before it than the head says: somebody has taken a row away, or put one in.
        for wrong in [from + 1, from.wrapping_sub(1)] {
            assert!(matches!(desk.store.inventory(wrong, entry.index).await, Err(StoreError::Damaged { .. })));
        }
    }
    assert_eq!(now.next(), all[2].index + 1);
    assert_eq!(desk.store.inventory(3, now.next()).await.unwrap(), []);
    // More than are read at once.
    commit(vec![on(3)], vec![moved.into(); LIST_MAX + 100]).await.unwrap();
    let first = desk.store.inventory(0, 0).await.unwrap();
    let (from, next) = (u64::try_from(first.len()).unwrap(), first.last().unwrap().index + 1);
    assert_eq!((first.len(), desk.store.inventory(from, next).await.unwrap().len()), (LIST_MAX, 103));
    for wrong in [from - 1, from + 1] {
        assert!(matches!(desk.store.inventory(wrong, next).await, Err(StoreError::Damaged { .. })));
    }
    assert!(matches!(desk.store.inventory(from, 0).await, Err(StoreError::Damaged { .. })), "more than there are");
    let now = inventory(&*desk.store).await;
    drop(desk);
    assert_eq!(inventory(&*database.open().await).await, now);
}

async fn permit(desk: &Desk) -> HostPermit {
    let inventory = inventory(&*desk.store).await;
    certify_host(inventory.host(&host("web-1")).unwrap(), &key(60), at(2)).unwrap()
}

pub(super) async fn a_host_is_certified_by_a_permit_on_the_inventory_that_it_is_of(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let on = |expected| Save::Inventory { expected };
    desk.store.commit(change(at(1), vec![on(0)], vec![enrolled("web-1")])).await.unwrap();
    let permit = permit(&desk).await;
    let save = || Save::CertifyHost { permit: Box::new(permit.clone()), ca: ca(), nonce: [9; 32] };
    let stale = desk.store.commit(change(at(2), vec![on(0), save()], vec![])).await;
    assert!(matches!(stale, Err(StoreError::Conflict)));
    let made = desk.store.commit(change(at(2), vec![on(1), save()], vec![])).await.unwrap();
    let tbs = made.tbs.unwrap();
    assert_eq!(made.entries, [tbs.fields().serial.number()]);
    let entry = desk.store.entries(made.entries[0], 1).await.unwrap();
    assert!(String::from_utf8_lossy(&entry[0]).contains("\"kind\":\"host_certificate_to_be_signed\""));
    let forged = HostEvent::HostCertificateToBeSigned {
        host: host("web-1"),
        serial: Serial::new(9).unwrap(),
        ca: ca().fingerprint(),
        window: tbs.fields().window,
        tbs: Vec::new(),
    };
    let forged = desk.store.commit(change(at(2), vec![], vec![forged.into()])).await;
    assert!(matches!(forged, Err(StoreError::Failed { .. })), "only a permit makes such an entry");
    let outcome = |name: &str| {
        let (serial, sha256) = (tbs.fields().serial, "0".repeat(64));
        Event::from(HostEvent::HostCertificateSigned { host: host(name), serial, sha256 })
    };
    assert!(matches!(
        desk.store.commit(change(at(3), vec![], vec![outcome("web-2")])).await,
        Err(StoreError::Conflict)
    ));
    desk.store.commit(change(at(3), vec![], vec![outcome("web-1")])).await.unwrap();
    assert!(matches!(
        desk.store.commit(change(at(3), vec![], vec![outcome("web-1")])).await,
        Err(StoreError::Conflict)
    ));
}

fn session(n: u8, opened: u64) -> HostSession {
    let key = key(60).fingerprint();
    HostSession { token: TokenHash([n; 32]), host: host("web-1"), key, opened: at(opened), seal: [n; 32] }
}

pub(super) fn seen(seconds: u64) -> Seen {
    let check_in = CheckIn {
        program: "0.1.0".to_owned(),
        sshd: "9.2".to_owned(),
        os: "Debian".to_owned(),
        guard: true,
        file_sha256: Digest::new([7; 32]),
        keys: BTreeSet::from([key(1).fingerprint()]),
        proven: BTreeSet::new(),
        shows: BTreeSet::from([key(2).fingerprint()]),
        clock_ms: -3,
        risky: BTreeSet::from(["x".to_owned()]),
        sessions: 2,
        runs: Runs {
            now: Some(Digest::new([9; 32])),
            before: vec![(Digest::new([8; 32]), at(3))],
            doubled: Some(at(4)),
        },
    };
    Seen { at: at(seconds), check_in }
}

pub(super) async fn what_hosts_leave_is_kept_and_swept(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let size = desk.store.head().await.unwrap().frontier.size();
    let redemption = || Redemption { nonce: [1; 16], expires: at(120) };
    let open = async |n| desk.store.note(Note::HostSession { redemption: redemption(), session: session(n, 0) }).await;
    open(1).await.unwrap();
    assert!(matches!(open(2).await, Err(StoreError::Replayed)));
    assert_eq!(desk.store.host_session(TokenHash([1; 32])).await.unwrap(), Some(session(1, 0)));
    assert_eq!(desk.store.host_session(TokenHash([2; 32])).await.unwrap(), None);
    let save = vec![Save::NewHostSession(session(3, 3000))];
    desk.store.commit(change(at(1), save, vec![event()])).await.unwrap();
    for seconds in [5, 6] {
        desk.store.note(Note::Seen { host: host("web-1"), seen: seen(seconds) }).await.unwrap();
    }
    assert_eq!(desk.store.seen().await.unwrap().into_iter().collect::<Vec<_>>(), [(host("web-1"), seen(6))]);
    assert_eq!(desk.store.head().await.unwrap().frontier.size(), size + 1, "none of it is worth an entry");

    let report = |text: &str| ReportId::parse(text).unwrap();
    let take = async |name: &str, text: &str| {
        let save = Save::Report { host: host(name), report: report(text) };
        desk.store.commit(change(at(2), vec![save], vec![event()])).await
    };
    take("web-1", "a").await.unwrap();
    take("web-2", "a").await.unwrap();
    assert!(matches!(take("web-1", "a").await, Err(StoreError::Conflict)));
    let known = desk.store.known_reports(host("web-1"), vec![report("a"), report("b")]).await.unwrap();
    assert_eq!(known, BTreeSet::from([report("a")]));

    desk.store.sweep(at(3600)).await.unwrap();
    assert_eq!(desk.store.host_session(TokenHash([1; 32])).await.unwrap(), None);
    assert!(desk.store.host_session(TokenHash([3; 32])).await.unwrap().is_some());
    assert_eq!(desk.store.known_reports(host("web-1"), vec![report("a")]).await.unwrap().len(), 1);
    desk.store.sweep(at(91 * 86_400)).await.unwrap();
    assert_eq!(desk.store.known_reports(host("web-1"), vec![report("a")]).await.unwrap().len(), 0);
    host_certificates(&desk).await;
}

/// Leaves one row of each kind.
pub(super) async fn leave_something(desk: &Desk) {
    host_certificates(desk).await;
    let redemption = Redemption { nonce: [1; 16], expires: at(120) };
    desk.store.note(Note::HostSession { redemption, session: session(1, 0) }).await.unwrap();
    desk.store.note(Note::Seen { host: host("web-1"), seen: seen(5) }).await.unwrap();
    let policy = hallpass::store::StoredPolicy {
        version: hallpass::name::PolicyVersion(1),
        text: "# one\n".to_owned(),
        by: "person:olga@example.com".to_owned(),
        at: at(0),
    };
    let report = Save::Report { host: host("web-1"), report: ReportId::parse("opened-1").unwrap() };
    let saves = vec![report, Save::NewPolicy(policy), Save::NewHostSession(session(2, 3000))];
    desk.store.commit(change(at(2), saves, vec![event()])).await.unwrap();
    desk.store.commit(super::contract::a_login()).await.unwrap();
}

/// A row that does not verify is as if it were not there.
async fn host_certificates(desk: &Desk) {
    let on = Save::Inventory { expected: 0 };
    desk.store.commit(change(at(1), vec![on], vec![enrolled("web-1")])).await.unwrap();
    // The CA's private half is needed for a signature that verifies.
    let authority = private(77);
    let save =
        Save::CertifyHost { permit: Box::new(permit(desk).await), ca: authority.public_key().clone(), nonce: [9; 32] };
    let tbs = desk.store.commit(change(at(2), vec![save], vec![])).await.unwrap().tbs.unwrap();
    let signature = ed25519_dalek::Signer::sign(&ed25519_dalek::SigningKey::from_bytes(&[77; 32]), tbs.bytes());
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), &signature.to_bytes()] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    let certificate = Certificate::assemble(tbs, &blob).unwrap();
    let save = Save::HostCertificate { host: host("web-1"), certificate: Box::new(certificate.clone()) };
    desk.store.commit(change(at(3), vec![save], vec![event()])).await.unwrap();
    assert_eq!(desk.store.host_certificates(host("web-1")).await.unwrap(), [certificate]);
    assert_eq!(desk.store.host_certificates(HostName::parse("web-2").unwrap()).await.unwrap(), []);
}

pub(super) async fn all_that_was_certified_for_a_host_is_found_while_its_window_lasts(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let issued = desk.issued(id(1), at(0)).await;
    let end = issued.request.grant().unwrap().window.end();
    let find = async |name: &str, after| desk.store.certified_for(host(name), after).await.unwrap();
    let just_before = end.minus(hallpass::time::Lifetime::from_seconds(1).unwrap()).unwrap();
    assert_eq!((find("dev-1", just_before).await, find("dev-1", end).await), (vec![id(1)], vec![]));
    assert_eq!(find("dev-2", at(0)).await, []);
    desk.ask(id(2), "alice@example.com", &["web-1"], at(0)).await;
    assert_eq!(find("web-1", at(0)).await, [], "what was never granted has no window");

    // However many are granted and ended after it, none of which can open anything.
    let ended = desk.house.end(issued.request, at(1));
    desk.save(ended, issued.version, at(1)).await.unwrap();
    let many = u32::try_from(LIST_MAX).unwrap() + 100;
    for batch in (1_000..1_000 + many).collect::<Vec<_>>().chunks(100) {
        let (mut saves, mut events) = (Vec::new(), Vec::new());
        for n in batch {
            let asked = desk.house.ask(id(*n), "alice@example.com", &["dev-1"], at(2));
            let ended = desk.house.end(asked.request, at(2));
            events.extend(asked.events.into_iter().chain(ended.events));
            saves.push(Save::NewRequest(ended.request));
        }
        desk.store.commit(change(at(2), saves, events)).await.unwrap();
    }
    assert_eq!(find("dev-1", at(3)).await, [id(1)]);
    desk.issued(id(3), at(3)).await;
    assert_eq!(find("dev-1", at(3)).await, [id(1), id(3)]);
}
