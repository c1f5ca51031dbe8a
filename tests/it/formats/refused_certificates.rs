//! Certificates that real `sshd` or the ssh-key crate would take and hallpass neither makes nor reads (SECURITY 2.A).

use hallpass::ssh::cert::{CertError, Fields, ForceCommand, Options, TbsCert};
use hallpass::time::{Timestamp, Window};
use ipnet::IpNet;

use super::certificates::{fields, quick_key};
use super::string;

/// Every field of a certificate as raw bytes, to be put wrong.
#[derive(Clone)]
struct Raw {
    name: &'static str,
    nonce: Vec<u8>,
    key: Vec<u8>,
    serial: u64,
    kind: u32,
    key_id: Vec<u8>,
    principals: Vec<Vec<u8>>,
    window: (u64, u64),
    critical: Vec<(&'static str, Vec<u8>)>,
    extensions: Vec<(&'static str, Vec<u8>)>,
    reserved: Vec<u8>,
    ca: Vec<u8>,
}

impl Raw {
    /// What [`fields`] with a forced command and a source address says.
    fn good() -> Self {
        Self {
            name: "ssh-ed25519-cert-v01@openssh.com",
            nonce: vec![7; 32],
            key: quick_key(1).blob()[15..].to_vec(),
            serial: 42,
            kind: 1,
            key_id: b"hallpass/7K3F9QX2/alice@example.com".to_vec(),
            principals: vec![b"deploy@web-1".to_vec(), b"deploy@web-2".to_vec()],
            window: (1_767_607_170, 1_767_609_000),
            critical: vec![("force-command", string("uptime")), ("source-address", string("10.0.0.0/8,192.0.2.7/32"))],
            extensions: vec![("permit-port-forwarding", vec![]), ("permit-pty", vec![])],
            reserved: vec![],
            ca: quick_key(2).blob().to_vec(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let section = |options: &[(&str, Vec<u8>)]| {
            string(options.iter().flat_map(|(name, data)| [string(name), string(data)].concat()).collect::<Vec<u8>>())
        };
        [
            string(self.name),
            string(&self.nonce),
            self.key.clone(),
            self.serial.to_be_bytes().to_vec(),
            self.kind.to_be_bytes().to_vec(),
            string(&self.key_id),
            string(self.principals.iter().flat_map(string).collect::<Vec<u8>>()),
            self.window.0.to_be_bytes().to_vec(),
            self.window.1.to_be_bytes().to_vec(),
            section(&self.critical),
            section(&self.extensions),
            string(&self.reserved),
            string(&self.ca),
        ]
        .concat()
    }
}

#[test]
fn our_encoder_writes_what_the_specification_says() {
    let mut fields = fields();
    fields.options.force_command = Some(ForceCommand::parse("uptime").unwrap());
    fields.options.source_addresses = ["192.0.2.7/32", "10.0.0.0/8"].map(|block| block.parse().unwrap()).into();
    fields.options.permits = ["pty", "port_forwarding"]
        .map(|key| hallpass::ssh::cert::Extension::ALL.into_iter().find(|e| e.key() == key).unwrap())
        .into();
    let tbs = TbsCert::new(fields, &quick_key(1), &quick_key(2), [7; 32]).unwrap();
    assert_eq!(tbs.bytes(), Raw::good().encode());
}

/// What is put wrong, and how.
type Change = (&'static str, fn(&mut Raw));

#[test]
fn what_would_not_be_issued_is_not_read() {
    let changes: Vec<Change> = vec![
        ("no principals", |raw| raw.principals.clear()),
        ("an empty principal", |raw| raw.principals[0].clear()),
        ("a wildcard", |raw| raw.principals[0] = b"*".to_vec()),
        ("a comma", |raw| raw.principals[0] = b"deploy,root".to_vec()),
        ("a line break", |raw| raw.principals[0] = b"deploy\nroot".to_vec()),
        ("a NUL", |raw| raw.principals[0] = b"deploy\0".to_vec()),
        ("a principal twice", |raw| raw.principals[1] = raw.principals[0].clone()),
        ("principals out of order", |raw| raw.principals.reverse()),
        ("257 principals", |raw| raw.principals = (0..257).map(|n| format!("a{n:03}").into_bytes()).collect()),
        ("a host certificate", |raw| raw.kind = 2),
        ("no type", |raw| raw.kind = 0),
        ("serial 0", |raw| raw.serial = 0),
        ("a serial of 64 bits", |raw| raw.serial = 1 << 63),
        ("for ever", |raw| raw.window = (0, u64::MAX)),
        ("for nearly ever", |raw| raw.window.1 = u64::MAX - 1),
        ("past the year 9999", |raw| raw.window = (253_402_300_700, 253_402_300_900)),
        ("longer than a year", |raw| raw.window.1 = raw.window.0 + 367 * 86_400 + 1),
        ("milliseconds", |raw| raw.window = (raw.window.0 * 1000, raw.window.1 * 1000)),
        ("an empty window", |raw| raw.window.1 = raw.window.0),
        ("a window backwards", |raw| raw.window = (raw.window.1, raw.window.0)),
        ("an unknown critical option", |raw| raw.critical.push(("unknown@example.com", vec![]))),
        ("a permission as critical option", |raw| raw.critical.insert(1, ("permit-pty", vec![]))),
        ("a restriction as extension", |raw| raw.extensions.insert(0, ("force-command", string("uptime")))),
        ("verify-required as extension", |raw| raw.extensions.push(("verify-required", vec![]))),
        ("verify-required without a security key", |raw| raw.critical.push(("verify-required", vec![]))),
        ("no-touch-required", |raw| raw.extensions.insert(0, ("no-touch-required", vec![]))),
        ("an option with an empty name", |raw| raw.critical.insert(0, ("", vec![]))),
        ("options out of order", |raw| raw.critical.reverse()),
        ("extensions out of order", |raw| raw.extensions.reverse()),
        ("an extension twice", |raw| raw.extensions[0] = raw.extensions[1].clone()),
        ("a force-command twice", |raw| raw.critical.insert(1, ("force-command", string("uptime")))),
        ("a flag with data", |raw| raw.extensions[1].1 = string("yes")),
        ("a flag with an empty string", |raw| raw.extensions[1].1 = string("")),
        ("a forced command without data", |raw| raw.critical[0].1.clear()),
        ("an empty forced command", |raw| raw.critical[0].1 = string("")),
        ("a blank forced command", |raw| raw.critical[0].1 = string("  ")),
        ("a forced command one level short", |raw| raw.critical[0].1 = b"uptime".to_vec()),
        ("a forced command of two lines", |raw| raw.critical[0].1 = string("uptime\nsh")),
        ("bytes behind a forced command", |raw| raw.critical[0].1.push(0)),
        ("host bits", |raw| raw.critical[1].1 = string("10.0.0.1/8")),
        ("a prefix of 33", |raw| raw.critical[1].1 = string("10.0.0.0/33")),
        ("a bare address", |raw| raw.critical[1].1 = string("10.0.0.1")),
        ("a blank after the comma", |raw| raw.critical[1].1 = string("10.0.0.0/8, 192.0.2.7/32")),
        ("a comma at the end", |raw| raw.critical[1].1 = string("10.0.0.0/8,")),
        ("addresses out of order", |raw| raw.critical[1].1 = string("192.0.2.7/32,10.0.0.0/8")),
        ("an address twice", |raw| raw.critical[1].1 = string("10.0.0.0/8,10.0.0.0/8")),
        ("a negated address", |raw| raw.critical[1].1 = string("!10.0.0.0/8")),
        ("a long IPv6 spelling", |raw| raw.critical[1].1 = string("2001:db8:0::/32")),
        ("an IPv4 address in IPv6", |raw| raw.critical[1].1 = string("::ffff:10.0.0.0/104")),
        ("no source address", |raw| raw.critical[1].1 = string("")),
        ("a reserved field", |raw| raw.reserved = vec![0]),
        ("a short nonce", |raw| raw.nonce = vec![7; 31]),
        ("a long nonce", |raw| raw.nonce = vec![7; 33]),
        ("a key id of others", |raw| raw.key_id = b"alice@example.com".to_vec()),
        ("a line break in the key id", |raw| raw.key_id.push(b'\n')),
        ("a quote in the key id", |raw| raw.key_id.push(b'"')),
        ("no key id", |raw| raw.key_id.clear()),
        ("another type name", |raw| raw.name = "ssh-rsa-cert-v01@openssh.com"),
        ("an old type name", |raw| raw.name = "ssh-ed25519-cert-v00@openssh.com"),
        ("a plain key's name", |raw| raw.name = "ssh-ed25519"),
        ("the CA key as subject", |raw| raw.key = raw.ca[15..].to_vec()),
        ("a certificate as CA key", |raw| raw.ca = Raw::good().encode()),
        ("a security key as CA key", |raw| {
            raw.ca = [string("sk-ssh-ed25519@openssh.com"), raw.ca[15..].to_vec(), string("ssh:")].concat();
        }),
        ("a CA key with bytes behind it", |raw| raw.ca.push(0)),
        ("no CA key", |raw| raw.ca.clear()),
    ];
    assert!(TbsCert::parse(&Raw::good().encode()).is_ok());
    for (what, change) in changes {
        let mut raw = Raw::good();
        change(&mut raw);
        assert_ne!(raw.encode(), Raw::good().encode(), "{what}: the change changes nothing");
        assert!(TbsCert::parse(&raw.encode()).is_err(), "{what}");
    }
}

#[test]
fn the_linter_says_which_rule_was_broken() {
    let broken = |change: fn(&mut Fields)| {
        let mut fields = fields();
        change(&mut fields);
        TbsCert::new(fields, &quick_key(1), &quick_key(2), [7; 32]).unwrap_err().to_string()
    };
    let source =
        |text: &str| Options { source_addresses: [text.parse::<IpNet>().unwrap()].into(), ..Options::default() };
    let with = |options: Options| {
        let fields = Fields { options, ..fields() };
        TbsCert::new(fields, &quick_key(1), &quick_key(2), [7; 32]).unwrap_err().to_string()
    };
    let prefix = "certificate refused by the linter: ";
    assert_eq!(broken(|f| f.principals.clear()), format!("{prefix}it has no principals"));
    let year =
        broken(|f| f.window = Window::new(f.window.start(), Timestamp::from_unix(2_000_000_000).unwrap()).unwrap());
    assert_eq!(year, format!("{prefix}its window is longer than a year"));
    assert_eq!(with(source("10.0.0.1/8")), format!("{prefix}a source address has bits set behind its prefix"));
    let mapped = format!("{prefix}a source address is IPv4 written as IPv6, which sshd never matches");
    assert_eq!(with(source("::ffff:10.0.0.0/104")), mapped);
    let verify = with(Options { verify_required: true, ..Options::default() });
    assert_eq!(verify, format!("{prefix}verify-required means nothing without a security key"));
    let own = TbsCert::new(fields(), &quick_key(1), &quick_key(1), [7; 32]);
    assert_eq!(own, Err(CertError::Lint("its subject is the CA key itself")));
}
