//! Entries for what collects security events: the Common Event Format, CEF:0, which nearly all such programs read.
//!
//! `CEF:0|vendor|product|version|signature|name|severity|key=value …`. In the head `\` and `|` are escaped, in values `\`, `=` and line ends; a
//! value goes up to the next key. No value is longer than the format's dictionary has it.

use std::net::IpAddr;

use super::super::entry::Entry;
use super::super::event::Event;
use super::super::host_event::HostEvent;
use super::Shown;
use super::facts::Facts;
use crate::keyring::step::Step;

/// The longest value, in characters: that of `msg`, `reason` and the names in the format's dictionary.
const VALUE_MAX: usize = 1023;

/// An entry's line, with its end; `version` is that of the program that writes it.
#[must_use]
pub fn line(entry: &Entry, version: &str, shown: Shown) -> String {
    let kind = entry.event.kind();
    let head = ["hallpass", "hallpass", version, kind, &kind.replace('_', " ")].map(|text| head(text, shown));
    let fields = fields(entry).into_iter().filter(|(_, value)| !value.is_empty());
    let fields: Vec<String> = fields.map(|(key, text)| format!("{key}={}", value(&text, shown))).collect();
    format!("CEF:0|{}|{}|{}\n", head.join("|"), severity(&entry.event), fields.join(" "))
}

/// Keys of the format's dictionary, and what they are here.
fn fields(entry: &Entry) -> Vec<(&'static str, String)> {
    let Facts { number, who, request, hosts, account, serial, policy, address, reason, text } = Facts::of(entry);
    let mut fields = vec![
        ("rt", entry.at.unix().saturating_mul(1000).to_string()),
        ("externalId", number),
        ("suser", who),
        ("dhost", hosts),
        ("duser", account),
    ];
    // Behind the address a host may have written the port.
    match address.split(' ').next().and_then(|word| word.parse::<IpAddr>().ok()).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => fields.push(("src", address.to_string())),
        Some(IpAddr::V6(address)) => {
            fields.extend(labelled("c6a2", "c6a2Label", "Source IPv6 Address", address.to_string()));
        }
        None => {}
    }
    fields.extend(labelled("cs1", "cs1Label", "request", request));
    fields.extend(labelled("cn1", "cn1Label", "serial", serial));
    fields.extend(labelled("cn2", "cn2Label", "policy", policy));
    fields.extend([("reason", reason), ("msg", text)]);
    fields
}

/// One of the format's fields without a meaning of their own, if there is something to say.
fn labelled(key: &'static str, label: &'static str, means: &str, value: String) -> Vec<(&'static str, String)> {
    if value.is_empty() { Vec::new() } else { vec![(label, means.to_owned()), (key, value)] }
}

fn head(text: &str, shown: Shown) -> String {
    shown(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// Line ends stay what they are, since the format has a way to write them.
fn value(text: &str, shown: Shown) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| shown(line.strip_suffix('\r').unwrap_or(line))).collect();
    let mut escaped = String::new();
    for c in cut(&lines.join("\n")).chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '=' => escaped.push_str("\\="),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// At most so many characters; the last says that there was more.
fn cut(text: &str) -> String {
    if text.chars().count() <= VALUE_MAX {
        return text.to_owned();
    }
    text.chars().take(VALUE_MAX.saturating_sub(1)).chain(['…']).collect()
}

/// 0 to 10: to 3 low, from 4 medium, from 7 high, from 9 very high. Our own table: high is what somebody has to look at, medium what changes
/// who may do what or says no, low what happens every day.
#[must_use]
pub const fn severity(event: &Event) -> u8 {
    match event {
        Event::CaKeysChanged { step: Step::Compromise, .. } => 10,
        Event::LogRecovered { .. } | Event::EntryLost { .. } => 9,
        Event::CaKeysChanged { .. }
        | Event::CaStepProposed { .. }
        | Event::Refused { .. }
        | Event::Denied { .. }
        | Event::CertificateRefused { .. } => 6,
        Event::PolicyApplied { .. } | Event::Ended { .. } => 5,
        Event::Granted { .. } => 4,
        Event::LogStarted { .. }
        | Event::ServiceStarted { .. }
        | Event::Asked { .. }
        | Event::ExtensionAsked { .. }
        | Event::Narrowed { .. }
        | Event::Approved { .. }
        | Event::CertificateToBeSigned { .. }
        | Event::CertificateSigned { .. } => 3,
        Event::LoggedIn { .. }
        | Event::BrowserSignedIn { .. }
        | Event::LoggedOut { .. }
        | Event::Withdrawn { .. }
        | Event::Lapsed { .. }
        | Event::Expired { .. } => 2,
        Event::Host(event) => severity_on_host(event),
    }
}

const fn severity_on_host(event: &HostEvent) -> u8 {
    match event {
        HostEvent::SessionFlagged { .. } => 9,
        HostEvent::HostDoubled { .. } => 8,
        HostEvent::HostRefused { .. } | HostEvent::SessionRefused { .. } => 6,
        HostEvent::HostRetired { .. } => 5,
        HostEvent::JoinCreated { .. }
        | HostEvent::JoinRevoked { .. }
        | HostEvent::HostEnrolled { .. }
        | HostEvent::HostTagged { .. }
        | HostEvent::HostMoved { .. }
        | HostEvent::HostLeft { .. }
        | HostEvent::SessionOpened { .. } => 4,
        HostEvent::CheckInChanged { .. } => 3,
        HostEvent::HostCertificateToBeSigned { .. }
        | HostEvent::HostCertificateSigned { .. }
        | HostEvent::CheckCertificateToBeSigned { .. }
        | HostEvent::CheckCertificateSigned { .. }
        | HostEvent::SessionEnded { .. } => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOLDEN, ended, shown};
    use super::*;

    #[test]
    fn a_head_and_a_value_end_where_they_should_whatever_stands_in_them() {
        for (text, in_head, in_value) in [
            ("plain", "plain", "plain"),
            ("a|b", "a\\|b", "a|b"),
            ("a\\b", "a\\\\b", "a\\\\b"),
            ("a=b", "a=b", "a\\=b"),
            ("x\nsuser=root", "x\\\\u{a}suser=root", "x\\nsuser\\=root"),
            ("x\r\ny", "x\\\\u{d}\\\\u{a}y", "x\\ny"),
            ("x\ry\u{1b}", "x\\\\u{d}y\\\\u{1b}", "x\\\\u{d}y\\\\u{1b}"),
            ("\\|=", "\\\\\\|=", "\\\\|\\="),
        ] {
            assert_eq!((head(text, shown).as_str(), value(text, shown).as_str()), (in_head, in_value), "{text:?}");
        }
        let long = value(&"é".repeat(5_000), shown);
        assert_eq!((long.chars().count(), long.ends_with("é…")), (VALUE_MAX, true));
        assert_eq!(value(&"é".repeat(VALUE_MAX), shown).chars().count(), VALUE_MAX);
    }

    #[test]
    fn a_line_has_the_fields_of_the_dictionary() {
        assert_eq!(
            line(&ended("a|b=c\\d"), "1.2|3", shown),
            "CEF:0|hallpass|hallpass|1.2\\|3|ended|ended|5|rt=1767608200000 externalId=16 suser=alice@example.com cs1Label=request \
             cs1=7K3F-9QX2 reason=a|b\\=c\\\\d msg=7K3F-9QX2: alice@example.com ended it: \"a|b\\=c\\\\\\\\d\"\n"
        );
        let of =
            |number: usize| line(&Entry::parse(GOLDEN.lines().nth(number).unwrap().as_bytes()).unwrap(), "1", shown);
        for (number, has) in [
            (5, "|asked|asked|3|rt=1767607210000 externalId=5 suser=alice dhost=web-1 web-2 duser=deploy cs1Label"),
            (10, " cs1=7K3F-9QX2 cn1Label=serial cn1=9 msg="),
            (18, "|denied|denied|6|"),
            (37, " dhost=web-1 duser=deploy src=192.0.2.7 cs1Label=request "),
            (38, "|session_flagged|session flagged|9|"),
            (60, " src=192.0.2.17 "),
        ] {
            assert!(of(number).contains(has), "{}", of(number));
        }
    }

    #[test]
    fn an_address_of_the_newer_kind_has_its_own_field() {
        let of = |address: &str| {
            let text = GOLDEN.lines().nth(3).unwrap().replace("192.0.2.1", address);
            line(&Entry::parse(text.as_bytes()).unwrap(), "1", shown)
        };
        assert!(of("2001:db8::7").contains(" c6a2Label=Source IPv6 Address c6a2=2001:db8::7 msg="));
        assert!(of("::ffff:192.0.2.9").contains(" src=192.0.2.9 msg="));
        assert!(!of("nowhere").contains(" src="));
    }

    #[test]
    fn a_lost_key_is_worse_than_everything_else() {
        let severities = GOLDEN.lines().map(|line| severity(&Entry::parse(line.as_bytes()).unwrap().event));
        assert!(severities.max() <= Some(10));
        let switched = Event::KINDS.iter().position(|kind| *kind == "ca_keys_changed");
        assert!(switched.is_some());
        let changed = GOLDEN.lines().find(|line| line.contains("\"kind\":\"ca_keys_changed\"")).unwrap();
        let entry = Entry::parse(changed.as_bytes()).unwrap();
        assert_eq!(severity(&entry.event), 6);
        let Event::CaKeysChanged { by, why, unproven, keys, purpose, early, proposer, ca, kept, .. } = entry.event
        else {
            panic!("it is another kind");
        };
        let step = Step::Compromise;
        let lost = Event::CaKeysChanged { by, step, why, unproven, keys, purpose, early, proposer, ca, kept };
        assert_eq!(severity(&lost), 10);
    }
}
