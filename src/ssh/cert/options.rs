//! What a certificate may restrict (critical options) and permit (extensions).
//!
//! A name that is not listed here is neither written nor read. Where a name goes matters: `sshd` refuses a critical
//! option that it doesn't know, and ignores an extension that it doesn't know, so a restriction among the extensions
//! would vanish without a word.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::CertError;
use crate::name::NameError;
use crate::ssh::encoding::{Reader, put_string};

/// Certificate options and extensions that hallpass issues; the default (all off) allows running commands only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `force-command`: a task, not a shell. Never empty.
    pub force_command: Option<ForceCommand>,
    /// `source-address`; empty means from anywhere.
    pub source_addresses: BTreeSet<IpNet>,
    /// `verify-required`: the security key must check a PIN or finger.
    pub verify_required: bool,
    /// Which `permit-*` extensions there are.
    pub permits: BTreeSet<Extension>,
}

/// A forced command: 1 to 1024 printable ASCII characters, no control characters, not only blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForceCommand(String);

/// The extensions hallpass can issue, in the order OpenSSH wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extension {
    /// `permit-X11-forwarding`
    X11Forwarding,
    /// `permit-agent-forwarding`
    AgentForwarding,
    /// `permit-port-forwarding`
    PortForwarding,
    /// `permit-pty`
    Pty,
    /// `permit-user-rc`
    UserRc,
}

impl ForceCommand {
    /// Parses one.
    ///
    /// # Errors
    /// When it is empty or blank, longer than 1024 bytes or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if printable && text.len() <= 1024 && text.bytes().any(|b| b != b' ') {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            kind: "a forced command",
            given: text.chars().take(64).collect(),
            rule: "1 to 1024 printable ASCII characters, not only blanks",
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Extension {
    /// All of them, in OpenSSH's (byte) order.
    pub const ALL: [Self; 5] =
        [Self::X11Forwarding, Self::AgentForwarding, Self::PortForwarding, Self::Pty, Self::UserRc];

    /// OpenSSH's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X11Forwarding => "permit-X11-forwarding",
            Self::AgentForwarding => "permit-agent-forwarding",
            Self::PortForwarding => "permit-port-forwarding",
            Self::Pty => "permit-pty",
            Self::UserRc => "permit-user-rc",
        }
    }

    /// The key that names it in a policy's `permit` table and on the wire: `pty`, `port_forwarding` …
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::X11Forwarding => "x11_forwarding",
            Self::AgentForwarding => "agent_forwarding",
            Self::PortForwarding => "port_forwarding",
            Self::Pty => "pty",
            Self::UserRc => "user_rc",
        }
    }
}

const FORCE_COMMAND: &str = "force-command";
const SOURCE_ADDRESS: &str = "source-address";
const VERIFY_REQUIRED: &str = "verify-required";

impl Options {
    /// The value of `source-address`: CIDR blocks in order, joined by commas.
    pub(super) fn source_address_list(&self) -> String {
        let list: Vec<String> = self.source_addresses.iter().map(ToString::to_string).collect();
        list.join(",")
    }

    /// The critical options in byte order of their names; a flag has no value.
    pub(super) fn critical(&self) -> Vec<(&'static str, Option<String>)> {
        let mut options = Vec::new();
        if let Some(command) = &self.force_command {
            options.push((FORCE_COMMAND, Some(command.0.clone())));
        }
        if !self.source_addresses.is_empty() {
            options.push((SOURCE_ADDRESS, Some(self.source_address_list())));
        }
        if self.verify_required {
            options.push((VERIFY_REQUIRED, None));
        }
        options
    }

    /// The extensions in byte order of their names; all are flags.
    pub(super) fn extensions(&self) -> Vec<(&'static str, Option<String>)> {
        self.permits.iter().map(|permit| (permit.name(), None)).collect()
    }

    /// Reads both sections. Order and repetition are not looked at: the caller compares the bytes of what it would write.
    pub(super) fn parse(critical: &[u8], extensions: &[u8]) -> Result<Self, CertError> {
        let mut options = Self::default();
        for (name, value) in section(critical)? {
            match (name, value) {
                (FORCE_COMMAND, Some(command)) => {
                    let command = ForceCommand::parse(command).ok().ok_or(CertError::Malformed("force-command"))?;
                    options.force_command = Some(command);
                }
                (SOURCE_ADDRESS, Some(list)) => {
                    let blocks = list.split(',').map(str::parse).collect::<Result<_, _>>();
                    options.source_addresses = blocks.ok().ok_or(CertError::Malformed("source-address"))?;
                }
                (VERIFY_REQUIRED, None) => options.verify_required = true,
                _ => return Err(CertError::Malformed("a critical option that is not issued here")),
            }
        }
        for (name, value) in section(extensions)? {
            let permit = Extension::ALL.into_iter().find(|permit| permit.name() == name && value.is_none());
            options.permits.insert(permit.ok_or(CertError::Malformed("an extension that is not issued here"))?);
        }
        Ok(options)
    }
}

/// Writes one section: names and data, where data is empty for a flag and a nested `string` for a value.
pub(super) fn put_section(out: &mut Vec<u8>, options: &[(&'static str, Option<String>)]) {
    let mut section = Vec::new();
    for (name, value) in options {
        put_string(&mut section, name.as_bytes());
        let mut data = Vec::new();
        if let Some(value) = value {
            put_string(&mut data, value.as_bytes());
        }
        put_string(&mut section, &data);
    }
    put_string(out, &section);
}

/// One section as read: names, with the value of those that are no flags.
type Section<'a> = Vec<(&'a str, Option<&'a str>)>;

fn section(bytes: &[u8]) -> Result<Section<'_>, CertError> {
    let wrong = || CertError::Malformed("an option list");
    let mut reader = Reader::new(bytes);
    let mut options = Vec::new();
    while !reader.is_at_end() {
        let (name, data) = reader.text().zip(reader.string()).ok_or_else(wrong)?;
        let mut inner = Reader::new(data);
        let value = if inner.is_at_end() { None } else { Some(inner.text().ok_or_else(wrong)?) };
        if !inner.is_at_end() {
            return Err(wrong());
        }
        options.push((name, value));
    }
    Ok(options)
}
