//! Random histories: whatever people, clock, CA key, policy and restarts do in whatever order, the promises hold, and either database
//! decides the same.

use std::time::Duration;

use hallpass::access::Narrowing;
use hallpass::identity::Proven;
use hallpass::name::RequestId;
use hallpass::service::access::{Approval, Ask};
use hallpass::service::{Failure, Outcome};
use hallpass::store;
use hallpass::time::{Lifetime, Timestamp};
use proptest::prelude::*;

use crate::support::check::Verified;
use crate::support::histories::{self, History, Many};
use crate::support::slate::Slate;
use crate::support::{Fault, PEOPLE, START, World, policy, prefix, signed_by};

/// One thing that happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Deed {
    Ask {
        who: usize,
        place: usize,
        minutes: Option<u32>,
    },
    Approve {
        who: usize,
        request: usize,
        minutes: Option<u32>,
        /// Whether their own key signs it.
        signs: bool,
    },
    Deny {
        who: usize,
        request: usize,
    },
    Withdraw {
        who: usize,
        request: usize,
    },
    Fetch {
        who: usize,
        request: usize,
    },
    Extend {
        who: usize,
        request: usize,
        minutes: u32,
    },
    End {
        who: usize,
        request: usize,
    },
    Pass {
        seconds: u32,
    },
    /// The clock is set back; beyond the tolerance nothing is issued.
    Back {
        seconds: u32,
    },
    Tick,
    Fault {
        fault: Fault,
    },
    Policy {
        which: usize,
    },
    Restart {
        /// Whether the store is opened anew, too.
        whole: bool,
    },
}

const PLACES: [(&[&str], &str); 5] = [
    (&["staging-1"], "deploy"),
    (&["web-1"], "deploy"),
    (&["tag:role=web"], "debug"),
    (&["db-1"], "postgres"),
    (&["legacy-1"], "ops"),
];

fn deed() -> impl Strategy<Value = Deed> {
    let (who, request) = (0..PEOPLE.len(), 0..8_usize);
    // Those who can do something do most.
    let asker = prop_oneof![8 => Just(0_usize), 1 => who.clone()];
    let approver = prop_oneof![8 => 1..4_usize, 1 => who.clone()];
    let faults = [Fault::Fails, Fault::OtherKey, Fault::OtherBytes, Fault::Garbage];
    let fault = prop_oneof![4 => Just(Fault::None), 3 => prop::sample::select(faults.to_vec())];
    prop_oneof![
        6 => (asker.clone(), 0..PLACES.len(), prop::option::of(1..70_u32))
            .prop_map(|(who, place, minutes)| Deed::Ask { who, place, minutes }),
        10 => (approver.clone(), request.clone(), prop::option::weighted(0.3, 1..70_u32), any::<bool>())
            .prop_map(|(who, request, minutes, signs)| Deed::Approve { who, request, minutes, signs }),
        1 => (approver, request.clone()).prop_map(|(who, request)| Deed::Deny { who, request }),
        1 => (asker.clone(), request.clone()).prop_map(|(who, request)| Deed::Withdraw { who, request }),
        16 => (asker.clone(), request.clone()).prop_map(|(who, request)| Deed::Fetch { who, request }),
        3 => (asker, request.clone(), 1..70_u32)
            .prop_map(|(who, request, minutes)| Deed::Extend { who, request, minutes }),
        1 => (who, request).prop_map(|(who, request)| Deed::End { who, request }),
        4 => (0..900_u32).prop_map(|seconds| Deed::Pass { seconds }),
        1 => (1..90_u32).prop_map(|seconds| Deed::Back { seconds }),
        1 => Just(Deed::Tick),
        2 => fault.prop_map(|fault| Deed::Fault { fault }),
        1 => (0..4_usize).prop_map(|which| Deed::Policy { which }),
        1 => prop::bool::weighted(0.05).prop_map(|whole| Deed::Restart { whole }),
    ]
}

/// A policy as it is, one with other approvers, one that is stricter, and one that wants signatures.
fn variant(which: usize) -> String {
    let web =
        |approval: &str| policy().replace("[{ need = 1, from = [\"group:sre\"] }]", &format!("[{{ {approval} }}]"));
    match which {
        0 => policy(),
        1 => web("need = 1, from = [\"group:dba\"]"),
        2 => web("need = 2, from = [\"group:sre\"]").replace("max = \"1h\"", "max = \"40m\""),
        _ => web("need = 1, from = [\"group:sre\"], signed = true"),
    }
}

/// How long the CA key may take: as long as the machine does, however busy it is.
const SIGN_TIMEOUT: Duration = Duration::from_secs(600);

/// How many histories a world sees, a week apart.
const TOGETHER: u64 = 25;

/// After how many of them somebody keeps a checkpoint.
const KEPT_EACH: usize = 10;

/// What came of each deed of each history.
type Outcomes = Vec<(u64, Vec<String>)>;

struct Story {
    world: World,
    people: Vec<Proven>,
    requests: Vec<RequestId>,
    /// The variant of the policy that is in force.
    policy: usize,
    verified: Verified,
}

impl Story {
    async fn begin() -> Self {
        Self::of(World::with(&policy(), SIGN_TIMEOUT).await).await
    }

    /// In a database that several nodes could share.
    async fn begin_on(slate: &Slate) -> Self {
        let mut world = World::unstarted(SIGN_TIMEOUT);
        world.store = store::Settings::Postgres(slate.wiped().await);
        world.try_start(Some(&policy())).await.unwrap();
        Self::of(world).await
    }

    async fn of(world: World) -> Self {
        let mut people = Vec::new();
        for name in PEOPLE {
            people.push(world.proven(name).await);
        }
        Self { world, people, requests: Vec::new(), policy: 0, verified: Verified::default() }
    }

    /// So many weeks after the start: nothing is open any more, the policy is as it was, and what this history makes is made of its seed.
    async fn turn(&mut self, weeks: u32, seed: u64) {
        self.world.reseed(seed);
        self.requests.clear();
        let start = Timestamp::parse(START).unwrap();
        self.world.clock.set(start.plus(Lifetime::minutes(weeks * 7 * 24 * 60)).unwrap());
        while self.world.service().tick().await.unwrap() > 0 {}
        if self.policy != 0 {
            self.take(Deed::Policy { which: 0 }).await;
        }
    }

    /// What came of each of these deeds.
    async fn outcomes(&mut self, deeds: &[Deed]) -> Vec<String> {
        let mut outcomes = Vec::new();
        for deed in deeds {
            outcomes.push(self.take(deed.clone()).await);
        }
        outcomes
    }

    /// Does it, and says what came of it; a rule's no is a fine answer, a failure of the machinery is not.
    async fn take(&mut self, deed: Deed) -> String {
        let outcome = self.outcome(deed).await;
        if let Err(Failure::Internal { .. } | Failure::Conflict(_) | Failure::BadPolicy { .. }) = outcome {
            panic!("{outcome:?}");
        }
        format!("{outcome:?}")
    }

    async fn outcome(&mut self, deed: Deed) -> Outcome<()> {
        match deed {
            Deed::Ask { who, place, minutes } => {
                let (targets, account) = PLACES[place];
                let lifetime = minutes.map(Lifetime::minutes);
                let ask = Ask { lifetime, ..self.world.ask(targets, account) };
                let asked = self.world.service().ask(&self.people[who], ask).await;
                asked.map(|view| self.requests.push(view.request.id()))
            }
            Deed::Approve { who, request, minutes, signs } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                let Ok(digest) = self.world.shown(&self.people[who], id).await else { return Ok(()) };
                let narrow = Narrowing { lifetime: minutes.map(Lifetime::minutes), ..Narrowing::default() };
                let by = &self.people[who];
                let mut approval = Approval { narrow, comment: "fine".to_owned(), ..Approval::of(digest) };
                if signs {
                    let Ok(view) = self.world.service().view(by, &prefix(id)).await else { return Ok(()) };
                    let mut said = view.request.statement(by.person(), "fine");
                    said.lifetime = minutes.map_or(said.lifetime, Lifetime::minutes);
                    approval.signature = Some(signed_by(PEOPLE[who], &said, self.world.now()));
                }
                self.world.service().approve(by, &prefix(id), approval).await.map(drop)
            }
            Deed::Deny { who, request } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                self.world.service().deny(&self.people[who], &prefix(id), "no".to_owned()).await.map(drop)
            }
            Deed::Withdraw { who, request } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                self.world.service().withdraw(&self.people[who], &prefix(id)).await.map(drop)
            }
            Deed::Fetch { who, request } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                self.world.fetch(&self.people[who], id).await.map(drop)
            }
            Deed::Extend { who, request, minutes } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                let (by, lifetime) = (&self.people[who], Lifetime::minutes(minutes));
                self.world
                    .service()
                    .extend(by, &prefix(id), lifetime, "INC-1 need more time".to_owned())
                    .await
                    .map(drop)
            }
            Deed::End { who, request } => {
                let Some(id) = self.request(request) else { return Ok(()) };
                self.world.service().end(&self.people[who], &prefix(id), "done".to_owned()).await.map(drop)
            }
            Deed::Pass { seconds } => {
                self.world.pass(seconds);
                Ok(())
            }
            Deed::Back { seconds } => {
                let back = self.world.now().minus(Lifetime::from_seconds(seconds).unwrap()).unwrap();
                self.world.clock.set(back);
                Ok(())
            }
            Deed::Tick => self.world.service().tick().await.map(drop),
            Deed::Fault { fault } => {
                self.world.signer.set(fault);
                Ok(())
            }
            Deed::Policy { which } => {
                let omar = self.world.proven("omar").await;
                self.world.service().apply_policy(&omar, variant(which), None, false).await?;
                self.policy = which;
                Ok(())
            }
            Deed::Restart { whole: true } => {
                self.world.restart().await;
                Ok(())
            }
            Deed::Restart { whole: false } => {
                self.world.restart_on_open_store().await;
                Ok(())
            }
        }
    }

    /// One of the newest requests.
    fn request(&self, number: usize) -> Option<RequestId> {
        self.requests.iter().rev().nth(number % self.requests.len().max(1)).copied()
    }
}

/// Lives histories, one after the other, and checks everything; gives what came of each deed, and the log.
async fn live(mut story: Story, histories: &[History<Deed>]) -> (Outcomes, Vec<Vec<u8>>) {
    let mut outcomes = Vec::new();
    let ada = story.world.proven("ada").await;
    for (weeks, (seed, deeds)) in (0_u32..).zip(histories) {
        story.turn(weeks, *seed).await;
        outcomes.push((*seed, story.outcomes(deeds).await));
        story.world.signer.set(Fault::None);
        story.world.check_newest(&ada, &mut story.verified).await;
        if outcomes.len().is_multiple_of(KEPT_EACH) {
            story.world.keep_checkpoint().await;
        }
    }
    story.world.restart().await;
    story.world.check().await;
    (outcomes, story.world.entries(&ada).await)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The same, step by step and byte by byte.
fn compare(one: &(Outcomes, Vec<Vec<u8>>), other: &(Outcomes, Vec<Vec<u8>>)) {
    for ((seed, one), (_, other)) in one.0.iter().zip(&other.0) {
        assert_eq!(one, other, "what came of each deed, seed {seed}");
    }
    let text = |log: &[Vec<u8>], at: usize| log.get(at).map(|entry| String::from_utf8_lossy(entry).into_owned());
    for at in 0..one.1.len().max(other.1.len()) {
        assert_eq!(text(&one.1, at), text(&other.1, at), "entry {at} of the log");
    }
    assert!(one == other);
}

#[test]
fn the_promises_hold_after_any_history() {
    let deeds = || prop::collection::vec(deed(), 10..120).boxed();
    histories::live(Many { usual: 24, together: TOGETHER }, deeds, runtime, |runtime, histories| {
        runtime.block_on(async { live(Story::begin().await, histories).await });
    });
}

#[test]
fn the_same_history_makes_the_same_log_in_either_database() {
    let deeds = || prop::collection::vec(deed(), 10..80).boxed();
    let place = || {
        let runtime = runtime();
        let slate = runtime.block_on(Slate::new());
        (runtime, slate)
    };
    histories::live(Many { usual: 12, together: TOGETHER }, deeds, place, |(runtime, slate), histories| {
        runtime.block_on(async {
            let in_a_file = live(Story::begin().await, histories).await;
            let in_a_server = live(Story::begin_on(slate).await, histories).await;
            compare(&in_a_file, &in_a_server);
        });
    });
}
