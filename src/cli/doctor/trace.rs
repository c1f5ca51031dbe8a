//! What `ssh -v` says on standard error, read into facts. Pure.
//!
//! Source: the `debug1` lines of OpenSSH's client, 7.3 to 10.x. They are no interface: a line that is not recognised is passed over, and
//! nothing is concluded from a line that did not come. Who stands at the other end can send text that ends up in some of them (banners,
//! disconnect reasons), so only a diagnosis rests on this, never a decision.

use std::path::Path;

/// What is known of the host's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostKey {
    /// It did not come to that.
    #[default]
    Unseen,
    /// It fits what is known here.
    Known,
    /// None is known here.
    Unknown,
    /// Another one is known here, in this file and line if ssh said so.
    Changed(Option<String>),
    /// A host certificate that does not fit; ssh's words.
    BadCertificate(String),
}

/// What one connection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a line of ssh's that came or did not come")]
pub(crate) struct Trace {
    /// The address that was connected to.
    pub(crate) address: Option<String>,
    /// Why there was no connection.
    pub(crate) no_connection: Option<String>,
    /// The host's ssh software.
    pub(crate) software: Option<String>,
    /// The host's key.
    pub(crate) host_key: HostKey,
    /// The methods that the host offered first.
    pub(crate) methods: Option<Vec<String>>,
    /// Whether our certificate was offered.
    pub(crate) is_offered: bool,
    /// Whether the host said that it would take our certificate.
    pub(crate) is_taken: bool,
    /// Whether the host let us in.
    pub(crate) is_in: bool,
    /// Whether it hung up because of too many offers.
    pub(crate) is_too_many: bool,
    /// Whether ssh ignored our private key because others can read it.
    pub(crate) is_unprotected: bool,
    /// Why ssh could not load our private key, in its words.
    pub(crate) not_loaded: Option<String>,
    /// Whether the host refused at the end.
    pub(crate) is_denied: bool,
    /// Why a jump host did not open the way to the host, in its words.
    pub(crate) not_passed_on: Option<String>,
    /// How the connection was lost, if it was.
    pub(crate) lost: Option<String>,
}

impl Trace {
    /// Reads the lines; `key` and `certificate` are ours.
    pub(crate) fn read<'a>(lines: impl Iterator<Item = &'a str>, key: &Path, certificate: &Path) -> Self {
        let mut trace = Self::default();
        let ours = [certificate.display().to_string(), key.display().to_string()];
        for line in lines {
            let line = line.trim_end();
            trace.connection(line);
            trace.host(line);
            trace.login(line, &ours);
        }
        trace
    }

    /// Lines about getting there.
    fn connection(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("debug1: Connecting to ") {
            self.address = rest.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(a, _)| a.to_owned());
        }
        let failed = line.strip_prefix("ssh: connect to host ").and_then(|rest| rest.split_once(": "));
        if let Some((_, why)) = failed {
            self.no_connection = Some(why.to_owned());
        }
        if line.starts_with("ssh: Could not resolve hostname ") {
            self.no_connection = line.strip_prefix("ssh: ").map(str::to_owned);
        }
        if let Some(software) = line.split_once("remote software version ").map(|(_, software)| software)
            && line.starts_with("debug1: Remote protocol version")
        {
            self.software = Some(software.to_owned());
        }
        if let Some((_, why)) = line.strip_prefix("channel ").and_then(|rest| rest.split_once(": open failed: ")) {
            self.not_passed_on = Some(why.to_owned());
        }
        let is_lost = [
            "Connection closed by ",
            "Connection reset by ",
            "kex_exchange_identification: ",
            "Received disconnect from ",
        ]
        .iter()
        .any(|start| line.starts_with(start));
        if is_lost && self.lost.is_none() {
            self.lost = Some(line.to_owned());
        }
    }

    /// Lines about the host's key.
    fn host(&mut self, line: &str) {
        if line.starts_with("debug1: Host '") && line.contains(" is known and matches the ") {
            self.host_key = HostKey::Known;
        }
        if line.contains("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED") {
            self.host_key = HostKey::Changed(None);
        }
        if let (Some((_, place)), HostKey::Changed(_)) = (line.split_once(" key in "), &self.host_key)
            && line.starts_with("Offending ")
        {
            self.host_key = HostKey::Changed(Some(place.to_owned()));
        }
        if line.starts_with("No ") && line.contains(" host key is known for ") {
            self.host_key = HostKey::Unknown;
        }
        if line.starts_with("Certificate invalid: ") {
            self.host_key = HostKey::BadCertificate(line.to_owned());
        }
    }

    /// Lines about the login.
    fn login(&mut self, line: &str, ours: &[String; 2]) {
        if let Some(rest) = line.strip_prefix("debug1: Authentications that can continue:") {
            let methods = || rest.split(',').map(|m| m.trim().to_owned()).filter(|m| !m.is_empty()).collect();
            self.methods.get_or_insert_with(methods);
        }
        if let Some(offered) = line.strip_prefix("debug1: Offering public key: ") {
            let is_ours = ours.iter().any(|path| offered.starts_with(&format!("{path} ")));
            self.is_offered |= is_ours && offered.contains("-CERT ");
        }
        if line.starts_with("debug1: Server accepts key: ") && line.contains("-CERT ") {
            self.is_taken = true;
        }
        let said = line.strip_prefix("debug1: ").unwrap_or(line);
        self.is_in |= said.starts_with("Authenticated to ");
        self.is_too_many |= line.contains("Too many authentication failures");
        self.is_unprotected |= line.contains("UNPROTECTED PRIVATE KEY FILE");
        let loading = line.strip_prefix("Load key \"").and_then(|rest| rest.split_once("\": "));
        if let Some((_, why)) = loading.filter(|(path, _)| ours.iter().any(|own| own == path)) {
            self.not_loaded = Some(why.to_owned());
        }
        self.is_denied |= line.contains(": Permission denied (");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Trace {
        Trace::read(text.lines(), Path::new("/run/k/key"), Path::new("/run/k/key-cert.pub"))
    }

    const BEGIN: &str = "debug1: Connecting to web-1 [192.0.2.7] port 22.\n\
        debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2p1 Debian-2\n\
        debug1: Host 'web-1' is known and matches the ED25519 host key.\n\
        debug1: Authentications that can continue: publickey,password\n\
        debug1: Offering public key: /run/k/key-cert.pub ED25519-CERT SHA256:x explicit\n";

    #[test]
    fn a_refusal_shows_what_was_offered_and_nothing_else() {
        let trace = read(&format!(
            "{BEGIN}debug1: Authentications that can continue: publickey\n\
             debug1: Offering public key: /run/k/key ED25519 SHA256:x explicit\n\
             debug1: Offering public key: /home/ann/.ssh/id_rsa RSA SHA256:y agent\n\
             deploy@web-1: Permission denied (publickey).\n"
        ));
        assert_eq!((trace.address.as_deref(), &trace.host_key), (Some("192.0.2.7"), &HostKey::Known));
        assert_eq!(trace.software.as_deref(), Some("OpenSSH_9.2p1 Debian-2"));
        assert_eq!(trace.methods, Some(vec!["publickey".to_owned(), "password".to_owned()]));
        assert!(trace.is_offered && trace.is_denied && !trace.is_taken && !trace.is_in);
    }

    #[test]
    fn a_key_of_ours_that_ssh_cannot_load_is_told_from_a_refusal() {
        let load = |path: &str| {
            format!("{BEGIN}Load key \"{path}\": Permission denied\ndeploy@web-1: Permission denied (publickey).\n")
        };
        let trace = read(&load("/run/k/key"));
        assert_eq!((trace.not_loaded.as_deref(), trace.is_denied), (Some("Permission denied"), true));
        assert_eq!(read(&load("/home/ann/.ssh/id_rsa")).not_loaded, None);
    }

    #[test]
    fn a_jump_host_that_forwards_nothing_is_told_from_a_lost_connection() {
        let trace = read(
            "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed\n\
             Connection closed by UNKNOWN port 65535",
        );
        assert_eq!(trace.not_passed_on.as_deref(), Some("administratively prohibited: open failed"));
        assert!(trace.lost.is_some());
    }

    #[test]
    fn a_login_is_seen_in_old_and_new_words() {
        for line in ["Authenticated to web-1 ([192.0.2.7]:22) using \"publickey\".", "debug1: Authenticated to web-1"] {
            let trace = read(&format!("{BEGIN}debug1: Server accepts key: /run/k/key-cert.pub ED25519-CERT x\n{line}"));
            assert!(trace.is_in && trace.is_taken, "{line}");
        }
    }

    #[test]
    fn what_keeps_from_getting_there_is_told_apart() {
        let refused = read("ssh: connect to host web-1 port 22: Connection refused");
        assert_eq!(refused.no_connection.as_deref(), Some("Connection refused"));
        let unknown = read("ssh: Could not resolve hostname web-1: Name or service not known");
        assert_eq!(
            unknown.no_connection.as_deref(),
            Some("Could not resolve hostname web-1: Name or service not known")
        );
        let changed = read(
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nOffending ED25519 key in /home/ann/.ssh/known_hosts:3\n\
             Host key verification failed.",
        );
        assert_eq!(changed.host_key, HostKey::Changed(Some("/home/ann/.ssh/known_hosts:3".to_owned())));
        let new = read("No ED25519 host key is known for web-1 and you have requested strict checking.");
        assert_eq!(new.host_key, HostKey::Unknown);
        let other = read("Certificate invalid: name is not a listed principal");
        assert_eq!(
            other.host_key,
            HostKey::BadCertificate("Certificate invalid: name is not a listed principal".to_owned())
        );
        let many = read("Received disconnect from 192.0.2.7 port 22:2: Too many authentication failures");
        assert!(many.is_too_many && many.lost.is_some());
    }
}
