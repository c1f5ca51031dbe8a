//! Enrolled hosts, as far as the log tells: who could join with which token, and what was certified for whom.
//!
//! The rules of `inventory` stated a second time, over events: nobody joins without a token that was good then, takes a name that
//! the token does not give, or a name or key of another host; names of a host certificate are names of the host.

use std::collections::{BTreeMap, BTreeSet};

use super::{Wrong, ensure};
use crate::audit::entry::Entry;
use crate::audit::host_event::HostEvent;
use crate::name::{CaName, HostName, JoinId, NamePattern, Principal, Serial, Tag, TagKey};
use crate::ssh::cert::{TbsCert, Whose};
use crate::ssh::known::KnownKeys;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Timestamp, Window};

/// What is known of hosts after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    joins: BTreeMap<JoinId, Join>,
    hosts: BTreeMap<HostName, Host>,
    unsigned: BTreeMap<Serial, HostName>,
}

#[derive(Debug)]
struct Join {
    /// The entry that made it.
    made: u64,
    left: u64,
    expires: Timestamp,
    names: BTreeSet<NamePattern>,
    tags: BTreeSet<Tag>,
    may_tag: Option<BTreeSet<TagKey>>,
    is_revoked: bool,
}

#[derive(Debug)]
struct Host {
    join: JoinId,
    keys: Vec<PublicKey>,
    names: BTreeSet<HostName>,
    tags: BTreeSet<Tag>,
    /// The entry by which an operator said last what this tag is: by hand, or by a token newer than its last one.
    said: BTreeMap<TagKey, u64>,
    is_active: bool,
    ca: CaName,
    keeps: BTreeSet<Fingerprint>,
    waits: bool,
    /// Keys that it has proven to trust, as it told last.
    proven: BTreeSet<Fingerprint>,
    /// The entry with which it joined.
    is_new_at: u64,
}

/// Whose keys an enrolled host trusts.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostCa<'h> {
    pub(super) ca: &'h CaName,
    pub(super) keeps: &'h BTreeSet<Fingerprint>,
    pub(super) waits: bool,
    pub(super) proven: &'h BTreeSet<Fingerprint>,
    pub(super) is_new_at: u64,
}

impl Hosts {
    /// Takes an event about hosts; an error says what it contradicts.
    pub(super) fn take(&mut self, event: &HostEvent, entry: &Entry, judged: &mut KnownKeys) -> Result<(), Wrong> {
        match event {
            HostEvent::JoinCreated { join, uses, expires, names, tags, may_tag, .. } => {
                let new = Join {
                    made: entry.index,
                    left: *uses,
                    expires: *expires,
                    names: names.clone(),
                    tags: tags.clone(),
                    may_tag: may_tag.clone(),
                    is_revoked: false,
                };
                let was = self.joins.insert(join.clone(), new);
                ensure(was.is_none(), || format!("join token {join} was made before"))
            }
            HostEvent::JoinRevoked { join, .. } => {
                let known = self.joins.get_mut(join).ok_or_else(|| no_such_join(join))?;
                let was = std::mem::replace(&mut known.is_revoked, true);
                ensure(!was, || format!("join token {join} was revoked before"))
            }
            HostEvent::HostEnrolled { host, join, keys, names, tags } => {
                self.enrolled((host, join), (keys, names, tags), entry)
            }
            HostEvent::HostRefused { known, join, .. } => {
                ensure(self.joins.contains_key(join), || format!("there is no join token {join}"))?;
                self.active(known).map(drop)
            }
            HostEvent::HostTagged { host, tags, .. } => {
                self.active(host)?;
                if let Some(known) = self.hosts.get_mut(host) {
                    let changed = known.tags.symmetric_difference(tags).map(|tag| (tag.key.clone(), entry.index));
                    known.said.extend(changed);
                    known.tags.clone_from(tags);
                }
                Ok(())
            }
            HostEvent::HostRetired { host, .. } | HostEvent::HostLeft { host } => {
                self.active(host)?;
                if let Some(known) = self.hosts.get_mut(host) {
                    known.is_active = false;
                }
                Ok(())
            }
            HostEvent::HostCertificateToBeSigned { host, serial, ca, window, tbs }
            | HostEvent::CheckCertificateToBeSigned { host, serial, ca, window, tbs } => {
                self.unsigned.insert(*serial, host.clone());
                ensure(serial.number() == entry.index, || "its serial is not its own index".to_owned())?;
                let is_check = matches!(event, HostEvent::CheckCertificateToBeSigned { .. });
                self.certify(host, (*serial, *ca, *window, tbs), is_check, judged)
            }
            HostEvent::HostCertificateSigned { host, serial, .. }
            | HostEvent::CheckCertificateSigned { host, serial, .. } => {
                let of = self.unsigned.remove(serial);
                ensure(of.as_ref() == Some(host), || {
                    format!("certificate {serial} of {host} was not about to be signed, or was signed before")
                })
            }
            HostEvent::HostMoved { host, ca, keeps, waits } => {
                self.active(host)?;
                let Some(known) = self.hosts.get_mut(host) else { return Ok(()) };
                known.ca.clone_from(ca);
                known.keeps.clone_from(keeps);
                known.waits = *waits;
                Ok(())
            }
            HostEvent::CheckInChanged { host, proven, .. } => {
                let known = self.hosts.get_mut(host).ok_or_else(|| format!("{host} was never enrolled"))?;
                known.proven.clone_from(proven);
                Ok(())
            }
            // What a host says is the host's; in logs of before, it may come after the host was retired.
            HostEvent::HostDoubled { host }
            | HostEvent::SessionOpened { host, .. }
            | HostEvent::SessionEnded { host, .. }
            | HostEvent::SessionRefused { host, .. }
            | HostEvent::SessionFlagged { host, .. } => {
                ensure(self.hosts.contains_key(host), || format!("{host} was never enrolled"))
            }
        }
    }

    /// Host certificates that were about to be signed and have no outcome.
    pub(super) fn without_outcome(&self) -> impl Iterator<Item = Serial> {
        self.unsigned.keys().copied()
    }

    fn enrolled(
        &mut self,
        (host, join): (&HostName, &JoinId),
        (keys, names, tags): (&[PublicKey], &BTreeSet<HostName>, &BTreeSet<Tag>),
        entry: &Entry,
    ) -> Result<(), Wrong> {
        let good = self.may_enrol(host, join, (keys, names, tags), entry.at);
        let again = self.hosts.get(host).is_some_and(|known| known.is_active && known.join == *join);
        if let Some(join) = self.joins.get_mut(join).filter(|_| !again) {
            join.left = join.left.saturating_sub(1);
        }
        let (join, keys, names, tags) = (join.clone(), keys.to_vec(), names.clone(), tags.clone());
        let known = self.hosts.remove(host).filter(|known| known.is_active);
        let said = known.as_ref().map(|known| self.said_before(known, &join)).unwrap_or_default();
        let is_new_at = known.as_ref().map_or(entry.index, |known| known.is_new_at);
        let (ca, keeps, waits, proven) =
            known.map(|known| (known.ca, known.keeps, known.waits, known.proven)).unwrap_or_default();
        let new = Host { join, keys, names, tags, said, is_active: true, ca, keeps, waits, proven, is_new_at };
        self.hosts.insert(host.clone(), new);
        good
    }

    /// What operators have said of the tags of a host that comes again with this token.
    fn said_before(&self, known: &Host, join: &JoinId) -> BTreeMap<TagKey, u64> {
        let mut said = known.said.clone();
        let newer = |last: &&Join| self.joins.get(join).is_none_or(|now| now.made < last.made);
        if let Some(last) = self.joins.get(&known.join).filter(newer) {
            for tag in &last.tags {
                let kept = said.entry(tag.key.clone()).or_insert(last.made);
                *kept = last.made.max(*kept);
            }
        }
        said
    }

    /// What is known of the CA of an enrolled host.
    pub(super) fn ca_of(&self, host: &HostName) -> Option<HostCa<'_>> {
        let known = self.hosts.get(host).filter(|known| known.is_active)?;
        let Host { ca, keeps, waits, proven, is_new_at, .. } = known;
        Some(HostCa { ca, keeps, waits: *waits, proven, is_new_at: *is_new_at })
    }

    fn active(&self, host: &HostName) -> Result<&Host, Wrong> {
        let known = self.hosts.get(host).filter(|known| known.is_active);
        known.ok_or_else(|| format!("{host} was not enrolled then").into())
    }

    fn may_enrol(
        &self,
        host: &HostName,
        join: &JoinId,
        (keys, names, tags): (&[PublicKey], &BTreeSet<HostName>, &BTreeSet<Tag>),
        at: Timestamp,
    ) -> Result<(), Wrong> {
        let token = self.joins.get(join).ok_or_else(|| no_such_join(join))?;
        let known = self.hosts.get(host).filter(|known| known.is_active);
        let again = known.is_some_and(|known| known.join == *join);
        let given = |name: &HostName| token.names.iter().any(|pattern| pattern.matches(name));
        let others = || self.hosts.iter().filter(|(name, other)| other.is_active && *name != host);
        let taken = |name: &HostName| others().any(|(other, known)| other == name || known.names.contains(name));
        let is_same = |known: &Host| known.keys.first() == keys.first();
        let has = |tag: &Tag| token.tags.contains(tag) || known.is_some_and(|known| known.tags.contains(tag));
        let may = |tag: &Tag| token.may_tag.as_ref().is_none_or(|keys| keys.contains(&tag.key));
        let before = known.map(|known| self.said_before(known, join)).unwrap_or_default();
        // A token is silent about a tag of which an operator has said something since: then the host has what it had.
        let is_as_before = |tag: &Tag| {
            let of_key = |tags: &BTreeSet<Tag>| tags.iter().find(|of| of.key == tag.key).cloned();
            before.get(&tag.key).is_some_and(|said| *said > token.made)
                && known.is_some_and(|known| of_key(&known.tags) == of_key(tags))
        };
        let rules = [
            (!token.is_revoked, "its join token was revoked"),
            (at < token.expires, "its join token had expired"),
            (token.left > 0 || again, "its join token was spent"),
            (!keys.is_empty(), "it has no key"),
            (given(host) && names.iter().all(given), "its join token does not give this name"),
            (token.tags.iter().all(|tag| tags.contains(tag) || is_as_before(tag)), "it lacks a tag of its join token"),
            (tags.iter().all(|tag| has(tag) || may(tag)), "its join token does not give this tag"),
            (known.is_none_or(is_same), "another key has this name"),
            (!taken(host) && !names.iter().any(taken), "another host has this name"),
            (!others().any(|(_, other)| keys.iter().any(|key| other.keys.contains(key))), "another host has this key"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(format!("{host} could not enrol: {broken}").into()),
            None => Ok(()),
        }
    }

    /// The bytes to be signed must be a certificate for this host and nothing more.
    fn certify(
        &self,
        host: &HostName,
        (serial, ca, window, tbs): (Serial, Fingerprint, Window, &[u8]),
        is_check: bool,
        judged: &mut KnownKeys,
    ) -> Result<(), Wrong> {
        let known = self.active(host)?;
        let tbs = TbsCert::parse_knowing(tbs, judged).map_err(|why| format!("the bytes to be signed: {why}"))?;
        let fields = tbs.fields();
        let whose = match (fields.key_id.whose(), is_check) {
            (Whose::Check(of), true) | (Whose::Host(of), false) => Some(of),
            (Whose::Request { .. } | Whose::Check(_) | Whose::Host(_), _) => None,
        };
        let names: BTreeSet<Principal> = known.names.iter().chain([host]).map(Principal::of_host).collect();
        let differs = [
            ("serial", fields.serial != serial),
            ("window", fields.window != window),
            ("host", whose != Some(host)),
            // What a login to itself may say is held by the linter.
            ("set of names", !is_check && !fields.principals.is_subset(&names)),
            ("public key", !is_check && !known.keys.contains(tbs.subject())),
            ("CA key", tbs.ca().fingerprint() != ca),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(format!("the bytes to be signed name another {what} than the log").into()),
            None => Ok(()),
        }
    }
}

fn no_such_join(join: &JoinId) -> Wrong {
    format!("there is no join token {join}").into()
}
