//! `hallpass login`, `logout`: prove who we are with an SSH key, keep the session.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::{Exit, Failure};
use super::local::Local;
use super::profile::{self, LoginKey, Places, Profile, Session};
use super::{Context, keys, open, output, setup};
use crate::client::{ClientError, Server, is_plain_url};
use crate::identity::challenge::statement;
use crate::name::PersonName;
use crate::ssh::sig::LOGIN_NAMESPACE;
use crate::wire;

/// Arguments of `hallpass login`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server's certificate: SHA-256 in hex, as `hallpass serve` prints it
    #[arg(long, visible_alias = "fingerprint", value_name = "SHA256", value_parser = parse_pin)]
    pin: Option<String>,
    /// Who you are there, as the policy names you
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    person: Option<PersonName>,
    /// The key to log in with; else the agent's keys, then ~/.ssh/id_*
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Arguments of `hallpass logout`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LogoutArgs {
    /// End all of your sessions, on other machines too
    #[arg(long)]
    everywhere: bool,
}

/// 64 hex digits in either case, with or without colons and a leading `sha256:`.
pub(super) fn parse_pin(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let digits: String = text.strip_prefix("sha256:").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    let is_pin = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_pin { Ok(digits) } else { Err("a pin is 64 hex digits, as `hallpass serve` prints it".to_owned()) }
}

/// `hallpass login`.
pub(crate) fn login(context: &Context, args: &LoginArgs) -> Result<(), Failure> {
    let places = context.places()?;
    let name = &context.globals.profile;
    let known = profile::load(&places, name)?;
    let url = match (&context.globals.server, &known) {
        (Some(url), _) => profile::normal_url(url),
        (None, Some(known)) => known.server.url.clone(),
        (None, None) => {
            return Err(Failure::usage("which server?").next("hallpass login --server https://HOST:PORT --person NAME"));
        }
    };
    let known = known.filter(|k| k.server.url == url);
    let person = person(context, args, known.as_ref())?;
    let key = args.key.clone().or_else(|| known.as_ref().and_then(|k| k.key.clone()));
    let key = key.map(|k| std::path::absolute(&k).unwrap_or(k));
    let pin = args.pin.clone().or_else(|| known.as_ref().and_then(|k| k.server.pin.clone()));
    let server = Server { url, pin, proxy: profile::proxy() };
    let (server, session) = context.block_on(async {
        let server = recognise(context, server, "hallpass login --server URL --pin PIN").await?;
        let session = prove(context, &server, &person, key.as_deref()).await?;
        Ok((server, session))
    })?;
    let (ssh, session_key) = known.map(|known| (known.ssh, known.session_key)).unwrap_or_default();
    let profile = Profile { name: name.clone(), server, person: Some(person.to_string()), key, ssh, session_key };
    finish(context, &places, &profile, &session)?;
    // Completion and plain ssh should know the hosts of today; that it could not be told is no reason not to be logged in.
    let client = context.client(&places, &profile, context.call_timeout())?;
    let known: Result<wire::Hosts, Failure> = context.block_on(async { Ok(client.get("/v1/hosts").await?) });
    if let (Ok(known), Some(cache)) = (&known, context.cache()) {
        cache.keep_hosts(&known.hosts);
    }
    match context.block_on(setup::refresh(&places, &profile, &client)) {
        Ok(hosts) => hosts.said().iter().for_each(|said| context.out.note(said)),
        Err(failure) => {
            context.out.note(&format!("the hosts of `hallpass setup` are those of before: {}", failure.what));
        }
    }
    Ok(())
}

fn finish(context: &Context, places: &Places, profile: &Profile, session: &Session) -> Result<(), Failure> {
    profile::save(places, profile)?;
    profile::save_session(places, profile, session)?;
    let document = json!({
        "schema": "hallpass.login.v1", "profile": profile.name, "server": profile.server.url,
        "person": session.person, "expires": session.expires,
    });
    let until = output::local_text(&session.expires);
    let text = format!("you are {} at {} until {until}", session.person, profile.server.url);
    context.out.answer(&document, &text)
}

/// Who: the flag, else the profile, else we ask.
fn person(context: &Context, args: &LoginArgs, known: Option<&Profile>) -> Result<PersonName, Failure> {
    let text = match (&args.person, known.and_then(|k| k.person.clone())) {
        (Some(person), _) => return Ok(person.clone()),
        (None, Some(known)) => known,
        (None, None) => output::ask("your name there", context.globals.no_input, "--person NAME")?,
    };
    PersonName::parse(&text).map_err(|e| Failure::usage(e.to_string()))
}

/// The server with the pin it is to be recognised by: the known one, none if the web's roots vouch for it, else one that a person has
/// just compared. `again` is what to type once the pin is known.
pub(super) async fn recognise(context: &Context, server: Server, again: &str) -> Result<Server, Failure> {
    if server.pin.is_some() || server.url.starts_with("http://") {
        return Ok(server);
    }
    let by_roots = async {
        let client = context.anonymous(server.clone())?;
        client.text("/healthz").await
    };
    let Err(error) = by_roots.await else { return Ok(server) };
    if !matches!(error, ClientError::Unreachable { .. } | ClientError::Pin { .. } | ClientError::Setup { .. }) {
        return Ok(server);
    }
    let timeout = context.call_timeout();
    let Ok(pin) = crate::client::fetch_pin(&server.url, server.proxy.clone(), timeout).await else {
        return Err(error.into());
    };
    if context.globals.no_input || !output::is_interactive() {
        return Err(Failure::new(
            Exit::Usage,
            "HP-102",
            format!("{} shows a certificate that nobody vouches for", server.url),
        )
        .because("its SHA-256 must be compared with what `hallpass serve` printed, and nobody can be asked here")
        .next(format!("get the pin from whoever runs the service, then: {again}")));
    }
    context.out.note(&format!(
        "{} shows a certificate that no public authority vouches for. Its SHA-256 is\n  {pin}",
        server.url
    ));
    if !output::confirm("is this what `hallpass serve` printed?", false, "--pin PIN")? {
        return Err(Failure::new(Exit::Refused, "HP-102", "nothing was done: the server was not recognised"));
    }
    Ok(Server { pin: Some(pin), ..server })
}

/// Answers a fresh challenge with each candidate key until one is accepted.
async fn prove(
    context: &Context,
    server: &Server,
    person: &PersonName,
    key: Option<&std::path::Path>,
) -> Result<Session, Failure> {
    let client = context.anonymous(server.clone())?;
    let candidates = keys::candidates(key)?;
    let (mut tried, mut own_name) = (Vec::new(), None);
    for candidate in &candidates {
        let challenge: wire::Challenge = client.post("/v1/login/challenge", &json!({})).await?;
        // The statement names the server as *we* were told to call it: a server in the middle can't pass our answer on.
        let text = statement(&server.url, person, &challenge.challenge);
        let signed = match candidate.sign(LOGIN_NAMESPACE, &text, context.globals.no_input) {
            Ok(signed) => signed,
            Err(failure) if candidates.len() == 1 => return Err(failure),
            Err(failure) => {
                tried.push(format!("{}: {}", candidate.shown(), failure.why.join("; ")));
                continue;
            }
        };
        let answer = wire::LoginAnswer {
            person: person.to_string(),
            challenge: challenge.challenge,
            key: signed.key.to_openssh(),
            signature: signed.signature,
        };
        match client.post::<_, wire::NewSession>("/v1/login/ssh", &answer).await {
            Ok(new) => {
                let fingerprint = signed.key.fingerprint().to_string();
                let key = Some(LoginKey { fingerprint, file: candidate.file() });
                return Ok(Session { person: new.person, token: new.token.into(), expires: new.expires, key });
            }
            Err(ClientError::Problem(problem)) if problem.code == "login_refused" => {
                context.out.detail(&format!("not accepted: {}", candidate.shown()));
                tried.push(format!("{}: not accepted for {person}", candidate.shown()));
                if challenge.server != server.url {
                    tried.push(format!("the server calls itself {}, not {}", challenge.server, server.url));
                    own_name = Some(challenge.server);
                }
            }
            Err(other) => return Err(other.into()),
        }
    }
    let mut failure = Failure::new(Exit::Login, "login_refused", format!("none of your keys logs {person} in"));
    if candidates.is_empty() {
        failure = failure.because("no agent, and no key in ~/.ssh").next("hallpass login --key FILE");
    } else {
        failure.why = tried;
        failure = failure.next(match own_name.filter(|url| is_plain_url(url)) {
            // What was signed names another server, so that no key could have done it.
            Some(url) => {
                let pin = server.pin.as_ref().map(|pin| format!(" --pin {pin}")).unwrap_or_default();
                format!("hallpass login --server {url} --person {person}{pin}")
            }
            None => {
                "ask an operator to list your key in the policy, or: hallpass login --key FILE --person NAME".to_owned()
            }
        });
    }
    Err(failure)
}

/// `hallpass logout`.
pub(crate) fn logout(context: &Context, args: &LogoutArgs) -> Result<(), Failure> {
    let places = context.places()?;
    let profile = profile::need(&places, &context.globals)?;
    open::sweep(&Local::new(&places, &profile.name), 0);
    if profile::session(&places, &profile)?.is_some() {
        let client = context.client(&places, &profile, context.call_timeout())?;
        let path = if args.everywhere { "/v1/session?everywhere=true" } else { "/v1/session" };
        let ended = context.block_on(async { Ok(client.delete(path).await?) });
        match ended {
            Err(failure) if failure.exit != Exit::Login => {
                // The token is forgotten here in any case; the server forgets it by itself within 12 hours.
                profile::forget_session(&places, &profile)?;
                return Err(failure.because("the session is forgotten here, but the server could not be told"));
            }
            _ => profile::forget_session(&places, &profile)?,
        }
    } else if args.everywhere {
        return Err(Failure::not_logged_in(&profile.name));
    }
    let document = json!({ "schema": "hallpass.logout.v1", "profile": profile.name, "everywhere": args.everywhere });
    context.out.answer(&document, &format!("logged out of `{}`", profile.name))
}
