//! Logins and sessions: one answer, one person, one session, and rights read anew.

use hallpass::identity::challenge::Answer;
use hallpass::service::Failure;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::time::Lifetime;
use secrecy::ExposeSecret as _;

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
