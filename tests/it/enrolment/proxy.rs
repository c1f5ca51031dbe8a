//! A proxy in front of a service, with the service's own certificate, that passes whole answers and no event streams.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What it does with streams, and has seen of them.
#[derive(Default)]
pub(crate) struct Streams {
    /// Whether it takes them and passes nothing on; else it refuses them.
    pub(crate) swallows: AtomicBool,
    /// How many it was asked for.
    pub(crate) count: AtomicU32,
}

/// The way through.
struct Proxy {
    accepts: TlsAcceptor,
    client: reqwest::Client,
    address: String,
    streams: Arc<Streams>,
}

/// Starts it for a service whose files are in `folder`, and that listens on `address`.
pub(crate) fn start(listener: std::net::TcpListener, folder: &Path, address: &str) -> Arc<Streams> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(found(folder, "tls-certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(found(folder, "tls-key.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server =
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let server = server.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
    let streams = Arc::new(Streams::default());
    let proxy = Arc::new(Proxy {
        accepts: TlsAcceptor::from(Arc::new(server)),
        client: reqwest::Client::builder().tls_backend_preconfigured(client).no_proxy().build().unwrap(),
        address: address.to_owned(),
        streams: Arc::clone(&streams),
    });
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        loop {
            let (line, _) = listener.accept().await.unwrap();
            let proxy = Arc::clone(&proxy);
            // Whoever hangs up in the middle is nobody's trouble.
            tokio::spawn(async move { drop(proxy.pass(line).await) });
        }
    });
    streams
}

/// The file of this name, wherever in the folder it is.
fn found(folder: &Path, name: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut folders = vec![folder.to_path_buf()];
    folders.extend(entries.filter(|path| path.is_dir()));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists()).unwrap()
}

impl Proxy {
    /// One call after another, as long as the caller likes.
    async fn pass(&self, line: TcpStream) -> std::io::Result<()> {
        let mut line = self.accepts.accept(line).await?;
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(line.read_u8().await?);
            }
            let head = String::from_utf8(head).unwrap();
            if head.contains("/events ") {
                return self.stop(line).await;
            }
            let answer = self.ask(&head, &mut line).await?;
            line.write_all(&answer).await?;
            line.flush().await?;
        }
    }

    /// What comes of a stream.
    async fn stop(&self, mut line: TlsStream<TcpStream>) -> std::io::Result<()> {
        self.streams.count.fetch_add(1, Ordering::SeqCst);
        if !self.streams.swallows.load(Ordering::SeqCst) {
            line.write_all(b"HTTP/1.1 502 no streams here\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
            return line.shutdown().await;
        }
        line.write_all(b"HTTP/1.1 200 here\r\ncontent-type: text/event-stream\r\n\r\n").await?;
        line.flush().await?;
        std::future::pending().await
    }

    async fn ask(&self, head: &str, line: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
        let mut lines = head.lines();
        let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let url = format!("https://{}{}", self.address, first[1]);
        let mut request = self.client.request(first[0].parse().unwrap(), url);
        let mut length = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "host" => {}
                _ => request = request.header(name, value),
            }
        }
        let mut body = vec![0; length];
        line.read_exact(&mut body).await?;
        let answer = request.body(body).send().await.map_err(std::io::Error::other)?;
        let mut text = format!("HTTP/1.1 {}\r\n", answer.status());
        for (name, value) in answer.headers() {
            if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
                text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
        }
        let body = answer.bytes().await.map_err(std::io::Error::other)?;
        Ok([format!("{text}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat())
    }
}
