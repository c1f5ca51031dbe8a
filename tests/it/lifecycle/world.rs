//! The people, policies, keys and clock that the lifecycle tests share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use hallpass::access::{AccessRequest, Check, Command, Narrowing, Permit, Refusal, Step, open, step};
use hallpass::audit::event::Event;
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::{Session, mint};
use hallpass::identity::{Directory, Person, Proven};
use hallpass::keyring::Ca;
use hallpass::name::{Account, Digest, HostName, PersonName, PolicyVersion, RequestId, Serial};
use hallpass::policy::{Policy, Question};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{ForceCommand, Options};
use hallpass::time::{Lifetime, Timestamp};

use crate::support::fixtures::signs_for;

/// Monday morning.
pub(super) const NOON: u64 = 1_767_607_200;

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds).unwrap()
}

pub(super) fn person(name: &str) -> PersonName {
    PersonName::parse(name).unwrap()
}

pub(super) fn people(names: &[&str]) -> BTreeSet<PersonName> {
    names.iter().map(|name| person(name)).collect()
}

pub(super) fn hosts(names: &[&str]) -> BTreeSet<HostName> {
    names.iter().map(|name| HostName::parse(name).unwrap()).collect()
}

pub(super) fn minutes(minutes: u32) -> Lifetime {
    Lifetime::minutes(minutes)
}

/// The public key of this seed.
pub(super) fn key(seed: u8) -> PublicKey {
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    blob.extend_from_slice(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes());
    PublicKey::parse_blob(&blob).unwrap()
}

/// The public key of this seed, in a security key.
fn security_key(seed: u8) -> PublicKey {
    let key = key(seed);
    let parts = [b"sk-ssh-ed25519@openssh.com".as_slice(), &key.blob()[19..], b"ssh:"];
    let string = |part: &[u8]| [&u32::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    PublicKey::parse_blob(&parts.map(string).concat()).unwrap()
}

/// A proof that this person is there, through a session of theirs.
pub(super) fn proven(name: &str) -> Proven {
    let known = Person { name: person(name), groups: BTreeSet::new(), keys: vec![key(1)] };
    let (opened, expires) = (at(NOON), at(NOON + 60));
    let session = Session {
        token: mint([0; 32]).1,
        person: person(name),
        key: key(1).fingerprint(),
        opened,
        expires,
        seal: [0; 32],
    };
    let seal = MacKey::new([9; 32]);
    session.sealed(&seal).check(&seal, &Directory::new([known]), opened).unwrap()
}

/// A policy of one rule: alice, herself in `sre`, asks for web-1 and web-2 as deploy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many of `sre` must agree; 0: allowed at once.
    pub(super) need: usize,
    /// Who is in `sre`.
    pub(super) sre: &'static [&'static str],
    /// The longest window, in minutes.
    pub(super) max: u32,
    /// The longest in all, in minutes.
    pub(super) total: u32,
    /// What is added to the rule.
    pub(super) rule: &'static str,
    /// What is added to each host.
    pub(super) host: &'static str,
    /// What is added to the approval entry.
    pub(super) approval: &'static str,
    /// The seed of bob's login key.
    pub(super) bobs_key: u8,
    /// A second login key of bob's; empty for none.
    pub(super) bobs_other_key: &'static str,
}

/// One of bob and carol must agree (alice may not, although she is in the group).
pub(super) const ONE: Shape = Shape {
    need: 1,
    sre: &["alice", "bob", "carol"],
    max: 60,
    total: 120,
    rule: "permit = { pty = true, port_forwarding = true }",
    host: "",
    approval: "",
    bobs_key: 11,
    bobs_other_key: "",
};

/// Bob and carol must agree.
pub(super) const TWO: Shape = Shape { need: 2, ..ONE };

/// Allowed at once.
pub(super) const AT_ONCE: Shape = Shape { need: 0, ..ONE };

/// Nothing is allowed.
pub(super) const NOTHING: Shape =
    Shape { rule: "when = { days = \"sun\", hours = \"00:00-00:01\", zone = \"UTC\" }", ..ONE };

/// Bob has left.
pub(super) const BOB_LEFT: Shape = Shape { sre: &["alice", "carol", "dave"], ..ONE };

/// Windows are shorter.
pub(super) const SHORTER: Shape = Shape { max: 25, total: 60, ..ONE };

/// Without port forwarding.
pub(super) const FEWER: Shape = Shape { rule: "permit = { pty = true }", ..ONE };

/// With everything that binds a certificate: networks, a command, and a security key that checks its user.
pub(super) const BOUND: Shape = Shape {
    rule: "permit = { pty = true, port_forwarding = true }\nsources = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
           command = \"journalctl -u api\"\nverify_required = true\n",
    ..ONE
};

/// Whether these are the options of [`BOUND`], apart from what may be taken off.
pub(super) fn are_bound(options: &Options) -> bool {
    let sources: Vec<String> = options.source_addresses.iter().map(ToString::to_string).collect();
    let command = options.force_command.as_ref().map(ForceCommand::as_str);
    sources == ["10.0.0.0/8", "2001:db8::/32"] && command == Some("journalctl -u api") && options.verify_required
}

/// This policy, in force as `version`.
pub(super) fn check(shape: &Shape, version: u32) -> Check {
    let mut text = format!(
        "version = 1\n[defaults]\nbackdate = \"30s\"\ndecide_by = \"30m\"\n\
         window = {{ default = \"20m\", max = \"{}m\", total = \"{}m\" }}\n[roles]\noperator = [\"person:omar\"]\n",
        shape.max, shape.total
    );
    for (seed, name) in ["alice", "bob", "carol", "dave", "omar"].into_iter().enumerate() {
        let groups = if shape.sre.contains(&name) { "\"sre\"" } else { "" };
        let seed = if name == "bob" { shape.bobs_key } else { 10 + u8::try_from(seed).unwrap() };
        let key = key(seed).to_openssh();
        let other = if name == "bob" && !shape.bobs_other_key.is_empty() {
            format!(", \"{}\"", shape.bobs_other_key)
        } else {
            String::new()
        };
        text += &format!("[[person]]\nname = \"{name}\"\ngroups = [{groups}]\nkeys = [\"{key}\"{other}]\n");
    }
    for host in ["web-1", "web-2"] {
        text += &format!("[[host]]\nname = \"{host}\"\n{}\n", shape.host);
    }
    text += "[[rule]]\nname = \"web\"\nwho = [\"person:alice\"]\nhosts = [\"web-*\"]\naccounts = [\"deploy\"]\n";
    if shape.need > 0 {
        text += &format!("approval = [{{ need = {}, from = [\"group:sre\"]{} }}]\n", shape.need, shape.approval);
    }
    text += shape.rule;
    Check { version: PolicyVersion(version), policy: parsed(text) }
}

/// The policy of this text; each is parsed once, because random histories switch between the same few again and again.
fn parsed(text: String) -> Arc<Policy> {
    static PARSED: Mutex<BTreeMap<String, Arc<Policy>>> = Mutex::new(BTreeMap::new());
    let mut parsed = PARSED.lock().unwrap();
    let parse = |text: &String| {
        let policy = Policy::parse(text, "policy.toml");
        Arc::new(policy.unwrap_or_else(|problems| panic!("{problems:#?}\n{text}")))
    };
    Arc::clone(parsed.entry(text).or_insert_with_key(parse))
}

/// What alice asks, 40 minutes on both hosts.
pub(super) fn question(now: u64) -> Question {
    Question {
        person: person("alice"),
        hosts: hosts(&["web-1", "web-2"]),
        account: Account::parse("deploy").unwrap(),
        lifetime: Some(minutes(40)),
        held: Lifetime::ZERO,
        start: None,
        reason: "look at the queue".to_owned(),
        ticket: Some("INC-7".to_owned()),
        at: at(now),
    }
}

/// A request, and the policy it lives under.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) request: AccessRequest,
    pub(super) check: Check,
    pub(super) serial: u64,
}

impl World {
    /// Alice has asked, at [`NOON`].
    pub(super) fn asked(shape: &Shape) -> Self {
        Self::asking(shape, &question(NOON)).unwrap().0
    }

    pub(super) fn asking(shape: &Shape, question: &Question) -> Result<(Self, Vec<Event>), Refusal> {
        let check = check(shape, 1);
        let id = RequestId::from_random([1, 2, 3, 4, 5]);
        // What demands a security key is asked with one.
        let subject = if shape.rule == BOUND.rule { security_key(99) } else { key(99) };
        let Step { request, events, permit } = open(&proven("alice"), question, subject, &check, id)?;
        assert!(permit.is_none(), "asking alone permits nothing");
        Ok((Self { request, check, serial: 0 }, events))
    }

    /// Another policy comes into force.
    pub(super) fn switch(&mut self, shape: &Shape) {
        self.check = check(shape, self.check.version.0 + 1);
    }

    /// Takes a step; a refusal changes nothing.
    pub(super) fn try_step(&mut self, command: Command, now: u64) -> Result<Step, Refusal> {
        let taken = step(self.request.clone(), command, at(now))?;
        self.request = taken.request.clone();
        Ok(taken)
    }

    /// Takes a step that must succeed, and gives its events.
    pub(super) fn step(&mut self, command: Command, now: u64) -> Vec<Event> {
        self.try_step(command, now).unwrap_or_else(|no| panic!("{no}")).events
    }

    /// The refusal of a step that must be refused.
    pub(super) fn refused(&mut self, command: Command, now: u64) -> Refusal {
        self.try_step(command, now).map(|taken| taken.events).unwrap_err()
    }

    pub(super) fn approve(&self, by: &str) -> Command {
        self.approve_narrowed(by, Narrowing::default())
    }

    pub(super) fn approve_narrowed(&self, by: &str, narrow: Narrowing) -> Command {
        self.approve_digest(by, narrow, self.request.digest())
    }

    pub(super) fn approve_digest(&self, by: &str, narrow: Narrowing, digest: Digest) -> Command {
        let (by, comment) = (proven(by), "fine".to_owned());
        Command::Approve { by, digest, narrow, comment, signed: None, check: self.check.clone() }
    }

    pub(super) fn deny(&self, by: &str) -> Command {
        Command::Deny { by: proven(by), reason: "use the replica".to_owned(), check: self.check.clone() }
    }

    pub(super) fn withdraw(&self, by: &str) -> Command {
        Command::Withdraw { by: proven(by) }
    }

    pub(super) fn certify(&self, by: &str) -> Command {
        Command::Certify { by: proven(by), check: self.check.clone() }
    }

    pub(super) fn extend(&self, by: &str, lifetime: Lifetime) -> Command {
        let reason = "not done yet".to_owned();
        Command::Extend { by: proven(by), lifetime, reason, check: self.check.clone() }
    }

    pub(super) fn end(&self, by: &str) -> Command {
        let is_operator = self.check.policy.is_operator(&person(by));
        Command::End { by: proven(by), is_operator, reason: "done".to_owned() }
    }

    /// What the store does with a permit: the next serial, the bytes to be signed, the entry.
    pub(super) fn use_permit(&mut self, permit: &Permit) -> Event {
        self.serial += 1;
        let (request, event, _) =
            permit.to_be_signed(Serial::new(self.serial).unwrap(), &signs_for(&Ca::USER), [5; 32]).unwrap();
        self.request = request;
        event
    }

    /// Fetches the certificate, made now or before.
    pub(super) fn fetch(&mut self, now: u64) {
        let certify = self.certify("alice");
        if let Some(permit) = self.try_step(certify, now).unwrap_or_else(|no| panic!("{no}")).permit {
            self.use_permit(&permit);
        }
    }

    /// The word of its state.
    pub(super) fn word(&self) -> &'static str {
        self.request.parts().state.word()
    }

    /// Start and end of the last window, in seconds from [`NOON`].
    pub(super) fn window(&self) -> (i64, i64) {
        let window = self.request.grant().unwrap().window;
        let from_noon = |time: Timestamp| i64::try_from(time.unix()).unwrap() - i64::try_from(NOON).unwrap();
        (from_noon(window.start()), from_noon(window.end()))
    }

    /// Asked under [`ONE`], approved by bob a minute later, fetched at once.
    pub(super) fn issued() -> Self {
        Self::issued_under(&ONE)
    }

    /// The same under another policy.
    pub(super) fn issued_under(shape: &Shape) -> Self {
        let mut world = Self::asked(shape);
        world.step(world.approve("bob"), NOON + 60);
        world.fetch(NOON + 60);
        world
    }
}

/// The kinds of these events, as in the log.
pub(super) fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::kind).collect()
}
