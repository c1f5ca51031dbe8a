//! One person has one rate, by whatever door they come.

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
