//! The Merkle tree of RFC 6962 section 2.1: hashes, growth, inclusion and consistency proofs.
//!
//! Stored as *complete subtrees*: node `(level, position)` is the hash over leaves
//! `[position << level, (position + 1) << level)`. A new leaf completes `trailing_zeros(size)` more nodes, so growth costs
//! two nodes an entry on average, and each proof reads O(log n) nodes.
//!
//! What not: no storage, no entries, no signatures; leaves arrive as hashes.
//!
//! Invariants: a proof is made from stored nodes or not at all; the verifiers (RFC 9162 sections 2.1.3.2 and 2.1.4.2) share no
//! code with the provers, so that a mistake in one shows in the other.
//!
//! *Why recompute ranges instead of keeping whole levels in memory?* A proof needs at most 2·log₂(n) nodes, and the store
//! answers a list of nodes with one query: [`inclusion_nodes`] and [`consistency_nodes`] say which.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// A SHA-256 tree hash.
pub type Hash = [u8; 32];

/// SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new_with_prefix([0_u8]).chain_update(entry).finalize().into()
}

/// SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    let (_, hashes) = bytes.split_at_mut(1);
    let (hashes, _) = hashes.as_chunks_mut();
    hashes.iter_mut().zip([left, right]).for_each(|(to, from)| *to = *from);
    Sha256::digest(bytes).into()
}

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A complete subtree's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// 0 for leaves.
    pub level: u8,
    /// Position among nodes of that level, from the left.
    pub position: u64,
}

/// The growing edge: the roots of the complete subtrees that `size` splits into, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// The frontier of a stored tree; `None` if the number of roots does not fit `size`.
    #[must_use]
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        let fits = usize::try_from(size.count_ones()).is_ok_and(|wanted| wanted == roots.len());
        fits.then_some(Self { size, roots })
    }

    /// The frontier of the first `index` leaves, out of the inclusion proof of the leaf behind them in a tree of `size`: what lies to the left of that
    /// leaf. Whether they are those of the tree shows once the rest is appended and the root compared. `None` if the proof has another length.
    #[must_use]
    pub fn before(index: u64, size: u64, proof: &[Hash]) -> Option<Self> {
        let ranges = if index < size { inclusion_ranges(index, size) } else { return None };
        if ranges.len() != proof.len() {
            return None;
        }
        let is_left = |(range, _): &(&Range, &Hash)| range.1 <= index;
        // Leaf side first there, largest first here.
        let roots = ranges.iter().zip(proof).filter(is_left).map(|(_, hash)| *hash).rev().collect();
        Self::from_parts(index, roots)
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots, largest subtree first.
    #[must_use]
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The nodes whose hashes are the roots for a tree of `size`.
    #[must_use]
    pub fn nodes_of(size: u64) -> Vec<Node> {
        complete_subtrees(0, size)
    }

    /// Whether a tree with these nodes begins like this one; `nodes` has those of [`Self::nodes_of`] its size, as far as there are.
    #[must_use]
    pub fn begins(&self, nodes: &BTreeMap<Node, Hash>) -> bool {
        Self::nodes_of(self.size).iter().map(|node| nodes.get(node)).eq(self.roots.iter().map(Some))
    }

    /// Appends a leaf; returns the nodes that are complete now (the leaf itself first), to be stored.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Node, Hash)> {
        let mut complete = Vec::new();
        self.push_with(leaf, |node, hash| complete.push((node, *hash)));
        complete
    }

    /// The same; `complete` is told each node that is complete now.
    pub fn push_with(&mut self, leaf: Hash, mut complete: impl FnMut(Node, &Hash)) {
        let mut node = Node { level: 0, position: self.size };
        let mut hash = leaf;
        complete(node, &hash);
        // An odd position is a right child: its left sibling is the last root.
        while node.position & 1 == 1 {
            let Some(left) = self.roots.pop() else { break };
            hash = node_hash(&left, &hash);
            node = Node { level: node.level.saturating_add(1), position: node.position >> 1 };
            complete(node, &hash);
        }
        self.roots.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// The tree's root; of the empty tree SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_right(self.roots.iter().copied()).unwrap_or_else(empty_root)
    }
}

/// The root over neighbouring complete subtrees, largest first; `None` for none.
fn fold_right(roots: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    roots.rev().reduce(|right, left| node_hash(&left, &right))
}

/// The complete subtrees that leaves `[start, end)` split into, largest first. `start` must be a multiple of the largest.
fn complete_subtrees(start: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = start;
    let mut left = end.saturating_sub(start);
    while let Some(level) = left.checked_ilog2() {
        let leaves = 1_u64.checked_shl(level).unwrap_or(0);
        let position = at.checked_shr(level).unwrap_or(0);
        nodes.push(Node { level: u8::try_from(level).unwrap_or(u8::MAX), position });
        at = at.saturating_add(leaves);
        left = left.saturating_sub(leaves);
    }
    nodes
}

/// Leaves `[start, end)` whose root is one hash of a proof.
type Range = (u64, u64);

/// Where the RFC splits `[start, end)`: the left part is the largest power of two smaller than the whole.
fn split((start, end): Range) -> Option<u64> {
    let leaves = end.saturating_sub(start);
    let level = leaves.checked_sub(1)?.checked_ilog2()?;
    1_u64.checked_shl(level).and_then(|left| start.checked_add(left))
}

/// RFC 6962 section 2.1.1, `PATH(index, D[size])`, leaf side first.
fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, size);
    while let Some(middle) = split((start, end)) {
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// RFC 6962 section 2.1.2, `PROOF(old, D[new])`, for `0 < old < new`.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range> {
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, new);
    while old != end {
        let Some(middle) = split((start, end)) else { break };
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    // While `start` is 0 the subtree is the old tree itself, whose root the verifier has.
    if start > 0 {
        ranges.push((start, end));
    }
    ranges.reverse();
    ranges
}

fn nodes_for(ranges: Vec<Range>) -> Vec<Node> {
    ranges.into_iter().flat_map(|(start, end)| complete_subtrees(start, end)).collect()
}

fn hashes_for(ranges: Vec<Range>, nodes: &BTreeMap<Node, Hash>) -> Option<Vec<Hash>> {
    let root_of = |(start, end): Range| {
        let roots: Option<Vec<Hash>> = complete_subtrees(start, end).iter().map(|n| nodes.get(n).copied()).collect();
        roots.and_then(|roots| fold_right(roots.into_iter()))
    };
    ranges.into_iter().map(root_of).collect()
}

/// Nodes needed for the inclusion proof of leaf `index` in the tree of `size`; hashes may combine several nodes.
#[must_use]
pub fn inclusion_nodes(index: u64, size: u64) -> Vec<Node> {
    if index >= size { Vec::new() } else { nodes_for(inclusion_ranges(index, size)) }
}

/// The inclusion proof (RFC 6962 2.1.1) from stored nodes; `None` when one is missing or `index >= size`.
#[must_use]
pub fn inclusion_proof(index: u64, size: u64, nodes: &BTreeMap<Node, Hash>) -> Option<Vec<Hash>> {
    if index >= size { None } else { hashes_for(inclusion_ranges(index, size), nodes) }
}

/// Nodes needed for the consistency proof between the trees of `old` and `new` leaves.
#[must_use]
pub fn consistency_nodes(old: u64, new: u64) -> Vec<Node> {
    if old == 0 || old >= new { Vec::new() } else { nodes_for(consistency_ranges(old, new)) }
}

/// The consistency proof (RFC 6962 2.1.2) from stored nodes; `None` when one is missing or the sizes don't fit.
///
/// It is empty between equal trees and from the empty tree, which is a prefix of every other.
#[must_use]
pub fn consistency_proof(old: u64, new: u64, nodes: &BTreeMap<Node, Hash>) -> Option<Vec<Hash>> {
    if old > new {
        None
    } else if old == 0 || old == new {
        Some(Vec::new())
    } else {
        hashes_for(consistency_ranges(old, new), nodes)
    }
}

/// Whether `proof` shows `leaf` at `index` under `root` (RFC 9162 2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    let Some(mut last) = size.checked_sub(1).filter(|last| index <= *last) else { return false };
    let mut at = index;
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            // A last node without a right sibling moves up unchanged.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree `(old, old_root)` is a prefix of `(new, new_root)` (RFC 9162 2.1.4.2).
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let (Some(mut at), Some(mut last)) = (old.checked_sub(1), new.checked_sub(1)) else {
        return proof.is_empty() && *old_root == empty_root();
    };
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// The leaves of the reference vectors of certificate-transparency (`merkletree/merkle_tree_test.cc`).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

    /// The roots over the first 0 to 8 of them.
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves() -> Vec<Hash> {
        LEAVES.iter().map(|hex| leaf_hash(&HEXLOWER.decode(hex.as_bytes()).unwrap())).collect()
    }

    fn grown(leaves: &[Hash]) -> (Frontier, BTreeMap<Node, Hash>) {
        let mut frontier = Frontier::default();
        let nodes = leaves.iter().flat_map(|leaf| frontier.push(*leaf)).collect();
        (frontier, nodes)
    }

    #[test]
    fn roots_are_those_of_the_reference_vectors() {
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!(HEXLOWER.encode(&grown(&leaves()[..size]).0.root()), *root, "size {size}");
        }
    }

    #[test]
    fn an_inclusion_proof_is_that_of_the_reference_vectors() {
        let (_, nodes) = grown(&leaves());
        let proof = inclusion_proof(5, 8, &nodes).unwrap();
        let hex: Vec<String> = proof.iter().map(|h| HEXLOWER.encode(h)).collect();
        assert_eq!(
            hex,
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    #[test]
    fn a_consistency_proof_is_that_of_the_reference_vectors() {
        let (_, nodes) = grown(&leaves());
        let proof = consistency_proof(6, 8, &nodes).unwrap();
        let hex: Vec<String> = proof.iter().map(|h| HEXLOWER.encode(h)).collect();
        assert_eq!(
            hex,
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    #[test]
    fn no_proof_is_made_for_what_is_not_there_or_without_a_node() {
        let (_, nodes) = grown(&leaves());
        assert_eq!(inclusion_proof(8, 8, &nodes), None);
        assert_eq!(inclusion_proof(0, 0, &nodes), None);
        assert_eq!(consistency_proof(8, 7, &nodes), None);
        assert_eq!(inclusion_proof(3, 9, &nodes), None);
        assert_eq!(consistency_proof(0, 8, &nodes), Some(vec![]));
        assert!(verify_consistency(0, &empty_root(), 8, &grown(&leaves()).0.root(), &[]));
    }

    #[test]
    fn the_tree_before_a_leaf_is_in_that_leafs_proof() {
        let leaves: Vec<Hash> = (0..40_u8).map(|n| leaf_hash(&[n])).collect();
        for size in 1..=leaves.len() {
            let (whole, nodes) = grown(&leaves[..size]);
            for index in 0..size {
                let (at, of) = (u64::try_from(index).unwrap(), u64::try_from(size).unwrap());
                let proof = inclusion_proof(at, of, &nodes).unwrap();
                let mut frontier = Frontier::before(at, of, &proof).unwrap();
                assert_eq!(frontier, grown(&leaves[..index]).0, "{index} of {size}");
                leaves[index..size].iter().for_each(|leaf| drop(frontier.push(*leaf)));
                assert_eq!(frontier.root(), whole.root());
                assert_eq!(Frontier::before(at, of, &[&proof[..], &[[7; 32]]].concat()), None);
            }
            assert_eq!(Frontier::before(u64::try_from(size).unwrap(), u64::try_from(size).unwrap(), &[]), None);
        }
    }

    #[test]
    fn a_frontier_needs_one_root_for_each_bit_of_its_size() {
        let (frontier, nodes) = grown(&leaves()[..7]);
        let roots: Vec<Hash> = Frontier::nodes_of(7).iter().map(|n| nodes[n]).collect();
        assert!(frontier.begins(&nodes) && Frontier::default().begins(&nodes));
        let mut others = nodes.clone();
        others.insert(Frontier::nodes_of(7)[1], [7; 32]);
        assert!(!frontier.begins(&others) && !frontier.begins(&BTreeMap::new()), "another, and a shorter one");
        assert_eq!(Frontier::from_parts(7, roots.clone()), Some(frontier));
        assert_eq!(Frontier::from_parts(6, roots), None);
    }
}
