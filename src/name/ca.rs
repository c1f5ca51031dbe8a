//! The name of a user CA: `default`, or one that the configuration gives.
//!
//! Invariant: one spelling. The default CA is `default` and nothing else, so that what was written before there were names means the same.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use super::{NameError, is_between, is_plain, refuse};

/// What the default CA is called.
const DEFAULT: &str = "default";

/// The longest name. Our own choice: it stands in columns.
const BYTES_MAX: usize = 32;

/// Which user CA: `default`, `prod`. Each has keys of its own, and a host trusts those of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaName(Option<Box<str>>);

impl CaName {
    /// The one that needs no word.
    pub const DEFAULT: Self = Self(None);

    /// Parses one.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == DEFAULT {
            return Ok(Self::DEFAULT);
        }
        if is_between(text, BYTES_MAX) && is_plain(text, b"-") && !text.ends_with('-') {
            return Ok(Self(Some(text.into())));
        }
        let rule =
            "1 to 32 of a-z 0-9 -, starting and ending with a letter or digit; \"default\" is the one of [ca.user]";
        Err(refuse("a CA", text, rule))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT)
    }

    /// Whether it is the default one.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.0.is_none()
    }

    /// The name, if it is not the default one: what was added to a format later says nothing of that.
    #[must_use]
    pub fn named(&self) -> Option<Self> {
        (!self.is_default()).then(|| self.clone())
    }
}

impl fmt::Display for CaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_ca_has_one_name_and_every_other_its_own() {
        assert_eq!(CaName::parse("default"), Ok(CaName::DEFAULT));
        assert_eq!((CaName::DEFAULT.as_str(), CaName::DEFAULT.named()), ("default", None));
        let prod = CaName::parse("prod-eu").unwrap();
        assert_eq!((prod.as_str(), prod.is_default(), prod.named()), ("prod-eu", false, Some(prod.clone())));
        for text in ["", "Prod", "prod-", "-prod", "a b", "prod.eu", "prod_eu", &"a".repeat(33)] {
            assert!(CaName::parse(text).is_err(), "{text:?}");
        }
        assert!(CaName::parse(&"a".repeat(32)).is_ok());
    }
}
