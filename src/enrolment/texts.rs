//! The texts of the files that enrolment writes. Pure.
//!
//! Invariants: what goes into a configuration file is a parsed name or a path of ours, never text from outside as it came (SECURITY row
//! 5); each file says who wrote it and what takes it away.

use std::collections::BTreeMap;
use std::path::Path;

use super::places::{self, CHECK_ACCOUNT, PRINCIPALS_ACCOUNT};
use super::plan::{Facts, Wish};
use crate::document::written;
use crate::host::settings::{self, Settings};
use crate::name::{HostName, TagKey, TagValue};

/// The first line of every file that is ours.
const HEADER: &str =
    "# Written by `hallpass host enrol`; `hallpass host leave` takes it back. Do not edit: it is written anew.";

/// Around what stands in a file of others.
const BEGIN: &str = "# begin hallpass: written by `hallpass host enrol`, taken out by `hallpass host leave`";
const END: &str = "# end hallpass";

/// Log levels that say less than VERBOSE, at which sshd names the certificate of a login that it refuses.
const TERSE: [&str; 4] = ["QUIET", "FATAL", "ERROR", "INFO"];

/// sshd's lines.
#[must_use]
pub fn sshd(facts: &Facts, wish: &Wish, has_match: bool) -> String {
    let mut text = format!("{HEADER}\n");
    let mut add = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    add(format!("TrustedUserCAKeys {}", places::TRUST));
    add("AuthorizedPrincipalsFile none".to_owned());
    add(format!("AuthorizedPrincipalsCommand {}", principals(&facts.program)));
    add(format!("AuthorizedPrincipalsCommandUser {PRINCIPALS_ACCOUNT}"));
    for certificate in &wish.certificates {
        add(format!("HostCertificate {certificate}"));
    }
    let level = facts.effective.one("loglevel").unwrap_or("INFO");
    if TERSE.iter().any(|terse| level.eq_ignore_ascii_case(terse)) || level.eq_ignore_ascii_case("VERBOSE") {
        add("LogLevel VERBOSE".to_owned());
    }
    // Lists of who may log in at all: each line adds to them.
    for (keyword, shown) in [("allowusers", "AllowUsers"), ("allowgroups", "AllowGroups")] {
        if !facts.effective.all(keyword).is_empty() {
            add(format!("{shown} {CHECK_ACCOUNT}"));
        }
    }
    if has_match {
        add("# The host's login to itself. A Match ends with this file.".to_owned());
        add(format!("Match User {CHECK_ACCOUNT}"));
        for line in [
            "AuthenticationMethods publickey",
            "PermitTTY no",
            "AllowTcpForwarding no",
            "AllowAgentForwarding no",
            "X11Forwarding no",
        ] {
            add(format!("    {line}"));
        }
    }
    text
}

/// What sshd runs for the principals of a login; `program` is how lines of the program that does it begin.
#[must_use]
pub fn principals(program: &str) -> String {
    format!("{program} principals --user=%u --serial=%s --key-id=%i --cert=%k")
}

/// `sshd_config` without anything of ours. A block without its end is none of ours: somebody has edited it, and it stays.
#[must_use]
pub fn without_ours(config: &str) -> String {
    let (mut rest, mut block) = (String::new(), None::<String>);
    for line in config.split_inclusive('\n') {
        if block.is_none() && line.trim_end() == BEGIN {
            block = Some(String::new());
        }
        block.as_mut().unwrap_or(&mut rest).push_str(line);
        if line.trim_end() == END {
            block = None;
        }
    }
    rest + &block.unwrap_or_default()
}

/// `sshd_config` that reads our own file first.
#[must_use]
pub fn with_include(config: &str) -> String {
    format!("{BEGIN}\nInclude {}\n{END}\n{config}", places::ASIDE)
}

/// `sshd_config` with our lines at its top.
#[must_use]
pub fn with_block(config: &str, lines: &str) -> String {
    format!("{BEGIN}\n{lines}{END}\n{config}")
}

/// `host.toml` for this wish; what stood there beside name and tags stays.
///
/// # Errors
/// In words, when there is one that can't be read.
pub fn host_toml(before: Option<&str>, wish: &Wish) -> Result<String, String> {
    let fresh = format!(
        "# What this host is called, for sshd, PAM and the daemon. Written by `hallpass host enrol`; the daemon keeps the tags as the\n\
         # service has them. Keys that are not here (others, refuse_accounts, …) may be added, and stay: see docs/hosts.md.\n\
         name = \"{}\"\ntags = {}\n",
        wish.name,
        tags(&wish.tags)
    );
    match before {
        None => Ok(fresh),
        Some(before) => renamed(before, &wish.name, &wish.tags),
    }
}

/// `host.toml` with another name and other tags, and everything else as it stood.
///
/// # Errors
/// In words, when it can't be read.
pub fn renamed(before: &str, name: &HostName, tags: &BTreeMap<TagKey, TagValue>) -> Result<String, String> {
    let was = Settings::parse(before, settings::PATH)?;
    if was.name == *name && was.tags == *tags {
        return Ok(before.to_owned());
    }
    let wished = Settings { name: name.clone(), tags: tags.clone(), ..was };
    let (name, tags) = (format!("name = \"{name}\"\n"), format!("tags = {}\n", self::tags(tags)));
    let has_tags = before.lines().any(|line| is_key(line, "tags"));
    let lines = before.split_inclusive('\n').map(|line| match line {
        line if is_key(line, "name") && has_tags => name.clone(),
        line if is_key(line, "name") => format!("{name}{tags}"),
        line if is_key(line, "tags") => tags.clone(),
        line => line.to_owned(),
    });
    let text: String = lines.collect();
    // A form that line by line does not understand (a table of tags, a string over several lines): then without its comments.
    if Settings::parse(&text, settings::PATH).as_ref() == Ok(&wished) { Ok(text) } else { Ok(whole(&wished)) }
}

/// All of `host.toml`, key by key.
fn whole(settings: &Settings) -> String {
    let Settings { name, scope, tags, trust, ended, state, spool, others, refuse_accounts } = settings;
    let scope = match scope {
        settings::Scope::Host => "host",
        settings::Scope::Account => "account",
    };
    let others = match others {
        settings::Others::Allow => "allow",
        settings::Others::Refuse => "refuse",
    };
    let path = |path: &Path| written(&path.display().to_string());
    let refused: Vec<String> = refuse_accounts.iter().map(|account| format!("\"{account}\"")).collect();
    format!(
        "name = \"{name}\"\nscope = \"{scope}\"\ntags = {}\ntrust = {}\nended = {}\nstate = {}\nspool = {}\nothers = \"{others}\"\n\
         refuse_accounts = [{}]\n",
        self::tags(tags),
        path(trust),
        path(ended),
        path(state),
        path(spool),
        refused.join(", ")
    )
}

fn is_key(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
}

fn tags(tags: &BTreeMap<TagKey, TagValue>) -> String {
    let pairs: Vec<String> = tags.iter().map(|(key, value)| format!("{:?} = \"{value}\"", key.as_str())).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// The daemon's unit; `program` is how lines of the program that it runs begin.
#[must_use]
pub fn unit(program: &str) -> String {
    include_str!("../../deploy/hallpass-host.service").replace("/usr/local/bin/hallpass-host", program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_block_is_taken_out_also_above_one_that_somebody_has_cut() {
        let cut = format!("Port 22\n{BEGIN}\nUsePAM yes\n");
        assert_eq!(without_ours(&cut), cut);
        assert_eq!(without_ours(&with_block(&cut, "UsePAM yes\n")), cut);
        assert_eq!(without_ours(&format!("{}Port 22\n", with_include(""))), "Port 22\n");
    }
}
