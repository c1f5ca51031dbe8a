//! JSON as it stands in log entries: read without copying, written into one text.
//!
//! What for: verifying a log is mostly reading JSON, and a general tree of it would own each name and each text. Here texts are parts
//! of the line that they stand in ([`Json`]), the members of an entry are read when they are asked for ([`Members`]), and an entry is
//! written straight into its bytes ([`Out`]).
//!
//! There are two readers. The quick one (`read`) takes a line from its start to its end as it is written here, each piece in the one spelling
//! that it has, and refuses without saying why. The careful one is the JSON crate, and believed only when writing again gives the same bytes.
//! What the quick one does not take, and every error, is the careful one's (`entry`).
//!
//! What not: no other JSON of ours. Answers, reports and files are the JSON crate's.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod read;
mod write;

use std::borrow::Cow;

use serde_json::Value;

use self::read::Line;
pub(super) use self::read::{Reader, kind_of};
pub(super) use self::write::Out;
use super::field::Field;
use crate::time::Timestamp;

/// The name of a member, as it is and as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) plain: &'static str,
    pub(super) quoted: &'static str,
}

/// The [`Name`] that this word is.
macro_rules! name {
    ($name:ident) => {
        crate::audit::json::Name { plain: stringify!($name), quoted: concat!("\"", stringify!($name), "\":") }
    };
}
pub(super) use name;

/// The members of every entry, in the order of their names.
pub(super) const HEAD: [Name; 4] = [name!(at), name!(index), name!(kind), name!(v)];

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number, not negative.
    Number(u64),
    /// Any other number.
    OtherNumber,
    /// A text, without its escapes.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl From<Value> for Json<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Bool(is),
            Value::Number(number) => number.as_u64().map_or(Self::OtherNumber, Self::Number),
            Value::String(text) => Self::Text(Cow::Owned(text)),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (Cow::Owned(name), Self::from(value))).collect())
            }
        }
    }
}

impl<'a> Json<'a> {
    pub(super) fn text(self) -> Result<Cow<'a, str>, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::OtherNumber | Self::Array(_) | Self::Object(_) => {
                Err("not text".to_owned())
            }
        }
    }

    pub(super) fn array(self) -> Result<Vec<Self>, String> {
        match self {
            Self::Array(items) => Ok(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::OtherNumber | Self::Text(_) | Self::Object(_) => {
                Err("not an array".to_owned())
            }
        }
    }

    /// An object, or the error that is said for anything else.
    pub(super) fn object(self, otherwise: &str) -> Result<Vec<(Cow<'a, str>, Self)>, String> {
        match self {
            Self::Object(members) => Ok(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::OtherNumber | Self::Text(_) | Self::Array(_) => {
                Err(otherwise.to_owned())
            }
        }
    }

    /// The members of an object, likewise.
    pub(super) fn members(self, otherwise: &str) -> Result<Members<'a>, String> {
        let members = self.object(otherwise)?;
        Ok(Members(Source::Tree(members.into_iter().map(|(name, value)| (name, Some(value))).collect())))
    }
}

/// The members of an object; each can be read once.
#[derive(Debug)]
pub(super) struct Members<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    /// All of them; those that have been read are `None`.
    Tree(Vec<(Cow<'a, str>, Option<Json<'a>>)>),
    /// Those of an entry, where they stand in its line.
    Line(Line<'a>),
}

impl<'a> Members<'a> {
    /// The members of the entry of this kind that this text is, by the quick reader. They must be asked for by [`Self::take_in`] and
    /// [`Self::take_later_in`], in the order of their names, and in the end by [`Self::head`].
    pub(super) const fn of_line(text: &'a str, kind: &'a str) -> Self {
        Self(Source::Line(Line::new(text, kind)))
    }

    /// The time and the number of the entry, if its line ends here.
    pub(super) fn head(self) -> Option<(Timestamp, u64)> {
        match self.0 {
            Source::Line(line) => line.finish(),
            Source::Tree(_) => None,
        }
    }

    fn find(&mut self, name: Name) -> Option<Json<'a>> {
        match &mut self.0 {
            // Those are taken in their places.
            Source::Line(_) => None,
            Source::Tree(all) => all.iter_mut().find(|(known, value)| value.is_some() && known == name.plain)?.1.take(),
        }
    }

    /// Reads one member of an event, before which so many of those of every entry stand.
    pub(super) fn take_in<F: Field>(&mut self, name: Name, heads: usize) -> Result<F, String> {
        match &mut self.0 {
            // Nobody is told why.
            Source::Line(line) => line.member(name, heads).ok_or_else(String::new),
            Source::Tree(_) => self.take(name),
        }
    }

    /// The same, of one that was added to its kind later.
    pub(super) fn take_later_in<F: Field>(&mut self, name: Name, heads: usize) -> Result<Option<F>, String> {
        match &mut self.0 {
            Source::Line(line) => line.later(name, heads).ok_or_else(String::new),
            Source::Tree(_) => self.take_later(name),
        }
    }

    /// Reads one member.
    pub(super) fn take<F: Field>(&mut self, name: Name) -> Result<F, String> {
        let value = self.find(name).ok_or_else(|| format!("\"{}\" is missing", name.plain))?;
        F::take(value).map_err(|why| format!("\"{}\": {why}", name.plain))
    }

    /// Reads one member that was added to its kind later.
    pub(super) fn take_later<F: Field>(&mut self, name: Name) -> Result<Option<F>, String> {
        let taken = self.find(name).map(F::take).transpose();
        taken.map_err(|why| format!("\"{}\": {why}", name.plain))
    }

    /// Refuses members that nobody read.
    pub(super) fn finish(self) -> Result<(), String> {
        let Source::Tree(all) = self.0 else { return Ok(()) };
        match all.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(format!("{} is not known here", quoted(name))),
            None => Ok(()),
        }
    }
}

/// A name that somebody else has written, for an error: escaped, at most 64 characters of it.
pub(super) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    format!("{start:?}{}", if start.len() < text.len() { "…" } else { "" })
}

/// How many bytes at the start of a text can stand in JSON as they are: up to a quote, a backslash or a control character. None of those is a
/// part of a longer character.
///
/// Eight at a time: which bytes of a word are below a limit shows in their highest bits once it is taken from each. A byte that is borrowed from
/// may show as well, but never before the one that borrowed, and only the first that shows is looked at.
fn plain_bytes(text: &str) -> usize {
    let mut rest = text.as_bytes();
    while let Some((chunk, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        let below = |word: u64, limit: u8| word.wrapping_sub(u64::from_le_bytes([limit; 8])) & !word;
        let is = |byte: u8| below(word ^ u64::from_le_bytes([byte; 8]), 1);
        let shows = (below(word, b' ') | is(b'"') | is(b'\\')) & u64::from_le_bytes([0x80; 8]);
        if shows != 0 {
            let before = usize::try_from(shows.trailing_zeros() / 8).unwrap_or(0);
            return text.len().saturating_sub(rest.len()).saturating_add(before);
        }
        rest = behind;
    }
    let last = rest.iter().position(|byte| is_escaped(*byte)).unwrap_or(rest.len());
    text.len().saturating_sub(rest.len()).saturating_add(last)
}

/// Whether this byte of a text can't stand in JSON as it is.
const fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_plain_up_to_the_first_byte_that_is_escaped() {
        let fills = ["", "a", " ", "!", "#", "[", "]", "\u{7f}", "\u{80}", "\u{2028}", "\u{1f4be}"];
        for (before, after) in fills.iter().flat_map(|before| fills.map(|after| (before, after))) {
            for count in 0..12 {
                for byte in 0..0x80_u8 {
                    let text = format!("{}{}{}", before.repeat(count), char::from(byte), after.repeat(9));
                    let plain = text.bytes().position(is_escaped).unwrap_or(text.len());
                    assert_eq!(plain_bytes(&text), plain, "{text:?}");
                }
            }
        }
    }
}
