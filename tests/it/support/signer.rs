//! A CA key that can be told to fail at its interface: the one thing in the world that lies.

use std::sync::{Condvar, Mutex};

use ed25519_dalek::{Signer as _, SigningKey};
use hallpass::signer::{Health, SignError, Signer};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;

/// What is wrong with the CA key's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It says that it failed.
    Fails,
    /// It signs, but with another key.
    OtherKey,
    /// It signs, but other bytes than it was given.
    OtherBytes,
    /// It answers with something that is no signature.
    Garbage,
    /// It does not answer until it is released.
    Hangs,
    /// It panics.
    Panics,
    /// It is known to be gone.
    Down,
}

/// An Ed25519 CA key whose backend has a fault, or not.
pub(crate) struct Faulty {
    key: SigningKey,
    public_key: PublicKey,
    purpose: Purpose,
    fault: Mutex<Fault>,
    released: Condvar,
    /// What it was asked to sign, in order.
    asked: Mutex<Vec<Vec<u8>>>,
}

impl Faulty {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self::of(seed, Purpose::User)
    }

    pub(crate) fn of(seed: [u8; 32], purpose: Purpose) -> Self {
        Self {
            purpose,
            key: SigningKey::from_bytes(&seed),
            public_key: SessionKey::generate(seed).public_key().clone(),
            fault: Mutex::new(Fault::None),
            released: Condvar::new(),
            asked: Mutex::default(),
        }
    }

    /// From now on it has this fault; who hangs is released when it is another.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.released.notify_all();
    }

    /// Its public half.
    pub(crate) fn public_key_of(&self) -> PublicKey {
        self.public_key.clone()
    }

    /// What it was asked to sign.
    pub(crate) fn asked(&self) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Signer for Faulty {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn sign(&self, tbs: &TbsCert) -> Result<Vec<u8>, SignError> {
        assert_eq!(tbs.ca(), &self.public_key, "the service asks for the key that the certificate names");
        self.asked.lock().unwrap().push(tbs.bytes().to_vec());
        let mut fault = self.fault.lock().unwrap();
        while *fault == Fault::Hangs {
            fault = self.released.wait(fault).unwrap();
        }
        let now = *fault;
        // A poisoned lock would fail later calls too.
        drop(fault);
        let signed = |key: &SigningKey, bytes: &[u8]| {
            let mut blob = Vec::new();
            for part in [b"ssh-ed25519".as_slice(), &key.sign(bytes).to_bytes()] {
                blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
                blob.extend(part);
            }
            blob
        };
        match now {
            Fault::None | Fault::Hangs => Ok(signed(&self.key, tbs.bytes())),
            Fault::Fails | Fault::Down => Err(SignError::Backend("the token was removed".to_owned())),
            Fault::OtherKey => Ok(signed(&SigningKey::from_bytes(&[0xBB; 32]), tbs.bytes())),
            Fault::OtherBytes => Ok(signed(&self.key, &[tbs.bytes(), b"x"].concat())),
            Fault::Garbage => Ok(b"\0\0\0\x0bssh-ed25519".to_vec()),
            Fault::Panics => panic!("the backend's library panics"),
        }
    }

    fn health(&self) -> Health {
        match *self.fault.lock().unwrap() {
            Fault::Down => Health::Down("the token was removed".to_owned()),
            _ => Health::Up,
        }
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({:?})", self.fault.lock().unwrap())
    }
}
