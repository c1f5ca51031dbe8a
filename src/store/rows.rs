//! Rows ↔ domain types, the same for both databases: a request as one JSON text with unknown fields and states refused.
//!
//! The structs here mirror `access::Parts` field by field; both conversions destructure exhaustively, so that a new field
//! of a request that is not stored does not compile. Each name is parsed again when it is read: a row is input like any
//! other (P10). `v` is the version of this format; another one is refused.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::access::{AccessRequest, Certified, Extending, Grant, Parts, State};
use crate::name::{
    Account, CaName, Digest, GroupName, HostName, PersonName, PolicyVersion, Principal, RequestId, RuleName, Serial,
};
use crate::policy::{Approvals, Need, Quorum, Terms, Who};
use crate::ssh::cert::{Extension, ForceCommand, Options, TbsCert};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp, Window};

/// The version of this format.
const FORMAT: u8 = 1;

/// Why a text is not a request as we write it.
type Why = String;

/// The request as JSON; the same request gives the same text.
///
/// # Errors
/// [`StoreError::Failed`], which would be a program error.
pub(super) fn to_json(request: &AccessRequest) -> Result<String, StoreError> {
    serde_json::to_string(&RequestRow::of(request.parts()))
        .map_err(|error| StoreError::Failed { doing: "writing a request as JSON", why: error.to_string() })
}

/// The request that this JSON text holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn from_json(text: &str) -> Result<AccessRequest, Why> {
    let row: RequestRow = serde_json::from_str(text).map_err(why)?;
    AccessRequest::from_parts(row.parts()?).map_err(why)
}

#[expect(clippy::needless_pass_by_value, reason = "so that `map_err` takes it by its name")]
fn why(error: impl ToString) -> Why {
    error.to_string()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestRow {
    v: u8,
    id: String,
    asker: String,
    key: String,
    reason: String,
    ticket: Option<String>,
    asked: u64,
    policy: u32,
    start: Option<u64>,
    terms: TermsRow,
    quorum: Option<Vec<NeedRow>>,
    state: StateRow,
    grants: Vec<GrantRow>,
    extension: Option<ExtendingRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsRow {
    hosts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    account: String,
    lifetime: u32,
    lifetime_max: u32,
    backdate: u32,
    decide_by: u32,
    options: OptionsRow,
    rules: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionsRow {
    force_command: Option<String>,
    source_addresses: Vec<String>,
    verify_required: bool,
    permits: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NeedRow {
    need: u8,
    from: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    signed: bool,
}

/// Arms without data are empty structs: serde would let a unit arm carry unknown fields.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StateRow {
    Pending {
        approvals: Vec<String>,
        #[serde(default, skip_serializing_if = "SignedRow::is_empty")]
        signed: SignedRow,
        decide_by: u64,
    },
    Approved {},
    Issued {},
    Denied {
        by: String,
        reason: String,
    },
    Withdrawn {},
    Lapsed {},
    Ended {
        by: String,
        reason: String,
        at: u64,
    },
    Expired {},
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantRow {
    start: u64,
    end: u64,
    approved: u64,
    approvers: Vec<String>,
    #[serde(default, skip_serializing_if = "SignedRow::is_empty")]
    signed: SignedRow,
    digest: String,
    certificate: Option<CertifiedRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertifiedRow {
    serial: u64,
    tbs: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendingRow {
    lifetime: u32,
    reason: String,
    asked: u64,
    decide_by: u64,
    policy: u32,
    quorum: Vec<NeedRow>,
    approvals: Vec<String>,
    #[serde(default, skip_serializing_if = "SignedRow::is_empty")]
    signed: SignedRow,
}

/// Those of a list of approvers who signed, each with the key.
type SignedRow = BTreeMap<String, String>;

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// A set from its list; said twice is refused.
fn set<T: Ord>(list: &[String], parse: impl Fn(&str) -> Result<T, Why>) -> Result<BTreeSet<T>, Why> {
    let set: BTreeSet<T> = list.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    if set.len() == list.len() { Ok(set) } else { Err("a list says something twice".to_owned()) }
}

/// Approvers, and those of them who signed.
fn approvals_of(approvals: &Approvals) -> (Vec<String>, SignedRow) {
    let signed = approvals.iter().filter_map(|(name, key)| key.map(|key| (name.to_string(), key.to_string())));
    (texts(approvals.keys()), signed.collect())
}

fn approvals_from(list: &[String], mut signed: SignedRow) -> Result<Approvals, Why> {
    let mut approvals = Approvals::new();
    for name in set(list, |text| PersonName::parse(text).map_err(why))? {
        let key = signed.remove(name.as_str()).map(|text| Fingerprint::parse(&text).map_err(why)).transpose()?;
        approvals.insert(name, key);
    }
    if signed.is_empty() { Ok(approvals) } else { Err("somebody signed and did not approve".to_owned()) }
}

fn time(seconds: u64) -> Result<Timestamp, Why> {
    Timestamp::from_unix(seconds).map_err(why)
}

fn lifetime(seconds: u32) -> Result<Lifetime, Why> {
    Lifetime::from_seconds(seconds).map_err(why)
}

impl RequestRow {
    fn of(parts: &Parts) -> Self {
        let Parts { id, asker, key, reason, ticket, asked, policy, start, terms, quorum, state, grants, extension } =
            parts;
        Self {
            v: FORMAT,
            id: id.digits().to_owned(),
            asker: asker.to_string(),
            key: key.to_openssh(),
            reason: reason.clone(),
            ticket: ticket.clone(),
            asked: asked.unix(),
            policy: policy.0,
            start: start.map(Timestamp::unix),
            terms: TermsRow::of(terms),
            quorum: quorum.as_ref().map(needs_of),
            state: StateRow::of(state),
            grants: grants.iter().map(GrantRow::of).collect(),
            extension: extension.as_ref().map(ExtendingRow::of),
        }
    }

    fn parts(self) -> Result<Parts, Why> {
        let Self { v, id, asker, key, reason, ticket, asked, policy, start, terms, quorum, state, grants, extension } =
            self;
        if v != FORMAT {
            return Err(format!("its format is {v}, this program knows {FORMAT}"));
        }
        Ok(Parts {
            id: RequestId::parse(&id).map_err(why)?,
            asker: PersonName::parse(&asker).map_err(why)?,
            key: PublicKey::parse_openssh(&key).map_err(why)?,
            reason,
            ticket,
            asked: time(asked)?,
            policy: PolicyVersion(policy),
            start: start.map(time).transpose()?,
            terms: terms.terms()?,
            quorum: quorum.map(quorum_from).transpose()?,
            state: state.state()?,
            grants: grants.into_iter().map(GrantRow::grant).collect::<Result<_, _>>()?,
            extension: extension.map(ExtendingRow::extending).transpose()?,
        })
    }
}

impl TermsRow {
    fn of(terms: &Terms) -> Self {
        let Terms { hosts, ca, account, lifetime, lifetime_max, backdate, decide_by, options, rules } = terms;
        Self {
            hosts: hosts.iter().map(|(host, principal)| (host.to_string(), principal.to_string())).collect(),
            ca: ca.named().map(|name| name.to_string()),
            account: account.to_string(),
            lifetime: lifetime.seconds(),
            lifetime_max: lifetime_max.seconds(),
            backdate: backdate.seconds(),
            decide_by: decide_by.seconds(),
            options: OptionsRow::of(options),
            rules: texts(rules),
        }
    }

    fn terms(self) -> Result<Terms, Why> {
        let host = |(host, principal): (&String, &String)| -> Result<(HostName, Principal), Why> {
            Ok((HostName::parse(host).map_err(why)?, Principal::parse(principal).map_err(why)?))
        };
        Ok(Terms {
            hosts: self.hosts.iter().map(host).collect::<Result<_, _>>()?,
            ca: self.ca.map_or(Ok(CaName::DEFAULT), |name| CaName::parse(&name).map_err(why))?,
            account: Account::parse(&self.account).map_err(why)?,
            lifetime: lifetime(self.lifetime)?,
            lifetime_max: lifetime(self.lifetime_max)?,
            backdate: lifetime(self.backdate)?,
            decide_by: lifetime(self.decide_by)?,
            options: self.options.options()?,
            rules: self.rules.iter().map(|rule| RuleName::parse(rule).map_err(why)).collect::<Result<_, _>>()?,
        })
    }
}

impl OptionsRow {
    fn of(options: &Options) -> Self {
        let Options { force_command, source_addresses, verify_required, permits } = options;
        Self {
            force_command: force_command.as_ref().map(|command| command.as_str().to_owned()),
            source_addresses: texts(source_addresses),
            verify_required: *verify_required,
            permits: texts(permits.iter().map(|permit| permit.key())),
        }
    }

    fn options(self) -> Result<Options, Why> {
        let permit = |text: &str| {
            let known = Extension::ALL.into_iter().find(|extension| extension.key() == text);
            known.ok_or_else(|| format!("unknown extension {text:?}"))
        };
        Ok(Options {
            force_command: self.force_command.map(|text| ForceCommand::parse(&text).map_err(why)).transpose()?,
            source_addresses: set(&self.source_addresses, |text| text.parse().map_err(why))?,
            verify_required: self.verify_required,
            permits: set(&self.permits, permit)?,
        })
    }
}

fn needs_of(quorum: &Quorum) -> Vec<NeedRow> {
    let row = |Need { need, from, signed }: &Need| NeedRow { need: *need, from: texts(from), signed: *signed };
    quorum.needs().iter().map(row).collect()
}

fn quorum_from(needs: Vec<NeedRow>) -> Result<Quorum, Why> {
    let who = |text: &str| match text.split_once(':') {
        Some(("group", name)) => GroupName::parse(name).map(Who::Group).map_err(why),
        Some(("person", name)) => PersonName::parse(name).map(Who::Person).map_err(why),
        _ => Err(format!("unknown kind of approver {text:?}")),
    };
    let needs: Vec<Need> = needs
        .into_iter()
        .map(|row| Ok::<_, Why>(Need { need: row.need, from: set(&row.from, who)?, signed: row.signed }))
        .collect::<Result<_, _>>()?;
    Quorum::new(needs).ok_or_else(|| "a quorum without needs".to_owned())
}

impl StateRow {
    fn of(state: &State) -> Self {
        match state {
            State::Pending { approvals, decide_by } => {
                let (approvals, signed) = approvals_of(approvals);
                Self::Pending { approvals, signed, decide_by: decide_by.unix() }
            }
            State::Approved => Self::Approved {},
            State::Issued => Self::Issued {},
            State::Denied { by, reason } => Self::Denied { by: by.to_string(), reason: reason.clone() },
            State::Withdrawn => Self::Withdrawn {},
            State::Lapsed => Self::Lapsed {},
            State::Ended { by, reason, at } => {
                Self::Ended { by: by.to_string(), reason: reason.clone(), at: at.unix() }
            }
            State::Expired => Self::Expired {},
        }
    }

    fn state(self) -> Result<State, Why> {
        let person = |text: &str| PersonName::parse(text).map_err(why);
        Ok(match self {
            Self::Pending { approvals, signed, decide_by } => {
                State::Pending { approvals: approvals_from(&approvals, signed)?, decide_by: time(decide_by)? }
            }
            Self::Approved {} => State::Approved,
            Self::Issued {} => State::Issued,
            Self::Denied { by, reason } => State::Denied { by: person(&by)?, reason },
            Self::Withdrawn {} => State::Withdrawn,
            Self::Lapsed {} => State::Lapsed,
            Self::Ended { by, reason, at } => State::Ended { by: person(&by)?, reason, at: time(at)? },
            Self::Expired {} => State::Expired,
        })
    }
}

impl GrantRow {
    fn of(grant: &Grant) -> Self {
        let Grant { window, approved, approvers, digest, certificate } = grant;
        let (approvers, signed) = approvals_of(approvers);
        Self {
            start: window.start().unix(),
            end: window.end().unix(),
            approved: approved.unix(),
            approvers,
            signed,
            digest: digest.to_string(),
            certificate: certificate.as_ref().map(|Certified { serial, tbs }| CertifiedRow {
                serial: serial.number(),
                tbs: BASE64.encode(tbs.bytes()),
            }),
        }
    }

    fn grant(self) -> Result<Grant, Why> {
        Ok(Grant {
            window: Window::new(time(self.start)?, time(self.end)?).map_err(why)?,
            approved: time(self.approved)?,
            approvers: approvals_from(&self.approvers, self.signed)?,
            digest: Digest::parse(&self.digest).map_err(why)?,
            certificate: self.certificate.map(CertifiedRow::certified).transpose()?,
        })
    }
}

impl CertifiedRow {
    fn certified(self) -> Result<Certified, Why> {
        let serial = Serial::new(self.serial).map_err(why)?;
        let tbs = TbsCert::parse(&BASE64.decode(self.tbs.as_bytes()).map_err(why)?).map_err(why)?;
        if tbs.fields().serial == serial {
            Ok(Certified { serial, tbs })
        } else {
            Err("a certificate has another serial than its row".to_owned())
        }
    }
}

impl ExtendingRow {
    fn of(extension: &Extending) -> Self {
        let Extending { lifetime, reason, asked, decide_by, policy, quorum, approvals } = extension;
        let (approvals, signed) = approvals_of(approvals);
        Self {
            lifetime: lifetime.seconds(),
            reason: reason.clone(),
            asked: asked.unix(),
            decide_by: decide_by.unix(),
            policy: policy.0,
            quorum: needs_of(quorum),
            approvals,
            signed,
        }
    }

    fn extending(self) -> Result<Extending, Why> {
        Ok(Extending {
            lifetime: lifetime(self.lifetime)?,
            reason: self.reason,
            asked: time(self.asked)?,
            decide_by: time(self.decide_by)?,
            policy: PolicyVersion(self.policy),
            quorum: quorum_from(self.quorum)?,
            approvals: approvals_from(&self.approvals, self.signed)?,
        })
    }
}
