//! A proxy in front of a PostgreSQL server that cuts the connection at a `COMMIT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of the next `COMMIT`; what was sent before it reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is answered.
    Never = 0,
    /// It never reaches the server.
    Before = 1,
    /// It does, and its answer is lost.
    After = 2,
    /// The same, and from then on nobody can connect.
    ForGood = 3,
    /// Nobody can connect.
    Closed = 4,
}

/// The proxy; ends with the runtime.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    next: Arc<AtomicU8>,
}

/// A simple query of these six letters: type, length, text, zero.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// The server's last word about it: it is ready, and not within a transaction.
const DONE: &[u8] = b"Z\0\0\0\x05I";

impl Proxy {
    /// In front of this port of the loopback address.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, next: Arc::new(AtomicU8::new(Cut::Never as u8)) };
        let shared = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.next.load(Ordering::SeqCst) == Cut::Closed as u8 {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(shared.clone().carry(client, server));
            }
        });
        proxy
    }

    /// The next `COMMIT` goes so.
    pub(crate) fn cut(&self, cut: Cut) {
        self.next.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether the cut has been made.
    pub(crate) fn is_done(&self) -> bool {
        let next = self.next.load(Ordering::SeqCst);
        next == Cut::Never as u8 || next == Cut::Closed as u8
    }

    async fn carry(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                count = client.read(&mut asked) => {
                    let Ok(count @ 1..) = count else { return };
                    let next = self.next.load(Ordering::SeqCst);
                    let cuts = [Cut::Before, Cut::After, Cut::ForGood].map(|cut| cut as u8);
                    if cuts.contains(&next) && asked[..count].ends_with(COMMIT) {
                        let reaches = if next == Cut::Before as u8 { count - COMMIT.len() } else { count };
                        server.write_all(&asked[..reaches]).await.unwrap();
                        if reaches == count {
                            // The answers are here, and go no further.
                            until_done(&mut server, &mut answered).await;
                        }
                        self.cut(if next == Cut::ForGood as u8 { Cut::Closed } else { Cut::Never });
                        return;
                    }
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                }
                count = server.read(&mut answered) => {
                    let Ok(count @ 1..) = count else { return };
                    if client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

async fn until_done(server: &mut TcpStream, answered: &mut [u8]) {
    let mut last = Vec::new();
    while !last.ends_with(DONE) {
        let count = server.read(answered).await.unwrap();
        assert!(count > 0);
        last.extend_from_slice(&answered[..count]);
    }
}
