//! JSON as it stands in log entries: read without copying, written into one text.
//!
//! What for: verifying a log is mostly reading JSON, and a general tree of it would own each name and each text. Here texts are parts
//! of the line that they stand in ([`Json`]), the members of an entry are read when they are asked for ([`Members`]), and an entry is
//! written straight into its bytes ([`Out`]).
//!
//! There are two readers. The quick one (`read`) takes what is written here and may take more than it should; it refuses without saying
//! why. The careful one is the JSON crate. What the quick one takes is believed only when writing it again gives the same bytes; all else, and
//! every error, is the careful one's (`entry`).
//!
//! What not: no other JSON of ours. Answers, reports and files are the JSON crate's.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod read;
mod write;

use std::borrow::Cow;

use serde_json::Value;

use self::read::Line;
pub(super) use self::read::kind_of;
pub(super) use self::write::Out;
use super::field::Field;

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
    /// Those of an entry, in its line.
    Line(Line<'a>),
}

impl<'a> Members<'a> {
    /// The members of the entry that this text is, by the quick reader. They must be asked for in the order of their names; those of every
    /// entry are taken with [`Self::head`] in the end.
    pub(super) const fn of_line(text: &'a str) -> Self {
        Self(Source::Line(Line::new(text)))
    }

    /// The members of every entry, in their order; `None` if one of them or the end of the object is not there.
    pub(super) fn head(self) -> Option<[Json<'a>; HEAD.len()]> {
        match self.0 {
            Source::Line(line) => line.finish(),
            Source::Tree(_) => None,
        }
    }

    fn find(&mut self, name: Name) -> Option<Json<'a>> {
        match &mut self.0 {
            Source::Line(line) => line.find(name),
            Source::Tree(all) => all.iter_mut().find(|(known, value)| value.is_some() && known == name.plain)?.1.take(),
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
            Some((name, _)) => Err(format!("{name:?} is not known here")),
            None => Ok(()),
        }
    }
}
