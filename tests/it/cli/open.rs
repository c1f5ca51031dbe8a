//! `hallpass open`: what it says, what it hands to a browser and how, without a browser. `chromium` has the real one.

use std::os::unix::fs::PermissionsExt as _;

use super::asked;
use super::stage::Stage;

/// A program that stands for a browser: it notes its arguments, and what all processes show of theirs, and keeps a copy of the file.
fn fake_browser(stage: &Stage) -> String {
    let at = stage.shown("browser");
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >{at}.arguments\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >{at}.processes\n\
         file=\"${{1#file://}}\"\nstat -c '%a %U' \"$file\" >{at}.mode\ncat \"$file\" >{at}.html\n"
    );
    stage.write("browser", &script);
    std::fs::set_permissions(stage.path("browser"), std::fs::Permissions::from_mode(0o755)).unwrap();
    at
}

#[test]
fn a_browser_gets_the_sign_in_in_a_private_file_and_nothing_secret_in_an_argument() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    let browser = fake_browser(&stage);
    let ran = stage.types_with("bob", &["open", &id], &[("BROWSER", &browser)]);
    assert_eq!(ran.code, 0);
    assert!(!ran.out.contains("hpo_") && !ran.err.contains("hpo_"), "{}{}", ran.out, ran.err);
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap();
    let html = read("browser.html");
    let (_, token) = html.split_once("name=\"token\" value=\"").unwrap();
    let token = token.split('"').next().unwrap().to_owned();
    assert!(token.starts_with("hpo_") && token.len() == 122, "{token}");
    assert!(html.contains(&format!("action=\"{}/sign-in\"", stage.url())), "{html}");
    assert!(html.contains(&format!("name=\"to\" value=\"r/{}\"", id.replace('-', ""))), "{html}");
    let arguments = read("browser.arguments");
    let file = arguments.trim().strip_prefix("file://").unwrap().to_owned();
    assert!(file.starts_with(&stage.shown("bob/run/default/sign-in-")), "{file}");
    assert!(read("browser.processes").contains("browser"), "the list of processes was seen");
    for public in [&arguments, &read("browser.processes")] {
        assert!(!public.contains(&token));
    }
    assert!(read("browser.mode").starts_with("600 "), "{}", read("browser.mode"));

    // The file is kept for the browser, for a minute; what is older goes with the next command, and all of it with the login.
    let kept = stage.path("bob/run/default");
    let count = || {
        let files = std::fs::read_dir(&kept).unwrap().filter_map(Result::ok);
        files.filter(|file| file.file_name().to_str().unwrap().starts_with("sign-in-")).count()
    };
    assert_eq!(count(), 1);
    let old = std::fs::File::options().append(true).open(&file).unwrap();
    old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(61)).unwrap();
    assert_eq!(stage.as_person("bob", &["status"]).code, 0);
    assert_eq!(count(), 0);
    stage.types_with("bob", &["open", "hosts", "--json"], &[("BROWSER", &format!("{browser} %s"))]);
    stage.types_with("bob", &["open"], &[("BROWSER", &format!("/nowhere/browser:false:{browser}"))]);
    assert_eq!(count(), 2);
    stage.types("bob", &["logout"]);
    assert_eq!(count(), 0);
    stage.types_with("bob", &["open"], &[("BROWSER", &browser)]);
    stage.check("open");
}

#[test]
fn without_a_browser_there_is_a_link_that_keeps_its_secret_behind_the_hash() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    let browser = fake_browser(&stage);
    for (arguments, env) in [
        (&["open", &id, "--print"][..], &[("BROWSER", browser.as_str())][..]),
        (&["open"], &[("BROWSER", &browser), ("HALLPASS_NO_BROWSER", "1")]),
        (&["open", "audit"], &[]),
        (&["open", "hosts", "--json"], &[("BROWSER", "false")]),
        (&["open", "--print", "-q"], &[]),
    ] {
        let ran = stage.types_with("bob", arguments, env);
        assert_eq!(ran.code, 0, "{arguments:?}");
        let link = ran.out.split(['"', '\n']).find(|word| word.contains("#token=")).unwrap();
        let (sent, kept) = link.split_once('#').unwrap();
        assert_eq!(sent, format!("{}/sign-in", stage.url()));
        assert!(kept.starts_with("token=hpo_") && !ran.err.contains("hpo_"), "{link}{}", ran.err);
    }
    assert!(!stage.path("browser.arguments").exists(), "it was never started");
    let short = stage.as_person("bob", &["open", &id[..6].to_lowercase(), "--json"]);
    assert_eq!(short.field("page"), format!("{}/r/{}", stage.url(), id.replace('-', "")));
    stage.types("bob", &["open", "users"]);
    stage.types("bob", &["open", "7K3F"]);
    stage.types("eve", &["open"]);
    stage.stop();
    stage.types("bob", &["open", "--print"]);
    stage.check("open_link");
}
