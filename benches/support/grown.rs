//! Stores that have been in use for long: entries and hosts in numbers, and accesses as people make them.

use std::collections::BTreeSet;
use std::sync::Arc;

use hallpass::audit::checkpoint::LogKey;
use hallpass::audit::event::Event;
use hallpass::audit::host_event::HostEvent;
use hallpass::inventory::check_in::{CheckIn, Seen};
use hallpass::inventory::double::Runs;
use hallpass::name::{Digest, HostName, ReportId, RequestId};
use hallpass::ssh::private::SessionKey;
use hallpass::store::{self, Change, Note, Save, Store};
use hallpass::time::Lifetime;

use crate::hosts;
use crate::support::{World, person};

/// How many events go into one change.
const AT_ONCE: u64 = 1_000;

/// Accesses, one after the other, each until its window is over.
pub(crate) async fn live(world: &mut World, count: u32) {
    let mut granted = Vec::new();
    let numbers: Vec<u32> = (0..count).collect();
    // A login is good for half a day, and each access takes half an hour.
    for some in numbers.chunks(8) {
        let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
        for _ in some {
            let view = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap();
            let id = view.request.id();
            world.approve_signed("bob", &bob, id).await.unwrap();
            granted.push((id, world.fetch(&alice, id).await.unwrap()));
            world.pass(1_800);
            world.service().tick().await.unwrap();
        }
    }
    world.stop();
    let store = open(world).await;
    for (number, (id, certificate)) in granted.iter().enumerate() {
        let serial = certificate.tbs().fields().serial.number();
        let key_id = certificate.tbs().fields().key_id.as_str().to_owned();
        let opened = HostEvent::SessionOpened {
            host: HostName::parse("web-1").unwrap(),
            report: report(number, "o"),
            serial,
            key_id,
            ca: certificate.ca_fingerprint(),
            account: "deploy".to_owned(),
            from: "192.0.2.17 port 51234".to_owned(),
            opened: world.now(),
            request: Some(*id),
        };
        tell(&*store, world, report(number, "o"), opened).await;
        tell(&*store, world, report(number, "e"), session_ended(number, *id, world)).await;
    }
    drop(store);
    world.restart().await;
}

fn report(number: usize, what: &str) -> ReportId {
    ReportId::parse(&format!("{what}{number:07}")).unwrap()
}

async fn tell(store: &dyn Store, world: &World, report: ReportId, event: HostEvent) {
    let host = HostName::parse("web-1").unwrap();
    let saves = vec![Save::Report { host, report }];
    store.commit(Change { at: world.now(), saves, events: vec![event.into()] }).await.unwrap();
}

fn session_ended(number: usize, request: RequestId, world: &World) -> HostEvent {
    HostEvent::SessionEnded {
        host: HostName::parse("web-1").unwrap(),
        report: report(number, "o"),
        serial: u64::try_from(number).unwrap(),
        account: "deploy".to_owned(),
        ended: world.now(),
        why: "the window ended".to_owned(),
        request: Some(request),
    }
}

async fn open(world: &World) -> Arc<dyn Store> {
    let log_key = LogKey::new("hallpass.example.com/log", &world.log_seed).unwrap();
    Arc::from(store::open(&world.store, log_key.derive(store::SEAL_PURPOSE)).await.unwrap())
}

/// So many entries more in a world that stands still.
pub(crate) async fn with_entries(world: &World, count: u64) {
    let store = open(world).await;
    for from in (0..count).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let key = SessionKey::generate([0x55; 32]).public_key().fingerprint();
        let expires = world.now().plus(Lifetime::minutes(720)).unwrap();
        let login = || Event::LoggedIn { person: person("alice"), key, address: "192.0.2.17".to_owned(), expires };
        let events = (from..count.min(from + AT_ONCE)).map(|_| login()).collect();
        store.commit(Change { at: world.now(), saves: Vec::new(), events }).await.unwrap();
    }
}

/// So many enrolled hosts in a world that stands still; each has checked in.
pub(crate) async fn with_hosts(world: &World, count: u32) {
    let store = open(world).await;
    hosts::enrol(&*store, world.now(), count).await;
    let numbers: Vec<u32> = (0..count).collect();
    for some in numbers.chunks(usize::try_from(hosts::AT_ONCE).unwrap()) {
        let mut notes = tokio::task::JoinSet::new();
        for number in some {
            let (store, host) = (Arc::clone(&store), HostName::parse(&hosts::host_name(*number)).unwrap());
            let seen = Seen { at: world.now(), check_in: check_in() };
            notes.spawn(async move { store.note(Note::Seen { host, seen }).await.unwrap() });
        }
        notes.join_all().await;
    }
}

fn check_in() -> CheckIn {
    let key = SessionKey::generate([0x77; 32]).public_key().fingerprint();
    CheckIn {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        sshd: "OpenSSH_9.2p1".to_owned(),
        os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        guard: true,
        file_sha256: Digest::new([2; 32]),
        keys: BTreeSet::from([key]),
        proven: BTreeSet::from([key]),
        shows: BTreeSet::new(),
        clock_ms: 12,
        risky: BTreeSet::new(),
        sessions: 1,
        runs: Runs::of(Some(Digest::new([3; 32]))),
    }
}
