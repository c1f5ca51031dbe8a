//! Which hosts a profile takes from the service: plain ssh asks us about those, and believes the host CA for those, and for no others.
//!
//! What for: a service that was taken over must not become what ssh asks about `github.com`. Whoever runs `hallpass setup` confirms the
//! names that the service has then. One that comes later is taken by itself only if it has no dot, or is a sibling of a confirmed one:
//! `web-2.prod.example.com` beside `web-1.prod.example.com`. The others are left out and said, until somebody runs `setup` again.
//! What not: profiles that were set up for given patterns (`--hosts`); those were typed by the person.
//!
//! Invariants: only `setup` changes what is confirmed; a name taken by itself makes no further name fit.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::profile::Places;
use super::setup;
use super::ssh_config::Pattern;

/// Most names that are named when they are left out.
const SHOWN_MAX: usize = 5;

/// What was confirmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confirmed {
    names: BTreeSet<String>,
    parents: BTreeSet<String>,
}

/// The hosts of a profile, and those that the service names and nobody has confirmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    /// Its hosts.
    pub(crate) ours: Vec<Pattern>,
    /// The others.
    pub(crate) left_out: Vec<Pattern>,
}

impl Confirmed {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let parents = names.iter().filter_map(|name| parent(name)).map(str::to_owned).collect();
        Self { names, parents }
    }

    /// What was confirmed for a profile; of one that was set up before there was such a file, the hosts of its fragment. `None` where
    /// there is neither.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn read(places: &Places, profile: &str) -> Result<Option<Self>, Failure> {
        if let Some(text) = setup::read(&places.confirmed(profile))? {
            return Ok(Some(Self::of(text.lines().filter(|line| !line.starts_with('#')))));
        }
        let fragment = setup::read(&places.fragment(profile))?;
        Ok(fragment.map(|text| Self::of(setup::fragment_hosts(&text).iter().map(Pattern::as_str))))
    }

    /// Keeps apart what is taken by itself and what somebody has to confirm.
    pub(crate) fn sort(&self, named: Vec<Pattern>) -> Hosts {
        let (ours, left_out) = named.into_iter().partition(|name| self.takes(name.as_str()));
        Hosts { ours, left_out }
    }

    fn takes(&self, name: &str) -> bool {
        let is_sibling = || parent(name).is_some_and(|parent| self.parents.contains(parent));
        !name.contains('.') || self.names.contains(name) || is_sibling()
    }
}

/// The file that keeps these as confirmed.
pub(crate) fn text(profile: &str, hosts: &[Pattern]) -> String {
    let head = format!("# Written by `hallpass setup` for profile {profile}: the hosts that were confirmed.\n");
    head + &hosts.iter().map(|host| format!("{}\n", host.as_str())).collect::<String>()
}

impl Hosts {
    /// That hosts are left out, in a line.
    pub(crate) fn said(&self) -> Option<String> {
        let (count, first) = (self.left_out.len(), self.left_out.iter().take(SHOWN_MAX));
        let first = first.map(Pattern::as_str).collect::<Vec<_>>().join(", ");
        let more =
            if count > SHOWN_MAX { format!(" and {} more", count.saturating_sub(SHOWN_MAX)) } else { String::new() };
        (count > 0).then(|| format!("left out until you confirm them by `hallpass setup`: {first}{more}"))
    }
}

/// The domain a host shares with its siblings; of at least two labels, and none for an address.
fn parent(name: &str) -> Option<&str> {
    let (_, parent) = name.split_once('.')?;
    let is_address = parent.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (parent.contains('.') && !is_address).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(names: &[&str]) -> Vec<Pattern> {
        names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
    }

    #[test]
    fn what_comes_by_itself_has_no_dot_or_is_a_sibling_of_what_was_confirmed() {
        let confirmed =
            Confirmed::of(["web-1", "db-1.prod.example.com", "example.org", "one.corp", "10.0.0.1"].into_iter());
        for (name, is_taken) in [
            ("web-1", true),
            ("web-2", true),
            ("db-1.prod.example.com", true),
            ("db-2.prod.example.com", true),
            ("example.org", true),
            ("10.0.0.1", true),
            ("github.com", false),
            ("prod.example.com", false),
            ("db-1.test.example.com", false),
            ("a.db-1.prod.example.com", false),
            // A parent of one label is everybody's.
            ("debian.org", false),
            ("two.corp", false),
            // Addresses have no siblings.
            ("99.0.0.1", false),
            ("10.0.0.2", false),
        ] {
            assert_eq!(confirmed.takes(name), is_taken, "{name}");
        }
    }

    #[test]
    fn a_profile_without_a_list_has_confirmed_the_hosts_of_its_fragment() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::below(folder.path());
        assert!(Confirmed::read(&places, "work").unwrap().is_none());
        let write = |path: std::path::PathBuf, text: &str| crate::cli::profile::write(&path, text.as_bytes()).unwrap();
        write(
            places.fragment("work"),
            "# x\nMatch originalhost a.b.example exec \"x\"\nHost a.b.example web-1\n    IdentitiesOnly yes\n",
        );
        let named = || patterns(&["b.b.example", "a.c.example"]);
        let hosts = Confirmed::read(&places, "work").unwrap().unwrap().sort(named());
        assert_eq!((hosts.ours, hosts.left_out), (patterns(&["b.b.example"]), patterns(&["a.c.example"])));
        write(places.confirmed("work"), &text("work", &patterns(&["a.c.example"])));
        let hosts = Confirmed::read(&places, "work").unwrap().unwrap().sort(named());
        assert_eq!((hosts.ours, hosts.left_out), (patterns(&["a.c.example"]), patterns(&["b.b.example"])));
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let names: Vec<String> = (0..7).map(|n| format!("h{n}.example")).collect();
        let left_out = patterns(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let said = Hosts { left_out, ..Hosts::default() }.said().unwrap();
        assert!(said.ends_with("h4.example and 2 more"), "{said}");
        assert_eq!(Hosts::default().said(), None);
    }
}
