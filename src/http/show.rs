//! From domain values to the JSON of the API. No decision: what a viewer may see was settled by the service.

use crate::access::{Grant, State};
use crate::name::PersonName;
use crate::policy::{Outcome, Quorum, Refused, Verdict, Way};
use crate::service::access::View;
use crate::service::ask::Explained;
use crate::service::hosts::HostView;
use crate::service::policy::Applied;
use crate::ssh::cert::{Certificate, Extension};
use crate::time::Window;
use crate::wire;

/// A request as its viewer may see it.
pub(super) fn request(view: &View) -> wire::Request {
    let parts = view.request.parts();
    let (decide_by, closed) = match &parts.state {
        State::Pending { decide_by, .. } => (Some(*decide_by), None),
        State::Denied { by, reason } | State::Ended { by, reason, .. } => {
            (None, Some(wire::Closed { by: by.to_string(), reason: reason.clone() }))
        }
        State::Approved | State::Issued | State::Withdrawn | State::Lapsed | State::Expired => (None, None),
    };
    let extension = parts.extension.as_ref();
    let grant = view.request.grant();
    wire::Request {
        schema: "hallpass.request.v1".to_owned(),
        id: parts.id.to_string(),
        state: parts.state.word().to_owned(),
        person: parts.asker.to_string(),
        hosts: parts.terms.hosts.keys().map(ToString::to_string).collect(),
        account: parts.terms.account.to_string(),
        principals: principals(parts.terms.hosts.values()),
        reason: parts.reason.clone(),
        ticket: parts.ticket.clone(),
        lifetime: parts.terms.lifetime.to_string(),
        asked: parts.asked.to_string(),
        start: parts.start.map(|start| start.to_string()),
        decide_by: decide_by.or(extension.map(|e| e.decide_by)).map(|by| by.to_string()),
        window: grant.map(|grant| window(grant.window)),
        permit: parts.terms.options.permits.iter().map(|extension| extension.key().to_owned()).collect(),
        command: parts.terms.options.force_command.as_ref().map(|command| command.as_str().to_owned()),
        sources: parts.terms.options.source_addresses.iter().map(ToString::to_string).collect(),
        verify_required: parts.terms.options.verify_required,
        backdate: parts.terms.backdate.to_string(),
        key: parts.key.fingerprint().to_string(),
        needs: view.quorum.as_ref().map(needs).unwrap_or_default(),
        approved_by: approved_by(view),
        eligible: names(&view.eligible),
        unmeetable: view.shortage.as_ref().map(ToString::to_string),
        closed,
        extension: extension.map(|extension| wire::Extension {
            lifetime: extension.lifetime.to_string(),
            reason: extension.reason.clone(),
            decide_by: extension.decide_by.to_string(),
        }),
        serial: grant.and_then(|grant| grant.certificate.as_ref()).map(|certified| certified.serial.number()),
        rules: parts.terms.rules.iter().map(ToString::to_string).collect(),
        policy: parts.policy.0,
        digest: view.request.digest().to_string(),
        may_decide: view.may_decide,
    }
}

/// Who has approved what waits; if nothing waits, who approved what was granted last.
fn approved_by(view: &View) -> Vec<String> {
    let parts = view.request.parts();
    match (&parts.state, &parts.extension) {
        (State::Pending { approvals, .. }, _) => names(approvals.keys()),
        (_, Some(extension)) => names(extension.approvals.keys()),
        (_, None) => view.request.grant().map(|grant: &Grant| names(grant.approvers.keys())).unwrap_or_default(),
    }
}

fn names<'a>(people: impl IntoIterator<Item = &'a PersonName>) -> Vec<String> {
    people.into_iter().map(ToString::to_string).collect()
}

/// Without doubles: hosts of account scope share one principal.
fn principals<'a>(principals: impl Iterator<Item = &'a crate::name::Principal>) -> Vec<String> {
    let distinct: std::collections::BTreeSet<_> = principals.collect();
    distinct.into_iter().map(ToString::to_string).collect()
}

fn window(window: Window) -> wire::Window {
    wire::Window { not_before: window.start().to_string(), not_after: window.end().to_string() }
}

fn needs(quorum: &Quorum) -> Vec<wire::Need> {
    let need = |need: &crate::policy::Need| wire::Need {
        need: need.need,
        from: need.from.iter().map(ToString::to_string).collect(),
        signed: need.signed,
    };
    quorum.needs().iter().map(need).collect()
}

/// A finished certificate.
pub(super) fn certificate(certificate: &Certificate) -> wire::Certificate {
    let fields = certificate.tbs().fields();
    wire::Certificate {
        certificate: certificate.to_openssh(),
        serial: fields.serial.number(),
        key_id: fields.key_id.as_str().to_owned(),
        principals: principals(fields.principals.iter()),
        window: window(fields.window),
    }
}

/// Policy's answer with its reasons.
pub(super) fn verdict(explained: &Explained) -> wire::Verdict {
    let Explained { version, verdict, eligible, shortage } = explained;
    let (word, terms, quorum) = match &verdict.outcome {
        Outcome::Allow(terms) => ("allow", Some(terms), None),
        Outcome::Ask(terms, quorum) => ("ask", Some(terms), Some(quorum)),
        Outcome::Refuse(_) => ("refuse", None, None),
    };
    let refusals = refusals(verdict);
    let rule = |rule: &crate::policy::RuleTrace| wire::RuleTrace {
        rule: rule.rule.to_string(),
        matched: rule.matched,
        clauses: rule.clauses.clone(),
    };
    wire::Verdict {
        verdict: word.to_owned(),
        lifetime: terms.map(|terms| terms.lifetime.to_string()),
        max: terms.map(|terms| terms.lifetime_max.to_string()),
        needs: quorum.map(needs).unwrap_or_default(),
        eligible: names(eligible),
        unmeetable: shortage.as_ref().map(ToString::to_string),
        refused: refusals.iter().map(refused).collect(),
        code: refusals.first().map(|first| super::error::refused_code(first.kind).to_owned()),
        hosts: verdict
            .trace
            .iter()
            .map(|trace| wire::HostTrace {
                host: trace.host.to_string(),
                rules: trace.rules.iter().map(rule).collect(),
            })
            .collect(),
        policy: version.0,
    }
}

/// What a verdict refuses, if it refuses.
pub(super) fn refusals(verdict: &Verdict) -> &[Refused] {
    match &verdict.outcome {
        Outcome::Refuse(refused) => refused,
        Outcome::Allow(_) | Outcome::Ask(..) => &[],
    }
}

/// One reason of a refusal, as a sentence.
pub(super) fn refused(refused: &Refused) -> String {
    let mut text = String::new();
    if let Some(host) = &refused.host {
        text.push_str(&format!("{host}: "));
    }
    text + &refused.why
}

/// A host that policy knows, and what may be asked for there.
pub(super) fn host(view: &HostView) -> wire::Host {
    let HostView { host, ways, is_enrolled, seen } = view;
    wire::Host {
        name: host.name.to_string(),
        tags: host.tags.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        is_enrolled: *is_enrolled,
        seen: seen.as_ref().map(super::inventory::seen),
        ways: ways.as_ref().map(|ways| ways.iter().map(way).collect()),
    }
}

fn way(way: &Way) -> wire::Way {
    wire::Way {
        account: way.account.to_string(),
        verdict: if way.quorum.is_some() { "ask" } else { "allow" }.to_owned(),
        needs: way.quorum.as_ref().map(needs).unwrap_or_default(),
        longest: way.longest.to_string(),
        rule: way.rule.to_string(),
    }
}

/// What applying a policy did, or would do.
pub(super) fn applied(applied: &Applied, dry_run: bool) -> wire::PolicyApplied {
    wire::PolicyApplied {
        version: applied.version.0,
        changes: applied.changes.iter().map(|change| format!("{} {}", change.effect.sign(), change.text)).collect(),
        tests: applied.tests,
        unchanged: applied.unchanged,
        warnings: applied.warnings.clone(),
        dry_run,
    }
}

/// The extension of this key, as approvers name it.
pub(super) fn extension(key: &str) -> Option<Extension> {
    Extension::ALL.into_iter().find(|extension| extension.key() == key)
}
