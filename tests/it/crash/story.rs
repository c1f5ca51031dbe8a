//! The story, the client that tells it, and the runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hallpass::client::{Client, ClientError, Server as Address, fetch_pin};
use hallpass::identity::challenge::statement;
use hallpass::name::RequestId;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::LOGIN_NAMESPACE;
use hallpass::wire;
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::server::{PUBLIC_URL, Server, Site};
use crate::hosts::machine::Machine;
use crate::support::fixtures::House;
use crate::support::postgres::cluster;

/// How long a call may take on a busy machine. No call waits for anything but the disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who there is, with the number of their login key (`support::fixtures`).
pub(super) const PEOPLE: [(&str, u8); 3] = [("alice@example.com", 1), ("bob@example.com", 3), ("olga@example.com", 5)];
pub(super) const ALICE: &str = PEOPLE[0].0;
pub(super) const BOB: &str = PEOPLE[1].0;
pub(super) const OLGA: &str = PEOPLE[2].0;

/// A client of one server, with its sessions.
#[derive(Clone)]
pub(super) struct Connection {
    address: Address,
    pub(super) tokens: BTreeMap<&'static str, String>,
}

impl Connection {
    pub(super) async fn to(url: &str, tokens: BTreeMap<&'static str, String>) -> Result<Self, ClientError> {
        let pin = fetch_pin(url, None, PATIENCE).await?;
        Ok(Self { address: Address { url: url.to_owned(), pin: Some(pin), proxy: None }, tokens })
    }

    pub(super) fn client(&self, who: Option<&str>) -> Client {
        let token = who.map(|who| SecretString::from(self.tokens[who].clone()));
        Client::new(self.address.clone(), token, PATIENCE).unwrap()
    }

    pub(super) fn host(&self, token: &str) -> Client {
        Client::new(self.address.clone(), Some(SecretString::from(token)), PATIENCE).unwrap()
    }

    /// Logs in and keeps the token.
    pub(super) async fn login(&mut self, who: &'static str, n: u8) -> Result<(), ClientError> {
        let pem = SessionKey::generate([n; 32]).to_openssh("login").unwrap();
        let key = LoginKey::parse(pem.as_bytes(), None).unwrap();
        let anyone = self.client(None);
        let challenge: wire::Challenge = anyone.post("/v1/login/challenge", &serde_json::json!({})).await?;
        let person = crate::support::fixtures::person(who);
        let text = statement(PUBLIC_URL, &person, &challenge.challenge);
        let answer = wire::LoginAnswer {
            person: who.to_owned(),
            challenge: challenge.challenge,
            key: key.public_key().to_openssh(),
            signature: key.sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap(),
        };
        let session: wire::NewSession = anyone.post("/v1/login/ssh", &answer).await?;
        self.tokens.insert(who, session.token.to_string());
        Ok(())
    }

    async fn ask(&self, host: &str, key: u8) -> Result<wire::Request, ClientError> {
        self.ask_with(host, [key; 32]).await
    }

    /// Asks for a host with a key made of these bytes.
    pub(super) async fn ask_with(&self, host: &str, key: [u8; 32]) -> Result<wire::Request, ClientError> {
        let ask = wire::Ask {
            targets: vec![host.to_owned()],
            account: Some("deploy".to_owned()),
            lifetime: Some("20m".to_owned()),
            reason: "INC-1 the queue grows".to_owned(),
            key: Some(SessionKey::generate(key).public_key().to_openssh()),
            ..wire::Ask::default()
        };
        self.client(Some(ALICE)).post("/v1/requests", &ask).await
    }

    pub(super) async fn look(&self, who: &str, id: RequestId) -> Result<wire::Request, ClientError> {
        self.client(Some(who)).get(&format!("/v1/requests/{id}")).await
    }

    pub(super) async fn act<Q: serde::Serialize + Sync>(
        &self,
        who: &str,
        id: RequestId,
        verb: &str,
        body: &Q,
    ) -> Result<wire::Request, ClientError> {
        self.client(Some(who)).post(&format!("/v1/requests/{id}/{verb}"), body).await
    }

    /// Approves what waits, unless it has been approved.
    pub(super) async fn approve(&self, id: RequestId) -> Result<wire::Request, ClientError> {
        let shown = self.look(BOB, id).await?;
        if shown.state != "pending" && shown.extension.is_none() {
            return Ok(shown);
        }
        let approve = wire::Approve { digest: shown.digest, ..wire::Approve::default() };
        self.act(BOB, id, "approve", &approve).await
    }

    pub(super) async fn fetch(&self, id: RequestId) -> Result<wire::Certificate, ClientError> {
        let path = format!("/v1/requests/{id}/certificate");
        self.client(Some(ALICE)).post(&path, &serde_json::json!({})).await
    }

    /// The whole log, its checkpoint, and the log key.
    pub(super) async fn log(&self) -> Result<(Vec<String>, String, String), ClientError> {
        let client = self.client(Some(OLGA));
        let checkpoint: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
        let mut entries = Vec::new();
        while u64::try_from(entries.len()).unwrap() < checkpoint.size {
            let (from, limit) = (entries.len(), (checkpoint.size - entries.len() as u64).min(1000));
            let more: wire::Entries = client.get(&format!("/v1/log/entries?from={from}&limit={limit}")).await?;
            assert!(!more.entries.is_empty());
            entries.extend(more.entries);
        }
        Ok((entries, checkpoint.checkpoint, checkpoint.log_key))
    }
}

/// Tells the story to a service that may die once.
struct Teller {
    site: Site,
    server: Option<Server>,
    connection: Connection,
    ledger: Ledger,
    deaths: u32,
}

impl Teller {
    /// Starts the service with this fail point; it may die of it right then.
    async fn start(site: Site, point: &str) -> Self {
        let server = site.start(Some(point));
        let address = Address { url: String::new(), pin: None, proxy: None };
        let connection = Connection { address, tokens: BTreeMap::new() };
        let mut teller = Self { site, server: Some(server), connection, ledger: Ledger::default(), deaths: 0 };
        teller.connect().await;
        teller
    }

    /// Connects to the service; starts it anew if it has died.
    async fn connect(&mut self) {
        if let Some(url) = self.server.as_ref().and_then(|server| server.url.clone())
            && let Ok(connection) = Connection::to(&url, self.connection.tokens.clone()).await
        {
            self.connection = connection;
            return;
        }
        self.server.take().unwrap().died();
        self.deaths += 1;
        let server = self.site.start(None);
        let url = server.url.clone().expect("it starts again after a crash");
        self.server = Some(server);
        self.connection = Connection::to(&url, self.connection.tokens.clone()).await.unwrap();
    }

    /// Does something until it is done; a lost connection means that the service died, and that it is to be done again.
    async fn until_done<T>(&mut self, mut act: impl AsyncFnMut(&mut Connection) -> Result<T, ClientError>) -> T {
        loop {
            match act(&mut self.connection).await {
                Ok(done) => return done,
                Err(ClientError::Unreachable { .. }) => self.connect().await,
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    /// Notes what was shown.
    fn saw(&mut self, shown: &wire::Request) -> RequestId {
        let id = RequestId::parse(&shown.id).unwrap();
        self.ledger.states.insert(id, shown.state.clone());
        id
    }

    async fn ask(&mut self, host: &str, key: u8) -> RequestId {
        let shown = self.until_done(async |connection| connection.ask(host, key).await).await;
        let id = self.saw(&shown);
        self.ledger.count(id, "asked");
        id
    }

    async fn approve(&mut self, id: RequestId) {
        let shown = self.until_done(async |connection| connection.approve(id).await).await;
        assert!(shown.approved_by.contains(&BOB.to_owned()), "{shown:?}");
        self.saw(&shown);
        self.ledger.count(id, "approved");
    }

    /// Fetches the certificate twice, and a checkpoint that covers it.
    async fn fetch(&mut self, id: RequestId) {
        for _ in 0..2 {
            let got = self.until_done(async |connection| connection.fetch(id).await).await;
            self.ledger.certificates.push((id, got.certificate));
        }
        self.ledger.count(id, "certificate_to_be_signed");
        let (_, checkpoint, _) = self.until_done(async |connection| connection.log().await).await;
        self.ledger.checkpoints.push(checkpoint);
        let shown = self.until_done(async |connection| connection.look(ALICE, id).await).await;
        assert_eq!(shown.state, "issued");
        self.saw(&shown);
    }

    /// A command that leads to `state`, unless it is there already.
    async fn close(&mut self, who: &'static str, id: RequestId, verb: &str, state: &'static str) {
        let why = wire::Why { reason: "enough".to_owned() };
        let shown = self
            .until_done(async |connection| {
                let shown = connection.look(who, id).await?;
                if shown.state == state {
                    return Ok(shown);
                }
                match verb {
                    "withdraw" => connection.act(who, id, verb, &serde_json::json!({})).await,
                    _ => connection.act(who, id, verb, &why).await,
                }
            })
            .await;
        assert_eq!(shown.state, state);
        self.saw(&shown);
        self.ledger.count(id, state);
    }

    async fn tell(&mut self) {
        for (who, n) in PEOPLE {
            self.until_done(async |connection| connection.login(who, n).await).await;
        }
        let first = self.ask("web-1", 11).await;
        self.approve(first).await;
        self.fetch(first).await;
        self.extend(first).await;
        self.approve(first).await;
        self.fetch(first).await;

        let at_once = self.ask("dev-1", 12).await;
        self.fetch(at_once).await;
        self.close(ALICE, at_once, "end", "ended").await;

        let denied = self.ask("web-2", 13).await;
        self.close(BOB, denied, "deny", "denied").await;
        let withdrawn = self.ask("web-3", 14).await;
        self.close(ALICE, withdrawn, "withdraw", "withdrawn").await;
        self.apply_policy().await;
        self.host().await;
    }

    /// A host joins, has its key certified, logs in to itself and reports a login; each is done again until it is answered.
    async fn host(&mut self) {
        let machine = Machine::new("host-1", &[60]);
        let wish = wire::host::JoinFor { names: vec!["host-*".to_owned()], ..wire::host::JoinFor::default() };
        let join: wire::host::NewJoin = self
            .until_done(async |connection| connection.client(Some(OLGA)).post("/v1/hosts/joins", &wish).await)
            .await;
        // One use: the host that was not told that it has joined comes again with the same token.
        let enrolled: wire::host::Enrolled = self
            .until_done(async |connection| {
                let body = machine.enrolment_by(&connection.client(None), &join.token).await?;
                connection.client(None).post("/v1/hosts/enrol", &body).await
            })
            .await;
        let keys = vec![machine.keys[0].public_key().to_openssh()];
        let wanted = wire::host::CertificatesFor { keys };
        let path = "/v1/hosts/certificates";
        let got: wire::host::HostCertificates =
            self.until_done(async |connection| connection.host(&enrolled.token).post(path, &wanted).await).await;
        assert_eq!(got.certificates.len(), 1);
        let event = wire::host::SessionEvent {
            id: "login".to_owned(),
            kind: "opened".to_owned(),
            serial: 4711,
            key_id: String::new(),
            ca: machine.keys[0].public_key().fingerprint().to_string(),
            account: "deploy".to_owned(),
            from: String::new(),
            at: "2026-01-05T10:00:00Z".to_owned(),
            why: String::new(),
        };
        let report = wire::host::SessionEvents { events: vec![event] };
        let path = "/v1/hosts/sessions";
        let taken: wire::host::Taken =
            self.until_done(async |connection| connection.host(&enrolled.token).post(path, &report).await).await;
        assert_eq!(taken.taken, ["login"]);
    }

    async fn extend(&mut self, id: RequestId) {
        let extend = wire::Extend { lifetime: "10m".to_owned(), reason: "not done yet".to_owned() };
        let shown = self
            .until_done(async |connection| {
                let shown = connection.look(ALICE, id).await?;
                if shown.extension.is_some() { Ok(shown) } else { connection.act(ALICE, id, "extend", &extend).await }
            })
            .await;
        assert!(shown.extension.is_some());
        self.saw(&shown);
        self.ledger.count(id, "extension_asked");
    }

    /// A second policy version; applied once, however often it is sent.
    async fn apply_policy(&mut self) {
        let text = format!("{}\n# reviewed\n", House::text());
        let put = wire::PutPolicy { text: text.clone(), base: None, dry_run: false };
        self.until_done(async |connection| {
            let applied: wire::PolicyApplied = connection.client(Some(OLGA)).put("/v1/policy", &put).await?;
            assert_eq!(applied.version, 2);
            Ok(())
        })
        .await;
    }

    /// Compares everything with the ledger, kills the service, and looks into what it left.
    async fn check(mut self) -> u32 {
        let (entries, checkpoint, log_key) = self.until_done(async |connection| connection.log().await).await;
        self.ledger.check_log(&entries, &checkpoint, &log_key);
        let applied = entries.iter().filter(|entry| entry.contains("\"kind\":\"policy_applied\"")).count();
        assert_eq!(applied, 2, "each policy version once");
        for once in ["host_enrolled", "session_opened", "session_flagged"] {
            let kind = format!("\"kind\":\"{once}\"");
            assert_eq!(entries.iter().filter(|entry| entry.contains(&kind)).count(), 1, "{once} once");
        }
        for (id, state) in self.ledger.states.clone() {
            let shown = self.until_done(async |connection| connection.look(ALICE, id).await).await;
            assert_eq!(shown.state, state, "{id}");
        }
        self.server.take().unwrap().kill();
        self.ledger.check_store(&self.site).await;
        self.deaths
    }
}

/// Runs the story with this point armed at its first pass, its second, and so on, until it is not reached any more.
async fn die_at_every_pass(point: &str, passes_min: u32, site: fn() -> Site) {
    let mut passes = 0;
    loop {
        let armed = format!("{point}:{}", passes + 1);
        let mut teller = Teller::start(site(), &armed).await;
        teller.tell().await;
        match teller.check().await {
            0 => break,
            1 => passes += 1,
            deaths => panic!("{deaths} deaths of {armed}"),
        }
    }
    assert!(passes >= passes_min, "{point} was passed {passes} times only");
}

/// One test per point: each finds its own passes.
/// Those of a host's own side have their runs in `enrolment`, that of a rotation in `cli::rotation`, those of operators' commands in
/// `cli::backup`, that of following other nodes in `crash::nodes`.
fn has_its_own(point: &str) -> bool {
    ["enrolment.", "rotate.", "recover.", "backup.", "restore.", "migrate.", "follow."]
        .iter()
        .any(|of| point.starts_with(of))
}

macro_rules! points {
    ($($test:ident $point:literal $passes_min:literal)*) => {
        $(#[tokio::test]
        async fn $test() {
            die_at_every_pass($point, $passes_min, Site::new).await;
        })*

        #[test]
        fn every_point_has_its_runs() {
            let points: Vec<&str> =
                hallpass::fail::POINTS.iter().copied().filter(|point| !has_its_own(point)).collect();
            assert_eq!(points, [$($point),*]);
        }
    };
}

points! {
    dying_with_a_change_written_loses_and_doubles_nothing "store.change.written" 15
    dying_before_a_commit_loses_and_doubles_nothing "store.commit.before" 15
    dying_after_a_commit_loses_and_doubles_nothing "store.commit.after" 15
    dying_with_a_certificate_to_be_signed_loses_and_doubles_nothing "issue.intent.durable" 3
    dying_with_a_certificate_signed_loses_and_doubles_nothing "issue.signed" 3
    dying_with_a_certificate_recorded_loses_and_doubles_nothing "issue.outcome.durable" 3
    dying_with_a_host_enrolled_loses_and_doubles_nothing "enrol.durable" 1
    dying_with_a_host_certificate_to_be_signed_loses_and_doubles_nothing "host.intent.durable" 1
    dying_with_a_host_certificate_signed_loses_and_doubles_nothing "host.signed" 1
}

/// A node of several. Its own end is the same as with a file; what it leaves of a commit is the server's.
fn node() -> Site {
    Site::of_nodes(cluster().settings(&cluster().database()))
}

#[tokio::test]
async fn dying_before_a_commit_to_a_server_loses_and_doubles_nothing() {
    die_at_every_pass("store.commit.before", 15, node).await;
}

#[tokio::test]
async fn dying_after_a_commit_to_a_server_loses_and_doubles_nothing() {
    die_at_every_pass("store.commit.after", 15, node).await;
}

/// Eight clients ask and fetch at once, so that commits are shared; the service is killed from outside in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_amid_shared_commits_loses_and_doubles_nothing() {
    let site = Site::new();
    let server = site.start(None);
    let mut connection = Connection::to(server.url.as_ref().unwrap(), BTreeMap::new()).await.unwrap();
    for (who, n) in PEOPLE {
        connection.login(who, n).await.unwrap();
    }
    let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    for n in 0..8_u8 {
        let (connection, told) = (connection.clone(), told.clone());
        clients.spawn(async move {
            for round in 0..2 {
                let key = 20 + 2 * n + round;
                let Ok(asked) = connection.ask("dev-1", key).await else { return };
                let id = RequestId::parse(&asked.id).unwrap();
                told.send((key, id, None)).unwrap();
                let Ok(got) = connection.fetch(id).await else { return };
                told.send((key, id, Some(got.certificate))).unwrap();
            }
        });
    }
    drop(told);
    let mut received = Vec::new();
    while let Some(fact) = telling.recv().await {
        received.push(fact);
        if received.len() == 9 {
            break;
        }
    }
    server.kill();
    while let Some(fact) = telling.recv().await {
        received.push(fact);
    }
    clients.join_all().await;

    let server = site.start(None);
    let tokens = connection.tokens.clone();
    let mut connection = Connection::to(server.url.as_ref().unwrap(), tokens).await.unwrap();
    connection.login(OLGA, 5).await.unwrap();
    let mut ledger = Ledger::default();
    // Whoever was not answered asks again, with the same key; whoever was has the same request as before.
    let mut requests = BTreeMap::new();
    for key in 20..36 {
        let shown = connection.ask("dev-1", key).await.unwrap();
        let id = RequestId::parse(&shown.id).unwrap();
        assert!(requests.insert(id, key).is_none(), "two keys got one request");
        ledger.count(id, "asked");
        ledger.certificates.push((id, connection.fetch(id).await.unwrap().certificate));
        ledger.count(id, "certificate_to_be_signed");
        ledger.states.insert(id, "issued".to_owned());
    }
    for (key, id, certificate) in received {
        assert_eq!(requests.get(&id), Some(&key), "a request that was acknowledged is lost");
        ledger.certificates.extend(certificate.map(|line| (id, line)));
    }
    let (entries, checkpoint, log_key) = connection.log().await.unwrap();
    ledger.check_log(&entries, &checkpoint, &log_key);
    server.kill();
    ledger.check_store(&site).await;
}
