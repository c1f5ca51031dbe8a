//! Real values for tests below the service: people with keys, a policy, and requests in any state, all made by the rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use hallpass::access::{self, AccessRequest, Check, Command, Narrowing, Signed, Step};
use hallpass::identity::Proven;
use hallpass::identity::approval::Signature;
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::{Session, mint};
use hallpass::keyring::{ActiveKey, Ca, Ring, RingKey};
use hallpass::name::{Account, HostName, PersonName, PolicyVersion, RequestId};
use hallpass::policy::{Policy, Question};
use hallpass::ssh::PublicKey;
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::time::{Lifetime, Timestamp};

/// Monday, 2026-01-05T10:00:00Z.
pub(crate) const MONDAY: u64 = 1_767_607_200;

/// `seconds` after [`MONDAY`].
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(MONDAY + seconds).unwrap()
}

/// The Ed25519 key of the seed that is `n` 32 times.
pub(crate) fn key(n: u8) -> PublicKey {
    let public = ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key();
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), public.as_bytes()] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    PublicKey::parse_blob(&blob).unwrap()
}

/// The CA key of these tests.
pub(crate) fn ca() -> PublicKey {
    key(200)
}

/// It, as the one that signs for a user CA.
pub(crate) fn signs_for(ca: &Ca) -> ActiveKey {
    let known = RingKey { ca: ca.clone(), key: self::ca(), state: KeyState::Active, since: at(0) };
    Ring::new(vec![known]).unwrap().signs_for(ca).unwrap()
}

pub(crate) fn person(name: &str) -> PersonName {
    PersonName::parse(name).unwrap()
}

pub(crate) fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

/// The id made of `n`.
pub(crate) fn id(n: u32) -> RequestId {
    let [a, b, c, d] = n.to_be_bytes();
    RequestId::from_random([a, b, c, d, 0])
}

/// The people of these tests, with the number of their login key.
const PEOPLE: [(&str, &str, u8); 5] =
    [("alice", "backend", 1), ("ann", "backend", 2), ("bob", "sre", 3), ("ben", "sre", 4), ("olga", "platform", 5)];

/// A policy and the people in it.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) policy: Arc<Policy>,
    pub(crate) version: PolicyVersion,
}

impl House {
    /// `web-1` to `web-9` need one approval of `sre`, `dual-1` to `dual-9` two, `dev-1` to `dev-9` none.
    pub(crate) fn new() -> Self {
        let text = Self::text();
        let policy = Policy::parse(&text, "policy.toml").unwrap_or_else(|problems| panic!("{problems:#?}"));
        Self { policy: Arc::new(policy), version: PolicyVersion(1) }
    }

    /// The policy's text.
    pub(crate) fn text() -> String {
        let mut text = String::from(
            r#"version = 1

[defaults]
backdate  = "30s"
window    = { default = "30m", max = "2h", total = "4h" }
decide_by = "30m"

[roles]
operator = ["group:platform"]
"#,
        );
        for (name, group, n) in PEOPLE {
            let key = key(n).to_openssh();
            text.push_str(&format!(
                "\n[[person]]\nname = \"{name}@example.com\"\ngroups = [\"{group}\"]\nkeys = [\"{key}\"]\n"
            ));
        }
        for kind in ["web", "dual", "dev"] {
            for n in 1..10 {
                text.push_str(&format!("\n[[host]]\nname = \"{kind}-{n}\"\n"));
            }
        }
        for (kind, approval) in [
            ("web", r#"[{ need = 1, from = ["group:sre"] }]"#),
            ("dual", r#"[{ need = 2, from = ["group:sre"] }]"#),
            ("dev", "[]"),
        ] {
            text.push_str(&format!(
                "\n[[rule]]\nname = \"{kind}\"\nwho = [\"group:backend\"]\nhosts = [\"{kind}-*\"]\n\
                 accounts = [\"deploy\"]\napproval = {approval}\npermit = {{ pty = true, port_forwarding = true }}\n"
            ));
        }
        text
    }

    /// This person has just been authenticated.
    pub(crate) fn proven(&self, name: &str) -> Proven {
        let who = person(name);
        let login_key = self.policy.directory().person(&who).unwrap().keys[0].fingerprint();
        let (_, token) = mint([7; 32]);
        let session = Session { token, person: who, key: login_key, opened: at(0), expires: at(60), seal: [0; 32] };
        let seal = MacKey::new([9; 32]);
        session.sealed(&seal).check(&seal, self.policy.directory(), at(0)).unwrap()
    }

    pub(crate) fn question(&self, who: &str, hosts: &[&str], now: Timestamp) -> Question {
        Question {
            person: person(who),
            hosts: hosts.iter().map(|name| host(name)).collect(),
            account: Account::parse("deploy").unwrap(),
            lifetime: Some(Lifetime::minutes(20)),
            held: Lifetime::ZERO,
            start: None,
            reason: "INC-1 the queue \"grows\"".to_owned(),
            ticket: Some("INC-1".to_owned()),
            at: now,
        }
    }

    pub(crate) fn check(&self) -> Check {
        Check { version: self.version, policy: Arc::clone(&self.policy) }
    }

    /// A new request.
    pub(crate) fn ask(&self, id: RequestId, who: &str, hosts: &[&str], now: Timestamp) -> Step {
        let question = self.question(who, hosts, now);
        access::open(&self.proven(who), &question, key(100), &self.check(), id).unwrap()
    }

    /// The command that approves what waits now.
    pub(crate) fn approval(&self, request: &AccessRequest, by: &str) -> Command {
        Command::Approve {
            by: self.proven(by),
            digest: request.digest(),
            narrow: Narrowing::default(),
            comment: "ok".to_owned(),
            signed: None,
            check: self.check(),
        }
    }

    pub(crate) fn approve(&self, request: AccessRequest, by: &str, now: Timestamp) -> Step {
        let command = self.approval(&request, by);
        access::step(request, command, now).unwrap()
    }

    /// The same, signed by the approver's login key.
    pub(crate) fn approve_signed(&self, request: AccessRequest, by: &str, now: Timestamp) -> Step {
        let Command::Approve { by, digest, narrow, comment, check, .. } = self.approval(&request, by) else {
            panic!("not an approval")
        };
        let (_, _, seed) = PEOPLE.iter().find(|(name, ..)| by.person().as_str().starts_with(name)).unwrap();
        let login_key = SessionKey::generate([*seed; 32]).to_openssh("").unwrap();
        let login_key = LoginKey::parse(login_key.as_bytes(), None).unwrap();
        let statement = request.statement(by.person(), &comment);
        let (key, signed, sshsig) = super::sign_approval(&login_key, super::SERVER, &statement, now);
        let signature = Signature::new(super::SERVER.to_owned(), key, signed, sshsig).unwrap();
        let signed = Some(Box::new(Signed { signature, service_keys: BTreeSet::new() }));
        access::step(request, Command::Approve { by, digest, narrow, comment, signed, check }, now).unwrap()
    }

    pub(crate) fn deny(&self, request: AccessRequest, by: &str, now: Timestamp) -> Step {
        let check = self.check();
        let command = Command::Deny { by: self.proven(by), reason: "not today".to_owned(), check };
        access::step(request, command, now).unwrap()
    }

    /// The asker fetches the certificate.
    pub(crate) fn certify(&self, request: AccessRequest, now: Timestamp) -> Step {
        let check = self.check();
        let command = Command::Certify { by: self.proven(request.parts().asker.as_str()), check };
        access::step(request, command, now).unwrap()
    }

    /// The asker wants ten minutes more.
    pub(crate) fn extend(&self, request: AccessRequest, now: Timestamp) -> Step {
        let lifetime = Lifetime::minutes(10);
        let by = self.proven(request.parts().asker.as_str());
        let command = Command::Extend { by, lifetime, reason: "still at it".to_owned(), check: self.check() };
        access::step(request, command, now).unwrap()
    }

    pub(crate) fn withdraw(&self, request: AccessRequest, now: Timestamp) -> Step {
        let by = self.proven(request.parts().asker.as_str());
        access::step(request, Command::Withdraw { by }, now).unwrap()
    }

    pub(crate) fn end(&self, request: AccessRequest, now: Timestamp) -> Step {
        let by = self.proven(request.parts().asker.as_str());
        access::step(request, Command::End { by, is_operator: false, reason: "done".to_owned() }, now).unwrap()
    }

    pub(crate) fn tick(&self, request: AccessRequest, now: Timestamp) -> Step {
        access::step(request, Command::Tick, now).unwrap()
    }
}

/// The words of states, as a filter takes them.
pub(crate) fn states(words: &[&'static str]) -> BTreeSet<&'static str> {
    words.iter().copied().collect()
}
