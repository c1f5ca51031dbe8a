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

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::event::Event;
use super::field::{Field as _, Members};
use super::tree::Hash;
use crate::time::Timestamp;

/// The version of the format; a change of any kind's members makes a new one.
const VERSION: u64 = 1;

/// No entry is longer: the largest thing in one is a to-be-signed certificate of 256 KiB, in base64.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

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
        let mut members: BTreeMap<&str, Value> = self.event.members();
        members.insert("v", VERSION.into());
        members.insert("index", self.index.into());
        members.insert("at", self.at.put());
        members.insert("kind", self.event.kind().into());
        // A map of text to JSON values always serialises, so there is no failure to hide behind the empty default.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// Reads them back, strictly: unknown kinds and members, other spellings of the same are refused.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError("longer than 1 MiB".to_owned()));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| EntryError(format!("not JSON: {e}")))?;
        let Value::Object(object) = value else { return Err(EntryError("not a JSON object".to_owned())) };
        let entry = Self::from_members(Members::new(object)).map_err(EntryError)?;
        if entry.to_bytes() == bytes {
            Ok(entry)
        } else {
            Err(EntryError("the same content is written differently".to_owned()))
        }
    }

    fn from_members(mut members: Members) -> Result<Self, String> {
        let version: u64 = members.take("v")?;
        if version != VERSION {
            return Err(format!("\"v\" is {version}, this program reads {VERSION}"));
        }
        let index = members.take("index")?;
        let at = members.take("at")?;
        let kind: String = members.take("kind")?;
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
}
