//! What stays open on a host beside us, and what takes something away from us, by sshd's configuration. Pure.
//!
//! What for: enrolment names it before it is asked to go on, `host check` and check-ins name it afterwards.
//!
//! *Why are `Match` blocks read as text?* `sshd -T` tells what holds for one login; nobody can ask it for all accounts, groups and
//! addresses that a block may be for. What is in files that an `Include` beside `sshd_config.d` names is not looked at; what is in that
//! folder and in no `Include` is not looked at either, because sshd does not.

use std::collections::BTreeMap;

use super::places::{self, DROP_IN_NAME};
use super::sshd_config::{self, Effective};
use super::texts;
use crate::host::program;

/// What weakens what hallpass promises on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// One word, for check-ins and scripts.
    pub word: &'static str,
    /// For people.
    pub text: String,
}

/// The word for a `Match` block in which ours does not hold.
pub const MATCH: &str = "match";

/// The word for a `Match` block in which no certificate opens anything: that takes access away, and nothing from what we promise.
pub const NO_CERTIFICATES: &str = "no-certificates";

/// What is done with these is only of use to one CA at a time.
pub const EXCLUSIVE: [(&str, &str); 3] = [
    ("trustedusercakeys", "TrustedUserCAKeys"),
    ("authorizedprincipalsfile", "AuthorizedPrincipalsFile"),
    ("authorizedprincipalscommand", "AuthorizedPrincipalsCommand"),
];

/// A keyword, which of its values are risky, and why.
type Rule = (&'static str, fn(&str) -> bool, &'static str, &'static str);

const RULES: [Rule; 9] = [
    ("authorizedkeysfile", says, "plain-keys", PLAIN_KEYS),
    ("authorizedkeyscommand", says, "plain-keys", PLAIN_KEYS),
    ("passwordauthentication", is_yes, "passwords", "passwords still open accounts (PasswordAuthentication yes)"),
    ("permitemptypasswords", is_yes, "empty-passwords", "empty passwords open accounts (PermitEmptyPasswords yes)"),
    (
        "permituserenvironment",
        is_not_no,
        "user-environment",
        "users set what sshd's sessions start with (PermitUserEnvironment)",
    ),
    ("permittunnel", is_not_no, "tunnels", "tunnel devices are allowed (PermitTunnel)"),
    ("strictmodes", is_no, "no-strict-modes", "sshd does not look at the modes of users' files (StrictModes no)"),
    ("hostbasedauthentication", is_yes, "host-based", "other hosts log users in (HostbasedAuthentication yes)"),
    ("authenticationmethods", is_more, "more-methods", "a certificate alone does not log in (AuthenticationMethods)"),
];

const PLAIN_KEYS: &str =
    "plain keys still open accounts (AuthorizedKeysFile): nobody approves those logins and nothing ends them";

fn says(value: &str) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case("none")
}

fn is_yes(value: &str) -> bool {
    value.eq_ignore_ascii_case("yes")
}

fn is_no(value: &str) -> bool {
    value.eq_ignore_ascii_case("no")
}

fn is_not_no(value: &str) -> bool {
    !is_no(value)
}

fn is_more(value: &str) -> bool {
    !matches!(value, "any" | "publickey")
}

/// Settings of sshd that people should know about, for the login that was asked for. Also what check-ins report.
#[must_use]
pub fn settings_at_risk(effective: &Effective) -> Vec<Risk> {
    let mut found: Vec<Risk> = Vec::new();
    for (keyword, is_risky, word, text) in RULES {
        if effective.one(keyword).is_some_and(is_risky) && !found.iter().any(|risk| risk.word == word) {
            found.push(Risk { word, text: text.to_owned() });
        }
    }
    found
}

/// Our command for principals, if it is ours that sshd asks.
#[must_use]
pub fn own_command(effective: &Effective) -> Option<&str> {
    effective.some("authorizedprincipalscommand").filter(|command| program::runs(command, "principals"))
}

/// The same of `Match` blocks, whose settings come on top for some logins: also those in which ours do not hold ([`MATCH`]).
/// `command`: ours for principals.
#[must_use]
pub fn in_blocks(config: &str, drop_ins: &BTreeMap<String, String>, command: Option<&str>) -> Vec<Risk> {
    let bare = texts::without_ours(config);
    let others = read(&bare, drop_ins).into_iter().filter(|(name, ..)| *name != DROP_IN_NAME);
    let others = others.map(|(name, (text, outer))| (format!("{}/{name}", places::DROP_IN_FOLDER), text, outer));
    let mut found = Vec::new();
    for (file, text, outer) in others.chain([(places::SSHD_CONFIG.to_owned(), bare.as_str(), None)]) {
        for line in sshd_config::lines(text) {
            let Some(block) = line.block.as_ref().or(outer.as_ref()) else { continue };
            let place = format!("{file}:{}", line.number);
            if is_closed(&line.keyword, &line.value) {
                let text =
                    format!("{place}: for `Match {block}`, no certificate opens anything (TrustedUserCAKeys none)");
                found.push(Risk { word: NO_CERTIFICATES, text });
            } else if let Some(shown) =
                shown(&line.keyword).filter(|_| !is_as_ours(&line.keyword, &line.value, command))
            {
                let text = format!("{place}: `Match {block}` sets {shown}: there, ours does not hold");
                found.push(Risk { word: MATCH, text });
            }
            let is_it = |(keyword, is_risky, ..): &&Rule| *keyword == line.keyword && is_risky(&line.value);
            if let Some((_, _, word, text)) = RULES.iter().find(is_it) {
                found.push(Risk { word, text: format!("{place}: for `Match {block}`, {text}") });
            }
        }
    }
    found
}

/// The files of `sshd_config.d` that sshd reads, by name.
///
/// With each, its text, and the `Match` in which it is read, if it is not read outside of one.
fn read<'a>(config: &'a str, drop_ins: &'a BTreeMap<String, String>) -> BTreeMap<&'a str, (&'a str, Option<String>)> {
    let mut found: BTreeMap<&str, (&str, Option<String>)> = BTreeMap::new();
    let mut open = vec![(config, None::<String>)];
    while let Some((text, outer)) = open.pop() {
        for line in sshd_config::lines(text).into_iter().filter(|line| line.keyword == "include") {
            let block = line.block.or_else(|| outer.clone());
            for (name, text) in drop_ins.iter().filter(|(name, _)| reads(&line.value, name)) {
                // Once in some block and once for all is all that differs.
                let is_new = found.get(name.as_str()).is_none_or(|(_, had)| had.is_some() && block.is_none());
                if is_new {
                    found.insert(name, (text, block.clone()));
                    open.push((text, block.clone()));
                }
            }
        }
    }
    found
}

/// Whether an `Include` reads a file of `sshd_config.d`; by a pattern that we do not know, it may.
fn reads(value: &str, name: &str) -> bool {
    sshd_config::includes(value, places::DROP_IN_FOLDER, name) || value.contains('[')
}

/// Whether a block trusts no CA at all.
fn is_closed(keyword: &str, value: &str) -> bool {
    keyword == "trustedusercakeys" && value.eq_ignore_ascii_case("none")
}

/// Whether a block says what we say.
fn is_as_ours(keyword: &str, value: &str, command: Option<&str>) -> bool {
    match keyword {
        "trustedusercakeys" => value == places::TRUST,
        "authorizedprincipalsfile" => value.eq_ignore_ascii_case("none"),
        "authorizedprincipalscommand" => command.is_some_and(|own| own.split_whitespace().eq(value.split_whitespace())),
        _ => false,
    }
}

fn shown(keyword: &str) -> Option<&'static str> {
    EXCLUSIVE.iter().find(|(known, _)| *known == keyword).map(|(_, shown)| *shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(config: &str, drop_ins: &[(&str, &str)]) -> Vec<String> {
        let drop_ins = drop_ins.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let command = texts::principals("/opt/hallpass-host");
        let found = in_blocks(config, &drop_ins, Some(&command));
        found.into_iter().map(|risk| format!("{} {}", risk.word, risk.text)).collect()
    }

    #[test]
    fn what_a_block_sets_for_some_logins_is_named_with_its_line() {
        let config = "TrustedUserCAKeys /x\nInclude sshd_config.d/*.conf\nMatch User deploy\n  TrustedUserCAKeys /y\n  Banner none\n\
            \tauthorizedprincipalsfile=/z\n  AuthorizedPrincipalsCommand /bin/x\n  passwordauthentication yes\nMatch all\nPermitTunnel yes\n";
        let found = words(config, &[("50-x.conf", "Match Address 10.0.0.0/8\nAuthorizedKeysFile .ssh/keys\n")]);
        assert_eq!(
            found,
            [
                "plain-keys /etc/ssh/sshd_config.d/50-x.conf:2: for `Match Address 10.0.0.0/8`, plain keys still open accounts \
                 (AuthorizedKeysFile): nobody approves those logins and nothing ends them",
                "match /etc/ssh/sshd_config:4: `Match User deploy` sets TrustedUserCAKeys: there, ours does not hold",
                "match /etc/ssh/sshd_config:6: `Match User deploy` sets AuthorizedPrincipalsFile: there, ours does not hold",
                "match /etc/ssh/sshd_config:7: `Match User deploy` sets AuthorizedPrincipalsCommand: there, ours does not hold",
                "passwords /etc/ssh/sshd_config:8: for `Match User deploy`, passwords still open accounts (PasswordAuthentication yes)",
            ]
        );
    }

    #[test]
    fn what_a_block_says_as_we_do_or_what_is_ours_is_no_risk() {
        let same = "Match User deploy\nTrustedUserCAKeys /etc/ssh/hallpass/user_ca_keys\nAuthorizedPrincipalsFile none\n\
            PasswordAuthentication no\nAuthenticationMethods publickey\n\
            AuthorizedPrincipalsCommand\t/opt/hallpass-host principals  --user=%u --serial=%s --key-id=%i --cert=%k\n";
        let include = "Include /etc/ssh/sshd_config.d/*.conf\n";
        let drop_in = [(DROP_IN_NAME, "Match User hallpass-check\nTrustedUserCAKeys /y\n")];
        assert!(words(&format!("{include}{same}"), &drop_in).is_empty());
        let commented = "Match User deploy # a\nTrustedUserCAKeys /etc/ssh/hallpass/user_ca_keys # ours\n\
            AuthorizedPrincipalsFile none # as ours\nPermitTunnel no # never\n";
        assert_eq!(words(commented, &[]), [""; 0]);
        assert!(words(&texts::with_block("Port 22\n", "Match User x\nTrustedUserCAKeys /y\n"), &[]).is_empty());
    }

    #[test]
    fn a_command_for_principals_that_is_not_quite_ours_is_not_ours() {
        for command in [
            "/opt/other principals --user=%u --serial=%s --key-id=%i --cert=%k",
            "/opt/hallpass-host principals --user=root --serial=%s --key-id=%i --cert=%k",
            "/opt/hallpass-host principals --user=%u --serial=%s --key-id=%i --cert=%k # ours",
            "none",
        ] {
            let found = words(&format!("Match User deploy\nAuthorizedPrincipalsCommand {command}\n"), &[]);
            assert!(matches!(&found[..], [one] if one.starts_with("match ")), "{command}: {found:?}");
        }
        let own = Effective::parse("authorizedprincipalscommand /opt/hallpass-host principals --user=%u\n");
        assert_eq!(own_command(&own), Some("/opt/hallpass-host principals --user=%u"));
        assert_eq!(own_command(&Effective::parse("authorizedprincipalscommand /bin/echo deploy\n")), None);
    }

    #[test]
    fn a_block_that_trusts_no_ca_is_only_noted() {
        let found = words("Match User root # never\nTrustedUserCAKeys None # none at all\n", &[]);
        let text = "no-certificates /etc/ssh/sshd_config:2: for `Match User root`, no certificate opens anything (TrustedUserCAKeys none)";
        assert_eq!(found, [text]);
    }

    #[test]
    fn a_file_is_looked_at_if_sshd_reads_it_and_in_the_block_in_which_it_does() {
        let risky = "PermitTunnel yes\nMatch User deploy\nTrustedUserCAKeys /y\n";
        let drop_ins = [("50-x.conf", risky), ("60-y.conf", "Include sshd_config.d/50-x.conf\n")];
        let in_deploy = "match /etc/ssh/sshd_config.d/50-x.conf:3: `Match User deploy` sets TrustedUserCAKeys: there, ours does not hold";
        let in_git = "tunnels /etc/ssh/sshd_config.d/50-x.conf:1: for `Match User git`, tunnel devices are allowed (PermitTunnel)";
        for (config, expected) in [
            ("UsePAM yes\n", &[][..]),
            (
                "#Include /etc/ssh/sshd_config.d/*.conf\nInclude /etc/ssh/other.d/*.conf # sshd_config.d/50-x.conf\n",
                &[],
            ),
            ("Include /etc/ssh/sshd_config.d/*.conf\n", &[in_deploy]),
            ("Include /etc/ssh/sshd_config.d/[0-9]*.conf\n", &[in_deploy]),
            ("Include sshd_config.d/60-*\n", &[in_deploy]),
            ("Match User git\nInclude sshd_config.d/60-*\n", &[in_git, in_deploy]),
            ("Match User git\nInclude sshd_config.d/*\nMatch all\nInclude sshd_config.d/*\n", &[in_deploy]),
        ] {
            assert_eq!(words(config, &drop_ins), expected, "{config}");
        }
    }
}
