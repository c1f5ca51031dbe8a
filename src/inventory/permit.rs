//! From an enrolled host to certificates for it: the two other places where what a CA key signs comes from.
//!
//! What for: a host certificate names the host's own key and at most its own names; a check certificate lets the host log in to itself,
//! for a moment and to do nothing. Both come from a [`HostPermit`], which only the functions here make of a host of the inventory.
//!
//! What not: no signing and no serial; as with `access::Permit`, the store calls [`HostPermit::to_be_signed`] in the transaction that
//! makes the log entry whose index is the serial.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use thiserror::Error;

use super::EnrolledHost;
use crate::audit::host_event::HostEvent;
use crate::name::{HostName, Principal, Serial};
use crate::ssh::PublicKey;
use crate::ssh::cert::{CertError, Fields, ForceCommand, KeyId, Options, TbsCert};
use crate::ssh::host::{CHECK_COMMAND, check_principal};
use crate::time::{Lifetime, Timestamp, Window};

/// How long a host certificate lasts: seven days (design), and it is renewed at half of that.
pub const HOST_LIFETIME: Lifetime = Lifetime::minutes(7 * 24 * 60);

/// How long a check certificate lasts: two minutes (design).
pub const CHECK_LIFETIME: Lifetime = Lifetime::minutes(2);

/// How much earlier both begin, for slow clocks: a minute for the host's own, an hour for those of clients. Our own choice.
const CHECK_BACKDATE: Lifetime = Lifetime::minutes(1);
const HOST_BACKDATE: Lifetime = Lifetime::minutes(60);

/// Why a host is not certified.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertifyRefusal {
    /// It is enrolled no longer.
    #[error("the host is retired")]
    Retired,
    /// Not one of its keys.
    #[error("the key is not one that the host enrolled with; enrol again to change keys")]
    OtherKey,
    /// A key that is the host's own, where a fresh one is due.
    #[error("a check certificate is for a fresh key, not for a host key")]
    HostKey,
    /// The clock stands at the end of time, or a name is none.
    #[error("the service's clock is wrong")]
    Clock,
}

/// Unforgeable: this host may be certified now, on these terms. Only the functions of this file make one.
#[derive(Clone, Debug)]
pub struct HostPermit {
    host: HostName,
    key_id: KeyId,
    principals: BTreeSet<Principal>,
    window: Window,
    options: Options,
    subject: PublicKey,
}

fn window(now: Timestamp, backdate: Lifetime, lifetime: Lifetime) -> Result<Window, CertifyRefusal> {
    let end = now.plus(lifetime).map_err(|_late| CertifyRefusal::Clock)?;
    let start = now.minus(backdate).map_err(|_early| CertifyRefusal::Clock)?;
    Window::new(start, end).map_err(|_empty| CertifyRefusal::Clock)
}

/// May this key of the host have a certificate with the host's names?
///
/// # Errors
/// [`CertifyRefusal`].
pub fn certify_host(host: &EnrolledHost, key: &PublicKey, now: Timestamp) -> Result<HostPermit, CertifyRefusal> {
    if !host.is_active {
        return Err(CertifyRefusal::Retired);
    }
    let subject = host.keys.iter().find(|known| *known == key).ok_or(CertifyRefusal::OtherKey)?;
    Ok(HostPermit {
        host: host.name.clone(),
        key_id: KeyId::of_host(&host.name).map_err(|_long| CertifyRefusal::Clock)?,
        principals: principals_of(host),
        window: window(now, HOST_BACKDATE, HOST_LIFETIME)?,
        options: Options::default(),
        subject: subject.clone(),
    })
}

/// The principals of a host's certificate: all of its names.
#[must_use]
pub fn principals_of(host: &EnrolledHost) -> BTreeSet<Principal> {
    host.names.iter().chain([&host.name]).map(Principal::of_host).collect()
}

/// May this fresh key log the host in to itself?
///
/// # Errors
/// [`CertifyRefusal`].
pub fn certify_check(host: &EnrolledHost, key: &PublicKey, now: Timestamp) -> Result<HostPermit, CertifyRefusal> {
    if !host.is_active {
        return Err(CertifyRefusal::Retired);
    }
    if host.keys.contains(key) {
        return Err(CertifyRefusal::HostKey);
    }
    let command = ForceCommand::parse(CHECK_COMMAND).map_err(|_never| CertifyRefusal::Clock)?;
    Ok(HostPermit {
        host: host.name.clone(),
        key_id: KeyId::of_check(&host.name).map_err(|_long| CertifyRefusal::Clock)?,
        principals: BTreeSet::from([check_principal(&host.name).map_err(|_never| CertifyRefusal::Clock)?]),
        window: window(now, CHECK_BACKDATE, CHECK_LIFETIME)?,
        options: Options { force_command: Some(command), ..Options::default() },
        subject: key.clone(),
    })
}

impl HostPermit {
    /// Whether it is for a login of the host to itself, and not for one of its host keys.
    #[must_use]
    pub fn is_check(&self) -> bool {
        !self.options.permits.is_empty() || self.options.force_command.is_some()
    }

    /// The to-be-signed certificate with this serial, and the log entry that holds exactly these bytes. Called by the store inside the
    /// transaction that assigns the serial (the index of the log entry).
    ///
    /// # Errors
    /// The linter's refusal; then nothing is written and nothing is issued.
    pub fn to_be_signed(
        &self,
        serial: Serial,
        ca: &PublicKey,
        nonce: [u8; 32],
    ) -> Result<(HostEvent, TbsCert), CertError> {
        let is_check = self.is_check();
        let Self { host, key_id, principals, window, options, subject } = self.clone();
        let fields = Fields { serial, key_id, principals, window, options };
        let tbs = TbsCert::new(fields, &subject, ca, nonce)?;
        let (ca, bytes) = (ca.fingerprint(), tbs.bytes().to_vec());
        let event = if is_check {
            HostEvent::CheckCertificateToBeSigned { host, serial, ca, window, tbs: bytes }
        } else {
            HostEvent::HostCertificateToBeSigned { host, serial, ca, window, tbs: bytes }
        };
        Ok((event, tbs))
    }
}
