//! The way back: takes back a change that did not hold, and everything when the host leaves.
//!
//! Order: the daemon stops; sshd's own files come back first and sshd reads them, so that it trusts nothing more before the rest goes;
//! then PAM's line, our files, folders and accounts. Each step may have been done before: after a crash all of them are done again.

use super::ledger::Ledger;
use super::machine;
use super::memory::{Memory, Which};
use super::places;
use super::sshd::{Sshd, Told};
use crate::fail;

/// What taking back could not finish. Everything else was done.
pub type Left = Vec<String>;

/// Whether sshd reads this file only when it is told to.
fn is_sshds(path: &str) -> bool {
    path == places::SSHD_CONFIG || path == places::ASIDE || path.starts_with(places::DROP_IN_FOLDER)
}

/// Takes back what a ledger is about. The ledger itself is forgotten by the caller, when nothing is left.
pub async fn take_back(memory: &Memory, which: Which, ledger: &Ledger, sshd: &Sshd) -> Left {
    let mut left = Vec::new();
    let mut note = |outcome: Result<(), String>| left.extend(outcome.err());
    // A change starts the daemon only once it holds.
    if ledger.has_unit && which == Which::Enrolment {
        note(machine::stop_unit().await);
    }
    note(memory.restore(which, ledger, is_sshds));
    fail::point("enrolment.sshd.restored");
    match sshd.reload().await {
        Ok(Told::By(_) | Told::NotRunning) => {}
        Err(why) => note(Err(format!("sshd was not told to read its configuration again: {why}"))),
    }
    note(memory.restore(which, ledger, |path| !is_sshds(path)));
    if ledger.has_unit {
        machine::forget_unit().await;
    }
    for account in &ledger.accounts {
        note(machine::remove_account(account).await);
        fail::point("enrolment.account.removed");
    }
    note(memory.remove_folders(ledger));
    left
}
