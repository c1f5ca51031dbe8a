//! One person has one rate, by whatever door they come; and tokens that are nobody's cost no more than the guesser's own rate.

use std::sync::atomic::Ordering;

use data_encoding::BASE64URL_NOPAD;
use hallpass::wire;
use reqwest::StatusCode;

use super::browser::Browser;
use crate::api::site::{Site, problem};

/// Few calls, and more only slowly.
async fn slow_site() -> Site {
    Site::with(|settings| (settings.rate_per_s, settings.rate_burst) = (1, 30)).await
}

#[tokio::test]
async fn two_sessions_and_a_browser_of_one_person_share_one_rate() {
    let site = slow_site().await;
    let (first, second) = (site.logged_in("alice").await, site.logged_in("alice").await);
    let browser = Browser::of(&site, "alice").await;
    let bob = site.logged_in("bob").await;
    let mut refused = None;
    for _ in 0..200 {
        refused = first.get::<wire::WhoAmI>("/v1/session").await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(problem(refused.map_or(Ok(()), Err)).code, "too_many");
    // A rate of its own would let each of them through 30 times.
    let (mut session, mut pages) = (0, 0);
    for _ in 0..20 {
        session += usize::from(second.get::<wire::WhoAmI>("/v1/session").await.is_err());
        pages += usize::from(browser.get("/").await.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(session > 0 && pages > 0, "{session} {pages}");
    bob.get::<wire::WhoAmI>("/v1/session").await.unwrap();
}

/// How a token is shown.
#[derive(Clone, Copy, Debug)]
enum Door {
    Api,
    Host,
    Page,
}

#[tokio::test]
async fn tokens_that_are_nobodys_are_looked_up_no_more_often_than_their_address_may_call() {
    for door in [Door::Api, Door::Host, Door::Page] {
        let site = slow_site().await;
        let alice = site.logged_in("alice").await;
        let browser = Browser::of(&site, "bob").await;
        let http = site.http();
        let (before, mut looked, mut turned_away) = (site.world.lookups.load(Ordering::SeqCst), 0, 0);
        for n in 0..120_u8 {
            let digits = BASE64URL_NOPAD.encode(&[n; 32]);
            let call = match door {
                Door::Api => http.get(format!("{}/v1/session", site.url())).bearer_auth(format!("hps_{digits}")),
                Door::Host => {
                    http.get(format!("{}/v1/hosts/self/state", site.url())).bearer_auth(format!("hph_{digits}"))
                }
                Door::Page => {
                    let cookie = format!("__Host-hallpass=hpb_{digits}");
                    http.get(site.url()).header("cookie", cookie).header("accept", "text/html")
                }
            };
            match call.send().await.unwrap().status() {
                StatusCode::UNAUTHORIZED => looked += 1,
                StatusCode::TOO_MANY_REQUESTS => turned_away += 1,
                other => panic!("{door:?}: {other}"),
            }
        }
        // One that finds the rate used up has been looked up; those after it are not, until the address may call again.
        let lookups = site.world.lookups.load(Ordering::SeqCst) - before;
        assert!(lookups <= 2 * looked + 2, "{door:?}: {lookups} for {looked} and {turned_away}");
        assert!(turned_away > 0, "{door:?}");
        // Who has called from the same address before is known there.
        alice.get::<wire::WhoAmI>("/v1/session").await.unwrap();
        browser.get("/").await.is(200);
    }
}
