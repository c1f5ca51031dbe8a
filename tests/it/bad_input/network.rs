//! Floods, noise, silence and slowness below HTTP's own words: cut off, and the server goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Attack;
use crate::api::site::Site;

#[tokio::test]
async fn a_flood_of_headers_is_cut_off_and_the_server_goes_on() {
    let attack = Attack::new().await;
    for flood in [
        (0..1000).map(|n| format!("x-{n}: 1\r\n")).collect::<String>(),
        format!("x: {}\r\n", "1".repeat(1024 * 1024)),
        format!("x{}", "\r\n y".repeat(100_000)),
    ] {
        let mut raw = attack.site.raw().await;
        let sent = raw.write_all(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{flood}\r\n").as_bytes()).await;
        let mut answer = Vec::new();
        // The server may hang up while we still talk; what counts is that it does not serve this.
        let read = raw.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?} {read:?}");
    }
    attack.site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn what_is_no_http_is_cut_off_and_the_server_goes_on() {
    let attack = Attack::new().await;
    for noise in [
        b"\0\0\0\0\0\0\0\0\r\n\r\n".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"POST /v1/explain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
    ] {
        let mut raw = attack.site.raw().await;
        raw.write_all(noise).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = raw.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{noise:?} {read:?}");
    }
    attack.site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let site = Site::with(|settings| settings.request_timeout = Duration::from_millis(400)).await;
    let token = site.token("alice").await;
    let mut raw = site.raw().await;
    raw.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    let mut raw = site.raw().await;
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap_or_default();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("\"code\":\"timeout\""), "{answer}");
}

/// Longer than any limit that is set here; who waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn silent_connections_of_either_protocol_are_cut_off() {
    let site = Site::with(|settings| settings.request_timeout = Duration::from_millis(200)).await;
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let mut raw = site.raw_as(protocol).await;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, raw.read_to_end(&mut answer)).await.expect("cut off").unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
    site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn an_http2_peer_that_gives_no_window_is_cut_off() {
    let site = Site::with(|settings| settings.request_timeout = Duration::from_millis(200)).await;
    let mut raw = site.raw_as(b"h2").await;
    // Settings: INITIAL_WINDOW_SIZE = 0. Headers: GET https / with :path /healthz, end of stream.
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0").await.unwrap();
    raw.write_all(b"\0\0\x10\x01\x05\0\0\0\x01\x82\x87\x04\x08/healthz\x41\x02ab").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, raw.read_to_end(&mut answer)).await.expect("cut off").unwrap_or_default();
    // A HEADERS frame (type 1) on stream 1 came, so the exchange was under way.
    assert!(answer.windows(6).any(|bytes| bytes == [1, 4, 0, 0, 0, 1]), "{answer:?}");
    site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn an_http1_peer_that_reads_nothing_is_cut_off() {
    let site = Site::with(|settings| settings.request_timeout = Duration::from_millis(200)).await;
    let mut raw = site.raw().await;
    let many = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let cut = tokio::time::timeout(PATIENCE, async { while raw.write_all(&many).await.is_ok() {} });
    cut.await.expect("cut off");
    site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_have_a_smaller_share() {
    let site = Site::with(|settings| settings.connections_max = 1000).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(tokio::net::TcpStream::connect(site.settings.listen).await.unwrap());
    }
    let mut late = tokio::net::TcpStream::connect(site.settings.listen).await.unwrap();
    let mut answer = Vec::new();
    // Sooner than a handshake's own deadline.
    let read = tokio::time::timeout(Duration::from_secs(3), late.read_to_end(&mut answer)).await;
    read.expect("turned away").unwrap_or_default();
    drop(held);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let site = Site::with(|settings| settings.connections_max = 4).await;
    let _held = (site.raw().await, site.raw().await);
    let mut plain = tokio::net::TcpStream::connect(site.settings.listen).await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap_or_default();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_cut_off() {
    let site = Site::new().await;
    let mut plain = tokio::net::TcpStream::connect(site.settings.listen).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    site.client(None).text("/healthz").await.unwrap();
}
