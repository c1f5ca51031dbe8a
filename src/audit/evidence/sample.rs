//! The requests that an auditor looks into, chosen so that anybody can make the choice again.
//!
//! The rule: for each request that was asked for in the period, SHA-256 over the seed, a blank and the request's id; those whose hashes are the
//! smallest are the sample. Whoever names the seed after the population is fixed leaves nobody a say in it.
//!
//! Memory: the entries of the requests that are in the sample so far, and of no other: it is decided when a request is asked for.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::shown::is_unsafe;
use crate::audit::tree::Hash;
use crate::name::RequestId;

/// The longest seed. Our own choice: a sentence, or some throws of dice.
const SEED_CHARS_MAX: usize = 200;

/// How many requests to look into, and the auditor's word that chooses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    size: usize,
    seed: String,
}

/// A seed that could not be written down.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a seed is 1 to {SEED_CHARS_MAX} characters, none of them a control or invisible one")]
pub struct SeedError;

impl Sample {
    /// So many requests by this seed.
    ///
    /// # Errors
    /// [`SeedError`] for a seed that is none.
    pub fn new(size: usize, seed: &str) -> Result<Self, SeedError> {
        let is_seed = (1..=SEED_CHARS_MAX).contains(&seed.chars().count()) && !seed.chars().any(is_unsafe);
        if is_seed { Ok(Self { size, seed: seed.to_owned() }) } else { Err(SeedError) }
    }

    /// How many were wanted.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> &str {
        &self.seed
    }

    /// What decides whether a request is in it: the smallest are.
    fn rank(&self, id: RequestId) -> Hash {
        Sha256::digest(format!("{} {id}", self.seed).as_bytes()).into()
    }
}

/// The sample so far, with its requests' entries.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    by_rank: BTreeMap<Hash, RequestId>,
    entries: BTreeMap<RequestId, Vec<Entry>>,
}

impl Chosen {
    /// Takes the next entry; `is_within` whether it was written in the period.
    pub(super) fn take(&mut self, sample: &Sample, entry: &Entry, is_within: bool) {
        let Some(id) = entry.event.request() else { return };
        if is_within && matches!(entry.event, Event::Asked { .. }) {
            self.ask(sample, id);
        }
        if let Some(entries) = self.entries.get_mut(&id) {
            entries.push(entry.clone());
        }
    }

    /// Takes a request into the sample, and another one out if there are more than wanted.
    fn ask(&mut self, sample: &Sample, id: RequestId) {
        self.by_rank.insert(sample.rank(id), id);
        self.entries.insert(id, Vec::new());
        if self.by_rank.len() > sample.size
            && let Some((_, out)) = self.by_rank.pop_last()
        {
            self.entries.remove(&out);
        }
    }

    /// The requests by rank, each with its entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &[Entry])> {
        self.by_rank.values().map(|id| (*id, self.entries.get(id).map_or(&[][..], Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn id(number: u32) -> RequestId {
        RequestId::parse(&format!("{number:08}")).unwrap()
    }

    #[test]
    fn a_seed_can_be_written_down() {
        for seed in ["", "a\nb", "\u{202e}", &"x".repeat(201)] {
            assert_eq!(Sample::new(1, seed), Err(SeedError), "{seed:?}");
        }
        assert_eq!(Sample::new(3, "Ada, 6 4 2 \u{e9}").unwrap().seed(), "Ada, 6 4 2 \u{e9}");
    }

    #[test]
    fn the_rank_is_what_sha256sum_says_of_seed_and_id() {
        // printf '%s %s' 'six dice' 0000-0007 | sha256sum
        let rank = Sample::new(1, "six dice").unwrap().rank(id(7));
        let shown = data_encoding::HEXLOWER.encode(&rank);
        assert_eq!(shown, "3fe8bba245e1c5665ee369a493917f1c556ffe0b39f5aabf1f8b74f0c129fb1b");
    }

    #[test]
    fn the_sample_is_the_smallest_ranks_and_has_its_entries_alone() {
        let sample = Sample::new(3, "six dice").unwrap();
        let mut chosen = Chosen::default();
        let entry = |index: u64, request: RequestId| Entry {
            index,
            at: Timestamp::from_unix(index).unwrap(),
            event: Event::Expired { request },
        };
        for number in 0..20 {
            chosen.ask(&sample, id(number));
            chosen.take(&sample, &entry(u64::from(number), id(number)), true);
        }
        let mut ranked: Vec<(Hash, RequestId)> = (0..20).map(|number| (sample.rank(id(number)), id(number))).collect();
        ranked.sort_unstable();
        let wanted: Vec<RequestId> = ranked.into_iter().take(3).map(|(_, id)| id).collect();
        assert_eq!(chosen.iter().map(|(id, _)| id).collect::<Vec<_>>(), wanted);
        assert!(chosen.iter().all(|(id, entries)| entries.iter().all(|entry| entry.event.request() == Some(id))));
    }
}
