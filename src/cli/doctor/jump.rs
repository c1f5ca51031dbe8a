//! The jump hosts on the way to a host: whether what we hold for them lets them pass us on.

use super::super::local::Held;
use super::Doctor;
use super::probe::Shown;
use super::report::Check;
use crate::name::{Account, HostName};
use crate::ssh::cert::Extension;
use crate::time::Timestamp;

/// Each jump host of ours that our certificate does not let pass us on.
pub(super) fn look_for(doctor: &Doctor<'_>, shown: &Shown, now: Timestamp) -> Vec<Check> {
    let jumps = shown.one("proxyjump").filter(|jumps| *jumps != "none").unwrap_or_default();
    jumps
        .split(',')
        .filter_map(parse)
        .filter_map(|(account, jump)| closed(doctor, &jump, account.as_ref(), now))
        .collect()
}

/// `[ssh://][ACCOUNT@]HOST[:PORT]`; nothing for what can be no host of ours.
fn parse(jump: &str) -> Option<(Option<Account>, HostName)> {
    let jump = jump.trim().trim_start_matches("ssh://");
    let (account, host) = jump.rsplit_once('@').map_or((None, jump), |(account, host)| (Some(account), host));
    let host = match host.strip_prefix('[') {
        Some(address) => address.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    let account = account.map(Account::parse).transpose().ok()?;
    Some((account, HostName::parse(host).ok()?))
}

fn closed(doctor: &Doctor<'_>, jump: &HostName, account: Option<&Account>, now: Timestamp) -> Option<Check> {
    let mut live = doctor.local.for_host(jump, account).ok()?;
    live.retain(|held| held.window().is_some_and(|window| window.contains(now)));
    let first = live.first()?;
    if live.iter().any(passes_on) {
        return None;
    }
    Some(
        Check::warn("jump", format!("the jump host {jump} will not pass you on"))
            .because(format!(
                "known: the certificate of {} does not permit {}",
                first.request.id,
                Extension::PortForwarding.key()
            ))
            .because("it has what the rules of all its hosts permit; ssh says \"administratively prohibited\"")
            .next(format!("ask for a rule with permit = {{ {} = true }}", Extension::PortForwarding.key()))
            .next(format!("hallpass explain {jump}")),
    )
}

fn passes_on(held: &Held) -> bool {
    let permits = held.certificate.as_ref().map(|certificate| &certificate.tbs().fields().options.permits);
    permits.is_some_and(|permits| permits.contains(&Extension::PortForwarding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_read_as_ssh_shows_it() {
        let read = |text: &str| parse(text).map(|(account, host)| (account.map(|a| a.to_string()), host.to_string()));
        assert_eq!(read("bastion"), Some((None, "bastion".to_owned())));
        assert_eq!(read("root@free-1:2222"), Some((Some("root".to_owned()), "free-1".to_owned())));
        assert_eq!(read("ssh://ann@b.example.com"), Some((Some("ann".to_owned()), "b.example.com".to_owned())));
        assert_eq!(read("a b"), None);
        assert_eq!(read(""), None);
    }
}
