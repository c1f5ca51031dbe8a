//! Admission: of each kind of work so many calls are done at once; the others wait their turn, and not for long.
//!
//! What for: when more comes than can be done, what is done is done quickly, and the rest is told at once to come again. Nobody gets more
//! turns than others by calling more often ([`fair`]); asks can't take the places of approvals, nor a CA key that hangs those of logins
//! ([`kind`]); and there is never more in front of the disk than one commit takes.
//!
//! What not: rates and connections ([`limit`](super::limit)), which are counted before; what a call costs; event streams, which hold a place
//! only while they are opened; probes, figures, public keys and assets, which are answered whatever else goes on.
//!
//! Finding out who calls is itself work. So where a connection's last caller is known, and there would be no room for them, the call is
//! turned away before it is looked who it is now: it would not be let in, and nothing else is decided by that.
//!
//! A call takes its place when its caller is known (so that turns are by person, host, or address before a login) *and* its body is there
//! (so that whoever sends it byte by byte holds up nobody), and gives it back when its answer is made, or its caller goes away. What such a
//! caller has begun to change runs to its end all the same: that is bounded by their rate and by the store's queue, not here.
//!
//! Invariants:
//! - Nobody waits here for longer than [`PATIENCE`].
//! - A call that is turned away has done nothing: code `busy`, with `Retry-After`, may be repeated whatever it was.
//! - A `Place` that is dropped is free, at whatever point its call was.
//!
//! *Why not a limit that finds itself?* What a call waits for is one commit, in which all that wait share. A few dozen at once fill it on
//! any machine; more only wait elsewhere. What adapts is how long one may wait: in a queue that has stood for a second, waiting longer gives
//! nobody an answer sooner, it only makes all of them late (Facebook's variant of `CoDel`: "Fail at Scale", ACM Queue 2015).

mod fair;
mod figures;
mod held;
mod kind;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::fair::{Bounds, Entered, Fair, Ticket};
use self::figures::LaneFigures;
use self::kind::Kind;
use super::error::Problem;
use super::repeated::Repeated;
use crate::name::{HostName, PersonName};
pub(super) use figures::Figures;
pub(super) use held::{Held, LastCaller};

/// One caller has at most this part of the places of a kind. Our own choice: two scripts and a few people get on side by side.
const SHARE: usize = 4;

/// So many wait for each one under way. Our own choice: as many as get a place before their patience is over, where a call takes a tenth of
/// a second; where it takes less, there are no more than come.
const WAITING_PER_PLACE: usize = 4;

/// How long a call may wait for its place. Our own choice: half of the second in which it must be known whether it goes on.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long it may wait in a queue that has stood for [`STANDING`].
const PATIENCE_STANDING: Duration = Duration::from_millis(250);

/// All places were taken, and somebody waited, for so long: this is no burst.
const STANDING: Duration = Duration::from_secs(1);

/// Who is turned away comes again after one to so many seconds, so that not all of them come at once.
const AGAIN_S_MAX: u64 = 4;

/// By whom turns go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Somebody who is not known yet.
    Address(IpAddr),
    /// An enrolled host.
    Host(HostName),
    /// A person.
    Person(PersonName),
}

/// The queues of one server.
#[derive(Debug)]
pub(super) struct Lanes(BTreeMap<Kind, Arc<Lane>>);

impl Lanes {
    /// Zero means the least there is, one.
    pub(super) fn new(calls_at_once: usize, figures: &Figures) -> Self {
        let at_once = calls_at_once.max(1);
        let bounds =
            Bounds { at_once, each: at_once.div_ceil(SHARE), waiting_max: at_once.saturating_mul(WAITING_PER_PLACE) };
        let lane = |kind: Kind| (kind, Arc::new(Lane::new(kind, bounds, figures.of(kind))));
        Self(Kind::ALL.into_iter().map(lane).collect())
    }

    /// Turns a call of this kind away if there would be no room for it.
    fn look(&self, kind: Kind, who: &Who) -> Result<(), Problem> {
        match self.0.get(&kind) {
            Some(lane) if lane.lock().fair.is_full_for(who) => Err(lane.turn_away(Instant::now())),
            _ => Ok(()),
        }
    }

    /// A place of this kind.
    async fn enter(&self, kind: Kind, who: Who) -> Result<Option<Place>, Problem> {
        match self.0.get(&kind) {
            Some(lane) => lane.enter(who, PATIENCE, PATIENCE_STANDING).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The queue of one kind.
#[derive(Debug)]
struct Lane {
    kind: Kind,
    state: Mutex<State>,
    figures: LaneFigures,
}

#[derive(Debug)]
struct State {
    fair: Fair<Who>,
    /// Where those who wait are told.
    waiting: BTreeMap<Ticket, oneshot::Sender<Told>>,
    /// Since when somebody waits because all places are taken.
    short_since: Option<Instant>,
    turned_away: Repeated,
}

/// What becomes of a call that waits.
#[derive(Debug)]
enum Told {
    Begin,
    PutOut,
}

/// Waiting for one's turn.
struct Turn {
    told: oneshot::Receiver<Told>,
    /// Whether others have waited for a while.
    is_standing: bool,
}

/// A call's place, or its place in the queue; given back when dropped.
#[derive(Debug)]
struct Place {
    lane: Arc<Lane>,
    who: Who,
    ticket: Ticket,
}

impl Lane {
    fn new(kind: Kind, bounds: Bounds, figures: LaneFigures) -> Self {
        let state = State {
            fair: Fair::new(bounds),
            waiting: BTreeMap::new(),
            short_since: None,
            turned_away: Repeated::default(),
        };
        Self { kind, state: Mutex::new(state), figures }
    }

    /// A place, at once or after a wait of at most `patience`; `standing` is that of a queue that has stood for a while.
    async fn enter(self: &Arc<Self>, who: Who, patience: Duration, standing: Duration) -> Result<Place, Problem> {
        let came = Instant::now();
        let Some((place, turn)) = self.stand(who, came) else { return Err(self.turn_away(came)) };
        if let Some(turn) = turn {
            let patience = if turn.is_standing { standing } else { patience };
            // Whoever is told at the last moment, and does not hear it, gives the place back with `place`.
            match tokio::time::timeout(patience, turn.told).await {
                Ok(Ok(Told::Begin)) => {}
                Ok(Ok(Told::PutOut) | Err(_)) | Err(_) => {
                    drop(place);
                    return Err(self.turn_away(Instant::now()));
                }
            }
        }
        self.figures.seconds.observe(came.elapsed().as_secs_f64());
        Ok(place)
    }

    /// Takes a place, or one in the queue; `None` if there is none.
    fn stand(self: &Arc<Self>, who: Who, now: Instant) -> Option<(Place, Option<Turn>)> {
        let mut state = self.lock();
        let (ticket, turn) = match state.fair.enter(&who) {
            Entered::Begins(ticket) => (ticket, None),
            Entered::Waits { ticket, put_out } => {
                if let Some(out) = put_out {
                    state.tell(out, Told::PutOut);
                }
                let (sender, told) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                let is_standing = state.short_since.is_some_and(|since| now.duration_since(since) >= STANDING);
                (ticket, Some(Turn { told, is_standing }))
            }
            Entered::Full => return None,
        };
        self.note(&mut state, now);
        drop(state);
        Some((Place { lane: Arc::clone(self), who, ticket }, turn))
    }

    /// What is answered to who gets no place. One line in the log now and then, not one for each.
    fn turn_away(&self, now: Instant) -> Problem {
        self.figures.shed.inc();
        let times = self.lock().turned_away.count(now);
        if let Some(times) = times {
            tracing::warn!(kind = self.kind.word(), times, "calls turned away: more come than can be done");
        }
        Problem::busy(rand::random_range(1..=AGAIN_S_MAX))
    }

    fn note(&self, state: &mut State, now: Instant) {
        state.short_since = if state.fair.is_short() { state.short_since.or(Some(now)) } else { None };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.figures.waiting.set(count(state.fair.waiting()));
        self.figures.under_way.set(count(state.fair.under_way()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, ticket: Ticket, what: Told) {
        if let Some(sender) = self.waiting.remove(&ticket) {
            // Whoever has just gone away is about to give the place back.
            drop(sender.send(what));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        let next = state.fair.end(&self.who, self.ticket);
        state.waiting.remove(&self.ticket);
        if let Some(next) = next {
            state.tell(next, Told::Begin);
        }
        self.lane.note(&mut state, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// A lane for `at_once` calls, of which each caller may have all.
    fn lane(at_once: usize, waiting_max: usize) -> Arc<Lane> {
        let figures = Figures::registered(&mut prometheus_client::registry::Registry::default());
        let bounds = Bounds { at_once, each: at_once, waiting_max };
        Arc::new(Lane::new(Kind::Ask, bounds, figures.of(Kind::Ask)))
    }

    fn who(name: &str) -> Who {
        Who::Person(PersonName::parse(name).unwrap())
    }

    /// Waits until so many wait.
    async fn until_waiting(lane: &Lane, count: usize) {
        while lane.lock().fair.waiting() != count {
            tokio::task::yield_now().await;
        }
    }

    fn in_background(lane: &Arc<Lane>, name: &str) -> tokio::task::JoinHandle<Result<Place, Problem>> {
        let (lane, who) = (Arc::clone(lane), who(name));
        tokio::spawn(async move { lane.enter(who, LONG, LONG).await })
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_when_to_come_again_and_holds_nothing() {
        let lane = lane(1, 10);
        let place = lane.enter(who("alice"), LONG, LONG).await.unwrap();
        let refused = lane.enter(who("bob"), Duration::ZERO, Duration::ZERO).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.body.code.as_str(), refused.body.retryable), (503, "busy", true));
        assert_eq!(lane.figures.shed.get(), 1);
        drop(place);
        let _place = lane.enter(who("bob"), Duration::ZERO, Duration::ZERO).await.unwrap();
        assert_eq!((lane.figures.waiting.get(), lane.figures.under_way.get()), (0, 1));
    }

    #[tokio::test]
    async fn a_place_goes_to_who_waits_and_not_to_who_went_away() {
        let lane = lane(1, 10);
        let place = lane.enter(who("alice"), LONG, LONG).await.unwrap();
        let gone = in_background(&lane, "bob");
        until_waiting(&lane, 1).await;
        let stays = in_background(&lane, "carol");
        until_waiting(&lane, 2).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        until_waiting(&lane, 1).await;
        drop(place);
        drop(stays.await.unwrap().unwrap());
        assert_eq!(lane.lock().fair.under_way(), 0);
    }

    #[tokio::test]
    async fn who_goes_away_just_when_its_turn_comes_gives_it_to_the_next() {
        let lane = lane(1, 10);
        let place = lane.enter(who("alice"), LONG, LONG).await.unwrap();
        let (told, next) = (in_background(&lane, "bob"), in_background(&lane, "carol"));
        until_waiting(&lane, 2).await;
        // On this one thread nobody hears of the place before they are gone.
        drop(place);
        told.abort();
        assert!(told.await.unwrap_err().is_cancelled());
        drop(next.await.unwrap().unwrap());
        assert_eq!(lane.lock().fair.under_way(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_puts_out_the_newest_of_the_longest_line() {
        let lane = lane(1, 2);
        let place = lane.enter(who("script"), LONG, LONG).await.unwrap();
        let oldest = in_background(&lane, "script");
        until_waiting(&lane, 1).await;
        let newest = in_background(&lane, "script");
        until_waiting(&lane, 2).await;
        let alice = in_background(&lane, "alice");
        assert_eq!(newest.await.unwrap().unwrap_err().body.code, "busy");
        let refused = lane.enter(who("script"), LONG, LONG).await.unwrap_err();
        assert_eq!(refused.body.code, "busy", "there is no room for more of it");
        drop(place);
        drop(oldest.await.unwrap().unwrap());
        drop(alice.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_queue_that_has_stood_for_a_while_makes_nobody_wait_for_long() {
        let lane = lane(1, 10);
        let _place = lane.enter(who("alice"), LONG, LONG).await.unwrap();
        let waits = in_background(&lane, "bob");
        until_waiting(&lane, 1).await;
        let began = lane.lock().short_since.unwrap();
        lane.lock().short_since = began.checked_sub(STANDING);
        // With the long patience this would wait for ten minutes.
        let refused = lane.enter(who("carol"), LONG, Duration::ZERO).await.unwrap_err();
        assert_eq!(refused.body.code, "busy");
        waits.abort();
    }
}
