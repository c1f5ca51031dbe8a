//! What people write is data to either database, whatever it looks like.

use hallpass::access::{self, Command, State, Step};
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::name::PolicyVersion;
use hallpass::policy::Question;
use hallpass::store::{LIST_MAX, RequestFilter, Save, StoredPolicy};
use hallpass::time::Lifetime;

use super::{Database, Desk, change, only};
use crate::support::fixtures::{at, id, key, person, states};

/// What means something to a database, to a format of ours, or to what stands between. The service takes no control characters
/// from people (`bad_input`); the store does not rely on it.
const TEXTS: [&str; 14] = [
    "'; DROP TABLE request; --",
    "\"; DELETE FROM log WHERE 1=1; /*",
    "$1 $2 ?1 ?2 :name @name $$ $tag$ {} {0} %s %d %n %%",
    "\\ \\\\ \\' \\\" \\n \\0 \\u0000 \\x00 E'\\\\'",
    "100% _ LIKE '%' ESCAPE '\\'",
    "\0",
    "before\0behind",
    "\n\r\t\u{b}\u{1b}[2J\u{7f}\u{85}",
    "{\"reason\":\"x\"}",
    "]}'\"",
    "e\u{301} \u{202e}abc\u{202c} \u{feff} \u{fffd} \u{1f600} \u{10ffff}",
    " two  blanks ",
    "NULL",
    "007",
];

pub(super) async fn texts_of_any_kind_read_back_as_they_were_written(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let (house, alice, bob) = (&desk.house, "alice@example.com", "bob@example.com");
    let mut written: Vec<Event> = Vec::new();
    for (text, n) in TEXTS.into_iter().zip(1..) {
        let text = || text.to_owned();
        let question = Question { reason: text(), ticket: Some(text()), ..house.question(alice, &["web-1"], at(0)) };
        for id in [id(n), id(100 + n)] {
            let Step { request, events, .. } =
                access::open(&house.proven(alice), &question, key(100), &house.check(), id).unwrap();
            written.extend(events.clone());
            let new = vec![Save::NewRequest(request)];
            let asked = only(desk.store.commit(change(at(0), new, events)).await.unwrap());
            let mut stored = asked;
            // One is denied, the other one lives a whole life.
            let lives: &[&str] = if id == self::id(n) { &["approve", "certify", "extend", "end"] } else { &["deny"] };
            for what in lives {
                let (check, now) = (house.check(), at(60));
                let digest = stored.request.digest();
                let command = match *what {
                    "approve" => {
                        let (by, narrow) = (house.proven(bob), access::Narrowing::default());
                        Command::Approve { by, digest, narrow, comment: text(), signed: None, check }
                    }
                    "deny" => Command::Deny { by: house.proven(bob), reason: text(), check },
                    "certify" => Command::Certify { by: house.proven(alice), check },
                    "extend" => {
                        let (by, lifetime) = (house.proven(alice), Lifetime::minutes(10));
                        Command::Extend { by, lifetime, reason: text(), check }
                    }
                    _ => Command::End { by: house.proven("olga@example.com"), is_operator: true, reason: text() },
                };
                let step = access::step(stored.request, command, now);
                let step = step.unwrap_or_else(|no| panic!("{what} {:?}: {no}", text()));
                written.extend(step.events.clone());
                let step = desk.save(step, stored.version, now).await;
                stored = step.unwrap_or_else(|error| panic!("{what} {:?}: {error}", text()));
                assert_eq!(desk.request(id).await, stored, "{what} {:?}", text());
            }
        }
    }
    // A policy's text is kept as it is; TOML has no control characters in it but tabs and line ends.
    let policy = StoredPolicy {
        version: PolicyVersion(1),
        text: TEXTS.concat().replace(|c: char| c.is_control() && c != '\n' && c != '\t', ""),
        by: "person:olga@example.com".to_owned(),
        at: at(60),
    };
    desk.store.commit(change(at(60), vec![Save::NewPolicy(policy.clone())], vec![super::event()])).await.unwrap();
    drop(desk);

    let store = database.open().await;
    assert_eq!(store.policy(None).await.unwrap(), Some(policy));
    for (text, n) in TEXTS.into_iter().zip(1..) {
        let [ended, denied] =
            [store.request(id(n)).await.unwrap().unwrap(), store.request(id(100 + n)).await.unwrap().unwrap()];
        for stored in [&ended, &denied] {
            let parts = stored.request.parts();
            assert_eq!((parts.reason.as_str(), parts.ticket.as_deref()), (text, Some(text)));
        }
        assert!(matches!(&ended.request.parts().state, State::Ended { reason, .. } if reason == text), "{text:?}");
        assert!(matches!(&denied.request.parts().state, State::Denied { reason, .. } if reason == text), "{text:?}");
        let (_, logged) = store.logged(id(n)).await.unwrap().unwrap();
        let events: Vec<Event> = logged.into_iter().map(|entry| entry.event).collect();
        assert_eq!(ended.request.check_logged(&events), Ok(()), "{text:?}");
    }
    let filter = RequestFilter {
        states: states(&["ended"]),
        asker: Some(person(alice)),
        limit: 100,
        ..RequestFilter::default()
    };
    assert_eq!(store.requests(filter).await.unwrap().len(), TEXTS.len());
    // The log has each of them, in this order and no other.
    let bytes = store.entries(0, LIST_MAX).await.unwrap();
    let events = bytes.iter().map(|entry| Entry::parse(entry).unwrap().event);
    let is_of_a_request = |event: &Event| written.iter().any(|other| other.kind() == event.kind());
    assert_eq!(events.filter(is_of_a_request).collect::<Vec<_>>(), written);
}
