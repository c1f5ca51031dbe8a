//! The audit log as others hand it over: entries, exports, checkpoints, and the trust bundle that the same key signs.

use std::sync::LazyLock;

use hallpass::audit::checkpoint::{Checkpoint, LogKey, LogVerifier};
use hallpass::audit::entry::Entry;
use hallpass::audit::export::{Exporter, Finding, FindingKind, Verified, verify};
use hallpass::audit::reconcile::Reconciler;
use hallpass::audit::report::{self, Demands};
use hallpass::audit::search::Search;
use hallpass::audit::tree::Frontier;
use hallpass::host::trust;
use hallpass::note::NoteVerifier;
use hallpass::ssh::bundle::Bundle;
use hallpass::time::Timestamp;
use serde_json::Value;

use super::told;

/// The log key that signs what is made here, and the seeds. No secret.
pub const LOG_SEED: [u8; 32] = [7; 32];

/// Its name.
pub const ORIGIN: &str = "hallpass.example.com/log";

static KEY: LazyLock<LogKey> = LazyLock::new(|| LogKey::new(ORIGIN, &LOG_SEED).expect("a key"));

/// One log entry.
pub fn entry(data: &[u8]) -> bool {
    let entry = match Entry::parse(data) {
        Ok(entry) => entry,
        Err(error) => {
            told(&error.to_string(), 1_000);
            return false;
        }
    };
    assert_eq!(entry.to_bytes(), data, "one spelling");
    // Canonical by another writer, too: members in order, nothing between them.
    let value: Value = serde_json::from_slice(data).expect("an entry is JSON");
    assert_eq!(serde_json::to_vec(&value).expect("JSON is written"), data);
    let line = report::line(&entry);
    assert!(!line.contains('\n'));
    told(&line, data.len() * 12 + 1_000);
    assert!(!entry.event.sentence().is_empty());
    told(&report::details(&entry), data.len() * 12 + 2_000);
    assert_eq!(report::document(&entry)["entry"], value);
    let everything = Search::parse("", entry.at).expect("no term");
    let itself = Search::parse(&format!("kind:{}", entry.event.kind()), entry.at).expect("a kind");
    assert!(everything.matches(&entry) && itself.matches(&entry));
    let mut reconciler = Reconciler::new(Timestamp::from_unix(0).expect("a time"));
    reconciler.take(&entry);
    for finding in reconciler.finish(entry.at).findings {
        told(&finding.why, data.len() * 12 + 2_000);
    }
    true
}

/// An export; and an export made here of the entries that there are in it, signed, so that their meaning is looked at.
pub fn export(data: &[u8]) -> bool {
    judged(data, verify(data, None, None));
    let entries: Vec<Entry> = data.split(|b| *b == b'\n').filter_map(|line| Entry::parse(line).ok()).collect();
    if entries.is_empty() {
        return false;
    }
    let text = exported(entries);
    let key = KEY.verifier();
    let verified = verify(text.as_bytes(), Some(&key), None);
    let findings = judged(text.as_bytes(), verified);
    let are_about_meaning = findings.iter().all(|one| {
        matches!(one.kind, FindingKind::Time | FindingKind::Meaning | FindingKind::Approval | FindingKind::Signature)
    });
    assert!(are_about_meaning, "a log that was written as it should be: {findings:?}");
    // Whoever cuts the last entry off is found out, whatever it says.
    let cut: Vec<&str> = text.lines().collect();
    let last = cut.iter().rposition(|line| line.starts_with("{\"a")).expect("an entry");
    let without: String =
        cut.iter().enumerate().filter(|(at, _)| *at != last).map(|(_, line)| format!("{line}\n")).collect();
    assert!(verify(without.as_bytes(), Some(&key), None).is_err());
    true
}

/// Numbered, in the form of an export, signed.
fn exported(entries: Vec<Entry>) -> String {
    let (mut exporter, mut text) = Exporter::new(KEY.verifier());
    let mut tree = Frontier::default();
    for (index, entry) in (0..).zip(entries) {
        let bytes = Entry { index, ..entry }.to_bytes();
        tree.push(Entry::leaf_hash(&bytes));
        text.push_str(&exporter.entry(&bytes).expect("the next entry"));
    }
    let note = KEY.sign(tree.size(), &tree.root());
    text.push_str(&exporter.finish(&note).expect("a checkpoint over these entries"));
    text
}

/// What a verification says can be shown, and is the same for people.
fn judged(data: &[u8], verified: Result<Verified, Vec<Finding>>) -> Vec<Finding> {
    let report = report::verify(data, Demands::default()).expect("nothing was demanded");
    told(&report.text, 2_000_000);
    match verified {
        Ok(verified) => {
            assert_eq!(verified.entries, verified.checkpoint.size);
            assert!(report.is_sound);
            Vec::new()
        }
        Err(findings) => {
            assert!((1..=100).contains(&findings.len()));
            findings.iter().for_each(|finding| told(&finding.what, data.len() * 12 + 2_000));
            findings
        }
    }
}

/// A trust bundle, a checkpoint or a verifier key.
pub fn bundle(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let taken = [trust_bundle(text), checkpoint(text), verifier_key(text)];
    taken.contains(&true)
}

fn trust_bundle(text: &str) -> bool {
    let bundle = match Bundle::claimed(text) {
        Ok(bundle) => bundle,
        Err(error) => {
            told(&error.to_string(), 1_000);
            assert!(Bundle::open(text, KEY.verifier().notes()).is_err(), "what is not read is not vouched for");
            return false;
        }
    };
    let ours = bundle.to_text(KEY.notes());
    assert_eq!(Bundle::open(&ours, KEY.verifier().notes()).as_ref(), Ok(&bundle));
    let signature = |text: &str| text.rfind("\n# \u{2014} ").map(|at| text.split_at(at).0.to_owned());
    assert_eq!(signature(&ours), signature(text), "one spelling but for the signature");
    // What the guard reads of the same file, as sshd does.
    let keys: Vec<_> = bundle.keys().iter().map(|key| key.key.clone()).collect();
    assert_eq!(trust::parse(text).unwrap_or_default(), keys);
    if let Ok(opened) = Bundle::open(text, KEY.verifier().notes()) {
        assert_eq!(opened, bundle);
    }
    true
}

fn checkpoint(text: &str) -> bool {
    let checked = KEY.verifier().check(text);
    let Ok(claimed) = Checkpoint::claimed(text) else {
        assert!(checked.is_err());
        return false;
    };
    if let Ok(checked) = checked {
        assert_eq!(checked, claimed);
    }
    let again = KEY.sign(claimed.size, &claimed.root);
    let origin = ORIGIN.to_owned();
    assert_eq!(KEY.verifier().check(&again), Ok(Checkpoint { origin, ..claimed }));
    true
}

fn verifier_key(text: &str) -> bool {
    let (note, log) = (NoteVerifier::parse(text), LogVerifier::parse(text));
    assert_eq!(note.is_ok(), log.is_ok());
    let Ok(key) = note else { return false };
    assert_eq!(key.to_text(), text, "one spelling");
    told(key.name(), 200);
    true
}
