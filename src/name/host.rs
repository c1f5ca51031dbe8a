//! Names and ids around enrolled hosts.

use std::fmt;
use std::sync::Arc;

use super::{HostName, NameError, RequestId, TagKey, TagValue, is_between, refuse};

/// The id of a join token: eight Crockford digits in lower case, so that it is not taken for a request's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinId(Arc<str>);

impl JoinId {
    /// The id made of five random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 5]) -> Self {
        Self(RequestId::from_random(random).digits().to_ascii_lowercase().into())
    }

    /// Parses one.
    ///
    /// # Errors
    /// For anything that is not eight such digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_ours = RequestId::parse(text).is_ok_and(|id| id.digits().to_ascii_lowercase() == text);
        if is_ours { Ok(Self(text.into())) } else { Err(refuse("a join id", text, "eight digits like 7k3f9qx2")) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host's own id for something that happened there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportId(String);

impl ReportId {
    /// Parses one.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if is_between(text, 64) && is_plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(refuse("a report id", text, "1 to 64 of A-Z a-z 0-9 . _ -"))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names like this: `web-*`. A star stands for any run of the characters of a host name, dots included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// Parses one.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-*".contains(&b);
        if is_between(text, 90) && text.bytes().all(is_known) {
            Ok(Self(text.to_owned()))
        } else {
            Err(refuse("a pattern of host names", text, "1 to 90 of a-z 0-9 . - and *"))
        }
    }

    /// Whether this name is like it.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.as_str().strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // Each part in between is taken where it comes first: what is left is then as long as it can be.
        for part in parts {
            match rest.find(part).and_then(|at| rest.get(at..)).and_then(|found| found.strip_prefix(part)) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A tag, `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Its key.
    pub key: TagKey,
    /// Its value.
    pub value: TagValue,
}

impl Tag {
    /// Parses `role=web`.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("a tag", text, "KEY=VALUE"))?;
        Ok(Self { key: TagKey::parse(key)?, value: TagValue::parse(value)? })
    }
}

macro_rules! shown {
    ($($kind:ident)*) => { $(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )* };
}

shown!(JoinId ReportId NamePattern);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_like_a_pattern_or_not() {
        let like =
            |pattern: &str, name: &str| NamePattern::parse(pattern).unwrap().matches(&HostName::parse(name).unwrap());
        for (pattern, name) in [
            ("web-1", "web-1"),
            ("web-*", "web-1"),
            ("*", "db.example.com"),
            ("*.example.com", "web-1.example.com"),
            ("web-*.example.com", "web-1.eu.example.com"),
            ("a*a", "aa"),
            ("*a*b*", "xaxbx"),
            ("**", "x"),
        ] {
            assert!(like(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("web-1", "web-10"),
            ("web-1", "xweb-1"),
            ("web-*", "db-1"),
            ("web-*", "xweb-1"),
            ("*.example.com", "example.com.evil"),
            ("a*a", "a"),
            ("ab*ba", "aba"),
            ("*a*b*", "xbxax"),
        ] {
            assert!(!like(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_a_tag_a_join_id_and_a_report_id_have_one_spelling() {
        for text in ["", "Web", "a b", "a?", "[a]", "a/b", "a\n"] {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "role", "=web", "role=", "role=a=b", "Role=web", "role=we b", "role=*"] {
            assert!(Tag::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "7K3F9QX2", "7k3f-9qx2", "7k3f9qx", "7k3f9qx22", "7k3f9qxu"] {
            assert!(JoinId::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "a b", "a/b", "é", "a\0"] {
            assert!(ReportId::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(JoinId::parse(JoinId::from_random([7; 5]).as_str()), Ok(JoinId::from_random([7; 5])));
        assert_eq!(Tag::parse("role=web").unwrap().to_string(), "role=web");
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_the_regular_expression_it_stands_for(pattern in "[ab*]{1,8}", name in "[ab]{1,10}") {
            let name = HostName::parse(&name).unwrap();
            let wanted = regex::Regex::new(&format!("^{}$", pattern.replace('*', ".*"))).unwrap();
            let is_like = NamePattern::parse(&pattern).unwrap().matches(&name);
            prop_assert_eq!(is_like, wanted.is_match(name.as_str()));
        }
    }
}
