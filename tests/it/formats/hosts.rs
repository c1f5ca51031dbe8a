//! Certificates for hosts and for their logins to themselves: what `ssh-keygen` reads in them, and what the linter refuses.

use std::collections::BTreeSet;

use hallpass::name::{HostName, Principal, Serial};
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::signer::{SignError, Signer as _};
use hallpass::ssh::cert::{CertError, Certificate, Fields, ForceCommand, KeyId, Options, Purpose, TbsCert};
use hallpass::time::{Timestamp, Window};

use super::certificates::{all_options, fields, quick_key};
use super::{Bench, list_certificate};

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn window(seconds: u64) -> Window {
    let start = 1_767_607_200;
    Window::new(Timestamp::from_unix(start).unwrap(), Timestamp::from_unix(start + seconds).unwrap()).unwrap()
}

fn of_host(names: &[&str]) -> Fields {
    Fields {
        serial: Serial::new(42).unwrap(),
        key_id: KeyId::of_host(&host("web-1")).unwrap(),
        principals: names.iter().map(|name| Principal::parse(name).unwrap()).collect(),
        window: window(7 * 86_400),
        options: Options::default(),
    }
}

fn of_check() -> Fields {
    Fields {
        key_id: KeyId::of_check(&host("web-1")).unwrap(),
        window: window(180),
        options: Options { force_command: Some(ForceCommand::parse("true").unwrap()), ..Options::default() },
        ..of_host(&["hallpass-check@web-1"])
    }
}

fn tbs(fields: Fields) -> Result<TbsCert, CertError> {
    TbsCert::new(fields, &quick_key(1), &quick_key(2), [7; 32])
}

/// A CA key in a file, opened for this purpose.
fn signer(bench: &Bench, purpose: Purpose) -> FileSigner {
    if !bench.path("ca").exists() {
        bench.keygen("ca", &["-t", "ed25519"]);
    }
    FileSigner::open(&Settings { path: bench.path("ca"), passphrase_path: None }, purpose).unwrap()
}

#[test]
fn ssh_keygen_reads_a_host_certificate_as_one_and_a_check_certificate_as_a_users() {
    let bench = Bench::new();
    for (fields, purpose, kind, names, options) in [
        (
            of_host(&["web-1", "10.0.0.7", "web-1.example.com"]),
            Purpose::Host,
            "host",
            vec!["10.0.0.7", "web-1", "web-1.example.com"],
            "(none)",
        ),
        (of_check(), Purpose::User, "user", vec!["hallpass-check@web-1"], "force-command true"),
    ] {
        let key_id = fields.key_id.as_str().to_owned();
        let ca = signer(&bench, purpose);
        let tbs = TbsCert::new(fields, &quick_key(1), ca.public_key(), [7; 32]).unwrap();
        let certificate = Certificate::assemble(tbs.clone(), &ca.sign(&tbs).unwrap()).unwrap();
        let read = list_certificate(&bench.write("key-cert.pub", format!("{}\n", certificate.to_openssh())));
        assert_eq!(read[0], format!("Type: ssh-ed25519-cert-v01@openssh.com {kind} certificate"));
        assert!(read.contains(&format!("Key ID: {key_id:?}")), "{read:?}");
        let at = read.iter().position(|line| line == "Principals:").unwrap();
        assert_eq!(read[at + 1..=at + names.len()], names);
        assert!(read.iter().any(|line| line.ends_with(options)), "{read:?}");
        assert_eq!(read.last().unwrap(), "Extensions: (none)");
        assert_eq!(Certificate::parse_openssh(&certificate.to_openssh()), Ok(certificate));
    }
}

#[test]
fn a_key_for_users_signs_no_host_certificate_and_the_other_way_round() {
    let bench = Bench::new();
    for (fields, purpose) in
        [(of_host(&["web-1"]), Purpose::User), (of_check(), Purpose::Host), (fields(), Purpose::Host)]
    {
        let ca = signer(&bench, purpose);
        let tbs = TbsCert::new(fields, &quick_key(1), ca.public_key(), [7; 32]).unwrap();
        assert!(matches!(ca.sign(&tbs), Err(SignError::OtherPurpose(_))));
    }
}

#[test]
fn each_kind_holds_what_it_may_and_nothing_more() {
    let lint = |fields: Fields| match tbs(fields) {
        Err(CertError::Lint(why)) => why,
        other => panic!("{other:?}"),
    };
    for (fields, why) in [
        (of_host(&[]), "it has no principals"),
        (of_host(&["web-2"]), "a host certificate lacks the host's own name"),
        (of_host(&["web-1", "deploy@web-1"]), "a principal of a host certificate is no name of a host"),
        (of_host(&["web-1", "_x"]), "a principal of a host certificate is no name of a host"),
        (Fields { options: all_options(), ..of_host(&["web-1"]) }, "a host certificate has options"),
        (Fields { window: window(9 * 86_400), ..of_host(&["web-1"]) }, "a host certificate is longer than eight days"),
        (
            Fields { options: Options::default(), ..of_check() },
            "a host's login to itself has another command than \"true\"",
        ),
        (
            Fields { options: Options { permits: all_options().permits, ..of_check().options }, ..of_check() },
            "a host's login to itself permits or demands something",
        ),
        (Fields { window: window(181), ..of_check() }, "a host's login to itself is longer than three minutes"),
        (
            Fields { principals: BTreeSet::from([Principal::parse("root@web-1").unwrap()]), ..of_check() },
            "a host's login to itself has another principal than its own",
        ),
        (
            Fields { principals: fields().principals, ..of_check() },
            "a host's login to itself has another principal than its own",
        ),
        (
            Fields { principals: BTreeSet::from([Principal::parse("10.0.0.7").unwrap()]), ..fields() },
            "a principal of a user certificate begins with a digit",
        ),
    ] {
        assert_eq!(lint(fields), why);
    }
    tbs(of_host(&["web-1", "10.0.0.7"])).unwrap();
    tbs(of_check()).unwrap();
}

#[test]
fn bytes_whose_type_is_not_that_of_their_key_id_are_no_certificate_of_ours() {
    for fields in [of_host(&["web-1"]), of_check(), fields()] {
        let good = tbs(fields).unwrap();
        assert_eq!(TbsCert::parse(good.bytes()).as_ref(), Ok(&good));
        // The type follows the serial, which is 42.
        let at = good.bytes().windows(8).position(|bytes| bytes == 42_u64.to_be_bytes()).unwrap() + 11;
        let mut other = good.bytes().to_vec();
        other[at] = if other[at] == 1 { 2 } else { 1 };
        let wrong = "its type is not that of its key id";
        assert_eq!(TbsCert::parse(&other), Err(CertError::Malformed(wrong)));
    }
}

#[test]
fn key_ids_of_hosts_have_one_spelling_and_are_no_requests() {
    for id in [KeyId::of_host(&host("web-1")).unwrap(), KeyId::of_check(&host("10.0.0.7")).unwrap()] {
        assert_eq!(KeyId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!((id.request(), id.person()), (None, None));
    }
    let longest = format!("{}.{}", "a".repeat(60), "b".repeat(29));
    KeyId::of_check(&host(&longest)).unwrap();
    for text in ["hallpass/host/", "hallpass/host/Web", "hallpass/check/a/b", "hallpass/hosts/web-1", "hallpass/check"]
    {
        assert!(KeyId::parse(text).is_err(), "{text}");
    }
}
