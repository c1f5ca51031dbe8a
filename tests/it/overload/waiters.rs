//! Thousands who wait on event streams: all are told, and nothing stays behind.

use std::fmt::Write as _;

use hallpass::client::{Client, EventStream};
use hallpass::identity::challenge::statement;
use hallpass::name::PersonName;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::LOGIN_NAMESPACE;
use hallpass::wire;
use tokio::task::JoinSet;

use super::{figure, until_at_least};
use crate::api::approve;
use crate::api::site::Site;

/// How many people wait, each on one connection; and on how many streams each: one less than a person (and a connection) may have.
const PEOPLE: usize = 32;
const STREAMS: usize = 63;

fn key(place: usize) -> LoginKey {
    let mut seed = [0xE0; 32];
    seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
    LoginKey::parse(SessionKey::generate(seed).to_openssh("waits").unwrap().as_bytes(), None).unwrap()
}

fn name(place: usize) -> String {
    format!("w{place}@example.com")
}

/// The policy of the tests, with people more who may approve.
fn policy() -> String {
    let mut text = crate::support::policy();
    for place in 0..PEOPLE {
        let key = key(place).public_key().to_openssh();
        write!(text, "\n[[person]]\nname = \"{}\"\ngroups = [\"sre\"]\nkeys = [\"{key}\"]\n", name(place)).unwrap();
    }
    text
}

async fn log_in(site: &Site, place: usize) -> Client {
    let nobody = site.client(None);
    let challenge: wire::Challenge = nobody.post("/v1/login/challenge", &()).await.unwrap();
    let person = PersonName::parse(&name(place)).unwrap();
    let text = statement(&challenge.server, &person, &challenge.challenge);
    let answer = wire::LoginAnswer {
        person: name(place),
        challenge: challenge.challenge,
        key: key(place).public_key().to_openssh(),
        signature: key(place).sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap(),
    };
    let session: wire::NewSession = nobody.post("/v1/login/ssh", &answer).await.unwrap();
    site.client(Some(&session.token))
}

/// Waits on a stream until the request is in this state.
async fn until_state(client: &Client, stream: &mut EventStream, state: &str) {
    loop {
        let event = client.next_event(stream).await.unwrap().expect("the stream goes on");
        if event.state == state {
            return;
        }
    }
}

/// One person's streams on one request: each is told of the approval.
async fn waits(client: Client, id: String, opened: tokio::sync::mpsc::UnboundedSender<()>) {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = client.events(&id).await.unwrap();
        until_state(&client, &mut stream, "pending").await;
        opened.send(()).unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        until_state(&client, stream, "approved").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_who_wait_are_all_told_and_leave_nothing_behind() {
    let site = Site::with(|settings| settings.connections_max = 1_000).await;
    let omar = site.proven("omar").await;
    site.world.service().apply_policy(&omar, policy(), None, false).await.unwrap();
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    let (opened, mut opens) = tokio::sync::mpsc::unbounded_channel();
    let mut people = JoinSet::new();
    for place in 0..PEOPLE {
        people.spawn(waits(log_in(&site, place).await, asked.id.clone(), opened.clone()));
    }
    for _ in 0..PEOPLE * STREAMS {
        opens.recv().await.unwrap();
    }
    until_at_least(&site, "hallpass_http_event_streams", 2_000).await;
    // What others do concerns none of them, and goes on.
    let other: wire::Request = alice.post("/v1/requests", &site.ask("web-2", "deploy")).await.unwrap();
    approve(&bob, &other.id).await.unwrap();
    approve(&bob, &asked.id).await.unwrap();
    people.join_all().await;
    while figure(&site, "hallpass_http_event_streams").await > 0 {
        tokio::task::yield_now().await;
    }
}
