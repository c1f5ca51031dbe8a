//! The ssh-agent protocol's frames (draft-miller-ssh-agent): encode requests, parse replies.
//!
//! What for: list an agent's keys and have one sign. What not: no sockets, no adding of keys; who calls does the I/O and
//! must refuse a frame longer than [`FRAME_BYTES_MAX`] before reading it.
//!
//! An agent signs anything that it is asked to (SECURITY conclusion 12), so ask only for SSHSIG-framed data
//! ([`super::sig::SshSignature::to_be_signed`]).

use super::encoding::{Reader, put_string, put_u32};
use super::{KeyAlgorithm, KeyError, PublicKey};

/// The longest frame accepted from an agent: 256 KiB, OpenSSH's own limit.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

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
    let mut reader = opened(body, IDENTITIES_ANSWER)?;
    let count = reader.u32().ok_or(KeyError::Malformed)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        // Each entry takes bytes from a frame of bounded length, so a large count ends here soon.
        let (blob, comment) = reader.string().zip(reader.string()).ok_or(KeyError::Malformed)?;
        if let Ok(key) = PublicKey::parse_blob(blob) {
            let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            keys.push((key, String::from_utf8_lossy(comment).chars().map(shown).collect()));
        }
    }
    if reader.is_at_end() { Ok(keys) } else { Err(KeyError::Malformed) }
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

    type Entry<'a> = (&'a [u8], &'a [u8]);

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
