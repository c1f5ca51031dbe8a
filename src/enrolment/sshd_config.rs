//! sshd's configuration as text, and as sshd itself says it is. Pure.
//!
//! What for: enrolment must know where in `sshd_config` a line takes effect (the first value that sshd reads wins, a `Match` block
//! comes on top), and what sshd makes of all of it (`sshd -T`).
//!
//! What not: no evaluation of our own. What counts is what `sshd -T` prints; the text only tells where to put a line and whom to name.

use std::collections::BTreeMap;

/// One line of `sshd_config` that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// The keyword, in lower case.
    pub keyword: String,
    /// The rest, without quotes around it, and without a comment behind it.
    pub value: String,
    /// The `Match` it stands in, as written.
    pub block: Option<String>,
}

/// The lines of a configuration file.
#[must_use]
pub fn lines(text: &str) -> Vec<Line> {
    let mut block: Option<String> = None;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let (keyword, rest) = line.split_at_checked(end).unwrap_or((line, ""));
        let keyword = keyword.to_ascii_lowercase();
        let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
        // A command goes on to the end of the line, whatever stands there.
        let value = if keyword.ends_with("command") { rest } else { uncommented(rest) };
        let value = value.trim_matches('"').to_owned();
        if keyword == "match" {
            block = Some(value.clone()).filter(|criteria| !criteria.eq_ignore_ascii_case("all"));
        }
        found.push(Line { number: index.saturating_add(1), keyword, value, block: block.clone() });
    }
    found
}

/// What stands before a comment: a word that begins with `#`, outside of quotes. (A release before 8.7 refuses such a line as a whole.)
fn uncommented(value: &str) -> &str {
    let (mut is_quoted, mut before) = (false, ' ');
    let end = value.find(|c: char| {
        let is_comment = c == '#' && !is_quoted && before.is_whitespace();
        is_quoted ^= c == '"';
        before = c;
        is_comment
    });
    value.get(..end.unwrap_or(value.len())).unwrap_or(value).trim_end()
}

/// Whether an `Include` with this value reads the file `name` in the folder `folder`. Of patterns, only `*` and `?` are known.
#[must_use]
pub fn includes(value: &str, folder: &str, name: &str) -> bool {
    value.split_whitespace().any(|pattern| {
        let pattern = pattern.trim_matches('"');
        let full = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/ssh/{pattern}") };
        let path = format!("{folder}/{name}");
        let (wanted, given) = (full.split('/'), path.split('/'));
        wanted.clone().count() == given.clone().count() && wanted.zip(given).all(|(of, part)| is_match(of, part))
    })
}

/// A pattern with `*` and `?`, as in the shell. In steps that grow with pattern times name, whatever the pattern.
fn is_match(pattern: &str, name: &str) -> bool {
    // Behind which characters of the name the pattern so far can end; the first place is before all of them.
    let mut reached: Vec<bool> = std::iter::once(true).chain(name.chars().map(|_| false)).collect();
    for wanted in pattern.chars() {
        reached = if wanted == '*' {
            let from_there_on = |is_reached: &mut bool, here: bool| {
                *is_reached |= here;
                Some(*is_reached)
            };
            reached.into_iter().scan(false, from_there_on).collect()
        } else {
            let fits = |(here, c): (bool, char)| here && (wanted == '?' || wanted == c);
            std::iter::once(false).chain(reached.into_iter().zip(name.chars()).map(fits)).collect()
        };
    }
    reached.last().copied().unwrap_or(false)
}

/// What sshd does: the output of `sshd -T`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective(BTreeMap<String, Vec<String>>);

impl Effective {
    /// Parses it: a keyword in lower case and its value on each line.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            all.entry(keyword.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Self(all)
    }

    /// The one value of a keyword; the first, where there can be several. `None` also where sshd has no such keyword.
    #[must_use]
    pub fn one(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).and_then(|values| values.first()).map(String::as_str)
    }

    /// A keyword's value where there is one that says something: not `none`.
    #[must_use]
    pub fn some(&self, keyword: &str) -> Option<&str> {
        self.one(keyword).filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case("none"))
    }

    /// All values of a keyword that can stand there several times.
    #[must_use]
    pub fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// Whether a keyword has this value, in any spelling.
    #[must_use]
    pub fn is(&self, keyword: &str, value: &str) -> bool {
        self.one(keyword).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

/// A release of OpenSSH: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// The first release whose sshd tells PAM by what a login proved itself: the floor for the guard.
    pub const GUARD: Self = Self(7, 6);
    /// The first release whose `sshd_config` knows `Include`.
    pub const INCLUDE: Self = Self(8, 2);

    /// Finds it in what a program says of itself: `OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL …`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("OpenSSH_")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_sshd_reads_it() {
        let text = "# Port 1\n\nPort 22\n  usepam=yes\nTrustedUserCAKeys\t\"/etc/a b\"\nMatch User git\n  PermitTTY no\nMatch all\nBanner x\n";
        let found: Vec<(usize, String, String, Option<String>)> =
            lines(text).into_iter().map(|line| (line.number, line.keyword, line.value, line.block)).collect();
        let git = || Some("User git".to_owned());
        let line = |number, keyword: &str, value: &str, block| (number, keyword.to_owned(), value.to_owned(), block);
        assert_eq!(
            found,
            [
                line(3, "port", "22", None),
                line(4, "usepam", "yes", None),
                line(5, "trustedusercakeys", "/etc/a b", None),
                line(6, "match", "User git", git()),
                line(7, "permittty", "no", git()),
                line(8, "match", "all", None),
                line(9, "banner", "x", None),
            ]
        );
    }

    #[test]
    fn a_comment_behind_a_value_is_none_of_it() {
        for (line, value) in [
            ("TrustedUserCAKeys /x # ours", "/x"),
            ("TrustedUserCAKeys \"/x y\"\t#ours", "/x y"),
            ("TrustedUserCAKeys \"/x #y\"", "/x #y"),
            ("TrustedUserCAKeys /x#y", "/x#y"),
            ("TrustedUserCAKeys # none", ""),
            ("Match User deploy # \"those\"", "User deploy"),
            ("AuthorizedPrincipalsCommand /x %u # ours", "/x %u # ours"),
        ] {
            let found = lines(line);
            assert_eq!(found.first().map(|line| line.value.as_str()), Some(value), "{line}");
        }
        assert_eq!(lines("Match all # again\nPort 1\n").last().and_then(|line| line.block.clone()), None);
    }

    #[test]
    fn an_include_is_recognised_by_its_folder_and_pattern() {
        for (value, is_ours) in [
            ("/etc/ssh/sshd_config.d/*.conf", true),
            ("sshd_config.d/*.conf", true),
            ("/etc/ssh/other /etc/ssh/sshd_config.d/*", true),
            ("\"/etc/ssh/sshd_config.d/00-hallpass.conf\"", true),
            ("/etc/ssh/sshd_config.d/0?-*.conf", true),
            ("/etc/*/sshd_config.?/*.conf", true),
            ("/etc/*/*.conf", false),
            ("/etc/*", false),
            ("/etc/ssh/sshd_config.d/5*.conf", false),
            ("/etc/ssh/*.conf", false),
            ("", false),
        ] {
            assert_eq!(includes(value, "/etc/ssh/sshd_config.d", "00-hallpass.conf"), is_ours, "{value}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_all_the_same() {
        // One by one, and again behind each, these would be more ways than anybody can go.
        let (some, many) = ("*".repeat(40), "*".repeat(100_000));
        for (pattern, is_ours) in
            [(&some, true), (&many, true), (&format!("{some}x"), false), (&format!("{many}f"), true)]
        {
            let value = format!("/etc/ssh/sshd_config.d/{pattern}");
            assert_eq!(includes(&value, "/etc/ssh/sshd_config.d", "00-hallpass.conf"), is_ours);
        }
    }

    #[test]
    fn what_sshd_says_is_read_with_lists_and_absent_values() {
        let effective =
            Effective::parse("port 22\nhostkey /a\nhostkey /b\ntrustedusercakeys none\nusepam yes\nbanner\n");
        assert_eq!(effective.one("port"), Some("22"));
        assert_eq!(effective.all("hostkey"), ["/a", "/b"]);
        assert_eq!((effective.some("trustedusercakeys"), effective.some("banner")), (None, None));
        assert!(effective.is("usepam", "YES") && !effective.is("permittunnel", "no"));
    }

    #[test]
    fn releases_are_found_and_compared() {
        for (text, release) in [
            ("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.22", Some(Release(9, 2))),
            ("unknown option -- V\nOpenSSH_8.0p1, OpenSSL 1.1.1k\nusage: sshd", Some(Release(8, 0))),
            ("OpenSSH_10.0p2", Some(Release(10, 0))),
            ("dropbear 2022.83", None),
            ("OpenSSH_x", None),
        ] {
            assert_eq!(Release::find(text), release, "{text}");
        }
        assert!(Release(10, 0) > Release::INCLUDE && Release(7, 4) < Release::GUARD);
    }
}
