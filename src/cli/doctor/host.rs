//! One host: what we hold for it, what policy says if we hold nothing, and one real attempt.

use std::net::{IpAddr, UdpSocket};

use super::super::failure::Failure;
use super::super::local::Held;
use super::super::{ended, output, render, wait};
use super::Doctor;
use super::diagnosis::{Known, diagnose};
use super::probe::{self, Shown};
use super::report::Check;
use super::server::Server;
use super::trace::Trace;
use crate::client::ClientError;
use crate::name::{Account, HostName};
use crate::time::Timestamp;
use crate::wire;

/// What was found for a host.
#[derive(Debug)]
pub(super) struct Found {
    /// What lets us in now.
    pub(super) live: Option<Held>,
    /// The accounts of all that lets us in now.
    pub(super) accounts: Vec<String>,
    /// The time, by the server's clock if it is known.
    pub(super) now: Timestamp,
}

/// What we hold, or why we hold nothing.
pub(super) fn look(
    doctor: &Doctor<'_>,
    host: &HostName,
    (server, closed): (&Server, &[(Held, wire::Request)]),
    checks: &mut Vec<Check>,
) -> Result<Found, Failure> {
    let now = server.now();
    let mut found = Found { live: None, accounts: Vec::new(), now };
    // With a wrong account the access for another one is what explains it.
    let all = match doctor.local.for_host(host, None) {
        Ok(all) => all,
        Err(failure) => {
            checks.push(Check::failed("access", &failure));
            return Ok(found);
        }
    };
    let is_closed = |held: &Held| closed.iter().any(|(closed, _)| closed.folder == held.folder);
    let is_valid = |held: &Held| held.window().is_some_and(|window| window.contains(now)) && !is_closed(held);
    found.accounts = all.iter().filter(|held| is_valid(held)).map(|held| held.request.account.clone()).collect();
    let wanted = doctor.account().map(Account::as_str);
    let fits = |held: &Held| wanted.is_none_or(|account| held.request.account == account);
    let (mut live, rest): (Vec<Held>, Vec<Held>) = all.into_iter().partition(is_valid);
    let best = live.iter().position(fits).or(if live.is_empty() { None } else { Some(0) });
    match best {
        Some(index) => {
            let held = live.swap_remove(index);
            checks.push(holds(&held, server.now()));
            found.live = Some(held);
        }
        None => checks.push(nothing(doctor, host, server, &rest)),
    }
    Ok(found)
}

fn holds(held: &Held, now: Timestamp) -> Check {
    let request = &held.request;
    let until =
        request.window.as_ref().map_or_else(String::new, |w| format!(", until {}", render::until(&w.not_after, now)));
    let mut check = Check::ok(
        "access",
        format!("you hold {}: {} as {}{until}", request.id, request.hosts.join(", "), request.account),
    );
    if !request.sources.is_empty() {
        check = check.because(format!("from {} alone", request.sources.join(", ")));
    }
    if let Some(command) = &request.command {
        check = check.because(format!("for one command: {command}"));
    }
    check
}

/// Nothing lets us in: why not, and what to do.
fn nothing(doctor: &Doctor<'_>, host: &HostName, server: &Server, rest: &[Held]) -> Check {
    let now = server.now();
    if let Some(held) = rest.iter().find(|held| held.window().is_some_and(|window| now < window.start())) {
        return Check::failed("access", &wait::not_begun(&held.request));
    }
    if let Some(client) = &server.client {
        let asked = doctor.context.block_on(ask(doctor, client, host));
        return asked.unwrap_or_else(|failure| Check::failed("access", &failure));
    }
    match rest.iter().find(|held| held.certificate.is_some()) {
        Some(held) => Check::failed("access", &ended::over(host.as_str(), &held.request, now)),
        None => Check::bad("access", "HP-211", format!("you hold no access to {host}"))
            .because("the access server could not be asked whether you may")
            .next(format!("hallpass request {host}")),
    }
}

/// What the server knows: an open request, one that is over, or what policy says to a new one.
async fn ask(doctor: &Doctor<'_>, client: &crate::client::Client, host: &HostName) -> Result<Check, Failure> {
    let query = format!("/v1/requests?mine=true&host={host}&state=pending&state=approved&state=issued");
    let open: wire::Requests = client.get(&query).await?;
    if let Some(request) = open.requests.first() {
        if request.state == "pending" {
            return Ok(Check::failed("access", &wait::undecided(request)));
        }
        let what = format!("you hold {}, and its certificate is not on this machine", request.id);
        return Ok(Check::warn("access", what)
            .because("it is fetched when you connect, if it was asked for from here")
            .next(format!("ssh {host}")));
    }
    if let Some(failure) = ended::lately(client, host, doctor.account()).await? {
        return Ok(Check::failed("access", &failure));
    }
    let question = wire::Ask {
        targets: vec![host.to_string()],
        account: doctor.account().map(ToString::to_string),
        ..wire::Ask::default()
    };
    let verdict: wire::Verdict = match client.post("/v1/explain", &question).await {
        Ok(verdict) => verdict,
        Err(ClientError::Problem(problem)) if problem.code == "account" => {
            let failure = Failure::name_account(&problem, |account| format!("hallpass doctor {account}@{host}"));
            return Ok(Check::failed("access", &failure));
        }
        Err(error) => return Err(error.into()),
    };
    let may_ask = verdict.verdict != "refuse" || verdict.code.as_deref() == Some("reason");
    if !may_ask {
        let mut check = Check::bad("access", "HP-201", "policy does not let you ask for this");
        check.why.clone_from(&verdict.refused);
        return Ok(check.next(format!("hallpass explain {host}")));
    }
    let mut check = Check::bad("access", "HP-211", format!("you have no access to {host} yet"));
    if verdict.verdict == "refuse" {
        // A rule lets them ask, with other words than none.
        check.why.clone_from(&verdict.refused);
    } else {
        let needs: u32 = verdict.needs.iter().map(|need| u32::from(need.need)).sum();
        let by = if needs == 0 { "nobody has to agree".to_owned() } else { format!("approvals needed: {needs}") };
        let longest = verdict.max.as_ref().map_or_else(String::new, |max| format!(", for {max} at most"));
        check = check.because(format!("policy lets you ask for it{longest}; {by}"));
    }
    Ok(check.next(format!("hallpass request {host}")))
}

/// One real attempt with what we hold; its lines for the bundle.
pub(super) fn attempt(
    doctor: &Doctor<'_>,
    host: &HostName,
    found: &Found,
    server: &Server,
    shown: &Shown,
) -> Result<(Check, Vec<String>), Failure> {
    let Some(held) = &found.live else {
        return Ok((Check::skipped("login", "not tried: there is nothing to log in with"), Vec::new()));
    };
    let (Some(certificate), Ok(account)) = (&held.certificate, Account::parse(&held.request.account)) else {
        return Ok((Check::skipped("login", "not tried: there is nothing to log in with"), Vec::new()));
    };
    // Which account ssh takes is a question of its own; this one is whether the host takes the certificate.
    let is_to_sign = !certificate.tbs().subject().algorithm().is_security_key();
    let config = doctor.given_config();
    let tried = doctor.context.block_on(probe::log_in(shown, config, host, &account, held, is_to_sign));
    let lines = match tried {
        Ok(lines) => lines,
        Err(failure) => return Ok((Check::failed("login", &failure), Vec::new())),
    };
    let trace = Trace::read(lines.iter().map(String::as_str), &held.key_path(), &held.certificate_path());
    let known = Known {
        host: host.as_str(),
        request: &held.request.id,
        account: account.as_str(),
        certificate,
        now: found.now,
        is_servers_time: server.is_time_known(),
        from: trace.address.as_deref().and_then(our_address),
    };
    Ok((diagnose(&known, &trace), lines))
}

/// Our address on the way to another one; nothing is sent.
fn our_address(to: &str) -> Option<IpAddr> {
    let to: IpAddr = to.parse().ok()?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Any port: no packet leaves, the system only picks the way.
    socket.connect((to, 22)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A time for the bundle's head.
pub(super) fn shown_now(server: &Server) -> String {
    let which = if server.is_time_known() { "the server's clock" } else { "this machine's clock" };
    format!("{} ({which})", output::local_time(server.now()))
}
