//! `hallpass ssh-prepare`: what plain `ssh HOST` runs before it reads the host's file (`ssh_config`).
//!
//! In this order: not a host of ours, or an ssh that only looks: nothing. A certificate with time left: nothing, silently, without the
//! network. A granted request: its certificate is fetched. Policy allows at once: asked and fetched. A decision is needed: a person at
//! a terminal is asked for the reason and waits; anybody else gets three lines and a quick end.
//!
//! Invariants: standard output is never written, standard error gets at most three lines unless a person waits; nothing hangs without
//! a person; one ssh at a time asks for a host, the others find what it got; whatever we return, ssh goes on with what there is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::caller::Caller;
use super::failure::{Exit, Failure};
use super::local::{Held, Local, Lock};
use super::output::Terminal;
use super::request::{Asked, Wish};
use super::still::QUICK;
use super::{Context, ended, output, profile, render, request, ssh, wait};
use crate::client::{Client, ClientError};
use crate::name::{Account, HostName, Target};
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;

/// How long it waits for another ssh that is just fetching the same certificate, and no less than for the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// For how long an ssh without a person believes another one that the server is away.
const AWAY_S: u64 = 3;

/// How often a person may improve a reason that policy does not take.
const TRIES: usize = 3;

/// Arguments of `hallpass ssh-prepare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The folder of keys and host files, as the fragment names it
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// ssh refuses to connect if this fails
    #[arg(long)]
    strict: bool,
}

/// What is done when access is missing and a person sits there (`HALLPASS_ON_MISSING`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnMissing {
    /// Ask for the reason, wait.
    Ask,
    /// Say what to type.
    Hint,
    /// Ask with the reason of the environment, don't wait.
    Request,
}

/// One ssh that wants in.
struct Wanted<'a> {
    context: &'a Context,
    local: Local,
    host: HostName,
    account: Option<Account>,
    on_missing: OnMissing,
    /// The terminal of the person who can be asked.
    person: Option<Terminal>,
}

/// `hallpass ssh-prepare`.
pub(crate) fn run(context: &Context, args: &PrepareArgs) -> Result<(), Failure> {
    let Some(caller) = Caller::find() else { return Ok(()) };
    let Ok(host) = HostName::parse(&caller.told.host) else { return Ok(()) };
    if !caller.told.connects {
        return Ok(());
    }
    profile::check_name(&context.globals.profile)?;
    let account = match caller.told.account.as_deref().map(Account::parse) {
        Some(Ok(account)) => Some(account),
        None => None,
        // No certificate is for such an account; ssh and the host say what they think of it.
        Some(Err(_)) => return Ok(()),
    };
    let local = Local::at(args.folder.clone());
    if let Some(held) = local.live(&host, account.as_ref())?
        && local.is_pointed(&host, &held)?
    {
        return Ok(());
    }
    // ssh runs us again for one connection when a system-wide `Match final` or CanonicalizeHostname makes it read everything twice.
    let told = local.root().join("told");
    let this = format!("{} {}", caller.process.0, caller.process.1);
    if profile::read_small(&told)?.as_deref() == Some(&this) {
        return Err(Failure::silent());
    }
    let outcome = Wanted::new(context, local, host, account, &caller).and_then(|wanted| wanted.obtain());
    if outcome.is_err() {
        // If it can't be written, things are said twice.
        drop(profile::write(&told, this.as_bytes()));
    }
    match outcome {
        // Who names a key of their own has a way in that we know nothing of: perhaps because we are down.
        Err(failure) if args.strict && caller.told.names_key => {
            context.out.failure(&failure);
            Ok(())
        }
        outcome => outcome,
    }
}

impl<'a> Wanted<'a> {
    fn new(
        context: &'a Context,
        local: Local,
        host: HostName,
        account: Option<Account>,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let on_missing = match profile::env("HALLPASS_ON_MISSING").as_deref() {
            None | Some("ask") => OnMissing::Ask,
            Some("hint") => OnMissing::Hint,
            Some("request") => OnMissing::Request,
            Some(other) => {
                return Err(Failure::usage(format!("HALLPASS_ON_MISSING is {other:?}"))
                    .because("it takes ask, hint or request"));
            }
        };
        let may_ask = caller.has_terminal && !caller.told.is_batch && !context.globals.no_input;
        let person = if may_ask && on_missing == OnMissing::Ask { Terminal::open() } else { None };
        let local = local.of(&context.places()?, &context.globals.profile);
        Ok(Self { context, local, host, account, on_missing, person })
    }

    /// Gets a certificate, alone among those who want the same.
    fn obtain(&self) -> Result<(), Failure> {
        let lock = self.lock()?;
        if let Some(held) = self.local.live(&self.host, self.account.as_ref())? {
            return if self.local.is_pointed(&self.host, &held)? { Ok(()) } else { self.local.point() };
        }
        let places = self.context.places()?;
        let profile = profile::need(&places, &self.context.globals)?;
        let timeout = if self.person.is_some() { self.context.call_timeout() } else { self.quick() };
        let client = self.context.client(&places, &profile, timeout)?;
        let held = self.context.block_on(async {
            match &self.person {
                Some(person) => self.with_person(&client, &lock, person).await,
                None => self.quickly(self.without_person(&client), &profile.server.url).await,
            }
        });
        // Only an answer says by which clock things are over.
        if self.context.offset.seconds().is_some() {
            self.context.keep_clock();
            self.local.sweep();
        }
        let held = held?;
        if self.person.is_some() {
            self.context.out.note(&granted(&self.host, &held, self.context.now()));
        }
        Ok(())
    }

    /// How long the server may take when nobody sits there; `--timeout` in the fragment says otherwise.
    fn quick(&self) -> Duration {
        self.context.globals.timeout.map_or(QUICK, profile::seconds)
    }

    /// Waits for its turn among those who want the same, host and account. Those who want another account ask for themselves.
    fn lock(&self) -> Result<Lock, Failure> {
        let began = Instant::now();
        let patience = PATIENCE.max(self.quick());
        let account = self.account.as_ref().map(|account| format!("{account}@")).unwrap_or_default();
        let mut is_said = false;
        let lock = self.local.lock(&format!("host-{account}{}", self.host), |takes_long| {
            if self.person.is_none() {
                return !takes_long && began.elapsed() < patience;
            }
            if takes_long && !std::mem::replace(&mut is_said, true) {
                self.context.out.note(&format!("another ssh asks for {} just now; waiting for it", self.host));
            }
            true
        })?;
        lock.ok_or_else(|| {
            Failure::new(Exit::Undecided, "HP-203", format!("{}: another ssh waits for access", self.host))
                .next("hallpass status")
        })
    }

    /// The outcome of `work`, if it comes soon. Of many at once the first finds out that the server is away; the others believe it, or
    /// they would hang one after the other.
    async fn quickly(&self, work: impl Future<Output = Result<Held, Failure>>, url: &str) -> Result<Held, Failure> {
        let unreachable = |why: String| {
            Failure::new(Exit::Unreachable, "HP-101", "cannot reach the access server")
                .because(why)
                .next("hallpass doctor --net")
        };
        let away = self.local.root().join("away");
        let now = SystemClock.steady();
        let since = profile::read_small(&away)?.and_then(|then| now.checked_sub(then.trim().parse().ok()?));
        if let Some(ago) = since.filter(|ago| *ago < AWAY_S) {
            return Err(unreachable(format!("{url} did not answer another ssh {ago} s ago")));
        }
        let outcome = tokio::time::timeout(self.quick(), work).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| {
            Err(unreachable(format!("no answer from {url} within {} s", self.quick().as_secs_f32())))
        });
        if outcome.as_ref().is_err_and(|failure| failure.exit == Exit::Unreachable) {
            // If it can't be written, the next one tries for itself.
            drop(profile::write(&away, SystemClock.steady().to_string().as_bytes()));
        }
        outcome
    }

    /// What may be had at once; else what to type.
    async fn without_person(&self, client: &Client) -> Result<Held, Failure> {
        if let Some(open) = self.open_request(client).await? {
            if open.state == "pending" {
                return Err(wait::undecided(&open));
            }
            return wait::fetch(client, &self.local, &open.id).await;
        }
        let wish = self.wish(profile::env("HALLPASS_REASON").unwrap_or_default());
        let verdict = self.explain(client, &wish).await?;
        match verdict.verdict.as_str() {
            "allow" => self.at_once(client, &wish).await,
            "ask" if self.on_missing == OnMissing::Request => {
                Err(wait::undecided(&request::ask(client, &self.local, &wish).await?.request))
            }
            "ask" => Err(self.over_or_missing(client, &needs(&verdict)).await?),
            _ if is_about_words(&verdict) => {
                let why = verdict.refused.first().map_or("", String::as_str);
                Err(self.over_or_missing(client, why).await?)
            }
            _ => Err(self.refused(&verdict)),
        }
    }

    /// Asks for the reason where one is needed, and waits.
    async fn with_person(&self, client: &Client, lock: &Lock, person: &Terminal) -> Result<Held, Failure> {
        if let Some(open) = self.open_request(client).await? {
            return self.wait(client, lock, open.into()).await;
        }
        let mut wish = self.wish(profile::env("HALLPASS_REASON").unwrap_or_default());
        for _ in 0..TRIES {
            let verdict = self.explain(client, &wish).await?;
            let wants_words = match verdict.verdict.as_str() {
                "allow" => return self.at_once(client, &wish).await,
                "ask" => wish.reason.is_empty().then(|| format!("{} needs {}", self.host, needs(&verdict))),
                _ if is_about_words(&verdict) => Some(verdict.refused.join("; ")),
                _ => return Err(self.refused(&verdict)),
            };
            let Some(why) = wants_words else { break };
            self.context.out.note(&format!("{} · {}", self.context.globals.profile, output::escape(&why)));
            lock.takes_long(true);
            wish.reason = person.ask("Reason")?;
            wish.ticket = wish.ticket.or_else(|| profile::env("HALLPASS_TICKET"));
        }
        let asked = request::ask(client, &self.local, &wish).await?;
        self.wait(client, lock, asked).await
    }

    /// Waits for the decision, then fetches.
    async fn wait(&self, client: &Client, lock: &Lock, asked: Asked) -> Result<Held, Failure> {
        lock.takes_long(true);
        if asked.request.state == "pending" {
            request::announce(self.context, &asked.request, true);
        }
        let (request, held) = request::obtain(self.context, client, &self.local, asked, Some(None)).await?;
        held.ok_or_else(|| Failure::failed(format!("no certificate for {}", request.id)))
    }

    /// Asks for what policy allows without asking anybody.
    async fn at_once(&self, client: &Client, wish: &Wish) -> Result<Held, Failure> {
        let Asked { request, held } = request::ask(client, &self.local, wish).await?;
        if request.state == "pending" {
            return Err(wait::undecided(&request));
        }
        match held {
            Some(held) => Ok(held),
            None => wait::fetch(client, &self.local, &request.id).await,
        }
    }

    async fn open_request(&self, client: &Client) -> Result<Option<wire::Request>, Failure> {
        let ours = self.local.for_host(&self.host, self.account.as_ref())?;
        ssh::open_request(client, &self.local, &ours).await
    }

    fn wish(&self, reason: String) -> Wish {
        Wish {
            targets: vec![Target::Host(self.host.clone())],
            account: self.account.clone(),
            lifetime: None,
            start: None,
            reason,
            ticket: profile::env("HALLPASS_TICKET"),
        }
    }

    /// HP-206 when access has just ended, else HP-211.
    async fn over_or_missing(&self, client: &Client, why: &str) -> Result<Failure, Failure> {
        let over = ended::lately(client, &self.host, self.account.as_ref()).await?;
        Ok(over.unwrap_or_else(|| self.missing(why)))
    }

    /// HP-211: there is no access, and nobody here to ask for a reason.
    fn missing(&self, why: &str) -> Failure {
        let account = self.account.as_ref().map(|account| format!(" --as {account}")).unwrap_or_default();
        Failure::new(Exit::Undecided, "HP-211", format!("you have no access to {} yet", self.host))
            .because(why.to_owned())
            .next(format!("hallpass request {}{account}", self.host))
    }

    async fn explain(&self, client: &Client, wish: &Wish) -> Result<wire::Verdict, Failure> {
        match client.post("/v1/explain", &wish.to_wire()).await {
            Ok(verdict) => Ok(verdict),
            Err(ClientError::Problem(problem)) if problem.code == "account" => {
                Err(Failure::name_account(&problem, |account| format!("ssh {account}@{}", self.host)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn refused(&self, verdict: &wire::Verdict) -> Failure {
        let account = self.account.as_ref().map(|account| format!(" --as {account}")).unwrap_or_default();
        let mut failure = Failure::new(Exit::NoRule, "HP-201", "policy does not let you ask for this");
        failure.why.clone_from(&verdict.refused);
        failure.next(format!("hallpass explain {}{account}", self.host))
    }
}

/// Whether a rule lets them ask, and only the reason or the ticket does not please it.
fn is_about_words(verdict: &wire::Verdict) -> bool {
    verdict.code.as_deref() == Some("reason")
}

fn needs(verdict: &wire::Verdict) -> String {
    let needs: Vec<String> =
        verdict.needs.iter().map(|need| format!("{} of {}", need.need, render::joined(&need.from))).collect();
    format!("approval by {}", needs.join(" and "))
}

fn granted(host: &HostName, held: &Held, now: Timestamp) -> String {
    let request = &held.request;
    let by = match request.approved_by.as_slice() {
        [] => String::new(),
        people => format!(" (approved by {})", render::joined(people)),
    };
    let until =
        request.window.as_ref().map_or_else(String::new, |w| format!(" until {}", render::until(&w.not_after, now)));
    format!("access to {host} as {}{until}{by}", output::escape(&request.account))
}
