//! Writes JSON in canonical form: no blanks, UTF-8 as is, escaped only what must be.
//!
//! What not: it does not sort. Members are written in the order in which they are given, which is that of their names.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::{Name, plain_bytes};
use crate::audit::field::Field;

/// The text so far.
#[derive(Debug)]
pub(in crate::audit) struct Out(String);

impl Out {
    /// Nothing yet, and room for so many bytes.
    pub(in crate::audit) fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    pub(in crate::audit) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    pub(in crate::audit) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Writes an object; its members are written by `members`.
    pub(in crate::audit) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.0.push('{');
        members(self);
        self.0.push('}');
    }

    /// One member of the object that is being written.
    pub(in crate::audit) fn member<F: Field>(&mut self, name: Name, value: &F) {
        self.comma();
        self.0.push_str(name.quoted);
        value.put(self);
    }

    /// One that is a text.
    pub(in crate::audit) fn text_member(&mut self, name: Name, value: &str) {
        self.comma();
        self.0.push_str(name.quoted);
        self.text(value);
    }

    /// One whose name is not one of ours.
    pub(in crate::audit) fn foreign_member<F: Field>(&mut self, name: &str, value: &F) {
        self.comma();
        self.text(name);
        self.0.push(':');
        value.put(self);
    }

    /// Between members. No value ends as an object begins.
    fn comma(&mut self) {
        if self.0.as_bytes().last() != Some(&b'{') {
            self.0.push(',');
        }
    }

    /// An array of these.
    pub(in crate::audit) fn array<T>(&mut self, items: impl IntoIterator<Item = T>, put: impl Fn(&mut Self, T)) {
        self.0.push('[');
        let mut is_first = true;
        for item in items {
            if !std::mem::take(&mut is_first) {
                self.0.push(',');
            }
            put(self, item);
        }
        self.0.push(']');
    }

    pub(in crate::audit) fn null(&mut self) {
        self.0.push_str("null");
    }

    pub(in crate::audit) fn bool(&mut self, is: bool) {
        self.0.push_str(if is { "true" } else { "false" });
    }

    pub(in crate::audit) fn number(&mut self, number: u64) {
        let mut digits = [0_u8; 20];
        let mut rest = number;
        let mut count = 0_usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.saturating_add(u8::try_from(rest % 10).unwrap_or(0));
            rest /= 10;
            count = count.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        let digits = digits.get(digits.len().saturating_sub(count)..).unwrap_or_default();
        self.0.push_str(std::str::from_utf8(digits).unwrap_or_default());
    }

    /// A text in which nothing is to be escaped, of digits and the like, written by `put`.
    pub(in crate::audit) fn digits(&mut self, put: impl FnOnce(&mut String)) {
        self.0.push('"');
        put(&mut self.0);
        self.0.push('"');
    }

    pub(in crate::audit) fn text(&mut self, text: &str) {
        self.0.push('"');
        let mut rest = text;
        loop {
            let (plain, behind) = rest.split_at_checked(plain_bytes(rest)).unwrap_or_default();
            self.0.push_str(plain);
            let mut chars = behind.chars();
            let Some(escaped) = chars.next() else { break };
            self.escaped(escaped);
            rest = chars.as_str();
        }
        self.0.push('"');
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.0.push_str("\\\""),
            '\\' => self.0.push_str("\\\\"),
            '\u{8}' => self.0.push_str("\\b"),
            '\t' => self.0.push_str("\\t"),
            '\n' => self.0.push_str("\\n"),
            '\u{c}' => self.0.push_str("\\f"),
            '\r' => self.0.push_str("\\r"),
            other => self.0.push_str(&format!("\\u{:04x}", u32::from(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::name;
    use super::*;

    #[test]
    fn texts_and_numbers_are_written_as_the_json_crate_writes_them() {
        let written = |put: &dyn Fn(&mut Out)| {
            let mut out = Out::with_capacity(0);
            put(&mut out);
            String::from_utf8(out.into_bytes()).unwrap()
        };
        for c in ('\0'..='\u{2100}').chain(['\u{feff}', '\u{fffd}', '\u{1f4be}', char::MAX]) {
            for text in [c.to_string(), format!("a{c}"), format!("{c}{c}b")] {
                assert_eq!(written(&|out| out.text(&text)), serde_json::to_string(&text).unwrap());
            }
        }
        for shift in 0..64 {
            for number in [0, 1 << shift, (1 << shift) - 1, u64::MAX >> shift, 10_u64.pow(shift % 20)] {
                assert_eq!(written(&|out| out.number(number)), number.to_string());
            }
        }
    }

    #[test]
    fn objects_and_arrays_have_a_comma_between_and_none_at_their_ends() {
        let mut out = Out::with_capacity(0);
        out.object(|out| {
            out.text_member(name!(a), "{");
            out.member(name!(b), &vec![1_u64, 2]);
            out.member(name!(c), &Vec::<u64>::new());
            out.member(name!(d), &None::<bool>);
            out.member(name!(e), &vec![true, false]);
        });
        out.object(|_| {});
        assert_eq!(out.as_bytes(), br#"{"a":"{","b":[1,2],"c":[],"d":null,"e":[true,false]}{}"#);
    }
}
