//! The pages, as a browser and as an attacker meet them: real TLS, the real router and service.

mod browser;
mod forms;
mod pages;
mod rates;
mod sessions;

use hallpass::wire;

use crate::api::site::Site;

/// A waiting request of alice's for these hosts, with this reason.
async fn asked(site: &Site, hosts: &[&str], reason: &str) -> wire::Request {
    let ask = wire::Ask {
        targets: hosts.iter().map(|host| (*host).to_owned()).collect(),
        reason: reason.to_owned(),
        lifetime: Some("1h".to_owned()),
        ..site.ask("web-1", "deploy")
    };
    site.logged_in("alice").await.post("/v1/requests", &ask).await.unwrap()
}

/// The id without its hyphen.
fn digits(request: &wire::Request) -> String {
    request.id.replace('-', "")
}

/// The request as its asker sees it.
async fn now(site: &Site, id: &str) -> wire::Request {
    site.logged_in("alice").await.get(&format!("/v1/requests/{id}")).await.unwrap()
}

/// The kinds of all entries of the log.
async fn kinds(site: &Site) -> Vec<String> {
    let entries: wire::Entries = site.logged_in("ada").await.get("/v1/log/entries").await.unwrap();
    let kind = |entry: &String| hallpass::audit::entry::Entry::parse(entry.as_bytes()).unwrap().event.kind().to_owned();
    entries.entries.iter().map(kind).collect()
}
