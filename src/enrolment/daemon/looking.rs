//! Looks at sshd, and has the host log in to itself, for what the service is told of this host.
//!
//! Invariants: the programs that this takes are waited for by a task of its own, since one that hangs must not keep the ends of sessions waiting;
//! there is one look at a time. Nothing is reported while it is under way, and nothing of it if another bundle is in force by then: what
//! is proven was proven with the bundle that is in force.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pace::{CHECK_IN_EVERY, PROVE_EVERY, Pause, spread};
use super::{Say, random};
use crate::enrolment::check_in::{self, Again, Patience, Proof};
use crate::enrolment::facts::HostKey;
use crate::enrolment::link::Link;
use crate::enrolment::places::CHECK_ACCOUNT;
use crate::enrolment::sshd::Sshd;
use crate::ssh::bundle::Bundle;
use crate::wire::host::CheckIn;

/// How old a report may be that is sent. Our own choice: while the service can't be asked, what a look has found is soon not true any more.
const REPORT_HOLDS: Duration = Duration::from_secs(60);

/// What was found, and what is being looked for.
pub(super) struct Looking<'a> {
    say: Say<'a>,
    sshd: Sshd,
    keys: Arc<[HostKey]>,
    known: Known,
    /// The look under way, and the bundle that it is made with.
    task: Option<(Option<Bundle>, JoinHandle<Looked>)>,
    /// What the last one has found, until it is reported.
    found: Option<Found>,
    /// Between proofs that were cut short.
    pause: Pause,
}

/// What was proven last.
#[derive(Clone, Default)]
struct Known {
    proof: Proof,
    /// What the proof was made with.
    with: Option<(Instant, String)>,
}

/// What can be reported.
struct Found {
    at: Instant,
    bundle: Option<Bundle>,
    report: CheckIn,
}

/// What came of a look.
struct Looked {
    known: Known,
    report: CheckIn,
}

impl<'a> Looking<'a> {
    pub(super) fn new(say: Say<'a>, sshd: Sshd, keys: Arc<[HostKey]>) -> Self {
        let (known, pause) = (Known::default(), Pause::default());
        Self { say, sshd, keys, known, task: None, found: None, pause }
    }

    /// Whether a look is under way.
    pub(super) const fn is_under_way(&self) -> bool {
        self.task.is_some()
    }

    /// What a look with the bundle in force has found, once. If there is no such thing, one is begun; one with another bundle is given up.
    pub(super) fn report(&mut self, bundle: Option<&Bundle>, link: &Link) -> Option<CheckIn> {
        let look = Look {
            sshd: self.sshd.clone(),
            link: link.clone(),
            keys: Arc::clone(&self.keys),
            known: self.known.clone(),
        };
        self.report_of(bundle, |bundle| look.carry_out(bundle))
    }

    /// The same, of whichever kind of look.
    fn report_of<L>(&mut self, bundle: Option<&Bundle>, look: impl FnOnce(Option<Bundle>) -> L) -> Option<CheckIn>
    where
        L: Future<Output = Looked> + Send + 'static,
    {
        if let Some(found) = self.found.take().filter(|found| found.holds(bundle, Instant::now())) {
            return Some(found.report);
        }
        match &self.task {
            Some((with, _)) if with.as_ref() == bundle => return None,
            Some((_, task)) => task.abort(),
            None => {}
        }
        let bundle = bundle.cloned();
        self.task = Some((bundle.clone(), tokio::spawn(look(bundle))));
        None
    }

    /// How long until the next one, after a report.
    pub(super) fn next_in(&mut self) -> Duration {
        if self.known.proof.again == Again::Later {
            self.pause.reset();
            spread(CHECK_IN_EVERY, random())
        } else {
            self.pause.next(random())
        }
    }

    /// Until the look is done that is under way; for ever if none is. How long to wait until it is asked for the report. May be dropped and
    /// begun anew.
    pub(super) async fn finished(&mut self) -> Duration {
        let Some((_, task)) = &mut self.task else { return std::future::pending().await };
        let looked = task.await;
        let bundle = self.task.take().and_then(|(bundle, _)| bundle);
        match looked {
            Ok(Looked { known, report }) => {
                self.known = known;
                if let Some(why) = &self.known.proof.problem {
                    (self.say)(&format!("this host cannot log in to itself: {why}"));
                }
                self.found = Some(Found { at: Instant::now(), bundle, report });
                Duration::ZERO
            }
            Err(error) => {
                (self.say)(&format!("sshd could not be looked at: {error}"));
                self.known = Known::default();
                self.pause.next(random())
            }
        }
    }
}

impl Found {
    /// Whether it may be reported while this bundle is in force.
    fn holds(&self, bundle: Option<&Bundle>, now: Instant) -> bool {
        self.bundle.as_ref() == bundle && now.saturating_duration_since(self.at) < REPORT_HOLDS
    }
}

/// What a look is made with.
struct Look {
    sshd: Sshd,
    link: Link,
    keys: Arc<[HostKey]>,
    known: Known,
}

impl Look {
    async fn carry_out(mut self, bundle: Option<Bundle>) -> Looked {
        if let Some(bundle) = bundle {
            self.prove(&bundle).await;
        }
        let report = check_in::report(&self.sshd, &self.link, &self.known.proof).await;
        Looked { known: self.known, report }
    }

    /// Logs in to itself, if bundle or sshd are others than at the last proof, or that is a day ago.
    async fn prove(&mut self, bundle: &Bundle) {
        let effective = self.sshd.effective(CHECK_ACCOUNT).await;
        let with = format!("{} {effective:?}", bundle.version());
        let Known { proof, with: before } = &mut self.known;
        let is_fresh = before.as_ref().is_some_and(|(at, before)| *before == with && at.elapsed() < PROVE_EVERY);
        if is_fresh && proof.problem.is_none() && !proof.is_partial {
            return;
        }
        // What has worked with the same bundle and the same sshd is not tried again beside what has not.
        let known = if is_fresh { std::mem::take(&mut proof.keys) } else { BTreeSet::new() };
        *proof = check_in::prove(&self.sshd, &mut self.link, (bundle, &known), &self.keys, Patience::none()).await;
        let since = before.take().filter(|_| is_fresh).map_or_else(Instant::now, |(since, _)| since);
        *before = Some((since, with));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::CaName;
    use crate::ssh::bundle::{BundleKey, KeyState};
    use crate::ssh::private::SessionKey;
    use crate::time::Timestamp;
    use crate::wire::host::{About, Trust};

    fn bundle(version: u64) -> Bundle {
        let at = Timestamp::from_unix(1_767_607_200).unwrap();
        let key = SessionKey::generate([1; 32]).public_key().clone();
        let key = BundleKey { key, state: KeyState::Active, since: at };
        Bundle::new(version, at, ("https://hallpass.example.com", &CaName::DEFAULT), vec![key]).unwrap()
    }

    fn report() -> CheckIn {
        CheckIn {
            about: About { program: String::new(), sshd: String::new(), os: String::new() },
            trust: Trust { file_sha256: String::new(), keys: Vec::new(), proven: Vec::new() },
            clock_ms: 0,
            guard: true,
            risky: Vec::new(),
            sessions: Vec::new(),
            run: None,
            shows: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_look_that_takes_its_time_is_waited_for_and_one_with_another_bundle_is_given_up_and_begun_anew() {
        let mut looking = Looking::new(&|_| {}, Sshd::nowhere(), Vec::new().into());
        let (old, new) = (bundle(1), bundle(2));
        // Its end is seen when what it holds is let go.
        let (held, given_up) = tokio::sync::oneshot::channel::<()>();
        let hangs = |_| async move {
            let _held = held;
            std::future::pending().await
        };
        assert!(looking.report_of(Some(&old), hangs).is_none());
        assert!(looking.is_under_way());
        let another = |_| async { panic!("it is under way") };
        assert!(looking.report_of(Some(&old), another).is_none());
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let second = |with: Option<Bundle>| async move {
            gone.await.unwrap();
            Looked { known: Known::default(), report: CheckIn { clock_ms: with.map_or(0, |_| 7), ..report() } }
        };
        assert!(looking.report_of(Some(&new), second).is_none());
        let given_up = tokio::time::timeout(crate::enrolment::programs::PATIENCE, given_up).await;
        assert!(given_up.is_ok_and(|word| word.is_err()), "the first one has ended");
        go.send(()).unwrap();
        assert_eq!(looking.finished().await, Duration::ZERO);
        assert!(!looking.is_under_way());
        let found = looking.report_of(Some(&new), |_| async { panic!("something was found") });
        assert_eq!(found.map(|report| report.clock_ms), Some(7));
        // It is reported once, and never beside another bundle.
        looking.found = Some(Found { at: Instant::now(), bundle: Some(old), report: report() });
        assert!(looking.report_of(Some(&new), |_| std::future::pending()).is_none());
        assert!(looking.is_under_way() && looking.found.is_none());
    }

    #[test]
    fn what_was_found_with_another_bundle_or_long_ago_is_not_reported() {
        let at = Instant::now();
        let mut found = Found { at, bundle: Some(bundle(1)), report: report() };
        let holds =
            |found: &Found, version, after| found.holds(Some(&bundle(version)), at + Duration::from_secs(after));
        assert!(holds(&found, 1, 59) && !holds(&found, 1, 60));
        assert!(!holds(&found, 2, 0) && !found.holds(None, at));
        found.bundle = None;
        assert!(found.holds(None, at) && !holds(&found, 1, 0), "before there was one");
    }
}
