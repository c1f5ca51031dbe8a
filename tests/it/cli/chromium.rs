//! An approver with a phone: `hallpass open` lets a real Chromium in, which looks, decides, and is told what happens.

use std::os::unix::fs::PermissionsExt as _;

use super::stage::Stage;
use super::webdriver::{Browser, is_there};
use super::{REASON, asked};

/// Nothing is wider than the phone, whatever can be pressed is large enough, each field has its label, and each page one title.
const USABLE: &str = "
    const wrong = [];
    const page = document.documentElement;
    if (page.scrollWidth > window.innerWidth) wrong.push(`${page.scrollWidth} wide`);
    for (const one of document.querySelectorAll('button, nav a, a.go, summary, .choices label, input[type=text], input[type=search]')) {
      const box = one.getBoundingClientRect();
      if (box.width > 0 && box.height < 44) wrong.push(`${one.outerHTML.slice(0, 80)}: ${box.height} high`);
    }
    for (const one of document.querySelectorAll('input:not([type=hidden])')) {
      if (!one.labels.length) wrong.push(`${one.outerHTML.slice(0, 80)}: no label`);
    }
    if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
    if (!document.title.endsWith('hallpass')) wrong.push(document.title);
    const colour = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (one) => {
      for (; one; one = one.parentElement) {
        const back = colour(getComputedStyle(one).backgroundColor);
        if (back.length === 3 || back[3] === 1) return back;
      }
      return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode());) {
      const one = text.parentElement;
      if (!text.textContent.trim() || !one.getClientRects().length) continue;
      const [a, b] = [light(colour(getComputedStyle(one).color)), light(behind(one))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) wrong.push(`${text.textContent.trim().slice(0, 40)}: contrast ${contrast.toFixed(2)}`);
    }
    return wrong;";

fn usable(browser: &Browser, name: &str) {
    for scheme in ["dark", "light"] {
        browser.prefers(scheme);
        browser.pictures(&format!("{name}-{scheme}"));
        assert_eq!(browser.runs(USABLE), serde_json::json!([]), "{name} {scheme}");
        assert_eq!(browser.violations(), serde_json::json!([]), "{name} {scheme}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{name}");
}

#[test]
fn an_approver_with_a_phone_lets_somebody_in() {
    if !is_there() {
        return;
    }
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    let digits = id.replace('-', "");
    let mut waiting = stage.starts("alice", &["wait", &id]);
    waiting.hears("waiting");
    let browser = Browser::start(&stage.path(""));
    stage.write("browser", &browser.as_program());
    std::fs::set_permissions(stage.path("browser"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = stage.shown("browser");
    let opens = |page: &str| {
        let mut command = stage.command("bob", &["open", page]);
        let ran = command.env("BROWSER", &program).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };

    // Nobody is signed in yet, and the page says how.
    browser.goes_to(&stage.url());
    browser.sees("hallpass open --print");
    usable(&browser, "sign-in");
    opens(&id);
    browser.sees("as bob@example.com?");
    usable(&browser, "confirm");
    browser.presses("//button[contains(., 'Sign in as bob@example.com')]");
    browser.sees(&id);
    assert_eq!(browser.url(), format!("{}/r/{digits}", stage.url()));
    browser.sees(REASON);
    browser.sees("Approved now");
    assert_eq!(browser.runs("return document.cookie"), "", "no script can read the cookie");
    browser.sees("live");
    usable(&browser, "request");

    browser.presses("//label[contains(., '15 min')]");
    browser.presses("//button[contains(., 'Approve')]");
    browser.sees("approved by bob@example.com");
    let ran = waiting.ends();
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let shown = stage.as_person("alice", &["show", &id, "--json"]).json();
    assert_eq!((shown["state"].as_str(), shown["for"].as_str()), (Some("issued"), Some("15m")));
    // The page learns of the certificate by itself.
    browser.sees("is about to be signed");
    usable(&browser, "approved");

    // What is new in the inbox is announced, and moves nothing before it is asked for.
    browser.goes_to(&format!("{}/", stage.url()));
    browser.sees("Nothing waits for you.");
    browser.sees("live");
    let second = asked(&mut stage);
    browser.sees("This page has changed.");
    browser.presses("//button[contains(., 'Show it')]");
    browser.sees(&format!("Review {second}"));
    usable(&browser, "inbox");

    // A link in a chat comes from another site, and so without our cookie: one step more, by itself.
    let link = format!("{}/r/{}", stage.url(), second.replace('-', ""));
    browser.goes_to(&format!("data:text/html,<a href='{link}'>7K3F</a>"));
    browser.presses("//a");
    browser.sees("asks for web-1");
    assert_eq!(browser.url(), link);
    browser.presses("//summary[contains(., 'Deny')]");
    browser.types("//input[@id='deny']", "use <b>staging</b> \"please\"");
    usable(&browser, "deny");
    browser.presses("//button[contains(., 'Deny')]");
    browser.sees("by bob@example.com: use <b>staging</b>");
    let denied = stage.as_person("alice", &["show", &second, "--json"]).json();
    assert_eq!(denied["closed"]["reason"], "use <b>staging</b> \"please\"");

    browser.goes_to(&format!("{}/hosts", stage.url()));
    browser.sees("db-1");
    usable(&browser, "hosts");
    browser.goes_to(&format!("{}/audit", stage.url()));
    browser.sees("only operators and auditors may read the log");
    usable(&browser, "forbidden");
    browser.presses("//a[contains(., 'To the inbox')]");
    browser.presses("//button[contains(., 'Sign out')]");
    browser.sees("This browser is signed out.");
    browser.goes_to(&link);
    browser.sees("hallpass open --print");

    // The link for a phone: its secret never reaches the address that is kept.
    let link = stage.as_person("omar", &["open", "audit", "--print", "-q"]).out;
    browser.goes_to(link.trim());
    browser.sees("as omar@example.com?");
    assert_eq!(browser.url(), format!("{}/sign-in", stage.url()));
    browser.presses("//button[contains(., 'Sign in as omar@example.com')]");
    browser.sees("bob@example.com denied it");
    assert_eq!(browser.url(), format!("{}/audit", stage.url()));
    usable(&browser, "audit");
    assert_eq!(browser.runs("return history.length < 100 && !document.referrer.includes('hpo_')"), true);
}
