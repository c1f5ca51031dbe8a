//! Two user CAs and a real sshd for a host of each: the theft of one key opens the hosts of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use hallpass::name::CaName;
use hallpass::ssh::cert::Certificate;
use hallpass::ssh::private::SessionKey;
use hallpass::time::Lifetime;

use super::site::{Login, Site};
use super::{clock, rule};
use crate::support::{Faulty, World, policy};

/// A service with a CA for production beside the default one, and a host of each that policy knows.
async fn world() -> World {
    let mut world = World::unstarted(std::time::Duration::from_secs(10));
    let prod = CaName::parse("prod").unwrap();
    world.named = BTreeMap::from([(prod, vec![Arc::new(Faulty::new([0xE1; 32]))])]);
    let hosts = "[[ca]]\ntag = \"env=prod\"\nname = \"prod\"\n\
                 [[host]]\nname = \"shop-1\"\ntags = { env = \"prod\" }\n[[host]]\nname = \"lab-1\"\n";
    let more = rule("").replace("name = \"r\"", "name = \"any\"").replace("\"*\"", "\"shop-1\", \"lab-1\"");
    world.try_start(Some(&format!("{}\n{hosts}{more}", policy()))).await.unwrap();
    world
}

async fn issued(world: &World, host: &str, key: &SessionKey) -> Certificate {
    let alice = world.proven("alice").await;
    let mut ask = world.ask(&[host], &Site::account());
    ask.key = key.public_key().clone();
    ask.lifetime = Some(Lifetime::minutes(30));
    let view = world.service().ask(&alice, ask).await.unwrap();
    world.fetch(&alice, view.request.id()).await.unwrap()
}

#[tokio::test]
async fn a_certificate_by_the_key_of_one_ca_opens_no_host_of_another() {
    let world = world().await;
    let account = Site::account();
    let (shop, lab) = (SessionKey::generate([41; 32]), SessionKey::generate([42; 32]));
    let (for_shop, for_lab) = (issued(&world, "shop-1", &shop).await, issued(&world, "lab-1", &lab).await);
    let prod = world.service().trust_bundle_of(&CaName::parse("prod").unwrap()).unwrap().text;
    let usual = world.service().trust_bundle().text;
    assert!(prod.contains("\n# ca prod\n") && !usual.contains("# ca "), "{prod}{usual}");

    let mut site = Site::new();
    let now = clock(world.now());
    // As bad as can be: each sshd takes the principals of both hosts, so that the key alone decides.
    let both = format!("{account}@shop-1\n{account}@lab-1");
    let principals = [(account.as_str(), both.as_str())];
    let hosts = [
        site.host(&prod, Some(&principals), Some(&now), "").await,
        site.host(&usual, Some(&principals), Some(&now), "").await,
    ];
    let certificates = [(&shop, &for_shop), (&lab, &for_lab)];
    for (host_number, host) in hosts.iter().enumerate() {
        for (number, (key, certificate)) in certificates.iter().enumerate() {
            let login = Login {
                key,
                certificate: Some(certificate),
                account: &account,
                options: &[],
                command: &["echo", "in"],
            };
            let tried = site.ssh(host, &login).await;
            if number == host_number {
                tried.expect_ok("in");
            } else {
                tried.expect_refused("CA");
            }
        }
    }
    world.check().await;
}
