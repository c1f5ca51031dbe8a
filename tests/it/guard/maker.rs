//! Certificates for hosts, made by the library's own signer without a service.

use std::path::Path;

use hallpass::name::{PersonName, Principal, RequestId, Serial};
use hallpass::signer::Signer as _;
use hallpass::signer::file::{self, FileSigner};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{Certificate, Extension, Fields, KeyId, Options, Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::time::Window;

/// A CA whose key is the file `ca` in a folder.
pub(crate) struct Maker {
    ca: FileSigner,
}

impl Maker {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("ca");
        FileSigner::create(&path, "test CA", None).unwrap();
        Self { ca: FileSigner::open(&file::Settings { path, passphrase_path: None }, Purpose::User).unwrap() }
    }

    pub(crate) fn key(&self) -> &PublicKey {
        self.ca.public_key()
    }

    /// The subject's key of a serial, always the same.
    pub(crate) fn subject(serial: u64) -> SessionKey {
        SessionKey::generate([u8::try_from(serial % 200).unwrap(); 32])
    }

    /// A certificate that permits everything.
    pub(crate) fn certificate(&self, serial: u64, window: Window, principals: &[&str]) -> Certificate {
        let id = RequestId::from_random([0, 0, 0, 0, u8::try_from(serial % 200).unwrap()]);
        let fields = Fields {
            serial: Serial::new(serial).unwrap(),
            key_id: KeyId::new(&id, &PersonName::parse("alice@example.com").unwrap()).unwrap(),
            principals: principals.iter().map(|p| Principal::parse(p).unwrap()).collect(),
            window,
            options: Options { permits: Extension::ALL.into(), ..Options::default() },
        };
        let tbs = TbsCert::new(fields, Self::subject(serial).public_key(), self.key(), [7; 32]).unwrap();
        let signature = self.ca.sign(&tbs).unwrap();
        Certificate::assemble(tbs, &signature).unwrap()
    }
}
