//! An Ed25519 CA key in an OpenSSH private key file, optionally under a passphrase.
//!
//! What for: the CA key of a small installation, and of the demo. The file is read once, at start.
//!
//! What not: RSA and ECDSA CA keys come with the agent and PKCS#11 backends: software RSA leaks through timing
//! (RUSTSEC-2023-0071, no fix), and there is no reason to start with ECDSA in a file.
//!
//! Invariants: nobody but us or root can read or change the key or its passphrase ([`secret`]). The key is wiped when the
//! signer goes. It signs a [`TbsCert`] that names it, and nothing else that anybody outside this file can choose.

use std::path::{Path, PathBuf};

use rand::TryRng as _;
use rand::rngs::SysRng;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{SignError, Signer, refuse};
use crate::durable;
use crate::secret;
use crate::ssh::PublicKey;
use crate::ssh::cert::{Purpose, TbsCert};
use crate::ssh::private::{self, Ed25519Key, PRIVATE_KEY_BYTES_MAX, PrivateKeyError, Protection};
use crate::ssh::sig::{self, CA_CHECK_NAMESPACE, SshSignature};

/// Where the key is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The private key file: owned by us or root, no access for group or others.
    pub path: PathBuf,
    /// A file holding the passphrase on one line, under the same rules.
    pub passphrase_path: Option<PathBuf>,
}

/// The opened key.
pub struct FileSigner {
    key: Ed25519Key,
    purpose: Purpose,
}

impl FileSigner {
    /// Opens and checks the key: owner, mode, type, passphrase, and a test signature.
    ///
    /// # Errors
    /// [`SignError::Open`].
    pub fn open(settings: &Settings, purpose: Purpose) -> Result<Self, SignError> {
        let path = &settings.path;
        let pem = secret::read(path, PRIVATE_KEY_BYTES_MAX).map_err(|why| refuse(path, why))?;
        let read = |path: &PathBuf| secret::passphrase(path).map_err(|why| refuse(path, why));
        let passphrase = settings.passphrase_path.as_ref().map(read).transpose()?;
        // Somebody believes this key to be encrypted; tell them before a backup of it gets out.
        if passphrase.is_some() && private::is_encrypted(&pem) == Ok(false) {
            let shown = path.display();
            let why =
                format!("a passphrase is configured but the key is not encrypted: run `ssh-keygen -p -f {shown}`");
            return Err(refuse(path, why));
        }
        let key = Ed25519Key::parse(&pem, passphrase.as_ref()).map_err(|error| refuse(path, explain(&error)))?;
        let probe = SshSignature::to_be_signed(CA_CHECK_NAMESPACE, b"is this key whole?");
        sig::verify(key.public_key(), &key.sign(&probe), &probe).map_err(|error| refuse(path, error.to_string()))?;
        Ok(Self { key, purpose })
    }

    /// Makes a new Ed25519 key file (mode 0600, refuses to overwrite); the returned key's line is for the public half.
    ///
    /// # Errors
    /// [`SignError::Open`] when the file exists or can't be written.
    pub fn create(path: &Path, comment: &str, passphrase: Option<&SecretString>) -> Result<PublicKey, SignError> {
        let mut seed = Zeroizing::new([0; 32]);
        let mut salt = [0; 16];
        let mut check_number = [0; 4];
        for bytes in [&mut seed[..], &mut salt, &mut check_number] {
            SysRng.try_fill_bytes(bytes).map_err(|error| refuse(path, format!("no randomness: {error}")))?;
        }
        let key = Ed25519Key::from_seed(&seed);
        let check_number = u32::from_be_bytes(check_number);
        let protection = passphrase.map(|passphrase| Protection { passphrase, salt, check_number });
        let pem = key.to_openssh(comment, protection.as_ref()).map_err(|error| refuse(path, error.to_string()))?;
        durable::create(path, pem.as_bytes(), 0o600).map_err(|error| refuse(path, error.to_string()))?;
        Ok(key.public_key().clone())
    }
}

impl Signer for FileSigner {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn sign(&self, tbs: &TbsCert) -> Result<Vec<u8>, SignError> {
        super::check(self, tbs)?;
        Ok(self.key.sign(tbs.bytes()))
    }

    fn is_quick(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for FileSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSigner({:?})", self.key.public_key())
    }
}

fn explain(error: &PrivateKeyError) -> String {
    match error {
        PrivateKeyError::NeedsPassphrase => {
            "it is encrypted: put the passphrase into a file with mode 0600 and name that as its passphrase file"
                .to_owned()
        }
        PrivateKeyError::NotEd25519(_) | PrivateKeyError::SecurityKey | PrivateKeyError::Key(_) => format!(
            "{error}; a CA key in a file is ed25519 (`ssh-keygen -t ed25519`), RSA and ECDSA CA keys come with agent and \
             PKCS#11 backends"
        ),
        PrivateKeyError::Malformed
        | PrivateKeyError::WrongPassphrase
        | PrivateKeyError::TooManyRounds
        | PrivateKeyError::Signature(_) => error.to_string(),
    }
}
