//! Several user CAs: what is asked, issued, trusted and rotated for each, and hosts that go over from one to another.

use std::collections::BTreeSet;
use std::sync::Arc;

use hallpass::access::Refusal;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::host_event::HostEvent;
use hallpass::client::Client;
use hallpass::keyring::Ca;
use hallpass::keyring::plan::Blocked;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::name::{CaName, HostName, RequestId, Tag, TagKey};
use hallpass::note::NoteVerifier;
use hallpass::service::rotate::RotationWish;
use hallpass::service::{Failure, Outcome};
use hallpass::ssh::bundle::{Bundle, KeyState};
use hallpass::ssh::{Fingerprint, PublicKey};
use hallpass::store;
use hallpass::wire::host as wire;
use sha2::Digest as _;

use crate::api::site::Site;
use crate::hosts::machine::{Machine, join};
use crate::support::Faulty;
use crate::support::postgres::cluster;

pub(super) fn prod() -> CaName {
    CaName::parse("prod").unwrap()
}

pub(super) fn keys(site: &Site) -> [PublicKey; 3] {
    let named = &site.world.named[&prod()];
    [site.world.signer.public_key_of(), named[0].public_key_of(), named[1].public_key_of()]
}

const RULES: &str = "\n[[ca]]\ntag = \"env=prod\"\nname = \"prod\"\n\
    [[rule]]\nname = \"shops\"\nwho = [\"group:backend\"]\nhosts = [\"shop-*\"]\naccounts = [\"deploy\"]\n";

/// A site with a CA for production beside the default one, each with a key to change to, and two hosts that have joined, none with a tag.
pub(super) async fn site() -> (Site, Vec<Machine>) {
    let mut site = Site::new().await;
    site.stop().await;
    with_cas(site).await
}

/// The same in a database that several nodes could share.
pub(super) async fn site_on_postgres() -> (Site, Vec<Machine>) {
    let mut site = Site::new().await;
    site.stop().await;
    site.world.store = store::Settings::Postgres(cluster().settings(&cluster().database()));
    std::fs::remove_file(site.world.folder.path().join("head")).unwrap();
    site.world.try_start(Some(&crate::support::policy())).await.unwrap();
    with_cas(site).await
}

async fn with_cas(mut site: Site) -> (Site, Vec<Machine>) {
    site.world.next = vec![Arc::new(Faulty::new([0xD1; 32]))];
    site.world.named.insert(prod(), vec![Arc::new(Faulty::new([0xE1; 32])), Arc::new(Faulty::new([0xE2; 32]))]);
    site.start().await;
    apply(&site, RULES).await.unwrap();
    let token = join(&site, &["shop-*"], 10).await.token;
    let machines = vec![Machine::new("shop-1", &[0xA1]), Machine::new("shop-2", &[0xA2])];
    for machine in &machines {
        machine.enrol(&site, &token).await.unwrap();
        check_in(&site, machine, true).await;
    }
    (site, machines)
}

/// Applies the world's policy with these lines behind it.
async fn apply(site: &Site, more: &str) -> Outcome<()> {
    let text = format!("{}{more}", crate::support::policy());
    let omar = site.proven("omar").await;
    site.world.service().apply_policy(&omar, text, None, false).await.map(drop)
}

pub(super) async fn tag(site: &Site, host: &str, set: &[&str], unset: &[&str]) {
    let set = set.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
    let unset = unset.iter().map(|key| TagKey::parse(key).unwrap()).collect();
    let omar = site.proven("omar").await;
    site.world.service().tag_host(&omar, &HostName::parse(host).unwrap(), set, unset).await.unwrap();
}

async fn logged_in(site: &Site, machine: &Machine) -> Client {
    site.client(Some(&machine.session(site).await.unwrap().token))
}

pub(super) async fn bundle(site: &Site, machine: &Machine) -> Bundle {
    let state: wire::State = logged_in(site, machine).await.get("/v1/hosts/self/state").await.unwrap();
    let log_key = NoteVerifier::parse(&site.world.service().log_verifier()).unwrap();
    let bundle = Bundle::open(&state.bundle.text, &log_key).unwrap();
    assert_eq!(bundle.version(), state.bundle.version);
    bundle
}

pub(super) fn trusted(bundle: &Bundle) -> BTreeSet<Fingerprint> {
    bundle.keys().iter().map(|known| known.key.fingerprint()).collect()
}

pub(super) fn fingerprints(keys: &[&PublicKey]) -> BTreeSet<Fingerprint> {
    keys.iter().map(|key| key.fingerprint()).collect()
}

/// The host has put its bundle in place, and says so; with a login to itself by each key in it.
pub(super) async fn check_in(site: &Site, machine: &Machine, has_tried: bool) {
    let host = logged_in(site, machine).await;
    let state: wire::State = host.get("/v1/hosts/self/state").await.unwrap();
    let keys: Vec<String> = Bundle::claimed(&state.bundle.text)
        .unwrap()
        .keys()
        .iter()
        .map(|known| known.key.fingerprint().to_string())
        .collect();
    let file = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(state.bundle.text.as_bytes()));
    let body = wire::CheckIn {
        about: wire::About { program: "0.1.0".into(), sshd: "OpenSSH_9.2p1".into(), os: "Debian 12".into() },
        trust: wire::Trust { file_sha256: file, proven: if has_tried { keys.clone() } else { Vec::new() }, keys },
        clock_ms: 0,
        guard: true,
        risky: Vec::new(),
        sessions: Vec::new(),
        run: None,
        shows: Vec::new(),
    };
    host.post::<_, wire::Nothing>("/v1/hosts/check-in", &body).await.unwrap();
}

pub(super) async fn ask(site: &Site, hosts: &[&str]) -> Outcome<RequestId> {
    let alice = site.proven("alice").await;
    Ok(site.world.service().ask(&alice, site.world.ask(hosts, "deploy")).await?.request.id())
}

/// The key that signs what alice has asked for.
pub(super) async fn fetch(site: &Site, id: RequestId) -> Outcome<Fingerprint> {
    let alice = site.proven("alice").await;
    site.world.fetch(&alice, id).await.map(|certificate| certificate.ca_fingerprint())
}

fn wish(ca: Ca, step: Step) -> RotationWish {
    let what = Proposal { step, ca, key: None, accepted: BTreeSet::new(), is_early: false };
    RotationWish { what, reason: String::new() }
}

pub(super) async fn step(site: &Site, step: Step) -> Outcome<()> {
    let omar = site.proven("omar").await;
    site.world.service().rotate(&omar, wish(Ca::User(prod()), step)).await.map(drop)
}

pub(super) async fn tick(site: &Site) {
    site.world.pass(61);
    site.world.service().tick().await.unwrap();
}

#[tokio::test]
async fn each_host_trusts_the_keys_of_its_ca_alone_and_one_request_is_for_hosts_of_one() {
    let (site, machines) = site().await;
    let [usual, first, _] = keys(&site);
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    tick(&site).await;
    check_in(&site, &machines[0], true).await;
    let (prods, usuals) = (bundle(&site, &machines[0]).await, bundle(&site, &machines[1]).await);
    assert_eq!((prods.ca(), trusted(&prods)), (&prod(), fingerprints(&[&first])));
    assert_eq!((usuals.ca(), trusted(&usuals)), (&CaName::DEFAULT, fingerprints(&[&usual])));

    let refused = ask(&site, &["shop-1", "shop-2"]).await.unwrap_err();
    let Failure::Policy(verdict) = &refused else { panic!("{refused:?}") };
    let hallpass::policy::Outcome::Refuse(why) = &verdict.outcome else { panic!("{verdict:?}") };
    let why = &why[0].why;
    assert!(why.contains("shop-1 of CA prod") && why.contains("shop-2 of CA default"), "{why}");
    assert!(why.contains("ask once for each"), "{why}");
    assert_eq!(fetch(&site, ask(&site, &["shop-1"]).await.unwrap()).await.unwrap(), first.fingerprint());
    assert_eq!(fetch(&site, ask(&site, &["shop-2"]).await.unwrap()).await.unwrap(), usual.fingerprint());

    // For hosts that are made by hand each CA has an address; that of before is the default one's.
    let open = site.client(None);
    let by_name = open.text("/v1/ca/user-keys/prod").await.unwrap();
    assert!(by_name.contains(&first.to_openssh()) && !by_name.contains(&usual.to_openssh()), "{by_name}");
    assert_eq!(open.text("/v1/ca/user-keys/default").await.unwrap(), open.text("/v1/ca/user-keys").await.unwrap());
    assert!(open.text("/v1/ca/user-keys/lab").await.is_err());
    site.world.check().await;
}

#[tokio::test]
async fn a_policy_that_names_a_ca_which_the_service_does_not_have_is_refused_when_applied_and_at_a_start() {
    let (mut site, _) = site().await;
    let refused = apply(&site, &RULES.replace("\"prod\"\n", "\"lab\"\n")).await.unwrap_err();
    let Failure::BadPolicy { problems, .. } = &refused else { panic!("{refused:?}") };
    assert!(problems[0].what.contains("no CA \"lab\"") && problems[0].what.contains("default, prod"), "{problems:?}");
    site.stop().await;
    let named = std::mem::take(&mut site.world.named);
    let refused = site.world.try_start(None).await.unwrap_err().to_string();
    assert!(refused.contains("no CA \"prod\"") && refused.contains("put the keys of that CA back"), "{refused}");
    site.world.named = named;
    site.start().await;
    site.world.check().await;
}

#[tokio::test]
async fn a_host_that_goes_over_keeps_the_old_key_for_its_last_certificate_and_waits_for_its_proof() {
    goes_over(site().await).await;
}

#[tokio::test]
async fn a_host_goes_over_in_a_shared_database_just_the_same() {
    goes_over(site_on_postgres().await).await;
}

async fn goes_over((mut site, machines): (Site, Vec<Machine>)) {
    let [usual, first, _] = keys(&site);
    let running = ask(&site, &["shop-1"]).await.unwrap();
    assert_eq!(fetch(&site, running).await.unwrap(), usual.fingerprint());
    let unfetched = ask(&site, &["shop-1"]).await.unwrap();
    let before = bundle(&site, &machines[0]).await;

    tag(&site, "shop-1", &["env=prod"], &[]).await;
    let over = bundle(&site, &machines[0]).await;
    assert!(over.version() > before.version(), "a bundle never goes back");
    assert_eq!((over.ca(), trusted(&over)), (&prod(), fingerprints(&[&first, &usual])));
    let states: Vec<KeyState> = over.keys().iter().map(|known| known.state).collect();
    assert_eq!(states, [KeyState::Active, KeyState::Draining], "for this host the old key signs nothing more");

    // What was decided for the old CA is signed by no other key, and by that one no more.
    for id in [running, unfetched] {
        let refused = fetch(&site, id).await.unwrap_err();
        let moved =
            matches!(&refused, Failure::Refused(Refusal::PolicyChanged { what, .. }) if what.contains("another CA"));
        assert!(moved, "{refused:?}");
    }
    // The new key signs for it when the host has proven that it trusts it.
    let next = ask(&site, &["shop-1"]).await.unwrap();
    assert!(fetch(&site, next).await.unwrap_err().to_string().contains("does not prove yet"));
    check_in(&site, &machines[0], false).await;
    assert!(fetch(&site, next).await.unwrap_err().to_string().contains("does not prove yet"));
    check_in(&site, &machines[0], true).await;
    assert_eq!(fetch(&site, next).await.unwrap(), first.fingerprint());

    // A tick drops the old key when its last certificate for this host has ended, and no earlier.
    tick(&site).await;
    assert!(trusted(&bundle(&site, &machines[0]).await).contains(&usual.fingerprint()), "a certificate by it lasts");
    site.world.pass(30 * 60);
    tick(&site).await;
    // Nothing of it is in memory alone.
    site.stop().await;
    site.start().await;
    let settled = bundle(&site, &machines[0]).await;
    assert_eq!(trusted(&settled), fingerprints(&[&first]));
    assert!(settled.version() > over.version());

    // And back again, by the policy; its versions go on growing.
    apply(&site, &RULES.replace("env=prod", "env=elsewhere")).await.unwrap();
    let back = bundle(&site, &machines[0]).await;
    assert!(back.version() > settled.version());
    assert_eq!((back.ca(), trusted(&back)), (&CaName::DEFAULT, fingerprints(&[&usual, &first])));
    site.world.check().await;
}

#[tokio::test]
async fn a_host_that_joins_as_one_of_a_named_ca_trusts_no_other_key_at_any_time() {
    let (site, _) = site().await;
    let [_, first, _] = keys(&site);
    let mut wish = wire::JoinFor { names: vec!["shop-9".to_owned()], ..wire::JoinFor::default() };
    wish.tags = vec!["env=prod".to_owned()];
    let token = crate::hosts::machine::join_for(&site, wish).await.token;
    let machine = Machine { tags: vec!["env=prod".to_owned()], ..Machine::new("shop-9", &[0xA9]) };
    let enrolled = machine.enrol(&site, &token).await.unwrap();
    let own = Bundle::claimed(&enrolled.state.bundle.text).unwrap();
    assert_eq!((own.ca(), trusted(&own)), (&prod(), fingerprints(&[&first])));
    assert_eq!(fetch(&site, ask(&site, &["shop-9"]).await.unwrap()).await.unwrap(), first.fingerprint());
    site.world.check().await;
}

#[tokio::test]
async fn a_rotation_of_one_ca_counts_its_hosts_alone_and_leaves_the_bundles_of_the_other_as_they_are() {
    let (mut site, machines) = site().await;
    let [usual, first, second] = keys(&site);
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    tick(&site).await;
    check_in(&site, &machines[0], true).await;
    let (left_alone, of_prod) = (bundle(&site, &machines[1]).await, bundle(&site, &machines[0]).await);
    step(&site, Step::Start).await.unwrap();
    let learning = bundle(&site, &machines[0]).await;
    assert!(learning.version() > of_prod.version());
    assert_eq!(trusted(&learning), fingerprints(&[&first, &second]));
    let refused = step(&site, Step::Switch).await.unwrap_err();
    let Failure::Rotation(Blocked::Unproven { hosts, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(hosts.keys().map(HostName::as_str).collect::<Vec<_>>(), ["shop-1"], "shop-2 is of the other CA");
    check_in(&site, &machines[0], true).await;
    step(&site, Step::Switch).await.unwrap();
    assert_eq!(fetch(&site, ask(&site, &["shop-1"]).await.unwrap()).await.unwrap(), second.fingerprint());
    site.stop().await;
    site.start().await;
    assert_eq!(bundle(&site, &machines[1]).await, left_alone);
    assert_eq!(fetch(&site, ask(&site, &["shop-2"]).await.unwrap()).await.unwrap(), usual.fingerprint());

    let omar = site.proven("omar").await;
    let view = site.world.service().ca_keys(&omar).await.unwrap();
    let of = |key: &PublicKey| view.keys.iter().find(|one| one.known.key == *key).unwrap().known.clone();
    assert_eq!((of(&first).ca, of(&first).state), (Ca::User(prod()), KeyState::Draining));
    assert_eq!((of(&usual).ca, of(&usual).state), (Ca::USER, KeyState::Active));
    assert_eq!(view.hosts.get(&prod()), Some(&1));
    step(&site, Step::Finish).await.unwrap();
    let missing = site.world.service().rotate(&omar, wish(Ca::User(CaName::parse("lab").unwrap()), Step::Start)).await;
    assert!(matches!(missing, Err(Failure::NotFound("CA"))), "{missing:?}");
    site.world.check().await;
}

#[tokio::test]
async fn the_theft_of_the_only_key_of_one_ca_stops_nobody_on_the_hosts_of_the_other() {
    let (mut site, machines) = site().await;
    site.stop().await;
    site.world.named.get_mut(&prod()).unwrap().truncate(1);
    site.start().await;
    let [usual, first] = [site.world.signer.public_key_of(), site.world.named[&prod()][0].public_key_of()];
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    tick(&site).await;
    check_in(&site, &machines[0], true).await;
    let (on_prod, on_usual) = (ask(&site, &["shop-1"]).await.unwrap(), ask(&site, &["shop-2"]).await.unwrap());
    let lost = RotationWish {
        what: Proposal { key: Some(first.fingerprint()), ..wish(Ca::USER, Step::Compromise).what },
        reason: "stolen".to_owned(),
    };
    let omar = site.proven("omar").await;
    let view = site.world.service().rotate(&omar, lost).await.unwrap();
    assert!(view.attention.iter().any(|said| said.contains("[ca.named.prod]")), "{:?}", view.attention);
    assert!(bundle(&site, &machines[0]).await.keys().is_empty(), "nothing is left to trust");
    assert!(matches!(fetch(&site, on_prod).await, Err(Failure::Unavailable(_))));
    assert_eq!(fetch(&site, on_usual).await.unwrap(), usual.fingerprint());
    assert!(site.world.service().ready().await.is_ok());
    site.world.check().await;
}

/// Which moves the log tells of.
async fn moves(site: &Site) -> Vec<(String, CaName, bool)> {
    let ada = site.proven("ada").await;
    let entries = site.world.entries(&ada).await;
    let told = |bytes: &Vec<u8>| match Entry::parse(bytes).unwrap().event {
        Event::Host(HostEvent::HostMoved { host, ca, waits, .. }) => Some((host.to_string(), ca, waits)),
        _ => None,
    };
    entries.iter().filter_map(told).collect()
}

#[tokio::test]
async fn the_log_says_which_ca_a_host_was_of_and_when() {
    let (site, machines) = site().await;
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    tag(&site, "shop-1", &["role=web"], &[]).await;
    check_in(&site, &machines[0], true).await;
    tag(&site, "shop-1", &[], &["env"]).await;
    let told = moves(&site).await;
    let shop = || "shop-1".to_owned();
    assert_eq!(told, [(shop(), prod(), true), (shop(), prod(), false), (shop(), CaName::DEFAULT, true)]);
    site.world.check().await;
}
