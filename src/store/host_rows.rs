//! What a host told of itself last ↔ JSON; unknown fields are refused, and each value is parsed again when it is read (P10).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::inventory::check_in::CheckIn;
use crate::inventory::double::Runs;
use crate::name::Digest;
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// The version of this format.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckInRow {
    v: u8,
    program: String,
    sshd: String,
    os: String,
    guard: bool,
    file_sha256: String,
    keys: BTreeSet<String>,
    proven: BTreeSet<String>,
    clock_ms: i64,
    risky: BTreeSet<String>,
    sessions: u64,
    /// Later than the others, as what follows: a row of before has none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    shows: BTreeSet<String>,
    #[serde(default)]
    runs: RunsRow,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsRow {
    now: Option<String>,
    before: Vec<(String, u64)>,
    doubled: Option<u64>,
}

/// The check-in as JSON.
///
/// # Errors
/// [`StoreError::Failed`], which would be a program error.
pub(super) fn to_json(check_in: &CheckIn) -> Result<String, StoreError> {
    let CheckIn { program, sshd, os, guard, file_sha256, keys, proven, clock_ms, risky, sessions, runs, shows } =
        check_in.clone();
    let texts = |keys: BTreeSet<Fingerprint>| keys.iter().map(ToString::to_string).collect();
    let row = CheckInRow {
        v: FORMAT,
        program,
        sshd,
        os,
        guard,
        file_sha256: file_sha256.to_string(),
        keys: texts(keys),
        proven: texts(proven),
        shows: texts(shows),
        clock_ms,
        risky,
        sessions,
        runs: RunsRow {
            now: runs.now.map(|run| run.to_string()),
            before: runs.before.iter().map(|(run, left)| (run.to_string(), left.unix())).collect(),
            doubled: runs.doubled.map(Timestamp::unix),
        },
    };
    serde_json::to_string(&row)
        .map_err(|error| StoreError::Failed { doing: "writing a check-in as JSON", why: error.to_string() })
}

/// The check-in that this JSON text holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn from_json(text: &str) -> Result<CheckIn, String> {
    let row: CheckInRow = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if row.v != FORMAT {
        return Err(format!("its format is {}, this program knows {FORMAT}", row.v));
    }
    let keys = |list: &BTreeSet<String>| -> Result<BTreeSet<Fingerprint>, String> {
        list.iter().map(|text| Fingerprint::parse(text).map_err(|error| error.to_string())).collect()
    };
    Ok(CheckIn {
        file_sha256: Digest::parse(&row.file_sha256).map_err(|error| error.to_string())?,
        keys: keys(&row.keys)?,
        proven: keys(&row.proven)?,
        shows: keys(&row.shows)?,
        program: row.program,
        sshd: row.sshd,
        os: row.os,
        guard: row.guard,
        clock_ms: row.clock_ms,
        risky: row.risky,
        sessions: row.sessions,
        runs: runs(row.runs)?,
    })
}

fn runs(row: RunsRow) -> Result<Runs, String> {
    let run = |text: String| Digest::parse(&text).map_err(|error| error.to_string());
    let time = |seconds: u64| Timestamp::from_unix(seconds).map_err(|error| error.to_string());
    let before = row.before.into_iter().map(|(text, left)| Ok::<_, String>((run(text)?, time(left)?)));
    Ok(Runs {
        now: row.now.map(run).transpose()?,
        before: before.collect::<Result<_, _>>()?,
        doubled: row.doubled.map(time).transpose()?,
    })
}
