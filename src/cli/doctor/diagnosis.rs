//! Why a host refused us, from what `ssh -v` said and what we know of the certificate. Pure.
//!
//! A host tells a client nothing about its reason (OPENSSH L16): expired, not begun, another principal, an unknown CA and a wrong source
//! address all look alike. So a diagnosis is by elimination, and says what is known and what is only inferred from it.

use std::net::IpAddr;

use super::super::output::local_time;
use super::report::Check;
use super::trace::{HostKey, Trace};
use crate::ssh::cert::Certificate;
use crate::time::Timestamp;

/// What we know beside ssh's words.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    /// The host.
    pub(super) host: &'a str,
    /// The request's id.
    pub(super) request: &'a str,
    /// The account that was tried.
    pub(super) account: &'a str,
    /// The certificate that was offered.
    pub(super) certificate: &'a Certificate,
    /// The time, by the access server's clock if that is known.
    pub(super) now: Timestamp,
    /// Whether it is known.
    pub(super) is_servers_time: bool,
    /// Our address on the way to the host, if it can be told.
    pub(super) from: Option<IpAddr>,
}

/// The check's name.
const ID: &str = "login";

/// What the connection came to, and why.
pub(super) fn diagnose(known: &Known<'_>, trace: &Trace) -> Check {
    let host = known.host;
    if trace.is_in {
        return with_software(Check::ok(ID, format!("{host} lets you in as {}", known.account)), trace);
    }
    if trace.is_taken && known.certificate.tbs().subject().algorithm().is_security_key() {
        let check = Check::ok(ID, format!("{host} takes our certificate as {}", known.account));
        return with_software(check.because("the security key was not touched, so nothing was signed"), trace);
    }
    if let Some(check) = before_login(known, trace) {
        return check;
    }
    if trace.is_unprotected {
        return Check::bad(ID, "HP-303", "ssh ignores the key: others can read it")
            .because("ssh said so when the host was ready to take it")
            .next("hallpass doctor --fix");
    }
    if let Some(why) = &trace.not_loaded {
        return unloaded(known, why);
    }
    let takes_none = trace.methods.as_ref().is_some_and(|methods| methods.iter().all(|method| method != "publickey"));
    if takes_none || (trace.is_too_many && !trace.is_offered) {
        let methods = trace.methods.clone().unwrap_or_default().join(", ");
        let fact = match (takes_none, methods.as_str()) {
            (false, _) => "known: it hung up before any key was offered (its MaxAuthTries is 0)".to_owned(),
            (true, "") => "known: it offers no method at all".to_owned(),
            (true, methods) => format!("known: it offers {methods} alone"),
        };
        let check = Check::bad(ID, "HP-404", format!("{host} takes no keys, not only not yours")).because(fact);
        return with_software(check, trace).next(bundle(host));
    }
    if trace.is_offered && (trace.is_denied || trace.is_too_many) {
        return refused(known, trace);
    }
    if trace.is_denied {
        return Check::bad(ID, "HP-305", "ssh did not offer our certificate")
            .because(format!("known: {host} was reached and asked for a key"))
            .next("hallpass doctor --fix");
    }
    let lost = trace.lost.clone().unwrap_or_else(|| "ssh ended without saying why".to_owned());
    Check::bad(ID, "HP-406", format!("{host} hung up before it said yes or no"))
        .because(lost)
        .next(format!("ssh -v {host}"))
}

/// The host was ready to take the certificate, and ssh had no key to sign with.
fn unloaded(known: &Known<'_>, why: &str) -> Check {
    let fact = format!("ssh said so when {} was ready to take it: {why}", known.host);
    if why.starts_with("Permission denied") {
        return Check::bad(ID, "HP-303", "we cannot read our own key").because(fact).next("hallpass doctor --fix");
    }
    Check::bad(ID, "HP-303", "ssh cannot use our key: its file is not as it was written")
        .because(fact)
        .next(format!("hallpass end {}", known.request))
        .next(format!("hallpass request --like {}", known.request))
}

/// What keeps us from being asked for a key at all.
fn before_login(known: &Known<'_>, trace: &Trace) -> Option<Check> {
    let host = known.host;
    if let Some(why) = &trace.no_connection {
        let mut check = Check::bad(ID, "HP-406", format!("{host} cannot be reached")).because(why.clone());
        if let Some(address) = &trace.address {
            check = check.because(format!("its address is {address}"));
        }
        return Some(check.next(format!("ssh -G {host} | grep -i -e hostname -e port -e proxy")));
    }
    if let Some(why) = &trace.not_passed_on {
        let mut check =
            Check::bad(ID, "HP-406", format!("{host} cannot be reached: the jump host does not pass you on"))
                .because(format!("known: it let you in, and said of the way on: {why}"));
        if why.starts_with("administratively prohibited") {
            let fact = "inferred: the certificate for it lacks port_forwarding (see `jump`), or its sshd forbids it";
            check = check.because(fact);
        }
        return Some(check.next(format!("ssh -G {host} | grep -i -e hostname -e port -e proxy")));
    }
    let other = |what: String| Check::bad(ID, "HP-403", what).because("nothing was offered to it");
    match &trace.host_key {
        HostKey::Unseen | HostKey::Known => None,
        HostKey::Changed(place) => {
            let mut check = other(format!("{host} shows another host key than the one known here"));
            if let Some(place) = place {
                check = check.because(format!("the known one stands in {place}; do not delete it"));
            }
            Some(
                check.next(format!("ask the owner of {host} for its fingerprint, and compare it with what ssh prints")),
            )
        }
        HostKey::BadCertificate(words) => {
            let check = other(format!("{host} shows a host certificate that does not fit")).because(words.clone());
            Some(check.next("use a name that is in it, or have its owner add this one; leave known_hosts as it is"))
        }
        HostKey::Unknown => Some(
            Check::warn(ID, format!("the key of {host} is not known here yet, so no login was tried"))
                .because("ssh asks once whether to trust it; nobody can be asked here")
                .next(format!("ssh {host}")),
        ),
    }
}

/// Offered and refused: what can be ruled out, and what is left.
fn refused(known: &Known<'_>, trace: &Trace) -> Check {
    let (host, fields) = (known.host, known.certificate.tbs().fields());
    let window = fields.window;
    let clock = if known.is_servers_time { "by the access server's clock" } else { "by this machine's clock" };
    if window.end() <= known.now {
        return Check::bad(ID, "HP-206", format!("your access to {host} is over"))
            .because(format!("its window ended at {} {clock}", local_time(window.end())))
            .next(format!("hallpass request {host} --as {}", known.account));
    }
    if known.now < window.start() {
        return Check::bad(ID, "HP-210", format!("your access to {host} has not begun"))
            .because(format!("its window begins at {} {clock}", local_time(window.start())))
            .next(format!("hallpass wait {}", known.request));
    }
    let sources = &fields.options.source_addresses;
    let is_elsewhere = known.from.is_some_and(|from| !sources.iter().any(|block| block.contains(&from)));
    if let (false, true, Some(from)) = (sources.is_empty(), is_elsewhere, known.from) {
        let list: Vec<String> = sources.iter().map(ToString::to_string).collect();
        return Check::bad(ID, "HP-405", format!("{host} refuses our certificate from {from}"))
            .because(format!("known: it may be used from {}", list.join(", ")))
            .because(format!("known: this machine's address towards {host} is {from}"))
            .because("inferred: the host sees that address, or another one outside (a gateway may change it)")
            .next(format!("hallpass explain {host}"))
            .next(format!("ssh -J BASTION {host}"));
    }
    let principals: Vec<&str> = fields.principals.iter().map(crate::name::Principal::as_str).collect();
    let mut check = Check::bad(ID, "HP-401", format!("{host} refuses our certificate; it may not know our CA"))
        .because(format!("known: offered as {}, refused without a reason", known.account))
        .because(format!("known: valid until {} {clock}", local_time(window.end())));
    if !sources.is_empty() {
        check = check.because("known: this machine's address is one that it may be used from");
    }
    check = check
        .because(format!("inferred: sshd there does not trust our CA {}", known.certificate.ca_fingerprint()))
        .because(format!("      or: it lets nobody in as {} by {}", known.account, principals.join(", ")))
        .because(format!("      or: its clock is before {} or past the end", local_time(window.start())))
        .because("      or: its revocation list has it, or that file is missing");
    with_software(check, trace).next(bundle(host))
}

fn bundle(host: &str) -> String {
    format!("hallpass doctor {host} --bundle {host}.txt")
}

fn with_software(check: Check, trace: &Trace) -> Check {
    match &trace.software {
        Some(software) => check.because(format!("it runs {software}")),
        None => check,
    }
}
