//! What it costs that many wait: hosts that ask again and again whether what they trust is still so, and people who wait for an approval.
//!
//! 10,000 enrolled hosts each look once a minute, over a connection of its own that is closed again (and, beside that, over connections that stay); 2,000
//! people each have an event stream open for a request that nobody approves. The kernel is asked what the service has had of a processor, and what is resident.
//!
//! Run: `cargo bench --bench waiting`; a smoke run in seconds: `cargo bench --bench waiting -- --short`; with others: `-- --hosts=0 --waiting=500`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    dead_code,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect; the desk has more than it needs"
)]

mod apart;
mod desk;
mod figures;
#[path = "support/hosts.rs"]
mod hosts;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apart::Apart;
use figures::percentile;
use hallpass::client::{Client, EventStream, Server};
use hallpass::name::HostName;
use hallpass::ssh::host::{HOST_NAMESPACE, HostPurpose, statement};
use hallpass::ssh::private::LoginKey;
use hallpass::time::{Clock as _, SystemClock};
use hallpass::wire;
use hallpass::wire::host as host_wire;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    hosts: u32,
    waiting: usize,
    /// How often each host looks.
    every: Duration,
    length: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);
const FULL: Plan = Plan { hosts: 10_000, waiting: 2_000, every: MINUTE, length: MINUTE };
const SHORT: Plan = Plan { hosts: 50, waiting: 20, every: Duration::from_secs(1), length: Duration::from_secs(1) };

impl Plan {
    fn read() -> Self {
        let mut plan = FULL;
        for argument in std::env::args().skip(1) {
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--short", _) => plan = SHORT,
                ("--hosts", count) => plan.hosts = count.parse().unwrap(),
                ("--waiting", count) => plan.waiting = count.parse().unwrap(),
                _ => {}
            }
        }
        plan
    }
}

/// How many are made ready, or wait for an answer, at once.
const AT_ONCE: usize = 32;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A host that looks: its token, and what it knows.
struct Host {
    token: String,
    etag: String,
}

async fn host(client: &Client, number: u32) -> Host {
    let name = hosts::host_name(number);
    let purpose = HostPurpose::Session.word().to_owned();
    let wanted = host_wire::ChallengeFor { name: name.clone(), purpose };
    let challenge: host_wire::HostChallenge = client.post("/v1/hosts/challenge", &wanted).await.unwrap();
    let line = hosts::host_key(number).to_openssh("bench").unwrap();
    let key = LoginKey::parse(line.as_bytes(), None).unwrap();
    let (host, purpose) = (HostName::parse(&name).unwrap(), HostPurpose::Session);
    let text = statement(&challenge.server, purpose, &host, &challenge.challenge);
    let answer = host_wire::SessionAnswer {
        name,
        challenge: challenge.challenge,
        key: key.public_key().to_openssh(),
        signature: key.sign(HOST_NAMESPACE, text.as_bytes()).unwrap(),
    };
    let session: host_wire::HostToken = client.post("/v1/hosts/session", &answer).await.unwrap();
    let state: host_wire::State =
        client.for_session(session.token.clone().into()).get("/v1/hosts/self/state").await.unwrap();
    Host { token: session.token.to_string(), etag: state.etag }
}

/// One look: it knows that already.
async fn look(client: &Client, host: &Host) {
    let news: Option<host_wire::State> = client
        .for_session(host.token.clone().into())
        .get_changed("/v1/hosts/self/state", &host.etag, TIMEOUT)
        .await
        .unwrap();
    assert!(news.is_none(), "nothing has changed");
}

fn nobody(server: &Server) -> Client {
    Client::new(server.clone(), None, TIMEOUT).unwrap()
}

/// Makes so many of something, some at a time.
async fn many<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let (mut all, mut under_way) = (Vec::with_capacity(count), JoinSet::new());
    for number in 0..count {
        if under_way.len() >= AT_ONCE {
            all.push(under_way.join_next().await.unwrap().unwrap());
        }
        under_way.spawn(make(number));
    }
    all.extend(under_way.join_all().await);
    all
}

/// All hosts look at their times for so long; how long the looks took.
async fn looks(plan: &Plan, hosts: &Arc<Vec<Host>>, client: impl Fn() -> Arc<Client>) -> Vec<Duration> {
    let per_second = hosts.len() as f64 / plan.every.as_secs_f64();
    let count = (per_second * plan.length.as_secs_f64()) as usize;
    let (began, took) = (Instant::now(), Arc::new(Mutex::new(Vec::with_capacity(count))));
    let mut under_way = JoinSet::new();
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / per_second);
        tokio::time::sleep_until(due.into()).await;
        let (hosts, took, client) = (Arc::clone(hosts), Arc::clone(&took), client());
        under_way.spawn(async move {
            look(&client, &hosts[number % hosts.len()]).await;
            took.lock().await.push(due.elapsed());
        });
    }
    under_way.join_all().await;
    std::mem::take(&mut *took.lock().await)
}

/// Somebody who waits for an approval.
async fn waiting(server: Server, place: usize) -> (Client, EventStream) {
    let asker = desk::log_in(&server, &format!("p{place}"), place).await;
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
    let asked: wire::Request = asker.post("/v1/requests", &desk::ask("web-1", seed)).await.unwrap();
    let mut stream = asker.events(&asked.id).await.unwrap();
    asker.next_event(&mut stream).await.unwrap().unwrap();
    (asker, stream)
}

/// What the service does in so long, and what is done meanwhile.
async fn tell<T>(what: &str, service: &Apart, length: Duration, meanwhile: impl Future<Output = T>) -> T {
    let (before, end) = (service.used(), tokio::time::sleep(length));
    let began = Instant::now();
    let (done, ()) = tokio::join!(meanwhile, end);
    let share = (service.used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    let (resident, files, _) = service.look();
    println!("{what:<58} {:>6.2} % of a core {resident:>7.1} MiB resident {files:>6} files", share * 100.0);
    done
}

async fn measure(plan: &Plan, service: &Apart) {
    let server = &service.server;
    let client = Arc::new(nobody(server));
    tell("nobody", service, plan.length / 4, async {}).await;
    let hosts = many(plan.hosts as usize, |number| {
        let client = Arc::clone(&client);
        async move { host(&client, u32::try_from(number).unwrap()).await }
    });
    let hosts = Arc::new(hosts.await);
    tell(&format!("{} hosts, none looks", plan.hosts), service, plan.length / 4, async {}).await;
    let shared = looks(plan, &hosts, || Arc::clone(&client));
    let took = tell("each looks once a minute, connections that stay", service, plan.length, shared).await;
    let apart = looks(plan, &hosts, || Arc::new(nobody(server)));
    let took_apart = tell("the same, a new connection each", service, plan.length, apart).await;
    let people = many(plan.waiting, |place| waiting(server.clone(), place)).await;
    let what = format!("{} people wait, and no host looks", people.len());
    tell(&what, service, plan.length, async {}).await;
    let both = looks(plan, &hosts, || Arc::clone(&client));
    tell("both", service, plan.length, both).await;
    for (what, mut took) in [("stays", took), ("is new", took_apart)] {
        let (p50, p99) = (percentile(&mut took, 50), percentile(&mut took, 99));
        println!("{} looks over a connection that {what}: p50 {p50:.2?}, p99 {p99:.2?}", took.len());
    }
}

fn main() {
    let plan = Plan::read();
    let prepare = async |folder: &Path| {
        // A service's first start begins the log.
        drop(desk::service(folder, 0, plan.waiting, Box::new(apart::open(folder)), Arc::new(SystemClock)).await);
        hosts::enrol(&apart::open(folder), SystemClock.now(), plan.hosts).await;
    };
    if apart::serve(plan.waiting, prepare) {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let service = Apart::start(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&plan, &service));
}
