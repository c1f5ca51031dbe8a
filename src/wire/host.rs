//! What enrolled hosts and the service tell each other, and what operators see and change of them.
//!
//! A host calls with a host token (`hph_…`), which is no person's; it gets one by signing with its SSH host key. What is signed is
//! the text of `ssh::host`; times, ids, keys and digests are written as everywhere in the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Secret;

/// `POST /v1/hosts/challenge`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengeFor {
    /// The host's name.
    pub name: String,
    /// `enrol` or `session`.
    pub purpose: String,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostChallenge {
    /// The challenge to be signed, for this name and purpose alone.
    pub challenge: String,
    /// The server URL that the statement must name.
    pub server: String,
    /// When it expires.
    pub expires: String,
}

/// `POST /v1/hosts/enrol`. Needs no token of a session: the join token is the right to do it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The join token, `hpj_…`. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
    /// The host's name.
    pub name: String,
    /// Tags, `key=value`; those that the token fixes need not be repeated.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Further names of its host certificate, at most 16.
    #[serde(default)]
    pub names: Vec<String>,
    /// The challenge for `enrol`.
    pub challenge: String,
    /// Its SSH host keys, 1 to 8, each with its own signature. The first Ed25519 key, else the first key, is the host's identity.
    pub keys: Vec<KeyProof>,
    /// What runs there.
    pub about: About,
}

/// A public key with the proof that the sender has its private half.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyProof {
    /// One OpenSSH line.
    pub key: String,
    /// Armoured SSHSIG over the host statement, namespace `host@hallpass`.
    pub signature: String,
}

/// What runs on a host: short texts, shown as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Version of hallpass.
    #[serde(default)]
    pub program: String,
    /// Version of sshd: `OpenSSH_9.2p1`.
    #[serde(default)]
    pub sshd: String,
    /// The operating system: `Debian GNU/Linux 12`.
    #[serde(default)]
    pub os: String,
}

/// What enrolment gives.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    /// The host's name.
    pub host: String,
    /// What the host must know now.
    pub state: State,
    /// The host token. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Until when it counts.
    pub expires: String,
    /// The log key's public half (signed-note verifier key): the host keeps it, and takes no trust bundle that it has not signed.
    pub log_key: String,
}

/// `POST /v1/hosts/session`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionAnswer {
    /// The host's name.
    pub name: String,
    /// The challenge for `session`.
    pub challenge: String,
    /// The key that is the host's identity, one OpenSSH line.
    pub key: String,
    /// Armoured SSHSIG over the host statement, namespace `host@hallpass`.
    pub signature: String,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostToken {
    /// The host token. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Until when it counts: an hour.
    pub expires: String,
    /// The log key's public half, for a host that has lost it; one that has it goes by its own.
    pub log_key: String,
}

/// `GET /v1/hosts/self/state`: all that a host must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// Changes with anything below; also the `ETag` header, there in double quotes.
    pub etag: String,
    /// The host's name.
    pub name: String,
    /// `key=value`.
    pub tags: Vec<String>,
    /// Further names of its host certificate.
    pub names: Vec<String>,
    /// What `TrustedUserCAKeys` must hold.
    pub bundle: Bundle,
    /// Of which user CA the host is, as a text that the log key has signed for this host: it takes no other CA's trust bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub belongs: Option<String>,
    /// The grants for this host whose window is not over, and those ended early until their window would have been over.
    pub grants: Vec<Grant>,
    /// Its host certificates that are in their window, one line each, newest for each key.
    pub certificates: Vec<String>,
    /// The CA key that signs host certificates: a host whose certificate is by another one asks for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ca: Option<String>,
    /// Fingerprints of CA keys that were lost or stolen: every session that was opened with one is to end.
    #[serde(default)]
    pub lost: Vec<String>,
    /// Whether it was retired: then nothing is granted there any more.
    pub is_retired: bool,
}

/// The trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    /// Grows with each change.
    pub version: u64,
    /// The whole file.
    pub text: String,
}

/// A certificate that may open this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// `7K3F-9QX2`.
    pub request: String,
    /// The certificate's serial.
    pub serial: u64,
    /// As which account.
    pub account: String,
    /// The end of its window.
    pub until: String,
    /// Whether the request was ended before that.
    pub is_ended: bool,
}

/// `POST /v1/hosts/check-in`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    /// What runs there.
    pub about: About,
    /// Which CA keys its sshd accepts.
    pub trust: Trust,
    /// How far its clock is ahead of the service's, in milliseconds; negative: behind.
    pub clock_ms: i64,
    /// Whether the guard is armed.
    pub guard: bool,
    /// Settings of its sshd that weaken what hallpass promises, as short words; at most 64.
    #[serde(default)]
    pub risky: Vec<String>,
    /// Sessions that are open, at most 1024.
    #[serde(default)]
    pub sessions: Vec<OpenSession>,
    /// Which run of which machine says it: SHA-256 of the machine's id and the kernel's boot id, 64 hex digits. Tells two machines with one
    /// host key apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Fingerprints of the CA keys by which its host certificates are that are in their window; told to a service that has named its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shows: Vec<String>,
}

/// Which CA keys a host's sshd accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// SHA-256 of the file that sshd reads, 64 hex digits.
    pub file_sha256: String,
    /// Fingerprints of the keys in it, at most 64.
    pub keys: Vec<String>,
    /// Those of them with which a login to the host itself has worked.
    pub proven: Vec<String>,
}

/// A session that is open on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// `7K3F-9QX2`.
    pub request: String,
    /// The certificate's serial.
    pub serial: u64,
    /// As which account.
    pub account: String,
    /// Since when.
    pub since: String,
    /// When the guard ends it.
    pub until: String,
}

/// `POST /v1/hosts/sessions`: what happened, oldest first; at most 256 at once. The same (host, id) again changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionEvents {
    /// The events.
    pub events: Vec<SessionEvent>,
}

/// Something that happened on a host.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionEvent {
    /// The host's own id for it: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub id: String,
    /// `opened`, `ended` or `refused`.
    pub kind: String,
    /// The certificate's serial.
    pub serial: u64,
    /// Its key id, as the host read it.
    pub key_id: String,
    /// Fingerprint of the CA key that signed it.
    pub ca: String,
    /// As which account.
    pub account: String,
    /// From which address; empty if the host does not know.
    #[serde(default)]
    pub from: String,
    /// When, by the host's clock.
    pub at: String,
    /// Why it ended or was refused.
    #[serde(default)]
    pub why: String,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Taken {
    /// Ids that are in the log now, or that were before: the host may forget them.
    pub taken: Vec<String>,
}

/// `POST /v1/hosts/certificates`: host certificates for its own keys.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatesFor {
    /// Enrolled keys, one OpenSSH line each, 1 to 8.
    pub keys: Vec<String>,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostCertificates {
    /// One line for each `-cert.pub` file, in the order of the keys.
    pub certificates: Vec<String>,
}

/// `POST /v1/hosts/check-certificate`: a certificate with which the host logs in to itself.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckCertificateFor {
    /// A fresh key, one OpenSSH line.
    pub key: String,
    /// Fingerprint of the CA key that shall sign; the active one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckCertificate {
    /// One line for a `-cert.pub` file: principal `hallpass-check@HOST`, two minutes, forced command `true`.
    pub certificate: String,
}

/// A call that says nothing, and an answer that says nothing: `{}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// `POST /v1/hosts/joins`: lets hosts join.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinFor {
    /// Names that a host may take, also as further names: `web-*`; 1 to 16.
    pub names: Vec<String>,
    /// Tags, `key=value`, that every such host has, whatever it says.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Keys of further tags that such a host may give itself; none if left out.
    #[serde(default)]
    pub may_tag: Vec<String>,
    /// How many hosts may join, 1 to 10000; one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// For how long; an hour if left out, at most 30 days.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
}

/// A new join token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewJoin {
    /// What it lets in.
    pub join: Join,
    /// The token, `hpj_…`, shown this once. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Join {
    /// Its id: eight digits like `7k3f9qx2`.
    pub id: String,
    /// `open`, `spent`, `expired` or `revoked`.
    pub state: String,
    /// Who made it.
    pub by: String,
    /// When.
    pub created: String,
    /// Until when it can be used.
    pub expires: String,
    /// How many hosts may join.
    pub uses: u32,
    /// Those that have.
    pub hosts: Vec<String>,
    /// Names that they may take.
    pub names: Vec<String>,
    /// Tags that it fixes.
    pub tags: Vec<String>,
    /// Keys of further tags that such a host may give itself; `null` in tokens of before: any.
    pub may_tag: Option<Vec<String>>,
}

/// `GET /v1/hosts/joins`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Joins {
    /// Newest first.
    pub joins: Vec<Join>,
}

/// `GET /v1/hosts/NAME`: an enrolled host, for operators and auditors.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostDetail {
    /// `hallpass.host.v1`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `active` or `retired`.
    pub state: String,
    /// `key=value`.
    pub tags: Vec<String>,
    /// Further names.
    pub names: Vec<String>,
    /// Fingerprints of its SSH host keys, the identity first.
    pub keys: Vec<String>,
    /// When it enrolled first.
    pub enrolled: String,
    /// With which join token it enrolled last.
    pub join: String,
    /// What it has told of itself last, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// The user CA whose keys it trusts, if that has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// CA keys of other user CAs that it trusts until the last certificate for it by them has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<String>,
    /// Whether nothing is issued for it until it proves that it trusts the key of its user CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Attempts to take this host's name with another key, or its key under another name.
    pub conflicts: Vec<Conflict>,
}

/// `GET /v1/hosts/inventory`: all hosts that are or were enrolled.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    /// By name.
    pub hosts: Vec<HostDetail>,
}

/// What a host has told of itself last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// When.
    pub at: String,
    /// Whether that is longer ago than a host in order lets pass.
    pub is_stale: bool,
    /// What runs there.
    pub about: About,
    /// Whether the guard is armed.
    pub guard: bool,
    /// `proven` (a login to itself has worked with every CA key of the bundle), `delivered` (its sshd's file has them all),
    /// `behind` (one is missing).
    pub trust: String,
    /// How far its clock is ahead, in milliseconds.
    pub clock_ms: i64,
    /// Settings that weaken what hallpass promises.
    pub risky: Vec<String>,
    /// How many sessions are open.
    pub sessions: u64,
    /// When it was last seen that two machines check in as this host, by turns; for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubled: Option<String>,
}

/// Somebody tried to take a name or key that belongs to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// When.
    pub at: String,
    /// The name it gave.
    pub name: String,
    /// The key it has.
    pub key: String,
    /// What does not fit.
    pub why: String,
}

/// `POST /v1/hosts/NAME/tags`: sets and takes away tags of an enrolled host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTags {
    /// `key=value`, added or changed.
    #[serde(default)]
    pub set: Vec<String>,
    /// Keys of tags to take away.
    #[serde(default)]
    pub unset: Vec<String>,
}
