//! A server that answers with real certificates, correctly signed, that are not those of the request: none of them is kept or offered.

use std::path::PathBuf;
use std::process::Command;

use hallpass::name::{HostName, PersonName, Principal, RequestId, Serial};
use hallpass::signer::Signer as _;
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{Certificate, Extension, Fields, ForceCommand, KeyId, Options, Purpose, TbsCert};
use hallpass::ssh::host::{CHECK_COMMAND, check_principal};
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Clock as _, SystemClock, Timestamp, Window};
use serde_json::{Value, json};

use super::hostile::{answering, evil_request, stage_at, whole};
use super::stage::{Ran, Stage};

/// What a server makes of a request that it grants: what it says of it, what the certificate says, and whose key it certifies.
struct Grant {
    request: Value,
    fields: Fields,
    subject: PublicKey,
}

type Lie = fn(&mut Grant);

fn after(seconds: u64) -> Timestamp {
    Timestamp::from_unix(SystemClock.now().unix() + seconds).unwrap()
}

fn principals(names: &[&str]) -> std::collections::BTreeSet<Principal> {
    names.iter().map(|name| Principal::parse(name).unwrap()).collect()
}

impl Grant {
    /// As an honest server grants it: to alice, on web-1 and web-2 as deploy, for half an hour from now.
    fn honest(subject: PublicKey) -> Self {
        Self::at(subject, ("7K3F-9QX2", &["web-1", "web-2"]), 0)
    }

    /// The same for another request, which begins so many seconds from now.
    fn at(subject: PublicKey, (id, hosts): (&str, &[&str]), seconds: u64) -> Self {
        let opened: Vec<String> = hosts.iter().map(|host| format!("deploy@{host}")).collect();
        let mut request = evil_request();
        let window = Window::new(after(seconds), after(seconds + 1800)).unwrap();
        for (field, value) in [
            ("id", json!(id)),
            ("person", json!("alice")),
            ("state", json!("issued")),
            ("account", json!("deploy")),
            ("hosts", json!(hosts)),
            ("principals", json!(opened)),
            ("for", json!("30m")),
            ("asked", json!(after(seconds).to_string())),
            ("extension", json!(null)),
            ("key", json!(subject.fingerprint().to_string())),
            ("serial", json!(42)),
            ("permit", json!(["pty"])),
            ("command", json!("journalctl")),
            ("sources", json!(["192.0.2.0/24"])),
        ] {
            request[field] = value;
        }
        let id = KeyId::new(&RequestId::parse(id).unwrap(), &PersonName::parse("alice").unwrap()).unwrap();
        let options = Options {
            force_command: Some(ForceCommand::parse("journalctl").unwrap()),
            source_addresses: ["192.0.2.0/24".parse().unwrap()].into(),
            verify_required: false,
            permits: [Extension::Pty].into(),
        };
        let opened = opened.iter().map(|name| Principal::parse(name).unwrap()).collect();
        let fields = Fields { serial: Serial::new(42).unwrap(), key_id: id, principals: opened, window, options };
        let mut grant = Self { request, fields, subject };
        grant.says(window);
        grant
    }

    /// Says of the request that its window is this one.
    fn says(&mut self, window: Window) {
        self.request["window"] = spelt(window);
    }

    /// The request, and its certificate by this CA.
    fn answer(&self, ca: &FileSigner) -> Value {
        let tbs = TbsCert::new(self.fields.clone(), &self.subject, ca.public_key(), [7; 32]).unwrap();
        let signature = ca.sign(&tbs).unwrap();
        let certificate = Certificate::assemble(tbs, &signature).unwrap();
        json!({ "request": self.request, "certificate": {
            "certificate": certificate.to_openssh(), "serial": self.fields.serial.number(), "key_id": self.fields.key_id.as_str(),
            "principals": [], "window": spelt(self.fields.window),
        } })
    }
}

/// A window as the API spells it.
fn spelt(window: Window) -> Value {
    json!({ "not_before": window.start().to_string(), "not_after": window.end().to_string() })
}

/// A CA key for certificates of this kind.
fn ca(stage: &Stage, purpose: Purpose) -> FileSigner {
    stage.make_key(purpose.word());
    let path = stage.path(&format!("{purpose}/login_key"));
    FileSigner::open(&Settings { path, passphrase_path: None }, purpose).unwrap()
}

/// The key that was sent to be certified.
fn sent_key(body: &[u8]) -> PublicKey {
    let asked: Value = serde_json::from_slice(body).unwrap();
    PublicKey::parse_openssh(asked["key"].as_str().unwrap()).unwrap()
}

/// A stage whose alice asks a server that grants everything at once, and lies so about it.
fn lied_to(lie: Lie) -> Stage {
    let keys = Stage::empty();
    let cas = Purpose::ALL.map(|purpose| ca(&keys, purpose));
    let url = answering(move |sent| {
        let mut grant = Grant::honest(sent_key(&sent.body));
        lie(&mut grant);
        let [user, host] = &cas;
        let ca = if grant.fields.key_id.purpose() == Purpose::Host { host } else { user };
        whole(200, "", &grant.answer(ca).to_string())
    });
    stage_at(&url)
}

fn asks(stage: &Stage) -> Ran {
    stage.as_person(
        "alice",
        &["request", "web-1", "web-2", "--as", "deploy", "--for", "30m", "--reason", "because", "--json"],
    )
}

/// The certificates and host files that are there.
fn kept(stage: &Stage) -> Vec<PathBuf> {
    let mut folders = vec![stage.path("alice/run")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if name == "key-cert.pub" || name.ends_with(".conf") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_requests_own_certificate_is_kept() {
    let stage = lied_to(|_| ());
    let ran = asks(&stage);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(kept(&stage).len(), 3, "a certificate and two hosts");
    // The bare account opens hosts of that scope.
    let stage = lied_to(|grant| {
        grant.fields.principals = principals(&["deploy"]);
        grant.request["principals"] = json!(["deploy"]);
    });
    assert_eq!(asks(&stage).code, 0);
}

#[test]
fn a_real_certificate_that_is_not_the_requests_is_not_kept() {
    let lies: [(&str, Lie); 20] = [
        ("for another key", |grant| grant.subject = SessionKey::generate([9; 32]).public_key().clone()),
        ("what it opens", |grant| {
            grant.fields.principals = principals(&["deploy@web-1", "deploy@web-2", "deploy@web-3"]);
        }),
        ("what it opens", |grant| grant.fields.principals = principals(&["deploy@web-1", "root@web-2"])),
        ("what it opens", |grant| grant.fields.principals = principals(&["deploy@web-1"])),
        ("what it opens", |grant| grant.fields.principals = principals(&["deploy"])),
        // It may say so of the request as well.
        ("what it opens", |grant| {
            grant.fields.principals = principals(&["deploy@web-1", "root@web-2"]);
            grant.request["principals"] = json!(["deploy@web-1", "root@web-2"]);
        }),
        ("what it opens", |grant| {
            grant.fields.principals = principals(&["deploy@web-1", "deploy@web-3"]);
            grant.request["principals"] = json!(["deploy@web-1", "deploy@web-3"]);
        }),
        ("its window", |grant| grant.fields.window = Window::new(grant.fields.window.start(), after(86_400)).unwrap()),
        ("its window", |grant| grant.fields.window = Window::new(after(0), after(900)).unwrap()),
        ("its window", |grant| {
            let start = Timestamp::from_unix(grant.fields.window.start().unix() - 1).unwrap();
            grant.fields.window = Window::new(start, grant.fields.window.end()).unwrap();
        }),
        ("its window", |grant| grant.request["window"] = json!(null)),
        ("its command", |grant| grant.fields.options.force_command = None),
        ("its command", |grant| grant.fields.options.force_command = Some(ForceCommand::parse("id").unwrap())),
        ("from where it counts", |grant| grant.fields.options.source_addresses.clear()),
        ("what it permits", |grant| grant.fields.options.permits.extend([Extension::AgentForwarding])),
        ("what it permits", |grant| grant.fields.options.permits.clear()),
        ("its serial", |grant| grant.fields.serial = Serial::new(41).unwrap()),
        ("whose it is", |grant| grant.fields.key_id = KeyId::parse("hallpass/7K3F9QX3/alice").unwrap()),
        ("whose it is", |grant| grant.fields.key_id = KeyId::parse("hallpass/7K3F9QX2/bob").unwrap()),
        // A host's own, and that of its login to itself.
        ("whose it is", |grant| {
            grant.fields.key_id = KeyId::of_host(&HostName::parse("web-1").unwrap()).unwrap();
            (grant.fields.options, grant.fields.principals) = (Options::default(), principals(&["web-1"]));
        }),
    ];
    for (at, (what, lie)) in lies.into_iter().enumerate() {
        is_not_kept(&lied_to(lie), &format!("{at}: {what}"), what);
    }
    let check = lied_to(|grant| {
        let host = HostName::parse("web-1").unwrap();
        grant.fields.key_id = KeyId::of_check(&host).unwrap();
        grant.fields.principals = [check_principal(&host).unwrap()].into();
        grant.fields.window = Window::new(after(0), after(60)).unwrap();
        let command = Some(ForceCommand::parse(CHECK_COMMAND).unwrap());
        grant.fields.options = Options { force_command: command, ..Options::default() };
    });
    is_not_kept(&check, "check", "whose it is");
}

fn is_not_kept(stage: &Stage, lie: &str, what: &str) {
    let ran = asks(stage);
    assert_eq!(ran.code, 1, "{lie}: {}", ran.err);
    let failure: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert!(failure["what"].as_str().unwrap().starts_with("the server's certificate is for "), "{lie}: {failure}");
    assert!(failure.to_string().contains(what), "{lie}: {failure}");
    assert_eq!(kept(stage), Vec::<PathBuf>::new(), "{lie}");
}

/// What alice's machine has of the request, in this field.
fn known(stage: &Stage, field: &str) -> Value {
    let text = std::fs::read_to_string(stage.path("alice/run/default/7K3F9QX2/request.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[field].clone()
}

/// Whoever approves may narrow a request; what it becomes besides is none that was asked for.
#[test]
fn a_request_that_was_asked_becomes_no_other_by_being_granted() {
    for (field, value) in [
        ("account", json!("root")),
        ("hosts", json!(["web-1", "web-2", "web-3"])),
        ("principals", json!(["deploy@web-1", "deploy@web-2", "deploy"])),
        ("permit", json!(["pty", "agent_forwarding"])),
        ("command", json!(null)),
        ("sources", json!([])),
        ("verify_required", json!(true)),
        ("person", json!("bob")),
        ("key", json!("SHA256:x")),
    ] {
        let (to, keys) = (value.clone(), Stage::empty());
        let (ca, asked) = (ca(&keys, Purpose::User), std::sync::Mutex::new(None));
        let url = answering(move |sent| {
            let mut asked = asked.lock().unwrap();
            if sent.path == "/v1/certificates" {
                let mut grant = Grant::honest(sent_key(&sent.body));
                grant.request["state"] = json!("pending");
                grant.request["window"] = json!(null);
                *asked = Some(grant.subject);
                return whole(200, "", &json!({ "request": grant.request, "certificate": null }).to_string());
            }
            let mut grant = Grant::honest(asked.clone().unwrap());
            grant.request[field] = to.clone();
            if field == "account" {
                grant.fields.principals = principals(&["root@web-1", "root@web-2"]);
                grant.request["principals"] = json!(["root@web-1", "root@web-2"]);
            }
            let answer = grant.answer(&ca);
            let is_certificate = sent.path.ends_with("/certificate");
            whole(200, "", &answer[if is_certificate { "certificate" } else { "request" }].to_string())
        });
        let stage = stage_at(&url);
        let ask = ["request", "web-1", "web-2", "--as", "deploy", "--reason", "because", "--no-wait"];
        assert_eq!(stage.as_person("alice", &ask).code, 8);
        let before = known(&stage, field);
        assert_ne!(before, value);
        let ran = stage.as_person("alice", &["wait", "7K3F-9QX2", "--timeout", "5s"]);
        assert_eq!(ran.code, 1, "{field}: {}{}", ran.out, ran.err);
        assert_eq!(kept(&stage), Vec::<PathBuf>::new(), "{field}");
        assert_eq!(known(&stage, field), before, "{field}");
    }
}

/// How HTTP writes a time.
fn http_date(at: Timestamp) -> String {
    let mut date = Command::new("date");
    date.args(["-u", "-d", &format!("@{}", at.unix()), "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C");
    String::from_utf8(date.output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn of_what_is_over_ssh_reads_no_file_any_more() {
    let keys = Stage::empty();
    let ca = ca(&keys, Purpose::User);
    // It is an hour later for the second request, as the server says.
    let url = answering(move |sent| {
        if sent.path != "/v1/certificates" {
            return whole(404, "", &json!({ "type": "", "status": 404, "title": "", "code": "not_found" }).to_string());
        }
        let is_first = String::from_utf8_lossy(&sent.body).contains("web-1");
        let (about, seconds) =
            if is_first { (("7K3F-9QX2", &["web-1"][..]), 0) } else { (("7K3F-9QX3", &["web-2"][..]), 3600) };
        let grant = Grant::at(sent_key(&sent.body), about, seconds);
        whole(200, &format!("date: {}\r\n", http_date(after(seconds))), &grant.answer(&ca).to_string())
    });
    let stage = stage_at(&url);
    let asks = |host: &str| {
        let ran = stage.as_person("alice", &["request", host, "--as", "deploy", "--reason", "because"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    };
    let is_offered = |host: &str| stage.path(&format!("alice/run/default/hosts/{host}.conf")).exists();
    asks("web-1");
    assert!(is_offered("web-1"));
    asks("web-2");
    assert_eq!((is_offered("web-1"), is_offered("web-2")), (false, true));
    // By the certificate's own end: its folder is there until something is swept.
    assert!(stage.path("alice/run/default/7K3F9QX2/key-cert.pub").exists());
}
