//! More than can be done: what is turned away and what goes on, over real TLS; slow clients; thousands that wait.
//!
//! Nothing here is timed. What is held up is held up by the test (the store, the CA key, a body that does not come), so that a place is
//! taken for as long as the test says; `/metrics` tells when it is.

mod http2;
mod slow;
mod waiters;

use hallpass::client::ClientError;
use hallpass::wire;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};

use crate::api::site::{Site, problem};
use crate::api::{approve, certificate};
use crate::support::Fault;

/// One call of a kind at once, and four that wait.
async fn narrow() -> Site {
    Site::with(|settings| settings.calls_at_once = 1).await
}

/// The value of a figure, as `/metrics` has it now.
async fn figure(site: &Site, name: &str) -> u64 {
    let text = site.client(None).text("/metrics").await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

/// Looks until a figure is at least so much.
async fn until_at_least(site: &Site, name: &str, least: u64) {
    while figure(site, name).await < least {
        tokio::task::yield_now().await;
    }
}

/// An ask as it comes: without a client that would come again by itself.
async fn raw_ask(site: &Site, http: &reqwest::Client, token: &str) -> reqwest::Response {
    let ask = site.ask("web-1", "deploy");
    http.post(format!("{}/v1/requests", site.url())).bearer_auth(token).json(&ask).send().await.unwrap()
}

/// Says that this answer turns a call away, and when to come again.
async fn assert_busy(answer: reqwest::Response) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
    let after: u64 = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=4).contains(&after), "{after}");
    let problem: wire::Problem = answer.json().await.unwrap();
    assert_eq!((problem.code.as_str(), problem.status, problem.retryable), ("busy", 503, true));
    assert_eq!(
        (problem.why, problem.next),
        (vec!["nothing was done".to_owned()], vec![format!("try again in {after} s")])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_are_turned_away_while_approvals_logins_and_status_go_on() {
    let site = narrow().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let pending: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    site.world.store_holds.send_replace(true);
    let first = tokio::spawn({
        let (alice, ask) = (site.logged_in("alice").await, site.ask("web-2", "deploy"));
        async move { alice.post::<_, wire::Request>("/v1/requests", &ask).await }
    });
    until_at_least(&site, "hallpass_http_under_way{kind=\"ask\"}", 1).await;

    let (http, token) = (site.http(), site.token("alice").await);
    let turned_away = futures(10, || raw_ask(&site, &http, &token)).await;
    for answer in turned_away {
        assert_busy(answer).await;
    }
    let extend = wire::Extend { lifetime: "10m".to_owned(), reason: "INC-1 not done yet".to_owned() };
    let extend =
        http.post(format!("{}/v1/requests/{}/extend", site.url(), pending.id)).bearer_auth(&token).json(&extend);
    assert_busy(extend.send().await.unwrap()).await;
    assert_eq!(figure(&site, "hallpass_http_shed_total{kind=\"ask\"}").await, 11);

    assert_eq!(approve(&bob, &pending.id).await.unwrap().state, "approved");
    let seen: wire::Request = alice.get(&format!("/v1/requests/{}", pending.id)).await.unwrap();
    assert_eq!(seen.state, "approved");
    certificate(&alice, &pending.id).await.unwrap();
    site.token("carol").await;

    site.world.store_holds.send_replace(false);
    assert_eq!(first.await.unwrap().unwrap().state, "pending");
    let later: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    approve(&bob, &later.id).await.unwrap();
    certificate(&alice, &later.id).await.unwrap();
    for figure_now in ["waiting", "under_way"] {
        let name = format!("hallpass_http_{figure_now}{{kind=\"ask\"}}");
        assert_eq!(figure(&site, &name).await, 0, "{figure_now}");
    }
    site.world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_key_that_hangs_holds_up_certificates_alone() {
    let site = narrow().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let mut approved = Vec::new();
    for host in ["web-1", "web-2"] {
        let asked: wire::Request = alice.post("/v1/requests", &site.ask(host, "deploy")).await.unwrap();
        approved.push(approve(&bob, &asked.id).await.unwrap().id);
    }
    site.world.signer.set(Fault::Hangs);
    let hangs = tokio::spawn({
        let (alice, id) = (site.logged_in("alice").await, approved[0].clone());
        async move { certificate(&alice, &id).await }
    });
    until_at_least(&site, "hallpass_http_under_way{kind=\"certificate\"}", 1).await;

    let path = format!("{}/v1/requests/{}/certificate", site.url(), approved[1]);
    assert_busy(site.http().post(path).bearer_auth(site.token("alice").await).send().await.unwrap()).await;
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    approve(&bob, &asked.id).await.unwrap();

    site.world.signer.set(Fault::None);
    hangs.await.unwrap().unwrap();
    certificate(&alice, &approved[1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_while_waiting_leaves_no_place_behind() {
    let site = narrow().await;
    let alice = site.logged_in("alice").await;
    site.world.store_holds.send_replace(true);
    let first = tokio::spawn({
        let (alice, ask) = (site.logged_in("alice").await, site.ask("web-1", "deploy"));
        async move { alice.post::<_, wire::Request>("/v1/requests", &ask).await }
    });
    until_at_least(&site, "hallpass_http_under_way{kind=\"ask\"}", 1).await;
    let (http, token) = (site.http(), site.token("alice").await);
    for _ in 0..3 {
        let mut waits = Box::pin(raw_ask(&site, &http, &token));
        // Given up while it waits for its turn (or, on a busy machine, with the refusal on its way).
        tokio::select! {
            answer = &mut waits => assert_busy(answer).await,
            () = until_at_least(&site, "hallpass_http_waiting{kind=\"ask\"}", 1) => {}
        }
        drop(waits);
        while figure(&site, "hallpass_http_waiting{kind=\"ask\"}").await > 0 {
            tokio::task::yield_now().await;
        }
    }
    site.world.store_holds.send_replace(false);
    first.await.unwrap().unwrap();
    alice.post::<_, wire::Request>("/v1/requests", &site.ask("web-2", "deploy")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_comes_again_by_itself_and_says_so() {
    let site = narrow().await;
    let (told, mut pauses) = tokio::sync::mpsc::unbounded_channel();
    let alice = site.logged_in("alice").await.telling(move |pause| told.send(pause).unwrap());
    site.world.store_holds.send_replace(true);
    let first = tokio::spawn({
        let (alice, ask) = (site.logged_in("alice").await, site.ask("web-1", "deploy"));
        async move { alice.post::<_, wire::Request>("/v1/requests", &ask).await }
    });
    until_at_least(&site, "hallpass_http_under_way{kind=\"ask\"}", 1).await;
    let ask = site.ask("web-2", "deploy");
    let again = tokio::spawn(async move { alice.post::<_, wire::Request>("/v1/requests", &ask).await });
    assert!(pauses.recv().await.unwrap() >= std::time::Duration::from_secs(1));
    site.world.store_holds.send_replace(false);
    assert_eq!(again.await.unwrap().unwrap().state, "pending");
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_without_time_says_that_the_server_is_busy() {
    let site = narrow().await;
    site.world.store_holds.send_replace(true);
    let first = tokio::spawn({
        let (alice, ask) = (site.logged_in("alice").await, site.ask("web-1", "deploy"));
        async move { alice.post::<_, wire::Request>("/v1/requests", &ask).await }
    });
    until_at_least(&site, "hallpass_http_under_way{kind=\"ask\"}", 1).await;
    // Less than the shortest pause.
    let hasty = site.client_for(Some(&site.token("alice").await), std::time::Duration::from_millis(990));
    match hasty.post::<_, wire::Request>("/v1/requests", &site.ask("web-2", "deploy")).await {
        // On a busy machine the refusal itself may come too late.
        Err(ClientError::Unreachable { .. }) => {}
        outcome => assert_eq!(problem(outcome).code, "busy"),
    }
    site.world.store_holds.send_replace(false);
    first.await.unwrap().unwrap();
}

/// So many of the same at once.
async fn futures<T>(count: usize, make: impl Fn() -> T) -> Vec<T::Output>
where
    T: Future,
{
    let mut pending: Vec<_> = (0..count).map(|_| Box::pin(make())).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}
