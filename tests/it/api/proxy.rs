//! Calls through an HTTPS proxy: it sees the server's name and nothing of what is said.

use std::time::Duration;

use hallpass::client::{Client, Server, fetch_pin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::site::Site;

/// A proxy that knows one way out, to `site`; its URL, and the head of each call that it gets.
async fn proxy(site: &Site) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://ann:secret@{}", listener.local_addr().unwrap());
    let (heads, heard) = mpsc::unbounded_channel();
    let target = site.settings.listen;
    tokio::spawn(async move {
        loop {
            let (mut inside, _) = listener.accept().await.unwrap();
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(inside.read_u8().await.unwrap());
                }
                heads.send(String::from_utf8(head).unwrap()).unwrap();
                inside.write_all(b"HTTP/1.1 200 go on\r\n\r\n").await.unwrap();
                let mut outside = TcpStream::connect(target).await.unwrap();
                // Either end may hang up first.
                let _ended = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    (url, heard)
}

#[tokio::test]
async fn calls_go_through_the_proxy_that_is_named_and_the_pin_still_holds() {
    let site = Site::new().await;
    let (proxy, mut heard) = proxy(&site).await;
    let url = "https://access.test:7722".to_owned();
    let timeout = Duration::from_secs(20);
    assert_eq!(fetch_pin(&url, Some(proxy.clone()), timeout).await.unwrap(), site.pin);
    let head = heard.recv().await.unwrap();
    assert!(head.starts_with("CONNECT access.test:7722 HTTP/1.1\r\n"), "{head}");

    let through = |pin: &str| {
        let server = Server { url: url.clone(), pin: Some(pin.to_owned()), proxy: Some(proxy.clone()) };
        Client::new(server, Some("hps_secret".into()), timeout).unwrap()
    };
    assert_eq!(through(&site.pin).text("/healthz").await.unwrap(), "ok\n");
    let head = heard.recv().await.unwrap();
    // base64 of ann:secret
    assert!(head.to_lowercase().contains("proxy-authorization: basic yw5uonnly3jlda=="), "{head}");
    assert!(!head.contains("hps_secret"), "{head}");
    through(&"0".repeat(64)).text("/healthz").await.unwrap_err();

    // Loopback needs no proxy, and none may listen in.
    let server = Server { url: site.url(), pin: Some(site.pin.clone()), proxy: Some("http://127.0.0.1:1".to_owned()) };
    assert_eq!(Client::new(server, None, timeout).unwrap().text("/healthz").await.unwrap(), "ok\n");
}
