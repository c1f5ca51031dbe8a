//! Whom to trust: one pinned certificate, the system's roots, or (only to learn a pin) anybody.
//!
//! In all cases the handshake's own signature is verified, so whoever shows a certificate also holds its key.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::{Digest as _, Sha256};

/// Whom to trust.
#[derive(Clone, Copy)]
pub(super) enum Trust {
    /// Whoever shows the certificate with this SHA-256.
    Pin([u8; 32]),
    /// Whoever the system's roots vouch for.
    Roots,
    /// Anybody: to learn a pin that a person then compares.
    Anything,
}

/// What certificates were shown.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    last: Option<[u8; 32]>,
    other: Option<[u8; 32]>,
}

impl Seen {
    /// The certificate shown last.
    pub(super) fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.map(to_hex)
    }

    /// The certificate shown last, if it was not the pinned one.
    pub(super) fn other(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).other.map(to_hex)
    }

    fn note(&self, shown: [u8; 32], is_pinned: bool) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.last = Some(shown);
        seen.other = (!is_pinned).then_some(shown);
    }
}

fn to_hex(bytes: [u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(&bytes)
}

/// A pin's bytes, if it is one.
pub(super) fn parse_pin(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// The TLS set-up for this trust, and where shown certificates are noted (except under [`Trust::Roots`]).
pub(super) fn config(trust: Trust) -> Result<(ClientConfig, Arc<Seen>), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Seen::default());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let pinned = match trust {
        Trust::Roots => None,
        Trust::Pin(pin) => Some(Some(pin)),
        Trust::Anything => Some(None),
    };
    let mut config = match pinned {
        None => builder
            .with_platform_verifier()
            .map_err(|e| format!("the system's trusted certificates cannot be read: {e}"))?
            .with_no_client_auth(),
        Some(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier { pin, provider, seen: Arc::clone(&seen) }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, seen))
}

/// Compares the leaf certificate with the pin; everything else about the certificate is without meaning here.
#[derive(Debug)]
struct PinVerifier {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
    seen: Arc<Seen>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity.as_ref()).into();
        let is_pinned = self.pin.is_none_or(|pin| pin == shown);
        self.seen.note(shown, is_pinned);
        if is_pinned {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
