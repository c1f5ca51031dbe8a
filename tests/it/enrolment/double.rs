//! Two real machines with one host key: a copied disk.

use std::time::Duration;

use super::host::{Host, until};
use super::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_machine_is_noticed_when_both_daemons_run() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    // Both have the keys of this machine; the second has an id of its own, as an image gives it.
    let (original, copy) = (Host::start(""), Host::start(""));
    copy.edit("machine-id", |_| "00000000000000000000000000000001\n".to_owned());
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    original.ok(&words);
    let first = original.daemon();
    let in_touch = |host: &Host| host.ok(&["host", "status"]).contains("in touch");
    until("the daemon is in touch", Duration::from_secs(30), || in_touch(&original));
    let noted =
        || service.run("omar", &["audit", "search", "kind:host_doubled"]).matches("two machines check in").count();
    assert_eq!(noted(), 0);
    // It says that it is web-1, and has the key to show for it.
    copy.ok(&words);
    let second = copy.daemon();
    until("the copy's daemon is in touch", Duration::from_secs(30), || in_touch(&copy));
    assert_eq!(noted(), 0, "a machine that was started again looks like this");
    // Both check in every few minutes; a daemon that starts does at once.
    first.stop();
    let _first = original.daemon();
    until("it is written down", Duration::from_secs(30), || noted() > 0);
    let shown = service.run("omar", &["admin", "host", "show", "web-1"]);
    assert!(shown.contains("two machines check in as web-1"), "{shown}");
    second.stop();
    let _second = copy.daemon();
    until("the copy's daemon is in touch", Duration::from_secs(30), || in_touch(&copy));
    assert_eq!(noted(), 1, "once");
    assert!(service.host("web-1").await.seen.unwrap().doubled.is_some());
    let hosts = service.run("omar", &["hosts"]);
    assert!(hosts.contains("on two machines"), "{hosts}");
}
