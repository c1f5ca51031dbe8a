//! The quick reader: takes JSON as it is written here, and refuses without a reason.
//!
//! It looks for nothing that writing again would show: blanks and other escapes are refused, but doubled members, control characters in texts
//! and zeros before a number are not. Nobody may believe it without writing again.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;

use super::{HEAD, Json, Name};

/// How deep objects and arrays may lie in each other. Those of a member are two deep; nothing here may use up the stack.
const DEPTH_MAX: u8 = 8;

/// The word of an entry's kind: nothing else in a line can look as this member does, since a text has its quotes escaped.
pub(in crate::audit) fn kind_of(text: &str) -> Option<&str> {
    let (_, kind) = text.split_once(",\"kind\":\"")?;
    kind.split_once('"').map(|(kind, _)| kind)
}

/// The members of an entry as they stand in its line, each read when it is asked for.
#[derive(Debug)]
pub(super) struct Line<'a> {
    reader: Reader<'a>,
    is_begun: bool,
    /// Whether the name of the next member comes next.
    is_open: bool,
    /// The members of every entry, which come between the others.
    head: [Option<Json<'a>>; HEAD.len()],
}

impl<'a> Line<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { reader: Reader { rest: text }, is_begun: false, is_open: false, head: [const { None }; HEAD.len()] }
    }

    /// The next member, if it has this name; those of every entry before it are laid aside.
    pub(super) fn find(&mut self, name: Name) -> Option<Json<'a>> {
        loop {
            if self.is_next(name)? {
                self.is_open = false;
                return self.reader.value(DEPTH_MAX);
            }
            self.lay_aside()?;
        }
    }

    /// The members of every entry, where nothing else is left.
    pub(super) fn finish(mut self) -> Option<[Json<'a>; HEAD.len()]> {
        while !self.reader.is_next(b'}') {
            self.open()?;
            self.lay_aside()?;
        }
        let [Some(at), Some(index), Some(kind), Some(v)] = self.head else { return None };
        self.reader.rest.is_empty().then_some([at, index, kind, v])
    }

    /// Goes to the name of the next member.
    fn open(&mut self) -> Option<()> {
        if !self.is_open {
            self.reader.skip(if self.is_begun { b',' } else { b'{' })?;
            (self.is_begun, self.is_open) = (true, true);
        }
        Some(())
    }

    /// Goes on behind this name, if it is that of the next member.
    fn is_next(&mut self, name: Name) -> Option<bool> {
        self.open()?;
        let behind = self.reader.rest.strip_prefix(name.quoted);
        Some(behind.map(|rest| self.reader.rest = rest).is_some())
    }

    fn lay_aside(&mut self) -> Option<()> {
        for (place, name) in HEAD.into_iter().enumerate() {
            if self.is_next(name)? {
                self.is_open = false;
                *self.head.get_mut(place)? = Some(self.reader.value(DEPTH_MAX)?);
                return Some(());
            }
        }
        None
    }
}

#[derive(Debug)]
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn first(&self) -> Option<u8> {
        self.rest.as_bytes().first().copied()
    }

    /// Goes on behind `wanted`, an ASCII character, if that comes next.
    fn is_next(&mut self, wanted: u8) -> bool {
        let is_next = self.first() == Some(wanted);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    fn skip(&mut self, wanted: u8) -> Option<()> {
        self.is_next(wanted).then_some(())
    }

    fn word(&mut self, word: &str, means: Json<'a>) -> Option<Json<'a>> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(means)
    }

    fn value(&mut self, depth: u8) -> Option<Json<'a>> {
        match self.first()? {
            b'"' => self.text().map(Json::Text),
            b'0'..=b'9' => self.number().map(Json::Number),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
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
        self.skip(b'[')?;
        let mut items = Vec::new();
        if self.is_next(b']') {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.is_next(b']') {
                return Some(Json::Array(items));
            }
            self.skip(b',')?;
        }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        let mut count = 0_usize;
        for digit in self.rest.bytes().map_while(|byte| byte.checked_sub(b'0').filter(|digit| *digit < 10)) {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            count = count.saturating_add(1);
        }
        self.rest = self.rest.get(count..)?;
        Some(number)
    }

    fn text(&mut self) -> Option<Cow<'a, str>> {
        self.skip(b'"')?;
        let (plain, rest) = self.rest.split_once('"')?;
        if !plain.as_bytes().contains(&b'\\') {
            self.rest = rest;
            return Some(Cow::Borrowed(plain));
        }
        self.text_with_escapes().map(Cow::Owned)
    }

    /// The same, of one in which something is escaped; its first `"` has been read.
    fn text_with_escapes(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let (plain, _) = self.rest.split_once(['"', '\\'])?;
            text.push_str(plain);
            self.rest = self.rest.get(plain.len()..)?;
            if self.is_next(b'"') {
                return Some(text);
            }
            self.skip(b'\\')?;
            text.push(self.escaped()?);
        }
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
            prop_assert!(Line::new(&text).finish().is_none());
        }
    }

    #[test]
    fn what_is_written_otherwise_is_not_taken() {
        for text in
            ["", " 1", "1 ", "-1", "1.0", "1e3", "18446744073709551616", "\"a", "\"\\/\"", "\"\\u0100\"", "\"\\ud800\""]
        {
            assert_eq!(read(text), None, "{text}");
        }
        for text in ["[1,]", "[,1]", "{\"a\"}", "{\"a\":1,}", "{a:1}", "nul", "truefalse", "[1}", "{\"a\":1]"] {
            assert_eq!(read(text), None, "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&deep(8)).is_some());
        assert!(read(&deep(9)).is_none() && read(&deep(100_000)).is_none());
    }
}
