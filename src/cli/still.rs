//! What lies here of access that the service says is closed: ended from another machine, by an operator, or because its CA key was
//! compromised. Hosts refuse such a certificate, and its window goes on; ssh would offer it until then.
//!
//! What for: commands that talk to the service ask it, and what is closed goes from here; so does `cert ls`, which does without it. Plain ssh
//! with a certificate (`prepare`) and a prompt (`status --short`) do not: they answer from local files.
//!
//! Invariants: nothing goes but on the service's own word about that very request and key ([`Held::is_closed_by`]). No answer, an error, "no
//! such request" (an older copy, another service, another login) and a word of another kind change nothing, and fail no command.

use std::time::Duration;

use super::failure::Failure;
use super::local::{Held, Local, random};
use super::{Context, output, profile};
use crate::client::{Client, ClientError};
use crate::wire;

/// How long a command that could do without the service waits for its word; `--timeout` overrides it. As long as `ssh-prepare` does.
pub(super) const QUICK: Duration = Duration::from_millis(1_500);

/// How many requests are asked about one by one; a person holds a handful. Which of more: [`in_turn`].
const ASKED_MAX: usize = 50;

/// What lies here and is closed, each with the service's word about it, as far as that comes soon. Changes nothing.
///
/// `open` is what the service has just listed as open, so that nobody asks about that again.
pub(super) async fn closed(
    context: &Context,
    client: &Client,
    held: Vec<Held>,
    open: &[wire::Request],
) -> Vec<(Held, wire::Request)> {
    let mut closed = Vec::new();
    let until = tokio::time::Instant::now() + limit(context);
    let is_open = |held: &Held| open.iter().any(|request| request.id == held.request.id);
    let now = context.now();
    let is_good = |held: &Held| held.window().is_some_and(|window| !window.is_over(now));
    let rest = held.into_iter().filter(|held| !is_open(held)).collect();
    for held in in_turn(rest, turn(), is_good).into_iter().take(ASKED_MAX) {
        let path = format!("/v1/requests/{}", held.request.id);
        let Ok(answer) = tokio::time::timeout_at(until, client.get::<wire::Request>(&path)).await else { break };
        match answer {
            Ok(said) if held.is_closed_by(&said) => closed.push((held, said)),
            Ok(_) => {}
            // It knows no such request, or shows it to somebody else alone: the next one may be ours.
            Err(ClientError::Problem(problem)) if problem.status == 404 => {}
            Err(_) => break,
        }
    }
    // What is told is told in one order, whatever was asked first.
    closed.sort_by(|(a, _), (b, _)| a.folder.cmp(&b.folder));
    closed
}

/// What is asked about first: what ssh could offer, as its certificate is not over; and of each kind another one each time, so that what
/// the service does not know, or is slow about, keeps none of the others from ever being asked about.
fn in_turn<T>(mut all: Vec<T>, turn: usize, is_good: impl Fn(&T) -> bool) -> Vec<T> {
    let first = turn.checked_rem(all.len()).unwrap_or(0);
    all.rotate_left(first);
    // Stable: in their turn still.
    all.sort_by_key(|one| !is_good(one));
    all
}

/// Any number. Without randomness the first ones are asked about, and no command fails for that.
fn turn() -> usize {
    random().map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)))
}

fn limit(context: &Context) -> Duration {
    context.globals.timeout.map_or(QUICK, profile::seconds)
}

/// Has all go that lies here and is closed, and says so; returns what went.
pub(super) async fn sweep(context: &Context, client: &Client, local: &Local) -> Vec<wire::Request> {
    // What can't be read is for the command to say.
    let held = local.all().unwrap_or_default();
    if held.is_empty() {
        return Vec::new();
    }
    let query = "/v1/requests?mine=true&state=pending&state=approved&state=issued&limit=1000";
    match tokio::time::timeout(limit(context), client.get::<wire::Requests>(query)).await {
        Ok(Ok(open)) => sweep_but(context, client, local, &open.requests).await,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The same, when the service has just listed what is open.
pub(super) async fn sweep_but(
    context: &Context,
    client: &Client,
    local: &Local,
    open: &[wire::Request],
) -> Vec<wire::Request> {
    let closed = closed(context, client, local.all().unwrap_or_default(), open).await;
    closed.into_iter().map(|(held, said)| discard(context, local, &held, said)).collect()
}

/// [`sweep`] for a command that reads local files; where nobody is logged in, or the service is away, it goes by those.
pub(super) fn sweep_if_there(context: &Context, local: &Local) {
    if local.all().unwrap_or_default().is_empty() {
        return;
    }
    let swept = quick(context).and_then(|client| context.block_on(async { Ok(sweep(context, &client, local).await) }));
    drop(swept);
}

/// A client of who is logged in that waits a moment.
fn quick(context: &Context) -> Result<Client, Failure> {
    let places = context.places()?;
    let profile = profile::need(&places, &context.globals)?;
    context.client(&places, &profile, limit(context))
}

/// Looks at a certificate that is about to be used; whether it is closed, and went. Soon, or not at all.
pub(super) fn is_closed(context: &Context, local: &Local, held: &Held) -> bool {
    let asked = || {
        let client = quick(context)?;
        let path = format!("/v1/requests/{}", held.request.id);
        context.block_on(async {
            let answer = tokio::time::timeout(limit(context), client.get::<wire::Request>(&path)).await;
            Ok(answer.ok().and_then(Result::ok))
        })
    };
    // Nobody is logged in, or the service is away: what there is, is used.
    let said = asked().unwrap_or_default().filter(|said| held.is_closed_by(said));
    said.map(|said| discard(context, local, held, said)).is_some()
}

/// Has it go, and says so if it could be used: that something was denied or lapsed is said elsewhere.
fn discard(context: &Context, local: &Local, held: &Held, said: wire::Request) -> wire::Request {
    local.throw_away(std::slice::from_ref(&held.folder));
    if held.certificate.is_some() {
        context.out.note(&format!("{}; what lay here of it is deleted", why(&said)));
    }
    said
}

/// Why it is closed: `7K3F-9QX2 is over: omar@example.com ended it (laptop lost)`.
pub(super) fn why(said: &wire::Request) -> String {
    let id = output::escape(&said.id);
    let Some(closed) = &said.closed else { return format!("{id} is over") };
    let what = match said.state.as_str() {
        "denied" => "denied it",
        "withdrawn" => "took it back",
        _ => "ended it",
    };
    let reason =
        if closed.reason.is_empty() { String::new() } else { format!(" ({})", output::escape(&closed.reason)) };
    format!("{id} is over: {} {what}{reason}", output::escape(&closed.by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_comes_first_and_each_of_the_others_comes_into_reach() {
        let all: Vec<usize> = (0..120).collect();
        let is_good = |one: &usize| one % 60 == 59;
        let mut reached = std::collections::BTreeSet::new();
        for turn in 0..all.len() {
            let asked = &in_turn(all.clone(), turn, is_good)[..ASKED_MAX];
            assert!(asked[..2].iter().all(is_good) && !asked[2..].iter().any(is_good), "{turn}: {asked:?}");
            reached.extend(asked.iter().copied());
        }
        assert_eq!(reached.len(), all.len());
        // Of many good ones each is asked about in its turn, too.
        let firsts: std::collections::BTreeSet<usize> =
            (0..all.len()).map(|turn| in_turn(all.clone(), turn, |_| true)[0]).collect();
        assert_eq!(firsts.len(), all.len());
        assert_eq!(in_turn(Vec::<usize>::new(), 7, |_| true), Vec::<usize>::new());
    }
}
