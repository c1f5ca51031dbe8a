//! A log entry: an event with its number and time, in one canonical form of bytes.
//!
//! Canonical form: one JSON object (RFC 8259), members sorted by the bytes of their names, no blanks, UTF-8 as is, numbers
//! whole and not negative, in strings only `"`, `\` and control characters escaped (`\b \t \n \f \r`, else `\u00xx` in lower
//! case). Members: `v` (1), `index`, `at` (Unix seconds), `kind`, and the event's own under their names in [`Event`], none ever left
//! out (`null` where there is none). The leaf hash is SHA-256(0x00 ‖ bytes).
//!
//! Invariant: `parse(bytes)` succeeds only if `to_bytes` of the result gives the same bytes back, so there is one spelling of
//! each entry, and doubled members, blanks, other escapes, `1.0`, unknown kinds and unknown members are all refused.
//!
//! How each type of field is written is in `audit/field.rs`.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use serde_json::Value;
use thiserror::Error;

use super::event::Event;
use super::json::{self, Json, Members, Out, name};
use super::kinds::{Head, VERSION};
use super::tree::Hash;
use crate::time::Timestamp;

/// No entry is longer: the largest thing in one is a to-be-signed certificate of 256 KiB, in base64.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Room for most entries.
const BYTES_USUAL: usize = 1024;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 0.
    pub index: u64,
    /// When it was written; never earlier than its predecessor's.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Bytes that are no canonical entry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("entry is not in canonical form: {0}")]
pub struct EntryError(pub String);

impl Entry {
    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.write(BYTES_USUAL).into_bytes()
    }

    /// The same, with room for so many bytes to begin with.
    fn write(&self, bytes: usize) -> Out {
        let mut out = Out::with_capacity(bytes);
        out.object(|out| {
            let mut head = Head::of(self);
            self.event.put(&mut head, out);
            head.finish(out);
        });
        out
    }

    /// Reads them back, strictly: unknown kinds and members, other spellings of the same are refused.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError("longer than 1 MiB".to_owned()));
        }
        // What the quick reader does not take is judged by the careful one.
        Self::parse_quickly(bytes).map_or_else(|| Self::parse_carefully(bytes), Ok)
    }

    /// Reads what is written as it would be written here: nothing is taken in another place or spelling than the one that it has.
    fn parse_quickly(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let kind = json::kind_of(text)?;
        let mut members = Members::of_line(text, kind);
        let event = Event::from_members(kind, &mut members).ok()?;
        let (at, index) = members.head()?;
        let entry = Self { index, at, event };
        debug_assert_eq!(entry.write(bytes.len()).as_bytes(), bytes, "what is taken quickly is written so");
        Some(entry)
    }

    /// Reads with the JSON crate, and says what is wrong.
    fn parse_carefully(bytes: &[u8]) -> Result<Self, EntryError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| EntryError(format!("not JSON: {e}")))?;
        let members = Json::from(value).members("not a JSON object").map_err(EntryError)?;
        let entry = Self::from_members(members).map_err(EntryError)?;
        if entry.write(bytes.len()).as_bytes() == bytes {
            Ok(entry)
        } else {
            Err(EntryError("the same content is written differently".to_owned()))
        }
    }

    fn from_members(mut members: Members<'_>) -> Result<Self, String> {
        let version: u64 = members.take(name!(v))?;
        if version != VERSION {
            return Err(format!("\"v\" is {version}, this program reads {VERSION}"));
        }
        let index = members.take(name!(index))?;
        let at = members.take(name!(at))?;
        let kind: String = members.take(name!(kind))?;
        let event = Event::from_members(&kind, &mut members)?;
        members.finish()?;
        Ok(Self { index, at, event })
    }

    /// The leaf hash of its bytes.
    #[must_use]
    pub fn leaf_hash(bytes: &[u8]) -> Hash {
        super::tree::leaf_hash(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RequestId;

    const EXPIRED: &str = r#"{"at":1767607200,"index":9,"kind":"expired","request":"7K3F-9QX2","v":1}"#;

    #[test]
    fn an_entry_has_one_spelling() {
        let request = RequestId::parse("7K3F-9QX2").unwrap();
        let entry =
            Entry { index: 9, at: Timestamp::from_unix(1_767_607_200).unwrap(), event: Event::Expired { request } };
        assert_eq!(String::from_utf8(entry.to_bytes()).unwrap(), EXPIRED);
        assert_eq!(Entry::parse(EXPIRED.as_bytes()), Ok(entry));
    }

    #[test]
    fn other_spellings_and_unknown_things_are_refused_with_the_reason() {
        for (from, to, why) in [
            ("\"v\":1", "\"v\":2", "\"v\" is 2"),
            ("\"v\":1", "\"v\":1,\"w\":1", "\"w\" is not known"),
            ("\"v\":1", "\"v\":1.0", "not a whole number"),
            ("\"index\":9,", "\"index\":8,\"index\":9,", "written differently"),
            ("\"index\":9,", "", "\"index\" is missing"),
            ("\"index\":9,", "\"index\": 9,", "written differently"),
            ("\"index\":9,", "\"index\":-9,", "not a whole number"),
            ("7K3F-9QX2", "7k3f-9qx2", "written differently"),
            ("7K3F", "\\u0037K3F", "written differently"),
            ("7K3F-9QX2", "7K3F", "not a request id"),
            ("expired", "exploded", "\"exploded\" is not known"),
            ("{", "[", "not JSON"),
        ] {
            let error = Entry::parse(EXPIRED.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.0.contains(why), "{from} to {to}: {error}");
        }
    }

    #[test]
    fn an_error_is_short_however_long_the_names_are() {
        let long = "é".repeat(10_000);
        for (from, to) in [("\"expired\"", format!("\"{long}\"")), ("\"v\":1", format!("\"v\":1,\"{long}\":1"))] {
            let error = Entry::parse(EXPIRED.replacen(from, &to, 1).as_bytes()).unwrap_err();
            assert!(error.0.contains("ééé") && error.0.contains('…') && error.0.len() < 300, "{error}");
        }
    }

    /// Entries of every kind, as they are written for good.
    const GOLDEN: &str = include_str!("../../tests/golden/events.jsonl");

    /// What a byte is changed to: pieces of the syntax, digits, letters, controls, and what is no character.
    const OTHERS: &[u8] = b"\"\\,:{}[] 0aA-\0\x1f\x7f\x80\xff";

    /// What the quick reader takes, the careful one takes for the same, and another writer writes so.
    fn check_quick(bytes: &[u8]) -> bool {
        let Some(entry) = Entry::parse_quickly(bytes) else { return false };
        assert_eq!(Entry::parse_carefully(bytes), Ok(entry), "{}", String::from_utf8_lossy(bytes));
        let value: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(serde_json::to_vec(&value).unwrap(), bytes, "{}", String::from_utf8_lossy(bytes));
        true
    }

    #[test]
    fn the_quick_reader_takes_every_kind_of_entry() {
        for line in GOLDEN.lines() {
            assert!(check_quick(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn the_quick_reader_takes_no_changed_byte_that_the_careful_one_does_not() {
        let (mut names, mut taken) = (std::collections::BTreeSet::new(), 0_usize);
        let names_in = |line: &str| {
            let members: std::collections::BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
            (json::kind_of(line).unwrap().to_owned(), members.into_keys().collect::<Vec<_>>())
        };
        // Of each kind those that have other members.
        for line in GOLDEN.lines().filter(|line| names.insert(names_in(line))) {
            for at in 0..line.len() {
                let mut bytes = line.as_bytes().to_vec();
                let byte = bytes[at];
                for other in OTHERS.iter().copied().chain([byte ^ 1, byte ^ 0x20]).filter(|other| *other != byte) {
                    bytes[at] = other;
                    taken += usize::from(check_quick(&bytes));
                }
                bytes[at] = byte;
                bytes.insert(at, byte);
                taken += usize::from(check_quick(&bytes));
                bytes.drain(at..at + 2);
                taken += usize::from(check_quick(&bytes));
            }
        }
        // Another digit or letter is often another entry.
        assert!(taken > 1_000, "{taken}");
    }

    #[test]
    fn what_stands_in_another_order_or_twice_is_not_taken_quickly() {
        for (from, to) in [
            ("\"at\":1767607200,\"index\":9,", "\"index\":9,\"at\":1767607200,"),
            ("\"index\":9,", "\"index\":9,\"index\":9,"),
            ("\"kind\":\"expired\",", ""),
            ("\"v\":1", "\"v\":2"),
            ("\"v\":1", "\"v\":01"),
            ("\"v\":1}", "\"v\":1}}"),
            ("\"v\":1}", "\"v\":1"),
            ("9QX2\"", "9QX2\",\"kind\":\"expired\""),
        ] {
            assert!(EXPIRED.contains(from));
            assert_eq!(Entry::parse_quickly(EXPIRED.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }

    /// Second spellings of what stands in the golden entries, of every type that has one.
    const RESPELT: &[(&str, &str)] = &[
        ("\"request\":\"7K3F-9QX2\"", "\"request\":\"7K3F9QX2\""),
        ("\"request\":\"7K3F-9QX2\"", "\"request\":\"7k3f-9qx2\""),
        ("\"request\":\"7K3F-9QX2\"", "\"request\":\"7K3-F9QX2\""),
        ("\"request\":\"0000-0001\"", "\"request\":\"OOOO-0001\""),
        ("\"request\":null", "\"request\":\"\""),
        ("\"index\":9,", "\"index\":09,"),
        ("\"v\":1}", "\"v\":1,\"v\":1}"),
        ("\"v\":1}", "\"v\":1,\"w\":null}"),
        ("\"policy\":1,", "\"policy\":1,\"policy\":1,"),
        ("\"by\":\"bob\",\"comment\":\"ok\",", "\"comment\":\"ok\",\"by\":\"bob\","),
        ("\"at\":1767607220,\"by\":\"bob\",", "\"by\":\"bob\",\"at\":1767607220,"),
        ("[\"web-1\",\"web-2\"]", "[\"web-2\",\"web-1\"]"),
        ("[\"web-1\"]", "[\"web-1\",\"web-1\"]"),
        ("[\"agent_forwarding\",\"pty\"]", "[\"pty\",\"agent_forwarding\"]"),
        ("[\"role=web\"]", "[\"role=web\",\"role=web\"]"),
        ("[\"role=web\"]", "[\"role=web\",]"),
        ("\"end\":1767609020,\"start\":1767607200", "\"start\":1767607200,\"end\":1767609020"),
        ("\"end\":1767609020,", "\"end\":1767609020,\"end\":1767609020,"),
        ("\"start\":1767607200}", "\"start\":1767607200,\"x\":1}"),
        ("0101010101\"", "010101010A\""),
        ("D+G4\"", "D+G5\""),
        ("D+G4\"", "D+G4=\""),
        ("is full", "\\u0069s full"),
        ("full:\\n", "full:\\u000a"),
        ("Debian \\u001b", "Debian \\u001B"),
        ("\"key\":\"ssh-ed25519 ", "\"key\":\"ssh-ed25519  "),
        ("ybOU\"", "ybOU comment\""),
        ("\"purpose\":\"user\",", "\"purpose\":\"user\",\"purpose\":\"user\","),
        ("{\"since\":1767607200,\"version\":2}", "{\"version\":2,\"since\":1767607200}"),
        ("{\"key\":\"ssh-ed25519", "{\"ca\":\"default\",\"key\":\"ssh-ed25519"),
        ("\"by\":\"system:start\"", "\"by\":\"system:START\""),
        ("\"extension\":false", "\"extension\":null"),
        ("\"tbs\":\"AAAA", "\"tbs\":\"AA==AAAA"),
        ("\"tbs\":\"AAAA", "\"tbs\":\"AAA=AAA=AAAA"),
        ("\"tbs\":\"AAAA", "\"tbs\":\"AAA"),
        ("\"tbs\":\"AAAA", "\"tbs\":\"====AAAA"),
    ];

    #[test]
    fn no_second_spelling_is_taken_by_either_reader() {
        for (from, to) in RESPELT {
            let mut tried = 0;
            for line in GOLDEN.lines().filter(|line| line.contains(from)) {
                let respelt = line.replacen(from, to, 1);
                assert_eq!(Entry::parse_quickly(respelt.as_bytes()), None, "{respelt}");
                assert!(Entry::parse(respelt.as_bytes()).is_err(), "{respelt}");
                tried += 1;
            }
            assert!(tried > 0, "{from}");
        }
    }

    #[test]
    fn base64_is_taken_with_its_one_padding() {
        // What the type relies on.
        assert!(data_encoding::BASE64_NOPAD.is_canonical() && data_encoding::HEXLOWER.is_canonical());
        let line = |tbs: &str| {
            let members = [
                "\"request\":\"7K3F-9QX2\",\"serial\":9,\"tbs\":\"",
                tbs,
                "\",\"v\":1,\"window\":{\"end\":2,\"start\":1}}",
            ];
            let head = "{\"at\":1,\"ca\":\"SHA256:4A9jyZBOhnKZvcGQ6TRFbf5Gymb41AfYvYaVmWHD+G4\",\"index\":9,";
            format!("{head}\"kind\":\"certificate_to_be_signed\",\"person\":\"a\",\"policy\":1,{}", members.concat())
        };
        // Every text of up to eight of these characters, as far as they are not alike in what they mean.
        let mut texts = vec![String::new()];
        let mut taken = 0;
        for _ in 0..8 {
            let longer = |text: &String| ["A", "/", "="].map(|next| format!("{text}{next}"));
            texts = texts.iter().flat_map(longer).collect();
            for text in &texts {
                let decoded = data_encoding::BASE64.decode(text.as_bytes());
                let is_one = decoded.is_ok_and(|bytes| data_encoding::BASE64.encode(&bytes) == *text);
                let quick = Entry::parse_quickly(line(text).as_bytes());
                assert_eq!(quick.is_some(), is_one, "{text}");
                taken += usize::from(is_one);
            }
        }
        assert!(taken > 300, "{taken}");
    }
}
