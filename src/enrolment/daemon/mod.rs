//! `hallpass host run`: the one process beside sshd that talks to the service.
//!
//! What for: it keeps trust bundle, host certificates, ended list and tags as the service has them, moves the ends of sessions as the service
//! says, and reports. By push: an event says that something has changed; where events can't be had, the service is asked every few
//! seconds, which costs it little.
//!
//! What not: no login and no end of a session waits for this. Killed, or cut off for days, it leaves the host as safe as its clock; what
//! happened meanwhile is in the spool, and is reported later.
//!
//! Invariants: what the service says is checked as a whole before any of it is used ([`install`]), and what can't be put in place, or sshd can't be
//! told of, is tried again ([`in_place`], [`telling`]); no other program keeps the ends of sessions waiting: each is waited for by a task of its own
//! ([`telling`], [`looking`], [`tending`]), and for one at the start ([`host_keys`]) only so long; there is always a pause before a call is tried again ([`pace`]); an event leaves the spool only when the service says that it
//! is in the log.

mod host_keys;
mod in_place;
pub mod install;
mod looking;
mod pace;
mod report;
mod telling;
mod tending;
mod untold;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::time::Instant;

use self::in_place::{InPlace, Wants};
use self::install::Installer;
use self::looking::Looking;
use self::pace::{LOOK_EVERY, Pause, RENEW_AGAIN, RENEW_EVERY, STATE_EVERY, spread};
use self::telling::Telling;
use self::tending::Tending;
use self::untold::Untold;
use super::contact::Contact;
use super::facts::{self, HostKey};
use super::link::{Link, is_retired, way_out};
use super::lock::{Lock, One};
use super::places::{self, Root};
use super::service_file::ServiceFile;
use super::sshd::Sshd;
use crate::client::{Client, ClientError, EventStream};
use crate::host::process::Process;
use crate::host::program::Program;
use crate::host::settings::{self, Settings};
use crate::host::spool::Spool;
use crate::notify;
use crate::time::{Clock as _, SystemClock};

/// How often to ask where no events come.
const POLL_EVERY: Duration = Duration::from_secs(4);

/// A stream that ends sooner than this was none.
const STREAM_LASTS: Duration = Duration::from_secs(10);

/// What the daemon has to say: one line each, for the machine's log.
pub type Say<'a> = &'a dyn Fn(&str);

/// The daemon at work.
struct Daemon<'a> {
    _lock: Lock,
    say: Say<'a>,
    link: Link,
    keys: Arc<[HostKey]>,
    /// What the service said last, and how much of it is in place.
    in_place: InPlace<'a>,
    /// What sshd has to be told of it.
    telling: Telling<'a>,
    /// What the service is told of this host.
    looking: Looking<'a>,
    /// Sessions without a watcher.
    tending: Tending<'a>,
    /// Whether the service has said that it has changed.
    is_stale: bool,
    stream: Option<Push>,
    pause: Pause,
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
    tokio::pin!(stop);
    let mut daemon = tokio::select! {
        () = &mut stop => return Ok(()),
        daemon = Daemon::open(program, reload, say) => daemon?,
    };
    notify::tell(socket, "READY=1");
    say(&format!("looking after {} for {}", daemon.link.name(), daemon.link.server().url));
    loop {
        let round = async {
            daemon.work().await;
            daemon.wait().await;
        };
        // A service that does not answer is not waited for: what is cut short here is done again by the next daemon.
        tokio::select! {
            () = &mut stop => break,
            () = round => {}
        }
    }
    notify::tell(socket, "STOPPING=1");
    daemon.tending.stop().await;
    Ok(())
}

impl<'a> Daemon<'a> {
    async fn open(program: Program, reload: Option<String>, say: Say<'a>) -> Result<Self, String> {
        let lock = Lock::take(One::Daemon)?;
        let root = Root::default();
        let settings = Settings::load(Path::new(settings::PATH))?;
        let service = ServiceFile::load(&root.path(places::SERVICE_TOML))?;
        let sshd = Sshd::find(reload.or(service.reload))?;
        let facts = host_keys::find(&root, &sshd, say).await?;
        let keys: Arc<[HostKey]> = facts::host_keys(&root, &facts)?.into();
        let identity = facts::host_keys(&root, &facts)?.into_iter().next().ok_or("there is no host key")?;
        let link = Link::new(service.server, settings.name, identity);
        Spool::at(&settings.spool).create()?;
        let daemon = Process::own().map_err(|error| format!("cannot look at our own process: {error}"))?;
        let now = Instant::now();
        let version = root.path(places::MEMORY).join("bundle-version");
        let installer = Installer { trust: settings.trust, version, log_key: service.log_key };
        let untold = Untold::at(root.path(places::UNTOLD));
        Ok(Self {
            _lock: lock,
            say,
            in_place: InPlace::new(say, Arc::clone(&keys), installer),
            telling: Telling::new(say, sshd.clone(), untold),
            looking: Looking::new(say, sshd, Arc::clone(&keys)),
            tending: Tending::new(say, program),
            link,
            keys,
            is_stale: true,
            stream: None,
            pause: Pause::default(),
            due: Due { connect: now, look: now, state: now, check_in: now, renew: now },
            contact: Contact {
                daemon,
                answered: None,
                checked_in: None,
                is_retired: false,
                trouble: None,
                left: Vec::new(),
            },
        })
    }

    /// Everything that is due.
    async fn work(&mut self) {
        let now = Instant::now();
        if now >= self.due.look {
            self.due.look = now + LOOK_EVERY;
            self.tending.begin();
            self.in_place.end_over();
            if self.contact.trouble.is_none() && report::is_waiting() {
                self.due.connect = now;
            }
        }
        if self.in_place.is_due(now) {
            let wants = self.in_place.again(&mut self.telling);
            self.serve(wants);
        }
        self.telling.work(now);
        self.note_left();
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
            Err(error) => self.refused(&error),
        }
    }

    /// The service could not be asked, or does not want us.
    fn refused(&mut self, error: &ClientError) {
        self.contact.is_retired |= is_retired(error);
        let way_out = way_out(error, self.link.server()).map(|next| format!("; as root: {next}"));
        self.complain(format!("{error}{}", way_out.unwrap_or_default()));
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
    async fn talk(&mut self) -> Result<(), ClientError> {
        // First the stream, then the state: what changes in between comes as an event.
        if self.stream.is_none() {
            let opened = self.link.events().await.ok();
            self.stream = opened.map(|stream| Push { stream, since: Instant::now(), is_heard: false });
        }
        let is_pushed = self.stream.as_ref().is_some_and(|push| push.is_heard);
        self.is_stale |= !is_pushed;
        if self.is_stale || Instant::now() >= self.due.state {
            let state = match self.in_place.etag() {
                Some(etag) => self.link.changed_state(etag).await?,
                None => Some(self.link.state().await?),
            };
            if let Some(state) = state {
                // The round ends with writing it down.
                self.contact.is_retired = state.is_retired;
                let wants = self.in_place.take(state, &mut self.telling);
                self.serve(wants);
            }
            self.is_stale = false;
            self.due.state = Instant::now() + spread(STATE_EVERY, random());
        }
        self.report().await?;
        self.renew().await;
        if Instant::now() >= self.due.check_in {
            self.check_in().await?;
        }
        self.due.connect = match is_pushed {
            false => Instant::now() + spread(POLL_EVERY, random()),
            // Its end is waited for by itself.
            true if self.looking.is_under_way() => self.due.state,
            true => self.due.state.min(self.due.check_in),
        };
        Ok(())
    }

    /// What has been put in place wants other things done at once.
    fn serve(&mut self, Wants { check_in, renew, tend }: Wants) {
        let now = Instant::now();
        if check_in {
            self.due.check_in = now;
        }
        if renew {
            self.due.renew = now;
        }
        if tend {
            self.tending.want();
        }
        self.telling.work(now);
        self.note_left();
    }

    /// For `host status`.
    fn note_left(&mut self) {
        let left: Vec<String> = self.in_place.left().iter().chain(self.telling.left()).cloned().collect();
        if self.contact.left != left {
            self.contact.left = left;
            self.save_contact();
        }
    }

    /// Asks for new host certificates when half of their time is over.
    async fn renew(&mut self) {
        let now = Instant::now();
        let (folder, ca) = (Path::new(places::SSHD_FOLDER), self.in_place.host_ca());
        let is_due = install::is_renewal_due(folder, &self.keys, ca, SystemClock.now());
        if now < self.due.renew || !is_due {
            return;
        }
        self.due.renew = now + RENEW_EVERY;
        match self.link.certificates(&self.keys).await {
            Ok(lines) => {
                let wants = self.in_place.take_certificates(lines, &mut self.telling);
                self.serve(wants);
            }
            Err(error) => {
                self.due.renew = now + RENEW_AGAIN;
                (self.say)(&format!("host certificates were not renewed: {error}"));
            }
        }
    }

    /// Reports what the host is like, once that has been looked at.
    async fn check_in(&mut self) -> Result<(), ClientError> {
        let Some(mut report) = self.looking.report(self.in_place.bundle(), &self.link) else { return Ok(()) };
        if self.in_place.host_ca().is_some() {
            let now = SystemClock.now();
            let mut shown = install::shown(Path::new(places::SSHD_FOLDER), &self.keys, now);
            shown.extend(self.telling.still().into_iter().filter(|(_, end)| now < *end));
            report.shows = shown.keys().map(ToString::to_string).collect();
        }
        self.link.check_in(&report).await?;
        self.contact.checked_in = Some(SystemClock.now());
        self.due.check_in = Instant::now() + self.looking.next_in();
        Ok(())
    }

    /// Until something may be due: an event, or the next look.
    async fn wait(&mut self) {
        let due = self.due.connect.min(self.due.look).max(Instant::now() + MINIMUM);
        let Self { stream, telling, looking, tending, .. } = self;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // The rotation of the host CA key may wait for this one.
            () = telling.finished() => self.check_in_after(Duration::ZERO),
            pause = looking.finished() => self.check_in_after(pause),
            () = tending.finished() => {
                // A session that had no watcher has not been given its end.
                let wants = self.in_place.again(&mut self.telling);
                self.serve(wants);
            }
            is_there = next(stream) => self.heard(is_there),
        }
    }

    /// The service should know soon. One that does not answer is not asked before its time.
    fn check_in_after(&mut self, pause: Duration) {
        self.due.check_in = Instant::now() + pause;
        if self.contact.trouble.is_none() {
            self.due.connect = self.due.connect.min(self.due.check_in);
        }
    }

    /// An event has come by the stream, or it ended, or says nothing any more.
    fn heard(&mut self, is_there: bool) {
        let Some(push) = &mut self.stream else { return };
        let lasted = push.since.elapsed() > STREAM_LASTS;
        if is_there {
            push.is_heard = true;
            self.is_stale = true;
            self.due.connect = Instant::now();
        } else {
            self.stream = None;
            self.due.connect = Instant::now() + if lasted { MINIMUM } else { self.pause.next(random()) };
        }
    }
}

/// Until an event comes by the stream; whether one did. For ever where there is no stream.
async fn next(stream: &mut Option<Push>) -> bool {
    match stream {
        Some(push) => matches!(Client::next_data(&mut push.stream).await, Ok(Some(_))),
        None => std::future::pending().await,
    }
}

/// The shortest pause between two rounds, whatever is due.
const MINIMUM: Duration = Duration::from_millis(50);

fn random() -> u32 {
    // Without randomness all hosts come at once, which the service bears.
    SysRng.try_next_u32().unwrap_or(0)
}
