//! An older copy of the database is put back, and what is lost with the newer one are steps of CA keys, and hosts that went over from one CA to
//! another: what hosts hold is newer than what the service knows, and taking the steps again brings both together.

use hallpass::audit::export;
use hallpass::keyring::step::Step;
use hallpass::name::RequestId;
use hallpass::service::Failure;
use hallpass::ssh::Fingerprint;

use super::cas::{
    ask, bundle, check_in, fetch, fingerprints, keys, prod, site, site_on_postgres, step, tag, tick, trusted,
};
use crate::api::site::Site;
use crate::hosts::machine::Machine;
use crate::story::recovery::{Copy, database_copy, exported, file_copy, key, refused_start, try_recover, word};
use crate::support::prefix;

/// The key that signs a certificate of which nobody will know.
async fn lost_key(site: &Site, id: RequestId) -> Fingerprint {
    let alice = site.proven("alice").await;
    let certificate = site.world.service().certificate(&alice, &prefix(id)).await.unwrap();
    certificate.ca_fingerprint()
}

async fn moves_that_are_lost((mut site, machines): (Site, Vec<Machine>), copy: Copy) {
    let [usual, first, second] = keys(&site);
    let [one, two] = [&machines[0], &machines[1]];
    let running = ask(&site, &["shop-1"]).await.unwrap();
    assert_eq!(fetch(&site, running).await.unwrap(), usual.fingerprint());
    // In the copy one host is of the default CA, and the other is on its way, with a certificate by the key that it leaves.
    let leaving = ask(&site, &["shop-2"]).await.unwrap();
    assert_eq!(fetch(&site, leaving).await.unwrap(), usual.fingerprint());
    tag(&site, "shop-2", &["env=prod"], &[]).await;
    let on_its_way = bundle(&site, two).await;
    assert_eq!(trusted(&on_its_way), fingerprints(&[&first, &usual]));
    site.stop().await;
    site.world.stop();
    let older = copy(&site.world);

    // What nobody will know of: the one goes over, too, both arrive, and the next key of their CA is told to them.
    site.start().await;
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    for machine in [one, two] {
        check_in(&site, machine, true).await;
    }
    tick(&site).await;
    let lost_ask = ask(&site, &["shop-1"]).await.unwrap();
    assert_eq!(lost_key(&site, lost_ask).await, first.fingerprint());
    site.world.pass(31 * 60);
    tick(&site).await;
    step(&site, Step::Start).await.unwrap();
    let lost = [bundle(&site, one).await, bundle(&site, two).await];
    assert!(lost.iter().all(|bundle| trusted(bundle) == fingerprints(&[&first, &second])), "{lost:?}");
    // (what is kept aside covers what a certificate rests on)
    let last = ask(&site, &["shop-2"]).await.unwrap();
    check_in(&site, two, true).await;
    lost_key(&site, last).await;
    site.stop().await;
    site.world.store = older;
    assert!(refused_start(&mut site.world).await.contains("used twice"));
    try_recover(&site.world, &word(None)).await.unwrap();

    // The copy's word counts, and no more than it knows: a bundle of before is older than what the hosts have, which they refuse.
    site.start().await;
    for (machine, lost) in machines.iter().zip(&lost) {
        assert!(bundle(&site, machine).await.version() < lost.version());
    }
    assert_eq!(trusted(&bundle(&site, two).await), fingerprints(&[&first, &usual]), "it is on its way again");
    let going = ask(&site, &["shop-2"]).await.unwrap();
    assert!(fetch(&site, going).await.unwrap_err().to_string().contains("does not prove yet"));

    // The same steps again are newer than all that was lost.
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    let again = bundle(&site, one).await;
    assert!(again.version() > lost[0].version() && *again.ca() == prod());
    assert_eq!(trusted(&again), fingerprints(&[&first, &usual]));
    step(&site, Step::Start).await.unwrap();
    for (machine, lost) in machines.iter().zip(&lost) {
        let newer = bundle(&site, machine).await;
        assert!(newer.version() > lost.version());
        assert_eq!(trusted(&newer), fingerprints(&[&first, &second, &usual]));
        check_in(&site, machine, true).await;
    }
    assert_eq!(fetch(&site, going).await.unwrap(), first.fingerprint());
    // What was issued before the loss has ended, and is known not to be renewed.
    let over = fetch(&site, running).await;
    assert!(matches!(over, Err(Failure::Refused(_))), "{over:?}");
    tick(&site).await;
    for machine in [one, two] {
        assert_eq!(trusted(&bundle(&site, machine).await), fingerprints(&[&first, &second]), "the old key is let go");
    }
    site.world.check().await;
    let verified =
        export::verify(exported(&site.world).await.as_bytes(), Some(&key(&site.world).verifier()), None).unwrap();
    assert_eq!(verified.losses.len(), 1);
    // A start reads it all from the log.
    let before = [bundle(&site, one).await, bundle(&site, two).await];
    site.stop().await;
    site.start().await;
    assert_eq!([bundle(&site, one).await, bundle(&site, two).await], before);
}

#[tokio::test]
async fn hosts_that_went_over_in_what_is_lost_go_over_again() {
    moves_that_are_lost(site().await, file_copy).await;
}

#[tokio::test]
async fn hosts_that_went_over_in_what_a_database_server_lost_go_over_again() {
    moves_that_are_lost(site_on_postgres().await, database_copy).await;
}
