//! What the client was told, and whether the service's log and store still say so.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::audit::checkpoint::LogVerifier;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::export::{Exporter, verify};
use hallpass::name::RequestId;
use hallpass::ssh::cert::Certificate;
use hallpass::store::{LIST_MAX, RequestFilter};

use super::server::Site;

/// Facts that the service acknowledged, in its own words.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Each certificate line that was received.
    pub(crate) certificates: Vec<(RequestId, String)>,
    /// The last state that was shown of each request.
    pub(crate) states: BTreeMap<RequestId, String>,
    /// Requests, and the kinds of entries that each must have, with how many.
    pub(crate) entries: BTreeMap<RequestId, BTreeMap<&'static str, usize>>,
    /// Checkpoints that were kept.
    pub(crate) checkpoints: Vec<String>,
}

impl Ledger {
    /// Something was acknowledged that is one entry of this kind.
    pub(crate) fn count(&mut self, request: RequestId, kind: &'static str) {
        *self.entries.entry(request).or_default().entry(kind).or_default() += 1;
    }

    /// Compares with the log as the service gives it.
    pub(crate) fn check_log(&self, entries: &[String], checkpoint: &str, log_key: &str) {
        let key = LogVerifier::parse(log_key).unwrap();
        let (mut exporter, header) = Exporter::new(key.clone());
        let mut lines = vec![header];
        for entry in entries {
            lines.push(exporter.entry(entry.as_bytes()).unwrap());
        }
        lines.push(exporter.finish(checkpoint).unwrap());
        let file = lines.concat();
        for kept in self.checkpoints.iter().map(|kept| Some(kept.as_str())).chain([None]) {
            verify(file.as_bytes(), Some(&key), kept).unwrap_or_else(|findings| panic!("{findings:#?}"));
        }
        let log: Vec<Entry> = entries.iter().map(|entry| Entry::parse(entry.as_bytes()).unwrap()).collect();
        self.check_certificates(&log);
        self.check_entries(&log);
    }

    /// Each certificate has its entry with the very bytes, and one grant has one certificate.
    fn check_certificates(&self, log: &[Entry]) {
        let mut of_grant = BTreeMap::new();
        for (id, line) in &self.certificates {
            let certificate = Certificate::parse_openssh(line).unwrap();
            let signed = certificate.tbs();
            let index = usize::try_from(signed.fields().serial.number()).unwrap();
            let Event::CertificateToBeSigned { request, tbs, window, .. } = &log[index].event else {
                panic!("entry {index} is no certificate's");
            };
            assert_eq!((request, tbs.as_slice(), *window), (id, signed.bytes(), signed.fields().window));
            // The same line each time: the same bytes were signed by a key whose signatures don't vary.
            let kept = of_grant.entry((*id, window.end())).or_insert(line);
            assert_eq!(*kept, line, "a second certificate for one grant of {id}");
        }
        let mut outcomes = BTreeSet::new();
        for entry in log {
            if let Event::CertificateSigned { serial, .. } = entry.event {
                assert!(outcomes.insert(serial), "a second outcome of {serial}");
            }
        }
        for entry in log {
            if let Event::CertificateToBeSigned { serial, .. } = entry.event {
                assert!(outcomes.contains(&serial), "no outcome of {serial}");
            }
        }
    }

    /// Nothing lost, nothing doubled: of each kind, a request has as many entries as the client was told of.
    fn check_entries(&self, log: &[Entry]) {
        let mut found: BTreeMap<RequestId, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for entry in log {
            if let Some(request) = entry.event.request() {
                *found.entry(request).or_default().entry(entry.event.kind()).or_default() += 1;
            }
        }
        // What follows by itself from what was acknowledged.
        for kinds in found.values_mut() {
            kinds.remove("granted");
            kinds.remove("certificate_signed");
        }
        assert_eq!(found, self.entries);
    }

    /// Compares with the store itself, after the service is gone.
    pub(crate) async fn check_store(&self, site: &Site) {
        let store = site.open().await;
        let all = RequestFilter { limit: LIST_MAX, ..RequestFilter::default() };
        let mut found = BTreeMap::new();
        for stored in store.requests(all).await.unwrap() {
            let request = &stored.request;
            assert!(!store.entries_of(request.id()).await.unwrap().is_empty(), "a request without an entry");
            found.insert(request.id(), request.parts().state.word().to_owned());
            let serials = request.parts().grants.iter().filter_map(|grant| grant.certificate.as_ref());
            let serials: Vec<_> = serials.map(|certified| certified.serial).collect();
            assert_eq!(serials.iter().collect::<BTreeSet<_>>().len(), serials.len());
        }
        assert_eq!(found, self.states);
    }
}
