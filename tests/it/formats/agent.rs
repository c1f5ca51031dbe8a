//! Agent frames against a real `ssh-agent`: it lists keys, signs logins, and signs certificates for CA keys of other kinds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hallpass::ssh::agent;
use hallpass::ssh::cert::{CertError, Certificate, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SshSignature};

use super::certificates::{ca, fields, issue, quick_key};
use super::{Bench, KINDS, list_certificate, run};
use crate::enrolment::host::until;

/// A real agent, ended with its test.
pub(super) struct Agent {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Agent {
    pub(super) fn start(bench: &Bench) -> Self {
        let socket = bench.path("agent");
        let mut child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        // It says where it listens once it does.
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("SSH_AUTH_SOCK"), "{said}");
        Self { child, socket }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn add(&self, bench: &Bench, name: &str) {
        run(Command::new("ssh-add").arg("-q").arg(bench.path(name)).env("SSH_AUTH_SOCK", &self.socket));
    }

    /// Sends a frame; gives the answer without its length.
    fn ask(&self, frame: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(frame).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        assert!(body.len() <= agent::FRAME_BYTES_MAX);
        stream.read_exact(&mut body).unwrap();
        body
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn an_agent_lists_its_keys_without_certificates_and_signs_logins() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    assert_eq!(agent::parse_identities(&agent.ask(&agent::request_identities())), Ok(vec![]));
    let keys: Vec<_> = KINDS
        .iter()
        .enumerate()
        .map(|(number, (arguments, _))| {
            let name = format!("key{number}");
            let key = bench.public_key(&name, arguments);
            if number == 0 {
                // With a certificate beside the key, ssh-add adds both.
                bench.keygen("ca", &["-t", "ed25519"]);
                let mut command = Command::new("ssh-keygen");
                run(command.args(["-q", "-I", "x", "-n", "x", "-s"]).args([bench.path("ca"), bench.path("key0.pub")]));
            }
            agent.add(&bench, &name);
            (key, "some comment".to_owned())
        })
        .collect();
    bench.keygen("small", &["-t", "rsa", "-b", "2048"]);
    agent.add(&bench, "small");
    assert_eq!(agent::parse_identities(&agent.ask(&agent::request_identities())), Ok(keys.clone()));

    for (key, _) in keys {
        let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, b"challenge");
        let blob = agent::parse_signature(&agent.ask(&agent::sign_request(&key, &data))).unwrap().unwrap();
        let armoured = SshSignature::armour(&key, LOGIN_NAMESPACE, &blob).unwrap();
        assert_eq!(
            SshSignature::parse(&armoured).unwrap().check(&key, LOGIN_NAMESPACE, b"challenge"),
            Ok(()),
            "{key:?}"
        );
    }
    let absent = agent.ask(&agent::sign_request(&quick_key(9), b"data"));
    assert_eq!(agent::parse_signature(&absent), Ok(None));
}

#[test]
fn ca_keys_of_other_kinds_behind_an_agent_sign_certificates_that_ssh_keygen_verifies() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    let subject = quick_key(1);
    for (number, (arguments, algorithm)) in KINDS.iter().enumerate() {
        let name = format!("ca{number}");
        let ca = bench.public_key(&name, arguments);
        agent.add(&bench, &name);
        let tbs = TbsCert::new(fields(), &subject, &ca, [7; 32]);
        if *algorithm == "ecdsa-sha2-nistp521" {
            assert_eq!(tbs, Err(CertError::Lint("the CA key's algorithm is not one for CA keys")));
            continue;
        }
        let tbs = tbs.unwrap();
        let mut request = agent::sign_request(&ca, tbs.bytes());
        let blob = agent::parse_signature(&agent.ask(&request)).unwrap().unwrap();
        let certificate = Certificate::assemble(tbs.clone(), &blob).unwrap();
        assert_eq!(Certificate::parse_openssh(&certificate.to_openssh()), Ok(certificate.clone()));
        let listed = list_certificate(&bench.write("id-cert.pub", certificate.to_openssh()));
        let using = if *algorithm == "ssh-rsa" { "rsa-sha2-512" } else { algorithm };
        assert!(listed[2].ends_with(&format!("{} (using {using})", ca.fingerprint())), "{}", listed[2]);

        if *algorithm == "ssh-rsa" {
            // The flags are the last four bytes: 0 asks for SHA-1, 2 for SHA-256.
            for flags in [0, 2] {
                *request.last_mut().unwrap() = flags;
                let blob = agent::parse_signature(&agent.ask(&request)).unwrap().unwrap();
                assert_eq!(Certificate::assemble(tbs.clone(), &blob), Err(CertError::Signature), "{flags}");
            }
        }
    }
}

#[test]
fn what_is_lent_to_a_real_agent_is_its_certificate_alone_and_leaves_by_itself() {
    let bench = Bench::new();
    let (agent, ca) = (Agent::start(&bench), ca(&bench));
    let lends = |seed: u8, seconds: u32| {
        let key = SessionKey::generate([seed; 32]);
        let certificate = issue(&ca, fields(), key.public_key());
        assert!(agent::is_done(&agent.ask(&agent::add_certificate(&key, &certificate, "web-1", seconds))));
        certificate
    };
    let holds =
        |certificate: &Certificate| agent::lists(&agent.ask(&agent::request_identities()), certificate).unwrap();
    let (long, brief) = (lends(1, 3600), lends(2, 1));
    assert!(holds(&long));
    assert_eq!(agent::parse_identities(&agent.ask(&agent::request_identities())), Ok(vec![]), "no bare key");
    until("the agent forgets what was lent for a second", std::time::Duration::from_secs(60), || !holds(&brief));
    assert!(holds(&long));
    assert!(agent::is_done(&agent.ask(&agent::remove_certificate(&long))) && !holds(&long));
}
