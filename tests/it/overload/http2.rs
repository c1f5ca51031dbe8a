//! Floods of HTTP/2 frames, written by hand: the connection is cut, by a limit and not by time, and others are served meanwhile.
//!
//! What the limits are for: RUSTSEC-2023-0034 and CVE-2023-44487 (resets), RUSTSEC-2024-0332 (CONTINUATION), RUSTSEC-2026-0258 (empty DATA),
//! and the older floods of pings and settings.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::api::site::Site;

/// Shorter than a silent connection may live here ([`Site::new`] has half a minute): what is cut within it is cut by a limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// What no flood may reach: some hundred times the largest limit.
const FRAMES_MAX: u32 = 50_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `REFUSED_STREAM`, `ENHANCE_YOUR_CALM`.
const REFUSED: u32 = 7;
const CALM: u32 = 11;

/// GET (or POST, with a body to come) `https://ab/healthz`.
const GET: &[u8] = b"\x82\x87\x04\x08/healthz\x41\x02ab";
const POST: &[u8] = b"\x83\x87\x04\x13/v1/login/challenge\x41\x02ab";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A frame that came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn number(&self, place: usize) -> u32 {
        u32::from_be_bytes(self.payload[place..place + 4].try_into().unwrap())
    }
}

/// The next frame; `None` once the server has hung up.
async fn next(reader: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    reader.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

type Halves = (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>);

/// A connection that has begun as it should.
async fn connect(site: &Site) -> Halves {
    let (reader, mut writer) = tokio::io::split(site.raw_as(b"h2").await);
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    writer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    (reader, writer)
}

/// What came until the server hung up, while `flood` is sent, which must not be sent to its end.
async fn cut(site: &Site, flood: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Vec<Frame> {
    let (mut reader, mut writer) = connect(site).await;
    let sends = tokio::spawn(async move {
        for n in 0..FRAMES_MAX {
            if writer.write_all(&flood(n)).await.is_err() {
                return;
            }
        }
        // Not closed by us: then the server would hang up for that reason.
        std::future::pending::<()>().await;
    });
    let mut came = Vec::new();
    let read = async {
        while let Some(frame) = next(&mut reader).await {
            came.push(frame);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, read).await;
    sends.abort();
    assert!(ended.is_ok(), "not cut after {} frames of ours: {:?}", FRAMES_MAX, came.last());
    site.client(None).text("/healthz").await.unwrap();
    came
}

/// The reason the server gave, if we got to hear it before the connection broke.
fn reason(came: &[Frame]) -> Option<u32> {
    came.iter().find(|frame| frame.kind == GOAWAY).map(|frame| frame.number(4))
}

fn odd(n: u32) -> u32 {
    2 * n + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_reset_in_a_loop_are_cut() {
    let site = Site::new().await;
    // In batches, as they come in one packet.
    let came = cut(&site, |n| {
        let pair = |n| {
            let mut pair = frame(HEADERS, END_HEADERS | END_STREAM, odd(n), GET);
            pair.extend(frame(RST_STREAM, 0, odd(n), &8_u32.to_be_bytes()));
            pair
        };
        (n * 64..(n + 1) * 64).flat_map(pair).collect()
    })
    .await;
    assert!(reason(&came).is_none_or(|reason| reason == CALM), "{:?}", reason(&came));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_we_have_to_reset_are_counted_and_cut() {
    let site = Site::new().await;
    // More of a body than was announced is a stream's error, which we answer with a reset. A hundred are more than 32.
    let (mut reader, mut writer) = connect(&site).await;
    let mut announced = POST.to_vec();
    announced.extend(b"\x0f\x0d\x011");
    let mut resets = 0_u32;
    // One after the other: each is answered before the next one comes.
    let asks = async {
        'asks: for n in 0..100 {
            let mut sent = frame(HEADERS, END_HEADERS, odd(n), &announced);
            sent.extend(frame(DATA, END_STREAM, odd(n), b"ab"));
            if writer.write_all(&sent).await.is_err() {
                break;
            }
            loop {
                match next(&mut reader).await {
                    Some(frame) if frame.kind == RST_STREAM && frame.stream == odd(n) => break,
                    Some(_) => {}
                    None => break 'asks,
                }
            }
            resets += 1;
        }
    };
    tokio::time::timeout(PATIENCE, asks).await.expect("answered or cut");
    assert!((1..=32).contains(&resets), "{resets}");
    site.client(None).text("/healthz").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut() {
    let site = Site::new().await;
    for bytes in [0, 1, 16_000] {
        let came = cut(&site, move |n| match n {
            0 => frame(HEADERS, END_STREAM, 1, GET),
            _ => frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(bytes)[..bytes]),
        })
        .await;
        assert!(!came.iter().any(|frame| frame.kind == HEADERS && frame.stream == 1 && bytes != 16_000), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_without_anything_in_it_is_cut() {
    let site = Site::new().await;
    let came = cut(&site, |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, POST),
        _ => frame(DATA, 0, 1, &[]).repeat(16),
    })
    .await;
    assert!(reason(&came).is_none_or(|reason| reason == CALM), "{:?}", reason(&came));
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_settings_without_a_request_are_cut_and_hold_up_nobody() {
    let site = Site::with(|settings| settings.request_timeout = Duration::from_millis(400)).await;
    let alice = site.logged_in("alice").await;
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])] {
        for reads in [true, false] {
            let (mut reader, mut writer) = connect(&site).await;
            let many = flood.repeat(100);
            let sends = tokio::spawn(async move { while writer.write_all(&many).await.is_ok() {} });
            let reads = tokio::spawn(async move {
                if reads {
                    while next(&mut reader).await.is_some() {}
                } else {
                    sends.await.unwrap();
                }
            });
            alice.get::<hallpass::wire::WhoAmI>("/v1/session").await.unwrap();
            // Nothing is under way on it, and what it says does not count as something.
            tokio::time::timeout(PATIENCE, reads).await.expect("cut").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused_alone() {
    let site = Site::new().await;
    let (mut reader, mut writer) = connect(&site).await;
    // One header of 20 KiB, as a literal that is not indexed.
    let mut head = GET.to_vec();
    head.extend(b"\x00\x01x\x7f\x81\x9f\x01");
    head.extend(vec![b'y'; 20_480]);
    let (first, rest) = head.split_at(16_000);
    let mut sent = frame(HEADERS, END_STREAM, 1, first);
    sent.extend(frame(CONTINUATION, END_HEADERS, 1, rest));
    sent.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, GET));
    writer.write_all(&sent).await.unwrap();
    let (mut refused, mut served) = (false, false);
    let read = async {
        while !served {
            let frame = next(&mut reader).await.expect("the connection lives");
            match (frame.kind, frame.stream) {
                // 431 is in no table of HPACK: its digits are there.
                (HEADERS, 1) => {
                    refused = frame.payload.windows(3).any(|text| text == b"431") || frame.payload[0] != 0x88;
                }
                (RST_STREAM, 1) => refused = true,
                // 200 is.
                (HEADERS, 3) => served = frame.payload[0] == 0x88,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("served");
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_at_once_than_one_connection_may_have_is_refused() {
    let site = Site::new().await;
    let (mut reader, mut writer) = connect(&site).await;
    // Each waits for its body.
    let opened: Vec<u8> = (0..70).flat_map(|n| frame(HEADERS, END_HEADERS, odd(n), POST)).collect();
    writer.write_all(&opened).await.unwrap();
    writer.write_all(&frame(PING, 0, 0, b"the last")).await.unwrap();
    let (mut said, mut refused) = (Vec::new(), Vec::new());
    let read = async {
        loop {
            let frame = next(&mut reader).await.expect("the connection lives");
            match frame.kind {
                SETTINGS if frame.flags == 0 => said = frame.payload,
                RST_STREAM => {
                    assert_eq!(frame.number(0), REFUSED);
                    refused.push(frame.stream);
                }
                PING => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("answered");
    let settings: Vec<(u8, u32)> =
        said.chunks(6).map(|one| (one[1], u32::from_be_bytes(one[2..].try_into().unwrap()))).collect();
    // MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE.
    assert!(settings.contains(&(3, 64)) && settings.contains(&(6, 16 * 1024)), "{settings:?}");
    assert!(!refused.is_empty() && refused.iter().all(|stream| *stream > odd(63)), "{refused:?}");
    site.client(None).text("/healthz").await.unwrap();
}
