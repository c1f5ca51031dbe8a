//! What the service said last, and how much of it is in place on this host.
//!
//! Invariants: what can't be put in place (a file system is full) does not keep the rest from being so, is shown by
//! `host status`, and is tried again until it is in place, whether the service can be asked then or not. What is over before its time is
//! looked for among the sessions at each look, not once: a login may have been under way. A certificate that is over stays so until its
//! window is, whatever the service says later. A session without a watcher gets its end after it has been looked after ([`super::tending`]).

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::install::{self, Granted, Installed, Installer, Remembered};
use super::pace::Pause;
use super::telling::Telling;
use super::{Say, random};
use crate::enrolment::facts::HostKey;
use crate::enrolment::host_certificate::Expected;
use crate::enrolment::places;
use crate::host::ended;
use crate::host::sessions::{Over, Rearmed, Sessions};
use crate::host::settings::{self, Settings};
use crate::ssh::Fingerprint;
use crate::ssh::bundle::Bundle;
use crate::time::{Clock as _, SystemClock};
use crate::wire::host::State;

/// The state, and what it has brought about.
pub(super) struct InPlace<'a> {
    say: Say<'a>,
    keys: Arc<[HostKey]>,
    installer: Installer,
    /// What the service said last.
    state: Option<State>,
    bundle: Option<Bundle>,
    /// The CA key that signs host certificates now.
    host_ca: Option<Fingerprint>,
    /// What is over before its time.
    over: Over,
    /// The certificates among it, as long as their windows are not.
    remembered: Remembered,
    /// What could not be put in place.
    left: Vec<String>,
    /// Between attempts at that.
    pause: Pause,
    /// When the next one is due.
    due: Instant,
}

/// What should be done at once because of what has been put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is wanted or not, whatever the others are")]
pub(super) struct Wants {
    /// The service should know.
    pub(super) check_in: bool,
    /// Host certificates may be by another CA key than signs now.
    pub(super) renew: bool,
    /// A session can't have its end before it has been looked after.
    pub(super) tend: bool,
}

impl<'a> InPlace<'a> {
    pub(super) fn new(say: Say<'a>, keys: Arc<[HostKey]>, installer: Installer) -> Self {
        Self {
            say,
            keys,
            installer,
            state: None,
            bundle: None,
            host_ca: None,
            over: Over::default(),
            remembered: Remembered::default(),
            left: Vec::new(),
            pause: Pause::default(),
            due: Instant::now(),
        }
    }

    /// Of what the service said last.
    pub(super) fn etag(&self) -> Option<&str> {
        self.state.as_ref().map(|state| state.etag.as_str())
    }

    /// The trust bundle in force, once the service has named one that could be believed.
    pub(super) const fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// The CA key that signs host certificates now, if the service has one.
    pub(super) const fn host_ca(&self) -> Option<Fingerprint> {
        self.host_ca
    }

    /// What could not be put in place.
    pub(super) fn left(&self) -> &[String] {
        &self.left
    }

    /// Whether that should be tried again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.left.is_empty() && now >= self.due
    }

    /// Puts in place what the service says now.
    pub(super) fn take(&mut self, state: State, telling: &mut Telling<'_>) -> Wants {
        if state.is_retired {
            (self.say)(
                "the service has retired this host: nothing is granted here any more; `hallpass host leave` takes it out",
            );
        }
        self.pause.reset();
        self.state = Some(state);
        self.again(telling)
    }

    /// Puts new host certificates in place, of which the state that was taken last does not know.
    pub(super) fn take_certificates(&mut self, lines: Vec<String>, telling: &mut Telling<'_>) -> Wants {
        if let Some(state) = &mut self.state {
            state.certificates = lines;
        }
        let wants = self.again(telling);
        // The rotation of the host CA key may wait for this one.
        Wants { check_in: true, ..wants }
    }

    /// Puts what the service said last in place, and says what can't be, once; that is tried again after a pause.
    pub(super) fn again(&mut self, telling: &mut Telling<'_>) -> Wants {
        let mut wants = Wants::default();
        let Some(state) = self.state.take() else { return wants };
        let left = self.put(&state, telling, &mut wants);
        self.state = Some(state);
        for why in left.iter().filter(|why| !self.left.contains(why)) {
            (self.say)(why);
        }
        if left.is_empty() {
            self.pause.reset();
            if !self.left.is_empty() {
                (self.say)("what could not be put in place is in place now");
            }
        } else {
            self.due = Instant::now() + self.pause.next(random());
        }
        self.left = left;
        wants
    }

    /// Puts a state in place. What can't be is returned, and does not keep the rest from being so.
    fn put(&mut self, state: &State, telling: &mut Telling<'_>, wants: &mut Wants) -> Vec<String> {
        let mut left = Vec::new();
        let settings_path = Path::new(settings::PATH);
        let bundle = Settings::load(settings_path)
            .and_then(|settings| self.installer.bundle(&state.bundle.text, &settings.name, state.belongs.as_deref()));
        match bundle {
            Ok(Installed { bundle, is_new, forgotten }) => {
                if is_new {
                    (self.say)(&format!("the trust bundle is now version {}", bundle.version()));
                    wants.check_in = true;
                }
                self.bundle = Some(bundle);
                left.extend(forgotten);
            }
            Err(why) => left.push(why),
        }
        match self.put_host_ca(state.host_ca.as_deref()) {
            Ok(is_new) => wants.renew |= is_new,
            Err(why) => left.push(why),
        }
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
                left.extend(self.put_certificates(state, &settings, telling));
                match install::granted(&state.grants) {
                    Ok(granted) => left.extend(self.put_grants(&granted, &settings, wants)),
                    Err(why) => left.push(why),
                }
            }
            Err(why) => left.push(why),
        }
        // After the grants: these have no say about what is over, or was opened with a stolen key.
        self.end_over();
        left
    }

    /// Host certificates by another CA key than this are replaced at once. Whether it is another one than before.
    fn put_host_ca(&mut self, ca: Option<&str>) -> Result<bool, String> {
        let told = |why| format!("the service names a host CA key that is none: {why}");
        let ca = ca.map(Fingerprint::parse).transpose().map_err(told)?;
        let is_new = ca != self.host_ca;
        self.host_ca = ca;
        Ok(is_new)
    }

    /// The ended list, and the ends of sessions, as the service has them. What could not be put in place.
    fn put_grants(&mut self, granted: &Granted, settings: &Settings, wants: &mut Wants) -> Vec<String> {
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
                Ok(Rearmed { changed, unwatched }) => {
                    if changed > 0 {
                        (self.say)(&format!("request {request}: {changed} sessions go on until {end}"));
                    }
                    wants.tend |= unwatched > 0;
                }
                Err(why) => left.push(why),
            }
        }
        left
    }

    /// Ends what rests on what is over before its time: also what was opened with a CA key that is lost, whatever its certificate says of
    /// itself, which may be the thief's. What can't be ended now is looked for again at the next look.
    pub(super) fn end_over(&self) {
        let ended = Settings::load(Path::new(settings::PATH))
            .and_then(|settings| Sessions::open(&settings)?.end_over(&self.over));
        if let Ok(count @ 1..) = ended {
            (self.say)(&format!("{count} sessions that are over before their time end now"));
        }
    }

    /// Host certificates; sshd reads them when it is told to. What could not be put in place.
    fn put_certificates(&self, state: &State, settings: &Settings, telling: &mut Telling<'_>) -> Vec<String> {
        let (folder, now) = (Path::new(places::SSHD_FOLDER), SystemClock.now());
        let expected = match Expected::new(&settings.name, &state.names, state.host_ca.as_deref(), now) {
            Ok(expected) => expected,
            Err(why) => return vec![why],
        };
        let (new, mut left) = install::new_certificates(folder, &state.certificates, &self.keys, &expected);
        if new.is_empty() {
            return left;
        }
        if let Err(why) = telling.before(&install::shown(folder, &self.keys, now)) {
            left.push(why);
            return left;
        }
        let (count, written) = install::write(&new);
        if count > 0 {
            telling.written();
        } else {
            telling.unwritten();
        }
        left.extend(written.err());
        left
    }
}
