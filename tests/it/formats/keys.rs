//! Public keys: those of `ssh-keygen` are read, weak, foreign and second spellings are refused with the reason.

use std::process::Command;

use data_encoding::BASE64;
use hallpass::ssh::{Fingerprint, KeyAlgorithm, KeyError, PublicKey};
use proptest::prelude::*;

use super::{Bench, KINDS, run, string};

#[test]
fn keys_made_by_ssh_keygen_parse_to_its_own_fingerprint() {
    let bench = Bench::new();
    for (number, (arguments, algorithm)) in KINDS.iter().enumerate() {
        let name = format!("key{number}");
        let line = bench.keygen(&name, arguments);
        let key = PublicKey::parse_openssh(&line).unwrap();
        assert_eq!(key.algorithm().name(), *algorithm);
        assert_eq!(format!("{} some comment\n", key.to_openssh()), line);
        assert_eq!(PublicKey::parse_blob(key.blob()), Ok(key.clone()));

        let listed = run(Command::new("ssh-keygen").arg("-l").arg("-f").arg(bench.path(&name)));
        let fingerprint = listed.split(' ').nth(1).unwrap();
        assert_eq!(key.fingerprint().to_string(), fingerprint);
        assert_eq!(Fingerprint::parse(fingerprint), Ok(key.fingerprint()));
    }
}

#[test]
fn keys_of_other_algorithms_and_sizes_are_refused_with_the_reason() {
    let bench = Bench::new();
    for bits in [1024, 2048] {
        // sshd still takes the smaller one.
        let small = bench.keygen(&format!("small{bits}"), &["-t", "rsa", "-b", &bits.to_string()]);
        assert_eq!(PublicKey::parse_openssh(&small), Err(KeyError::RsaSize(bits)));
    }
    // DSA is left out of newer builds of ssh-keygen, so this line is the shape of one.
    let dsa = format!("ssh-dss {} old", BASE64.encode(&string("ssh-dss")));
    assert_eq!(PublicKey::parse_openssh(&dsa), Err(KeyError::Algorithm("ssh-dss".to_owned())));
    assert_eq!(PublicKey::parse_blob(&string("ssh-dss")), Err(KeyError::Algorithm("ssh-dss".to_owned())));
}

#[test]
fn a_certificate_is_not_a_key_whatever_it_calls_itself() {
    let bench = Bench::new();
    bench.keygen("ca", &["-t", "ed25519"]);
    let key = bench.keygen("id", &["-t", "ed25519"]);
    run(Command::new("ssh-keygen")
        .args(["-q", "-I", "x", "-n", "root", "-s"])
        .args([bench.path("ca"), bench.path("id.pub")]));
    let certificate = bench.read("id-cert.pub");
    assert_eq!(PublicKey::parse_openssh(&certificate), Err(KeyError::IsCertificate));
    let base64 = certificate.split(' ').nth(1).unwrap();
    assert_eq!(PublicKey::parse_blob(&BASE64.decode(base64.as_bytes()).unwrap()), Err(KeyError::IsCertificate));
    assert_eq!(PublicKey::parse_openssh(&format!("ssh-ed25519 {base64}")), Err(KeyError::IsCertificate));
    assert_eq!(PublicKey::parse_openssh(&format!("cert-authority {key}")), Err(KeyError::HasOptions));
    assert_eq!(PublicKey::parse_openssh(&format!("from=\"1.2.3.4\",no-pty {key}")), Err(KeyError::HasOptions));
}

const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

#[test]
fn blanks_a_comment_and_a_line_end_are_allowed_around_a_key_and_nothing_else() {
    let key = PublicKey::parse_openssh(LINE).unwrap();
    for line in [format!("{LINE}\n"), format!("{LINE}\r\n"), format!("  {LINE}  "), format!("{LINE} me@laptop büro")] {
        assert_eq!(PublicKey::parse_openssh(&line), Ok(key.clone()), "{line:?}");
    }
    for line in [
        String::new(),
        "ssh-ed25519".to_owned(),
        format!("{LINE}\n{LINE}\n"),
        format!("{LINE}\n\n"),
        format!("{LINE} a\u{1b}[2Jb"),
        format!("{LINE} a\u{85}b"),
        format!("{LINE}\0"),
        format!("{LINE}="),
        format!("{LINE}AA"),
        LINE.replace("ssh-ed25519", "ssh-rsa"),
        LINE.replace(' ', "\t"),
        LINE.replace("qti", "qtj"),
    ] {
        assert_eq!(PublicKey::parse_openssh(&line), Err(KeyError::Malformed), "{line:?}");
    }
    assert_eq!(PublicKey::parse_openssh(&format!("{LINE} {}", "x".repeat(17_000))), Err(KeyError::TooLong));
    assert_eq!(PublicKey::parse_blob(&[0; 17_000]), Err(KeyError::TooLong));
}

fn rsa(exponent: &[u8], modulus: &[u8]) -> Result<PublicKey, KeyError> {
    PublicKey::parse_blob(&[string("ssh-rsa"), string(exponent), string(modulus)].concat())
}

#[test]
fn rsa_numbers_have_bounds_and_one_spelling() {
    let modulus = |bits: usize| [vec![0], vec![0xff; bits / 8]].concat();
    assert_eq!(rsa(&[1, 0, 1], &modulus(3072)).unwrap().algorithm(), KeyAlgorithm::Rsa);
    assert!(rsa(&[1, 0, 1], &modulus(8192)).is_ok());
    assert!(rsa(&[3], &modulus(4096)).is_ok());
    assert_eq!(rsa(&[1, 0, 1], &modulus(8200)), Err(KeyError::RsaSize(8200)));
    // 384 bytes, but the first has a leading zero bit: 3071 bits.
    assert_eq!(rsa(&[1, 0, 1], &[vec![0x7f], vec![0xff; 383]].concat()), Err(KeyError::RsaSize(3071)));
    let huge = [vec![1], vec![0xff; 300]].concat();
    for exponent in [&[1, 0, 0][..], &[1], &[], &[0], &[0, 1, 0, 1], &[0x81], &[1, 0, 0, 0, 1], &huge] {
        assert_eq!(rsa(exponent, &modulus(3072)), Err(KeyError::Malformed), "{exponent:?}");
    }
    for modulus in
        [[vec![0xff; 384]].concat(), [vec![0, 0], vec![0xff; 384]].concat(), [vec![0x7f; 511], vec![2]].concat()]
    {
        assert_eq!(rsa(&[1, 0, 1], &modulus), Err(KeyError::Malformed));
    }
}

#[test]
fn points_off_the_curve_compressed_or_of_small_order_are_refused() {
    let bench = Bench::new();
    for (number, (arguments, _)) in KINDS[1..4].iter().enumerate() {
        let key = bench.public_key(&format!("key{number}"), arguments);
        let mut off = key.blob().to_vec();
        *off.last_mut().unwrap() ^= 1;
        assert_eq!(PublicKey::parse_blob(&off), Err(KeyError::Malformed));
    }
    let p256 = bench.public_key("p256", &["-t", "ecdsa", "-b", "256"]);
    let point = &p256.blob()[p256.blob().len() - 65..];
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    let blob = [string("ecdsa-sha2-nistp256"), string("nistp256"), string(compressed)].concat();
    assert_eq!(PublicKey::parse_blob(&blob), Err(KeyError::Malformed));
    let other_curve = [string("ecdsa-sha2-nistp384"), string("nistp384"), string(point)].concat();
    assert_eq!(PublicKey::parse_blob(&other_curve), Err(KeyError::Malformed));

    let mut identity = [0_u8; 32];
    identity[0] = 1;
    for point in [identity, [0; 32], [0xff; 32]] {
        let blob = [string("ssh-ed25519"), string(point)].concat();
        assert_eq!(PublicKey::parse_blob(&blob), Err(KeyError::Malformed), "{point:?}");
    }
}

#[test]
fn a_fingerprint_has_one_spelling() {
    let fingerprint = PublicKey::parse_openssh(LINE).unwrap().fingerprint().to_string();
    let digits = fingerprint.strip_prefix("SHA256:").unwrap();
    for text in [
        digits,
        "SHA256:",
        &format!("{fingerprint}="),
        &format!("MD5:{digits}"),
        &fingerprint.chars().take(49).collect::<String>(),
        &format!(" {fingerprint}"),
    ] {
        assert_eq!(Fingerprint::parse(text), Err(KeyError::Malformed), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_line_is_parsed_without_panic(line in any::<String>()) {
        prop_assert!(PublicKey::parse_openssh(&line).is_err());
    }

    #[test]
    fn a_changed_key_is_refused_or_another_key(place in 0_usize..51, flip in 1_u8..) {
        let key = PublicKey::parse_openssh(LINE).unwrap();
        let mut blob = key.blob().to_vec();
        blob[place] ^= flip;
        if let Ok(other) = PublicKey::parse_blob(&blob) {
            prop_assert_ne!(&other, &key);
            prop_assert_eq!(other.blob(), &blob[..]);
        }
    }

    #[test]
    fn bytes_behind_a_key_are_refused(rest in proptest::collection::vec(any::<u8>(), 1..20)) {
        let key = PublicKey::parse_openssh(LINE).unwrap();
        prop_assert_eq!(PublicKey::parse_blob(&[key.blob(), &rest].concat()), Err(KeyError::Malformed));
    }
}
