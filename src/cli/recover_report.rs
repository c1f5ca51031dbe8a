//! What `hallpass admin store recover` says: what there is, what would be given up, and what was.

use serde_json::{Value, json};

use super::failure::Failure;
use super::{Context, config_file, output};
use crate::config::Config;
use crate::service::lost::Stands;
use crate::service::recover::{Found, FoundHead, RecoverError, Recovered, Wrong, to_write};
use crate::time::{Clock as _, SystemClock};

/// How far the clock may be behind the log before nothing is issued; what the service goes by.
const CLOCK_TOLERANCE_S: u64 = 30;

/// What an entry in place of a lost one takes on the disk, with its part of the tree.
const LOST_BYTES: u64 = 200;

/// What there is; exit 1 if a service would not start on it.
pub(super) fn explain(context: &Context, config: &Config, found: &Found, past: Option<u64>) -> Result<(), Failure> {
    let mut lines = vec![(sentence(found).to_owned())];
    let mut add = |name: &str, fact: String| lines.push(format!("  {name:<11} {fact}"));
    let last = output::local_text(&found.last.to_string());
    add("database", format!("{} entries, the last of {last}: {}", found.size, config.store.shown()));
    for head in &found.heads {
        add("kept", format!("{}: {}", head.place, stands(&head.stands)));
    }
    if let Some(first) = found.begun {
        add("begun", format!("entries {first} to {} stand for lost ones already", found.size.saturating_sub(1)));
    }
    if let Some((first, last)) = missing(found) {
        add(
            "missing",
            format!("entries {first} to {last}, written after {}", output::local_text(&found.last.to_string())),
        );
    }
    let wrong = found.wrong();
    let vouched = found.vouched().filter(|_| matches!(wrong, Wrong::Missing | Wrong::Unusable));
    let is_lost = matches!(wrong, Wrong::Begun | Wrong::Behind | Wrong::Other | Wrong::Unusable);
    if let Some(size) = vouched {
        add("not known", format!("whether anything was written after the {size} entries that the given one covers"));
    } else if is_lost {
        let more = if found.more_open { "more than " } else { "" };
        let policy = found.policy.map_or_else(|| "none".to_owned(), |version| version.to_string());
        add(
            "open",
            format!("{more}{}; they end, since what became of them is not known", counted(found.open, "request")),
        );
        add(
            "in force",
            format!("policy {policy}, and the CA keys, hosts and join tokens of then: look at each afterwards"),
        );
    }
    let planned = past.map(|past| (past, to_write(found, Some(past))));
    if let Some((past, planned)) = &planned {
        let fact = match planned {
            Ok(0) => format!("serial {past} is in the log already: nothing is added for it"),
            Ok(writes) => format!(
                "up to serial {past}: --apply writes {}, of which no checkpoint knows {}; {}, and everybody is logged out",
                written(*writes),
                beyond(found, *writes),
                ends(found)
            ),
            Err(RecoverError::Nothing) => format!("serial {past} is in the log already: there is nothing to recover"),
            Err(why) => why.to_string(),
        };
        add("past", fact);
    }
    let writes = planned.and_then(|(past, planned)| Some((past, planned.ok().filter(|writes| *writes > 0)?)));
    if let Some(behind) = clock_behind(found) {
        let why = "the service ran on a clock that was fast, or this one is slow. Set it; if it is right, nothing is issued until it \
                   has passed that time, and no recovery changes that";
        add("clock", format!("{behind} s behind the log's last entry: {why}"));
    }
    let mut next = next(context, wrong);
    if let Some((past, _)) = writes {
        let apply = format!("hallpass admin store recover --past {past} --apply --by PERSON --reason TEXT");
        next.push(format!(
            "if serial {past} was given out, and nothing newer is left: {}",
            config_file::command(context, &apply)
        ));
    }
    if !next.is_empty() {
        lines.push(format!("next: {}", next.join("\n      ")));
    }
    context.out.answer(&document(found, writes, None), &lines.join("\n"))?;
    if is_lost { Err(Failure::silent()) } else { Ok(()) }
}

/// The entries that the longest lost log had beyond those that were kept.
fn missing(found: &Found) -> Option<(u64, u64)> {
    let kept = found.kept();
    let last = found.longest()?.checked_sub(1)?;
    (last >= kept && found.size <= last).then_some((kept, last))
}

fn clock_behind(found: &Found) -> Option<u64> {
    Some(found.last.seconds_since(SystemClock.now())).filter(|behind| *behind > CLOCK_TOLERANCE_S)
}

fn sentence(found: &Found) -> &'static str {
    match found.wrong() {
        Wrong::Begun => "a recovery was begun and not finished",
        Wrong::Behind => "the database is older than what was signed: an older copy was put back",
        Wrong::Other => {
            "the database is of another branch than what was signed: a copy went on by itself, or entries were changed"
        }
        Wrong::Unusable if found.vouched().is_some() => {
            "the kept checkpoint is no use; the database has all that the given one covers"
        }
        Wrong::Missing if found.vouched().is_some() => {
            "no checkpoint is kept; the database has all that the given one covers"
        }
        Wrong::Unusable => "the kept checkpoint is no use: whether the database is the newest is not known",
        Wrong::GivenUp => "the kept checkpoint is of entries that were given up; the next start keeps a new one",
        Wrong::Missing => "no checkpoint is kept: whether the database is the newest is not known",
        Wrong::Nothing => "the database has all that the kept checkpoints cover",
    }
}

fn stands(stands: &Stands) -> String {
    match stands {
        Stands::Missing => "nothing is kept there".to_owned(),
        Stands::Unusable(why) => why.clone(),
        Stands::Covered(size) => format!("{size} entries, all in the database"),
        Stands::Behind(size) => format!("{size} entries, more than the database has"),
        Stands::Other(size) => format!("{size} entries, and not those of the database"),
        Stands::GivenUp(entry) => format!("given up by entry {entry}"),
    }
}

fn next(context: &Context, wrong: Wrong) -> Vec<String> {
    const APPLY: &str = "--apply --by PERSON --reason TEXT";
    let recover = |words: &str| config_file::command(context, &format!("hallpass admin store recover {words}"));
    match wrong {
        Wrong::Begun => vec![recover(APPLY)],
        Wrong::Behind | Wrong::Other => vec![
            "look for a newer copy of the database first, and put that back".to_owned(),
            format!("with several nodes, or an auditor's checkpoint: {}", recover("--head FILE")),
            format!("if nothing newer is left: {}", recover(APPLY)),
        ],
        Wrong::Unusable => vec![
            "if you know that the database is the newest, and only this file is damaged: move the file away, and start the service".to_owned(),
            format!("a checkpoint of another node, or an auditor's: {}", recover("--head FILE")),
            format!("or the highest serial in any host's log: {}", recover(&format!("--past SERIAL {APPLY}"))),
        ],
        Wrong::Missing => vec![
            "if you know that it is the newest: start the service".to_owned(),
            format!("if it is not: {}", recover(&format!("--past SERIAL {APPLY}"))),
        ],
        Wrong::GivenUp => vec!["start the service".to_owned()],
        Wrong::Nothing => Vec::new(),
    }
}

/// What was done.
pub(super) fn applied(context: &Context, found: &Found, done: &Recovered) -> Result<(), Failure> {
    let Recovered { kept, lost, ended, entry, size } = done;
    let requests = counted(usize::try_from(*ended).unwrap_or(usize::MAX), "request");
    let text = match entry {
        Some(entry) => format!(
            "the log goes on: {kept} entries kept, {lost} given up, {requests} ended, everybody is logged out\n  \
             entry {entry} says so; the log has {size} entries, and its checkpoint is kept"
        ),
        None => format!("the lost entries were given up before; the checkpoint of {size} entries is kept"),
    };
    context.out.answer(&document(found, None, Some(done)), &text)?;
    for line in AFTERWARDS {
        context.out.note(line);
    }
    Ok(())
}

const AFTERWARDS: [&str; 4] = [
    "next: start the service, and look at what the copy did not know: hallpass policy show, ca ls, admin host ls, admin join ls",
    "certificates of the lost entries open hosts to the end of their window; to stop that now: hallpass ca compromise KEY",
    "hosts that have a newer trust bundle keep it until a step of a rotation makes a newer one: hallpass ca ls",
    "tell the auditors: a checkpoint of the lost entries does not fit any more, and the log says why",
];

fn document(found: &Found, writes: Option<(u64, u64)>, done: Option<&Recovered>) -> Value {
    let head = |head: &FoundHead| {
        let (word, number, why) = match &head.stands {
            Stands::Missing => ("missing", None, None),
            Stands::Unusable(why) => ("unusable", None, Some(why)),
            Stands::Covered(size) => ("covered", Some(size), None),
            Stands::Behind(size) => ("behind", Some(size), None),
            Stands::Other(size) => ("other", Some(size), None),
            Stands::GivenUp(entry) => ("given_up", Some(entry), None),
        };
        json!({ "place": head.place, "stands": word, "number": number, "why": why })
    };
    let applied =
        done.map(|done| json!({ "lost": done.lost, "ended": done.ended, "entry": done.entry, "entries": done.size }));
    json!({
        "schema": "hallpass.store-recover.v1",
        "wrong": found.wrong().word(),
        "entries": found.size,
        "last": found.last.to_string(),
        "kept": found.kept(),
        "missing": missing(found).map(|(first, last)| json!({ "first": first, "last": last })),
        "heads": found.heads.iter().map(head).collect::<Vec<Value>>(),
        "open": found.open,
        "past": writes.map(|(past, writes)| json!({ "serial": past, "writes": writes })),
        "clock_behind": clock_behind(found),
        "applied": applied,
    })
}

/// How many serials would be given up of which no checkpoint knows.
pub(super) fn beyond(found: &Found, writes: u64) -> u64 {
    writes.saturating_sub(found.longest().unwrap_or(found.size).saturating_sub(found.size))
}

/// `3968 entries in place of lost ones, less than 1 MB`.
pub(super) fn written(writes: u64) -> String {
    let room = match writes.saturating_mul(LOST_BYTES) / 1_000_000 {
        0 => "less than 1 MB".to_owned(),
        megabytes => format!("some {megabytes} MB"),
    };
    format!("{writes} entries in place of lost ones, {room}")
}

/// `more than 500 requests end`.
pub(super) fn ends(found: &Found) -> String {
    let more = if found.more_open { "more than " } else { "" };
    let verb = if found.open == 1 && !found.more_open { "ends" } else { "end" };
    format!("{more}{} {verb}", counted(found.open, "request"))
}

/// `1 request`, `2 requests`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
