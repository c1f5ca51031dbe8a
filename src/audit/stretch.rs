//! The entries from some entry to the end of the log, checked as they come: that they are just those that a signed checkpoint covers there.
//!
//! What for: whoever takes only what is new believes no more than whoever takes the whole log. What lies before the stretch is known by the
//! hashes of its first entry's inclusion proof; the entries are appended to those, and what comes out must be the signed root.
//! What not: once taken, a stretch proves nothing to anybody else; the whole log does ([`super::export`]).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::checkpoint::Checkpoint;
use super::entry::Entry;
use super::export::{ExportError, next_entry};
use super::tree::{Frontier, Hash};

/// A stretch, as far as it has come.
#[derive(Debug)]
pub struct Stretch {
    tree: Frontier,
    size: u64,
    root: Hash,
}

impl Stretch {
    /// One from entry `first` to the end of what this checkpoint covers, whose signature was checked; `proof` is that of the first entry.
    ///
    /// # Errors
    /// [`ExportError::Root`] if that can't be the proof of this entry.
    pub fn new(checkpoint: &Checkpoint, first: u64, proof: &[Hash]) -> Result<Self, ExportError> {
        let Checkpoint { size, root, .. } = *checkpoint;
        let tree = if first == 0 { Some(Frontier::default()) } else { Frontier::before(first, size, proof) };
        tree.map(|tree| Self { tree, size, root }).ok_or(ExportError::Root)
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ExportError::Entry`] if it is not canonical or not the next.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<Entry, ExportError> {
        let entry = next_entry(self.tree.size(), bytes)?;
        self.tree.push_with(Entry::leaf_hash(bytes), |_, _| {});
        Ok(entry)
    }

    /// Whether these were all of them, and those that the checkpoint was signed for.
    ///
    /// # Errors
    /// [`ExportError::Size`] and [`ExportError::Root`].
    pub fn finish(&self) -> Result<(), ExportError> {
        let entries = self.tree.size();
        if entries != self.size {
            return Err(ExportError::Size { checkpoint: self.size, entries });
        }
        if self.tree.root() == self.root { Ok(()) } else { Err(ExportError::Root) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::inclusion_proof;
    use super::*;

    /// Entries of every kind.
    const GOLDEN: &str = include_str!("../../tests/golden/events.jsonl");

    /// What the checks say of a stretch of these lines.
    fn check(lines: &[&str], first: usize, sent: &[&str]) -> Result<(), ExportError> {
        let mut tree = Frontier::default();
        let nodes = lines.iter().flat_map(|line| tree.push(Entry::leaf_hash(line.as_bytes()))).collect();
        let (size, first) = (tree.size(), u64::try_from(first).unwrap());
        let proof = inclusion_proof(first, size, &nodes).unwrap();
        let checkpoint = Checkpoint { origin: "o".to_owned(), size, root: tree.root() };
        let mut stretch = Stretch::new(&checkpoint, first, &proof)?;
        sent.iter().try_for_each(|line| stretch.entry(line.as_bytes()).map(drop))?;
        stretch.finish()
    }

    #[test]
    fn the_entries_of_the_checkpoint_are_taken_wherever_they_begin() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        for first in 0..lines.len() {
            assert_eq!(check(&lines, first, &lines[first..]), Ok(()), "{first}");
        }
    }

    #[test]
    fn others_fewer_and_moved_ones_are_not() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let last = lines.len() - 1;
        let changed = lines[7].replacen("\"comment\":\"ok\"", "\"comment\":\"no\"", 1);
        assert_ne!(changed, lines[7]);
        let mut others = lines.clone();
        others[7] = &changed;
        assert_eq!(check(&lines, 5, &others[5..]), Err(ExportError::Root));
        assert!(matches!(check(&lines, 5, &lines[5..last]), Err(ExportError::Size { .. })));
        for sent in [&lines[6..], &[lines[5], lines[7]], &[lines[5], lines[5]], &["{}"]] {
            assert!(matches!(check(&lines, 5, sent), Err(ExportError::Entry { .. })), "{sent:?}");
        }
    }

    #[test]
    fn what_lies_before_it_counts() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let checkpoint = Checkpoint { origin: "o".to_owned(), size: 9, root: [7; 32] };
        assert!(matches!(Stretch::new(&checkpoint, 4, &[]), Err(ExportError::Root)));
        let mut stretch = Stretch::new(&checkpoint, 8, &[[1; 32]]).unwrap();
        stretch.entry(lines[8].as_bytes()).unwrap();
        assert_eq!(stretch.finish(), Err(ExportError::Root));
    }
}
