//! Certificates: `ssh-keygen -L` reads every field as it was asked for; what is built is read back; one flip kills it.

use std::collections::BTreeSet;
use std::process::Command;

use data_encoding::BASE64;
use hallpass::name::{PersonName, Principal, RequestId, Serial};
use hallpass::signer::Signer as _;
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{CertError, Certificate, Extension, Fields, ForceCommand, KeyId, Options, Purpose, TbsCert};
use hallpass::time::{Timestamp, Window};
use ipnet::IpNet;
use proptest::prelude::*;

use super::{Bench, KINDS, list_certificate, run};

pub(super) fn fields() -> Fields {
    let person = PersonName::parse("alice@example.com").unwrap();
    let principals = ["deploy@web-1", "deploy@web-2"].map(|p| Principal::parse(p).unwrap());
    let moment = |text| Timestamp::parse(text).unwrap();
    Fields {
        serial: Serial::new(42).unwrap(),
        key_id: KeyId::new(&RequestId::parse("7K3F-9QX2").unwrap(), &person).unwrap(),
        principals: principals.into(),
        window: Window::new(moment("2026-01-05T09:59:30Z"), moment("2026-01-05T10:30:00Z")).unwrap(),
        options: Options::default(),
    }
}

pub(super) fn all_options() -> Options {
    Options {
        force_command: Some(ForceCommand::parse("journalctl -n 1000 -u \"api\" | tail").unwrap()),
        source_addresses: ["2001:db8::/32", "10.0.0.0/8", "192.0.2.7/32"].map(|a| a.parse().unwrap()).into(),
        verify_required: false,
        permits: Extension::ALL.into(),
    }
}

pub(super) fn ca(bench: &Bench) -> FileSigner {
    bench.keygen("ca", &["-t", "ed25519"]);
    FileSigner::open(&Settings { path: bench.path("ca"), passphrase_path: None }, Purpose::User).unwrap()
}

pub(super) fn issue(ca: &FileSigner, fields: Fields, subject: &PublicKey) -> Certificate {
    let tbs = TbsCert::new(fields, subject, ca.public_key(), [7; 32]).unwrap();
    let signature = ca.sign(&tbs).unwrap();
    Certificate::assemble(tbs, &signature).unwrap()
}

/// An Ed25519 key that needs no tool.
pub(super) fn quick_key(seed: u8) -> PublicKey {
    hallpass::ssh::private::SessionKey::generate([seed; 32]).public_key().clone()
}

#[test]
fn ssh_keygen_reads_the_very_fields_over_every_kind_of_subject_key() {
    let bench = Bench::new();
    let ca = ca(&bench);
    for (number, (arguments, algorithm)) in KINDS.iter().enumerate() {
        let subject = bench.public_key(&format!("key{number}"), arguments);
        let certificate = issue(&ca, Fields { options: all_options(), ..fields() }, &subject);
        let line = certificate.to_openssh();
        let path = bench.write(&format!("key{number}-cert.pub"), format!("{line}\n"));
        let kind = algorithm.strip_prefix("ssh-").unwrap_or("ecdsa").to_uppercase();
        let expected = [
            format!("Type: {algorithm}-cert-v01@openssh.com user certificate"),
            format!("Public key: {kind}-CERT {}", subject.fingerprint()),
            format!("Signing CA: ED25519 {} (using ssh-ed25519)", ca.public_key().fingerprint()),
            "Key ID: \"hallpass/7K3F9QX2/alice@example.com\"".to_owned(),
            "Serial: 42".to_owned(),
            "Valid: from 2026-01-05T09:59:30 to 2026-01-05T10:30:00".to_owned(),
            "Principals:".to_owned(),
            "deploy@web-1".to_owned(),
            "deploy@web-2".to_owned(),
            "Critical Options:".to_owned(),
            "force-command journalctl -n 1000 -u \"api\" | tail".to_owned(),
            "source-address 10.0.0.0/8,192.0.2.7/32,2001:db8::/32".to_owned(),
            "Extensions:".to_owned(),
            "permit-X11-forwarding".to_owned(),
            "permit-agent-forwarding".to_owned(),
            "permit-port-forwarding".to_owned(),
            "permit-pty".to_owned(),
            "permit-user-rc".to_owned(),
        ];
        assert_eq!(list_certificate(&path), expected);
        assert_eq!(Certificate::parse_openssh(&format!("{line}\n")), Ok(certificate.clone()));
        assert_eq!(Certificate::parse_blob(certificate.blob()), Ok(certificate));
    }
}

#[test]
fn ssh_keygen_writes_the_same_bytes_for_the_same_fields() {
    let bench = Bench::new();
    let ca = ca(&bench);
    for (number, (arguments, _)) in KINDS.iter().enumerate() {
        let subject = bench.public_key(&format!("key{number}"), arguments);
        let mut command = Command::new("ssh-keygen");
        command.args([
            "-q",
            "-I",
            "hallpass/7K3F9QX2/alice@example.com",
            "-z",
            "42",
            "-n",
            "deploy@web-1,deploy@web-2",
        ]);
        command.args(["-V", "20260105095930:20260105103000", "-O", "clear", "-O", "permit-pty"]);
        command.args(["-O", "source-address=10.0.0.0/8,192.0.2.7/32", "-O", "force-command=uptime -p", "-s"]);
        run(command.args([bench.path("ca"), bench.path(&format!("key{number}.pub"))]));
        let line = bench.read(&format!("key{number}-cert.pub"));
        let blob = BASE64.decode(line.split(' ').nth(1).unwrap().as_bytes()).unwrap();

        let mut fields = fields();
        fields.options = Options {
            force_command: Some(ForceCommand::parse("uptime -p").unwrap()),
            source_addresses: ["10.0.0.0/8", "192.0.2.7/32"].map(|block| block.parse().unwrap()).into(),
            verify_required: false,
            permits: [Extension::Pty].into(),
        };
        let theirs = Certificate::parse_blob(&blob).unwrap();
        assert_eq!((theirs.tbs().fields(), theirs.tbs().subject()), (&fields, &subject));
        // The type's name, then the nonce, each behind four bytes of length.
        let start = 4 + line.find(' ').unwrap() + 4;
        let nonce = blob[start..start + 32].try_into().unwrap();
        let ours = TbsCert::new(fields, &subject, ca.public_key(), nonce).unwrap();
        let ours = Certificate::assemble(ours.clone(), &ca.sign(&ours).unwrap()).unwrap();
        assert_eq!(ours.blob(), blob);
        // The line is not ours, though: its comment is not the key id.
        assert!(Certificate::parse_openssh(&line).is_err());
    }
}

#[test]
fn a_certificate_with_no_options_permits_nothing() {
    let bench = Bench::new();
    let certificate = issue(&ca(&bench), fields(), &quick_key(1));
    let path = bench.write("id-cert.pub", certificate.to_openssh());
    let listed = list_certificate(&path);
    assert_eq!(listed[9..], ["Critical Options: (none)", "Extensions: (none)"].map(str::to_owned));
}

#[test]
fn the_largest_certificate_is_read_by_ssh_keygen_and_one_principal_more_is_refused() {
    let bench = Bench::new();
    let ca = ca(&bench);
    let principal = |n: usize| Principal::parse(&format!("a{n:0>127}")).unwrap();
    let blocks = (0..=255_u8).map(|n| IpNet::new([0x2001, 0xdb8, n.into(), 0xfff0, 0, 0, 0, 1].into(), 128).unwrap());
    let mut most = fields();
    most.principals = (0..256).map(principal).collect();
    most.options = Options {
        force_command: Some(ForceCommand::parse(&"x".repeat(1024)).unwrap()),
        source_addresses: blocks.collect(),
        ..all_options()
    };
    let certificate = issue(&ca, most.clone(), &quick_key(1));
    let path = bench.write("id-cert.pub", certificate.to_openssh());
    assert_eq!(list_certificate(&path).iter().filter(|line| line.starts_with("a0")).count(), 256);
    most.principals.insert(principal(256));
    let refused = TbsCert::new(most, &quick_key(1), ca.public_key(), [7; 32]);
    assert_eq!(refused, Err(CertError::Lint("it has more than 256 principals")));
}

#[test]
fn any_single_changed_character_of_a_certificate_line_is_refused() {
    let bench = Bench::new();
    let line = issue(&ca(&bench), Fields { options: all_options(), ..fields() }, &quick_key(1)).to_openssh();
    for place in 0..line.len() {
        for flip in [0x01, 0x20, 0x5d] {
            let mut changed = line.clone().into_bytes();
            changed[place] ^= flip;
            let changed = String::from_utf8(changed).unwrap();
            assert!(Certificate::parse_openssh(&changed).is_err(), "byte {place} ^ {flip:#x}");
        }
    }
    for changed in [format!("{line} "), format!(" {line}"), format!("{line}\n\n"), format!("{line}\r\n"), String::new()]
    {
        assert!(Certificate::parse_openssh(&changed).is_err(), "{changed:?}");
    }
}

#[test]
fn any_cut_or_added_byte_of_the_bytes_to_be_signed_is_refused() {
    let tbs = TbsCert::new(fields(), &quick_key(1), &quick_key(2), [7; 32]).unwrap();
    for length in 0..tbs.bytes().len() {
        assert!(TbsCert::parse(&tbs.bytes()[..length]).is_err(), "{length}");
    }
    assert!(TbsCert::parse(&[tbs.bytes(), &[0]].concat()).is_err());
}

#[test]
fn a_signature_by_another_key_or_over_other_bytes_is_refused() {
    let bench = Bench::new();
    let ca = ca(&bench);
    let tbs = |serial| {
        let fields = Fields { serial: Serial::new(serial).unwrap(), ..fields() };
        TbsCert::new(fields, &quick_key(1), ca.public_key(), [7; 32]).unwrap()
    };
    let good = ca.sign(&tbs(1)).unwrap();
    assert!(Certificate::assemble(tbs(1), &good).is_ok());
    let zeros = [super::string("ssh-ed25519"), super::string([0; 64])].concat();
    let renamed = [super::string("rsa-sha2-512"), good[15..].to_vec()].concat();
    for (serial, signature) in [
        (2, &good[..]),
        (1, &good[..good.len() - 1]),
        (1, &[&good[..], &[0]].concat()),
        (1, &zeros),
        (1, &renamed),
        (1, &[]),
    ] {
        assert_eq!(Certificate::assemble(tbs(serial), signature), Err(CertError::Signature));
    }
    let for_other = TbsCert::new(fields(), &quick_key(1), &quick_key(2), [7; 32]).unwrap();
    assert!(matches!(ca.sign(&for_other), Err(hallpass::signer::SignError::OtherKey)));
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let principals = proptest::collection::btree_set("[a-z_][a-z0-9_.@:=-]{0,40}", 1..8);
    let name = ("[a-z0-9][a-z0-9._+-]{0,60}", proptest::option::of("[a-z0-9.-]{1,60}"));
    let window = (0_u64..200_000_000_000, 1_u64..=367 * 86_400);
    (1..1_u64 << 63, any::<[u8; 5]>(), name, principals, window, any_options()).prop_map(
        |(serial, request, (user, domain), principals, (start, length), options)| {
            let person = domain.map_or_else(|| user.clone(), |domain| format!("{user}@{domain}"));
            let moment = |seconds| Timestamp::from_unix(seconds).unwrap();
            Fields {
                serial: Serial::new(serial).unwrap(),
                key_id: KeyId::new(&RequestId::from_random(request), &PersonName::parse(&person).unwrap()).unwrap(),
                principals: principals.iter().map(|p| Principal::parse(p).unwrap()).collect(),
                window: Window::new(moment(start), moment(start + length)).unwrap(),
                options,
            }
        },
    )
}

fn any_options() -> impl Strategy<Value = Options> {
    let v4 = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap().trunc());
    let v6 = (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap().trunc());
    let is_mapped = |block: &IpNet| matches!(block, IpNet::V6(b) if b.addr().to_ipv4_mapped().is_some());
    let blocks = proptest::collection::btree_set(prop_oneof![v4, v6], 0..6);
    let permits = proptest::sample::subsequence(Extension::ALL.to_vec(), 0..=5);
    let command = proptest::option::of(" {0,2}[!-~][ -~]{0,80}");
    (command, blocks, permits).prop_map(move |(command, mut source_addresses, permits)| {
        source_addresses.retain(|block| !is_mapped(block));
        let force_command = command.map(|c| ForceCommand::parse(&c).unwrap());
        Options { force_command, source_addresses, verify_required: false, permits: permits.into_iter().collect() }
    })
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(fields in any_fields(), nonce in any::<[u8; 32]>()) {
        let tbs = TbsCert::new(fields.clone(), &quick_key(1), &quick_key(2), nonce).unwrap();
        let read = TbsCert::parse(tbs.bytes()).unwrap();
        prop_assert_eq!(read.fields(), &fields);
        prop_assert_eq!(read.subject(), &quick_key(1));
        prop_assert_eq!(read.ca(), &quick_key(2));
        prop_assert_eq!(read, tbs);
    }

    #[test]
    fn a_change_of_the_bytes_is_refused_or_says_something_else(
        fields in any_fields(), place in any::<prop::sample::Index>(), flip in 1_u8..
    ) {
        let tbs = TbsCert::new(fields, &quick_key(1), &quick_key(2), [9; 32]).unwrap();
        let mut bytes = tbs.bytes().to_vec();
        bytes[place.index(tbs.bytes().len())] ^= flip;
        if let Ok(read) = TbsCert::parse(&bytes) {
            prop_assert_eq!(read.bytes(), &bytes[..]);
            prop_assert_ne!(read, tbs);
        }
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(TbsCert::parse(&bytes).is_err());
        prop_assert!(Certificate::parse_blob(&bytes).is_err());
    }
}

#[test]
fn a_key_id_is_read_back_and_has_one_spelling() {
    let key_id = fields().key_id;
    assert_eq!(KeyId::parse(key_id.as_str()), Ok(key_id.clone()));
    let (request, person) = (key_id.request().unwrap(), key_id.person().unwrap());
    assert_eq!((request.to_string().as_str(), person.as_str()), ("7K3F-9QX2", "alice@example.com"));
    let longest = KeyId::new(request, &PersonName::parse(&"a".repeat(128)).unwrap()).unwrap();
    assert!(longest.as_str().len() <= 190);
    for text in
        ["", "hallpass/7k3f9qx2/alice", "hallpass/7K3F-9QX2/alice", "hallpass/7K3F9QX2/", "hallpass/7K3F9QX2/a\"b", "x"]
    {
        assert!(KeyId::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_set_of_principals_is_written_once_each_in_order() {
    let mut unordered = fields();
    unordered.principals = ["z", "b", "b"].iter().map(|p| Principal::parse(p).unwrap()).collect::<BTreeSet<_>>();
    let tbs = TbsCert::new(unordered, &quick_key(1), &quick_key(2), [0; 32]).unwrap();
    let list = super::string([super::string("b"), super::string("z")].concat());
    assert!(tbs.bytes().windows(list.len()).any(|window| window == list));
}
