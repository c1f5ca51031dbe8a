//! What pages show, to whom, and what they may run.

use hallpass::wire;

use super::browser::{Browser, Page};
use super::{asked, digits};
use crate::api::site::Site;

/// What nobody may write into a page.
const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt; {{7*7}} INC-1";

#[tokio::test]
async fn each_kind_of_visitor_sees_what_the_api_lets_them_see() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let one = format!("/r/{}", digits(&request));
    let live = format!("{one}/live");
    // nobody, asker, stranger, approver, operator, auditor
    let visitors = [None, Some("alice"), Some("eve"), Some("bob"), Some("omar"), Some("ada")];
    let mut browsers = Vec::new();
    for name in visitors {
        browsers.push(match name {
            Some(name) => Browser::of(&site, name).await,
            None => Browser::new(&site),
        });
    }
    for (path, statuses) in [
        ("/", [401, 200, 200, 200, 200, 200]),
        (one.as_str(), [401, 200, 404, 200, 200, 200]),
        ("/r/ZZZZ", [401, 404, 404, 404, 404, 404]),
        ("/hosts", [401, 200, 200, 200, 200, 200]),
        ("/audit", [401, 403, 403, 403, 200, 200]),
        ("/sign-in", [200; 6]),
        ("/r/O!", [401, 422, 422, 422, 422, 422]),
        ("/nothing", [404; 6]),
        ("/?x=1", [401, 400, 400, 400, 400, 400]),
    ] {
        for ((name, browser), status) in visitors.iter().zip(&browsers).zip(statuses) {
            let page = browser.get(path).await;
            assert_eq!(page.status.as_u16(), status, "{name:?} {path}: {}", page.text);
            guarded(&page);
        }
    }
    for (index, status) in [(0, 401), (1, 200), (2, 404), (3, 200)] {
        assert_eq!(browsers[index].stream(&live).await.status(), status, "{:?} {live}", visitors[index]);
    }
    browsers[3].get("/").await.says("(1) Inbox").says("INC-1 pool exhausted").says(&format!("href=\"{one}\""));
    browsers[1].get("/").await.says("Nothing waits for you.").says("My access").says("can approve it: bob@example.com");
    browsers[2].get("/").await.says("You hold no access");
    browsers[4].get("/").await.says("href=\"/audit\"");
    assert!(!browsers[3].get("/").await.text.contains("href=\"/audit\""));
    browsers[4].get("/audit").await.says("alice@example.com asked for web-1 as deploy").says(&request.id);
    browsers[3].get("/hosts").await.says("web-1").says("role=web").says("hallpass explain web-1");
    browsers[1].get("/hosts").await.says("as deploy, up to 1 h: 1 of group:sre must agree (rule web)");
}

/// What holds for every page: its headers, and nothing in it that runs.
#[track_caller]
fn guarded(page: &Page) {
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                  form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), value, "{name}");
    }
    let text = &page.text;
    assert!(text.starts_with("<!doctype html>") && text.ends_with("</html>"), "{text}");
    assert_eq!(text.matches("<script").count(), text.matches("<script src=\"/assets/page.").count(), "{text}");
    for word in ["<style", " style=", "javascript:", "<iframe", "<object", "<base", "<img"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    let handler = regex::Regex::new(r"<[^>]*\son[a-z]+\s*=").unwrap();
    // What stands in quotes is text; a quote inside would be escaped.
    let quoted = regex::Regex::new("\"[^\"]*\"").unwrap();
    assert!(!handler.is_match(&quoted.replace_all(text, "")), "{text}");
    // Each form that acts carries the token of its session, but for those that sign in.
    for form in text.split("<form method=\"post\" action=\"").skip(1) {
        let is_sign_in = form.starts_with("/sign-in");
        let form = form.split("</form>").next().unwrap();
        assert_eq!(form.contains("name=\"form\" value=\""), !is_sign_in, "{form}");
    }
    assert!(text.len() < 50 * 1024, "{} bytes", text.len());
}

#[tokio::test]
async fn what_people_write_is_shown_and_never_runs() {
    let site = Site::new().await;
    let first = asked(&site, &["web-1"], EVIL).await;
    let second = asked(&site, &["web-2"], EVIL).await;
    let bob = Browser::of(&site, "bob").await;
    let deny = bob.get(&format!("/r/{}", digits(&first))).await;
    let fields = [("form", deny.field("form")), ("reason", EVIL.to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    bob.post(&format!("/r/{}/deny", digits(&first)), &fields).await.leads_to(&format!("/r/{}", digits(&first)));
    let omar = Browser::of(&site, "omar").await;
    let evil = super::browser::encode(&[("q", EVIL)]);
    for (browser, path) in [
        (&bob, "/".to_owned()),
        (&bob, format!("/r/{}", digits(&first))),
        (&bob, format!("/r/{}", digits(&second))),
        (&omar, "/audit".to_owned()),
        (&omar, format!("/hosts?{evil}")),
        (&omar, format!("/audit?{}", evil.replace("q=", "person="))),
        (&omar, format!("/audit?{}", evil.replace("q=", "x="))),
        (&omar, format!("/{}", evil.replace("q=", ""))),
        (&omar, format!("/r/{}", evil.replace("q=", ""))),
    ] {
        let page = browser.get(&path).await;
        guarded(&page);
        assert!(!page.text.contains("<script>alert"), "{path}: {}", page.text);
    }
    bob.get(&format!("/r/{}", digits(&second))).await.says("&#60;script&#62;alert(1)&#60;/script&#62;");
}

#[tokio::test]
async fn the_stylesheet_and_the_script_may_be_kept_and_nothing_else_is_served() {
    let site = Site::new().await;
    let browser = Browser::new(&site);
    let page = browser.get("/sign-in").await;
    let paths: Vec<&str> = page.text.split('"').filter(|word| word.starts_with("/assets/")).collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    for path in paths {
        let asset = browser.get(path).await;
        asset.is(200);
        assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
        assert!(
            ["text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml"]
                .contains(&asset.header("content-type"))
        );
        let (stem, rest) = path.split_once('.').unwrap();
        let other = format!("{stem}.0000000000000000.{}", rest.split_once('.').unwrap().1);
        browser.get(&other).await.is(404);
    }
    for path in ["/assets/", "/assets/..%2fpage.js", "/assets/style.css", "/style.css"] {
        browser.get(path).await.is(404);
    }
}

#[tokio::test]
async fn the_api_speaks_json_whoever_asks_and_probes_stay_as_they_are() {
    let site = Site::new().await;
    let browser = Browser::new(&site);
    let api = browser.get("/v1/session").await;
    assert_eq!((api.status.as_u16(), api.header("content-type")), (401, "application/problem+json"));
    assert_eq!(api.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
    let call = site.http().get(site.url()).send().await.unwrap();
    assert_eq!(call.headers()["content-type"], "application/problem+json", "no browser asks");
    assert_eq!(call.status(), 401);
    browser.get("/healthz").await.is(200);
}

#[tokio::test]
async fn a_page_says_what_an_approver_agrees_to_and_what_came_of_it() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1", "web-2"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let (alice, bob) = (Browser::of(&site, "alice").await, Browser::of(&site, "bob").await);
    let page = bob.get(&path).await;
    page.says(&request.id)
        .says("alice@example.com asks for web-1, web-2 as deploy for 1h")
        .says("INC-1 pool exhausted")
        .says("<dt>Approved now</dt>")
        .says("<time datetime=\"2026-01-05T09:59:30Z\">09:59:30 UTC</time> to")
        .says("<time datetime=\"2026-01-05T11:00:00Z\">11:00:00 UTC</time> (1 h)")
        .says("<dt>Approvers</dt><dd>bob@example.com, carol@example.com</dd>")
        .says("10:30:00 UTC</time> (<span data-until=\"2026-01-05T10:30:00Z\">30 min left</span>)")
        .says("pty")
        .says("Rule web of policy 1 wants 1 of group:sre to agree.")
        .says("value=\"30m\"> 30 min</label>")
        .says("value=\"15m\"> 15 min</label>")
        .says("name=\"only\" value=\"web-2\" checked");
    // Deny is out of the thumb's reach: behind the story, and closed.
    let at = |text: &str| page.text.find(text).unwrap();
    assert!(at(">Approve</button>") < at("What happened") && at("What happened") < at("<details><summary>Deny"));
    assert!(!page.text.contains("/withdraw") && !page.text.contains("/end\""));
    let own = alice.get(&path).await;
    own.says("/withdraw");
    assert!(!own.text.contains("/approve") && !own.text.contains("/deny"));
    let stays = |page: &Page| !page.text.contains("http-equiv");
    assert!(stays(&page) && stays(&own));
    bob.get("/").await.says("<noscript><meta http-equiv=\"refresh\" content=\"30\"></noscript>");

    site.world.pass(60);
    let approve: wire::Request = {
        let bob = site.logged_in("bob").await;
        let body = wire::Approve { digest: request.digest.clone(), ..wire::Approve::default() };
        bob.post(&format!("/v1/requests/{}/approve", request.id), &body).await.unwrap()
    };
    assert_eq!(approve.state, "approved");
    site.world.pass(4);
    bob.get(&path).await.says("approved by bob@example.com").says("bob@example.com approved it").says("4 s ago");
    alice.get(&path).await.says("End this access").says("/withdraw");
    alice.get("/").await.says("approved").says("11:01:00 UTC");
    Browser::of(&site, "omar").await.get(&path).await.says("End this access").says("required");
}

#[tokio::test]
async fn a_stream_says_that_a_page_has_changed_and_ends_with_the_session() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let other = asked(&site, &["web-2"], "INC-2 something else").await;
    let (bob, eve) = (Browser::of(&site, "bob").await, Browser::of(&site, "eve").await);
    let mut desk = bob.stream("/live").await;
    let mut one = bob.stream(&format!("/r/{}/live", digits(&request))).await;
    let mut strangers = eve.stream("/live").await;
    for stream in [&desk, &one, &strangers] {
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
    }
    let alice = site.logged_in("alice").await;
    for id in [&other.id, &request.id] {
        let _withdrawn: wire::Request = alice.post(&format!("/v1/requests/{id}/withdraw"), &()).await.unwrap();
    }
    assert_eq!(desk.chunk().await.unwrap().unwrap(), "data: changed\n\n");
    assert_eq!(desk.chunk().await.unwrap().unwrap(), "data: changed\n\n");
    assert_eq!(one.chunk().await.unwrap().unwrap(), "data: changed\n\n", "of its own request alone");
    let form = bob.get("/").await.field("form");
    bob.post("/sign-out", &[("form", &form)]).await.is(200);
    let _third = asked(&site, &["web-1"], "INC-3 one more").await;
    ended(&mut desk).await;
    // What eve may not see was no news to her: her first is about a request of her own.
    let own = wire::Ask { targets: vec!["staging-1".to_owned()], ..site.ask("staging-1", "deploy") };
    let refused: Result<wire::Request, _> = site.logged_in("eve").await.post("/v1/requests", &own).await;
    assert!(refused.is_err(), "eve may ask for nothing, and so hears nothing");
    let form = eve.get("/").await.field("form");
    eve.post("/sign-out", &[("form", &form)]).await.is(200);
    let _fourth = asked(&site, &["web-2"], "INC-4 one more").await;
    ended(&mut strangers).await;
}

/// Nothing more comes.
async fn ended(stream: &mut reqwest::Response) {
    while let Some(chunk) = stream.chunk().await.unwrap() {
        assert!(chunk.is_empty(), "{chunk:?}");
    }
}

#[tokio::test]
async fn the_log_is_shown_page_by_page_and_filtered() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    for _ in 0..60 {
        site.token("eve").await;
    }
    let ada = Browser::of(&site, "ada").await;
    let newest = ada.get("/audit").await;
    newest.is(200).says("eve@example.com logged in");
    assert!(!newest.text.contains("pool exhausted"));
    let older = newest.text.split("href=\"").find(|part| part.starts_with("/audit?before=")).unwrap();
    let older = older.split('"').next().unwrap().replace("&#38;", "&");
    ada.get(&older).await.is(200).says("pool exhausted").says("the log of");
    let found = ada.get("/audit?person=alice@example.com&host=web-1&request=").await;
    found.is(200).says("pool exhausted").says("value=\"alice@example.com\"");
    assert!(!found.text.contains("eve@example.com"));
    let found = ada.get(&format!("/audit?request={}", request.id)).await;
    found.is(200).says("pool exhausted");
    ada.get("/audit?host=Nowhere!").await.is(422).says("invalid");
    ada.get("/audit?before=x").await.is(422);
    ada.get("/audit?nonsense=1").await.is(400).says("bad_query");
}

#[tokio::test]
async fn pages_count_against_the_same_rates_as_the_api() {
    let site = Site::with(|settings| (settings.rate_per_s, settings.rate_burst) = (1, 40)).await;
    let bob = Browser::of(&site, "bob").await;
    let mut refused = None;
    for _ in 0..60 {
        let page = bob.get("/").await;
        if page.status.as_u16() == 429 {
            refused = Some(page);
            break;
        }
    }
    let refused = refused.unwrap();
    refused.says("too_many");
    guarded(&refused);
    assert!(!refused.header("retry-after").is_empty());
    let mut guessed = 0;
    for _ in 0..60 {
        let mut guess = Browser::new(&site);
        guess.cookie = Some("__Host-hallpass=hpb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
        guessed = guess.get("/").await.status.as_u16();
        if guessed == 429 {
            break;
        }
    }
    assert_eq!(guessed, 429, "who guesses cookies is slowed down by address");
}

/// A template could say that a text needs no escaping; none does.
#[test]
fn every_template_escapes_whatever_it_shows() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/web/templates");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["safe", "escape", "{% raw", "{%- raw", "include"] {
            assert!(!text.contains(word), "{word} in {}", path.display());
        }
        assert_eq!(path.extension().unwrap(), "html", "another ending would not be escaped");
        seen += 1;
    }
    assert!(seen > 8);
}
