//! The ssh-agent protocol's frames (draft-miller-ssh-agent): encode requests, parse replies.
//!
//! What for: list an agent's keys, have one sign, lend it a session key with its certificate. What not: no sockets; who calls does the
//! I/O and must refuse a frame longer than [`FRAME_BYTES_MAX`] before reading it. A bare key is never added: it would be offered before
//! its certificate and use up an attempt (OPENSSH L9).
//!
//! An agent signs anything that it is asked to (SECURITY conclusion 12), so ask only for SSHSIG-framed data
//! ([`super::sig::SshSignature::to_be_signed`]).

use zeroize::Zeroizing;

use super::cert::Certificate;
use super::encoding::{Reader, put_string, put_u32};
use super::private::SessionKey;
use super::{KeyAlgorithm, KeyError, PublicKey};

/// The longest frame accepted from an agent: 256 KiB, OpenSSH's own limit.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;

/// The constraint that ends an identity after so many seconds.
const CONSTRAIN_LIFETIME: u8 = 1;

/// Asks for `rsa-sha2-512`; without it an agent answers with SHA-1.
const FLAG_RSA_SHA2_512: u32 = 4;

/// The frame (length included) that asks for the list of identities.
#[must_use]
pub fn request_identities() -> Vec<u8> {
    frame(&[REQUEST_IDENTITIES])
}

/// The frame (length included) that asks for a signature over `data` by `key`.
/// RSA keys get the flag for `rsa-sha2-512`.
#[must_use]
pub fn sign_request(key: &PublicKey, data: &[u8]) -> Vec<u8> {
    let mut body = vec![SIGN_REQUEST];
    put_string(&mut body, key.blob());
    put_string(&mut body, data);
    put_u32(&mut body, if key.algorithm() == KeyAlgorithm::Rsa { FLAG_RSA_SHA2_512 } else { 0 });
    frame(&body)
}

/// The frame (length included) that lends an agent a session key, as its certificate alone, for so many seconds.
#[must_use]
pub fn add_certificate(key: &SessionKey, certificate: &Certificate, comment: &str, seconds: u32) -> Zeroizing<Vec<u8>> {
    let public = key.public_ed25519();
    let mut private = Zeroizing::new(Vec::with_capacity(64));
    private.extend_from_slice(key.seed().as_slice());
    private.extend_from_slice(&public);
    // All at once, so that growing leaves no copy of the key behind.
    let length = certificate.blob().len().saturating_add(comment.len()).saturating_add(256);
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    body.push(ADD_ID_CONSTRAINED);
    put_string(&mut body, b"ssh-ed25519-cert-v01@openssh.com");
    put_string(&mut body, certificate.blob());
    put_string(&mut body, &public);
    put_string(&mut body, &private);
    put_string(&mut body, comment.as_bytes());
    body.push(CONSTRAIN_LIFETIME);
    put_u32(&mut body, seconds);
    let mut framed = Zeroizing::new(Vec::with_capacity(length.saturating_add(4)));
    put_string(&mut framed, &body);
    framed
}

/// The frame (length included) that has an agent forget a certificate.
#[must_use]
pub fn remove_certificate(certificate: &Certificate) -> Vec<u8> {
    let mut body = vec![REMOVE_IDENTITY];
    put_string(&mut body, certificate.blob());
    frame(&body)
}

/// Whether an answer says that it was done. Anything else is a no: agents differ in how they refuse.
#[must_use]
pub fn is_done(body: &[u8]) -> bool {
    body == [SUCCESS]
}

/// Whether an identities answer (frame body without its length) lists this certificate.
///
/// # Errors
/// [`KeyError::Malformed`] when it is not such an answer.
pub fn lists(body: &[u8], certificate: &Certificate) -> Result<bool, KeyError> {
    Ok(entries(body)?.iter().any(|(blob, _)| *blob == certificate.blob()))
}

/// A frame is a `string`.
fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_string(&mut frame, body);
    frame
}

/// A key that an agent holds, with its comment. Control characters in it are replaced, so it can be shown.
pub type Identity = (PublicKey, String);

/// The keys in an identities answer (frame body without its length).
///
/// Entries of kinds we don't accept, certificates among them, are skipped.
///
/// # Errors
/// [`KeyError::Malformed`] when it is not such an answer.
pub fn parse_identities(body: &[u8]) -> Result<Vec<Identity>, KeyError> {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let known = |(blob, comment): Entry<'_>| {
        let key = PublicKey::parse_blob(blob).ok()?;
        Some((key, String::from_utf8_lossy(comment).chars().map(shown).collect()))
    };
    Ok(entries(body)?.into_iter().filter_map(known).collect())
}

/// A key blob and its comment.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// The entries of an identities answer.
fn entries(body: &[u8]) -> Result<Vec<Entry<'_>>, KeyError> {
    let mut reader = opened(body, IDENTITIES_ANSWER)?;
    let count = reader.u32().ok_or(KeyError::Malformed)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        // Each entry takes bytes from a frame of bounded length, so a large count ends here soon.
        entries.push(reader.string().zip(reader.string()).ok_or(KeyError::Malformed)?);
    }
    if reader.is_at_end() { Ok(entries) } else { Err(KeyError::Malformed) }
}

/// The signature blob in a sign response; `None` when the agent said failure.
///
/// # Errors
/// [`KeyError::Malformed`] when it is not such an answer.
pub fn parse_signature(body: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
    if body == [FAILURE] {
        return Ok(None);
    }
    let mut reader = opened(body, SIGN_RESPONSE)?;
    let blob = reader.string().ok_or(KeyError::Malformed)?;
    if reader.is_at_end() { Ok(Some(blob.to_vec())) } else { Err(KeyError::Malformed) }
}

/// A reader behind the message's type, if it is `kind` and not too long.
fn opened(body: &[u8], kind: u8) -> Result<Reader<'_>, KeyError> {
    if body.len() > FRAME_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    let mut reader = Reader::new(body);
    if reader.byte() == Some(kind) { Ok(reader) } else { Err(KeyError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn answer(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut body = vec![IDENTITIES_ANSWER];
        put_u32(&mut body, u32::try_from(entries.len()).unwrap());
        for (blob, comment) in entries {
            put_string(&mut body, blob);
            put_string(&mut body, comment);
        }
        body
    }

    #[test]
    fn keys_of_unknown_kinds_are_skipped_and_comments_are_safe_to_show() {
        let key = PublicKey::parse_openssh(KEY).unwrap();
        let keys = parse_identities(&answer(&[(b"\0\0\0\x07ssh-dss", b"old"), (key.blob(), b"a\x1b[2Jb")])).unwrap();
        assert_eq!(keys, [(key, "a\u{fffd}[2Jb".to_owned())]);
    }

    #[test]
    fn answers_of_another_shape_are_refused() {
        let good = answer(&[(b"x", b"y")]);
        assert_eq!(parse_identities(&good), Ok(Vec::new()));
        let trailing: Vec<u8> = good.iter().copied().chain([0]).collect();
        for body in [&good[..good.len() - 1], &trailing, &[], &[FAILURE], &[IDENTITIES_ANSWER, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(parse_identities(body), Err(KeyError::Malformed), "{body:?}");
        }
        assert_eq!(parse_identities(&vec![IDENTITIES_ANSWER; FRAME_BYTES_MAX + 1]), Err(KeyError::TooLong));
    }

    #[test]
    fn a_failure_is_no_signature_and_no_error() {
        assert_eq!(parse_signature(&[FAILURE]), Ok(None));
        assert_eq!(parse_signature(&[SIGN_RESPONSE, 0, 0, 0, 1, 9]), Ok(Some(vec![9])));
        assert_eq!(parse_signature(&[SIGN_RESPONSE, 0, 0, 0, 1]), Err(KeyError::Malformed));
        assert_eq!(parse_signature(&[SIGN_RESPONSE, 0, 0, 0, 0, 9]), Err(KeyError::Malformed));
    }

    #[test]
    fn an_ed25519_sign_request_has_no_flags() {
        let key = PublicKey::parse_openssh(KEY).unwrap();
        let request = sign_request(&key, b"data");
        let mut reader = Reader::new(&request);
        let mut body = Reader::new(reader.string().unwrap());
        assert!(reader.is_at_end());
        assert_eq!(body.byte(), Some(SIGN_REQUEST));
        assert_eq!((body.string(), body.string(), body.u32()), (Some(key.blob()), Some(&b"data"[..]), Some(0)));
        assert!(body.is_at_end());
    }
}
