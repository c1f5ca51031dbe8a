//! Clients that are slow on purpose, many at once: they are cut, and hold up nobody.

use std::time::Duration;

use hallpass::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::api::site::Site;

/// Longer than any limit that is set here; who waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many of each sort.
const EACH: usize = 20;

/// Sends byte by byte, for as long as the other end takes it.
async fn drips(mut raw: TlsStream<TcpStream>, begin: &[u8]) {
    raw.write_all(begin).await.unwrap_or_default();
    while raw.write_all(b"a").await.is_ok() && raw.flush().await.is_ok() {
        // Slower than a reader, faster than any limit: what drips never rests.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads until the other end hangs up.
async fn listens(mut raw: TlsStream<TcpStream>, begin: &[u8]) {
    raw.write_all(begin).await.unwrap_or_default();
    raw.read_to_end(&mut Vec::new()).await.unwrap_or_default();
}

/// Asks again and again and reads nothing.
async fn never_reads(mut raw: TlsStream<TcpStream>) {
    let many = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    while raw.write_all(&many).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_every_sort_are_cut_while_others_are_served() {
    let site = Site::with(|settings| {
        settings.request_timeout = Duration::from_secs(1);
        settings.connections_max = 600;
    })
    .await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let token = site.token("eve").await;
    let body = format!(
        "POST /v1/requests HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"
    );
    let mut slow = JoinSet::new();
    for _ in 0..EACH {
        let mut silent = TcpStream::connect(site.settings.listen).await.unwrap();
        slow.spawn(async move {
            silent.read_to_end(&mut Vec::new()).await.unwrap_or_default();
        });
        for protocol in [b"h2".as_slice(), b"http/1.1"] {
            let raw = site.raw_as(protocol).await;
            slow.spawn(listens(raw, b""));
        }
        let (head, bodies, reads_not) = (site.raw().await, site.raw().await, site.raw().await);
        slow.spawn(drips(head, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "));
        let body = body.clone();
        slow.spawn(async move { drips(bodies, body.as_bytes()).await });
        slow.spawn(never_reads(reads_not));
    }
    // Others: the whole story, meanwhile.
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    crate::api::approve(&bob, &asked.id).await.unwrap();
    crate::api::certificate(&alice, &asked.id).await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, async { while slow.join_next().await.is_some() {} }).await;
    assert!(cut.is_ok(), "{} are not cut", slow.len());
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    crate::api::approve(&bob, &asked.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_byte_by_byte_takes_nobodys_place() {
    let site = Site::with(|settings| settings.calls_at_once = 1).await;
    let alice = site.logged_in("alice").await;
    let token = site.token("alice").await;
    let mut raw = site.raw().await;
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    // The server asks for the body once it wants to read it: the call is under way, and its caller known.
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    raw.write_all(b"{").await.unwrap();
    alice.post::<_, wire::Request>("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    drop(raw);
}
