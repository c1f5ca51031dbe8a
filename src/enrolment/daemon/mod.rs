//! `hallpass host run`: the one process beside sshd that talks to the service.
//!
//! What for: it keeps trust bundle, host certificates, ended list and tags as the service has them, moves the ends of sessions as the service
//! says, and reports. By push: an event says that something has changed; where events can't be had, the service is asked every few
//! seconds, which costs it little.
//!
//! What not: no login and no end of a session waits for this. Killed, or cut off for days, it leaves the host as safe as its clock; what
//! happened meanwhile is in the spool, and is reported later.
//!
//! Invariants: what the service says is checked as a whole before any of it is used ([`install`]); there is always a pause before a call is
//! tried again ([`pace`]); an event leaves the spool only when the service says that it is in the log. What could not be put in place (a file
//! system is full) is tried again until it is, whether the service can be asked then or not. What is over before its time is looked
//! for among the sessions at each look, not once: a login may have been under way. A certificate that is over stays so until its window
//! is, whatever the service says later.

pub mod install;
mod pace;
mod report;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::Instant;

use self::install::{Granted, Installer, Remembered};
use self::pace::{CHECK_IN_EVERY, LOOK_EVERY, PROVE_EVERY, Pause, RENEW_AGAIN, RENEW_EVERY, STATE_EVERY, spread};
use super::check_in::{self, Again, Patience, Proof};
use super::contact::Contact;
use super::facts::{self, HostKey};
use super::leave::open_link;
use super::link::Link;
use super::places::{self, CHECK_ACCOUNT, Root};
use super::plan::Facts;
use super::programs;
use super::sshd::{Sshd, Told};
use crate::client::{Client, ClientError, EventStream};
use crate::host::ended;
use crate::host::process::Process;
use crate::host::program::Program;
use crate::host::sessions::{Over, Sessions};
use crate::host::settings::{self, Settings};
use crate::host::spool::Spool;
use crate::notify;
use crate::ssh::Fingerprint;
use crate::ssh::bundle::Bundle;
use crate::time::{Clock as _, SystemClock};
use crate::wire::host::State;

/// How often to ask where no events come.
const POLL_EVERY: Duration = Duration::from_secs(4);

/// A stream that ends sooner than this was none.
const STREAM_LASTS: Duration = Duration::from_secs(10);

/// How long starting watchers again may take.
const TEND_WITHIN: Duration = Duration::from_secs(30);

/// What the daemon has to say: one line each, for the machine's log.
pub type Say<'a> = &'a dyn Fn(&str);

/// The daemon at work.
struct Daemon<'a> {
    say: Say<'a>,
    sshd: Sshd,
    link: Link,
    keys: Vec<HostKey>,
    installer: Installer,
    program: Program,
    /// What the service said last.
    state: Option<State>,
    /// What of it could not be put in place.
    left: Vec<String>,
    /// Between attempts at that.
    left_pause: Pause,
    /// What is over before its time.
    over: Over,
    /// The certificates among it, as long as their windows are not.
    remembered: Remembered,
    /// Whether the service has said that there is another one.
    is_stale: bool,
    bundle: Option<Bundle>,
    /// The CA key that signs host certificates now.
    host_ca: Option<Fingerprint>,
    proof: Proof,
    /// What the proof was made with.
    proven: Option<(Instant, String)>,
    stream: Option<Push>,
    pause: Pause,
    /// Between proofs that were cut short.
    proof_pause: Pause,
    due: Due,
    /// How it stands with the service; what is wrong is said once.
    contact: Contact,
}

/// A stream of events.
struct Push {
    stream: EventStream,
    /// When it was opened.
    since: Instant,
    /// Whether anything has come by it. Something comes at once, unless what is in between swallows it.
    is_heard: bool,
}

/// When what is due.
struct Due {
    connect: Instant,
    look: Instant,
    /// What could not be put in place.
    left: Instant,
    state: Instant,
    check_in: Instant,
    renew: Instant,
}

/// Runs until `stop` is done. `program` is the one that runs.
///
/// # Errors
/// When the host is not enrolled, or its files can't be read.
pub async fn run(
    program: Program,
    reload: Option<String>,
    socket: Option<&str>,
    say: Say<'_>,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut daemon = Daemon::open(program, reload, say).await?;
    daemon.tend(true).await;
    notify::tell(socket, "READY=1");
    say(&format!("looking after {} for {}", daemon.link.name(), daemon.link.server().url));
    tokio::pin!(stop);
    loop {
        daemon.work().await;
        tokio::select! {
            () = &mut stop => break,
            () = daemon.wait() => {}
        }
    }
    notify::tell(socket, "STOPPING=1");
    Ok(())
}

impl<'a> Daemon<'a> {
    async fn open(program: Program, reload: Option<String>, say: Say<'a>) -> Result<Self, String> {
        let root = Root::default();
        let sshd = Sshd::find(reload)?;
        let (link, service) = open_link(&sshd).await?;
        let settings = Settings::load(Path::new(settings::PATH))?;
        let facts = Facts { effective: sshd.effective(CHECK_ACCOUNT).await?, ..Facts::default() };
        let keys = facts::host_keys(&root, &facts)?;
        Spool::at(&settings.spool).create()?;
        let daemon = Process::own().map_err(|error| format!("cannot look at our own process: {error}"))?;
        let now = Instant::now();
        Ok(Self {
            say,
            sshd,
            link,
            keys,
            installer: Installer {
                trust: settings.trust,
                version: root.path(places::MEMORY).join("bundle-version"),
                log_key: service.log_key,
            },
            program,
            state: None,
            left: Vec::new(),
            left_pause: Pause::default(),
            over: Over::default(),
            remembered: Remembered::default(),
            is_stale: true,
            bundle: None,
            host_ca: None,
            proof: Proof::default(),
            proven: None,
            stream: None,
            pause: Pause::default(),
            proof_pause: Pause::default(),
            due: Due { connect: now, look: now, left: now, state: now, check_in: now, renew: now },
            contact: Contact { daemon, answered: None, checked_in: None, trouble: None },
        })
    }

    /// Everything that is due.
    async fn work(&mut self) {
        let now = Instant::now();
        if now >= self.due.look {
            self.due.look = now + LOOK_EVERY;
            self.tend(false).await;
            self.end_over();
            if self.contact.trouble.is_none() && report::is_waiting() {
                self.due.connect = now;
            }
        }
        if !self.left.is_empty() && now >= self.due.left {
            self.put_again().await;
        }
        if now < self.due.connect {
            return;
        }
        match self.talk().await {
            Ok(()) => {
                if self.contact.trouble.take().is_some() {
                    (self.say)("the service answers again");
                }
                self.contact.answered = Some(SystemClock.now());
                self.save_contact();
                self.pause.reset();
            }
            Err(why) => self.complain(why),
        }
    }

    /// Something kept us from the service: a pause, and one line for each new reason.
    fn complain(&mut self, why: String) {
        self.stream = None;
        self.due.connect = Instant::now() + self.pause.next(random());
        if self.contact.trouble.as_ref() != Some(&why) {
            (self.say)(&why);
            self.contact.trouble = Some(why);
            self.save_contact();
        }
    }

    fn save_contact(&self) {
        if let Err(why) = self.contact.save() {
            (self.say)(&why);
        }
    }

    /// One round with the service.
    async fn talk(&mut self) -> Result<(), String> {
        let told = |error: ClientError| error.to_string();
        // First the stream, then the state: what changes in between comes as an event.
        if self.stream.is_none() {
            let opened = self.link.events().await.ok();
            self.stream = opened.map(|stream| Push { stream, since: Instant::now(), is_heard: false });
        }
        let is_pushed = self.stream.as_ref().is_some_and(|push| push.is_heard);
        self.is_stale |= !is_pushed;
        if self.is_stale || Instant::now() >= self.due.state {
            let state = match self.state.as_ref().map(|state| state.etag.clone()) {
                Some(etag) => self.link.changed_state(&etag).await.map_err(told)?,
                None => Some(self.link.state().await.map_err(told)?),
            };
            if let Some(state) = state {
                if state.is_retired {
                    (self.say)(
                        "the service has retired this host: nothing is granted here any more; `hallpass host leave` takes it out",
                    );
                }
                self.left_pause.reset();
                self.state = Some(state);
                self.put_again().await;
            }
            self.is_stale = false;
            self.due.state = Instant::now() + spread(STATE_EVERY, random());
        }
        self.report().await.map_err(told)?;
        self.renew().await;
        if Instant::now() >= self.due.check_in {
            self.check_in().await.map_err(told)?;
        }
        let pause = Instant::now() + spread(POLL_EVERY, random());
        self.due.connect = if is_pushed { self.due.state.min(self.due.check_in) } else { pause };
        Ok(())
    }

    /// Puts what the service said last in place, and says what can't be, once; that is tried again after a pause.
    async fn put_again(&mut self) {
        let Some(state) = self.state.take() else { return };
        let left = self.put_in_place(&state).await;
        self.state = Some(state);
        for why in left.iter().filter(|why| !self.left.contains(why)) {
            (self.say)(why);
        }
        if left.is_empty() {
            self.left_pause.reset();
            if !self.left.is_empty() {
                (self.say)("what could not be put in place is in place now");
            }
        } else {
            self.due.left = Instant::now() + self.left_pause.next(random());
        }
        self.left = left;
    }

    /// Puts a state in place. What can't be is returned, and does not keep the rest from being so.
    async fn put_in_place(&mut self, state: &State) -> Vec<String> {
        let mut left = Vec::new();
        match self.installer.bundle(&state.bundle.text) {
            Ok((bundle, is_new)) => {
                if is_new {
                    (self.say)(&format!("the trust bundle is now version {}", bundle.version()));
                    self.due.check_in = Instant::now();
                }
                self.bundle = Some(bundle);
            }
            Err(why) => left.push(why),
        }
        left.extend(self.put_host_ca(state.host_ca.as_deref()).err());
        let settings_path = Path::new(settings::PATH);
        match install::tags(settings_path, state) {
            Ok(true) => (self.say)("the tags of this host have changed"),
            Ok(false) => {}
            Err(why) => left.push(why),
        }
        match install::lost(&state.lost) {
            Ok(lost) => self.over.cas = lost,
            Err(why) => left.push(why),
        }
        match Settings::load(settings_path) {
            Ok(settings) => {
                left.extend(self.put_certificates(&state.certificates, &settings).await.err());
                match install::granted(&state.grants) {
                    Ok(granted) => left.extend(self.put_grants(&granted, &settings)),
                    Err(why) => left.push(why),
                }
            }
            Err(why) => left.push(why),
        }
        // After the grants: these have no say about what is over, or was opened with a stolen key.
        self.end_over();
        left
    }

    /// Host certificates by another CA key than this are replaced at once.
    fn put_host_ca(&mut self, ca: Option<&str>) -> Result<(), String> {
        let told = |why| format!("the service names a host CA key that is none: {why}");
        let ca = ca.map(Fingerprint::parse).transpose().map_err(told)?;
        if ca != self.host_ca {
            self.host_ca = ca;
            self.due.renew = Instant::now();
        }
        Ok(())
    }

    /// The ended list, and the ends of sessions, as the service has them. What could not be put in place.
    fn put_grants(&mut self, granted: &Granted, settings: &Settings) -> Vec<String> {
        let mut left = Vec::new();
        // Known first: sessions end also where the list can't be written.
        self.over.requests.clone_from(&granted.over);
        // A list that can't be read is replaced.
        let list = ended::read(&settings.ended).unwrap_or_default();
        self.remembered.learn(&granted.serials, &list, SystemClock.now());
        self.over.serials = self.remembered.serials();
        match ended::write(&settings.ended, &self.over.serials) {
            Ok(true) if !self.over.serials.is_empty() => {
                (self.say)(&format!("{} certificates are over before their time", self.over.serials.len()));
            }
            Ok(_) => {}
            Err(why) => left.push(why),
        }
        let sessions = match Sessions::open(settings) {
            Ok(sessions) => sessions,
            Err(why) => {
                left.push(why);
                return left;
            }
        };
        for (request, end) in &granted.ends {
            match sessions.rearm(request, *end, &self.over) {
                Ok(0) => {}
                Ok(count) => (self.say)(&format!("request {request}: {count} sessions go on until {end}")),
                Err(why) => left.push(why),
            }
        }
        left
    }

    /// Ends what rests on what is over before its time: also what was opened with a CA key that is lost, whatever its certificate says of
    /// itself, which may be the thief's. What can't be ended now is looked for again at the next look.
    fn end_over(&self) {
        let ended = Settings::load(Path::new(settings::PATH))
            .and_then(|settings| Sessions::open(&settings)?.end_over(&self.over));
        if let Ok(count @ 1..) = ended {
            (self.say)(&format!("{count} sessions that are over before their time end now"));
        }
    }

    /// Host certificates; sshd reads them when it is told to.
    async fn put_certificates(&self, lines: &[String], settings: &Settings) -> Result<(), String> {
        if install::certificates(Path::new(places::SSHD_FOLDER), lines, &self.keys, settings)? {
            match self.sshd.reload().await {
                Ok(Told::By(how)) => (self.say)(&format!("new host certificates are in place ({how})")),
                Ok(Told::NotRunning) => (self.say)("new host certificates are in place; sshd does not run"),
                Err(why) => (self.say)(&format!("new host certificates are there, but sshd was not told: {why}")),
            }
        }
        Ok(())
    }

    /// Asks for new host certificates when half of their time is over.
    async fn renew(&mut self) {
        let now = Instant::now();
        let is_due =
            install::is_renewal_due(Path::new(places::SSHD_FOLDER), &self.keys, self.host_ca, SystemClock.now());
        if now < self.due.renew || !is_due {
            return;
        }
        self.due.renew = now + RENEW_EVERY;
        match self.link.certificates(&self.keys).await {
            Ok(lines) => match Settings::load(Path::new(settings::PATH)) {
                Ok(settings) => {
                    if let Err(why) = self.put_certificates(&lines, &settings).await {
                        (self.say)(&why);
                    }
                    // The rotation of the host CA key may wait for this one.
                    self.due.check_in = Instant::now();
                }
                Err(why) => (self.say)(&why),
            },
            Err(error) => {
                self.due.renew = now + RENEW_AGAIN;
                (self.say)(&format!("host certificates were not renewed: {error}"));
            }
        }
    }

    async fn check_in(&mut self) -> Result<(), ClientError> {
        if let Some(bundle) = self.bundle.clone() {
            self.prove(&bundle).await;
        }
        let mut report = check_in::report(&self.sshd, &self.link, &self.proof).await;
        if self.host_ca.is_some() {
            let shown = install::shown(Path::new(places::SSHD_FOLDER), &self.keys, SystemClock.now());
            report.shows = shown.iter().map(ToString::to_string).collect();
        }
        self.link.check_in(&report).await?;
        self.contact.checked_in = Some(SystemClock.now());
        let pause = if self.proof.again == Again::Later {
            self.proof_pause.reset();
            spread(CHECK_IN_EVERY, random())
        } else {
            self.proof_pause.next(random())
        };
        self.due.check_in = Instant::now() + pause;
        Ok(())
    }

    /// Logs in to itself, if bundle or sshd are others than at the last proof, or that is a day ago.
    async fn prove(&mut self, bundle: &Bundle) {
        let effective = self.sshd.effective(CHECK_ACCOUNT).await;
        let with = format!("{} {effective:?}", bundle.version());
        let is_fresh = self.proven.as_ref().is_some_and(|(at, before)| *before == with && at.elapsed() < PROVE_EVERY);
        if is_fresh && self.proof.problem.is_none() && !self.proof.is_partial {
            return;
        }
        // What has worked with the same bundle and the same sshd is not tried again beside what has not.
        let known = if is_fresh { std::mem::take(&mut self.proof.keys) } else { BTreeSet::new() };
        self.proof = check_in::prove(&self.sshd, &mut self.link, (bundle, &known), &self.keys, Patience::none()).await;
        if let Some(why) = &self.proof.problem {
            (self.say)(&format!("this host cannot log in to itself: {why}"));
        }
        let since = self.proven.take().filter(|_| is_fresh).map_or_else(Instant::now, |(since, _)| since);
        self.proven = Some((since, with));
    }

    /// Starts watchers again where one is gone: by a process of its own, which can't leave us children to reap.
    async fn tend(&self, is_first: bool) {
        let Ok(settings) = Settings::load(Path::new(settings::PATH)) else { return };
        let sessions = Sessions::open(&settings);
        let is_needed = match &sessions {
            Ok(sessions) => sessions.list().iter().any(|session| !session.is_watched),
            Err(_) => is_first,
        };
        if !is_needed {
            return;
        }
        match programs::run(self.program.path(), &self.program.arguments("tend"), TEND_WITHIN).await {
            Ok(ran) if ran.code == Some(0) => (self.say)(ran.output.trim()),
            Ok(ran) => (self.say)(&format!("sessions could not be looked after: {}", ran.complaint())),
            Err(why) => (self.say)(&why),
        }
    }

    /// Until something may be due: an event, or the next look.
    async fn wait(&mut self) {
        let pause = tokio::time::sleep_until(self.due.connect.min(self.due.look).max(Instant::now() + MINIMUM));
        let Some(push) = &mut self.stream else { return pause.await };
        let since = push.since;
        tokio::select! {
            () = pause => {}
            data = Client::next_data(&mut push.stream) => match data {
                Ok(Some(_)) => {
                    push.is_heard = true;
                    self.is_stale = true;
                    self.due.connect = Instant::now();
                }
                // It ended, or says nothing any more.
                Ok(None) | Err(_) => {
                    self.stream = None;
                    let lasted = since.elapsed() > STREAM_LASTS;
                    self.due.connect = Instant::now() + if lasted { MINIMUM } else { self.pause.next(random()) };
                }
            }
        }
    }
}

/// The shortest pause between two rounds, whatever is due.
const MINIMUM: Duration = Duration::from_millis(50);

fn random() -> u32 {
    // Without randomness all hosts come at once, which the service bears.
    SysRng.try_next_u32().unwrap_or(0)
}
