//! Whether a host may join: the token, the name, the keys, the tags, and what is known already.
//!
//! | Known already | Offered | Answer |
//! |---|---|---|
//! | nothing | a name that the token gives | enrolled |
//! | the name, with this identity key | anything the token gives | enrolled anew, with the tags that it has (a retried call spends no second use of the token) |
//! | the name, with another key | | refused and noted: a host that was set up anew, or somebody else |
//! | one of the keys, under another name | | refused and noted: a clone, or a renamed host |
//! | a further name that is another host's | | refused |
//! | a name or a key of a host that an operator retired after the token was made | | refused |
//!
//! Retiring the host first lets the others through, with a token that is made then.
//!
//! *Why do tags stay?* Rules go by them. A host that comes again has a token that it had before, and that says what an operator meant then; whatever
//! an operator has said of a tag since, with `host tag` or with a newer token, is what an operator means now.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use thiserror::Error;

use super::{EnrolledHost, Inventory, Join, pairs};
use crate::audit::host_event::HostEvent;
use crate::identity::host::ProvenKeys;
use crate::identity::session::TokenHash;
use crate::name::{HostName, JoinId, NamePattern, Tag, TagKey, TagValue};
use crate::policy::Policy;
use crate::ssh::{Fingerprint, KeyAlgorithm, PublicKey};
use crate::time::Timestamp;

/// The most further names of a host. Our own choice; a host certificate holds 256.
pub const NAMES_MAX: usize = 16;

/// The most tags of a host: as many as a `[[host]]` of a policy has.
pub const TAGS_MAX: usize = 64;

/// Names that are paths of the API below `/v1/hosts/`.
const RESERVED: [&str; 2] = ["inventory", "joins"];

/// What a host asks for when it joins.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The hash of its join token.
    pub token: TokenHash,
    /// Tags, besides those of the token.
    pub tags: BTreeSet<Tag>,
    /// Further names.
    pub names: BTreeSet<HostName>,
}

/// What it must not clash with besides other hosts.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The policy of the file, without enrolled hosts.
    pub policy: &'a Policy,
    /// Keys that sign for the service.
    pub service_keys: &'a BTreeSet<Fingerprint>,
}

/// Why a host may not join; safe to show to whoever holds a join token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EnrolRefusal {
    /// No such token.
    #[error("the join token is not one of this service")]
    Token,
    /// It was good once.
    #[error("the join token {0} is {1}; ask an operator for a new one")]
    Over(JoinId, &'static str),
    /// It does not give this name.
    #[error("join token {join} does not give the name {name}; it gives {given}")]
    Name {
        /// The token.
        join: JoinId,
        /// The name.
        name: HostName,
        /// What it gives.
        given: String,
    },
    /// A tag says otherwise than the token or the policy's file.
    #[error("the tag {key} is {wanted} here, but {fixed} by {by}")]
    Tag {
        /// Its key.
        key: TagKey,
        /// What the host says.
        wanted: TagValue,
        /// What it must be.
        fixed: TagValue,
        /// Who says so.
        by: String,
    },
    /// The token does not give the host a say in this tag.
    #[error("join token {join} does not let a host set the tag {key}; it lets it set {given}")]
    TagNotGiven {
        /// The token.
        join: JoinId,
        /// The tag's key.
        key: TagKey,
        /// What it lets a host set.
        given: String,
    },
    /// Another host has this name.
    #[error("the name {name} belongs to {owner}")]
    NameTaken {
        /// The name.
        name: HostName,
        /// Whose it is.
        owner: String,
    },
    /// An operator has retired a host with this name or key, and let nobody in for it since.
    #[error("{what} was retired after the join token {join} was made")]
    Retired {
        /// The token.
        join: JoinId,
        /// The name for which a new token is needed.
        name: HostName,
        /// What was retired.
        what: String,
    },
    /// Too much of something.
    #[error("{0}")]
    Invalid(&'static str),
    /// The name or a key is that of a host that is known: noted in the inventory.
    #[error("{why}")]
    Known {
        /// The host that is known.
        known: HostName,
        /// What does not fit.
        why: String,
        /// What is written about it; nothing if it was noted before, or much else with this token.
        event: Option<Box<HostEvent>>,
    },
}

/// Decides whether the host with these keys may join at `now`; the event is the whole change.
///
/// # Errors
/// [`EnrolRefusal`].
pub fn enrol(
    inventory: &Inventory,
    proven: &ProvenKeys,
    wish: Wish,
    around: Surroundings<'_>,
    now: Timestamp,
) -> Result<HostEvent, EnrolRefusal> {
    let host = proven.host();
    let Wish { token, tags, names } = wish;
    let known = inventory.host(host).filter(|known| known.is_active);
    let join = inventory.with_token(token).ok_or(EnrolRefusal::Token)?;
    check_token(join, known, now)?;
    let keys = identity_first(proven.keys(), known)?;
    check_keys(&keys, around)?;
    // First: who has a token for other names tells nothing about this host, and nothing of it is noted there.
    check_given(host, join, &names)?;
    check_retired(inventory, host, join, (&names, &keys))?;
    check_known(inventory, host, join, &keys, now)?;
    check_names(inventory, host, &names, around.policy)?;
    check_own_tags(known, join, &tags)?;
    let tags = joined_tags(inventory, (host, known), join, tags, around.policy)?;
    Ok(HostEvent::HostEnrolled { host: host.clone(), join: join.id.clone(), keys, names, tags })
}

/// A host that comes again with the token that it joined with spends no second use of it.
fn check_token(join: &Join, known: Option<&EnrolledHost>, now: Timestamp) -> Result<(), EnrolRefusal> {
    let is_again = known.is_some_and(|known| known.join == join.id);
    match join.state(now) {
        "open" => Ok(()),
        "spent" if is_again && now < join.expires => Ok(()),
        state => Err(EnrolRefusal::Over(join.id.clone(), state)),
    }
}

/// The keys with the identity first: what it was, else the first Ed25519 key, else the first.
fn identity_first(keys: &[PublicKey], known: Option<&EnrolledHost>) -> Result<Vec<PublicKey>, EnrolRefusal> {
    let distinct: BTreeSet<&PublicKey> = keys.iter().collect();
    if distinct.len() != keys.len() {
        return Err(EnrolRefusal::Invalid("a key is given twice"));
    }
    let was = known.and_then(EnrolledHost::identity).and_then(|was| keys.iter().position(|key| key == was));
    let usual = || keys.iter().position(|key| key.algorithm() == KeyAlgorithm::Ed25519);
    let mut keys = keys.to_vec();
    if let Some(place) = was.or_else(usual) {
        keys.get_mut(..=place).unwrap_or_default().rotate_right(1);
    }
    Ok(keys)
}

fn check_keys(keys: &[PublicKey], around: Surroundings<'_>) -> Result<(), EnrolRefusal> {
    let directory = around.policy.directory();
    for key in keys {
        if key.algorithm().is_security_key() {
            return Err(EnrolRefusal::Invalid("a security key is no host key"));
        }
        if around.service_keys.contains(&key.fingerprint()) {
            return Err(EnrolRefusal::Invalid("one of the keys is a signing key of the service"));
        }
        if directory.holder(key).is_some() {
            return Err(EnrolRefusal::Invalid("one of the keys is a person's login key"));
        }
    }
    Ok(())
}

/// A name keeps its key, and a key its name, until an operator retires the host.
fn check_known(
    inventory: &Inventory,
    host: &HostName,
    join: &Join,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<(), EnrolRefusal> {
    let Some(identity) = keys.first() else { return Err(EnrolRefusal::Invalid("there is no key")) };
    let refused = |known: &EnrolledHost, why: String| {
        let key = identity.fingerprint();
        let is_noted = known.conflicts.iter().any(|noted| noted.key == key && noted.name == *host);
        let event = HostEvent::HostRefused {
            host: host.clone(),
            join: join.id.clone(),
            key,
            known: known.name.clone(),
            why: why.clone(),
        };
        let event = if is_noted || join.is_noted_enough(now) { None } else { Some(Box::new(event)) };
        EnrolRefusal::Known { known: known.name.clone(), why, event }
    };
    if let Some(known) = inventory.host(host).filter(|known| known.is_active)
        && known.identity() != Some(identity)
    {
        return Err(refused(known, format!("the host {host} is enrolled with another key")));
    }
    let others = keys.iter().filter_map(|key| inventory.with_key(key)).filter(|other| other.name != *host);
    match others.min_by_key(|other| &other.name) {
        Some(other) => Err(refused(other, format!("a key of {host} is that of the enrolled host {}", other.name))),
        None => Ok(()),
    }
}

/// What an operator took out comes back by an operator's word alone, not by a token that somebody has yet.
fn check_retired(
    inventory: &Inventory,
    host: &HostName,
    join: &Join,
    (names, keys): (&BTreeSet<HostName>, &[PublicKey]),
) -> Result<(), EnrolRefusal> {
    let is_later = |retired: Option<&u64>| retired.is_some_and(|number| *number > join.number);
    let name = names.iter().chain([host]).find(|name| is_later(inventory.retired_names.get(*name)));
    let has_key = || keys.iter().any(|key| is_later(inventory.retired_keys.get(&key.fingerprint())));
    let what = match name {
        Some(name) => format!("the host {name}"),
        None if has_key() => format!("a host with a key of {host}"),
        None => return Ok(()),
    };
    Err(EnrolRefusal::Retired { join: join.id.clone(), name: host.clone(), what })
}

/// The host's own name and its further ones are among those that the token gives.
fn check_given(host: &HostName, join: &Join, names: &BTreeSet<HostName>) -> Result<(), EnrolRefusal> {
    let is_given = |name: &HostName| join.names.iter().any(|pattern| pattern.matches(name));
    match names.iter().chain([host]).find(|name| !is_given(name)) {
        None => Ok(()),
        Some(name) => {
            let given: Vec<&str> = join.names.iter().map(NamePattern::as_str).collect();
            let (join, name, given) = (join.id.clone(), name.clone(), given.join(", "));
            Err(EnrolRefusal::Name { join, name, given })
        }
    }
}

fn check_names(
    inventory: &Inventory,
    host: &HostName,
    names: &BTreeSet<HostName>,
    policy: &Policy,
) -> Result<(), EnrolRefusal> {
    if names.len() > NAMES_MAX {
        return Err(EnrolRefusal::Invalid("a host has at most 16 further names"));
    }
    if RESERVED.contains(&host.as_str()) {
        return Err(EnrolRefusal::Invalid("no host can be called \"inventory\" or \"joins\""));
    }
    if names.contains(host) {
        return Err(EnrolRefusal::Invalid("the host's own name is among its further names"));
    }
    for name in names.iter().chain([host]) {
        if let Some(owner) = inventory.called(name).find(|other| other.name != *host) {
            let owner = format!("the enrolled host {}", owner.name);
            return Err(EnrolRefusal::NameTaken { name: name.clone(), owner });
        }
        if name != host && policy.host(name).is_some() {
            let owner = "a host of the policy's file".to_owned();
            return Err(EnrolRefusal::NameTaken { name: name.clone(), owner });
        }
    }
    Ok(())
}

/// Rules go by tags, so a host does not choose its own: only those of which the token says so, and those that it has.
fn check_own_tags(known: Option<&EnrolledHost>, join: &Join, wanted: &BTreeSet<Tag>) -> Result<(), EnrolRefusal> {
    let Some(given) = &join.may_tag else { return Ok(()) };
    let is_fixed = |tag: &Tag| join.tags.iter().any(|fixed| fixed.key == tag.key);
    let has = |tag: &Tag| known.is_some_and(|known| known.tags.contains(tag));
    match wanted.iter().find(|tag| !is_fixed(tag) && !has(tag) && !given.contains(&tag.key)) {
        None => Ok(()),
        Some(tag) => {
            let given: Vec<&str> = given.iter().map(TagKey::as_str).collect();
            let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
            Err(EnrolRefusal::TagNotGiven { join: join.id.clone(), key: tag.key.clone(), given })
        }
    }
}

/// The tags that the host has, with those that it says and those of the token; neither the token nor the policy's file may be contradicted, nor the
/// host itself. Of what an operator has said since the token was made, neither the token nor the host says anything.
fn joined_tags(
    inventory: &Inventory,
    (host, known): (&HostName, Option<&EnrolledHost>),
    join: &Join,
    wanted: BTreeSet<Tag>,
    policy: &Policy,
) -> Result<BTreeSet<Tag>, EnrolRefusal> {
    let said = |key: &TagKey| known.and_then(|known| inventory.said(known, key));
    let counts = |tag: &Tag| said(&tag.key).is_none_or(|number| number <= join.number);
    let mut tags: BTreeSet<Tag> = wanted.into_iter().chain(join.tags.iter().cloned()).filter(counts).collect();
    for tag in &tags {
        // Two values of one key: one of them is not in the map.
        let other = tags.iter().find(|other| other.key == tag.key && other.value != tag.value);
        if let Some(other) = other {
            let (wanted, fixed) = if join.tags.contains(tag) { (other, tag) } else { (tag, other) };
            let by = if join.tags.contains(fixed) { "the join token" } else { "another tag of the host" };
            return Err(refuse_tag(wanted, fixed.value.clone(), by));
        }
    }
    let is_new = |tag: &&Tag| tags.iter().all(|new| new.key != tag.key);
    let kept: Vec<Tag> = known.iter().flat_map(|known| &known.tags).filter(is_new).cloned().collect();
    tags.extend(kept);
    if tags.len() > TAGS_MAX {
        return Err(EnrolRefusal::Invalid("a host has at most 64 tags"));
    }
    check_tags_with_file(host, &tags, policy)?;
    Ok(tags)
}

fn refuse_tag(wanted: &Tag, fixed: TagValue, by: &str) -> EnrolRefusal {
    EnrolRefusal::Tag { key: wanted.key.clone(), wanted: wanted.value.clone(), fixed, by: by.to_owned() }
}

/// Whether these tags of an enrolled host agree with what the policy's file says of a host of the same name.
fn check_tags_with_file(host: &HostName, tags: &BTreeSet<Tag>, policy: &Policy) -> Result<(), EnrolRefusal> {
    let Some(plain) = policy.host(host) else { return Ok(()) };
    for tag in tags {
        if let Some(fixed) = plain.tags.get(&tag.key).filter(|fixed| **fixed != tag.value) {
            return Err(refuse_tag(tag, fixed.clone(), "the policy's file"));
        }
    }
    Ok(())
}

/// The host's tags after some were set and others taken away.
///
/// # Errors
/// [`EnrolRefusal`] when there would be too many, or they would contradict the policy's file.
pub fn retag(
    host: &EnrolledHost,
    set: &BTreeSet<Tag>,
    unset: &BTreeSet<TagKey>,
    policy: &Policy,
) -> Result<BTreeSet<Tag>, EnrolRefusal> {
    let is_replaced = |tag: &Tag| unset.contains(&tag.key) || set.iter().any(|new| new.key == tag.key);
    if set.iter().any(|tag| unset.contains(&tag.key)) || pairs(set).len() != set.len() {
        return Err(EnrolRefusal::Invalid("a tag is given twice"));
    }
    let kept = host.tags.iter().filter(|tag| !is_replaced(tag)).cloned();
    let tags: BTreeSet<Tag> = kept.chain(set.iter().cloned()).collect();
    if tags.len() > TAGS_MAX {
        return Err(EnrolRefusal::Invalid("a host has at most 64 tags"));
    }
    check_tags_with_file(&host.name, &tags, policy)?;
    Ok(tags)
}
