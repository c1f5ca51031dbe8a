//! The server's certificate: loading, swapping at SIGHUP, making a self-signed one.
//!
//! Invariant: what is served is a pair that was read whole and whose key fits its certificate. A broken file at a reload changes
//! nothing.
//!
//! *Why is a self-signed certificate good until the year 4096?* Clients recognise it by its fingerprint alone, so its end would
//! only be a day on which nobody can log in. Whoever wants ageing certificates brings their own.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::TlsFiles;
use crate::durable;
use crate::secret;

/// Longest certificate file that is read: 1 MiB. Our own choice.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Longest key file. Our own choice; an RSA key of 8192 bits has 6 KiB.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// The certificate in use, and where to read it again.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the files.
    pub(super) fn load(files: &TlsFiles) -> Result<Arc<Self>, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = RwLock::new(Arc::new(load(files, &provider)?));
        Ok(Arc::new(Self { files: files.clone(), provider, current }))
    }

    /// Reads the files again; on an error the old pair stays.
    pub(super) fn reload(&self) -> Result<(), String> {
        let new = Arc::new(load(&self.files, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The server's TLS set-up: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates.
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, String> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot set up TLS: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Makes a self-signed certificate for these names and writes both files (key 0600), unless they are there; returns the pin (SHA-256 of
/// the DER certificate, hex).
///
/// The key is written first: a crash between the two leaves a key without a certificate, and the next start makes a
/// certificate for that key.
///
/// # Errors
/// In words for the operator.
pub fn ensure_certificate(files: &TlsFiles, names: &[String]) -> Result<String, String> {
    let (certificate, key) = (files.certificate.as_path(), files.key.as_path());
    if !certificate.exists() {
        let pair = if key.exists() {
            let text = read_key(key)?;
            rcgen::KeyPair::from_pem(&String::from_utf8_lossy(&text)).map_err(|e| unusable(key, &e))?
        } else {
            let pair = rcgen::KeyPair::generate().map_err(|e| format!("cannot make a TLS key: {e}"))?;
            durable::create(key, pair.serialize_pem().as_bytes(), 0o600).map_err(|e| unusable(key, &e))?;
            pair
        };
        let made = self_signed(&pair, names).map_err(|e| format!("cannot make a TLS certificate: {e}"))?;
        durable::create(certificate, made.pem().as_bytes(), 0o644).map_err(|e| unusable(certificate, &e))?;
    }
    let pair = load(files, &rustls::crypto::aws_lc_rs::default_provider())?;
    let leaf = pair.end_entity_cert().map_err(|e| unusable(certificate, &e))?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(leaf.as_ref())))
}

fn self_signed(pair: &rcgen::KeyPair, names: &[String]) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "hallpass");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.self_signed(pair)
}

/// A pair read whole: at least one certificate, one key, and the key is the certificate's.
fn load(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let (certificate, key) = (files.certificate.as_path(), files.key.as_path());
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.map_err(|e| unusable(certificate, &e))?;
    if chain.is_empty() {
        return Err(unusable(certificate, &"it holds no PEM certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read_key(key)?)
        .map_err(|_no_key| unusable(key, &"it holds no PEM private key"))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            format!("TLS key {:?} does not belong to certificate {:?}", key.display(), certificate.display())
        }
        other => unusable(certificate, &other),
    })
}

/// The private key's file, which nobody else may read.
fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    secret::read(path, KEY_BYTES_MAX).map_err(|why| unusable(path, &why))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| unusable(path, &e))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| unusable(path, &e))?;
    Ok(bytes)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot use TLS file {:?}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &tempfile::TempDir) -> TlsFiles {
        TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") }
    }

    fn names() -> Vec<String> {
        vec!["hallpass.example.com".to_owned(), "127.0.0.1".to_owned()]
    }

    #[expect(clippy::disallowed_methods, reason = "a test breaks files the way operators do")]
    fn write(path: &Path, text: &[u8]) {
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_self_signed_pair_is_made_once_and_keeps_its_pin() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        let pin = ensure_certificate(&files, &names()).unwrap();
        assert_eq!(pin.len(), 64);
        assert_eq!(ensure_certificate(&files, &[]).unwrap(), pin);
        assert_eq!(files.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_whose_certificate_was_lost_in_a_crash_gets_a_new_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        ensure_certificate(&files, &names()).unwrap();
        let key = std::fs::read(&files.key).unwrap();
        std::fs::remove_file(&files.certificate).unwrap();
        ensure_certificate(&files, &names()).unwrap();
        assert_eq!(std::fs::read(&files.key).unwrap(), key);
    }

    #[test]
    fn a_certificate_without_its_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        ensure_certificate(&files, &names()).unwrap();
        let certificate = std::fs::read(&files.certificate).unwrap();
        std::fs::remove_file(&files.key).unwrap();
        assert!(ensure_certificate(&files, &names()).unwrap_err().contains("key.pem"));
        assert_eq!(std::fs::read(&files.certificate).unwrap(), certificate);
    }

    #[test]
    fn broken_files_at_a_reload_keep_the_old_pair() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        ensure_certificate(&files, &names()).unwrap();
        let certificates = Certificates::load(&files).unwrap();
        let current = || certificates.current.read().unwrap().end_entity_cert().unwrap().clone().into_owned();
        let (before, good) = (current(), std::fs::read(&files.certificate).unwrap());
        let other = tempfile::tempdir().unwrap();
        let other = TlsFiles { certificate: other.path().join("c"), key: other.path().join("k") };
        ensure_certificate(&other, &names()).unwrap();
        let strange = std::fs::read(&other.certificate).unwrap();

        for (broken, why) in [
            (b"".as_slice(), "no PEM certificate"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cert.pem"),
            (&strange, "does not belong"),
        ] {
            write(&files.certificate, broken);
            assert!(certificates.reload().unwrap_err().contains(why), "{why}");
            assert_eq!(current(), before);
        }
        write(&files.key, b"no key");
        write(&files.certificate, &good);
        assert!(certificates.reload().unwrap_err().contains("no PEM private key"));
        assert_eq!(current(), before);

        write(&files.certificate, &strange);
        write(&files.key, &std::fs::read(&other.key).unwrap());
        certificates.reload().unwrap();
        assert_ne!(current(), before);
    }
}
