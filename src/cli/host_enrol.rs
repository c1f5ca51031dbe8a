//! `hallpass host enrol|leave`: shows what is to be done to this host, asks once, does it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::failure::{Exit, Failure};
use super::host::own_program;
use super::host_run::session_lines;
use super::{Context, login, output, profile};
use crate::client::{ClientError, Server};
use crate::enrolment::enrol::{self, Done, Prepared, Request, Stop};
use crate::enrolment::leave::{self, Gone};
use crate::enrolment::link::{is_unknown, way_out};
use crate::enrolment::places;
use crate::enrolment::program;
use crate::enrolment::service_file::{ServiceFile, parse_command};
use crate::host::program::Program;
use crate::host::settings::{self, Settings};
use crate::name::{HostName, TagKey, TagValue};
use crate::note::NoteVerifier;
use crate::secret;

pub(super) const ENROL_HELP: &str = "\
Makes this host accept certificates by hallpass for itself and nothing else, and end sessions with
their windows. Prints what it will do, asks once, does it, lets sshd read it, logs in to itself
over loopback, and takes everything back if any of that fails.

  sudo hallpass host enrol --server https://hallpass.example.com --token-file /root/join --dry-run
  sudo hallpass host enrol --server https://hallpass.example.com --token-file /root/join

An operator makes the join token: hallpass admin join create. Enrolling again (after a change of
sshd's configuration, or to get host certificates) needs no token and no --server. After a first
time that was taken back it needs --server, and no token: the service knows the host by its key.";

pub(super) const LEAVE_HELP: &str = "\
Brings back every file as it was before the host was enrolled (one that was edited since loses only
our lines), removes what was made, lets sshd read it, and tells the service. Works without the
service, too: then say `hallpass admin host retire NAME --reason TEXT` there.";

/// What to type once the service's pin is known.
const AGAIN: &str = "sudo hallpass host enrol --server URL --pin PIN --token-file FILE";

/// The longest join token file: a token has 47 characters.
const TOKEN_BYTES_MAX: usize = 1024;

/// Arguments of `hallpass host enrol`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct EnrolArgs {
    /// File with the join token; - is standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The server's certificate: SHA-256 in hex, as `hallpass serve` prints it
    #[arg(long, value_name = "SHA256", value_parser = login::parse_pin)]
    pin: Option<String>,
    /// The service's log key, as an operator's `hallpass audit show 0` has it; else the one that it names now
    #[arg(long, value_name = "KEY", value_parser = NoteVerifier::parse)]
    log_key: Option<NoteVerifier>,
    /// What the host is called; else its host name
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    name: Option<HostName>,
    /// A tag, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    tag: Vec<(TagKey, TagValue)>,
    /// A further name of the host's certificate; may be repeated
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    principal: Vec<HostName>,
    /// Leave PAM alone: open sessions then live on after their window
    #[arg(long)]
    no_guard: bool,
    /// Take the place of another CA that sshd trusts
    #[arg(long)]
    replace: bool,
    /// How sshd is told to read its configuration, for `sh -c`; else systemctl, or SIGHUP
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    reload_command: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `hallpass host leave`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LeaveArgs {
    /// How sshd is told to read its configuration, for `sh -c`; else systemctl, or SIGHUP
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    reload_command: Option<String>,
    /// Print what would be taken back, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn parse_tag(text: &str) -> Result<(TagKey, TagValue), String> {
    let (key, value) = text.split_once('=').ok_or("a tag is KEY=VALUE, such as role=web")?;
    Ok((TagKey::parse(key).map_err(|e| e.to_string())?, TagValue::parse(value).map_err(|e| e.to_string())?))
}

/// `hallpass host enrol`.
///
/// # Errors
/// What is in the way, or what went wrong and was taken back.
pub(crate) fn enrol(context: &Context, args: &EnrolArgs) -> Result<(), Failure> {
    super::serve::arm_fail_point();
    need_root("enrol")?;
    let token = args.token_file.as_deref().map(token).transpose()?;
    let has_token = token.is_some();
    context.block_on(async {
        let request = request(context, args, token).await?;
        let server = request.server.clone();
        let failed = |stop| on_host(stopped(stop, "enrol"), &server);
        let prepared = enrol::prepare(request, args.dry_run).await.map_err(failed)?;
        show(context, &prepared);
        if args.dry_run {
            return dry(context, &prepared);
        }
        if !context.globals.yes && !output::confirm("do this?", context.globals.no_input, "--yes")? {
            return Err(Failure::new(Exit::Refused, "host", "not enrolled: nothing was changed"));
        }
        match prepared.carry_out().await {
            Ok(done) => tell(context, &done),
            Err(Stop::Service(error)) if !has_token && is_unknown(&error) => Err(needs_token()),
            Err(Stop::Service(error @ ClientError::Renamed { .. })) => Err(renamed(error, &server, args)),
            Err(stop) => Err(failed(stop)),
        }
    })
}

/// What whoever runs a host can do about a service that does not answer, or not as one: there is no login here, and nothing that is held.
fn on_host(failure: Failure, server: &Server) -> Failure {
    // Nothing secret is sent there, and a pinned certificate is one that curl knows nothing of.
    let (trust, url) = (if server.pin.is_some() { "-k " } else { "" }, output::word(Path::new(&server.url)));
    let look = format!("curl {trust}--max-time 10 {url}/healthz");
    match failure.code.as_str() {
        "HP-101" => failure.replace_next(look).next(
            "let this host out to there (firewall, DNS, HTTPS_PROXY: sudo drops it), or ask whoever runs the service",
        ),
        "HP-104" => failure.replace_next(look).next("if that is not hallpass: the right --server, or no proxy between"),
        _ => failure,
    }
}

/// How sshd is told, as it was said when this host was enrolled.
fn known_reload() -> Option<String> {
    ServiceFile::load(Path::new(places::SERVICE_TOML)).ok()?.reload
}

/// `hallpass host leave`.
///
/// # Errors
/// What could not be taken back.
pub(crate) fn leave(context: &Context, args: &LeaveArgs) -> Result<(), Failure> {
    super::serve::arm_fail_point();
    need_root("leave")?;
    context.block_on(async {
        let leaving =
            leave::prepare(args.reload_command.clone().or_else(known_reload)).map_err(|stop| stopped(stop, "leave"))?;
        let Some(leaving) = leaving else {
            return Err(Failure::new(Exit::NotReady, "host", "this host is not enrolled").next("hallpass host check"));
        };
        let files = leaving.files();
        context.out.note(&format!("these files come back as they were, or go:\n  {}", files.join("\n  ")));
        let open = session_lines(context);
        if !open.is_empty() {
            context.out.note(&format!("{}:\n  {}", open_still(open.len(), "stay"), open.join("\n  ")));
        }
        let document = |left: bool, told: bool, open: usize| {
            json!({
                "schema": "hallpass.host-leave.v1", "dry_run": args.dry_run, "files": files, "left": left, "told": told,
                "open_sessions": open,
            })
        };
        if args.dry_run {
            return context.out.answer(&document(false, false, open.len()), "nothing was changed (--dry-run)");
        }
        if !context.globals.yes && !output::confirm("leave?", context.globals.no_input, "--yes")? {
            return Err(Failure::new(Exit::Refused, "host", "not left: nothing was changed"));
        }
        let Gone { name, told } = leaving.carry_out().await.map_err(|stop| stopped(stop, "leave"))?;
        let name = name.as_deref();
        if let Err(why) = &told {
            let there = match name {
                Some(name) => format!("there: hallpass admin host retire {name} --reason TEXT"),
                None => "if it still lists this host (hallpass admin host ls), retire it there".to_owned(),
            };
            context.out.note(&format!("the service was not told ({why}); {there}"));
        }
        let open = session_lines(context);
        if !open.is_empty() {
            let open = open_still(open.len(), "are");
            context
                .out
                .note(&format!("{open}: hallpass host sessions shows them, and --end REQUEST ends those of one"));
        }
        let name = name.unwrap_or("this host");
        let text = format!("{name} has left: everything is as it was before it was enrolled");
        context.out.answer(&document(true, told.is_ok(), open.len()), &text)
    })
}

/// That sessions outlive what made them, until their windows end.
fn open_still(count: usize, verb: &str) -> String {
    format!(
        "{count} session(s) by certificate {verb} open, each until its window ends, and the service can't end them any more"
    )
}

/// The service goes by another URL.
fn renamed(error: ClientError, server: &Server, args: &EnrolArgs) -> Failure {
    let next = way_out(&error, server).map(|next| match &args.token_file {
        Some(path) => format!("{next} --token-file {}", path.display()),
        None => next,
    });
    let failure = Failure::from(error).because("nothing was changed on this host");
    next.into_iter().fold(failure, Failure::next)
}

fn needs_token() -> Failure {
    Failure::usage("the service does not know this host by its name and host key, so it needs a join token")
        .because("an operator makes one with `hallpass admin join create`")
        .because("nothing was changed on this host")
        .next("hallpass host enrol --server URL --token-file FILE")
}

fn need_root(command: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::NotReady, "host", "this changes sshd's configuration, so it must be run as root")
        .next(format!("sudo hallpass host {command}")))
}

/// The token, from a file that only root can read, or from standard input.
fn token(path: &Path) -> Result<SecretString, Failure> {
    let text = if path == Path::new("-") {
        let mut text = zeroize::Zeroizing::new(String::new());
        let most = u64::try_from(TOKEN_BYTES_MAX).unwrap_or(u64::MAX);
        let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
        read.map_err(|error| Failure::failed("cannot read the join token").because(error.to_string()))?;
        text
    } else {
        let bytes = secret::read(path, TOKEN_BYTES_MAX);
        let bytes = bytes.map_err(|why| {
            Failure::new(
                Exit::NotReady,
                "host",
                format!("cannot read the join token in {:?}", path.display().to_string()),
            )
            .because(why)
        })?;
        zeroize::Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())
    };
    let token = text.trim();
    if token.starts_with("hpj_") && token.len() < 100 {
        return Ok(SecretString::from(token));
    }
    Err(Failure::usage("that is no join token: one begins with hpj_").next("hallpass admin join create"))
}

/// What is asked for, filled up from what the host was enrolled with before.
async fn request(context: &Context, args: &EnrolArgs, token: Option<SecretString>) -> Result<Request, Failure> {
    let known = ServiceFile::load(Path::new(places::SERVICE_TOML)).ok();
    let before = Settings::load(Path::new(settings::PATH)).ok();
    let url = context.globals.server.as_deref().map(profile::normal_url);
    // A certificate is a URL's; whose log this host goes by, and how its sshd is told, is not: whoever answers elsewhere must be the same service.
    let same = known.as_ref().filter(|known| url.as_ref().is_none_or(|url| *url == known.server.url));
    let known_pin = same.and_then(|known| known.server.pin.clone());
    let Some(url) = url.or_else(|| known.as_ref().map(|known| known.server.url.clone())) else {
        return Err(
            Failure::usage("which server?").next("hallpass host enrol --server https://HOST:PORT --token-file FILE")
        );
    };
    let server = Server { url, pin: args.pin.clone().or(known_pin), proxy: profile::proxy() };
    let server = if args.dry_run {
        server
    } else {
        let recognised = login::recognise(context, server.clone(), AGAIN).await;
        recognised.map_err(|failure| on_host(failure.because("nothing was changed on this host"), &server))?
    };
    let tags: BTreeMap<_, _> = args.tag.iter().cloned().collect();
    let had = before.as_ref().map(|before| before.tags.clone()).unwrap_or_default();
    Ok(Request {
        server,
        token,
        reload: args.reload_command.clone().or_else(|| known.as_ref()?.reload.clone()),
        log_key: args.log_key.clone().or_else(|| known.map(|known| known.log_key)),
        name: name(args, before.as_ref())?,
        named: before.map(|before| before.name),
        tags: tags.into_iter().collect(),
        had: had.into_iter().collect(),
        names: args.principal.clone(),
        has_guard: !args.no_guard,
        may_replace: args.replace,
        program: chosen(context).await?,
    })
}

/// The program that the host will run; what may surprise about that is said.
async fn chosen(context: &Context) -> Result<Program, Failure> {
    let (program, surprise) = program::choose(own_program(context)?).await;
    if let Some(why) = surprise {
        context.out.note(&format!("note: this host will run {}: {why}", program.path().display()));
    }
    Ok(program)
}

/// The flag, else the name that it has, else what the machine is called.
fn name(args: &EnrolArgs, before: Option<&Settings>) -> Result<HostName, Failure> {
    if let Some(name) = args.name.clone().or_else(|| before.map(|before| before.name.clone())) {
        return Ok(name);
    }
    let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    HostName::parse(&machine).map_err(|error| Failure::usage(error.to_string()).next("--name NAME"))
}

/// What will be done, for people.
fn show(context: &Context, prepared: &Prepared) {
    if prepared.recovered {
        context.out.note("an earlier enrolment was cut short; it was taken back first");
    }
    let mut text = String::from("this will be done to this host:\n");
    for account in prepared.accounts() {
        text.push_str(&format!("\nmake the system account {account}, without shell, home and password\n"));
    }
    for file in prepared.files() {
        let change = file.diff.unwrap_or_else(|| "+(what the service says)\n".to_owned());
        text.push_str(&format!("\n{}\n{change}", file.path));
    }
    let keys: Vec<&str> = prepared.host_keys().collect();
    text.push_str(&format!(
        "\nthe service learns the public halves of {}; if it certifies them, a HostCertificate line for each comes in\n\
         let sshd read all this, and log in to itself over loopback\n",
        keys.join(", ")
    ));
    if prepared.has_unit() {
        text.push_str("start hallpass-host.service, now and at each start of the machine\n");
    }
    context.out.note(text.trim_end());
    for risk in prepared.risks() {
        context.out.note(&format!("note: {}", risk.text));
    }
}

fn dry(context: &Context, prepared: &Prepared) -> Result<(), Failure> {
    let files: Vec<_> =
        prepared.files().into_iter().map(|file| json!({ "path": file.path, "diff": file.diff })).collect();
    let risks: Vec<_> = prepared.risks().iter().map(|risk| json!({ "risk": risk.word, "text": risk.text })).collect();
    let document = json!({
        "schema": "hallpass.host-plan.v1", "accounts": prepared.accounts(), "files": files, "risks": risks,
        "unit": prepared.has_unit(),
    });
    context.out.answer(&document, "nothing was changed (--dry-run)")
}

fn tell(context: &Context, done: &Done) -> Result<(), Failure> {
    for note in &done.notes {
        context.out.note(&format!("note: {note}"));
    }
    if !done.has_daemon {
        let run = context.program.words("hallpass host run");
        context.out.note(&format!("there is no systemd here: have `{run}` run all the time, as root"));
    }
    let document = json!({
        "schema": "hallpass.host-enrol.v1", "host": done.state.name, "tags": done.state.tags,
        "bundle": done.state.bundle.version, "proven": done.proven, "certificates": done.certificates,
        "daemon": done.has_daemon, "notes": done.notes,
    });
    let text = format!("{} is enrolled: it has logged in to itself with a certificate", done.state.name);
    context.out.answer(&document, &text)
}

fn stopped(stop: Stop, command: &str) -> Failure {
    match stop {
        Stop::Obstacles(all) => {
            let mut failure =
                Failure::new(Exit::NotReady, "host", "this host cannot be enrolled as it is; nothing was changed");
            for obstacle in all {
                failure = failure.because(obstacle.what).next(obstacle.next);
            }
            failure
        }
        Stop::Unable(why) => Failure::new(Exit::NotReady, "host", "nothing was changed").because(why),
        Stop::Service(error) => {
            let is_other = matches!(error, ClientError::Pin { .. });
            let failure = Failure::from(error).because("nothing was changed on this host");
            if is_other {
                failure.replace_next(format!("do not go on; ask whoever runs the service for the pin, then: {AGAIN}"))
            } else {
                failure
            }
        }
        Stop::OtherLog(why) => {
            let again = "sudo hallpass host leave, then the same command again";
            Failure::new(Exit::NotReady, "host", "nothing was changed on this host")
                .because(format!("the service's trust bundle can't be believed: {why}"))
                .because("the log key that signs it is the one in /etc/hallpass/host-service.toml, or of --log-key")
                .next(format!("if whoever runs the service says that it has begun a new log: {again}"))
        }
        Stop::OlderService(why) => Failure::new(Exit::NotReady, "host", "nothing was changed on this host")
            .because(format!("the service is older than this program: {why}"))
            .because("if a join token was given, the service knows the host by its host key now")
            .next("update the service (all nodes), then: sudo hallpass host enrol --server URL, without a token"),
        Stop::OtherBundle { why, is_enrolled } => {
            // Without an enrolment nothing can be left, and the service knows the key by now.
            let again = if is_enrolled {
                "sudo hallpass host leave, then the same command again with a new join token".to_owned()
            } else {
                let had = output::word(&enrol::had_path());
                format!("sudo rm -f {had}, then sudo hallpass host enrol --server URL, without a token")
            };
            Failure::new(Exit::NotReady, "host", "nothing was changed on this host")
                .because(format!("the service's trust bundle is refused: {why}"))
                .next(format!("do not go on before whoever runs the service says that this is right; then: {again}"))
        }
        Stop::TakenBack { why, left } if left.is_empty() => {
            // Only after the service has said yes: it keeps the host, which has a key to show for itself.
            Failure::new(Exit::NotReady, "host", "it did not hold, and everything was taken back on this host")
                .because(why)
                .because("the service knows the host by its host key from now on: the join token is not needed again")
                .next("once that is mended: sudo hallpass host enrol --server URL, without a token")
                .next("or, to take it out of the service, an operator: hallpass admin host retire NAME --reason TEXT")
        }
        Stop::TakenBack { why, left } => {
            let failure =
                Failure::new(Exit::NotReady, "host", "it did not hold, and not everything could be taken back");
            let failure = left.into_iter().fold(failure.because(why), Failure::because);
            failure.next(format!("once that is mended: sudo hallpass host {command}, which goes on taking it back"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_bundle_that_is_refused_can_be_done() {
        let next = |stop| stopped(stop, "enrol").next.join("\n");
        let older = next(Stop::OlderService("x".to_owned()));
        assert!(older.contains("update the service (all nodes)") && older.contains("without a token"), "{older}");
        assert!(!older.contains("leave"), "{older}");
        let other = |is_enrolled| next(Stop::OtherBundle { why: "x".to_owned(), is_enrolled });
        assert!(other(true).contains("host leave") && other(true).contains("new join token"));
        assert!(!other(false).contains("leave") && other(false).contains("without a token"));
    }
}
