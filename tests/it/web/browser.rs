//! A browser as far as a server can tell: it keeps one cookie, follows nothing by itself, and says where its forms come from.

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use hallpass::wire;

use crate::api::site::Site;

/// What came back.
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Page {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of the first field of this name.
    pub(super) fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&start).unwrap_or_else(|| panic!("no {name} in {}", self.text));
        rest.split_once('"').unwrap().0.to_owned()
    }

    #[track_caller]
    pub(super) fn says(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{} without {text:?}:\n{}", self.status, self.text);
        self
    }

    #[track_caller]
    pub(super) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    #[track_caller]
    pub(super) fn leads_to(&self, path: &str) -> &Self {
        assert_eq!((self.status.as_u16(), self.header("location")), (303, path), "{}", self.text);
        self
    }
}

/// A browser.
pub(super) struct Browser {
    http: reqwest::Client,
    url: String,
    pub(super) cookie: Option<String>,
}

/// Who a form says that it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'f> {
    pub(super) origin: Option<&'f str>,
    pub(super) site: Option<&'f str>,
}

impl Browser {
    pub(super) fn new(site: &Site) -> Self {
        Self { http: site.http_as_it_is(), url: site.url(), cookie: None }
    }

    /// One in which this person is signed in.
    pub(super) async fn of(site: &Site, name: &str) -> Self {
        let mut browser = Self::new(site);
        let token = sign_in_token(site, name).await;
        browser.confirms(&token, "").await.leads_to("/");
        browser
    }

    /// Presses the button that signs in.
    pub(super) async fn confirms(&mut self, token: &str, to: &str) -> Page {
        let page = self.post("/sign-in/confirm", &[("token", token), ("to", to)]).await;
        if let Some(set) = page.headers.get("set-cookie") {
            self.cookie = Some(set.to_str().unwrap().split(';').next().unwrap().to_owned());
        }
        page
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        self.send(Method::GET, path, None, From { origin: None, site: Some("none") }).await
    }

    /// A link on another site led here.
    pub(super) async fn follows(&self, path: &str) -> Page {
        self.send(Method::GET, path, None, From { origin: None, site: Some("cross-site") }).await
    }

    /// A form of a page of ours.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let url = self.url.clone();
        self.post_from(path, fields, From { origin: Some(&url), site: Some("same-origin") }).await
    }

    pub(super) async fn post_from(&self, path: &str, fields: &[(&str, &str)], from: From<'_>) -> Page {
        self.send(Method::POST, path, Some(fields), from).await
    }

    /// Opens the stream of this path.
    pub(super) async fn stream(&self, path: &str) -> reqwest::Response {
        let call = self.http.get(format!("{}{path}", self.url)).header("accept", "text/event-stream");
        call.header("cookie", self.cookie.as_deref().unwrap_or_default()).send().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, fields: Option<&[(&str, &str)]>, from: From<'_>) -> Page {
        let accept = HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8");
        let mut call = self.http.request(method, format!("{}{path}", self.url)).header("accept", accept);
        for (name, value) in
            [("cookie", self.cookie.as_deref()), ("origin", from.origin), ("sec-fetch-site", from.site)]
        {
            if let Some(value) = value {
                call = call.header(name, value);
            }
        }
        if let Some(fields) = fields {
            call = call.header("content-type", "application/x-www-form-urlencoded").body(encode(fields));
        }
        let answer = call.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Page { status, headers, text: answer.text().await.unwrap() }
    }
}

/// As a browser encodes a form.
pub(super) fn encode(fields: &[(&str, &str)]) -> String {
    let word = |text: &str| -> String {
        text.bytes()
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect()
    };
    fields.iter().map(|(name, value)| format!("{}={}", word(name), word(value))).collect::<Vec<_>>().join("&")
}

/// A sign-in token of a new login by this person.
pub(super) async fn sign_in_token(site: &Site, name: &str) -> String {
    let token: wire::SignIn = site.logged_in(name).await.post("/v1/session/browser", &()).await.unwrap();
    token.token.to_string()
}
