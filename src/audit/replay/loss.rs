//! Entries that are lost, as the log itself says: an older copy of the database was put back, and somebody had the log go on from it.
//!
//! The rules: nothing but ends stands between the first entry that is lost and the word of who gave it up; that word names where the copy
//! ended; nothing that was open goes on after it; and no lost log was longer than the place of that word, or a serial could be given twice.
//! What stood in the lost entries nobody can know from the log: that is for whoever reads the report.

use super::{Wrong, ensure};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::name::RequestId;

/// One time that entries were given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many entries the copy had.
    pub kept: u64,
    /// The first and the last entry that stand for lost ones; none where another branch was as short.
    pub lost: Option<(u64, u64)>,
    /// The entry that says so.
    pub entry: u64,
    /// The checkpoints of the lost log that are known.
    pub heads: Vec<Checkpoint>,
    /// Who and why, as a sentence.
    pub sentence: String,
}

/// What is known of losses after the entries so far.
#[derive(Debug, Default)]
pub(in crate::audit) struct Losses {
    /// The first and the last lost entry that nobody has given up yet.
    lost: Option<(u64, u64)>,
    pub(in crate::audit) known: Vec<Loss>,
}

impl Losses {
    /// Takes the next entry; `open` says a request that is.
    pub(super) fn take<'r>(
        &mut self,
        entry: &Entry,
        open: impl FnOnce() -> Option<&'r RequestId>,
    ) -> Result<(), Wrong> {
        if let Event::EntryLost { .. } = &entry.event {
            let first = self.lost.map_or(entry.index, |(first, _)| first);
            self.lost = Some((first, entry.index));
            return Ok(());
        }
        if let Event::LogRecovered { kept, heads, .. } = &entry.event {
            return self.give_up(entry, *kept, heads, open());
        }
        // What was open ends in between.
        if let Event::Lapsed { .. } | Event::Ended { .. } | Event::Expired { .. } = &entry.event {
            return Ok(());
        }
        let lost = self.lost.take();
        ensure(lost.is_none(), || "entries before it are lost, and nobody has given them up".to_owned())
    }

    fn give_up(&mut self, entry: &Entry, kept: u64, heads: &[String], open: Option<&RequestId>) -> Result<(), Wrong> {
        let lost = self.lost.take();
        let heads: Vec<Checkpoint> = heads.iter().filter_map(|note| Checkpoint::claimed(note).ok()).collect();
        let longest = heads.iter().map(|lost| lost.size).max().unwrap_or(0);
        self.known.push(Loss { kept, lost, entry: entry.index, heads, sentence: entry.event.sentence() });
        ensure(lost.map_or(kept <= entry.index, |(first, _)| first == kept), || {
            format!("it says that {kept} entries were kept, and the first lost one is another")
        })?;
        ensure(longest <= entry.index, || {
            format!("the lost log had {longest} entries, so that a serial could be given twice")
        })?;
        ensure(open.is_none(), || "what was open goes on, although it may have been over".to_owned())
    }

    /// A log that ends in lost entries.
    pub(in crate::audit) const fn unfinished(&self) -> Option<u64> {
        match self.lost {
            Some((first, _)) => Some(first),
            None => None,
        }
    }
}

impl Loss {
    /// Whether a checkpoint of so many entries may be of the lost log.
    pub(in crate::audit) fn may_be_of(&self, size: u64) -> bool {
        match self.lost {
            // What was kept aside lags a little behind the log, so the lost one may have been longer than is known.
            Some(_) => size > self.kept,
            // Nobody knows where the other branch began.
            None => self.heads.iter().any(|head| size <= head.size),
        }
    }

    /// `entries 40 to 59`, or what else there is to say.
    #[must_use]
    pub fn range(&self) -> String {
        match self.lost {
            Some((first, last)) if first == last => format!("entry {first}"),
            Some((first, last)) => format!("entries {first} to {last}"),
            None => "the last entries of another branch".to_owned(),
        }
    }
}
