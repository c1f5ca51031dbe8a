//! An approver's own signature: the statement out of what was shown, signed by the key that logged in.
//!
//! What for: the service makes the same statement out of the request as it stands, and an auditor out of the log; a service that
//! showed something else than it has gets a signature that fits nothing.
//!
//! Invariant: every fact comes from what was shown to the approver and from their own arguments, and the server's name from their
//! profile.

use super::Context;
use super::decide::ApproveArgs;
use super::failure::{Exit, Failure};
use super::keys::{self, Signed};
use super::profile::{LoginKey, Profile, Session};
use crate::identity::approval::Statement;
use crate::name::{Account, Digest, HostName, PersonName, Principal, RequestId};
use crate::ssh::Fingerprint;
use crate::ssh::cert::Extension;
use crate::ssh::sig::APPROVAL_NAMESPACE;
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};
use crate::wire;

/// Signs the approval of what was shown, narrowed as the arguments say.
///
/// # Errors
/// When the key that logged in can't sign now; says what to do.
pub(super) fn sign(
    context: &Context,
    (profile, session): (&Profile, &Session),
    shown: &wire::Request,
    args: &ApproveArgs,
) -> Result<wire::ApprovalSignature, Failure> {
    let unread = |why: String| Failure::failed("the server's answer is not hallpass'").because(why);
    let statement = statement(&session.person, shown, args).map_err(unread)?;
    let signed = SystemClock.now();
    let text = statement.text(&profile.server.url, signed);
    let Signed { key, signature } = by_login_key(context, session.key.as_ref(), &text).map_err(|failure| {
        if shown.needs.iter().all(|need| need.signed) {
            return failure;
        }
        failure.next(format!("hallpass approve {} --unsigned", statement.request))
    })?;
    Ok(wire::ApprovalSignature { key: key.to_openssh(), signed: signed.to_string(), signature })
}

/// The signature of the key that logged in, and of no other.
fn by_login_key(context: &Context, key: Option<&LoginKey>, text: &str) -> Result<Signed, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::NotReady, "HP-301", "the key you logged in with cannot sign the approval now").because(why)
    };
    let Some(LoginKey { fingerprint, file }) = key else {
        let why = "which one it was is not known: this login is by an older hallpass";
        return Err(failed(why.to_owned()).next("hallpass login"));
    };
    let again = |failure: Failure| failure.next("ssh-add FILE").next("hallpass login --key FILE");
    let candidate = keys::of_login(fingerprint, file.as_deref())
        .ok_or_else(|| again(failed(format!("{fingerprint} is neither in the agent nor in a file that is known"))))?;
    let signed = candidate
        .sign(APPROVAL_NAMESPACE, text, context.globals.no_input)
        .map_err(|failure| again(failure.why.iter().cloned().fold(failed(failure.what.clone()), Failure::because)))?;
    if signed.key.fingerprint().to_string() == *fingerprint {
        Ok(signed)
    } else {
        Err(again(failed(format!("{} holds another key than {fingerprint}", candidate.shown()))))
    }
}

/// What is agreed to: what was shown, less what the arguments take away.
fn statement(approver: &str, shown: &wire::Request, args: &ApproveArgs) -> Result<Statement, String> {
    let account = parsed(Account::parse(&shown.account))?;
    let mut hosts = all(&shown.hosts, HostName::parse)?;
    hosts.retain(|host| args.only.is_empty() || args.only.contains(host));
    let principals = all(&shown.principals, Principal::parse)?;
    let opened_by = |host: &HostName| {
        let own = Principal::on_host(&account, host);
        if principals.contains(&own) { own } else { Principal::of_account(&account) }
    };
    let mut permits = all(&shown.permit, |key| Extension::ALL.into_iter().find(|e| e.key() == key).ok_or(key))?;
    permits.retain(|extension| !args.without.contains(extension));
    let extension = shown.extension.as_ref();
    let end = shown.window.as_ref().filter(|_| extension.is_some()).map(|window| Timestamp::parse(&window.not_after));
    let asked_for = Lifetime::parse(extension.map_or(&shown.lifetime, |extension| &extension.lifetime));
    Ok(Statement {
        approver: parsed(PersonName::parse(approver))?,
        request: parsed(RequestId::parse(&shown.id))?,
        digest: parsed(Digest::parse(&shown.digest))?,
        extends: parsed(end.transpose())?,
        person: parsed(PersonName::parse(&shown.person))?,
        key: parsed(Fingerprint::parse(&shown.key))?,
        principals: hosts.iter().map(opened_by).collect(),
        account,
        hosts,
        lifetime: args.lifetime.map_or_else(|| parsed(asked_for), Ok)?,
        backdate: parsed(Lifetime::parse(&shown.backdate))?,
        start: parsed(shown.start.as_deref().map(Timestamp::parse).transpose())?,
        permits,
        command: shown.command.clone(),
        sources: shown.sources.iter().cloned().collect(),
        verify_required: shown.verify_required,
        reason: extension.map_or(&shown.reason, |extension| &extension.reason).clone(),
        ticket: shown.ticket.clone(),
        comment: args.comment().to_owned(),
    })
}

fn parsed<T, E: ToString>(value: Result<T, E>) -> Result<T, String> {
    value.map_err(|e| e.to_string())
}

fn all<'t, T: Ord, E: ToString>(
    texts: &'t [String],
    parse: impl Fn(&'t str) -> Result<T, E>,
) -> Result<std::collections::BTreeSet<T>, String> {
    texts.iter().map(|text| parsed(parse(text))).collect()
}
