//! A real headless Chromium, driven through chromedriver with plain HTTP (by curl, so that it needs no runtime and ends with its handle).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// How long the browser looks for what is not there yet.
const PATIENCE_MS: u64 = 30_000;

/// A browser of the size of a phone.
pub(super) struct Browser {
    driver: Child,
    session: String,
}

/// Whether it can be started here; says so if not.
pub(super) fn is_there() -> bool {
    let found = ["chromium", "chromedriver", "curl"].iter().find(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    });
    if let Some(missing) = found {
        eprintln!("NOT TESTED: {missing} is not installed");
    }
    found.is_none()
}

impl Browser {
    /// `folder`: for its profile.
    pub(super) fn start(folder: &std::path::Path) -> Self {
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("started successfully on port") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "chromedriver did not start");
        }
        let port: String = line.chars().filter(char::is_ascii_digit).collect();
        let driver_url = format!("http://127.0.0.1:{port}/session");
        let profile = format!("--user-data-dir={}", folder.join("chromium").display());
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", &profile];
        let phone =
            json!({ "deviceMetrics": { "width": 360, "height": 740, "pixelRatio": 2, "touch": true, "mobile": true } });
        let options = json!({ "args": arguments, "mobileEmulation": phone });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let mut browser = Self { driver, session: driver_url.clone() };
        let made = browser.call("POST", "", Some(&wanted));
        browser.session = format!("{driver_url}/{}", made["sessionId"].as_str().unwrap());
        browser.call("POST", "/timeouts", Some(&json!({ "implicit": PATIENCE_MS, "script": PATIENCE_MS })));
        browser
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let url = format!("{}{path}", self.session);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-m", "120", "--noproxy", "*", "-X", method, "-H", "content-type: application/json", &url]);
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = body.map(ToString::to_string).unwrap_or_default();
        // It is too long for an argument when a script is sent.
        curl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let ran = curl.wait_with_output().unwrap();
        let answer: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {}\n{}", answer["value"]["message"], self.page());
        answer["value"].clone()
    }

    /// What the page shows, for when something else was expected.
    fn page(&self) -> String {
        let body =
            json!({ "script": "return document.title + '\\n' + document.body.innerText", "args": [] }).to_string();
        let url = format!("{}/execute/sync", self.session);
        let ran = Command::new("curl")
            .args(["-s", "-m", "10", "-H", "content-type: application/json", "-d", &body, &url])
            .output();
        let answer = ran.ok().and_then(|ran| serde_json::from_slice::<Value>(&ran.stdout).ok()).unwrap_or_default();
        answer["value"].as_str().unwrap_or_default().to_owned()
    }

    /// A program that opens the URL of its argument in this browser, as `BROWSER` names one.
    pub(super) fn as_program(&self) -> String {
        format!(
            "#!/bin/sh\nexec curl -sf -m 60 --noproxy '*' -H 'content-type: application/json' -d \"{{\\\"url\\\":\\\"$1\\\"}}\" {}/url >/dev/null\n",
            self.session
        )
    }

    pub(super) fn goes_to(&self, url: &str) {
        self.call("POST", "/url", Some(&json!({ "url": url })));
    }

    pub(super) fn url(&self) -> String {
        self.call("GET", "/url", None).as_str().unwrap().to_owned()
    }

    /// Waits for an element by `XPath`; its reference.
    fn find(&self, path: &str) -> String {
        let found = self.call("POST", "/element", Some(&json!({ "using": "xpath", "value": path })));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// Waits for an element that shows this text.
    pub(super) fn sees(&self, text: &str) {
        self.find(&format!("//*[contains(normalize-space(.), \"{text}\") and not(self::script)]"));
    }

    /// Presses what this `XPath` names.
    pub(super) fn presses(&self, path: &str) {
        let element = self.find(path);
        self.call("POST", &format!("/element/{element}/click"), Some(&json!({})));
    }

    pub(super) fn types(&self, path: &str, text: &str) {
        let element = self.find(path);
        self.call("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text })));
    }

    /// What a script in the page returns.
    pub(super) fn runs(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", Some(&json!({ "script": script, "args": [] })))
    }

    /// What axe finds wrong for people who see or move otherwise, if `HALLPASS_AXE` names its script (`tests/run` fetches it).
    pub(super) fn violations(&self) -> Value {
        let Some(file) = std::env::var_os("HALLPASS_AXE") else { return json!([]) };
        let axe = std::fs::read_to_string(file).unwrap();
        let script = format!(
            "const done = arguments[0]; {axe}; axe.run().then((found) => done(found.violations.map((one) => \
             `${{one.id}}: ${{one.nodes.map((node) => node.html).join(' ')}}`)), (error) => done([String(error)]));"
        );
        self.call("POST", "/execute/async", Some(&json!({ "script": script, "args": [] })))
    }

    /// What the page and the browser complained about, but for statuses that are answers of ours.
    pub(super) fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let texts = log.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned());
        texts.filter(|text| !text.contains("the server responded with a status of 4")).collect()
    }

    /// By the system's preference.
    pub(super) fn prefers(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let params = json!({ "features": features });
        self.call("POST", "/goog/cdp/execute", Some(&json!({ "cmd": "Emulation.setEmulatedMedia", "params": params })));
    }

    /// A picture of the page, for people, if `HALLPASS_PICTURES` names a folder.
    pub(super) fn pictures(&self, name: &str) {
        let Some(folder) = std::env::var_os("HALLPASS_PICTURES") else { return };
        let picture = self.call("GET", "/screenshot", None);
        let bytes = data_encoding::BASE64.decode(picture.as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = Command::new("curl").args(["-s", "-m", "20", "-X", "DELETE", &self.session]).output();
        let _killed = self.driver.kill();
        let _status = self.driver.wait();
    }
}
