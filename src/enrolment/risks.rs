//! What stays open on a host beside us, and what takes something away from us, by sshd's configuration. Pure.
//!
//! What for: enrolment names it before it is asked to go on, `host check` and check-ins name it afterwards.
//!
//! *Why are `Match` blocks read as text?* `sshd -T` tells what holds for one login; nobody can ask it for all accounts, groups and
//! addresses that a block may be for. What is in files that an `Include` beside `sshd_config.d` names is not looked at.

use std::collections::BTreeMap;

use super::places::{self, DROP_IN_NAME};
use super::sshd_config::{self, Effective};
use super::texts;

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

/// The same of `Match` blocks, whose settings come on top for some logins: also those in which ours do not hold ([`MATCH`]).
#[must_use]
pub fn in_blocks(config: &str, drop_ins: &BTreeMap<String, String>) -> Vec<Risk> {
    let bare = texts::without_ours(config);
    let others = drop_ins.iter().filter(|(name, _)| *name != DROP_IN_NAME);
    let others = others.map(|(name, text)| (format!("{}/{name}", places::DROP_IN_FOLDER), text));
    let mut found = Vec::new();
    for (file, text) in others.chain([(places::SSHD_CONFIG.to_owned(), &bare)]) {
        for line in sshd_config::lines(text) {
            let Some(block) = line.block.as_deref() else { continue };
            let place = format!("{file}:{}", line.number);
            if let Some(shown) = shown(&line.keyword).filter(|_| !is_as_ours(&line.keyword, &line.value)) {
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

/// Whether a block says what we say.
fn is_as_ours(keyword: &str, value: &str) -> bool {
    match keyword {
        "trustedusercakeys" => value == places::TRUST,
        "authorizedprincipalsfile" => value.eq_ignore_ascii_case("none"),
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
        in_blocks(config, &drop_ins).into_iter().map(|risk| format!("{} {}", risk.word, risk.text)).collect()
    }

    #[test]
    fn what_a_block_sets_for_some_logins_is_named_with_its_line() {
        let config = "TrustedUserCAKeys /x\nPasswordAuthentication yes\nMatch User deploy\n  TrustedUserCAKeys /y\n  Banner none\n\
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
            PasswordAuthentication no\nAuthenticationMethods publickey\n";
        assert!(words(same, &[(DROP_IN_NAME, "Match User hallpass-check\nTrustedUserCAKeys /y\n")]).is_empty());
        assert!(words(&texts::with_block("Port 22\n", "Match User x\nTrustedUserCAKeys /y\n"), &[]).is_empty());
    }
}
