//! The access server, the login and this machine's clock, as `hallpass doctor` sees them.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::super::failure::Failure;
use super::super::local::Held;
use super::super::output::local_text;
use super::super::profile::{self, Profile, Session};
use super::super::{render, still};
use super::Doctor;
use super::report::Check;
use super::service;
use crate::client::{Client, ClientError, ClockOffset};
use crate::time::Timestamp;
use crate::wire;

/// A clock that is off by more than this is wrong: certificates begin 30 s before they are made, unless the policy says otherwise.
const CLOCK_TOLERANCE_S: u64 = 30;

/// How long `--net` waits for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of what is held is named when the server can't be reached.
const HELD_SHOWN_MAX: usize = 5;

/// What is known of the server.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// A client that is logged in.
    pub(super) client: Option<Client>,
    /// How far this machine's clock is ahead of the server's. Not the one that commands keep: nothing is written here.
    offset: ClockOffset,
}

impl Server {
    /// The time: the server's if it is known.
    pub(super) fn now(&self) -> Timestamp {
        super::super::clock::measured(&self.offset, None)
    }

    /// What lies here of access that the server says is closed, each with its word; nothing where it does not say.
    pub(super) fn closed(&self, doctor: &Doctor<'_>) -> Vec<(Held, wire::Request)> {
        self.client.as_ref().map(|client| closed_by(doctor, client)).unwrap_or_default()
    }

    /// Whether [`Server::now`] is the server's.
    pub(super) fn is_time_known(&self) -> bool {
        self.offset.seconds().is_some()
    }
}

/// Asks the server who we are.
pub(super) fn look(doctor: &Doctor<'_>, checks: &mut Vec<Check>) -> Result<Server, Failure> {
    let Some(profile) = &doctor.profile else {
        let failure = Failure::not_logged_in(doctor.name())
            .because("there is no such profile yet")
            .replace_next(format!("hallpass login --profile {} --server URL --person NAME", doctor.name()));
        checks.push(Check::failed("server", &failure));
        return Ok(Server::default());
    };
    let session = profile::session(&doctor.places, profile)?;
    let mut server = Server::default();
    let (answer, took) = ask(doctor, profile, session.as_ref(), &server.offset)?;
    checks.push(reached(doctor, profile, &answer, took));
    checks.push(login(profile, session.as_ref(), &answer, server.now()));
    checks.push(clock(server.offset.seconds()));
    if let Answer::Me(client, me) = answer {
        checks.extend(doctor.context.block_on(async { Ok(service::sandbox(&client, &me).await) })?);
        server.client = Some(*client);
    }
    if doctor.args.net {
        checks.push(network(profile));
    }
    Ok(server)
}

/// The same as [`Server::closed`] before anything is looked at, for what is to be repaired.
pub(super) fn closed(doctor: &Doctor<'_>) -> Vec<(Held, wire::Request)> {
    let Some(profile) = &doctor.profile else { return Vec::new() };
    let session = profile::session(&doctor.places, profile).unwrap_or_default();
    let Some(session) = session else { return Vec::new() };
    let client = Client::new(profile.server.clone(), Some(session.token), doctor.context.call_timeout());
    client.map(|client| closed_by(doctor, &client)).unwrap_or_default()
}

fn closed_by(doctor: &Doctor<'_>, client: &Client) -> Vec<(Held, wire::Request)> {
    let held = doctor.local.all().unwrap_or_default();
    doctor.context.block_on(async { Ok(still::closed(doctor.context, client, held, &[]).await) }).unwrap_or_default()
}

/// What came back.
enum Answer {
    /// It knows us.
    Me(Box<Client>, Box<wire::WhoAmI>),
    /// It is there, and does not know us (any more).
    Stranger(Failure),
    /// It could not be reached, or is not ours.
    Nothing(Failure),
}

/// One call, and how many milliseconds it took.
fn ask(
    doctor: &Doctor<'_>,
    profile: &Profile,
    session: Option<&Session>,
    offset: &ClockOffset,
) -> Result<(Answer, u128), Failure> {
    let token = session.map(|session| session.token.clone());
    let client = match Client::new(profile.server.clone(), token, doctor.context.call_timeout()) {
        Ok(client) => client.noting(offset),
        Err(error) => return Ok((Answer::Nothing(error.into()), 0)),
    };
    let began = Instant::now();
    let outcome = doctor.context.block_on(async {
        if session.is_some() {
            return Ok(client.get::<wire::WhoAmI>("/v1/session").await.map(Some));
        }
        // Who is not logged in can still see whether it is there, and hallpass.
        Ok(client.post::<_, wire::Challenge>("/v1/login/challenge", &serde_json::json!({})).await.map(|_| None))
    })?;
    let took = began.elapsed().as_millis();
    let answer = match outcome {
        Ok(Some(me)) => Answer::Me(Box::new(client), Box::new(me)),
        Ok(None) => Answer::Stranger(Failure::not_logged_in(&profile.name)),
        Err(ClientError::Problem(problem)) if problem.status == 401 => {
            Answer::Stranger(ClientError::Problem(problem).into())
        }
        Err(error) => Answer::Nothing(error.into()),
    };
    Ok((answer, took))
}

fn reached(doctor: &Doctor<'_>, profile: &Profile, answer: &Answer, took: u128) -> Check {
    let url = &profile.server.url;
    if let Answer::Nothing(failure) = answer {
        let mut check = Check::failed("server", failure);
        if doctor.args.net {
            check.next.retain(|next| next != "hallpass doctor --net");
        }
        // What is held works without the server.
        let now = doctor.local.now();
        for held in doctor.local.all().unwrap_or_default().iter().filter(|held| held.is_live(now)).take(HELD_SHOWN_MAX)
        {
            let until = held.window().map_or_else(String::new, |window| render::until(&window.end().to_string(), now));
            let (hosts, account) = (held.request.hosts.join(", "), &held.request.account);
            check = check.because(format!("works without it: {hosts} as {account}, until {until}"));
        }
        return check;
    }
    let by = match (&profile.server.pin, url.starts_with("http://")) {
        (Some(_), _) => "recognised by its pinned certificate",
        (None, true) => "not encrypted, on this machine",
        (None, false) => "vouched for by a public authority",
    };
    Check::ok("server", format!("{url} answers, {by} ({took} ms)"))
}

fn login(profile: &Profile, session: Option<&Session>, answer: &Answer, now: Timestamp) -> Check {
    match (answer, session) {
        (Answer::Me(_, me), _) => {
            Check::ok("session", format!("you are {}, until {}", me.person, render::until(&me.expires, now)))
        }
        (Answer::Stranger(failure), Some(session)) => {
            let check = Check::failed("session", failure);
            check.because(format!("the last login was good until {}", local_text(&session.expires)))
        }
        (Answer::Stranger(failure), None) => Check::failed("session", failure),
        (Answer::Nothing(_), Some(session)) => Check::skipped(
            "session",
            format!("not asked; by its file it is good until {}", local_text(&session.expires)),
        ),
        (Answer::Nothing(_), None) => Check::failed("session", &Failure::not_logged_in(&profile.name)),
    }
}

/// HP-121: off, and measured; access goes by the server's clock and works all the same.
fn clock(ahead: Option<i64>) -> Check {
    let Some(ahead) = ahead else { return Check::skipped("clock", "not compared: no answer of the server's came") };
    let off = ahead.unsigned_abs();
    if off <= CLOCK_TOLERANCE_S {
        return Check::ok("clock", format!("your clock fits the server's (within {CLOCK_TOLERANCE_S} s)"));
    }
    let which = if ahead > 0 { "ahead" } else { "behind" };
    let set = if cfg!(target_os = "macos") { "sudo sntp -sS time.apple.com" } else { "sudo timedatectl set-ntp true" };
    Check::warn("clock", format!("your clock is {} {which}", amount(off)))
        .coded("HP-121")
        .because("access goes by the clocks of server and hosts, and works; other programs may not")
        .next(set)
        .next("hallpass doctor")
}

/// Seconds to the second: `6 min 10 s`.
fn amount(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, 0) => format!("{min} min"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

/// `--net`: the way to the server, step by step. Nobody else is contacted.
fn network(profile: &Profile) -> Check {
    let (target, through) = match &profile.server.proxy {
        Some(proxy) => (place(proxy, 80), " (the proxy of HTTPS_PROXY)"),
        None => (place(&profile.server.url, 443), ""),
    };
    let Some((name, port)) = target else {
        return Check::skipped("net", "the server's address names no host and port");
    };
    let addresses: Vec<_> = match (name.as_str(), port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(e) => {
            return Check::bad("net", "HP-101", format!("the name {name:?}{through} does not resolve"))
                .because(e.to_string())
                .because(route())
                .next(format!("getent hosts {name}"));
        }
    };
    let mut tried = Vec::new();
    for address in &addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(_) => return Check::ok("net", format!("{name}{through} resolves, and {address} takes connections")),
            Err(e) => tried.push(format!("{address}: {e}")),
        }
    }
    let mut check = Check::bad("net", "HP-101", format!("{name}{through} resolves, and takes no connection"));
    check.why = tried;
    check.because(route()).next("ask whoever runs the service, or look after VPN and firewall")
}

/// Host and port of a URL; its name and password are not ours to show.
fn place(url: &str, default: u16) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let default = if scheme == "http" { 80 } else { default };
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (authority, default),
    };
    let name = name.trim_matches(['[', ']']);
    if name.is_empty() { None } else { Some((name.to_owned(), port)) }
}

/// Whether this machine has a way out at all, as far as the system tells (Linux).
fn route() -> String {
    let has = |path: &str, is_default: fn(&str) -> bool| {
        std::fs::read_to_string(path).is_ok_and(|routes| routes.lines().any(is_default))
    };
    let is_default_4 = |line: &str| line.split_whitespace().nth(1) == Some("00000000");
    let is_default_6 = |line: &str| line.starts_with("00000000000000000000000000000000 00 ") && !line.ends_with("lo");
    match has("/proc/net/route", is_default_4) || has("/proc/net/ipv6_route", is_default_6) {
        true => "this machine has a default route".to_owned(),
        false => "this machine has no default route: it may be off the network".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_by_more_than_half_a_minute_and_the_direction_is_said() {
        assert_eq!((clock(None).code, clock(Some(30)).code, clock(Some(-30)).code), (None, None, None));
        assert_eq!(clock(Some(370)).what, "your clock is 6 min 10 s ahead");
        assert_eq!(clock(Some(-31)).what, "your clock is 31 s behind");
        assert_eq!(clock(Some(7_260)).code.as_deref(), Some("HP-121"));
        assert_eq!((amount(600), amount(7_260)), ("10 min".to_owned(), "2 h 1 min".to_owned()));
    }

    #[test]
    fn host_and_port_are_read_off_a_url_and_nothing_else() {
        let of = |url| place(url, 443).map(|(name, port)| format!("{name} {port}"));
        assert_eq!(of("https://h.example:7722").as_deref(), Some("h.example 7722"));
        assert_eq!(of("https://h.example/").as_deref(), Some("h.example 443"));
        assert_eq!(of("http://ann:secret@proxy:3128/").as_deref(), Some("proxy 3128"));
        assert_eq!(of("https://[::1]:1").as_deref(), Some("::1 1"));
        assert_eq!(of("https://[::1]").as_deref(), Some("::1 443"));
        assert_eq!(of("https://"), None);
    }
}
