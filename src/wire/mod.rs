//! The JSON of the API, shared by server and client. Fields are only ever added; unknown ones in requests are refused.
//!
//! Times are RFC 3339 UTC text; durations are text such as `30m`; ids are `7K3F-9QX2`; digests are 64 hex digits; keys are OpenSSH lines.
//! The HTTP path, method and status of each are in the `OpenAPI` document.

pub mod ca;
pub mod host;
mod secret;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use secret::Secret;

/// The body of `POST /v1/login/challenge` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Challenge {
    /// The challenge to be answered.
    pub challenge: String,
    /// The server URL that the statement must name.
    pub server: String,
    /// When it expires.
    pub expires: String,
}

/// `POST /v1/login/ssh`: the answer to a challenge.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginAnswer {
    /// Who.
    pub person: String,
    /// The challenge.
    pub challenge: String,
    /// The login key, one OpenSSH line.
    pub key: String,
    /// Armoured SSHSIG over the login statement, namespace `login@hallpass`.
    pub signature: String,
}

/// A new session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewSession {
    /// The bearer token. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Who it proves.
    pub person: String,
    /// Until when.
    pub expires: String,
}

/// `POST /v1/session/browser` answers: lets one browser in, once, for a minute.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    /// The sign-in token. A secret.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Until when it counts.
    pub expires: String,
}

/// `GET /v1/session`: who am I.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// Who.
    pub person: String,
    /// In which groups.
    pub groups: Vec<String>,
    /// `operator`, `auditor`, or both, or none.
    pub roles: Vec<String>,
    /// Until when the session lasts.
    pub expires: String,
    /// The server's time.
    pub now: String,
}

/// `POST /v1/requests`: ask. The same body without `key` is `POST /v1/explain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Hosts and tags (`tag:role=web`), 1 to 16.
    pub targets: Vec<String>,
    /// As whom; the only account the rules allow if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// For how long: `30m`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// From when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The public key to be certified, one OpenSSH line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For `explain` only: about another person (operators and auditors).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// For `explain` only: as if put at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A request as its viewer may see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Request {
    /// `hallpass.request.v1`.
    pub schema: String,
    /// `7K3F-9QX2`.
    pub id: String,
    /// `pending approved issued denied withdrawn lapsed ended expired`.
    pub state: String,
    /// Who asked.
    pub person: String,
    /// Hosts.
    pub hosts: Vec<String>,
    /// As whom.
    pub account: String,
    /// Certificate principals.
    pub principals: Vec<String>,
    /// Why.
    pub reason: String,
    /// Ticket.
    pub ticket: Option<String>,
    /// For how long (as narrowed).
    #[serde(rename = "for")]
    pub lifetime: String,
    /// When it was asked.
    pub asked: String,
    /// From when, if a start was asked for.
    pub start: Option<String>,
    /// When an undecided request (or extension) lapses.
    pub decide_by: Option<String>,
    /// The window granted last: the certificate's validity to the second.
    pub window: Option<Window>,
    /// Extensions allowed: `pty`, `port_forwarding` …
    pub permit: Vec<String>,
    /// Forced command.
    pub command: Option<String>,
    /// Source addresses; empty means anywhere.
    pub sources: Vec<String>,
    /// Whether a security key must check a PIN or finger.
    #[serde(default)]
    pub verify_required: bool,
    /// How much earlier than its approval the window begins.
    #[serde(default)]
    pub backdate: String,
    /// Fingerprint of the key.
    pub key: String,
    /// Who must agree, per entry.
    pub needs: Vec<Need>,
    /// Who has approved what waits or what was granted last.
    pub approved_by: Vec<String>,
    /// Who could still approve it now.
    pub eligible: Vec<String>,
    /// Why it can't be approved as the policy is, if it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeetable: Option<String>,
    /// Who said no, ended it, and why.
    pub closed: Option<Closed>,
    /// A waiting extension.
    pub extension: Option<Extension>,
    /// Serial of the certificate of the last grant, once made.
    pub serial: Option<u64>,
    /// The rules that decided, and the policy version.
    pub rules: Vec<String>,
    /// The policy version that answered.
    pub policy: u32,
    /// What an approval must name.
    pub digest: String,
    /// Whether the viewer may decide it.
    pub may_decide: bool,
}

/// A half-open window.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Window {
    /// First second inside.
    pub not_before: String,
    /// First second outside.
    pub not_after: String,
}

/// So many people out of these.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Need {
    /// How many.
    pub need: u8,
    /// `group:sre`, `person:dave`.
    pub from: Vec<String>,
    /// Whether only signed approvals count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// How a request was closed by a person.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Closed {
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// An extension that waits for decisions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Extension {
    /// How much more.
    #[serde(rename = "for")]
    pub lifetime: String,
    /// Why.
    pub reason: String,
    /// When it lapses.
    pub decide_by: String,
}

/// A list of requests.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Requests {
    /// Newest first.
    pub requests: Vec<Request>,
}

/// `POST /v1/requests/ID/approve`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The digest that was shown.
    pub digest: String,
    /// A shorter time.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// Only these hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
    /// Without these extensions: `pty`, `port_forwarding` …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// A remark.
    #[serde(default)]
    pub comment: String,
    /// The approver's own signature on all of this; some policies want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ApprovalSignature>,
}

/// An approver's signature on the approval statement, whose text `docs/audit.md` gives line by line.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSignature {
    /// The login key that signed, one OpenSSH line.
    pub key: String,
    /// When, by the signer's clock; at most ten minutes from the service's.
    pub signed: String,
    /// Armoured SSHSIG over the statement, namespace `approval@hallpass`.
    pub signature: String,
}

/// `POST /v1/requests/ID/deny` and `/end`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reason; must not be empty for `deny`.
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/requests/ID/extend`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// How much more.
    #[serde(rename = "for")]
    pub lifetime: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/requests/ID/certificate` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// One line for a `-cert.pub` file.
    pub certificate: String,
    /// Its serial.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// Its principals.
    pub principals: Vec<String>,
    /// Its validity.
    pub window: Window,
}

/// `POST /v1/certificates` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// The request.
    pub request: Request,
    /// Its certificate, where nobody had to be asked and it begins now. Without one: `POST /v1/requests/ID/certificate`, in its time.
    pub certificate: Option<Certificate>,
}

/// `POST /v1/explain` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// `allow`, `ask` or `refuse`.
    pub verdict: String,
    /// For how long it would be, unless refused.
    #[serde(rename = "for")]
    pub lifetime: Option<String>,
    /// The longest that could be asked for.
    pub max: Option<String>,
    /// Who would have to agree.
    pub needs: Vec<Need>,
    /// Who could.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eligible: Vec<String>,
    /// Why it could not be approved as the policy is, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeetable: Option<String>,
    /// Why it is refused.
    pub refused: Vec<String>,
    /// Code of the refusal: `no_rule`, `refuse_rule`, `reason`, `window`, `unknown_host`.
    pub code: Option<String>,
    /// How each rule fared, per host.
    pub hosts: Vec<HostTrace>,
    /// The policy version that answered.
    pub policy: u32,
}

/// How the rules fared for one host.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostTrace {
    /// The host.
    pub host: String,
    /// Each rule looked at.
    pub rules: Vec<RuleTrace>,
}

/// How one rule fared.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleTrace {
    /// The rule.
    pub rule: String,
    /// Whether it matched.
    pub matched: bool,
    /// Condition by condition.
    pub clauses: Vec<String>,
}

/// A host that somebody may ask for: of the policy's file, or enrolled.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// `key=value`.
    pub tags: Vec<String>,
    /// Whether it is enrolled; if not, only the policy's file names it.
    #[serde(default)]
    pub is_enrolled: bool,
    /// What an enrolled host has told of itself last; for operators and auditors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<host::Seen>,
    /// What the caller may ask for there now, if that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ways: Option<Vec<Way>>,
}

/// A way into a host that somebody may ask for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Way {
    /// As which account.
    pub account: String,
    /// `allow` (at once) or `ask`.
    pub verdict: String,
    /// Who would have to agree.
    pub needs: Vec<Need>,
    /// The longest that could be asked for: `2h`.
    pub longest: String,
    /// The rule that decides.
    pub rule: String,
}

/// `GET /v1/hosts`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Hosts {
    /// By name.
    pub hosts: Vec<Host>,
    /// Whether there are more than one answer holds.
    #[serde(default)]
    pub is_cut: bool,
}

/// `PUT /v1/policy`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// The whole text.
    pub text: String,
    /// The version it was made from; the newest if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u32>,
    /// Only check, test and compare.
    #[serde(default)]
    pub dry_run: bool,
}

/// What applying did, or would do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyApplied {
    /// The version in force afterwards.
    pub version: u32,
    /// `+ …` gains and `- …` losses, as sentences.
    pub changes: Vec<String>,
    /// How many tests passed.
    pub tests: usize,
    /// Whether nothing had changed.
    pub unchanged: bool,
    /// What it can hardly mean, as sentences: groups without members, refusals of no host, approvals that can't be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether nothing was written because it was a dry run.
    pub dry_run: bool,
}

/// One policy version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// Its number.
    pub version: u32,
    /// By whom.
    pub by: String,
    /// When.
    pub at: String,
    /// Its text; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// `GET /v1/policy/history`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersions {
    /// Newest first.
    pub versions: Vec<PolicyVersion>,
}

/// `GET /v1/log/checkpoint`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The signed note.
    pub checkpoint: String,
    /// The log key's public half (signed-note verifier key).
    pub log_key: String,
    /// How many entries.
    pub size: u64,
}

/// `GET /v1/log/entries?from=&limit=` and `GET /v1/requests/ID/history`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entries {
    /// Canonical entries, as JSON text each (hash the text as it stands).
    pub entries: Vec<String>,
}

/// `GET /v1/log/proof?index=&size=` (inclusion) and `?old=&size=` (consistency): hex hashes, leaf side first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// The hashes.
    pub proof: Vec<String>,
}

/// RFC 9457 problem, `application/problem+json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `https://hallpass.dev/problems/<code>`; not meant to be fetched.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, one line.
    pub title: String,
    /// Stable machine code: `not_logged_in`, `no_rule`, …
    pub code: String,
    /// The facts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// Whether the same call can succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// Id of this exchange in the service's own log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}
