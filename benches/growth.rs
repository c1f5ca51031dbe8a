//! What issuing costs when the store has grown, beside an empty one.
//!
//! One store is filled by the service itself, on a clock that is ahead of its work: certificates for a minute each, asked and certified in one call by 1,024
//! people, which expire as they would in years; then logins, until the log has its entries. Then two servers, one on that store and one on an empty
//! one, are driven by the same people over HTTP, on 64 connections, in slices by turns. Ratios are medians of the pairs of one pass.
//!
//! Run: `cargo bench --bench growth`; a smoke run in seconds: `-- --short`; other sizes: `-- --requests=100000 --entries=1000000`; where the filled
//! store is to be kept for another run: `-- --in=FOLDER`; one of the two alone, for a profile: `-- --only=grown` (`empty`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::allow_attributes,
    dead_code,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect; the desk has more than it needs"
)]

mod desk;
mod figures;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figures::median;
use hallpass::audit::event::Event;
use hallpass::client::Server;
use hallpass::identity::Proven;
use hallpass::identity::challenge::{Answer, statement};
use hallpass::name::{Account, PersonName, Target};
use hallpass::service::Service;
use hallpass::service::access::Ask;
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SshSignature};
use hallpass::store::sqlite::{Settings, SqliteStore};
use hallpass::store::{Change, Store as _};
use hallpass::time::{Clock, Lifetime, SystemClock, Timestamp};
use tokio::task::JoinSet;

/// How much is measured.
struct Plan {
    connections: usize,
    requests: u64,
    entries: u64,
    slice: Duration,
    passes: usize,
    kept: Option<PathBuf>,
    /// One of the two stores alone, for a profile.
    only: Option<usize>,
}

impl Plan {
    fn read() -> Self {
        let mut plan = Self {
            connections: 64,
            requests: 1_000_000,
            entries: 10_000_000,
            slice: Duration::from_secs(2),
            passes: 15,
            kept: None,
            only: None,
        };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--short", _) => {
                    plan = Self {
                        connections: 4,
                        requests: 128,
                        entries: 2_000,
                        slice: Duration::from_millis(150),
                        passes: 1,
                        ..plan
                    };
                }
                ("--requests", count) => plan.requests = count.parse().unwrap(),
                ("--entries", count) => plan.entries = count.parse().unwrap(),
                ("--passes", count) => plan.passes = count.parse().unwrap(),
                ("--only", which) => plan.only = Some(usize::from(which == "grown")),
                ("--in", folder) => plan.kept = Some(PathBuf::from(folder)),
                _ => {}
            }
        }
        plan
    }

    /// Each has one certificate issued before the clock of a store that is filled goes on by a second.
    const fn people(&self) -> usize {
        desk::people_on(self.connections)
    }
}

/// A clock that is set.
#[derive(Debug)]
struct Set(AtomicU64);

impl Set {
    fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.steady()).unwrap()
    }

    fn steady(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(&Settings { path: folder.join("hallpass.sqlite") }, desk::seal()).unwrap()
}

/// Fills the store in this folder.
async fn fill(folder: &Path, plan: &Plan) {
    let in_a_second = plan.people() as u64;
    let seconds = plan.requests.div_ceil(in_a_second);
    let clock = Arc::new(Set(AtomicU64::new(SystemClock.now().unix() - seconds - 600)));
    let began = Instant::now();
    let service = desk::service(folder, 0, plan.people(), Box::new(store(folder)), Arc::<Set>::clone(&clock)).await;
    let mut everybody = Vec::new();
    for second in 0..seconds {
        // A session is good for an hour.
        if second % 3_000 == 0 {
            everybody = people(&service, plan.people()).await;
        }
        let mut tasks = JoinSet::new();
        for (connection, some) in everybody.chunks(desk::people_on(1)).enumerate() {
            let (service, some) = (Arc::clone(&service), some.to_vec());
            tasks.spawn(async move { issue_to(&service, &some, connection as u64, second * in_a_second).await });
        }
        tasks.join_all().await;
        clock.forward(1);
        while service.tick().await.unwrap() > 0 {}
        if (second + 1) % 50 == 0 {
            println!("{} requests after {:.0?}", (second + 1) * in_a_second, began.elapsed());
        }
    }
    clock.forward(120);
    while service.tick().await.unwrap() > 0 {}
    let (_, mut size) = service.checkpoint().await.unwrap();
    drop(service);
    let store = store(folder);
    while size < plan.entries {
        let some = (plan.entries - size).min(1_000);
        let events = (0..some).map(|_| login(&clock)).collect();
        store.commit(Change { at: clock.now(), saves: Vec::new(), events }).await.unwrap();
        size += some;
    }
    println!("filled in {:.0?}: {} requests, {size} entries", began.elapsed(), seconds * in_a_second);
}

fn login(clock: &Set) -> Event {
    let key = desk::login_key(0).public_key().fingerprint();
    let expires = clock.now().plus(Lifetime::minutes(720)).unwrap();
    Event::LoggedIn { person: PersonName::parse("p0").unwrap(), key, address: "192.0.2.17".to_owned(), expires }
}

async fn people(service: &Arc<Service>, count: usize) -> Vec<Proven> {
    let mut people = Vec::new();
    for place in 0..count {
        let (challenge, _) = service.challenge().unwrap();
        let (person, key) = (PersonName::parse(&format!("p{place}")).unwrap(), desk::login_key(place));
        let text = statement(&service.settings().public_url, &person, &challenge);
        let signature = SshSignature::parse(&key.sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap()).unwrap();
        let answer = Answer { person, challenge, key: key.public_key().clone(), signature };
        people.push(service.login(answer, "192.0.2.17:1".to_owned()).await.unwrap().proven);
    }
    people
}

/// A certificate for each of them.
async fn issue_to(service: &Arc<Service>, people: &[Proven], connection: u64, first: u64) {
    for (number, by) in (0..).zip(people) {
        let ask = Ask {
            targets: vec![Target::parse("staging-1").unwrap()],
            account: Some(Account::parse("deploy").unwrap()),
            lifetime: Some(Lifetime::minutes(1)),
            start: None,
            reason: "INC-1 look at the logs".to_owned(),
            ticket: None,
            key: SessionKey::generate(seed(3, connection, first + number)).public_key().clone(),
        };
        service.ask_and_fetch(by, ask).await.unwrap().1.unwrap();
    }
}

/// Each key once, in all runs on a store that is kept.
fn seed(run: u64, place: u64, number: u64) -> [u8; 32] {
    let mut seed = [5; 32];
    for (part, number) in [run, place, number].into_iter().enumerate() {
        seed[8 * part..8 * part + 8].copy_from_slice(&number.to_be_bytes());
    }
    seed
}

/// One connection to one of the servers.
struct Hand {
    askers: desk::Askers,
    run: u64,
    place: u64,
    number: u64,
}

async fn hands(server: &Server, connections: usize, run: u64) -> Vec<Hand> {
    let mut hands = Vec::new();
    for place in 0..connections {
        hands.push(Hand { askers: desk::Askers::log_in(server, place).await, run, place: place as u64, number: 0 });
    }
    hands
}

/// All work until the slice is over; certificates per second.
async fn slice(hands: Vec<Hand>, length: Duration) -> (Vec<Hand>, f64) {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut hand in hands {
        tasks.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < length {
                hand.number += 1;
                desk::issue(hand.askers.next(), None, seed(hand.run, hand.place, hand.number)).await;
                done += 1;
            }
            (hand, done)
        });
    }
    let (hands, done): (Vec<Hand>, Vec<u32>) = tasks.join_all().await.into_iter().unzip();
    (hands, f64::from(done.iter().sum::<u32>()) / began.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() {
    let plan = Plan::read();
    // Beside the build, so that the disk is a disk.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let grown = plan.kept.clone().unwrap_or_else(|| folder.path().join("grown"));
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    if !grown.exists() {
        std::fs::create_dir(&grown).unwrap();
        fill(&grown, &plan).await;
    }
    let mut rates = vec![Vec::new(), Vec::new()];
    let mut both = Vec::new();
    for folder in [&empty, &grown] {
        let server = desk::serve(folder, 0, plan.people(), Box::new(store(folder))).await;
        both.push(hands(&server, plan.connections, SystemClock.now().unix()).await);
    }
    for _ in 0..=plan.passes {
        for (place, hands) in
            both.iter_mut().enumerate().filter(|(place, _)| plan.only.is_none_or(|only| only == *place))
        {
            let (back, rate) = slice(std::mem::take(hands), plan.slice).await;
            *hands = back;
            rates[place].push(rate);
        }
    }
    if let Some(only) = plan.only {
        return println!("certificates/s: {:.0}", median(rates.swap_remove(only)));
    }
    // The first pass opened the connections.
    for rates in &mut rates {
        rates.remove(0);
    }
    let (grown, empty) = (rates.remove(1), rates.remove(0));
    let ratios: Vec<f64> = empty.iter().zip(&grown).map(|(empty, grown)| grown / empty).collect();
    let (least, most) = ratios.iter().fold((f64::MAX, 0.0), |(a, b): (f64, f64), r| (a.min(*r), b.max(*r)));
    println!("certificates/s: {:.0} on an empty store, {:.0} on the grown one", median(empty), median(grown));
    println!("ratio {:.2} ({least:.2} to {most:.2})", median(ratios));
}
