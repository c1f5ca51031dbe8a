//! Verifies a world from outside: its export, its log replayed against the promises, and its certificates against both.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::audit::checkpoint::LogVerifier;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::{Answer, Event};
use hallpass::audit::export::{self, Exporter};
use hallpass::identity::Proven;
use hallpass::name::{Digest, PersonName, PolicyVersion, RequestId, Serial};
use hallpass::service::access::ListFilter;
use hallpass::ssh::Fingerprint;
use hallpass::ssh::cert::{Certificate, TbsCert};
use hallpass::store::LIST_MAX;
use hallpass::time::{Timestamp, Window};
use sha2::Digest as _;

use super::World;

/// What the log says of one request.
#[derive(Debug)]
struct Told {
    asker: PersonName,
    key: Fingerprint,
    answer: Answer,
    state: &'static str,
    /// Who approved what, and whether they signed.
    approved: BTreeMap<Digest, BTreeMap<PersonName, Option<Fingerprint>>>,
    grants: Vec<Window>,
    certificates: Vec<(Serial, TbsCert)>,
    signed: BTreeMap<Serial, String>,
}

/// The log, replayed.
#[derive(Debug, Default)]
struct Replay {
    policy: Option<PolicyVersion>,
    requests: BTreeMap<RequestId, Told>,
}

/// How far a world has been verified.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    replay: Replay,
    /// The first entry after it.
    next: usize,
    last: Option<Timestamp>,
    /// How many certificates had been handed out.
    handed: usize,
}

impl World {
    /// Verifies everything. Time that has passed is saved first; nothing else changes but two logins.
    pub(crate) async fn check(&self) {
        while self.service().tick().await.unwrap() > 0 {}
        let ada = self.proven("ada").await;
        self.check_export(&self.entries(&ada).await).await;
        self.check_from(&ada, &mut Verified::default()).await;
    }

    /// Verifies what has been asked and handed out since `verified`, and all entries since then; the export only as a whole.
    pub(crate) async fn check_newest(&self, ada: &Proven, verified: &mut Verified) {
        while self.service().tick().await.unwrap() > 0 {}
        self.check_from(ada, verified).await;
    }

    async fn check_from(&self, ada: &Proven, verified: &mut Verified) {
        let from = verified.next;
        let entries = self.entries_from(ada, from).await;
        let mut asked = BTreeSet::new();
        for bytes in &entries {
            let entry = Entry::parse(bytes).unwrap();
            assert_eq!(entry.index, u64::try_from(verified.next).unwrap());
            assert!(verified.last <= Some(entry.at), "log time never runs backwards");
            (verified.next, verified.last) = (verified.next + 1, Some(entry.at));
            verified.replay.take(&entry);
            asked.extend(entry.event.request().filter(|_| matches!(entry.event, Event::Asked { .. })));
        }
        self.check_requests(ada, &verified.replay, &asked).await;
        let handed = self.handed.lock().unwrap()[verified.handed..].to_vec();
        verified.handed += handed.len();
        self.check_handed_out(ada, &verified.replay, (from, &entries), handed).await;
    }

    /// All entries' bytes.
    pub(crate) async fn entries(&self, by: &Proven) -> Vec<Vec<u8>> {
        self.entries_from(by, 0).await
    }

    /// The bytes of all entries from this one on.
    async fn entries_from(&self, by: &Proven, from: usize) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        loop {
            let next = u64::try_from(from + all.len()).unwrap();
            let more = self.service().entries(by, next, 1000).await.unwrap();
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    /// Somebody keeps the checkpoint of now.
    pub(crate) async fn keep_checkpoint(&self) {
        let (checkpoint, _) = self.service().checkpoint().await.unwrap();
        self.kept.lock().unwrap().push(checkpoint);
    }

    /// The export verifies offline, also against every checkpoint that was kept.
    async fn check_export(&self, entries: &[Vec<u8>]) {
        let (checkpoint, size) = self.service().checkpoint().await.unwrap();
        assert_eq!(size, u64::try_from(entries.len()).unwrap());
        let file = self.export(entries, &checkpoint);
        let key = LogVerifier::parse(&self.service().log_verifier()).unwrap();
        self.kept.lock().unwrap().push(checkpoint);
        for kept in self.kept.lock().unwrap().iter() {
            let verified = export::verify(file.as_slice(), Some(&key), Some(kept)).expect("the export verifies");
            assert_eq!(verified.entries, size);
        }
    }

    /// These entries as an export.
    pub(crate) fn export(&self, entries: &[Vec<u8>], checkpoint: &str) -> Vec<u8> {
        let key = LogVerifier::parse(&self.service().log_verifier()).unwrap();
        let (mut exporter, mut file) = Exporter::new(key);
        entries.iter().for_each(|entry| file.push_str(&exporter.entry(entry).unwrap()));
        file.push_str(&exporter.finish(checkpoint).unwrap());
        file.into_bytes()
    }

    /// The store says what the log says of the newest requests, and nothing else (I-28, P12).
    async fn check_requests(&self, ada: &Proven, replay: &Replay, newest: &BTreeSet<RequestId>) {
        let are_all = newest.len() == replay.requests.len();
        if newest.is_empty() && !are_all {
            return;
        }
        let filter = ListFilter { limit: if are_all { LIST_MAX } else { newest.len() }, ..ListFilter::default() };
        let stored = self.service().list(ada, filter).await.unwrap();
        let in_store: BTreeSet<RequestId> = stored.iter().map(|view| view.request.id()).collect();
        assert_eq!(in_store, *newest, "requests in the store and in the log");
        for view in &stored {
            let (parts, told) = (view.request.parts(), &replay.requests[&view.request.id()]);
            assert_eq!(parts.state.word(), told.state, "state of {} in store and log", parts.id);
            assert_eq!(parts.asker, told.asker);
            let windows: Vec<Window> = parts.grants.iter().map(|grant| grant.window).collect();
            assert_eq!(windows, told.grants, "windows of {}", parts.id);
            let certified = parts.grants.iter().filter_map(|grant| grant.certificate.clone());
            let certified: Vec<(Serial, TbsCert)> = certified.map(|c| (c.serial, c.tbs)).collect();
            assert_eq!(certified, told.certificates, "certificates of {}", parts.id);
        }
    }

    /// Each certificate that anybody has is in the log, to the byte, and is what was approved (P1, P2, P3).
    async fn check_handed_out(
        &self,
        ada: &Proven,
        replay: &Replay,
        (from, entries): (usize, &[Vec<u8>]),
        handed: Vec<(RequestId, Certificate)>,
    ) {
        let size = u64::try_from(from + entries.len()).unwrap();
        let mut by_serial: BTreeMap<Serial, (RequestId, Certificate)> = BTreeMap::new();
        for (id, certificate) in handed {
            if let Some(before) = by_serial.get(&certificate.tbs().fields().serial) {
                assert_eq!((before.0, before.1.blob()), (id, certificate.blob()), "fetched again, it is the same");
                continue;
            }
            assert_eq!(Certificate::parse_openssh(&certificate.to_openssh()).unwrap(), certificate);
            let fields = certificate.tbs().fields();
            let index = usize::try_from(fields.serial.number()).unwrap();
            let intent = Entry::parse(&entries[index - from]).unwrap();
            let Event::CertificateToBeSigned { request, tbs, window, .. } = intent.event else {
                panic!("entry {index} is not about a certificate");
            };
            assert_eq!((request, tbs.as_slice(), window), (id, certificate.tbs().bytes(), fields.window));
            let told = &replay.requests[&id];
            assert_eq!(told.signed[&fields.serial], hex(&sha2::Sha256::digest(certificate.blob())));
            let proof = self.service().inclusion(fields.serial.number(), size).await.unwrap();
            assert!(!proof.is_empty() && !self.service().history(ada, &super::prefix(id)).await.unwrap().is_empty());
            by_serial.insert(certificate.tbs().fields().serial, (id, certificate));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// States that nothing leaves.
const OVER: [&str; 5] = ["denied", "withdrawn", "lapsed", "ended", "expired"];

impl Replay {
    /// Takes one more entry, and says what it breaks.
    #[expect(clippy::too_many_lines, reason = "one arm per kind of entry")]
    fn take(&mut self, entry: &Entry) {
        let in_force = self.policy;
        let decided_by = |policy: &PolicyVersion| assert_eq!(Some(*policy), in_force, "the policy in force (P6)");
        if let Some(id) = entry.event.request() {
            let is_over = self.requests.get(&id).is_some_and(|told| OVER.contains(&told.state));
            let is_outcome = matches!(entry.event, Event::CertificateSigned { .. } | Event::Host(_));
            assert!(!is_over || is_outcome, "{} after it is over: {:?}", id, entry.event);
        }
        match &entry.event {
            Event::LogStarted { .. } => assert_eq!(entry.index, 0),
            Event::PolicyApplied { version, .. } => {
                assert_eq!(version.0, in_force.map_or(0, |v| v.0) + 1);
                self.policy = Some(*version);
            }
            Event::ServiceStarted { .. }
            | Event::CaKeysChanged { .. }
            | Event::CaStepProposed { .. }
            | Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::EntryLost { .. }
            | Event::Host(_) => {}
            Event::LogRecovered { .. } => {
                assert!(self.requests.values().all(|told| OVER.contains(&told.state)), "what was open is over");
            }
            Event::Refused { policy, .. } => decided_by(policy),
            Event::Asked { request, person, key, verdict, policy, .. } => {
                decided_by(policy);
                let told = Told {
                    asker: person.clone(),
                    key: *key,
                    answer: *verdict,
                    state: "pending",
                    approved: BTreeMap::new(),
                    grants: Vec::new(),
                    certificates: Vec::new(),
                    signed: BTreeMap::new(),
                };
                assert!(self.requests.insert(*request, told).is_none(), "an id is used once");
            }
            Event::Narrowed { request, by, .. } => assert_ne!(*by, self.requests[request].asker),
            Event::Approved { request, by, digest, policy, signature, .. } => {
                decided_by(policy);
                let told = self.requests.get_mut(request).unwrap();
                assert_ne!(*by, told.asker, "nobody approves their own request (P5)");
                let key = signature.as_ref().map(|signature| signature.key().fingerprint());
                let before = told.approved.entry(*digest).or_default().insert(by.clone(), key);
                let adds = before.is_none_or(|before| before.is_none() && key.is_some());
                assert!(adds, "approvals are distinct people, who say it again only to sign it");
            }
            Event::Granted { request, approvers, window, digest, policy } => {
                decided_by(policy);
                let told = self.requests.get_mut(request).unwrap();
                let approved = told.approved.remove(digest).unwrap_or_default();
                assert!(
                    approvers.iter().all(|name| approved.contains_key(name)),
                    "approvals cover what is granted (P4)"
                );
                assert!(!approvers.is_empty() || told.answer == Answer::Allow, "somebody approved {request}");
                told.grants.push(*window);
                told.state = if told.state == "issued" { "issued" } else { "approved" };
            }
            Event::ExtensionAsked { request, person, policy, verdict, .. } => {
                decided_by(policy);
                let told = self.requests.get_mut(request).unwrap();
                assert_eq!(*person, told.asker);
                told.answer = *verdict;
            }
            Event::CertificateToBeSigned { request, person, serial, window, tbs, policy, .. } => {
                decided_by(policy);
                let told = self.requests.get_mut(request).unwrap();
                let tbs = TbsCert::parse(tbs).unwrap();
                let fields = tbs.fields();
                assert_eq!(serial.number(), entry.index, "the serial is the entry's number");
                assert_eq!((fields.serial, fields.window), (*serial, *window));
                assert_eq!(Some(window), told.grants.last(), "the window is the approved one (P1)");
                assert!(entry.at < window.end(), "nothing is issued for a window that is over");
                assert_eq!((person, &tbs.subject().fingerprint()), (&told.asker, &told.key));
                assert_eq!(fields.key_id.as_str(), format!("hallpass/{}/{person}", request.digits()));
                assert!((1..=256).contains(&fields.principals.len()), "principals (P9)");
                told.certificates.push((*serial, tbs));
                assert_eq!(told.certificates.len(), told.grants.len(), "one certificate per grant (P3)");
                told.state = "issued";
            }
            Event::CertificateSigned { request, serial, sha256 } => {
                let told = self.requests.get_mut(request).unwrap();
                assert!(told.certificates.iter().any(|(of, _)| of == serial), "intent comes first (P2)");
                assert!(told.signed.insert(*serial, sha256.clone()).is_none(), "one outcome per certificate");
            }
            Event::CertificateRefused { policy, .. } => decided_by(policy),
            Event::Denied { request, by, extension, .. } => {
                let told = self.requests.get_mut(request).unwrap();
                assert_ne!(*by, told.asker);
                told.close(*extension, "denied");
            }
            Event::Withdrawn { request, by, extension } => {
                let told = self.requests.get_mut(request).unwrap();
                assert_eq!(*by, told.asker);
                told.close(*extension, "withdrawn");
            }
            Event::Lapsed { request, extension } => {
                self.requests.get_mut(request).unwrap().close(*extension, "lapsed");
            }
            Event::Ended { request, .. } => self.requests.get_mut(request).unwrap().close(false, "ended"),
            Event::Expired { request } => {
                let told = self.requests.get_mut(request).unwrap();
                assert!(told.grants.last().unwrap().is_over(entry.at), "expired before its time");
                told.close(false, "expired");
            }
        }
    }
}

impl Told {
    fn close(&mut self, extension: bool, state: &'static str) {
        if !extension {
            self.state = state;
        }
    }
}
