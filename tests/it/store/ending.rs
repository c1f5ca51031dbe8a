//! What going on from an older copy needs of a store; part of the contract.

use hallpass::identity::browser::BrowserSession;
use hallpass::identity::session::{Session, TokenHash};
use hallpass::store::{Save, StoreError};
use hallpass::time::Timestamp;

use super::{Database, Desk, change, event};
use crate::support::fixtures::{at, key, person};

fn a_session(n: u8, who: &str, expires: Timestamp) -> Session {
    let fingerprint = key(1).fingerprint();
    Session { token: TokenHash([n; 32]), person: person(who), key: fingerprint, opened: at(0), expires, seal: [n; 32] }
}

pub(super) async fn all_sessions_end_at_once(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let (first, second) = (a_session(1, "alice@example.com", at(100)), a_session(2, "bob@example.com", at(100)));
    let browser = BrowserSession {
        token: TokenHash([3; 32]),
        parent: first.token,
        opened: at(0),
        expires: at(90),
        seal: [3; 32],
    };
    for save in
        [Save::NewSession(first.clone()), Save::NewBrowserSession(browser.clone()), Save::NewSession(second.clone())]
    {
        desk.store.commit(change(at(1), vec![save], vec![event()])).await.unwrap();
    }
    // One that comes in the same group is a session.
    let (ending, opening) = (
        desk.store.commit(change(at(2), vec![Save::EndAllSessions], vec![event()])),
        desk.store.commit(change(
            at(2),
            vec![Save::NewSession(a_session(4, "eve@example.com", at(100)))],
            vec![event()],
        )),
    );
    let (ended, opened) = tokio::join!(ending, opening);
    ended.unwrap();
    opened.unwrap();
    for token in [first.token, second.token] {
        assert_eq!(desk.store.session(token).await.unwrap(), None);
    }
    assert_eq!(desk.store.browser_session(browser.token).await.unwrap(), None);
    assert!(desk.store.session(TokenHash([4; 32])).await.unwrap().is_some());
}

pub(super) async fn the_sessions_of_one_login_key_end_with_their_browsers_and_no_others(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let (alice, bob) = ("alice@example.com", "bob@example.com");
    let other_key = |session| Session { key: key(2).fingerprint(), ..session };
    let browser = |n: u8, parent: &Session| BrowserSession {
        token: TokenHash([n; 32]),
        parent: parent.token,
        opened: at(0),
        expires: at(90),
        seal: [n; 32],
    };
    let (hers, by_another, his) =
        (a_session(1, alice, at(100)), other_key(a_session(2, alice, at(100))), a_session(3, bob, at(100)));
    let sessions = [&hers, &by_another, &his];
    let mut saves: Vec<Save> = sessions.map(|session| Save::NewSession(session.clone())).into();
    saves.extend([(11, &hers), (12, &by_another)].map(|(n, parent)| Save::NewBrowserSession(browser(n, parent))));
    desk.store.commit(change(at(1), saves, vec![event()])).await.unwrap();

    // In one group and one change with such that have just come.
    let end = || Save::EndSessionsBy(person(alice), key(1).fingerprint());
    let (new, late) = (a_session(4, alice, at(100)), a_session(5, alice, at(100)));
    let (opened, ended, refused) = tokio::join!(
        desk.store.commit(change(at(2), vec![Save::NewSession(new.clone())], vec![event()])),
        desk.store.commit(change(at(2), vec![Save::NewSession(late.clone()), end()], vec![event()])),
        desk.store.commit(change(at(2), vec![Save::NewBrowserSession(browser(13, &hers))], vec![event()])),
    );
    opened.unwrap();
    ended.unwrap();
    assert!(matches!(refused, Err(StoreError::Conflict)), "its parent has ended: {refused:?}");
    for (session, lives) in [(&hers, false), (&by_another, true), (&his, true), (&new, false), (&late, false)] {
        let found = desk.store.session(session.token).await.unwrap();
        assert_eq!(found.as_ref(), lives.then_some(session));
    }
    for (n, lives) in [(11, false), (12, true), (13, false)] {
        assert_eq!(desk.store.browser_session(TokenHash([n; 32])).await.unwrap().is_some(), lives, "{n}");
    }
    desk.store.commit(change(at(3), vec![end()], vec![event()])).await.unwrap();
}

pub(super) async fn a_change_that_rests_on_a_log_of_another_size_is_refused(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let at_size = |size| change(at(1), vec![Save::AtSize(size)], vec![event()]);
    let refused = desk.store.commit(at_size(2)).await;
    assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    desk.store.commit(at_size(1)).await.unwrap();
    let (first, second) = tokio::join!(desk.store.commit(at_size(2)), desk.store.commit(at_size(2)));
    let refused = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(refused[..], [StoreError::Conflict]), "one of two: {refused:?}");
    assert_eq!(desk.store.head().await.unwrap().frontier.size(), 3);
}
