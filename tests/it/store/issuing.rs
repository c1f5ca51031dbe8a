//! What certificates need of a store; part of the contract.

use std::sync::Arc;

use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::keyring::Ca;
use hallpass::store::{LIST_MAX, RowVersion, Save, StoreError};
use tokio::task::JoinSet;

use super::{Database, Desk, change, event, outcome};
use crate::support::fixtures::{at, ca, id, signs_for};

async fn entries(desk: &Desk) -> Vec<Entry> {
    let all = desk.store.entries(0, LIST_MAX).await.unwrap();
    all.iter().map(|bytes| Entry::parse(bytes).unwrap()).collect()
}

async fn size(desk: &Desk) -> u64 {
    desk.store.head().await.unwrap().frontier.size()
}

pub(super) async fn a_certificates_serial_is_the_index_of_the_entry_with_its_bytes(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let approved = desk.approved(id(1), at(0)).await;
    let index = size(&desk).await;
    let step = desk.house.certify(approved.request, at(5));
    let save = Save::Certify {
        permit: Box::new(step.permit.unwrap()),
        ca: signs_for(&Ca::USER),
        nonce: [3; 32],
        expected: approved.version,
    };
    let committed = desk.store.commit(change(at(5), vec![save], vec![event()])).await.unwrap();
    assert_eq!(committed.entries, vec![index, index + 1]);
    let signed = committed.tbs.unwrap();
    assert_eq!(signed.fields().serial.number(), index + 1, "what else the change holds comes before");
    assert_eq!(signed.ca(), &ca());
    let log = entries(&desk).await;
    let Event::CertificateToBeSigned { tbs, serial, request, .. } = &log[usize::try_from(index + 1).unwrap()].event
    else {
        panic!("not a certificate's entry");
    };
    assert_eq!((tbs.as_slice(), serial.number(), *request), (signed.bytes(), index + 1, id(1)));
    let stored = desk.request(id(1)).await;
    assert_eq!(stored, committed.requests[0]);
    assert_eq!(stored.request.grant().unwrap().certificate.as_ref().unwrap().tbs, signed);
}

pub(super) async fn a_certificates_entry_comes_from_a_permit_alone(database: &dyn Database) {
    let desk = Desk::new(database).await;
    desk.issued(id(1), at(0)).await;
    let Some(Entry { event, .. }) = entries(&desk).await.pop() else { panic!("no entry") };
    assert!(matches!(event, Event::CertificateToBeSigned { .. }));
    let before = size(&desk).await;
    desk.store.commit(change(at(0), vec![], vec![event])).await.unwrap_err();
    assert_eq!(size(&desk).await, before);
}

pub(super) async fn a_certificate_has_one_outcome(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let stored = desk.issued(id(1), at(0)).await;
    desk.issued(id(2), at(0)).await;
    let signed = outcome(&stored.request);
    desk.store.commit(change(at(0), vec![], vec![signed.clone()])).await.unwrap();
    let error = desk.store.commit(change(at(0), vec![], vec![signed])).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error}");
}

pub(super) async fn a_hundred_parallel_fetches_make_one_certificate(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let stored = desk.approved(id(1), at(0)).await;
    let mut fetches = JoinSet::new();
    for n in 0..100 {
        let step = desk.house.certify(stored.request.clone(), at(1));
        let permit = Box::new(step.permit.unwrap());
        let save = Save::Certify { permit, ca: signs_for(&Ca::USER), nonce: [n; 32], expected: stored.version };
        let store = Arc::clone(&desk.store);
        fetches.spawn(async move { store.commit(change(at(1), vec![save], vec![])).await });
    }
    let (made, refused): (Vec<_>, Vec<_>) = fetches.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 99));
    assert!(refused.iter().all(|result| matches!(result, Err(StoreError::Conflict))));
    let log = entries(&desk).await;
    let certificates = log.iter().filter(|entry| matches!(entry.event, Event::CertificateToBeSigned { .. }));
    assert_eq!(certificates.count(), 1);
    let kept = desk.request(id(1)).await.request.grant().unwrap().certificate.clone().unwrap();
    assert_eq!(Some(kept.tbs), made.into_iter().next().unwrap().unwrap().tbs);
}

pub(super) async fn what_is_asked_granted_and_certified_in_one_change_is_in_the_log_in_this_order(
    database: &dyn Database,
) {
    let desk = Desk::new(database).await;
    let before = size(&desk).await;
    let asked = desk.house.ask(id(1), "alice@example.com", &["dev-1"], at(0));
    let certify = |request, nonce| Save::Certify {
        permit: Box::new(desk.house.certify(request, at(0)).permit.unwrap()),
        ca: signs_for(&Ca::USER),
        nonce: [nonce; 32],
        expected: RowVersion::FIRST,
    };
    // In whatever order it is said.
    let saves = vec![certify(asked.request.clone(), 3), Save::NewRequest(asked.request.clone())];
    let committed = desk.store.commit(change(at(0), saves, asked.events.clone())).await.unwrap();
    let kinds: Vec<&str> =
        entries(&desk).await[usize::try_from(before).unwrap()..].iter().map(|e| e.event.kind()).collect();
    assert_eq!(kinds, ["asked", "granted", "certificate_to_be_signed"]);
    let serial = committed.tbs.unwrap().fields().serial;
    assert_eq!(serial.number(), before + 2);
    let stored = desk.request(id(1)).await;
    assert_eq!(Some(&stored), committed.requests.last());
    assert_eq!((stored.request.parts().state.word(), stored.version), ("issued", RowVersion::FIRST));

    // All of it or nothing: the id is taken, and so nothing is certified either.
    let saves = vec![Save::NewRequest(asked.request.clone()), certify(asked.request.clone(), 4)];
    let refused = desk.store.commit(change(at(0), saves, asked.events)).await;
    assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    let two = vec![certify(asked.request.clone(), 5), certify(asked.request, 6)];
    desk.store.commit(change(at(0), two, vec![])).await.unwrap_err();
    assert_eq!(size(&desk).await, before + 3);
}

pub(super) async fn an_outcome_rests_on_the_request_and_the_clock_as_they_were(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let stored = desk.issued(id(1), at(100)).await;
    let before = size(&desk).await;
    let commit = async |now, save| desk.store.commit(change(now, vec![save], vec![event()])).await;
    let as_read = |request, version| Save::AsRead { request, version };
    for (request, version) in
        [(id(1), RowVersion(stored.version.0 + 1)), (id(1), RowVersion::FIRST), (id(2), RowVersion::FIRST)]
    {
        let refused = commit(at(100), as_read(request, version)).await;
        assert!(matches!(refused, Err(StoreError::Superseded)), "{request} {version:?}: {refused:?}");
    }
    let refused = commit(at(69), Save::OnTime { tolerance: 30 }).await;
    assert!(
        matches!(&refused, Err(StoreError::Behind { now, last }) if (*now, *last) == (at(69), at(100))),
        "{refused:?}"
    );
    assert_eq!(size(&desk).await, before);
    commit(at(70), Save::OnTime { tolerance: 30 }).await.unwrap();
    commit(at(100), as_read(id(1), stored.version)).await.unwrap();
    // One that is ended within the same group is another one.
    let ended = desk.house.end(stored.request.clone(), at(101));
    let ending = desk.store.commit(change(
        at(101),
        vec![Save::Request { request: ended.request, expected: stored.version }],
        ended.events,
    ));
    let late = desk.store.commit(change(at(101), vec![as_read(id(1), stored.version)], vec![outcome(&stored.request)]));
    let (ended, late) = tokio::join!(ending, late);
    ended.unwrap();
    assert!(matches!(late, Err(StoreError::Superseded)), "{late:?}");
}
