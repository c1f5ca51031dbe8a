//! A second reader of finished certificates: the ssh-key crate, which shares no code with our encoder.
//!
//! What for: a fault in our encoder (a field one level short, options in the wrong section: CVE-2023-38325's class) must
//! not reach a host. What not: the crate's verdict on validity is not asked.

use ssh_key::certificate::{CertType, OptionsMap};

use super::{CertError, Purpose, TbsCert};

/// Whether the crate reads from `blob` exactly what `tbs` says.
pub(super) fn compare(tbs: &TbsCert, blob: &[u8]) -> Result<(), CertError> {
    let differs = |what: &'static str| CertError::Malformed(what);
    let read = ssh_key::Certificate::from_bytes(blob).ok().ok_or(differs("an independent reader refuses it"))?;
    let fields = &tbs.fields;
    let key_bytes = |key: &ssh_key::public::KeyData| ssh_key::PublicKey::from(key.clone()).to_bytes().ok();
    let options = |pairs: Vec<(&'static str, Option<String>)>| -> OptionsMap {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.unwrap_or_default())).collect()
    };
    let principals = fields.principals.iter().map(super::Principal::as_str);
    let kind = match tbs.purpose() {
        Purpose::User => CertType::User,
        Purpose::Host => CertType::Host,
    };
    let same = [
        read.cert_type() == kind,
        read.serial() == fields.serial.number(),
        read.key_id() == fields.key_id.as_str(),
        read.valid_principals().iter().map(String::as_str).eq(principals),
        read.valid_after() == fields.window.start().unix(),
        read.valid_before() == fields.window.end().unix(),
        *read.critical_options() == options(fields.options.critical()),
        *read.extensions() == options(fields.options.extensions()),
        key_bytes(read.public_key()).as_deref() == Some(tbs.subject.blob()),
        key_bytes(read.signature_key()).as_deref() == Some(tbs.ca.blob()),
        read.nonce().len() == 32,
        read.comment().is_empty(),
        read.to_bytes().as_deref() == Ok(blob),
    ];
    if same.iter().all(|same| *same) { Ok(()) } else { Err(differs("an independent reader sees something else in it")) }
}
