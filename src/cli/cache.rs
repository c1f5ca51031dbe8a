//! What completion offers: hosts and requests as the server last named them, in `$XDG_CACHE_HOME/hallpass/PROFILE/`.
//!
//! What for: completion answers from here alone, offline and at once. The files are a by-product of commands that talk to the server
//! anyway, and safe to delete.
//! What not: nothing is decided by what stands here, and no command but completion reads it.
//!
//! Invariants: folders 0700, files 0600; what does not parse as a name, id or state is not offered, whoever wrote it; a cache that can't
//! be written fails no command.

use serde::{Deserialize, Serialize};

use super::profile::{self, Places, Profile, read_small};
use crate::name::{Account, HostName, RequestId};
use crate::wire;

/// The longest hosts file: what is read of any file of ours. More hosts than fit are not offered.
const HOSTS_BYTES_MAX: usize = 60 * 1024;

/// How many requests are kept, the newest first: more than anybody completes.
const REQUESTS_MAX: usize = 200;

/// The cache of one profile.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: Option<std::path::PathBuf>,
}

/// A request as completion knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its id, `7K3F-9QX2`.
    pub(crate) id: String,
    /// Its state.
    pub(crate) state: String,
    /// Its hosts.
    pub(crate) hosts: Vec<String>,
    /// As which account.
    account: String,
    /// Whether it is this person's own.
    pub(crate) mine: bool,
    /// Whether this person may decide it.
    pub(crate) may_decide: bool,
    /// When it was asked.
    asked: String,
}

impl Known {
    fn of(request: &wire::Request, person: Option<&str>) -> Self {
        Self {
            id: request.id.clone(),
            state: request.state.clone(),
            hosts: request.hosts.clone(),
            account: request.account.clone(),
            mine: person == Some(request.person.as_str()),
            may_decide: request.may_decide,
            asked: request.asked.clone(),
        }
    }

    /// Whether all of it is of the form that a terminal may be shown.
    fn is_sound(&self) -> bool {
        const STATES: [&str; 8] =
            ["pending", "approved", "issued", "denied", "withdrawn", "lapsed", "ended", "expired"];
        RequestId::parse(&self.id).is_ok_and(|id| id.to_string() == self.id)
            && STATES.contains(&self.state.as_str())
            && Account::parse(&self.account).is_ok()
            && self.hosts.iter().all(|host| HostName::parse(host).is_ok())
    }

    fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "pending" | "approved" | "issued")
    }

    /// `pending: web-1 as deploy`.
    pub(crate) fn says(&self) -> String {
        format!("{}: {} as {}", self.state, self.hosts.join(", "), self.account)
    }
}

impl Cache {
    /// The cache of a profile; nothing is kept when its name or place is not known.
    pub(crate) fn new(places: &Places, profile: &str) -> Self {
        let is_name = profile::check_name(profile).is_ok();
        Self { folder: places.cache(profile).filter(|_| is_name) }
    }

    /// Keeps the names of all hosts.
    pub(crate) fn keep_hosts(&self, hosts: &[wire::Host]) {
        let Some(folder) = &self.folder else { return };
        let mut text = String::new();
        for host in hosts.iter().filter_map(|host| HostName::parse(&host.name).ok()) {
            if text.len().saturating_add(host.as_str().len()) >= HOSTS_BYTES_MAX {
                break;
            }
            text.push_str(&format!("{host}\n"));
        }
        drop(profile::write(&folder.join("hosts"), text.as_bytes()));
    }

    /// Adds requests to those that are kept, the newest first.
    pub(crate) fn keep_requests(&self, profile: &Profile, requests: &[wire::Request]) {
        let Some(folder) = self.folder.as_ref().filter(|_| !requests.is_empty()) else { return };
        let mut known: Vec<Known> = requests.iter().map(|r| Known::of(r, profile.person.as_deref())).collect();
        let older = self.requests().into_iter().filter(|old| known.iter().all(|new| new.id != old.id));
        known.extend(older.collect::<Vec<_>>());
        known.retain(Known::is_sound);
        known.sort_by(|a, b| (&b.asked, &b.id).cmp(&(&a.asked, &a.id)));
        known.truncate(REQUESTS_MAX);
        let Ok(text) = serde_json::to_string(&known) else { return };
        if text.len() < HOSTS_BYTES_MAX {
            drop(profile::write(&folder.join("requests"), text.as_bytes()));
        }
    }

    /// The same for what is all that this person has open; what is not among it is over.
    pub(crate) fn keep_open(&self, profile: &Profile, open: &[wire::Request]) {
        self.forget(|known| known.mine && known.is_open() && open.iter().all(|request| request.id != known.id));
        self.keep_requests(profile, open);
    }

    /// The same for all that waits for this person.
    pub(crate) fn keep_inbox(&self, profile: &Profile, inbox: &[wire::Request]) {
        self.forget(|known| known.may_decide && inbox.iter().all(|request| request.id != known.id));
        self.keep_requests(profile, inbox);
    }

    fn forget(&self, is_over: impl Fn(&Known) -> bool) {
        let Some(folder) = &self.folder else { return };
        let before = self.requests();
        let after: Vec<&Known> = before.iter().filter(|known| !is_over(known)).collect();
        if after.len() != before.len()
            && let Ok(text) = serde_json::to_string(&after)
        {
            drop(profile::write(&folder.join("requests"), text.as_bytes()));
        }
    }

    /// The hosts that are kept.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let text = self.read("hosts");
        text.lines().filter(|line| HostName::parse(line).is_ok()).map(str::to_owned).collect()
    }

    /// The requests that are kept.
    pub(crate) fn requests(&self) -> Vec<Known> {
        let known: Vec<Known> = serde_json::from_str(&self.read("requests")).unwrap_or_default();
        known.into_iter().filter(Known::is_sound).collect()
    }

    fn read(&self, name: &str) -> String {
        let Some(folder) = &self.folder else { return String::new() };
        read_small(&folder.join(name)).ok().flatten().unwrap_or_default()
    }
}
