//! Text for ssh's configuration: a profile's fragment, a host's file, and the one `Include` line. Pure; the files are written by
//! `setup` and `local`.
//!
//! How plain `ssh web-1` works: the user's configuration includes the fragment on its first line. For the profile's hosts its `exec`
//! runs `hallpass ssh-prepare`, which makes sure of a certificate; the `Include` of the host files comes after it, so ssh reads what has
//! just been written. A host file names key, certificate and account.
//!
//! Invariants:
//! - the host list stands before `exec`, so that other hosts never run it, and `exec` stands alone: when it fails, a certificate that is
//!   still valid is used all the same, and so is any other key that the user names. Only a strict fragment has ssh refuse then (and
//!   `prepare` does not fail where a key is named on the command line: that is somebody's emergency);
//! - what the user types never reaches a shell: hosts come out of ssh's own command line (`caller`), not out of `%n`;
//! - a path with characters that ssh or a shell would read differently is refused, not quoted.

use std::path::Path;

use crate::name::{Account, HostName};

/// Marks our line in the user's configuration.
const INCLUDE_NOTE: &str =
    "# hallpass: certificates for the hosts it knows; `hallpass setup --undo` takes this line away";

/// What a strict fragment says in place of ssh's own words; ours stand above it.
const STRICT_REFUSAL: &str = "    RefuseConnection \"no access yet; hallpass has said why\"\n";

/// Longest host pattern: that of a host name.
const PATTERN_BYTES_MAX: usize = 253;

/// A host pattern of ssh: letters, digits, `.`, `_`, `-`, and the wildcards `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Parses a pattern. One of wildcards alone would run our command for every host there is.
    ///
    /// # Errors
    /// What is accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_*?".contains(&b);
        let is_some_host = text.bytes().any(|b| b.is_ascii_alphanumeric());
        if is_some_host && text.len() <= PATTERN_BYTES_MAX && text.bytes().all(allowed) && !text.starts_with('-') {
            return Ok(Self(text.to_owned()));
        }
        Err("a pattern has lower-case letters, digits, . - _ and the wildcards * and ?, and not wildcards alone"
            .to_owned())
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every host that fits is certainly one of `ours`: the same pattern, or a name that fits one.
    pub(crate) fn is_within(&self, ours: &[Self]) -> bool {
        let is_name = !self.0.contains(['*', '?']);
        ours.iter().any(|pattern| pattern == self || is_name && pattern.overlaps(self))
    }

    /// Whether some host fits both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        meet(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl From<&HostName> for Pattern {
    fn from(host: &HostName) -> Self {
        Self(host.as_str().to_owned())
    }
}

/// Whether two patterns have a text in common, by dynamic programming over their lengths.
fn meet(a: &[u8], b: &[u8]) -> bool {
    // row[j]: whether what is left of `a` meets b[j..]; filled from the end.
    let mut row = vec![false; b.len().saturating_add(1)];
    for i in (0..=a.len()).rev() {
        let below = row.clone();
        for j in (0..=b.len()).rev() {
            let right = row.get(j.saturating_add(1)).copied().unwrap_or(false);
            let (down, diagonal) = (below.get(j), below.get(j.saturating_add(1)));
            let (down, diagonal) = (down.copied().unwrap_or(false), diagonal.copied().unwrap_or(false));
            let meets = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some(b'*'), _) => (i < a.len() && down) || (j < b.len() && right),
                (_, Some(b'*')) => right || (i < a.len() && down),
                (Some(x), Some(y)) => (x == y || *x == b'?' || *y == b'?') && diagonal,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = meets;
            }
        }
    }
    row.first().copied().unwrap_or(false)
}

/// What a fragment is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    /// The profile's name.
    pub(crate) profile: &'a str,
    /// Its hosts; at least one.
    pub(crate) hosts: &'a [Pattern],
    /// Our program, an absolute path.
    pub(crate) program: &'a Path,
    /// The folder of the profile's keys and host files.
    pub(crate) folder: &'a Path,
    /// The file of the host CA keys, if the service named any.
    pub(crate) known_hosts: Option<&'a Path>,
    /// Whether keys of the user's own are offered too.
    pub(crate) coexist: bool,
    /// Whether ssh is to refuse where we have no access to give. OpenSSH 10.1 or newer.
    pub(crate) strict: bool,
}

/// The text of a profile's fragment.
pub(crate) fn fragment(of: &Fragment<'_>) -> String {
    let Fragment { profile, hosts, program, folder, known_hosts, coexist, strict } = of;
    let list = |separator: &str| hosts.iter().map(Pattern::as_str).collect::<Vec<_>>().join(separator);
    let (program, folder) = (program.display(), folder.display());
    let (not, flag, refusal) = if *strict { ("!", " --strict", STRICT_REFUSAL) } else { ("", "", "") };
    let mut text = format!(
        "# Written by `hallpass setup` for profile {profile}. Change it with `hallpass setup`, not here.\n\
         Match originalhost {} {not}exec \"'{program}' --profile {profile} ssh-prepare --folder '{folder}'{flag}\"\n{refusal}\
         Host {}\n    Include \"{folder}/hosts/*.conf\"\n",
        list(","),
        list(" ")
    );
    if !coexist {
        text.push_str("    IdentitiesOnly yes\n");
    }
    if let Some(known_hosts) = known_hosts {
        text.push_str(&global_known_hosts(known_hosts));
    }
    text
}

/// The line by which ssh reads a file of known hosts beside the system's own. The user's `UserKnownHostsFile` stays what it is, and new
/// keys go there as ever.
pub(crate) fn global_known_hosts(file: &Path) -> String {
    format!("    GlobalKnownHostsFile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2 \"{}\"\n", file.display())
}

/// One way into a host.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// As which account.
    pub(crate) account: Account,
    /// The private key's file.
    pub(crate) key: std::path::PathBuf,
    /// The certificate's file.
    pub(crate) certificate: std::path::PathBuf,
}

/// The text of a host's file. The first way is taken when no account is named: ssh then has `local_user` as the user.
pub(crate) fn host_file(host: &HostName, ways: &[Way], local_user: Option<&str>) -> String {
    let mut text = "# Written by hallpass; deleted when it is over.\n".to_owned();
    let pair = |way: &Way| {
        let (key, certificate) = (way.key.display(), way.certificate.display());
        format!("    IdentityFile \"{key}\"\n    CertificateFile \"{certificate}\"\n")
    };
    for way in ways {
        text.push_str(&format!("Match originalhost {host} user {}\n{}", way.account, pair(way)));
    }
    let Some(first) = ways.first() else { return text };
    let is_plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let condition = match local_user.filter(is_plain) {
        // Their own name is an account here: it is as good as named.
        Some(user) if ways.iter().any(|way| way.account.as_str() == user) => return text,
        Some(user) => format!("Match originalhost {host} user {user}"),
        None => format!("Host {host}"),
    };
    text.push_str(&format!("{condition}\n    User {}\n{}", first.account, pair(first)));
    text
}

/// Whether a path can stand in ssh's configuration, inside quotes and inside a shell's single quotes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    let text = path.to_str().ok_or("it is not UTF-8")?;
    match text.chars().find(|c| matches!(c, '%' | '$' | '"' | '\'' | '\\' | '*' | '?' | '[' | '~') || c.is_control()) {
        None if path.is_absolute() => Ok(()),
        None => Err("it is not absolute".to_owned()),
        Some(c) => Err(format!("it holds {c:?}, which ssh or a shell would read differently")),
    }
}

/// The lines that include every fragment in `folder`.
fn include(folder: &Path) -> String {
    format!("{INCLUDE_NOTE}\nInclude \"{}/*.conf\"\n", folder.display())
}

/// The user's configuration with our lines in front; as it is if they are there.
pub(crate) fn with_include(text: &str, folder: &Path) -> String {
    let ours = include(folder);
    if text.starts_with(&ours) { text.to_owned() } else { ours + &without_include(text, folder) }
}

/// The user's configuration without our lines, every other byte as it is.
pub(crate) fn without_include(text: &str, folder: &Path) -> String {
    text.replacen(&include(folder), "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_names_hosts_and_not_all_of_them() {
        for text in ["web-1", "web-*", "*.prod.example.com", "db-?", "10.0.0.1"] {
            pattern(text);
        }
        for text in ["", "*", "**", "?", "-x", "a b", "a,b", "!a", "a\"", "a'", "A", "a%n", "é"] {
            Pattern::parse(text).unwrap_err();
        }
    }

    #[test]
    fn patterns_that_have_a_host_in_common_overlap() {
        for (a, b, overlap) in [
            ("web-1", "web-1", true),
            ("web-1", "web-2", false),
            ("web-*", "web-1", true),
            ("web-*", "*-1", true),
            ("web-*", "db-*", false),
            ("*.a.example", "*.b.example", false),
            ("*.example", "*.b.example", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*", "*b", true),
            ("a*c", "ab*", true),
            ("a?", "a", false),
        ] {
            assert_eq!(pattern(a).overlaps(&pattern(b)), overlap, "{a} {b}");
            assert_eq!(pattern(b).overlaps(&pattern(a)), overlap, "{b} {a}");
        }
    }

    #[test]
    fn the_include_comes_first_once_and_goes_without_a_trace() {
        let folder = Path::new("/home/ann/.config/hallpass/ssh");
        for text in ["", "Host *\n  User ann\n", "# mine\n\nInclude below\n", "no end of line"] {
            let with = with_include(text, folder);
            assert!(with.starts_with("# hallpass"));
            assert_eq!(with_include(&with, folder), with);
            assert_eq!(without_include(&with, folder), text);
            // Moved down by the user: it comes back to the front.
            let moved = format!("Host x\n{with}");
            assert_eq!(with_include(&moved, folder), include(folder) + "Host x\n" + text);
        }
    }

    #[test]
    fn the_fragment_runs_us_for_its_hosts_alone() {
        let hosts = [pattern("web-1"), pattern("db-*")];
        let of = Fragment {
            profile: "work",
            hosts: &hosts,
            program: Path::new("/usr/local/bin/hallpass"),
            folder: Path::new("/run/user/1000/hallpass/work"),
            known_hosts: None,
            coexist: false,
            strict: false,
        };
        assert_eq!(
            fragment(&of),
            "# Written by `hallpass setup` for profile work. Change it with `hallpass setup`, not here.\n\
             Match originalhost web-1,db-* exec \"'/usr/local/bin/hallpass' --profile work ssh-prepare --folder \
             '/run/user/1000/hallpass/work'\"\n\
             Host web-1 db-*\n    Include \"/run/user/1000/hallpass/work/hosts/*.conf\"\n    IdentitiesOnly yes\n"
        );
        assert!(!fragment(&Fragment { coexist: true, ..of }).contains("IdentitiesOnly"));
        let known = fragment(&Fragment { known_hosts: Some(Path::new("/c/work.known_hosts")), ..of });
        assert!(known.ends_with(
            "    GlobalKnownHostsFile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2 \"/c/work.known_hosts\"\n"
        ));
        let strict = fragment(&Fragment { strict: true, ..of });
        assert!(
            strict.contains(
                "Match originalhost web-1,db-* !exec \"'/usr/local/bin/hallpass' --profile work ssh-prepare --folder \
                 '/run/user/1000/hallpass/work' --strict\"\n    RefuseConnection \"no access yet"
            ),
            "{strict}"
        );
    }

    #[test]
    fn a_host_file_names_a_pair_for_each_account_and_one_for_nobody_named() {
        let (host, key) = (HostName::parse("web-1").unwrap(), Path::new("/k"));
        let way = |account: &str| Way {
            account: Account::parse(account).unwrap(),
            key: key.to_owned(),
            certificate: Path::new("/k-cert.pub").to_owned(),
        };
        let pair = "    IdentityFile \"/k\"\n    CertificateFile \"/k-cert.pub\"\n";
        let head = "# Written by hallpass; deleted when it is over.\n";
        let named =
            format!("{head}Match originalhost web-1 user deploy\n{pair}Match originalhost web-1 user logs\n{pair}");
        let both = [way("deploy"), way("logs")];
        let by_default = format!("{named}Match originalhost web-1 user ann\n    User deploy\n{pair}");
        assert_eq!(host_file(&host, &both, Some("ann")), by_default);
        assert_eq!(host_file(&host, &both, Some("logs")), named);
        let unknown = format!("{named}Host web-1\n    User deploy\n{pair}");
        assert_eq!(host_file(&host, &both, None), unknown);
        assert_eq!(host_file(&host, &both, Some("odd name,*")), unknown);
    }

    #[test]
    fn paths_that_could_be_read_differently_are_refused() {
        check_path(Path::new("/home/ann b/x")).unwrap();
        for path in ["relative", "/a%n", "/a$b", "/a\"b", "/a'b", "/a\\b", "/a\nb", "/a*"] {
            check_path(Path::new(path)).unwrap_err();
        }
    }
}
