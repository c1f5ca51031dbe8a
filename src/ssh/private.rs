//! Private keys in OpenSSH's own file format: a person's login key, a client's session key, a CA key.
//!
//! What for: [`LoginKey`] signs login challenges and approvals when no agent holds the key; [`SessionKey`] is made for one
//! access and never leaves the client; `Ed25519Key` is what `signer::file` signs certificates with.
//!
//! What not: no files and no randomness here, callers bring both. Keys in other formats (PEM, PKCS#8, `PuTTY`) are
//! refused; `ssh-keygen -p -f FILE` converts them.
//!
//! Invariants: secrets are wiped when dropped and never printed; each signature is verified before it is handed out
//! (a faulty RSA signature gives the key away).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use signature::Signer as _;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{Cipher, Kdf, LineEnding};
use thiserror::Error;
use zeroize::Zeroizing;

use super::encoding::put_string;
use super::sig::{SigError, SshSignature, verify};
use super::{KeyAlgorithm, KeyError, PublicKey};

/// The longest private key file. RSA with 16384 bits, encrypted, has about 13,000 bytes.
pub const PRIVATE_KEY_BYTES_MAX: usize = 64 * 1024;

/// bcrypt rounds for the keys we encrypt. `ssh-keygen` has 16, later 24; a CA key is opened once per start.
const KDF_ROUNDS: u32 = 32;

/// The most bcrypt rounds that are tried on a given key: some ten seconds.
const KDF_ROUNDS_MAX: u32 = 1024;

/// Why a private key can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrivateKeyError {
    /// Not an OpenSSH private key.
    #[error("not a private key in OpenSSH's format; `ssh-keygen -p -f FILE` converts others")]
    Malformed,
    /// It is encrypted.
    #[error("the private key needs a passphrase")]
    NeedsPassphrase,
    /// The passphrase doesn't open it.
    #[error("the passphrase does not open the private key")]
    WrongPassphrase,
    /// It says to try the passphrase more often than we are willing to.
    #[error("the private key asks for more than {KDF_ROUNDS_MAX} rounds of bcrypt")]
    TooManyRounds,
    /// Its secret is in a FIDO security key.
    #[error("the private key lives in a security key; load it into ssh-agent (`ssh-add FILE`) and use that")]
    SecurityKey,
    /// Its public half is not one that hallpass accepts.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not Ed25519, where that is required.
    #[error("this is not an ed25519 key but {0}")]
    NotEd25519(&'static str),
    /// Its own signature does not verify.
    #[error("the private key made a wrong signature, do not use it any more: {0}")]
    Signature(#[from] SigError),
}

/// A person's private key from a file, for logging in and for signing approvals.
pub struct LoginKey {
    private_key: ssh_key::PrivateKey,
    public_key: PublicKey,
}

/// A private key made for one access; it exists on the client only.
pub struct SessionKey(Ed25519Key);

/// An Ed25519 private key that signs what it is given.
pub(crate) struct Ed25519Key {
    signing: ed25519_dalek::SigningKey,
    public_key: PublicKey,
}

/// How a private key is to be encrypted. Salt and check number must be random.
pub(crate) struct Protection<'a> {
    pub(crate) passphrase: &'a SecretString,
    pub(crate) salt: [u8; 16],
    pub(crate) check_number: u32,
}

impl LoginKey {
    /// Parses the content of a private key file. The passphrase is only looked at if the key is encrypted.
    ///
    /// # Errors
    /// [`PrivateKeyError`] with the reason.
    pub fn parse(pem: &[u8], passphrase: Option<&SecretString>) -> Result<Self, PrivateKeyError> {
        let private_key = open(pem, passphrase)?;
        let blob = private_key.public_key().to_bytes().ok().ok_or(PrivateKeyError::Malformed)?;
        Ok(Self { public_key: PublicKey::parse_blob(&blob)?, private_key })
    }

    /// Its public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The armoured SSHSIG over `message` under `namespace`.
    ///
    /// # Errors
    /// [`PrivateKeyError::Signature`] when the two halves of the key do not belong together.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, PrivateKeyError> {
        let data = SshSignature::to_be_signed(namespace, message);
        let signature = self.private_key.try_sign(&data).ok().ok_or(SigError::Wrong)?;
        let blob = Vec::try_from(signature).ok().ok_or(SigError::Malformed)?;
        verify(&self.public_key, &blob, &data)?;
        Ok(SshSignature::armour(&self.public_key, namespace, &blob)?)
    }
}

impl SessionKey {
    /// The Ed25519 key of these 32 random bytes. The caller's copy is the caller's to wipe.
    #[must_use]
    pub fn generate(seed: [u8; 32]) -> Self {
        Self(Ed25519Key::from_seed(&Zeroizing::new(seed)))
    }

    /// The key in the content of a file that [`Self::to_openssh`] made.
    ///
    /// # Errors
    /// [`PrivateKeyError`] with the reason.
    pub fn parse(pem: &[u8]) -> Result<Self, PrivateKeyError> {
        Ed25519Key::parse(pem, None).map(Self)
    }

    /// Its public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    /// The 32 bytes that it is made from, for an agent that is to hold it.
    pub(super) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.signing.to_bytes())
    }

    /// The 32 bytes of its public half.
    pub(super) fn public_ed25519(&self) -> [u8; 32] {
        self.0.signing.verifying_key().to_bytes()
    }

    /// The unencrypted private key file, for a file that nobody else can read.
    ///
    /// # Errors
    /// [`PrivateKeyError::Malformed`] for a comment that does not fit into such a file.
    pub fn to_openssh(&self, comment: &str) -> Result<Zeroizing<String>, PrivateKeyError> {
        self.0.to_openssh(comment, None)
    }
}

impl Ed25519Key {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        let signing = ed25519_dalek::SigningKey::from_bytes(seed);
        let mut blob = Vec::new();
        put_string(&mut blob, KeyAlgorithm::Ed25519.name().as_bytes());
        put_string(&mut blob, signing.verifying_key().as_bytes());
        Self { signing, public_key: PublicKey { algorithm: KeyAlgorithm::Ed25519, blob } }
    }

    /// Parses the content of a private key file.
    pub(crate) fn parse(pem: &[u8], passphrase: Option<&SecretString>) -> Result<Self, PrivateKeyError> {
        let private_key = open(pem, passphrase)?;
        if let Some(pair) = private_key.key_data().ed25519() {
            return Ok(Self::from_seed(pair.private.as_ref()));
        }
        let blob = private_key.public_key().to_bytes().ok().ok_or(PrivateKeyError::Malformed)?;
        Err(PrivateKeyError::NotEd25519(PublicKey::parse_blob(&blob)?.algorithm().name()))
    }

    pub(crate) const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The signature blob over `data`.
    pub(crate) fn sign(&self, data: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, KeyAlgorithm::Ed25519.name().as_bytes());
        put_string(&mut blob, &self.signing.sign(data).to_bytes());
        blob
    }

    /// The private key file.
    pub(crate) fn to_openssh(
        &self,
        comment: &str,
        protection: Option<&Protection<'_>>,
    ) -> Result<Zeroizing<String>, PrivateKeyError> {
        let malformed = |_: ssh_key::Error| PrivateKeyError::Malformed;
        let pair = Ed25519Keypair::from_seed(&Zeroizing::new(self.signing.to_bytes()));
        let mut key = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), comment).map_err(malformed)?;
        if let Some(Protection { passphrase, salt, check_number }) = protection {
            let kdf = Kdf::Bcrypt { salt: salt.to_vec(), rounds: KDF_ROUNDS };
            let passphrase = passphrase.expose_secret().as_bytes();
            key = key.encrypt_with(Cipher::Aes256Ctr, kdf, *check_number, passphrase).map_err(malformed)?;
        }
        key.to_openssh(LineEnding::LF).map_err(malformed)
    }
}

/// Whether the private key file asks for a passphrase.
///
/// # Errors
/// [`PrivateKeyError::Malformed`].
pub fn is_encrypted(pem: &[u8]) -> Result<bool, PrivateKeyError> {
    Ok(read(pem)?.is_encrypted())
}

fn read(pem: &[u8]) -> Result<ssh_key::PrivateKey, PrivateKeyError> {
    if pem.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(PrivateKeyError::Malformed);
    }
    ssh_key::PrivateKey::from_openssh(pem).ok().ok_or(PrivateKeyError::Malformed)
}

fn open(pem: &[u8], passphrase: Option<&SecretString>) -> Result<ssh_key::PrivateKey, PrivateKeyError> {
    let key = read(pem)?;
    if matches!(key.algorithm(), ssh_key::Algorithm::SkEd25519 | ssh_key::Algorithm::SkEcdsaSha2NistP256) {
        return Err(PrivateKeyError::SecurityKey);
    }
    if !key.is_encrypted() {
        return Ok(key);
    }
    if matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > KDF_ROUNDS_MAX) {
        return Err(PrivateKeyError::TooManyRounds);
    }
    let passphrase = passphrase.ok_or(PrivateKeyError::NeedsPassphrase)?;
    key.decrypt(passphrase.expose_secret()).ok().ok_or(PrivateKeyError::WrongPassphrase)
}

impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginKey({:?})", self.public_key)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({:?})", self.0.public_key)
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key({:?})", self.public_key)
    }
}
