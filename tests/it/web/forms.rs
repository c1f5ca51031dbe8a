//! Deciding by forms: what is done, what is refused, and who can send one at all.

use hallpass::wire;

use super::browser::{Browser, From, Page};
use super::{asked, digits, now};
use crate::api::site::Site;

/// The fields of an approval of what this page shows.
fn approval(page: &Page) -> Vec<(&'static str, String)> {
    vec![("form", page.field("form")), ("digest", page.field("digest"))]
}

async fn post(browser: &Browser, path: &str, fields: &[(&str, String)]) -> Page {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.post(path, &fields).await
}

#[tokio::test]
async fn an_approver_narrows_and_the_certificate_is_what_was_left() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1", "web-2"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let bob = Browser::of(&site, "bob").await;
    let page = bob.get(&path).await;
    let mut fields = approval(&page);
    fields.extend([("for", "15m".to_owned()), ("choice", "hosts".to_owned()), ("comment", "only this one".to_owned())]);
    // Without any host ticked nothing is approved.
    let none = post(&bob, &format!("{path}/approve"), &fields).await;
    none.is(422).says("no host would be left").says(&request.id);
    assert_eq!(now(&site, &request.id).await.state, "pending");
    let longer: Vec<_> =
        fields.iter().map(|(n, v)| (*n, if *n == "for" { "2h".to_owned() } else { v.clone() })).collect();
    post(&bob, &format!("{path}/approve"), &[&longer[..], &[("only", "web-2".to_owned())]].concat()).await.is(422);
    fields.push(("only", "web-2".to_owned()));
    post(&bob, &format!("{path}/approve"), &fields).await.leads_to(&path);
    let approved = now(&site, &request.id).await;
    assert_eq!(
        (approved.state.as_str(), approved.hosts, approved.lifetime.as_str()),
        ("approved", vec!["web-2".to_owned()], "15m")
    );
    assert_eq!(approved.window.unwrap().not_after, "2026-01-05T10:15:00Z");
    bob.get(&path).await.says("only this one");
}

#[tokio::test]
async fn as_asked_means_as_asked() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1", "web-2"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let bob = Browser::of(&site, "bob").await;
    let mut fields = approval(&bob.get(&path).await);
    let rest = [("for", ""), ("choice", "hosts"), ("only", "web-1"), ("only", "web-2"), ("comment", "")];
    fields.extend(rest.map(|(name, value)| (name, value.to_owned())));
    post(&bob, &format!("{path}/approve"), &fields).await.leads_to(&path);
    let approved = now(&site, &request.id).await;
    assert_eq!((approved.hosts.len(), approved.lifetime.as_str(), approved.digest), (2, "1h", request.digest));
}

#[tokio::test]
async fn only_a_form_of_ones_own_page_is_taken() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let approve = format!("{path}/approve");
    let (bob, again, carol) =
        (Browser::of(&site, "bob").await, Browser::of(&site, "bob").await, Browser::of(&site, "carol").await);
    let page = bob.get(&path).await;
    let (form, digest) = (page.field("form"), page.field("digest"));
    let (other, carols) = (again.get(&path).await.field("form"), carol.get(&path).await.field("form"));
    assert!(form != other && form != carols);
    let url = site.url();
    let own = From { origin: Some(&url), site: Some("same-origin") };
    let good = [("form", form.as_str()), ("digest", digest.as_str())];
    for (fields, from, why) in [
        (&[("digest", digest.as_str())][..], own, "no token"),
        (&[("form", ""), ("digest", &digest)], own, "an empty token"),
        (&[("form", &other), ("digest", &digest)], own, "a token of another session of theirs"),
        (&[("form", &carols), ("digest", &digest)], own, "a token of somebody else's session"),
        (&[("form", &format!("{form}A")), ("digest", &digest)], own, "a longer token"),
        (&good, From { origin: Some("https://evil.example"), site: Some("cross-site") }, "another site"),
        (&good, From { origin: Some("https://evil.example"), site: Some("same-origin") }, "another origin"),
        (&good, From { origin: Some(&url), site: Some("cross-site") }, "another site by the browser's word"),
        (&good, From { origin: Some(&url), site: Some("same-site") }, "a sibling"),
        (&good, From { origin: Some("null"), site: Some("same-origin") }, "a sandbox"),
        (&good, From { origin: None, site: Some("same-origin") }, "no origin"),
        (&good, From { origin: None, site: None }, "nothing at all"),
    ] {
        let page = bob.post_from(&approve, fields, from).await;
        page.is(403).says("forbidden").says("nothing was done");
        assert_eq!(now(&site, &request.id).await.state, "pending", "{why}");
    }
    // Twice the same field, unknown fields and another kind of body are refused as well.
    let twice = [good[0], good[0], good[1]];
    assert_eq!(bob.post(&approve, &twice).await.status, 400);
    assert_eq!(bob.post(&approve, &[good[0], good[1], ("extra", "1")]).await.status, 400);
    let cookie = bob.cookie.clone().unwrap();
    for (kind, body) in
        [("application/json", "{}"), ("text/plain", "form=1"), ("multipart/form-data; boundary=x", "--x--")]
    {
        let call = site.http().post(format!("{url}{approve}")).header("cookie", &cookie).header("origin", &url);
        let call = call.header("content-type", kind).body(body);
        assert_eq!(call.send().await.unwrap().status(), 415, "{kind}");
    }
    // Without the cookie, the token is nothing.
    let mut guest = Browser::new(&site);
    guest.post(&approve, &good).await.is(401);
    guest.cookie = carol.cookie.clone();
    guest.post(&approve, &good).await.is(403);
    assert_eq!(now(&site, &request.id).await.state, "pending");
    bob.post(&approve, &good).await.leads_to(&path);
    assert_eq!(now(&site, &request.id).await.state, "approved");
}

#[tokio::test]
async fn a_link_never_decides() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let bob = Browser::of(&site, "bob").await;
    let page = bob.get(&path).await;
    let query = super::browser::encode(&[("form", &page.field("form")), ("digest", &page.field("digest"))]);
    for act in ["approve", "deny", "withdraw", "end"] {
        bob.get(&format!("{path}/{act}?{query}")).await.is(405);
    }
    bob.get(&format!("{path}?approve=true&{query}")).await.is(400);
    bob.get("/sign-out").await.is(405);
    assert_eq!(now(&site, &request.id).await.state, "pending");
    bob.get("/").await.is(200);
}

#[tokio::test]
async fn what_has_changed_since_it_was_shown_is_shown_again_and_not_approved() {
    let site = Site::new().await;
    let ask = wire::Ask { account: Some("postgres".to_owned()), ..site.ask("db-1", "postgres") };
    let request: wire::Request = site.logged_in("alice").await.post("/v1/requests", &ask).await.unwrap();
    let path = format!("/r/{}", digits(&request));
    let (bob, carol) = (Browser::of(&site, "bob").await, Browser::of(&site, "carol").await);
    let (seen_by_bob, seen_by_carol) = (bob.get(&path).await, carol.get(&path).await);
    let shorter = [approval(&seen_by_bob), vec![("for", "15m".to_owned())]].concat();
    post(&bob, &format!("{path}/approve"), &shorter).await.leads_to(&path);
    let refused = post(&carol, &format!("{path}/approve"), &approval(&seen_by_carol)).await;
    refused.is(409).says("digest_changed").says("it has changed since it was shown").says("for 15m");
    post(&carol, &format!("{path}/approve"), &approval(&refused)).await.leads_to(&path);
    let approved_by = now(&site, &request.id).await.approved_by;
    assert_eq!(approved_by, ["bob@example.com", "carol@example.com"]);
}

#[tokio::test]
async fn who_comes_second_is_told_who_was_first() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let (bob, carol) = (Browser::of(&site, "bob").await, Browser::of(&site, "carol").await);
    let (seen_by_bob, seen_by_carol) = (bob.get(&path).await, carol.get(&path).await);
    post(&bob, &format!("{path}/approve"), &approval(&seen_by_bob)).await.leads_to(&path);
    site.world.pass(4);
    let second = post(&carol, &format!("{path}/approve"), &approval(&seen_by_carol)).await;
    second.is(409).says("<h2>bob@example.com approved it, 4 s ago</h2>").says(&request.id);
    let deny = [("form", seen_by_carol.field("form")), ("reason", "not now".to_owned())];
    post(&carol, &format!("{path}/deny"), &deny).await.is(409).says("bob@example.com approved it, 4 s ago");
    let twice = post(&bob, &format!("{path}/approve"), &approval(&seen_by_bob)).await;
    twice.is(409).says("already_approved");
}

#[tokio::test]
async fn requests_are_denied_withdrawn_and_ended_by_those_who_may() {
    let site = Site::new().await;
    let (alice, bob, omar) =
        (Browser::of(&site, "alice").await, Browser::of(&site, "bob").await, Browser::of(&site, "omar").await);
    let form = async |browser: &Browser, more: &[(&'static str, &str)]| {
        let mut fields = vec![("form", browser.get("/").await.field("form"))];
        fields.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        fields
    };
    let denied = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&denied));
    post(&bob, &format!("{path}/deny"), &form(&bob, &[("reason", "")]).await)
        .await
        .is(422)
        .says("a denial needs a reason");
    post(&alice, &format!("{path}/deny"), &form(&alice, &[("reason", "x")]).await).await.is(403).says("own_request");
    post(
        &alice,
        &format!("{path}/approve"),
        &[form(&alice, &[]).await, vec![("digest", denied.digest.clone())]].concat(),
    )
    .await
    .is(403)
    .says("own_request");
    post(&bob, &format!("{path}/deny"), &form(&bob, &[("reason", "use staging")]).await).await.leads_to(&path);
    alice.get(&path).await.says("by bob@example.com: use staging");

    let withdrawn = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&withdrawn));
    post(&bob, &format!("{path}/withdraw"), &form(&bob, &[]).await).await.is(403).says("not_theirs");
    post(&alice, &format!("{path}/withdraw"), &form(&alice, &[]).await).await.leads_to(&path);
    assert_eq!(now(&site, &withdrawn.id).await.state, "withdrawn");

    let ended = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&ended));
    post(&bob, &format!("{path}/approve"), &approval(&bob.get(&path).await)).await.leads_to(&path);
    post(&bob, &format!("{path}/end"), &form(&bob, &[("reason", "x")]).await).await.is(403).says("not_theirs");
    post(&omar, &format!("{path}/end"), &form(&omar, &[("reason", "")]).await).await.is(422);
    post(&omar, &format!("{path}/end"), &form(&omar, &[("reason", "incident over")]).await).await.leads_to(&path);
    alice.get(&path).await.says("by omar@example.com 0 s ago: incident over");
    let eve = Browser::of(&site, "eve").await;
    post(&eve, &format!("{path}/end"), &form(&eve, &[("reason", "x")]).await).await.is(404).says("not_found");
}

#[tokio::test]
async fn where_the_policy_wants_a_signature_there_is_a_command_and_no_button() {
    let site = Site::new().await;
    let policy = crate::support::policy();
    let strict = policy.replace("[defaults]\n", "[defaults]\nsigned_approvals = \"required\"\n");
    site.world.service().apply_policy(&site.proven("omar").await, strict, None, false).await.unwrap();
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let bob = Browser::of(&site, "bob").await;
    let page = bob.get(&path).await;
    page.says(&format!("<pre>hallpass approve {}</pre>", request.id)).says("(signed)").says("Deny…");
    assert!(!page.text.contains("/approve\""));
    let fields = [("form", page.field("form")), ("digest", request.digest.clone())];
    post(&bob, &format!("{path}/approve"), &fields).await.is(403).says("signature_needed");
    assert_eq!(now(&site, &request.id).await.state, "pending");
}

#[tokio::test]
async fn an_extension_is_decided_on_the_same_page() {
    let site = Site::new().await;
    let request = asked(&site, &["web-1"], "INC-1 pool exhausted").await;
    let path = format!("/r/{}", digits(&request));
    let (alice, bob) = (Browser::of(&site, "alice").await, Browser::of(&site, "bob").await);
    post(&bob, &format!("{path}/approve"), &approval(&bob.get(&path).await)).await.leads_to(&path);
    let client = site.logged_in("alice").await;
    let _made: wire::Certificate = client.post(&format!("/v1/requests/{}/certificate", request.id), &()).await.unwrap();
    let extend = wire::Extend { lifetime: "45m".to_owned(), reason: "rollback running".to_owned() };
    let _extended: wire::Request = client.post(&format!("/v1/requests/{}/extend", request.id), &extend).await.unwrap();
    let page = bob.get(&path).await;
    page.says("asks for 45m more on web-1").says("rollback running").says("Would add");
    bob.get("/").await.says("(1) Inbox").says("45m more, on top of what they hold");
    alice.get(&path).await.says("Withdraw the extension");
    let fields = [approval(&page), vec![("for", "15m".to_owned())]].concat();
    post(&bob, &format!("{path}/approve"), &fields).await.leads_to(&path);
    assert_eq!(now(&site, &request.id).await.window.unwrap().not_after, "2026-01-05T11:15:00Z");
}
