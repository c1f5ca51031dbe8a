//! CA keys on the wire: what operators see of them, and the steps of a rotation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/ca/keys`: all CA keys that the log knows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// Version of the trust bundle; of the default user CA, if there are others.
    pub version: u64,
    /// The user CAs, if there is more than the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cas: Vec<UserCa>,
    /// In the order in which they came.
    pub keys: Vec<Key>,
    /// Configured keys that nobody has heard of.
    pub spare: Vec<Spare>,
    /// How many hosts are enrolled.
    pub hosts: usize,
    /// Hosts of the policy that are not enrolled, and so prove nothing.
    pub by_hand: Vec<String>,
    /// A step that waits for a second operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Proposal>,
    /// What somebody ought to look at or do, in sentences.
    #[serde(default)]
    pub attention: Vec<String>,
}

/// A user CA.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UserCa {
    /// Its name; `default` is that of `[ca.user]`.
    pub name: String,
    /// Version of its trust bundle.
    pub version: u64,
    /// How many of the enrolled hosts are of it.
    pub hosts: usize,
    /// Those of the hosts of the policy that are not enrolled.
    pub by_hand: Vec<String>,
}

/// A CA key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `user` or `host`.
    pub purpose: String,
    /// The user CA that it is of, if that has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// One OpenSSH line.
    pub key: String,
    /// `staged`, `active`, `draining`, `retired` or `compromised`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// `up`, `down`, or `none` when no backend is configured for it.
    pub backend: String,
    /// How many enrolled hosts prove that their sshd trusts it; of user keys that hosts must trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<usize>,
    /// Those that do not, and why.
    pub unproven: Vec<Unproven>,
    /// Enrolled hosts with a host certificate by it that is not over; of a host key that drains.
    #[serde(default)]
    pub shown: Vec<Shown>,
    /// How many certificates for people by it are not over.
    pub certificates: usize,
    /// When the last of its certificates ends, as far as they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// From when it may sign, because clients could then fetch it for long enough; of a host key that is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_sign: Option<String>,
}

/// A host that does not prove that it trusts a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Unproven {
    /// Which.
    pub host: String,
    /// Why not.
    pub why: String,
}

/// A host with a certificate by a host key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Shown {
    /// Which.
    pub host: String,
    /// When its certificate ends.
    pub until: String,
}

/// A configured key that nobody has heard of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Spare {
    /// `user` or `host`.
    #[serde(default = "user")]
    pub purpose: String,
    /// The user CA that it is of, if that has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// One OpenSSH line.
    pub key: String,
}

/// A step that waits for a second operator.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Proposal {
    /// Who proposed it.
    pub by: String,
    /// `user` or `host`.
    pub purpose: String,
    /// The user CA, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `switch`, `finish` or `abort`.
    pub step: String,
    /// The key that was named, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Hosts that may be locked out.
    pub accept_unreachable: Vec<String>,
    /// Whether a host key may sign before its time.
    pub now: bool,
    /// Why; may be empty.
    pub reason: String,
    /// When it was proposed.
    pub at: String,
    /// When it lapses.
    pub until: String,
}

/// `POST /v1/ca/rotate`: one step of a rotation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// `start`, `switch`, `finish`, `abort` or `compromise`.
    pub step: String,
    /// `user` or `host`: which keys are rotated; `user` if left out. `compromise` takes the key's own.
    #[serde(default = "user")]
    pub purpose: String,
    /// The user CA whose keys are rotated; the default one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The fingerprint of the key that is meant; the only one that fits if left out. `compromise` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `switch` of a user key only: hosts that do not prove that they trust the new key, and may be locked out.
    #[serde(default)]
    pub accept_unreachable: Vec<String>,
    /// `switch` of a host key only: whether it may sign before clients could fetch it for long enough.
    #[serde(default)]
    pub now: bool,
    /// Why, for the log.
    #[serde(default)]
    pub reason: String,
}

fn user() -> String {
    "user".to_owned()
}

impl Default for Rotate {
    fn default() -> Self {
        let (step, reason) = (String::new(), String::new());
        Self { step, purpose: user(), ca: None, key: None, accept_unreachable: Vec::new(), now: false, reason }
    }
}
