//! TLS as it was, and a certificate that is trusted for another name.

use std::process::{Command, Stdio};

use hallpass::ssh::private::SessionKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::site::Site;
use crate::support::{login_seed, person};

/// A client's first words, by hand: it speaks this version (0x0301 is TLS 1.0) and none above.
fn hello(version: u16) -> Vec<u8> {
    let counted = |bytes: Vec<u8>| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    let extension = |kind: u16, body: Vec<u8>| [&kind.to_be_bytes()[..], &counted(body)].concat();
    let extensions = [
        // Groups, point formats, signatures, extended master secret.
        extension(10, counted(vec![0, 0x1d, 0, 0x17])),
        extension(11, vec![1, 0]),
        extension(13, counted(vec![4, 3, 8, 4, 4, 1, 2, 3])),
        extension(23, Vec::new()),
    ];
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    // No session. ECDHE with ECDSA: AES-128 with GCM (for 1.2), with CBC and SHA-1 (for what was before).
    body.push(0);
    body.extend(counted(vec![0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x0a]));
    body.extend([1, 0]);
    body.extend(counted(extensions.concat()));
    let mut handshake = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    handshake[0] = 1;
    handshake.extend(body);
    [&[0x16, 3, 1][..], &counted(handshake)].concat()
}

#[tokio::test]
async fn tls_before_1_2_is_refused_as_a_protocol_version() {
    let site = Site::new().await;
    for version in [0x0300_u16, 0x0301, 0x0302, 0x0303] {
        let mut stream = TcpStream::connect(site.settings.listen).await.unwrap();
        stream.write_all(&hello(version)).await.unwrap();
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.unwrap();
        if version == 0x0303 {
            // The same words are good for 1.2: a handshake record, and its version.
            assert_eq!(head[..3], [0x16, 3, 3], "{version:x}");
        } else {
            // An alert, fatal, protocol_version.
            assert_eq!((head[0], &head[5..]), (0x15, &[2, 70][..]), "{version:x}: {head:?}");
        }
    }
    site.client(None).text("/healthz").await.unwrap();
}

/// A new authority's certificate, and one of this name by it, with its key.
fn vouched_for(name: &str) -> [String; 3] {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &authority).unwrap();
    [authority.pem(), made.pem(), key.serialize_pem()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refuses_a_trusted_certificate_of_another_name() {
    let site = Site::new().await;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let login_key = SessionKey::generate(login_seed("alice")).to_openssh("alice").unwrap();
    hallpass::durable::create(&place("login_key"), login_key.as_bytes(), 0o600).unwrap();
    let log_in = |url: String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.args(["--no-input", "--server", &url, "login", "--person", person("alice").as_str(), "--key"]);
        command.arg(place("login_key")).env_clear().env("HOME", folder.path()).stdin(Stdio::null());
        command.env("SSL_CERT_FILE", place("authority.pem")).env("SSL_CERT_DIR", "/nonexistent");
        command
    };
    for (name, is_its_own) in [("other.example", false), ("127.0.0.2", false), ("127.0.0.1", true)] {
        let [authority, certificate, key] = vouched_for(name);
        std::fs::write(place("authority.pem"), authority).unwrap();
        std::fs::write(&site.settings.tls.certificate, certificate).unwrap();
        std::fs::write(&site.settings.tls.key, key).unwrap();
        site.reload().await;
        let mut command = log_in(site.url());
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        if is_its_own {
            assert_eq!(ended.status.code(), Some(0), "{said}");
        } else {
            assert_eq!(ended.status.code(), Some(2), "{name}: {said}");
            assert!(said.contains("a certificate that nobody vouches for"), "{name}: {said}");
            assert!(!place(".config").exists() && !place(".local").exists(), "{name}: something was kept");
        }
    }
}
