//! A table of a document, asked key by key.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Found, Sheet, Spot, is_deceptive, nearest, quoted};
use crate::time::Lifetime;

/// The longest string value, in bytes. Our choice; single keys have tighter limits of their own.
const STRING_BYTES_MAX: usize = 20_000;

/// What is wanted where something else stands.
const A_TABLE: &str = "a table { key = … }";

/// A table of the document. Whatever key is not asked for before it is dropped is reported as unknown.
#[derive(Debug)]
pub struct Table<'d> {
    sheet: &'d Sheet<'d>,
    values: &'d DeTable<'d>,
    spot: Spot,
    asked: RefCell<Vec<&'static str>>,
}

/// A key's value and where it stands.
struct Entry<'d> {
    spot: Spot,
    value: &'d DeValue<'d>,
    span: Range<usize>,
}

impl<'d> Table<'d> {
    pub(super) fn new(sheet: &'d Sheet<'d>, values: &'d DeTable<'d>, spot: Spot) -> Self {
        Self { sheet, values, spot, asked: RefCell::default() }
    }

    /// The document it belongs to.
    #[must_use]
    pub const fn sheet(&self) -> &'d Sheet<'d> {
        self.sheet
    }

    /// Where it stands.
    #[must_use]
    pub const fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Whether the key is there (which makes it a known key).
    #[must_use]
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Reports a key that is known, but not accepted here.
    pub fn refuse(&self, key: &'static str, why: &str) {
        if let Some(entry) = self.get(key) {
            self.sheet.problem(&entry.spot, why);
        }
    }

    /// Reports that `key` is missing, unless it is there (then its own problem has been reported).
    pub fn needed<T>(&self, key: &'static str, found: Option<T>, example: &str) -> Option<T> {
        if found.is_none() && !self.has(key) {
            self.sheet.problem(&self.spot, format!("{key:?} is missing; write {example}"));
        }
        found
    }

    /// A string.
    pub fn string(&self, key: &'static str) -> Option<Found<&'d str>> {
        let entry = self.get(key)?;
        self.as_string(&entry).map(|value| Found { value, spot: entry.spot })
    }

    /// A string in a form that `parse` knows.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Found<T>> {
        let Found { value, spot } = self.string(key)?;
        self.ok(&spot, parse(value)).map(|value| Found { value, spot })
    }

    /// Whether the key is there with a list as its value, for keys that take one string or several.
    #[must_use]
    pub fn is_list(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|entry| matches!(entry.value, DeValue::Array(_)))
    }

    /// The value's text for people: a string as it is, a list of strings with commas.
    #[must_use]
    pub fn shown(&self, key: &'static str) -> Option<String> {
        match self.get(key)?.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Array(items) => {
                let texts: Vec<&str> = items.iter().filter_map(|item| item.get_ref().as_str()).collect();
                Some(texts.join(","))
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => None,
        }
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Option<Found<bool>> {
        let entry = self.get(key)?;
        match entry.value.as_bool() {
            Some(value) => Some(Found { value, spot: entry.spot }),
            None => self.wrong_type(&entry, "true or false"),
        }
    }

    /// A whole number.
    pub fn integer(&self, key: &'static str, accepted: RangeInclusive<u64>) -> Option<Found<u64>> {
        let entry = self.get(key)?;
        let Some(number) = entry.value.as_integer() else { return self.wrong_type(&entry, "a whole number") };
        let number = u64::from_str_radix(number.as_str(), number.radix());
        if let Some(value) = number.ok().filter(|number| accepted.contains(number)) {
            return Some(Found { value, spot: entry.spot });
        }
        let takes = match accepted.into_inner() {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low} to {high}"),
        };
        self.sheet.problem(&entry.spot, format!("{} is not accepted; it takes {takes}", self.given(&entry)));
        None
    }

    /// A duration.
    pub fn duration(&self, key: &'static str, accepted: RangeInclusive<Lifetime>) -> Option<Found<Lifetime>> {
        let entry = self.get(key)?;
        if entry.value.as_str().is_none() {
            return self.wrong_type(&entry, "a duration like \"45m\"");
        }
        let found = self.parsed(key, Lifetime::parse)?;
        if accepted.contains(&found.value) {
            return Some(found);
        }
        let (low, high) = accepted.into_inner();
        let what = format!("{:?} is not accepted; it takes {low} to {high}", found.value.to_string());
        self.sheet.problem(&found.spot, what);
        None
    }

    /// A list of strings in a form that `parse` knows, none twice.
    pub fn list<T: Ord + Clone, E: fmt::Display>(
        &self,
        key: &'static str,
        count_max: usize,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Found<Vec<Found<T>>>> {
        let entry = self.get(key)?;
        let DeValue::Array(items) = entry.value else { return self.wrong_type(&entry, "a list of strings") };
        let spot = entry.spot;
        if items.len() > count_max {
            self.sheet.problem(&spot, format!("{} entries are too many; it takes at most {count_max}", items.len()));
            return None;
        }
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        for (index, item) in items.iter().enumerate() {
            let item = Entry::new(spot.item(index, item.span().start), item);
            let Some(text) = self.as_string(&item) else { continue };
            let Some(value) = self.ok(&item.spot, parse(text)) else { continue };
            if !seen.insert(value.clone()) {
                self.sheet.problem(&item.spot, format!("{} is listed twice", quoted(text)));
            }
            list.push(Found { value, spot: item.spot });
        }
        if list.len() == items.len() { Some(Found { value: list, spot }) } else { None }
    }

    /// A table.
    pub fn table(&self, key: &'static str) -> Option<Self> {
        let entry = self.get(key)?;
        let DeValue::Table(values) = entry.value else { return self.wrong_type(&entry, A_TABLE) };
        Some(Self::new(self.sheet, values, entry.spot))
    }

    /// A table whose keys are free, with string values: names and values by their parsers.
    pub fn pairs<K, V, E: fmt::Display, F: fmt::Display>(
        &self,
        key: &'static str,
        count_max: usize,
        parse_key: impl Fn(&str) -> Result<K, E>,
        parse_value: impl Fn(&str) -> Result<V, F>,
    ) -> Option<Vec<(K, V)>> {
        let entry = self.get(key)?;
        let DeValue::Table(values) = entry.value else { return self.wrong_type(&entry, A_TABLE) };
        let spot = entry.spot;
        if values.len() > count_max {
            self.sheet.problem(&spot, format!("{} entries are too many; it takes at most {count_max}", values.len()));
            return None;
        }
        let mut pairs = Vec::new();
        for (name, value) in values {
            let key_spot = spot.below(name.get_ref(), name.span().start);
            let value = Entry::new(spot.below(name.get_ref(), value.span().start), value);
            let name = self.ok(&key_spot, parse_key(name.get_ref()));
            let value = self.as_string(&value).and_then(|text| self.ok(&value.spot, parse_value(text)));
            pairs.extend(name.zip(value));
        }
        if pairs.len() == values.len() { Some(pairs) } else { None }
    }

    /// Tables below this key whose own keys are free: `[key.NAME]`, each with its name by the parser.
    pub fn named_tables<K, E: fmt::Display>(
        &self,
        key: &'static str,
        count_max: usize,
        parse_key: impl Fn(&str) -> Result<K, E>,
    ) -> Vec<(Found<K>, Self)> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        let DeValue::Table(values) = entry.value else {
            self.wrong_type::<()>(&entry, A_TABLE);
            return Vec::new();
        };
        let spot = entry.spot;
        if values.len() > count_max {
            self.sheet.problem(&spot, format!("{} are too many; there may be {count_max}", values.len()));
            return Vec::new();
        }
        let tables = values.iter().filter_map(|(name, value)| {
            let key_spot = spot.below(name.get_ref(), name.span().start);
            let value = Entry::new(spot.below(name.get_ref(), value.span().start), value);
            let name = self.ok(&key_spot, parse_key(name.get_ref()));
            let DeValue::Table(values) = value.value else { return self.wrong_type(&value, A_TABLE) };
            Some((Found { value: name?, spot: key_spot }, Self::new(self.sheet, values, value.spot)))
        });
        tables.collect()
    }

    /// The tables of a list: `[[key]]`, or `key = [{ … }]`. None if the key is not there or not such a list.
    pub fn tables(&self, key: &'static str, count_max: usize) -> Vec<Self> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = entry.value else {
            self.wrong_type::<()>(&entry, "a list of tables");
            return Vec::new();
        };
        let spot = entry.spot;
        if items.len() > count_max {
            self.sheet.problem(&spot, format!("{} are too many; there may be {count_max}", items.len()));
            return Vec::new();
        }
        let tables = items.iter().enumerate().filter_map(|(index, item)| {
            let item = Entry::new(spot.item(index, item.span().start), item);
            let DeValue::Table(values) = item.value else { return self.wrong_type(&item, A_TABLE) };
            Some(Self::new(self.sheet, values, item.spot))
        });
        tables.collect()
    }

    /// The value, or a problem.
    fn ok<T, E: fmt::Display>(&self, spot: &Spot, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.sheet.problem(spot, error.to_string())).ok()
    }

    fn get(&self, key: &'static str) -> Option<Entry<'d>> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
            #[cfg(test)]
            self.sheet.note_key(&self.spot, key);
        }
        self.values.get(key).map(|value| Entry::new(self.spot.below(key, value.span().start), value))
    }

    fn as_string(&self, entry: &Entry<'d>) -> Option<&'d str> {
        let Some(text) = entry.value.as_str() else { return self.wrong_type(entry, "a string \"…\"") };
        if text.len() > STRING_BYTES_MAX {
            self.sheet.problem(&entry.spot, format!("{} is longer than {STRING_BYTES_MAX} bytes", quoted(text)));
            return None;
        }
        if let Some(c) = text.chars().find(|c| is_deceptive(*c)) {
            // As itself it has been reported already, at its very column.
            if c.is_ascii() || !self.sheet.source(entry.span.clone()).contains(c) {
                let what = format!("{} contains U+{:04X}, which is not allowed", quoted(text), u32::from(c));
                self.sheet.problem(&entry.spot, what);
            }
            return None;
        }
        Some(text)
    }

    fn wrong_type<T>(&self, entry: &Entry<'_>, wanted: &str) -> Option<T> {
        let is = match entry.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.sheet.problem(&entry.spot, format!("{} is {is}, but it takes {wanted}", self.given(entry)));
        None
    }

    /// A value as it stands in the file, with quotes if it is a string.
    fn given(&self, entry: &Entry<'_>) -> String {
        match entry.value {
            DeValue::String(text) => quoted(text),
            DeValue::Table(_) => "this".to_owned(),
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_) => {
                let source = quoted(self.sheet.source(entry.span.clone()));
                source.trim_matches('"').replace("\\\"", "\"")
            }
        }
    }
}

impl<'d> Entry<'d> {
    fn new(spot: Spot, value: &'d Spanned<DeValue<'d>>) -> Self {
        Self { spot, value: value.get_ref(), span: value.span() }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let asked = self.asked.take();
        for (key, _) in self.values {
            let text: &str = key.get_ref();
            if asked.contains(&text) {
                continue;
            }
            let what = match nearest(text, asked.iter().copied()) {
                Some(known) => format!("unknown key; did you mean {known:?}?"),
                None => format!("unknown key; known here: {}", asked.join(", ")),
            };
            self.sheet.problem(&self.spot.below(text, key.span().start), what);
        }
    }
}
