//! The tree against the RFC's own recursive definitions, for every small size and for random larger ones.

use std::collections::BTreeMap;

use hallpass::audit::tree::{self, Frontier, Hash, Node};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_proof_of_something_else_does_not_verify(size in 1_u64..600, index in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>()) {
        let (frontier, nodes) = grown(size);
        let index = u64::try_from(index.index(usize::try_from(size).unwrap())).unwrap();
        let mut proof = tree::inclusion_proof(index, size, &nodes).unwrap();
        let leaf = leaf(index);
        prop_assert!(tree::verify_inclusion(&leaf, index, size, &proof, &frontier.root()));
        prop_assert!(!tree::verify_inclusion(&leaf, index, size, &proof, &leaf) || size == 1);
        prop_assert!(!tree::verify_inclusion(&leaf, index + 1, size, &proof, &frontier.root()));
        proof.push(leaf);
        prop_assert!(!tree::verify_inclusion(&leaf, index, size, &proof, &frontier.root()));
        proof.pop();
        if !proof.is_empty() {
            let place = byte.index(proof.len());
            proof[place][0] ^= 1;
            prop_assert!(!tree::verify_inclusion(&leaf, index, size, &proof, &frontier.root()));
        }
    }
}

fn leaf(index: u64) -> Hash {
    tree::leaf_hash(&index.to_be_bytes())
}

fn grown(size: u64) -> (Frontier, BTreeMap<Node, Hash>) {
    let mut frontier = Frontier::default();
    let nodes = (0..size).flat_map(|index| frontier.push(leaf(index))).collect();
    (frontier, nodes)
}

/// RFC 6962 section 2.1, as it stands there: `MTH`, `PATH` and `SUBPROOF`.
mod rfc {
    use super::{Hash, tree};

    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    pub(super) fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => tree::empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                tree::node_hash(&mth(left), &mth(right))
            }
        }
    }

    pub(super) fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return vec![];
        }
        let k = split(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut path, last) = if m < k { (path(m, left), mth(right)) } else { (path(m - k, right), mth(left)) };
        path.push(last);
        path
    }

    pub(super) fn subproof(m: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if is_whole { vec![] } else { vec![mth(leaves)] };
        }
        let k = split(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut proof, last) =
            if m <= k { (subproof(m, left, is_whole), mth(right)) } else { (subproof(m - k, right, false), mth(left)) };
        proof.push(last);
        proof
    }
}

#[test]
fn roots_and_proofs_are_those_of_the_rfc_for_every_size_up_to_80() {
    let leaves: Vec<Hash> = (0..80).map(leaf).collect();
    let (_, nodes) = grown(80);
    for size in 0..=80_usize {
        let size_u64 = u64::try_from(size).unwrap();
        let root = rfc::mth(&leaves[..size]);
        assert_eq!(grown(size_u64).0.root(), root, "size {size}");
        for (index, leaf) in leaves[..size].iter().enumerate() {
            let at = u64::try_from(index).unwrap();
            let wanted: BTreeMap<Node, Hash> =
                tree::inclusion_nodes(at, size_u64).into_iter().map(|node| (node, nodes[&node])).collect();
            let proof = tree::inclusion_proof(at, size_u64, &wanted).unwrap();
            assert_eq!(proof, rfc::path(index, &leaves[..size]), "leaf {index} of {size}");
            assert!(tree::verify_inclusion(leaf, at, size_u64, &proof, &root));
        }
        for old in 1..=size {
            let old_u64 = u64::try_from(old).unwrap();
            let wanted: BTreeMap<Node, Hash> =
                tree::consistency_nodes(old_u64, size_u64).into_iter().map(|node| (node, nodes[&node])).collect();
            let proof = tree::consistency_proof(old_u64, size_u64, &wanted).unwrap();
            assert_eq!(proof, rfc::subproof(old, &leaves[..size], true), "{old} in {size}");
            let old_root = rfc::mth(&leaves[..old]);
            assert!(tree::verify_consistency(old_u64, &old_root, size_u64, &root, &proof));
            assert!(old == size || !tree::verify_consistency(old_u64, &root, size_u64, &root, &proof));
            assert!(old == size || !tree::verify_consistency(old_u64, &old_root, size_u64, &old_root, &proof));
        }
    }
}

#[test]
fn a_frontier_from_stored_nodes_grows_on_as_if_it_had_never_been_put_away() {
    let (_, nodes) = grown(100);
    for size in 0..100 {
        let roots = Frontier::nodes_of(size).iter().map(|node| nodes[node]).collect();
        let mut stored = Frontier::from_parts(size, roots).unwrap();
        assert_eq!(stored, grown(size).0);
        stored.push(leaf(size));
        assert_eq!(stored, grown(size + 1).0);
    }
}
