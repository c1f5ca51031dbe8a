//! A database server that speaks the protocol wrongly: **a fake**, by hand, which answers every statement the same way. Whoever
//! opens a store on it gets an error, in bounded time, and nothing panics (RUSTSEC-2026-0178 to 0180).

use std::sync::mpsc;
use std::time::Duration;

use hallpass::identity::mac::MacKey;
use hallpass::store::StoreError;
use hallpass::store::postgres::{PostgresStore, Server, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longer than all of the store's own deadlines below.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the fake does wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// SCRAM with so many rounds that answering would take hours.
    ManyRounds,
    /// SCRAM with what is no server's message.
    NoScram,
    /// A way to log in that there is not.
    UnknownLogin,
    /// Bytes after the login that are no message.
    Garbage,
    /// A message that says it is two gigabytes long.
    Endless,
    /// A message shorter than its own head.
    NoLength,
    /// Rows with fewer columns than were announced.
    FewColumns,
    /// No column was announced.
    NoColumns,
    /// A row that says it has more values than bytes.
    ManyColumns,
    /// A value of 2 bytes for what takes 4.
    ShortValue,
    /// A value that reaches beyond its row.
    LongValue,
    /// Another type than was asked for.
    OtherType,
    /// A type that nobody knows, with text that is not UTF-8.
    NoText,
    /// A statement that takes other parameters than it has.
    OtherParameters,
    /// Answers to what was not asked.
    OutOfTurn,
    /// The end of the connection in the middle of a message.
    HangsUp,
    /// Nothing more.
    Silence,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

/// `RowDescription` of so many columns of this type, and of this many bytes.
fn described(count: u16, kind: u32, size: u16) -> Vec<u8> {
    let column = [&b"c\0"[..], &[0; 6], &kind.to_be_bytes(), &size.to_be_bytes(), &[0xff; 4], &[0, 1]].concat();
    message(b'T', &[&count.to_be_bytes()[..], &column.repeat(usize::from(count))].concat())
}

/// `DataRow` that says it has so many values.
fn row(count: u16, values: &[u8]) -> Vec<u8> {
    message(b'D', &[&count.to_be_bytes()[..], values].concat())
}

const INT4: u32 = 23;
const TEXT: u32 = 25;
const NOBODYS: u32 = 99_999;

impl Wrong {
    const ALL: [Self; 17] = [
        Self::ManyRounds,
        Self::NoScram,
        Self::UnknownLogin,
        Self::Garbage,
        Self::Endless,
        Self::NoLength,
        Self::FewColumns,
        Self::NoColumns,
        Self::ManyColumns,
        Self::ShortValue,
        Self::LongValue,
        Self::OtherType,
        Self::NoText,
        Self::OtherParameters,
        Self::OutOfTurn,
        Self::HangsUp,
        Self::Silence,
    ];

    /// What it says to a message of this kind.
    fn answer(self, kind: u8) -> Vec<u8> {
        let value = |length: i32, bytes: &[u8]| [&length.to_be_bytes()[..], bytes].concat();
        match (kind, self) {
            (b'P', Self::OutOfTurn) => [message(b'2', &[]), row(1, &value(1, b"t"))].concat(),
            (b'P', Self::HangsUp) => vec![b'1', 0, 0],
            (b'P', _) => message(b'1', &[]),
            (b'D', Self::OtherParameters) => {
                let many = [&5_u16.to_be_bytes()[..], &INT4.to_be_bytes().repeat(5)].concat();
                [message(b't', &many), described(1, INT4, 4)].concat()
            }
            (b'D', wrong) => {
                let columns = match wrong {
                    Self::FewColumns => described(9, INT4, 4),
                    Self::NoColumns => described(0, INT4, 4),
                    Self::OtherType => described(1, TEXT, 4),
                    Self::NoText => described(1, NOBODYS, 4),
                    _ => described(1, INT4, 4),
                };
                [message(b't', &[0, 0]), columns].concat()
            }
            (b'B', _) => message(b'2', &[]),
            (b'E', wrong) => {
                let row = match wrong {
                    Self::FewColumns => row(1, &value(4, &[0; 4])),
                    Self::NoColumns => row(0, &[]),
                    Self::ManyColumns => row(u16::MAX, &value(4, &[0; 4])),
                    Self::ShortValue => row(1, &value(2, &[0; 2])),
                    Self::LongValue => row(1, &value(i32::MAX, &[0; 4])),
                    Self::NoText => row(1, &value(4, &[0xff; 4])),
                    _ => row(1, &value(4, b"true")),
                };
                [row, message(b'C', b"SELECT 1\0")].concat()
            }
            (b'Q', _) => [message(b'C', b"BEGIN\0"), message(b'Z', b"I")].concat(),
            (b'S', _) => message(b'Z', b"I"),
            _ => Vec::new(),
        }
    }

    /// Speaks with one client until that goes away.
    async fn speaks(self, mut client: TcpStream) -> std::io::Result<()> {
        let length = client.read_u32().await?;
        client.read_exact(&mut vec![0; usize::try_from(length).unwrap() - 4]).await?;
        let sasl = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
        match self {
            Self::ManyRounds | Self::NoScram => client.write_all(&message(b'R', &sasl)).await?,
            Self::UnknownLogin => client.write_all(&message(b'R', &77_u32.to_be_bytes())).await?,
            _ => {
                client.write_all(&message(b'R', &[0; 4])).await?;
                client.write_all(&message(b'K', &[0; 8])).await?;
                let more = match self {
                    Self::Garbage => b"\xff\xfe\xfd no message of this protocol at all \0\0\0\0".repeat(9),
                    Self::Endless => [&[b'Z'][..], &0x7fff_ffff_u32.to_be_bytes(), &[0; 99]].concat(),
                    Self::NoLength => vec![b'Z', 0, 0, 0, 1],
                    Self::Silence => Vec::new(),
                    _ => message(b'Z', b"I"),
                };
                client.write_all(&more).await?;
            }
        }
        loop {
            let kind = client.read_u8().await?;
            let length = client.read_u32().await?;
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            client.read_exact(&mut body).await?;
            let answer = match (kind, self) {
                (b'p', Self::ManyRounds) => {
                    let text = String::from_utf8_lossy(&body);
                    let nonce = text.split("r=").nth(1).unwrap();
                    let said = format!("r={nonce}more,s=c2FsdA==,i={}", u32::MAX);
                    message(b'R', &[&11_u32.to_be_bytes()[..], said.as_bytes()].concat())
                }
                (b'p', _) => message(b'R', &[&11_u32.to_be_bytes()[..], &b"r=,s=,i=\xff"[..]].concat()),
                (kind, wrong) => wrong.answer(kind),
            };
            client.write_all(&answer).await?;
            if matches!(self, Self::HangsUp) && kind == b'P' {
                return Ok(());
            }
        }
    }
}

/// What comes of opening a store on it, on threads of its own: a client that is kept busy answers to no clock of its own.
fn opened(wrong: Wrong) -> Result<(), StoreError> {
    let (told, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(wrong.speaks(client));
                }
            });
            let folder = tempfile::tempdir().unwrap();
            let password = folder.path().join("password");
            hallpass::durable::create(&password, b"secret\n", 0o600).unwrap();
            let settings = Settings {
                server: Server::plain("127.0.0.1".to_owned()).unwrap(),
                port,
                database: "hallpass".to_owned(),
                user: "hallpass".to_owned(),
                password_path: Some(password),
                connections: 1,
                connect_timeout: Duration::from_secs(1),
                statement_timeout: Duration::from_secs(1),
                lock_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(1),
            };
            // In a task of its own, whose panic is told apart from an error.
            tokio::spawn(async move { PostgresStore::open(&settings, MacKey::new([1; 32])).await.map(drop) }).await
        });
        told.send(outcome.expect("a panic")).unwrap_or_default();
        runtime.shutdown_background();
    });
    hears.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("{wrong:?}: no answer: {why}"))
}

#[test]
fn a_server_that_speaks_the_protocol_wrongly_is_an_error_in_bounded_time_and_no_panic() {
    let all = Wrong::ALL.map(|wrong| (wrong, std::thread::spawn(move || opened(wrong))));
    for (wrong, opening) in all {
        let outcome = opening.join().unwrap_or_else(|_| panic!("{wrong:?}: a panic"));
        assert!(matches!(outcome, Err(StoreError::Failed { .. })), "{wrong:?}: {outcome:?}");
    }
}
