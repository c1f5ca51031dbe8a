//! Signing in and out, and what a cookie is good for.

use hallpass::client::ClientError;
use hallpass::wire;

use super::browser::{Browser, From, sign_in_token};
use super::kinds;
use crate::api::site::{Site, problem};

const FILE: From<'_> = From { origin: Some("null"), site: Some("cross-site") };

#[tokio::test]
async fn a_command_line_lets_a_browser_in_which_is_asked_first() {
    let site = Site::new().await;
    let token = sign_in_token(&site, "bob").await;
    let mut browser = Browser::new(&site);
    browser.get("/").await.is(401).says("hallpass open");

    let fields = [("token", token.as_str()), ("to", "r/7K3F")];
    let page = browser.post_from("/sign-in", &fields, FILE).await;
    page.is(200).says("as bob@example.com?").says("Sign in as bob@example.com</button>");
    assert!(!page.headers.contains_key("set-cookie"), "nobody is signed in by a page that asks");
    assert_eq!((page.field("token"), page.field("to")), (token.clone(), "r/7K3F".to_owned()));
    assert!(!kinds(&site).await.contains(&"browser_signed_in".to_owned()));

    let page = browser.confirms(&token, "r/7K3F").await;
    page.leads_to("/r/7K3F");
    let cookie = page.header("set-cookie");
    let (value, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Strict");
    let value = value.strip_prefix("__Host-hallpass=hpb_").unwrap();
    assert_eq!(value.len(), 43);
    browser.get("/").await.is(200).says("bob@example.com").says("Nothing waits for you.");
    assert!(kinds(&site).await.contains(&"browser_signed_in".to_owned()));
}

#[tokio::test]
async fn a_sign_in_token_that_does_not_count_signs_nobody_in() {
    let site = Site::new().await;
    let mut browser = Browser::new(&site);
    let used = sign_in_token(&site, "bob").await;
    browser.confirms(&used, "").await.leads_to("/");

    let late = sign_in_token(&site, "bob").await;
    site.world.pass(60);
    let ended = site.logged_in("bob").await;
    let of_ended: wire::SignIn = ended.post("/v1/session/browser", &()).await.unwrap();
    ended.delete("/v1/session").await.unwrap();
    let bearer = site.token("bob").await;
    let mut changed = sign_in_token(&site, "bob").await;
    changed.replace_range(20..21, if changed.get(20..21) == Some("A") { "B" } else { "A" });

    let before = kinds(&site).await;
    for token in [used.as_str(), &late, &of_ended.token, &bearer, &changed, "", "hpo_", &format!("{changed}A")] {
        let mut browser = Browser::new(&site);
        let page = browser.confirms(token, "").await;
        page.is(401).says("login_refused").says("hallpass open");
        assert!(browser.cookie.is_none());
        // What was used can't be told from what was not before it is tried; the button does nothing all the same.
        if token != used.as_str() {
            browser.post_from("/sign-in", &[("token", token)], FILE).await.is(401).says("login_refused");
        }
    }
    // Only the last call itself logged anything in.
    assert_eq!(kinds(&site).await.len(), before.len() + 1);
}

#[tokio::test]
async fn a_sign_in_token_of_somebody_who_has_left_counts_no_more_and_neither_do_their_browsers() {
    let site = Site::new().await;
    let browser = Browser::of(&site, "eve").await;
    let token = sign_in_token(&site, "eve").await;
    browser.get("/").await.is(200);
    let text = crate::support::policy();
    let left = text.replace("name = \"eve@example.com\"", "name = \"eva@example.com\"");
    site.world.service().apply_policy(&site.proven("omar").await, left, None, false).await.unwrap();
    browser.get("/").await.is(401);
    let mut other = Browser::new(&site);
    other.confirms(&token, "").await.is(401);
    other.post_from("/sign-in", &[("token", &token)], FILE).await.is(401);
}

#[tokio::test]
async fn two_browsers_with_one_token_are_one_too_many() {
    let site = Site::new().await;
    let token = sign_in_token(&site, "bob").await;
    let (mut one, mut other) = (Browser::new(&site), Browser::new(&site));
    let (first, second) = tokio::join!(one.confirms(&token, ""), other.confirms(&token, ""));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 401]);
}

#[tokio::test]
async fn a_stranger_cannot_press_the_button_for_somebody() {
    let site = Site::new().await;
    let token = sign_in_token(&site, "eve").await;
    let url = site.url();
    let browser = Browser::new(&site);
    for (origin, from) in [
        (None, Some("cross-site")),
        (None, None),
        (Some("null"), None),
        (Some("null"), Some("cross-site")),
        (Some("https://evil.example"), None),
        (Some("https://evil.example"), Some("cross-site")),
        (Some(url.as_str()), Some("cross-site")),
        (Some(url.as_str()), Some("same-site")),
        (Some(url.as_str()), Some("none")),
    ] {
        let page = browser.post_from("/sign-in/confirm", &[("token", &token)], From { origin, site: from }).await;
        page.is(403).says("forbidden");
        assert!(!page.headers.contains_key("set-cookie"));
    }
    // A browser that says nothing of where it comes from but its origin is old, and good enough.
    let fields = [("token", token.as_str())];
    browser.post_from("/sign-in/confirm", &fields, From { origin: Some(&url), site: None }).await.leads_to("/");
}

#[tokio::test]
async fn a_cookie_is_no_bearer_token_and_a_bearer_token_no_cookie() {
    let site = Site::new().await;
    let browser = Browser::of(&site, "bob").await;
    let cookie = browser.cookie.clone().unwrap();
    let in_cookie = cookie.strip_prefix("__Host-hallpass=").unwrap();
    let sign_in = sign_in_token(&site, "bob").await;
    for token in [in_cookie, &sign_in] {
        let refused: Result<wire::WhoAmI, ClientError> = site.client(Some(token)).get("/v1/session").await;
        assert_eq!(problem(refused).code, "not_logged_in");
    }
    let bearer = site.token("bob").await;
    for value in [bearer, sign_in, format!("{in_cookie}; __Host-hallpass={in_cookie}"), String::new()] {
        let mut other = Browser::new(&site);
        other.cookie = Some(format!("__Host-hallpass={value}"));
        other.get("/").await.is(401).says("Sign in to");
    }
    // The API does not look at cookies at all, nor the pages at bearer tokens.
    let call = site.http().get(format!("{}/v1/session", site.url())).header("cookie", cookie);
    assert_eq!(call.send().await.unwrap().status(), 401);
    let call = site.http().get(site.url()).bearer_auth(site.token("bob").await).header("accept", "text/html");
    assert_eq!(call.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_browsers_session_ends_by_itself_with_its_login_and_by_its_button() {
    let site = Site::new().await;
    let login = site.logged_in("bob").await;
    let let_in = async |login: &hallpass::client::Client| {
        let token: wire::SignIn = login.post("/v1/session/browser", &()).await.unwrap();
        let mut browser = Browser::new(&site);
        browser.confirms(&token.token, "").await.leads_to("/");
        browser
    };
    let (one, two) = (let_in(&login).await, let_in(&login).await);
    let others = Browser::of(&site, "bob").await;

    let form = one.get("/").await.field("form");
    let out = one.post("/sign-out", &[("form", &form)]).await;
    out.is(200).says("Signed out");
    assert_eq!(out.header("set-cookie"), "__Host-hallpass=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    one.get("/").await.is(401);
    two.get("/").await.is(200);
    login.delete("/v1/session").await.unwrap();
    two.get("/").await.is(401);
    others.get("/").await.is(200);
    site.logged_in("bob").await.delete("/v1/session?everywhere=true").await.unwrap();
    others.get("/").await.is(401);

    // Never longer than the login: it was let in an hour after that, and is out when that is over.
    let login = site.logged_in("bob").await;
    site.world.pass(3600);
    let late = let_in(&login).await;
    site.world.pass(11 * 3600 - 1);
    late.get("/").await.is(200);
    site.world.pass(1);
    late.get("/").await.is(401);
}

#[tokio::test]
async fn after_signing_in_nobody_is_sent_elsewhere() {
    let site = Site::new().await;
    for to in [
        "//evil.example",
        "/",
        "https://evil.example",
        "\\evil.example",
        "r/../../x",
        "r/7K3F?x=1",
        "r/7K3F\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "hosts/../..",
        "%2f%2fevil.example",
        "r//evil.example",
    ] {
        let token = sign_in_token(&site, "bob").await;
        let mut browser = Browser::new(&site);
        let page = browser.confirms(&token, to).await;
        page.is(422).says("invalid");
        assert!(!page.headers.contains_key("location") && browser.cookie.is_none(), "{to}");
        browser.post_from("/sign-in", &[("token", &token), ("to", to)], FILE).await.is(422);
    }
    for (to, path) in [("", "/"), ("hosts", "/hosts"), ("audit", "/audit"), ("r/7k3f", "/r/7K3F")] {
        let token = sign_in_token(&site, "bob").await;
        Browser::new(&site).confirms(&token, to).await.leads_to(path);
    }
    // Nor does a link to a page carry anything into the page that asks to sign in but its own parsed path.
    let page = Browser::new(&site).follows("/r/7K3F").await;
    page.is(401).says("data-go-on href=\"/r/7K3F\"");
    for path in ["//evil.example", "/r/7K3F%22%3E", "/r/%2f%2fevil.example"] {
        let page = Browser::new(&site).follows(path).await;
        assert!(!page.text.contains("data-go-on") && !page.text.contains("evil"), "{}", page.text);
    }
    assert!(!Browser::new(&site).get("/r/7K3F").await.text.contains("data-go-on"));
}
