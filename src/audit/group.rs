//! The entries since the last subtree line of an export, and the hash over them.
//!
//! A group of 256 entries is a node of the whole tree, so its hash is there once the tree has grown over it. Only where a subtree line was missing
//! or out of its place do groups stand elsewhere, and then they are hashed for themselves.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::export::GROUP;
use super::tree::{Frontier, Hash};

/// The entries since the last subtree line.
#[derive(Default)]
pub(super) struct Group {
    size: u64,
    /// The hash over them, once they are [`GROUP`] and stand where the whole tree has a node for them.
    node: Option<Hash>,
    /// A tree of their own, where it has none: after a line that was missing or out of its place.
    own: Option<Frontier>,
}

impl Group {
    /// One that begins behind so many entries.
    pub(super) fn behind(entries: u64) -> Self {
        Self { own: (!entries.is_multiple_of(GROUP)).then(Frontier::default), ..Self::default() }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next entry, and the node of a group that is complete with it.
    pub(super) fn push(&mut self, leaf: Hash, node: Option<Hash>) {
        self.size = self.size.saturating_add(1);
        match &mut self.own {
            Some(own) => own.push_with(leaf, |_, _| {}),
            None => self.node = node,
        }
    }

    /// The hash over them.
    pub(super) fn root(&self) -> Option<Hash> {
        self.own.as_ref().map(Frontier::root).or(self.node)
    }
}
