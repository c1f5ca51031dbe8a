//! Logins and sessions: one answer, one person, one session, and rights read anew.

use hallpass::identity::challenge::Answer;
use hallpass::service::Failure;
use hallpass::service::login::NewSession;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::time::Lifetime;
use secrecy::ExposeSecret as _;

use crate::support::postgres::cluster;
use crate::support::{World, answer_to, login_key, policy};

fn key_of_seed(seed: u8) -> LoginKey {
    LoginKey::parse(SessionKey::generate([seed; 32]).to_openssh("x").unwrap().as_bytes(), None).unwrap()
}

fn copy(answer: &Answer) -> Answer {
    let Answer { person, challenge, key, signature } = answer;
    Answer { person: person.clone(), challenge: challenge.clone(), key: key.clone(), signature: signature.clone() }
}

#[tokio::test]
async fn an_answer_opens_one_session_and_no_second() {
    let world = World::new().await;
    let answer = world.answer("alice");
    let session = world.service().login(copy(&answer), "192.0.2.1:5".to_owned()).await.unwrap();
    let (proven, expires) = world.service().caller(session.token.expose_secret()).await.unwrap();
    assert_eq!((&proven, expires), (&session.proven, session.expires));
    let again = world.service().login(copy(&answer), "192.0.2.1:5".to_owned()).await;
    assert!(matches!(again, Err(Failure::LoginRefused)), "{again:?}");
    world.pass(121);
    world.service().tick().await.unwrap();
    let swept = world.service().login(answer, "192.0.2.1:5".to_owned()).await;
    assert!(matches!(swept, Err(Failure::LoginRefused)), "{swept:?}");
    world.check().await;
}

#[tokio::test]
async fn a_used_answer_stays_used_when_the_clock_goes_back() {
    let mut world = World::new().await;
    let start = world.now();
    let answer = world.answer("alice");
    world.service().login(copy(&answer), String::new()).await.unwrap();
    world.pass(700);
    world.service().tick().await.unwrap();
    // The service may be started on another clock than it ran on.
    world.clock.set(start.plus(Lifetime::from_seconds(100).unwrap()).unwrap());
    world.restart().await;
    let again = world.service().login(copy(&answer), String::new()).await;
    assert!(matches!(again, Err(Failure::LoginRefused)), "{again:?}");
    // So far back that the answer would be good for hours.
    world.pass(3600 * 30);
    world.service().tick().await.unwrap();
    world.clock.set(start.minus(Lifetime::minutes(300)).unwrap());
    world.restart().await;
    let early = world.service().login(answer, String::new()).await;
    assert!(matches!(early, Err(Failure::LoginRefused)), "{early:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_answers_to_one_challenge_open_one_session() {
    let world = std::sync::Arc::new(World::new().await);
    let answer = world.answer("alice");
    let logins: Vec<_> = (0..30)
        .map(|_| {
            let (world, answer) = (world.clone(), copy(&answer));
            tokio::spawn(async move { world.service().login(answer, String::new()).await.is_ok() })
        })
        .collect();
    let mut opened = 0;
    for one in logins {
        opened += usize::from(one.await.unwrap());
    }
    assert_eq!(opened, 1);
    world.check().await;
}

#[tokio::test]
async fn refused_answers_look_alike_and_leave_no_entry() {
    let world = World::new().await;
    let ada = world.proven("ada").await;
    let before = world.entries(&ada).await.len();
    let challenge = || world.service().challenge().unwrap().0;
    let late = world.answer("alice");
    let forged = Answer { challenge: challenge(), ..world.answer("alice") };
    let borrowed = Answer { person: crate::support::person("bob"), ..world.answer("alice") };
    let answers = [
        answer_to(challenge(), "alice", &login_key("bob")),
        answer_to(challenge(), "nobody", &login_key("alice")),
        answer_to("bm90IG91cnM".to_owned(), "alice", &login_key("alice")),
        answer_to(challenge(), "alice", &key_of_seed(0xCA)),
        answer_to(challenge(), "alice", &key_of_seed(0x10)),
        forged,
        borrowed,
    ];
    for answer in answers {
        let refused = world.service().login(answer, "192.0.2.1:5".to_owned()).await;
        assert!(matches!(refused, Err(Failure::LoginRefused)), "{refused:?}");
    }
    world.pass(120);
    assert!(matches!(world.service().login(late, String::new()).await, Err(Failure::LoginRefused)));
    assert_eq!(world.entries(&ada).await.len(), before);
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_logout_or_its_key() {
    let world = World::new().await;
    let token = async |name| world.login(name).await.token.expose_secret().to_owned();
    let (a1, a2, a3) = (token("alice").await, token("alice").await, token("alice").await);
    let (bob, omar) = (token("bob").await, world.proven("omar").await);
    let alive = async |token: &str| world.service().caller(token).await.is_ok();
    let (alice, _) = world.service().caller(&a1).await.unwrap();
    assert!(matches!(world.service().logout(&alice, &bob, false).await, Err(Failure::NotLoggedIn)));
    world.service().logout(&alice, &a1, false).await.unwrap();
    assert!(!alive(&a1).await && alive(&a2).await);
    world.service().logout(&alice, &a2, true).await.unwrap();
    assert!(!alive(&a2).await && !alive(&a3).await && alive(&bob).await);

    let with_other_key = policy().replace(
        &login_key("bob").public_key().to_openssh(),
        &SessionKey::generate([0x99; 32]).public_key().to_openssh(),
    );
    world.service().apply_policy(&omar, with_other_key, None, false).await.unwrap();
    assert!(!alive(&bob).await, "the key that opened it is gone");

    let carol = token("carol").await;
    world.pass(43_199);
    assert!(alive(&carol).await);
    world.pass(1);
    assert!(!alive(&carol).await);
    for bad in ["", "hps_", "hps_AAAA", &carol[..carol.len() - 1], &format!("{carol}A"), "Bearer x", "\0"] {
        assert!(matches!(world.service().caller(bad).await, Err(Failure::NotLoggedIn)), "{bad:?}");
    }
    world.check().await;
}

/// The sample policy with another key than this person's, or one beside it.
fn with_key(name: &str, seed: u8, beside: bool) -> String {
    let own = format!("\"{}\"", login_key(name).public_key().to_openssh());
    let other = format!("\"{}\"", SessionKey::generate([seed; 32]).public_key().to_openssh());
    let keys = if beside { format!("{own}, {other}") } else { other };
    let text = policy().replace(&own, &keys);
    assert_ne!(text, policy());
    text
}

#[tokio::test]
async fn a_person_or_key_that_was_taken_out_and_put_back_does_not_bring_old_sessions_back() {
    let mut world = World::new().await;
    let token = |session: &NewSession| session.token.expose_secret().to_owned();
    let omar = world.proven("omar").await;
    let apply = async |world: &World, text| world.service().apply_policy(&omar, text, None, false).await.unwrap();
    let alive = async |world: &World, token: &str| world.service().caller(token).await.is_ok();
    apply(&world, with_key("bob", 0x77, true)).await;
    let by_other_key = answer_to(world.service().challenge().unwrap().0, "bob", &key_of_seed(0x77));
    let by_other_key = token(&world.service().login(by_other_key, String::new()).await.unwrap());
    let (bob, eve) = (token(&world.login("bob").await), token(&world.login("eve").await));
    let (sign_in, _) = world.service().sign_in_token(&bob).await.unwrap();
    let browser = world.service().sign_in(sign_in, String::new()).await.unwrap().token.expose_secret().to_owned();
    let (unused, _) = world.service().sign_in_token(&bob).await.unwrap();

    // Bob's own key goes, eve goes; a dry run of it ends nobody's session, and neither does a policy that is refused.
    let without = with_key("bob", 0x77, false).replace("name = \"eve@example.com\"", "name = \"eva@example.com\"");
    world.service().apply_policy(&omar, without.clone(), None, true).await.unwrap();
    world.service().apply_policy(&omar, format!("{without}\nx = 1\n"), None, false).await.unwrap_err();
    for token in [&bob, &eve, &by_other_key] {
        assert!(alive(&world, token).await);
    }
    assert!(world.service().browser(&browser).await.is_ok());
    apply(&world, without).await;
    apply(&world, with_key("bob", 0x77, true)).await;
    for restarted in [false, true] {
        for token in [&bob, &eve] {
            assert!(!alive(&world, token).await, "restarted: {restarted}");
        }
        assert!(world.service().browser(&browser).await.is_err());
        assert!(world.service().signing_in(unused.expose_secret()).await.is_err());
        assert!(alive(&world, &by_other_key).await, "a key that stayed");
        // They are as welcome as before.
        world.login("bob").await;
        world.login("eve").await;
        world.restart().await;
    }
    world.check().await;
}

#[tokio::test]
async fn a_login_on_a_node_that_has_not_heard_that_the_key_is_gone_opens_no_session() {
    let mut first = World::unstarted(std::time::Duration::from_secs(30));
    first.store = hallpass::store::Settings::Postgres(cluster().settings(&cluster().database()));
    first.try_start(Some(&policy())).await.unwrap();
    let mut second = first.node_beside();
    second.try_start(None).await.unwrap();
    let (omar, bob) = (first.proven("omar").await, first.login("bob").await);
    let (sign_in, _) = second.service().sign_in_token(bob.token.expose_secret()).await.unwrap();
    let (taken, late) = (second.answer("bob"), second.answer("bob"));
    let apply = async |text| first.service().apply_policy(&omar, text, None, false).await.unwrap();
    apply(with_key("bob", 0x77, false)).await;
    // Before anything that would make it look.
    for refused in [
        second.service().login(taken, String::new()).await.map(drop),
        second.service().sign_in(sign_in, String::new()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Failure::LoginRefused)), "{refused:?}");
    }
    assert!(second.service().caller(bob.token.expose_secret()).await.is_err(), "ended where nobody had heard of it");
    apply(policy()).await;
    assert!(second.service().caller(bob.token.expose_secret()).await.is_err());
    // The same answer is good once the key is back: nothing of it was used up.
    second.service().login(late, String::new()).await.unwrap();
}
