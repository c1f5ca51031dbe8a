//! What sshd says of how a login proved itself: the text of `SSH_AUTH_INFO_0`. Pure.
//!
//! sshd writes one line for each method that succeeded (`auth2_update_session_info` in its `auth2.c`):
//!
//! | Part | |
//! |---|---|
//! | method | `publickey`, `password`, `keyboard-interactive/pam`, `hostbased` … |
//! | type and base64 | of the key or certificate, when the method has one |
//! | more words | only `hostbased`: what the client says of itself |
//!
//! Invariants: every line is read and every certificate in it is found; text that sshd would not write is an error, never
//! "no certificate" (I-32).

use std::fmt;

use data_encoding::BASE64;

use crate::ssh::cert::skim::{is_certificate_type, wire_type};

/// The longest text: the kernel passes no longer environment string.
const BYTES_MAX: usize = 128 * 1024;

/// The most methods in one login. sshd's `AuthenticationMethods` lists two or three. Our own choice.
const LINES_MAX: usize = 16;

/// How a login proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthInfo {
    /// The wire form of every certificate that was used.
    pub certificates: Vec<Vec<u8>>,
}

/// Why the text is not one that sshd would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(&'static str);

impl AuthInfo {
    /// Reads the text.
    ///
    /// # Errors
    /// For anything that sshd does not write.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        if text.len() > BYTES_MAX {
            return Err(Unreadable("it is longer than 128 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| Unreadable("it is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(Unreadable("it contains control characters"));
        }
        let mut certificates = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            if index >= LINES_MAX {
                return Err(Unreadable("it has more than 16 lines"));
            }
            certificates.extend(certificates_in(line)?);
        }
        Ok(Self { certificates })
    }
}

/// The certificates of one line: what begins like one and is named as one. Either without the other is an error.
fn certificates_in(line: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
    let words: Vec<&str> = line.split(' ').collect();
    let method = words.first().copied().unwrap_or_default();
    // Without capitals, which the base64 of every certificate has: none stands in the method's place.
    let is_methods = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-/_.".contains(&b);
    if method.is_empty() || !method.bytes().all(is_methods) {
        return Err(Unreadable("a line does not begin with a method"));
    }
    let mut found = Vec::new();
    for (word, next) in words.iter().zip(words.iter().skip(1).map(Some).chain([None])) {
        let blob = next.and_then(|next| BASE64.decode(next.as_bytes()).ok()).unwrap_or_default();
        match wire_type(&blob).filter(|name| is_certificate_type(name)) {
            Some(name) if name == *word => found.push(blob),
            None if !is_certificate_type(word) => {}
            Some(_) | None => return Err(Unreadable("a certificate is not of the type that it says")),
        }
    }
    if method == "publickey" && !has_key(&words) {
        return Err(Unreadable("a publickey line has no key of the type that it says"));
    }
    Ok(found)
}

/// Whether the two words behind the method are a type and a key or certificate of that type.
fn has_key(words: &[&str]) -> bool {
    let [_, name, base64, ..] = words else { return false };
    BASE64.decode(base64.as_bytes()).is_ok_and(|blob| wire_type(&blob) == Some(name))
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==";
    const CERT_TYPE: &str = "ssh-ed25519-cert-v01@openssh.com";

    /// Something that begins like a certificate.
    fn certificate() -> (String, Vec<u8>) {
        let mut blob = vec![0, 0, 0, 32];
        blob.extend_from_slice(CERT_TYPE.as_bytes());
        (format!("{CERT_TYPE} {}", BASE64.encode(&blob)), blob)
    }

    #[test]
    fn every_certificate_of_every_line_is_found_and_plain_methods_have_none() {
        let (text, blob) = certificate();
        let certificates = |text: &str| AuthInfo::parse(text.as_bytes()).map(|info| info.certificates);
        assert_eq!(certificates("password\n"), Ok(vec![]));
        assert_eq!(certificates("keyboard-interactive/pam"), Ok(vec![]));
        assert_eq!(certificates(&format!("publickey {KEY}\n")), Ok(vec![]));
        assert_eq!(certificates(&format!("publickey {text}\n")), Ok(vec![blob.clone()]));
        let both = format!("publickey {KEY}\npublickey {text}\npassword\npublickey {text}\n");
        assert_eq!(certificates(&both), Ok(vec![blob.clone(), blob.clone()]));
        let hostbased = format!("hostbased {text} client user \"u\", client host \"h\"\n");
        assert_eq!(certificates(&hostbased), Ok(vec![blob]));
    }

    #[test]
    fn a_certificate_of_a_version_to_come_is_not_overlooked() {
        for of_another in [
            "ssh-ed25519-cert-v00@openssh.com",
            "ssh-ed25519-cert-v02@openssh.com",
            "ssh-new-cert-v10@openssh.com",
            "ssh-ed25519-cert",
        ] {
            let mut blob = u32::try_from(of_another.len()).unwrap().to_be_bytes().to_vec();
            blob.extend_from_slice(of_another.as_bytes());
            let base64 = BASE64.encode(&blob);
            let named = format!("publickey {of_another} {base64}\n");
            assert_eq!(AuthInfo::parse(named.as_bytes()).map(|info| info.certificates), Ok(vec![blob]));
            let hidden = format!("ublickey ssh-ed25519 {base64}");
            assert!(AuthInfo::parse(hidden.as_bytes()).is_err(), "{of_another}");
        }
    }

    #[test]
    fn what_sshd_would_not_write_is_unreadable() {
        let (text, _) = certificate();
        let other = text.replace("ssh-ed25519-", "ssh-rsa-");
        let hidden = text.replace(CERT_TYPE, "ssh-ed25519");
        let many = "password\n".repeat(LINES_MAX + 1);
        for text in [
            "",
            "\n",
            "\npassword",
            "password\n\n",
            " password",
            "pass\tword",
            "publickey",
            "publickey ",
            "publickey ssh-ed25519",
            "publickey ssh-ed25519 !!",
            &format!("publickey {CERT_TYPE}"),
            &format!("publickey-{text}"),
            &format!("password {}", text.replace(' ', " x ")),
            &format!("publickey  {text}"),
            &text.replacen(&format!("{CERT_TYPE} "), "", 1),
            &format!("publickey {other}"),
            &format!("publickey {hidden}"),
            &format!("publickey {KEY} {CERT_TYPE}"),
            &format!("hostbased {CERT_TYPE} AAAA"),
            &many,
        ] {
            assert!(AuthInfo::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(AuthInfo::parse(b"password \xff").is_err());
        assert!(AuthInfo::parse(&vec![b'a'; BYTES_MAX + 1]).is_err());
    }
}
