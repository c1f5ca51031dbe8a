//! Events about enrolled hosts: who may join, which hosts there are, what they tell of themselves, who logged in there.
//!
//! The first eight kinds are the inventory: which hosts there are is what these entries say and nothing else (`inventory`). What a
//! host tells is written as it told it: names and texts of a login come from whoever tried to log in.

use std::collections::BTreeSet;

use crate::name::{
    CaName, Digest, HostName, JoinId, NamePattern, PersonName, ReportId, RequestId, Serial, Tag, TagKey,
};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Timestamp, Window};

/// What does not fit about a login that a host reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// Its certificate is of no request in the log.
    WithoutRequest,
    /// The request is for other hosts, for another account, or for later.
    OutsideGrant,
    /// It was after the window's end, or after the request was ended.
    AfterEnd,
}

impl Flag {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WithoutRequest, Self::OutsideGrant, Self::AfterEnd];

    /// `without_request`, `outside_grant` or `after_end`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WithoutRequest => "without_request",
            Self::OutsideGrant => "outside_grant",
            Self::AfterEnd => "after_end",
        }
    }
}

/// What happened. `kind()` words are the snake case of the arms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// Hosts may join with a new token.
    JoinCreated {
        /// The token's id.
        join: JoinId,
        /// Who made it.
        by: PersonName,
        /// SHA-256 of the token.
        token: Digest,
        /// How many hosts may join.
        uses: u64,
        /// The first second it is no longer valid.
        expires: Timestamp,
        /// The names they may take.
        names: BTreeSet<NamePattern>,
        /// The tags that they all have.
        tags: BTreeSet<Tag>,
        /// Keys of further tags that a host may give itself; missing in tokens of before: any.
        may_tag: Option<BTreeSet<TagKey>>,
    },
    /// A join token was taken back.
    JoinRevoked {
        /// The token's id.
        join: JoinId,
        /// By whom.
        by: PersonName,
    },
    /// A host joined, or said anew what it is. All of it replaces what was known of the host before.
    HostEnrolled {
        /// The host.
        host: HostName,
        /// With which token. One more use of it, unless this host's last entry of this kind names the same.
        join: JoinId,
        /// Its SSH host keys, the one that is its identity first.
        keys: Vec<PublicKey>,
        /// Further names of its host certificate.
        names: BTreeSet<HostName>,
        /// Its tags.
        tags: BTreeSet<Tag>,
    },
    /// With a good token, somebody wanted a name or a key that belongs to a host.
    HostRefused {
        /// The name that was wanted.
        host: HostName,
        /// With which token.
        join: JoinId,
        /// The key that was to be its identity.
        key: Fingerprint,
        /// The host that has the name or the key.
        known: HostName,
        /// What does not fit.
        why: String,
    },
    /// A host has other tags.
    HostTagged {
        /// The host.
        host: HostName,
        /// By whom.
        by: PersonName,
        /// All of its tags now.
        tags: BTreeSet<Tag>,
    },
    /// A host is of another user CA, or has less left of those before.
    HostMoved {
        /// The host.
        host: HostName,
        /// The CA whose keys it trusts from now on. The index of the entry is the least version of its trust bundle.
        ca: CaName,
        /// Keys of other CAs that it goes on trusting, while certificates for it by them last.
        keeps: BTreeSet<Fingerprint>,
        /// Whether nothing is issued for it until it proves that it trusts a key of this CA.
        waits: bool,
    },
    /// A host is enrolled no longer.
    HostRetired {
        /// The host.
        host: HostName,
        /// By whom.
        by: PersonName,
        /// Why.
        reason: String,
    },
    /// A host took itself out.
    HostLeft {
        /// The host.
        host: HostName,
    },
    /// A certificate for a host's own key is about to be signed: exactly these bytes. Its serial is this entry's index.
    HostCertificateToBeSigned {
        /// The host.
        host: HostName,
        /// The serial.
        serial: Serial,
        /// The CA key.
        ca: Fingerprint,
        /// The window.
        window: Window,
        /// The to-be-signed bytes; base64 in JSON.
        tbs: Vec<u8>,
    },
    /// It was signed, verified and may have been handed out.
    HostCertificateSigned {
        /// The host.
        host: HostName,
        /// The serial.
        serial: Serial,
        /// SHA-256 of the finished certificate, hex.
        sha256: String,
    },
    /// A certificate for a host's login to itself is about to be signed. Its serial is this entry's index.
    CheckCertificateToBeSigned {
        /// The host.
        host: HostName,
        /// The serial.
        serial: Serial,
        /// The CA key.
        ca: Fingerprint,
        /// The window.
        window: Window,
        /// The to-be-signed bytes; base64 in JSON.
        tbs: Vec<u8>,
    },
    /// It was signed, verified and may have been handed out.
    CheckCertificateSigned {
        /// The host.
        host: HostName,
        /// The serial.
        serial: Serial,
        /// SHA-256 of the finished certificate, hex.
        sha256: String,
    },
    /// What a host tells of itself is not what it told before.
    CheckInChanged {
        /// The host.
        host: HostName,
        /// Version of hallpass there.
        program: String,
        /// Version of sshd.
        sshd: String,
        /// The operating system.
        os: String,
        /// Whether the guard is armed.
        guard: bool,
        /// Whether its clock is near ours.
        clock_ok: bool,
        /// SHA-256 of the file of CA keys that sshd reads.
        file_sha256: Digest,
        /// The CA keys in it.
        keys: BTreeSet<Fingerprint>,
        /// Those with which a login to itself has worked.
        proven: BTreeSet<Fingerprint>,
        /// Settings that weaken what hallpass promises.
        risky: BTreeSet<String>,
    },
    /// Two machines check in as this host, by turns.
    HostDoubled {
        /// The host.
        host: HostName,
    },
    /// Somebody logged in on a host with a certificate of ours.
    SessionOpened {
        /// The host.
        host: HostName,
        /// The host's own id for this.
        report: ReportId,
        /// The certificate's serial, as the host read it.
        serial: u64,
        /// Its key id, as the host read it.
        key_id: String,
        /// The CA key that signed it.
        ca: Fingerprint,
        /// As which account.
        account: String,
        /// From which address.
        from: String,
        /// When, by the host's clock.
        opened: Timestamp,
        /// The request whose certificate it was, if it is in the log.
        request: Option<RequestId>,
    },
    /// A session on a host is over.
    SessionEnded {
        /// The host.
        host: HostName,
        /// The host's own id for this.
        report: ReportId,
        /// The certificate's serial.
        serial: u64,
        /// As which account.
        account: String,
        /// When, by the host's clock.
        ended: Timestamp,
        /// Why.
        why: String,
        /// The request whose certificate it was, if it is in the log.
        request: Option<RequestId>,
    },
    /// A host let nobody in on a certificate of ours.
    SessionRefused {
        /// The host.
        host: HostName,
        /// The host's own id for this.
        report: ReportId,
        /// The certificate's serial, as the host read it.
        serial: u64,
        /// Its key id, as the host read it.
        key_id: String,
        /// The CA key that signed it.
        ca: Fingerprint,
        /// As which account.
        account: String,
        /// From which address.
        from: String,
        /// When, by the host's clock.
        refused: Timestamp,
        /// Why.
        why: String,
        /// The request whose certificate it was, if it is in the log.
        request: Option<RequestId>,
    },
    /// A login on a host does not fit what was granted.
    SessionFlagged {
        /// The host.
        host: HostName,
        /// The host's own id for the login.
        report: ReportId,
        /// The certificate's serial.
        serial: u64,
        /// What does not fit.
        flag: Flag,
        /// The same as a sentence.
        why: String,
        /// The request, if the certificate is of one.
        request: Option<RequestId>,
    },
}

impl HostEvent {
    /// The host it is about; for what was refused, the one whose name or key was wanted.
    #[must_use]
    pub const fn host(&self) -> Option<&HostName> {
        match self {
            Self::JoinCreated { .. } | Self::JoinRevoked { .. } => None,
            Self::HostRefused { known: host, .. }
            | Self::HostEnrolled { host, .. }
            | Self::HostTagged { host, .. }
            | Self::HostMoved { host, .. }
            | Self::HostRetired { host, .. }
            | Self::HostLeft { host }
            | Self::HostCertificateToBeSigned { host, .. }
            | Self::HostCertificateSigned { host, .. }
            | Self::CheckCertificateToBeSigned { host, .. }
            | Self::CheckCertificateSigned { host, .. }
            | Self::CheckInChanged { host, .. }
            | Self::HostDoubled { host }
            | Self::SessionOpened { host, .. }
            | Self::SessionEnded { host, .. }
            | Self::SessionRefused { host, .. }
            | Self::SessionFlagged { host, .. } => Some(host),
        }
    }

    /// Whether it says which hosts there are or who may join: the inventory is made of these.
    #[must_use]
    pub const fn is_of_inventory(&self) -> bool {
        match self {
            Self::JoinCreated { .. }
            | Self::JoinRevoked { .. }
            | Self::HostEnrolled { .. }
            | Self::HostRefused { .. }
            | Self::HostTagged { .. }
            | Self::HostMoved { .. }
            | Self::HostRetired { .. }
            | Self::HostLeft { .. } => true,
            Self::HostCertificateToBeSigned { .. }
            | Self::HostCertificateSigned { .. }
            | Self::CheckCertificateToBeSigned { .. }
            | Self::CheckCertificateSigned { .. }
            | Self::CheckInChanged { .. }
            | Self::HostDoubled { .. }
            | Self::SessionOpened { .. }
            | Self::SessionEnded { .. }
            | Self::SessionRefused { .. }
            | Self::SessionFlagged { .. } => false,
        }
    }

    /// The request whose certificate opened a session.
    #[must_use]
    pub const fn request(&self) -> Option<RequestId> {
        match self {
            Self::SessionOpened { request, .. }
            | Self::SessionEnded { request, .. }
            | Self::SessionRefused { request, .. }
            | Self::SessionFlagged { request, .. } => *request,
            Self::JoinCreated { .. }
            | Self::JoinRevoked { .. }
            | Self::HostEnrolled { .. }
            | Self::HostRefused { .. }
            | Self::HostTagged { .. }
            | Self::HostMoved { .. }
            | Self::HostRetired { .. }
            | Self::HostLeft { .. }
            | Self::HostCertificateToBeSigned { .. }
            | Self::HostCertificateSigned { .. }
            | Self::CheckCertificateToBeSigned { .. }
            | Self::CheckCertificateSigned { .. }
            | Self::CheckInChanged { .. }
            | Self::HostDoubled { .. } => None,
        }
    }

    /// The person who did it.
    #[must_use]
    pub const fn person(&self) -> Option<&PersonName> {
        match self {
            Self::JoinCreated { by, .. }
            | Self::JoinRevoked { by, .. }
            | Self::HostTagged { by, .. }
            | Self::HostRetired { by, .. } => Some(by),
            Self::HostEnrolled { .. }
            | Self::HostMoved { .. }
            | Self::HostRefused { .. }
            | Self::HostLeft { .. }
            | Self::HostCertificateToBeSigned { .. }
            | Self::HostCertificateSigned { .. }
            | Self::CheckCertificateToBeSigned { .. }
            | Self::CheckCertificateSigned { .. }
            | Self::CheckInChanged { .. }
            | Self::HostDoubled { .. }
            | Self::SessionOpened { .. }
            | Self::SessionEnded { .. }
            | Self::SessionRefused { .. }
            | Self::SessionFlagged { .. } => None,
        }
    }

    /// The serial of the certificate it is about.
    #[must_use]
    pub fn serial(&self) -> Option<Serial> {
        match self {
            Self::HostCertificateToBeSigned { serial, .. }
            | Self::HostCertificateSigned { serial, .. }
            | Self::CheckCertificateToBeSigned { serial, .. }
            | Self::CheckCertificateSigned { serial, .. } => Some(*serial),
            Self::SessionOpened { serial, .. }
            | Self::SessionEnded { serial, .. }
            | Self::SessionRefused { serial, .. }
            | Self::SessionFlagged { serial, .. } => Serial::new(*serial).ok(),
            Self::JoinCreated { .. }
            | Self::JoinRevoked { .. }
            | Self::HostEnrolled { .. }
            | Self::HostRefused { .. }
            | Self::HostTagged { .. }
            | Self::HostMoved { .. }
            | Self::HostRetired { .. }
            | Self::HostLeft { .. }
            | Self::CheckInChanged { .. }
            | Self::HostDoubled { .. } => None,
        }
    }
}
