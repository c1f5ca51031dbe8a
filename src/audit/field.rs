//! How each type of event field is written in an entry.
//!
//! | Type | JSON |
//! |---|---|
//! | times | Unix seconds |
//! | lifetimes | seconds |
//! | windows | `{"end":…,"start":…}` |
//! | names, ids, digests, fingerprints, actors | their text: `alice`, `7K3F-9QX2`, 64 hex digits, `SHA256:…`, `person:alice` |
//! | sets | arrays sorted by text, without doubles |
//! | lists | arrays in their order |
//! | bytes | base64 with padding |
//! | what may be missing | `null` |
//! | what was added to a kind later | no member where there is nothing, so that older entries keep their one spelling |
//! | a CA key | `{"key":…,"purpose":"user","since":…,"state":"active"}`: an OpenSSH line, `user` or `host`, a time, its state; `"ca":"prod"` before them, of a user CA with a name |
//! | stands of trust bundles | `{"prod":{"since":…,"version":…}}`: for each user CA a time and the index of an entry |
//! | an approval's signature | `{"key":…,"server":…,"signed":…,"sshsig":…}`: an OpenSSH line, the server's URL, a time, the armoured SSHSIG |
//!
//! One trait both ways and one table (`kinds`), so that writing and reading can't drift apart. Each type is read from any JSON, where `Entry::parse`
//! compares the bytes as well, and where it stands in a line: that takes only what would be written so, by writing it again or because the type
//! has no second spelling.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;
use std::collections::BTreeSet;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};

use super::event::{Answer, Kept, Mover, Stand};
use super::host_event::Flag;
use super::json::{Json, Members, Out, Reader, name};
use crate::identity::Actor;
use crate::identity::approval::Signature;
use crate::keyring::step::{Proposal, Step};
use crate::keyring::{Ca, Ring, RingKey};
use crate::name::{
    Account, CaName, Digest, HostName, JoinId, NamePattern, PersonName, PolicyVersion, ReportId, RequestId, RuleName,
    Serial, Tag, TagKey,
};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::{Extension, Purpose};
use crate::ssh::sig::SshSignature;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp, Window};

/// A type that can stand in an entry.
pub(super) trait Field: Sized {
    /// As JSON.
    fn put(&self, out: &mut Out);

    /// From JSON; the error says what was expected.
    fn take(json: Json<'_>) -> Result<Self, String>;

    /// From where it stands in a line, if [`Self::put`] writes just these bytes.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.rewritten(Self::take)
    }
}

/// One that is a text.
trait Text: Sized {
    fn text(&self) -> Cow<'_, str>;

    /// Writes it; what is made of digits alone may be written without looking for what must be escaped.
    fn put_text(&self, out: &mut Out) {
        out.text(&self.text());
    }

    fn parse_text(text: Cow<'_, str>) -> Result<Self, String>;

    /// The same, if [`Self::text`] is this very text.
    fn read_text(text: Cow<'_, str>) -> Option<Self> {
        let value = Self::parse_text(Cow::Borrowed(&text)).ok()?;
        (value.text() == text).then_some(value)
    }
}

impl<T: Text> Field for T {
    fn put(&self, out: &mut Out) {
        self.put_text(out);
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        Self::parse_text(json.text()?)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.text().and_then(Self::read_text)
    }
}

/// Texts that have their own form as a part of them.
macro_rules! by_str {
    ($($type:ty),+) => {$(
        impl Text for $type {
            fn text(&self) -> Cow<'_, str> {
                Cow::Borrowed(self.as_str())
            }

            fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
                Self::parse(&text).map_err(|e| e.to_string())
            }
        }
    )+};
}

by_str!(Account, CaName, HostName, JoinId, NamePattern, PersonName, ReportId, RuleName, TagKey);

/// Texts that are made of what is in them.
macro_rules! by_display {
    ($($type:ty),+) => {$(
        impl Text for $type {
            fn text(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }

            fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
                Self::parse(&text).map_err(|e| e.to_string())
            }
        }
    )+};
}

by_display!(Actor, Mover, Tag);

/// Digits, as they are shown; most entries have some, so each writes them itself, and knows whether a text is what it writes.
macro_rules! by_digits {
    ($($type:ty: $put:expr, $is_written:expr;)+) => {$(
        impl Text for $type {
            fn text(&self) -> Cow<'_, str> {
                let (put, mut text): (fn(&$type, &mut String), _) = ($put, String::new());
                put(self, &mut text);
                Cow::Owned(text)
            }

            fn put_text(&self, out: &mut Out) {
                let put: fn(&$type, &mut String) = $put;
                out.digits(|text| put(self, text));
            }

            fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
                Self::parse(&text).map_err(|e| e.to_string())
            }

            fn read_text(text: Cow<'_, str>) -> Option<Self> {
                let is_written: fn(&$type, &str) -> bool = $is_written;
                Self::parse(&text).ok().filter(|value| is_written(value, &text))
            }
        }
    )+};
}

by_digits! {
    // The two have one spelling each: so many digits, all of them in one alphabet, and none with bits to spare.
    Digest: |digest, text| HEXLOWER.encode_append(digest.bytes(), text), |_, _| true;
    Fingerprint: |fingerprint, text| {
        text.push_str("SHA256:");
        BASE64_NOPAD.encode_append(fingerprint.bytes(), text);
    }, |_, _| true;
    RequestId: |id, text| {
        let (first, last) = id.digits().split_at_checked(4).unwrap_or_default();
        text.push_str(first);
        text.push('-');
        text.push_str(last);
    }, |id, text| text.split_once('-') == id.digits().split_at_checked(4);
}

impl Text for String {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }

    fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
        Ok(text.into_owned())
    }

    fn read_text(text: Cow<'_, str>) -> Option<Self> {
        Some(text.into_owned())
    }
}

/// Words of a closed list.
macro_rules! by_word {
    ($($type:ty: $word:expr, $of:expr, $otherwise:literal;)+) => {$(
        impl Text for $type {
            fn text(&self) -> Cow<'_, str> {
                let word: fn($type) -> &'static str = $word;
                Cow::Borrowed(word(*self))
            }

            fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
                let of: fn(&str) -> Option<$type> = $of;
                of(&text).ok_or_else(|| $otherwise.to_owned())
            }
        }
    )+};
}

by_word! {
    Answer: Self::word, |text| [Self::Allow, Self::Ask].into_iter().find(|a| a.word() == text), "not allow or ask";
    Extension: Self::key, |text| Self::ALL.into_iter().find(|e| e.key() == text), "not a certificate extension";
    Flag: Self::word, |text| Self::ALL.into_iter().find(|flag| flag.word() == text), "not a flag of a session";
    KeyState: Self::word, Self::from_word, "not a state of CA keys";
    Purpose: Self::word, Self::from_word, "not user or host";
    Step: Self::word, Self::from_word, "not a step of a rotation";
}

/// Fields that are a whole number, each with its way there and back.
macro_rules! by_number {
    ($($type:ty: $to:expr, $from:expr;)+) => {$(
        impl Field for $type {
            fn put(&self, out: &mut Out) {
                let to: fn(&$type) -> u64 = $to;
                out.number(to(self));
            }

            fn take(json: Json<'_>) -> Result<Self, String> {
                let from: fn(u64) -> Option<$type> = $from;
                let number = if let Json::Number(number) = json { from(number) } else { None };
                number.ok_or_else(|| "not a whole number in range".to_owned())
            }

            fn read(reader: &mut Reader<'_>) -> Option<Self> {
                let (from, to): (fn(u64) -> Option<$type>, fn(&$type) -> u64) = ($from, $to);
                let number = reader.number()?;
                from(number).filter(|value| to(value) == number)
            }
        }
    )+};
}

by_number! {
    u64: |n| *n, Some;
    usize: |n| u64::try_from(*n).unwrap_or(u64::MAX), |n| Self::try_from(n).ok();
    Lifetime: |l| l.seconds().into(), |n| u32::try_from(n).ok().and_then(|s| Self::from_seconds(s).ok());
    PolicyVersion: |v| v.0.into(), |n| u32::try_from(n).ok().map(Self);
    Serial: |s| s.number(), |n| Self::new(n).ok();
    Timestamp: |t| t.unix(), |n| Self::from_unix(n).ok();
}

impl Field for bool {
    fn put(&self, out: &mut Out) {
        out.bool(*self);
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        if let Json::Bool(is) = json { Ok(is) } else { Err("not true or false".to_owned()) }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let is = reader.word("true").is_some();
        if is { Some(true) } else { reader.word("false").map(|()| false) }
    }
}

impl Field for Window {
    fn put(&self, out: &mut Out) {
        out.object(|out| {
            out.member(name!(end), &self.end());
            out.member(name!(start), &self.start());
        });
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let mut members = json.members("not a window")?;
        let (end, start) = (members.take(name!(end))?, members.take(name!(start))?);
        members.finish()?;
        Self::new(start, end).map_err(|e| e.to_string())
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.skip(b'{').and_then(|()| reader.name(name!(end)))?;
        let end = Field::read(reader)?;
        reader.skip(b',').and_then(|()| reader.name(name!(start)))?;
        let start = Field::read(reader)?;
        reader.skip(b'}')?;
        Self::new(start, end).ok()
    }
}

impl Text for PublicKey {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(self.to_openssh())
    }

    fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
        Self::parse_openssh(&text).map_err(|e| e.to_string())
    }
}

impl Text for SshSignature {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(self.to_armoured())
    }

    fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
        Self::parse(&text).map_err(|e| e.to_string())
    }
}

impl Field for Signature {
    fn put(&self, out: &mut Out) {
        out.object(|out| {
            out.member(name!(key), self.key());
            out.text_member(name!(server), self.server());
            out.member(name!(signed), &self.signed());
            out.member(name!(sshsig), self.sshsig());
        });
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let mut members = json.members("not a signature")?;
        let (key, server) = (members.take(name!(key))?, members.take(name!(server))?);
        let (signed, sshsig) = (members.take(name!(signed))?, members.take(name!(sshsig))?);
        members.finish()?;
        Self::new(server, key, signed, sshsig).map_err(|e| e.to_string())
    }
}

impl Field for Proposal {
    fn put(&self, out: &mut Out) {
        let Self { step, ca, key, accepted, is_early } = self;
        out.object(|out| {
            out.member(name!(accepted), accepted);
            put_ca_name(ca, out);
            out.member(name!(early), is_early);
            out.member(name!(key), key);
            out.member(name!(purpose), &ca.purpose());
            out.member(name!(step), step);
        });
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let mut members = json.members("not a proposal")?;
        let (step, ca, key) = (members.take(name!(step))?, take_ca(&mut members)?, members.take(name!(key))?);
        let (accepted, is_early) = (members.take(name!(accepted))?, members.take(name!(early))?);
        members.finish()?;
        Ok(Self { step, ca, key, accepted, is_early })
    }
}

/// The member of the CA's name: there is none for the default one.
fn put_ca_name(ca: &Ca, out: &mut Out) {
    if let Some(name) = ca.named() {
        out.member(name!(ca), &name);
    }
}

/// The CA that `purpose` and `ca` say together.
fn take_ca(members: &mut Members<'_>) -> Result<Ca, String> {
    let (purpose, name) = (members.take(name!(purpose))?, members.take_later(name!(ca))?);
    Ca::of(purpose, name).map_err(str::to_owned)
}

impl Field for Stand {
    fn put(&self, out: &mut Out) {
        out.object(|out| {
            out.member(name!(since), &self.since);
            out.member(name!(version), &self.version);
        });
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let mut members = json.members("not the stand of a trust bundle")?;
        let (since, version) = (members.take(name!(since))?, members.take(name!(version))?);
        members.finish()?;
        Ok(Self { version, since })
    }
}

impl Field for Kept {
    fn put(&self, out: &mut Out) {
        // By text, as everything else.
        let mut stands: Vec<(&str, &Stand)> = self.iter().map(|(ca, stand)| (ca.as_str(), stand)).collect();
        stands.sort_by_key(|(ca, _)| *ca);
        out.object(|out| stands.into_iter().for_each(|(ca, stand)| out.foreign_member(ca, stand)));
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let parsed = |(ca, stand): (Cow<'_, str>, Json<'_>)| -> Result<(CaName, Stand), String> {
            Ok((CaName::parse(&ca).map_err(|e| e.to_string())?, Stand::take(stand)?))
        };
        json.object("not the stands of trust bundles")?.into_iter().map(parsed).collect()
    }
}

impl Field for RingKey {
    fn put(&self, out: &mut Out) {
        out.object(|out| {
            put_ca_name(&self.ca, out);
            out.member(name!(key), &self.key);
            out.member(name!(purpose), &self.purpose());
            out.member(name!(since), &self.since);
            out.member(name!(state), &self.state);
        });
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let mut members = json.members("not a CA key")?;
        let (key, ca) = (members.take(name!(key))?, take_ca(&mut members)?);
        let (since, state) = (members.take(name!(since))?, members.take(name!(state))?);
        members.finish()?;
        Ok(Self { ca, key, state, since })
    }
}

impl Field for Ring {
    fn put(&self, out: &mut Out) {
        out.array(self.keys(), |out, key| key.put(out));
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        let keys = json.array()?.into_iter().map(RingKey::take).collect::<Result<_, _>>()?;
        Self::new(keys).map_err(|e| e.to_string())
    }
}

impl Text for Vec<u8> {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(BASE64.encode(self))
    }

    fn put_text(&self, out: &mut Out) {
        out.digits(|text| BASE64.encode_append(self, text));
    }

    fn parse_text(text: Cow<'_, str>) -> Result<Self, String> {
        BASE64.decode(text.as_bytes()).map_err(|_| "not base64".to_owned())
    }

    /// Without its padding it has one spelling; with it, the decoder takes some in the middle as well.
    fn read_text(text: Cow<'_, str>) -> Option<Self> {
        let text = text.as_bytes();
        let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
        text.len().is_multiple_of(4).then(|| BASE64_NOPAD.decode(digits).ok()).flatten()
    }
}

impl<F: Field> Field for Vec<F> {
    fn put(&self, out: &mut Out) {
        out.array(self, |out, item| item.put(out));
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        json.array()?.into_iter().map(F::take).collect()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut items = Self::new();
        reader.items(|reader| F::read(reader).map(|item| items.push(item)))?;
        Some(items)
    }
}

impl<T: Text + Ord> Field for BTreeSet<T> {
    fn put(&self, out: &mut Out) {
        // By text, not by the type's own order, so that a reader in another language can check it.
        let mut items: Vec<Cow<'_, str>> = self.iter().map(Text::text).collect();
        items.sort();
        out.array(items, |out, item| out.text(&item));
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        // Order and doubles: `Entry::parse` compares the bytes.
        json.array()?.into_iter().map(T::take).collect()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (mut items, mut last) = (Self::new(), None);
        reader.items(|reader| {
            let text = reader.text()?;
            // Each behind the one before it, so that none is there twice.
            let is_behind = last.as_ref().is_none_or(|last| *last < text);
            items.insert(T::read_text(text.clone()).filter(|_| is_behind)?);
            last = Some(text);
            Some(())
        })?;
        Some(items)
    }
}

impl<F: Field> Field for Option<F> {
    fn put(&self, out: &mut Out) {
        match self {
            Some(value) => value.put(out),
            None => out.null(),
        }
    }

    fn take(json: Json<'_>) -> Result<Self, String> {
        if json == Json::Null { Ok(None) } else { F::take(json).map(Some) }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.word("null").is_some() { Some(None) } else { F::read(reader).map(Some) }
    }
}
