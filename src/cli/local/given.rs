//! Whether what the server gave is what was asked for, and shown.
//!
//! What for: a certificate is kept, lent to an agent and offered to hosts only if it says what its request says, field by field; and a request
//! that this client knows may be narrowed by whoever approves it, and become nothing else.
//!
//! What not: the CA key. Which ones count is known to hosts, not here: a certificate by another one opens nothing.

use std::collections::BTreeSet;

use crate::cli::failure::Failure;
use crate::name::{PersonName, Principal, RequestId};
use crate::ssh::cert::{Certificate, Fields, ForceCommand, KeyId};
use crate::time::Timestamp;
use crate::wire;

/// Whether a certificate is that of this request's last grant; `key` is the fingerprint of the key that is here.
///
/// # Errors
/// What differs.
pub(super) fn check_certificate(
    request: &wire::Request,
    certificate: &Certificate,
    key: Option<&str>,
) -> Result<(), Failure> {
    let subject = certificate.tbs().subject().fingerprint().to_string();
    if subject != request.key || key != Some(&subject) {
        return Err(
            Failure::failed("the server's certificate is for another key").because(format!("expected {}", request.key))
        );
    }
    match differs(request, certificate.tbs().fields()) {
        None => Ok(()),
        Some(what) => Err(Failure::failed("the server's certificate is for something else than the request")
            .because(format!("{what} differs; nothing was kept"))
            .because(format!("{} is for {} as {}", request.id, request.hosts.join(", "), request.account))),
    }
}

/// The first thing that a certificate says otherwise than the request.
fn differs(request: &wire::Request, fields: &Fields) -> Option<&'static str> {
    let id = RequestId::parse(&request.id).ok().zip(PersonName::parse(&request.person).ok());
    // A user certificate and no other: a host's, and that of a login to itself, have other key ids.
    let key_id = id.and_then(|(id, person)| KeyId::new(&id, &person).ok());
    let principals = fields.principals.iter().map(Principal::as_str).collect();
    let window = request.window.as_ref().map(|w| (Timestamp::parse(&w.not_before), Timestamp::parse(&w.not_after)));
    let options = &fields.options;
    let sources: BTreeSet<String> = options.source_addresses.iter().map(ToString::to_string).collect();
    [
        (key_id.as_ref() == Some(&fields.key_id), "whose it is"),
        (set(&request.principals) == principals && opens_no_more(request, &principals), "what it opens"),
        (window == Some((Ok(fields.window.start()), Ok(fields.window.end()))), "its window"),
        (request.command.as_deref() == options.force_command.as_ref().map(ForceCommand::as_str), "its command"),
        (set(&request.sources) == sources.iter().map(String::as_str).collect(), "from where it counts"),
        (request.verify_required == options.verify_required, "what its key must check"),
        (set(&request.permit) == options.permits.iter().map(|permit| permit.key()).collect(), "what it permits"),
        (request.serial == Some(fields.serial.number()), "its serial"),
    ]
    .into_iter()
    .find_map(|(is_same, what)| (!is_same).then_some(what))
}

/// Whether these open the request's hosts as its account and nothing else: `account@host`, or the bare account on hosts of that scope.
fn opens_no_more(request: &wire::Request, principals: &BTreeSet<&str>) -> bool {
    let opened = |principal: &&str| {
        let (account, host) = principal.split_once('@').unwrap_or((principal, ""));
        account == request.account && (host.is_empty() || request.hosts.iter().any(|given| given == host))
    };
    principals.iter().all(opened)
}

/// Whether what the server says of a request now is the request that was known before, or less.
///
/// # Errors
/// What it makes of it.
pub(super) fn check_narrowed(before: &wire::Request, now: &wire::Request) -> Result<(), Failure> {
    let is_part = |now: &[String], before: &[String]| set(now).is_subset(&set(before));
    let other = [
        (now.id == before.id && now.person == before.person, "whose it is"),
        (now.key == before.key, "its key"),
        (now.account == before.account, "its account"),
        (is_part(&now.hosts, &before.hosts) && is_part(&now.principals, &before.principals), "what it opens"),
        (now.command == before.command, "its command"),
        (set(&now.sources) == set(&before.sources), "from where it counts"),
        // More than before is less; and a client of before did not write down what it was.
        (now.verify_required || !before.verify_required, "what its key must check"),
        (is_part(&now.permit, &before.permit), "what it permits"),
    ]
    .into_iter()
    .find_map(|(is_as_known, what)| (!is_as_known).then_some(what));
    match other {
        None => Ok(()),
        Some(what) => {
            Err(Failure::failed(format!("the server makes something else of {} than it said before", before.id))
                .because(format!("{what} differs; nothing was kept"))
                .because(format!("it was for {} as {}", before.hosts.join(", "), before.account))
                .next(format!("hallpass show {}", before.id))
                .next(format!("hallpass request --like {}", before.id)))
        }
    }
}

fn set(texts: &[String]) -> BTreeSet<&str> {
    texts.iter().map(String::as_str).collect()
}
