//! The clock of the running program is set between approval and issue: an hour back, an hour ahead, and it stands still. A certificate is
//! valid for its approved window or there is none, and log time never runs backwards.

use std::path::Path;
use std::process::Command;

use hallpass::client::ClientError;
use hallpass::name::RequestId;
use hallpass::ssh::cert::Certificate;
use hallpass::wire;

use super::checker::Checker;
use super::load::{Fact, bytes_of};
use super::server::{Server, Site};
use super::story::{ALICE, BOB, Connection, PEOPLE};
use crate::enrolment::service::fake_time;

/// A clock that can be set while a program lives by it.
struct Dial<'s>(&'s Site);

impl Dial<'_> {
    /// `+0s`, `-1h`, or a moment at which it stands still.
    fn set(&self, to: &str) {
        let new = self.0.path("clock.new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path("clock")
    }

    fn serve(&self) -> Server {
        self.0.start_with(|command| {
            fake_time(command, "+0s");
            live_by(command, &self.file());
        })
    }
}

/// The file is read at each look at the clock.
fn live_by(command: &mut Command, file: &Path) {
    command.env_remove("FAKETIME").env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1").env("TZ", "UTC");
}

async fn connect(server: &Server, tokens: std::collections::BTreeMap<&'static str, String>) -> Connection {
    Connection::to(server.url.as_ref().unwrap(), tokens).await.unwrap()
}

/// The status of a refusal, and what it says.
fn refused(outcome: Result<wire::Certificate, ClientError>) -> (u16, String) {
    match outcome {
        Err(ClientError::Problem(problem)) => (problem.status, format!("{} {}", problem.title, problem.why.join(" "))),
        other => panic!("{other:?}"),
    }
}

/// Asks with this key and has it approved.
async fn approved(connection: &Connection, key: u32, facts: &mut Vec<Fact>) -> RequestId {
    let asked = connection.ask_with("web-1", bytes_of(key)).await.unwrap();
    let id = RequestId::parse(&asked.id).unwrap();
    facts.push(Fact::asked(key, id));
    assert!(connection.approve(id).await.unwrap().approved_by.contains(&BOB.to_owned()));
    id
}

/// The log's members of this kind about a request.
async fn logged(connection: &Connection, id: RequestId, kind: &str) -> Vec<serde_json::Value> {
    let entries = connection.log().await.unwrap().0;
    let parsed = entries.iter().map(|entry| serde_json::from_str::<serde_json::Value>(entry).unwrap());
    parsed.filter(|entry| entry["kind"] == kind && entry["request"] == id.to_string()).collect()
}

/// Fetches a certificate, which is valid for exactly what was granted.
async fn fetched(connection: &Connection, key: u32, id: RequestId, facts: &mut Vec<Fact>) {
    let line = connection.fetch(id).await.unwrap().certificate;
    let window = Certificate::parse_openssh(&line).unwrap().tbs().fields().window;
    let granted = logged(connection, id, "granted").await;
    assert_eq!(granted.len(), 1);
    assert_eq!(granted[0]["window"]["start"], window.start().unix());
    assert_eq!(granted[0]["window"]["end"], window.end().unix());
    facts.push(Fact { certificate: Some(line), ..Fact::asked(key, id) });
}

#[tokio::test]
async fn a_clock_that_is_set_between_approval_and_issue_moves_no_window_and_signs_nothing() {
    let site = Site::new();
    let dial = Dial(&site);
    dial.set("+0s");
    let server = dial.serve();
    let mut connection = connect(&server, std::collections::BTreeMap::new()).await;
    for (who, n) in PEOPLE {
        connection.login(who, n).await.unwrap();
    }
    let mut facts = Vec::new();
    // An hour back and an hour ahead, while it runs: nothing is signed and nothing written; set right, it is as if nothing had been.
    for (key, wrong) in [(0, "-1h"), (1, "+1h")] {
        let id = approved(&connection, key, &mut facts).await;
        let before = connection.log().await.unwrap().0.len();
        dial.set(wrong);
        let (status, said) = refused(connection.fetch(id).await);
        assert!(status == 503 && said.contains("clock"), "{wrong}: {status} {said}");
        assert!(connection.ask_with("web-1", bytes_of(100 + key)).await.is_err());
        let ready = connection.client(None).get::<wire::Problem>("/readyz").await;
        assert!(matches!(&ready, Err(ClientError::Problem(problem)) if problem.status == 503), "{wrong}: {ready:?}");
        assert_eq!(connection.log().await.unwrap().0.len(), before, "nothing lapses, expires or is signed");
        dial.set("+0s");
        fetched(&connection, key, id, &mut facts).await;
    }
    // It stands still at the moment of the approval: the window is that of the approval.
    let id = approved(&connection, 2, &mut facts).await;
    let at = logged(&connection, id, "granted").await[0]["at"].as_u64().unwrap();
    let still = hallpass::time::Timestamp::from_unix(at).unwrap().to_string().replace('T', " ").replace('Z', "");
    dial.set(&still);
    fetched(&connection, 2, id, &mut facts).await;
    dial.set("+0s");

    // A start on a clock that is an hour back: it is behind its log, and nothing is signed.
    let id = approved(&connection, 3, &mut facts).await;
    server.kill();
    dial.set("-1h");
    let server = dial.serve();
    let connection = connect(&server, connection.tokens).await;
    let (status, said) = refused(connection.fetch(id).await);
    let ready = connection.client(None).get::<wire::Problem>("/readyz").await;
    assert!(
        matches!(&ready, Err(ClientError::Problem(problem)) if problem.why.join(" ").contains("behind its log")),
        "{ready:?}"
    );
    assert_eq!(status, 503, "{said}");
    assert!(logged(&connection, id, "certificate_to_be_signed").await.is_empty());
    server.kill();
    // On one that is right: as if nothing had been.
    dial.set("+0s");
    let server = dial.serve();
    let connection = connect(&server, connection.tokens).await;
    fetched(&connection, 3, id, &mut facts).await;
    // On one that is an hour ahead: the window of twenty minutes is over, and stays where it was.
    let id = approved(&connection, 4, &mut facts).await;
    server.kill();
    dial.set("+1h");
    let server = dial.serve();
    let connection = connect(&server, connection.tokens).await;
    let (status, said) = refused(connection.fetch(id).await);
    assert!((400..500).contains(&status), "{status} {said}");
    assert!(logged(&connection, id, "certificate_to_be_signed").await.is_empty());
    assert_eq!(connection.look(ALICE, id).await.unwrap().state, "expired");

    let checker = Checker::read(&connection, Vec::new()).await;
    server.kill();
    println!("{}", checker.check(&facts, Some(&site.path("hallpass.db"))));
}
