//! Connections that are slow on purpose, and what they do to everybody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hallpass::client::{Client, Server};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::figures::percentile;
use super::flood::trust;
use super::{Plan, desk, seed};

/// How many hands have certificates issued meanwhile.
const HANDS: usize = 4;

/// How often a connection that drips sends a byte.
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// From how many addresses they come: one may not hold more than half of all connections.
const ADDRESSES: usize = 4;

async fn connect(to: SocketAddr, place: usize, tls: &tokio_rustls::TlsConnector) -> TlsStream<TcpStream> {
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(1 + place % ADDRESSES).unwrap());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    // Whoever reads nothing is soon full.
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(to).await.unwrap();
    tls.connect(ServerName::from(to.ip()), stream).await.unwrap()
}

/// All of them, each in its way of being slow: a third drips a head, a third says nothing, a third reads no answer.
async fn open(to: SocketAddr, folder: &Path, count: usize) -> Vec<TlsStream<TcpStream>> {
    let tls = tokio_rustls::TlsConnector::from(Arc::new(trust(folder, b"http/1.1")));
    let mut all = Vec::with_capacity(count);
    for place in 0..count {
        let mut one = connect(to, place, &tls).await;
        let begin: &[u8] = match place % 3 {
            0 => b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
            1 => b"",
            _ => b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
        };
        one.write_all(begin).await.unwrap();
        all.push(one);
    }
    all
}

/// A byte for each that drips, in turn; how many were taken.
async fn drip(all: &mut [TlsStream<TcpStream>]) -> usize {
    let mut taken = 0;
    for one in all.iter_mut().step_by(3) {
        taken += usize::from(one.write_all(b"a").await.is_ok());
    }
    taken
}

/// The hands' latencies over so long.
async fn others(hands: &[Client], length: Duration, number: &mut usize) -> Vec<Duration> {
    let began = Instant::now();
    let from = *number;
    let work = hands.iter().enumerate().map(|(hand, client)| async move {
        let (mut latencies, mut done) = (Vec::new(), 0);
        while began.elapsed() < length {
            let start = Instant::now();
            desk::issue(client, None, seed(8, (from + done) * HANDS + hand)).await;
            latencies.push(start.elapsed());
            done += 1;
        }
        latencies
    });
    let mut all = Vec::new();
    let [a, b, c, d] = work.collect::<Vec<_>>().try_into().ok().unwrap();
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    for latencies in [a, b, c, d] {
        *number = (*number).max(from + latencies.len());
        all.extend(latencies);
    }
    all
}

pub(crate) async fn measure(server: &Server, folder: &Path, plan: &Plan) {
    let mut hands = Vec::new();
    for place in 0..HANDS {
        hands.push(desk::log_in(server, &format!("p{place}"), place).await);
    }
    let to: SocketAddr = server.url.trim_start_matches("https://").parse().unwrap();
    let mut number = 0;
    others(&hands, plan.length / 4, &mut number).await;
    let mut before = others(&hands, plan.length, &mut number).await;
    let began = Instant::now();
    let mut all = open(to, folder, plan.slow).await;
    println!("{} slow clients, there after {:.1?}", all.len(), began.elapsed());
    let taken = std::cell::Cell::new(0);
    let dripping = async {
        loop {
            taken.set(drip(&mut all).await);
            tokio::time::sleep(DRIP_EVERY).await;
        }
    };
    let mut during = tokio::select! {
        during = others(&hands, plan.length, &mut number) => during,
        () = dripping => Vec::new(),
    };
    println!("{} of those that drip were still there at the end", taken.get());
    drop(all);
    let mut after = others(&hands, plan.length, &mut number).await;
    println!("{HANDS} hands beside them, one certificate after the other each");
    let p99 = |latencies: &mut Vec<Duration>| percentile(latencies, 99);
    for (when, latencies) in [("before", &mut before), ("with them", &mut during), ("after", &mut after)] {
        let (p50, p99) = (percentile(latencies, 50), percentile(latencies, 99));
        println!("  {when:<44} {:>7}  p50 {p50:>9.2?}  p99 {p99:>9.2?}", latencies.len());
    }
    let calm = p99(&mut before).max(p99(&mut after));
    println!("  p99 with them / without: {:.2}", p99(&mut during).as_secs_f64() / calm.as_secs_f64());
}
