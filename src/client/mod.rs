//! HTTP client of our API: TLS with a pinned certificate or the system's roots, deadlines, size limits, typed refusals.
//!
//! What for: everything on the client side that talks to the service. One call is one HTTP exchange; nothing is retried here
//! (the caller knows whether asking again is right) but what the server turned away before it had begun ([`again`]); nothing is kept but
//! the connection.
//!
//! What not: no environment (proxy and token are arguments), no files, no redirects, no cookies, no trust in the text of an
//! answer: whoever prints it escapes it. Of the headers only type and `Date` are read: the latter tells how far this machine's clock is
//! off ([`ClockOffset`]).
//!
//! Limits: [`ANSWER_BYTES_MAX`] a body, counted while it streams; a deadline over each whole exchange; event streams end when
//! nothing, not even a heartbeat, came for [`HEARTBEAT_OVERDUE`].
//!
//! *Why is a pinned certificate not checked for its name or dates?* The pin is the SHA-256 of that one certificate: whoever
//! holds its key is the server, whatever it says about itself. The handshake signature is verified in every case.

mod again;
mod sse;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;
pub use sse::EventStream;

/// Longest answer that is read: 16 MiB. Our own choice; a thousand requests or log entries stay below it.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest silence on an event stream: three missed heartbeats of 20 s.
pub const HEARTBEAT_OVERDUE: Duration = Duration::from_secs(60);

/// Longest wait for a connection, as long as the deadline of the call allows it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept; shorter than the server keeps it, so that it is never found dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the server is and how it is recognised.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Base URL without a final slash.
    pub url: String,
    /// SHA-256 of the server's leaf certificate (DER), lower-case hex, when pinned; else the web's roots decide.
    pub pin: Option<String>,
    /// The proxy to go through (`HTTPS_PROXY`), never for loopback.
    pub proxy: Option<String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL, pin, proxy or TLS set-up is unusable; no server was asked.
    #[error("cannot use {url:?} as access server: {why}")]
    Setup {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Can't be reached (DNS, connect, time-out, connection lost). Trying again can help.
    #[error("cannot reach the access server at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// Reached something whose certificate does not fit the pin.
    #[error("this is not the server you enrolled with")]
    Pin {
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// The server said no, or that something is wrong.
    #[error("{}", .0.title)]
    Problem(Box<wire::Problem>),
    /// A login was refused by a server that calls itself otherwise than we do, which is what a login's statement names.
    #[error("login refused: the service is called {named} by now, and is known here as {known}")]
    Renamed {
        /// Its URL as we know it.
        known: String,
        /// As it says; may stand in a line to be typed.
        named: String,
    },
    /// It answered something that is not our API.
    #[error("the server's answer is not hallpass': {0}")]
    Protocol(String),
}

/// Whether a text that a server sent is a URL that may stand in a line to be typed.
#[must_use]
pub fn is_plain_url(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
    text.strip_prefix("https://").is_some_and(|rest| (1..=200).contains(&rest.len()) && rest.bytes().all(is_plain))
}

/// By how many seconds this machine's clock is ahead of the server's, by the newest answer; negative when it is behind.
///
/// Right to a second and the time that the answer was on its way. A handle: clones show the same.
#[derive(Clone, Debug)]
pub struct ClockOffset(Arc<AtomicI64>);

impl Default for ClockOffset {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(Self::UNKNOWN)))
    }
}

impl ClockOffset {
    const UNKNOWN: i64 = i64::MIN;

    /// The seconds; `None` before an answer came.
    #[must_use]
    pub fn seconds(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|seconds| *seconds != Self::UNKNOWN)
    }

    fn note(&self, there: Timestamp) {
        let here = SystemClock.now();
        let ahead = i64::try_from(here.unix()).unwrap_or(i64::MAX);
        let ahead = ahead.saturating_sub(i64::try_from(there.unix()).unwrap_or(i64::MAX));
        self.0.store(ahead, Ordering::Relaxed);
    }
}

/// A client for one server, perhaps logged in.
#[derive(Debug)]
pub struct Client {
    server: Server,
    token: Option<SecretString>,
    timeout: Duration,
    http: reqwest::Client,
    seen: Arc<tls::Seen>,
    offset: ClockOffset,
    pausing: Option<again::Pausing>,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// [`ClientError::Setup`] for a URL that is not `https://` (or `http://` to loopback) or has a path, for a pin that is not 64
    /// hex digits, for an unusable proxy, or when the system has no trusted roots and nothing is pinned.
    pub fn new(server: Server, token: Option<SecretString>, timeout: Duration) -> Result<Self, ClientError> {
        let setup = |why: &str| ClientError::Setup { url: server.url.clone(), why: why.to_owned() };
        let trust = match &server.pin {
            Some(pin) => {
                tls::Trust::Pin(tls::parse_pin(pin).ok_or_else(|| setup("a pin has 64 lower-case hex digits"))?)
            }
            None => tls::Trust::Roots,
        };
        Self::with_trust(server, token, timeout, trust)
    }

    fn with_trust(
        mut server: Server,
        token: Option<SecretString>,
        timeout: Duration,
        trust: tls::Trust,
    ) -> Result<Self, ClientError> {
        let setup = |why: String| ClientError::Setup { url: server.url.clone(), why };
        let (url, is_loopback) = parse_url(&server.url).map_err(setup)?;
        let (config, seen) = tls::config(trust).map_err(setup)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(url.scheme() == "https")
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        server.proxy = server.proxy.filter(|_| !is_loopback);
        if let Some(proxy) = &server.proxy {
            // Neither the text nor the library's error is shown: there may be a password in it.
            let unusable = |_| setup(format!("the proxy {} cannot be used", shown_proxy(proxy)));
            builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(unusable)?);
        }
        let http = builder.build().map_err(|e| setup(e.to_string()))?;
        server.url = server.url.trim_end_matches('/').to_owned();
        Ok(Self { server, token, timeout, http, seen, offset: ClockOffset::default(), pausing: None })
    }

    /// The same for another session, over the same connections.
    #[must_use]
    pub fn for_session(&self, token: SecretString) -> Self {
        let Self { server, token: _, timeout, http, seen, offset, pausing } = self;
        Self {
            server: server.clone(),
            token: Some(token),
            timeout: *timeout,
            http: http.clone(),
            seen: Arc::clone(seen),
            offset: offset.clone(),
            pausing: pausing.clone(),
        }
    }

    /// The same, noting the clock's offset at each answer in `offset`.
    #[must_use]
    pub fn noting(mut self, offset: &ClockOffset) -> Self {
        self.offset = offset.clone();
        self
    }

    /// The same, telling `pausing` of each pause before a call is sent again that the server turned away.
    #[must_use]
    pub fn telling(mut self, pausing: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.pausing = Some(again::Pausing::new(pausing));
        self
    }

    /// How far this machine's clock is off, as the answers so far say.
    #[must_use]
    pub const fn offset(&self) -> &ClockOffset {
        &self.offset
    }

    /// Where it calls.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<A: serde::de::DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        parse_json(&self.exchange(Method::GET, path, None).await?)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<Q: serde::Serialize + Sync, A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Q,
    ) -> Result<A, ClientError> {
        parse_json(&self.exchange(Method::POST, path, Some(to_json(body)?)).await?)
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put<Q: serde::Serialize + Sync, A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Q,
    ) -> Result<A, ClientError> {
        parse_json(&self.exchange(Method::PUT, path, Some(to_json(body)?)).await?)
    }

    /// `DELETE path`, answer ignored.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.exchange(Method::DELETE, path, None).await.map(drop)
    }

    /// `GET path` as text (trust bundle).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.exchange(Method::GET, path, None).await?;
        String::from_utf8(bytes).map_err(|_not_utf8| ClientError::Protocol("text that is not UTF-8".to_owned()))
    }

    /// Opens the event stream of a request; the first event is its present state.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, id: &str) -> Result<EventStream, ClientError> {
        self.stream(&format!("/v1/requests/{id}/events")).await
    }

    /// Opens the event stream at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, path: &str) -> Result<EventStream, ClientError> {
        let request = || self.request(Method::GET, path, None).header(ACCEPT, "text/event-stream");
        let answer = tokio::time::timeout(self.timeout, self.answer(request, self.timeout))
            .await
            .map_err(|_elapsed| self.no_answer())??;
        if !content_type(&answer).starts_with("text/event-stream") {
            return Err(ClientError::Protocol(format!("an event stream of type {:?}", content_type(&answer))));
        }
        Ok(EventStream::new(answer))
    }

    /// Waits on `GET /v1/requests/ID/events` (SSE) until the request changes, a heartbeat is overdue or the connection ends; `Ok(None)` for
    /// the latter two: look again. Each event's data is a [`wire::Request`].
    ///
    /// # Errors
    /// [`ClientError::Protocol`] when something else than events of ours comes.
    pub async fn next_event(&self, stream: &mut EventStream) -> Result<Option<wire::Request>, ClientError> {
        stream.next(HEARTBEAT_OVERDUE).await?.map(|data| parse_json(data.as_bytes())).transpose()
    }

    /// Waits on a stream of [`Self::stream`] until something comes: its data. `None` as for [`Self::next_event`].
    ///
    /// # Errors
    /// [`ClientError::Protocol`] when something else than events of ours comes.
    pub async fn next_data(stream: &mut EventStream) -> Result<Option<String>, ClientError> {
        stream.next(HEARTBEAT_OVERDUE).await
    }

    /// `GET path` as JSON, unless it still is what `etag` names: then `None`. May take as long as `patience`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_changed<A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        etag: &str,
        patience: Duration,
    ) -> Result<Option<A>, ClientError> {
        let whole = async {
            let request = || self.request(Method::GET, path, None).header(IF_NONE_MATCH, format!("\"{etag}\""));
            let answer = self.answer(request, patience).await?;
            if answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            parse_json(&self.body(answer).await?).map(Some)
        };
        tokio::time::timeout(patience, whole).await.map_err(|_elapsed| self.no_answer())?
    }

    /// One exchange: the body of a successful answer.
    async fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let request = || self.request(method.clone(), path, body.clone());
        let whole = async { self.body(self.answer(request, self.timeout).await?).await };
        tokio::time::timeout(self.timeout, whole).await.map_err(|_elapsed| self.no_answer())?
    }

    /// The answer to a call, if it is a success (or says that nothing has changed). One that the server turned away is sent again when it
    /// says, as long as there is time for it.
    async fn answer(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
        patience: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        let until = Instant::now() + patience;
        loop {
            let answer = request().send().await.map_err(|e| self.failure(&e))?;
            self.note_date(&answer);
            if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            let named = again::named(answer.headers());
            let refusal = self.refusal(answer).await;
            let pause = match &refusal {
                ClientError::Problem(problem) => again::pause(problem, named, rand::random(), (Instant::now(), until)),
                _ => None,
            };
            let Some(pause) = pause else { return Err(refusal) };
            if let Some(pausing) = &self.pausing {
                pausing.tell(pause);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn note_date(&self, answer: &reqwest::Response) {
        let date = answer.headers().get(DATE).and_then(|value| value.to_str().ok());
        if let Some(there) = date.and_then(|text| Timestamp::parse_http_date(text).ok()) {
            self.offset.note(there);
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.server.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body),
            None => request,
        }
    }

    /// Reads a body, but no more than [`ANSWER_BYTES_MAX`].
    async fn body(&self, mut answer: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.failure(&e))? {
            if bytes.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(ClientError::Protocol(format!("longer than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// What an unsuccessful answer means.
    async fn refusal(&self, answer: reqwest::Response) -> ClientError {
        let status = answer.status();
        let kind = content_type(&answer);
        if kind.starts_with("application/problem+json") {
            return match self.body(answer).await.and_then(|b| parse_json::<wire::Problem>(&b)) {
                Ok(problem) => ClientError::Problem(Box::new(problem)),
                Err(error) => error,
            };
        }
        // Something between us and the server answered in its place.
        let gateway = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        if gateway.contains(&status) {
            let why = format!("something on the way answered with status {}", status.as_u16());
            return self.unreachable(why);
        }
        ClientError::Protocol(format!("status {} of type {kind:?}", status.as_u16()))
    }

    fn no_answer(&self) -> ClientError {
        let why = format!("no answer within {} s", self.timeout.as_secs_f32());
        self.unreachable(why)
    }

    fn unreachable(&self, why: String) -> ClientError {
        let why = match &self.server.proxy {
            Some(proxy) => format!("{why} (through the proxy {})", shown_proxy(proxy)),
            None => why,
        };
        ClientError::Unreachable { url: self.server.url.clone(), why }
    }

    fn failure(&self, error: &reqwest::Error) -> ClientError {
        if let (Some(expected), Some(got)) = (&self.server.pin, self.seen.other()) {
            return ClientError::Pin { expected: expected.clone(), got };
        }
        self.unreachable(plain_cause(error))
    }
}

/// The SHA-256 pin of the certificate that `url` shows now, without trusting it (for `login --server`, which asks the person).
/// `proxy`: as in [`Server::proxy`].
///
/// # Errors
/// [`ClientError::Unreachable`], [`ClientError::Setup`].
pub async fn fetch_pin(url: &str, proxy: Option<String>, timeout: Duration) -> Result<String, ClientError> {
    let server = Server { url: url.to_owned(), pin: None, proxy };
    let client = Client::with_trust(server, None, timeout, tls::Trust::Anything)?;
    // Whatever it answers: the certificate it showed is what counts.
    let answer = client.exchange(Method::GET, "/healthz", None).await;
    match (client.seen.last(), answer) {
        (Some(pin), _) => Ok(pin),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(ClientError::Protocol("no certificate was shown".to_owned())),
    }
}

/// A proxy as it may be shown: its place, without name and password.
fn shown_proxy(proxy: &str) -> String {
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{:?}", authority.rsplit_once('@').map_or(authority, |(_, place)| place))
}

/// The URL, and whether it is loopback.
fn parse_url(text: &str) -> Result<(Url, bool), String> {
    let url = Url::parse(text).map_err(|e| format!("not a URL like https://hallpass.example.com:7722 ({e})"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must be scheme, host and port alone".to_owned());
    }
    match url.scheme() {
        "https" => Ok((url, is_loopback)),
        "http" if is_loopback => Ok((url, true)),
        _ => Err("the URL must start with https://".to_owned()),
    }
}

fn content_type(answer: &reqwest::Response) -> String {
    let value = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.chars().take(100).collect()
}

fn to_json<Q: serde::Serialize>(body: &Q) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|e| ClientError::Protocol(format!("the question has no JSON form: {e}")))
}

fn parse_json<A: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<A, ClientError> {
    serde_json::from_slice(bytes).map_err(|e| ClientError::Protocol(e.to_string()))
}

/// The innermost cause in plain words.
fn plain_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    match io {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof) => "connection lost".to_owned(),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, pin: Option<&str>) -> String {
        let server = Server { url: url.to_owned(), pin: pin.map(str::to_owned), proxy: None };
        Client::new(server, None, Duration::from_secs(1)).unwrap_err().to_string()
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        for (proxy, shown) in [
            ("http://ann:secret@proxy.example:3128", "\"proxy.example:3128\""),
            ("http://proxy.example:3128/", "\"proxy.example:3128\""),
            ("ann:se@cret@proxy.example", "\"proxy.example\""),
            ("http://ann:secret@\u{1b}[2J", "\"\\u{1b}[2J\""),
        ] {
            assert_eq!(shown_proxy(proxy), shown);
        }
        let proxy = Some("http://ann:secret@ proxy".to_owned());
        let server = Server { url: "https://h.example".to_owned(), pin: None, proxy };
        let pin = Some("ab".repeat(32));
        let error = Client::new(Server { pin, ..server }, None, Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("cannot be used") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn only_https_and_loopback_http_are_taken() {
        let pin = "ab".repeat(32);
        for url in [
            "https://h.example:7722",
            "https://h.example/",
            "http://127.0.0.1:1",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            let server = Server { url: url.to_owned(), pin: Some(pin.clone()), proxy: None };
            assert!(Client::new(server, None, Duration::from_secs(1)).is_ok(), "{url}");
        }
        for url in ["http://h.example", "http://10.0.0.1", "ftp://h.example", "h.example", ""] {
            assert!(refused(url, Some(&pin)).starts_with("cannot use"), "{url}");
        }
        for url in ["https://h.example/api", "https://h.example?x", "https://u:p@h.example", "https://h.example#x"] {
            assert!(refused(url, Some(&pin)).contains("scheme, host and port alone"), "{url}");
        }
    }

    #[test]
    fn a_pin_has_64_lower_case_hex_digits() {
        for pin in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(refused("https://h.example", Some(pin)).contains("64 lower-case hex digits"), "{pin}");
        }
    }
}
