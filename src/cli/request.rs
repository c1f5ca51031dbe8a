//! `hallpass request`: ask for access, wait if wanted, fetch the certificate.

use clap::Args;

use super::failure::{Exit, Failure};
use super::local::{Held, Local};
use super::{Context, explain, moment, output, render, still, usage, wait};
use crate::client::{Client, ClientError};
use crate::name::{Account, HostName, RequestPrefix, Target};
use crate::ssh::PublicKey;
use crate::ssh::cert::Extension;
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Arguments of `hallpass request`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArgs {
    /// Hosts, or all hosts with a tag: `web-1`, `tag:role=web`
    #[arg(required_unless_present = "like", value_name = "TARGET", num_args = 1..=16, value_parser = Target::parse)]
    targets: Vec<Target>,
    /// Why
    #[arg(long, env = "HALLPASS_REASON", hide_env_values = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: Option<String>,
    /// For how long; the rule's default if left out
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    lifetime: Option<Lifetime>,
    /// As long as from now until then: a time of day here (`18:00`), or RFC 3339. The clock starts at approval
    #[arg(long, value_name = "TIME", conflicts_with = "lifetime", value_parser = moment::parse)]
    until: Option<Timestamp>,
    /// As which account; the only one the rules allow, if left out
    #[arg(long = "as", value_name = "ACCOUNT", value_parser = Account::parse)]
    account: Option<Account>,
    /// The ticket
    #[arg(long, env = "HALLPASS_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// From when (RFC 3339); from approval if left out
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    start: Option<Timestamp>,
    /// Also for the jump host on the way there: one request, one certificate for both
    #[arg(long, value_name = "HOST", num_args = 1, value_parser = HostName::parse)]
    via: Vec<HostName>,
    /// Like this request: its hosts, account, duration, reason and ticket, where not given here
    #[arg(long, value_name = "ID", value_parser = RequestPrefix::parse)]
    like: Option<RequestPrefix>,
    /// Ask for nothing: print what policy says, as `hallpass explain` does. Exit code 5 if it refuses. How much you have open, and whether
    /// your key will do, only asking shows
    #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
    dry_run: bool,
    #[command(flatten)]
    waiting: WaitingArgs,
}

/// Whether to wait for a decision.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitingArgs {
    /// Wait for the decision, perhaps no longer than this; the default on a terminal
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = Lifetime::parse)]
    wait: Option<Option<Lifetime>>,
    /// Don't wait (exit code 8 while undecided); the default without a terminal
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

impl WaitingArgs {
    /// `None`: don't wait. `Some(limit)`: wait, perhaps with a limit.
    pub(crate) fn limit(self) -> Option<Option<Lifetime>> {
        match (self.wait, self.no_wait) {
            (Some(limit), _) => Some(limit),
            (None, true) => None,
            (None, false) => output::is_interactive().then_some(None),
        }
    }
}

/// What is asked for, in the words of the wire.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Hosts and tags.
    pub(crate) targets: Vec<Target>,
    /// As whom.
    pub(crate) account: Option<Account>,
    /// For how long.
    pub(crate) lifetime: Option<Lifetime>,
    /// From when.
    pub(crate) start: Option<Timestamp>,
    /// Why.
    pub(crate) reason: String,
    /// The ticket.
    pub(crate) ticket: Option<String>,
}

impl Wish {
    /// What a request asked for that I may see: somebody else's too.
    ///
    /// # Errors
    /// When there is none, or the server's answer has no names in it.
    async fn like(client: &Client, id: &RequestPrefix) -> Result<Self, Failure> {
        let request: wire::Request = client.get(&format!("/v1/requests/{}", id.as_str())).await?;
        let broken = |why: String| Failure::failed("the server's answer is not hallpass'").because(why);
        let hosts: Result<Vec<HostName>, _> = request.hosts.iter().map(|host| HostName::parse(host)).collect();
        Ok(Self {
            targets: hosts.map_err(|e| broken(e.to_string()))?.into_iter().map(Target::Host).collect(),
            account: Some(Account::parse(&request.account).map_err(|e| broken(e.to_string()))?),
            lifetime: Some(Lifetime::parse(&request.lifetime).map_err(|e| broken(e.to_string()))?),
            start: None,
            reason: request.reason,
            ticket: request.ticket,
        })
    }

    /// Whether the server's answer is to this wish: what it says becomes arguments of ssh, and the key is ours to lend.
    ///
    /// # Errors
    /// What it changed.
    fn is_answered_by(&self, request: &wire::Request, key: &PublicKey) -> Result<(), Failure> {
        let wrong = |what: &str| {
            Failure::failed("the server's answer is not to what was asked")
                .because(format!("{what} differs; nothing was kept or run"))
        };
        let account = Account::parse(&request.account).map_err(|_| wrong("the account"))?;
        if self.account.as_ref().is_some_and(|wanted| *wanted != account) {
            return Err(wrong("the account"));
        }
        let asked = |target: &Target| match target {
            Target::Host(host) => request.hosts.iter().any(|given| given == host.as_str()),
            Target::Tag(..) => true,
        };
        let has_tag = self.targets.iter().any(|target| matches!(target, Target::Tag(..)));
        if !self.targets.iter().all(asked) || (!has_tag && request.hosts.len() > self.targets.len()) {
            return Err(wrong("the list of hosts"));
        }
        if self.lifetime.is_some_and(|wanted| Lifetime::parse(&request.lifetime).is_ok_and(|given| given > wanted)) {
            return Err(wrong("for how long it is"));
        }
        if request.key == key.fingerprint().to_string() { Ok(()) } else { Err(wrong("the key")) }
    }

    /// As the API takes it, without a key.
    pub(crate) fn to_wire(&self) -> wire::Ask {
        wire::Ask {
            targets: self.targets.iter().map(ToString::to_string).collect(),
            account: self.account.as_ref().map(ToString::to_string),
            lifetime: self.lifetime.map(|l| l.to_string()),
            start: self.start.map(|s| s.to_string()),
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            ..wire::Ask::default()
        }
    }
}

/// `hallpass request`.
pub(crate) fn run(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    if args.dry_run {
        return try_out(context, args, &client, local.now());
    }
    local.sweep();
    let limit = args.waiting.limit();
    args.check_wait()?;
    let (request, held) = context.block_on(async {
        let mut wish = args.wish(&client, local.now()).await?;
        // Of two for one host ssh takes what ends last: it must not be one that is over.
        still::sweep(context, &client, &local).await;
        wish.reason = reason_wanted(context, &client, &wish).await?;
        let asked = ask(&client, &local, &wish).await?;
        if let Some(cache) = context.cache() {
            cache.keep_requests(&profile, std::slice::from_ref(&asked.request));
        }
        if asked.request.state == "pending" {
            announce(context, &asked.request, limit.is_some());
        }
        if args.is_stopped(&asked.request) {
            context.out.note(&args.stopped());
        }
        let request = asked.request.clone();
        match obtain(context, &client, &local, asked, limit).await {
            Err(undecided) if undecided.exit == Exit::Undecided => {
                // As it stands now, if that can be had: some of several may have agreed.
                let request = client.get(&format!("/v1/requests/{}", request.id)).await.unwrap_or(request);
                context.out.answer(&wait::document(&request)?, &render::details(&request, context.now()))?;
                Err(undecided)
            }
            obtained => obtained,
        }
    })?;
    let next = args.next(&request, profile.ssh.is_some());
    wait::print_and_next(context, &request, held.as_ref(), next.as_deref())
}

/// What policy says of it; nothing is asked for, and no key is made.
fn try_out(context: &Context, args: &RequestArgs, client: &Client, now: Timestamp) -> Result<(), Failure> {
    let verdict = context.block_on(async {
        let wish = args.wish(client, now).await?;
        let again = |account: &Account| format!("hallpass request {} --as {account} --dry-run", words(&wish.targets));
        explain::ask(client, &wish.to_wire(), again).await
    })?;
    explain::answer(context, &verdict)
}

impl RequestArgs {
    /// `--wait 1s` names a host `1s`: how long to wait stands behind `=`.
    fn check_wait(&self) -> Result<(), Failure> {
        let is_span = |target: &&Target| Lifetime::parse(&target.to_string()).is_ok();
        let Some(span) = self.targets.iter().find(is_span).filter(|_| self.waiting.wait == Some(None)) else {
            return Ok(());
        };
        let others: Vec<Target> = self.targets.iter().filter(|target| *target != span).cloned().collect();
        Err(Failure::usage(format!("`--wait {span}` asks for a host called {span}"))
            .because("how long to wait stands behind `=`, because `--wait` may stand alone")
            .next(format!("hallpass request {} --wait={span} …", words(&others))))
    }

    /// What is asked for: as given, else as in the request that it should be like.
    async fn wish(&self, client: &Client, now: Timestamp) -> Result<Wish, Failure> {
        let like = match &self.like {
            Some(id) => Some(Wish::like(client, id).await?),
            None => None,
        };
        let lifetime = match self.until {
            Some(until) => {
                let from = self.start.map_or(now, |start| start.max(now));
                let span = moment::span(from, until);
                Some(span.map_err(|why| Failure::usage(format!("--until {}: {why}", output::local_time(until))))?)
            }
            None => self.lifetime,
        };
        let (targets, reason, others) = match like {
            Some(Wish { targets, account, lifetime, reason, ticket, .. }) => {
                (targets, Some(reason), (account, lifetime, ticket))
            }
            None => (Vec::new(), None, (None, None, None)),
        };
        let mut targets = if self.targets.is_empty() { targets } else { self.targets.clone() };
        for jump in &self.via {
            let jump = Target::Host(jump.clone());
            if !targets.contains(&jump) {
                targets.push(jump);
            }
        }
        Ok(Wish {
            targets,
            account: self.account.clone().or(others.0),
            lifetime: lifetime.or(others.1),
            start: self.start,
            // Policy says whether it can do without one.
            reason: self.reason.clone().or(reason).unwrap_or_default(),
            ticket: self.ticket.clone().or(others.2),
        })
    }

    /// Whether the jump host will not pass them on: the certificate opens no forwarding, whoever agrees.
    fn is_stopped(&self, request: &wire::Request) -> bool {
        !self.via.is_empty() && !request.permit.iter().any(|permit| permit == Extension::PortForwarding.key())
    }

    fn stopped(&self) -> String {
        let jumps: Vec<&str> = self.via.iter().map(HostName::as_str).collect();
        format!(
            "{} will not pass you on: this request does not permit {key}, and a jump takes it\n  \
             why   a request has what the rules of all its hosts permit\n  next  ask for rules with permit = {{ {key} = true }}",
            jumps.join(", "),
            key = Extension::PortForwarding.key()
        )
    }

    /// What to type with the certificate.
    fn next(&self, request: &wire::Request, is_set_up: bool) -> Option<String> {
        let is_jump = |host: &String| self.via.iter().any(|jump| jump.as_str() == host);
        let host = output::escape(request.hosts.iter().find(|host| !is_jump(host)).or(request.hosts.first())?);
        if self.via.is_empty() || self.is_stopped(request) {
            return Some(format!("hallpass ssh {host}"));
        }
        // Both legs of a jump read ssh's own configuration.
        let setup = if is_set_up { "" } else { "hallpass setup && " };
        let jumps: Vec<&str> = self.via.iter().map(HostName::as_str).collect();
        Some(format!("{setup}ssh -J {} {host}", jumps.join(",")))
    }
}

/// The reason as given, else as typed, if policy wants one, or somebody is to agree and there is somebody here to ask. What policy refuses
/// for another reason, it then says for itself.
///
/// # Errors
/// When there is none and nobody to ask, or more accounts than one.
pub(crate) async fn reason_wanted(context: &Context, client: &Client, wish: &Wish) -> Result<String, Failure> {
    if !wish.reason.is_empty() {
        return Ok(wish.reason.clone());
    }
    let again = |account: &Account| format!("hallpass request {} --as {account}", words(&wish.targets));
    let verdict = explain::ask(client, &wish.to_wire(), again).await?;
    let may_ask = !context.globals.no_input && output::is_interactive();
    match (verdict.verdict.as_str(), verdict.code.as_deref()) {
        ("ask", _) if may_ask => reason(context, None),
        ("refuse", Some("reason")) => reason(context, None)
            .map_err(|failure| verdict.refused.iter().fold(failure, |failure, why| failure.because(why.clone()))),
        _ => Ok(String::new()),
    }
}

/// The reason as given, else as typed.
///
/// # Errors
/// When there is none and nobody to ask.
pub(crate) fn reason(context: &Context, given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(reason) => Ok(reason),
        None => output::ask("reason", context.globals.no_input, "--reason TEXT"),
    }
}

/// Targets as they are typed.
pub(crate) fn words(targets: &[Target]) -> String {
    targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What came of asking.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) request: wire::Request,
    /// Its certificate, kept, where policy gave it at once.
    pub(crate) held: Option<Held>,
}

impl From<wire::Request> for Asked {
    fn from(request: wire::Request) -> Self {
        Self { request, held: None }
    }
}

/// Asks with a new key that is on disk before the server hears of it; keeps the certificate if there is one at once.
///
/// # Errors
/// HP-201 and HP-202 when policy refuses, and whatever keeps us from asking.
pub(crate) async fn ask(client: &Client, local: &Local, wish: &Wish) -> Result<Asked, Failure> {
    let (folder, key) = local.new_key()?;
    let body = wire::Ask { key: Some(key.to_openssh()), ..wish.to_wire() };
    match client.post::<_, wire::Access>("/v1/certificates", &body).await {
        Ok(wire::Access { request, certificate }) => {
            wish.is_answered_by(&request, &key)?;
            local.adopt(&folder, &request)?;
            let keep = |given: wire::Certificate| wait::keep(client, local, &request, &given);
            let held = certificate.map(keep).transpose()?;
            Ok(Asked { request, held })
        }
        Err(error) => {
            // After a refusal the key is of no use. After a lost connection, or a call that took too long, the request may exist: keep the
            // key, it is found by its fingerprint, and swept after a day if it was for nothing.
            let is_refused = match &error {
                ClientError::Problem(problem) => !problem.retryable || problem.code == "busy",
                error => matches!(error, ClientError::Setup { .. }),
            };
            if is_refused {
                local.discard(&folder);
            }
            match error {
                ClientError::Problem(problem) if problem.code == "account" => {
                    let targets = words(&wish.targets);
                    Err(Failure::name_account(&problem, |account| format!("hallpass request {targets} --as {account}")))
                }
                error => Err(error.into()),
            }
        }
    }
}

/// Waits for the decision if it is to be waited for, then fetches the certificate.
///
/// # Errors
/// As [`wait::until`] and [`wait::settle`].
pub(crate) async fn obtain(
    context: &Context,
    client: &Client,
    local: &Local,
    asked: Asked,
    limit: Option<Option<Lifetime>>,
) -> Result<(wire::Request, Option<Held>), Failure> {
    let Asked { request, held } = asked;
    if held.is_some() {
        return Ok((request, held));
    }
    let decided = match (request.state.as_str(), limit) {
        ("pending", Some(limit)) => wait::until(context, client, &request.id, limit, |r| r.state != "pending").await?,
        ("pending", None) => return Err(wait::undecided(&request)),
        _ => request,
    };
    wait::settle(context, client, local, decided).await
}

/// Says what now waits for whom.
pub(crate) fn announce(context: &Context, request: &wire::Request, is_waiting: bool) {
    if is_waiting {
        let by = request.decide_by.as_deref().map(output::local_text).unwrap_or_default();
        context.out.note(&format!(
            "{}: {} as {} for {} needs approval; it lapses at {by}",
            output::escape(&request.id),
            render::joined(&request.hosts),
            output::escape(&request.account),
            output::escape(&request.lifetime),
        ));
    }
}
