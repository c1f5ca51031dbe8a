//! Whether a store is what its log says, all of it: for a backup, and for a database that was put back.
//!
//! What is checked: the whole log as an auditor would (one spelling of each entry, numbers, times, what entries mean together, approvers'
//! signatures), under the tree of the sealed head; each policy's text against the hash in the log; each request against its entries; the
//! CA keys and the inventory of hosts, proven to be the log's. What a start looks at is a part of it.
//!
//! What is not: what no log holds (sessions, used challenges, what hosts told last), beyond that it can be read; and whether it is the
//! newest, which only a kept checkpoint shows (`lost`).

use super::inventory::read_on;
use crate::audit::checkpoint::LogKey;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::export::{Exporter, Lines};
use crate::audit::tree::Hash;
use crate::inventory::Inventory;
use crate::name::RequestId;
use crate::store::{LIST_MAX, Store, StoreError};

/// More findings than these tell nobody more. Our own choice.
const FINDINGS_MAX: usize = 100;

/// What a look at all of it showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many entries the log has.
    pub entries: u64,
    /// The root of its tree.
    pub root: Hash,
    /// How many certificates were about to be signed, by the log.
    pub certificates: u64,
    /// How many policy versions are as they were applied.
    pub policies: u64,
    /// How many requests are what the log says of them.
    pub requests: u64,
    /// What is wrong, a sentence each; at most 100.
    pub findings: Vec<String>,
}

impl Checked {
    fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }
}

/// Looks at all of a store that nobody writes meanwhile. `told` hears how many entries have been read.
///
/// # Errors
/// Store failures. What is wrong with what can be read is in the findings.
pub async fn check(store: &dyn Store, key: &LogKey, told: &mut (dyn FnMut(u64) + Send)) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    let asked = check_log(store, key, &mut checked, told).await?;
    for version in store.policies().await?.into_iter().map(|policy| policy.version) {
        let Some(stored) = store.policy(Some(version)).await? else { continue };
        match super::start::check_hash(store, &stored).await {
            Ok(()) => checked.policies = checked.policies.saturating_add(1),
            Err(why) => checked.find(why.to_string()),
        }
    }
    for id in asked {
        check_request(store, id, &mut checked).await?;
    }
    let inventory = read_on(store, &mut Inventory::default(), |_| ()).await;
    for why in [store.keys_entry().await.err(), inventory.err()].into_iter().flatten() {
        checked.find(why.to_string());
    }
    Ok(checked)
}

/// Reads the log as an auditor reads an export; gives the requests that were asked for.
async fn check_log(
    store: &dyn Store,
    key: &LogKey,
    checked: &mut Checked,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<RequestId>, StoreError> {
    let (verifier, head) = (key.verifier(), store.head().await?);
    let (size, root) = (head.frontier.size(), head.frontier.root());
    let (mut exporter, header) = Exporter::new(verifier.clone());
    let mut lines = Lines::new(&verifier);
    lines.take(&header);
    let mut asked = Vec::new();
    (checked.entries, checked.root) = (size, root);
    while exporter.size() < size {
        let entries = store.entries(exporter.size(), LIST_MAX).await?;
        if entries.is_empty() {
            checked.find(format!("the log's head says {size} entries, there are {}", exporter.size()));
            return Ok(asked);
        }
        for bytes in &entries {
            match exporter.entry(bytes) {
                Ok(text) => lines.take(&text),
                Err(why) => {
                    checked.find(why.to_string());
                    return Ok(asked);
                }
            }
            asked.extend(request_of(bytes));
        }
        told(exporter.size());
    }
    match exporter.finish(&key.sign(size, &root)) {
        Ok(last) => lines.take(&last),
        Err(why) => checked.find(why.to_string()),
    }
    match lines.finish() {
        Ok(verified) => checked.certificates = verified.certificates,
        Err(findings) => findings.into_iter().for_each(|finding| checked.find(finding.what)),
    }
    Ok(asked)
}

fn request_of(bytes: &[u8]) -> Option<RequestId> {
    match Entry::parse(bytes).ok()?.event {
        Event::Asked { request, .. } => Some(request),
        _ => None,
    }
}

/// A request's row against its entries.
async fn check_request(store: &dyn Store, id: RequestId, checked: &mut Checked) -> Result<(), StoreError> {
    let (stored, entries) = match store.logged(id).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            checked.find(format!("request {id} is in the log and not in the database"));
            return Ok(());
        }
        Err(why @ StoreError::Damaged { .. }) => {
            checked.find(format!("request {id}: {why}"));
            return Ok(());
        }
        Err(why) => return Err(why),
    };
    let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
    match stored.request.check_logged(&events) {
        Ok(()) => checked.requests = checked.requests.saturating_add(1),
        Err(why) => checked.find(format!("request {id}: {why}")),
    }
    Ok(())
}
