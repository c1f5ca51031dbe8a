//! Going on from an older copy of the database, when the newer one is lost: explained, answered for by name, and written into the log.
//!
//! What was signed after the copy was made is gone, but not from the world: certificates of it may open hosts until they end, people
//! remember decisions, auditors keep checkpoints. So the log says what it does not know any more, in this order, each step durable:
//!
//! | Step | Why |
//! |---|---|
//! | `entry_lost` in place of each lost entry | a serial is its entry's index: none is given a second time |
//! | what is open in the copy lapses or ends | it may have been denied, ended or certified in the lost entries: a grant is certified once, and what was over stays over |
//! | `log_recovered`, with who, why and the lost checkpoints; all sessions of people end | nobody can say later that nothing was lost; who logged out stays out |
//! | the kept checkpoint is this log's | the next older copy is noticed, too |
//!
//! A crash between two steps leaves a log on which no service starts; doing it again goes on from there. It is the operator's act on the
//! service's machine, while no service runs: whoever has the log key can do it, and nobody else.
//!
//! What it can't give back: which policy, which CA keys, which hosts and join tokens were in force last. That is for the operator to look at.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lost::{self, Stands};
use super::text::{self, REASON_CHARS_MAX};
use crate::access::{Command, step};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::Event;
use crate::fail;
use crate::name::{PersonName, PolicyVersion};
use crate::store::head_file::KeptHead;
use crate::store::{Change, Save, Store, StoreError, Stored};
use crate::time::Timestamp;

/// How many entries one transaction adds: some MiB.
const PIECE: u64 = 10_000;

/// How many requests one transaction ends.
const ENDED_AT_ONCE: usize = 500;

/// The most entries that can be given up: a log of so many lost ones has some gigabytes. Our own choice; more is a slip of the pen.
pub const LOST_MAX: u64 = 10_000_000;

/// The most checkpoints that are looked at: one for each node, and some of auditors.
pub const HEADS_MAX: usize = 100;

/// Why nothing was recovered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoverError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a reason to do nothing, in words.
    #[error("{0}")]
    Refused(String),
    /// There is nothing to do.
    #[error("the database has all that the kept checkpoints cover: there is nothing to recover")]
    Nothing,
}

type Outcome<T> = Result<T, RecoverError>;

/// One kept checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHead {
    /// Where it is kept.
    pub place: String,
    /// The signed note, if it counts.
    pub note: Option<String>,
    /// How it stands to the log.
    pub stands: Stands,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many entries the database's log has.
    pub size: u64,
    /// When the last of them was written.
    pub last: Timestamp,
    /// Which policy is in force by it.
    pub policy: Option<PolicyVersion>,
    /// The kept checkpoints; the service's own comes first.
    pub heads: Vec<FoundHead>,
    /// The first lost entry of a recovery that was begun and not finished.
    pub begun: Option<u64>,
    /// How many requests are open, as far as counted.
    pub open: usize,
    /// Whether there are more.
    pub more_open: bool,
}

/// What is wrong, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A recovery was begun and not finished.
    Begun,
    /// The database has fewer entries than were signed: an older copy was put back.
    Behind,
    /// The database has as many, and others: it is another branch.
    Other,
    /// The service's own checkpoint does not count.
    Unusable,
    /// The kept checkpoint is of a branch that was given up; the next start brings it up.
    GivenUp,
    /// The service has no kept checkpoint of its own, so nobody can say.
    Missing,
    /// Nothing.
    Nothing,
}

impl Wrong {
    /// `begun`, `behind`, …
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Behind => "behind",
            Self::Other => "other",
            Self::Unusable => "unusable",
            Self::GivenUp => "given_up",
            Self::Missing => "missing",
            Self::Nothing => "nothing",
        }
    }
}

/// The operator's word.
#[derive(Clone, Debug)]
pub struct Word {
    /// Who.
    pub by: PersonName,
    /// Why.
    pub reason: String,
    /// A number that was given out for sure, as the lost log is not known from any checkpoint: the highest serial that a host has seen.
    pub past: Option<u64>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How many entries were kept.
    pub kept: u64,
    /// How many stand for lost ones.
    pub lost: u64,
    /// How many requests are over by it.
    pub ended: u64,
    /// The entry that says so; none if one said so before.
    pub entry: Option<u64>,
    /// How many entries the log has now.
    pub size: u64,
}

impl Found {
    /// What is wrong.
    #[must_use]
    pub fn wrong(&self) -> Wrong {
        let any = |is: fn(&Stands) -> bool| self.heads.iter().any(|head| is(&head.stands));
        let own = self.heads.first().map(|head| &head.stands);
        if self.begun.is_some() {
            Wrong::Begun
        } else if any(|stands| matches!(stands, Stands::Behind(_))) {
            Wrong::Behind
        } else if any(|stands| matches!(stands, Stands::Other(_))) {
            Wrong::Other
        } else if matches!(own, Some(Stands::Unusable(_))) {
            Wrong::Unusable
        } else if any(|stands| matches!(stands, Stands::GivenUp(_))) {
            Wrong::GivenUp
        } else if matches!(own, Some(Stands::Missing)) {
            Wrong::Missing
        } else {
            Wrong::Nothing
        }
    }

    /// How many entries were kept: those before the first lost one.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.begun.unwrap_or(self.size)
    }

    /// How many entries a checkpoint covers that the database has, and that somebody has given because the service's own is no use.
    #[must_use]
    pub fn vouched(&self) -> Option<u64> {
        let size = |head: &FoundHead| match head.stands {
            Stands::Covered(size) => Some(size),
            _ => None,
        };
        self.heads.iter().skip(1).filter_map(size).max()
    }

    /// How many entries the longest lost log had, as far as a checkpoint says.
    #[must_use]
    pub fn longest(&self) -> Option<u64> {
        let size = |head: &FoundHead| match head.stands {
            Stands::Behind(size) | Stands::Other(size) => Some(size),
            Stands::Missing | Stands::Unusable(_) | Stands::Covered(_) | Stands::GivenUp(_) => None,
        };
        self.heads.iter().filter_map(size).max()
    }
}

/// Looks at the store and at the kept checkpoints; changes nothing.
///
/// # Errors
/// Store failures.
pub async fn examine(store: &dyn Store, key: &LogKey, places: &[Arc<dyn KeptHead>]) -> Outcome<Found> {
    let verifier = key.verifier();
    // A key of another name would take every checkpoint for another log's.
    super::start::check_log(store, &verifier).await.map_err(|why| RecoverError::Refused(why.to_string()))?;
    let mut heads = Vec::with_capacity(places.len());
    for place in places {
        let (note, stands) = match place.read().map(|kept| lost::newest(&verifier, kept)) {
            Ok(None) => (None, Stands::Missing),
            Ok(Some(note)) => match lost::stands(store, &verifier, &note).await? {
                unusable @ Stands::Unusable(_) => (None, unusable),
                stands => (Some(note), stands),
            },
            // It may be in order, and only not be ours to read.
            Err(why) => return Err(why.into()),
        };
        heads.push(FoundHead { place: place.place(), note, stands });
    }
    let head = store.head().await?;
    let open = open(store).await?;
    Ok(Found {
        size: head.frontier.size(),
        last: head.at,
        policy: head.policy,
        heads,
        begun: lost::begun(store).await?,
        open: open.len(),
        more_open: open.len() >= ENDED_AT_ONCE,
    })
}

/// Some of the requests that are open: each has something that time would do to it.
async fn open(store: &dyn Store) -> Result<Vec<Stored>, StoreError> {
    store.due(Timestamp::MAX, ENDED_AT_ONCE).await
}

/// How many entries [`recover`] would write in place of lost ones, given this as [`Word::past`].
///
/// # Errors
/// As [`recover`] on what was found.
pub fn to_write(found: &Found, past: Option<u64>) -> Outcome<u64> {
    Ok(end_of_lost(found, past)?.map_or(0, |end| end.saturating_sub(found.size)))
}

/// Has the log go on from what is there. `told` hears how many entries it has by now, and how many it is to have.
///
/// # Errors
/// `Nothing` when there is nothing to recover; `Refused` when nothing says what was lost; store failures, after which it is to be done again.
pub async fn recover(
    store: &dyn Store,
    (key, place): (&LogKey, &dyn KeptHead),
    (found, word): (&Found, &Word),
    now: Timestamp,
    told: &mut (dyn FnMut(u64, u64) + Send),
) -> Outcome<Recovered> {
    let end = end_of_lost(found, word.past)?;
    let reason = text::check("reason", &word.reason, REASON_CHARS_MAX);
    let reason = reason.map_err(|why| RecoverError::Refused(why.to_string()))?;
    if reason.is_empty() {
        return Err(RecoverError::Refused("a recovery has a reason, which stays in the log".to_owned()));
    }
    let mut done = Recovered { kept: found.kept(), lost: 0, ended: 0, entry: None, size: found.size };
    if let Some(end) = end {
        let mut writing = Writing { store, size: found.size, now };
        writing.fill(end, told).await?;
        done.lost = writing.size.saturating_sub(done.kept);
        done.ended = writing.end_all(&word.by, &reason).await?;
        done.entry = Some(writing.size);
        writing.give_up(word.by.clone(), reason, found).await?;
        done.size = writing.size;
    }
    let frontier = store.head().await?.frontier;
    place.write(&key.sign(frontier.size(), &frontier.root()))?;
    fail::point("recover.kept");
    Ok(done)
}

/// How many entries the log must have before somebody answers for the lost ones; `None` when somebody has.
fn end_of_lost(found: &Found, past: Option<u64>) -> Outcome<Option<u64>> {
    let refuse = |why: &str| Err(RecoverError::Refused(why.to_owned()));
    let past = past.map(|past| past.saturating_add(1));
    let end = match (found.wrong(), found.longest().max(past)) {
        _ if found.size == 0 => return refuse("the database has no log yet"),
        (Wrong::Nothing, _) if past.is_none_or(|past| past <= found.size) => {
            return Err(RecoverError::Nothing);
        }
        (Wrong::GivenUp, _) if past.is_none_or(|past| past <= found.size) => return Ok(None),
        (Wrong::Missing | Wrong::Unusable, None) if found.vouched().is_some() => {
            return refuse(
                "nothing says that anything is lost: the database has all that the given checkpoint covers. If nothing was written after it either, \
                 move the service's own checkpoint away and start the service; else give the highest serial that hosts have seen as --past",
            );
        }
        (Wrong::Missing | Wrong::Unusable, None) => {
            return refuse(
                "no checkpoint says how many entries are lost. Give one of an auditor's or of another node as --head, or the highest serial \
                 that hosts have seen as --past",
            );
        }
        (_, end) => end.unwrap_or(found.size).max(found.size),
    };
    if end.saturating_sub(found.size) > LOST_MAX {
        return Err(RecoverError::Refused(format!(
            "{} entries would be given up, more than {LOST_MAX}: is that number right?",
            end.saturating_sub(found.size)
        )));
    }
    Ok(Some(end))
}

/// The log while it is brought to where it can go on. Each change rests on its size, so that nobody else writes in between.
struct Writing<'s> {
    store: &'s dyn Store,
    size: u64,
    now: Timestamp,
}

impl Writing<'_> {
    async fn write(&mut self, mut saves: Vec<Save>, events: Vec<Event>) -> Outcome<()> {
        saves.insert(0, Save::AtSize(self.size));
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        match self.store.commit(Change { at: self.now, saves, events }).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => {
                let why = "somebody else writes into this database; stop every service on it, and do this again";
                return Err(RecoverError::Refused(why.to_owned()));
            }
            Err(why) => return Err(why.into()),
        }
        self.size = self.size.saturating_add(count);
        Ok(())
    }

    /// An entry in place of each lost one.
    async fn fill(&mut self, end: u64, told: &mut (dyn FnMut(u64, u64) + Send)) -> Outcome<()> {
        while self.size < end {
            let count = usize::try_from(end.saturating_sub(self.size).min(PIECE)).unwrap_or(0);
            self.write(Vec::new(), vec![Event::EntryLost { of: end }; count]).await?;
            fail::point("recover.filled");
            if self.size < end {
                told(self.size, end);
            }
        }
        Ok(())
    }

    /// Whatever is open is over.
    async fn end_all(&mut self, by: &PersonName, reason: &str) -> Outcome<u64> {
        let mut ended = 0_u64;
        loop {
            let (mut saves, mut events) = (Vec::new(), Vec::new());
            for Stored { request, version } in open(self.store).await? {
                let id = request.id();
                let cut = Command::Cut { by: by.clone(), reason: reason.to_owned() };
                let taken = step(request, cut, self.now);
                let taken = taken.map_err(|why| RecoverError::Refused(format!("request {id}: {why}")))?;
                saves.push(Save::Request { request: taken.request, expected: version });
                events.extend(taken.events);
                ended = ended.saturating_add(1);
            }
            if events.is_empty() {
                return Ok(ended);
            }
            self.write(saves, events).await?;
            fail::point("recover.ended");
        }
    }

    /// Somebody answers for it.
    async fn give_up(&mut self, by: PersonName, reason: String, found: &Found) -> Outcome<()> {
        let is_lost = |head: &&FoundHead| matches!(head.stands, Stands::Behind(_) | Stands::Other(_));
        let notes: BTreeSet<String> = found.heads.iter().filter(is_lost).filter_map(|head| head.note.clone()).collect();
        let event = Event::LogRecovered { by, reason, kept: found.kept(), heads: notes.into_iter().collect() };
        self.write(vec![Save::EndAllSessions], vec![event]).await?;
        fail::point("recover.given_up");
        Ok(())
    }
}
