//! Tokens in which there is more than one key, and tokens that lie or are about to lock themselves: a library of the tests' own (`token.c`) stands before `SoftHSM`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::ca_keys::{KINDS, SoftHsm, configure, make_ca};
use super::stage::Stage;

/// The library, built once for the test program.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Kept, since it is loaded until the end; one small file.
        let library = tempfile::Builder::new().prefix("token").tempdir().unwrap().keep().join("token.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/token.c");
        let options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"];
        assert!(Command::new("cc").args(options).arg(&library).arg(source).status().unwrap().success());
        library
    })
}

/// A stage with a token, and what `ca add` says of a key in it: exit code, output, errors.
struct Bench {
    stage: Stage,
    hsm: SoftHsm,
}

impl Bench {
    fn new() -> Self {
        let stage = Stage::empty();
        stage.set_up();
        let hsm = SoftHsm::new(&stage);
        Self { stage, hsm }
    }

    /// By `SoftHSM` itself.
    fn adds(&self, label: &str, public_key: &str) -> (Option<i32>, String) {
        self.adds_by(Path::new(self.hsm.library), label, public_key)
    }

    fn adds_by(&self, library: &Path, label: &str, public_key: &str) -> (Option<i32>, String) {
        let (config, pin) = (self.stage.shown("service/config.toml"), self.stage.shown("pin"));
        let (library, public_key) = (library.to_str().unwrap(), self.stage.shown(public_key));
        let words = ["ca", "add", "user", "--config", &config, "--pkcs11", library, "--token", "hallpass", "--label"];
        let words = [&words[..], &[label, "--pin-file", &pin, "--public-key", &public_key]].concat();
        let ran = self.stage.command("omar", &words).envs(self.environment()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    }

    /// Where the libraries find their files.
    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("SOFTHSM2_CONF", self.hsm.conf.clone()),
            ("HALLPASS_TEST_LIBRARY", self.hsm.library.to_owned()),
            ("HALLPASS_TEST_TOKEN", self.stage.shown("token")),
        ]
    }

    /// How often somebody has logged in to the token by the tests' library.
    fn logins(&self) -> usize {
        std::fs::read_to_string(self.stage.path("token.logins")).unwrap_or_default().lines().count()
    }
}

#[test]
fn of_two_keys_of_one_type_under_one_label_the_configured_one_is_taken_and_a_third_one_is_refused() {
    let bench = Bench::new();
    for (kind, name, label) in [("EC:prime256v1", "ecdsa-sha2-nistp256 ", "curve"), ("rsa:3072", "ssh-rsa ", "rsa")] {
        for id in ["01", "02"] {
            bench.hsm.tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id]);
        }
        let listed = bench.hsm.listed();
        let lines: Vec<&str> = listed.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(lines.len(), 2, "{listed}");
        for (number, line) in lines.into_iter().enumerate() {
            let public_key = format!("{label}-{number}.pub");
            bench.stage.write(&public_key, &format!("{line}\n"));
            let (code, said) = bench.adds(label, &public_key);
            assert_eq!(code, Some(0), "{said}");
        }
    }
    make_ca(&bench.stage, &["-t", "ecdsa", "-b", "256"]);
    let (code, said) = bench.adds("curve", "ca.pub");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("its signature does not verify with the configured public key"), "{said}");
}

#[test]
fn a_token_that_answers_with_other_signatures_is_refused_whatever_the_kind_of_its_key() {
    let bench = Bench::new();
    for (kind, label) in KINDS {
        bench.hsm.make_key(&bench.stage, kind, label);
        let public_key = format!("{label}.pub");
        bench.stage.write("token", "");
        let (code, said) = bench.adds_by(library(), label, &public_key);
        assert_eq!(code, Some(0), "{label}: {said}");
        for lie in ["flip", "zero"] {
            bench.stage.write("token", lie);
            let (code, said) = bench.adds_by(library(), label, &public_key);
            assert_eq!(code, Some(1), "{label}, {lie}: {said}");
            assert!(said.contains("its signature does not verify with the configured public key"), "{said}");
        }
    }
}

#[test]
fn a_token_that_would_lock_itself_is_not_given_the_pin() {
    let bench = Bench::new();
    bench.hsm.make_key(&bench.stage, "EC:prime256v1", "p256");
    bench.stage.write("token", "");
    assert_eq!(bench.adds_by(library(), "p256", "p256.pub").0, Some(0));
    let before = bench.logins();
    assert_eq!(before, 1);
    bench.stage.write("token", "final");
    let why = "the token would lock itself after one more wrong PIN: log in once with its own tools";
    let (code, said) = bench.adds_by(library(), "p256", "p256.pub");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(why), "{said}");
    // The unit starts the service again after this exit code, and does no harm by it.
    let lines = bench.hsm.lines(&bench.stage, "p256");
    configure(&bench.stage, &lines.replace(bench.hsm.library, library().to_str().unwrap()));
    let config = bench.stage.shown("service/config.toml");
    let serve =
        bench.stage.command("omar", &["serve", "--config", &config]).envs(bench.environment()).output().unwrap();
    let said = String::from_utf8(serve.stderr).unwrap();
    assert_eq!(serve.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{said}");
    assert_eq!(bench.logins(), before, "the PIN stayed where it was");
}
