//! One certificate, the whole way: a real service on a clock that stands still, alice asks, bob approves if the rule wants it,
//! alice fetches. For tests of what others make of the certificate.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hallpass::audit::checkpoint::LogKey;
use hallpass::identity::Proven;
use hallpass::identity::challenge::{Answer, statement};
use hallpass::name::{Account, PersonName, RequestPrefix, Target};
use hallpass::service::access::{Approval, Ask, View};
use hallpass::service::{FirstPolicy, Parts, Rotation, Service, Settings, SystemRandom};
use hallpass::signer::file::{self, FileSigner};
use hallpass::ssh::cert::{Certificate, Purpose};
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SshSignature};
use hallpass::store::SEAL_PURPOSE;
use hallpass::store::head_file::HeadFile;
use hallpass::store::sqlite::{self, SqliteStore};
use hallpass::time::{Lifetime, ManualClock, Timestamp};

const URL: &str = "https://hallpass.test:7722";

/// What came of it.
pub(crate) struct Issued {
    /// The key that alice's client made for it.
    pub(crate) key: SessionKey,
    /// Its certificate.
    pub(crate) certificate: Certificate,
    /// The request as alice sees it afterwards.
    pub(crate) view: View,
    /// What hosts must trust.
    pub(crate) trust: String,
}

/// Issues one certificate at `now` under these rules (TOML; hosts `web-1` and `web-2` exist) for the account on the hosts.
pub(crate) async fn issue(rules: &str, hosts: &[&str], account: &str, now: Timestamp) -> Issued {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), rules, now).await;
    let alice = login(&service, "alice@example.com", 1).await;
    let key = SessionKey::generate([42; 32]);
    let ask = Ask {
        targets: hosts.iter().map(|h| Target::parse(h).unwrap()).collect(),
        account: Some(Account::parse(account).unwrap()),
        lifetime: None,
        start: None,
        reason: "INC-4421 pool exhausted".to_owned(),
        ticket: None,
        key: key.public_key().clone(),
    };
    let asked = service.ask(&alice, ask).await.unwrap();
    let id = RequestPrefix::parse(asked.request.id().digits()).unwrap();
    if asked.request.parts().state.word() == "pending" {
        let bob = login(&service, "bob@example.com", 2).await;
        let digest = asked.request.digest();
        service.approve(&bob, &id, Approval::of(digest)).await.unwrap();
    }
    let certificate = service.certificate(&alice, &id).await.unwrap();
    let view = service.view(&alice, &id).await.unwrap();
    Issued { key, certificate, view, trust: service.trust_bundle().text.to_string() }
}

async fn service(folder: &Path, rules: &str, now: Timestamp) -> Arc<Service> {
    let ca = folder.join("ca");
    FileSigner::create(&ca, "test CA", None).unwrap();
    let signer = FileSigner::open(&file::Settings { path: ca, passphrase_path: None }, Purpose::User).unwrap();
    let log_key = LogKey::new("hallpass.test/log", &[7; 32]).unwrap();
    let parts = Parts {
        store: Box::new(
            SqliteStore::open(&sqlite::Settings { path: folder.join("db") }, log_key.derive(SEAL_PURPOSE)).unwrap(),
        ),
        kept_head: Arc::new(HeadFile::new(folder.join("head"))),
        signer: Arc::new(signer),
        next: Vec::new(),
        host_signer: None,
        host_next: Vec::new(),
        accepted_ca: None,
        trusted: Vec::new(),
        named: Default::default(),
        log_key,
        clock: Arc::new(ManualClock::at(now)),
        random: Box::new(SystemRandom),
        settings: Settings {
            public_url: URL.to_owned(),
            session: Lifetime::minutes(60),
            open_requests_max: 10,
            sign_timeout: std::time::Duration::from_secs(10),
            rotation: Rotation::default(),
        },
    };
    let mut text = "version = 1\n[roles]\noperator = [\"person:bob@example.com\"]\n".to_owned();
    for (name, group, seed) in [("alice", "backend", 1), ("bob", "sre", 2)] {
        let key = SessionKey::generate([seed; 32]).public_key().to_openssh();
        text.push_str(&format!(
            "[[person]]\nname = \"{name}@example.com\"\ngroups = [\"{group}\"]\nkeys = [\"{key}\"]\n"
        ));
    }
    text.push_str("[[host]]\nname = \"web-1\"\n[[host]]\nname = \"web-2\"\n");
    text.push_str(rules);
    let first = FirstPolicy { text, file: "policy.toml".to_owned() };
    Service::start(parts, Some(first)).await.unwrap_or_else(|failure| panic!("{failure:?}"))
}

async fn login(service: &Arc<Service>, name: &str, seed: u8) -> Proven {
    let person = PersonName::parse(name).unwrap();
    let (challenge, _) = service.challenge().unwrap();
    let pem = SessionKey::generate([seed; 32]).to_openssh("test").unwrap();
    let key = LoginKey::parse(pem.as_bytes(), None).unwrap();
    let armoured = key.sign(LOGIN_NAMESPACE, statement(URL, &person, &challenge).as_bytes()).unwrap();
    let signature = SshSignature::parse(&armoured).unwrap();
    let answer = Answer { person, challenge, key: key.public_key().clone(), signature };
    service.login(answer, "127.0.0.1".to_owned()).await.unwrap().proven
}

/// A real ssh-agent of our own, without keys.
pub(crate) struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    pub(crate) fn start(socket: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let agent = Self { child, socket: socket.to_owned() };
        // It listens once it can be reached; there is nothing else to wait on.
        while UnixStream::connect(socket).is_err() {
            std::thread::yield_now();
        }
        agent
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}
