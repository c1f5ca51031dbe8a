//! Something that happened to a session on this host, for the log of the service.
//!
//! What for: guard and watcher know it, and neither talks to anybody; so it is put down in the [`spool`](super::spool), and the host's
//! daemon reports it. The members are those of `POST /v1/hosts/sessions`.
//!
//! Invariants: the same happening has the same id whoever puts it down and however often, so that reporting it twice changes nothing.
//! Nothing in it is more than one line of printable text.

use std::fmt;

use super::record::{Key, Record};
use crate::document::{self, Table};
use crate::name::{Account, Serial};
use crate::ssh::Fingerprint;
use crate::ssh::cert::KeyId;
use crate::time::Timestamp;

/// The longest event. Our own choice; a usual one has 400 bytes.
pub(super) const BYTES_MAX: usize = 4 * 1024;

/// The most characters of a reason. Our own choice.
const WHY_CHARS_MAX: usize = 200;

/// The longest id; the service takes no longer one.
const ID_BYTES_MAX: usize = 64;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A session by a certificate of ours began, and its end is armed.
    Opened,
    /// Nothing is left of it.
    Ended,
    /// sshd would have opened a session by a certificate of ours, and the guard did not let it.
    Refused,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, `KIND-…`; one file's name, too.
    pub id: String,
    /// What happened.
    pub kind: Kind,
    /// The certificate's serial.
    pub serial: Serial,
    /// Its key id: who and which request.
    pub key_id: KeyId,
    /// Which CA key signed it.
    pub ca: Fingerprint,
    /// The account.
    pub account: Account,
    /// The address that the connection came from; empty if it is not known.
    pub from: String,
    /// When.
    pub at: Timestamp,
    /// Why it ended or was refused; empty for an opened one.
    pub why: String,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Opened, Self::Ended, Self::Refused];

    /// `opened`, `ended`, `refused`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Ended => "ended",
            Self::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| "not a kind of event".to_owned())
    }
}

impl Event {
    /// What happened to the session of this record.
    #[must_use]
    pub fn of(record: &Record, kind: Kind, at: Timestamp, why: &str) -> Self {
        Self {
            id: id(kind, record.key, &record.boot_id),
            kind,
            serial: record.serial,
            key_id: record.key_id.clone(),
            ca: record.ca,
            account: record.account.clone(),
            from: record.from.map(|from| from.to_string()).unwrap_or_default(),
            at,
            why: one_line(why),
        }
    }

    /// Parses what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        document::read(text, "event", BYTES_MAX, read_table)
            .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())
    }
}

/// The id of what happened to a session (or would-be session) of this start of the machine.
pub(super) fn id(kind: Kind, key: Key, boot_id: &str) -> String {
    let boot = boot_id.get(..8).unwrap_or_default();
    format!("{}-{boot}-{key}", kind.word())
}

/// Whether the service takes it as an id.
pub(super) fn is_id(text: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fine)
}

/// A reason as one short line of what can be printed, without quotes and backslashes, so that it stands in a file as it is.
pub(super) fn one_line(why: &str) -> String {
    let shown = |c: char| match c {
        '"' | '\\' => '\'',
        ' '..='~' => c,
        _ => '?',
    };
    why.chars().take(WHY_CHARS_MAX).map(shown).collect()
}

/// The text that [`Event::parse`] reads.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, serial, key_id, ca, account, from, at, why } = self;
        writeln!(f, "id = \"{id}\"\nkind = \"{}\"\nat = \"{at}\"", kind.word())?;
        writeln!(f, "serial = {serial}\nkey_id = \"{}\"\nca = \"{ca}\"", key_id.as_str())?;
        writeln!(f, "account = \"{account}\"\nfrom = \"{from}\"\nwhy = \"{why}\"")
    }
}

fn read_table(root: &Table<'_>) -> Option<Event> {
    let id = |text: &str| if is_id(text) { Ok(text.to_owned()) } else { Err("not an id".to_owned()) };
    let line =
        |text: &str| if one_line(text) == text { Ok(text.to_owned()) } else { Err("not one short line".to_owned()) };
    let id = root.needed("id", root.parsed("id", id), "an id").map(|found| found.value);
    let kind = root.needed("kind", root.parsed("kind", Kind::parse), "a kind").map(|found| found.value);
    let at = root.needed("at", root.parsed("at", Timestamp::parse), "a time").map(|found| found.value);
    let serial = root.needed("serial", root.integer("serial", 1..=u64::MAX >> 1), "a serial").map(|found| found.value);
    let key_id = root.needed("key_id", root.parsed("key_id", KeyId::parse), "a key id").map(|found| found.value);
    let ca = root.needed("ca", root.parsed("ca", Fingerprint::parse), "a fingerprint").map(|found| found.value);
    let account = root.needed("account", root.parsed("account", Account::parse), "an account").map(|found| found.value);
    let from = root.needed("from", root.parsed("from", line), "an address").map(|found| found.value);
    let why = root.needed("why", root.parsed("why", line), "a reason").map(|found| found.value);
    Some(Event {
        id: id?,
        kind: kind?,
        serial: Serial::new(serial?).ok()?,
        key_id: key_id?,
        ca: ca?,
        account: account?,
        from: from?,
        at: at?,
        why: why?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    #[test]
    fn an_event_is_read_as_it_was_written_and_the_same_happening_has_the_same_id() {
        let at = |seconds| Timestamp::from_unix(seconds).unwrap();
        let event = Event::of(&record(), Kind::Ended, at(7), "its \"record\" \\ made\nno sense\u{1b}[2J");
        assert_eq!(event.id, "ended-01234567-12-4711-99");
        assert_eq!(event.why, "its 'record' ' made?no sense?[2J");
        assert_eq!(Event::parse(&event.to_string()), Ok(event.clone()));
        assert_eq!(Event::of(&record(), Kind::Ended, at(8), "").id, event.id);
        let longest = Key::parse("4294967294-4194304-18446744073709551615").unwrap();
        assert!(is_id(&id(Kind::Refused, longest, "01234567-89ab-cdef-0123-456789abcdef")));
        for (from, to) in [
            ("kind = \"ended\"", "kind = \"opened!\""),
            ("serial = 7", "serial = 0"),
            ("id = \"ended-", "id = \"../ended-"),
            ("at = ", "att = "),
            ("why = \"its", "why = \"\\u001bits"),
        ] {
            let text = event.to_string();
            assert!(text.contains(from) && Event::parse(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
