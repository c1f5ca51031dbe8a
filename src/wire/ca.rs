//! CA keys on the wire: what operators see of them, and the steps of a rotation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/ca/keys`: all CA keys that the log knows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// Version of the trust bundle.
    pub version: u64,
    /// In the order in which they came.
    pub keys: Vec<Key>,
    /// Configured keys that no host has heard of.
    pub spare: Vec<Spare>,
    /// How many hosts are enrolled.
    pub hosts: usize,
    /// Hosts of the policy that are not enrolled, and so prove nothing.
    pub by_hand: Vec<String>,
}

/// A CA key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `user` or `host`.
    pub purpose: String,
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
    /// How many certificates for people by it are not over.
    pub certificates: usize,
    /// When the last of these ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
}

/// A host that does not prove that it trusts a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Unproven {
    /// Which.
    pub host: String,
    /// Why not.
    pub why: String,
}

/// A configured key that no host has heard of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Spare {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// One OpenSSH line.
    pub key: String,
}

/// `POST /v1/ca/rotate`: one step of a rotation of the user CA key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// `start`, `switch`, `finish`, `abort` or `compromise`.
    pub step: String,
    /// The fingerprint of the key that is meant; the only one that fits if left out. `compromise` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `switch` only: hosts that do not prove that they trust the new key, and may be locked out.
    #[serde(default)]
    pub accept_unreachable: Vec<String>,
    /// Why, for the log.
    #[serde(default)]
    pub reason: String,
}
