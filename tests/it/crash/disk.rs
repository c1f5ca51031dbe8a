//! The disk fails, file by file, while clients are served: nothing is claimed that is not there afterwards, nothing is handed out while it
//! can't be written down, and service comes back by itself.
//!
//! Each test goes through the same: the fault begins under load and ends again; it begins once more and the program is killed in the middle
//! of it; then the power fails, so that all is gone that no sync has brought to the disk. At the end everything that any client was told is
//! compared with the log and the database.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use hallpass::client::ClientError;
use hallpass::wire;

use super::checker::Checker;
use super::load::Load;
use super::server::{Server, Site};
use super::shim::{EIO, EMFILE, ENOSPC, Rule, Shim};

/// What a fault stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// Nothing can be written down: nothing changes.
    Changes,
    /// What was signed last can't be kept apart: no certificate leaves.
    Certificates,
    /// Nothing, as far as clients can see.
    Nothing,
}

/// A service on a disk that can fail, under load.
struct Stand {
    site: Site,
    shim: Shim,
    server: Server,
    load: Load,
}

fn serve(site: &Site, shim: &Shim) -> Server {
    site.start_with(|command| shim.wrap(command))
}

impl Stand {
    async fn start() -> Self {
        let site = Site::new();
        let shim = Shim::new(&site.path(""));
        let server = serve(&site, &shim);
        let load = Load::start(&server).await;
        load.works(8).await;
        Self { site, shim, server, load }
    }

    async fn start_again(&mut self) {
        self.server = serve(&self.site, &self.shim);
        assert!(self.server.url.is_some(), "it starts again");
        self.load.call(&self.server).await;
    }

    /// What `/readyz` says is missing.
    async fn missing(&self) -> Option<Box<wire::Problem>> {
        match self.load.connection().client(None).get::<wire::Problem>("/readyz").await {
            Err(ClientError::Problem(problem)) => Some(problem),
            Err(ClientError::Protocol(_no_json)) => None,
            other => panic!("{other:?}"),
        }
    }

    async fn until_ready(&self, is_ready: bool) {
        while self.missing().await.is_none() != is_ready {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn entries(&self) -> Vec<String> {
        self.load.connection().log().await.unwrap().0
    }

    /// How many entries the checkpoint that is kept apart covers.
    fn kept(&self) -> u64 {
        let size = |note: String| note.lines().nth(1).unwrap().parse().unwrap();
        self.site.kept().into_iter().map(size).max().unwrap()
    }

    /// Every certificate that anybody has is covered by what is kept apart.
    fn check_kept(&self) {
        let newest = self.load.facts().iter().filter_map(super::load::Fact::serial).max();
        assert!(newest.unwrap() < self.kept(), "a certificate left before it was kept");
    }

    /// The fault is there: whoever asks is told, and what must stop has stopped.
    async fn bear(&self, stops: Stops) {
        if stops == Stops::Nothing {
            self.shim.hit(2).await;
            self.load.works(8).await;
            return self.check_kept();
        }
        self.until_ready(false).await;
        let before = self.entries().await;
        self.load.fail(40).await;
        let problem = self.missing().await.expect("it says that it can't issue");
        assert!(problem.status == 503 && problem.retryable, "{problem:?}");
        self.check_kept();
        // What clients have by now was in the log before, with its outcome: nothing was handed out since.
        let signed: BTreeSet<u64> = before
            .iter()
            .map(|entry| serde_json::from_str::<serde_json::Value>(entry).unwrap())
            .filter(|entry| entry["kind"] == "certificate_signed")
            .map(|entry| entry["serial"].as_u64().unwrap())
            .collect();
        let facts = self.load.facts();
        assert!(facts.iter().filter_map(super::load::Fact::serial).all(|serial| signed.contains(&serial)));
        if stops == Stops::Changes {
            assert_eq!(self.entries().await.len(), before.len(), "nothing was written");
        }
    }
}

/// Goes through all of it with these calls failing, each `every`-th.
async fn go_through(rules: &[Rule], every: u32, stops: Stops) {
    let mut stand = Stand::start().await;
    stand.shim.fail(rules, every);
    stand.bear(stops).await;
    stand.shim.mend();
    let recovered = stand.load.works(8).await;
    stand.until_ready(true).await;
    let kept = stand.site.kept();

    stand.shim.fail(rules, every);
    stand.shim.hit(3).await;
    stand.server.kill_now();
    stand.shim.mend();
    stand.start_again().await;
    let restarted = stand.load.works(12).await;

    stand.server.kill_now();
    let lost: u64 =
        ["hallpass.db-wal", "log-1.head"].map(|name| stand.shim.power_fails(&stand.site.path(name))).into_iter().sum();
    stand.start_again().await;
    stand.load.works(4).await;
    let Stand { site, shim, server, load } = stand;
    let (connection, facts) = load.finish().await;
    let checker = Checker::read(&connection, kept).await;
    server.kill();
    let shown = checker.check(&facts, Some(&site.path("hallpass.db")));
    println!(
        "{rules:?}: {} calls failed, {lost} bytes lost with the power; first certificate {} ms after the fault, {} ms after a start; {shown}",
        shim.hits(),
        recovered.as_millis(),
        restarted.as_millis()
    );
}

/// One test per fault.
macro_rules! faults {
    ($($test:ident [$($rule:expr),+] $every:literal $stops:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            go_through(&[$($rule),+], $every, Stops::$stops).await;
        })*
    };
}

faults! {
    a_log_that_cannot_be_written [("pwrite", "hallpass.db-wal", EIO)] 1 Changes
    a_log_with_no_space_left [("pwrite", "hallpass.db-wal", ENOSPC)] 1 Changes
    a_log_that_cannot_be_synced [("fsync", "hallpass.db-wal", EIO)] 1 Changes
    a_log_whose_every_third_sync_fails [("fsync", "hallpass.db-wal", EIO)] 3 Nothing
    a_log_whose_every_hundredth_write_fails [("pwrite", "hallpass.db-wal", EIO)] 100 Nothing
    a_database_that_cannot_be_written [("pwrite", "hallpass.db", EIO)] 1 Nothing
    a_database_with_no_space_left [("pwrite", "hallpass.db", ENOSPC)] 1 Nothing
    a_checkpoint_with_no_space_left [("pwrite", "log-1.head", ENOSPC), ("write", ".log-1.head.*.tmp", ENOSPC)] 1 Certificates
    a_checkpoint_that_cannot_be_opened [("pwrite", "log-1.head", EIO), ("open", ".log-1.head.*.tmp", EMFILE)] 1 Certificates
    a_checkpoint_that_cannot_be_synced [("fsync", "log-1.head", EIO), ("fsync", ".log-1.head.*.tmp", EIO)] 1 Certificates
    a_checkpoint_whose_syncs_in_place_fail [("fsync", "log-1.head", EIO)] 1 Nothing
    a_checkpoint_whose_every_third_write_in_place_fails [("pwrite", "log-1.head", EIO)] 3 Nothing
    a_checkpoint_that_cannot_take_its_place [("pwrite", "log-1.head", EIO), ("rename", ".log-1.head.*.tmp", EIO)] 1 Certificates
    a_folder_that_cannot_be_synced [("pwrite", "log-1.head", EIO), ("fsync", ".tmp??????", EIO)] 1 Certificates
    a_disk_that_is_full [("pwrite", "hallpass.db*", ENOSPC), ("pwrite", "log-1.head", ENOSPC), ("write", ".log-1.head.*.tmp", ENOSPC)] 1 Changes
}

impl Stand {
    /// What a probe says.
    fn told(&self, path: &str) -> String {
        let url = format!("{}{path}", self.server.url.as_ref().unwrap());
        let output = Command::new("curl").args(["-sk", "--max-time", "20", &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until whoever watches is told that the database file is unwell, or well; gives what `/readyz` says.
    async fn until_file(&self, is_well: bool) -> String {
        let figure = format!("\nhallpass_store_file_up {}\n", u8::from(is_well));
        loop {
            let ready = self.told("/readyz");
            if self.told("/metrics").contains(&figure) && ready.contains("warning: the database file") != is_well {
                return ready;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_file_that_takes_nothing_any_more_is_told_while_everything_goes_on() {
    let stand = Stand::start().await;
    stand.until_file(true).await;
    for rule in [("pwrite", "hallpass.db", EIO), ("pwrite", "hallpass.db", ENOSPC)] {
        stand.shim.fail(&[rule], 1);
        let ready = stand.until_file(false).await;
        assert!(ready.starts_with("ready\nwarning: the database file can't be written ("), "{ready}");
        assert!(!ready.contains("hallpass.db"), "it names no path: {ready}");
        stand.load.works(4).await;
        stand.shim.mend();
        stand.until_file(true).await;
    }
    stand.check_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_sync_of_the_database_file_that_failed_all_is_in_the_write_ahead_log_until_a_start_merges_it() {
    let mut stand = Stand::start().await;
    let (database, log) = (stand.site.path("hallpass.db"), stand.site.path("hallpass.db-wal"));
    for _ in 0..2 {
        stand.until_file(true).await;
        // Also with much that was merged before.
        stand.load.works(40).await;
        stand.shim.fail(&[("fsync", "hallpass.db", EIO)], 1);
        let ready = stand.until_file(false).await;
        assert!(ready.starts_with("ready\nwarning: the database file can't be synced ("), "{ready}");
        stand.shim.mend();
        stand.load.works(40).await;
        stand.check_kept();
        // The disk is well again; what it has lost is not.
        assert!(stand.told("/readyz").contains("restart the service"));
        stand.server.kill_now();
        let lost = stand.shim.power_fails(&database) + stand.shim.power_fails(&log);
        println!("{lost} bytes lost with the power");
        stand.start_again().await;
        stand.load.works(12).await;
    }
    let Stand { site, server, load, .. } = stand;
    let (connection, facts) = load.finish().await;
    let checker = Checker::read(&connection, Vec::new()).await;
    server.kill();
    checker.check(&facts, Some(&site.path("hallpass.db")));
}

/// Of the two that are kept, the power takes the one that was not synced, and what was handed out rests on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_checkpoint_that_is_lost_with_the_power_leaves_the_one_before() {
    let mut stand = Stand::start().await;
    stand.load.works(8).await;
    for rules in [
        [("fsync", "log-1.head", EIO), ("open", ".log-1.head.*.tmp", EIO)],
        [("pwrite", "log-1.head", EIO), ("open", ".log-1.head.*.tmp", EIO)],
    ] {
        stand.shim.fail(&rules, 1);
        stand.until_ready(false).await;
        stand.server.kill_now();
        stand.shim.mend();
        let lost = stand.shim.power_fails(&stand.site.path("log-1.head"));
        assert!(rules[0].0 == "pwrite" || lost > 0, "{lost} bytes lost with the power");
        stand.check_kept();
        stand.start_again().await;
        stand.load.works(8).await;
        stand.until_ready(true).await;
    }
    // A start that finds what was written and not synced keeps it anew before it serves anybody.
    stand.shim.fail(&[("fsync", "log-1.head", EIO), ("open", ".log-1.head.*.tmp", EIO)], 1);
    stand.until_ready(false).await;
    stand.server.kill_now();
    stand.shim.mend();
    let found = stand.site.kept();
    serve(&stand.site, &stand.shim).kill_now();
    assert!(stand.site.kept().len() == 1 && found.len() == 2, "it is another file");
    assert_eq!(stand.shim.power_fails(&stand.site.path("log-1.head")), 0);
    stand.check_kept();
    stand.start_again().await;
    stand.load.works(8).await;
    let Stand { site, server, load, .. } = stand;
    let (connection, facts) = load.finish().await;
    let checker = Checker::read(&connection, site.kept()).await;
    server.kill();
    checker.check(&facts, Some(&site.path("hallpass.db")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_taken_away_under_the_service_gets_nothing_that_would_be_lost() {
    let stand = Stand::start().await;
    for name in ["hallpass.db", "hallpass.db-wal"] {
        let (place, aside) = (stand.site.path(name), stand.site.path("aside"));
        std::fs::rename(&place, &aside).unwrap();
        stand.bear(Stops::Changes).await;
        // Nor does what looks the same take its place.
        std::fs::copy(&aside, &place).unwrap();
        stand.load.fail(20).await;
        assert!(stand.missing().await.is_some());
        std::fs::rename(&aside, &place).unwrap();
        stand.load.works(8).await;
        stand.until_ready(true).await;
    }
    let Stand { site, server, load, .. } = stand;
    let (connection, facts) = load.finish().await;
    let checker = Checker::read(&connection, Vec::new()).await;
    server.kill();
    checker.check(&facts, Some(&site.path("hallpass.db")));
}

#[test]
fn a_start_that_the_disk_fails_says_so_and_ends_and_the_next_goes_on() {
    let site = Site::new();
    let shim = Shim::new(&site.path(""));
    serve(&site, &shim).kill();
    let faults: [(&[Rule], &str); 9] = [
        (&[("open", "hallpass.db.lock", EIO)], "opening the database"),
        (&[("open", "hallpass.db", EMFILE)], "opening the database"),
        (&[("pwrite", "hallpass.db-wal", ENOSPC)], "writing the write-ahead log"),
        (&[("fsync", "hallpass.db-wal", EIO)], "writing the write-ahead log"),
        (&[("open", "hallpass.db-shm", EIO)], "opening the database"),
        (&[("pwrite", "hallpass.db-shm", ENOSPC)], "the database failed"),
        (&[("open", "log-1.head", EIO)], "cannot start the service"),
        (&[("fsync", ".log-1.head.*.tmp", EIO)], "keeping the log's checkpoint"),
        (&[("write", ".ready.*.tmp", ENOSPC)], "cannot write"),
    ];
    for (rules, why) in faults {
        shim.fail(rules, 1);
        let server = site.start_with(|command| {
            shim.wrap(command);
            command.arg("--ready-file").arg(site.path("ready"));
        });
        let (code, said) = server.ended();
        assert!(code == Some(1) && said.contains(why), "{rules:?}: {code:?} {said}");
        assert!(!site.path("ready").exists());
        shim.mend();
        let server = serve(&site, &shim);
        assert!(server.url.is_some(), "{rules:?}");
        server.kill();
    }
}
