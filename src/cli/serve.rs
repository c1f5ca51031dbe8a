//! `hallpass serve`: the composition root of the server. Builds each part from its settings, runs, shuts down.
//!
//! Order: settings, port, TLS, sandbox, CA key, log key, store, service; so everything that an operator can have got wrong is found before anything
//! is written, and a taken port before the log hears of a start.
//! SIGHUP reads the TLS files and the policy file again, each on its own: a broken one keeps what is in force. SIGTERM and SIGINT drain.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::background::Background;
use super::config_file::{self, Reader};
use super::failure::{Exit, Failure};
use super::{Context, process, profile, sandbox};
use crate::audit::checkpoint::{LogKey, usual_origin};
use crate::config::{Config, Logging};
use crate::durable;
use crate::identity::{Actor, Part};
use crate::notify;
use crate::sandbox::Sandbox;
use crate::secret;
use crate::service::policy::{LastRead, Reloaded};
use crate::service::{FirstPolicy, NamedCa, Parts, Service, SystemRandom};
use crate::signer::{self, SignError, Signer};
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::head_file::{HeadFile, KeptHead as _};
use crate::store::{self, SEAL_PURPOSE, Store};
use crate::time::{Clock as _, SystemClock};

/// How often requests lapse and expire.
const TICK: Duration = Duration::from_secs(1);

/// How long work on other threads (a signer that hangs) may hold up the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long keeping the last checkpoint may take. With ten seconds to drain and [`FAREWELL`] that is less than the unit waits before it kills (20 s).
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest log key file: 32 bytes in base64, and room for line ends.
const LOG_KEY_BYTES_MAX: usize = 1024;

/// Arguments of `hallpass serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Write the address (and the pin) into this file once connections are accepted
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// Start although the clock is more than 400 days after the log's last entry
    #[arg(long)]
    accept_clock: bool,

    /// Start although this CA key, which signs from now on, is not known to be trusted: hosts or clients may be locked out for a while
    #[arg(long, value_name = "KEY", value_parser = Fingerprint::parse)]
    accept_ca: Option<Fingerprint>,
}

/// The listening server, before its service is started.
struct Door {
    listener: TcpListener,
    address: SocketAddr,
    pin: Option<String>,
}

/// `hallpass serve`.
pub(crate) fn run(context: &Context, args: &ServeArgs) -> Result<(), Failure> {
    process::keep_to_ourselves()
        .map_err(|error| Failure::failed("cannot keep what is in memory to ourselves").because(error.to_string()))?;
    arm_fail_point();
    let config = config_file::read(context, Reader::Service)?;
    // What root made here, the service could not read.
    config_file::check_user(context, &config, Reader::Service)?;
    start_logging(&config.logging)?;
    let is_json = config.logging.json;
    run_logged(context, args, config).map_err(|failure| if is_json { logged(failure) } else { failure })
}

/// The same, once there is a log.
fn run_logged(context: &Context, args: &ServeArgs, mut config: Config) -> Result<(), Failure> {
    process::limit_connections(&mut config.http);
    let door = open_door(&mut config)?;
    // Looked up here: the runtime, which asks the same, starts where control groups can't be read.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    if let store::Settings::Sqlite(file) = &config.store {
        check_folder_of(&config, &file.path)?;
    }
    // Before any other thread: what runs beside us would not be in it. The ground it stands on is held until the end.
    let fence = sandbox::enter(&config, args.ready_file.as_deref())?;
    config.http.sandbox = fence.standing();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors)
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("cannot start the asynchronous runtime").because(e.to_string()))?;
    let served = runtime.block_on(serve(context, args, config, door, &fence));
    // Dropping the runtime would wait for a signer that hangs.
    runtime.shutdown_timeout(FAREWELL);
    served
}

/// Binds the port and makes sure of the certificate. A public URL with port 0 gets the real port (tests and the demo listen on port 0).
fn open_door(config: &mut Config) -> Result<Door, Failure> {
    let wanted = config.http.listen;
    let refused = |e: std::io::Error| {
        Failure::failed(format!("cannot listen on {wanted}"))
            .because(e.to_string())
            .next("change `listen` in the configuration, or stop what holds the port")
    };
    let listener = TcpListener::bind(wanted).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    if let Some(base) = config.service.public_url.strip_suffix(":0") {
        config.service.public_url = format!("{base}:{}", address.port());
    }
    let pin = if config.self_signed {
        for file in [&config.http.tls.certificate, &config.http.tls.key] {
            make_folder_of(file)?;
        }
        let made = crate::http::ensure_certificate(&config.http.tls, &config.tls_names);
        Some(made.map_err(|why| Failure::failed("cannot make the server's certificate").because(why))?)
    } else {
        None
    };
    Ok(Door { listener, address, pin })
}

async fn serve(
    context: &Context,
    args: &ServeArgs,
    config: Config,
    door: Door,
    fence: &Sandbox,
) -> Result<(), Failure> {
    // Caught before anything slow: a stop that comes during the start is kept, not lost.
    let signals = Signals::new()?;
    let (service, last) = start(context, &config, args).await?;
    sandbox::tell(config.sandbox.mode, fence);
    sandbox::attempt().await;
    let public_url = &config.service.public_url;
    let tell = |text: &str| if config.logging.json { tracing::info!("{text}") } else { context.out.note(text) };
    tell(&format!("hallpass {} listens on {} as {public_url}", env!("CARGO_PKG_VERSION"), door.address));
    if let Some(pin) = &door.pin {
        tell(&format!(
            "its certificate is its own; clients log in with\n  hallpass login --server {public_url} --pin {pin} --person NAME"
        ));
    }
    if let Some(file) = &args.ready_file {
        // The address, and the pin if the certificate is our own.
        let line =
            [Some(door.address.to_string()), door.pin.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let line = format!("{line}\n");
        durable::replace(file, line.as_bytes(), 0o644).map_err(|e| Failure::file("write", file, &e))?;
    }
    let manager = profile::env("NOTIFY_SOCKET");
    let (reload, reloads) = mpsc::channel(1);
    let mut parts = Background::default();
    parts.start("what lapses and expires requests", tick(Arc::clone(&service)));
    parts.start("what follows other nodes", follow(Arc::clone(&service)));
    let hangups = on_hangup(Arc::clone(&service), config.policy_path.clone(), last, reload, signals.hangup);
    parts.start("what reads files again at SIGHUP", hangups);
    let ended = Mutex::new(None);
    let stop = async {
        tokio::select! {
            () = stopped(signals.terminate, signals.interrupt) => {}
            why = parts.ended() => *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(why),
        }
        // From here on open calls are drained.
        notify::tell(manager.as_deref(), "STOPPING=1");
    };
    // Said now and not when somebody asks.
    let looks = tokio::spawn({
        let service = Arc::clone(&service);
        async move {
            if let Err(why) = service.check_issuing().await {
                tracing::error!(%why, "nothing can be issued yet; /readyz tells when it can");
            }
        }
    });
    // The port is open since before the start; whoever came early is served now.
    notify::tell(manager.as_deref(), "READY=1");
    let served = crate::http::serve(Arc::clone(&service), config.http, door.listener, reloads, stop).await;
    looks.abort();
    drop(parts);
    if tokio::time::timeout(FINISH_TIMEOUT, service.finish()).await.is_err() {
        tracing::error!("cannot keep the log's last checkpoint: the store does not answer");
    }
    if let Some(why) = ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(Failure::failed("the server stopped").because(why).next("start it again"));
    }
    served.map_err(|why| Failure::failed("the server stopped").because(why))?;
    tell("stopped");
    Ok(())
}

/// Opens keys and store, and starts the service on them; also says what the policy file held.
async fn start(context: &Context, config: &Config, args: &ServeArgs) -> Result<(Arc<Service>, LastRead), Failure> {
    let trusted = listed(&config.trusted_cas)?;
    let ca_key = |ca: &signer::Settings, purpose| ca_key(config, ca, purpose);
    let signer = ca_key(&config.user_ca, Purpose::User)?;
    let further =
        |cas: &[signer::Settings], purpose| cas.iter().map(|ca| ca_key(ca, purpose)).collect::<Result<Vec<_>, _>>();
    let (next, host_next) = (further(&config.next_cas, Purpose::User)?, further(&config.host_next_cas, Purpose::Host)?);
    let mut named = BTreeMap::new();
    for (name, ca) in &config.named_cas {
        let (signer, next) = (ca_key(&ca.key, Purpose::User)?, further(&ca.next, Purpose::User)?);
        named.insert(name.clone(), NamedCa { signer, next, trusted: listed(&ca.trusted)? });
    }
    let host_signer = config.host_ca.as_ref().map(|ca| ca_key(ca, Purpose::Host)).transpose()?;
    let origin = config.log_origin.clone().unwrap_or_else(|| usual_origin(&config.service.public_url));
    let log_key = log_key(config, &origin)?;
    check_there(context, config)?;
    let store = store::open(&config.store, log_key.derive(SEAL_PURPOSE)).await.map_err(|e| {
        Failure::failed(format!("cannot open the database {:?}", config.store.shown())).because(e.to_string())
    })?;
    if !args.accept_clock {
        check_rest(context, store.as_ref()).await?;
    }
    let parts = Parts {
        store,
        kept_head: Arc::new(HeadFile::new(config.log_head_path.clone())),
        signer,
        next,
        host_signer,
        host_next,
        trusted,
        named,
        accepted_ca: args.accept_ca,
        log_key,
        clock: Arc::new(SystemClock),
        random: Box::new(SystemRandom),
        settings: config.service.clone(),
    };
    let first = first_policy(&config.policy_path)?;
    let last = first.as_ref().map(|first| LastRead::of(&first.text)).unwrap_or_default();
    let service = Service::start(parts, first).await.map_err(|e| start_failure(context, &e, &config.policy_path))?;
    Ok((service, last))
}

/// Makes no new database where a kept checkpoint says that there was one: an empty one in its place would only be in the way of a copy.
fn check_there(context: &Context, config: &Config) -> Result<(), Failure> {
    let store::Settings::Sqlite(file) = &config.store else { return Ok(()) };
    let failed = || Failure::failed("cannot start the service");
    match std::fs::metadata(&file.path) {
        Ok(found) if found.len() > 0 => return Ok(()),
        Err(why) if why.kind() != ErrorKind::NotFound => {
            return Err(Failure::file("look for database", &file.path, &why));
        }
        Ok(_) | Err(_) => {}
    }
    let kept = HeadFile::new(config.log_head_path.clone());
    if kept.read().map_err(|why| failed().because(format!("{}: {why}", kept.place())))?.is_empty() {
        return Ok(());
    }
    let (path, head) = (file.path.display().to_string(), kept.place());
    Err(failed()
        .because(format!("there is no database {path:?}, or it is empty, and {head:?} is there, which a service writes when it has one"))
        .next(format!(
            "put it back, or the newest copy of it: {}",
            config_file::command(context, "hallpass admin backup restore FOLDER")
        ))
        .next(format!("if a new log is to begin, under a log key of its own: move {head} away")))
}

/// The keys in these files.
fn listed(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    let key = |path: &PathBuf| signer::public_key(path).map_err(|error| Failure::failed(error.to_string()));
    paths.iter().map(key).collect()
}

/// Opens a CA key.
fn ca_key(config: &Config, settings: &signer::Settings, purpose: Purpose) -> Result<Arc<dyn Signer>, Failure> {
    let signer = signer::open(settings, purpose, config.service.sign_timeout).map_err(|error| {
        let failure = Failure::failed(error.to_string());
        match (&error, settings) {
            // Not to be tried again by a supervisor: the unit does not restart after this code.
            (SignError::Pin { .. }, _) => Failure::new(Exit::Usage, "pin", error.to_string())
                .because("a wrong PIN is tried once for each start, since tokens lock themselves: mend its file first"),
            (_, signer::Settings::File(file)) if is_gone(&file.path) => {
                config_file::absent(failure, config, "docs/ca-keys.md, \"When a CA key is lost or stolen\"")
            }
            (_, signer::Settings::File(_)) => failure,
            (_, signer::Settings::Agent(_) | signer::Settings::Pkcs11(_)) => {
                failure.because("docs/ca-keys.md says how to make and find one")
            }
        }
    })?;
    tracing::info!(%purpose, ca = %signer.public_key().fingerprint(), "CA key opened");
    Ok(signer)
}

/// A clock that is years ahead would put its time into the log, which nobody can take back.
async fn check_rest(context: &Context, store: &dyn Store) -> Result<(), Failure> {
    let failed = || Failure::failed("cannot start the service");
    let head = store.head().await.map_err(|e| failed().because(e.to_string()))?;
    if head.frontier.size() == 0 {
        return Ok(());
    }
    crate::service::clock::check_rest(head.at, SystemClock.now()).map_err(|why| {
        let anyway = config_file::command(context, "hallpass serve --accept-clock");
        failed().because(why).next(format!("set the clock; or, if it is right: {anyway}"))
    })
}

fn start_failure(context: &Context, error: &crate::service::Failure, policy: &Path) -> Failure {
    let failure = match error {
        crate::service::Failure::BadPolicy { .. } => {
            let shown = policy.display().to_string();
            Failure::failed(format!("{shown:?} is not a policy we can apply"))
                .next(format!("hallpass policy check {shown}"))
        }
        crate::service::Failure::Untrusted(why) => {
            let (table, rotate) = (why.ca.table(), super::ca::words(why.ca.purpose().word(), why.ca.named().as_ref()));
            let anyway = config_file::command(context, &format!("hallpass serve --accept-ca {}", why.new));
            Failure::failed("cannot start the service")
                .next(format!(
                    "put it back, the new one below [[{table}.next]], start, and: hallpass ca rotate {rotate} start"
                ))
                .next(format!("if it is lost, and people may be locked out: {anyway}"))
        }
        // Not to be tried again by a supervisor, like any other configuration that is wrong.
        crate::service::Failure::Invalid(_) => Failure::new(Exit::Usage, "config", "cannot start the service"),
        _ => Failure::failed("cannot start the service"),
    };
    reasons(error).into_iter().fold(failure, Failure::because)
}

/// Why it does not start, or does not take a policy.
fn reasons(error: &crate::service::Failure) -> Vec<String> {
    let crate::service::Failure::BadPolicy { problems, failed_tests } = error else { return vec![error.to_string()] };
    let failed =
        failed_tests.iter().filter_map(|t| t.failure.as_ref().map(|f| format!("{}: test {:?}: {f}", t.place, t.name)));
    problems.iter().map(ToString::to_string).chain(failed).collect()
}

/// The policy file; it is read at every start, but applied only when the store has no policy yet.
fn first_policy(path: &Path) -> Result<Option<FirstPolicy>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(FirstPolicy { text, file: path.display().to_string() })),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::file("read policy", path, &e)),
    }
}

/// The log key: ours alone, like the CA key.
pub(super) fn log_key(config: &Config, origin: &str) -> Result<LogKey, Failure> {
    let path = &config.log_key_path;
    let unusable = |why: String| {
        let failure = Failure::failed(format!("cannot use log key {:?}", path.display().to_string())).because(why);
        let is_file = secret::missing(path).is_none();
        if is_file && is_gone(path) {
            config_file::absent(failure, config, "docs/operations.md, \"The log key was lost or stolen\"")
        } else {
            failure
        }
    };
    let bytes = secret::read(path, LOG_KEY_BYTES_MAX).map_err(unusable)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| unusable(e.to_string()))?;
    LogKey::from_seed_text(origin, text).map_err(|e| unusable(e.to_string()))
}

/// Whether a file is not there, as before `hallpass init`: not one that we may not read.
fn is_gone(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// A database is made where there is none, but not its folder: the one that is meant is there since the set-up.
fn check_folder_of(config: &Config, database: &Path) -> Result<(), Failure> {
    let Some(folder) = database.parent() else { return Ok(()) };
    match std::fs::metadata(folder) {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == ErrorKind::NotFound => Err(Failure::file("open the database in", folder, &why)
            .because("an empty database in a new folder would begin a new log")
            .next(format!("if `path` in [store] is right: {}", config_file::install_folder(config, folder)))),
        Err(why) => Err(Failure::file("open the database in", folder, &why)),
    }
}

fn make_folder_of(file: &Path) -> Result<(), Failure> {
    let Some(folder) = file.parent() else { return Ok(()) };
    durable::create_folder(folder, 0o700).map_err(|e| Failure::file("make folder", folder, &e))
}

/// Lapses and expires what is due, every second; says so when the store is gone for good, which no waiting mends.
async fn tick(service: Arc<Service>) -> String {
    let mut seconds = tokio::time::interval(TICK);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        if !service.is_alive() {
            tracing::error!("a database thread has ended; stopping");
            return "a database thread ended; the service's own log says why".to_owned();
        }
        if let Err(error) = service.tick().await {
            tracing::error!(%error, "cannot lapse and expire requests; trying again");
        }
    }
}

/// Follows what other nodes write; where there can be none there is nothing to do.
async fn follow(service: Arc<Service>) -> String {
    service.follow().await;
    pending().await
}

/// Reads TLS files and policy file again at each SIGHUP.
async fn on_hangup(
    service: Arc<Service>,
    policy: PathBuf,
    mut last: LastRead,
    reload: mpsc::Sender<()>,
    mut hangup: Signal,
) -> String {
    while hangup.recv().await.is_some() {
        if reload.try_send(()).is_err() {
            tracing::warn!("a reload of the TLS files is under way already");
        }
        let shown = policy.display().to_string();
        let text = match std::fs::read_to_string(&policy) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, file = %shown, "cannot read the policy file; the policy in force stays");
                continue;
            }
        };
        match service.apply_policy_file(Actor::System(Part::Signal), text, &shown, &mut last).await {
            Ok(Reloaded::NotEdited) => tracing::info!("the policy file has not changed since it was last read"),
            Ok(Reloaded::Replaced { old, in_force }) => tracing::warn!(
                file = %shown, %old, %in_force,
                "the policy file holds a version that was replaced; it is not applied. To go back to it: hallpass policy apply"
            ),
            Ok(Reloaded::Applied(applied)) if applied.unchanged => {
                tracing::info!(version = %applied.version, "the policy file is what is in force");
            }
            Ok(Reloaded::Applied(applied)) => {
                applied.warnings.iter().for_each(|what| tracing::warn!(file = %shown, "the policy: {what}"));
                tracing::info!(version = %applied.version, changes = applied.changes.len(), "policy applied");
            }
            Err(error) => {
                let why = reasons(&error).join("; ");
                tracing::error!(%error, why, file = %shown, "the policy file is not applied; the policy in force stays");
            }
        }
    }
    pending().await
}

/// The signals a server acts on.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|e| Failure::failed("cannot catch signals").because(e.to_string()));
        Ok(Self {
            hangup: catch(SignalKind::hangup())?,
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }
}

async fn stopped(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The process's own log, on standard error. Without colour: it goes to a journal or a file.
fn start_logging(logging: &Logging) -> Result<(), Failure> {
    let wrong = |e: String| {
        Failure::new(Exit::Usage, "config", format!("{:?} is no log level or filter", logging.level)).because(e)
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&logging.level).map_err(|e| wrong(e.to_string()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let started = if logging.json { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|e| Failure::failed("cannot start logging").because(e.to_string()))
}

/// A failure as a line of the log, since whoever reads JSON takes no other; said as everywhere where the log says nothing of the kind.
fn logged(failure: Failure) -> Failure {
    if failure.what.is_empty() || !tracing::enabled!(tracing::Level::ERROR) {
        return failure;
    }
    let (why, next) = (failure.why.join("; "), failure.next.join("; "));
    tracing::error!(code = failure.code, why, next, "{}", failure.what);
    Failure::said(failure.exit)
}

/// Crash tests name the point at which this process dies.
#[cfg(feature = "failpoints")]
pub(super) fn arm_fail_point() {
    if let Some(point) = profile::env("HALLPASS_FAILPOINT") {
        crate::fail::arm(&point);
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) const fn arm_fail_point() {}
