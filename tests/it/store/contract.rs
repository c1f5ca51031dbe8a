//! What every store keeps to; run on each database. How requests are found is in `finding`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hallpass::access::State;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::tree::{Frontier, Node, inclusion_nodes, inclusion_proof, verify_inclusion};
use hallpass::identity::browser::BrowserSession;
use hallpass::identity::challenge::Redemption;
use hallpass::identity::session::{Session, TokenHash};
use hallpass::identity::{Actor, Part};
use hallpass::keyring::Ca;
use hallpass::name::PolicyVersion;
use hallpass::store::{Basis, Change, LIST_MAX, RequestFilter, RowVersion, Save, Store, StoreError, StoredPolicy};
use hallpass::time::Timestamp;
use tokio::task::JoinSet;

use super::ending::{
    a_change_that_rests_on_a_log_of_another_size_is_refused, all_sessions_end_at_once,
    the_sessions_of_one_login_key_end_with_their_browsers_and_no_others,
};
use super::finding::{
    a_host_that_was_narrowed_away_finds_the_request_no_more, due_requests_come_earliest_first, lists_have_a_limit,
    requests_are_found_by_each_filter, requests_are_found_by_prefix, what_is_open_is_counted_and_found_by_its_key,
};
use super::hosts::{
    a_host_is_certified_by_a_permit_on_the_inventory_that_it_is_of,
    all_that_was_certified_for_a_host_is_found_while_its_window_lasts,
    the_inventory_is_the_logs_and_changes_rest_on_what_was_read, what_hosts_leave_is_kept_and_swept,
};
use super::issuing::{
    a_certificate_has_one_outcome, a_certificates_entry_comes_from_a_permit_alone,
    a_certificates_serial_is_the_index_of_the_entry_with_its_bytes, a_hundred_parallel_fetches_make_one_certificate,
    an_outcome_rests_on_the_request_and_the_clock_as_they_were,
    what_is_asked_granted_and_certified_in_one_change_is_in_the_log_in_this_order,
};
use super::texts::texts_of_any_kind_read_back_as_they_were_written;
use super::{Database, Desk, change, event};
use crate::support::fixtures::{at, id, key, person, signs_for, states};

/// Runs each function as one test per database.
macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::Sqlite::new()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::Postgres::new()).await;
            })*
        }
    };
}

contract! {
    a_new_store_is_empty
    requests_in_every_state_read_back_as_they_were_saved
    texts_of_any_kind_read_back_as_they_were_written
    everything_is_the_same_after_a_restart
    an_id_is_given_once
    a_change_made_from_an_older_version_is_refused
    a_refused_change_leaves_nothing_behind
    nothing_changes_without_a_log_entry
    a_certificates_serial_is_the_index_of_the_entry_with_its_bytes
    a_certificates_entry_comes_from_a_permit_alone
    a_certificate_has_one_outcome
    a_hundred_parallel_fetches_make_one_certificate
    what_is_asked_granted_and_certified_in_one_change_is_in_the_log_in_this_order
    an_outcome_rests_on_the_request_and_the_clock_as_they_were
    a_challenge_is_redeemed_once_also_in_parallel
    a_member_of_a_group_is_refused_alone
    log_time_never_runs_backwards
    the_log_is_gapless_and_its_tree_proves_each_entry
    requests_are_found_by_each_filter
    a_host_that_was_narrowed_away_finds_the_request_no_more
    requests_are_found_by_prefix
    lists_have_a_limit
    due_requests_come_earliest_first
    what_is_open_is_counted_and_found_by_its_key
    sessions_end_one_by_one_and_all_together
    a_browsers_session_goes_with_the_one_that_let_it_in
    sweeping_takes_only_what_is_over
    all_sessions_end_at_once
    the_sessions_of_one_login_key_end_with_their_browsers_and_no_others
    a_change_that_rests_on_a_log_of_another_size_is_refused
    policy_versions_follow_each_other
    a_store_that_can_write_is_ready
    a_dropped_caller_does_not_take_its_change_back
    a_decision_on_what_is_in_force_no_more_is_overtaken
    an_ask_rests_on_the_open_requests_that_were_read
    the_inventory_is_the_logs_and_changes_rest_on_what_was_read
    a_host_is_certified_by_a_permit_on_the_inventory_that_it_is_of
    what_hosts_leave_is_kept_and_swept
    all_that_was_certified_for_a_host_is_found_while_its_window_lasts
}

pub(super) fn session(n: u8, who: &str, expires: Timestamp) -> Session {
    let fingerprint = key(1).fingerprint();
    Session { token: TokenHash([n; 32]), person: person(who), key: fingerprint, opened: at(0), expires, seal: [n; 32] }
}

fn policy(version: u32) -> StoredPolicy {
    StoredPolicy {
        version: PolicyVersion(version),
        text: format!("# version {version}\n"),
        by: "person:olga@example.com".to_owned(),
        at: at(0),
    }
}

async fn entries(store: &dyn Store) -> Vec<Entry> {
    let bytes = store.entries(0, LIST_MAX).await.unwrap();
    bytes.iter().map(|entry| Entry::parse(entry).unwrap()).collect()
}

async fn size(store: &dyn Store) -> u64 {
    store.head().await.unwrap().frontier.size()
}

async fn a_new_store_is_empty(database: &dyn Database) {
    let store = database.open().await;
    let head = store.head().await.unwrap();
    assert_eq!((head.frontier, head.at), (Frontier::default(), Timestamp::from_unix(0).unwrap()));
    assert_eq!(store.entries(0, 10).await.unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(store.request(id(1)).await.unwrap(), None);
    assert_eq!(store.requests(RequestFilter { limit: 10, ..RequestFilter::default() }).await.unwrap(), vec![]);
    assert_eq!(store.policy(None).await.unwrap(), None);
    assert_eq!(store.policies().await.unwrap(), vec![]);
    assert_eq!(store.session(TokenHash([0; 32])).await.unwrap(), None);
}

/// One request in each state, each with all it can carry.
pub(super) async fn one_of_each(desk: &Desk) -> Vec<hallpass::store::Stored> {
    let (house, now) = (&desk.house, at(60));
    let mut made = Vec::new();
    let pending = desk.ask(id(1), "alice@example.com", &["dual-1", "dual-2"], at(0)).await;
    let half = house.approve_signed(pending.request, "bob@example.com", now);
    made.push(desk.save(half, pending.version, now).await.unwrap());
    made.push(desk.approved(id(2), at(0)).await);
    made.push(desk.issued(id(3), at(0)).await);
    for (n, what) in [(4, "deny"), (5, "withdraw"), (6, "lapse"), (7, "end"), (8, "expire"), (9, "extend")] {
        let hosts = ["web-1", "web-2"];
        let asked = desk.ask(id(n), "alice@example.com", &hosts, at(0)).await;
        let step = match what {
            "deny" => house.deny(asked.request, "bob@example.com", now),
            "withdraw" => house.withdraw(asked.request, now),
            "lapse" => house.tick(asked.request, at(100_000)),
            _ => house.approve(asked.request, "bob@example.com", now),
        };
        let stored = desk.save(step, asked.version, now).await.unwrap();
        if n <= 6 {
            made.push(stored);
            continue;
        }
        let issued = house.certify(stored.request, now);
        let issued = desk.save(issued, stored.version, now).await.unwrap();
        let step = match what {
            "end" => house.end(issued.request, now),
            "expire" => house.tick(issued.request, at(100_000)),
            _ => house.extend(issued.request, now),
        };
        made.push(desk.save(step, issued.version, now).await.unwrap());
    }
    made
}

async fn requests_in_every_state_read_back_as_they_were_saved(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let made = one_of_each(&desk).await;
    let words: BTreeSet<&str> = made.iter().map(|stored| stored.request.parts().state.word()).collect();
    let all = ["pending", "approved", "issued", "denied", "withdrawn", "lapsed", "ended", "expired"];
    assert_eq!(words, states(&all));
    assert!(made.iter().any(|stored| stored.request.parts().extension.is_some()));
    assert!(made.iter().any(|stored| matches!(&stored.request.parts().state,
        State::Pending { approvals, .. } if !approvals.is_empty())));
    for stored in made {
        assert_eq!(desk.request(stored.request.id()).await, stored);
    }
}

async fn everything_is_the_same_after_a_restart(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let made = one_of_each(&desk).await;
    let saves = vec![Save::NewSession(session(1, "alice@example.com", at(500))), Save::NewPolicy(policy(1))];
    desk.store.commit(change(at(70), saves, vec![event()])).await.unwrap();
    let (head, log) = (desk.store.head().await.unwrap(), entries(&*desk.store).await);
    drop(desk);

    let store = database.open().await;
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(entries(&*store).await, log);
    for stored in made {
        assert_eq!(store.request(stored.request.id()).await.unwrap().unwrap(), stored);
    }
    let found = store.session(TokenHash([1; 32])).await.unwrap();
    assert_eq!(found, Some(session(1, "alice@example.com", at(500))));
    assert_eq!(store.policy(None).await.unwrap(), Some(policy(1)));
    let next = store.commit(change(at(80), vec![], vec![event()])).await.unwrap();
    assert_eq!(next.entries, vec![head.frontier.size()]);
}

async fn an_id_is_given_once(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let first = desk.approved(id(1), at(0)).await;
    let second = desk.house.ask(id(1), "ann@example.com", &["dev-2"], at(1));
    let save = Save::NewRequest(second.request);
    let error = desk.store.commit(change(at(1), vec![save], second.events)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error}");
    assert_eq!(desk.request(id(1)).await, first);
}

async fn a_change_made_from_an_older_version_is_refused(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let asked = desk.ask(id(1), "alice@example.com", &["web-1"], at(0)).await;
    let denied = desk.house.deny(asked.request.clone(), "bob@example.com", at(1));
    let denied = desk.save(denied, asked.version, at(1)).await.unwrap();
    assert_eq!(denied.version, RowVersion(asked.version.0 + 1));
    let before = size(&*desk.store).await;
    let approved = desk.house.approve(asked.request, "ben@example.com", at(2));
    let error = desk.save(approved, asked.version, at(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error}");
    assert_eq!(desk.request(id(1)).await, denied);
    assert_eq!(size(&*desk.store).await, before);
    // A version that no row has had yet is no better.
    let again = Save::Request { request: denied.request.clone(), expected: RowVersion(7) };
    let error = desk.store.commit(change(at(3), vec![again], vec![event()])).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error}");
}

async fn a_refused_change_leaves_nothing_behind(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let stored = desk.approved(id(1), at(0)).await;
    desk.store.commit(change(at(0), vec![Save::NewPolicy(policy(1))], vec![event()])).await.unwrap();
    let head = desk.store.head().await.unwrap();
    let nonce = Redemption { nonce: [1; 16], expires: at(100) };
    let stale = Save::Request { request: stored.request.clone(), expected: RowVersion(9) };
    let certify = desk.house.certify(stored.request.clone(), at(1));
    let certify = Save::Certify {
        permit: Box::new(certify.permit.unwrap()),
        ca: signs_for(&Ca::USER),
        nonce: [1; 32],
        expected: stored.version,
    };
    let new = desk.house.ask(id(2), "ann@example.com", &["dev-2"], at(1));
    let saves = vec![
        Save::NewSession(session(1, "alice@example.com", at(500))),
        Save::Redeem(nonce.clone()),
        Save::NewPolicy(policy(2)),
        Save::NewRequest(new.request),
        certify,
        stale,
    ];
    let error = desk.store.commit(change(at(1), saves, vec![event()])).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error}");
    assert_eq!(desk.store.head().await.unwrap(), head);
    assert_eq!(desk.request(id(1)).await, stored);
    assert_eq!(desk.store.request(id(2)).await.unwrap(), None);
    assert_eq!(desk.store.session(TokenHash([1; 32])).await.unwrap(), None);
    assert_eq!(desk.store.policy(None).await.unwrap(), Some(policy(1)));
    desk.store.commit(change(at(1), vec![Save::Redeem(nonce)], vec![event()])).await.unwrap();
}

async fn nothing_changes_without_a_log_entry(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let save = Save::NewSession(session(1, "alice@example.com", at(500)));
    let error = desk.store.commit(change(at(0), vec![save], vec![])).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert_eq!(desk.store.session(TokenHash([1; 32])).await.unwrap(), None);
    desk.store.commit(change(at(0), vec![], vec![])).await.unwrap_err();
    assert_eq!(size(&*desk.store).await, 1);
}

async fn a_challenge_is_redeemed_once_also_in_parallel(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let redemption = Redemption { nonce: [5; 16], expires: at(120) };
    let mut logins = JoinSet::new();
    for n in 0..100 {
        let saves = vec![Save::Redeem(redemption.clone()), Save::NewSession(session(n, "alice@example.com", at(500)))];
        let store = Arc::clone(&desk.store);
        logins.spawn(async move { store.commit(change(at(1), saves, vec![event()])).await });
    }
    let (done, refused): (Vec<_>, Vec<_>) = logins.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    assert!(refused.iter().all(|result| matches!(result, Err(StoreError::Replayed))));
    let mut sessions = 0;
    for n in 0..100 {
        sessions += usize::from(desk.store.session(TokenHash([n; 32])).await.unwrap().is_some());
    }
    assert_eq!(sessions, 1);
    let again = change(at(2), vec![Save::Redeem(redemption)], vec![event()]);
    assert!(matches!(desk.store.commit(again).await, Err(StoreError::Replayed)));
}

async fn a_member_of_a_group_is_refused_alone(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let stored = desk.approved(id(0), at(0)).await;
    let mut changes = JoinSet::new();
    for n in 0_u8..120 {
        let save = match n % 3 {
            0 => Save::NewSession(session(n, "alice@example.com", at(500))),
            1 => Save::Request { request: stored.request.clone(), expected: RowVersion(50) },
            _ => Save::NewPolicy(policy(77)),
        };
        let store = Arc::clone(&desk.store);
        changes.spawn(async move { (n, store.commit(change(at(1), vec![save], vec![event()])).await) });
    }
    let before = 1 + desk.store.entries_of(id(0)).await.unwrap().len();
    let mut indexes = BTreeSet::new();
    for (n, result) in changes.join_all().await {
        match result {
            Ok(committed) => {
                assert_eq!(n % 3, 0);
                indexes.extend(committed.entries);
                assert!(desk.store.session(TokenHash([n; 32])).await.unwrap().is_some());
            }
            Err(error) => assert!(n % 3 != 0 && matches!(error, StoreError::Conflict), "{n}: {error}"),
        }
    }
    let first = u64::try_from(before).unwrap();
    assert_eq!(indexes, (first..first + 40).collect());
    assert_eq!(size(&*desk.store).await, first + 40);
}

async fn log_time_never_runs_backwards(database: &dyn Database) {
    let desk = Desk::new(database).await;
    for seconds in [10, 5, 20, 0] {
        desk.store.commit(change(at(seconds), vec![], vec![event()])).await.unwrap();
    }
    let times: Vec<Timestamp> = entries(&*desk.store).await.iter().map(|entry| entry.at).collect();
    assert_eq!(times, vec![at(0), at(10), at(10), at(20), at(20)]);
    assert_eq!(desk.store.head().await.unwrap().at, at(20));
}

async fn the_log_is_gapless_and_its_tree_proves_each_entry(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let mut frontier = Frontier::default();
    for n in 0..20_u64 {
        desk.store.commit(change(at(n), vec![], vec![event(); usize::try_from(n % 3 + 1).unwrap()])).await.unwrap();
        let log = desk.store.entries(frontier.size(), LIST_MAX).await.unwrap();
        for bytes in &log {
            assert_eq!(Entry::parse(bytes).unwrap().index, frontier.size());
            frontier.push(Entry::leaf_hash(bytes));
        }
        assert_eq!(desk.store.head().await.unwrap().frontier, frontier);
    }
    let (size, root) = (frontier.size(), frontier.root());
    assert_eq!(desk.store.entries(3, 2).await.unwrap().len(), 2);
    for (index, bytes) in (0..).zip(desk.store.entries(0, LIST_MAX).await.unwrap()) {
        let nodes = desk.store.nodes(inclusion_nodes(index, size)).await.unwrap();
        let proof = inclusion_proof(index, size, &nodes).unwrap();
        assert!(verify_inclusion(&Entry::leaf_hash(&bytes), index, size, &proof, &root), "entry {index}");
    }
    let missing = Node { level: 0, position: size };
    assert_eq!(desk.store.nodes(vec![missing]).await.unwrap(), BTreeMap::new());
}

/// A change that opens a session.
pub(super) fn a_login() -> Change {
    change(at(0), vec![Save::NewSession(session(1, "alice@example.com", at(500)))], vec![event()])
}

async fn sessions_end_one_by_one_and_all_together(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let whose = ["alice@example.com", "alice@example.com", "alice@example.com", "bob@example.com"];
    let saves = (0..).zip(whose).map(|(n, who)| Save::NewSession(session(n, who, at(500)))).collect();
    desk.store.commit(change(at(0), saves, vec![event()])).await.unwrap();
    let live = async || {
        let mut live = Vec::new();
        for n in 0..4 {
            let found = desk.store.session(TokenHash([n; 32])).await.unwrap();
            assert!(found.iter().all(|s| *s == session(n, whose[usize::from(n)], at(500))));
            live.extend(found.map(|_| n));
        }
        live
    };
    assert_eq!(live().await, vec![0, 1, 2, 3]);
    let end = |save| change(at(1), vec![save], vec![event()]);
    desk.store.commit(end(Save::EndSession(TokenHash([1; 32])))).await.unwrap();
    assert_eq!(live().await, vec![0, 2, 3]);
    // Gone already is no error.
    desk.store.commit(end(Save::EndSession(TokenHash([1; 32])))).await.unwrap();
    desk.store.commit(end(Save::EndSessionsOf(person("alice@example.com")))).await.unwrap();
    assert_eq!(live().await, vec![3]);
    let twice = end(Save::NewSession(session(3, "alice@example.com", at(900))));
    assert!(matches!(desk.store.commit(twice).await, Err(StoreError::Conflict)));
    assert_eq!(live().await, vec![3]);
}

async fn a_browsers_session_goes_with_the_one_that_let_it_in(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let parents = |n, who| Save::NewSession(session(n, who, at(500)));
    let saves = vec![parents(1, "alice@example.com"), parents(2, "alice@example.com"), parents(3, "bob@example.com")];
    desk.store.commit(change(at(0), saves, vec![event()])).await.unwrap();
    let of = |n: u8, parent: u8| BrowserSession {
        token: TokenHash([n; 32]),
        parent: TokenHash([parent; 32]),
        opened: at(0),
        expires: at(400),
        seal: [n; 32],
    };
    let change = |save| change(at(1), vec![save], vec![event()]);
    for (n, parent) in [(11, 1), (12, 1), (21, 2), (31, 3)] {
        desk.store.commit(change(Save::NewBrowserSession(of(n, parent)))).await.unwrap();
    }
    for refused in [of(41, 4), of(11, 2)] {
        let refused = desk.store.commit(change(Save::NewBrowserSession(refused))).await;
        assert!(matches!(refused, Err(StoreError::Conflict)), "no parent, or there already");
    }
    let live = async || {
        let mut live = Vec::new();
        for n in [11, 12, 21, 31, 41] {
            if let Some((found, parent)) = desk.store.browser_session(TokenHash([n; 32])).await.unwrap() {
                assert_eq!((&found, found.parent), (&of(n, n / 10), parent.token));
                assert!(desk.store.session(TokenHash([n; 32])).await.unwrap().is_none(), "another kind of session");
                live.push(n);
            }
        }
        live
    };
    assert_eq!(live().await, [11, 12, 21, 31]);
    desk.store.commit(change(Save::EndBrowserSession(TokenHash([12; 32])))).await.unwrap();
    desk.store.commit(change(Save::EndBrowserSession(TokenHash([12; 32])))).await.unwrap();
    assert_eq!(live().await, [11, 21, 31]);
    desk.store.commit(change(Save::EndSession(TokenHash([1; 32])))).await.unwrap();
    assert_eq!(live().await, [21, 31]);
    desk.store.commit(change(Save::EndSessionsOf(person("alice@example.com")))).await.unwrap();
    assert_eq!(live().await, [31]);
    desk.store.sweep(at(399)).await.unwrap();
    assert_eq!(live().await, [31]);
    desk.store.sweep(at(400)).await.unwrap();
    assert_eq!(live().await, Vec::<u8>::new());
    assert!(desk.store.session(TokenHash([3; 32])).await.unwrap().is_some());
}

async fn sweeping_takes_only_what_is_over(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let mut saves = Vec::new();
    for (n, expires) in [(1, 100), (2, 101)] {
        saves.push(Save::NewSession(session(n, "alice@example.com", at(expires))));
        saves.push(Save::Redeem(Redemption { nonce: [n; 16], expires: at(expires) }));
    }
    desk.store.commit(change(at(0), saves, vec![event()])).await.unwrap();
    let before = size(&*desk.store).await;
    desk.store.sweep(at(100)).await.unwrap();
    assert_eq!(desk.store.session(TokenHash([1; 32])).await.unwrap(), None);
    assert!(desk.store.session(TokenHash([2; 32])).await.unwrap().is_some());
    let redeem = |n| change(at(0), vec![Save::Redeem(Redemption { nonce: [n; 16], expires: at(200) })], vec![event()]);
    assert!(matches!(desk.store.commit(redeem(2)).await, Err(StoreError::Replayed)));
    desk.store.commit(redeem(1)).await.unwrap();
    assert_eq!(size(&*desk.store).await, before + 1);
}

async fn policy_versions_follow_each_other(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let apply =
        async |version| desk.store.commit(change(at(0), vec![Save::NewPolicy(policy(version))], vec![event()])).await;
    assert!(matches!(apply(2).await, Err(StoreError::Conflict)));
    for version in 1..=3 {
        apply(version).await.unwrap();
    }
    for version in [0, 1, 3, 5] {
        assert!(matches!(apply(version).await, Err(StoreError::Conflict)), "version {version}");
    }
    assert_eq!(desk.store.policy(None).await.unwrap(), Some(policy(3)));
    assert_eq!(desk.store.policy(Some(PolicyVersion(2))).await.unwrap(), Some(policy(2)));
    assert_eq!(desk.store.policy(Some(PolicyVersion(4))).await.unwrap(), None);
    let without_text = |version| StoredPolicy { text: String::new(), ..policy(version) };
    assert_eq!(desk.store.policies().await.unwrap(), vec![without_text(3), without_text(2), without_text(1)]);
}

async fn a_store_that_can_write_is_ready(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let head = desk.store.head().await.unwrap();
    desk.store.ready().await.unwrap();
    assert_eq!(desk.store.head().await.unwrap(), head);
}

async fn a_dropped_caller_does_not_take_its_change_back(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let gone = desk.store.commit(Change { at: at(1), saves: vec![], events: vec![event()] });
    // Polled once, which hands the change over, then dropped.
    tokio::select! { biased; _ = gone => {} () = std::future::ready(()) => {} }
    desk.store.commit(change(at(2), vec![], vec![event()])).await.unwrap();
    assert_eq!(size(&*desk.store).await, 3);
}

async fn a_decision_on_what_is_in_force_no_more_is_overtaken(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let commit = async |basis, events| desk.store.commit(change(at(1), vec![Save::OnBasis(basis)], events)).await;
    let before = Basis::of(&desk.store.head().await.unwrap());
    commit(before, vec![event()]).await.unwrap();
    let sha256 = "0".repeat(64);
    let applied = Event::PolicyApplied {
        by: Actor::System(Part::Start),
        version: PolicyVersion(1),
        sha256,
        tests: 0,
        changes: 0,
    };
    commit(before, vec![applied]).await.unwrap();
    for other in [
        before,
        Basis { policy: Some(PolicyVersion(2)), ..before },
        Basis { policy: Some(PolicyVersion(1)), inventory: 1, ..before },
        Basis { policy: Some(PolicyVersion(1)), keys: Some(1), ..before },
    ] {
        let refused = commit(other, vec![event()]).await;
        assert!(matches!(refused, Err(StoreError::Overtaken)), "{other:?}: {refused:?}");
    }
    assert_eq!(size(&*desk.store).await, 3);
    commit(Basis { policy: Some(PolicyVersion(1)), ..before }, vec![event()]).await.unwrap();
}

async fn an_ask_rests_on_the_open_requests_that_were_read(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let first = desk.ask(id(1), "alice@example.com", &["web-1"], at(0)).await;
    let (asker, held) = (person("alice@example.com"), first.request.parts().key.clone());
    let as_read = |count, with_key| Save::OpenAsRead { asker: asker.clone(), key: held.clone(), count, with_key };
    let commit = async |save| desk.store.commit(change(at(1), vec![save], vec![event()])).await;
    commit(as_read(1, 1)).await.unwrap();
    for (count, with_key) in [(0, 0), (1, 0), (2, 1)] {
        let refused = commit(as_read(count, with_key)).await;
        assert!(matches!(refused, Err(StoreError::Conflict)), "{count} {with_key}: {refused:?}");
    }
    // Two asks at the same moment, each of which saw one open request: one of them is decided anew.
    let ask = |n| {
        let step = desk.house.ask(id(n), "alice@example.com", &["dev-1"], at(2));
        change(at(2), vec![as_read(1, 1), Save::NewRequest(step.request)], step.events)
    };
    let (one, two) = tokio::join!(desk.store.commit(ask(2)), desk.store.commit(ask(3)));
    assert!(
        matches!((&one, &two), (Ok(_), Err(StoreError::Conflict)) | (Err(StoreError::Conflict), Ok(_))),
        "{one:?} {two:?}"
    );
    assert_eq!(desk.store.open_of(asker.clone(), held.clone()).await.unwrap().count, 2);
    // One that ends within the same group counts no more.
    let ended = desk.house.withdraw(first.request, at(3));
    let saves = vec![Save::Request { request: ended.request, expected: first.version }, as_read(1, 1)];
    desk.store.commit(change(at(3), saves, ended.events)).await.unwrap();
}
