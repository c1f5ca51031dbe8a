//! Enrolled hosts in numbers: put into a store that nobody serves, as the service would have.

use std::collections::BTreeSet;

use hallpass::audit::event::Event;
use hallpass::audit::host_event::HostEvent;
use hallpass::name::{Digest, HostName, JoinId, NamePattern, PersonName, Tag};
use hallpass::ssh::private::SessionKey;
use hallpass::store::{Change, Save, Store};
use hallpass::time::{Lifetime, Timestamp};

/// How many hosts go into one change.
pub(crate) const AT_ONCE: u32 = 1_000;

pub(crate) fn host_name(number: u32) -> String {
    format!("web-{number}.example.com")
}

/// The key that is this host's identity.
pub(crate) fn host_key(number: u32) -> SessionKey {
    let mut seed = [0x66; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SessionKey::generate(seed)
}

/// So many hosts, let in by omar at this time.
pub(crate) async fn enrol(store: &dyn Store, at: Timestamp, count: u32) {
    let join = JoinId::from_random([1; 5]);
    let created = HostEvent::JoinCreated {
        join: join.clone(),
        by: PersonName::parse("omar").unwrap(),
        token: Digest::new([1; 32]),
        uses: u64::from(count),
        expires: at.plus(Lifetime::minutes(60)).unwrap(),
        names: BTreeSet::from([NamePattern::parse("web-*").unwrap()]),
        tags: BTreeSet::new(),
        may_tag: None,
    };
    save(store, at, 0, vec![created.into()]).await;
    for from in (0..count).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let some = from..count.min(from + AT_ONCE);
        save(store, at, u64::from(1 + from), some.map(|number| enrolled(number, &join).into()).collect()).await;
    }
}

async fn save(store: &dyn Store, at: Timestamp, expected: u64, events: Vec<Event>) {
    store.commit(Change { at, saves: vec![Save::Inventory { expected }], events }).await.unwrap();
}

fn enrolled(number: u32, join: &JoinId) -> HostEvent {
    let tags = ["env=prod", "role=web", "region=eu-1"].map(|tag| Tag::parse(tag).unwrap());
    HostEvent::HostEnrolled {
        host: HostName::parse(&host_name(number)).unwrap(),
        join: join.clone(),
        keys: vec![host_key(number).public_key().clone()],
        names: BTreeSet::new(),
        tags: tags.into(),
    }
}
