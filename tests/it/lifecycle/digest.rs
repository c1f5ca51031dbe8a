//! The digest's bytes, computed a second time by hand: rows of older programs must keep their digests.

use hallpass::name::Digest;
use hallpass::policy::Question;
use sha2::Digest as _;

use super::world::{NOON, ONE, Shape, World, at, key, minutes, question};

/// What is hashed.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn count(&mut self, count: u64) {
        self.0.extend_from_slice(&count.to_be_bytes());
    }

    fn field(&mut self, field: &[u8]) {
        self.count(u64::try_from(field.len()).unwrap());
        self.0.extend_from_slice(field);
    }

    fn number(&mut self, number: u64) {
        self.field(&number.to_be_bytes());
    }

    fn hashed(self) -> Digest {
        Digest::new(sha2::Sha256::digest(self.0).into())
    }
}

#[test]
fn a_requests_digest_is_the_hash_of_its_fields() {
    let rule = "command = \"uptime\"\nsources = [\"10.0.0.0/8\"]\npermit = { pty = true }";
    let asked = Question { start: Some(at(NOON + 60)), ..question(NOON) };
    let (world, _) = World::asking(&Shape { rule, ..ONE }, &asked).unwrap();
    let mut bytes = Bytes::default();
    bytes.field(b"hallpass request v1");
    bytes.field(world.request.id().digits().as_bytes());
    bytes.field(b"alice");
    bytes.field(key(99).blob());
    bytes.field(b"deploy");
    bytes.count(2);
    for text in ["web-1", "deploy@web-1", "web-2", "deploy@web-2"] {
        bytes.field(text.as_bytes());
    }
    bytes.number(40 * 60);
    bytes.number(30);
    bytes.count(1);
    bytes.number(NOON + 60);
    bytes.count(1);
    bytes.field(b"uptime");
    bytes.count(1);
    bytes.field(b"10.0.0.0/8");
    bytes.number(0);
    bytes.count(1);
    bytes.field(b"permit-pty");
    bytes.field(b"look at the queue");
    bytes.count(1);
    bytes.field(b"INC-7");
    bytes.number(NOON);
    bytes.number(1);
    assert_eq!(world.request.digest(), bytes.hashed());
}

#[test]
fn an_extensions_digest_takes_up_the_requests_and_its_present_end() {
    let mut world = World::asked(&ONE);
    world.step(world.approve("bob"), NOON);
    world.fetch(NOON);
    let request = world.request.digest();
    world.step(world.extend("alice", minutes(20)), NOON + 5);
    let mut bytes = Bytes::default();
    bytes.field(b"hallpass extension v1");
    bytes.field(request.bytes());
    bytes.count(1);
    bytes.number(NOON + 40 * 60);
    bytes.number(20 * 60);
    bytes.field(b"not done yet");
    bytes.number(NOON + 5);
    bytes.number(1);
    assert_eq!(world.request.digest(), bytes.hashed());
}
