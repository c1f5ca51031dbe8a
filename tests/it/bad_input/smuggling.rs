//! Heads that two readers could read differently: whatever stands before us, one request gets one answer, and what was its body is
//! never taken for a second one.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::api::site::Site;

/// Longer than it takes to be answered, shorter than the server waits for more.
const PATIENCE: Duration = Duration::from_secs(20);

/// What would be a second request, if it were one.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

/// The status of each answer to these bytes, until the server hangs up.
async fn answers(site: &Site, sent: &[u8]) -> Vec<String> {
    let mut raw = site.raw().await;
    // The server may hang up while we still talk.
    raw.write_all(sent).await.unwrap_or_default();
    let mut answer = Vec::new();
    // Not shut down: a server that would wait for more of a body must not take our silence for its end.
    let read = tokio::time::timeout(PATIENCE, raw.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is kept after {:?}", String::from_utf8_lossy(sent));
    let text = String::from_utf8_lossy(&answer);
    text.split("HTTP/1.").skip(1).map(|one| one.chars().skip(2).take(3).collect()).collect()
}

/// A call that takes a body, with these header lines and this body.
fn call(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/login/ssh HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}\r\n{body}")
        .into_bytes()
}

/// One that gives silence little time, so that what waits for more is seen to be waiting.
async fn site() -> Site {
    Site::with(|settings| settings.request_timeout = Duration::from_millis(400)).await
}

#[tokio::test]
async fn what_two_readers_could_end_at_different_places_gets_one_answer_and_the_connection_ends() {
    let site = site().await;
    // Two requests are two answers: this is how a smuggled one would be seen.
    assert_eq!(answers(&site, SMUGGLED.repeat(2).as_bytes()).await, ["200", "200"]);
    let (length, hidden) = (SMUGGLED.len(), SMUGGLED);
    let chunked = format!("0\r\n\r\n{hidden}");
    let whole = chunked.len();
    let (cl, te) = (format!("content-length: {whole}\r\n"), "transfer-encoding: chunked\r\n");
    for (lines, body) in [
        // A length and chunks, in either order.
        (format!("{cl}{te}"), &chunked),
        (format!("{te}{cl}"), &chunked),
        // Lengths that are not one number.
        (format!("content-length: +{length}\r\n"), &hidden.to_owned()),
        (format!("content-length: -{length}\r\n"), &hidden.to_owned()),
        (format!("content-length: 0x{length}\r\n"), &hidden.to_owned()),
        ("content-length: 0 0\r\n".to_owned(), &hidden.to_owned()),
        (format!("content-length: 0, {length}\r\n"), &hidden.to_owned()),
        ("content-length: \r\n".to_owned(), &hidden.to_owned()),
        ("content-length: 18446744073709551616\r\n".to_owned(), &hidden.to_owned()),
        (format!("content-length: 0\r\ncontent-length: {length}\r\n"), &hidden.to_owned()),
        (format!("content-length: {length}\r\ncontent-length: 0\r\n"), &hidden.to_owned()),
        // Encodings that are not chunks, or are to one reader.
        ("transfer-encoding: xchunked\r\n".to_owned(), &chunked),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), &chunked),
        ("transfer-encoding: identity\r\n".to_owned(), &chunked),
        ("transfer-encoding: \x0bchunked\r\n".to_owned(), &chunked),
        ("transfer-encoding: \"chunked\"\r\n".to_owned(), &chunked),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(), &chunked),
        // Names that are others to some.
        (format!("content-length : {length}\r\n"), &hidden.to_owned()),
        ("transfer-encoding : chunked\r\n".to_owned(), &chunked),
        (" transfer-encoding: chunked\r\n".to_owned(), &chunked),
        ("transfer-encoding\r\n : chunked\r\n".to_owned(), &chunked),
        ("x: y\r content-length: 0\r\n".to_owned(), &hidden.to_owned()),
        ("x: y\0content-length: 0\r\n".to_owned(), &hidden.to_owned()),
    ] {
        let sent = call(&lines, body);
        let got = answers(&site, &sent).await;
        assert!(got.is_empty() || got.len() == 1 && got[0].starts_with('4'), "{lines:?}: {got:?}");
    }
    site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn chunks_that_two_readers_could_end_at_different_places_hide_no_second_request() {
    let site = site().await;
    let te = "transfer-encoding: chunked\r\n";
    for body in [
        // A size that overflows 64 bits to a small one.
        format!("10000000000000000\r\n{SMUGGLED}"),
        format!("fffffffffffffffff0\r\n{SMUGGLED}"),
        // Signs, spellings, nothing.
        format!("+0\r\n\r\n{SMUGGLED}"),
        format!("-0\r\n\r\n{SMUGGLED}"),
        format!("0x0\r\n\r\n{SMUGGLED}"),
        format!("\r\n\r\n{SMUGGLED}"),
        format!("g\r\n\r\n{SMUGGLED}"),
        // Line ends that are not.
        format!("0\n\n{SMUGGLED}"),
        format!("0;a\n\r\n\r\n{SMUGGLED}"),
        format!("1\r\nab\r\n0\r\n\r\n{SMUGGLED}"),
        format!("1\r\na0\r\n\r\n{SMUGGLED}"),
        format!("2\r\n{{}}\n0\r\n\r\n{SMUGGLED}"),
    ] {
        let got = answers(&site, &call(te, &body)).await;
        assert!(got.is_empty() || got.len() == 1 && got[0].starts_with('4'), "{body:?}: {got:?}");
    }
    // Well made, it is one body, and what follows is another request.
    let both = call(te, &format!("2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"));
    assert_eq!(answers(&site, &both).await, ["400", "200"]);
}

#[tokio::test]
async fn lines_that_end_in_a_bare_line_feed_are_one_request_or_none() {
    let site = site().await;
    for head in [
        "GET /healthz HTTP/1.1\nhost: x\n\n",
        "GET /healthz HTTP/1.1\r\nhost: x\n\r\n",
        "GET /healthz HTTP/1.1\rhost: x\r\r",
        "GET /healthz HTTP/1.1 \r\nhost: x\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz\x0bHTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let got = answers(&site, head.as_bytes()).await;
        assert!(got.len() <= 1, "{head:?}: {got:?}");
    }
    // Within a body they are its bytes.
    let hidden = SMUGGLED.replace("\r\n", "\n");
    let got = answers(&site, &call(&format!("content-length: {}\r\n", hidden.len()), &hidden)).await;
    assert_eq!(got.len(), 1, "{got:?}");
}
