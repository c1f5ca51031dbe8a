//! What has happened to sessions and is not yet reported: one small file for each event, in a folder that outlives the machine's start.
//!
//! What for: guard and watchers write, the host's daemon reads, reports and removes; so nothing is lost while the service is away or the
//! daemon does not run. A host without a daemon has no such folder, and then nothing is written.
//!
//! Invariants: a file is there whole or not at all. The folder is bounded: what does not fit is said in the machine's log instead,
//! refusals (which anybody with an old certificate can make) leave room for sessions, and whoever logs in again and again leaves room for
//! everybody else. Never a reason to refuse a login or to leave one running.
//!
//! *Why is the person in a file's name?* Each event is put down by a process of its own, beside a login. To read all others first in order to count those
//! of one person would make a flood of logins worse.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::event::{self, Event, Kind};
use super::{journal, settings};
use crate::name::PersonName;
use crate::ssh::cert::{KeyId, Whose};

/// The most events that wait. Our own choice: with 400 bytes each in a file of 4 KiB it is 40 MiB.
const COUNT_MAX: usize = 10_000;

/// From so many on no refusals are taken.
const REFUSED_MAX: usize = 5_000;

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool(PathBuf);

impl Spool {
    /// The spool in this folder, which need not exist.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, for root alone. From then on events are written.
    ///
    /// # Errors
    /// In words; also when others could change what is in it.
    pub fn create(&self) -> Result<(), String> {
        crate::durable::create_folder(&self.0, 0o700).map_err(|error| error.to_string())?;
        self.is_there().map(drop)
    }

    /// Puts an event down, durably. Where that can't be done, the machine's log has it. A host's login to itself is nobody's session.
    pub fn put(&self, event: &Event) {
        let Some(person) = person(&event.key_id) else { return };
        match self.try_put(event, person) {
            Ok(()) => {}
            Err(why) => journal::note(&format!(
                "not reported: {} {} (serial {}): {why}",
                event.kind.word(),
                event.key_id.as_str(),
                event.serial
            )),
        }
    }

    fn try_put(&self, event: &Event, person: &PersonName) -> Result<(), String> {
        if !self.is_there()? {
            return Ok(());
        }
        let names = self.names();
        let most = if event.kind == Kind::Refused { REFUSED_MAX } else { COUNT_MAX };
        let free = most.saturating_sub(names.len());
        let taken = names.iter().filter(|name| split(name).1 == Some(person.as_str())).count();
        // However many people flood it, each leaves as much room as they have taken themselves.
        if taken >= free {
            return Err(format!("{:?} has room for {free} more, and {taken} of this person already", self.0));
        }
        let path = self.0.join(name(&event.id, person));
        crate::durable::replace(&path, event.to_string().as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// Whether anything waits, by the names alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// The events that wait, oldest first, at most so many: all of them are read for it, which is 10,000 files perhaps; a file that is not one is removed, with a line in the log.
    #[must_use]
    pub fn events(&self, at_most: usize) -> Vec<Event> {
        let mut events: Vec<Event> = self.names().into_iter().filter_map(|name| self.event(&name)).collect();
        // Of one second: a session is opened before it is ended.
        events.sort_by(|a, b| (a.at, a.kind, &a.id).cmp(&(b.at, b.kind, &b.id)));
        events.truncate(at_most);
        events
    }

    /// Forgets an event that was reported. One that is forgotten already is fine.
    pub fn remove(&self, event: &Event) {
        if let Some(person) = person(&event.key_id) {
            self.remove_file(&name(&event.id, person));
        }
        // As releases named it that did not count by person.
        self.remove_file(&event.id);
    }

    fn remove_file(&self, name: &str) {
        drop(std::fs::remove_file(self.0.join(name)));
    }

    fn event(&self, name: &str) -> Option<Event> {
        let path = self.0.join(name);
        let text = settings::read(&path, event::BYTES_MAX)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "not text".to_owned()));
        let is_named = |event: &Event| {
            let (id, who) = split(name);
            event.id == id && who.is_none_or(|who| person(&event.key_id).is_some_and(|person| person.as_str() == who))
        };
        match text.and_then(|text| Event::parse(&text)) {
            Ok(event) if is_named(&event) => Some(event),
            Ok(_) => self.reject(name, "it is not about what its name says"),
            Err(why) if path.exists() => self.reject(name, &why),
            // Reported and removed meanwhile.
            Err(_) => None,
        }
    }

    fn reject(&self, name: &str, why: &str) -> Option<Event> {
        journal::note(&format!("{:?} is no event and is removed: {why}", self.0.join(name)));
        self.remove_file(name);
        None
    }

    /// Names of files in it that may be events: not those that are being written.
    fn names(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        names.filter(|name| event::is_id(split(name).0)).collect()
    }

    /// Whether there is such a folder.
    fn is_there(&self) -> Result<bool, String> {
        let metadata = match std::fs::symlink_metadata(&self.0) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(format!("cannot look at {:?}: {error}", self.0)),
        };
        let is_ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
        if metadata.is_dir() && is_ours && metadata.mode() & 0o022 == 0 {
            Ok(true)
        } else {
            Err(format!("{:?} must be a folder that only root can change: chown root, chmod 700", self.0))
        }
    }
}

/// Who a certificate is for; nobody, if it is for a host's login to itself.
const fn person(key_id: &KeyId) -> Option<&PersonName> {
    match key_id.whose() {
        Whose::Request { person, .. } => Some(person),
        Whose::Check(_) | Whose::Host(_) => None,
    }
}

/// The file of an event. Neither an id nor a person's name has a comma in it.
fn name(id: &str, person: &PersonName) -> String {
    format!("{id},{person}")
}

/// Id and person of a file's name; no person where an earlier release wrote it.
fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once(',').map_or((name, None), |(id, person)| (id, Some(person)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes the files that others make")]
mod tests {
    use super::*;
    use crate::host::record::tests::record;
    use crate::time::Timestamp;

    fn event(kind: Kind, seconds: u64) -> Event {
        Event::of(&record(), kind, Timestamp::from_unix(seconds).unwrap(), "why")
    }

    #[test]
    fn events_wait_oldest_first_until_they_are_removed_and_only_where_there_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::at(&folder.path().join("spool"));
        spool.put(&event(Kind::Opened, 1));
        assert!(!spool.folder().exists(), "no daemon, no spool");
        spool.create().unwrap();
        for event in [event(Kind::Ended, 7), event(Kind::Opened, 7), event(Kind::Ended, 7), event(Kind::Refused, 3)] {
            spool.put(&event);
        }
        let kinds = |most| spool.events(most).into_iter().map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(kinds(9), [Kind::Refused, Kind::Opened, Kind::Ended]);
        assert_eq!(kinds(1), [Kind::Refused]);
        spool.remove(&event(Kind::Refused, 3));
        spool.remove(&event(Kind::Refused, 3));
        assert_eq!(kinds(9), [Kind::Opened, Kind::Ended]);
    }

    #[test]
    fn what_is_no_event_is_removed_and_what_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::at(folder.path());
        std::fs::write(folder.path().join("ended-1"), "garbage").unwrap();
        for name in ["opened-1", &format!("{},bob", event(Kind::Opened, 1).id)] {
            std::fs::write(folder.path().join(name), event(Kind::Opened, 1).to_string()).unwrap();
        }
        std::fs::write(folder.path().join(".ended-2.7-0.tmp"), "half").unwrap();
        assert!(!spool.is_empty());
        assert_eq!(spool.events(9), []);
        assert!(spool.is_empty());
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, [".ended-2.7-0.tmp"]);
    }

    #[test]
    fn what_an_earlier_release_put_down_is_reported_and_forgotten_too() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::at(folder.path());
        let event = event(Kind::Opened, 1);
        std::fs::write(folder.path().join(&event.id), event.to_string()).unwrap();
        assert_eq!(spool.events(9), std::slice::from_ref(&event));
        spool.remove(&event);
        assert!(spool.is_empty());
    }

    /// Of somebody, for the `n`th time.
    fn event_of(who: &str, kind: Kind, n: usize) -> Event {
        let key_id = KeyId::parse(&format!("hallpass/7K3F9QX2/{who}")).unwrap();
        Event { id: format!("{}-{n}", kind.word()), key_id, ..event(kind, 1) }
    }

    #[test]
    fn a_full_spool_takes_no_more_and_refusals_leave_room() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::at(folder.path());
        let put = |event: &Event| spool.try_put(event, person(&event.key_id).unwrap());
        let fill =
            |from: usize, to| (from..to).for_each(|n| std::fs::write(folder.path().join(n.to_string()), "").unwrap());
        fill(0, REFUSED_MAX);
        assert!(put(&event(Kind::Refused, 1)).unwrap_err().contains("room for 0 more"));
        assert_eq!(put(&event(Kind::Opened, 1)), Ok(()));
        fill(REFUSED_MAX, COUNT_MAX);
        assert!(put(&event(Kind::Ended, 1)).unwrap_err().contains("room for 0 more"));
    }

    #[test]
    fn whoever_logs_in_again_and_again_leaves_room_for_everybody_else() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::at(folder.path());
        let put = |event: &Event| spool.try_put(event, person(&event.key_id).unwrap());
        let flood = |who: &str, kind, count| {
            let names = (0..count).map(|n| event_of(who, kind, n).id + "," + who);
            names.for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        };
        // One has half of it, and of refusals half of their half.
        flood("mallory", Kind::Refused, REFUSED_MAX / 2 - 1);
        assert_eq!(put(&event_of("mallory", Kind::Refused, 9_999)), Ok(()));
        assert!(put(&event_of("mallory", Kind::Refused, 9_998)).unwrap_err().contains("2500 of this person already"));
        assert_eq!(put(&event_of("mallory", Kind::Opened, 9_999)), Ok(()), "sessions go on");
        flood("mallory", Kind::Opened, COUNT_MAX / 2 - REFUSED_MAX / 2);
        assert!(put(&event_of("mallory", Kind::Ended, 1)).unwrap_err().contains("5001 of this person already"));
        // What others have is theirs, whether their names begin or end alike.
        for who in ["alice@example.com", "mallory2", "m.mallory"] {
            assert_eq!((put(&event_of(who, Kind::Opened, 1)), put(&event_of(who, Kind::Ended, 1))), (Ok(()), Ok(())));
        }
        // Two that flood it leave a third of it to the others.
        flood("trudy", Kind::Opened, 2_497);
        assert!(put(&event_of("trudy", Kind::Opened, 9_999)).unwrap_err().contains("of this person already"));
        assert_eq!(put(&event_of("alice@example.com", Kind::Opened, 2)), Ok(()));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let spool = Spool::at(folder.path());
        assert!(spool.create().unwrap_err().contains("only root"));
        let event = event(Kind::Ended, 1);
        assert!(spool.try_put(&event, person(&event.key_id).unwrap()).is_err());
    }
}
