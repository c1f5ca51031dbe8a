//! Two real nodes on one PostgreSQL: what is done on one is seen and obeyed on the other, and whatever dies or stands still, nothing is lost,
//! doubled or unlogged, by the client's own ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use hallpass::name::RequestId;
use hallpass::wire;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::kills::variable;
use super::ledger::Ledger;
use super::server::{Server, Site};
use super::story::{ALICE, BOB, Connection, OLGA, PEOPLE};
use crate::hosts::machine::Machine;
use crate::support::fixtures::House;
use crate::support::postgres::{Cluster, cluster};

/// How long a node may take to hear of another on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who waits between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Two nodes, with a connection to each that shares its logins.
struct Pair {
    site: Site,
    servers: [Server; 2],
    first: Connection,
    second: Connection,
}

impl Pair {
    /// Everybody logs in at the first node.
    async fn start(cluster: &Cluster) -> Self {
        let site = Site::of_nodes(cluster.settings(&cluster.database()));
        let servers = [site.start(None), site.start_second()];
        let mut first = Connection::to(servers[0].url.as_ref().unwrap(), BTreeMap::new()).await.unwrap();
        for (who, n) in PEOPLE {
            first.login(who, n).await.unwrap();
        }
        let second = Connection::to(servers[1].url.as_ref().unwrap(), first.tokens.clone()).await.unwrap();
        Self { site, servers, first, second }
    }
}

/// One that goes on without it serves what is true on this node alone, and looks well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_follows_the_others_no_more_ends_and_says_why() {
    let site = Site::of_nodes(cluster().settings(&cluster().database()));
    let server = site.start(Some("panic:follow.looked"));
    let id = server.id().to_string();
    let mut ended = tokio::task::spawn_blocking(move || server.ended());
    let Ok(ended) = timeout(PATIENCE, &mut ended).await else {
        std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap();
        panic!("it goes on as if nothing were missing: {:?}", ended.await);
    };
    let (code, said) = ended.unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("what follows other nodes has ended"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_on_one_node_is_seen_and_obeyed_on_the_other() {
    let pair = Pair::start(cluster()).await;
    let (first, second) = (&pair.first, &pair.second);

    // Asked on the first, approved on the second: who waits on the first is told.
    let asked = first.ask_with("web-1", [40; 32]).await.unwrap();
    let id = RequestId::parse(&asked.id).unwrap();
    let waiting = first.client(Some(ALICE));
    let mut stream = waiting.events(&asked.id).await.unwrap();
    let shown = timeout(PATIENCE, waiting.next_event(&mut stream)).await.unwrap().unwrap().unwrap();
    assert_eq!(shown.state, "pending");
    second.approve(id).await.unwrap();
    let shown = timeout(PATIENCE, waiting.next_event(&mut stream)).await.unwrap().unwrap().unwrap();
    assert_eq!((shown.state.as_str(), shown.approved_by), ("approved", vec![BOB.to_owned()]));
    // Either gives the certificate, and it is the same.
    let (one, two) = tokio::join!(first.fetch(id), second.fetch(id));
    assert_eq!(one.unwrap().certificate, two.unwrap().certificate);

    // A policy that is applied on the second decides on the first at once, whether or not it has heard of it.
    let old = House::text();
    let text = old.replace("\"dev-*\"", "\"dev-9\"");
    assert_ne!(text, old);
    let put = wire::PutPolicy { text, base: None, dry_run: false };
    assert!(first.ask_with("dev-1", [41; 32]).await.is_ok());
    let applied: wire::PolicyApplied = second.client(Some(OLGA)).put("/v1/policy", &put).await.unwrap();
    assert_eq!(applied.version, 2);
    let refused = first.ask_with("dev-1", [42; 32]).await;
    assert!(refused.is_err(), "{refused:?}");
    let shown: serde_json::Value = first.client(Some(OLGA)).get("/v1/policy").await.unwrap();
    assert_eq!(shown["version"], 2);

    // A host that joins on the first is asked for on the second at once; what it tells the first is seen there.
    let machine = Machine::new("host-1", &[60]);
    let wish = wire::host::JoinFor { names: vec!["host-*".to_owned()], ..wire::host::JoinFor::default() };
    let join: wire::host::NewJoin = second.client(Some(OLGA)).post("/v1/hosts/joins", &wish).await.unwrap();
    let body = machine.enrolment_by(&first.client(None), &join.token).await.unwrap();
    let enrolled: wire::host::Enrolled = first.client(None).post("/v1/hosts/enrol", &body).await.unwrap();
    let told = wire::host::CheckIn {
        about: wire::host::About { program: "0.1.0".into(), sshd: "OpenSSH_9.2p1".into(), os: "Debian 12".into() },
        trust: wire::host::Trust { file_sha256: "0".repeat(64), keys: Vec::new(), proven: Vec::new() },
        clock_ms: 0,
        guard: true,
        risky: Vec::new(),
        sessions: Vec::new(),
        run: None,
        shows: Vec::new(),
    };
    let _taken: wire::host::Nothing = first.host(&enrolled.token).post("/v1/hosts/check-in", &told).await.unwrap();
    let seen = async {
        loop {
            let shown = second.client(Some(OLGA)).get::<wire::host::HostDetail>("/v1/hosts/host-1").await;
            match shown {
                Ok(host) if host.seen.is_some() => return host,
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    let host = timeout(PATIENCE, seen).await.unwrap();
    assert!(host.seen.unwrap().guard);
}

/// Something that a client was told: with which key, of which request, and the certificate if it got one.
type Fact = (u32, RequestId, Option<String>);

/// The bytes of a client's key.
fn bytes_of(key: u32) -> [u8; 32] {
    let mut bytes = [77; 32];
    bytes[..4].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// When a client gives up: it must recover without hands long before.
fn deadline() -> Instant {
    Instant::now() + PATIENCE * 3
}

/// Asks until it is answered; whatever went wrong, the answer may have been lost alone.
async fn ask(connection: &Connection, key: u32) -> RequestId {
    let until = deadline();
    loop {
        match connection.ask_with("dev-1", bytes_of(key)).await {
            Ok(asked) => return RequestId::parse(&asked.id).unwrap(),
            Err(why) => assert!(Instant::now() < until, "{why:?}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Fetches until it gets one.
async fn fetch(connection: &Connection, id: RequestId) -> String {
    let until = deadline();
    loop {
        match connection.fetch(id).await {
            Ok(got) => return got.certificate,
            Err(why) => assert!(Instant::now() < until, "{why:?}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Clients of both nodes ask and fetch, each with `rounds` keys, again and again until each is answered.
fn load(pair: &Pair, rounds: u32, told: &UnboundedSender<Fact>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for n in 0..8 {
        let connection = if n % 2 == 0 { pair.first.clone() } else { pair.second.clone() };
        let told = told.clone();
        clients.spawn(async move {
            for key in (n * rounds)..((n + 1) * rounds) {
                let id = ask(&connection, key).await;
                told.send((key, id, None)).unwrap();
                told.send((key, id, Some(fetch(&connection, id).await))).unwrap();
            }
        });
    }
    clients
}

/// Waits for so many facts, or their end.
async fn collect(telling: &mut UnboundedReceiver<Fact>, count: usize, facts: &mut Vec<Fact>) {
    for _ in 0..count {
        match telling.recv().await {
            Some(fact) => facts.push(fact),
            None => return,
        }
    }
}

/// Compares all that was told with the log and the store.
async fn check(pair: Pair, rounds: u32, facts: Vec<Fact>) {
    let Pair { site, servers, second, .. } = pair;
    let mut ledger = Ledger::default();
    let mut requests: BTreeMap<u32, RequestId> = BTreeMap::new();
    for (key, id, certificate) in facts {
        assert_eq!(*requests.entry(key).or_insert(id), id, "one key has one request, also when it is asked again");
        ledger.certificates.extend(certificate.map(|line| (id, line)));
    }
    assert!(requests.len() >= 8 * rounds as usize);
    for (key, id) in requests {
        // Asked and fetched once more: nothing new comes of it.
        assert_eq!(second.ask_with("dev-1", bytes_of(key)).await.unwrap().id, id.to_string());
        ledger.certificates.push((id, second.fetch(id).await.unwrap().certificate));
        ledger.count(id, "asked");
        ledger.count(id, "certificate_to_be_signed");
        ledger.states.insert(id, "issued".to_owned());
    }
    let (entries, checkpoint, log_key) = second.log().await.unwrap();
    ledger.check_log(&entries, &checkpoint, &log_key);
    for server in servers {
        server.kill();
    }
    ledger.check_store(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_server_killed_under_load_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(&[]);
    let pair = Pair::start(&cluster).await;
    let (kills, mut facts) = (variable("HALLPASS_PG_KILLS", 3), Vec::new());
    let rounds = kills + 1;
    let (told, mut telling) = unbounded_channel();
    let clients = load(&pair, rounds, &told);
    drop(told);
    for _ in 0..kills {
        collect(&mut telling, 12, &mut facts).await;
        cluster = tokio::task::spawn_blocking(move || {
            cluster.kill_and_restart(&[]);
            cluster
        })
        .await
        .unwrap();
    }
    collect(&mut telling, usize::MAX, &mut facts).await;
    clients.join_all().await;
    check(pair, rounds, facts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_under_load_holds_up_nobody_and_doubles_nothing() {
    let pair = Pair::start(cluster()).await;
    let (rounds, pause, mut facts) = (6, Duration::from_secs(variable("HALLPASS_PAUSE_S", 0).into()), Vec::new());
    let (told, mut telling) = unbounded_channel();
    let clients = load(&pair, rounds, &told);
    drop(told);
    // A long pause is one: whoever calls the node that stands still would else give up before the last has ended.
    for _ in 0..if pause.is_zero() { 3 } else { 1 } {
        collect(&mut telling, 10, &mut facts).await;
        // Wherever it is: within a transaction, with the answer to a commit under way, or in between.
        pair.servers[1].signal("STOP");
        let key = 1_000_000 + u32::try_from(facts.len()).unwrap();
        facts.push((key, ask(&pair.first, key).await, None));
        let (until, mut further) = (Instant::now() + pause, key + 1_000_000);
        while Instant::now() < until {
            let id = ask(&pair.first, further).await;
            facts.push((further, id, Some(fetch(&pair.first, id).await)));
            further += 1;
            tokio::time::sleep(LOOK_AGAIN * 10).await;
        }
        pair.servers[1].signal("CONT");
    }
    collect(&mut telling, usize::MAX, &mut facts).await;
    clients.join_all().await;
    check(pair, rounds, facts).await;
}
