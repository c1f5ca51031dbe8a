//! What the service shows a host of its CA is enough for each of its own bundles, and for no other, wherever it goes over to.

use hallpass::client::Client;
use hallpass::enrolment::had::{self, Before, Had, Wanted};
use hallpass::name::HostName;
use hallpass::note::NoteVerifier;
use hallpass::ssh::bundle::Bundle;
use hallpass::wire::host as wire;

use super::cas::{check_in, site, tag};
use crate::api::site::Site;
use crate::hosts::machine::{Machine, join};

/// A host that goes by what it has had, as its daemon does.
struct Host<'s> {
    site: &'s Site,
    machine: &'s Machine,
    log_key: NoteVerifier,
    had: Option<Had>,
    /// All that it was ever given, and the default CA's bundle, which everybody can fetch.
    bundles: Vec<Bundle>,
    /// All that it was ever shown.
    shown: Vec<Option<String>>,
}

impl Host<'_> {
    fn check(&self, bundle: &Bundle, belongs: Option<&str>) -> Result<(), String> {
        let host = HostName::parse(&self.machine.name).unwrap();
        let wanted = Wanted { host: &host, belongs, log_key: &self.log_key };
        had::check(bundle, self.had.as_ref(), wanted).map_err(|refused| refused.why)
    }

    /// Takes what the service has for it now, which is of this CA; nothing of before, of another CA, is taken after it.
    async fn take(&mut self, ca: &str) {
        let client: Client = self.site.client(Some(&self.machine.session(self.site).await.unwrap().token));
        let state: wire::State = client.get("/v1/hosts/self/state").await.unwrap();
        let bundle = Bundle::open(&state.bundle.text, &self.log_key).unwrap();
        assert_eq!(bundle.ca().as_str(), ca);
        self.check(&bundle, state.belongs.as_deref()).unwrap();
        let host = HostName::parse(&self.machine.name).unwrap();
        self.had = Some(Had::of(&bundle, Wanted { host: &host, belongs: None, log_key: &self.log_key }));
        let public = Bundle::open(&self.site.world.service().trust_bundle().text, &self.log_key).unwrap();
        self.bundles.extend([public, bundle]);
        self.shown.push(state.belongs);
        for other in self.bundles.iter().filter(|bundle| bundle.ca().as_str() != ca) {
            for shown in &self.shown {
                assert!(self.check(other, shown.as_deref()).is_err(), "{other:?} {shown:?} after {:?}", self.had);
            }
        }
        check_in(self.site, self.machine, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_takes_each_bundle_of_its_own_and_none_of_another_ca_wherever_it_goes_over_to() {
    let (site, machines) = site().await;
    let log_key = NoteVerifier::parse(&site.world.service().log_verifier()).unwrap();
    let mut host =
        Host { site: &site, machine: &machines[0], log_key, had: None, bundles: Vec::new(), shown: vec![None] };
    host.take("default").await;
    for _ in 0..2 {
        tag(&site, "shop-1", &["env=prod"], &[]).await;
        host.take("prod").await;
        host.take("prod").await;
        tag(&site, "shop-1", &[], &["env"]).await;
        host.take("default").await;
    }
    // While it is away it goes over, and back, and over again.
    for _ in 0..2 {
        tag(&site, "shop-1", &["env=prod"], &[]).await;
        check_in(&site, host.machine, true).await;
        tag(&site, "shop-1", &[], &["env"]).await;
    }
    host.take("default").await;
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    host.take("prod").await;
    // Retired, and there again without the tag.
    let omar = site.proven("omar").await;
    let name = HostName::parse("shop-1").unwrap();
    site.world.service().retire_host(&omar, &name, "moved house").await.unwrap();
    let token = join(&site, &["shop-*"], 10).await.token;
    host.machine.enrol(&site, &token).await.unwrap();
    host.take("default").await;
    // What is shown of another host is no good here.
    tag(&site, "shop-2", &["env=prod"], &[]).await;
    let client = site.client(Some(&machines[1].session(&site).await.unwrap().token));
    let state: wire::State = client.get("/v1/hosts/self/state").await.unwrap();
    let others = Bundle::open(&state.bundle.text, &host.log_key).unwrap();
    assert!(host.check(&others, state.belongs.as_deref()).unwrap_err().contains("shop-2 is of CA prod"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_of_a_named_ca_comes_under_a_new_name_and_is_of_the_default_ca() {
    let (site, mut machines) = site().await;
    let log_key = NoteVerifier::parse(&site.world.service().log_verifier()).unwrap();
    let mut machine = machines.remove(0);
    let web_1 = HostName::parse(&machine.name).unwrap();
    tag(&site, "shop-1", &["env=prod"], &[]).await;
    let client = site.client(Some(&machine.session(&site).await.unwrap().token));
    let prod: wire::State = client.get("/v1/hosts/self/state").await.unwrap();
    let wanted = Wanted { host: &web_1, belongs: None, log_key: &log_key };
    let there = Bundle::open(&prod.bundle.text, &log_key).unwrap();
    assert_eq!(there.ca().as_str(), "prod");
    let remembered = Had::of(&there, wanted);
    site.world.service().retire_host(&site.proven("omar").await, &web_1, "another name").await.unwrap();
    let token = join(&site, &["shop-*"], 10).await.token;
    machine.name = "shop-9".to_owned();
    let state = machine.enrol(&site, &token).await.unwrap().state;
    let default = Bundle::open(&state.bundle.text, &log_key).unwrap();
    assert!(default.ca().is_default() && default.version() < there.version());
    let name = HostName::parse("shop-9").unwrap();
    let wanted = Wanted { host: &name, belongs: state.belongs.as_deref(), log_key: &log_key };
    let before = Before::of(Some(remembered.clone()), &prod.bundle.text, wanted, Some(&web_1));
    had::check(&default, before.newest.as_ref(), wanted).unwrap();
    // What it has had counts for the name that it had.
    let wanted = Wanted { host: &web_1, ..wanted };
    let before = Before::of(Some(remembered), &prod.bundle.text, wanted, Some(&web_1));
    had::check(&default, before.newest.as_ref(), wanted).unwrap_err();
}
