//! What each kind of CA key costs: certificates per second, beside what its backend can sign at most.
//!
//! *raw*: the backend asked directly, one signature after the other (an agent over its socket, a token through its library, a key in memory).
//! *signer*: the same through the service's signer, which keeps deadlines and verifies what comes back. *certificate*: build, lint, sign, verify
//! and read back, as each issuance does. Slices take turns. The agent is OpenSSH's, the token `SoftHSM`'s, made by their own tools.
//!
//! Run: `cargo bench --bench signers`; a smoke run in seconds: `cargo bench --bench signers -- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

#[path = "support/fields.rs"]
mod fields;
mod support;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use ed25519_dalek::{Signer as _, SigningKey};
use hallpass::signer::{Settings, agent, file, open, pkcs11};
use hallpass::ssh::agent::{parse_signature, sign_request};
use hallpass::ssh::cert::{Certificate, Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::{KeyAlgorithm, PublicKey, token};

const PASSES: usize = 51;
const PASSES_SHORT: usize = 3;

const PATIENCE: Duration = Duration::from_secs(5);

const LIBRARIES: [&str; 2] = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];

/// Where `SoftHSM` looks for its configuration.
const CONF: &str = "SOFTHSM2_CONF";

fn main() {
    let Some(conf) = std::env::var_os(CONF) else {
        // A process can't change its own environment safely; the one that runs in its place has it from the start.
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("softhsm.conf");
        let status =
            Command::new(std::env::current_exe().unwrap()).args(std::env::args().skip(1)).env(CONF, conf).status();
        assert!(status.unwrap().success());
        return;
    };
    let passes = if std::env::args().any(|argument| argument == "--short") { PASSES_SHORT } else { PASSES };
    let folder = Path::new(&conf).parent().unwrap();

    let path = folder.join("ca");
    file::FileSigner::create(&path, "bench", None).unwrap();
    let key = SigningKey::from_bytes(&[2; 32]);
    let settings = Settings::File(file::Settings { path, passphrase_path: None });
    show("file, Ed25519", &settings, &mut |data| _ = black_box(key.sign(data)), passes);

    for kind in ["ed25519", "ecdsa"] {
        let agent = Agent::start(folder, kind);
        let mut raw = agent.raw();
        show(&format!("ssh-agent, {kind}"), &agent.settings(), &mut |data| raw.sign(data), passes);
    }
    let tokens = Tokens::new(folder);
    for (kind, label) in
        [("EC:edwards25519", "ed25519"), ("EC:prime256v1", "p256"), ("EC:secp384r1", "p384"), ("rsa:3072", "rsa")]
    {
        let settings = tokens.make_key(kind, label);
        let raw = std::cell::OnceCell::new();
        // Opened after the service's signer: that is what initialises the library.
        let mut sign = |data: &[u8]| raw.get_or_init(|| tokens.raw(label)).sign(data);
        show(&format!("token, {kind}"), &settings, &mut sign, passes);
    }
}

/// One backend's figures.
fn show(name: &str, settings: &Settings, raw: &mut dyn FnMut(&[u8]), passes: usize) {
    let signer = open(settings, Purpose::User, PATIENCE).unwrap();
    let (ca, subject) = (signer.public_key().clone(), SessionKey::generate([1; 32]).public_key().clone());
    let build = || TbsCert::new(fields::usual(), &subject, &ca, [7; 32]).unwrap();
    let tbs = build();
    let message = tbs.bytes().to_vec();
    support::compare(
        &[&format!("{name}: raw"), "  signer", "  certificate"],
        &mut [&mut || raw(&message), &mut || drop(black_box(signer.sign(&tbs).unwrap())), &mut || {
            let tbs = build();
            let signature = signer.sign(&tbs).unwrap();
            drop(black_box(Certificate::assemble(tbs, &signature).unwrap()));
        }],
        passes,
    );
}

/// OpenSSH's agent with one key.
struct Agent {
    child: Child,
    socket: PathBuf,
    public_key: PathBuf,
}

impl Agent {
    fn start(folder: &Path, kind: &str) -> Self {
        let (socket, key) = (folder.join(format!("{kind}.sock")), folder.join(format!("agent_{kind}")));
        run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&key));
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < PATIENCE, "no agent");
            std::thread::sleep(Duration::from_millis(5));
        }
        run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()));
        Self { child, socket, public_key: key.with_extension("pub") }
    }

    fn settings(&self) -> Settings {
        Settings::Agent(agent::Settings { socket: self.socket.clone(), public_key: self.public_key.clone() })
    }

    fn raw(&self) -> RawAgent {
        let line = std::fs::read_to_string(&self.public_key).unwrap();
        let key = PublicKey::parse_openssh(line.trim()).unwrap();
        RawAgent { stream: UnixStream::connect(&self.socket).unwrap(), key }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

struct RawAgent {
    stream: UnixStream,
    key: PublicKey,
}

impl RawAgent {
    fn sign(&mut self, data: &[u8]) {
        self.stream.write_all(&sign_request(&self.key, data)).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        assert!(parse_signature(&body).unwrap().is_some(), "the agent refused");
    }
}

/// A `SoftHSM` token.
struct Tokens<'a> {
    folder: &'a Path,
    library: &'static str,
}

impl<'a> Tokens<'a> {
    fn new(folder: &'a Path) -> Self {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let library = library.expect("softhsm2 is installed (tests/run does it)");
        let tokens = folder.join("tokens");
        std::fs::create_dir_all(&tokens).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(folder.join("softhsm.conf"), conf).unwrap();
        std::fs::write(folder.join("pin"), "1234\n").unwrap();
        std::fs::set_permissions(folder.join("pin"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let words = ["--init-token", "--free", "--label", "hallpass", "--pin", "1234", "--so-pin", "5678"];
        run(Command::new("softhsm2-util").args(words));
        Self { folder, library }
    }

    fn tool(&self, arguments: &[&str]) -> Vec<u8> {
        let login = ["--module", self.library, "--token-label", "hallpass", "--login", "--pin", "1234"];
        run(Command::new("pkcs11-tool").args(login).args(arguments))
    }

    /// Makes a key pair in the token, and writes its public half for the service.
    fn make_key(&self, kind: &str, label: &str) -> Settings {
        self.tool(&["--keypairgen", "--key-type", kind, "--label", label]);
        let line = if kind == "EC:edwards25519" {
            let pem = self.folder.join("ed25519.pem");
            std::fs::write(&pem, self.tool(&["--read-object", "--type", "pubkey", "--label", label])).unwrap();
            let der = run(Command::new("openssl").args(["pkey", "-pubin", "-outform", "der", "-in"]).arg(&pem));
            let blob = [&b"\0\0\0\x0bssh-ed25519\0\0\0\x20"[..], &der[der.len() - 32..]].concat();
            format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&blob))
        } else {
            let name = match kind {
                "EC:prime256v1" => "ecdsa-sha2-nistp256 ",
                "EC:secp384r1" => "ecdsa-sha2-nistp384 ",
                _ => "ssh-rsa ",
            };
            let listed = String::from_utf8(run(Command::new("ssh-keygen").args(["-D", self.library]))).unwrap();
            listed.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
        };
        let public_key = self.folder.join(format!("{label}.pub"));
        std::fs::write(&public_key, format!("{line}\n")).unwrap();
        Settings::Pkcs11(pkcs11::Settings {
            library: self.library.into(),
            token: "hallpass".to_owned(),
            label: label.to_owned(),
            pin_path: self.folder.join("pin"),
            public_key,
        })
    }

    /// A session beside the service's; a login counts for both.
    fn raw(&self, label: &str) -> RawToken {
        let context = Pkcs11::new(self.library).unwrap();
        // The signer has initialised the library, and there is one in a process.
        drop(context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)));
        let slots = context.get_slots_with_token().unwrap();
        let slot = slots.into_iter().find(|slot| context.get_token_info(*slot).unwrap().label() == "hallpass").unwrap();
        let session = context.open_ro_session(slot).unwrap();
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
        let key = session.find_objects(&template).unwrap()[0];
        let (algorithm, mechanism) = match label {
            "ed25519" => (KeyAlgorithm::Ed25519, Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519))),
            "p256" => (KeyAlgorithm::EcdsaP256, Mechanism::Ecdsa),
            "p384" => (KeyAlgorithm::EcdsaP384, Mechanism::Ecdsa),
            _ => (KeyAlgorithm::Rsa, Mechanism::Sha512RsaPkcs),
        };
        RawToken { session, key, algorithm, mechanism }
    }
}

struct RawToken {
    session: Session,
    key: ObjectHandle,
    algorithm: KeyAlgorithm,
    mechanism: Mechanism<'static>,
}

impl RawToken {
    fn sign(&self, data: &[u8]) {
        let input = token::input(self.algorithm, data).unwrap();
        drop(black_box(self.session.sign(&self.mechanism, self.key, &input).unwrap()));
    }
}

/// Runs a command to its good end; what it wrote.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
