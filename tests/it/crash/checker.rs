//! Hands the ledger of the clients to the checker (`checker.py`), which shares no code with the service.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::load::Fact;
use super::server::Site;
use super::story::Connection;

/// Compares what was told with the log as the service gives it, and, when it has ended, with its database.
pub(super) struct Checker {
    /// The log, as it was shown last.
    entries: Vec<String>,
    checkpoint: String,
    log_key: String,
    /// Earlier checkpoints.
    kept: Vec<String>,
}

impl Checker {
    /// Reads the log.
    pub(super) async fn read(connection: &Connection, kept: Vec<String>) -> Self {
        let (entries, checkpoint, log_key) = connection.log().await.unwrap();
        Self { entries, checkpoint, log_key, kept }
    }

    /// Compares; gives the figures. `database`: a SQLite file that nobody writes any more.
    pub(super) fn check(&self, facts: &[Fact], database: Option<&Path>) -> String {
        self.compare(facts, database).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The figures, or what is wrong.
    fn compare(&self, facts: &[Fact], database: Option<&Path>) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let copy = database.map(|database| {
            // A copy: who opens it merges the write-ahead log into it.
            for suffix in ["", "-wal"] {
                let from = format!("{}{suffix}", database.display());
                if Path::new(&from).exists() {
                    std::fs::copy(from, folder.path().join(format!("copy.db{suffix}"))).unwrap();
                }
            }
            folder.path().join("copy.db")
        });
        let given = json!({
            "log_key": self.log_key,
            "ca": Site::user_ca(),
            "entries": self.entries,
            "checkpoint": self.checkpoint,
            "kept": self.kept,
            "facts": facts.iter().map(Fact::to_json).collect::<Vec<_>>(),
            "database": copy,
        });
        let path = folder.path().join("given.json");
        std::fs::write(&path, given.to_string()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/crash/checker.py");
        let output = Command::new("python3").arg("-B").arg(script).arg(&path).output().unwrap();
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said).trim().to_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}

/// A checker that finds nothing would be of no use: each lie about the same log is found.
#[tokio::test]
async fn the_checker_finds_what_is_lost_doubled_or_unlogged() {
    let site = Site::new();
    let server = site.start(None);
    let mut connection = Connection::to(server.url.as_ref().unwrap(), std::collections::BTreeMap::new()).await.unwrap();
    for (who, n) in super::story::PEOPLE {
        connection.login(who, n).await.unwrap();
    }
    let mut facts = Vec::new();
    for key in 0..3 {
        let asked = connection.ask_with("dev-1", super::load::bytes_of(key)).await.unwrap();
        let id = hallpass::name::RequestId::parse(&asked.id).unwrap();
        facts.push(Fact::asked(key, id));
        facts.push(Fact { certificate: Some(connection.fetch(id).await.unwrap().certificate), ..Fact::asked(key, id) });
    }
    let mut checker = Checker::read(&connection, Vec::new()).await;
    server.kill();
    let database = site.path("hallpass.db");
    let shown = checker.check(&facts, Some(&database));
    assert!(shown.contains("3 requests and 3 certificates"), "{shown}");

    let refused = |checker: &Checker, facts: &[Fact]| checker.compare(facts, None).expect_err("the lie is found");
    // A certificate with another's request; one with a bit changed; an end that nobody logged; one request for two keys.
    let swapped = Fact { certificate: facts[3].certificate.clone(), ..Fact::asked(0, facts[0].id) };
    assert!(refused(&checker, &[swapped]).contains("holds other bytes"));
    let other = hallpass::ssh::private::SessionKey::generate([9; 32]).public_key().to_openssh();
    let unsigned = Fact { certificate: Some(other), ..Fact::asked(0, facts[0].id) };
    assert!(refused(&checker, &[unsigned]).contains("another kind of certificate"));
    let ended = Fact { ended: true, ..Fact::asked(0, facts[0].id) };
    assert!(refused(&checker, &[ended]).contains("0 times"));
    assert!(refused(&checker, &[Fact::asked(1, facts[0].id)]).contains("another key"));
    assert!(refused(&checker, &[facts[0].clone(), Fact::asked(0, facts[2].id)]).contains("two requests"));
    // An entry less, and one that was changed.
    let last = checker.entries.pop().unwrap();
    assert!(refused(&checker, &facts).contains("the log lost some"));
    checker.entries.push(last.replace("\"at\":1", "\"at\":2"));
    assert!(refused(&checker, &facts).contains("root"));
}
