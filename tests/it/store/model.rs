//! Random histories on the store against a model in memory: what was acknowledged is there, what was refused is not, also
//! after reopening, and state and log have no orphans (I-28).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hallpass::access::{self, Command, Step};
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::tree::Frontier;
use hallpass::identity::challenge::Redemption;
use hallpass::identity::session::{Session, TokenHash};
use hallpass::name::{PersonName, PolicyVersion, RequestId};
use hallpass::store::{LIST_MAX, RequestFilter, RowVersion, Save, Store, StoreError, Stored, StoredPolicy};
use hallpass::time::{Lifetime, Timestamp};
use proptest::prelude::*;

use super::{Database, Desk, Postgres, Sqlite, change, event, outcome};
use crate::support::fixtures::{at, id, key, person};
use crate::support::histories::{self, Many};
use crate::support::slate::Slate;

const ASKERS: [&str; 2] = ["alice@example.com", "ann@example.com"];
const APPROVERS: [&str; 2] = ["bob@example.com", "ben@example.com"];
const HOSTS: [&[&str]; 4] = [&["dev-1"], &["web-1"], &["web-2", "web-3"], &["dual-1", "dual-2"]];

/// What somebody does; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Act {
    Ask {
        asker: usize,
        hosts: usize,
    },
    Move {
        request: usize,
        how: How,
        person: usize,
    },
    /// The same command twice at the same time, from the same version.
    Race {
        request: usize,
        how: How,
        person: usize,
    },
    /// A change from a version that is over.
    Stale {
        request: usize,
    },
    Outcome {
        request: usize,
    },
    Login {
        nonce: u8,
        person: usize,
        lifetime: u64,
    },
    Logout {
        token: u8,
    },
    LogoutEverywhere {
        person: usize,
    },
    /// A login key leaves the policy.
    KeyGone {
        person: usize,
        held: u8,
    },
    Sweep,
    Policy {
        skip: u32,
    },
    Pass {
        seconds: u64,
    },
    /// The clock is set back.
    Back {
        seconds: u64,
    },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Approve,
    Deny,
    Withdraw,
    Certify,
    Extend,
    End,
    Tick,
}

fn how() -> impl Strategy<Value = How> {
    use How::{Approve, Certify, Deny, End, Extend, Tick, Withdraw};
    prop_oneof![
        4 => Just(Approve), 1 => Just(Deny), 1 => Just(Withdraw), 4 => Just(Certify), 2 => Just(Extend),
        1 => Just(End), 2 => Just(Tick),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0_usize..8;
    prop_oneof![
        4 => (0..2_usize, 0..4_usize).prop_map(|(asker, hosts)| Act::Ask { asker, hosts }),
        12 => (n.clone(), how(), n.clone()).prop_map(|(request, how, person)| Act::Move { request, how, person }),
        2 => (n.clone(), how(), n.clone()).prop_map(|(request, how, person)| Act::Race { request, how, person }),
        1 => n.clone().prop_map(|request| Act::Stale { request }),
        3 => n.clone().prop_map(|request| Act::Outcome { request }),
        2 => (0..6_u8, n.clone(), 1..2_000_u64)
            .prop_map(|(nonce, person, lifetime)| Act::Login { nonce, person, lifetime }),
        1 => (0..6_u8).prop_map(|token| Act::Logout { token }),
        1 => n.clone().prop_map(|person| Act::LogoutEverywhere { person }),
        1 => (n, 0..2_u8).prop_map(|(person, held)| Act::KeyGone { person, held }),
        1 => Just(Act::Sweep),
        1 => (0..3_u32).prop_map(|skip| Act::Policy { skip }),
        3 => (1..900_u64).prop_map(|seconds| Act::Pass { seconds }),
        1 => (1..100_u64).prop_map(|seconds| Act::Back { seconds }),
        1 => Just(Act::Reopen),
    ]
}

/// What must be in the store.
#[derive(Default)]
struct Model {
    requests: Vec<Stored>,
    log: Vec<(Timestamp, Event)>,
    outcomes: BTreeSet<u64>,
    sessions: BTreeMap<TokenHash, Session>,
    redeemed: BTreeMap<[u8; 16], Timestamp>,
    policies: Vec<StoredPolicy>,
}

impl Model {
    fn wrote(&mut self, now: Timestamp, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let last = self.log.last().map_or(now, |(at, _)| *at);
            self.log.push((now.max(last), event));
        }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap()
    }
}

struct World {
    database: Box<dyn Database>,
    desk: Desk,
    model: Model,
    /// Seconds after the beginning.
    clock: u64,
    /// Stands in while the database is closed.
    none: Arc<dyn Store>,
}

impl World {
    async fn new(database: Box<dyn Database>) -> Self {
        let desk = Desk::new(&*database).await;
        let mut model = Model::default();
        model.wrote(at(0), [Event::LogStarted { service: "test".to_owned(), log_key: "test".to_owned() }]);
        Self { database, desk, model, clock: 1_000, none: Sqlite::new().open() }
    }

    fn now(&self) -> Timestamp {
        at(self.clock)
    }

    /// What the rules make of a command, if they let it.
    fn step(&self, request: usize, how: How, person: usize) -> Option<(usize, Step)> {
        let index = request.checked_rem(self.model.requests.len())?;
        let request = self.model.requests[index].request.clone();
        let house = &self.desk.house;
        let asker = house.proven(request.parts().asker.as_str());
        let check = house.check();
        let command = match how {
            How::Approve => house.approval(&request, APPROVERS[person % 2]),
            How::Deny => Command::Deny { by: house.proven(APPROVERS[person % 2]), reason: "no".to_owned(), check },
            How::Withdraw => Command::Withdraw { by: asker },
            How::Certify => Command::Certify { by: asker, check },
            How::Extend => Command::Extend { by: asker, lifetime: Lifetime::minutes(10), reason: String::new(), check },
            How::End => Command::End { by: asker, is_operator: false, reason: String::new() },
            How::Tick => Command::Tick,
        };
        let step = access::step(request, command, self.now()).ok()?;
        // Fetching the same certificate again writes nothing.
        (step.permit.is_some() || !step.events.is_empty()).then_some((index, step))
    }

    fn took(&mut self, index: usize, stored: Stored, events: Vec<Event>) {
        let now = self.now();
        let before = &self.model.requests[index];
        assert_eq!(stored.version, RowVersion(before.version.0 + 1));
        let certificates = |stored: &Stored| {
            let grants = &stored.request.parts().grants;
            grants.iter().filter_map(|grant| grant.certificate.clone()).collect::<Vec<_>>()
        };
        let new = certificates(&stored).split_off(certificates(before).len());
        for certified in new {
            assert_eq!(certified.serial.number(), self.model.size(), "the serial is the entry's index");
            let window = stored.request.grant().unwrap().window;
            let event = Event::CertificateToBeSigned {
                request: stored.request.id(),
                person: stored.request.parts().asker.clone(),
                serial: certified.serial,
                ca: certified.tbs.ca().fingerprint(),
                window,
                tbs: certified.tbs.bytes().to_vec(),
                policy: PolicyVersion(1),
            };
            self.model.wrote(now, [event]);
        }
        self.model.wrote(now, events);
        self.model.requests[index] = stored;
    }

    async fn act(&mut self, act: Act) {
        let now = self.now();
        match act {
            Act::Ask { asker, hosts } => {
                let id = id(u32::try_from(self.model.requests.len()).unwrap());
                let step = self.desk.house.ask(id, ASKERS[asker], HOSTS[hosts], now);
                let stored = self.desk.ask(id, ASKERS[asker], HOSTS[hosts], now).await;
                assert_eq!((&stored.request, stored.version), (&step.request, RowVersion(1)));
                self.model.requests.push(stored);
                self.model.wrote(now, step.events);
            }
            Act::Move { request, how, person } => {
                let Some((index, step)) = self.step(request, how, person) else { return };
                let (events, expected) = (step.events.clone(), self.model.requests[index].version);
                let stored = self.desk.save(step, expected, now).await.unwrap();
                self.took(index, stored, events);
            }
            Act::Race { request, how, person } => {
                let Some((index, first)) = self.step(request, how, person) else { return };
                let Some((_, second)) = self.step(request, how, person) else { return };
                let (events, expected) = (first.events.clone(), self.model.requests[index].version);
                let (one, two) =
                    tokio::join!(self.desk.save(first, expected, now), self.desk.save(second, expected, now));
                let (stored, refused) = if one.is_ok() { (one, two) } else { (two, one) };
                assert!(matches!(refused, Err(StoreError::Conflict)));
                self.took(index, stored.unwrap(), events);
            }
            Act::Stale { request } => {
                let Some(index) = request.checked_rem(self.model.requests.len()) else { return };
                let Stored { request, version } = self.model.requests[index].clone();
                let saves = vec![Save::Request { request, expected: RowVersion(version.0 - 1) }];
                let refused = self.desk.store.commit(change(now, saves, vec![event()])).await;
                assert!(matches!(refused, Err(StoreError::Conflict)));
            }
            Act::Outcome { request } => self.outcome(request).await,
            Act::Login { nonce, person, lifetime } => self.login(nonce, person, lifetime).await,
            Act::Logout { token } => {
                let token = TokenHash([token; 32]);
                self.desk.store.commit(change(now, vec![Save::EndSession(token)], vec![event()])).await.unwrap();
                self.model.sessions.remove(&token);
                self.model.wrote(now, [event()]);
            }
            Act::LogoutEverywhere { person: n } => {
                let who = person(ASKERS[n % 2]);
                let saves = vec![Save::EndSessionsOf(who.clone())];
                self.desk.store.commit(change(now, saves, vec![event()])).await.unwrap();
                self.model.sessions.retain(|_, session| session.person != who);
                self.model.wrote(now, [event()]);
            }
            Act::KeyGone { person: n, held } => {
                let (who, gone) = (person(ASKERS[n % 2]), key(held).fingerprint());
                let saves = vec![Save::EndSessionsBy(who.clone(), gone)];
                self.desk.store.commit(change(now, saves, vec![event()])).await.unwrap();
                self.model.sessions.retain(|_, session| session.person != who || session.key != gone);
                self.model.wrote(now, [event()]);
            }
            Act::Sweep => {
                self.desk.store.sweep(now).await.unwrap();
                self.model.sessions.retain(|_, session| session.expires > now);
                self.model.redeemed.retain(|_, expires| *expires > now);
            }
            Act::Policy { skip } => self.apply(skip).await,
            Act::Pass { seconds } => self.clock += seconds,
            Act::Back { seconds } => self.clock -= seconds.min(self.clock),
            Act::Reopen => self.reopen().await,
        }
    }

    async fn outcome(&mut self, request: usize) {
        let Some(index) = request.checked_rem(self.model.requests.len()) else { return };
        let request = self.model.requests[index].request.clone();
        let Some(certified) = request.grant().and_then(|grant| grant.certificate.clone()) else { return };
        let signed = outcome(&request);
        let result = self.desk.store.commit(change(self.now(), vec![], vec![signed.clone()])).await;
        if self.model.outcomes.insert(certified.serial.number()) {
            result.unwrap();
            self.model.wrote(self.now(), [signed]);
        } else {
            assert!(matches!(result, Err(StoreError::Conflict)), "a second outcome");
        }
    }

    async fn login(&mut self, nonce: u8, n: usize, lifetime: u64) {
        let now = self.now();
        let login_key = key(nonce % 2).fingerprint();
        let (nonce, token) = ([nonce; 16], TokenHash([nonce; 32]));
        let expires = at(self.clock + lifetime);
        let session = Session {
            token,
            person: person(ASKERS[n % 2]),
            key: login_key,
            opened: now,
            expires,
            seal: [nonce[0]; 32],
        };
        let saves = vec![Save::Redeem(Redemption { nonce, expires }), Save::NewSession(session.clone())];
        let result = self.desk.store.commit(change(now, saves, vec![event()])).await;
        if self.model.redeemed.contains_key(&nonce) {
            assert!(matches!(result, Err(StoreError::Replayed)));
        } else {
            result.unwrap();
            self.model.redeemed.insert(nonce, expires);
            self.model.sessions.insert(token, session);
            self.model.wrote(now, [event()]);
        }
    }

    async fn apply(&mut self, skip: u32) {
        let version = PolicyVersion(u32::try_from(self.model.policies.len()).unwrap() + skip);
        let policy =
            StoredPolicy { version, text: format!("# {version}"), by: "system:signal".to_owned(), at: self.now() };
        let saves = vec![Save::NewPolicy(policy.clone())];
        let result = self.desk.store.commit(change(self.now(), saves, vec![event()])).await;
        if skip == 1 {
            result.unwrap();
            self.model.policies.push(policy);
            self.model.wrote(self.now(), [event()]);
        } else {
            assert!(matches!(result, Err(StoreError::Conflict)));
        }
    }

    /// Compares everything before, reopens, and compares everything again.
    async fn reopen(&mut self) {
        self.compare().await;
        // The old store must have given up the file before a new one takes it.
        self.desk.store = Arc::clone(&self.none);
        self.desk.store = self.database.open().await;
        self.compare().await;
    }

    async fn compare(&self) {
        let (store, model) = (&self.desk.store, &self.model);
        let mut frontier = Frontier::default();
        let mut log = Vec::new();
        let bytes = store.entries(0, LIST_MAX).await.unwrap();
        for bytes in &bytes {
            let entry = Entry::parse(bytes).unwrap();
            assert_eq!(entry.index, frontier.size());
            frontier.push(Entry::leaf_hash(bytes));
            log.push((entry.at, entry.event));
        }
        assert_eq!(log, model.log);
        let head = store.head().await.unwrap();
        assert_eq!((head.frontier, head.at), (frontier, model.log.last().unwrap().0));

        let mut newest_first = model.requests.clone();
        newest_first.reverse();
        newest_first.sort_by_key(|stored| std::cmp::Reverse(stored.request.parts().asked));
        let all = RequestFilter { limit: LIST_MAX, ..RequestFilter::default() };
        assert_eq!(store.requests(all).await.unwrap(), newest_first);
        self.compare_requests().await;

        for n in 0..6 {
            let token = TokenHash([n; 32]);
            assert_eq!(store.session(token).await.unwrap(), model.sessions.get(&token).cloned());
        }
        assert_eq!(store.policy(None).await.unwrap(), model.policies.last().cloned());
        assert_eq!(store.policies().await.unwrap().len(), model.policies.len());
    }

    async fn compare_requests(&self) {
        let (store, model) = (&self.desk.store, &self.model);
        let known: BTreeSet<RequestId> = model.requests.iter().map(|stored| stored.request.id()).collect();
        let mut joined = 0;
        for stored in &model.requests {
            let request = &stored.request;
            assert_eq!(store.request(request.id()).await.unwrap().as_ref(), Some(stored));
            let entries = store.entries_of(request.id()).await.unwrap();
            assert!(matches!(entries.first().unwrap().event, Event::Asked { .. }));
            assert!(u64::try_from(entries.len()).unwrap() >= stored.version.0, "a change without an entry");
            joined += entries.len();
        }
        let about = model.log.iter().filter_map(|(_, event)| event.request());
        assert!(about.clone().all(|id| known.contains(&id)), "an entry without a request");
        assert_eq!(about.count(), joined);
        for who in ASKERS.map(person) {
            let key = model.requests.first().map(|stored| stored.request.parts().key.clone());
            let Some(key) = key else { continue };
            assert_eq!(store.open_of(who.clone(), key).await.unwrap().count, self.open_count(&who));
        }
        let mut due: Vec<&Stored> = model.requests.iter().collect();
        due.retain(|stored| stored.request.next_tick().is_some_and(|tick| tick <= self.now()));
        due.sort_by_key(|stored| stored.request.next_tick());
        let due: Vec<RequestId> = due.iter().map(|stored| stored.request.id()).collect();
        let found = store.due(self.now(), LIST_MAX).await.unwrap();
        assert_eq!(found.iter().map(|stored| stored.request.id()).collect::<Vec<_>>(), due);
    }

    fn open_count(&self, who: &PersonName) -> u64 {
        let is_open = |stored: &&Stored| {
            let parts = stored.request.parts();
            parts.asker == *who && ["pending", "approved", "issued"].contains(&parts.state.word())
        };
        u64::try_from(self.model.requests.iter().filter(is_open).count()).unwrap()
    }
}

/// What the store of this database says at each step is what the model says, whatever is done.
async fn live(database: Box<dyn Database>, acts: Vec<Act>) {
    let mut world = World::new(database).await;
    for act in acts {
        world.act(act).await;
    }
    world.reopen().await;
}

fn acts() -> BoxedStrategy<Vec<Act>> {
    prop::collection::vec(act(), 1..60).boxed()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Each in a store of its own.
const fn alone(usual: u64) -> Many {
    Many { usual, together: 1 }
}

#[test]
fn the_store_holds_what_it_acknowledged_and_nothing_else() {
    histories::live(alone(24), acts, runtime, |runtime, histories| {
        for (_, acts) in histories {
            runtime.block_on(live(Box::new(Sqlite::new()), acts.clone()));
        }
    });
}

#[test]
fn so_does_that_of_many_nodes() {
    let place = || {
        let runtime = runtime();
        let slate = runtime.block_on(Slate::new());
        (runtime, slate)
    };
    histories::live(alone(8), acts, place, |(runtime, slate), histories| {
        runtime.block_on(async {
            for (_, acts) in histories {
                let name = slate.wiped().await.database;
                live(Box::new(Postgres { name }), acts.clone()).await;
            }
        });
    });
}
