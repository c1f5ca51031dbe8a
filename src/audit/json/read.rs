//! The quick reader: takes JSON in the one spelling in which it is written here, and refuses without a reason.
//!
//! Members stand in the order of their names, with nothing between; a text has no escape but those that it must have; a number has no zero
//! before it. What stands in a member is held to its spelling by its type (`Field::read`), and where no quicker way is proven, by writing it again.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;

use super::{HEAD, Json, Name, Out, plain_bytes};
use crate::audit::field::Field;
use crate::audit::kinds::VERSION;
use crate::time::Timestamp;

/// How deep objects and arrays may lie in each other. Those of a member are two deep; nothing here may use up the stack.
const DEPTH_MAX: u8 = 8;

/// The word of an entry's kind: nothing else in a line can look as this member does, since a text has its quotes escaped.
pub(in crate::audit) fn kind_of(text: &str) -> Option<&str> {
    let mut rest = text.as_bytes();
    // On from each place by as much as the last byte there allows (Horspool): most of a line is passed over.
    while let Some(place) = rest.first_chunk::<9>() {
        let by = match place {
            b",\"kind\":\"" => {
                let before = text.len().saturating_sub(rest.len());
                return text.get(before.saturating_add(9)..)?.split_once('"').map(|(kind, _)| kind);
            }
            [.., b':'] => 1,
            [.., b'"'] => 2,
            [.., b'd'] => 3,
            [.., b'n'] => 4,
            [.., b'i'] => 5,
            [.., b'k'] => 6,
            [.., b','] => 8,
            _ => 9,
        };
        rest = rest.get(by..)?;
    }
    None
}

/// An entry in its line, whose members are read as they are written: those of every entry in their places between the others.
#[derive(Debug)]
pub(super) struct Line<'a> {
    reader: Reader<'a>,
    kind: &'a str,
    is_begun: bool,
    /// How many of [`HEAD`] have been read.
    heads: usize,
    at: Option<Timestamp>,
    index: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) const fn new(text: &'a str, kind: &'a str) -> Self {
        Self { reader: Reader { rest: text }, kind, is_begun: false, heads: 0, at: None, index: None }
    }

    /// The next member, which has this name, and so many of every entry's before it.
    pub(super) fn member<F: Field>(&mut self, name: Name, heads: usize) -> Option<F> {
        self.heads(heads)?;
        self.name(name)?;
        F::read(&mut self.reader)
    }

    /// The next member, if it has this name.
    pub(super) fn later<F: Field>(&mut self, name: Name, heads: usize) -> Option<Option<F>> {
        self.heads(heads)?;
        let (before, was_begun) = (self.reader, self.is_begun);
        if self.name(name).is_some() {
            return F::read(&mut self.reader).map(Some);
        }
        (self.reader, self.is_begun) = (before, was_begun);
        Some(None)
    }

    /// The rest of every entry's members, with which the line ends.
    pub(super) fn finish(mut self) -> Option<(Timestamp, u64)> {
        self.heads(HEAD.len())?;
        self.reader.skip(b'}')?;
        self.at.zip(self.index).filter(|_| self.reader.rest.is_empty())
    }

    /// Reads every entry's members up to the first `count`, as far as they have not been.
    fn heads(&mut self, count: usize) -> Option<()> {
        while self.heads < count {
            self.name(*HEAD.get(self.heads)?)?;
            match self.heads {
                0 => self.at = Some(Field::read(&mut self.reader)?),
                1 => self.index = Some(self.reader.number()?),
                2 => self.reader.text().filter(|kind| kind == self.kind).map(drop)?,
                _ => self.reader.number().filter(|version| *version == VERSION).map(drop)?,
            }
            self.heads = self.heads.saturating_add(1);
        }
        Some(())
    }

    /// Goes on behind the name of the next member, which is this one.
    fn name(&mut self, name: Name) -> Option<()> {
        self.reader.skip(if self.is_begun { b',' } else { b'{' })?;
        self.is_begun = true;
        self.reader.name(name)
    }
}

/// What has not been read of a line.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit) struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn first(&self) -> Option<u8> {
        self.rest.as_bytes().first().copied()
    }

    /// Goes on behind `wanted`, an ASCII character, if that comes next.
    pub(in crate::audit) fn is_next(&mut self, wanted: u8) -> bool {
        let is_next = self.first() == Some(wanted);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    pub(in crate::audit) fn skip(&mut self, wanted: u8) -> Option<()> {
        self.is_next(wanted).then_some(())
    }

    /// Goes on behind this word.
    pub(in crate::audit) fn word(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// Goes on behind the name of a member.
    pub(in crate::audit) fn name(&mut self, name: Name) -> Option<()> {
        self.word(name.quoted)
    }

    /// What `take` makes of any value, if that is written as it stands here.
    pub(in crate::audit) fn rewritten<F: Field>(
        &mut self,
        take: impl FnOnce(Json<'a>) -> Result<F, String>,
    ) -> Option<F> {
        let text = self.rest;
        let value = take(self.value(DEPTH_MAX)?).ok()?;
        let stands = text.get(..text.len().checked_sub(self.rest.len())?)?;
        let mut out = Out::with_capacity(stands.len());
        value.put(&mut out);
        (out.as_bytes() == stands.as_bytes()).then_some(value)
    }

    fn value(&mut self, depth: u8) -> Option<Json<'a>> {
        match self.first()? {
            b'"' => self.text().map(Json::Text),
            b'0'..=b'9' => self.number().map(Json::Number),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b'n' => self.word("null").map(|()| Json::Null),
            b't' => self.word("true").map(|()| Json::Bool(true)),
            b'f' => self.word("false").map(|()| Json::Bool(false)),
            _ => None,
        }
    }

    fn object(&mut self, depth: u8) -> Option<Json<'a>> {
        self.skip(b'{')?;
        let mut members = Vec::new();
        if self.is_next(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            let name = self.text()?;
            self.skip(b':')?;
            members.push((name, self.value(depth)?));
            if self.is_next(b'}') {
                return Some(Json::Object(members));
            }
            self.skip(b',')?;
        }
    }

    fn array(&mut self, depth: u8) -> Option<Json<'a>> {
        let mut items = Vec::new();
        self.items(|reader| reader.value(depth).map(|item| items.push(item)))?;
        Some(Json::Array(items))
    }

    /// An array, whose items are read by `item`.
    pub(in crate::audit) fn items(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip(b'[')?;
        if self.is_next(b']') {
            return Some(());
        }
        loop {
            item(self)?;
            if self.is_next(b']') {
                return Some(());
            }
            self.skip(b',')?;
        }
    }

    pub(in crate::audit) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        let mut count = 0_usize;
        for byte in self.rest.bytes() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if count > 0 && number == 0 {
                return None;
            }
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            count = count.saturating_add(1);
        }
        self.rest = self.rest.get(count..)?;
        (count > 0).then_some(number)
    }

    pub(in crate::audit) fn text(&mut self) -> Option<Cow<'a, str>> {
        self.skip(b'"')?;
        let (plain, rest) = self.rest.split_at_checked(plain_bytes(self.rest))?;
        if let Some(rest) = rest.strip_prefix('"') {
            self.rest = rest;
            return Some(Cow::Borrowed(plain));
        }
        self.text_with_escapes().map(Cow::Owned)
    }

    /// The same, of one in which something is escaped; its first `"` has been read.
    fn text_with_escapes(&mut self) -> Option<String> {
        let begin = self.rest;
        let mut text = String::new();
        loop {
            let (plain, rest) = self.rest.split_at_checked(plain_bytes(self.rest))?;
            text.push_str(plain);
            self.rest = rest;
            if self.is_next(b'"') {
                break;
            }
            self.skip(b'\\')?;
            text.push(self.escaped()?);
        }
        // What need not be escaped, or otherwise, is.
        let mut out = Out::with_capacity(begin.len().saturating_sub(self.rest.len()));
        out.text(&text);
        let is_written_so = out
            .as_bytes()
            .strip_prefix(b"\"")
            .is_some_and(|written| begin.as_bytes().strip_prefix(written).map(<[u8]>::len) == Some(self.rest.len()));
        is_written_so.then_some(text)
    }

    fn escaped(&mut self) -> Option<char> {
        let escape = self.rest.chars().next()?;
        self.rest = self.rest.get(escape.len_utf8()..)?;
        Some(match escape {
            '"' | '\\' => escape,
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'u' => {
                let (digits, rest) = self.rest.split_at_checked(4)?;
                self.rest = rest;
                // Nothing but control characters is written so.
                digits.strip_prefix("00").and_then(|digits| u8::from_str_radix(digits, 16).ok()).map(char::from)?
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(text: &str) -> Option<Json<'_>> {
        let mut reader = Reader { rest: text };
        let value = reader.value(DEPTH_MAX)?;
        reader.rest.is_empty().then_some(value)
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = || prop_oneof![any::<String>(), "[\"\\\\\u{0}-\u{1f}a-c]{0,12}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            text().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let members = prop::collection::btree_map(text(), inner.clone(), 0..4);
            prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Value::from), members.prop_map(Value::from_iter)]
        })
    }

    proptest! {
        #[test]
        fn what_the_json_crate_writes_is_read_for_the_same(value in values()) {
            let text = value.to_string();
            prop_assert_eq!(read(&text), Some(Json::from(value)));
        }

        #[test]
        fn any_text_is_tried_without_panic(text in "[{}\\[\\]\":,a-e0-9\\\\ué]{0,40}") {
            let taken = read(&text);
            prop_assert!(taken.is_none() || !text.contains(' '));
            // Nor is anything taken that is written otherwise.
            if let Some(Json::Text(taken)) = &taken {
                prop_assert_eq!(serde_json::to_string(taken).unwrap(), text.as_str());
            }
            prop_assert!(Line::new(&text, "a").finish().is_none());
        }
    }

    #[test]
    fn the_kind_is_found_wherever_it_stands() {
        let searched = |text: &str| {
            let (_, kind) = text.split_once(",\"kind\":\"")?;
            kind.split_once('"').map(|(kind, _)| kind.to_owned())
        };
        let golden = include_str!("../../../tests/golden/events.jsonl");
        for line in golden.lines() {
            assert!(kind_of(line).is_some());
            for (at, _) in line.char_indices() {
                let (before, behind) = line.split_at(at);
                for text in [before, behind] {
                    assert_eq!(kind_of(text), searched(text).as_deref(), "{text}");
                }
            }
        }
        // What is nearly it, in front of it.
        for before in [",\"kind\":", "\"kind\":\"", ",\"kin", ",,\"", ",\"\"kind\":\"", "é,\"kind:\"", "k", "kind"] {
            for count in 0..12 {
                let text = format!("{}{},\"kind\":\"a\"", before.repeat(count), "é".repeat(count % 3));
                assert_eq!(kind_of(&text), searched(&text).as_deref(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_is_not_taken() {
        for text in [
            "",
            " 1",
            "1 ",
            "-1",
            "1.0",
            "1e3",
            "01",
            "00",
            "18446744073709551616",
            "\"a",
            "\"\\/\"",
            "\"\\u0100\"",
            "\"\\ud800\"",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        // Escapes that need not be, or are others, and what should have one.
        for text in ["\"\\u0061\"", "\"\\u000a\"", "\"\\u001F\"", "\"\\u0022\"", "\"a\nb\"", "\"\\n\n\"", "\"\u{1}\""] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("\"\\u001f\\n\u{7f}\""), Some(Json::Text("\u{1f}\n\u{7f}".into())));
        assert_eq!(read("0"), Some(Json::Number(0)));
        for text in ["[1,]", "[,1]", "{\"a\"}", "{\"a\":1,}", "{a:1}", "nul", "truefalse", "[1}", "{\"a\":1]"] {
            assert_eq!(read(text), None, "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&deep(8)).is_some());
        assert!(read(&deep(9)).is_none() && read(&deep(100_000)).is_none());
    }
}
